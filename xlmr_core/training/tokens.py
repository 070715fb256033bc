"""Labels of words, and answers in a context: what is about places in a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from xlmr_core.errors import InputError
from xlmr_core.tasks import question_answering
from xlmr_core.tasks.task import Arrays, Item
from xlmr_core.tasks.texts import places_of
from xlmr_core.training.recipe import Recipe
from xlmr_core.training.task import IGNORED, Example, Feature, TrainingTask, text_in
from xlmr_core.wording import counted, shown

__all__ = ["OUTSIDE", "QuestionAnswering", "TokenClassification", "places_of_words"]

OUTSIDE = "O"
# A label of a question without an answer, by which the data says that there are such.
NO_ANSWER = "no answer"


class TokenClassification(TrainingTask):
    """A tag of each word, as of CoNLL: named entities (``B-PER``), parts of speech.

    Words stand in the text as they are written, where the file has the ``text`` or says that its tokens are characters
    (``unit`` is ``char``); otherwise there is a space between them. The first token of a word has its tag. A token that
    holds several words, as some do in scripts without spaces, has that of the first.
    """

    name = "token-classification"
    auto = "AutoModelForTokenClassification"
    columns: ClassVar[Mapping[str, Sequence[str]]] = {
        "tokens": ("words",),
        "tags": ("ner_tags", "pos_tags", "upos", "labels"),
        "text": (),
        "unit": (),
    }
    optional: ClassVar[Sequence[str]] = ("text", "unit")
    metric = "f1"

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Example:
        """Words with a tag each."""
        tokens, tags = row["tokens"], row["tags"]
        if not isinstance(tokens, list) or not tokens or not all(isinstance(one, str) for one in tokens):
            raise InputError(f"expected tokens to be a list of texts, received {shown(tokens, 60)}")
        if not any(one.strip() for one in tokens):
            raise InputError(f"expected tokens with a text, received blank ones alone, {shown(tokens, 60)}")
        if not isinstance(tags, list) or len(tags) != len(tokens):
            received = counted(len(tags), "tag") if isinstance(tags, list) else shown(tags, 60)
            raise InputError(f"expected a tag for each of {counted(len(tokens), 'token')}, received {received}")
        text = "".join(tokens) if row.get("unit") == "char" else row.get("text")
        if not isinstance(text, str) or places_of_words(text, tokens) is None:
            text = " ".join(tokens)
        return {"tokens": tokens, "tags": [str(tag) for tag in tags], "text": text}

    @classmethod
    def labels_of(cls, example: Example) -> Sequence[Any]:
        """Its tags."""
        tags: list[str] = example["tags"]
        return tags

    def encode(self, examples: Sequence[Example]) -> list[list[Feature]]:
        """A row of a text; words behind ``max_length`` are cut off."""
        texts = [example["text"] for example in examples]
        encoded = self.tokenizer(
            texts, truncation=True, max_length=self.recipe.max_length, return_offsets_mapping=True, verbose=False
        )
        found = []
        for example, ids, offsets in zip(examples, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            # What stands for nothing of the text, at the edges, has the offsets (0, 0).
            starts_S, ends_S = places_of(offsets[1:-1], example["text"])
            words = places_of_words(example["text"], example["tokens"])
            assert words is not None  # `read` chose the text so
            place_W = _first_tokens(example["text"], starts_S, ends_S)[words]
            labels_S = np.full(len(ids), IGNORED, np.int64)
            for place, tag in zip(place_W.tolist(), example["tags"], strict=True):
                if place >= 0 and labels_S[place] == IGNORED:
                    labels_S[place] = self.number(tag)
            found.append([Feature({"input_ids": np.array(ids, np.int64), "labels": labels_S}, place_W)])
        return found

    def collate(self, features: Sequence[Feature], random: np.random.Generator, multiple: int = 1) -> Arrays:
        """Rows with a label on the first token of each word."""
        labels = self.pad([feature.arrays["labels"] for feature in features], IGNORED, multiple)
        return {**self.padded(features, multiple), "labels": labels}

    def settings(self) -> dict[str, Any]:
        """The tags."""
        return self.named_labels()

    def answer(self, example: Example, features: Sequence[Feature], outputs: Sequence[Arrays]) -> tuple[Any, Any]:
        """The tags of all words; those that were cut off, or are in the token of another, are outside or go on."""
        best_S, tags = outputs[0]["logits"].argmax(axis=-1), []
        before = -1
        for place in features[0].kept.tolist():
            tag = self.labels[int(best_S[place])] if place >= 0 else self._outside
            goes_on = f"I-{tag[2:]}" if place == before and tag.startswith("B-") else tag
            tags.append(goes_on if goes_on in self.number_of else tag)
            before = place
        return tags, list(example["tags"])

    @property
    def _outside(self) -> str:
        return OUTSIDE if OUTSIDE in self.labels else self.labels[0]


def _first_tokens(text: str, starts_S: NDArray[np.int64], ends_S: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first token of each character, counted with ``<s>``, or -1 (C + 1,). A lone ``▁`` is of what follows it."""
    first_C = np.full(len(text) + 1, -1)
    starts, ends = starts_S.tolist(), ends_S.tolist()
    for place in range(len(starts_S) - 1, -1, -1):
        start, end = starts[place], ends[place]
        while start < len(text) and text[start].isspace():
            start += 1
        first_C[start : max(end, start + 1)] = place + 1
    return first_C


