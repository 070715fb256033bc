"""Published names of Flax models: each is there with its published meaning, or docs/flax.md says why not."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs the extra flax: pip install 'xlmr[flax]'")

import jax.numpy as jnp  # noqa: E402
from jax.sharding import AxisType, NamedSharding, PartitionSpec  # noqa: E402

import xlmr_flax  # noqa: E402
from tests.flax import models  # noqa: E402
from xlmr_core.checkpoints.load_plan import LoadWarning  # noqa: E402
from xlmr_core.errors import InputError  # noqa: E402
from xlmr_flax import modeling_xlm_roberta  # noqa: E402

PAGE = Path(__file__).resolve().parents[2] / "docs" / "flax.md"


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_the_page_tells_which_published_names_are_there():
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (there|not there)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    names = [(name, state) for cell, state in rows for name in re.findall(r"`(\w+)`", cell)]
    assert len(names) > 30
    model = models.model("ForCausalLM")
    wrong = [n for n, state in names if (hasattr(model, n) or hasattr(modeling_xlm_roberta, n)) != (state == "there")]
    assert not wrong


def test_key_and_shape_draw_the_parameters_of_the_model():
    model = models.model(seed=3)
    same(model.init_weights(model.key, model.input_shape), model.params)
    np.testing.assert_array_equal(model.key, jax.random.PRNGKey(3))
    empty = xlmr_flax.FlaxXLMRobertaForMaskedLM(models.config(), (2, 7), seed=3, _do_init=False)
    assert empty.input_shape == (2, 7)
    same(empty.init_weights(empty.key, empty.input_shape), model.params)
    paths = [path for path, _ in jax.tree.leaves_with_path(model.params)]
    assert empty.required_params == {tuple(step.key for step in path) for path in paths}
    assert model.framework == "flax" and model.can_generate() is False


def test_init_weights_draws_what_a_tree_lacks():
    model = models.model()
    given = {"lm_head": jax.tree.map(jnp.ones_like, model.params["lm_head"])}
    drawn = model.init_weights(model.key, model.input_shape, params=given)
    same(drawn["lm_head"], given["lm_head"])
    same(drawn["roberta"], model.params["roberta"])


def test_a_seed_is_kept_by_a_load(tmp_path):
    models.model().save_pretrained(tmp_path)
    model = xlmr_flax.FlaxXLMRobertaForMaskedLM.from_pretrained(tmp_path, seed=7)
    np.testing.assert_array_equal(model.key, jax.random.PRNGKey(7))


def test_the_module_is_pure_functions():
    model, batch = models.model("ForSequenceClassification", hidden_dropout_prob=0.5), models.batch()
    module = model.module
    variables = module.init({"params": model.key, "dropout": model.key}, batch["input_ids"])
    same(variables["params"], model.params)
    rows = (batch["input_ids"], batch["attention_mask"], None, None, None)
    same(module.apply(variables, *rows), model(**batch))
    rngs = {"dropout": jax.random.PRNGKey(1)}
    dropped = module.apply(variables, *rows, deterministic=False, rngs=rngs)
    same(dropped, model(**batch, train=True, dropout_rng=rngs["dropout"]))
    assert module.config is model.config and module.dtype == jnp.float32


def test_positions_under_the_published_name():
    ids = jnp.array([[0, 5, 1], [1, 7, 2]])
    positions = modeling_xlm_roberta.create_position_ids_from_input_ids(ids, 1)
    assert positions.tolist() == [[2, 3, 1], [1, 2, 3]]


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "msgpack"])
@pytest.mark.parametrize("size", ["5GB", "20KB"])
@pytest.mark.parametrize("cast", ["to_fp16", "to_bf16", "masked"])
def test_half_precision_that_was_saved_stays_so(cast, size, safe, tmp_path):
    model = models.model()
    if cast == "masked":
        mask = jax.tree_util.tree_map_with_path(lambda path, _: "LayerNorm" not in str(path), model.params)
        params = model.to_bf16(model.params, mask)
    else:
        params = getattr(model, cast)(model.params)
    model.save_pretrained(tmp_path, params=params, max_shard_size=size, safe_serialization=safe)
    with pytest.warns(LoadWarning, match="parameters are b?float16, as a Flax model saved them; pass param_dtype"):
        loaded = xlmr_flax.FlaxXLMRobertaForMaskedLM.from_pretrained(tmp_path)
    same(loaded.params, params)
    assert jax.tree.map(lambda x: x.dtype, loaded.params) == jax.tree.map(lambda x: x.dtype, params)
    assert loaded.config.dtype in ("bfloat16", "float16")
    wide = xlmr_flax.FlaxXLMRobertaForMaskedLM.from_pretrained(tmp_path, param_dtype="float32")
    assert {x.dtype.name for x in jax.tree.leaves(wide.params)} == {"float32"}


def test_files_of_other_frameworks_give_float32():
    model = xlmr_flax.FlaxXLMRobertaForMaskedLM.from_pretrained("xlmr-mini")  # stored in float16
    assert {x.dtype.name for x in jax.tree.leaves(model.params)} == {"float32"}


@pytest.mark.parametrize("jitted", [False, True])
def test_explicit_axes_of_a_mesh_get_a_sentence(jitted):
    model, batch = models.model("Model"), models.batch()
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Explicit,))
    ids = jax.device_put(batch["input_ids"], NamedSharding(mesh, PartitionSpec("data")))

    def states(params, ids):
        return model(ids, params=params).last_hidden_state

    call = jax.jit(states) if jitted else states
    with pytest.raises(InputError, match=r"the mesh of input_ids must have axes of the type Auto, .* axis_types="):
        call(model.params, ids)
    table = model.params["embeddings"]["word_embeddings"]["embedding"]
    params = jax.tree.map(lambda x: x, model.params)
    params["embeddings"]["word_embeddings"]["embedding"] = jax.device_put(
        table, NamedSharding(mesh, PartitionSpec(None, "data"))
    )
    with pytest.raises(InputError, match=r"the mesh of embeddings/word_embeddings/embedding must have"):
        call(params, batch["input_ids"])


def test_a_configuration_turns_checkpointing_on():
    assert models.model().is_gradient_checkpointing is False
    model = xlmr_flax.FlaxXLMRobertaModel(models.config(gradient_checkpointing=True), _do_init=False)
    assert model.is_gradient_checkpointing
