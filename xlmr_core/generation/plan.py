"""What a call of ``generate`` means, decided once, before any kernel runs.

A backend calls, in this order: ``read_request`` of ``request.py``, ``arrange_prompt`` of ``prompt.py``, and
:func:`plan_generation`, which gives a :class:`Generation`: plain, frozen and hashable, so that compiled programs can be
kept by it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError, warn_caller
from xlmr_core.generation.config import GenerationConfig
from xlmr_core.generation.options import OPTIONS, SAMPLING_ONLY
from xlmr_core.generation.processors import FORCED, RENORMALIZE, Processor, planned_processors, planned_warpers
from xlmr_core.generation.prompt import Prompt, bucket
from xlmr_core.generation.request import Request, check_tokens
from xlmr_core.generation.stopping import check_tokenizer
from xlmr_core.positions import max_tokens
from xlmr_core.wording import counted, number

__all__ = ["Generation", "plan_generation"]

EarlyStopping: TypeAlias = bool | Literal["never"]

_OUTPUT_FLAGS = ("output_scores", "output_logits", "output_attentions", "output_hidden_states")
_BEAMS_ONLY = ("early_stopping", "length_penalty", "diversity_penalty", "num_beam_groups")


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
        warpers: after those of the user: of sampling, and what is forced where ``prefix_allowed_tokens_fn`` is given.
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
        says_more = self.early_stopping == "never" or any(one.name == "forced_eos" for one in self.all_processors)
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
    processors = planned_processors(
        options,
        ends=ends,
        padding=decoder.pad_token_id,
        prompt_length=prompt.width,
        came_length=int(prompt.came.shape[1]),
        max_length=max_length,
        min_length=min_length,
    )
    # What is forced comes even where prefix_allowed_tokens_fn would not let it.
    forced = tuple(one for one in processors if one.name in FORCED and hooks.prefix_allowed_tokens_fn is not None)
    processors = tuple(one for one in processors if one not in forced)
    if not hooks.logits_processor:  # which may let others follow
        _check_leaves_some((*processors, *forced), decoder.vocab_size, prompt.width, max_length)
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
        processors=processors,
        warpers=(*forced, *planned_warpers(options, ends)),
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
            f"max_length={max(1, most - (options.max_new_tokens or 1))} to the tokenizer, or shorten the text"
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
    if options.stop_strings is not None:
        check_tokenizer(hooks.tokenizer)


def _check_ids(decoder: XLMRobertaConfig, options: GenerationConfig) -> None:
    """Refuse ids that are no tokens of the model."""
    bias = options.sequence_bias
    words: dict[str, list[Any]] = {
        "pad_token_id": [options.pad_token_id],
        "eos_token_id": [options.eos_token_id],
        "forced_bos_token_id": [options.forced_bos_token_id],
        "forced_eos_token_id": [options.forced_eos_token_id],
        "suppress_tokens": [options.suppress_tokens],
        "begin_suppress_tokens": [options.begin_suppress_tokens],
        "bad_words_ids": options.bad_words_ids or [],
        "sequence_bias": list(bias) if isinstance(bias, Mapping) else [ids for ids, _ in bias or ()],
    }
    for name, several in words.items():
        check_tokens(name, several, decoder.vocab_size)


# The options that forbid tokens, by the processor that does.
_FORBIDDING = {
    "sequence_bias": "sequence_bias",
    "bad_words": "bad_words_ids",
    "min_length": "min_new_tokens",
    "suppress": "suppress_tokens",
    "begin_suppress": "begin_suppress_tokens",
}


def _forbidden(processor: Processor, length: int) -> set[int]:
    """The tokens that a processor forbids behind so many tokens, whatever these are."""
    name, arguments = processor.name, processor.arguments
    if name == "suppress":
        return set(arguments[0])
    if name == "begin_suppress":
        return set(arguments[1]) if length == arguments[0] else set()
    if name == "min_length":
        return set(arguments[1]) if length < arguments[0] else set()
    if name == "bad_words":
        return {word[0] for word in arguments[0] if len(word) == 1}
    if name == "sequence_bias":
        return {word[0] for word, bias in zip(*arguments, strict=True) if len(word) == 1 and bias == -math.inf}
    return set()


def _check_leaves_some(processors: tuple[Processor, ...], vocab_size: int, prompt_length: int, max_length: int) -> None:
    """Refuse options that together leave no token that may follow."""
    # At other lengths no option forbids more.
    for length in sorted({prompt_length, min(prompt_length + 1, max_length - 1), max_length - 1}):
        only: set[int] | None = None  # all
        forbidden, by = set[int](), list[str]()
        for one in processors:
            if one.name in FORCED and one.arguments[0] == length:
                forced = one.arguments[1]
                only = {forced} if isinstance(forced, int) else set(forced)
                forbidden, by = set(), [f"{one.name}_token_id"]
            elif one.name == "remove_invalid":
                forbidden = set()
            elif found := _forbidden(one, length):
                forbidden |= found if only is None else found & only
                by.append(_FORBIDDING[one.name])
        candidates = vocab_size if only is None else len(only)
        if len(forbidden) >= candidates:
            raise InputError(
                f"{' and '.join(by)} must leave a token that may follow, received {counted(candidates, 'token')} that "
                "might and none that may; forbid fewer"
            )


def _warn_of_idle(request: Request) -> None:
    """Say which options of this call do nothing."""
    options, said = request.options, request.said
    idle = (
        (not options.do_sample, "do_sample is False", SAMPLING_ONLY),
        (options.num_beams == 1, "num_beams is 1", _BEAMS_ONLY),
        (not options.return_dict_in_generate, "return_dict_in_generate is False", _OUTPUT_FLAGS),
    )
    for is_idle, why, names in idle:
        asking = [
            name for name in names if name in said and getattr(options, name) not in (None, OPTIONS[name].default)
        ]
        if is_idle and asking:
            warn_caller(f"{why}, so {', '.join(asking)} {number(asking, 'does', 'do')} nothing here", UserWarning)
