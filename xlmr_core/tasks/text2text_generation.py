"""The tasks ``text2text-generation``, ``summarization`` and ``translation``: a text to another text.

The three differ in the keys of their answers: ``generated_text``, ``summary_text``, ``translation_text``. Answers are
those of the published pipelines: a text is answered by a list, of one dictionary for each sequence that was asked for;
a list of texts by a list of dictionaries, or of such lists where several were asked for. By default the best of four
beams is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from xlmr_core.errors import InputError
from xlmr_core.tasks.generating import Asked, Generating, GenerationOptions, trimmed
from xlmr_core.tasks.options import option
from xlmr_core.tasks.task import Arrays, Item, check_texts, shown
from xlmr_core.tasks.texts import encode_texts

__all__ = ["Summarization", "Text2TextGeneration", "Text2TextGenerationOptions", "Translation"]


@dataclass(frozen=True)
class Text2TextGenerationOptions(GenerationOptions):
    """What a call can choose.

    Attributes:
        max_length: tokens of an answer at most, with the token that it begins with.
    """

    not_needed: ClassVar[Sequence[str]] = ("return_text",)

    max_length: int | None = option(None, "tokens of an answer at most, with its first", least=2)


@dataclass(frozen=True)
class _Settled(Text2TextGenerationOptions):
    """The options of a call, with what they ask of ``generate``."""

    asked: Asked | None = option(None, "of generate", python_only=True)  # noqa: RUF009 (a field)


class Text2TextGeneration(Generating):
    """The task; see the module."""

    Options = Text2TextGenerationOptions
    usual: ClassVar[Mapping[str, Any]] = {"num_beams": 4}

    def prepare(self, options: Text2TextGenerationOptions) -> _Settled:
        """The options with what they ask of ``generate``.

        Raises:
            InputError: for options that cannot be served.
        """
        asked = self.ask(options, options.max_length)
        longest = self.longest_answer(asked)
        if asked.room(longest) < self.before(0) or (asked.total or 0) > longest:
            raise InputError(
                f"expected at most {longest - self.before(0)} new tokens, which is what this checkpoint writes, "
                f"received {asked.new or asked.total}; pass fewer"
            )
        return _Settled(**vars(options), asked=asked)

    def before(self, length: int) -> int:
        """The token that an answer begins with."""
        return 1

    def beside(self, row: Arrays, options: Any) -> Any:
        """With a streamer a text runs by itself."""
        asked: Asked = options.asked
        return None if asked.streamer is None else id(row)

    def encode(self, inputs: Sequence[Any], options: _Settled) -> list[Item]:
        """Tokenize texts.

        Raises:
            InputError: naming the first that is no text, or too long.
        """
        check_texts(inputs)
        prefix = self.prefix(options)
        texts: list[tuple[str, str | None]] = [(prefix + text, None) for text in inputs]
        arguments = {} if options.truncation is None else {"truncation": options.truncation}
        where = [shown(inputs, index) for index in range(len(inputs))]
        return encode_texts(self, texts, arguments, options.on_overflow, where)

    def decode(self, item: Item, outputs: Sequence[Arrays], options: _Settled) -> list[dict[str, Any]]:
        """The answers to a text, from their tokens (R, L)."""
        assert options.asked is not None
        answers = trimmed(outputs[0]["sequences"], options.asked.fill)
        if options.return_tensors:
            return [{f"{self.key}_token_ids": np.array(ids, np.int64)} for ids in answers]
        decode = self._decoder(options)
        return [{f"{self.key}_text": decode(ids)} for ids in answers]

    def gather(self, answers: list[Any], single: bool, options: Any) -> Any:
        """As published, in a list of texts with one answer each those stand by themselves."""
        if single:
            return answers[0]
        return [one for (one,) in answers] if all(len(found) == 1 for found in answers) else answers

    def _decoder(self, options: Text2TextGenerationOptions) -> Callable[[list[int]], str]:
        return partial(
            self.tokenizer.decode,
            skip_special_tokens=True,
            clean_up_tokenization_spaces=options.clean_up_tokenization_spaces is True,
        )

    def _shown(self, given: Any, options: Text2TextGenerationOptions) -> tuple[Callable[[list[int]], str], str]:
        return self._decoder(options), ""


class Summarization(Text2TextGeneration):
    """``summarization``: what a text says, in fewer words."""

    key = "summary"


@dataclass(frozen=True)
class TranslationOptions(Text2TextGenerationOptions):
    """What a call can choose. The languages are the model's: as published, their names change nothing."""

    not_needed: ClassVar[Sequence[str]] = ("return_text", "src_lang", "tgt_lang")


class Translation(Text2TextGeneration):
    """``translation``: a text in another language."""

    Options = TranslationOptions
    key = "translation"
