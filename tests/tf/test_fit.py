"""Every head under ``fit``: labels among the inputs or beside them, the model's own loss or one given to
``compile``.
"""

from __future__ import annotations

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")
keras = pytest.importorskip("keras")

from tests.choice import chosen, in_turn  # noqa: E402
from tests.tf import tiny  # noqa: E402
from xlmr_core.errors import InputError  # noqa: E402
from xlmr_core.outputs import SequenceClassifierOutput  # noqa: E402

# NumPy about TensorFlow's arrays, and Keras about its own default of shuffle=True.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`shuffle=True` was passed, but will be ignored:UserWarning"),
    pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning"),  # a generator does not know its length
]

SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-100)
BINARY = keras.losses.BinaryCrossentropy(from_logits=True)
SQUARES = keras.losses.MeanSquaredError()

# By case: the class, what of the config is special, the labels if they are not the usual ones, and a loss of Keras that
# means the same.
CASES = {
    "one class": ("XLMRobertaForSequenceClassification", {}, None, SPARSE),
    "one class, XL": ("XLMRobertaXLForSequenceClassification", {}, None, SPARSE),
    "several classes": (
        "XLMRobertaForSequenceClassification",
        {"problem_type": "multi_label_classification"},
        np.array([[1, 0, 1], [0, 0, 1], [1, 1, 0], [0, 0, 0]], np.float32),
        BINARY,
    ),
    "regression": (
        "XLMRobertaForSequenceClassification",
        {"num_labels": 1},
        np.array([[0.5], [-1.0], [2.0], [0.25]], np.float32),
        SQUARES,
    ),
    "tokens": ("XLMRobertaForTokenClassification", {}, None, SPARSE),
    "choices": ("XLMRobertaForMultipleChoice", {}, None, SPARSE),
    "answers": ("XLMRobertaForQuestionAnswering", {}, None, {"start_positions": SPARSE, "end_positions": SPARSE}),
    "masked words": ("XLMRobertaForMaskedLM", {}, None, SPARSE),
    "next words": ("XLMRobertaForCausalLM", {"is_decoder": True}, None, None),
}


def prepared(case: str):
    name, changes, given, loss = CASES[case]
    x = tiny.inputs(name)
    return tiny.build(name, **changes), x, tiny.labels(name, x) if given is None else {"labels": given}, loss


def loss_of(model, x, y):
    return float(model(**{key: tf.constant(value) for key, value in {**x, **y}.items()}).loss)


@pytest.mark.parametrize("case", CASES)
def test_the_models_own_loss_is_trained(case):
    model, x, y, _ = prepared(case)
    before = loss_of(model, x, y)
    model.compile(keras.optimizers.SGD(0.01))
    history = model.fit({**x, **y}, batch_size=tiny.ROWS, epochs=3, verbose=0).history["loss"]
    assert history[0] == pytest.approx(before, rel=1e-5)
    assert loss_of(model, x, y) < history[-1] < history[0]


@pytest.mark.parametrize("case", [case for case, (*_, loss) in CASES.items() if loss is not None])
def test_a_loss_of_keras_is_trained(case):
    model, x, y, loss = prepared(case)
    before = loss_of(model, x, y)
    model.compile(keras.optimizers.SGD(0.01), loss=loss)
    beside = y if len(y) > 1 else y["labels"]
    history = model.fit(x, beside, batch_size=tiny.ROWS, epochs=3, verbose=0).history["loss"]
    # Two answers are two losses to Keras, which adds them up; the model's own loss is their mean.
    assert history[0] / len(y) == pytest.approx(before, rel=1e-5)
    assert loss_of(model, x, y) < before


