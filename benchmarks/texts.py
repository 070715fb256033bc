"""What is computed: batches of natural and of full length, and real sentences."""

from __future__ import annotations

import itertools
import lzma
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Absent
from benchmarks.machine import ROOT

# Lengths of texts as people write them, in tokens: lognormal, median 24, 95th percentile 120, cut to [5, 256].
MEDIAN, PERCENTILE_95, SHORTEST, LONGEST = 24, 120, 5, 256
SIGMA = np.log(PERCENTILE_95 / MEDIAN) / 1.6448536

BOS, PAD, EOS, FIRST_ORDINARY = 0, 1, 2, 4

# Of a batch for masked language modelling: the share of labelled tokens, and what stands where there is none.
LABELLED, IGNORED = 0.15, -100

PASSAGE = (
    "In the old harbour the fishing boats come home before the sun has risen above the hills, and on the quay the "
    "buyers are already waiting with their carts, their scales and their loud, friendly disagreements about the price "
    "of everything that lives in the sea. Later in the morning the children cross the square on their way to school, "
    "the baker opens her second door, and an old man feeds the gulls although the town has put up three signs that ask "
    "him not to. By noon the streets are empty again, because nobody who can avoid it walks in that heat."
)


@dataclass(frozen=True)
class Batch:
    """Token ids of some texts.

    Attributes:
        ids_BS: int64, padded on the right.
        mask_BS: int64, 1 at tokens.
    """

    ids_BS: NDArray[np.int64]
    mask_BS: NDArray[np.int64]

    @property
    def lists(self) -> list[list[int]]:
        """The rows without their padding."""
        return [row[mask].tolist() for row, mask in zip(self.ids_BS, self.mask_BS.astype(bool), strict=True)]

    @property
    def facts(self) -> dict[str, float]:
        """The shape, and the padding ratio: positions for each token."""
        tokens = int(self.mask_BS.sum())
        rows, length = self.mask_BS.shape
        return {"rows": rows, "length": length, "tokens": tokens, "pad": self.mask_BS.size / tokens}


def natural_lengths(rows: int, rng: np.random.Generator) -> NDArray[np.int64]:
    drawn = np.exp(rng.normal(np.log(MEDIAN), SIGMA, rows))
    return np.clip(np.rint(drawn), SHORTEST, LONGEST).astype(np.int64)


def batch(lengths: NDArray[np.int64], vocab_size: int, rng: np.random.Generator) -> Batch:
    """Random tokens between ``<s>`` and ``</s>``, in rows of some lengths."""
    columns = np.arange(lengths.max())
    mask = columns < lengths[:, None]
    ids = np.where(mask, rng.integers(FIRST_ORDINARY, vocab_size - 1, mask.shape), PAD)
    ids[:, 0] = BOS
    ids[np.arange(len(lengths)), lengths - 1] = EOS
    return Batch(ids.astype(np.int64), mask.astype(np.int64))


def natural(vocab_size: int, rows: int = 32, seed: int = 0) -> Batch:
    """Texts of natural length."""
    rng = np.random.default_rng(seed)
    return batch(natural_lengths(rows, rng), vocab_size, rng)


def full(vocab_size: int, rows: int = 8, length: int = 128, seed: int = 0) -> Batch:
    """Texts of one length: no padding at all."""
    return batch(np.full(rows, length), vocab_size, np.random.default_rng(seed))


def labelled(vocab_size: int, rows: int, length: int) -> dict[str, NDArray[np.int64]]:
    """The inputs of a masked language model by name: texts without padding, with labels at some tokens."""
    whole = full(vocab_size, rows, length)
    chosen = np.random.default_rng(1).random(whole.ids_BS.shape) < LABELLED
    return {
        "input_ids": whole.ids_BS,
        "attention_mask": whole.mask_BS,
        "labels": np.where(chosen, whole.ids_BS, IGNORED),
    }


def labelled_positions(labels_BS: NDArray[np.int64], places: int) -> NDArray[np.int64]:
    """(B, P) columns of the labels, padded with -1."""
    positions = np.full((len(labels_BS), places), -1, np.int64)
    for row, found in enumerate(map(np.flatnonzero, labels_BS != IGNORED)):
        positions[row, : len(found)] = found
    return positions


def masked_sentences(mask_token: str, words: list[int]) -> list[str]:
    """Sentences of so many words with a mask in the middle of each."""
    passage = PASSAGE.split()
    sentences = []
    for count in words:
        found = passage[:count]
        found[count // 2] = mask_token
        sentences.append(" ".join(found))
    return sentences


def sentences(count: int, longest: int = 200) -> list[str]:
    """Real lines of all languages of the shared pretraining text in turns, those of at most so many characters:
    paragraphs are left out.

    Raises:
        Absent: the data is not there.
    """
    shared = Path(os.environ.get("XLMR_SHARED", ROOT.parent / "shared"))
    files = sorted((shared / "data" / "pretrain" / "train").glob("*.txt.xz"))
    if not files:
        raise Absent(f"no texts in {shared}/data/pretrain/train; set XLMR_SHARED to the folder that holds data/")
    each = 2 * -(-count // len(files))  # some languages have fewer lines than their share
    languages = []
    for path in files:
        with lzma.open(path, "rt", encoding="utf-8") as file:
            lines = (line.strip() for line in file)
            languages.append(list(itertools.islice((line for line in lines if 0 < len(line) <= longest), each)))
    turns = itertools.chain.from_iterable(itertools.zip_longest(*languages))
    return list(itertools.islice((line for line in turns if line is not None), count))
