"""The task ``text-generation``: how a text goes on.

Answers are those of the published pipeline: a list of one ``{"generated_text": ...}`` for each sequence that was asked
for, the text itself in front unless ``return_full_text=False``. By default tokens are drawn, at a temperature of 0.7.

What is different: a batch gives what the texts give one by one, since shorter ones are filled up at their beginning;
an answer that nobody gave a length ends where the model does; and a text that leaves no room for an answer is refused
by name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

from xlmr_core.errors import InputError, LoadWarning, warn_caller
from xlmr_core.tasks.generating import BY_NAME, Asked, Generating, GenerationOptions, trimmed
from xlmr_core.tasks.options import option
from xlmr_core.tasks.task import Arrays, Item, check_texts, shown
from xlmr_core.tasks.texts import check_arguments, row_of

if TYPE_CHECKING:
    from xlmr_core.tasks.runner import Runner

__all__ = ["Generated", "TextGeneration", "TextGenerationOptions"]

HOLE = "hole"
# What stands around a text, as tokens of its own.
BOTH, START, NONE = "both", "start", "none"
# Ways to say what comes back, of which a call says one.
RETURNED = ("return_full_text", "return_text", "return_tensors")
_CHAT = "a text is gone on from, and an XLM-R tokenizer has no template for chats"


class Generated(TypedDict):
    """A text and how it goes on; with ``return_tensors=True`` its ids, as ``generated_token_ids``."""

    generated_text: str


@dataclass(frozen=True)
class TextGenerationOptions(GenerationOptions):
    """What a call can choose.

    Attributes:
        return_full_text: whether the answer begins with the text; it does where nothing is said.
        special_tokens: ``"start"``: ``<s>`` stands before the text, which a decoder goes on from as it was trained;
            ``"both"``: and ``</s>`` behind it, as published where nothing is said; or ``"none"``.
        add_special_tokens: the published word for ``"both"`` (``True``) and ``"none"``.
        handle_long_generation: ``"hole"`` leaves out the beginning of a text that leaves no room for an answer.
        max_length: tokens of a text at most; what is more is cut. Tokens of an answer are ``max_new_tokens``.
        return_text: ``True`` is what happens anyway.
        skip_special_tokens: leave special tokens out of texts, as is done where nothing is said.
        tokenizer_encode_kwargs: further arguments of the tokenizer.
    """

    not_needed: ClassVar[Sequence[str]] = ("padding",)
    alike: ClassVar[Collection[str]] = BY_NAME  # max_length is about the text
    only: ClassVar[Mapping[str, tuple[tuple[Any, ...], str]]] = {
        "continue_final_message": ((None,), _CHAT),
        "tools": ((None,), _CHAT),
        "documents": ((None,), _CHAT),
    }

    return_full_text: bool | None = option(None, "whether answers begin with the text", kind=bool)
    special_tokens: str | None = option(None, "<s> and </s> around a text", choices=(START, BOTH, NONE), shell=START)
    add_special_tokens: bool | None = option(None, "both or none", kind=bool, python_only=True)
    handle_long_generation: str | None = option(None, "leave out the beginning of long texts", choices=(HOLE,))
    max_length: int | None = option(None, "tokens of a text at most", least=1)
    return_text: bool | None = option(None, "texts", python_only=True)
    skip_special_tokens: bool | None = option(None, "no special tokens in texts", python_only=True)
    tokenizer_encode_kwargs: Mapping[str, Any] | None = option(None, "arguments of the tokenizer", python_only=True)

    @staticmethod
    def renamed(said: Mapping[str, Any]) -> dict[str, Any]:
        """What was said at once, with one thing that comes back, and one that stands around texts.

        Raises:
            InputError: for two.
        """
        around = [name for name in ("special_tokens", "add_special_tokens") if said.get(name) is not None]
        if len(around) > 1:
            raise InputError(f"expected {' or '.join(around)}, received both; leave one out")
        if "add_special_tokens" in around and isinstance(said["add_special_tokens"], bool):
            said = {**said, "special_tokens": BOTH if said["add_special_tokens"] else NONE}
        ways = [name for name in RETURNED if said.get(name) is not None]
        if len(ways) > 1:
            raise InputError(f"expected one of {', '.join(RETURNED)}, received {' and '.join(ways)}; leave one out")
        return dict(said) if "return_tensors" in ways or not ways else {**said, "return_tensors": False}


@dataclass(frozen=True)
class _Settled(TextGenerationOptions):
    """The options of a call, with what they ask of ``generate``."""

    asked: Asked | None = option(None, "of generate", python_only=True)  # noqa: RUF009 (a field)


@dataclass(frozen=True)
class _Prompt:
    """What is gone on from: a text, and the ids of the prefix and the text, none for an empty one."""

    text: str
    ids: list[int]


class TextGeneration(Generating):
    """The task; see the module."""

    Options = TextGenerationOptions
    pads_left = True
    usual: ClassVar[Mapping[str, Any]] = {"do_sample": True, "temperature": 0.7}

    def set_up(self, runner: Runner, beside: Any) -> None:
        """Take the runner.

        Warns:
            LoadWarning: of a model that reads in both directions, as encoders do.
        """
        super().set_up(runner, beside)
        if not getattr(self.config, "is_decoder", True):
            warn_caller(
                "the model reads in both directions, is_decoder is False; unless it was trained to go on from texts "
                "like that, what it writes means nothing, and a decoder is what to load: is_decoder=True",
                LoadWarning,
            )

    def read(self, *inputs: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
        """The texts and the options of a call, the first by its published name too."""
        if not inputs and "text_inputs" in options:
            inputs = (options.pop("text_inputs"),)
        return super().read(*inputs, **options)

    def prepare(self, options: TextGenerationOptions) -> _Settled:
        """The options with what they ask of ``generate``.

        Raises:
            InputError: for options that cannot be served, or go together with others only.
        """
        check_arguments(options.tokenizer_encode_kwargs or {})
        asked = self.ask(options)
        if options.max_length is not None and (asked.usual or asked.new is None):
            raise InputError(
                f"max_length={options.max_length} counts the tokens of the text too, and as published it does not say "
                "how long an answer is; pass max_new_tokens, how many tokens are written"
            )
        prefix = self.prefix(options)
        before = len(self.tokenizer(prefix, add_special_tokens=False)["input_ids"]) if prefix else 0
        if before and (asked.total is not None or asked.least):  # as published, lengths do not count the prefix
            total = None if asked.total is None else asked.total + before
            asked = replace(asked, total=total, least=asked.least and asked.least + before)
        if options.handle_long_generation == HOLE:
            options = replace(options, on_overflow="truncate")
        return _Settled(**vars(options), asked=asked)

    def before(self, length: int) -> int:
        """The tokens of the text."""
        return length

    def beside(self, row: Arrays, options: Any) -> Any:
        """The length of the text, where it matters to the length of the answer; its own batch with a streamer."""
        asked: Asked = options.asked
        size = int(row["input_ids"].size)
        if asked.streamer is not None:
            return id(row)
        full = asked.usual and asked.new is not None and size + asked.new > self.longest_answer(asked)
        return size if full or asked.counts_prompt else None

    def encode(self, inputs: Sequence[Any], options: _Settled) -> list[Item]:
        """Tokenize texts.

        Raises:
            InputError: naming the first that is no text, or leaves no room for an answer.
        """
        for given in inputs:
            if isinstance(given, Mapping | list | tuple):
                raise InputError(f"expected texts, received a chat ({given!r:.60}): {_CHAT}; pass one text")
        check_texts(inputs)
        asked = options.asked
        assert asked is not None
        longest = self.longest_answer(asked)
        room, cuts = asked.room(longest), options.truncation not in (None, False, "do_not_truncate")
        start = [self._start()] if options.special_tokens == START else []
        limit = options.max_length or (room if cuts else None)
        items = []
        for index, ids in enumerate(self._ids(inputs, options)):
            row = start + ids
            if limit is not None and len(row) > limit:
                row = start + self._ids([inputs[index]], options, limit - len(start))[0]
            if options.on_overflow == "truncate":
                row = _without_beginning(row, start, min(asked.hole(longest), asked.hole(self.longest)))
            if len(row) > room:
                self._refuse(len(row), asked, shown(inputs, index))
            truncated = len(row) < len(start) + len(ids)
            items.append(Item([row_of(row or [self._start()])], _Prompt(inputs[index], row), truncated))
        return items

    def _ids(self, texts: Sequence[str], options: TextGenerationOptions, limit: int | None = None) -> list[list[int]]:
        """The ids of texts behind the prefix, at most so many."""
        arguments: dict[str, Any] = {"verbose": False, "add_special_tokens": options.special_tokens in (None, BOTH)}
        arguments |= options.tokenizer_encode_kwargs or {}
        if limit is not None:
            arguments |= {"truncation": options.truncation or True, "max_length": limit}
        prefix = self.prefix(options)
        found = self.tokenizer([prefix + text for text in texts], **arguments)["input_ids"] if texts else []
        return [list(map(int, ids)) for ids in found]

    def _refuse(self, length: int, asked: Asked, where: str) -> None:
        longest = self.longest_answer(asked)
        remedy = "or pass handle_long_generation='hole', which leaves out its beginning"
        if asked.new is None:
            total = longest if asked.total is None else asked.total
            raise InputError(
                f"expected fewer tokens than the {min(total, longest)} that a text and its answer may have, received "
                f"{length}; shorten {where}, {remedy}"
            )
        if longest - length > 0 and not asked.usual:
            remedy = f"write fewer with max_new_tokens={longest - length}, {remedy}"
        new = 1 if asked.usual else asked.new
        raise InputError(
            f"expected at most {longest} tokens of a text and its answer with this checkpoint, received {length} and "
            f"{new} that are to be written; shorten {where}, {remedy}"
        )

    def _start(self) -> int:
        """What a text begins with, and what stands for an empty one."""
        if self.tokenizer.bos_token_id is None:
            raise InputError("the tokenizer has no token to begin with, bos_token is None; pass texts with tokens")
        return int(self.tokenizer.bos_token_id)

    def decode(self, item: Item, outputs: Sequence[Arrays], options: _Settled) -> list[dict[str, Any]]:
        """The answers to a text, from their tokens (R, L)."""
        assert options.asked is not None
        prompt: _Prompt = item.kept
        answers = trimmed(outputs[0]["sequences"], options.asked.fill)
        if options.return_tensors:
            return [{"generated_token_ids": [*(prompt.ids or [self._start()]), *ids]} for ids in answers]
        decode = self._decoder(options)
        before, head = len(decode(prompt.ids)), prompt.text if options.return_full_text is not False else ""
        return [{"generated_text": head + decode([*prompt.ids, *ids])[before:]} for ids in answers]

    def _decoder(self, options: TextGenerationOptions) -> Callable[[list[int]], str]:
        return partial(
            self.tokenizer.decode,
            skip_special_tokens=options.skip_special_tokens is not False,
            clean_up_tokenization_spaces=options.clean_up_tokenization_spaces is not False,
        )

    def _shown(self, given: Any, options: TextGenerationOptions) -> tuple[Callable[[list[int]], str], str]:
        return self._decoder(options), given if options.return_full_text is not False else ""


def _without_beginning(row: list[int], start: list[int], most: int) -> list[int]:
    """The end of a text that is too long, behind what every text starts with."""
    kept = most - len(start)
    return row if len(row) <= most or kept < 1 else start + row[-kept:]
