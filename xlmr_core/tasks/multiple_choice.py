"""Multiple choice: which of several texts goes on best from a prompt.

``choose(prompt, choices)`` gives ``[{"index", "score"}]``, best first; the scores of a prompt are 1 together. Several
prompts are a list of prompts with a list of their choices, or a list of ``{"prompt", "choices"}``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict

import numpy as np

from xlmr_core.errors import InputError
from xlmr_core.tasks.task import Arrays, Item, Task, read_object, softmax
from xlmr_core.tasks.texts import TokenizerOptions, encode_texts, tokenizer_arguments
from xlmr_core.wording import shown

__all__ = ["Choice", "MultipleChoice", "MultipleChoiceOptions"]


class Choice(TypedDict):
    """A choice, by its place among those that were given, and its score."""

    index: int
    score: float


@dataclass(frozen=True)
class MultipleChoiceOptions(TokenizerOptions):
    """What a call can choose."""


class MultipleChoice(Task):
    """The task; see the module."""

    Options = MultipleChoiceOptions
    wanted = ("logits",)
    single = (dict,)
    together = True
    columns: ClassVar[Sequence[str]] = ("prompt", "choices")
    list_columns: ClassVar[Sequence[str]] = ("choices",)

    def read(self, prompt: Any = None, choices: Any = None, **options: Any) -> tuple[Any, dict[str, Any]]:
        """A prompt and its choices, or lists of both."""
        if choices is None:
            if isinstance(prompt, str | None):
                raise InputError("expected a prompt and its choices, received no choices; pass choices=")
            return prompt, options
        if isinstance(prompt, str):
            return {"prompt": prompt, "choices": choices}, options
        if not isinstance(prompt, list | tuple) or not isinstance(choices, list | tuple) or len(prompt) != len(choices):
            raise InputError("expected a list of prompts and for each a list of choices, received others; pass both")
        return [{"prompt": one, "choices": own} for one, own in zip(prompt, choices, strict=True)], options

    @classmethod
    def from_line(cls, line: str) -> Any:
        """A prompt and its choices, with tabs between them, or an object of JSON."""
        if line.lstrip().startswith("{"):
            return read_object(line, cls.columns)
        prompt, *choices = line.split("\t")
        return {"prompt": prompt, "choices": choices}

    def encode(self, inputs: Sequence[Any], options: MultipleChoiceOptions) -> list[Item]:
        """Pair each prompt with each of its choices. Where nothing else is said, pairs that are too long are cut.

        Raises:
            InputError: naming the first input that is no prompt with choices.
        """
        for index, given in enumerate(inputs):
            _check(given, index)
        pairs = [(given["prompt"], choice) for given in inputs for choice in given["choices"]]
        where = [f"the prompt {prompt[:60]!r}" for prompt, _ in pairs]
        arguments = {"truncation": True, **tokenizer_arguments(options)}
        encoded = iter(encode_texts(self, pairs, arguments, options.on_overflow, where))
        items = []
        for given in inputs:
            own = [next(encoded) for _ in given["choices"]]
            # The model takes several choices at once; one by one, those of one length share a batch with others.
            rows = [{name: array[None] for name, array in row.items()} for item in own for row in item.rows]
            items.append(Item(rows, [len(item.rows) for item in own], any(item.truncated for item in own)))
        return items

    def decode(self, item: Item, outputs: Sequence[Arrays], options: MultipleChoiceOptions) -> list[Choice]:
        """The choices, best first, from the logits (1,) of each, their mean where it has windows."""
        logits = iter([found["logits"][0] for found in outputs])
        scores_C = softmax(np.array([np.mean([next(logits) for _ in range(count)]) for count in item.kept]))
        best = np.argsort(-scores_C, kind="stable")
        return [
            {"index": index, "score": score}
            for index, score in zip(best.tolist(), scores_C[best].tolist(), strict=True)
        ]

    def text(self, answer: list[Choice]) -> str:
        """A score and the number of a choice a line, counted from 0."""
        return "\n".join(f"  {row['score']:.4f}  {row['index']}" for row in answer)


def _check(given: Any, index: int) -> None:
    if isinstance(given, dict) and set(given) == {"prompt", "choices"}:
        prompt, choices = given["prompt"], given["choices"]
        several = isinstance(choices, list | tuple) and choices and all(isinstance(choice, str) for choice in choices)
        if isinstance(prompt, str) and several:
            return
    raise InputError(
        f"expected a prompt and a list of choices, all of them texts, received {shown(given, 100)} at index {index}"
    )
