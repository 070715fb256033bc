"""How large, how fast and how far off is a model whose weights have four or eight bits?

The masked language model of the size of base, random weights, one sentence: the logits at its mask. "xlmr" are models
after ``optimize_for_inference`` in that scheme, not compiled; with a "wide table" that of words stays as it is, which
bitsandbytes never quantizes. "as bitsandbytes" is ours with a ``BitsAndBytesConfig`` (nf4, double quantization,
bfloat16 products), and "bitsandbytes" the original library behind transformers, asked the same. "mib" is what
``save_pretrained`` writes. The error is that of the last hidden states: the root mean square of the difference to
float32, over that of float32.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import harness, peers
from benchmarks.harness import Case, Numbers, Options, Timed
from benchmarks.models import checkpoint
from benchmarks.targets import QUANTIZED_SENTENCE
from xlmr_torch import AutoModelForMaskedLM, AutoTokenizer, BitsAndBytesConfig, optimize_for_inference, quantize

SENTENCE = "Plants create <mask> through a process known as photosynthesis, and animals breathe it day and night."
SCHEMES = ("int8", "int4", "nf4", "fp4")
# Of the original library, and of ours as it has it.
ASKED: dict[str, Any] = {
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": torch.bfloat16,
}


def cases(options: Options) -> Iterator[Case]:
    yield Case(
        QUANTIZED_SENTENCE,
        {
            "xlmr float32": functools.partial(job, options, functools.partial(optimized, options, "float32")),
            "xlmr bfloat16": functools.partial(job, options, functools.partial(optimized, options, "bfloat16")),
            **{
                f"xlmr {name}": functools.partial(job, options, functools.partial(ours, options, name))
                for name in SCHEMES
            },
            **{
                f"xlmr {name}, wide table": functools.partial(job, options, functools.partial(as_wide, options, name))
                for name in ("int4", "nf4")
            },
            "xlmr as bitsandbytes nf4": functools.partial(job, options, functools.partial(as_bitsandbytes, options)),
            "bitsandbytes nf4": functools.partial(job, options, functools.partial(bitsandbytes, options)),
        },
        ("xlmr float32",),
        compare=difference,
    )


class Sized(Timed):
    """A timed job of a model that takes so much of the disk."""

    def __init__(self, work: Callable[[], Any], answer: Any, mib: float) -> None:
        super().__init__(work, answer)
        self._mib = mib

    def __call__(self) -> Numbers:
        return {**super().__call__(), "mib": self._mib}


def job(options: Options, make: Callable[[], Any]) -> Sized:
    model = make()
    mib = size_of(model)  # before the first call, after which the original library writes rounded biases
    tokenizer = AutoTokenizer.from_pretrained(checkpoint(options))
    inputs = tokenizer(SENTENCE, return_tensors="pt")
    (place,) = (inputs["input_ids"][0] == tokenizer.mask_token_id).nonzero()[:, 0].tolist()
    how = {"masked_positions": torch.tensor([[place]])} if type(model).__module__.startswith("xlmr_torch") else {}

    @torch.inference_mode()
    def work() -> None:
        model(**inputs, **how)

    with torch.inference_mode():
        states = model.base_model(**inputs).last_hidden_state.float().numpy()
    return Sized(work, states, mib)


def size_of(model: Any) -> float:
    with tempfile.TemporaryDirectory(prefix="xlmr-quantized-") as folder:
        model.save_pretrained(folder)
        return sum(path.stat().st_size for path in Path(folder).glob("*.safetensors")) / 2**20


# ---- The models


def optimized(options: Options, dtype: str) -> Any:
    """With floating point weights."""
    return optimize_for_inference(AutoModelForMaskedLM.from_pretrained(checkpoint(options)), dtype, compile=False)


def ours(options: Options, name: str, skip: Sequence[str] = ()) -> Any:
    """In a scheme of this library."""
    model = AutoModelForMaskedLM.from_pretrained(checkpoint(options))
    return optimize_for_inference(quantize(model, name, skip), compile=False)


def as_wide(options: Options, name: str) -> Any:
    """In a scheme of this library, but for the table of words and what is tied to it."""
    return ours(options, name, ["embeddings"])


def as_bitsandbytes(options: Options) -> Any:
    return AutoModelForMaskedLM.from_pretrained(checkpoint(options), quantization_config=BitsAndBytesConfig(**ASKED))


def bitsandbytes(options: Options) -> Any:
    """The original library.

    Raises:
        Absent: if it or transformers is not installed.
    """
    hf = peers.peer("transformers", options)
    peers.installed("bitsandbytes")
    config = hf.BitsAndBytesConfig(**ASKED)
    return hf.AutoModelForMaskedLM.from_pretrained(checkpoint(options), quantization_config=config).eval()


def difference(expected: NDArray[np.float32], found: NDArray[np.float32]) -> Numbers:
    return {"error": float(np.linalg.norm(found - expected) / np.linalg.norm(expected))}


if __name__ == "__main__":
    harness.main("quantized", __doc__, cases)
