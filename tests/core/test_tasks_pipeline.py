"""The pipeline of every task, on a task and a runner that are made up; then what ``pipeline()`` decides before it
loads.
"""

from __future__ import annotations

import io
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.core.fake_task import ROW, TOKENIZER, FakeRunner, LetterCounting
from xlmr_core import tasks
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError, XLMRError
from xlmr_core.tasks import TASKS, find_task
from xlmr_core.tasks.choosing import choose
from xlmr_core.tasks.feature_extraction import joined
from xlmr_core.tasks.fill_mask import FillMask
from xlmr_core.tasks.pipeline import Pipeline, pipeline_class
from xlmr_core.tasks.zero_shot import TEMPLATES, ZeroShotClassification, ZeroShotClassificationOptions


@pytest.fixture(autouse=True)
def row(monkeypatch):
    monkeypatch.setitem(TASKS, ROW.name, ROW)


@pytest.fixture
def runner():
    return FakeRunner()


@pytest.fixture
def count(runner):
    return Pipeline("letter-counting", runner, TOKENIZER)


def test_rows_of_one_item_share_batches_with_others_and_come_back_in_order(count, runner):
    texts = ["banana", "a", "", "abracadabra"]
    assert count(texts, batch_size=2) == [{"a": 3}, {"a": 1}, {"a": 0}, {"a": 5}]
    assert [len(call["input_ids"]) for call in runner.calls] == [2, 2, 2, 1]
    lengths = [call["attention_mask"].sum(axis=1).tolist() for call in runner.calls]
    assert lengths == [[3, 3], [3, 3], [3, 2], [1]]


@pytest.mark.parametrize(
    ("inputs", "rows"),
    [
        (lambda: ["aa"] * 100, [100]),
        (lambda: ["b" * 300] * 20, [1365, 635]),
        (lambda: Numbered(["a"] * 100), [64, 36]),
        (lambda: iter(["aa"] * 3), [1, 1, 1]),
    ],
    ids=["a list", "a list of long texts", "a data set", "a generator"],
)
def test_what_runs_together_where_nothing_is_said(count, runner, inputs, rows):
    assert len(list(count(inputs()))) in (3, 20, 100)
    assert [len(call["input_ids"]) for call in runner.calls] == rows


def test_all_axes_are_padded_at_their_end(count, runner):
    count(["a", "bc"], batch_size=2)
    (call,) = runner.calls
    assert {name: array.dtype for name, array in call.items()} == dict.fromkeys(call, np.int64)
    assert call["input_ids"].tolist() == [[98, 99], [97, 1]]
    assert call["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert call["pairs"].tolist() == [[[98, 99], [99, 100]], [[97, 98], [-7, -7]]]


@pytest.mark.parametrize("inputs", ["banana", {"text": "banana"}])
def test_one_input_has_one_answer(count, inputs):
    assert count(inputs) == count(inputs=inputs) == {"a": 3}


def test_a_list_of_one_and_a_stream(count):
    assert count(["banana"]) == [{"a": 3}]
    assert list(count(iter(["banana", "b"]))) == [{"a": 3}, {"a": 0}]


class Numbered:
    """A data set with numbered items, as PyTorch's are."""

    def __init__(self, texts):
        self.texts = texts

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, number):
        return self.texts[number]  # beyond the end nothing stops it: a list would


class Tensor:
    """A string as TensorFlow has it."""

    shape = ()

    def __init__(self, text):
        self.text = text

    def numpy(self):
        return self.text.encode()


TEXTS = ["banana", "", "abracadabra"]


@pytest.mark.parametrize("options", [{}, {"batch_size": 2}, {"batch_tokens": 4}])
@pytest.mark.parametrize(
    "stream",
    [
        lambda: Numbered(TEXTS),
        lambda: iter(TEXTS),
        lambda: dict.fromkeys(TEXTS).keys(),
        lambda: map(Tensor, TEXTS),
        lambda: ({"text": Tensor(text)} for text in TEXTS),
        lambda: np.array(TEXTS),
        lambda: io.StringIO("banana\r\n\nabracadabra\n", newline=""),
        lambda: io.BytesIO(b"banana\n\n" + b'{"text": "abracadabra"}'),
    ],
    ids=["numbered", "iterator", "keys", "tensors", "tensors by name", "array", "file", "file of bytes"],
)
def test_a_stream_is_answered_in_order(count, stream, options):
    assert list(count(stream(), **options)) == [{"a": 3}, {"a": 0}, {"a": 5}]


