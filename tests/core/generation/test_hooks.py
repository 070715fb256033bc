"""What runs on the host between steps: processors and criteria of users, streamers."""

from __future__ import annotations

import asyncio
import queue
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xlmr_core
from xlmr_core.errors import InputError
from xlmr_core.generation import (
    AsyncTextIteratorStreamer,
    BaseStreamer,
    EosTokenCriteria,
    LogitsProcessor,
    LogitsProcessorList,
    MaxLengthCriteria,
    MaxTimeCriteria,
    StoppingCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
    TextIteratorStreamer,
    TextStreamer,
    allowed_tokens,
    ends_streamer,
    own_criteria,
)

IDS = np.array([[5, 6, 7], [5, 6, 2]])
SCORES = np.zeros((2, 10))


class Ids:
    """An array of a framework: TensorFlow's have ``numpy()``, PyTorch's and JAX's ``tolist()``."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape = values, values.shape

    def numpy(self) -> np.ndarray:
        return self.values


# ---- Criteria


@pytest.mark.parametrize("ids", [IDS, Ids(IDS)])
@pytest.mark.parametrize(
    ("criterion", "done"),
    [
        (MaxLengthCriteria(3), [True, True]),
        (MaxLengthCriteria(4), [False, False]),
        (EosTokenCriteria(2), [False, True]),
        (EosTokenCriteria([2, 7]), [True, True]),
        (EosTokenCriteria(np.array([7])), [True, False]),
        (MaxTimeCriteria(1000.0), [False, False]),
        (MaxTimeCriteria(1.0, initial_timestamp=0.0), [True, True]),
    ],
)
def test_criteria(ids: Any, criterion: StoppingCriteria, done: list[bool]) -> None:
    assert criterion(ids, SCORES).tolist() == done


def test_a_list_says_so_if_one_does() -> None:
    class Framework:
        def tolist(self) -> list[bool]:
            return [True, False]

    criteria = StoppingCriteriaList([EosTokenCriteria(2), lambda ids, scores: False])
    assert criteria(IDS, SCORES).tolist() == [False, True]
    criteria.append(lambda ids, scores: Framework())
    assert criteria(IDS, SCORES).tolist() == [True, True]
    assert StoppingCriteriaList()(IDS, SCORES).tolist() == [False, False]
    assert StoppingCriteriaList([lambda ids, scores: True])(IDS, SCORES).tolist() == [True, True]


@pytest.mark.parametrize(
    ("answer", "received"),
    [
        (None, "None"),
        ("no", "'no'"),
        (0.5, "0.5"),
        (np.array([0.0, 1.0]), "0.0"),
        ([True, False, True], r"the shape \(3,\)"),
        (np.array([[True], [False]]), r"the shape \(2, 1\)"),
    ],
)
def test_a_criterion_that_answers_something_else(answer: Any, received: str) -> None:
    def mine(ids: Any, scores: Any) -> Any:
        return answer

    message = rf"stopping_criteria must return truth values, one for each of 2 rows or .* mine returned {received}$"
    with pytest.raises(InputError, match=message):
        StoppingCriteriaList([mine])(IDS, SCORES)


@pytest.mark.parametrize(
    "answer", [[True], [np.array(True), Ids(np.array(False))], 1, np.bool_(True), np.array([1, 0])]
)
def test_ways_to_answer(answer: Any) -> None:
    assert StoppingCriteriaList([lambda ids, scores: answer])(IDS, SCORES)[0]


def test_the_length_of_a_list() -> None:
    assert StoppingCriteriaList([EosTokenCriteria(2), MaxLengthCriteria(9)]).max_length == 9
    assert StoppingCriteriaList().max_length is None


class Pieces:
    """A tokenizer whose ids are the places of these pieces."""

    pieces = ("<s>", "▁The", "▁end", ".", "▁", "ing", "The", "▁en", "d")

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self.pieces[token] for token in ids]

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        shown = [piece for piece in self.convert_ids_to_tokens(ids) if not (skip_special_tokens and piece == "<s>")]
        return "".join(shown).replace("▁", " ").lstrip()


@pytest.mark.parametrize(
    ("stop", "ids", "done"),
    [
        ("end", [1, 2], True),
        ("end", [1, 2, 3], False),  # it was there before
        ("The end", [1, 2], True),
        (" end.", [1, 2, 3], True),
        ("en", [1, 2], True),  # the last token goes beyond it
        ("end", [1, 7, 8], True),  # over two tokens
        ("e e", [1, 2], True),
        ("end.", [1, 2], False),
        ("ending", [0, 2, 5], True),
        ("The", [6], True),
        ("x", [1, 2], False),
        (["x", "nd"], [1, 2], True),
    ],
)
def test_stop_strings(stop: Any, ids: list[int], done: bool) -> None:
    assert StopStringCriteria(Pieces(), stop)(np.array([ids]), SCORES).tolist() == [done]


def test_stop_strings_that_are_none() -> None:
    with pytest.raises(InputError, match="stop_strings must be texts that are not empty"):
        StopStringCriteria(Pieces(), [])


@pytest.mark.parametrize("tokenizer", ["x", None, object()])
def test_stop_strings_need_a_tokenizer(tokenizer: Any) -> None:
    with pytest.raises(InputError, match=r"convert_ids_to_tokens\(ids\), received .*; pass tokenizer="):
        StopStringCriteria(tokenizer, "x")


def test_criteria_of_a_call() -> None:
    def mine(ids: Any, scores: Any) -> bool:
        return False

    kinds = [type(one).__name__ for one in own_criteria(2.0, ("x",), Pieces(), [mine])]
    assert kinds == ["MaxTimeCriteria", "StopStringCriteria", "function"]
    assert own_criteria(None, (), None, None) == []


# ---- Processors


def test_processors_come_one_after_the_other() -> None:
    def double(input_ids: Any, scores: Any) -> Any:
        return scores * 2

    def shifted(input_ids: Any, scores: Any, by: float) -> Any:
        return scores + by

    assert LogitsProcessorList([double, shifted])(IDS, np.array([1.0, 2.0]), by=1.0, more=3).tolist() == [3.0, 5.0]


class Other(np.ndarray):
    """An array of another framework."""


class OtherKind:
    """An array that is none of NumPy's."""

    shape, dtype = (2, 10), "float32"


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, r"must return scores \(2, 10\) as a ndarray, mine returned None; does it return them\?"),
        ([[0.0] * 10] * 2, ".*as a ndarray, mine returned a list; convert it"),
        (OtherKind(), ".*as a ndarray, mine returned an OtherKind; convert it"),
        (np.zeros(10), r"must return scores of the shape \(2, 10\), mine returned \(10,\); change values"),
        (np.zeros((2, 10), bool), "must return scores of float64, mine returned bool; convert it"),
    ],
)
def test_a_processor_that_gives_no_scores(found: Any, message: str) -> None:
    def mine(input_ids: Any, scores: Any) -> Any:
        return found

    with pytest.raises(InputError, match="a logits_processor " + message):
        LogitsProcessorList([lambda input_ids, scores: scores, mine])(IDS, SCORES)


