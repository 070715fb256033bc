"""What the tasks that write text share: the options of generation, how many tokens there is room for, and where an
answer ends.

A call's options are those of ``generate``: a dozen by name here, all others in ``generate_kwargs``. Where nothing is
said the model's own ``generation_config`` counts, then what the published pipeline of the task does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xlmr_core.errors import InputError
from xlmr_core.generation.config import GenerationConfig, taken
from xlmr_core.generation.options import OPTIONS, POSITION_NUMBERINGS
from xlmr_core.generation.rows import as_list
from xlmr_core.generation.streamers import BaseStreamer, Ends
from xlmr_core.tasks.options import TaskOptions, option
from xlmr_core.tasks.task import Arrays, Task
from xlmr_core.wording import an

if TYPE_CHECKING:
    from xlmr_core.tasks.runner import Runner

__all__ = ["AnswerStreamer", "Asked", "Generating", "GenerationOptions", "ask", "trimmed"]

Ids: TypeAlias = NDArray[np.int64]

# Tokens that an answer has at most, where neither the call nor the model says.
USUAL_NEW_TOKENS = 256
# Options of a call by name that ``generate`` takes by the same.
BY_NAME = (
    *("max_new_tokens", "min_new_tokens", "do_sample", "temperature", "top_k", "top_p", "num_beams"),
    *("num_return_sequences", "repetition_penalty", "no_repeat_ngram_size", "length_penalty", "position_numbering"),
    "seed",
)
# What answers begin with where ``xlmr run`` prints them.
INDENT = "  "
# What the task says in place of the call, row by row.
SET_BY_TASK = ("max_new_tokens", "max_length", "min_length", "streamer")
# Arguments of ``generate`` beside the options of a GenerationConfig.
HOOKS = ("logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", "streamer")


@dataclass(frozen=True)
class GenerationOptions(TaskOptions):
    """What a call can choose; ``generate`` says what they mean.

    Attributes:
        max_new_tokens: tokens of an answer at most; 256 where nothing is said, or as many as the model has room for.
        stop_sequence: a text, or several, at which an answer ends; it is a part of the answer.
        position_numbering: ``"model"``, or ``"zero_based"`` as in the original library since 4.46.
        seed: of the numbers that sampling draws; the same seed, inputs and batches give the same answers.
        prefix: a text before each text; it is no part of the answer.
        clean_up_tokenization_spaces: whether spaces before punctuation are taken out.
        return_tensors: give ids in place of text.
        truncation: cut texts that are too long.
        max_length: see the task.
        generation_config: a ``GenerationConfig`` in place of what the task does where nothing is said.
        generate_kwargs: all other arguments of ``generate``, which may be passed by their names.
    """

    gathers: ClassVar[Collection[str]] = frozenset({*OPTIONS, *HOOKS})
    # Options that mean what ``generate`` means by the same name.
    alike: ClassVar[Collection[str]] = (*BY_NAME, "max_length")

    max_new_tokens: int | None = option(None, "tokens of an answer at most; else the model says, or 256", least=1)
    min_new_tokens: int | None = option(None, "tokens of an answer at least", least=0)
    do_sample: bool | None = option(None, "draw tokens, in place of taking the most likely", kind=bool)
    temperature: float | None = option(None, "of drawing: below 1 likely tokens get likelier", kind=float, least=0)
    top_k: int | None = option(None, "of drawing: among so many tokens, 0 for all", least=0)
    top_p: float | None = option(None, "of drawing: among tokens of so much probability", kind=float, least=0)
    num_beams: int | None = option(None, "beams of a beam search", least=1)
    num_return_sequences: int | None = option(None, "answers to a text", least=1)
    repetition_penalty: float | None = option(None, "above 1, what is there already gets rarer", kind=float, least=0)
    no_repeat_ngram_size: int | None = option(None, "no sequence of so many tokens twice", least=0)
    length_penalty: float | None = option(None, "of beams: above 0 favours longer ones", kind=float)
    stop_sequence: str | Sequence[str] | None = option(None, "a text at which an answer ends", several=True)
    position_numbering: str | None = option(
        None, "as in training, or as the original counts", choices=POSITION_NUMBERINGS
    )
    seed: int | None = option(None, "of drawing: the same seed, the same answers", least=0)
    prefix: str | None = option(None, "a text before each text")
    clean_up_tokenization_spaces: bool | None = option(None, "take out spaces before punctuation", kind=bool)
    return_tensors: bool | None = option(None, "ids in place of text", python_only=True)
    truncation: bool | str | None = option(None, "cut texts that are too long", python_only=True)
    max_length: int | None = option(None, "tokens at most", least=1)
    generation_config: Any = option(None, "options together", python_only=True)  # noqa: RUF009 (a field)
    generate_kwargs: Mapping[str, Any] | None = option(None, "further arguments of generate", python_only=True)

    def gathered(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """What was said, with arguments of ``generate`` that are no options by name in ``generate_kwargs``.

        What a call says by name goes before the ``generate_kwargs`` of the pipeline. ``None`` says something where it
        is a value of the argument, as of ``eos_token_id``.

        Raises:
            InputError: if one thing is said by name and otherwise in ``generate_kwargs``.
        """
        own = {name for name in said if name in self.gathers and not hasattr(self, name)}
        left = {name: value for name, value in said.items() if name not in own}
        kept = {name: said[name] for name in own if said[name] is not None or _may_be_none(name)}
        passed = left.get("generate_kwargs")
        beside = {} if passed is None else passed
        if not isinstance(beside, Mapping):
            raise InputError(f"generate_kwargs must be a dictionary, received {an(type(beside).__name__)}")
        by_name = kept | {name: left[name] for name in self.alike if left.get(name) is not None}
        for name in by_name:
            if beside.get(name) is not None and beside[name] != by_name[name]:
                raise InputError(
                    f"{name}={by_name[name]!r} and generate_kwargs={{{name!r}: {beside[name]!r}}} were both passed, "
                    "and contradict each other; leave one out"
                )
        earlier = {name: x for name, x in (self.generate_kwargs or {}).items() if name not in by_name}
        if kept:
            return {**left, "generate_kwargs": {**earlier, **beside, **kept}}
        return left if passed is not None or not self.generate_kwargs else {**left, "generate_kwargs": earlier}


@dataclass(frozen=True)
class Asked:
    """What a call asks of ``generate``.

    Attributes:
        arguments: of ``generate``, but for how long an answer may be.
        new: tokens of an answer at most; none where ``total`` says it.
        total: tokens at most, with those that are there before an answer.
        usual: nobody said ``new``, so there may be fewer where the model has less room.
        least: tokens at least, counted as ``total``; ``None`` leaves it to ``arguments`` and the model's own options.
        copies: sequences that are computed for each text.
        fill: what shorter answers to a text are filled up with.
        numbering: how positions are counted.
        streamer: takes tokens as they come.
    """

    arguments: Mapping[str, Any]
    new: int | None
    total: int | None
    usual: bool
    least: int | None
    copies: int
    fill: int
    numbering: str
    streamer: Any

    @property
    def counts_prompt(self) -> bool:
        """Whether a length that was asked for counts the prompt, so that only prompts of one length run together."""
        return self.new is None or bool(self.least)

    def hole(self, longest: int) -> int:
        """Tokens of a prompt whose beginning may be left out: where nobody says how many are written, half are.

        Args:
            longest: what the model takes, with the answer.
        """
        if self.new is None or not self.usual:
            return self.room(longest)
        return longest - min(self.new, longest // 2)

    def room(self, longest: int) -> int:
        """Tokens of a prompt at most.

        Args:
            longest: what the model takes, with the answer.
        """
        if self.new is None:
            return min(longest, self.total or longest) - 1
        return longest - (1 if self.usual else self.new)

    def lengths(self, prompt: int, longest: int) -> dict[str, int | None]:
        """How long an answer may be, as ``generate`` is told.

        Args:
            prompt: tokens that are there before an answer.
            longest: what the model takes, with the answer.
        """
        least = {} if self.least is None else {"min_length": self.least}
        if self.new is None:
            return {"max_length": longest if self.total is None else self.total, "max_new_tokens": None, **least}
        return {"max_new_tokens": max(1, min(self.new, longest - prompt)) if self.usual else self.new, **least}


def ask(
    options: GenerationOptions,
    model_config: GenerationConfig | None,
    usual: Mapping[str, Any],
    tokenizer: Any,
    max_length: int | None = None,
) -> Asked:
    """What a call asks of ``generate``: its options, then what the model's file says, then what the task does.

    Args:
        options: of the call.
        model_config: of the model, if it has one.
        usual: what the task does where nothing is said.
        tokenizer: reads texts at which an answer ends.
        max_length: tokens at most with those before an answer, where the call says so.

    Raises:
        InputError: for a ``generation_config`` that is none, or an empty text to end at.
        ConfigError: for an option that no generation can be made with.
    """
    said = {name: getattr(options, name) for name in BY_NAME if getattr(options, name) is not None}
    further = options.generate_kwargs or {}
    said |= {name: x for name, x in further.items() if x is not None or (name not in said and _may_be_none(name))}
    said |= {} if max_length is None else {"max_length": max_length}
    if options.stop_sequence is not None:
        texts = _texts(options.stop_sequence)
        if "" in texts:
            raise InputError(f"stop_sequence must be a text or several, none of them empty, received {texts!r}")
        said["stop_strings"] = [*texts, *_texts(said.get("stop_strings") or ())] or None
    given = None if options.generation_config is None else taken(options.generation_config)
    levels = [said, *(config.to_diff_dict() for config in (given, model_config) if config is not None)]
    if given is None:
        levels.append(_usual(usual, levels))
    everything = {name: value for level in reversed(levels) for name, value in level.items()}
    checked = GenerationConfig(**{name: value for name, value in everything.items() if name in OPTIONS})
    new, total = _longest_answer(levels)
    is_usual = new is None and total is None and given is None
    if given is not None and new is None and total is None:
        total = given.max_length
    if everything.get("stop_strings"):
        said["tokenizer"] = tokenizer
    told = levels[-1] if given is None else {"generation_config": given}
    return Asked(
        {**told, **{name: value for name, value in said.items() if name not in SET_BY_TASK}},
        new=USUAL_NEW_TOKENS if is_usual else new,
        total=total,
        usual=is_usual,
        least=_shortest_answer(levels),
        copies=max(int(everything.get(name) or 1) for name in ("num_beams", "num_return_sequences")),
        fill=_filling(checked, tokenizer),
        numbering=str(everything.get("position_numbering", OPTIONS["position_numbering"].default)),
        streamer=said.get("streamer"),
    )


def _usual(usual: Mapping[str, Any], levels: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a task does where nobody says: a temperature only where tokens are drawn."""
    said = {name: value for level in reversed(levels) for name, value in level.items()}
    draws = said.get("do_sample", usual.get("do_sample", False))
    return {name: value for name, value in usual.items() if name not in said and (draws or name != "temperature")}


