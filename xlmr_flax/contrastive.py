"""Losses of sentence embeddings: over all texts of a batch at once. Pure functions, in float32.

Shapes: B pairs, N texts that one of a pair is compared with (N >= B), D width of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from xlmr_core.training.refusals import check_widths
from xlmr_flax.losses import cross_entropy

__all__ = ["cosent", "embedding_loss", "in_batch_negatives", "pooled"]


def pooled(states_BSD: Array, mask_BS: Array, pooling: str) -> Array:
    """(B, D) in float32: the mean of the states of real tokens, or the state of the first one (``cls``)."""
    states_BSD = states_BSD.astype(jnp.float32)
    if pooling == "cls":
        return states_BSD[:, 0]
    weights_BS1 = mask_BS[..., None].astype(jnp.float32)
    return (states_BSD * weights_BS1).sum(1) / weights_BS1.sum(1)


def in_batch_negatives(
    first_BD: Array, others_ND: Array, group_B: Array, temperature: float, texts_k: Array | None = None
) -> Array:
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
    scores_BN = _unit(first_BD) @ _unit(others_ND).T / temperature
    pairs, others = scores_BN.shape
    same_BN = jnp.pad(group_B[:, None] == group_B, ((0, 0), (0, others - pairs)))
    if texts_k is not None:
        first_B, others_N = texts_k[:pairs], texts_k[pairs:]
        of_first_BB, alike_BN = first_B[:, None] == first_B, others_N[:pairs, None] == others_N
        same_BN |= (first_B[:, None] == others_N) | (of_first_BB.astype(jnp.float32) @ alike_BN.astype(jnp.float32) > 0)
    scores_BN = jnp.where(same_BN & ~jnp.eye(pairs, others, dtype=bool), -jnp.inf, scores_BN)
    right_B = jnp.arange(pairs)
    return (cross_entropy(scores_BN, right_B) + cross_entropy(scores_BN[:, :pairs].T, right_B)) / 2


def cosent(first_BD: Array, second_BD: Array, score_B: Array, temperature: float) -> Array:
    """Pairs with a higher score are to have a higher cosine: log(1 + sum of exp of what is in the wrong order).

    Su 2022, CoSENT (https://kexue.fm/archives/8847).

    Args:
        first_BD, second_BD: the texts of the pairs.
        score_B: how alike the texts of each pair are.
        temperature: what differences of cosines are divided by.
    """
    cosines_B = (_unit(first_BD) * _unit(second_BD)).sum(-1) / temperature
    wrong_BB = jnp.where(score_B[:, None] <= score_B, -jnp.inf, cosines_B[None] - cosines_B[:, None])
    return jax.nn.logsumexp(jnp.append(wrong_BB, 0.0))


def embedding_loss(
    vectors_kBD: Array, batch: Mapping[str, Any], temperature: float, widths: Sequence[int] = ()
) -> Array:
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
    losses = []
    for size in sorted({width, *widths}):
        cut_kBD = vectors_kBD[:, :size]
        if "labels" in batch:
            losses.append(cosent(*jnp.split(cut_kBD, 2), batch["labels"], temperature))
        else:
            sides = jnp.split(cut_kBD, [len(batch["group"])])
            losses.append(in_batch_negatives(*sides, batch["group"], temperature, batch.get("texts")))
    return jnp.stack(losses).mean()


def _unit(x: Array) -> Array:
    """The vectors at length one."""
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
