"""Question answering in PyTorch: the recorded calls, and the command line on a real checkpoint."""

from __future__ import annotations

import json

import pytest

from tests.recorded_calls import assert_same, read_calls
from xlmr_core.cli import main
from xlmr_core.errors import XLMRError
from xlmr_torch import pipeline


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "fixtures" / "tasks" / "question_answering"


@pytest.fixture(scope="module")
def calls(folder):
    calls = read_calls(folder)
    assert len(calls) == 56
    return calls


@pytest.fixture(scope="module")
def qa(folder):
    return pipeline("question-answering", model=folder)


@pytest.mark.parametrize("number", range(56))
@pytest.mark.parametrize("batch_size", [None, 8])
def test_recorded_call(number, batch_size, calls, qa):
    call = calls[number]
    if call["kwargs_init"]:
        qa = pipeline("question-answering", model=qa.model, tokenizer=qa.tokenizer, **call["kwargs_init"])
    options = {"batch_size": batch_size, **call["kwargs_call"]}
    if isinstance(call["output"], dict) and "error" in call["output"]:
        with pytest.raises(XLMRError, match="expected|must be"):
            qa(*call["args"], **options)
    else:
        assert_same(qa(*call["args"], **options), call["output"])


def test_the_sentencepiece_tokenizer_answers_alike(calls, qa, folder):
    slow = pipeline("question-answering", model=qa.model, tokenizer=str(folder), use_fast=False)
    for call in calls[:26]:
        assert_same(slow(*call["args"], **call["kwargs_call"]), call["output"])


def test_the_command_line_answers_like_the_pipeline(calls, folder, capfd):
    given = [call["kwargs_call"] for call in calls[:2]]
    lines = [f"{one['question']}\t{one['context']}" for one in given]
    main(["run", "--task", "question-answering", "--model", str(folder), "--format", "json", "--", *lines])
    answers = [json.loads(line)["answer"] for line in capfd.readouterr().out.splitlines()]
    assert_same(answers, [call["output"] for call in calls[:2]])
