"""Losses of sentence embeddings: over all texts of a batch at once.

Shapes: B pairs, N texts that one of a pair is compared with (N >= B), D width of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from xlmr_core.training.refusals import check_widths

__all__ = ["cosent", "embedding_loss", "in_batch_negatives", "pooled"]

# Of a squared length, below which a vector counts as this long.
LEAST = 1e-24


def pooled(states_BSD: tf.Tensor, mask_BS: tf.Tensor, pooling: str) -> tf.Tensor:
    """(B, D) in float32: the mean of the states of real tokens, or the state of the first one (``cls``)."""
    if pooling == "cls":
        return tf.cast(states_BSD[:, 0], tf.float32)
    weights_BS1 = tf.cast(mask_BS, tf.float32)[..., None]
    return tf.reduce_sum(tf.cast(states_BSD, tf.float32) * weights_BS1, 1) / tf.reduce_sum(weights_BS1, 1)


def in_batch_negatives(
    first_BD: tf.Tensor, others_ND: tf.Tensor, group_B: tf.Tensor, temperature: float, texts_k: tf.Tensor | None = None
) -> tf.Tensor:
    """Each text is to be closest to the one that belongs to it, of all in the batch; in both directions.

    The softmax over cosines of van den Oord et al. 2018 (InfoNCE), in both directions as in Feng et al. 2022 (LaBSE).

    Args:
        first_BD: the first texts of the pairs.
        others_ND: the second ones in the same order, and behind them texts that belong to none (hard negatives).
        group_B: integers; the texts of pairs of one group are no negatives of each other.
        temperature: what cosines are divided by.
        texts_k: (B + N,) integers, by which texts are told apart. What belongs to a text in any pair of the batch is no
            negative of it, and neither is the text itself.
    """
    first_BD, others_ND = (tf.math.l2_normalize(x, -1, LEAST) for x in (first_BD, others_ND))
    scores_BN = tf.matmul(first_BD, others_ND, transpose_b=True) / temperature
    pairs, count = tf.shape(first_BD)[0], tf.shape(others_ND)[0]
    same_BN = tf.pad(group_B[:, None] == group_B, [[0, 0], [0, count - pairs]])
    if texts_k is not None:
        first_B, others_N = texts_k[:pairs], texts_k[pairs:]
        of_first_BB = tf.cast(first_B[:, None] == first_B, tf.float32)
        alike_BN = tf.cast(others_N[:pairs, None] == others_N, tf.float32)
        same_BN |= (first_B[:, None] == others_N) | (tf.matmul(of_first_BB, alike_BN) > 0)
    same_BN &= ~tf.eye(pairs, count, dtype=tf.bool)
    scores_BN = tf.where(same_BN, -np.inf, scores_BN)
    right_B = tf.range(pairs)
    forth_B = tf.nn.sparse_softmax_cross_entropy_with_logits(right_B, scores_BN)
    back_B = tf.nn.sparse_softmax_cross_entropy_with_logits(right_B, tf.transpose(scores_BN[:, :pairs]))
    return (tf.reduce_mean(forth_B) + tf.reduce_mean(back_B)) / 2


def cosent(first_BD: tf.Tensor, second_BD: tf.Tensor, score_B: tf.Tensor, temperature: float) -> tf.Tensor:
    """Pairs with a higher score are to have a higher cosine: log(1 + sum of exp of what is in the wrong order).

    Su 2022, CoSENT (https://kexue.fm/archives/8847).

    Args:
        first_BD, second_BD: the texts of the pairs.
        score_B: how alike the texts of each pair are.
        temperature: what differences of cosines are divided by.
    """
    first_BD, second_BD = (tf.math.l2_normalize(x, -1, LEAST) for x in (first_BD, second_BD))
    cosines_B = tf.reduce_sum(first_BD * second_BD, -1) / temperature
    wrong_BB = tf.where(score_B[:, None] <= score_B, -np.inf, cosines_B[None] - cosines_B[:, None])
    return tf.reduce_logsumexp(tf.concat([tf.zeros(1), tf.reshape(wrong_BB, (-1,))], 0))


def embedding_loss(
    vectors_kBD: tf.Tensor, batch: Mapping[str, tf.Tensor], temperature: float, widths: Sequence[int] = ()
) -> tf.Tensor:
    """The loss of a whole batch of sentence embeddings.

    Args:
        vectors_kBD: (k B, D): B first texts, the B second ones, and B each of texts that belong to none.
        batch: ``labels`` float (B,) where pairs have scores, else ``group`` (B,), and perhaps ``texts`` (k B,), see
            :func:`in_batch_negatives`.
        temperature: of either loss.
        widths: the same loss is taken of the first so many numbers of a vector too, and the mean of all is trained
            (Kusupati et al. 2022, Matryoshka).

    Raises:
        InputError: for a width above D.
    """
    width = vectors_kBD.shape[-1]
    check_widths(widths, width)
    pairs = tf.shape(batch["labels"] if "labels" in batch else batch["group"])[0]
    losses = []
    for size in sorted({width, *widths}):
        first_BD, others_ND = vectors_kBD[:pairs, :size], vectors_kBD[pairs:, :size]
        if "labels" in batch:
            losses.append(cosent(first_BD, others_ND, batch["labels"], temperature))
        else:
            losses.append(in_batch_negatives(first_BD, others_ND, batch["group"], temperature, batch.get("texts")))
    return tf.reduce_mean(tf.stack(losses))
