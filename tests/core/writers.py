"""What answers the tasks that write in these tests: the reference, or ids that are given."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from xlmr_core.config import AutoConfig
from xlmr_core.generation import (
    GenerationConfig,
    Hooks,
    arrange_prompt,
    plan_generation,
    read_generation_config,
    read_request,
)
from xlmr_core.reference.generation import generate

__all__ = ["Given", "Reference", "reference"]


class Reference:
    """The reference in the place of a backend.

    Args:
        model: has ``config``, ``params`` and ``generation_config``.
    """

    framework, device = "pt", "cpu"

    def __init__(self, model: Any) -> None:
        self.model, self.config = model, model.config
        self.batches: list[list[int]] = []

    def generate(self, arrays: dict[str, Any], options: Mapping[str, Any], streamer: Any = None) -> Any:
        said = dict(options)
        noise = np.random.default_rng(said.pop("seed", 0))
        self.batches.append(arrays["attention_mask"].sum(axis=1).tolist())
        request = read_request(
            self.config,
            self.model.generation_config,
            caller="generate()",
            generation_config=said.pop("generation_config", None),
            hooks=Hooks.of(said.pop("logits_processor", None), None, None, streamer),
            kwargs=said,
        )
        numbering = request.options.position_numbering
        prompt = arrange_prompt(
            self.config, arrays["input_ids"], arrays["attention_mask"], position_numbering=numbering
        )
        plan = plan_generation(self.config, request, prompt)
        found = generate(
            self.config,
            self.model.params,
            plan,
            prompt,
            hooks=request.hooks,
            noise=lambda step, shape: noise.gumbel(size=shape),
        ).sequences
        if streamer is not None:
            streamer.put(prompt.came)
            for ids in found[:, prompt.came.shape[1] :].T:
                streamer.put(ids)
            streamer.end()
        return found


@cache
def reference(folder: Path) -> Any:
    """A checkpoint as :class:`Reference` takes it."""
    config = AutoConfig.from_pretrained(folder)
    return SimpleNamespace(
        config=config,
        params=load_file(folder / "model.safetensors"),
        generation_config=read_generation_config(folder, config),
        name_or_path="",
    )


class Given:
    """A model that writes what it is given behind each prompt, or behind one token where it has an encoder.

    Args:
        new: ids of each answer, one row a sequence.
        config: of the model.
        **said: of its ``generation_config.json``.
    """

    framework, device = "pt", "cpu"

    def __init__(self, new: Any, config: Any, **said: Any) -> None:
        self.new, self.config = np.array(new, np.int64), config
        self.model = SimpleNamespace(generation_config=GenerationConfig(pad_token_id=1, **said), name_or_path="")
        self.asked: list[dict[str, Any]] = []
        self.batches: list[list[list[int]]] = []

    def generate(self, arrays: dict[str, Any], options: Mapping[str, Any], streamer: Any = None) -> Any:
        self.asked.append(dict(options))
        ids = arrays["input_ids"]
        self.batches.append(ids.tolist())
        before = np.zeros((len(ids), 1), np.int64) if hasattr(self.config, "decoder") else ids
        rows = [np.concatenate([row, new]) for row in before for new in self.new]
        if streamer is not None:
            streamer.put(before)
            for token in self.new[0]:
                streamer.put([int(token)])
            streamer.end()
        return np.array(rows)

    def tensor(self, array: Any) -> Any:
        return ("tensor", array.tolist())