def test_labels_beside_the_inputs_reach_the_models_own_loss_and_metrics():
    name = "XLMRobertaForTokenClassification"
    x = tiny.inputs(name)
    y = tiny.labels(name, x)["labels"]
    model = tiny.build(name)
    logits = model(**x).logits.numpy()
    correct = float((logits.argmax(-1) == y)[y != -100].mean())
    expected = loss_of(model, x, {"labels": y})
    model.compile(keras.optimizers.SGD(0.0), metrics=["accuracy"])
    found = model.evaluate(x, y, batch_size=tiny.ROWS, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(expected, rel=1e-5)
    assert found["accuracy"] == pytest.approx(correct, abs=1e-6)
    history = model.fit(x, y, batch_size=tiny.ROWS, verbose=0).history
    assert history["accuracy"][0] == pytest.approx(correct, abs=1e-6)


def test_datasets_of_any_length_are_traced_once():
    """A dataset that declares free sizes; the content, the length and the number of rows change, the graph does not."""
    name = "XLMRobertaForSequenceClassification"
    model = tiny.build(name)
    traces = []
    original = model.call

    def counting(*args, **kwargs):
        traces.append(1)
        return original(*args, **kwargs)

    def batches():
        for seed, (rows, length) in enumerate([(4, 6), (4, 6), (4, 9), (2, 7), (3, 5), (4, 8)]):
            x = tiny.inputs(name, rows=rows, length=length, seed=seed)
            yield x, tiny.labels(name, x, seed=seed)["labels"]

    ids = tf.TensorSpec((None, None), tf.int32)
    signature = ({"input_ids": ids, "attention_mask": ids}, tf.TensorSpec((None,), tf.int64))
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    model.call = counting
    model.compile(keras.optimizers.SGD(0.05), loss=SPARSE)
    model.fit(
        dataset.take(2), verbose=0
    )  # TensorFlow traces twice: with the variables that the first step makes, and without
    first = len(traces)
    model.fit(dataset, epochs=2, verbose=0)
    assert len(traces) == first > 0


def test_evaluate_and_predict():
    name = "XLMRobertaForSequenceClassification"
    model, x, y, _ = prepared("one class")
    assert name in type(model).__name__
    model.compile(loss=SPARSE, metrics=["accuracy"])
    called = model(**x)
    found = model.evaluate(x, y["labels"], batch_size=2, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(loss_of(model, x, y), rel=1e-5)
    assert found["accuracy"] == pytest.approx(float((called.logits.numpy().argmax(-1) == y["labels"]).mean()))
    for given in (x, {**x, **y}, tf.data.Dataset.from_tensor_slices(x).batch(2)):
        predicted = model.predict(given, batch_size=None if isinstance(given, tf.data.Dataset) else 2, verbose=0)
        assert type(predicted) is SequenceClassifierOutput
        assert predicted.logits is predicted["logits"] and isinstance(predicted[0], np.ndarray)
        np.testing.assert_allclose(predicted.logits, called.logits, atol=1e-6)
        np.testing.assert_array_equal(predicted.to_tuple()[0], predicted.logits)


def test_weights_of_classes_and_of_examples():
    model, x, y, _ = prepared("one class")
    each = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")
    losses = each(y["labels"], model(**x).logits).numpy()
    of_class, of_example = {0: 1.0, 1: 0.5, 2: 3.0}, np.array([0.0, 2.0, 1.0, 0.5], np.float32)
    model.compile(keras.optimizers.SGD(0.0), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    by_class = model.fit(x, y["labels"], class_weight=of_class, batch_size=4, verbose=0).history["loss"][0]
    assert by_class == pytest.approx((losses * [of_class[label] for label in y["labels"]]).mean(), rel=1e-5)
    by_example = model.fit(x, y["labels"], sample_weight=of_example, batch_size=4, verbose=0).history["loss"][0]
    assert by_example == pytest.approx((losses * of_example).mean(), rel=1e-5)


WEIGHTS = np.array([0.0, 2.0, 1.0, 0.5], np.float32)


PLACES = ("beside", "among")  # the inputs
EACH = [(place, case) for place in PLACES for case in CASES]
IN_TURN = in_turn(PLACES, [case for case in CASES if "XL" not in case])


@pytest.mark.parametrize(("place", "case"), chosen(EACH, IN_TURN))
def test_weights_of_examples_weigh_the_models_own_loss(place, case):
    """The sum of the weighted losses of single rows, divided as the loss is."""
    model, x, y, _ = prepared(case)
    counted = labels_of_rows(case, y)
    alone = [loss_of(model, *({name: v[i : i + 1] for name, v in part.items()} for part in (x, y))) for i in range(4)]
    expected = sum(w * loss * n for w, loss, n in zip(WEIGHTS, alone, counted, strict=True)) / sum(counted)
    assert loss_of(model, x, {**y, "sample_weight": WEIGHTS}) == pytest.approx(expected, rel=1e-4)
    model.compile(keras.optimizers.SGD(0.0))
    labels = y if len(y) > 1 else y["labels"]
    data = {"x": x, "y": labels} if place == "beside" else {"x": {**x, **y}}
    history = model.fit(**data, sample_weight=WEIGHTS, batch_size=tiny.ROWS, verbose=0).history["loss"]
    assert history[0] == pytest.approx(expected, rel=1e-4)
    if place == "among":  # where Keras itself would pass over the weights
        found = model.evaluate(**data, sample_weight=WEIGHTS, batch_size=tiny.ROWS, verbose=0)
        assert found == pytest.approx(expected, rel=1e-4)


def labels_of_rows(case, y):
    """How many labels count in each row."""
    if CASES[case][0].endswith(("MaskedLM", "CausalLM", "TokenClassification")):
        labels = y["labels"][:, 1:] if case == "next words" else y["labels"]
        return (labels != -100).sum(1).tolist()
    return [1] * tiny.ROWS


@pytest.mark.parametrize("loss", [None, SPARSE], ids=["own", "keras"])
def test_weights_of_classes_of_tokens(loss):
    model, x, y, _ = prepared("tokens")
    of_class = {0: 1.0, 1: 0.5, 2: 3.0}
    labels = y["labels"]
    weights = np.vectorize(lambda label: of_class.get(label, 0.0))(labels).astype(np.float32)
    expected = loss_of(model, x, {**y, "sample_weight": weights})
    assert expected != pytest.approx(loss_of(model, x, y), rel=1e-2)
    model.compile(keras.optimizers.SGD(0.0), loss=loss)
    dataset = tf.data.Dataset.from_tensor_slices((x, labels)).batch(tiny.ROWS)
    for data in ({"x": x, "y": labels, "batch_size": tiny.ROWS}, {"x": dataset}):
        found = model.fit(**data, class_weight=of_class, verbose=0).history["loss"][0]
        assert found == pytest.approx(expected, rel=1e-4)
    assert model.fit(dataset, verbose=0).history["loss"][0] != pytest.approx(expected, rel=1e-2)


def test_weights_of_classes_of_rows():
    model, x, y, _ = prepared("one class")
    of_class = {0: 1.0, 1: 0.5, 2: 3.0}
    weights = np.array([of_class[label] for label in y["labels"]], np.float32)
    model.compile(keras.optimizers.SGD(0.0))
    found = model.train_on_batch(x, y["labels"], class_weight=of_class, return_dict=True)["loss"]
    assert found == pytest.approx(loss_of(model, x, {**y, "sample_weight": weights}), rel=1e-5)
    model, x, y, _ = prepared("several classes")
    each = np.broadcast_to(np.array([1.0, 0.5, 3.0], np.float32), y["labels"].shape)
    model.compile(keras.optimizers.SGD(0.0))
    found = model.train_on_batch(x, y["labels"], class_weight=of_class, return_dict=True)["loss"]
    assert found == pytest.approx(loss_of(model, x, {**y, "sample_weight": each}), rel=1e-5)


def test_weights_that_weigh_nothing_are_refused():
    for case, message in (("answers", "does not have"), ("regression", "a regression has none")):
        model, x, y, _ = prepared(case)
        model.compile(keras.optimizers.SGD(0.0))
        with pytest.raises(InputError, match=f"class_weight weighs classes, .*{message}.*pass sample_weight"):
            model.train_on_batch({**x, **y}, class_weight={0: 2.0})
    model, x, y, _ = prepared("one class")
    with pytest.raises(InputError, match="sample_weight weighs the losses of labels, expected labels, received none"):
        model(**x, sample_weight=WEIGHTS)
    model.compile(keras.optimizers.SGD(0.0))
    with pytest.raises(InputError, match="sample_weight weighs labels, expected them as y or among the inputs"):
        model.fit(x, sample_weight=WEIGHTS, verbose=0)
    with pytest.raises(InputError, match=r"sample_weight must have the shape \(4,\) or \(4, 1\), received \(3,\)"):
        model(**x, **y, sample_weight=WEIGHTS[:3])

    class Own(type(model)):
        def call(self, input_ids, attention_mask=None, labels=None):
            return super().call(input_ids, attention_mask, labels=labels)

    model = Own(model.config)
    model.compile(keras.optimizers.SGD(0.0))
    with pytest.raises(InputError, match="expected sample_weight among the arguments of Own.call, .* received none"):
        model.train_on_batch(x, y["labels"], sample_weight=WEIGHTS)


def test_published_words_for_the_models_own_loss():
    model, x, y, _ = prepared("one class")
    for word in ("passthrough", "auto"):
        model.compile(keras.optimizers.SGD(0.0), word)
        assert model.evaluate(x, y["labels"], verbose=0) == pytest.approx(loss_of(model, x, y), rel=1e-5)


def test_without_any_loss_or_label_fit_says_so():
    model, x, _, _ = prepared("one class")
    model.compile(keras.optimizers.SGD(0.0))
    with pytest.raises(InputError, match="expected a loss in compile"):
        model.fit(x, batch_size=4, verbose=0)


def test_callbacks(tmp_path):
    model, x, y, _ = prepared("one class")
    seen = []
    callbacks = [
        keras.callbacks.EarlyStopping("val_loss", patience=0, min_delta=1e9),
        keras.callbacks.ModelCheckpoint(tmp_path / "best.weights.h5", save_weights_only=True),
        keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(sorted(logs))),
        keras.callbacks.TerminateOnNaN(),
    ]
    model.compile(keras.optimizers.SGD(0.05), loss=SPARSE)
    validation = (x, y["labels"])
    history = model.fit(
        x, y["labels"], validation_data=validation, epochs=9, callbacks=callbacks, batch_size=4, verbose=0
    )
    assert len(history.epoch) == 2
    assert seen == [["loss", "val_loss"]] * 2
    other = tiny.build("XLMRobertaForSequenceClassification", seed=1)
    other.load_weights(tmp_path / "best.weights.h5")
    tiny.same_values(other, model)


def test_xla_compiles_fit():
    """``jit_compile=True`` wants fixed sizes and computes the padded path; the numbers are the same."""
    losses = []
    for compiled in (False, True):
        model, x, y, _ = prepared("one class")
        model.compile(keras.optimizers.SGD(0.05), jit_compile=compiled)
        losses.append(model.fit({**x, **y}, batch_size=4, epochs=2, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
