"""Projections: without gradients they go to oneDNN, and nothing else about ``nn.Linear`` changes."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from tests.torch.models import Case
from xlmr_torch import XLMRobertaModel
from xlmr_torch import linear as linear_file
from xlmr_torch.inference import FusedLinear, optimize_for_inference
from xlmr_torch.layers import Intermediate
from xlmr_torch.linear import Linear, is_plain, linear
from xlmr_torch.onednn import project

MASKED = Case("XLMRoberta", "ForMaskedLM")

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")


@pytest.fixture
def layer() -> Linear:
    torch.manual_seed(0)
    layer = linear(6, 8)
    assert isinstance(layer, Linear)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    return layer


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each projection that might go to oneDNN, whether it went there."""
    went: list[bool] = []

    def projected(*arguments: Tensor) -> Tensor | None:
        product = project(*arguments)
        went.append(product is not None)
        return product

    monkeypatch.setattr(linear_file, "project", projected)
    monkeypatch.setattr(linear_file, "FEWEST", 1)  # whatever the processor is
    return went


INPUTS = {
    "a row": lambda: torch.randn(6),
    "some": lambda: torch.randn(2, 3, 6),
    "many": lambda: torch.randn(300, 6),
    "every second column": lambda: torch.randn(3, 12)[:, ::2],
    "transposed": lambda: torch.randn(6, 4).t(),
    "one row many times": lambda: torch.randn(1, 6).expand(5, 6),
    "not a number": lambda: torch.tensor([[float("nan"), 1, 1, 1, 1, 1], [float("inf"), 1, 1, 1, 1, 1]]),
}


@pytest.mark.parametrize("make", INPUTS.values(), ids=INPUTS)
@torch.no_grad()
def test_rows_without_gradients(layer: Linear, fast: list[bool], make: Callable[[], Tensor]) -> None:
    x = make()
    torch.testing.assert_close(
        layer(x), F.linear(x, layer.weight, layer.bias), rtol=1e-5, atol=1e-5, equal_nan=True, check_stride=True
    )
    assert fast == [True]


@pytest.mark.parametrize(("rows", "fewest", "went"), [(0, 1, []), (1, 1, [True]), (1, 2, []), (2, 2, [True])])
@torch.no_grad()
def test_a_single_row_is_left_to_pytorch_where_that_is_faster(
    layer: Linear, fast: list[bool], monkeypatch: pytest.MonkeyPatch, rows: int, fewest: int, went: list[bool]
) -> None:
    monkeypatch.setattr(linear_file, "FEWEST", fewest)
    x = torch.randn(rows, 6)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))
    assert fast == went


def test_whose_processor_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for text, found in ((b"vendor_id\t: GenuineIntel", True), (b"vendor_id\t: AuthenticAMD", False)):
        (tmp_path / "cpuinfo").write_bytes(b"processor\t: 0\n" + text)
        monkeypatch.setattr(linear_file, "Path", lambda _: tmp_path / "cpuinfo")
        assert linear_file._is_of_intel() is found
    monkeypatch.setattr(linear_file, "Path", lambda _: tmp_path / "missing")
    monkeypatch.setattr(linear_file, "processor", lambda: "Intel64 Family 6, GenuineIntel")
    assert linear_file._is_of_intel()


OTHERS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "a count of operations": lambda: FlopCounterMode(display=False),
    "forward mode": forward_ad.dual_level,
    "turned off": lambda: torch.backends.mkldnn.flags(enabled=False, allow_tf32=None),
}


@pytest.mark.parametrize("surroundings", OTHERS.values(), ids=OTHERS)
@torch.no_grad()
def test_surroundings_that_get_pytorchs_operator(
    layer: Linear, fast: list[bool], surroundings: Callable[[], AbstractContextManager[object]]
) -> None:
    with surroundings():
        layer(torch.randn(2, 6))
    assert not any(fast)
    layer(torch.randn(2, 6))
    assert fast[-1]


@torch.no_grad()
def test_inputs_that_get_pytorchs_operator(layer: Linear, fast: list[bool]) -> None:
    for wrong in (torch.randn(2, 5), torch.randn(2, 6, device="meta"), torch.randn(2, 6).double()):
        with pytest.raises(RuntimeError, match="cannot be multiplied|expected device|same dtype"):
            layer(wrong)
    for dtype in (torch.float64, torch.bfloat16):
        layer.to(dtype)(torch.randn(2, 6, dtype=dtype))
    assert not any(fast)


