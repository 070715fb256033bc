"""Layers as bitsandbytes has them, without it; what they hold is in ``xlmr_core/quantization/bitsandbytes.py``.

Weights are widened once a call, exactly, and multiplied in the dtype that ``bnb_4bit_compute_dtype`` says (8 bits: in
that of the inputs). bitsandbytes itself rounds activations to 8 bits too where weights have 8, which this does not:
answers lie closer to the original model's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from xlmr_core.parameters import Parameter
from xlmr_core.quantization import BitsAndBytes, BitsAndBytesConfig, Scheme
from xlmr_core.quantization.asked import refuse_drawing
from xlmr_core.quantization.bitsandbytes import FORMAT, SCB, STATE, State, state_of
from xlmr_tf.linear import replace_values
from xlmr_tf.placement import DTYPE_OF_TAG, TAG_OF_NAME
from xlmr_tf.widening import QuantizedLayer, WidenedLinear, from_codes, pairs_of

__all__ = ["Linear4bit", "Linear8bitLt", "encoded", "layer", "state_in"]


def encoded(scheme: BitsAndBytes, weight: tf.Tensor) -> dict[str, tf.Tensor]:
    """The tensors of a weight by suffix: the very bits of the scheme's ``encode``."""
    scheme = scheme.of_dtype(TAG_OF_NAME.get(weight.dtype.name, "F32"))
    return {suffix: tf.constant(x) for suffix, x in scheme.encode(tf.cast(weight, tf.float32).numpy()).items()}


def layer(
    scheme: Scheme, row: Parameter, tensors: Mapping[str, Any], bias: keras.Variable | None, *, dtype: Any
) -> QuantizedLayer:
    """The layer of a weight that is stored in these tensors, by suffix."""
    assert isinstance(scheme, BitsAndBytes)
    if SCB in tensors:
        return Linear8bitLt(bias, tensors[""], tensors[SCB], tensors[FORMAT], dtype=dtype)
    if scheme.found is None:
        text = next(values for suffix, values in tensors.items() if suffix.startswith(STATE))
        state = state_of(text.numpy().tobytes(), row.name, scheme.stored(row)[0].dtype)
    else:
        state = scheme.found[row.name.removeprefix("roberta.")]
    compute_dtype = tf.as_dtype(scheme.config.bnb_4bit_compute_dtype)
    return Linear4bit(row.shape, bias, tensors, state, compute_dtype, dtype=dtype)


def state_in(module: QuantizedLayer) -> State:
    """What lies beside the codes of a layer."""
    if isinstance(module, Linear8bitLt):
        return State("int8", storage="I8", shape=(module.out_features, module.in_features))
    assert isinstance(module, Linear4bit)
    return module.state


