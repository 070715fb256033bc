"""The arguments of a call of ``generate``, taken apart: which are options, which are inputs of the model, which run on
the host between steps, and which are refused.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlmr_core.arguments import Served, refuse_unknown, without_published
from xlmr_core.errors import InputError
from xlmr_core.generation.config import GenerationConfig, as_the_model_says, taken
from xlmr_core.generation.options import CACHE_IMPLEMENTATIONS, NOT_SERVED, OPTIONS, SPECIAL_TOKENS
from xlmr_core.wording import an, counted, shown

__all__ = [
    *("DECODER_INPUTS", "ENCODER_DECODER_INPUTS", "Hooks", "Request"),
    *("check_tokens", "decoder_prompt", "one_prompt", "read_request", "start_ids"),
]

# Inputs of the model that generate takes beside its options: of a decoder, and of an encoder and a decoder.
DECODER_INPUTS = (
    *("input_ids", "attention_mask", "token_type_ids", "encoder_hidden_states", "encoder_attention_mask"),
    "past_key_values",
)
ENCODER_DECODER_INPUTS = (
    *("input_ids", "attention_mask", "token_type_ids", "inputs_embeds", "encoder_outputs"),
    *("decoder_input_ids", "decoder_attention_mask"),
)
# Published inputs that generate makes itself.
_MADE_HERE = {
    "position_ids": "they follow from the prompt; position_numbering says how they are counted",
    "inputs_embeds": "what is generated continues ids; pass input_ids",
    "cache_position": "it follows from the prompt",
    "labels": "they are for training; call the model itself",
    "logits_to_keep": "only the last position's are computed",
    "return_dict": "ask for an output with return_dict_in_generate=True",
    "head_mask": "call the model itself, or prune the heads",
    "past_key_values": "pass the whole prompt",
}
# Published arguments of the call itself of which only these values can be served.
_ONLY: Served = {
    "synced_gpus": ((None, False), "each process generates by itself"),
    "assistant_model": ((None,), "every token is computed by the model itself"),
    "negative_prompt_ids": ((None,), "pass a logits_processor that mixes in other scores"),
    "negative_prompt_attention_mask": ((None,), "pass a logits_processor that mixes in other scores"),
    "custom_generate": ((None,), "no code is fetched; call a function of your own"),
    "trust_remote_code": ((None, False), "no code is fetched"),
}
# What draws follow from: the word of each backend, with what it may be.
_DRAWS_FROM = {
    "generator": "generator=torch.Generator().manual_seed(5)",
    "seed": "seed=5",
    "prng_key": "prng_key=jax.random.key(5)",
}
# Two ways to say one length; the second counts new tokens only.
LENGTHS = {"max_length": "max_new_tokens", "min_length": "min_new_tokens"}


@dataclass(frozen=True, eq=False)
class Hooks:
    """What a call brings that runs on the host between steps.

    Attributes:
        logits_processor: of the user: callables (input_ids, scores) -> scores.
        stopping_criteria: of the user: callables (input_ids, scores) -> truth values.
        prefix_allowed_tokens_fn: (number of the prompt, ids) -> ids that may follow.
        streamer: gets each token.
        tokenizer: for ``stop_strings``.
    """

    logits_processor: tuple[Any, ...] = ()
    stopping_criteria: tuple[Any, ...] = ()
    prefix_allowed_tokens_fn: Any = None
    streamer: Any = None
    tokenizer: Any = None

    @classmethod
    def of(cls, logits_processor: Any, stopping_criteria: Any, prefix_allowed_tokens_fn: Any, streamer: Any) -> Hooks:
        """Of the published arguments of ``generate``.

        Raises:
            InputError: for what cannot be called.
        """
        lists = {"logits_processor": logits_processor, "stopping_criteria": stopping_criteria}
        for name, given in lists.items():
            if given is not None and (not isinstance(given, Iterable) or not all(map(callable, given))):
                raise InputError(
                    f"{name} must be a list of callables (input_ids, scores), received {an(type(given).__name__)}"
                )
        if prefix_allowed_tokens_fn is not None and not callable(prefix_allowed_tokens_fn):
            raise InputError(
                "prefix_allowed_tokens_fn must be callable with (batch_id, input_ids), received "
                f"{an(type(prefix_allowed_tokens_fn).__name__)}"
            )
        if streamer is not None and not (hasattr(streamer, "put") and hasattr(streamer, "end")):
            raise InputError(f"streamer must have put(value) and end(), received {an(type(streamer).__name__)}")
        return cls(tuple(logits_processor or ()), tuple(stopping_criteria or ()), prefix_allowed_tokens_fn, streamer)


@dataclass(frozen=True, eq=False)
class Request:
    """The arguments of a call of ``generate``, taken apart.

    Attributes:
        caller: what to call the place in messages.
        options: all options: the call's over those of a passed ``generation_config`` over the model's.
        said: the names of the options that the call itself says.
        inputs: inputs of the model by their published names, none of them ``None``.
        hooks: what runs on the host.
        vocab_size: tokens that the model can write.
        more: arguments of the backend's own, such as ``seed``.
    """

    caller: str
    options: GenerationConfig
    said: frozenset[str]
    inputs: Mapping[str, Any]
    hooks: Hooks
    vocab_size: int
    more: Mapping[str, Any] = field(default_factory=dict)


def read_request(
    model_config: Any,
    defaults: GenerationConfig,
    *,
    caller: str,
    inputs: Any = None,
    generation_config: Any = None,
    hooks: Hooks | None = None,
    kwargs: Mapping[str, Any],
    takes: Iterable[str] = DECODER_INPUTS,
    own: Iterable[str] = (),
    draws_from: str = "",
) -> Request:
    """Take the arguments of a call apart.

    Args:
        model_config: of the model; of an encoder and a decoder, it has ``decoder``.
        defaults: the model's own options.
        caller: what to call the place in messages, such as ``XLMRobertaForCausalLM.generate()``.
        inputs: the first argument: ids under another name.
        generation_config: options that win over the model's, where they are not at their defaults.
        hooks: see :class:`Hooks`.
        kwargs: all other arguments: options, which win over everything, and inputs of the model.
        takes: inputs of the model that can be served.
        own: names of further arguments, of the backend's own.
        draws_from: the backend's own word for what draws follow from.

    Raises:
        InputError: for options or inputs that cannot be served.
        ConfigError: for a value that no option can have.
        TypeError: for an argument that is not known, with the nearest name.
    """
    takes, own = tuple(takes), tuple(own)
    kwargs = without_published(kwargs, _ONLY, ())
    use_model_defaults = kwargs.pop("use_model_defaults", None)
    tokenizer = kwargs.pop("tokenizer", None)
    more = {name: kwargs.pop(name) for name in own if name in kwargs}
    for name, remedy in _MADE_HERE.items():
        if kwargs.get(name) is not None and name not in takes:
            raise InputError(f"{caller} takes no {name}, received {an(type(kwargs[name]).__name__)}; {remedy}")
    given = {name: x for name, x in kwargs.items() if name in takes}
    said = {name: x for name, x in kwargs.items() if name not in takes and name not in _MADE_HERE}
    # None asks for nothing, where it is no value.
    said = {name: x for name, x in said.items() if x is not None or name not in OPTIONS or OPTIONS[name].kind[1](None)}
    _refuse_other_draws(said, draws_from, caller)
    refuse_unknown(said, OPTIONS, caller, (*takes, *own, *_HOOK_NAMES))
    if inputs is not None:
        if given.get("input_ids") is not None:
            raise InputError(f"{caller} received the prompt twice, as inputs and as input_ids; pass one of them")
        given["input_ids"] = inputs
    if given.get("encoder_attention_mask") is not None and given.get("encoder_hidden_states") is None:
        raise InputError(
            f"{caller} received encoder_attention_mask without encoder_hidden_states, which it is a mask of; pass both"
        )
    defaults = as_the_model_says(taken(defaults, "the model's generation_config"), model_config)
    options = _merged(defaults, generation_config, use_model_defaults)
    options.update(**{**dict.fromkeys(_other_lengths(said)), **said})
    _refuse_not_served(options)
    hooks = hooks or Hooks()
    return Request(
        caller=caller,
        options=options,
        said=frozenset(said),
        inputs={name: x for name, x in given.items() if x is not None},
        hooks=dataclasses.replace(hooks, tokenizer=tokenizer),
        vocab_size=(getattr(model_config, "decoder", None) or model_config).vocab_size,
        more=more,
    )


# Arguments of generate that name no option: meant by a misspelt one too.
_HOOK_NAMES = (
    *("generation_config", "logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", "streamer"),
    "tokenizer",
)


def _other_lengths(said: Mapping[str, Any]) -> list[str]:
    """Options of a length in new tokens, where these say it in all tokens: what lower levels say there is replaced."""
    return [new for total, new in LENGTHS.items() if said.get(total) is not None and said.get(new) is None]


def _merged(defaults: GenerationConfig, passed: Any, use_model_defaults: bool | None) -> GenerationConfig:
    """The options of a passed configuration over the model's; what it has at its default is the model's, as published.

    ``use_model_defaults=False`` takes only the special tokens from the model.
    """
    if passed is None:
        return defaults
    merged = copy.deepcopy(taken(passed))
    temperature = merged.temperature
    said = {name: getattr(merged, name) for name in OPTIONS if getattr(merged, name) != OPTIONS[name].default}
    settled = _other_lengths(said)
    for name, option in OPTIONS.items():
        from_model = use_model_defaults is not False or name in SPECIAL_TOKENS
        if from_model and name not in settled and getattr(merged, name) == option.default:
            setattr(merged, name, copy.deepcopy(getattr(defaults, name)))
    if temperature == 0:  # of who takes the best; the model's own options may say that it draws
        merged.do_sample = False
    return merged


def _refuse_other_draws(names: Iterable[str], draws_from: str, caller: str) -> None:
    """Name this backend's word for what draws follow from, to who says another's."""
    for name in names:
        if name in _DRAWS_FROM and draws_from in _DRAWS_FROM:
            raise TypeError(
                f"{caller} does not know the argument {name!r}; draws follow from {draws_from!r} here, pass "
                f"{_DRAWS_FROM[draws_from]}"
            )


def _refuse_not_served(options: GenerationConfig) -> None:
    for name, (served, remedy) in NOT_SERVED.items():
        value = getattr(options, name)
        if not any(value is one or (isinstance(one, int | float) and value == one) for one in served):
            raise InputError(f"{name} must be {' or '.join(map(repr, served))}, received {shown(value)}: {remedy}")
    if options.cache_implementation not in CACHE_IMPLEMENTATIONS:
        raise InputError(
            f"cache_implementation must be one of {', '.join(map(repr, CACHE_IMPLEMENTATIONS))}, received "
            f"{shown(options.cache_implementation)}"
        )


def check_tokens(name: str, several: Iterable[Any], vocab_size: int) -> None:
    """Refuse ids that are no tokens of the model.

    Args:
        name: of the option.
        several: ids, or lists of them; ``None`` is none.
        vocab_size: tokens that there are.

    Raises:
        InputError: for the largest that is none of them.
    """
    found = [token for ids in several for token in ((ids,) if isinstance(ids, int) else ids or ())]
    if found and max(found) >= vocab_size:
        raise InputError(
            f"{name} must hold ids below {vocab_size}, the vocabulary of this model; received {max(found)}"
        )


# ---- The first tokens


def one_prompt(caller: str, inputs: Any, input_ids: Any) -> Any:
    """The prompt of a masked model, under either of its names.

    Raises:
        InputError: for both or neither.
    """
    if (inputs is None) is (input_ids is None):
        received = "neither" if inputs is None else "both"
        raise InputError(f"{caller} expected the prompt as inputs or as input_ids, received {received}; pass one")
    return input_ids if inputs is None else inputs


def start_ids(request: Request, batch: int = 1) -> NDArray[np.int64]:
    """(batch, 1): the prompt of a call of a decoder that brings none: ``bos_token_id``.

    Raises:
        InputError: if there is no such token, or it is none of the vocabulary.
    """
    bos = request.options.bos_token_id
    if bos is None:
        raise InputError(f"{request.caller} received no prompt and knows no bos_token_id; pass input_ids")
    check_tokens("bos_token_id", [bos], request.vocab_size)
    return np.full((batch, 1), bos, dtype=np.int64)


def decoder_prompt(
    request: Request, batch: int, ids: NDArray[Any] | None, mask: NDArray[Any] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """The first tokens of a decoder that has an encoder: ``decoder_start_token_id``, before ids that do not begin so.

    Args:
        request: says the token.
        batch: number of texts of the encoder.
        ids: (batch, C) ``decoder_input_ids``, or ``None``.
        mask: (batch, C) ``decoder_attention_mask``, or ``None``.

    Raises:
        InputError: if the token is not set or none of the vocabulary, or the numbers of rows do not fit.
    """
    start = request.options.decoder_start_token_id
    if start is None:
        raise InputError(
            f"{request.caller} needs decoder_start_token_id, which is not set; set it in the model's config, such as "
            "model.config.decoder_start_token_id = tokenizer.cls_token_id"
        )
    check_tokens("decoder_start_token_id", [start], request.vocab_size)
    starts = [start] * batch if isinstance(start, int) else list(start)
    if len(starts) != batch:
        raise InputError(f"decoder_start_token_id has {counted(len(starts), 'id')} for {counted(batch, 'text')}")
    start_B1 = np.asarray(starts, dtype=np.int64)[:, None]
    if ids is None:
        return start_B1, None
    ids = np.asarray(ids, dtype=np.int64)
    if ids.ndim != 2 or ids.shape[0] != batch:
        raise InputError(f"decoder_input_ids must have the shape ({batch}, length), received {ids.shape}")
    if ids.shape[1] and (ids[:, :1] == start_B1).any():
        return ids, mask
    longer = None if mask is None else np.concatenate([np.ones_like(start_B1), np.asarray(mask)], axis=1)
    return np.concatenate([start_B1, ids], axis=1), longer
