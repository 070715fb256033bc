"""``pipeline`` in Keras: the recorded calls, and the ways to name a model."""

from __future__ import annotations

import pytest

pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")

from tests.attention import check_attentions
from tests.recorded_calls import assert_same, read_calls
from xlmr_core.errors import InputError, ModelNotFoundError
from xlmr_tf import TFAutoModelForMaskedLM, pipeline
from xlmr_tf.pipelines import FillMaskPipeline


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "fixtures" / "tasks" / "fill_mask"


@pytest.fixture(scope="module")
def fill(folder):
    return pipeline("fill-mask", model=folder)


def test_recorded_calls(fill, folder):
    calls = read_calls(folder)
    assert len(calls) == 50
    for number, call in enumerate(calls):
        fill.model.set_packing("always" if number % 2 else "never")
        own = fill
        if call["kwargs_init"]:
            own = pipeline(task="fill-mask", model=fill.model, tokenizer=fill.tokenizer, **call["kwargs_init"])
        if isinstance(call["output"], dict):
            with pytest.raises(InputError):
                own(*call["args"], **call["kwargs_call"])
        else:
            assert_same(own(*call["args"], **call["kwargs_call"]), call["output"])
    fill.model.set_packing("auto")


def test_attention_is_that_of_the_reference(fill, folder):
    check_attentions(fill, folder)


def test_the_built_in_model_answers():
    answers = pipeline(task="fill-mask")("Bonjour, je suis un modèle <mask>.", top_k=2)
    assert len(answers) == 2 and answers[0]["score"] > answers[1]["score"] > 0


def test_ways_to_name_a_model(folder, fill):
    text = "The weather is <mask>."
    expected = fill(text)
    model = TFAutoModelForMaskedLM.from_pretrained(folder)
    assert_same(pipeline(model=model)(text), expected)
    assert_same(FillMaskPipeline(model, fill.tokenizer, top_k=5)(text), expected)
    assert type(fill) is FillMaskPipeline and (fill.task, fill.device) == ("fill-mask", "/device:CPU:0")
    assert_same(pipeline("fill-mask", model=str(folder), framework="tf", device="cpu", dtype="float32")(text), expected)
    by_map = pipeline("fill-mask", model=str(folder), device_map={"": "cpu"}, torch_dtype="float32")
    assert_same(by_map(text), expected)
    assert_same(pipeline("fill-mask", model=model, tokenizer=str(folder), batch_size=2)([text, text]), [expected] * 2)


def test_what_is_refused(folder, fill):
    for arguments, message in (
        ({"framework": "pt"}, "in xlmr_tf framework must be 'tf', received 'pt'; import pipeline from xlmr_torch"),
        ({"device": "gpu:9"}, "asks for a GPU"),
        ({"device_map": {"": "gpu:9"}}, "asks for a GPU"),
        ({"config": 3}, "config must be a configuration or its name"),
    ):
        with pytest.raises(InputError, match=message):
            pipeline("fill-mask", model=folder, **arguments)
    with pytest.raises(InputError, match="a model that is given stays where and as it is, received dtype='float16'"):
        pipeline("fill-mask", model=fill.model, dtype="float16")
    with pytest.raises(ModelNotFoundError):
        pipeline("fill-mask", model=folder / "nothing")
