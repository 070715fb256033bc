"""Question answering: from questions and contexts to the spans of the contexts that answer them.

A context that is too long for the model is read in overlapping windows, each with the whole question. An answer has the
shape and content of the published pipeline:

- ``{"score", "start", "end", "answer"}``, where ``context[start:end]`` is the answer;
- with ``top_k`` above one a list of them, best first, but one that is left alone stands alone;
- several questions: a list of the above (a list of one is answered like the question itself).

A score is the probability of the first token times that of the last, of each window by itself. Answers that read alike
count as one, with the sum of their scores, also across windows: such a score can be greater than one.

``on_overflow`` is about a context that is longer than a window: ``"window"`` holds if nothing is said; ``"truncate"``
reads its beginning alone, and cuts questions too, which are never cut otherwise.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from xlmr_core.errors import InputError, TooLongError
from xlmr_core.tasks.options import TaskOptions, option
from xlmr_core.tasks.task import Arrays, Item, Task, check_finite, top_places, visible
from xlmr_core.tasks.texts import places_of, row_of, windows
from xlmr_core.tasks.words import blank_chars, word_numbers
from xlmr_core.wording import shown

__all__ = ["Answer", "Example", "QuestionAnswering", "QuestionAnsweringOptions", "best_spans"]

Floats: TypeAlias = NDArray[np.float32]
Ints: TypeAlias = NDArray[np.int64]

LONGEST_WINDOW = 384
LARGEST_OVERLAP = 128


class Answer(TypedDict):
    """An answer: its score, and where in the context it stands. No answer is the empty text at 0."""

    score: float
    start: int
    end: int
    answer: str


@dataclass(frozen=True)
class Example:
    """A question, and the text that holds its answer."""

    question: str
    context: str


@dataclass(frozen=True)
class QuestionAnsweringOptions(TaskOptions):
    """What a call can choose.

    Attributes:
        top_k: answers of a question.
        topk: the older name of ``top_k``.
        handle_impossible_answer: whether "no answer" takes part, as the empty text, with the score of ``<s>`` in the
            window where that is the least.
        max_answer_len: tokens of an answer at most.
        max_seq_len: tokens of a window at most, question and special tokens included; by default what the tokenizer and
            the model take, at most 384.
        doc_stride: tokens of the context that a window shares with the next; by default 128, or half a window where
            that is less.
        max_question_len: tokens of a question at most, where ``on_overflow`` is ``"truncate"``.
        align_to_words: whether an answer begins and ends with a word.
        words: what parts words: ``spaces``; or ``scripts``, by which punctuation stands alone, and so does each token
            of a script that is written without spaces, such as Chinese, Japanese or Thai.
        equal_answers: the score of answers that read alike in several windows: their ``sum``, or the ``best``, which is
            never greater than one.
        trim: leave out the white space around an answer.
        padding: of the published signature; windows are padded as their batch needs it.
    """

    top_k: int = option(1, "answers of a question", least=1)
    topk: int | None = option(None, "the older name of top_k", least=1, python_only=True)
    handle_impossible_answer: bool = option(False, "let 'no answer' take part")
    max_answer_len: int = option(15, "tokens of an answer at most", least=1)
    max_seq_len: int | None = option(None, "tokens of a window at most (default: as the model, up to 384)", least=1)
    doc_stride: int | None = option(None, "tokens that windows share (default: 128, or half a window)", least=0)
    max_question_len: int = option(64, "tokens of a question with --on-overflow truncate", least=1)
    align_to_words: bool = option(True, "answers begin and end with a word")
    words: str = option(
        "spaces", "what parts words; by scripts, Chinese and the like have words too", choices=("spaces", "scripts")
    )
    equal_answers: str = option("sum", "the score of an answer found in several windows", choices=("sum", "best"))
    trim: bool = option(False, "leave out the white space around an answer")
    padding: str | bool | None = option(None, "windows are padded as their batch needs it", python_only=True)

    @staticmethod
    def renamed(said: Mapping[str, Any]) -> dict[str, Any]:
        """``topk`` is ``top_k``, which holds where both are said."""
        new = dict(said)
        top_k = new.pop("topk", None)
        return new if top_k is None else {"top_k": top_k, **new}


@dataclass(frozen=True)
class _Context:
    """A context, encoded.

    Attributes:
        text: the context.
        ids_C: its tokens.
        starts_C: where in the text each begins.
        ends_C: where each ends.
        begins_C: whether an answer may begin with it (and so end before it).
    """

    text: str
    ids_C: Ints
    starts_C: Ints
    ends_C: Ints
    begins_C: NDArray[np.bool_]


@dataclass(frozen=True)
class _Windows:
    """What decoding needs of a question: its context, the windows of that, and where in a row a window begins."""

    context: _Context
    places: Sequence[tuple[int, int]]
    first: int


class QuestionAnswering(Task):
    """The task; see the module."""

    Options = QuestionAnsweringOptions
    wanted = ("start_logits", "end_logits")
    single = (str, Mapping, Example)
    together = True
    columns = ("question", "context")

    def read(
        self,
        inputs: Any = None,
        *others: Any,
        X: Any = None,
        data: Any = None,
        question: Any = None,
        context: Any = None,
        **options: Any,
    ) -> tuple[Any, dict[str, Any]]:
        """The ways in which questions come: the examples, a question and a context, ``data=`` or ``X=``.

        Args:
            inputs: an example, a list of them or a stream; or a question or a list of them, with the context after it.
            others: further examples, or the context.
            X, data: other names of ``inputs``.
            question: a question or a list of them, with ``context``.
            context: the context of them all, or a list of contexts, one for each.
            **options: of the task.

        Raises:
            InputError: for questions without contexts, or more of the one than of the other.
        """
        if context is None and len(others) == 1 and not _is_example(others[0]):
            context, others = others[0], ()
        if context is not None and question is None:
            question, inputs = inputs, None
        if others:
            inputs = [inputs, *others]
        ways = {"inputs": inputs, "X": X, "data": data, "question": question}
        given = [name for name, value in ways.items() if value is not None]
        if len(given) > 1:
            raise InputError(f"expected questions once, received {' and '.join(given)}; pass one of them")
        if not given or (question is None) != (context is None):
            missing = "question" if question is None else "context"
            raise InputError(
                f"expected a question and its context, received no {missing}; pass question= and context=, or "
                "{'question': ..., 'context': ...}"
            )
        examples = ways[given[0]]
        if question is None and isinstance(examples, Mapping) and isinstance(examples.get("question"), list | tuple):
            question, context = examples["question"], examples.get("context")
        if question is not None:
            return _pairs(question, context), options
        return (_example(examples, "") if _is_example(examples) else examples), options

    def encode(self, inputs: Sequence[Any], options: QuestionAnsweringOptions) -> list[Item]:
        """Tokenize questions, and each context once, and lay the windows of each context beside its questions.

        Raises:
            InputError: naming the first example that is none, or whose question leaves no room for the context.
        """
        several = len(inputs) > 1
        examples = [_example(given, f" (index {index})" if several else "") for index, given in enumerate(inputs)]
        if not examples:
            return []
        contexts = self._contexts(list(dict.fromkeys(example.context for example in examples)), options)
        questions = self.tokenizer([example.question for example in examples], add_special_tokens=False, verbose=False)[
            "input_ids"
        ]
        return [
            self._item(ids, contexts[example.context], options, f" (index {index})" if several else "")
            for index, (example, ids) in enumerate(zip(examples, questions, strict=True))
        ]

    def _contexts(self, texts: list[str], options: QuestionAnsweringOptions) -> dict[str, _Context]:
        encoded = self.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        contexts = {}
        for number, (text, ids, offsets) in enumerate(
            zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True)
        ):
            starts_C, ends_C = places_of(offsets, text)
            begins_C = np.ones(len(ids), bool)
            if options.align_to_words and options.words == "scripts":
                begins_C = _begins_by_script(text, starts_C, ends_C)
            elif options.align_to_words:
                begins_C[1:] = [word != before for before, word in itertools.pairwise(encoded.word_ids(number))]
            contexts[text] = _Context(text, np.array(ids, np.int64), starts_C, ends_C, begins_C)
        return contexts

    def _item(self, question: list[int], context: _Context, options: QuestionAnsweringOptions, where: str) -> Item:
        cuts = options.on_overflow == "truncate"
        kept = question[: options.max_question_len] if cuts else question
        # The context stands before the last </s>.
        around = self.tokenizer.build_inputs_with_special_tokens(kept, [])
        first = len(around) - 1
        places = self._places(len(around), len(context.ids_C), options, where)
        truncated = len(kept) < len(question) or (cuts and len(places) > 1)
        places = places[:1] if cuts else places
        rows = []
        for start, stop in places:
            ids_S = np.concatenate([around[:first], context.ids_C[start:stop], around[first:]]).astype(np.int64)
            self._check_row(len(ids_S), where)
            rows.append(row_of(ids_S))
        return Item(rows, _Windows(context, places, first), truncated)

    def _places(self, around: int, length: int, options: QuestionAnsweringOptions, where: str) -> list[tuple[int, int]]:
        """The windows of a context, as :func:`windows`, from the side that the tokenizer keeps.

        Args:
            around: tokens of a row beside the context.
            length: tokens of the context.
            options: of the call.
            where: which question an error means.
        """
        longest = options.max_seq_len
        if longest is None:
            longest = min(self.longest, LONGEST_WINDOW)
        overlap = options.doc_stride
        if overlap is not None and overlap > longest:
            raise InputError(f"doc_stride must be at most max_seq_len, {longest}, received {overlap}")
        room = longest - around
        if length <= room:
            return [(0, length)]
        if room <= 0:
            raise InputError(
                f"expected a question that leaves room for its context, received {around} tokens beside the context"
                f"{where}, where max_seq_len is {longest}; shorten the question, or pass on_overflow='truncate' and "
                "max_question_len"
            )
        if options.on_overflow == "error":
            raise TooLongError(
                f"expected at most {room} tokens of context, which is what max_seq_len, {longest}, leaves, received "
                f"{length}{where}; pass on_overflow='window' to have all of it read"
            )
        if overlap is None:
            overlap = min(longest // 2, LARGEST_OVERLAP)
            # Half of what is left is an overlap too, where the question takes much of the row.
            overlap = overlap if overlap < room else room // 2
        if overlap >= room:
            raise InputError(
                f"doc_stride must be less than {room}, the tokens that max_seq_len, {longest}, leaves for the context, "
                f"received {overlap}{where}; pass a smaller doc_stride"
            )
        return windows(length, room, overlap, self.tokenizer.truncation_side)

    def _check_row(self, length: int, where: str) -> None:
        longest = self.config.max_tokens
        if length > longest:
            raise InputError(
                f"expected windows of at most {longest} tokens, which is what this checkpoint takes, received "
                f"{length}{where}; pass max_seq_len={longest} or less"
            )

    def decode(self, item: Item, outputs: Sequence[Arrays], options: QuestionAnsweringOptions) -> Answer | list[Answer]:
        """The best answers of a question, from the logits (S,) of its windows."""
        kept: _Windows = item.kept
        found: dict[str, Answer] = {}
        null_score = np.inf
        for place, row, output in zip(kept.places, item.rows, outputs, strict=True):
            start_C, end_C, null = self._probabilities(row["input_ids"], kept.first, place, output)
            null_score = min(null_score, null)
            for text, answer in _answers(kept.context, place, start_C, end_C, options).items():
                known = found.setdefault(text, answer)
                if known is answer:
                    continue
                if options.equal_answers == "sum":
                    known["score"] += answer["score"]
                elif answer["score"] > known["score"]:
                    found[text] = answer
        answers = list(found.values()) or [Answer(score=0.0, start=0, end=0, answer="")]
        if options.handle_impossible_answer:
            answers.append(Answer(score=float(null_score), start=0, end=0, answer=""))
        answers = sorted(answers, key=lambda answer: answer["score"], reverse=True)[: options.top_k]
        return answers[0] if len(answers) == 1 else answers

    def _probabilities(
        self, ids_S: Ints, first: int, place: tuple[int, int], output: Arrays
    ) -> tuple[Floats, Floats, float]:
        """How likely an answer begins and ends with each token of a window, and that there is none.

        Both are softmaxes over the context and every ``<s>``; the first ``<s>`` stands for no answer.
        """
        context = slice(first, first + place[1] - place[0])
        open_S = ids_S == self.tokenizer.cls_token_id
        open_S[context] = True
        for name in self.wanted:
            check_finite(output[name][: len(ids_S)][open_S])
        both = [_softmax(np.where(open_S, output[name][: len(ids_S)], -np.inf)) for name in self.wanted]
        start_S, end_S = both
        return start_S[context], end_S[context], float(start_S[0] * end_S[0])

    def gather(self, answers: list[Any], single: bool, options: Any) -> Any:
        """One example alone is answered without a list around it."""
        return answers[0] if len(answers) == 1 else answers

    def text(self, answer: Answer | list[Answer]) -> str:
        """An answer a line: its score, where it stands, and its text."""
        answers = [answer] if isinstance(answer, dict) else answer
        return "\n".join(
            f"  {found['score']:.4f}  {found['start']}-{found['end']}  "
            + (visible(found["answer"].strip()) if found["answer"] else "(no answer)")
            for found in answers
        )


def best_spans(start_C: Floats, end_C: Floats, longest: int, count: int) -> tuple[Ints, Ints, Floats]:
    """The spans whose first token is likely to begin an answer, times their last to end it: best first, then by place.

    Args:
        start_C: probabilities of the tokens to be the first.
        end_C: and to be the last.
        longest: tokens of a span at most.
        count: how many spans.

    Returns:
        The first tokens, the last tokens and the scores, above zero, of at most ``count`` spans.
    """
    longest = min(longest, len(start_C))
    # A line of ends for each start, and nothing after the last token.
    ends_CL = np.lib.stride_tricks.sliding_window_view(np.pad(end_C, (0, longest - 1)), longest)
    scores = (start_C[:, None] * ends_CL).ravel()
    places = top_places(scores, count)
    places = places[scores[places] > 0]
    best = places[np.argsort(-scores[places], kind="stable")][:count]
    return best // longest, best // longest + best % longest, scores[best]


def _answers(
    context: _Context, place: tuple[int, int], start_C: Floats, end_C: Floats, options: QuestionAnsweringOptions
) -> dict[str, Answer]:
    """The answers of a window, best first, by their text in lower case; those that read alike are one."""
    window = slice(*place)
    if len(start_C) == 0:
        return {}
    # Some spans may become the same answer when they are aligned.
    count = options.top_k * 2 + 10 if options.align_to_words else options.top_k
    firsts, lasts, scores = best_spans(start_C, end_C, options.max_answer_len, count)
    starts_C, ends_C = _aligned(context.begins_C[window], context.starts_C[window], context.ends_C[window])
    found: dict[str, Answer] = {}
    spans: Iterable[tuple[int, int, float]] = zip(
        starts_C[firsts].tolist(), ends_C[lasts].tolist(), scores.tolist(), strict=True
    )
    for start, end, score in spans:
        if options.trim:
            start, end = _trimmed(context.text, start, end)
            if start == end:
                continue
        text = context.text[start:end]
        known = found.get(text.lower())
        if known:
            known["score"] += score
        else:
            found[text.lower()] = Answer(score=score, start=start, end=end, answer=text)
    return found


def _begins_by_script(text: str, starts_C: Ints, ends_C: Ints) -> NDArray[np.bool_]:
    """Whether each token begins a word of its script (C,); white space belongs to the word behind it."""
    (letters,) = np.nonzero(~blank_chars(text))
    if not len(letters):
        return np.ones(len(starts_C), bool)
    words = word_numbers(text)[letters]
    first_C = np.searchsorted(letters, starts_C)
    last_C = np.maximum(np.searchsorted(letters, ends_C) - 1, first_C)
    first_C, last_C = (words[np.minimum(side, len(words) - 1)] for side in (first_C, last_C))
    return np.append(True, first_C[1:] != last_C[:-1])[: len(starts_C)]


def _aligned(begins_C: NDArray[np.bool_], starts_C: Ints, ends_C: Ints) -> tuple[Ints, Ints]:
    """Where the word of each token begins in the text, and where it ends; a window's edge cuts words too."""
    (firsts,) = np.nonzero(np.concatenate([[True], begins_C[1:]]))
    sizes = np.diff(np.append(firsts, len(begins_C)))
    return np.repeat(starts_C[firsts], sizes), np.repeat(ends_C[firsts + sizes - 1], sizes)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def _softmax(logits_S: NDArray[Any]) -> Floats:
    """Probabilities in float32, as published; minus infinity is no candidate."""
    scaled_S = np.exp(logits_S.astype(np.float32) - np.float32(logits_S.max()))
    probabilities: Floats = scaled_S / scaled_S.sum()
    return probabilities


