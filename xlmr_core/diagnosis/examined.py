"""What is examined: an open checkpoint, what several checks want to know of it, and how a check says what it found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from xlmr_core.bounded_files import is_there
from xlmr_core.checkpoints.casting import blocks, widened
from xlmr_core.checkpoints.load_plan import LoadPlan
from xlmr_core.checkpoints.model_files import ModelFiles
from xlmr_core.config import read_config_json
from xlmr_core.errors import CheckpointError, ConfigError, XLMRError
from xlmr_core.formats.tensors import FLOAT_TAGS, LazyTensor
from xlmr_core.probe import Counter, Progress
from xlmr_core.tokenization import XLMRobertaTokenizer, XLMRobertaTokenizerFast
from xlmr_core.tokenization.files import CONFIG_FILE, TOKENIZER_FILE, VOCAB_FILE

__all__ = ["Examined", "Remark", "Values", "advice", "fault", "in_words", "json_object", "listed"]


@dataclass(frozen=True)
class Remark:
    """What a check found: whether that is a fault or advice, in words, and what to do."""

    is_fault: bool
    what: str
    remedy: str


@dataclass(frozen=True)
class Values:
    """What one pass over a parameter's values tells."""

    nan: int
    infinite: int
    largest: float


class Examined:
    """An open checkpoint, and what several checks want to know of it."""

    def __init__(self, files: ModelFiles, progress: Progress | None = None) -> None:
        self.files = files
        self.progress = progress
        self.config = files.config
        self.folder = files.folder

    @cached_property
    def plan(self) -> LoadPlan | None:
        """How the model would be loaded, if it could be."""
        try:
            return self.files.plan
        except (CheckpointError, ConfigError):
            return None

    @cached_property
    def tokenizer_config(self) -> dict[str, Any]:
        return json_object(self.folder / CONFIG_FILE)

    @property
    def tokenizer_files(self) -> list[str]:
        """The files that hold a vocabulary."""
        return [
            name
            for name in (TOKENIZER_FILE, VOCAB_FILE)
            if self.files.tokenizer == self.folder and (self.folder / name).is_file()
        ]

    @cached_property
    def tokenizers(self) -> dict[str, XLMRobertaTokenizer | XLMRobertaTokenizerFast]:
        """By file, those that can be built from the folder."""
        found: dict[str, XLMRobertaTokenizer | XLMRobertaTokenizerFast] = {}
        for name, kind in ((TOKENIZER_FILE, XLMRobertaTokenizerFast), (VOCAB_FILE, XLMRobertaTokenizer)):
            if name in self.tokenizer_files:
                try:
                    found[name] = kind.from_pretrained(self.folder)
                except XLMRError:
                    continue  # the check of the tokenizer files says so
        return found

    @property
    def tokenizer(self) -> XLMRobertaTokenizer | XLMRobertaTokenizerFast | None:
        return next(iter(self.tokenizers.values()), None)

    @cached_property
    def values(self) -> dict[str, Values]:
        """By canonical name; empty if the model cannot be loaded."""
        streams = {name: self.files.checkpoint.stream(source) for name, source in self._sources.items()}
        # Codes may lie in a float dtype, and are no values of it.
        floats = {name: x for name, x in streams.items() if x.dtype in FLOAT_TAGS and self._part_of(name) != ""}
        count = Counter("reading", sum(stream.nbytes for stream in floats.values()), self.progress)
        return {name: _values_of(stream, count) for name, stream in floats.items()}

    @property
    def _sources(self) -> dict[str, str]:
        """Where each parameter is in the file; what a class of the user's own has beyond ours is there by its name."""
        if self.plan is None:
            return {}
        return {**self.plan.sources, **{name: name for name in self.files.own_parts}}

    @property
    def stored_dtypes(self) -> set[str]:
        plain = (source for name, source in self._sources.items() if self._part_of(name) is None)
        return {dtype for name in plain if (dtype := self.files.checkpoint.info(name).dtype) in FLOAT_TAGS}

    def _part_of(self, name: str) -> str | None:
        """Which tensor of a quantized weight it is, by suffix; ``None`` if it is of none."""
        row = self.files.rows.get(name)
        return None if row is None or row.quantized is None else row.quantized.suffix


def fault(what: str, remedy: str) -> Remark:
    return Remark(True, what, remedy)


def advice(what: str, remedy: str) -> Remark:
    return Remark(False, what, remedy)


def in_words(error: Exception) -> tuple[str, str]:
    """What an error of this library says, and the remedy that stands at the end of every one."""
    what, _, remedy = str(error).splitlines()[0].rpartition("; ")
    return (what, remedy) if what else (remedy, "fetch or save the checkpoint again")


def json_object(path: Path) -> dict[str, Any]:
    return read_config_json(path) if is_there(path) else {}


def _values_of(stream: LazyTensor, count: Counter) -> Values:
    nan = infinite = 0
    largest = 0.0
    for block in blocks(stream):
        count(block.nbytes)
        values = np.abs(widened(block, stream.dtype))
        top = float(values.max(initial=0.0))
        if not math.isfinite(top):
            nan += int(np.isnan(values).sum())
            infinite += int(np.isinf(values).sum())
            finite = values[np.isfinite(values)]
            top = float(finite.max(initial=0.0))
        largest = max(largest, top)
    return Values(nan, infinite, largest)


def listed(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