def _longest_answer(levels: Sequence[Mapping[str, Any]]) -> tuple[int | None, int | None]:
    """New tokens at most, or tokens in all, by the first who says one of them; of one who says both, new ones."""
    new, total, _ = _length_of("max_new_tokens", "max_length", levels)
    return new, total


def _shortest_answer(levels: Sequence[Mapping[str, Any]]) -> int | None:
    """Tokens in all at least, by the first who says it, or 0 if that is nobody's word any more; ``None`` where new
    tokens are said, or nothing.
    """
    _, total, unsaid = _length_of("min_new_tokens", "min_length", levels)
    return 0 if total is None and "min_length" in unsaid else total


def _length_of(
    new: str, total: str, levels: Sequence[Mapping[str, Any]]
) -> tuple[int | None, int | None, frozenset[str]]:
    """The values of two options that mean one length, one of them ``None``: of the first level that says one, which
    ``None`` does not; and the names of which a level before it said ``None``, so that those after it do not count.
    """
    unsaid: frozenset[str] = frozenset()
    for level in levels:
        found = {name: level[name] for name in (new, total) if name in level and name not in unsaid}
        unsaid |= {name for name, value in found.items() if value is None}
        if found.get(new) is not None:
            return found[new], None, frozenset()
        if found.get(total) is not None:
            return None, int(found[total]), frozenset()
    return None, None, unsaid


