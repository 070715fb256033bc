"""Layers of models as bitsandbytes has them; what they hold is in ``xlmr_core/quantization/bitsandbytes.py``.

Weights are widened inside the compiled call, exactly, and multiplied in the dtype that ``bnb_4bit_compute_dtype`` says
(8 bits: in that of the inputs). bitsandbytes itself rounds activations to 8 bits too where weights have 8, which this
does not: answers lie closer to the original model's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from xlmr_core.parameters import Parameter
from xlmr_core.quantization import BitsAndBytes, Scheme
from xlmr_core.quantization.bitsandbytes import (
    ABSMAX,
    NESTED_ABSMAX,
    NESTED_MAP,
    QUANT_MAP,
    SCB,
    STATE,
    State,
    state_of,
)
from xlmr_flax.placement import TAG_OF_DTYPE
from xlmr_flax.widening import Derived, WidenedLinear, from_codes, held_back, rows_of

__all__ = ["Linear4bit", "Linear8bitLt", "layer", "state_in"]

_LARGEST = np.finfo(np.float32).max


def layer(scheme: Scheme, row: Parameter, tensors: Mapping[str, Any], bias: nnx.Param[Array] | None) -> WidenedLinear:
    """The layer of a weight (N, K) that is stored in these tensors, by suffix."""
    assert isinstance(scheme, BitsAndBytes) and scheme.found is not None
    if SCB in tensors:
        return Linear8bitLt(row.shape, bias, tensors)
    state = scheme.found[row.name.removeprefix("roberta.")]
    return Linear4bit(row.shape, bias, tensors, state, scheme.config.bnb_4bit_compute_dtype)


def state_in(tensors: Mapping[str, Any]) -> State:
    """What lies beside the codes of a weight, by its tensors."""
    if SCB in tensors:
        return State("int8", storage="I8", shape=tensors[""].shape)
    text = next(x for suffix, x in tensors.items() if suffix.startswith(STATE))
    return state_of(np.asarray(text).tobytes(), "the weight", TAG_OF_DTYPE[tensors[""].dtype])


class Linear4bit(WidenedLinear):
    """A linear layer of four bit codes in blocks that go across rows.

    Args:
        shape: (N, K).
        bias: (N,).
        tensors: by suffix, as a file has them.
        state: what lies beside the codes.
        compute_dtype: of products.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        bias: nnx.Param[Array] | None,
        tensors: Mapping[str, Any],
        state: State,
        compute_dtype: str,
    ) -> None:
        super().__init__(shape, bias, tensors)
        # So many rows are whole blocks, whatever is in one.
        self.alignment = state.block + state.block % 2
        self.compute_dtype = compute_dtype
        # Without what differs from layer to layer, so that one program can serve all.
        self.state = state._replace(text=b"", nested_offset=0.0)
        self.nested_offset = Derived(jnp.float32(state.nested_offset)) if state.nested_block else None

    def product_dtype(self, x: Array) -> Any:
        return jnp.dtype(self.compute_dtype)

    def rows(self, begin: Any, count: int, x: Array | None = None) -> Array:
        width, state = self.in_features, self.state
        size, first = count * width, begin * width
        stored = self.part("")
        codes = stored if stored.dtype == jnp.uint8 else lax.bitcast_convert_type(stored, jnp.uint8)
        codes = rows_of(codes.reshape(-1), first // 2, -(-size // 2))
        if x is not None:
            codes = held_back(codes, x)
        absmax = self._absmax(first // state.block, -(-size // state.block))
        # The last half byte may be a filler.
        values = from_codes(codes, self.part(QUANT_MAP), absmax, state.block)[:size]
        # What is rounded must not be left out, though all of it is computed in float32.
        rounded = values if state.dtype == "float32" else lax.optimization_barrier(values.astype(state.dtype))
        return rounded.reshape(count, width)

    def _absmax(self, first: Any, count: int) -> Array:
        """Float32 scales of some blocks."""
        absmax, nested = rows_of(self.part(ABSMAX), first, count), self.state.nested_block
        if not nested:
            return absmax
        assert self.nested_offset is not None
        scales = self.part(NESTED_ABSMAX)[(first + jnp.arange(count)) // nested]
        # A product and a sum, each of them rounded. Compilers make one operation of the two, which rounds once, unless
        # something stands between them: bounds that no scale reaches.
        product = jnp.clip(self.part(NESTED_MAP)[absmax.astype(jnp.int32)] * scales, -_LARGEST, _LARGEST)
        return product + self.nested_offset[...]


class Linear8bitLt(WidenedLinear):
    """A linear layer of eight bits and a scale for each output."""

    def rows(self, begin: Any, count: int, x: Array | None = None) -> Array:
        rows = rows_of(self.part(""), begin, count)
        rows = (rows if x is None else held_back(rows, x)).astype(jnp.float32)
        return rows * rows_of(self.part(SCB), begin, count)[:, None] * np.float32(1 / 127)
