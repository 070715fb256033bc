"""Every backend, on every way through it, against the float64 reference."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.parity import tolerances
from tests.parity.adapters import Mode, adapter, modes, runs
from tests.parity.cases import CASES, Case
from tests.parity.compare import assert_close, assert_filled_where_masked, assert_half_close, flatten
from tests.parity.inputs import Made, make
from tests.parity.weights import round_to
from xlmr_core import reference

pytestmark = pytest.mark.filterwarnings("ignore:input_ids holds padding:UserWarning")

TOLERANCES = {"float32": tolerances.FLOAT32, "float64": tolerances.FLOAT64}


def rounded(made: Made, dtype: str) -> Made:
    """The same case with parameters and float inputs that the dtype can hold, so that only the computing is judged."""
    if dtype in TOLERANCES:
        return made
    params = {name: round_to(dtype, x) for name, x in made.params.items()}
    floats = ("inputs_embeds", "encoder_hidden_states")
    inputs = {name: round_to(dtype, x) if name in floats else x for name, x in made.inputs.items()}
    return Made(made.config, params, inputs, made.mask_BS)


@lru_cache(maxsize=4)
def expected_of(name: str, dtype: str) -> tuple[Made, dict[str, NDArray[Any]]]:
    """A case and what the reference says to it; the modes of one case follow each other."""
    case = CASES[name]
    made = rounded(make(case), dtype)
    return made, flatten(reference.forward(made.config, case.head, made.params, **made.inputs))


def compared(
    mode: Mode, case: Case, made: Made, expected: dict[str, NDArray[Any]]
) -> tuple[dict[str, NDArray[Any]], Any]:
    """What of the expected outputs a mode gives, and where it counts."""
    if mode.kernel != "eager":
        expected = {name: x for name, x in expected.items() if not name.startswith(("attentions", "cross_attentions"))}
    packed = mode.packed and case.packs and "no_mask" not in case.extra
    return expected, made.mask_BS == 1 if packed else None


@pytest.mark.parametrize(("name", "dtype", "mode"), runs(CASES, TOLERANCES))
def test_equals_reference(name: str, dtype: str, mode: Mode) -> None:
    case = CASES[name]
    made, expected = expected_of(name, dtype)
    expected, where_BS = compared(mode, case, made, expected)
    actual = adapter(mode).build(made.config, case.head, made.params, mode, dtype).forward(made.inputs)
    assert_close(case.head, actual, expected, TOLERANCES[dtype], where_BS)
    if where_BS is not None:
        assert_filled_where_masked(case.head, actual, made.mask_BS)


@pytest.mark.parametrize(("name", "dtype", "mode"), runs(CASES, tolerances.HALF))
def test_half_precision(name: str, dtype: str, mode: Mode) -> None:
    case = CASES[name]
    made, expected = expected_of(name, dtype)
    expected, where_BS = compared(mode, case, made, expected)
    actual = adapter(mode).build(made.config, case.head, made.params, mode, dtype).forward(made.inputs)
    assert_half_close(case.head, actual, expected, tolerances.HALF[dtype], where_BS)


@pytest.mark.slow
@pytest.mark.parametrize("mode", modes())
def test_base_size(mode: Mode) -> None:
    """The promised tolerance at the real depth and width of xlm-roberta-base (its vocabulary aside)."""
    case, made, expected = base_size()
    actual = adapter(mode).build(made.config, case.head, made.params, mode, "float32").forward(made.inputs)
    assert_close(case.head, actual, compared(mode, case, made, expected)[0], tolerances.FLOAT32, made.mask_BS == 1)


@lru_cache(maxsize=1)
def base_size() -> tuple[Case, Made, dict[str, NDArray[Any]]]:
    rows = ("t" * 24, "t" * 16 + "." * 8)
    sizes = {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 514,
    }
    case = Case("base-size", "ForMaskedLM", rows, {**sizes, "vocab_size": 400}, extra=("labels",))
    made = make(case)
    expected = flatten(reference.forward(made.config, case.head, made.params, **made.inputs))
    assert np.sqrt((expected["hidden_states_12"] ** 2).mean()) == pytest.approx(1.0, abs=0.2), (
        "the promise is about states of scale 1"
    )
    return case, made, expected
