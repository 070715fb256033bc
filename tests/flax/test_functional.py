"""The functional way: parameters as a tree, the way that published scripts for Flax models are written."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs the extra flax: pip install 'xlmr[flax]'")

import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402
from flax import nnx, traverse_util  # noqa: E402
from flax.training import train_state  # noqa: E402

from tests.choice import chosen  # noqa: E402
from tests.flax import models  # noqa: E402
from xlmr_core.errors import InputError  # noqa: E402
from xlmr_flax.losses import cross_entropy  # noqa: E402


def same(one, other, atol=0.0):
    jax.tree.map(partial(np.testing.assert_allclose, atol=atol, rtol=0), one, other)


def test_the_tree_has_the_published_paths():
    paths = {"/".join(path) for path in traverse_util.flatten_dict(models.model("ForSequenceClassification").params)}
    assert {
        "roberta/embeddings/word_embeddings/embedding",
        "roberta/embeddings/LayerNorm/scale",
        "roberta/encoder/layer/0/attention/self/query/kernel",
        "roberta/encoder/layer/1/output/LayerNorm/bias",
        "classifier/out_proj/kernel",
    } <= paths
    assert "lm_head/decoder/kernel" in {
        "/".join(path) for path in models.model("ForMaskedLM", tie_word_embeddings=False).required_params
    }
    assert "lm_head/decoder/kernel" not in {"/".join(path) for path in models.model("ForMaskedLM").required_params}


def test_a_published_training_loop():
    """Train state, dropout key, pure loss from logits, gradients, two optimizers' steps; the loss falls."""
    model = models.model("ForSequenceClassification", num_hidden_layers=1)
    given = models.labelled("ForSequenceClassification", models.batch())
    labels = given.pop("labels")
    state = train_state.TrainState.create(apply_fn=model.__call__, params=model.params, tx=optax.adamw(1e-2))

    @partial(jax.jit, donate_argnums=0)
    def train_step(state, batch, labels, dropout_rng):
        dropout_rng, new_dropout_rng = jax.random.split(dropout_rng)

        def loss_fn(params):
            logits = state.apply_fn(**batch, params=params, dropout_rng=dropout_rng, train=True)[0]
            return cross_entropy(logits, labels)

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        return state.apply_gradients(grads=grads), loss, new_dropout_rng

    before = jax.tree.map(jnp.copy, state.params)
    rng, losses = jax.random.PRNGKey(0), []
    for _ in range(12):
        state, loss, rng = train_step(state, given, labels, rng)
        losses.append(float(loss))
    assert losses[-1] < losses[0] / 2
    model.params = state.params
    assert float(model(**given, labels=labels).loss) < float(model(**given, labels=labels, params=before).loss) / 2


def test_the_object_way_trains_the_same():
    model, functional = models.model(num_hidden_layers=1), models.model(num_hidden_layers=1)
    given = models.labelled("ForMaskedLM", models.batch())
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, batch):
        loss, gradients = nnx.value_and_grad(lambda model: model(**batch).loss)(model)
        optimizer.update(model, gradients)
        return loss

    def loss_of(params):
        return functional(**given, params=params).loss

    params = functional.params
    for _ in range(2):
        loss, gradients = jax.value_and_grad(loss_of)(params)
        params = jax.tree.map(lambda x, gradient: x - 0.1 * gradient, params, gradients)
        np.testing.assert_allclose(step(model, optimizer, given), loss, rtol=1e-5)
    same(model.params, params, atol=1e-5)


def test_apply_is_a_call_with_variables():
    model = models.model()
    given, key = models.batch(), jax.random.key(3)
    same(model.apply({"params": model.params}, **given), model(**given))
    dropped = model.apply({"params": model.params}, **given, train=True, rngs={"dropout": key})
    same(dropped, model(**given, train=True, dropout_rng=key))
    with pytest.raises(InputError, match="variables must be"):
        model.apply(model.params, **given)


def test_dropout_follows_the_key_alone():
    model = models.model()
    given = models.batch()
    first = model(**given, train=True, dropout_rng=jax.random.key(0)).logits
    same(first, model(**given, train=True, dropout_rng=jax.random.key(0)).logits)
    assert np.abs(first - model(**given, train=True, dropout_rng=jax.random.key(1)).logits).max() > 0.1
    assert np.abs(first - model(**given, dropout_rng=jax.random.key(0)).logits).max() > 0.1
    with pytest.raises(InputError, match="dropout_rng"):
        model(**given, train=True)
    model.train()
    same(first, model(**given, dropout_rng=jax.random.key(0)).logits)
    model.eval()
    same(model(**given).logits, model(**given, dropout_rng=jax.random.key(0)).logits)


