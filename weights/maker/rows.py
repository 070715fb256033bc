"""Turn the text into rows of token ids, once, memory-mapped afterwards: `<s> text </s>`, as in use.

A row is one line, or consecutive lines up to 128 or 512 tokens. Documents keep their order; sources that are lists of
unrelated (often alphabetical) sentences are shuffled first and mostly stay single lines.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sentencepiece

from weights.maker import corpus
from xlmr_core.tokenization import XLMRobertaTokenizer
from xlmr_core.training.masking import Vocabulary, Words
from xlmr_core.training.task import Feature

BOS, PAD, EOS, UNK = 0, 1, 2, 3
SPECIAL = UNK  # ids up to here are never hidden, never drawn as a random token
OFFSET = 1  # piece i of the sentencepiece file is token i + 1
LONGEST = 512
SETTINGS = Path("rows", "settings.json")  # in a work folder: what its rows are made of

# Chance of each row length limit in tokens (0: a single line), for documents and for lists of unrelated sentences.
DOCUMENT_LENGTHS = {0: 0.50, 128: 0.47, LONGEST: 0.03}
LIST_LENGTHS = {0: 0.95, 128: 0.046, LONGEST: 0.004}
LIST_SOURCES = {"common_voice", "sib_train", "klue", "wiki_ner", "thai_ner_news"}


@dataclass(frozen=True)
class Rows:
    """Rows of token ids of many languages.

    Attributes:
        ids: all rows one after the other, shape (tokens,), uint16.
        starts: where each row starts, shape (rows + 1,), int64.
        language: index into `languages` of each row, shape (rows,), uint8.
        languages: language codes.
    """

    ids: np.ndarray
    starts: np.ndarray
    language: np.ndarray
    languages: list[str]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, shape (rows,)."""
        return np.diff(self.starts)

    @property
    def kinds(self) -> np.ndarray:
        """Any rows can share a batch, shape (rows,)."""
        return np.zeros(len(self), dtype=np.int64)

    def take(self, numbers: Iterable[int]) -> list[Feature]:
        """The rows of these numbers, as the library's tasks take them."""
        return [
            Feature({"input_ids": self.ids[self.starts[row] : self.starts[row + 1]].astype(np.int64)})
            for row in numbers
        ]


def vocabulary_size(model: Path) -> int:
    """Tokens of a model over this sentencepiece file: its pieces, `<pad>` and `<mask>`."""
    return int(sentencepiece.SentencePieceProcessor(model_file=str(model)).get_piece_size()) + 2


@dataclass(frozen=True)
class Hiding:
    """What hiding whole words has to know of a vocabulary.

    Attributes:
        vocabulary: its special tokens.
        words: what each token is to words.
        opens: int (vocabulary,), what each token becomes where a text starts with it, see `as_typed` of the core.
    """

    vocabulary: Vocabulary
    words: Words
    opens: np.ndarray


def hiding_of(model: Path) -> Hiding:
    """Of the vocabulary in a sentencepiece file."""
    tokenizer = XLMRobertaTokenizer(vocab_file=str(model))
    vocabulary = Vocabulary.of(tokenizer)
    return Hiding(vocabulary, vocabulary.words(tokenizer), vocabulary.openings(tokenizer))


def encode(spm: sentencepiece.SentencePieceProcessor, lines: list[str], threads: int = 1) -> list[list[int]]:
    """Token ids of each line without `<s>` and `</s>`, with the published offset."""
    unknown = spm.unk_id()
    return [
        [UNK if piece == unknown else piece + OFFSET for piece in pieces]
        for pieces in spm.encode(lines, num_threads=threads)
    ]


def pack(lines: list[list[int]], limits: dict[int, float], rng: random.Random) -> list[list[int]]:
    """Rows of consecutive lines of one document, each up to a limit drawn from `limits`; too long lines are cut."""
    rows: list[list[int]] = []
    current: list[int] = []
    limit = 0
    for line in lines:
        if current and len(current) + len(line) + 2 > limit:
            rows.append(current)
            current = []
        if not current:
            limit = rng.choices(list(limits), list(limits.values()))[0]
        current = (current + line)[: LONGEST - 2]
    if current:
        rows.append(current)
    return [[BOS, *row, EOS] for row in rows]