def test_a_stream_is_read_as_it_is_answered(count):
    read = []
    answers = count((read.append(text) or text for text in TEXTS), batch_size=2)
    assert read == [] and next(answers) == {"a": 3} and read == TEXTS[:2]


def test_what_is_no_input_is_told_with_its_place(count):
    for wrong in (3, {"texts": []}.items, Path("texts.txt"), b"a"):
        with pytest.raises(InputError, match="pass the (texts|open file)"):
            count(wrong)
    answers = count(iter(["a", "b", "why?"]), batch_size=2)
    assert [next(answers), next(answers)] == [{"a": 1}, {"a": 0}]
    with pytest.raises(InputError, match="^behind 2 inputs: expected no question"):
        next(answers)
    with pytest.raises(InputError, match="expected UTF-8"):
        next(count(iter([b"\xff"])))


def test_tokens_that_run_together_are_counted(count, runner):
    count(["abc", "ab", "a", "abc", "a"], batch_tokens=6)
    assert [call["input_ids"].shape for call in runner.calls] == [(2, 3), (3, 2)]
    runner.calls.clear()
    count(["abc", "a"], batch_tokens=1)
    assert [call["input_ids"].shape for call in runner.calls] == [(1, 3), (1, 1)]


def test_the_order_of_the_input_changes_no_batch(count, runner):
    texts = ["a" * (1 + number % 3) for number in range(36)]
    shapes = []
    for order in (texts, texts[::-1], sorted(texts)):
        runner.calls.clear()
        assert list(count(iter(order), batch_tokens=12)) == [{"a": len(text)} for text in order]
        shapes.append([call["input_ids"].shape for call in runner.calls])
    assert shapes[0] == shapes[1] == shapes[2] and len(shapes[0]) == 6


def test_progress_is_shown_where_somebody_sees_it(count, capsys, monkeypatch):
    count(TEXTS)
    assert capsys.readouterr().err == ""
    list(count(Numbered(TEXTS), progress=True))
    shown = capsys.readouterr().err
    assert "letter-counting: " in shown and "3/3" in shown
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    count(TEXTS)  # nor where the work is short
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("xlmr_core.tasks.pipeline.LONG_WORK_S", 0)
    count(TEXTS)
    assert "3/3" in capsys.readouterr().err
    count(TEXTS, progress=False)
    assert capsys.readouterr().err == ""


def test_what_was_cut_is_told_once_a_call(count, caplog, monkeypatch):
    encode = LetterCounting.encode

    def cut_long(self, inputs, options):
        return [replace(item, truncated=len(item.kept) > 3) for item in encode(self, inputs, options)]

    monkeypatch.setattr(LetterCounting, "encode", cut_long)
    list(count(iter(["a", "abracadabra", "a", "banana"])))
    assert count.truncated == [1, 3]
    assert [record.message for record in caplog.records] == [
        "'abracadabra': truncated, as longer than the model takes; on_overflow says what happens to such texts, "
        "pipeline.truncated which they are"
    ]
    caplog.clear()
    count(["banana", "abracadabra"], on_overflow="truncate")
    assert count.truncated == [0, 1] and caplog.text == ""
    count("a")
    assert count.truncated == []


def test_a_task_reads_its_call_itself(count):
    assert count(text="banana", letters="bn") == {"b": 1, "n": 2}
    with pytest.raises(InputError, match="expected texts, received NoneType"):
        count()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": "round"}, "shape must be one of 'number', 'strokes', received 'round'"),
        ({"times": -0.5}, "times must be a number of at least 0, received -0.5"),
        ({"times": float("nan")}, "times must be a number of at least 0, received nan"),
        ({"least": 0.5}, "least must be an integer of at least 0, received 0.5"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, received 0"),
        ({"leters": "a"}, "letter-counting takes the options letters, .*, batch_size, received leters"),
        ({"processor": 1}, "processor must be None"),
    ],
)
def test_options_are_checked_when_it_is_made_and_in_a_call(count, runner, options, message):
    with pytest.raises(InputError, match=message):
        count("a", **options)
    with pytest.raises(InputError, match=message):
        Pipeline("letter-counting", runner, TOKENIZER, **options)


