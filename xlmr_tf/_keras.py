"""Keras on TensorFlow, before any other module of this package looks at Keras."""

from __future__ import annotations

import os
import sys

from xlmr_core.errors import MissingBackendError

if "keras" not in sys.modules:
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras

if keras.config.backend() != "tensorflow":
    raise MissingBackendError(
        f"xlmr_tf needs Keras on TensorFlow, in this process Keras is on {keras.config.backend()!r}; start a process "
        "in which "
        "KERAS_BACKEND=tensorflow is set before anything imports keras (for JAX and PyTorch there are xlmr_flax and "
        "xlmr_torch)"
    )