def test_a_class_of_ones_own_is_of_its_framework() -> None:
    found = LogitsProcessorList([lambda input_ids, scores: scores.view(Other)])(IDS, SCORES)
    assert type(found) is Other


def test_bases_say_what_is_missing() -> None:
    with pytest.raises(NotImplementedError, match=r"LogitsProcessor has no __call__\(input_ids, scores\)"):
        LogitsProcessor()(IDS, SCORES)
    with pytest.raises(NotImplementedError, match="StoppingCriteria has no __call__"):
        StoppingCriteria()(IDS, SCORES)
    with pytest.raises(NotImplementedError, match="BaseStreamer has no put"):
        BaseStreamer().put(IDS)


def test_what_a_prefix_lets_follow() -> None:
    asked = []

    def allowed(prompt: int, ids: Any) -> list[int]:
        asked.append((prompt, ids.tolist()))
        return [prompt, 3]

    rows = np.array([[5], [6], [7], [8]])
    found = allowed_tokens(allowed, rows, 2, 5)
    assert asked == [(0, [5]), (0, [6]), (1, [7]), (1, [8])]
    assert found.astype(int).tolist() == [[1, 0, 0, 1, 0], [1, 0, 0, 1, 0], [0, 1, 0, 1, 0], [0, 1, 0, 1, 0]]


@pytest.mark.parametrize("ids", [[], [5], [-1]])
def test_a_prefix_that_lets_nothing_follow(ids: list[int]) -> None:
    with pytest.raises(InputError, match="prefix_allowed_tokens_fn must give at least one token's id below 5"):
        allowed_tokens(lambda prompt, row: ids, np.array([[5]]), 1, 5)


# ---- Streamers


