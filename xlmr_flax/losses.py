"""The losses that ``xlmr_core/losses.py`` describes, in float32 whatever the logits' dtype. Pure functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from xlmr_core.checks import IGNORE_INDEX
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.losses import Problem, sequence_problem
from xlmr_flax.inputs import is_concrete, is_integer
from xlmr_flax.linear import accumulator
from xlmr_flax.packing import bucket

__all__ = ["cross_entropy", "labelled_cross_entropy", "sequence_loss", "span_loss"]

Project = Callable[[Any, Array], Array]

# In so many parts a row's positions are projected; labels of masked language modelling fit into the first.
PARTS = 4


@jax.jit
def cross_entropy(logits_nV: Array, labels_n: Array, divisor: Array | float | None = None) -> Array:
    """Mean negative log-likelihood of the labels that are not -100.

    Args:
        logits_nV: (..., V), any floating dtype.
        labels_n: integers (...).
        divisor: divides the sum in place of the number of labels that count.

    Returns:
        A float32 scalar; without a divisor NaN if no label counts.
    """
    count = (labels_n != IGNORE_INDEX).sum() if divisor is None else divisor
    return _summed(logits_nV, labels_n) / count


def _summed(logits_nV: Array, labels_n: Array) -> Array:
    """The negative log-likelihoods of the labels that are not -100, added up."""
    logits_nV = logits_nV.astype(accumulator(logits_nV.dtype))
    counted = labels_n != IGNORE_INDEX
    chosen = jnp.where(counted, labels_n, 0)[..., None]
    likelihoods = jnp.take_along_axis(logits_nV, chosen, axis=-1)[..., 0] - jax.nn.logsumexp(logits_nV, axis=-1)
    return -jnp.where(counted, likelihoods, 0).sum()


def labelled_cross_entropy(project: Project, params: Any, states_RWD: Array, labels_RW: Any) -> Array:
    """:func:`cross_entropy` of projected states, which projects where labels are, and never all positions at once.

    The labels of each row are put in front, with their states. Where the labels have their values, the most that a row
    has are projected. A compiled program does not know how many these are: it projects the first quarter of the rows,
    and goes on, a quarter after the other, as long as a row has more; in the backward pass it projects further quarters
    once more. That is a loop, so that only reverse mode knows its derivative, and no second one.

    Args:
        project: (params, (R, n, D)) to logits (R, n, V). A function of a module, not one made for the call.
        params: a tree, whose floating point leaves gradients reach.
        states_RWD: of every position.
        labels_RW: integers, -100 where there is none.
    """
    rows, width = labels_RW.shape
    leaves, tree = jax.tree.flatten(params)
    trained = tuple(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves)
    floats = [leaf for leaf, own in zip(leaves, trained, strict=True) if own]
    others = [leaf for leaf, own in zip(leaves, trained, strict=True) if not own]
    projection = _Projection(project, tree, trained)
    if is_concrete(labels_RW):
        labels_RW = np.asarray(labels_RW)
        most = int((labels_RW != IGNORE_INDEX).sum(1).max(initial=1))
        columns_RQ = np.argsort(labels_RW == IGNORE_INDEX, axis=1, kind="stable")[:, : bucket(most)]
        labels_RQ = np.take_along_axis(labels_RW, columns_RQ, axis=1)
        return projection.loss(floats, others, states_RWD, columns_RQ, labels_RQ) / (labels_RW != IGNORE_INDEX).sum()
    part = -(-width // PARTS)
    labelled_RW = labels_RW != IGNORE_INDEX
    # Positions that fill a row up to whole parts have no label, so that it does not matter which they are.
    fill = ((0, 0), (0, PARTS * part - width))
    columns_RW = jnp.argsort(~labelled_RW, axis=1, stable=True)
    ordered_RW = jnp.take_along_axis(labels_RW, columns_RW, axis=1)
    columns_RX, ordered_RX = jnp.pad(columns_RW, fill), jnp.pad(ordered_RW, fill, constant_values=IGNORE_INDEX)
    places_PRQ = tuple(x.reshape(rows, PARTS, part).swapaxes(0, 1) for x in (columns_RX, ordered_RX))
    count = -(-labelled_RW.sum(1).max() // part)
    return _of_parts(projection, floats, states_RWD, (others, *places_PRQ, count)) / labelled_RW.sum()


@dataclass(frozen=True)
class _Projection:
    """How states become logits: a function, and how its tree of parameters is made of its leaves."""

    project: Project
    tree: Any
    trained: tuple[bool, ...]

    def loss(
        self, floats: list[Array], others: list[Array], states_RWD: Array, columns_RQ: Any, labels_RQ: Any
    ) -> Array:
        """The sum of the losses at some columns of each row."""
        leaves = {True: iter(floats), False: iter(others)}
        params = jax.tree.unflatten(self.tree, [next(leaves[own]) for own in self.trained])
        states_RQD = jnp.take_along_axis(states_RWD, columns_RQ[..., None], axis=1)
        return _summed(self.project(params, states_RQD), labels_RQ)

    def of_part(self, number: Any, places: Any) -> Callable[[list[Array], Array], Array]:
        """The same in a part, as a function of what gradients reach."""
        others, columns_PRQ, labels_PRQ, _ = places
        return lambda floats, states_RWD: self.loss(floats, others, states_RWD, columns_PRQ[number], labels_PRQ[number])


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _of_parts(projection: _Projection, floats: list[Array], states_RWD: Array, places: Any) -> Array:
    """The sum of the losses in the first parts, as many as ``places`` says; of the first part always."""
    return _and_further(projection, floats, states_RWD, places, projection.of_part(0, places)(floats, states_RWD))


def _and_further(projection: _Projection, floats: list[Array], states_RWD: Array, places: Any, first: Array) -> Array:
    def more(number: Array, total: Array) -> Array:
        return total + projection.of_part(number, places)(floats, states_RWD)

    total: Array = _while(places[-1], first, more)
    return total


def _forward(projection: _Projection, floats: list[Array], states_RWD: Array, places: Any) -> tuple[Array, Any]:
    first, pull = jax.vjp(projection.of_part(0, places), floats, states_RWD)
    total = _and_further(projection, floats, states_RWD, places, first)
    return total, (pull, floats, states_RWD, places)


def _backward(projection: _Projection, kept: Any, gradient: Array) -> tuple[Any, ...]:
    pull, floats, states_RWD, places = kept

    def more(number: Array, found: Any) -> Any:
        again = jax.vjp(projection.of_part(number, places), floats, states_RWD)[1]
        return jax.tree.map(jnp.add, found, again(gradient))

    return (*_while(places[-1], pull(gradient), more), None)


def _while(count: Array, value: Any, step: Callable[[Array, Any], Any]) -> Any:
    """The value after the steps from 1 to below a count; a loop that goes on adds to it where it lies."""
    start = (jnp.ones((), count.dtype), value)
    return jax.lax.while_loop(lambda at: at[0] < count, lambda at: (at[0] + 1, step(*at)), start)[1]


_of_parts.defvjp(_forward, _backward)


def sequence_loss(config: XLMRobertaConfig, logits_BK: Array, labels: Array) -> Array:
    """The loss of a sequence classifier, by the problem that config and labels mean.

    Args:
        logits_BK: (B, K).
        labels: as :func:`xlmr_core.head_checks.check_sequence_labels` lets them pass.
    """
    problem = sequence_problem(config, labels_are_integers=is_integer(labels))
    if problem is Problem.SINGLE_LABEL:
        return cross_entropy(logits_BK, labels.reshape(-1))
    logits_BK = logits_BK.astype(accumulator(logits_BK.dtype))
    labels = labels.astype(logits_BK.dtype)
    if problem is Problem.MULTI_LABEL:
        return _binary_cross_entropy(logits_BK, labels)
    return jnp.square(logits_BK.reshape(-1) - labels.reshape(-1)).mean()


@jax.jit
def _binary_cross_entropy(logits: Array, labels: Array) -> Array:
    return (jnp.maximum(logits, 0) - logits * labels + jnp.log1p(jnp.exp(-jnp.abs(logits)))).mean()


def span_loss(start_logits_BS: Array, end_logits_BS: Array, start_B: Array, end_B: Array) -> Array:
    """Mean of the start's and the end's cross-entropy over positions; a position outside the sequence is ignored.

    Args:
        start_logits_BS, end_logits_BS: (B, S).
        start_B, end_B: integers (B,) or (B, 1).
    """
    length = start_logits_BS.shape[1]
    losses = []
    for logits_BS, positions in ((start_logits_BS, start_B), (end_logits_BS, end_B)):
        positions = jnp.asarray(positions).reshape(-1).clip(0, length)
        losses.append(cross_entropy(logits_BS, jnp.where(positions == length, IGNORE_INDEX, positions)))
    return (losses[0] + losses[1]) / 2
