"""What a call of ``generate`` means, decided once, before any kernel runs.

A backend calls, in this order: :func:`read_request` (which arguments are options, which are inputs of the model, which
are refused), ``arrange_prompt`` of ``prompt.py``, and :func:`plan_generation`, which gives a :class:`Generation`: plain,
frozen and hashable, so that compiled programs can be kept by it.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xlmr_core.arguments import Served, refuse_unknown, without_published
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError, warn_caller
from xlmr_core.generation.config import GenerationConfig, with_special_tokens
from xlmr_core.generation.options import (
    CACHE_IMPLEMENTATIONS,
    NOT_SERVED,
    OPTIONS,
    SAMPLING_ONLY,
    SPECIAL_TOKENS,
)
from xlmr_core.generation.processors import RENORMALIZE, Processor, planned_processors, planned_warpers
from xlmr_core.generation.prompt import Prompt, bucket
from xlmr_core.positions import max_tokens
from xlmr_core.wording import an, counted, shown

__all__ = [
    *("DECODER_INPUTS", "ENCODER_DECODER_INPUTS", "Generation", "Hooks", "Request"),
    *("decoder_prompt", "plan_generation", "read_request", "start_ids"),
]

EarlyStopping: TypeAlias = bool | Literal["never"]

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
_OUTPUT_FLAGS = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")


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
        more: arguments of the backend's own, such as ``seed``.
    """

    caller: str
    options: GenerationConfig
    said: frozenset[str]
    inputs: Mapping[str, Any]
    hooks: Hooks
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
    refuse_unknown(said, OPTIONS, caller, (*takes, *own, *_HOOK_NAMES))
    if inputs is not None:
        if given.get("input_ids") is not None:
            raise InputError(f"{caller} received the prompt twice, as inputs and as input_ids; pass one of them")
        given["input_ids"] = inputs
    options = _merged(with_special_tokens(defaults, model_config), generation_config, use_model_defaults, caller)
    options.update(**said)
    _refuse_not_served(options)
    hooks = hooks or Hooks()
    return Request(
        caller=caller,
        options=options,
        said=frozenset(said),
        inputs={name: x for name, x in given.items() if x is not None},
        hooks=dataclasses.replace(hooks, tokenizer=tokenizer),
        more=more,
    )


# Arguments of generate that name no option: meant by a misspelt one too.
_HOOK_NAMES = (
    *("generation_config", "logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", "streamer"),
    "tokenizer",
)


def _merged(defaults: GenerationConfig, passed: Any, use_model_defaults: bool | None, caller: str) -> GenerationConfig:
    """The options of a passed configuration over the model's; what it has at its default is the model's, as published.

    ``use_model_defaults=False`` takes only the special tokens from the model.
    """
    if passed is None:
        return defaults
    if isinstance(passed, Mapping) or not hasattr(passed, "to_dict"):
        raise InputError(
            f"generation_config must be a GenerationConfig, received {an(type(passed).__name__)}; make one with "
            "GenerationConfig(...)"
        )
    values = passed.to_dict()
    merged = copy.deepcopy(passed) if isinstance(passed, GenerationConfig) else GenerationConfig(**values)
    for name, option in OPTIONS.items():
        from_model = use_model_defaults is not False or name in SPECIAL_TOKENS
        if from_model and getattr(merged, name) == option.default:
            setattr(merged, name, copy.deepcopy(getattr(defaults, name)))
    return merged


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


# ---- The first tokens


