"""``Recipe``: what decides the result of a training run, as data.

A recipe is a file in TOML, the options of ``xlmr train``, or a call in Python; all of it is checked before anything
starts, and one recipe drives the three backends. Where nothing is said, what holds comes from the papers, by the task
and by the model's width:

- fine-tuning: Liu et al. 2019 (RoBERTa), table 10: Adam with beta 0.9 and 0.98, epsilon 1e-6, 6 % warm-up, linear
  decay, weight decay 0.1, rates of 1e-5 to 3e-5; XLM-R (Conneau et al. 2020) is tuned in the same way;
- masked language modelling: the same, table 9: weight decay 0.01, 15 % of the tokens hidden;
- sentence embeddings: Wang et al. 2024 (multilingual E5): temperature 0.01 to 0.05, weight decay 0.01.
"""

from __future__ import annotations

import json
import math
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, fields
from typing import Any, Self

from xlmr_core.arguments import suggestion
from xlmr_core.bounded_files import read_bytes, refusing
from xlmr_core.errors import InputError
from xlmr_core.hub import DEFAULT_MODEL
from xlmr_core.tasks.options import NUMBERS, kind_of, option
from xlmr_core.wording import shown

__all__ = ["FILES", "PRECISIONS", "PROBLEMS", "TASK_NAMES", "Recipe"]

PRECISIONS = ("float32", "bfloat16", "float16")
PROBLEMS = ("regression", "single_label_classification", "multi_label_classification")
POOLINGS = ("mean", "cls")
# The fields that name files.
FILES = ("train", "eval", "test")
# Those of schedules.py that need no options; without theirs the others are one of these.
CURVES = ("linear", "cosine", "inverse_sqrt", "constant", "constant_with_warmup")

# What holds where nothing is said, by task; EVERY holds for the others.
EVERY: dict[str, Any] = {"epochs": 3.0, "batch_size": 32, "max_length": 128, "weight_decay": 0.1}
BY_TASK: dict[str, dict[str, Any]] = {
    "masked-language-modeling": {"epochs": 1.0, "weight_decay": 0.01},
    "causal-language-modeling": {"epochs": 1.0, "weight_decay": 0.01},
    "text-classification": {},
    "token-classification": {"epochs": 5.0},
    "question-answering": {"epochs": 2.0, "max_length": 384, "weight_decay": 0.01},
    "multiple-choice": {"batch_size": 16, "max_length": 256},
    "sentence-embedding": {"epochs": 1.0, "batch_size": 64, "weight_decay": 0.01},
    "rerank": {"epochs": 1.0, "batch_size": 16, "max_length": 256, "weight_decay": 0.01},
}
TASK_NAMES = tuple(BY_TASK)
# The peak rate by the width of the model, at most so wide: small ones here, base, large, XL and XXL.
WIDTHS = (384, 768, 1024)
RATES: dict[str, tuple[float, ...]] = {
    "": (5e-4, 2e-5, 1e-5, 5e-6),
    "masked-language-modeling": (1e-3, 5e-5, 2e-5, 1e-5),
    "causal-language-modeling": (1e-3, 5e-5, 2e-5, 1e-5),
    "question-answering": (5e-4, 3e-5, 1.5e-5, 5e-6),
}
# Of the new weights alone, where the rest of the model stands still.
HEAD_RATE = 1e-3
LORA_RATE = 10  # times the rate of a whole model (Hu et al. 2022 use 4e-4 for RoBERTa-large, 5e-4 for base)
EVALUATIONS = 10  # of a run, where nothing is said

_NOTHING: Any = None  # a value that the task or the model decides; see Recipe


