"""Tasks in PyTorch: every recorded call of the original pipelines, asked again."""

from __future__ import annotations

import json
from enum import Enum
from functools import cache

import numpy as np
import pytest
import torch

from tests.recorded_calls import EVERY, ask_again, assert_same, calls_of_pipelines
from xlmr_core.cli import main
from xlmr_core.errors import InputError, LoadWarning
from xlmr_torch import (
    AutoModelForSequenceClassification,
    TextClassificationPipeline,
    XLMRobertaForTokenClassification,
    pipeline,
)


@cache
def made(task, folder):
    return pipeline(task, model=folder)


@pytest.fixture(scope="module")
def fixtures(shared):
    return shared / "fixtures" / "tasks"


@pytest.mark.parametrize(("name", "number"), EVERY)
def test_recorded_call(name, number, fixtures):
    ask_again(pipeline, made, fixtures / name, number)


def test_choices_of_several_prompts(fixtures):
    choose = made("multiple-choice", fixtures / "multiple_choice")
    calls = calls_of_pipelines(fixtures / "multiple_choice")
    expected = [call["output"] for call in calls]
    prompts, choices = map(list, zip(*(call["args"] for call in calls), strict=True))
    assert_same(choose(prompts, choices, batch_size=3), expected)
    assert_same(list(choose({"prompt": p, "choices": c} for p, c in zip(prompts, choices, strict=True))), expected)


@pytest.fixture
def sentiment(fixtures):
    return made("text-classification", fixtures / "text_classification")


LONG = "In the spring of 1921 Clara Novak left Prague for Vienna with two suitcases and a violin. " * 4


def test_texts_that_are_too_long(sentiment, caplog):
    with pytest.raises(InputError, match="at most 64 tokens.*pass on_overflow='truncate'"):
        sentiment(LONG)
    cut = sentiment(LONG, truncation=True)
    assert "truncated" in caplog.text and sentiment.truncated == [0]
    assert sentiment(LONG, on_overflow="truncate") == cut
    with pytest.raises(InputError, match="at most 64 tokens"):
        sentiment(LONG, truncation=True, on_overflow="error")
    caplog.clear()
    whole = sentiment(["short", LONG], on_overflow="window", top_k=None)
    assert caplog.text == "" and sentiment.truncated == []
    assert abs(sum(label["score"] for label in whole[1]) - 1) < 1e-6
    assert_same(whole[0], sentiment("short", top_k=None))


TEXTS = [f"text {'word ' * (index % 7)}{index} <mask>" for index in range(16)]
# By task: the folder, and how a text is asked.
ASKED = {
    "fill-mask": ("fill_mask", {"top_k": 3}),
    "text-classification": ("text_classification", {"top_k": None}),
    "zero-shot-classification": ("zero_shot_entail1", {"candidate_labels": "sport, politics"}),
    "token-classification": ("token_classification", {}),
    "feature-extraction": ("feature_extraction", {}),
}


@pytest.mark.parametrize("task", ASKED)
def test_answers_do_not_depend_on_what_runs_beside(task, fixtures):
    name, how = ASKED[task]
    ask = made(task, fixtures / name)
    alone = [ask(text, **how) for text in TEXTS]
    for options in ({"batch_size": 8}, {"batch_tokens": 64}, {"batch_tokens": 1}):
        assert_same(ask(TEXTS, **how, **options), alone)
        assert_same(list(ask(iter(TEXTS[::-1]), **how, **options)), alone[::-1])


@pytest.mark.parametrize("task", ASKED)
def test_half_precision_and_devices(task, fixtures):
    name, how = ASKED[task]
    usual = made(task, fixtures / name)
    narrow = pipeline(task, model=fixtures / name, dtype="bfloat16", device="cpu", framework="pt")
    assert (narrow.model.dtype, narrow.device) == (torch.bfloat16, torch.device("cpu"))
    one, other = narrow(TEXTS[0], **how), usual(TEXTS[0], **how)
    assert type(one) is type(other) and one != other


def test_labels_come_in_any_iterable(fixtures):
    judge = made("zero-shot-classification", fixtures / "zero_shot_entail1")
    usual = judge("a text", ["b", "c"])
    for labels in (("b", "c"), {"b": 1, "c": 2}, iter(["b", "c"]), np.array(["b", "c"])):
        assert judge("a text", labels) == usual
    for labels in ([], iter([]), " , ", 5):
        with pytest.raises(InputError, match="at least one label, received"):
            judge("a text", labels)


