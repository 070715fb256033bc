"""The one checkpoint that everybody loads: random weights of the size of xlm-roberta-base, and a tokenizer of its size.

Both are made once, into the work folder, always the same.
"""

from __future__ import annotations

import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import Options
from benchmarks.machine import ROOT

PIECES = 250_000  # of xlm-roberta-base's sentencepiece file; with <pad> and <mask> 250 002 tokens
MINI_VOCABULARY = ROOT / "weights" / "xlmr-mini" / "sentencepiece.bpe.model"
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def once(path: Path, make: Callable[[Path], object]) -> Path:
    """The path, made now if it is not there; ``make`` gets a temporary path, so an interruption leaves nothing half
    done.
    """
    if not path.exists():
        partial = path.with_name(path.name + ".partial")
        if partial.is_dir():
            shutil.rmtree(partial)
        path.parent.mkdir(parents=True, exist_ok=True)
        make(partial)
        partial.rename(path)
    return path


def checkpoint(options: Options) -> Path:
    """The folder of a masked language model with its tokenizer; of a tiny one if the options say so."""
    return once(place_of("checkpoint", options), lambda folder: _make(folder, options.tiny))


def place_of(name: str, options: Options) -> Path:
    """Where a folder of this name is kept, beside others of its size."""
    return options.work / ("tiny" if options.tiny else "base") / name


def converted(options: Options, to: str) -> Path:
    """The folder of the same checkpoint in another format."""
    from xlmr_core.conversion import convert

    source = checkpoint(options)
    return once(source.with_name(f"checkpoint-{to}"), lambda folder: convert(source, folder, to))


def _make(folder: Path, tiny: bool) -> None:
    import torch

    from xlmr_core.tokenization import XLMRobertaTokenizerFast
    from xlmr_torch import XLMRobertaConfig, XLMRobertaForMaskedLM

    folder.mkdir()
    vocabulary = folder / "sentencepiece.bpe.model"
    model = MINI_VOCABULARY.read_bytes()
    vocabulary.write_bytes(model if tiny else with_pairs(model, PIECES))
    tokenizer = XLMRobertaTokenizerFast(vocabulary)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = XLMRobertaConfig.base(vocab_size=len(tokenizer), **(TINY if tiny else {}))
    XLMRobertaForMaskedLM(config).save_pretrained(folder)


def with_pairs(model: bytes, count: int, seed: int = 0) -> bytes:
    """A sentencepiece file with pieces added up to ``count``: pairs of its own, drawn by their probabilities.

    A vocabulary of the published size that needs no training: common beginnings of words with common endings. A pair is
    a little less probable than its rarer half. Fields of the file may stand in any order, so new pieces go to the end.
    """
    from xlmr_core.tokenization.spm import SentencePieceModel

    known = SentencePieceModel.from_bytes(model)
    pieces = dict(zip(known.pieces[3:], known.scores[3:], strict=True))
    starts = {piece: score for piece, score in pieces.items() if piece.startswith("▁") and len(piece) > 2}
    ends = {piece: score for piece, score in pieces.items() if piece.isalpha()}
    rng = random.Random(seed)
    added: dict[str, float] = {}
    while len(known.pieces) + len(added) < count:
        for (start, first), (end, second) in zip(_drawn(starts, rng), _drawn(ends, rng), strict=True):
            if start + end not in pieces and len(known.pieces) + len(added) < count:
                added.setdefault(start + end, min(first, second) - 2 * rng.random())
    return model + b"".join(_piece(text, score) for text, score in added.items())


def _drawn(pieces: dict[str, float], rng: random.Random, count: int = 100_000) -> list[tuple[str, float]]:
    # The square root, as nearly all draws would be of the same few otherwise.
    return rng.choices(list(pieces.items()), weights=[2.718281828 ** (score / 2) for score in pieces.values()], k=count)


def _piece(text: str, score: float) -> bytes:
    """One piece as the file holds it: field 1 of the model, with the text as field 1 and the score as field 2."""
    content = text.encode()
    message = b"\x0a" + _varint(len(content)) + content + b"\x15" + struct.pack("<f", score)
    return b"\x0a" + _varint(len(message)) + message


def _varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128, value >> 7])
