"""Checkpoints as wrappers and training programs leave them: a small model under other names, beside other things."""

from __future__ import annotations

import dataclasses
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.core.format_cases import Contents, plain, tensors_of
from tests.core.small_models import config_of
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.formats import FORMATS, Model
from xlmr_core.formats.parts import WRAPPERS
from xlmr_core.formats.tensors import LazyTensor, RawTensor, as_lazy

HEAD = "ForSequenceClassification"
CONFIG: XLMRobertaConfig = config_of("base", HEAD)
# How names begin, and keys of dictionaries, in what people share.
BEGINNINGS = ("model.", "net.", "student.", "base_model.model.", "roberta.bert.", "0.auto_model.", "encoder.model.")
KEYS = ("state_dict", "model_state_dict", "module", "model", "net", "ema", "weights", "a key", "generator.params")
SUFFIXES = {
    "torch": (".bin", ".pt", ".pth", ".ckpt", ".tar"),
    "safetensors": (".safetensors", ".st"),
    "flax": (".msgpack", ".ckpt"),
    "tf": (".h5", ".hdf5"),
    "keras": (".weights.h5", ".keras"),
}


@dataclasses.dataclass
class Wrapped:
    """A file to write.

    Attributes:
        content: tensors by stored name; for ``torch`` and ``flax`` in dictionaries too.
        expected: what is to be read; nothing if the file is to be refused.
        how: what was done to the model, for messages.
    """

    format: str
    content: dict[str, Any]
    expected: Contents
    how: list[str]
    suffix: str = ""

    def write(self, path: Path) -> Path:
        """Write the file, under a name with its suffix."""
        path = path.with_name(path.name + self.suffix)
        if self.format == "keras" and self.suffix == ".keras":
            weights = path.with_suffix(".h5")
            FORMATS["keras"].write(weights, self.content, Model(CONFIG, HEAD))
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("metadata.json", "{}")
                archive.writestr("config.json", "{}")
                archive.write(weights, "model.weights.h5")
            weights.unlink()
        elif self.format == "flax":
            FORMATS["flax"].write(path, _joined(self.content), Model(CONFIG, HEAD))
        elif self.format == "tf":
            FORMATS["tf"].write(path, self.content, Model(CONFIG, HEAD, sharded=True))
        else:
            FORMATS[self.format].write(path, self.content, Model(CONFIG, HEAD))
        return path


def small(seed: int = 0) -> dict[str, RawTensor]:
    """A small model's tensors by canonical name."""
    tensors = tensors_of(CONFIG, HEAD, "safetensors")
    return {name: RawTensor.from_numpy(raw.to_numpy() + np.float32(seed)) for name, raw in tensors.items()}


def stored(format: str, tensors: Mapping[str, RawTensor]) -> dict[str, LazyTensor]:
    """By stored names, in the stored layouts."""
    return FORMATS[format].encode({name: as_lazy(raw) for name, raw in tensors.items()}, Model(CONFIG, HEAD))


def with_wrappers(names: Mapping[str, Any], choose: Any, wrappers: tuple[str, ...] = WRAPPERS) -> dict[str, Any]:
    """Steps of wrappers put in front of the same modules of all names, as a wrapper of a module does."""
    wrapped: dict[str, Any] = {}
    for name, value in names.items():
        *steps, last = name.split(".")
        path, out = "", []
        for step in steps:
            path += f"{step}."
            out.append(step)
            out += [wrapper for wrapper in wrappers if choose(path, wrapper)]
        wrapped[".".join((*out, last))] = value
    return wrapped


