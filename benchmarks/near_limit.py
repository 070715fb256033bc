"""How near is the compiled encoder to its matrix products alone, and what is the rest?

"products" are the products of all layers on the same number of tokens, with weights of their own in each layer, by the
kernels that the encoder calls: oneDNN's in float32 and bfloat16, ``torch._int_mm`` in int8. "xlmr compiled" is the
encoder on the texts of natural length. "its profile" is the time of its kernels by kind, from PyTorch's profiler, which
takes some time itself: shares of it count, its sum does not. "other" is what lies between kernels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks import harness, ours, texts
from benchmarks.harness import Absent, Case, Job, Numbers, Options, Timed
from benchmarks.models import checkpoint
from benchmarks.targets import NATURAL
from xlmr_core.config import AutoConfig
from xlmr_torch.onednn import DTYPES

# Kinds of kernels by a part of their name, the first that fits; the compiler names its loops after what they compute.
KINDS = {
    "products": ("_int_mm", "fused_linear", "mkldnn", "addmm", "aten::mm"),
    "attention": ("packed_context", "scaled_dot_product", "bmm", "softmax"),
    "gelu": ("gelu", "erf"),
    "norms": ("norm", "var_mean", "rsqrt"),
    "casts, sums and rounding": ("fused", "aten::"),
}
OTHER = "other"


def cases(options: Options) -> Iterator[Case]:
    config = AutoConfig.from_pretrained(checkpoint(options))
    batch = texts.natural(config.vocab_size, **({"rows": 4} if options.tiny else {}))
    tokens = batch.facts["tokens"]
    for dtype in ("float32", "bfloat16", "int8"):
        yield Case(
            f"{dtype}, {NATURAL}",
            {
                "products": functools.partial(products, dtype, config, tokens),
                "xlmr compiled": functools.partial(compiled, options, dtype, batch),
                "its profile": functools.partial(Profile, options, dtype, batch),
            },
            ("products",),
            facts={"tokens": tokens, "GFLOP": round(2e-9 * tokens * sum(o * i for o, i in shapes(config)), 1)},
        )


def shapes(config: Any) -> list[tuple[int, int]]:
    """Outputs and inputs of every projection of the layers."""
    wide, narrow = config.intermediate_size, config.hidden_size
    return [*[(narrow, narrow)] * 4, (wide, narrow), (narrow, wide)] * config.num_hidden_layers


def products(dtype: str, config: Any, tokens: int) -> Job:
    """The products alone."""
    generator = torch.Generator().manual_seed(0)
    draw = functools.partial(torch.randn, generator=generator)
    multiply = _int8_product if dtype == "int8" else _onednn_product
    kind = getattr(torch, dtype)
    if dtype != "int8" and kind not in DTYPES:
        raise Absent(f"oneDNN does not multiply {dtype} on this machine")
    weights = [_as(draw(shape), kind) for shape in shapes(config)]
    biases = [torch.zeros(len(weight), dtype=kind) for weight in weights]
    inputs = {width: _as(draw(tokens, width), kind) for width in {weight.shape[1] for weight in weights}}

    @torch.inference_mode()
    def work() -> None:
        for weight, bias in zip(weights, biases, strict=True):
            multiply(inputs[weight.shape[1]], weight, bias)

    return Timed(work)


def _as(values: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    return (values * 30).clamp(-127, 127).to(kind) if kind is torch.int8 else values.to(kind)


def _onednn_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _int8_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return torch._int_mm(x, weight.t())


def compiled(options: Options, dtype: str, batch: texts.Batch) -> Job:
    forward = ours.optimized_encoder(options, dtype)
    forward(batch)  # compiles
    return Timed(functools.partial(forward, batch))


class Profile:
    """Milliseconds by kind of kernel of one call."""

    def __init__(self, options: Options, dtype: str, batch: texts.Batch) -> None:
        import torch._inductor.config

        with torch._inductor.config.patch({"cpp.enable_kernel_profile": True}):
            self._forward: Callable[[Any], Any] = ours.optimized_encoder(options, dtype)
            self._forward(batch)
        self._batch = batch

    def __call__(self) -> Numbers:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            self._forward(self._batch)
        found = dict.fromkeys((*KINDS, OTHER), 0.0)
        for event in profile.key_averages():
            found[kind_of(event.key)] += event.self_cpu_time_total / 1e3
        return {f"{kind}, ms": round(value, 2) for kind, value in found.items()}


def kind_of(kernel: str) -> str:
    """The kind of a kernel by its name."""
    return next((kind for kind, parts in KINDS.items() if any(part in kernel for part in parts)), OTHER)


if __name__ == "__main__":
    harness.main("near_limit", str(__doc__), cases)
