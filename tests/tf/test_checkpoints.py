"""TensorFlow's own checkpoints hold the whole model, and Keras's files also what is frozen and what a constructor was
given.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")
keras = pytest.importorskip("keras")

import xlmr_tf  # noqa: E402
from tests.tf import tiny  # noqa: E402
from xlmr_core.errors import InputError  # noqa: E402

# NumPy about TensorFlow's arrays.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

NAME = "XLMRobertaForSequenceClassification"


def built(layer, *shape):
    layer.build((None, *shape))
    return layer


class Kept(xlmr_tf.TFXLMRobertaPreTrainedModel):
    """A user's class, with variables in every kind of place."""

    def __init__(self, config, width=5, scales=(1.0, 2.0), *, extra=None, **kwargs):
        super().__init__(config, **kwargs)
        self.roberta = xlmr_tf.TFXLMRobertaModel(config, add_pooling_layer=False)
        self.scale = self.add_weight((2,), initializer=keras.initializers.Constant(scales[0]))
        self.stack = built(keras.Sequential([keras.layers.Dense(4), keras.layers.Dropout(0.1)]), config.hidden_size)
        self.parts = {"norm": (built(keras.layers.BatchNormalization(), 4),), "of_tensorflow": [tf.Variable(1.0)]}
        self.heads = [built(keras.layers.Dense(width), 4), extra]

    def call(self, input_ids, attention_mask=None):
        x = self.stack(self.roberta(input_ids, attention_mask=attention_mask).last_hidden_state[:, 0])
        return self.heads[0](self.parts["norm"][0](x)) * self.scale[0] * self.parts["of_tensorflow"][0]


def own(**more):
    return Kept(tiny.build("XLMRobertaModel", hidden_dropout_prob=0.1).config, **more)