def _sources(
    pretrain: Path, code: str, spm: sentencepiece.SentencePieceProcessor, threads: int
) -> list[tuple[bool, list[list[int]]]]:
    """(is a list of unrelated lines, lines as ids) of each document or list of a language's training text."""
    ranges = json.loads((pretrain / "manifest.json").read_text(encoding="utf-8"))["langs"][code]["train"]["sources"]
    text = corpus.lines(pretrain / "train" / f"{code}.txt.xz")
    encoded = encode(spm, text, threads)
    found: list[tuple[bool, list[list[int]]]] = []
    for entry in ranges:
        part = encoded[entry["first_line"] : entry["end_line"]]
        if entry["source"] in LIST_SOURCES:
            found.append((True, [line for line in part if line]))
            continue
        document: list[list[int]] = []
        for line in [*part, []]:
            if line:
                document.append(line)
            elif document:
                found.append((False, document))
                document = []
    return found


def _language_rows(sources: list[tuple[bool, list[list[int]]]], times: float, rng: random.Random) -> list[list[int]]:
    """Rows of one language, each text read `times` times (a fractional pass takes a random part of the rows)."""
    rows: list[list[int]] = []
    remaining = times
    while remaining > 0:
        whole: list[list[int]] = []
        for is_list, lines in sources:
            ordered = rng.sample(lines, len(lines)) if is_list else lines
            whole += pack(ordered, LIST_LENGTHS if is_list else DOCUMENT_LENGTHS, rng)
        rows += whole if remaining >= 1 else rng.sample(whole, round(remaining * len(whole)))
        remaining -= 1
    return rows


def build(pretrain: Path, model: Path, work: Path, largest: float, seed: int, threads: int = 2) -> Rows:
    """The training rows, from `work` when they are there for the same text, vocabulary and settings, else made anew.

    Args:
        pretrain: the folder `pretrain` of the data.
        model: the sentencepiece file.
        work: a folder for the result (outside the repository).
        largest: passes over the largest language, see `corpus.passes`.
        seed: of the order and the lengths.
        threads: for tokenizing.
    """
    settings = {
        "text": hashlib.sha256((pretrain / "manifest.json").read_bytes()).hexdigest(),
        "vocabulary": hashlib.sha256(model.read_bytes()).hexdigest(),
        "largest": largest,
        "seed": seed,
    }
    stamp = work / SETTINGS
    folder = stamp.parent
    if not stamp.exists() or json.loads(stamp.read_text(encoding="utf-8")) != settings:
        _write(pretrain, model, folder, settings, threads)
    return read(work, sorted(corpus.characters(pretrain)))


def read(work: Path, languages: Iterable[str] = ()) -> Rows:
    """The rows that were built in `work`, with the codes of their languages."""
    folder = (work / SETTINGS).parent
    return Rows(
        ids=np.load(folder / "ids.npy", mmap_mode="r"),
        starts=np.load(folder / "starts.npy"),
        language=np.load(folder / "language.npy"),
        languages=list(languages),
    )


def _write(pretrain: Path, model: Path, folder: Path, settings: dict[str, object], threads: int) -> None:
    """Tokenize and pack everything into a new `folder`, which appears only when it is complete."""
    spm = sentencepiece.SentencePieceProcessor(model_file=str(model))
    times = corpus.passes(corpus.characters(pretrain), float(str(settings["largest"])))
    ids: list[np.ndarray] = []
    lengths: list[int] = []
    language: list[int] = []
    for number, code in enumerate(times):
        rng = random.Random(f"{settings['seed']}/{code}")
        rows = _language_rows(_sources(pretrain, code, spm, threads), times[code], rng)
        ids += [np.fromiter((i for row in rows for i in row), dtype=np.uint16)]
        lengths += [len(row) for row in rows]
        language += [number] * len(rows)
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    np.save(temporary / "ids.npy", np.concatenate(ids))
    np.save(temporary / "starts.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    np.save(temporary / "language.npy", np.array(language, dtype=np.uint8))
    (temporary / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    temporary.replace(folder)