def beside(rng: np.random.Generator, stem: Mapping[str, Any]) -> dict[str, Any]:
    """What a training program stores beside a model."""
    moments = {key: {"exp_avg": one(3), "step": one()} for key in range(2)}
    things: dict[str, Any] = {
        "optimizer_state_dict": {"state": moments, "param_groups": [{"lr": 0.1, "params": [0, 1]}]},
        "optimizer": {"state": {name: {"exp_avg": value, "exp_avg_sq": value} for name, value in stem.items()}},
        "opt_state": {"0": {"mu": dict(stem), "nu": dict(stem)}},
        "loss": one(),
        "rng_state": one(16),
        "epoch": 3,
        "note": "words",
        "scheduler": {"last_epoch": 2, "_last_lr": [0.1]},
    }
    return {name: things[name] for name in sorted(things) if rng.random() < 0.5}


def bare(contents: Contents) -> Contents:
    """Without the step before a bare encoder's names, which is as good as none."""
    return {name.removeprefix("roberta."): value for name, value in contents.items()}


def one(*shape: int) -> LazyTensor:
    return as_lazy(RawTensor.from_numpy(np.ones(shape, np.float32)))


def draw(seed: int) -> Wrapped:
    """A random wrapping of a small model."""
    rng = np.random.default_rng(seed)
    format = ("torch", "torch", "safetensors", "flax", "tf", "keras")[rng.integers(6)]
    tensors = small()
    suffix = SUFFIXES[format][rng.integers(len(SUFFIXES[format]))]
    wrapped = Wrapped(format, {}, bare(plain(tensors)), [format], suffix)
    beginning = BEGINNINGS[rng.integers(len(BEGINNINGS))] if rng.random() < 0.6 else ""
    content: dict[str, Any] = stored(format, tensors)
    if format in ("torch", "safetensors"):
        at = {
            (step, wrapper) for step in ("roberta.", "roberta.encoder.layer.0.", "classifier.") for wrapper in WRAPPERS
        }
        chosen = {place for place in sorted(at) if rng.random() < 0.1}
        content = with_wrappers(content, lambda path, wrapper: (path, wrapper) in chosen)
        outside = "".join(f"{wrapper}." for wrapper in WRAPPERS if rng.random() < 0.15)
        content = {f"{outside}{_placed(beginning, name)}": value for name, value in content.items()}
        wrapped.how += [outside, beginning, str(sorted(chosen))]
    elif format == "flax":
        content = {f"{beginning.replace('.', '/')}{name}": value for name, value in content.items()}
        wrapped.how.append(beginning)
    else:
        path = {"tf": "functional/", "keras": "layers/functional/layers/tfxlm_roberta_for_sequence_classification/"}
        if beginning:
            content = {path[format] + name: value for name, value in content.items()}
            wrapped.how.append(path[format])
    if format == "torch":
        keys = [KEYS[rng.integers(len(KEYS))] for _ in range(rng.integers(3))]
        fate = rng.random()
        if fate < 0.1:
            content = dict.fromkeys(content, one(0))
            wrapped.expected = {}
            wrapped.how.append("placeholders")
        more = beside(rng, content)
        for key in keys:
            content = {key: content}
        if keys and 0.1 <= fate < 0.2:
            content["another"] = {name: as_lazy(raw) for name, raw in small(1).items()}
            wrapped.expected = {}
            wrapped.how.append("two models")
        content = {**content, **{name: value for name, value in more.items() if name not in content}}
        wrapped.how += [*keys, *more]
    elif format == "flax" and rng.random() < 0.5:
        content = {"params": content, "opt_state": {"0": {"mu": dict(content), "count": one()}}, "step": one()}
        wrapped.how.append("TrainState")
    wrapped.content = content
    return wrapped


def _placed(beginning: str, name: str) -> str:
    """A name behind a beginning. Some beginnings are those of a bare encoder, beside which its head stands."""
    bare = beginning in ("roberta.bert.", "0.auto_model.", "encoder.model.")
    if not bare:
        return beginning + name
    return re.sub(r"^roberta\.", beginning, name)


def _joined(tree: Mapping[str, Any], before: str = "") -> dict[str, LazyTensor]:
    flat: dict[str, LazyTensor] = {}
    for key, value in tree.items():
        flat |= _joined(value, f"{before}{key}/") if isinstance(value, Mapping) else {before + key: value}
    return flat
