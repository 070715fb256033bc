"""Packed and padded give the same answers where packing promises them, eagerly and in one graph for all batches."""

from __future__ import annotations

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")

from tests.choice import chosen  # noqa: E402
from tests.parity.compare import fill_of  # noqa: E402
from tests.tf.models import (  # noqa: E402
    CASES,
    GRAPHS,
    TOKENWISE,
    Case,
    assert_close,
    gradients,
    packed_calls,
    same_outputs,
)
from xlmr_core.errors import InputError  # noqa: E402
from xlmr_tf.packing import Packing  # noqa: E402


def test_literal_packing():
    packing = Packing.from_mask(tf.constant([[1, 1, 1], [0, 1, 1]]) != 0)
    assert packing.indices_T.numpy().tolist() == [0, 1, 2, 4, 5]
    assert packing.cu_seqlens.numpy().tolist() == [0, 3, 5]
    x_BS = tf.constant([[10, 11, 12], [13, 14, 15]])
    packed = packing.pack(x_BS)
    assert packed.numpy().tolist() == [10, 11, 12, 14, 15]
    assert packing.unpack(packed).numpy().tolist() == [[10, 11, 12], [0, 14, 15]]
    assert packing.first_tokens(packed).numpy().tolist() == [10, 14]
    assert packing.locate(tf.constant([2, 4])).numpy().tolist() == [2, 3]
    full = Packing.full(2, 3)
    assert full.indices_T.numpy().tolist() == [0, 1, 2, 3, 4, 5] and full.cu_seqlens.numpy().tolist() == [0, 3, 6]


def expected_of(case, inputs):
    """The padded path's answer, and where packing promises it."""
    model = case.kept().set_packing("never")
    output = model(inputs, output_hidden_states=True)
    model.set_packing("auto")
    return output, inputs["attention_mask"].reshape(-1, inputs["attention_mask"].shape[-1]) == 1


def assert_promise(case, actual, expected, mask_BS, *, packed):
    """Equal where the mask is 1 and filled elsewhere if the call was packed, equal everywhere if not."""
    for name, x in expected.items():
        pairs = zip(actual[name], x, strict=True) if isinstance(x, tuple) else [(actual[name], x)]
        for one, other in pairs:
            one, other = np.asarray(one), np.asarray(other)
            if packed and (name == "hidden_states" or name in TOKENWISE) and one.shape[:2] == mask_BS.shape:
                assert (one[~mask_BS] == fill_of(name)).all(), name
                one, other = one[mask_BS], other[mask_BS]
            assert_close(one, other, what=f"{case} {name}")


# By default with labels, and without where these decide what may be packed, or there are none.
EACH = [(case, labelled) for case in GRAPHS for labelled in (False, True) if case.head != "Model" or not labelled]
FEW = [(case, labelled) for case, labelled in EACH if labelled or case.head in ("Model", "ForQuestionAnswering")]


@pytest.mark.parametrize(("case", "labelled"), chosen(EACH, FEW), ids=str)
def test_one_graph_keeps_every_promise(case, labelled):
    """A graph cannot choose by values: the same one answers batches that are packed and batches for which the padded
    path is due.
    """
    model = case.kept()
    given = case.inputs()
    given.update(case.labels(given) if labelled else {})
    signature = [{name: tf.TensorSpec([None] * x.ndim, x.dtype) for name, x in given.items()}]
    traced = tf.function(lambda x: model(x, output_hidden_states=True), input_signature=signature)
    for mask in ("right", "left", "inside", "full", "empty"):
        inputs = case.inputs(mask)
        inputs.update(case.labels(inputs) if labelled else {})
        expected, mask_BS = expected_of(case, inputs)
        reads_masked = mask == "left" and case.first_token
        spans = labelled and case.head == "ForQuestionAnswering"
        packed = mask != "empty" and not reads_masked and not spans
        actual = traced({name: tf.constant(x) for name, x in inputs.items()})
        assert_promise(case, actual, expected, mask_BS, packed=packed)
        with packed_calls(model) as calls:
            eagerly = model(inputs, output_hidden_states=True)
        assert calls == [packed and mask != "full"]
        assert_promise(case, eagerly, expected, mask_BS, packed=packed)
    assert traced.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("head", ["ForMaskedLM", "ForTokenClassification", "ForCausalLM"])
def test_a_label_at_a_masked_position(head):
    case = Case("XLMRoberta", head)
    inputs = case.inputs("right")
    labels = case.labels(inputs)["labels"].copy()
    labels[1, 4] = 2
    inputs = {**inputs, "labels": labels}
    expected, _ = expected_of(case, inputs)
    model = case.kept()
    same_outputs(model(inputs, output_hidden_states=True), expected)
    traced = tf.function(model)
    same_outputs(traced(inputs, output_hidden_states=True), expected)