class Heard(TextStreamer):
    """Keeps what it would print."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heard: list[str] = []

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.heard.append(text + "|" * stream_end)


class Words:
    """A tokenizer whose ids are the places of these texts; the one that is half a character shows as such."""

    texts = ("", "Hel", "lo", " world", "\n", " 今", "天", " \ufffd")

    def decode(self, ids: list[int], **kwargs: Any) -> str:
        return "".join(self.texts[token] for token in ids)


def test_words_are_held_back_until_they_are_whole() -> None:
    streamer = Heard(Words())
    streamer.put(np.array([[1]]))
    for token in (2, 3):
        streamer.put(np.array([token]))
    assert streamer.heard == ["", "", "Hello "]
    streamer.end()
    assert streamer.heard[-1] == "world|"
    assert "".join(streamer.heard).replace("|", "") == "Hello world"


def test_a_line_and_an_ideograph_are_whole() -> None:
    streamer = Heard(Words())
    for token in (1, 4, 5, 6, 7):
        streamer.put(np.array([token]))
    assert streamer.heard == ["", "Hel\n", " 今", "天", " "]  # half a character is held back


def test_the_prompt_is_skipped_and_the_next_one_too() -> None:
    streamer = Heard(Words(), skip_prompt=True)
    for _ in range(2):
        streamer.heard.clear()
        streamer.put(Ids(np.array([[1, 2, 3]])))
        streamer.put(np.array([3]))
        streamer.end()
        assert "".join(streamer.heard) == " world|"


def test_several_rows_are_refused() -> None:
    streamer = Heard(Words())
    with pytest.raises(InputError, match="Heard shows one row, received 2"):
        streamer.put(np.array([[1, 2], [1, 2]]))
    streamer.put(np.array([[1]]))
    with pytest.raises(InputError, match="Heard shows one row, received 2"):
        streamer.put(np.array([1, 2]))


def test_text_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    streamer = TextStreamer(Words())
    streamer.put(np.array([[1, 2]]))
    streamer.put(np.array([3]))
    streamer.end()
    assert capsys.readouterr().out == "Hello world\n"


def test_options_of_decode_are_passed_on() -> None:
    streamer = Heard(Pieces(), skip_special_tokens=True)
    streamer.put(np.array([[0, 1]]))
    streamer.end()
    assert streamer.heard == ["", "The|"]


def test_pieces_are_iterated_over() -> None:
    streamer = TextIteratorStreamer(Words(), timeout=5.0)

    def generated() -> None:
        streamer.put(np.array([[1, 2]]))
        streamer.put(np.array([3]))
        streamer.end()

    thread = threading.Thread(target=generated)
    thread.start()
    assert "".join(streamer) == "Hello world"
    thread.join()


@pytest.mark.parametrize("by_name", [True, False])
def test_a_call_that_fails_ends_its_streamer(by_name: bool) -> None:
    @ends_streamer
    def generate(inputs: Any, streamer: Any = None, **kwargs: Any) -> Any:
        streamer.put(np.array([[1, 2]]))
        raise InputError("no")

    streamer = TextIteratorStreamer(Words(), timeout=5.0)
    with pytest.raises(InputError, match="no"):
        generate(1, streamer=streamer) if by_name else generate(1, streamer)
    assert "".join(streamer) == "Hello"


@pytest.mark.parametrize("backend", ["torch", "tf", "flax"])
@pytest.mark.parametrize("module", ["generation", "mask_predict"])
def test_every_generate_ends_its_streamer(backend: str, module: str) -> None:
    source = (Path(xlmr_core.__file__).parents[1] / f"xlmr_{backend}" / f"{module}.py").read_text(encoding="utf-8")
    assert source.count("    def generate(\n") == source.count("    @ends_streamer\n    def generate(\n") == 1


def test_a_streamer_that_fails_says_why() -> None:
    class Broken:
        def end(self) -> None:
            raise ValueError("no end")

    @ends_streamer
    def generate(streamer: Any = None, **kwargs: Any) -> Any:
        raise InputError("the first")

    for streamer in (Broken(), None, "x"):
        with pytest.raises(InputError, match="the first"):
            generate(streamer=streamer)


def test_a_call_that_works_ends_its_streamer_itself() -> None:
    ended = []

    class Counts:
        def end(self) -> None:
            ended.append(1)

    @ends_streamer
    def generate(streamer: Any = None) -> int:
        return 3

    assert generate(Counts()) == 3
    assert ended == []


def test_who_waits_too_long_is_told() -> None:
    with pytest.raises(queue.Empty):
        next(TextIteratorStreamer(Words(), timeout=0.01))


def test_pieces_are_awaited() -> None:
    async def listened() -> str:
        streamer = AsyncTextIteratorStreamer(Words(), timeout=5.0)

        def generated() -> None:
            streamer.put(np.array([[1, 2]]))
            streamer.put(np.array([3]))
            streamer.end()

        thread = threading.Thread(target=generated)
        thread.start()
        text = "".join([piece async for piece in streamer])
        thread.join()
        return text

    assert asyncio.run(listened()) == "Hello world"
