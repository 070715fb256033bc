"""Flax, for the parity tests.

Compiling a program for every case would take many minutes, so models run operation by operation here: the operations of
one shape are compiled once and serve all cases. That the compiled programs give the same numbers is tested in
``tests/flax/test_compiled.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

import xlmr_flax
from tests.parity.adapters import Mode
from tests.parity.compare import flatten
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.heads import model_class_name
from xlmr_core.outputs import ModelOutput
from xlmr_flax import functional
from xlmr_flax.functional import from_canonical, to_canonical

Array = NDArray[Any]

# A quarter less time for compiling; the numbers must not depend on it.
jax.config.update("jax_disable_most_optimizations", True)
# The function itself, in place of its compiled form.
functional._compiled = functional._compiled.__wrapped__


class FlaxModel:
    """A Flax model, spoken to in NumPy."""

    def __init__(self, model: Any, mode: Mode, dtype: str) -> None:
        self.model = model
        self.model.set_attn_implementation(mode.kernel)
        self.model.set_packing("always" if mode.packed else "never")
        self.output_attentions = mode.kernel == "eager"
        self.dtype = dtype

    def call(self, inputs: Mapping[str, Any], **more: Any) -> Any:
        return self.model(**inputs, **more, output_hidden_states=True, output_attentions=self.output_attentions)

    def forward(self, inputs: Mapping[str, Any], *, dropout_seed: int | None = None) -> dict[str, Array]:
        with precision(self.dtype):
            key = jax.random.key(dropout_seed or 0)
            output = self.call(inputs, train=dropout_seed is not None, dropout_rng=key)
            assert isinstance(output, ModelOutput)
            return flatten(jax.tree.map(lambda x: np.asarray(x, np.float64), dict(output)))

    def generate(self, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Array]:
        if not self.model.can_generate():
            return {"sequences": np.asarray(self.model.generate(**inputs, **options).sequences)}
        output = self.model.generate(**inputs, **options, return_dict_in_generate=True)
        names = ("sequences", "sequences_scores", "beam_indices")
        return {name: np.asarray(output[name]) for name in names if name in output}

    def gradients(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        # The batch is no argument, so that it is packed on the host, where its values are.
        def loss(params: Any) -> Any:
            return self.call(inputs, params=params)["loss"]

        with precision(self.dtype):
            gradients = jax.grad(loss)(self.model.params)
            found = to_canonical(self.model.parameter_table(), gradients)
            return {name: np.asarray(gradient, np.float64) for name, gradient in found.items()}


def precision(dtype: str) -> AbstractContextManager[Any]:
    return jax.enable_x64(dtype == "float64")


def build(config: XLMRobertaConfig, head: str, params: Mapping[str, Array], mode: Mode, dtype: str) -> FlaxModel:
    """A model of these parameters, which must be all of its own."""
    with precision(dtype):
        model = getattr(xlmr_flax, "Flax" + model_class_name(config, head))(config, dtype=dtype, _do_init=False)
        rows = model.parameter_table()
        assert set(params) == set(rows)
        model.params = jax.tree.map(lambda x: jnp.asarray(x, dtype), from_canonical(rows, params))
    return FlaxModel(model, mode, dtype)


def load(folder: Path, class_name: str, mode: Mode, dtype: str) -> FlaxModel:
    """A saved model, through the backend's own loading."""
    with precision(dtype):
        model = getattr(xlmr_flax, f"Flax{class_name}").from_pretrained(
            folder, dtype, param_dtype=dtype, attn_implementation=mode.kernel
        )
    return FlaxModel(model, mode, dtype)
