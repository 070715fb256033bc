"""Initial weights for a short run: counts give the words, sinusoids the places, and attention starts at the neighbours.

From nothing, a masked-language model spends much of a short run on learning how frequent tokens are, which language
they belong to, and that the tokens next door matter. Minutes of counting tell it all of that. Everything is trained
afterwards like any other weight.

Sources: word vectors from co-occurrence (Levy and Goldberg 2014), sinusoids (Vaswani et al. 2017), attention started
from a useful pattern (Trockman and Kolter 2023, "Mimetic initialization of self-attention layers").
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from torch import nn

from weights.maker.rows import SPECIAL, Rows

WINDOW = 4  # places to either side that count as together
COUNTED = 6_000_000  # tokens to count; more change little
DEVIATION = 0.02  # of the word vectors, as in XLM-R's own initialisation
OFFSETS = ((-1, 1, -2, 2), (-1, 1, -3, 3))  # where the heads of the first layers look; further layers start as usual
AMPLITUDE = 0.03  # of the sinusoids, against the words' deviation
QUIET = 0.25  # how loud the words are in the dimensions of the sinusoids
PASSED = 0.7  # how much of what a head looks at it passes on


@torch.no_grad()
def informed(model: nn.Module, rows: Rows, seed: int) -> None:
    """Give a fresh `XLMRobertaForMaskedLM` initial weights that know the counts of `rows` and where neighbours are.

    Args:
        model: with absolute positions and as many heads as `OFFSETS` has columns.
        rows: the training rows.
        seed: of all that is drawn.
    """
    rng = torch.Generator().manual_seed(seed)
    embeddings = model.get_submodule("roberta.embeddings")
    positions = embeddings.get_parameter("position_embeddings.weight")
    words = embeddings.get_parameter("word_embeddings.weight")
    vocabulary, hidden = words.shape
    size = hidden // len(OFFSETS[0])

    sample = _sample(rows, seed)
    counts = np.bincount(sample[0], minlength=vocabulary).astype(np.float64)
    model.get_parameter("lm_head.bias").copy_(torch.from_numpy(np.log((counts + 0.5) / counts.sum())))
    words[SPECIAL + 1 : -1] = word_vectors(sample, counts, hidden, rng)[SPECIAL + 1 : -1]
    words[:, -size:] *= QUIET
    model.get_parameter("lm_head.dense.weight").add_(torch.eye(hidden))

    frequencies = _frequencies(size // 2, rng)
    angles = torch.arange(len(positions))[:, None] * frequencies
    positions[2:, -size:] = AMPLITUDE * torch.cat([angles.sin(), angles.cos()], dim=1)[2:]
    for layer, offsets in enumerate(OFFSETS):
        attention = model.get_submodule(f"roberta.encoder.layer.{layer}.attention")
        query, key = attention.get_parameter("self.query.weight"), attention.get_parameter("self.key.weight")
        value, output = attention.get_parameter("self.value.weight"), attention.get_parameter("output.dense.weight")
        for head, offset in enumerate(offsets):
            part = slice(head * size, (head + 1) * size)
            query[part, -size:] += _rotation(offset * frequencies)
            key[part, -size:] += torch.eye(size)
            content = torch.zeros(size, hidden)
            content[:, :-size] = torch.linalg.qr(torch.randn(hidden - size, size, generator=rng))[0].T
            value[part] += content
            output[:, part] += PASSED * content.T


def _sample(rows: Rows, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """About `COUNTED` tokens of random rows, and the number of the row of each."""
    order = np.random.default_rng(seed).permutation(len(rows))
    order = order[: np.searchsorted(np.cumsum(rows.lengths[order]), COUNTED)]
    ids = np.concatenate([rows.ids[rows.starts[row] : rows.starts[row + 1]] for row in order])
    return ids.astype(np.int64), np.repeat(np.arange(len(order)), rows.lengths[order])


def word_vectors(
    sample: tuple[np.ndarray, np.ndarray], counts: np.ndarray, hidden: int, rng: torch.Generator
) -> torch.Tensor:
    """Vectors whose products follow positive pointwise mutual information, shape (V, hidden), strongest dimension
    first.
    """
    ids, row = sample
    vocabulary = len(counts)
    keys = []
    for distance in range(1, WINDOW + 1):
        left, right = ids[:-distance], ids[distance:]
        together = (row[:-distance] == row[distance:]) & (left > SPECIAL) & (right > SPECIAL)
        keys.append((left * vocabulary + right)[together])
    pairs, times = np.unique(np.concatenate(keys), return_counts=True)
    one, other = pairs // vocabulary, pairs % vocabulary
    smoothed = counts**0.75  # keeps rare contexts from looking too telling
    share = smoothed / smoothed.sum()
    expected = (counts[one] * share[other] + counts[other] * share[one]) * WINDOW / 2
    information = np.log(times / np.maximum(expected, 1e-9)) * times / (times + 1.0)
    kept = information > 0
    place = torch.from_numpy(np.stack([one[kept], other[kept]]))
    matrix = torch.sparse_coo_tensor(
        torch.cat([place, place.flip(0)], dim=1),
        torch.from_numpy(information[kept]).float().repeat(2) / 2,
        (vocabulary, vocabulary),
        check_invariants=False,
    )
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # torch calls its CSR support beta
        matrix = matrix.to_sparse_csr()
    basis = torch.randn(vocabulary, hidden + 16, generator=rng)
    for _ in range(4):
        basis = torch.linalg.qr(matrix @ basis)[0]
    strengths, directions = torch.linalg.eigh(basis.T @ (matrix @ basis))
    best = strengths.argsort(descending=True)[:hidden]
    vectors = basis @ directions[:, best] * strengths[best].clamp(min=1e-6) ** 0.25
    # A unit length for all: rare tokens would start as nothing otherwise.
    vectors = nn.functional.normalize(vectors) * math.sqrt(hidden) * DEVIATION
    return vectors + 0.1 * DEVIATION * torch.randn(vectors.shape, generator=rng)


def _frequencies(count: int, rng: torch.Generator) -> torch.Tensor:
    """Three quarters anywhere up to half a turn a place, to tell neighbours apart; the rest slow, to tell far from
    near.
    """
    fast = count - count // 4
    slow = torch.tensor([math.pi / 4 * 2.0**-i for i in range(count - fast)])
    return torch.cat([math.pi * torch.rand(fast, generator=rng), slow])


def _rotation(angles: torch.Tensor) -> torch.Tensor:
    """The matrix that moves (sines, cosines) of a place on by `angles`, square of size 2 * len(angles)."""
    cos, sin = torch.diag(angles.cos()), torch.diag(angles.sin())
    return torch.cat([torch.cat([cos, sin], dim=1), torch.cat([-sin, cos], dim=1)])
