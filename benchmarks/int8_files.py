"""How large is the int8 checkpoint, and is it the same model after saving and loading?

The masked language model with its vocabulary head, saved as safetensors. The error is the difference between the logits
of the model that was saved and of the one that was loaded: it has to be zero.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks import harness, texts
from benchmarks.harness import Case, Numbers, Options
from benchmarks.models import checkpoint
from xlmr_torch import AutoModelForMaskedLM, optimize_for_inference


def cases(options: Options) -> Iterator[Case]:
    yield Case(
        "size on disk",
        {"float32": lambda: Saved(options, None), "int8": lambda: Saved(options, "int8")},
        ("float32",),
        compare=lambda expected, found: {"error of the loaded": found},
        rounds=1,
        warmup=0,
    )


class Saved:
    """A job that loads, optimizes, saves, loads again and compares."""

    def __init__(self, options: Options, dtype: str | None) -> None:
        model = AutoModelForMaskedLM.from_pretrained(checkpoint(options))
        self._model = model if dtype is None else optimize_for_inference(model, dtype=dtype, compile=False)
        self.answer: float | None = None

    def __call__(self) -> Numbers:
        with tempfile.TemporaryDirectory(prefix="xlmr-int8-") as name:
            self._model.save_pretrained(name)
            size = sum(path.stat().st_size for path in Path(name).glob("*.safetensors"))
            loaded = AutoModelForMaskedLM.from_pretrained(name)
            self.answer = float((_logits(self._model) - _logits(loaded)).abs().max())
        return {"mib": size / 2**20}


@torch.inference_mode()
def _logits(model: Any) -> torch.Tensor:
    batch = texts.natural(model.config.vocab_size, rows=4)
    logits: torch.Tensor = model(
        input_ids=torch.from_numpy(batch.ids_BS),
        attention_mask=torch.from_numpy(batch.mask_BS),
        masked_positions=torch.tensor([[1], [2], [1], [2]]),
    ).logits
    return logits.float()


if __name__ == "__main__":
    harness.main("int8_files", __doc__, cases)
