"""A call of an encoder on its way through a backend: read, planned, run.

``read`` (``inputs.py`` of a backend, :func:`read_call` here) checks what came and gives a :class:`Call`; it looks at no
value that a compiler could not know. ``plan`` (``plan.py``) decides how it runs: packed or padded, which masks, which
memory. ``run`` (``encoder.py``) computes, with tensors only; compilers get it whole (Flax), or the layers in it, which
are all but the look-up of embeddings (``optimize_for_inference`` of PyTorch).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Self, TypeVar

from xlmr_core.cache import SeenCache, check_cache_position, keeps_cache
from xlmr_core.checks import (
    Seen,
    check_encoder_inputs,
    check_head_mask,
    check_memory,
    refuse_cache,
    warn_of_attended_padding,
)
from xlmr_core.config import XLMRobertaConfig

__all__ = ["Call", "Plan", "called_like", "read_call"]

Array = TypeVar("Array")
MethodT = TypeVar("MethodT")


@dataclass(frozen=True)
class Call(Generic[Array]):
    """The checked inputs of one call, and which outputs it asks for.

    Attributes:
        input_ids: integers (B, S), or ``None`` if there are embeddings in their place.
        inputs_embeds: floats (B, S, D).
        attention_mask: (B, S) or (B, S, S) of 0 and 1.
        token_type_ids: integers (B, S) or (1, S).
        position_ids: integers (B, S) or (1, S).
        head_mask: (N,) or (layers, N).
        memory_BMD: the states that cross-attention attends to.
        memory_mask_BM: of 0 and 1.
        cache: the backend's cache that the call goes on from; the mask then speaks of what is in it, too.
        past: what the checks saw of it.
        cache_position: (S,), the places of the new tokens.
        use_cache: whether the call gives a cache.
        output_attentions: whether probabilities are wanted.
        output_hidden_states: whether the states after each layer are wanted.
    """

    input_ids: Array | None = None
    inputs_embeds: Array | None = None
    attention_mask: Array | None = None
    token_type_ids: Array | None = None
    position_ids: Array | None = None
    head_mask: Array | None = None
    memory_BMD: Array | None = None
    memory_mask_BM: Array | None = None
    cache: Any = None
    past: SeenCache | None = None
    cache_position: Array | None = None
    use_cache: bool = False
    output_attentions: bool = False
    output_hidden_states: bool = False

    @property
    def source(self) -> Array:
        """The ids, or the embeddings in their place."""
        source = self.inputs_embeds if self.input_ids is None else self.input_ids
        assert source is not None
        return source


@dataclass(frozen=True, kw_only=True)
class Plan(Generic[Array]):
    """What every layer of one call needs beside the states. What differs by layer is asked for by the layer's number.

    Attributes:
        attention: how tokens attend to each other: the ``AttentionPlan`` of a backend's ``kernels.py``.
        memory_attention: how they attend to the memory.
        memory_BMD: the states that cross-attention attends to.
        head_mask_LN: (layers, N) factors of the heads' probabilities.
        cache: what keys and values are added to, and read from, by the layer's number.
        output_hidden_states: whether the states after each layer are wanted.
        last: the plan of the last layer, where it is another: one that answers at the first tokens alone.
    """

    attention: Any
    memory_attention: Any = None
    memory_BMD: Array | None = None
    head_mask_LN: Any = None
    cache: Any = None
    output_hidden_states: bool = field(default=False, metadata={"static": True})  # a word of JAX's: no array
    last: Any = None

    @property
    def output_attentions(self) -> bool:
        """Whether probabilities are wanted."""
        return bool(self.attention.return_weights)

    def of_layer(self, number: int, layers: int) -> Self:
        """The plan of a layer, of so many."""
        return self if self.last is None or number < layers - 1 else self.last

    def head_mask(self, number: Any) -> Any:
        """(N,): the head mask of a layer."""
        return None if self.head_mask_LN is None else self.head_mask_LN[number]


def read_call(
    config: XLMRobertaConfig,
    see: Callable[[str, Any], Seen | None],
    given: Mapping[str, Any],
    *,
    has_cross_attention: bool,
    see_cache: Callable[[Any], tuple[Any, SeenCache]] | None = None,
    recomputes: bool = False,
) -> Call[Any]:
    """Check what came with a call of an encoder, or of a head on it.

    Args:
        config: of the model.
        see: what the backend sees of an input, by its name.
        given: the inputs of the bare model's call, by their published names.
        has_cross_attention: whether the model was built with it.
        see_cache: takes what came as ``past_key_values`` for the backend's cache, and sees it; ``None`` for a head that
            has none.
        recomputes: whether layers are computed once more in the backward pass, so that no cache is given.

    Raises:
        InputError: for inputs of a wrong type, shape, dtype or range; see :mod:`xlmr_core.checks` and
            :mod:`xlmr_core.cache`.
    """
    cache, past = given.get("past_key_values"), None
    if see_cache is None:
        refuse_cache(past_key_values=cache, cache_position=given.get("cache_position"))
    elif cache is not None:
        cache, past = see_cache(cache)
    ids, mask = see("input_ids", given["input_ids"]), see("attention_mask", given["attention_mask"])
    batch, length = check_encoder_inputs(
        config,
        input_ids=ids,
        inputs_embeds=see("inputs_embeds", given["inputs_embeds"]),
        attention_mask=mask,
        token_type_ids=see("token_type_ids", given["token_type_ids"]),
        position_ids=see("position_ids", given["position_ids"]),
        past=past,
    )
    if see_cache is not None:
        check_cache_position(see("cache_position", given.get("cache_position")), past, length)
    states, memory_mask = given.get("encoder_hidden_states"), given.get("encoder_attention_mask")
    check_memory(
        config,
        batch,
        see("encoder_hidden_states", states),
        see("encoder_attention_mask", memory_mask),
        has_cross_attention=has_cross_attention,
    )
    check_head_mask(config, see("head_mask", given["head_mask"]))
    if mask is None and ids is not None and past is None:
        warn_of_attended_padding(config, ids)
    attentions, hidden_states = given["output_attentions"], given["output_hidden_states"]
    return Call(
        input_ids=given["input_ids"],
        inputs_embeds=given["inputs_embeds"],
        attention_mask=given["attention_mask"],
        token_type_ids=given["token_type_ids"],
        position_ids=given["position_ids"],
        head_mask=given["head_mask"],
        memory_BMD=states,
        memory_mask_BM=memory_mask,
        cache=cache,
        past=past,
        cache_position=given.get("cache_position"),
        use_cache=see_cache is not None and keeps_cache(config, given.get("use_cache"), recomputes=recomputes),
        output_attentions=bool(config.output_attentions if attentions is None else attentions),
        output_hidden_states=bool(config.output_hidden_states if hidden_states is None else hidden_states),
    )


def called_like(method: MethodT) -> Callable[[Callable[..., Any]], MethodT]:
    """For type checkers: a model is called with the arguments of ``method``, and gives what that gives.

    PyTorch and Keras declare that a call gives ``Any``, whatever ``forward`` or ``call`` of the class says.
    """
    return lambda declared: method
