"""PyTorch, for the parity tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import xlmr_torch
from tests.parity.adapters import Mode
from tests.parity.compare import flatten
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.heads import model_class_name
from xlmr_core.outputs import ModelOutput

Array = NDArray[Any]


class TorchModel:
    """A PyTorch model, spoken to in NumPy."""

    def __init__(self, model: Any, mode: Mode) -> None:
        self.model = model.eval()
        self.model.set_attn_implementation(mode.kernel)
        self.model.set_packing("always" if mode.packed else "never")
        self.output_attentions = mode.kernel == "eager"

    def call(self, inputs: Mapping[str, Any]) -> Any:
        dtype = next(self.model.parameters()).dtype
        arguments: dict[str, Any] = {}
        for name, x in inputs.items():
            if isinstance(x, np.ndarray):
                x = torch.from_numpy(x)
                x = x.to(dtype) if x.is_floating_point() and name != "labels" else x
            arguments[name] = x
        return self.model(**arguments, output_hidden_states=True, output_attentions=self.output_attentions)

    def forward(self, inputs: Mapping[str, Any], *, dropout_seed: int | None = None) -> dict[str, Array]:
        self.model.train(dropout_seed is not None)
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(dropout_seed or 0)
            output = self.call(inputs)
        self.model.eval()
        assert isinstance(output, ModelOutput)
        return flatten(as_numpy(output))

    def generate(self, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Array]:
        given = {name: torch.from_numpy(x) for name, x in inputs.items()}
        if not self.model.can_generate():
            return {"sequences": self.model.generate(**given, **options).numpy()}
        output = self.model.generate(**given, **options, return_dict_in_generate=True)
        return {
            name: output[name].numpy() for name in ("sequences", "sequences_scores", "beam_indices") if name in output
        }

    def gradients(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        self.model.zero_grad()
        self.call(inputs)["loss"].backward()
        found = {name: p.grad for name, p in self.model.named_parameters()}
        return {name: np.zeros(()) if grad is None else grad.double().numpy() for name, grad in found.items()}


def as_numpy(output: Mapping[str, Any]) -> dict[str, Any]:
    def convert(x: torch.Tensor) -> Array:
        return x.detach().double().numpy()

    # The cache is compared by what follows from it.
    found = {name: x for name, x in output.items() if name != "past_key_values"}
    return {name: tuple(map(convert, x)) if isinstance(x, tuple) else convert(x) for name, x in found.items()}


def build(config: XLMRobertaConfig, head: str, params: Mapping[str, Array], mode: Mode, dtype: str) -> TorchModel:
    """A model of these parameters; every name of its state dict must be among them and no other."""
    model = getattr(xlmr_torch, model_class_name(config, head))(config)
    model.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in params.items()}, strict=True)
    return TorchModel(model.to(getattr(torch, dtype)), mode)


def load(folder: Path, class_name: str, mode: Mode, dtype: str) -> TorchModel:
    """A saved model, through the backend's own loading."""
    model = getattr(xlmr_torch, class_name).from_pretrained(folder, dtype=dtype, attn_implementation=mode.kernel)
    return TorchModel(model, mode)