def moved(model, seed=3):
    """The model with other values everywhere, the states of random generators included."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        variable.assign(rng.integers(1, 9, variable.shape).astype(variable.dtype))
    return model


def assert_same(one, other):
    assert len(one.variables) == len(other.variables) > 20
    for ours, theirs in zip(one.variables, other.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)


# ---- tf.train.Checkpoint


@pytest.mark.parametrize("make", [lambda: tiny.build("XLMRobertaXLForMaskedLM"), own], ids=["published", "own"])
def test_everything_comes_back(make, tmp_path):
    model, other = moved(make()), make()
    path = tf.train.Checkpoint(model=model).save(tmp_path / "checkpoint")
    tf.train.Checkpoint(model=other).restore(path).assert_consumed()
    assert_same(other, model)
    if isinstance(model, Kept):
        model.parts["of_tensorflow"][0].assign(7.0)
        tf.train.Checkpoint(inside={"model": other}).restore(
            tf.train.Checkpoint(inside={"model": model}).save(tmp_path / "deep")
        )
        assert float(other.parts["of_tensorflow"][0]) == 7.0


def test_a_manager_and_the_optimizer_of_compile(tmp_path):
    x = tiny.inputs(NAME)
    batch = {**x, **tiny.labels(NAME, x)}

    def compiled():
        model = tiny.build(NAME, hidden_dropout_prob=0.1)
        model.compile(keras.optimizers.Adam(0.01))
        return model, tf.train.CheckpointManager(
            tf.train.Checkpoint(model=model, optimizer=model.optimizer), tmp_path, max_to_keep=1
        )

    model, manager = compiled()
    model.fit(batch, batch_size=2, verbose=0)
    manager.save()
    other, again = compiled()
    assert again.restore_or_initialize() == manager.latest_checkpoint
    assert_same(other, model)
    assert int(other.optimizer.iterations) == 2
    for ours, theirs in zip(other.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)


def test_what_no_name_leads_to_is_refused():
    model = tiny.build(NAME)
    model.odd = {built(keras.layers.Dense(2), 3)}
    with pytest.raises(InputError, match=r"kernel, .*would not be saved; keep layers and variables where TensorFlow"):
        tf.train.Checkpoint(model=model).save("nowhere")


def test_a_run_goes_on_from_a_backup(tmp_path):
    x = tiny.inputs(NAME)
    batch = {**x, **tiny.labels(NAME, x)}
    models = [tiny.build(NAME) for _ in range(2)]
    for model, epochs in zip(models, (2, 2), strict=True):
        model.compile(keras.optimizers.Adam(0.01))
        callback = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
        model.fit(batch, batch_size=4, epochs=epochs, callbacks=[callback], shuffle=False, verbose=0)
    assert_same(*models)  # the second one has nothing left to train
    assert int(models[1].optimizer.iterations) == 2


# ---- What is frozen


def frozen_encoder(model):
    model.roberta.trainable = False


def all_but_the_last_layer(model):
    model.trainable = False
    model.trainable = True
    model.roberta.embeddings.trainable = False
    for layer in model.roberta.encoder.layer[:1]:
        layer.trainable = False
    model.roberta.encoder.layer[0].attention.output_.dense.trainable = True


def one_variable(model):
    model.get_parameter("classifier.out_proj.bias").trainable = False


def adapters(model):
    model.enable_lora(2)
    model.classifier.dense.trainable = False


def the_whole(model):
    model.trainable = False


def from_file(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


WAYS_BACK = {
    "file": from_file,
    "clone": lambda model, folder: keras.models.clone_model(model),
    "config": lambda model, folder: type(model).from_config(model.get_config()),
    "copy": lambda model, folder: copy.deepcopy(model),
}


def flags(model):
    return [bool(variable.trainable) for variable in model.weights]


@pytest.mark.parametrize("freeze", [frozen_encoder, all_but_the_last_layer, one_variable, adapters, the_whole])
@pytest.mark.parametrize("way", WAYS_BACK)
def test_what_is_frozen_stays_so(way, freeze, tmp_path):
    model = tiny.build(NAME, num_hidden_layers=2)
    everything = len(model.trainable_variables)
    freeze(model)
    again = WAYS_BACK[way](model, tmp_path)
    assert flags(again) == flags(model)
    assert len(again.trainable_variables) == len(model.trainable_variables) < everything
    assert [x.trainable for x in again._flatten_layers()] == [x.trainable for x in model._flatten_layers()]


def test_a_frozen_encoder_inside_a_model_of_keras(tmp_path):
    encoder = xlmr_tf.TFXLMRobertaModel(tiny.build("XLMRobertaModel").config, trainable=False)
    assert not any(flags(encoder))
    ids = keras.Input((None,), dtype="int32", name="input_ids")
    model = keras.Model(ids, keras.layers.Dense(2)(encoder(ids).last_hidden_state[:, 0]))
    again = from_file(model, tmp_path)
    assert len(again.trainable_variables) == len(model.trainable_variables) == 2


def test_files_of_earlier_releases_have_no_flags():
    config = tiny.build(NAME).get_config()
    for name in ("trained", "arguments", "gradient_checkpointing"):
        del config[name]
    model = getattr(xlmr_tf, f"TF{NAME}").from_config(config)
    assert len(model.trainable_variables) == len(model.weights)
    old = {**tiny.build("XLMRobertaModel").get_config(), "add_pooling_layer": False}
    assert xlmr_tf.TFXLMRobertaModel.from_config(old).pooler is None


# ---- What a constructor was given


@pytest.mark.parametrize("way", WAYS_BACK)
def test_arguments_of_a_constructor(way, tmp_path):
    model = own(width=3, scales=[0.5], name="mine")
    model.gradient_checkpointing_enable()
    again = WAYS_BACK[way](model, tmp_path)
    assert again.heads[0].units == 3 and again.name == "mine" and again.is_gradient_checkpointing
    assert way != "config" or float(again.scale[0]) == 0.5
    positional = Kept(model.config, 4, (3.0, 4.0))
    assert WAYS_BACK[way](positional, tmp_path).heads[0].units == 4


def test_a_constructor_that_takes_the_configuration_alone(tmp_path):
    class Bare(Kept):
        def __init__(self, config):
            super().__init__(config, 2, dtype="mixed_bfloat16")

    model = Bare(own().config)
    again = from_file(model, tmp_path)
    assert again.heads[0].units == 2 and again.dtype_policy.name == "mixed_bfloat16"


def test_arguments_that_keras_cannot_write_are_refused():
    with pytest.raises(InputError, match=r"arguments of Kept that Keras can .* for extra a value of type object"):
        own(extra=object()).get_config()

    class Placed(Kept):
        def __init__(self, config, *widths, **kwargs):
            super().__init__(config, *widths, **kwargs)

    with pytest.raises(InputError, match=r"for widths\[0\] one that was passed by place"):
        Placed(own().config, 3).get_config()
