"""transformers' own classes beside ours, on freshly drawn models: names, files, outputs, losses, gradients.

Run by ``nox -s oracle-4`` (transformers 4.57.6) and ``nox -s oracle-5``. Every test's name ends with its seed;
``XLMR_ORACLE_SEED=<first seed>`` draws the same models again.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray

import xlmr_torch
from tests.parity import tolerances
from tests.parity.adapter_torch import TorchModel, as_numpy
from tests.parity.adapters import Mode
from tests.parity.cases import FAMILIES
from tests.parity.compare import assert_close, flatten
from tests.parity.inputs import Made, make
from tests.parity.oracle.draw import draw_case
from xlmr_core.heads import HEADS, model_class_name

pytestmark = [
    pytest.mark.filterwarnings("ignore:input_ids holds padding:UserWarning"),
    # What the original warns about is not ours to judge.
    pytest.mark.filterwarnings("ignore::Warning:transformers"),
]

VERSION = int(transformers.__version__.split(".")[0])
FIRST_SEED = int(os.environ.get("XLMR_ORACLE_SEED", secrets.randbelow(10**6)))
DRAWS = 3
MODES = (Mode("torch", "eager", packed=False), Mode("torch", "sdpa", packed=False), Mode("torch", "sdpa", packed=True))
DRAWN = [
    pytest.param(
        family, head, FIRST_SEED + 100 * index + number, id=f"{family}{head}-seed{FIRST_SEED + 100 * index + number}"
    )
    for index, (family, head) in enumerate((family, head) for family in FAMILIES for head in HEADS)
    for number in range(DRAWS)
]

Array = NDArray[Any]


def original_class(made: Made, head: str) -> Any:
    return getattr(transformers, model_class_name(made.config, head))


def build_original(made: Made, head: str) -> Any:
    """The original in float64 with the drawn parameters, loaded strictly."""
    values = {key: value for key, value in made.config.to_dict().items() if key not in ("name_or_path", "dtype")}
    config = getattr(transformers, type(made.config).__name__)(**values)
    config._attn_implementation = "eager"
    model = original_class(made, head)(config).double().eval()
    model.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in made.params.items()}, strict=True)
    return model


def build_ours(made: Made, head: str) -> Any:
    model = getattr(xlmr_torch, model_class_name(made.config, head))(made.config).double().eval()
    model.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in made.params.items()}, strict=True)
    return model


def tensors(made: Made) -> dict[str, Any]:
    found = {name: torch.from_numpy(x) for name, x in made.inputs.items()}
    return {name: x.double() if x.is_floating_point() else x for name, x in found.items()}


def answer(model: Any, made: Made, head: str) -> tuple[dict[str, Array], dict[str, Array]]:
    """Outputs and gradients of the original."""
    output = model(**tensors(made), output_hidden_states=True, output_attentions=True)
    gradients: dict[str, Array] = {}
    if output.get("loss") is not None:
        output["loss"].backward()
        # Under all names: which of two tied ones comes first depends on the version.
        named = model.named_parameters(remove_duplicate=False)
        gradients = {name: p.grad.numpy() for name, p in named if p.grad is not None}
    wanted = {name: x for name, x in output.items() if x is not None and name in HEADS[head].output.fields}
    wanted.pop("past_key_values", None)
    return flatten(as_numpy(wanted)), gradients


def drawn(family: str, head: str, seed: int) -> Made:
    # transformers 5 has no relative positions, and an untied decoder has a bias of its own there, which files of
    # version 4 do not hold.
    return make(draw_case(seed, family, head, relative=VERSION == 4, untied=VERSION == 4))


@pytest.mark.parametrize(("family", "head", "seed"), DRAWN)
def test_same_names_and_shapes(family: str, head: str, seed: int) -> None:
    made = drawn(family, head, seed)
    original, ours = build_original(made, head).state_dict(), build_ours(made, head).state_dict()
    assert {name: tuple(x.shape) for name, x in original.items()} == {name: tuple(x.shape) for name, x in ours.items()}
    build_original(made, head).load_state_dict(ours, strict=True)
    build_ours(made, head).load_state_dict(original, strict=True)


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize(("family", "head", "seed"), DRAWN)
def test_same_outputs_and_gradients(family: str, head: str, seed: int, mode: Mode) -> None:
    made = drawn(family, head, seed)
    expected, expected_gradients = answer(build_original(made, head), made, head)
    ours = TorchModel(build_ours(made, head), mode)
    if mode.kernel != "eager":
        expected = {name: x for name, x in expected.items() if "attentions" not in name}
    # A causal model's left-padded queries see no key; which uniform answer they give depends on the version.
    where_BS = made.mask_BS == 1 if mode.packed or made.config.is_decoder else None
    assert_close(head, ours.forward(made.inputs), expected, tolerances.ORACLE, where_BS)
    if "loss" in expected:
        gradients = ours.gradients(made.inputs)
        assert set(expected_gradients) - {"lm_head.decoder.weight", "lm_head.decoder.bias"} <= set(gradients)
        whole = np.sqrt(sum((x**2).sum() for x in expected_gradients.values()))
        for name, gradient in gradients.items():
            error = np.abs(gradient - expected_gradients.get(name, np.zeros_like(gradient))).max()
            assert error <= tolerances.ORACLE * max(1.0, whole), f"{name}: gradient is {error:.1e} off"


@pytest.mark.parametrize(("family", "head", "seed"), DRAWN)
def test_files_both_ways(family: str, head: str, seed: int, tmp_path: Path) -> None:
    """What either saves, the other loads to the same answer."""
    made = drawn(family, head, seed)
    original, ours = build_original(made, head).float(), build_ours(made, head).float()
    original.save_pretrained(tmp_path / "original")
    ours.save_pretrained(tmp_path / "ours")
    ours_again = getattr(xlmr_torch, model_class_name(made.config, head)).from_pretrained(
        tmp_path / "original", attn_implementation="eager"
    )
    original_again = original_class(made, head).from_pretrained(tmp_path / "ours", attn_implementation="eager")
    expected, _ = answer(original.double(), made, head)
    for again in (ours_again, original_again):
        assert again.config.vocab_size == made.config.vocab_size
        actual, _ = answer(again.double().eval(), made, head)
        assert_close(head, actual, expected, tolerances.ORACLE, made.mask_BS == 1 if made.config.is_decoder else None)
