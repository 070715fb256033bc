"""``read``: the inputs of a call, checked, and what can be seen of an array without computing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from xlmr_core.cache import SeenCache
from xlmr_core.calls import Call, read_call
from xlmr_core.checks import Kind, Seen, refuse_layout, refuse_type
from xlmr_core.errors import InputError
from xlmr_flax.placement import refuse_explicit_axes

if TYPE_CHECKING:
    from xlmr_flax.encoder import EncoderModel

__all__ = ["check_key", "has_values", "is_concrete", "is_integer", "narrow", "read", "see"]

# The dtypes of JAX and of NumPy, bfloat16 among them.
KINDS = {
    jnp.integer: Kind.INTEGER,
    jnp.floating: Kind.FLOATING,
    jnp.complexfloating: Kind.COMPLEX,
    jnp.bool_: Kind.BOOLEAN,
    np.character: Kind.TEXT,
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


def check_key(name: str, key: Any) -> None:
    """Refuse what is no random key: neither one of ``jax.random.key`` nor one of ``jax.random.PRNGKey``.

    Raises:
        InputError: for anything else.
    """
    is_array = isinstance(key, jax.Array | np.ndarray)
    if is_array and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ():
        return
    if is_array and key.dtype == np.uint32 and len(key.shape) == 1:
        return
    received = f"{key.dtype} of shape {key.shape}" if is_array else type(key).__name__
    raise InputError(f"{name} must be a random key, received {received}; pass jax.random.key(...)")


def see(name: str, array: Any) -> Seen | None:
    """What the core's checks look at; ``None`` for an input that was not passed.

    Raises:
        InputError: for what is no array, or is divided along explicit axes of a mesh.
    """
    if array is None:
        return None
    refuse_explicit_axes(name, array)
    if not isinstance(array, np.ndarray | jax.Array):
        if hasattr(array, "todense"):  # jax.experimental.sparse, SciPy
            refuse_layout(name, "sparse", f"{name}.todense()")
        of_tokenizer, conversion = "return_tensors='jax' or 'np'", "numpy.asarray(...)"
        refuse_type(name, array, "an array of JAX or NumPy", of_tokenizer=of_tokenizer, conversion=conversion)
    return Seen(name, tuple(array.shape), _kind(array.dtype), array.dtype, _values(array))


def _kind(dtype: Any) -> Kind:
    return next((kind for group, kind in KINDS.items() if jnp.issubdtype(dtype, group)), Kind.OTHER)


def _values(array: Any) -> Callable[[], np.ndarray] | None:
    return (lambda: np.asarray(array)) if is_concrete(array) else None


def read(
    encoder: EncoderModel, *, see_cache: Callable[[Any], tuple[Any, SeenCache]] | None = None, **inputs: Any
) -> Call[Any]:
    """Check what came with a call of an encoder, or of a head on it; see :func:`xlmr_core.calls.read_call`.

    Args:
        encoder: the bare model.
        see_cache: what sees a cache, where a call may go on from one.
        **inputs: the arguments of ``EncoderModel.__call__``, all but those that only some heads take.
    """
    # As published there is no use_cache: a call that goes on from a cache gives one.
    inputs["use_cache"] = inputs.get("past_key_values") is not None
    has_cross_attention = encoder.has_cross_attention
    return read_call(encoder.config, see, inputs, has_cross_attention=has_cross_attention, see_cache=see_cache)