def places_of_words(text: str, words: Sequence[str]) -> NDArray[np.int64] | None:
    """Where words begin in a text in their order (W,); ``None`` if they do not all stand there."""
    found, after = [], 0
    for word in words:
        place = text.find(word, after)
        # Between words there is nothing but white space.
        if place < 0 or text[after:place].strip():
            return None
        found.append(place)
        after = place + len(word)
    return np.array(found, np.int64)


class QuestionAnswering(TrainingTask):
    """The part of a context that answers a question: Rajpurkar et al. 2016, long contexts in windows."""

    name = "question-answering"
    auto = "AutoModelForQuestionAnswering"
    columns: ClassVar[Mapping[str, Sequence[str]]] = {"question": (), "context": ("passage",), "answers": ("answer",)}
    outputs: ClassVar[Sequence[str]] = ("start_logits", "end_logits")
    metric = "f1"
    at_once = True

    def __init__(self, recipe: Recipe, tokenizer: Any, labels: Sequence[str] = (), problem: str = "") -> None:
        super().__init__(recipe, tokenizer, (), "")
        self._options = question_answering.QuestionAnsweringOptions(
            max_seq_len=recipe.max_length,
            doc_stride=recipe.doc_stride,
            max_answer_len=64,
            handle_impossible_answer=NO_ANSWER in labels,
            words="scripts",
            equal_answers="best",
            trim=True,
        )

    @cached_property
    def _task(self) -> question_answering.QuestionAnswering:
        """What answers questions elsewhere makes the windows and finds the answers here too."""
        config = SimpleNamespace(max_tokens=self.recipe.max_length)
        return question_answering.QuestionAnswering(self.tokenizer, config)

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Example:
        """A question, a context and the answers in it: a list of ``text`` and ``answer_start``, or lists of both."""
        context, answers = text_in(row, "context"), row.get("answers")
        if isinstance(answers, Mapping) and isinstance(answers.get("text"), list):
            starts = answers.get("answer_start")
            if not isinstance(starts, list) or len(starts) != len(answers["text"]):
                raise InputError(f"expected an answer_start for each text of answers, received {shown(starts, 60)}")
            answers = [
                {"text": text, "answer_start": start} for text, start in zip(answers["text"], starts, strict=True)
            ]
        if not isinstance(answers, list):
            raise InputError(f"expected answers to be a list, received {shown(answers, 60)}")
        found = [_answer_in(context, answer) for answer in answers]
        return {"question": text_in(row, "question"), "context": context, "answers": found}

    @classmethod
    def labels_of(cls, example: Example) -> Sequence[Any]:
        """``no answer`` of a question without one."""
        return () if example["answers"] else (NO_ANSWER,)

    def encode(self, examples: Sequence[Example]) -> list[list[Feature]]:
        """A row for each window of the context, with the question before it."""
        # Together, so that a context of several questions is tokenized once.
        given = [{"question": example["question"], "context": example["context"]} for example in examples]
        try:
            items = self._task.encode(given, self._options)
        except InputError:
            for row in given:
                self._check_room(row)
            raise
        return [
            [self._window(example, item, number) for number in range(len(item.rows))]
            for example, item in zip(examples, items, strict=True)
        ]

    def _check_room(self, row: Mapping[str, str]) -> None:
        """Refuse a question that leaves no room for its context, by what a recipe can say against it."""
        try:
            self._task.encode([row], self._options)
        except InputError as error:
            ids = self.tokenizer(row["question"], add_special_tokens=False, verbose=False)["input_ids"]
            raise InputError(
                "expected a question that leaves room for its context and for what its windows share, received one of "
                f"{counted(len(ids), 'token')}, {shown(row['question'], 60)}, where max_length is "
                f"{self.recipe.max_length}; leave the row out, or give a greater max_length or a smaller doc_stride"
            ) from error

    def _window(self, example: Example, item: Item, number: int) -> Feature:
        start = end = 0  # <s>: the answer is not here
        if example["answers"]:
            begin, after = example["answers"][0]["answer_start"], example["answers"][0]["end"]
            context, (first, stop) = item.kept.context, item.kept.places[number]
            one = int(np.searchsorted(context.ends_C, begin, side="right"))
            last = int(np.searchsorted(context.starts_C, after, side="left")) - 1
            if first <= one <= last < stop:
                start, end = (item.kept.first + token - first for token in (one, last))
        arrays = {"input_ids": item.rows[number]["input_ids"]}
        return Feature({**arrays, "start_positions": np.array(start), "end_positions": np.array(end)}, item)

    def settings(self) -> dict[str, Any]:
        """Two numbers for a token: of where an answer begins, and of where it ends."""
        return {"num_labels": 2}

    def collate(self, features: Sequence[Feature], random: np.random.Generator, multiple: int = 1) -> Arrays:
        """Rows, and where the answers begin and end in them."""
        sides = ("start_positions", "end_positions")
        positions = {side: np.stack([feature.arrays[side] for feature in features]) for side in sides}
        return {**self.padded(features, multiple), **positions}

    def answer(self, example: Example, features: Sequence[Feature], outputs: Sequence[Arrays]) -> tuple[Any, Any]:
        """The text of the best answer, and the texts that are right."""
        found: Any = self._task.decode(features[0].kept, outputs, self._options)
        return found["answer"], [answer["text"] for answer in example["answers"]]


def _answer_in(context: str, answer: Any) -> dict[str, Any]:
    """An answer that stands where it says.

    Raises:
        InputError: for one that does not.
    """
    text = answer.get("text") if isinstance(answer, Mapping) else None
    start = answer.get("answer_start") if isinstance(answer, Mapping) else None
    if not isinstance(text, str) or not text or isinstance(start, bool) or not isinstance(start, int):
        raise InputError(f"expected an answer with text and answer_start, received {shown(answer, 60)}")
    if context[max(start, 0) : max(start, 0) + len(text)] != text:
        there = context[max(start, 0) : max(start, 0) + len(text)]
        raise InputError(
            f"expected the answer {shown(text, 60)} at character {start} of the context, found {shown(there, 60)}; "
            "answer_start counts Unicode characters"
        )
    return {"text": text, "answer_start": start, "end": start + len(text)}
