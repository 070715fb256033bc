"""``read``: the inputs of a call, checked, and what can be seen of a tensor without computing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

from xlmr_core.cache import SeenCache
from xlmr_core.calls import Call, read_call
from xlmr_core.checks import Kind, Seen, refuse_layout, refuse_type
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError

if TYPE_CHECKING:
    from xlmr_tf.encoder import EncoderModel

__all__ = ["fitted", "has_values", "is_concrete", "is_traced", "is_xla", "read", "see", "shape_of"]

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

    def __add__(self, other: object) -> _AnySize:
        return self

    __radd__ = __add__

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


def read(
    encoder: EncoderModel,
    *,
    see_cache: Callable[..., tuple[Any, SeenCache]] | None = None,
    recomputes: bool = False,
    **inputs: Any,
) -> Call[tf.Tensor]:
    """Check what came with a call of an encoder, or of a head on it; see :func:`xlmr_core.calls.read_call`.

    Args:
        encoder: the bare model.
        see_cache: that of ``cache.py``, of what can go on from a cache.
        recomputes: whether layers are computed once more in the backward pass.
        **inputs: the arguments of ``EncoderModel.call``, all but those that only some heads take.
    """
    for name in MASKS:
        mask = inputs.get(name)
        if tf.is_tensor(mask) and mask.dtype is tf.bool:
            inputs[name] = tf.cast(mask, tf.int32)
    call = read_call(
        encoder.config,
        see,
        inputs,
        has_cross_attention=encoder.has_cross_attention,
        see_cache=None if see_cache is None else partial(see_cache, encoder.config, dtype=encoder.compute_dtype),
        recomputes=recomputes,
    )
    return _fitted_call(encoder.config, call) if _sees_late() else call


def fitted(name: str, x: Any, *allowed: Sequence[Any]) -> Any:
    """The same tensor, whose sizes a graph that did not know them looks at when it runs.

    Args:
        name: of the input.
        x: checked as far as sizes are known; ``None`` if it did not come.
        *allowed: shapes that it may have; a size that is not known is a tensor.

    Raises:
        tf.errors.InvalidArgumentError: when the graph runs, for another shape.
    """
    shapes = [shape for shape in allowed if x is not None and len(shape) == x.shape.rank]
    if not (shapes and _sees_late()):
        return x
    if x.shape.is_fully_defined() and all(isinstance(size, int) for shape in shapes for size in shape):
        return x
    received, wanted = tf.shape(x), [tf.stack(shape) for shape in shapes]
    fits = tf.reduce_any([tf.reduce_all(received == shape) for shape in wanted])
    either = wanted[:1] if len(wanted) == 1 else [wanted[0], "or", wanted[1]]
    return _after(tf.debugging.Assert(fits, [f"{name} must have the shape", *either, ", received", received]), x)


def _sees_late() -> bool:
    """Whether there is a graph that may learn sizes only when it runs. XLA knows all of them, and leaves assertions
    out.
    """
    return is_traced() and not is_xla()


def _after(assertion: Any, x: tf.Tensor) -> tf.Tensor:
    with tf.control_dependencies([assertion]):
        return tf.identity(x)


def _fitted_call(config: XLMRobertaConfig, call: Call[tf.Tensor]) -> Call[tf.Tensor]:
    """A checked call, whose sizes are looked at when the graph runs."""
    source, sizes = call.source, tf.shape(call.source)
    batch, length = (sizes[axis] if size is None else size for axis, size in enumerate(source.shape[:2]))
    past, columns = 0, [length]
    if call.cache is not None:
        past = call.cache.length
        columns = [past + length, *([] if call.past.capacity is None else [call.past.capacity])]
    most = config.max_tokens - past if call.position_ids is None else length
    if not source.shape[:2].is_fully_defined():
        fits = (sizes[0] > 0) & (sizes[1] > 0) & (sizes[1] <= most)
        words = ["expected at least one sequence, each of 1 to", most, "tokens, received", sizes]
        source = _after(tf.debugging.Assert(fits, words), source)
    here, one_row = (batch, length), (1, length)
    ids = source if call.inputs_embeds is None else None
    embeds = None if call.inputs_embeds is None else fitted("inputs_embeds", source, (*here, config.hidden_size))
    memory, memory_mask = call.memory_BMD, call.memory_mask_BM
    if memory is not None:
        reach = tf.shape(memory)[1] if memory.shape[1] is None else memory.shape[1]
        memory = fitted("encoder_hidden_states", memory, (batch, reach, config.hidden_size))
        memory_mask = fitted("encoder_attention_mask", memory_mask, (batch, reach))
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    return replace(
        call,
        input_ids=ids,
        inputs_embeds=embeds,
        attention_mask=fitted(
            "attention_mask",
            call.attention_mask,
            *((batch, size) for size in columns),
            *((*here, size) for size in columns),
        ),
        token_type_ids=fitted("token_type_ids", call.token_type_ids, here, one_row),
        position_ids=fitted("position_ids", call.position_ids, here, one_row),
        head_mask=fitted("head_mask", call.head_mask, (heads,), (layers, heads)),
        memory_BMD=memory,
        memory_mask_BM=memory_mask,
    )