@dataclass(frozen=True)
class Recipe:
    """What decides the result of a run.

    Every value is checked when a recipe is made. What the task decides is filled in then; what the model and the data
    decide (``learning_rate``, ``steps``, ``evaluate_every``, ``checkpoint_every``) by :meth:`completed`.

    Attributes:
        task: a name of ``TASK_NAMES``.
        model: what training starts from: a name, a folder, or ``""`` with ``config`` for fresh weights.
        config: a folder or file with the config.json of a model that starts from fresh weights.
        train, eval, test: files; a folder stands for all files in it. ``eval`` is looked at during the run (early
            stopping, the best checkpoint), ``test`` once at its end.
        columns: columns of the files by the task's names of them.
        labels: in the order of their numbers; by default those of the training data, sorted.
        problem: of text classification; by default what the labels are (see ``tasks.py``).
        languages: train on the rows of these alone; by default on all.
        alpha: languages are drawn with their share of rows to this power; 1.0 leaves shares as they are.
        steps: of the whole run; 0: as many as make the ``epochs``.
        epochs: how often the training data is read.
        batch_size: rows of a step, over all devices together.
        max_length: tokens of a row at most.
        learning_rate: at its highest.
        warmup: share of the steps over which the rate rises.
        schedule: how it goes on afterwards, a name of ``CURVES`` (see ``schedules.py``).
        weight_decay: of all but biases and norms.
        beta1, beta2, epsilon: of AdamW.
        clip_norm: the norm that gradients are cut to; 0: they are not.
        layer_decay: a layer's rate is that of the layer above it times this; 1.0: one rate.
        freeze_embeddings, freeze_layers: the embeddings, or they and so many of the lowest layers, are not trained.
        head_only: nothing but the head is trained.
        lora_rank: train low-rank deltas of this rank and the head in place of the weights; 0: the weights.
        lora_alpha: the deltas are multiplied by ``lora_alpha / lora_rank``.
        lora_targets: the projections that get one, by the last part of their name.
        dropout: of hidden states and attention; ``None``: the config's.
        precision: of the computation; weights and moments are float32.
        seed: of fresh weights, dropout, the order of the rows, and what is hidden.
        evaluate_every, checkpoint_every: steps; 0: ten times a run, and with each evaluation.
        keep: checkpoints that stay beside the best.
        patience: evaluations without a better figure after which a run stops; 0: it goes on.
        metric: the figure that says which checkpoint is the best; ``""``: the task's.
        masking_rate: share of the tokens that are hidden.
        whole_words: share of the batches in which whole words are hidden.
        as_typed: in those, write the text behind a ``<mask>`` as a tokenizer does where somebody types one.
        packing: put short lines of one document together until a row is full; the lines are those of text files, as a
            row of any other format is a document of its own.
        doc_stride: tokens that two windows of a context share; ``None``: 128, or half a window where that is less.
        temperature: of the contrastive loss.
        matryoshka: widths at which an embedding is trained beside its full width.
        pooling: what makes a vector of the states of tokens.
        negatives: other passages drawn for each query of a reranker.
    """

    task: str = option(_NOTHING, "what is trained", choices=TASK_NAMES)
    model: str = option(DEFAULT_MODEL, "what training starts from: a name or a folder")
    config: str = option("", "the config.json of a model with fresh weights, in place of --model")
    train: Sequence[str] = option((), "a file to train on, or a folder of files", several=True)
    eval: Sequence[str] = option((), "a file to evaluate on during the run", several=True)
    test: Sequence[str] = option((), "a file to evaluate on at the end", several=True)
    columns: Mapping[str, str] = option((), "a column of the files, as name=column", several=True)
    labels: Sequence[str] = option((), "a label, in the order of their numbers", several=True)
    problem: str | None = option(None, "of text classification (default: by the labels)", choices=PROBLEMS)
    languages: Sequence[str] = option((), "train on rows of this language alone", several=True)
    alpha: float = option(1.0, "languages are drawn with their share to this power", least=0.0)

    steps: int = option(0, "steps of the run; 0: by --epochs", least=0)
    epochs: float = option(_NOTHING, "how often the training data is read", kind=float, least=0.0)
    batch_size: int = option(_NOTHING, "rows of a step", kind=int, least=1)
    max_length: int = option(_NOTHING, "tokens of a row at most", kind=int, least=4)

    learning_rate: float = option(_NOTHING, "at its highest (default: by the model's width)", kind=float, least=0.0)
    warmup: float = option(0.06, "share of the steps over which the rate rises", least=0.0)
    schedule: str = option("linear", "how the rate falls afterwards", choices=CURVES)
    weight_decay: float = option(_NOTHING, "of all but biases and norms", kind=float, least=0.0)
    beta1: float = option(0.9, "of AdamW", least=0.0)
    beta2: float = option(0.98, "of AdamW", least=0.0)
    epsilon: float = option(1e-6, "of AdamW", least=0.0)
    clip_norm: float = option(1.0, "the norm that gradients are cut to; 0: they are not", least=0.0)
    layer_decay: float = option(1.0, "a layer's rate by that of the layer above it", least=0.0)

    freeze_embeddings: bool = option(False, "leave the embeddings as they are")
    freeze_layers: int = option(0, "leave so many of the lowest layers, and the embeddings, as they are", least=0)
    head_only: bool = option(False, "train nothing but the head")
    lora_rank: int = option(0, "train low-rank deltas of this rank; 0: the weights", least=0)
    lora_alpha: float = option(16.0, "deltas are multiplied by this, divided by their rank", least=0.0)
    lora_targets: Sequence[str] = option(("query", "value"), "a projection that gets a delta", several=True)
    dropout: float | None = option(None, "of hidden states and attention (default: the model's)", kind=float, least=0.0)
    precision: str = option("float32", "of the computation", choices=PRECISIONS)
    seed: int = option(0, "of everything that is drawn", least=0)

    evaluate_every: int = option(0, "steps; 0: ten times a run", least=0)
    checkpoint_every: int = option(0, "steps; 0: with each evaluation", least=0)
    keep: int = option(2, "checkpoints that stay beside the best", least=1)
    patience: int = option(3, "evaluations without a better figure, then stop; 0: go on", least=0)
    metric: str = option("", "the figure that says what is best (default: the task's)")

    masking_rate: float = option(0.15, "share of the tokens that are hidden", least=0.0)
    whole_words: float = option(0.0, "share of the batches in which whole words are hidden", least=0.0)
    as_typed: bool = option(False, "write the text behind a <mask> as where somebody types one")
    packing: bool = option(False, "put short lines of one document together")
    doc_stride: int | None = option(
        None, "tokens that two windows of a context share (default: 128, or half a window)", kind=int, least=0
    )
    temperature: float = option(0.05, "of the contrastive loss", least=0.0)
    matryoshka: Sequence[int] = option((), "a width at which an embedding is trained too", several=True)
    pooling: str = option("mean", "what makes a vector of the states of tokens", choices=POOLINGS)
    negatives: int = option(4, "other passages for each query of a reranker", least=0)

    def __post_init__(self) -> None:
        if self.task not in TASK_NAMES:
            near = suggestion(str(self.task), TASK_NAMES, otherwise="choose one of them")
            raise InputError(f"expected a task of {', '.join(TASK_NAMES)}, received {self.task!r}; {near}")
        usual = {**EVERY, **BY_TASK[self.task]}
        for own in fields(self):
            value = getattr(self, own.name)
            value = usual.get(own.name) if value is None else value
            if own.metadata["several"]:
                value = _pairs(value) if own.name == "columns" else _several(own.name, value)
            object.__setattr__(self, own.name, _checked(own, value))
        self._check_together()

    def _check_together(self) -> None:
        shares = ("warmup", "masking_rate", "whole_words", "alpha", "layer_decay", "dropout", "beta1", "beta2")
        for name in shares:
            value = getattr(self, name)
            if value is not None and value > 1:
                raise InputError(f"{name} is a share, expected at most 1.0, received {value!r}")
        for name in ("epsilon", "temperature", "layer_decay", "masking_rate"):
            if getattr(self, name) == 0:
                raise InputError(f"expected {name} above 0, received 0; leave it out to have the usual value")
        for name in ("beta1", "beta2", "dropout"):
            if getattr(self, name) == 1:
                raise InputError(f"expected {name} below 1.0, received 1.0")
        if self.head_only and self.lora_rank:
            raise InputError("expected head_only or lora_rank, received both; leave one of them out")
        if self.lora_rank and not self.lora_targets:
            raise InputError(
                "expected lora_targets beside lora_rank, received none; leave them out to have the usual ones"
            )
        if self.steps == 0 and self.epochs == 0:
            raise InputError("expected steps or epochs above 0, received 0 for both; say one of them")
        if self.doc_stride is not None and self.doc_stride >= self.max_length:
            raise InputError(
                f"expected doc_stride below max_length, {self.max_length}, received {self.doc_stride}; "
                "windows that share all their tokens never end"
            )

    # -- in and out ------------------------------------------------------------------------------------------------

    @classmethod
    def of(cls, values: Mapping[str, Any], where: str = "a recipe") -> Self:
        """A recipe of values by name.

        Args:
            values: of the fields.
            where: what to call the place they come from in an error.

        Raises:
            InputError: for a name that is none, with the nearest, and for a value that will not do.
        """
        known = [own.name for own in fields(cls)]
        for name in values:
            if name not in known:
                near = suggestion(name, known, otherwise=f"leave it out, or choose one of {', '.join(known)}")
                raise InputError(f"{where} does not know {name!r}; {near}")
        return cls(**values)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str], **given: Any) -> Self:
        """The recipe in a file.

        Args:
            path: of a file in TOML with a line for each value that is not the usual one.
            **given: values that take the place of the file's; ``None`` leaves the file's.

        Raises:
            InputError: naming the file, and the line where it is no TOML.
        """
        with refusing(InputError, f"expected a recipe in TOML, received {os.fspath(path)}: {{why}}; mend the file"):
            values = tomllib.loads(read_bytes(path).decode("utf-8"))
        said = {name: value for name, value in given.items() if value is not None}
        return cls.of({**values, **said}, os.fspath(path))

    def to_toml(self) -> str:
        """The recipe as a file: a line for each field; what nothing holds for is left out."""
        lines = []
        for own in fields(self):
            value = getattr(self, own.name)
            if value is not None:
                lines.append(f"{own.name} = {_toml(value)}")
        return "\n".join(lines) + "\n"

    def replace(self, **values: Any) -> Self:
        """This recipe with other values."""
        return type(self).of({**self.values(), **values})

    def first_try(self, steps: int, **values: Any) -> Self:
        """This recipe in so many steps of a few rows, with nothing to evaluate on: whether all goes through.

        Args:
            steps: of the run; the last has the only checkpoint.
            **values: other values, such as less data.
        """
        small = {"steps": steps, "checkpoint_every": steps, "batch_size": 4, "eval": (), "test": ()}
        return self.replace(**{**small, **values})

    def values(self) -> dict[str, Any]:
        """The values by name."""
        return {own.name: getattr(self, own.name) for own in fields(self)}

    # -- what the model and the data decide ------------------------------------------------------------------------

    def completed(self, hidden_size: int, batches: int) -> Self:
        """The recipe with a value for everything.

        Args:
            hidden_size: of the model, which decides the rate.
            batches: of an epoch, which decide the steps.
        """
        steps = self.steps or max(1, math.ceil(self.epochs * batches))
        every = self.evaluate_every or max(1, math.ceil(steps / EVALUATIONS))
        rate = self.usual_rate(hidden_size) if self.learning_rate is None else self.learning_rate
        return self.replace(
            steps=steps, evaluate_every=every, checkpoint_every=self.checkpoint_every or every, learning_rate=rate
        )

    def usual_rate(self, hidden_size: int) -> float:
        """The peak rate that the task and a model of this width usually have."""
        if self.head_only:
            return HEAD_RATE
        width = sum(hidden_size > most for most in WIDTHS)
        rate = RATES.get(self.task, RATES[""])[width]
        return rate * LORA_RATE if self.lora_rank else rate