def start_ids(request: Request, batch: int = 1) -> NDArray[np.int64]:
    """(batch, 1): the prompt of a call of a decoder that brings none: ``bos_token_id``.

    Raises:
        InputError: if there is no such token.
    """
    bos = request.options.bos_token_id
    if bos is None:
        raise InputError(f"{request.caller} received no prompt and knows no bos_token_id; pass input_ids")
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
        InputError: if the token is not set, or the numbers of rows do not fit.
    """
    start = request.options.decoder_start_token_id
    if start is None:
        raise InputError(
            f"{request.caller} needs decoder_start_token_id, which is not set; set it in the model's config, such as "
            "model.config.decoder_start_token_id = tokenizer.cls_token_id"
        )
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


# ---- The plan


@dataclass(frozen=True)
class Generation:
    """Everything a call of ``generate`` means; plain and hashable.

    Lengths count columns of the arranged prompt (see ``prompt.py``), not of the prompt as it came.

    Attributes:
        prompt_length: P, columns of the prompt.
        max_length: L, most tokens of a row, prompt included; the length of the buffer.
        min_length: fewest, prompt included.
        eos_token_ids: what ends a row.
        pad_token_id: what rows that ended are filled with.
        do_sample: draw; otherwise take the best.
        num_beams: K; 1 is no beam search.
        num_beam_groups: groups of beams that avoid each other's tokens, of K / groups beams each.
        diversity_penalty: how much a token loses for each earlier group's beam that chose it in the same step.
        num_return_sequences: how many sequences come back for a prompt.
        length_penalty: the score of a finished beam is its log-probability over (new tokens) ** this.
        early_stopping: when beam search of a row ends; see the module of the reference.
        processors: in their order, before those of the user.
        warpers: of sampling, after those of the user.
        renormalize: log-softmax of the scores after everything.
        position_numbering: one of ``POSITION_NUMBERINGS``.
        use_cache: keep keys and values; otherwise every step computes the whole sequence.
        static_cache: of a fixed size from the beginning, on request.
        max_time: seconds, or ``None``.
        stop_strings: texts that end a row.
        output_scores, output_logits, output_attentions, output_hidden_states: what comes back beside the sequences.
        return_dict: whether an output comes back and not the sequences alone.
        needs_host: whether something runs on the host between steps.
    """

    prompt_length: int
    max_length: int
    min_length: int = 0
    eos_token_ids: tuple[int, ...] = ()
    pad_token_id: int = 1
    do_sample: bool = False
    num_beams: int = 1
    num_beam_groups: int = 1
    diversity_penalty: float = 0.0
    num_return_sequences: int = 1
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = False
    processors: tuple[Processor, ...] = ()
    warpers: tuple[Processor, ...] = ()
    renormalize: bool = False
    position_numbering: str = "model"
    use_cache: bool = True
    static_cache: bool = False
    max_time: float | None = None
    stop_strings: tuple[str, ...] = ()
    output_scores: bool = False
    output_logits: bool = False
    output_attentions: bool = False
    output_hidden_states: bool = False
    return_dict: bool = False
    needs_host: bool = False

    @property
    def new_tokens(self) -> int:
        """Most new tokens of a row."""
        return self.max_length - self.prompt_length

    @property
    def has_beams(self) -> bool:
        """Whether it is beam search."""
        return self.num_beams > 1

    @property
    def rows_per_prompt(self) -> int:
        """Rows of the batch that run for one prompt: its beams, or as many draws as come back."""
        return self.num_beams if self.has_beams else self.num_return_sequences

    @property
    def candidates(self) -> int:
        """How many continuations of all beams of a prompt (of a group) are looked at in a step: enough to go on with
        if one of each beam ends.
        """
        return max(2, 1 + len(self.eos_token_ids)) * (self.num_beams // self.num_beam_groups)

    @property
    def all_processors(self) -> tuple[Processor, ...]:
        """Those of the options, warpers and renormalization, where no user's processor comes between."""
        return (*self.processors, *self.warpers, *((Processor(RENORMALIZE),) if self.renormalize else ()))

    def rounded(self) -> Generation:
        """The same with ``max_length`` rounded up, where it only says when to stop: compiled programs are kept by this
        one, and are told the exact ``max_length`` as a number.
        """
        says_more = self.early_stopping == "never" or any(one.name == "forced_eos" for one in self.processors)
        if says_more:
            return self
        return dataclasses.replace(self, max_length=self.prompt_length + bucket(self.new_tokens))


