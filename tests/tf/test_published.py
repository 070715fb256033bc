"""Published names of TensorFlow models: each is there with its published meaning, or docs/keras.md says why not."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")
keras = pytest.importorskip("keras")

import xlmr_tf  # noqa: E402
from tests.tf.models import CASES, CLASSES, Case, assert_close, each_case  # noqa: E402
from xlmr_core.errors import InputError  # noqa: E402
from xlmr_core.heads import HEADS, LossKind  # noqa: E402

# NumPy about TensorFlow's arrays.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "keras.md"
SEQUENCE = Case("XLMRoberta", "ForSequenceClassification")


def test_the_page_tells_which_published_names_are_there():
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (there|not there)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    names = [(name, state) for cell, state in rows for name in re.findall(r"`(\w+)`", cell)]
    assert len(names) > 40
    models = [Case("XLMRoberta", head).kept() for head in ("ForMaskedLM", "ForCausalLM")]
    places = [*models, xlmr_tf.modeling_xlm_roberta]
    wrong = [name for name, state in names if any(hasattr(place, name) for place in places) != (state == "there")]
    assert not wrong


@each_case
def test_dummy_inputs_are_taken(case):
    model = case.kept()
    inputs = model.dummy_inputs
    assert list(inputs) == list(model.input_signature) == ["input_ids", "attention_mask", "token_type_ids"]
    for name, spec in model.input_signature.items():
        assert spec.is_compatible_with(inputs[name]) and spec.dtype == tf.int32
    model(inputs)
    assert model.framework == "tf" and model.can_generate() is (case.head == "ForCausalLM")


def test_dummy_inputs_of_a_decoder_with_cross_attention():
    model = Case("XLMRoberta", "ForCausalLM").build(add_cross_attention=True)
    assert model.dummy_inputs["encoder_hidden_states"].shape == (1, 2, 16)
    model(model.dummy_inputs)


def test_outputs_that_are_served():
    model = SEQUENCE.build(output_hidden_states=True)
    inputs = model.dummy_inputs
    output = model(inputs, output_attentions=True)
    served = model.serving_output(output)
    assert list(served) == ["logits", "hidden_states"] and served.hidden_states.shape == (3, 1, 2, 16)
    assert list(model.serving(inputs)) == list(served)
    assert model.serving_output(output.logits) is output.logits


def test_head_masks_by_layer():
    model = SEQUENCE.kept()
    assert model.get_head_mask(None, 2) == [None, None]
    for mask in ([1.0, 0.0], [[1.0, 0.0]] * 2):
        assert model.get_head_mask(tf.constant(mask), 2).shape == (2, 1, 2, 1, 1)
    with pytest.raises(InputError, match=r"head_mask must have one or two axes"):
        model.get_head_mask(tf.ones((1, 1, 1)), 2)


def test_the_bias_of_the_vocabulary():
    model = Case("XLMRoberta", "ForMaskedLM").build()
    assert model.get_lm_head() is model.get_output_layer_with_bias() is model.lm_head
    model.set_bias({"bias": np.arange(41, dtype=np.float32)})
    assert model.get_bias()["bias"] is model.lm_head.bias and float(model.lm_head.bias[3]) == 3.0
    other = SEQUENCE.kept()
    assert other.get_lm_head() is other.get_bias() is None
    other.set_bias({"bias": tf.zeros(3)})


@pytest.mark.parametrize("case", [case for case in CASES if case.head != "Model"], ids=str)
def test_losses_of_logits(case):
    """The published losses are one number a row, but of tokens; their mean is ours."""
    model, inputs = case.kept(), case.inputs("full")
    labels = case.labels(inputs)
    output = model(**inputs, **labels)
    kind = HEADS[case.head].loss
    if kind is LossKind.SPAN:
        assert model.get_label_to_output_name_mapping() == {
            "start_positions": "start_logits",
            "end_positions": "end_logits",
        }
        given = {name.removesuffix("s"): value for name, value in labels.items()}
        losses = model.hf_compute_loss(given, (output.start_logits, output.end_logits))
    elif kind is LossKind.NEXT_TOKENS:
        losses = model.hf_compute_loss(labels["labels"][:, 1:], output.logits[:, :-1])
    else:
        losses = model.hf_compute_loss(labels=labels["labels"], logits=output.logits)
    by_row = kind in (LossKind.SEQUENCE, LossKind.CHOICE, LossKind.SPAN)
    assert losses.shape == (output[1].shape[0] if by_row else 1,)
    assert_close(tf.reduce_mean(losses), output.loss)


def test_losses_of_numbers_and_of_nothing():
    model = SEQUENCE.build(num_labels=1)
    assert model.hf_compute_loss(tf.constant([1.0, 2.0]), tf.constant([[1.0], [4.0]])).numpy().tolist() == [0.0, 4.0]
    with pytest.raises(InputError, match="expected a head with a loss"):
        Case("XLMRoberta", "Model").kept().hf_compute_loss([0], tf.zeros((1, CLASSES)))


def test_a_configuration_turns_checkpointing_on():
    assert SEQUENCE.build(gradient_checkpointing=True).is_gradient_checkpointing
    assert not SEQUENCE.kept().is_gradient_checkpointing


# ---- The parts of a model


def part(name, /, *args, **kwargs):
    return getattr(xlmr_tf.modeling_xlm_roberta, f"TFXLMRoberta{name}")(*args, **kwargs)


def with_values_of(one, other):
    one.set_weights(other.get_weights())
    return one


@pytest.mark.parametrize("training", [False, True])
def test_parts_by_themselves_make_up_a_model(training):
    """Embeddings, layers and pooler with the published arguments give what the model gives."""
    case = Case("XLMRoberta", "Model")
    model, inputs = case.kept(), case.inputs()
    expected = model(**inputs, output_attentions=True, output_hidden_states=True)
    names = {"embeddings": "Embeddings", "encoder": "Encoder", "pooler": "Pooler"}
    parts = {
        name: with_values_of(part(kind, model.config, name=name), getattr(model, name)) for name, kind in names.items()
    }
    assert [layer.name for layer in parts.values()] == list(names)
    x = parts["embeddings"](tf.constant(inputs["input_ids"]), training=training)
    bias = tf.where(inputs["attention_mask"] == 1, 0.0, -1e9)[:, None, None]
    output = parts["encoder"](
        x, attention_mask=bias, head_mask=[None, None], output_attentions=True, output_hidden_states=True
    )
    assert_close(output.last_hidden_state, expected.last_hidden_state)
    for ours, theirs in zip(
        output.attentions + output.hidden_states, expected.attentions + expected.hidden_states, strict=True
    ):
        assert_close(ours, theirs)
    assert_close(parts["pooler"](output.last_hidden_state), expected.pooler_output)
    layer = with_values_of(part("Layer", model.config), model.encoder.layer[0])
    mask = model.get_head_mask(tf.ones(2), 2)[0]
    x, weights = layer(expected.hidden_states[0], bias, mask, None, None, None, True, training=training)
    assert_close(x, expected.hidden_states[1])
    attention = with_values_of(part("Attention", model.config), model.encoder.layer[0].attention)
    first, found = attention(expected.hidden_states[0], bias, None, None, None, None, True)
    assert_close(found, weights)
    inner = with_values_of(part("SelfAttention", model.config), model.encoder.layer[0].attention.self)
    context, *_ = inner(expected.hidden_states[0], bias)
    projection = with_values_of(part("SelfOutput", model.config), model.encoder.layer[0].attention.output_)
    assert_close(projection(context, expected.hidden_states[0]), first)
    wide = with_values_of(part("Intermediate", model.config), model.encoder.layer[0].intermediate)(first)
    narrow = with_values_of(part("Output", model.config), model.encoder.layer[0].output_)
    assert_close(narrow(wide, first), x)


def test_parts_start_with_values_and_heads_read_states():
    config = Case("XLMRoberta", "ForMaskedLM").config(initializer_range=0.5)
    embeddings = part("Embeddings", config)
    assert embeddings.word_embeddings.embeddings.numpy().std() == pytest.approx(0.5, rel=0.2)
    assert embeddings.create_position_ids_from_input_ids(tf.constant([[0, 5, 1]]), 3).numpy().tolist() == [[5, 6, 1]]
    table = embeddings.word_embeddings.embeddings.numpy()
    head = part("LMHead", config, embeddings)
    np.testing.assert_array_equal(embeddings.word_embeddings.embeddings, table)
    assert head.get_output_embeddings() is embeddings.word_embeddings
    head.set_bias({"bias": np.ones(41, np.float32)})
    assert float(head.get_bias()["bias"][0]) == 1.0 and head(tf.zeros((2, 3, 16))).shape == (2, 3, 41)
    assert part("ClassificationHead", config, trainable=False)(tf.zeros((2, 3, 16))).shape == (2, CLASSES)
    model = part("MainLayer", config, add_pooling_layer=False, name="roberta")
    assert model.name == "roberta" and model(tf.constant([[0, 5, 2]])).pooler_output is None
