"""Models that a user's code changed: what was added is saved and loaded with the rest, or the save is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs the extra flax: pip install 'xlmr[flax]'")

import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402
from flax import nnx  # noqa: E402

import xlmr_flax  # noqa: E402
from tests.flax import models  # noqa: E402
from xlmr_core.checkpoint import open_checkpoint  # noqa: E402
from xlmr_core.checkpoints.load_plan import LoadWarning  # noqa: E402
from xlmr_core.errors import CheckpointError, InputError  # noqa: E402
from xlmr_flax.functional import flatten  # noqa: E402

ADDED = {
    *("head.weight", "head.bias", "scale", "steps", "stack.layers.0.weight", "stack.layers.0.bias"),
    *("norm.weight", "norm.bias", "batch.scale", "batch.bias", "batch.mean", "batch.var"),
}


class Steps(nnx.Variable):
    """A kind of variable that no optimizer looks at."""


def own_class(family):
    """A class as users write it: an encoder, layers beside it, variables of several kinds."""
    encoder = getattr(xlmr_flax, f"Flax{family}Model")

    class Own(getattr(xlmr_flax, f"Flax{family}PreTrainedModel")):
        def __init__(self, config, width=5, constant=0.25, **options):
            super().__init__(config, **options)
            self.roberta = encoder(config, add_pooling_layer=False)
            self.head = nnx.Linear(config.hidden_size, width, rngs=nnx.Rngs(0))
            self.stack = nnx.Sequential(nnx.Linear(width, 4, rngs=nnx.Rngs(1)), nnx.Dropout(0.1, rngs=nnx.Rngs(2)))
            self.norm = nnx.LayerNorm(4, rngs=nnx.Rngs(3))
            self.batch = nnx.BatchNorm(4, use_running_average=True, rngs=nnx.Rngs(4))
            self.scale = nnx.Param(jnp.full(2, constant))
            self.steps = Steps(jnp.arange(3))

        def __call__(self, input_ids, attention_mask, params=None):
            model, _ = self.prepare(params, None, False)
            states = model.roberta(input_ids, attention_mask).last_hidden_state
            x = model.batch(model.norm(model.stack.layers[0](model.head(states[:, 0]))))
            return x * model.scale[0]

    return Own


def variables(model):
    """Every variable but random states, by path."""
    state = nnx.to_flat_state(nnx.state(model))
    return {path: value for path, value in state if not isinstance(value, nnx.RngState)}


def randomized(model):
    rng = np.random.default_rng(3)
    for variable in variables(model).values():
        value = variable.get_value()
        variable.set_value(jnp.asarray(rng.random(value.shape) * 9, value.dtype))
    nnx.update(model, nnx.from_flat_state(list(variables(model).items())))
    return model


def assert_same(one, other):
    ours, theirs = variables(one), variables(other)
    assert ours.keys() == theirs.keys()
    for path, value in theirs.items():
        np.testing.assert_array_equal(ours[path].get_value(), value.get_value(), err_msg=str(path))


@pytest.mark.parametrize("family", models.FAMILIES)
@pytest.mark.parametrize("size", ["5GB", "3KB"])
def test_a_class_of_ones_own_comes_back_whole(family, size, tmp_path):
    own = own_class(family)
    model = randomized(own(models.config(family)))
    model.save_pretrained(tmp_path, max_shard_size=size)
    loaded, info = own.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] == info["unexpected_keys"] == info["mismatched_keys"] == []
    assert_same(loaded, model)
    assert loaded.steps.get_value().dtype == jnp.int32
    np.testing.assert_array_equal(loaded(**models.batch()), model(**models.batch()))
    with open_checkpoint(tmp_path) as file:
        assert {name for name in file.names if not name.startswith("roberta.")} == ADDED
        # The published layout, (out, in), as a torch.nn.Linear of the same attribute has it.
        np.testing.assert_array_equal(file.tensor("head.weight").to_numpy(), model.head.kernel[...].T)


def test_parameters_beside_the_model(tmp_path):
    own = own_class("XLMRoberta")
    model = randomized(own(models.config()))
    model.save_pretrained(tmp_path, params=jax.tree.map(lambda x: x + 1, model.params))
    empty, params = own.from_pretrained(tmp_path, _do_init=False)
    jax.tree.map(lambda one, other: np.testing.assert_array_equal(one, other + 1), params, model.params)
    model.params = params
    np.testing.assert_array_equal(empty(**models.batch(), params=params), model(**models.batch()))
    axes = flatten(model.logical_axes)
    assert axes.keys() == flatten(params).keys() and axes["head", "kernel"] == ("own", "own")


@pytest.mark.parametrize("family", models.FAMILIES)
def test_what_a_checkpoint_lacks_is_as_the_class_made_it(family, tmp_path):
    published = models.model(family=family)
    published.save_pretrained(tmp_path)
    with pytest.warns(LoadWarning, match=r"Own: head.weight, head.bias.* start with fresh values"):
        model, info = own_class(family).from_pretrained(
            tmp_path, "bfloat16", output_loading_info=True, width=7, constant=2.0, low_cpu_mem_usage=True
        )
    assert set(info["missing_keys"]) == ADDED and info["report"].model == "Own"
    assert model.head.kernel.shape == (24, 7) and (model.scale[...] == 2).all() and model.dtype == jnp.bfloat16
    assert model.head.kernel[...].std() > 0.1  # Flax's own initializer
    np.testing.assert_array_equal(
        model.get_input_embeddings().embedding[...], published.get_input_embeddings().embedding[...]
    )


@pytest.mark.parametrize("where", ["_build", "__init__"])
def test_layers_beside_and_in_the_place_of_ours(where, tmp_path):
    base = xlmr_flax.FlaxXLMRobertaForTokenClassification

    def add(self, config):
        self.classifier = nnx.Sequential(
            nnx.Linear(24, 9, rngs=nnx.Rngs(0)), nnx.Linear(9, config.num_labels, rngs=nnx.Rngs(1))
        )
        self.extra = xlmr_flax.linear.Linear(3, 2)  # without values

    class Replaced(base):
        def _build(self, config):
            super()._build(config)
            if where == "_build":
                add(self, config)

        def __init__(self, config, *arguments, **options):
            super().__init__(config, *arguments, **options)
            if where == "__init__":
                add(self, config)

    models.model("ForTokenClassification").save_pretrained(tmp_path)
    with pytest.warns(LoadWarning, match=r"classifier.layers.0.weight.*extra.weight"):
        model = Replaced.from_pretrained(tmp_path)
    assert model.extra.kernel[...].std() > 0 and not model.extra.bias[...].any()
    model.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = Replaced.from_pretrained(tmp_path)
    assert_same(loaded, model)


def test_models_inside_and_shared_variables(tmp_path):
    published = models.model("Model")
    published.save_pretrained(tmp_path / "published")

    class Own(xlmr_flax.FlaxXLMRobertaPreTrainedModel):
        def __init__(self, config, **options):
            super().__init__(config, **options)
            self.roberta = xlmr_flax.FlaxXLMRobertaModel(config, add_pooling_layer=False)
            self.teacher = xlmr_flax.FlaxXLMRobertaModel.from_pretrained(tmp_path / "published")
            self.second = xlmr_flax.FlaxXLMRobertaForMaskedLM(config)
            self.again = nnx.Embed(61, 24, rngs=nnx.Rngs(0))
            self.again.embedding = self.roberta.embeddings.word_embeddings.embedding

    with pytest.warns(LoadWarning, match=r"teacher.* and .* more"):
        model = Own.from_pretrained(tmp_path / "published")
    assert_same(model.teacher, published)
    second = flatten(model.second.params)
    assert not second["roberta", "embeddings", "word_embeddings", "embedding"][1].any()  # drawn as the table says
    assert all(np.asarray(x).std() > 0.1 for path, x in second.items() if path[-2:] == ("dense", "kernel"))
    model = randomized(model)
    model.save_pretrained(tmp_path / "own")
    with open_checkpoint(tmp_path / "own") as file:
        assert "again.weight" not in file.names and "second.lm_head.dense.weight" in file.names
    loaded, info = Own.from_pretrained(tmp_path / "own", output_loading_info=True)
    assert info["missing_keys"] == info["unexpected_keys"] == []
    assert_same(loaded, model)
    assert loaded.again.embedding is loaded.roberta.embeddings.word_embeddings.embedding


def test_another_size_is_named(tmp_path):
    own = own_class("XLMRoberta")
    own(models.config(), width=6).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"head.weight must have the shape \(5, 24\).*from the class itself"):
        own.from_pretrained(tmp_path)
    with pytest.warns(LoadWarning, match=r"head.weight has the shape \(6, 24\)"):
        assert own.from_pretrained(tmp_path, ignore_mismatched_sizes=True).head.kernel.shape == (24, 5)


def test_what_cannot_be_saved_is_refused_before_anything_is_written(tmp_path):
    model = own_class("XLMRoberta")(models.config())
    with pytest.raises(InputError, match=r"safe_serialization=False writes the published parameters only.*head.weight"):
        model.save_pretrained(tmp_path / "new", safe_serialization=False)
    model.wave = nnx.Param(jnp.zeros(2, jnp.complex64))
    with pytest.raises(InputError, match=r"wave is complex64, which no checkpoint here holds"):
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


class Pair(nnx.Pytree):
    """Parameters that are no module."""

    def __init__(self):
        self.weight = nnx.Param(jnp.ones(2))


def with_attribute(value):
    class Own(own_class("XLMRoberta")):
        def _build(self, config):
            super()._build(config)
            self.added = value()

    return Own


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (lambda: jnp.ones(3), "added"),
        (lambda: np.ones(3), "added"),
        (lambda: nnx.List([nnx.Dict(x=jnp.ones(3))]), "added.0.x"),
        (lambda: nnx.data(jax.tree_util.Partial(print, nnx.Param(jnp.ones(2)))), "added.*"),
    ],
)
def test_values_that_are_no_variables_are_refused_before_anything_is_written(value, path, tmp_path):
    model = with_attribute(value)(models.config())
    with pytest.raises(InputError, match=rf"^{path} of Own would not be saved; .*in nnx.Param or nnx.Variable"):
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (Pair, {"added.weight"}),
        (lambda: nnx.Rngs(0), set()),
        (lambda: jax.random.key(0), set()),
        (lambda: nnx.metrics.Average(), set()),
        (lambda: nnx.Optimizer(Pair(), optax.adam(1e-3), wrt=nnx.Param), set()),
        (lambda: 3.0, set()),
    ],
)
def test_what_is_no_module_is_saved_and_passing_states_are_not(value, names, tmp_path):
    own = with_attribute(value)
    own(models.config()).save_pretrained(tmp_path)
    with open_checkpoint(tmp_path) as file:
        assert {name for name in file.names if not name.startswith("roberta.")} == ADDED | names
    _, info = own.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] == info["unexpected_keys"] == []


def test_a_class_without_an_encoder_is_named(tmp_path):
    class Without(xlmr_flax.FlaxXLMRobertaPreTrainedModel):
        def __init__(self, config, **options):
            super().__init__(config, **options)
            self.head = nnx.Linear(2, 2, rngs=nnx.Rngs(0))

    with pytest.raises(InputError, match=r"Without has no encoder as self.roberta; set self.roberta = FlaxXLMRoberta"):
        Without(models.config()).save_pretrained(tmp_path)