def plan_generation(model_config: Any, request: Request, prompt: Prompt) -> Generation:
    """Decide what a call means.

    Args:
        model_config: of the model; of an encoder and a decoder, it has ``decoder``.
        request: the arguments.
        prompt: arranged; of a decoder with an encoder, its first tokens.

    Raises:
        InputError: for options that do not go together, or more tokens than the model has positions for.
    """
    decoder: XLMRobertaConfig = getattr(model_config, "decoder", None) or model_config
    options, hooks = request.options, request.hooks
    options.validate()
    _check_together(request)
    ends = _ends(options)
    new_tokens, least = _lengths(decoder, request, prompt)
    max_length, min_length = prompt.width + new_tokens, prompt.width + least
    _check_ids(decoder, options)
    _warn_of_idle(request)
    flags = {name: bool(getattr(options, name)) and options.return_dict_in_generate for name in _OUTPUT_FLAGS}
    stop_strings = options.stop_strings or ()
    needs_host = (
        *(hooks.logits_processor, hooks.stopping_criteria, hooks.prefix_allowed_tokens_fn is not None),
        *(hooks.streamer is not None, options.max_time is not None, stop_strings),
    )
    return Generation(
        prompt_length=prompt.width,
        max_length=max_length,
        min_length=min_length,
        eos_token_ids=ends,
        pad_token_id=_filling(options, ends),
        do_sample=options.do_sample,
        num_beams=options.num_beams,
        num_beam_groups=options.num_beam_groups,
        diversity_penalty=float(options.diversity_penalty),
        num_return_sequences=options.num_return_sequences,
        length_penalty=float(options.length_penalty),
        early_stopping=options.early_stopping,
        processors=planned_processors(
            options,
            ends=ends,
            prompt_length=prompt.width,
            came_length=int(prompt.came.shape[1]),
            max_length=max_length,
            min_length=min_length,
        ),
        warpers=planned_warpers(options, ends),
        renormalize=options.renormalize_logits,
        position_numbering=options.position_numbering,
        # Without a causal mask every new token changes the states of all others.
        use_cache=options.use_cache and decoder.is_decoder,
        static_cache=options.cache_implementation == "static",
        max_time=options.max_time,
        stop_strings=(stop_strings,) if isinstance(stop_strings, str) else tuple(stop_strings),
        **flags,
        return_dict=options.return_dict_in_generate,
        needs_host=any(map(bool, needs_host)),
    )


def _ends(options: GenerationConfig) -> tuple[int, ...]:
    ends = options.eos_token_id
    return () if ends is None else (ends,) if isinstance(ends, int) else tuple(dict.fromkeys(ends))


def _filling(options: GenerationConfig, ends: tuple[int, ...]) -> int:
    """What rows that ended are filled with: padding, or else the end."""
    if options.pad_token_id is not None:
        return options.pad_token_id
    if not ends:
        return 0  # no row ends before the others
    warn_caller(f"pad_token_id is not set; rows that ended are filled with eos_token_id ({ends[0]})", UserWarning)
    return ends[0]


def _lengths(decoder: XLMRobertaConfig, request: Request, prompt: Prompt) -> tuple[int, int]:
    """(most, fewest) new tokens."""
    options, said = request.options, request.said
    came = int(prompt.came.shape[1])
    # The last new token is given to no layer, so it needs no position.
    most = _positions(decoder, options) + 1
    if prompt.longest >= most:
        raise InputError(
            f"the prompt has {counted(prompt.longest, 'token')}, this model takes {most - 1}; pass truncation=True, "
            f"max_length={most - 1 - (options.max_new_tokens or 1) + 1} to the tokenizer, or shorten the text"
        )
    if options.max_new_tokens is not None:
        new_tokens = options.max_new_tokens
        if "max_length" in said and options.max_length is not None:
            warn_caller(
                f"max_new_tokens={new_tokens} and max_length={options.max_length} were both passed; max_new_tokens "
                "counts",
                UserWarning,
            )
        asked = f"max_new_tokens={new_tokens}"
    elif options.max_length is None or (
        "max_length" not in said and options.max_length == OPTIONS["max_length"].default
    ):
        # Nobody says how many: 20, as published, or what there is room for.
        new_tokens = min(OPTIONS["max_length"].default, most - prompt.longest)
        asked = ""
    else:
        new_tokens = options.max_length - came
        asked = f"max_length={options.max_length}"
        if new_tokens < 1:
            raise InputError(
                f"the prompt has {counted(came, 'token')} and {asked} counts them, so there is no room for a new one; "
                "raise max_length, or pass max_new_tokens"
            )
    if prompt.longest + new_tokens > most:
        raise InputError(
            f"the longest prompt has {counted(prompt.longest, 'token')} and {asked} asks for "
            f"{counted(new_tokens, 'new one')}, this model takes {most - 1}; ask for at most "
            f"{most - prompt.longest}, or shorten the prompt"
        )
    least = options.min_new_tokens
    if least is None:
        least = max(0, (options.min_length or 0) - came)
    elif "min_length" in said:
        warn_caller(
            f"min_new_tokens={least} and min_length={options.min_length} were both passed; min_new_tokens counts",
            UserWarning,
        )
    if least > new_tokens:
        warn_caller(
            f"at least {counted(least, 'new token')} were asked for and at most {new_tokens}; the most counts",
            UserWarning,
        )
    return new_tokens, least


