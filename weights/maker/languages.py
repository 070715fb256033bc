"""What the language of a text is learned from: `langid`, and lines of `pretrain`, whose language is known too.

The lines are divided. Of most a bag of pieces learns (:mod:`weights.maker.pieces`); of the rest, which it never read,
the encoder learns beside `langid`. They are drawn in the shares that languages have in `langid`: of two that are
hardly told apart, the likelier one is answered.
"""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from weights.maker import channels, corpus, pieces
from weights.maker.rows import encode, vocabulary_size
from xlmr_core import hub
from xlmr_core.atomic_files import write_atomically

LINES_FILE, OTHERS_FILE = "langid-lines.jsonl", "langid-others.jsonl"
# Languages of `pretrain` that `langid` lacks and that have lines enough; Bosnian is left out, as it is hardly told from
# Croatian.
MORE_LANGUAGES = ("az", "gu", "he", "km", "kn", "lo", "si", "so", "sq", "yi")
# Lines of a language at most: a sixtieth of the lines, and at most 250, is what `langid` has of each.
MOST = 15_000
LENGTHS = range(3, 401)  # characters of a line
TOKENS = 64  # of a line at most
# Lines for the encoder: so many for each row of `langid`, and of a language that it lacks; of each at most this share.
TIMES, OF_MORE, SHARE = 8, 400, 0.5
LONGEST = 100  # characters of a line for the encoder: the start tells, and reading twice as many tells more
OF_HEAD = 20_000  # lines of the bag that the classifier starts with
WIDTH = 48  # of the vectors of pieces


def prepare(data: Path, work: Path, start: Path) -> None:
    """Make the files that are trained and tested on beside `langid`, and the model that training starts from; what is
    there stays.

    Args:
        data: the folder of the data.
        work: for the files.
        start: for the model.
    """
    others = (row for row in rows_of(data / "topic" / "test.jsonl.gz") if row["lang"] in MORE_LANGUAGES)
    write_rows(work / OTHERS_FILE, ({**row, "label": row["lang"]} for row in others))
    if start.exists():
        return
    languages = languages_of(data)
    texts, labels_N = lines_of(data, languages)
    ids, size = ids_of(texts)
    rows = Counter(row["label"] for row in rows_of(data / "langid" / "train.jsonl.gz"))
    chosen: list[int] = []
    for number, language in enumerate(languages):
        there = np.flatnonzero(labels_N == number)
        count = min(TIMES * rows[language] or OF_MORE, int(SHARE * len(there)))
        chosen += np.random.default_rng(number).choice(there, count, replace=False).tolist()
    of_encoder = ((texts[n][:LONGEST], languages[labels_N[n]]) for n in sorted(chosen))
    write_rows(work / LINES_FILE, ({"lang": code, "text": text, "label": code} for text, code in of_encoder))
    others_N = np.setdiff1d(np.arange(len(texts)), chosen)
    own_ids = [ids[n] for n in others_N]
    own = channels.Labelled(own_ids, labels_N[others_N], len(languages))
    bag = pieces.bag_of(own.rows, own.labels_N, size, own.labels, WIDTH)
    counts = np.bincount(np.concatenate(own_ids), minlength=size)
    channels.write_start(bag.vectors.detach().numpy(), counts, start, own.some(OF_HEAD))


def languages_of(data: Path) -> list[str]:
    """All that are told apart, in the order of their numbers."""
    return sorted({*(row["label"] for row in rows_of(data / "langid" / "train.jsonl.gz")), *MORE_LANGUAGES})


def lines_of(data: Path, languages: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Lines of the languages, and the number of the language of each."""
    texts: list[str] = []
    labels: list[int] = []
    for number, language in enumerate(languages):
        lines = corpus.lines(data / "pretrain" / "train" / f"{language}.txt.xz")
        own = [*dict.fromkeys(line for line in lines if len(line) in LENGTHS)]
        texts += random.Random(f"{language} 0").sample(own, min(MOST, len(own)))
        labels += [number] * (len(texts) - len(labels))
    return texts, np.array(labels)


def ids_of(texts: Sequence[str]) -> tuple[list[NDArray[np.int64]], int]:
    """The ids of each text, without those at its ends, and how many there are in the vocabulary."""
    model = hub.resolve(hub.DEFAULT_MODEL) / "sentencepiece.bpe.model"
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    found: list[NDArray[np.int64]] = []
    for begin in range(0, len(texts), 4096):
        encoded = encode(processor, list(texts[begin : begin + 4096]))
        found += [np.array(own[:TOKENS], np.int64) for own in encoded]
    return found, vocabulary_size(model)


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file of the data."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as lines of JSON, all or nothing; what is there stays."""
    if path.exists():
        return
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
