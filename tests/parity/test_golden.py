"""The reference and every backend against golden files: transformers' own answers to the cases, which need no shared
folder.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.choice import chosen
from tests.parity import tolerances
from tests.parity.adapters import Mode, adapter, modes_in_turn
from tests.parity.cases import CASES, EMPTY
from tests.parity.compare import assert_close, flatten
from tests.parity.golden.record import FOLDER, checksum, fingerprint
from tests.parity.inputs import Made, make
from xlmr_core import reference
from xlmr_core.parameters import parameters

pytestmark = pytest.mark.filterwarnings("ignore:input_ids holds padding:UserWarning")

Array = NDArray[Any]
GOLDEN = [name for name, case in CASES.items() if case.original]


@cache
def stored() -> dict[str, dict[str, Array]]:
    """All arrays by case."""
    found: dict[str, dict[str, Array]] = {}
    with np.load(FOLDER / "golden.npz") as file:
        for key in file.files:
            case, _, name = key.partition("/")
            found.setdefault(case, {})[name] = file[key]
    return found


def read(name: str) -> tuple[Made, dict[str, Array]]:
    """A case with the stored inputs, and the original's outputs."""
    arrays = stored()[name]
    made = make(CASES[name])
    given = {key.removeprefix("input/"): x for key, x in arrays.items() if key.startswith("input/")}
    return replace(made, inputs=given), {
        key.removeprefix("output/"): x for key, x in arrays.items() if key.startswith("output/")
    }


def test_files_are_small_and_whole() -> None:
    about = json.loads((FOLDER / "golden.json").read_text())
    assert about["transformers"] == "4.57.6"
    assert set(stored()) == set(about["checksums"]) == set(GOLDEN), "cases have changed; record the golden files again"
    assert sum(path.stat().st_size for path in FOLDER.glob("golden.*")) < 2_000_000


def test_weights_come_out_the_same() -> None:
    for name, value in json.loads((FOLDER / "golden.json").read_text())["checksums"].items():
        assert checksum(make(CASES[name]).params) == pytest.approx(value, rel=1e-12), name


@pytest.mark.parametrize("name", GOLDEN)
def test_reference_equals_golden(name: str) -> None:
    made, expected = read(name)
    actual = flatten(reference.forward(made.config, CASES[name].head, made.params, **made.inputs))
    assert_close(CASES[name].head, actual, expected, tolerances.GOLDEN)


# That a backend equals them follows from the reference equalling them, and the backend the reference on the same
# inputs.
HEADS = [name for name in GOLDEN if name.endswith("-right")]


@pytest.mark.parametrize(("name", "mode"), modes_in_turn(chosen(GOLDEN, HEADS)))
def test_backend_equals_golden(name: str, mode: Mode) -> None:
    case = CASES[name]
    made, expected = read(name)
    if mode.kernel != "eager":
        expected = {key: x for key, x in expected.items() if "attentions" not in key}
    actual = adapter(mode).build(made.config, case.head, made.params, mode, "float32").forward(made.inputs)
    assert_close(
        case.head, actual, expected, tolerances.FLOAT32, made.mask_BS == 1 if mode.packed and case.packs else None
    )


WITH_GRADIENTS = [name for name in GOLDEN if "gradients" in stored()[name]]
MASKED_ROWS = [name for name in WITH_GRADIENTS if CASES[name].rows == EMPTY]


@pytest.mark.parametrize(("name", "mode"), modes_in_turn(WITH_GRADIENTS, ahead=1, in_all=MASKED_ROWS))
def test_gradients_equal_golden(name: str, mode: Mode) -> None:
    """The original's gradients, padding rows (which get none from an embedding) and unreached parameters (zero)
    included.
    """
    case = CASES[name]
    made, _ = read(name)
    expected = stored()[name]["gradients"]
    names = [row.name for row in parameters(made.config, case.head).values() if row.tied_to is None]
    gradients = adapter(mode).build(made.config, case.head, made.params, mode, "float32").gradients(made.inputs)
    assert set(gradients) == set(names)
    whole = np.sqrt((expected[:, 0] ** 2).sum())
    for key, (norm, *products) in zip(names, expected, strict=True):
        allowed = tolerances.GRADIENT.relative * norm + tolerances.GRADIENT.floor * whole
        found = fingerprint(key, np.broadcast_to(gradients[key], made.params[key].shape))
        for what, value, target in zip(
            ("norm", "first product", "second product"), found, (norm, *products), strict=True
        ):
            assert abs(value - target) <= allowed, (
                f"{key}: {what} {value:.6e}, expected {target:.6e}, allowed {allowed:.1e}"
            )