@pytest.mark.parametrize("head", ["ForMaskedLM", "ForCausalLM", "ForSequenceClassification"])
def test_gradients_are_those_of_the_padded_path(head):
    case = Case("XLMRoberta", head)
    model = case.kept()
    inputs = case.inputs()
    inputs.update(case.labels(inputs))
    packed = gradients(case, model, inputs)
    padded = gradients(case, model.set_packing("never"), inputs)
    model.set_packing("auto")
    assert any(x.any() for x in packed.values())
    for name, x in padded.items():
        assert_close(packed[name], x, what=name)


def test_second_derivatives():
    case = Case("XLMRoberta", "ForSequenceClassification")
    inputs = case.inputs()
    found = []
    for mode in ("auto", "never"):
        model = case.kept().set_packing(mode)
        embeds = tf.cast(
            tf.gather(model.roberta.embeddings.word_embeddings.embeddings, inputs["input_ids"]), tf.float32
        )
        with tf.GradientTape() as outer:
            outer.watch(embeds)
            with tf.GradientTape() as inner:
                inner.watch(embeds)
                logits = model(inputs_embeds=embeds, attention_mask=inputs["attention_mask"]).logits
                score = tf.reduce_sum(logits[:, 0])
            slope = tf.reduce_sum(inner.gradient(score, embeds) ** 2)
        found.append(outer.gradient(slope, embeds).numpy())
    case.kept().set_packing("auto")
    assert np.abs(found[0]).max() > 1e-6
    assert_close(*found, tolerance=1e-4)


@pytest.mark.parametrize("packing", ["always", "never"])
def test_attention_dropout_acts_in_training(packing):
    case = Case("XLMRoberta", "ForMaskedLM")
    model = case.build(attention_probs_dropout_prob=0.5, num_hidden_layers=1).set_packing(packing)
    inputs = case.inputs()
    still = model(inputs).logits
    for run in (model, tf.function(model), tf.function(model, jit_compile=True)):
        one, other = (run(inputs, training=True).logits for _ in range(2))
        kept = inputs["attention_mask"] == 1
        # The row of a single token attends to itself alone; even that weight is dropped or doubled.
        for x, y in ((one, other), (one, still), (other, still)):
            assert np.abs(np.asarray(x - y))[kept].max() > 1e-3
        assert_close(run(inputs).logits[0], still[0], tolerance=1e-4)


def test_packed_attention_with_dropout_has_the_gradient_of_what_it_computed():
    """The backward loop draws the same dropout again: along a direction the slope is the difference of two calls from
    one seed.
    """
    from xlmr_tf.packed_attention import packed_attention

    packing = Packing.from_mask(tf.constant([[1, 1, 1], [0, 1, 1]]) != 0)
    rng = np.random.default_rng(0)
    query, key, value, direction = (tf.constant(rng.normal(size=(5, 2, 4))) for _ in range(4))
    for causal in (False, True):
        options = {"scale": 0.5, "dropout": 0.4, "seed": tf.constant([1, 2]), "causal": causal}
        for place in range(3):
            tensors = [query, key, value]

            def loss(x, place=place, tensors=tensors, options=options):
                given = [*tensors[:place], x, *tensors[place + 1 :]]
                return tf.reduce_sum(packed_attention(*given, packing, **options) ** 2)

            with tf.GradientTape() as tape:
                tape.watch(tensors[place])
                at = loss(tensors[place])
            slope = tf.reduce_sum(tape.gradient(at, tensors[place]) * direction)
            step = 1e-6 * direction
            difference = (loss(tensors[place] + step) - loss(tensors[place] - step)) / 2e-6
            assert float(slope) == pytest.approx(float(difference), rel=1e-6, abs=1e-8)


def test_modes():
    model = CASES[0].kept()
    assert model.packing == "auto"
    with pytest.raises(InputError, match="packing must be one of 'auto', 'always', 'never', received 'some'"):
        model.set_packing("some")
    full = {"input_ids": tf.constant([[0, 5, 2]])}
    for mode, expected in (("auto", [False]), ("always", [True]), ("never", [False])):
        with packed_calls(model.set_packing(mode)) as calls:
            model(full)
        assert calls == expected
    model.set_packing("auto")


def test_xla_takes_the_padded_path():
    case = Case("XLMRoberta", "ForMaskedLM")
    model = case.kept()
    inputs = case.inputs()
    with packed_calls(model) as calls:
        output = tf.function(model, jit_compile=True)(inputs)
    assert calls == [False]
    same_outputs(output, model.set_packing("never")(inputs))
    model.set_packing("auto")
    with pytest.raises(InputError, match="sparse_prediction=True gives logits of a size that the labels"):
        tf.function(model, jit_compile=True)(inputs, labels=inputs["input_ids"], sparse_prediction=True)
