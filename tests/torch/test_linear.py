"""Projections: few rows go to oneDNN, and nothing else about ``nn.Linear`` changes."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from xlmr_torch import XLMRobertaModel
from xlmr_torch.linear import FEW, Linear, is_plain, linear

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")


@pytest.fixture
def layer() -> Linear:
    torch.manual_seed(0)
    layer = linear(6, 8)
    assert isinstance(layer, Linear)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    return layer


SMALL = {
    "a row": lambda: torch.randn(6),
    "some": lambda: torch.randn(2, 3, 6),
    "none": lambda: torch.randn(0, 6),
    "as many as that": lambda: torch.randn(FEW, 6),
    "every second column": lambda: torch.randn(3, 12)[:, ::2],
    "transposed": lambda: torch.randn(6, 4).t(),
    "one row many times": lambda: torch.randn(1, 6).expand(5, 6),
    "not a number": lambda: torch.tensor([[float("nan"), 1, 1, 1, 1, 1], [float("inf"), 1, 1, 1, 1, 1]]),
}


@pytest.mark.parametrize("make", SMALL.values(), ids=SMALL)
@torch.no_grad()
def test_few_rows(layer: Linear, make: Callable[[], Tensor]) -> None:
    x = make()
    assert layer._is_small(x)
    torch.testing.assert_close(
        layer(x), F.linear(x, layer.weight, layer.bias), rtol=1e-5, atol=1e-5, equal_nan=True, check_stride=True
    )


OTHERS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "a count of operations": lambda: FlopCounterMode(display=False),
    "forward mode": forward_ad.dual_level,
    "turned off": lambda: torch.backends.mkldnn.flags(enabled=False, allow_tf32=None),
}


@pytest.mark.parametrize("surroundings", OTHERS.values(), ids=OTHERS)
@torch.no_grad()
def test_surroundings_that_get_pytorchs_operator(
    layer: Linear, surroundings: Callable[[], AbstractContextManager[object]]
) -> None:
    with surroundings():
        assert not layer._is_small(torch.randn(2, 6))
    assert layer._is_small(torch.randn(2, 6))


@torch.no_grad()
def test_inputs_that_get_pytorchs_operator(layer: Linear) -> None:
    assert not layer._is_small(torch.randn(FEW + 1, 6))
    assert not layer._is_small(torch.randn(2, 6, device="meta"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        layer(torch.randn(2, 5))
    for dtype in (torch.float64, torch.bfloat16):
        assert not layer.to(dtype)._is_small(torch.randn(2, 6, dtype=dtype))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # what PyTorch itself uses for forward mode
@torch.no_grad()
def test_a_tangent_is_carried_on(layer: Linear) -> None:
    x, tangent = torch.randn(2, 6), torch.randn(2, 6)
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, tangent))).tangent
    torch.testing.assert_close(found, tangent @ layer.weight.T)


def test_gradients(layer: Linear) -> None:
    x = torch.randn(2, 6, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(2, 6))


@pytest.mark.parametrize("grad", [True, False])
def test_operations_are_counted(layer: Linear, grad: bool) -> None:
    with nullcontext() if grad else torch.inference_mode(), FlopCounterMode(display=False) as counter:
        layer(torch.randn(2, 6))
    assert counter.get_total_flops() == 2 * 2 * 6 * 8


def test_it_is_a_linear_layer(layer: Linear) -> None:
    assert is_plain(layer) and is_plain(nn.Linear(2, 2)) and not is_plain(nn.Identity())
    assert repr(layer) == repr(nn.Linear(6, 8))
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert type(twin) is Linear
        torch.testing.assert_close(twin.state_dict(), layer.state_dict(), rtol=0, atol=0)


def test_a_model_is_made_of_them() -> None:
    model = XLMRobertaModel.from_pretrained("xlmr-mini", add_pooling_layer=False)
    assert all(type(module) is Linear for module in model.modules() if isinstance(module, nn.Linear))
