"""What is changed around a training: decay, warm-up, accumulation, precision, adapters, frozen layers, shapes,
checkpointing.
"""

from __future__ import annotations

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")
keras = pytest.importorskip("keras")

from tests.tf import tiny  # noqa: E402

NAME = "XLMRobertaForSequenceClassification"
# NumPy about TensorFlow's arrays.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

NO_DECAY = ("bias", "gamma", "beta")
X = tiny.inputs(NAME)
BATCH = {**X, **tiny.labels(NAME, X)}


def fit(model, optimizer, *, batch=BATCH, epochs=1, batch_size=tiny.ROWS):
    model.compile(optimizer)
    return model.fit(batch, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0).history["loss"]


def values(model):
    return {variable.path: variable.numpy() for variable in model.weights}


def test_weight_decay_skips_biases_and_norms():
    trained = []
    rate, decay = 0.01, 0.5
    for weight_decay in (0.0, decay):
        model = tiny.build(NAME)
        names = [variable.name for variable in model.weights]
        before = list(values(model).values())
        optimizer = keras.optimizers.AdamW(rate, weight_decay=weight_decay)
        optimizer.exclude_from_weight_decay(var_names=NO_DECAY)
        fit(model, optimizer)
        trained.append(list(values(model).values()))
    assert 0 < sum(name in NO_DECAY for name in names) < len(names)
    for name, start, without, with_ in zip(names, before, *trained, strict=True):
        wanted = 0.0 if name in NO_DECAY else -rate * decay * start
        np.testing.assert_allclose(with_ - without, np.broadcast_to(wanted, start.shape), atol=2e-6, err_msg=name)


def test_a_schedule_that_warms_up():
    steps, warm_up, peak = 10, 4, 1e-2
    schedule = keras.optimizers.schedules.CosineDecay(0.0, steps - warm_up, warmup_target=peak, warmup_steps=warm_up)
    rates = []
    model = tiny.build(NAME)
    model.compile(keras.optimizers.AdamW(schedule))
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs=None: rates.append(float(model.optimizer.learning_rate))
    )
    model.fit(BATCH, batch_size=4, epochs=steps, callbacks=[watch], verbose=0)
    assert rates[:5] == pytest.approx([0, 0.25 * peak, 0.5 * peak, 0.75 * peak, peak])
    assert rates[4] > rates[5] > rates[-1] > 0


def test_accumulated_gradients_are_those_of_the_large_batch():
    large, small = tiny.build(NAME), tiny.build(NAME)
    fit(large, keras.optimizers.SGD(0.1), batch_size=4)
    before = values(small)
    fit(small, keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), batch_size=2)
    assert any((values(small)[path] != value).any() for path, value in before.items())
    tiny.same_values(small, large, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy):
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = tiny.build(NAME)
    finally:
        keras.config.set_dtype_policy(previous)
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    assert model.roberta.encoder.layer[0].intermediate.dense.compute_dtype == policy.removeprefix("mixed_")
    exact = tiny.build(NAME)
    tiny.same_values(model, exact)
    history = fit(model, keras.optimizers.SGD(0.05), epochs=2)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (policy == "mixed_float16")
    np.testing.assert_allclose(history, fit(exact, keras.optimizers.SGD(0.05), epochs=2), rtol=0.03)


def test_adapters():
    model = tiny.build(NAME)
    model.enable_lora(2, targets=("query", "value"))
    names = [variable.path for variable in model.trainable_variables if "lora" in variable.name]
    assert len(names) == 4, "two for each of query and value"
    others = {variable.path for variable in model.trainable_variables} - set(names)
    assert others and all(variable.path not in others for variable in model.roberta.weights), "and the head's own"
    start, plain = values(model), model(**X).logits.numpy()
    fit(model, keras.optimizers.SGD(0.5), epochs=2)
    changed = {path for path, value in values(model).items() if (value != start[path]).any()}
    assert changed == {variable.path for variable in model.trainable_variables}
    adapted = model(**X).logits.numpy()
    assert np.abs(adapted - plain).max() > 1e-3


def test_adapters_are_saved_as_part_of_the_weights(tmp_path):
    model = tiny.build(NAME)
    model.enable_lora(2)
    fit(model, keras.optimizers.SGD(0.5), epochs=2)
    expected = model(**X).logits.numpy()
    model.save_pretrained(tmp_path / "folder")
    model.save(tmp_path / "file.keras")
    for again in (
        type(model).from_pretrained(tmp_path / "folder"),
        keras.models.load_model(tmp_path / "file.keras", compile=False),
    ):
        np.testing.assert_allclose(again(**X).logits, expected, atol=1e-5)


def test_a_frozen_encoder_stays():
    model = tiny.build(NAME)
    model.roberta.trainable = False
    start = values(model)
    fit(model, keras.optimizers.SGD(0.5))
    changed = {path for path, value in values(model).items() if (value != start[path]).any()}
    assert changed == {variable.path for variable in model.classifier.weights}


def test_checkpointed_gradients_are_the_same():
    trained = []
    for enabled in (False, True):
        model = tiny.build(NAME, num_hidden_layers=2)
        if enabled:
            model.gradient_checkpointing_enable()
        assert model.is_gradient_checkpointing is enabled
        fit(model, keras.optimizers.SGD(0.1))
        trained.append(model)
    tiny.same_values(*trained, atol=1e-6)


def test_a_model_of_another_shape_trains():
    model = tiny.build(NAME)
    model.resize_token_embeddings(tiny.VOCABULARY + 3)
    model.prune_heads({0: [1]})
    assert model.roberta.encoder.layer[0].attention.self.query.kernel.shape == (16, 8)
    ids = X["input_ids"].copy()
    ids[0, 0] = tiny.VOCABULARY + 2
    history = fit(model, keras.optimizers.SGD(0.1), batch={**BATCH, "input_ids": ids}, epochs=3)
    assert history[-1] < history[0]
    fresh = model.get_input_embeddings().embeddings
    assert fresh.shape[0] == tiny.VOCABULARY + 3
