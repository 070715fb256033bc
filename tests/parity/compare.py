"""Comparing outputs, and saying where they differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.parity.tolerances import Half
from xlmr_core.checks import MASKED_SCORE
from xlmr_core.heads import HEADS, LossKind

__all__ = ["assert_close", "assert_filled_where_masked", "assert_half_close", "difference", "fill_of", "flatten"]

Array = NDArray[Any]


def flatten(output: Mapping[str, Any]) -> dict[str, Array]:
    """An output with its tuples taken apart: ``hidden_states`` becomes ``hidden_states_0``, ``hidden_states_1``, ..."""
    flat: dict[str, Array] = {}
    for name, value in output.items():
        if isinstance(value, tuple):
            flat.update({f"{name}_{number}": np.asarray(item) for number, item in enumerate(value)})
        else:
            flat[name] = np.asarray(value)
    return flat


def is_tokenwise(head: str, name: str) -> bool:
    """Whether an output is (B, S, ...), a value for each token."""
    if name == "logits":
        return HEADS[head].loss in (LossKind.TOKENS, LossKind.NEXT_TOKENS)
    return name in ("last_hidden_state", "start_logits", "end_logits") or name.startswith("hidden_states")


def select(head: str, name: str, x: Array, where_BS: Array | None) -> Array:
    """The part of an output that is compared: all of it, or of a token-wise output (and of attention's queries) some
    positions.
    """
    if where_BS is None:
        return x
    if name.startswith(("attentions", "cross_attentions")):
        return x.swapaxes(1, 2)[where_BS]
    # Logits at some positions only, (B, P, V), (number labelled, V), (B, last few, V), were asked for and count
    # wherever they are.
    return x[where_BS] if is_tokenwise(head, name) and x.shape[:2] == where_BS.shape else x


def difference(actual: Array, expected: Array) -> float:
    """Largest absolute difference, in units of the expected rms where that is above 1; infinite if NaN meets a
    number.
    """
    actual, expected = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if np.isnan(actual).any() or np.isnan(expected).any():
        return 0.0 if actual.shape == () and np.isnan(actual) and np.isnan(expected) else np.inf
    if expected.size == 0:
        return 0.0
    return float(np.abs(actual - expected).max() / max(1.0, np.sqrt((expected**2).mean())))


def check_fields(actual: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    missing = [name for name in expected if name not in actual]
    assert not missing, f"missing in the output: {', '.join(missing)}; it has {', '.join(actual)}"
    for name in expected:
        assert actual[name].shape == expected[name].shape, (
            f"{name} is {actual[name].shape}, expected {expected[name].shape}"
        )


def assert_close(
    head: str,
    actual: Mapping[str, Array],
    expected: Mapping[str, Array],
    tolerance: float,
    where_BS: Array | None = None,
) -> None:
    """Fail unless every expected output is there, of its shape, and within the tolerance (of which tolerances.py says
    what it means).
    """
    check_fields(actual, expected)
    pairs = {
        name: (select(head, name, actual[name], where_BS), select(head, name, expected[name], where_BS))
        for name in expected
    }
    found = {name: difference(*pair) for name, pair in pairs.items()}
    wrong = {name: value for name, value in found.items() if not value <= tolerance}
    assert not wrong, f"over {tolerance:.0e}: " + ", ".join(f"{name} by {value:.2e}" for name, value in wrong.items())


def assert_half_close(
    head: str, actual: Mapping[str, Array], expected: Mapping[str, Array], half: Half, where_BS: Array | None = None
) -> None:
    """Fail unless every expected output is there, of its shape, near in the Euclidean norm, and of the same clear
    argmax.
    """
    check_fields(actual, expected)
    for name in expected:
        got, want = (np.asarray(select(head, name, x[name], where_BS), dtype=np.float64) for x in (actual, expected))
        if want.shape == () and np.isnan(want):
            assert np.isnan(got), f"{name} is {got}, expected NaN"
            continue
        allowed = half.loss if name == "loss" else half.relative_l2
        error = np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-30)
        assert error <= allowed, f"{name} has the relative error {error:.2e}, over {allowed:.0e}"
        if name.endswith("logits") and want.shape[-1] > 1:
            top = np.sort(want, axis=-1)
            clear = top[..., -1] - top[..., -2] > half.margin * np.sqrt((want**2).mean())
            assert (got.argmax(-1) == want.argmax(-1))[clear].all(), (
                f"{name} has another argmax where the margin is clear"
            )


def assert_filled_where_masked(head: str, actual: Mapping[str, Array], mask_BS: Array) -> None:
    """Fail unless token-wise outputs hold at masked positions what packing promises: zero, or the score that is
    nobody's answer.
    """
    for name, x in actual.items():
        if is_tokenwise(head, name) and x.shape[:2] == mask_BS.shape:
            assert (x[mask_BS == 0] == fill_of(name)).all(), f"{name} is not {fill_of(name)} at masked positions"


def fill_of(name: str) -> float:
    """What packing promises of a token-wise output at masked positions."""
    return MASKED_SCORE if name in ("start_logits", "end_logits") else 0.0