def _filling(options: GenerationConfig, tokenizer: Any) -> int:
    """What ``generate`` fills up shorter answers with: padding, or else the end."""
    ends = options.eos_token_id
    named = (options.pad_token_id, ends[0] if isinstance(ends, list | tuple) else ends, tokenizer.pad_token_id)
    return next(int(token) for token in named if token is not None)


def _may_be_none(name: str) -> bool:
    """Whether ``None`` is a value of an argument of ``generate``; of others it is nobody's word."""
    return OPTIONS[name].kind[1](None) if name in OPTIONS else name != "seed"


def _texts(texts: str | Sequence[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)


class Generating(Task):
    """The base of the tasks; see the module."""

    wanted = ("sequences",)
    usual: ClassVar[Mapping[str, Any]] = {}
    """What the task does where neither the call nor the model's file says."""
    key: ClassVar[str] = "generated"
    """What the keys of an answer begin with."""

    def set_up(self, runner: Runner, beside: Any) -> None:
        """Take the runner, whose model has options of its own."""
        self._runner = runner

    def ask(self, options: GenerationOptions, max_length: int | None = None) -> Asked:
        """What a call asks; see :func:`ask`.

        Raises:
            InputError: for options that this task cannot serve.
        """
        if options.on_overflow == "window":
            raise InputError(
                "a text that is gone on from is read in one piece; on_overflow must be 'error' or 'truncate', received "
                "'window'"
            )
        model_config = getattr(self._runner.model, "generation_config", None)
        return ask(options, model_config, self.usual, self.tokenizer, max_length)

    def prefix(self, options: GenerationOptions) -> str:
        """What stands before each text: as the call says, or else the model's configuration."""
        return str(getattr(self.config, "prefix", None) or "") if options.prefix is None else options.prefix

    def before(self, length: int) -> int:
        """Tokens that are there before an answer to a row of this length."""
        raise NotImplementedError

    def longest_answer(self, asked: Asked) -> int:
        """Tokens of an answer at most, with those before it: those that have a position, and a last one, which the
        model never reads.
        """
        config = getattr(self.config, "decoder", self.config)
        return 1 + int(config.max_position_embeddings if asked.numbering == "zero_based" else config.max_tokens)

    def run(self, runner: Runner, arrays: Arrays, options: Any) -> Arrays:
        """``sequences`` (rows, R, L): what was written to each row, R times, without the row itself."""
        asked: Asked = options.asked
        rows, length = arrays["input_ids"].shape
        before = self.before(length)
        lengths = asked.lengths(before, self.longest_answer(asked))
        found_RL = runner.generate(arrays, {**asked.arguments, **lengths}, asked.streamer)
        if self.pads_left:
            found_RL = found_RL[:, length:]
        return {"sequences": found_RL.reshape(rows, -1, found_RL.shape[1])}

    def weight(self, row: Arrays, options: Any) -> int:
        """The tokens of the text and those of all answers to it."""
        asked: Asked = options.asked
        size = int(row["input_ids"].size)
        room = self.longest_answer(asked) if asked.total is None else asked.total
        room -= self.before(size)
        return (size + max(1, room if asked.new is None else min(asked.new, room))) * asked.copies

    def text(self, answer: Any) -> str:
        """A text a line, all of them indented."""
        records = answer if isinstance(answer, list) else [answer]
        return "\n".join(INDENT + indented(record[f"{self.key}_text"]) for record in records)

    def waiting(self, options: Any, said: Mapping[str, Any]) -> tuple[Ends | None, Mapping[str, Any]]:
        """See :meth:`xlmr_core.tasks.task.Task.waiting`."""
        further = said.get("generate_kwargs")
        levels = (said, further, options.generate_kwargs)
        found = [level["streamer"] for level in levels if isinstance(level, Mapping) and "streamer" in level]
        if not found or not all(callable(getattr(found[0], name, None)) for name in ("put", "end")):
            return None, said  # of what is no streamer ``generate`` says so
        ends = Ends(found[0])
        if isinstance(further, Mapping) and "streamer" in further and "streamer" not in said:
            return ends, {**said, "generate_kwargs": {**further, "streamer": ends}}
        return ends, {**said, "streamer": ends}

    def streamer(self, given: Any, options: Any, write: Callable[[str], object]) -> BaseStreamer | None:
        """See :meth:`xlmr_core.tasks.task.Task.streamer`; the answers of beams come whole."""
        asked = self.ask(options)
        if asked.copies > 1 or asked.streamer is not None:
            return None
        decode, head = self._shown(given, options)
        return AnswerStreamer(decode, write, head)

    def _shown(self, given: Any, options: Any) -> tuple[Callable[[list[int]], str], str]:
        """What makes text of ids, and the text before an answer."""
        raise NotImplementedError


def indented(text: str) -> str:
    """A text whose further lines begin as its first does in the output of ``xlmr run``."""
    return text.replace("\n", "\n" + INDENT)


def trimmed(sequences_RL: Ids, fill: int) -> list[list[int]]:
    """Answers to one text without what only the batch filled them up with: the longest ends with its own last token."""
    written_RL = np.asarray(sequences_RL) != fill
    places = np.flatnonzero(written_RL.any(axis=0))
    rows: list[list[int]] = np.asarray(sequences_RL)[:, : places[-1] + 1 if places.size else 0].tolist()
    return rows


class AnswerStreamer(BaseStreamer):
    """Writes what of an answer cannot change any more, while its tokens come, as :meth:`Generating.text` at the end.

    Args:
        decode: makes text of ids.
        write: takes a piece of text.
        head: what stands before the answer.
    """

    def __init__(self, decode: Callable[[list[int]], str], write: Callable[[str], object], head: str = "") -> None:
        self._decode, self._write, self._head = decode, write, head
        self._ids: list[int] = []
        self._told: int | None = None

    def put(self, value: Any) -> None:
        """Take ids: those of the prompt first, then each that is generated."""
        self._ids += np.ravel(as_list(value)).tolist()
        text = self._decode(self._ids)
        if self._told is None:
            self._told = len(text)
            self._write(INDENT + indented(self._head))
        elif text and _ends_whole(text[-1]):
            self._tell(text)
        else:
            self._tell(text[: max(0, text.rfind(" "))].rstrip())

    def end(self) -> None:
        """Write what was held back; of a call that failed before it began there is nothing."""
        if self._told is not None:
            self._tell(self._decode(self._ids))

    def _tell(self, text: str) -> None:
        assert self._told is not None, "the prompt comes first"
        if len(text) > self._told:
            self._write(indented(text[self._told :]))
            self._told = len(text)


# Characters of scripts without spaces, which a next token does not change: Thai to Burmese, kana, ideographs.
WHOLE = (range(0x0E00, 0x10A0), range(0x1780, 0x1800), range(0x3040, 0xA000), range(0x20000, 0x32000))


def _ends_whole(letter: str) -> bool:
    return any(ord(letter) in span for span in WHOLE)