def _positions(decoder: XLMRobertaConfig, options: GenerationConfig) -> int:
    """How many tokens of a row have a position."""
    if options.position_numbering == "zero_based" or decoder.position_embedding_type != "absolute":
        table = decoder.max_position_embeddings
        return table if options.position_numbering == "zero_based" else min(table, max_tokens(decoder))
    return max_tokens(decoder)


def _check_together(request: Request) -> None:
    """Refuse options that do not go together."""
    options, hooks = request.options, request.hooks
    beams, groups, sequences = options.num_beams, options.num_beam_groups, options.num_return_sequences
    checks = (
        (
            beams > 1 or options.do_sample or sequences == 1,
            f"num_return_sequences={sequences} needs different sequences: pass do_sample=True or num_beams of at "
            "least as many",
        ),
        (
            beams == 1 or sequences <= beams,
            f"num_return_sequences must be at most num_beams={beams}, received {sequences}",
        ),
        (beams % groups == 0, f"num_beam_groups must divide num_beams={beams}, received {groups}"),
        (groups == 1 or not options.do_sample, "num_beam_groups needs do_sample=False: groups do not draw"),
        (
            groups == 1 or options.diversity_penalty > 0,
            "diverse beams need a diversity_penalty above 0, received 0: the groups would be alike",
        ),
        (
            hooks.streamer is None or beams == 1,
            "a streamer needs num_beams=1: the tokens of beams are not settled before the end",
        ),
        (
            options.stop_strings is None or hooks.tokenizer is not None,
            "stop_strings needs the tokenizer; pass tokenizer=tokenizer",
        ),
    )
    for holds, message in checks:
        if not holds:
            raise InputError(message)


def _check_ids(decoder: XLMRobertaConfig, options: GenerationConfig) -> None:
    """Refuse ids that are no tokens of the model."""
    words = {
        "eos_token_id": [_ends(options)],
        "forced_bos_token_id": [[options.forced_bos_token_id]],
        "forced_eos_token_id": [options.forced_eos_token_id],
        "suppress_tokens": [options.suppress_tokens],
        "begin_suppress_tokens": [options.begin_suppress_tokens],
        "bad_words_ids": options.bad_words_ids,
        "sequence_bias": None
        if options.sequence_bias is None
        else list(options.sequence_bias)
        if isinstance(options.sequence_bias, Mapping)
        else [ids for ids, _ in options.sequence_bias],
    }
    for name, lists in words.items():
        for ids in lists or ():
            for token in (ids,) if isinstance(ids, int) else ids or ():
                if token is not None and token >= decoder.vocab_size:
                    raise InputError(
                        f"{name} must hold ids below {decoder.vocab_size}, the vocabulary of this model; received "
                        f"{token}"
                    )


def _warn_of_idle(request: Request) -> None:
    """Say which options of this call do nothing."""
    options, said = request.options, request.said
    idle: list[tuple[list[str], str]] = []
    if not options.do_sample:
        idle.append(([name for name in SAMPLING_ONLY if name in said], "do_sample is False"))
    if options.num_beams == 1:
        names = ("early_stopping", "length_penalty", "diversity_penalty", "num_beam_groups")
        idle.append(([name for name in names if name in said], "num_beams is 1"))
    if not options.return_dict_in_generate:
        idle.append(([name for name in _OUTPUT_FLAGS if name in said], "return_dict_in_generate is False"))
    for names, why in idle:
        names = [name for name in names if getattr(options, name) != OPTIONS[name].default]
        if names:
            warn_caller(f"{why}, so {', '.join(names)} {'does' if len(names) == 1 else 'do'} nothing here", UserWarning)
