"""The pipeline of every task, on a task and a runner that are made up; then what ``pipeline()`` decides before it
loads.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.core.fake_task import ROW, TOKENIZER, FakeRunner
from xlmr_core import tasks
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError, XLMRError
from xlmr_core.tasks import TASKS, find_task
from xlmr_core.tasks.choosing import choose
from xlmr_core.tasks.fill_mask import FillMask
from xlmr_core.tasks.pipeline import Pipeline, pipeline_class


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
    with pytest.raises(XLMRError, match="expected a task of 'fill-mask'.*received 'fillmask'"):
        find_task("fillmask")


@pytest.mark.parametrize("row", [*tasks.TASKS.values(), ROW], ids=lambda row: row.name)
def test_a_row_says_what_is_true(row):
    task = row.load()
    assert row.pipeline == f"{task.__name__}Pipeline"
    assert task.wanted and task.Options()
    assert row.example.startswith(f"xlmr run --task {row.name}") and len(row.example) < 76
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
        ({"task": "translation"}, "expected a task of .*, received 'translation'"),
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
