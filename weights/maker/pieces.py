"""Vectors of pieces that a model without layers learns in a minute, for the encoder to begin with.

What a piece says of the language of a text, of the kind of its word or of what the text is about takes an encoder many
texts to learn. A bag of pieces with one hidden layer (Joulin et al. 2016, fastText), a window of pieces, or sums of
vectors that are to be alike in translations read a thousand times as many in that time. So they are trained first, and
the encoder starts with their vectors, a few numbers each (channels.py). They stand still while the layers are trained,
and of the embeddings an adapter holds just these: a product of two thin matrices.

Shapes: V pieces of the vocabulary, F numbers of a vector, B rows, K labels.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from xlmr_core import hub
from xlmr_core.atomic_files import write_atomically
from xlmr_core.tokenization import AutoTokenizer
from xlmr_core.training.data import Data
from xlmr_core.training.recipe import Recipe
from xlmr_core.training.task import IGNORED, Feature
from xlmr_torch.contrastive import in_batch_negatives

Ids = Sequence[NDArray[np.int64]]

BASE = hub.DEFAULT_MODEL
BEGIN, PAD, END = 0, 1, 2
FIRST = 3  # the ids below it are these
RATE = 0.01  # of Adam, at its highest; it falls to 0
WINDOW = 2  # pieces on either side that a tag is told from
LEFT_OUT = 0.3  # of the numbers that a tag is told from, and of the pieces that a sentence is known by


def generator(seed: int) -> torch.Generator:
    """A source of chance."""
    return torch.Generator().manual_seed(seed)


class Bag(nn.Module):
    """A text as the sum of the vectors of its pieces, over the root of their number, and a linear layer on it.

    Args:
        size: V.
        labels: K.
        width: F; 0: each piece has a number for each label, and there is no layer (logistic regression).
    """

    def __init__(self, size: int, labels: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.zeros(size, width or labels))
        self.head = nn.Linear(width, labels) if width else nn.Identity()
        if isinstance(self.head, nn.Linear):
            nn.init.normal_(self.head.weight, std=width**-0.5, generator=generator(0))

    def forward(self, rows: Ids) -> Tensor:
        """Logits (B, K) of rows of ids."""
        logits: Tensor = self.head(sums(self.vectors, rows))
        return logits


def sums(vectors_VF: Tensor, rows: Ids, left_out: float = 0.0, random: torch.Generator | None = None) -> Tensor:
    """(B, F): the vectors of the pieces of each row added up, over the root of their number.

    Args:
        vectors_VF: of all pieces.
        rows: ids.
        left_out: share of the pieces that are not read.
        random: which of them.
    """
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.from_numpy(np.concatenate(rows).astype(np.int64))
    weights = lengths.clamp(min=1).rsqrt().repeat_interleave(lengths)
    if left_out:
        weights = weights * (torch.rand(len(ids), generator=random) >= left_out)
    offsets = lengths.cumsum(0) - lengths
    return F.embedding_bag(ids, vectors_VF, offsets, mode="sum", per_sample_weights=weights.to(vectors_VF))


def batches(count: int, size: int, epochs: int, seed: int) -> Iterator[tuple[float, NDArray[np.int64]]]:
    """The share of the rate and the rows of each step."""
    random = np.random.default_rng(seed)
    steps = epochs * -(-count // size)
    for epoch in range(epochs):
        order = random.permutation(count)
        for place, begin in enumerate(range(0, count, size)):
            yield 1 - (epoch * (steps // epochs) + place) / steps, order[begin : begin + size]


def bag_of(rows: Ids, labels_N: NDArray[np.int64], size: int, labels: int, width: int, epochs: int = 3) -> Bag:
    """A bag that tells the labels of rows.

    Args:
        rows: ids of each text.
        labels_N: the number of its label.
        size: V.
        labels: K.
        width: F, see :class:`Bag`.
        epochs: how often the rows are read.
    """
    bag = Bag(size, labels, width)
    optimizer = torch.optim.Adam(bag.parameters(), lr=RATE, fused=True)
    right = torch.from_numpy(labels_N)
    for share, numbers in batches(len(rows), 512, epochs, seed=0):
        loss = F.cross_entropy(bag([rows[number] for number in numbers]), right[torch.from_numpy(numbers)])
        step_down(optimizer, loss, share)
    return bag


def step_down(optimizer: torch.optim.Optimizer, loss: Tensor, share: float, rate: float = RATE) -> None:
    """A step of an optimizer, at this share of its rate."""
    loss.backward()
    for group in optimizer.param_groups:
        group["lr"] = rate * share
    optimizer.step()
    optimizer.zero_grad()


@torch.no_grad()
def logits_of(bag: Bag, rows: Ids) -> NDArray[np.float32]:
    """What a bag says of rows, (N, K)."""
    parts = [bag(rows[begin : begin + 4096]).numpy() for begin in range(0, len(rows), 4096)]
    found: NDArray[np.float32] = np.concatenate(parts)
    return found


# ---- Vectors that other tasks begin with


def pieces_of(row: Feature) -> NDArray[np.int64]:
    """The ids of a row, without those at the ends of a text."""
    return inner(row.arrays["input_ids"])


def inner(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ids without those at the ends of a text."""
    return ids[ids >= FIRST]


