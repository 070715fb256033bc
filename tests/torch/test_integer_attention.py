"""Attention in integers beside PyTorch's own, and who takes it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.torch.models import Case
from xlmr_torch import integer_attention as kernel
from xlmr_torch import optimize_for_inference, packed_attention

pytestmark = pytest.mark.skipif(not kernel.has_integer_attention(), reason="this processor has no AVX512-VNNI")


def drawn(tokens: int, heads: int, channels: int, spread: float = 1.0) -> list[Tensor]:
    """Queries, keys and values as views of one tensor, as fused projections leave them."""
    generator = torch.Generator().manual_seed(tokens)
    wide = torch.randn(tokens, 3, heads, channels, generator=generator)
    wide[:, 1] += 5  # what keys have in common changes no weight
    wide[:, 2] *= torch.linspace(0.1, 10, channels)
    wide[:, 0] *= spread
    return list(wide.unbind(1))


def attended(q_SNH: Tensor, k_SNH: Tensor, v_SNH: Tensor, scale: float) -> Tensor:
    context_SNH = torch.full(q_SNH.shape, 7.0)
    kernel.integer_attention(q_SNH, k_SNH, v_SNH, scale, context_SNH)
    return context_SNH


def expected(q_SNH: Tensor, k_SNH: Tensor, v_SNH: Tensor, scale: float) -> Tensor:
    heads_first = (x.transpose(0, 1).double() for x in (q_SNH, k_SNH, v_SNH))
    return F.scaled_dot_product_attention(*heads_first, scale=scale).transpose(0, 1).float()


@pytest.mark.parametrize("spread", [0.01, 1.0, 30.0], ids=["flat", "usual", "sharp"])
@pytest.mark.parametrize(
    ("tokens", "heads", "channels"), [(1, 1, 1), (2, 3, 5), (17, 2, 64), (97, 1, 16), (256, 2, 8), (600, 3, 80)]
)
def test_the_same_as_in_float(tokens: int, heads: int, channels: int, spread: float) -> None:
    """Blocks and columns that are not full among them. What is off is a 4 000th of what values reach, or less."""
    q_SNH, k_SNH, v_SNH = drawn(tokens, heads, channels, spread)
    scale = channels**-0.5
    found, wanted = attended(q_SNH, k_SNH, v_SNH, scale), expected(q_SNH, k_SNH, v_SNH, scale)
    reach_1NH = (v_SNH.amax(0) - v_SNH.amin(0)).clamp_min(1e-6)
    off = ((found - wanted).abs() / reach_1NH).max().item()
    # Scores of up to 30 standard deviations differ by more than their 13 bits show.
    assert off < 1 / 1000 if spread < 2 else off < 1 / 30, off


def test_weights_too_small_for_eight_bits_count() -> None:
    """One key with half the weight, thousands with the rest."""
    tokens = 4000
    q_SNH, k_SNH = torch.ones(tokens, 1, 4), torch.zeros(tokens, 1, 4)
    k_SNH[7] = math.log(tokens) / 2
    v_SNH = torch.full((tokens, 1, 4), 3.0)
    v_SNH[7] = -1
    found = attended(q_SNH, k_SNH, v_SNH, 0.5)
    torch.testing.assert_close(found, expected(q_SNH, k_SNH, v_SNH, 0.5), atol=3e-3, rtol=0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_not_lost(value: float) -> None:
    tensors = drawn(40, 2, 8)
    for number in range(3):
        broken = [x.clone() for x in tensors]
        broken[number][5, 1, 3] = value
        found = attended(*broken, 1.0)
        assert found[5, 1].isnan().any() and not found[:, 0].isnan().any()
        assert number == 0 or found[:, 1].isnan().any(-1).all()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The lengths of texts that attended in integers, where more than 3 tokens are a long one."""
    seen: list[int] = []

    def counted(*arguments: Any) -> None:
        seen.append(len(arguments[0]))
        kernel.integer_attention(*arguments)

    monkeypatch.setattr(packed_attention, "SHORT", 3)
    monkeypatch.setattr(packed_attention, "integer_attention", counted)
    return seen


def test_long_texts_of_a_compiled_int8_model(calls: list[int]) -> None:
    case = Case("XLMRoberta", "ForTokenClassification")
    inputs = {"input_ids": torch.randint(5, 40, (3, 9)), "attention_mask": torch.ones(3, 9, dtype=torch.int64)}
    inputs["attention_mask"][0, 3:] = 0
    plain = case.build().eval()
    rounded = optimize_for_inference(case.build(), "int8", compile=False)
    with torch.no_grad():
        expected, in_int8 = plain(**inputs).logits, rounded(**inputs).logits
        assert not calls, "only where a compiler is there"
        rounded.base_model.encoder.rounds_attention = True
        found = rounded(**inputs).logits
    assert calls == [9, 9] * plain.config.num_hidden_layers
    assert not torch.equal(found, in_int8)
    assert (found - expected).abs().mean() < 1.25 * (in_int8 - expected).abs().mean()


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")  # PyTorch's compiler, when it is imported
@pytest.mark.parametrize(("dtype", "rounds"), [("int8", True), ("float32", False)])
def test_compiled_for_the_default_compiler_int8_models_round(dtype: str, rounds: bool) -> None:
    model = optimize_for_inference(Case("XLMRoberta", "ForMaskedLM").build(), dtype)
    assert model.base_model.encoder.rounds_attention is rounds
