"""Calls as published scripts make them, and what comes back."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")

from tests.tf.models import CASES, Case, assert_close, each_case, each_graph, same_outputs  # noqa: E402
from xlmr_core.heads import HEADS  # noqa: E402

# The published order of the TensorFlow classes.
START = ["input_ids", "attention_mask", "token_type_ids", "position_ids", "head_mask", "inputs_embeds"]
DECODING = ["encoder_hidden_states", "encoder_attention_mask", "past_key_values", "use_cache"]
END = ["output_attentions", "output_hidden_states", "return_dict"]


@each_case
def test_every_way_to_call_is_the_same(case):
    model, inputs = case.kept(), case.inputs()
    inputs = {name: tf.constant(x) for name, x in inputs.items()}
    expected = model(**inputs)
    same_outputs(model(*inputs.values()), expected)
    same_outputs(model(inputs), expected)
    same_outputs(model(list(inputs.values())), expected)
    same_outputs(model(tuple(inputs.values()), training=False), expected)
    same_outputs(model({name: x.numpy().astype(np.int32) for name, x in inputs.items()}), expected)
    same_outputs(model(inputs["input_ids"], attention_mask=inputs["attention_mask"]), expected)


@each_case
def test_the_order_of_arguments_is_the_published_one(case):
    names = [
        name
        for name, parameter in inspect.signature(type(case.kept()).call).parameters.items()
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ][1:]
    decoding = DECODING if case.head in ("Model", "ForCausalLM") else []
    assert names == [*START, *decoding, *END, *HEADS[case.head].labels, "training"]


@each_case
def test_output_by_attribute_key_index_and_tuple(case):
    model, inputs = case.kept(), case.inputs()
    labels = case.labels(inputs)
    output = model({**inputs, **labels}, output_hidden_states=True, output_attentions=True)
    assert type(output) is HEADS[case.head].output
    fields = list(output)
    assert ("loss" in fields) == bool(labels) and len(output.hidden_states) == 3 and len(output.attentions) == 2
    for place, name in enumerate(fields):
        assert output[place] is output[name] is getattr(output, name) is output.to_tuple()[place]
    as_tuple = model({**inputs, **labels}, return_dict=False)
    assert type(as_tuple) is tuple and len(as_tuple) == len(fields) - 2


@each_graph
def test_a_graph_gives_what_a_call_gives(case):
    model, inputs = case.kept(), case.inputs()
    given, asked = {**inputs, **case.labels(inputs)}, {"output_hidden_states": True, "output_attentions": True}
    same_outputs(tf.function(model)(given, **asked), model(given, **asked))


def test_the_config_chooses_outputs():
    case = Case("XLMRoberta", "ForSequenceClassification")
    model = case.build(output_hidden_states=True, output_attentions=True, return_dict=False)
    output = model(case.inputs())
    assert type(output) is tuple and len(output) == 3 and len(output[1]) == 3 and len(output[2]) == 2
    assert len(model(case.inputs(), output_hidden_states=False, output_attentions=False, return_dict=True)) == 1


@pytest.mark.parametrize("head", ["Model", "ForTokenClassification", "ForQuestionAnswering"])
def test_a_functional_model_on_top(head):
    """Symbolic inputs go through, so that Keras users can build on a model."""
    case = Case("XLMRoberta", head)
    model, inputs = case.kept(), case.inputs()
    symbols = {name: keras.Input((None,), dtype="int32", name=name) for name in inputs}
    first = model(symbols)[0]
    above = keras.Model(symbols, keras.layers.Activation("tanh")(first))
    given = {name: x.astype(np.int32) for name, x in inputs.items()}
    assert_close(above(given), np.tanh(model(inputs)[0]))
    assert above.predict(given, verbose=0).shape == np.shape(model(inputs)[0])


@pytest.mark.parametrize("mode", ["auto", "never"])
def test_a_position_at_a_time(mode):
    case = Case("XLMRoberta", "ForMaskedLM")
    model, inputs = case.kept().set_packing(mode), case.inputs()
    whole = model(inputs).logits.numpy()
    positions = np.array([[1, 5], [2, -1], [0, -1], [3, 0]])
    found = model(inputs, masked_positions=positions).logits.numpy()
    for row, column in np.ndindex(positions.shape):
        expected = whole[row, positions[row, column]] if positions[row, column] >= 0 else np.zeros_like(whole[0, 0])
        assert_close(found[row, column], expected)
    labels = case.labels(inputs)["labels"]
    sparse = model(inputs, labels=labels, sparse_prediction=True)
    assert_close(sparse.logits, whole[labels != -100])
    assert_close(sparse.loss, model(inputs, labels=labels).loss)
    traced = tf.function(
        lambda ids, mask, places, labels: model(ids, mask, masked_positions=places, labels=labels),
        input_signature=[tf.TensorSpec([None, None], tf.int64)] * 4,
    )
    at_positions = np.take_along_axis(labels, np.maximum(positions, 0), 1)
    for given in (labels, at_positions):
        output = traced(inputs["input_ids"], inputs["attention_mask"], positions, given)
        assert_close(output.loss, model(inputs, masked_positions=positions, labels=at_positions).loss)
    model.set_packing("auto")


def test_last_logits_and_divided_losses():
    case = Case("XLMRoberta", "ForCausalLM")
    model, inputs = case.kept(), case.inputs("left")
    whole = model.set_packing("never")(inputs).logits
    model.set_packing("auto")
    assert_close(model(inputs, logits_to_keep=2).logits, whole[:, -2:])
    assert_close(model(inputs, logits_to_keep=np.array([-1, 0])).logits, tf.gather(whole, [5, 0], axis=1))
    labels = case.labels(inputs)["labels"]
    count = int((labels[:, 1:] != -100).sum())
    total = float(model(inputs, labels=labels).loss) * count
    assert float(model(inputs, labels=labels, num_items_in_batch=7).loss) == pytest.approx(total / 7, rel=1e-5)


def test_no_label_gives_nan_and_half_precision_losses_are_float32():
    case = Case("XLMRoberta", "ForTokenClassification")
    inputs = case.inputs()
    assert np.isnan(case.kept()(inputs, labels=np.full((4, 6), -100)).loss)
    for policy in ("mixed_float16", "mixed_bfloat16", "bfloat16"):
        output = case.build(dtype=policy, num_hidden_layers=1)(inputs, **case.labels(inputs))
        assert output.logits.dtype == policy.removeprefix("mixed_") and output.loss.dtype == "float32"
    assert case.build(dtype="float64", num_hidden_layers=1)(inputs, **case.labels(inputs)).loss.dtype == "float64"


def test_a_mask_of_ones_is_no_mask():
    for case in CASES[:7]:
        inputs = case.inputs("full")
        same_outputs(case.kept()(inputs), case.kept()(input_ids=inputs["input_ids"]))