def _pairs(question: Any, context: Any) -> Example | list[Example]:
    """Questions with their contexts; one of either goes with each of the other."""
    if isinstance(question, str) and isinstance(context, str):
        return _example({"question": question, "context": context}, "")
    sides = {"question": question, "context": context}
    for name, side in sides.items():
        if not isinstance(side, str | list | tuple):
            raise InputError(f"{name} must be a text or a list of texts, received {type(side).__name__} {side!r}")
    count = max(len(side) for side in sides.values() if not isinstance(side, str))
    questions, contexts = ([side] * count if isinstance(side, str) else side for side in sides.values())
    if len(questions) != len(contexts):
        raise InputError(
            f"expected a context for each question, received {len(questions)} questions and {len(contexts)} contexts; "
            "pass as many, or one context for all"
        )
    return [
        _example({"question": one, "context": other}, f" (index {index})")
        for index, (one, other) in enumerate(zip(questions, contexts, strict=True))
    ]


def _is_example(given: Any) -> bool:
    """Whether it is a question with its context; ``SquadExample`` of the original library is one."""
    return isinstance(given, Example | Mapping) or (hasattr(given, "question_text") and hasattr(given, "context_text"))


def _example(given: Any, where: str) -> Example:
    """A question with its context, of whatever holds both; what else it holds is left alone.

    Args:
        given: a dictionary, an object of ``question_text`` and ``context_text``, or a pair of texts.
        where: which of several examples an error means.
    """
    if isinstance(given, Example):
        return given
    if isinstance(given, Mapping):
        sides: list[Any] = [given.get("question"), given.get("context")]
    elif _is_example(given):
        sides = [given.question_text, given.context_text]
    else:
        sides = list(given) if isinstance(given, list | tuple) else []
    if len(sides) != 2:
        raise InputError(
            f"expected a question and its context, received {type(given).__name__} {shown(given, 100)}{where}; "
            "pass {'question': ..., 'context': ...}, or on a line the question, a tab and the context"
        )
    for name, text in zip(("question", "context"), sides, strict=True):
        if not isinstance(text, str) or not text:
            received = "an empty one" if text == "" else f"{type(text).__name__} {text!r}"
            raise InputError(f"expected a {name}, received {received}{where}; pass a text as {name!r}")
    return Example(*sides)