# By how they lie: values that ``load_state_dict(assign=True)``, a view or another thread leaves in a layer.
WEIGHTS = {
    "transposed": lambda: torch.randn(6, 8).t(),
    "every second column": lambda: torch.randn(8, 12)[:, ::2],
    "one row many times": lambda: torch.randn(1, 6).expand(8, 6),
    "overlapping": lambda: torch.randn(40).as_strided((8, 6), (4, 1)),
    "behind another": lambda: torch.randn(49)[1:].view(8, 6),
    "sparse": lambda: torch.randn(8, 6).relu().to_sparse_csr(),
}
BIASES = {
    "every second": lambda: torch.randn(16)[::2],
    "a column": lambda: torch.randn(8, 3)[:, 0],
    "one value many times": lambda: torch.randn(1).expand(8),
    "one value": lambda: torch.randn(1),
    "no axis": lambda: torch.tensor(2.0),
    "a row each": lambda: torch.randn(2, 8),
    "behind another": lambda: torch.randn(9)[1:],
    "none": lambda: None,
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("name", ["weight", "bias"])
@torch.no_grad()
def test_values_that_lie_otherwise(layer: Linear, name: str) -> None:
    for how, make in (WEIGHTS if name == "weight" else BIASES).items():
        values, x = make(), torch.randn(2, 6)
        setattr(layer, name, None if values is None else nn.Parameter(values, requires_grad=False))
        expected = F.linear(x, layer.weight, layer.bias)
        torch.testing.assert_close(layer(x), expected, msg=lambda text, how=how: f"{how}: {text}")
        if how not in ("sparse", "none"):
            torch.testing.assert_close(
                FusedLinear(layer)(x), expected, msg=lambda text, how=how: f"fused, {how}: {text}"
            )


@pytest.mark.parametrize("values", [torch.randn(7), torch.randn(9), torch.randn(8).double()])
@torch.no_grad()
def test_a_bias_that_does_not_fit_is_pytorchs_error(layer: Linear, values: Tensor) -> None:
    layer.bias = nn.Parameter(values)
    for each in (layer, FusedLinear(layer)):
        with pytest.raises(RuntimeError, match="must match|same dtype"):
            each(torch.randn(2, 6))


CONVERTING = """
import threading, torch
from xlmr_torch.linear import linear
layer, x, over = linear(2048, 2048), torch.randn(48, 2048), threading.Event()
def convert():
    while not over.is_set():
        for dtype in (torch.bfloat16, torch.float32):
            layer.to(dtype)
thread = threading.Thread(target=convert)
thread.start()
with torch.no_grad():
    for _ in range(150):
        try:
            layer(x)
        except RuntimeError as error:
            assert "dtype" in str(error), error
over.set()
thread.join()
"""


def test_a_layer_that_another_thread_converts() -> None:
    """The memory of its values is freed while they are multiplied: in a process of its own, which must not end by
    that.
    """
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", CONVERTING], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


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


# ---- The activation after a projection

FUSED = {
    "gelu": True,
    "gelu_python": True,
    "gelu_new": True,
    "gelu_fast": True,
    "relu": True,
    "silu": True,
    "tanh": False,
}


def block(hidden_act: Any = "gelu") -> Intermediate:
    torch.manual_seed(0)
    return Intermediate(MASKED.config(hidden_act=hidden_act)).requires_grad_(False)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What oneDNN was asked to do after each projection."""
    asked: list[str] = []

    def projected(x: Tensor, weight: Tensor, bias: Tensor, kernel: str, algorithm: str) -> Tensor | None:
        asked.append(kernel)
        return project(x, weight, bias, kernel, algorithm)

    monkeypatch.setattr(linear_file, "project", projected)
    monkeypatch.setattr(linear_file, "FEWEST", 1)
    return asked


@pytest.mark.parametrize("name", [*FUSED, "a function of one's own"])
def test_an_activation_goes_along(name: str, kernels: list[str]) -> None:
    own = name not in FUSED
    layer, x = block(torch.sin if own else name), torch.randn(2, 3, 16)
    expected = layer.intermediate_act_fn(F.linear(x, layer.dense.weight, layer.dense.bias))
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=0)
    assert not kernels, "a gradient might be wanted"
    with torch.no_grad():
        for each in (layer, copy.deepcopy(layer), *([] if own else [pickle.loads(pickle.dumps(layer))])):
            torch.testing.assert_close(each(x), expected, rtol=1e-5, atol=1e-5)
            assert (kernels.pop() != "none") == FUSED.get(name, False) and not kernels


LOOKS: dict[str, Callable[[Intermediate], Any]] = {
    "a hook": lambda layer: layer.dense.register_forward_hook(lambda module, args, output: output * 0),
    "a hook before": lambda layer: layer.dense.register_forward_pre_hook(lambda module, args: (args[0] * 0,)),
    "a forward of one's own": lambda layer: setattr(layer.dense, "forward", lambda x: torch.zeros(2, 24)),
    "another layer": lambda layer: setattr(layer, "dense", nn.Sequential(layer.dense, nn.Threshold(1e9, 0.0))),
    "another function": lambda layer: setattr(layer, "intermediate_act_fn", torch.zeros_like),
}


@pytest.mark.parametrize("change", LOOKS.values(), ids=LOOKS)
@torch.no_grad()
def test_who_looks_between_them_sees_both(change: Callable[[Intermediate], Any]) -> None:
    layer, x = block("relu"), torch.randn(2, 16)
    assert layer(x).any()
    nn.init.zeros_(layer.dense.bias)
    change(layer)
    assert not layer(x).any()


@pytest.mark.parametrize("surroundings", OTHERS.values(), ids=OTHERS)
@torch.no_grad()
def test_surroundings_that_get_pytorchs_activation(
    surroundings: Callable[[], AbstractContextManager[object]], kernels: list[str]
) -> None:
    with surroundings():
        block()(torch.randn(2, 16))
    assert not kernels


@torch.no_grad()
def test_a_model_as_loaded_multiplies_as_one_for_inference(kernels: list[str]) -> None:
    model, inputs = MASKED.build(), MASKED.inputs()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loaded, asked = model(**inputs).logits, kernels.copy()
    assert asked == ["none", "none", "none", "none", "gelu", "none"] * 2 + ["none", "none"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    optimized = optimize_for_inference(model, dtype="float32", compile=False)
    torch.testing.assert_close(loaded, optimized(**inputs).logits, rtol=0, atol=1e-5)
