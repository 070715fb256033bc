"""Attention over packed tokens against the formula, one sequence after the other."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.torch.models import assert_close
from xlmr_core.errors import InputError
from xlmr_torch.packed_attention import SHORT, _nested, packed_attention
from xlmr_torch.packing import Packing

LENGTHS = {
    "natural": (7, 1, 12),
    "one token": (1,),
    "one sequence": (40,),
    "with empty ones": (0, 3, 0, 5, 0),
    "a long one beside short ones": (3, SHORT + 1, SHORT),
}
GPU = torch.cuda.is_available()
each_lengths = pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
both_ways = pytest.mark.parametrize("causal", [False, True])


def packing_of(lengths: tuple[int, ...]) -> Packing:
    return Packing.from_mask(torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])


def drawn(lengths: tuple[int, ...], dtype: torch.dtype = torch.float32, head_size: int = 8) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(sum(lengths), 3, head_size, dtype=dtype, requires_grad=True) for _ in range(3)]


def formula(query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], scale: float, causal: bool) -> Tensor:
    """(T, N, H) by the plain formula in float64."""
    found = []
    for q, k, v in zip(*(x.double().split(lengths) for x in (query, key, value)), strict=True):
        scores = torch.einsum("qnh,knh->nqk", q, k) * scale
        if causal:
            scores = scores.masked_fill(torch.ones(scores.shape[1:]).triu(1).bool(), -torch.inf)
        found.append(torch.einsum("nqk,knh->qnh", scores.softmax(-1), v))
    return torch.cat(found)


@each_lengths
@both_ways
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 2e-6), (torch.float64, 1e-12), (torch.bfloat16, 3e-2), (torch.float16, 3e-3)],
)
def test_values_and_gradients(lengths: tuple[int, ...], causal: bool, dtype: torch.dtype, tolerance: float) -> None:
    tensors = drawn(lengths, dtype)
    actual = packed_attention(*tensors, packing_of(lengths), scale=0.3, dropout=0.0, causal=causal)
    expected = formula(*tensors, lengths, 0.3, causal)
    with torch.no_grad():
        alone = packed_attention(*tensors, packing_of(lengths), scale=0.3, dropout=0.0, causal=causal)
    for context in (actual, alone):
        assert context.dtype is dtype
        assert_close(context.double(), expected, tolerance=tolerance)
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad(actual, tensors, direction.to(dtype))
    wanted = torch.autograd.grad(expected, tensors, direction.double())
    for x, y in zip(found, wanted, strict=True):
        assert x.dtype is dtype
        assert_close(x.double(), y.double(), tolerance=4 * tolerance)


# It has no gradient.
OF_A_CONTEXT = ("test_schema", "test_faketensor")


@both_ways
def test_the_operator_keeps_pytorchs_contract(causal: bool) -> None:
    """Its schema, its shapes without values, its gradient, and all of it under the compiler with dynamic sizes."""
    lengths = LENGTHS["natural"]
    arguments = (*drawn(lengths), packing_of(lengths).cu_seqlens, 0.3, causal)
    torch.library.opcheck(torch.ops.xlmr.packed_attention.default, arguments)
    with torch.no_grad():
        torch.library.opcheck(torch.ops.xlmr.packed_context.default, (*arguments, False), test_utils=OF_A_CONTEXT)


# By how they lie: each is made of (T, N, H) of its own values.
STRIDES = {
    "every second value": lambda x: torch.stack((x, x), -1).flatten(-2)[..., ::2],
    "heads last": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "tokens last": lambda x: x.permute(1, 2, 0).contiguous().permute(2, 0, 1),
    "one value for all": lambda x: x[:1, :1, :1].expand(x.shape),
}


@pytest.mark.parametrize("how", STRIDES)
@pytest.mark.parametrize("which", range(3))
def test_queries_keys_and_values_that_lie_otherwise(how: str, which: int) -> None:
    lengths = LENGTHS["natural"]
    tensors = [x.detach() for x in drawn(lengths)]
    tensors[which] = STRIDES[how](tensors[which])
    tensors = [x.requires_grad_() for x in tensors]
    actual = packed_attention(*tensors, packing_of(lengths), scale=0.3, dropout=0.0, causal=False)
    with torch.no_grad():
        alone = packed_attention(*tensors, packing_of(lengths), scale=0.3, dropout=0.0, causal=False)
    expected = formula(*tensors, lengths, 0.3, False)
    for context in (actual, alone):
        assert_close(context.double(), expected, tolerance=2e-6)
    direction = STRIDES[how](torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)))
    found = torch.autograd.grad(actual, tensors, direction)
    for x, y in zip(found, torch.autograd.grad(expected, tensors, direction.double()), strict=True):
        assert_close(x.double(), y.double(), tolerance=1e-5)


@pytest.mark.parametrize(
    "change",
    [lambda x: x[:, :2], lambda x: x[..., :4], lambda x: x[:-1], lambda x: x.double()],
    ids=["fewer heads", "smaller heads", "fewer tokens", "another dtype"],
)
@pytest.mark.parametrize("which", range(3))
def test_what_pytorchs_kernel_would_not_survive_is_refused(change: Any, which: int) -> None:
    tensors = drawn((4, 6))
    tensors[which] = change(tensors[which])
    for wants_gradients in (True, False):
        with (
            torch.set_grad_enabled(wants_gradients),
            pytest.raises(
                InputError, match=r"expected queries, keys and values of one shape and one dtype, received \("
            ),
        ):
            packed_attention(*tensors, packing_of((4, 6)), scale=0.3, dropout=0.0, causal=False)


def test_dropout_drops_weights_and_keeps_the_mean() -> None:
    lengths = (30,)
    query, key, value = drawn(lengths)
    value = torch.ones_like(value)
    torch.manual_seed(3)
    many = torch.stack(
        [
            packed_attention(query, key, value, packing_of(lengths), scale=0.3, dropout=0.5, causal=False)
            for _ in range(40)
        ]
    )
    assert many.std() > 0.1
    assert abs(many.mean().item() - 1) < 0.02


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_the_formula_of_the_gpu_kernel_on_the_cpu() -> None:
    """Nested tensors attend on the CPU too, slowly and without a causal mask: enough to see that they are put together
    rightly.
    """
    lengths = LENGTHS["natural"]
    tensors, packing = drawn(lengths), packing_of(lengths)
    nested = _nested(*tensors, packing, 0.3, 0.0, False)
    expected = packed_attention(*tensors, packing, scale=0.3, dropout=0.0, causal=False)
    assert_close(nested, expected)
    for x, y in zip(
        torch.autograd.grad(nested.sum(), tensors), torch.autograd.grad(expected.sum(), tensors), strict=True
    ):
        assert_close(x, y, tolerance=1e-5)


@pytest.mark.skipif(not GPU, reason="needs a CUDA GPU: the packed kernel of GPUs")
@both_ways
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2), (torch.float16, 3e-3)])
def test_on_a_gpu(causal: bool, dtype: torch.dtype, tolerance: float) -> None:
    lengths = LENGTHS["natural"]
    there = [x.detach().to("cuda").requires_grad_() for x in drawn(lengths, dtype, head_size=64)]
    here = [x.detach().double().cpu().requires_grad_() for x in there]
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    actual = packed_attention(*there, Packing.from_mask(mask.cuda()), scale=0.3, dropout=0.0, causal=causal)
    expected = formula(*here, lengths, 0.3, causal)
    assert_close(actual.double().cpu(), expected, tolerance=tolerance)
    found = torch.autograd.grad(actual.sum(), there)
    wanted = torch.autograd.grad(expected.sum(), here)
    for x, y in zip(found, wanted, strict=True):
        assert_close(x.double().cpu(), y, tolerance=4 * tolerance)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_padding_is_never_looked_at(dropout: float) -> None:
    """What attention within a sequence gives does not depend on its neighbours."""
    query, key, value = drawn((4, 6))
    both, first = packing_of((4, 6)), packing_of((4,))
    arguments: dict[str, Any] = {"scale": 0.3, "dropout": dropout, "causal": False}
    torch.manual_seed(0)
    together = packed_attention(query, key, value, both, **arguments)[:4]
    torch.manual_seed(0)
    alone = packed_attention(query[:4], key[:4], value[:4], first, **arguments)
    assert_close(together, alone)


def test_equals_pytorchs_own_call() -> None:
    query, key, value = drawn((9,))
    expected = F.scaled_dot_product_attention(*(x.transpose(0, 1)[None] for x in (query, key, value)), scale=0.3)
    actual = packed_attention(query, key, value, packing_of((9,)), scale=0.3, dropout=0.0, causal=False)
    assert_close(actual, expected[0].transpose(0, 1), tolerance=0)
    assert [end - start for start, end in pairwise(packing_of((2, 0, 3)).cu_seqlens.tolist())] == [2, 0, 3]
