"""LoRA on weights of bitsandbytes without PEFT: recorded first steps, and the adapters that were saved behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import xlmr_torch
from tests.torch.models import assert_close

# By class: the base, and what is trained as a whole (``modules_to_save``).
ADAPTERS = {
    "MaskedLM": (xlmr_torch.XLMRobertaForMaskedLM, "nf4_single", ()),
    "SequenceClassification": (xlmr_torch.XLMRobertaForSequenceClassification, "nf4_skip_classifier", ("classifier",)),
}
each_adapter = pytest.mark.parametrize("name", ADAPTERS)
KEY = "base_model.model."


class Lora(nn.Module):
    """A layer and an adapter of rank 4 whose product counts twice, as PEFT makes it."""

    def __init__(self, layer: nn.Module, into: Tensor, out: Tensor) -> None:
        super().__init__()
        self.layer, self.into, self.out = layer, nn.Parameter(into), nn.Parameter(out)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x) + x @ self.into.t() @ self.out.t() * 2
        return y


class Adapted:
    """A recorded base with adapters of these values.

    Args:
        name: of ``ADAPTERS``.
        folder: of the fixtures.
        values: of the adapters by name, as a file or a recording has them.
    """

    def __init__(self, name: str, folder: Path, values: dict[str, Tensor]) -> None:
        kind, base, whole = ADAPTERS[name]
        self.folder = folder / name / f"lora_on_{base}"
        self.expected = np.load(self.folder / "expected.npz")
        self.model: Any = kind.from_pretrained(folder / name / base).requires_grad_(False).set_packing("never")
        self.whole = {path: self.model.get_submodule(path).requires_grad_(True) for path in whole}
        self.layers: dict[str, Lora] = {}
        for path in sorted({key.removeprefix(KEY).partition(".lora_")[0] for key in values if ".lora_" in key}):
            pair = (part_of(values, path, which).clone() for which in "AB")
            self.layers[path] = Lora(self.model.get_submodule(path), *pair)
            self.model.set_submodule(path, self.layers[path])
        assert len(self.layers) == 3

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """By the names of an adapter's file."""
        found = {}
        for path, layer in self.layers.items():
            found |= {f"{KEY}{path}.lora_A.weight": layer.into, f"{KEY}{path}.lora_B.weight": layer.out}
        for path, module in self.whole.items():
            found |= {f"{KEY}{path}.{name}": x for name, x in module.named_parameters()}
        return found

    def inputs(self, *names: str) -> dict[str, Tensor]:
        return {name: torch.from_numpy(self.expected[name]) for name in ("input_ids", "attention_mask", *names)}

    def logits(self) -> np.ndarray:
        with torch.no_grad():
            return self.model.eval()(**self.inputs()).logits.numpy()  # type: ignore[no-any-return]


def part_of(values: dict[str, Tensor], path: str, which: str) -> Tensor:
    (found,) = (x for key, x in values.items() if f"{path}.lora_{which}." in key)
    return found


def recorded_parts(expected: Any, kind: str) -> dict[str, Tensor]:
    """Recorded tensors of a kind, by the names of an adapter's file."""
    names = (key for key in expected if key.startswith(kind))
    return {
        key.removeprefix(kind).replace(".modules_to_save", "").replace(".default", ""): torch.from_numpy(expected[key])
        for key in names
    }


@each_adapter
def test_adapters_train_as_recorded(name: str, shared: Path) -> None:
    """Losses, first gradients, and what was saved behind two steps."""
    fixtures = shared / "quantized"
    expected = np.load(fixtures / name / f"lora_on_{ADAPTERS[name][1]}" / "expected.npz")
    adapted = Adapted(name, fixtures, recorded_parts(expected, "initial__"))
    model, trained = adapted.model.train(), adapted.trained
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    optimizer = torch.optim.AdamW(trained.values(), lr=5e-3, weight_decay=0.0)
    losses = []
    for step in range(2):
        loss = model(**adapted.inputs("labels")).loss
        loss.backward()
        losses.append(float(loss.detach()))
        for key, gradient in recorded_parts(expected, "grad_step0__").items() if step == 0 else ():
            assert trained[key].grad is not None, key
            assert_close(trained[key].grad, gradient, tolerance=1e-5)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        losses.append(float(model(**adapted.inputs("labels")).loss))
    assert losses == pytest.approx(list(expected["losses"]), abs=2e-5)
    np.testing.assert_allclose(adapted.logits(), expected["logits_dequantized_float32"], rtol=0, atol=5e-5)
    stored = load_file(adapted.folder / "adapter_model.safetensors")
    assert stored.keys() == trained.keys()
    for key, x in stored.items():
        assert_close(trained[key].detach(), x, tolerance=1e-4)


@each_adapter
def test_a_saved_adapter_gives_the_recorded_answers(name: str, shared: Path) -> None:
    fixtures = shared / "quantized"
    stored = load_file(fixtures / name / f"lora_on_{ADAPTERS[name][1]}" / "adapter_model.safetensors")
    adapted = Adapted(name, fixtures, stored)
    with torch.no_grad():
        for path, module in adapted.whole.items():
            for own, x in module.named_parameters():
                x.copy_(stored[f"{KEY}{path}.{own}"])
    np.testing.assert_allclose(adapted.logits(), adapted.expected["logits_dequantized_float32"], rtol=0, atol=1e-5)


@each_adapter
def test_an_adapter_loads_over_its_base(name: str, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PEFT, as a plain float32 model."""
    monkeypatch.chdir(shared / "quantized")  # from where its base was named
    kind, base, _ = ADAPTERS[name]
    folder = shared / "quantized" / name / f"lora_on_{base}"
    expected = np.load(folder / "expected.npz")
    model = kind.from_pretrained(folder)
    assert not model.is_quantized and model.dtype is torch.float32
    inputs = {key: torch.from_numpy(expected[key]) for key in ("input_ids", "attention_mask")}
    with torch.no_grad():
        logits = model.set_packing("never")(**inputs).logits
    np.testing.assert_allclose(logits.numpy(), expected["logits_dequantized_float32"], rtol=0, atol=1e-5)
