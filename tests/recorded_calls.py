"""Calls of the original pipelines and what they answered, how they are asked again, and how answers are compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlmr_core.errors import XLMRError

SCORES = 1e-5  # the tolerance for probabilities that came with the recordings
LOGITS = 5e-5  # and for logits and vectors

Call = dict[str, Any]

# By folder of fixtures/tasks: how many calls of pipelines it has, and the few that backends whose programs are compiled
# ask again: each head once, and each kind of answer. What else differs is decided in the core, which knows no backend.
FOLDERS: dict[str, tuple[int, list[int]]] = {
    "fill_mask": (50, []),  # tests/*/test_pipelines.py
    "text_classification": (50, [34]),
    "text_classification_multi": (48, []),
    "text_classification_regression": (48, []),
    "cross_encoder": (6, [0]),
    "cross_encoder_identity": (6, []),
    "zero_shot_entail0": (22, [7]),
    "zero_shot_entail1": (22, []),
    "zero_shot_entail2": (22, []),
    "feature_extraction": (18, [9]),
    "multiple_choice": (10, [1]),
    "token_classification": (46, [20]),
    "question_answering": (56, [30]),
    "text_generation": (37, [26]),
}
EVERY = [(name, number) for name, (count, _) in FOLDERS.items() for number in range(count)]
FEW = [(name, number) for name, (_, numbers) in FOLDERS.items() for number in numbers]
# What gives logits or vectors, or probabilities of logits that are as large.
WIDER = ("text-classification", "feature-extraction")


def read_calls(folder: Path) -> list[Call]:
    """The calls of a folder, one a line."""
    with (folder / "calls.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def calls_of_pipelines(folder: Path) -> list[Call]:
    """Those of them that are of pipelines, with what is answered here."""
    calls = [call for call in read_calls(folder) if "." not in call["task"]]
    assert len(calls) == FOLDERS[folder.name][0]
    return [AS_ANSWERED.get(call["task"], lambda call, calls: call)(call, calls) for call in calls]


def _one_by_one(call: Call, calls: list[Call]) -> Call:
    """The original goes on behind the padding of a batch; here a text in one goes on as it does alone."""
    if "batch_size" not in call["kwargs_call"]:
        return call
    how = {name: value for name, value in call["kwargs_call"].items() if name != "batch_size"}
    asked = [one for one in calls if one["kwargs_call"] == how and isinstance(one["args"][0], str)]
    alone = {one["args"][0]: one["output"] for one in asked}
    padded = zip(call["args"][0], call["output"], strict=True)
    return {**call, "output": [alone.get(text, answer) for text, answer in padded]}


def _as_ranked(call: Call, calls: list[Call]) -> Call:
    """Of multiple choice, which had no pipeline, as one would answer."""
    chances = call["output"]["probs"]
    best = sorted(range(len(chances)), key=lambda index: -chances[index])
    assert best[0] == call["output"]["best"]
    return {**call, "output": [{"index": index, "score": chances[index]} for index in best]}


AS_ANSWERED = {"multiple-choice": _as_ranked, "text-generation": _one_by_one}
# How the recordings were made, where that is an option here.
AS_RECORDED: dict[str, dict[str, Any]] = {"text-generation": {"position_numbering": "zero_based"}}


def ask_again(pipeline: Callable[..., Any], loaded: Callable[[str, Path], Any], folder: Path, number: int) -> None:
    """Ask a recorded call, and compare.

    Args:
        pipeline: of the backend.
        loaded: the backend's pipeline of a task and a folder, loaded once.
        folder: of fixtures/tasks.
        number: of the call.
    """
    call = calls_of_pipelines(folder)[number]
    usual = loaded(call["task"], folder)
    options = {**AS_RECORDED.get(call["task"], {}), **call["kwargs_init"]}
    asked = pipeline(call["task"], usual.model, tokenizer=usual.tokenizer, **options)
    if isinstance(call["output"], dict) and "error" in call["output"]:
        with pytest.raises(XLMRError):
            asked(*call["args"], **call["kwargs_call"])
        return
    answer, expected = asked(*call["args"], **call["kwargs_call"]), call["output"]
    if call["task"] == "feature-extraction" and call["kwargs_call"].get("return_tensors"):
        answer = np.asarray(answer).tolist()
    if call["task"] == "feature-extraction" and call["kwargs_call"].get("batch_size", 1) > 1:
        # The original gives vectors for the padding of a batch too.
        expected = [[vectors[: len(own[0])]] for vectors, own in zip((one[0] for one in expected), answer, strict=True)]
    assert_same(answer, expected, tolerance=LOGITS if call["task"] in WIDER else SCORES)


def assert_same(got: Any, expected: Any, where: str = "answer", tolerance: float = SCORES) -> None:
    """Floats agree to ``tolerance``, everything else exactly, types included."""
    assert type(got) is type(expected), f"{where}: {got!r}, expected {expected!r}"
    if isinstance(expected, float):
        assert abs(got - expected) <= tolerance, f"{where}: {got}, expected {expected}"
    elif isinstance(expected, dict):
        assert list(got) == list(expected), where
        for key in expected:
            assert_same(got[key], expected[key], f"{where}[{key!r}]", tolerance)
    elif isinstance(expected, list):
        assert len(got) == len(expected), f"{where}: {len(got)} items, expected {len(expected)}"
        for index, (one, other) in enumerate(zip(got, expected, strict=True)):
            assert_same(one, other, f"{where}[{index}]", tolerance)
    else:
        assert got == expected, where


# By folder of fixtures/tasks: how many calls of published classes for vectors and ranking it has, and those that
# backends whose programs are compiled ask again.
PUBLISHED: dict[str, tuple[int, list[int]]] = {
    "st_cls": (20, [8]),
    "st_mean": (20, []),
    "st_max": (19, [8]),
    "st_mean_noprompt": (20, [8]),
    "st_saved_by_6": (6, []),
    "cross_encoder": (19, [15]),
    "cross_encoder_identity": (19, []),
    "bge_m3": (17, [4, 10]),
}
EVERY_PUBLISHED = [(name, number) for name, (count, _) in PUBLISHED.items() for number in range(count)]
FEW_PUBLISHED = [(name, number) for name, (_, numbers) in PUBLISHED.items() for number in numbers]
CLASSES = {"bge-m3": "BGEM3FlagModel"}


def ask_published(loaded: Callable[[str, Path, str], Any], folder: Path, number: int) -> None:
    """Ask a recorded call of a published class, and compare.

    Args:
        loaded: the backend's object of a class, a folder, and arguments as JSON, made once.
        folder: of fixtures/tasks.
        number: of the call, among those of published classes.
    """
    calls = [call for call in read_calls(folder) if "." in call["task"]]
    assert len(calls) == PUBLISHED[folder.name][0]
    call = calls[number]
    kind, _, method = call["task"].rpartition(".")
    ask = getattr(loaded(CLASSES.get(kind, kind), folder, json.dumps(call["kwargs_init"])), method)
    if isinstance(call["output"], dict) and "error" in call["output"]:
        with pytest.raises(XLMRError):
            ask(*call["args"], **call["kwargs_call"])
        return
    assert_close(ask(*call["args"], **call["kwargs_call"]), call["output"])


def assert_close(received: Any, expected: Any, where: str = "answer") -> None:
    """Numbers agree, everything else exactly; arrays and tensors of any framework count as lists."""
    if isinstance(expected, dict):
        assert set(received) == set(expected), where
        for key in expected:
            assert_close(received[key], expected[key], f"{where}[{key!r}]")
    elif isinstance(expected, list) and any(isinstance(one, dict | list) for one in expected):
        assert len(received) == len(expected), where
        for index, (one, other) in enumerate(zip(received, expected, strict=True)):
            assert_close(one, other, f"{where}[{index}]")
    elif isinstance(expected, list | float):
        np.testing.assert_allclose(np.asarray(received), expected, atol=LOGITS, rtol=1e-4, err_msg=where)
    else:
        assert received == expected, where
