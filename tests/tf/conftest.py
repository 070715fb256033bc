"""What the tests of Keras share: each draws the same weights, seeds and dropout whenever it runs."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def seeded() -> None:
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
