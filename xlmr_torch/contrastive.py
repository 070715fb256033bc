"""Losses of sentence embeddings: over all texts of a batch at once, so that they need the vectors of every process.

Shapes: B pairs, N texts that one of a pair is compared with (N >= B), D width of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from xlmr_core.training.refusals import check_widths

__all__ = ["cosent", "embedding_loss", "in_batch_negatives", "pooled"]


def pooled(states_BSD: Tensor, mask_BS: Tensor, pooling: str) -> Tensor:
    """(B, D) in float32: the mean of the states of real tokens, or the state of the first one (``cls``)."""
    if pooling == "cls":
        return states_BSD[:, 0].float()
    weights_BS1 = mask_BS[..., None].float()
    return (states_BSD.float() * weights_BS1).sum(1) / weights_BS1.sum(1)


def in_batch_negatives(
    first_BD: Tensor, others_ND: Tensor, group_B: Tensor, temperature: float, texts_k: Tensor | None = None
) -> Tensor:
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
    first_BD, others_ND = F.normalize(first_BD, dim=-1), F.normalize(others_ND, dim=-1)
    scores_BN = first_BD @ others_ND.T / temperature
    pairs = len(first_BD)
    same_BN = F.pad(group_B[:, None] == group_B, (0, scores_BN.shape[1] - pairs))
    if texts_k is not None:
        first_B, others_N = texts_k[:pairs], texts_k[pairs:]
        of_first_BB, alike_BN = first_B[:, None] == first_B, others_N[:pairs, None] == others_N
        same_BN |= (first_B[:, None] == others_N) | (of_first_BB.float() @ alike_BN.float() > 0)
    same_BN[:, :pairs].fill_diagonal_(False)
    scores_BN = scores_BN.masked_fill(same_BN, -torch.inf)
    right_B = torch.arange(pairs, device=scores_BN.device)
    back_BB = scores_BN[:, :pairs].T
    return (F.cross_entropy(scores_BN, right_B) + F.cross_entropy(back_BB, right_B)) / 2


def cosent(first_BD: Tensor, second_BD: Tensor, score_B: Tensor, temperature: float) -> Tensor:
    """Pairs with a higher score are to have a higher cosine: log(1 + sum of exp of what is in the wrong order).

    Su 2022, CoSENT (https://kexue.fm/archives/8847).

    Args:
        first_BD, second_BD: the texts of the pairs.
        score_B: how alike the texts of each pair are.
        temperature: what differences of cosines are divided by.
    """
    cosines_B = F.cosine_similarity(first_BD, second_BD) / temperature
    wrong_BB = cosines_B[None] - cosines_B[:, None]
    wrong_BB = wrong_BB.masked_fill(score_B[:, None] <= score_B, -torch.inf)
    return torch.cat([wrong_BB.new_zeros(1), wrong_BB.flatten()]).logsumexp(0)


def embedding_loss(
    vectors_kBD: Tensor, batch: dict[str, Tensor], temperature: float, widths: Sequence[int] = ()
) -> Tensor:
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
            first_BD, second_BD = cut_kBD.split(len(batch["labels"]))
            losses.append(cosent(first_BD, second_BD, batch["labels"], temperature))
        else:
            pairs = len(batch["group"])
            sides = cut_kBD[:pairs], cut_kBD[pairs:]
            losses.append(in_batch_negatives(*sides, batch["group"], temperature, batch.get("texts")))
    return torch.stack(losses).mean()
