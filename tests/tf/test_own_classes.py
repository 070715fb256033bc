"""Models that a user's code changed: what was added is saved and loaded with the rest, or the save is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")
keras = pytest.importorskip("keras")

import xlmr_tf  # noqa: E402
from tests.tf.models import CLASSES, Case, each_family  # noqa: E402
from xlmr_core.checkpoint import open_checkpoint  # noqa: E402
from xlmr_core.checkpoints.load_plan import LoadWarning  # noqa: E402
from xlmr_core.errors import CheckpointError, InputError  # noqa: E402

ADDED = {
    *("head.weight", "head.bias", "scale", "steps", "stack.0.weight", "stack.0.bias"),
    *("parts.norm.weight", "parts.norm.bias"),
    *(f"parts.batch.{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")),
}


def built(layer, *shape):
    layer.build((None, *shape))
    return layer


def own_class(family):
    """A class as users write it: an encoder, layers beside it, variables of several kinds."""
    encoder = getattr(xlmr_tf, f"TF{family}Model")

    class Own(getattr(xlmr_tf, f"TF{family}PreTrainedModel")):
        def __init__(self, config, width=5, constant=0.25, **kwargs):
            super().__init__(config, **kwargs)
            self.roberta = encoder(config, add_pooling_layer=False)
            self.scale = self.add_weight((2,), initializer=keras.initializers.Constant(constant))
            self.steps = self.add_weight((3,), initializer="ones", dtype="int32", trainable=False)
            self.head = built(keras.layers.Dense(width), config.hidden_size)
            self.stack = built(keras.Sequential([keras.layers.Dense(4), keras.layers.Dropout(0.1)]), width)
            self.parts = {
                "norm": built(keras.layers.LayerNormalization(), 4),
                "batch": built(keras.layers.BatchNormalization(), 4),
            }

        def call(self, input_ids, attention_mask=None):
            x = self.head(self.roberta(input_ids, attention_mask=attention_mask).last_hidden_state[:, 0])
            return self.parts["batch"](self.parts["norm"](self.stack(x))) * self.scale[0]

    return Own


def randomized(model):
    rng = np.random.default_rng(3)
    for variable in model.weights:
        variable.assign(rng.integers(0, 9, variable.shape) if "int" in variable.dtype else rng.random(variable.shape))
    return model


def assert_same(one, other):
    assert [tuple(x.shape) for x in one.weights] == [tuple(x.shape) for x in other.weights]
    for ours, theirs in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)


@each_family
@pytest.mark.parametrize("size", ["5GB", 3000], ids=["one-file", "shards"])
def test_a_class_of_ones_own_comes_back_whole(family, size, tmp_path):
    case = Case(family, "Model")
    model = randomized(own_class(family)(case.config()))
    model.save_pretrained(tmp_path, max_shard_size=size)
    loaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] == info["unexpected_keys"] == info["mismatched_keys"] == []
    assert_same(loaded, model)
    assert loaded.steps.dtype == "int32" and not loaded.steps.trainable
    np.testing.assert_array_equal(loaded(**case.inputs()), model(**case.inputs()))
    with open_checkpoint(tmp_path) as file:
        assert {name for name in file.names if not name.startswith("roberta.")} == ADDED
        # The published layout, (out, in), as a torch.nn.Linear of the same attribute has it.
        np.testing.assert_array_equal(file.tensor("head.weight").to_numpy(), model.head.kernel.numpy().T)


@each_family
def test_what_a_checkpoint_lacks_is_as_the_class_made_it(family, tmp_path):
    published = Case(family, "ForMaskedLM").kept()
    published.save_pretrained(tmp_path)
    with pytest.warns(LoadWarning, match=r"Own: scale, steps, head.weight.* start with fresh values"):
        model, info = own_class(family).from_pretrained(tmp_path, output_loading_info=True, width=7, constant=2.0)
    assert set(info["missing_keys"]) == ADDED and info["report"].model == "Own"
    assert model.head.units == 7 and (model.scale.numpy() == 2).all() and (model.steps.numpy() == 1).all()
    assert model.head.kernel.numpy().std() > 0.1  # Keras's own initializer
    table = "roberta.embeddings.word_embeddings.weight"
    np.testing.assert_array_equal(model.get_values(table), published.get_values(table))


def test_fit_goes_on_after_a_load(tmp_path):
    case = Case("XLMRoberta", "Model")
    own_class("XLMRoberta")(case.config(num_hidden_layers=1)).save_pretrained(tmp_path)
    model = own_class("XLMRoberta").from_pretrained(tmp_path)
    before = model(**case.inputs()).numpy()
    model.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(case.inputs(), np.zeros(len(before), int), verbose=0)
    assert np.abs(model(**case.inputs()).numpy() - before).max() > 0


def test_a_replaced_layer_and_a_frozen_one(tmp_path):
    case = Case("XLMRoberta", "ForTokenClassification")

    class Replaced(case.model_class):
        def __init__(self, config, **kwargs):
            super().__init__(config, **kwargs)
            self.classifier = built(keras.layers.Dense(config.num_labels, use_bias=False), config.hidden_size)
            self.roberta.embeddings.trainable = False

    case.kept().save_pretrained(tmp_path)
    model = Replaced.from_pretrained(tmp_path)
    # A layer of the same kind, name and size takes the file's values.
    np.testing.assert_array_equal(model.classifier.kernel, case.kept().classifier.kernel)
    model.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = Replaced.from_pretrained(tmp_path)
    assert_same(loaded, model)
    assert len(loaded.trainable_variables) == len(model.trainable_variables) < len(model.weights)
    assert loaded(case.inputs()).logits.shape == (4, 6, CLASSES)


def test_models_inside_and_shared_layers(tmp_path):
    case = Case("XLMRoberta", "Model")
    published = case.kept()
    published.save_pretrained(tmp_path / "published")

    class Own(xlmr_tf.TFXLMRobertaPreTrainedModel):
        def __init__(self, config, **kwargs):
            super().__init__(config, **kwargs)
            self.roberta = xlmr_tf.TFXLMRobertaModel(config, add_pooling_layer=False)
            self.teacher = xlmr_tf.TFXLMRobertaModel.from_pretrained(tmp_path / "published")
            self.second = xlmr_tf.TFXLMRobertaForMaskedLM(config)
            self.table = self.roberta.embeddings.word_embeddings
            self.post_init()

    with pytest.warns(LoadWarning, match="teacher.embeddings.word_embeddings.weight.* and .* more"):
        model = Own.from_pretrained(tmp_path / "published")
    assert_same(model.teacher, published)
    for name, row in model.second.parameter_table().items():
        if name.endswith("dense.weight"):
            assert model.second.get_values(name).std() == pytest.approx(0.02, rel=0.3), name
        assert np.isfinite(model.second.get_values(name)).all() and row.tied_to in (
            None,
            *model.second.parameter_table(),
        )
    model = randomized(model)
    model.save_pretrained(tmp_path / "own")
    loaded, info = Own.from_pretrained(tmp_path / "own", output_loading_info=True)
    assert info["missing_keys"] == info["unexpected_keys"] == []
    assert_same(loaded, model)
    assert loaded.table is loaded.roberta.embeddings.word_embeddings


def test_another_size_is_named(tmp_path):
    own = own_class("XLMRoberta")
    own(Case("XLMRoberta", "Model").config(), width=6).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"head.weight must have the shape \(5, 16\).*from the class itself"):
        own.from_pretrained(tmp_path)
    with pytest.warns(LoadWarning, match=r"head.weight has the shape \(6, 16\)"):
        assert own.from_pretrained(tmp_path, ignore_mismatched_sizes=True).head.units == 5
    with pytest.raises(TypeError, match="does not know the argument 'wdith'"):
        own.from_pretrained(tmp_path, wdith=6)


def in_a_set(model):
    model.odd = {built(keras.layers.Dense(2), 3)}


def of_tensorflow(model):
    model.scale = tf.Variable([1.0, 2.0])
    model.parts = {"deep": [tf.Variable(1.0)]}
    model.module = tf.Module()
    model.module.inside = tf.Variable(3.0, name="inside")


def another_decoder(model):
    model.set_output_embeddings(built(keras.layers.Dense(41, use_bias=False), 16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (in_a_set, r"kernel, .*bias of TFXLMRobertaForMaskedLM would not be saved; keep layers and variables of"),
        (of_tensorflow, r"^scale, .*parts.deep.0.* would not be saved; .*add_weight, not tf.Variable"),
        (of_tensorflow, r"module.inside:0"),
        (another_decoder, r"lm_head.decoder.weight is tied to .* set config.tie_word_embeddings = False to save it"),
    ],
)
def test_what_would_be_lost_is_refused_before_anything_is_written(change, message, tmp_path):
    model = Case("XLMRoberta", "ForMaskedLM").build()
    model.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    change(model)
    with pytest.raises(InputError, match=message):
        model.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_mistakes_in_a_class_are_named(tmp_path):
    config = Case("XLMRoberta", "Model").config()

    class Without(xlmr_tf.TFXLMRobertaPreTrainedModel):
        def __init__(self, config, **kwargs):
            super().__init__(config, **kwargs)
            self.post_init()

    with pytest.raises(
        InputError, match=r"Without has no encoder as self.roberta; set self.roberta = TFXLMRobertaModel"
    ):
        Without(config)

    class Late(xlmr_tf.TFXLMRobertaPreTrainedModel):
        def __init__(self, config, **kwargs):
            super().__init__(config, **kwargs)
            self.roberta = xlmr_tf.TFXLMRobertaModel(config)
            self.head = keras.layers.Dense(2)

    model = Late(config)
    model.head.build((None, 16))
    model.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"head.weight has no place yet, .* call self.head.build\(shape\) there"):
        Late.from_pretrained(tmp_path)
