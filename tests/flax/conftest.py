"""Four virtual devices on the CPU, so that what runs on many devices is seen to; and how programs are compiled."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.choice import EVERYTHING

HAS_JAX = importlib.util.find_spec("jax") is not None
if HAS_JAX:
    import jax

    jax.config.update("jax_num_cpu_devices", 4)

# Compiled as users' programs are: these judge the optimised program itself, its numbers, its memory, what becomes of it
# elsewhere. The others say what a call means, whatever the compiler makes of it, and XLA's optimisations would be most
# of their time.
OPTIMISED = {Path(__file__).with_name(name) for name in ("test_compiled.py", "test_export.py", "test_training.py")}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The optimised ones last: programs compiled before are forgotten once."""
    items.sort(key=lambda item: item.path in OPTIMISED)


@pytest.fixture(scope="module", autouse=True)
def optimisations(request: pytest.FixtureRequest) -> Iterator[None]:
    if HAS_JAX:
        fast = not EVERYTHING and request.path not in OPTIMISED
        if jax.config.values["jax_disable_most_optimizations"] != fast:
            jax.clear_caches()
            jax.config.update("jax_disable_most_optimizations", fast)
    yield