def test_without_init_parameters_live_outside():
    model = models.model(_do_init=False)
    given = models.batch()
    for attempt in (lambda: model.params, lambda: model(**given)):
        with pytest.raises(InputError, match="_do_init=False"):
            attempt()
    assert all(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(model.params_shape_tree))
    params = model.init_weights(jax.random.key(0), (1, 1))
    same(params, models.model(seed=0).params)
    same(model(**given, params=params), models.model(seed=0)(**given))
    kept = model.init_weights(jax.random.key(9), (1, 1), {"lm_head": {"bias": jnp.full(61, 7.0)}})
    assert (kept["lm_head"]["bias"] == 7).all()
    assert set(traverse_util.flatten_dict(kept)) == model.required_params


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_computing_in_half_precision_leaves_parameters_float32(dtype):
    model, whole = models.model(dtype=dtype, num_hidden_layers=1), models.model(num_hidden_layers=1)
    given = models.labelled("ForMaskedLM", models.batch())
    output = model(**given)
    assert output.logits.dtype == dtype and output.loss.dtype == jnp.float32
    assert {x.dtype.name for x in jax.tree.leaves(model.params)} == {"float32"}
    np.testing.assert_allclose(output.loss, whole(**given).loss, rtol=3e-2)
    gradients = jax.grad(lambda params: model(**given, params=params).loss)(model.params)
    assert {x.dtype.name for x in jax.tree.leaves(gradients)} == {"float32"}


def test_casting_parameters():
    model = models.model()
    half = model.to_bf16(model.params)
    assert {x.dtype.name for x in jax.tree.leaves(half)} == {"bfloat16"}
    assert {x.dtype.name for x in jax.tree.leaves(model.to_fp16(half))} == {"float16"}
    assert {x.dtype.name for x in jax.tree.leaves(model.to_fp32(half))} == {"float32"}
    flat = traverse_util.flatten_dict(model.params)
    mask = traverse_util.unflatten_dict({path: path[-1] == "kernel" for path in flat})
    cast = traverse_util.flatten_dict(model.to_bf16(model.params, mask))
    assert {path[-1] for path, x in cast.items() if x.dtype == jnp.bfloat16} == {"kernel"}


@cache
def through_the_layers(family, way):
    """Loss, states and gradients, with dropout, so that the keys are the same too; and the program."""
    model = models.model(family=family)
    if "remat" in way:
        model.enable_gradient_checkpointing()
    if "scan" in way:
        model.set_scan_layers(True)
    given = models.labelled("ForMaskedLM", models.batch())

    def loss(params):
        output = model(**given, params=params, dropout_rng=jax.random.key(0), train=True, output_hidden_states=True)
        return output.loss, output.hidden_states

    traced = jax.jit(jax.value_and_grad(loss, has_aux=True)).trace(model.params)
    return traced.lower().compile()(model.params), str(traced.jaxpr)


WAYS = [("XLMRoberta", "remat"), ("XLMRobertaXL", "scan"), ("XLMRoberta", "scan and remat")]


@pytest.mark.parametrize(("family", "way"), chosen(WAYS, WAYS[:2]))
def test_other_ways_through_the_layers_are_the_same_function(family, way):
    (found, graph), (wanted, _) = through_the_layers(family, way), through_the_layers(family, "plain")
    same(found, wanted, atol=1e-5)
    assert ("remat" in way, "scan" in way) == ("remat2" in graph or "checkpoint[" in graph, "scan[" in graph)


def test_axes_have_names():
    axes = models.model().logical_axes
    layer = axes["roberta"]["encoder"]["layer"]["0"]
    assert layer["intermediate"]["dense"]["kernel"] == ("hidden", "ffn")
    assert layer["attention"]["self"]["query"]["kernel"] == ("hidden", "attention")
    assert axes["roberta"]["embeddings"]["word_embeddings"]["embedding"] == ("vocab", "hidden")
    shapes = traverse_util.flatten_dict(models.model().params_shape_tree)
    assert all(len(dims) == len(shapes[path].shape) for path, dims in traverse_util.flatten_dict(axes).items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda params: {"params": params}, "what stands under 'params'"),
        (
            lambda params: {**params, "classifier": {"kernel": jnp.zeros((2, 2))}},
            "beside the model's, classifier/kernel",
        ),
        (lambda params: {name: x for name, x in params.items() if name != "lm_head"}, "lack lm_head/bias"),
        (
            lambda params: {**params, "lm_head": {**params["lm_head"], "bias": jnp.zeros(60)}},
            r"lm_head/bias must have the shape \(61,\), received \(60,\)",
        ),
    ],
)
def test_parameters_of_another_model_are_refused(change, message):
    model = models.model()
    with pytest.raises(InputError, match=message):
        model(**models.batch(), params=change(model.params))
    with pytest.raises(InputError, match=message):
        model.params = change(model.params)
