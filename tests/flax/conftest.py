"""Four virtual devices on the CPU, so that what runs on many devices is seen to."""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("jax") is not None:
    import jax

    jax.config.update("jax_num_cpu_devices", 4)
