"""From the states of many tokens to few vectors, where the states are."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tensorflow as tf

__all__ = ["POOLED", "largest", "weighted"]


def weighted(states_BSD: tf.Tensor, weights_BPS: tf.Tensor) -> tf.Tensor:
    """(B, P, D): sums of the states, each times its weight."""
    return tf.linalg.matmul(weights_BPS, states_BSD)


def largest(states_BSD: tf.Tensor, weights_BPS: tf.Tensor) -> tf.Tensor:
    """(B, P, D): the largest numbers of the states whose weight is not zero."""
    lowest = states_BSD.dtype.min
    # One after the other: all at once would be as many copies of the states.
    found = [
        tf.reduce_max(tf.where(weights_BS[..., None] == 0, lowest, states_BSD), axis=1)
        for weights_BS in tf.unstack(weights_BPS, axis=1)
    ]
    return tf.stack(found, axis=1)


POOLED: Mapping[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {"pooled": weighted, "largest": largest}