def features_of(recipe: Recipe) -> tuple[list[Feature], int, int]:
    """The rows that a recipe trains on, how many labels they have, and V."""
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    data = Data.read(recipe.replace(eval=(), test=()), tokenizer)
    features = data.train.features
    return features.take(range(len(features))), len(data.task.labels), len(tokenizer)


def write_vectors(file: Path, vectors_VF: NDArray[np.float32], counts_V: NDArray[np.int64]) -> None:
    """Keep vectors, and how often each piece was read."""
    held = io.BytesIO()
    np.savez(held, v=vectors_VF, c=counts_V)
    write_atomically(file, held.getvalue())


def read_vectors(file: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What :func:`write_vectors` kept."""
    with np.load(file) as held:
        return held["v"], held["c"]


def of_tags(recipe: Recipe, width: int, epochs: int = 4) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Vectors by which the tag of a word is told from its first piece and those around it, (V, F), and how often each
    piece was read, (V,).
    """
    rows, labels, size = features_of(recipe)
    gap, none = np.full(WINDOW, PAD), np.full(WINDOW, IGNORED)
    ids = np.concatenate([part for row in rows for part in (gap, row.arrays["input_ids"])] + [gap])
    tags = np.concatenate([part for row in rows for part in (none, row.arrays["labels"])] + [none])
    places = np.flatnonzero((tags >= 0) & (ids >= FIRST))
    random = generator(0)
    vectors, head = nn.Parameter(torch.zeros(size, width)), nn.Linear((2 * WINDOW + 1) * width, labels)
    nn.init.normal_(head.weight, std=width**-0.5, generator=random)
    optimizer = torch.optim.Adam([vectors, *head.parameters()], lr=RATE, fused=True)
    around = np.arange(-WINDOW, WINDOW + 1)
    for share, numbers in batches(len(places), 2048, epochs, seed=0):
        own = places[numbers]
        window_BWF = F.embedding(torch.from_numpy(ids[own[:, None] + around]), vectors)
        kept = torch.rand(window_BWF.shape, generator=random) >= LEFT_OUT
        logits_BK = head((window_BWF * kept / (1 - LEFT_OUT)).flatten(1))
        step_down(optimizer, F.cross_entropy(logits_BK, torch.from_numpy(tags[own])), share)
    return vectors.detach().numpy(), np.bincount(ids[ids >= FIRST], minlength=size)


def of_parallel(recipe: Recipe, width: int, steps: int = 2000) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Vectors by which a sentence is known in other languages, of rows that share an ``id``; as :func:`of_tags`.

    Trained like sentence embeddings are (``xlmr_torch/contrastive.py``), with a sum of pieces in place of an encoder.
    """
    rows, _, size = features_of(recipe)
    texts = [*map(pieces_of, rows)]
    groups, group_N = np.unique([row.kept["id"] for row in rows], return_inverse=True)
    members = [np.flatnonzero(group_N == number) for number in range(len(groups))]
    random, chance = np.random.default_rng(0), generator(0)
    vectors = nn.Parameter(0.1 * torch.randn(size, width, generator=chance))
    optimizer = torch.optim.Adam([vectors], lr=RATE, fused=True)
    for step in range(steps):
        numbers = random.choice(len(texts), 512, replace=False)
        others = [random.choice(members[group]) for group in group_N[numbers]]
        sides = [sums(vectors, [texts[n] for n in side], LEFT_OUT, chance) for side in (numbers, others)]
        loss = in_batch_negatives(*sides, torch.from_numpy(group_N[numbers]), recipe.temperature)
        step_down(optimizer, loss, 1 - step / steps)
    counts = np.bincount(np.concatenate(texts), minlength=size)
    found = vectors.detach().numpy()
    found[counts == 0] = 0  # of these nothing was learned
    return found, counts
