"""Parameters divided over devices: by which rules, and that a training step stays the same function."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs the extra flax: pip install 'xlmr[flax]'")

import optax  # noqa: E402
from flax import traverse_util  # noqa: E402
from jax.sharding import AxisType, Mesh, NamedSharding  # noqa: E402
from jax.sharding import PartitionSpec as P  # noqa: E402

from tests.choice import chosen, in_turn  # noqa: E402
from tests.flax import models  # noqa: E402
from xlmr_core.errors import InputError  # noqa: E402
from xlmr_flax.sharding import DATA_PARALLEL, FSDP, TENSOR_PARALLEL, param_shardings  # noqa: E402

# Sizes that two and four devices divide.
EVEN = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
LAYOUTS = {
    "data parallel": ((4,), ("data",), DATA_PARALLEL),
    "FSDP": ((4,), ("data",), FSDP),
    "tensor parallel": ((4,), ("model",), TENSOR_PARALLEL),
    "FSDP and tensor parallel": ((2, 2), ("data", "model"), {**FSDP, **TENSOR_PARALLEL}),
}
TX = optax.sgd(0.1, momentum=0.9)


def mesh_of(layout):
    shape, names, _ = LAYOUTS[layout]
    return Mesh(np.reshape(jax.devices(), shape), names)


def specs(model, mesh, rules):
    found = traverse_util.flatten_dict(param_shardings(model, mesh, rules), sep="/")
    return {path.removeprefix("roberta/encoder/layer/0/"): sharding.spec for path, sharding in found.items()}


@pytest.mark.parametrize("family", models.FAMILIES)
def test_rules_are_read_from_the_parameter_table(family):
    model = models.model("ForMaskedLM", family, _do_init=False, **EVEN)
    found = specs(model, mesh_of("FSDP and tensor parallel"), {**FSDP, **TENSOR_PARALLEL})
    assert found["attention/self/query/kernel"] == P("data", "model")
    assert found["attention/self/query/bias"] == P("model")
    assert found["attention/output/dense/kernel"] == P("model", "data")
    assert found["intermediate/dense/kernel"] == P("data", "model")
    assert found["output/dense/kernel"] == P("model", "data")
    assert found["output/dense/bias"] == P("data")
    assert found["roberta/embeddings/word_embeddings/embedding"] == P("model", "data")
    assert found["lm_head/dense/kernel"] == P("data", None)  # both axes are the hidden one
    assert found["lm_head/bias"] == P("model")
    norm = "LayerNorm/scale" if family == "XLMRobertaXL" else "output/LayerNorm/scale"
    assert found[norm] == P("data")


def test_data_parallel_divides_nothing():
    model = models.model("ForTokenClassification", _do_init=False)
    assert set(specs(model, mesh_of("data parallel"), DATA_PARALLEL).values()) <= {P(None), P(None, None)}


@pytest.mark.parametrize(
    ("changes", "rules", "message"),
    [
        ({}, {"hidden": "model"}, r"over \['model'\], the mesh has the axes \('data',\)"),
        ({}, {"width": "data"}, r"no parameter has an axis \['width'\]"),
        (
            {"vocab_size": 66},
            {"vocab": "data"},
            r"word_embeddings/embedding has 66 along vocab.*resize_token_embeddings",
        ),
        ({"intermediate_size": 42}, {"ffn": "data"}, "42 along ffn, which 4 devices do not divide evenly"),
    ],
)
def test_rules_that_do_not_fit_are_refused(changes, rules, message):
    model = models.model("ForMaskedLM", _do_init=False, **{**EVEN, **changes})
    with pytest.raises(InputError, match=message):
        param_shardings(model, mesh_of("FSDP"), rules)


def test_a_mesh_of_another_type_is_refused():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Explicit,))
    with pytest.raises(InputError, match="axis_types"):
        param_shardings(models.model(_do_init=False, **EVEN), mesh, FSDP)


# ---- A training step


def given():
    return models.labelled("ForMaskedLM", models.batch((10, 6, 3, 9)))


def make_step(model, shardings=None):
    """A step of SGD; the state comes out where it went in, so that its memory can be used again."""

    @partial(jax.jit, donate_argnums=(0, 1), out_shardings=shardings)
    def step(params, moments, batch):
        loss, gradients = jax.value_and_grad(lambda params: model(**batch, params=params).loss)(params)
        updates, moments = TX.update(gradients, moments, params)
        return optax.apply_updates(params, updates), moments, loss

    return step


@cache
def on_one_device(family):
    model = models.model("ForMaskedLM", family, **EVEN)
    params = jax.tree.map(np.asarray, model.params)
    step, moments, losses = make_step(model), TX.init(model.params), []
    trained = jax.device_put(params)
    for _ in range(2):
        trained, moments, loss = step(trained, moments, given())
        losses.append(float(loss))
    return params, jax.tree.map(np.asarray, trained), losses


EACH = [(family, layout) for family in models.FAMILIES for layout in LAYOUTS]


@pytest.mark.parametrize(("family", "layout"), chosen(EACH, in_turn(list(models.FAMILIES), list(LAYOUTS))))
def test_a_step_on_a_mesh_is_that_of_one_device(family, layout):
    start, wanted, wanted_losses = on_one_device(family)
    model = models.model("ForMaskedLM", family, _do_init=False, **EVEN)
    mesh, rules = mesh_of(layout), LAYOUTS[layout][2]
    shardings = param_shardings(model, mesh, rules)
    batch = jax.device_put(given(), NamedSharding(mesh, P("data" if "data" in mesh.axis_names else None)))
    params = jax.device_put(start, shardings)
    moments = TX.init(params)  # zeros lie where the parameters do
    places = jax.tree.map(lambda x: x.sharding, (params, moments))

    whole = sum(x.size for x in jax.tree.leaves(params))
    held = sum(x.addressable_shards[0].data.size for x in jax.tree.leaves(params))
    assert held / whole == pytest.approx(
        {"data parallel": 1, "FSDP": 0.26, "tensor parallel": 0.47}.get(layout, 0.33), abs=0.02
    )
    jax.tree.map(
        lambda trace, param: trace.sharding.is_equivalent_to(param.sharding, param.ndim), moments[0].trace, params
    )

    step, losses = make_step(model, (*places, NamedSharding(mesh, P()))), []
    for _ in range(2):
        before = params
        params, moments, loss = step(params, moments, batch)
        losses.append(float(loss))
        assert all(x.is_deleted() for x in jax.tree.leaves(before))
    np.testing.assert_allclose(losses, wanted_losses, rtol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), jax.tree.map(np.asarray, params), wanted)


def test_fresh_parameters_can_be_drawn_in_their_places():
    """So that no device ever holds all of a large model."""
    model = models.model("ForMaskedLM", _do_init=False, **EVEN)
    shardings = param_shardings(model, mesh_of("FSDP"), FSDP)
    params = jax.jit(model.init_weights, out_shardings=shardings)(jax.random.key(0))
    whole = model.init_weights(jax.random.key(0))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), params, whole)
    assert params["lm_head"]["dense"]["kernel"].addressable_shards[0].data.shape == (8, 32)


def test_a_model_with_divided_parameters_answers_and_saves(tmp_path):
    """In the object style: the parameters are the model's own."""
    import xlmr_flax

    model = models.model("ForMaskedLM", **EVEN)
    wanted = model(**models.batch((10, 6))).logits
    model.params = jax.device_put(model.params, param_shardings(model, mesh_of("tensor parallel"), TENSOR_PARALLEL))
    np.testing.assert_allclose(model(**models.batch((10, 6))).logits, wanted, atol=1e-5)
    model.save_pretrained(tmp_path)
    loaded = xlmr_flax.FlaxXLMRobertaForMaskedLM.from_pretrained(tmp_path)
    np.testing.assert_allclose(loaded(**models.batch((10, 6))).logits, wanted, atol=1e-5)