def test_pairs_of_choices_may_be_cut_otherwise(fixtures):
    choose = made("multiple-choice", fixtures / "multiple_choice")
    usual = choose(LONG, ["a", "b"])
    assert choose(LONG, ["a", "b"], padding=True, truncation="only_first") == usual
    assert choose(LONG, ["a", "b"], max_length=20) != usual
    with pytest.raises(InputError, match="at most 64 tokens"):
        choose(LONG, ["a", "b"], truncation=False)


def test_a_saved_pipeline_is_read_again(sentiment, fixtures, tmp_path):
    sentiment.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    assert pipeline("text-classification", tmp_path)("good") == sentiment("good")
    named = (fixtures / "text_classification", {"use_fast": False})
    other = pipeline("text-classification", tmp_path, tokenizer=named)
    assert type(other.tokenizer) is not type(sentiment.tokenizer) and other("good") == sentiment("good")


def test_what_the_original_takes_and_does_not_need_is_taken(fixtures, sentiment):
    classify = made("zero-shot-classification", fixtures / "zero_shot_entail1")
    assert classify("a", ["b", "c"], truncation=True) == classify("a", ["b", "c"])
    direct = TextClassificationPipeline(
        model=sentiment.model, tokenizer=sentiment.tokenizer, framework="pt", task="sentiment-analysis", device=-1
    )
    assert direct("good") == sentiment("good") and direct.dtype == torch.float32 and direct.framework == "pt"


def test_a_function_may_be_a_member_of_an_enumeration(sentiment):
    function = Enum("ClassificationFunction", {"NONE": "none"}).NONE
    assert sentiment("good", function_to_apply=function) == sentiment("good", function_to_apply="none")


def test_a_pair_may_be_an_argument(sentiment):
    pair = {"text": "A man plays.", "text_pair": "Music is made."}
    alone = sentiment(pair)
    assert sentiment(pair["text"], text_pair=pair["text_pair"]) == [alone]
    assert sentiment(pair["text"], text_pair=pair["text_pair"], top_k=1) == [alone]
    assert sentiment([pair["text"]], text_pair=pair["text_pair"]) == [alone]
    assert list(sentiment(iter([pair["text"]]), text_pair=pair["text_pair"])) == [alone]
    assert sentiment(pair["text"], text_pair="") == sentiment(pair["text"])
    assert sentiment("good", add_special_tokens=False) != sentiment("good")


def test_vectors_of_a_text_in_windows(fixtures):
    extract = made("feature-extraction", fixtures / "feature_extraction")
    assert extract("short", on_overflow="window") == extract("short")
    with pytest.raises(InputError, match="at most 64 tokens"):
        extract(LONG, on_overflow="error")
    ids = extract.tokenizer(LONG, verbose=False)["input_ids"]
    (vectors,) = extract(LONG, on_overflow="window")
    assert extract.truncated == []
    first = extract(LONG, on_overflow="truncate")[0]
    assert len(vectors) == len(ids) and len(first) == 64
    assert_same(vectors[:40], first[:40], tolerance=5e-5)


def test_texts_of_zero_shot_and_choices_that_are_too_long(fixtures, caplog):
    judge = made("zero-shot-classification", fixtures / "zero_shot_entail1")
    cut = judge(LONG, ["a", "b"])
    assert judge.truncated == [0] and "truncated" in caplog.text
    caplog.clear()
    assert judge(LONG, ["a", "b"], on_overflow="truncate") == cut and caplog.text == ""
    whole = judge(LONG, ["a", "b"], on_overflow="window")
    assert judge.truncated == [] and whole != cut and abs(sum(whole["scores"]) - 1) < 1e-6
    with pytest.raises(InputError, match="at most 64 tokens"):
        judge(LONG, ["a", "b"], on_overflow="error")
    choose = made("multiple-choice", fixtures / "multiple_choice")
    assert choose(LONG, ["a", "b"]) != choose(LONG, ["a", "b"], on_overflow="window")


LINES = {
    "fill-mask": ("fill_mask", ["a <mask>", '{"text": "a\\n<mask>"}'], "no blank"),
    "text-classification": ("text_classification", ["good", "good\tbad", '{"text": "a", "text_pair": "b"}'], "a\tb\tc"),
    "zero-shot-classification": ("zero_shot_entail1", ["good", "\ttabs\tand more"], "\xff"),
    "multiple-choice": ("multiple_choice", ["a\tb\tc", '{"prompt": "a", "choices": ["b", "c"]}'], "no choice"),
    "feature-extraction": ("feature_extraction", ["good", "bad"], "word " * 90),
}


