"""Gradients by canonical name against central differences of the reference's loss, along random directions."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.choice import chosen
from tests.parity.adapters import Mode, adapter, graphs, modes_in_turn
from tests.parity.cases import CASES, GRADIENTS
from tests.parity.inputs import Made, make
from tests.parity.tolerances import GRADIENT
from tests.parity.weights import uniform
from xlmr_core import reference
from xlmr_core.parameters import parameters

pytestmark = pytest.mark.filterwarnings("ignore:input_ids holds padding:UserWarning")

DIRECTIONS = 2


@lru_cache(maxsize=1)
def slopes(name: str) -> tuple[Made, dict[str, list[tuple[NDArray[Any], float]]]]:
    """For each parameter (tied ones once): directions, and the slope of the reference's loss along each."""
    case = CASES[name]
    made = make(case)
    rows = parameters(made.config, case.head)
    params = {key: x.astype(np.float64) for key, x in made.params.items() if rows[key].tied_to is None}

    def loss(key: str, x: NDArray[Any]) -> float:
        return float(reference.forward(made.config, case.head, {**params, key: x}, **made.inputs)["loss"])

    found: dict[str, list[tuple[NDArray[Any], float]]] = {}
    for key, x in params.items():
        for number in range(DIRECTIONS):
            direction = uniform(number, key, x.shape)
            step = GRADIENT.step * direction
            slope = (loss(key, x + step) - loss(key, x - step)) / (2 * GRADIENT.step)
            found.setdefault(key, []).append((direction, slope))
    return made, found


# Back through what a graph does in another way: packing, gathering, a memory, relative positions. Every head is trained
# in a graph by the tests of the backend.
IN_GRAPHS = chosen(
    GRADIENTS,
    [
        name
        for name in GRADIENTS
        if name.endswith(
            ("MaskedLM-right", "cross-labels", "relative-labels", "labels-right", "padded", "prediction-untied")
        )
        or name in ("XLMRoberta-CausalLM-right", "XLMRobertaXL-multi-label")
    ],
)


@pytest.mark.parametrize(("name", "mode"), [*modes_in_turn(GRADIENTS), *graphs(IN_GRAPHS)])
def test_gradients(name: str, mode: Mode) -> None:
    made, expected = slopes(name)
    gradients = adapter(mode).build(made.config, CASES[name].head, made.params, mode, "float32").gradients(made.inputs)
    assert set(gradients) == set(expected)
    whole = np.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
    assert whole > 0
    for key, pairs in expected.items():
        allowed = GRADIENT.relative * np.linalg.norm(gradients[key]) + GRADIENT.floor * whole
        for direction, slope in pairs:
            error = abs(float((gradients[key] * direction).sum()) - slope)
            assert error <= allowed, f"{key}: {error:.2e} off the slope {slope:.2e}, allowed {allowed:.2e}"