def _several(name: str, value: Any) -> tuple[Any, ...]:
    """A tuple of one text or several; of numbers, where the field holds numbers."""
    values = (value,) if isinstance(value, str | int | os.PathLike) else value
    if not isinstance(values, Sequence):
        raise InputError(f"expected {name} to be a list, received {type(value).__name__} {shown(value, 60)}")
    values = tuple(os.fspath(one) if isinstance(one, os.PathLike) else one for one in values)
    if name == "matryoshka":
        return tuple(_width(one) for one in values)
    for one in values:
        if not isinstance(one, str):
            raise InputError(f"expected {name} to be texts, received {type(one).__name__} {shown(one, 60)}")
    return values


def _width(value: Any) -> int:
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"expected matryoshka to be widths, integers of at least 1, received {shown(value, 60)}")
    return value


def _pairs(value: Any) -> dict[str, str]:
    """Columns by the task's names: a table of TOML, or on the command line ``name=column`` each."""
    if not isinstance(value, Mapping):
        parts = [one.partition("=") for one in _several("columns", value)]
        for name, sign, column in parts:
            if not (name and sign and column):
                raise InputError(f"expected columns as name=column, received {name + sign + column!r}")
        value = {name: column for name, _, column in parts}
    for name, column in value.items():
        if not isinstance(name, str) or not isinstance(column, str):
            raise InputError(f"expected columns to be names by names, received {shown(column, 60)} for {name!r}")
    return dict(value)


