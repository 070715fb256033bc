"""``read``: the inputs of a call, checked, and what can be seen of a tensor without computing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

from xlmr_core.calls import Call, read_call
from xlmr_core.checks import Kind, Seen, refuse_layout, refuse_type
from xlmr_core.errors import InputError

if TYPE_CHECKING:
    from xlmr_tf.encoder import EncoderModel

__all__ = ["has_values", "is_concrete", "is_traced", "is_xla", "read", "see", "shape_of"]

# What to pass in place of a tensor that has no rows of one length.
RAGGED = "input_ids.to_tensor(pad_token_id), and attention_mask=tf.ones_like(input_ids).to_tensor(0)"
SPARSE = "tf.sparse.to_dense(...), with the padding id as default_value for ids"
MASKS = ("attention_mask", "encoder_attention_mask")
INTEGERS = (tf.int64, tf.int32, tf.int16, tf.int8, tf.uint8)


class _AnySize(int):
    """A size that a graph does not know: equal to every size but 0, and never too large."""

    def __eq__(self, other: object) -> bool:
        return other != 0 or isinstance(other, _AnySize)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __gt__(self, other: object) -> bool:
        return False

    def __repr__(self) -> str:
        return "any"

    __hash__ = int.__hash__


ANY_SIZE = _AnySize(1)


def is_traced() -> bool:
    """Whether a graph is being traced: nothing may then depend on values."""
    return not tf.executing_eagerly()


def is_xla() -> bool:
    """Whether what is traced goes to XLA (``jit_compile=True``, TPUs), which wants every size to be known.

    TensorFlow has no public word for it; this is how it asks itself.
    """
    return is_traced() and bool(GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()))


def has_values(tensor: Any) -> bool:
    """Whether there are values to read, on whatever device."""
    return not is_traced() and hasattr(tensor, "numpy")


def is_concrete(tensor: Any) -> bool:
    """Whether reading a value is possible and free of a device synchronisation."""
    return has_values(tensor) and "CPU" in tensor.device


def shape_of(tensor: Any) -> tuple[int, ...]:
    """The shape, with a size that fits anything where a graph does not know it.

    Raises:
        InputError: if not even the number of axes is known.
    """
    if tensor.shape.rank is None:
        raise InputError(
            "expected tensors of a known number of axes, received one of none; call set_shape([None, None])"
        )
    return tuple(ANY_SIZE if size is None else size for size in tensor.shape)


def see(name: str, tensor: Any) -> Seen | None:
    """What the core's checks look at; ``None`` for an input that was not passed. Arrays have become tensors by now.

    Raises:
        InputError: for what is no tensor.
    """
    if tensor is None:
        return None
    if isinstance(tensor, tf.RaggedTensor):
        refuse_layout(name, "ragged", RAGGED)
    if isinstance(tensor, tf.SparseTensor):
        refuse_layout(name, "sparse", SPARSE)
    if not tf.is_tensor(tensor):
        of_tokenizer, conversion = "return_tensors='tf'", "tf.convert_to_tensor(...)"
        refuse_type(name, tensor, "a tf.Tensor", of_tokenizer=of_tokenizer, conversion=conversion)
    return Seen(name, shape_of(tensor), _kind(tensor.dtype), tensor.dtype, _values(tensor))


def _kind(dtype: tf.DType) -> Kind:
    if dtype in INTEGERS:
        return Kind.INTEGER
    if dtype.is_floating:
        return Kind.FLOATING
    if dtype.is_complex:
        return Kind.COMPLEX
    if dtype is tf.string:
        return Kind.TEXT
    return Kind.BOOLEAN if dtype is tf.bool else Kind.OTHER


def _values(tensor: Any) -> Callable[[], np.ndarray] | None:
    return tensor.numpy if is_concrete(tensor) else None


def read(encoder: EncoderModel, **inputs: Any) -> Call[tf.Tensor]:
    """Check what came with a call of an encoder, or of a head on it; see :func:`xlmr_core.calls.read_call`.

    Args:
        encoder: the bare model.
        **inputs: the arguments of ``EncoderModel.call``, all but those that only some heads take.
    """
    for name in MASKS:
        mask = inputs.get(name)
        if tf.is_tensor(mask) and mask.dtype is tf.bool:
            inputs[name] = tf.cast(mask, tf.int32)
    call = read_call(encoder.config, see, inputs, has_cross_attention=encoder.has_cross_attention)
    if is_traced() and not is_xla():  # which leaves assertions out
        _assert_sizes(call)
    return call


def _assert_sizes(call: Call[tf.Tensor]) -> None:
    """Let a graph look, when it runs, at the sizes that were not known when it was made."""
    batch, length = (tf.shape(call.source)[axis] for axis in (0, 1))
    one_row = {"token_type_ids": call.token_type_ids, "position_ids": call.position_ids}
    for name, x in {"attention_mask": call.attention_mask, **one_row}.items():
        if x is None or (x.shape.is_fully_defined() and call.source.shape[:2].is_fully_defined()):
            continue
        rows, *columns = tf.unstack(tf.shape(x))
        fits = tf.reduce_all(tf.stack(columns) == length) & ((rows == batch) | ((rows == 1) & (name in one_row)))
        expected = f"{name} must have a row for each of input_ids, of the same length"
        tf.debugging.Assert(fits, [expected, ", received", tf.shape(x), "for", tf.shape(call.source)])
    if call.memory_BMD is not None:
        tf.debugging.assert_equal(tf.shape(call.memory_BMD)[0], batch, "encoder_hidden_states must have as many rows")
        if call.memory_mask_BM is not None:
            sizes = tf.shape(call.memory_BMD)[:2]
            tf.debugging.assert_equal(tf.shape(call.memory_mask_BM), sizes, "encoder_attention_mask must fit them")