class Linear4bit(WidenedLinear):
    """A linear layer of four bit codes in blocks that go across rows.

    Codes are bytes in memory, whatever dtype a file calls them.

    Args:
        shape: (N, K).
        bias: (N,), if there is one.
        tensors: by suffix, as a file has them.
        state: what their text says.
        compute_dtype: of products.
        dtype: the dtype policy of what goes in and comes out.
    """

    weight: keras.Variable
    weight_absmax: keras.Variable
    weight_quant_map: keras.Variable
    weight_nested_absmax: keras.Variable
    weight_nested_quant_map: keras.Variable
    weight_quant_state: keras.Variable

    def __init__(
        self,
        shape: tuple[int, ...],
        bias: keras.Variable | None,
        tensors: Mapping[str, Any],
        state: State,
        compute_dtype: tf.DType,
        *,
        dtype: Any = None,
    ) -> None:
        super().__init__(shape[0], shape[1], bias, dtype=dtype)
        self.compute_dtype_of_products, self.state = compute_dtype, state
        for suffix, values in tensors.items():
            if suffix.startswith(STATE):
                self.hold("weight_quant_state", tf.constant(np.frombuffer(state.text, np.uint8)))
            else:
                self.hold(f"weight{suffix.replace('.', '_')}", values if suffix else _as_bytes(values))

    @property
    def alignment(self) -> int:  # type: ignore[override]
        """So many rows are whole blocks."""
        return self.state.block

    def set_to_zero(self) -> None:
        text = self.state.text
        super().set_to_zero()
        self.weight_quant_state.assign(np.frombuffer(text, np.uint8))

    def settle(self) -> None:
        text = self.weight_quant_state.numpy().tobytes()
        self.state = state_of(text, "the weight", self.state.storage)

    def product_dtype(self, x: tf.Tensor) -> tf.DType:
        return self.compute_dtype_of_products

    def rows(self, begin: int, end: int) -> tf.Tensor:
        state = self.state
        first, last = begin * self.in_features, end * self.in_features
        codes = tf.reshape(self.weight, (-1,))[first // 2 : -(-last // 2)]
        blocks = slice(first // state.block, -(-last // state.block))
        absmax = self.weight_absmax[blocks]
        if state.nested_block:
            scales = tf.repeat(self.weight_nested_absmax, state.nested_block)[blocks]
            values = tf.gather(self.weight_nested_quant_map, tf.cast(absmax, tf.int32))
            absmax = values * scales + np.float32(state.nested_offset)
        values = from_codes(codes, pairs_of(self.weight_quant_map), absmax, state.block)
        # The last half byte may be a filler.
        return tf.cast(tf.reshape(values[: last - first], (end - begin, self.in_features)), state.dtype)

    # ---- Files

    @property
    def stored_names(self) -> dict[str, str]:
        names = {name: name.replace("weight_", "weight.", 1) for name in super().stored_names}
        return names | {"weight_quant_state": f"weight{STATE}{self.state.kind}"}

    def stored_shape(self, attribute: str) -> tuple[int, ...]:
        shape = super().stored_shape(attribute)
        return (shape[0] // DTYPE_OF_TAG[self.state.storage].size, 1) if attribute == "weight" else shape

    def stored_value(self, attribute: str) -> NDArray[Any]:
        values = super().stored_value(attribute)
        storage = DTYPE_OF_TAG[self.state.storage].as_numpy_dtype
        return values.reshape(-1).view(storage)[:, None] if attribute == "weight" else values

    def load_own_variables(self, store: Any) -> None:
        text = np.asarray(store[self.stored_names["weight_quant_state"]])
        if text.shape != tuple(self.weight_quant_state.shape):  # its numbers have more or fewer digits
            replace_values(self, "weight_quant_state", tf.constant(text))
        super().load_own_variables(store)

    def set_values(self, weight: tf.Tensor) -> None:
        """Refuse fresh values: what lies beside a weight depends on them."""
        refuse_drawing()


class Linear8bitLt(WidenedLinear):
    """A linear layer of eight bits and a scale for each output."""

    weight: keras.Variable
    SCB: keras.Variable
    weight_format: keras.Variable

    def __init__(
        self, bias: keras.Variable | None, weight: Any, scales: Any, format: Any, *, dtype: Any = None
    ) -> None:
        super().__init__(*weight.shape, bias, dtype=dtype)
        self.hold("weight", weight)
        self.hold("SCB", scales)
        self.hold("weight_format", format)

    def product_dtype(self, x: tf.Tensor) -> tf.DType:
        return x.dtype

    def rows(self, begin: int, end: int) -> tf.Tensor:
        return tf.cast(self.weight[begin:end], tf.float32) * self.SCB[begin:end, None] * np.float32(1 / 127)

    def set_values(self, weight: tf.Tensor) -> None:
        """Quantize a float weight into this layer's variables."""
        parts = BitsAndBytes(BitsAndBytesConfig(load_in_8bit=True)).encode(tf.cast(weight, tf.float32).numpy())
        self.weight.assign(parts[""])
        self.SCB.assign(parts[SCB])
        self.weight_format.assign(parts[FORMAT])


def _as_bytes(codes: Any) -> Any:
    """Codes of any dtype, or what is said of them, as bytes (bytes, 1)."""
    count = codes.shape[0] * codes.dtype.size
    if isinstance(codes, tf.TensorSpec):
        return tf.TensorSpec((count, 1), tf.uint8)
    return codes if codes.dtype == tf.uint8 else tf.reshape(tf.bitcast(codes, tf.uint8), (count, 1))