def test_what_it_carries(count, runner):
    assert (count.task, count.tokenizer, count.device, count.model) == ("letter-counting", TOKENIZER, "nowhere", None)
    count.model = "another"
    assert runner.model == count.model == "another"
    assert count.text({"a": 3}) == "  a 3"


def test_it_says_what_it_is(count, runner):
    assert repr(count) == "Pipeline(task='letter-counting', model=NoneType, device='nowhere')"
    runner.model = SimpleNamespace(name_or_path="a/name")
    made = Pipeline(ROW.name, runner, TOKENIZER, letters=["a"])
    assert repr(made) == (
        "Pipeline(task='letter-counting', model=SimpleNamespace('a/name'), device='nowhere', letters=['a'])"
    )


def test_the_published_class_is_made_once():
    made = pipeline_class(__name__, FakeRunner, "LetterCountingPipeline")
    assert pipeline_class(__name__, FakeRunner, "LetterCountingPipeline") is made
    assert (made.__name__, made.__module__, made.task) == ("LetterCountingPipeline", __name__, "letter-counting")
    assert ROW.summary in made.__doc__
    count = made(("a model",), TOKENIZER, letters="n")
    assert isinstance(count, Pipeline) and count.model == ("a model",) and count("banana") == {"n": 2}
    with pytest.raises(AttributeError, match="has no attribute 'NoSuchPipeline'"):
        pipeline_class(__name__, FakeRunner, "NoSuchPipeline")
    other = SimpleNamespace(_task_head=SimpleNamespace(auto="AutoModelForMaskedLM"))
    with pytest.raises(InputError, match="needs a model of AutoModelForCounting, received SimpleNamespace"):
        made(other, TOKENIZER)


def __getattr__(name):
    return pipeline_class(__name__, FakeRunner, name)


def test_a_pipeline_can_be_pickled(monkeypatch):
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or SimpleNamespace(__getattr__=__getattr__))
    count = pipeline_class(__name__, FakeRunner, "LetterCountingPipeline")(("a model",), None, letters="n")
    again = pickle.loads(pickle.dumps(count))
    assert (type(again), again.model, again.options) == (type(count), ("a model",), count.options)


def test_tasks_are_found_by_name(monkeypatch):
    assert find_task("letter-counting") is ROW
    assert find_task("fill-mask").load() is FillMask
    monkeypatch.delitem(TASKS, ROW.name)
    with pytest.raises(XLMRError, match=r"expected a task of .*, received 'fillmask'; did you mean 'fill-mask'\?"):
        find_task("fillmask")
    with pytest.raises(XLMRError, match="did you mean 'sentiment-analysis'"):
        find_task("sentiment-anlysis")


@pytest.mark.parametrize("row", [*tasks.TASKS.values(), ROW], ids=lambda row: row.name)
def test_a_row_says_what_is_true(row):
    task = row.load()
    assert row.pipeline == f"{task.__name__}Pipeline"
    assert task.wanted and task.Options()
    assert row.example.startswith(f"xlmr run --task {row.name}")
    assert max(map(len, row.example.splitlines())) < 76
    assert all(own.metadata["help"] for own in tasks.options.option_fields(task.Options))


# What pipeline() decides


def chosen(task="letter-counting", model=None, config=None, tokenizer=None, **changes):
    arguments = {"framework": None, "revision": None, "token": None, "use_fast": True, "model_kwargs": None}
    return choose("torch", task, model, config, tokenizer, **{**arguments, "options": {}, **changes})


@pytest.mark.parametrize("model", ["a/name", Path("folder")])
def test_a_named_model_brings_its_tokenizer(model):
    choice = chosen(model=model, revision="main", use_fast=False, model_kwargs={"subfolder": "x"}, config="c")
    assert choice.named and choice.task is ROW and choice.model == choice.tokenizer == model
    assert choice.arguments == {"revision": "main", "subfolder": "x", "config": "c"}
    assert choice.tokenizer_arguments == {"revision": "main", "use_fast": False}