@pytest.mark.parametrize("task", LINES)
def test_lines_of_the_command(task, fixtures, tmp_path, monkeypatch, capsys):
    name, good, bad = LINES[task]
    (tmp_path / "lines").write_bytes("\n".join([good[0], bad, "", *good[1:]]).encode("latin-1"))
    more = ["--candidate-labels", "a, b"] if task.startswith("zero") else []
    for told in ("json", "csv", "text"):
        with (tmp_path / "lines").open("rb") as lines:
            monkeypatch.setattr("sys.stdin", lines)
            words = ["run", "--task", task, "--model", str(fixtures / name), "--format", told, *more]
            assert main(words) == 2
        out, err = capsys.readouterr()
        assert err.startswith("xlmr: error: line 2: expected ") and err.count("\n") == 1
        if told == "json":
            answers = [json.loads(line) for line in out.splitlines()]
            assert [answer["line"] for answer in answers] == [1, *range(4, 3 + len(good))]
            assert all(set(answer) == {"line", "text", "answer"} for answer in answers)
        elif told == "csv":
            assert out.startswith("line,text,truncated,")


def test_the_command_without_what_it_needs(fixtures, capsys):
    for words, message in (
        (
            ("sentiment-analysis",),
            "sentiment-analysis needs a model, received none; pass --model, a folder or a name "
            "on the hub, such as 'cardiffnlp/twitter-xlm-roberta-base-sentiment'",
        ),
        (("ner", "--model", str(fixtures / "fill_mask")), "token-classification needs a trained head"),
        (("zero-shot-classification", "--model", str(fixtures / "zero_shot_entail0")), "pass --candidate-labels"),
    ):
        assert main(["run", "--task", *words, "a text", "another"]) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1


def test_other_names_of_tasks(sentiment):
    for name in ("sentiment-analysis", "language-identification"):
        again = pipeline(name, model=sentiment.model, tokenizer=sentiment.tokenizer)
        assert type(again) is type(sentiment) and again("good") == sentiment("good")


def test_a_checkpoint_without_the_head_is_refused_and_a_model_is_used(fixtures, sentiment):
    folder = fixtures / "fill_mask"
    with pytest.raises(InputError, match=r"needs a trained head.*classifier\..*it can do: fill-mask, feature-extr"):
        pipeline("sentiment-analysis", model=folder)
    with pytest.warns(LoadWarning, match="start with fresh values"):
        model = AutoModelForSequenceClassification.from_pretrained(folder)
    with pytest.warns(LoadWarning, match="from a checkpoint of XLMRobertaForMaskedLM.*no head for text-cl"):
        used = pipeline("text-classification", model=model)
    assert set(used("good")[0]) == {"label", "score"}
    other = XLMRobertaForTokenClassification(sentiment.model.config)
    with pytest.raises(InputError, match="needs a model of AutoModelForSequenceClassification"):
        pipeline("text-classification", model=other, tokenizer=sentiment.tokenizer)


@pytest.mark.parametrize("task", ["multiple-choice", "zero-shot-classification"])
def test_heads_that_look_alike_are_told_apart(task, fixtures):
    folder = fixtures / "token_classification"
    with pytest.raises(InputError, match="needs a trained head"):
        pipeline(task, model=folder)


def test_targets_of_several_pieces(fixtures):
    fill = made("fill-mask", fixtures / "fill_mask")
    text = "The weather in <mask> is cold."
    words = ["water", "Heidelberg", "Vienna"]
    answer = fill(text, targets=words, multi_token_targets=True)
    assert {row["token_str"] for row in answer} == set(words)
    scores = [row["score"] for row in answer]
    assert scores == sorted(scores, reverse=True) and all(0 < score < 1 for score in scores)
    several = next(row for row in answer if len(row["token"]) > 1)
    masks = "<mask>" * len(several["token"])
    by_hand = fill(text.replace("<mask>", masks), top_k=1002)
    product = 1.0
    for token, candidates in zip(several["token"], by_hand, strict=True):
        product *= next(row["score"] for row in candidates if row["token"] == token)
    assert abs(several["score"] - product) < 1e-5
    both = fill(f"{text} <mask>", targets=words, multi_token_targets=True, top_k=1)
    assert len(both) == 2 and "<mask>" in both[0][0]["sequence"]
