"""``read``: the inputs of a call, checked, and what can be seen of an array without computing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from xlmr_core.calls import Call
from xlmr_core.checks import (
    Kind,
    Seen,
    check_encoder_inputs,
    check_head_mask,
    check_memory,
    refuse_cache,
    refuse_type,
    warn_of_attended_padding,
)

if TYPE_CHECKING:
    from xlmr_flax.encoder import EncoderModel

__all__ = ["has_values", "is_concrete", "is_integer", "narrow", "read", "see"]

# The dtypes of JAX and of NumPy, bfloat16 among them.
KINDS = {
    jnp.integer: Kind.INTEGER,
    jnp.floating: Kind.FLOATING,
    jnp.complexfloating: Kind.COMPLEX,
    jnp.bool_: Kind.BOOLEAN,
}


def has_values(x: Any) -> bool:
    """Whether there are values to read, on whatever device; under a transformation of JAX there are none."""
    return isinstance(x, np.ndarray | np.generic | jax.Array) and not isinstance(x, jax.core.Tracer)


def is_concrete(x: Any) -> bool:
    """Whether reading a value is possible and free of a device synchronisation."""
    if isinstance(x, np.ndarray | np.generic):
        return True
    return has_values(x) and x.is_fully_addressable and all(device.platform == "cpu" for device in x.devices())


def is_integer(x: Any) -> bool:
    """Whether an array holds integers, which booleans are not."""
    return _kind(x.dtype) is Kind.INTEGER


def narrow(x: Any) -> Any:
    """Integers as int32: NumPy's default is wider than JAX's, and a look-up takes none that is narrower."""
    return x.astype(np.int32) if x is not None and is_integer(x) else x


def see(name: str, array: Any) -> Seen | None:
    """What the core's checks look at; ``None`` for an input that was not passed.

    Raises:
        InputError: for what is no array.
    """
    if array is None:
        return None
    if not isinstance(array, np.ndarray | jax.Array):
        cure = "pass return_tensors='jax' or 'np' to the tokenizer, or numpy.asarray(...)"
        refuse_type(name, array, "an array of JAX or NumPy", cure)
    return Seen(name, tuple(array.shape), _kind(array.dtype), array.dtype, _values(array))


def _kind(dtype: Any) -> Kind:
    return next((kind for group, kind in KINDS.items() if jnp.issubdtype(dtype, group)), Kind.OTHER)


def _values(array: Any) -> Callable[[], np.ndarray] | None:
    return (lambda: np.asarray(array)) if is_concrete(array) else None


def read(
    encoder: EncoderModel,
    *,
    input_ids: Any = None,
    attention_mask: Any = None,
    token_type_ids: Any = None,
    position_ids: Any = None,
    head_mask: Any = None,
    inputs_embeds: Any = None,
    encoder_hidden_states: Any = None,
    encoder_attention_mask: Any = None,
    past_key_values: Any = None,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
) -> Call[Any]:
    """Check what came with a call of an encoder, or of a head on it. Arguments are those of ``EncoderModel.__call__``.

    Raises:
        InputError: for inputs of a wrong type, shape, dtype or range; see :mod:`xlmr_core.checks`.
    """
    config = encoder.config
    ids = see("input_ids", input_ids)
    mask = see("attention_mask", attention_mask)
    batch, _ = check_encoder_inputs(
        config,
        input_ids=ids,
        inputs_embeds=see("inputs_embeds", inputs_embeds),
        attention_mask=mask,
        token_type_ids=see("token_type_ids", token_type_ids),
        position_ids=see("position_ids", position_ids),
    )
    refuse_cache(past_key_values=past_key_values)
    check_memory(
        config,
        batch,
        see("encoder_hidden_states", encoder_hidden_states),
        see("encoder_attention_mask", encoder_attention_mask),
        has_cross_attention=encoder.has_cross_attention,
    )
    check_head_mask(config, see("head_mask", head_mask))
    if mask is None and ids is not None:
        warn_of_attended_padding(config, ids)
    return Call(
        input_ids=input_ids,
        inputs_embeds=inputs_embeds,
        attention_mask=attention_mask,
        token_type_ids=token_type_ids,
        position_ids=position_ids,
        head_mask=head_mask,
        memory_BMD=encoder_hidden_states,
        memory_mask_BM=encoder_attention_mask,
        output_attentions=bool(config.output_attentions if output_attentions is None else output_attentions),
        output_hidden_states=bool(
            config.output_hidden_states if output_hidden_states is None else output_hidden_states
        ),
    )