def test_a_given_model_says_its_task_and_where_its_tokenizer_is():
    head = SimpleNamespace(auto=ROW.auto)
    model = SimpleNamespace(_task_head=head, name_or_path="there")
    choice = chosen(task=None, model=model)
    assert (choice.task, choice.named, choice.tokenizer) == (ROW, False, "there")
    assert chosen(model=model, tokenizer=TOKENIZER).load_tokenizer() is TOKENIZER
    choice.check_stays(device=None, dtype=None)
    for moved in ({"device": "gpu", "dtype": None}, {"device": None, "dtype": "float16"}):
        with pytest.raises(InputError, match="stays where and as it is, received d.*from_pretrained"):
            choice.check_stays(**moved)


def test_what_windows_share_is_cut_in_the_middle():
    windows = [(0, 6), (4, 10), (8, 11)]
    parts = [
        np.array([[-1 - number, *range(start, end), 91 + number]]).T for number, (start, end) in enumerate(windows)
    ]
    assert joined(parts, windows).ravel().tolist() == [-1, *range(11), 93]
    from_part = [np.full((end - start + 2, 1), number) for number, (start, end) in enumerate(windows)]
    assert joined(from_part, windows).ravel().tolist() == [0] * 6 + [1] * 4 + [2] * 3


def test_a_task_may_have_a_model_of_its_own():
    assert chosen(task="fill-mask").model == "xlmr-mini"


@pytest.mark.parametrize("framework", [None, "pt", "torch"])
def test_a_backend_knows_its_own_names(framework):
    assert chosen(model="m", framework=framework).model == "m"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"framework": "tf"}, "in xlmr_torch framework must be 'torch', received 'tf'; import pipeline from xlmr_tf"),
        ({"framework": "flax"}, "received 'flax'; import pipeline from xlmr_flax"),
        ({"framework": "mxnet"}, "received 'mxnet'; leave it out"),
        ({"framework": ["pt"]}, r"received \['pt'\]"),
        ({"task": "paraphrase"}, "expected a task of .*, received 'paraphrase'"),
        ({"task": None}, "expected a task of .*, received none; pass task="),
        ({}, "letter-counting needs a model, received none; pass model="),
        ({"model": SimpleNamespace()}, "does not say where its tokenizer is; pass tokenizer="),
        (
            {"model": "m", "config": TOKENIZER},
            "config must be a configuration or its name.*pass a tokenizer as tokenizer=",
        ),
        ({"model": "m", "options": {"topk": 3}}, "takes the options .* received topk"),
        ({"model": "m", "options": {"shape": "round"}}, "shape must be one of"),
    ],
)
def test_mistakes_are_named_before_anything_is_loaded(arguments, message):
    with pytest.raises(XLMRError, match=message):
        chosen(**arguments)


def test_a_configuration_is_handed_on():
    config = XLMRobertaConfig()
    assert chosen(model="m", config=config).arguments == {"config": config}


# ---- Published words of a pipeline


def test_the_answers_to_a_data_set_have_its_length(count):
    answers = count(Numbered(TEXTS))
    assert len(answers) == 3 and next(answers) == {"a": 3} and len(list(answers)) == 2
    with pytest.raises(TypeError):
        len(count(iter(TEXTS)))


def test_a_published_class_takes_what_it_would_be_anyway():
    kind = pipeline_class(__name__, FakeRunner, "LetterCountingPipeline")
    made = kind(None, TOKENIZER, task="letter-counting", framework="torch")
    assert (made.framework, made.dtype, made.torch_dtype) == ("pt", None, None)
    with pytest.raises(InputError, match="does letter-counting, received task='fill-mask'; leave it out"):
        kind(None, TOKENIZER, task="fill-mask")
    with pytest.raises(InputError, match="import pipeline from xlmr_tf"):
        kind(None, TOKENIZER, framework="tf")


def test_hypotheses_are_sentences_in_the_language_of_the_texts():
    config = SimpleNamespace(id2label={0: "entailment", 1: "other"}, max_tokens=64)
    task = ZeroShotClassification(TOKENIZER, config)
    for language, template in TEMPLATES.items():
        assert template.count("{}") == 1
        options = ZeroShotClassificationOptions(candidate_labels="a, b", language=language)
        assert task.prepare(options).hypothesis_template == template
        own = replace(options, hypothesis_template="Is it {}?")
        assert task.prepare(own).hypothesis_template == "Is it {}?"
    with pytest.raises(InputError, match="language must be one of 'en', "):
        ZeroShotClassificationOptions(language="xx")