def _checked(own: Field[Any], value: Any) -> Any:
    """The value of a field, with a float where an integer stands for one.

    Raises:
        InputError: for a value that the field cannot have.
    """
    kind, least, choices = kind_of(own), own.metadata["least"], own.metadata["choices"]
    if value is None and own.default is None:
        return None
    if kind in NUMBERS:
        number, called = NUMBERS[kind]
        told = called if least is None else f"{called} of at least {least:g}"
        if isinstance(value, bool) or not isinstance(value, number) or not value >= (least or 0):
            raise InputError(f"{own.name} must be {told}, received {value!r}")
        if not math.isfinite(value):
            raise InputError(f"{own.name} must be {told}, and finite, received {value!r}")
        return float(value) if kind is float else int(value)
    if kind is bool and not isinstance(value, bool):
        raise InputError(f"{own.name} must be true or false, received {value!r}")
    if choices and value not in choices:
        near = suggestion(str(value), choices, otherwise="choose one of them")
        raise InputError(f"{own.name} must be one of {', '.join(map(repr, choices))}, received {value!r}; {near}")
    if kind is None and not own.metadata["several"] and not isinstance(value, str):
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
        if not isinstance(value, str):
            raise InputError(f"{own.name} must be a text, received {type(value).__name__} {shown(value, 60)}")
    return value


def _toml(value: Any) -> str:
    """A value of a recipe as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{_text(name)} = {_text(column)}" for name, column in value.items())
        return f"{{{pairs}}}"
    if isinstance(value, str):
        return _text(value)
    return f"[{', '.join(map(_toml, value))}]"


def _text(value: str) -> str:
    """A basic string of TOML, which is a string of JSON but for one control character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
