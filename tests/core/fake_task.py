"""A task that no model is needed for: it counts the letters of a text, a window of three at a time.

It has all that the frame knows of a task: options of every kind, items of several rows, an argument of its own with two
axes, a call with other arguments than one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from xlmr_core.errors import InputError
from xlmr_core.tasks import TaskRow
from xlmr_core.tasks.options import TaskOptions, option
from xlmr_core.tasks.task import Item, Task, check_texts

WINDOW = 3
ROW = TaskRow(
    name="letter-counting",
    auto="AutoModelForCounting",
    place="tests.core.fake_task:LetterCounting",
    summary="how often the wanted letters stand in a text",
    example='xlmr run --task letter-counting --letters a "a banana"',
)


@dataclass(frozen=True)
class Options(TaskOptions):
    letters: str | Sequence[str] | None = option(None, "a letter to count", several=True)
    shape: str = option("number", "100% how counts are told", choices=("number", "strokes"))
    times: float = option(1.0, "what counts are multiplied by", least=0)
    least: int = option(0, "counts below are left out", least=0)
    loud: bool = option(False, "end with an exclamation mark")
    memory: str | None = option(None, "of Python only", python_only=True)


class LetterCounting(Task):
    Options = Options
    wanted = ("found",)
    fills: ClassVar[dict[str, int]] = {"pairs": -7}
    single = (str, dict)

    def read(self, inputs: Any = None, *, text: str | None = None, **options: Any) -> tuple[Any, dict[str, Any]]:
        return ({"text": text} if inputs is None else inputs), options

    def prepare(self, options: Options) -> Options:
        return replace(options, letters="".join(options.letters or "a"))

    def encode(self, inputs: Sequence[Any], options: Options) -> list[Item]:
        texts = [given["text"] if isinstance(given, dict) else given for given in inputs]
        check_texts(texts)
        if "?" in "".join(texts):
            raise InputError("expected no question, received one; ask nothing")
        return [Item([self._row(text[at : at + WINDOW]) for at in range(0, len(text), WINDOW)], text) for text in texts]

    def _row(self, part: str) -> dict[str, Any]:
        ids_S = np.array([ord(letter) for letter in part])
        return {
            "input_ids": ids_S,
            "attention_mask": np.ones_like(ids_S),
            "pairs": np.stack([ids_S, ids_S + 1], axis=1),
        }

    def decode(self, item: Item, outputs: Sequence[dict[str, Any]], options: Options) -> dict[str, int]:
        whole = "".join(chr(int(letter)) for found in outputs for letter in found["found"] if letter)
        assert whole == item.kept, "the rows of an item come back in order"
        counts = {letter: int(whole.count(letter) * options.times) for letter in options.letters or ""}
        return {letter: count for letter, count in counts.items() if count >= options.least}

    def text(self, answer: dict[str, int]) -> str:
        return "\n".join(f"  {letter} {count}" for letter, count in answer.items())


class FakeRunner:
    """Gives the ids back, and remembers what it was called with."""

    device = "nowhere"
    framework = "pt"

    def __init__(self, model: Any = None) -> None:
        self.model = model
        self.config = SimpleNamespace(max_tokens=64)
        self.calls: list[dict[str, Any]] = []

    def run(self, arrays: dict[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
        assert list(wanted) == ["found"]
        self.calls.append(arrays)
        return {"found": (arrays["input_ids"] * arrays["attention_mask"]).astype(np.float32)}


TOKENIZER = SimpleNamespace(pad_token_id=1)
