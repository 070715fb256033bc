"""From files to models and back."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs the extra flax: pip install 'xlmr[flax]'")

import jax.numpy as jnp  # noqa: E402
from flax import serialization  # noqa: E402

import xlmr_flax  # noqa: E402
from tests.flax import models  # noqa: E402
from xlmr_core import checkpoint  # noqa: E402
from xlmr_core.checkpoints.load_plan import LoadWarning  # noqa: E402
from xlmr_core.errors import CheckpointError, InputError, ModelNotFoundError  # noqa: E402
from xlmr_core.parameters import stored_names  # noqa: E402
from xlmr_flax import functional, loading  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture
def saved(tmp_path):
    model = models.model()
    model.save_pretrained(tmp_path)
    return model, tmp_path


def load(folder, *arguments, head="ForMaskedLM", family="XLMRoberta", **more):
    return getattr(xlmr_flax, f"Flax{family}{head}").from_pretrained(folder, *arguments, **more)


@pytest.mark.parametrize("size", ["5GB", "20KB"])
@pytest.mark.parametrize("head", models.HEADS)
@pytest.mark.parametrize("family", models.FAMILIES)
def test_round_trip(family, head, size, tmp_path):
    model = models.model(head, family)
    model.save_pretrained(tmp_path, max_shard_size=size)
    assert len(list(tmp_path.glob("*.safetensors"))) == (1 if size == "5GB" else pytest.approx(7, abs=5))
    with checkpoint.open_checkpoint(tmp_path) as file:
        assert sorted(file.names) == sorted(stored_names(model.parameter_table()))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == [family + head] and config.get("dtype", config.get("torch_dtype")) == "float32"
    assert_same(load(tmp_path, head=head, family=family).params, model.params)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtypes_of_parameters_and_of_computing(dtype, tied, tmp_path):
    model = models.model(tie_word_embeddings=tied)
    cast = {"bfloat16": model.to_bf16, "float16": model.to_fp16, "float32": model.to_fp32}[dtype]
    model.save_pretrained(tmp_path, params=cast(model.params))
    auto = load(tmp_path, param_dtype="auto")
    assert_same(auto.params, cast(model.params))
    assert {x.dtype.name for x in jax.tree.leaves(auto.params)} == {dtype}
    assert auto.dtype == jnp.float32
    wide = load(tmp_path, jnp.bfloat16 if dtype == "float32" else "float32", param_dtype="float32")
    assert {x.dtype.name for x in jax.tree.leaves(wide.params)} == {"float32"}
    assert wide(**models.batch()).logits.dtype == ("bfloat16" if dtype == "float32" else "float32")


def test_without_init_the_parameters_come_beside_the_model(saved):
    model, folder = saved
    empty, params = load(folder, _do_init=False)
    assert_same(params, model.params)
    assert all(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(functional.read_params(empty)))
    assert_same(empty(**models.batch(), params=params), model(**models.batch()))


def test_loading_information_and_config_values(saved):
    _, folder = saved
    model, info = load(folder, output_loading_info=True, hidden_dropout_prob=0.25, packing="never")
    assert info["missing_keys"] == info["unexpected_keys"] == []
    assert model.config.hidden_dropout_prob == 0.25 and model.packing == "never"
    assert model.name_or_path == str(folder)
    with pytest.raises(TypeError, match="hiden_dropout_prob"):
        load(folder, hiden_dropout_prob=0.25)


def test_a_head_starts_fresh_with_a_word(saved):
    model, folder = saved
    with pytest.warns(LoadWarning, match="train the model before use"):
        one = load(folder, head="ForSequenceClassification", seed=1)
    with pytest.warns(LoadWarning, match="train the model before use"):
        other = load(folder, head="ForSequenceClassification", seed=2)
    assert_same(one.params["roberta"], model.params["roberta"])
    assert np.abs(one.params["classifier"]["dense"]["kernel"] - other.params["classifier"]["dense"]["kernel"]).max() > 0
    assert not np.asarray(one.params["classifier"]["dense"]["bias"]).any()


def test_without_a_pooler_nothing_starts_fresh(saved):
    model, folder = saved
    bare = load(folder, head="Model", add_pooling_layer=False)
    assert bare(**models.batch()).pooler_output is None
    assert_same(bare.params, model.params["roberta"])


@pytest.mark.parametrize("family", models.FAMILIES)
@pytest.mark.parametrize("head", models.HEADS)
def test_auto_classes(family, head, tmp_path):
    model = models.model(head, family)
    model.save_pretrained(tmp_path)
    found = getattr(xlmr_flax, f"FlaxAutoModel{head.removeprefix('Model')}").from_pretrained(tmp_path)
    assert type(found) is type(model)
    assert_same(found.params, model.params)


def test_the_built_in_model_and_a_fresh_one():
    model = xlmr_flax.FlaxAutoModelForMaskedLM.from_pretrained("xlmr-mini")
    assert model.num_parameters() > 1e6
    fresh = xlmr_flax.FlaxAutoModel.from_config(models.config(), seed=3, dtype="bfloat16", add_pooling_layer=False)
    assert fresh.dtype == jnp.bfloat16 and "pooler" not in fresh.params
    with pytest.raises(ValueError, match="from_pretrained"):
        xlmr_flax.FlaxAutoModel()


@pytest.mark.parametrize("head", models.HEADS)
def test_what_the_original_classes_wrote(head, shared):
    """The paths and shapes of the original Flax classes are ours; their files, PyTorch's and TensorFlow's give the same
    parameters.
    """
    folder = shared / "fixtures" / "hf" / head
    stored = serialization.msgpack_restore((folder / "flax_model.msgpack").read_bytes())
    model = load(folder, head=head, from_flax=True)
    assert_same(model.params, stored)
    for asked in ({}, {"from_tf": True}, {"use_safetensors": False}):
        assert_same(load(folder, head=head, **asked).params, stored)


@pytest.mark.parametrize("family", models.FAMILIES)
def test_msgpack_round_trip(family, tmp_path):
    """As Flax itself reads it, and by the loader."""
    model = models.model(family=family)
    model.save_pretrained(tmp_path, safe_serialization=False)
    assert_same(serialization.msgpack_restore((tmp_path / "flax_model.msgpack").read_bytes()), model.params)
    assert_same(load(tmp_path, family=family).params, model.params)


def test_peak_memory_is_the_model_once(tmp_path):
    """A model of 160 MB in a process of its own; the pages of the mapped file count too."""
    config = {"vocab_size": 50000, "hidden_size": 256, "num_hidden_layers": 30, "intermediate_size": 1024}
    models.model("ForMaskedLM", **config, num_attention_heads=4).save_pretrained(tmp_path)
    size = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    code = f"""
import jax, xlmr_flax
from xlmr_core.config import XLMRobertaConfig
def memory(kind):
    return int(next(line for line in open("/proc/self/status") if line.startswith(kind)).split()[1]) * 1024
# What the first model and the first operation of a process take is none of the checkpoint's.
jax.numpy.zeros(1).block_until_ready()
xlmr_flax.FlaxXLMRobertaModel(XLMRobertaConfig(
    vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
    intermediate_size=8, max_position_embeddings=9
))
open("/proc/self/clear_refs", "w").write("5")
before = memory("VmRSS")
model = xlmr_flax.FlaxXLMRobertaForMaskedLM.from_pretrained({str(tmp_path)!r})
print(memory("VmHWM") - before)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 0.9 * size < int(done.stdout) < 1.15 * size + 40e6  # two pieces and the pages around them


@pytest.mark.parametrize(
    "arguments",
    [
        {"low_cpu_mem_usage": True, "weights_only": True, "offload_folder": "x", "max_memory": {0: "1GB"}},
        {"use_safetensors": True, "from_pt": True, "load_in_8bit": False, "device_map": "auto"},
        {"torch_dtype": "auto", "device_map": {"": "cpu"}, "tp_plan": None, "trust_remote_code": True},
    ],
)
def test_published_arguments_that_ask_for_nothing(saved, arguments):
    model, folder = saved
    assert_same(load(folder, **arguments).params, model.params)


def test_arrays_in_place_of_files(saved):
    model, _ = saved
    arrays = functional.to_canonical(model.parameter_table(), model.params)
    assert_same(load(None, config=model.config, state_dict=arrays).params, model.params)
    lacking = {name: np.asarray(x) for name, x in arrays.items() if not name.endswith("0.output.dense.weight")}
    with pytest.raises(
        CheckpointError, match=r"encoder.layer.0.output.dense.weight of shape .* in the state_dict passed"
    ):
        load(None, config=model.config, state_dict=lacking)
    with pytest.raises(InputError, match="expected a name or folder, received None"):
        load(None, config=model.config)


# ---- What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "int8"}, "dtype must be float32, float16, bfloat16 or float64, received 'int8'"),
        ({"param_dtype": "int32"}, "dtype must be float32"),
        ({"device": "gpu:7"}, "'gpu:7' asks for a GPU, JAX sees .* here"),
        ({"device": "cpu:one"}, "device must be"),
        ({"attn_implementation": "flash"}, "attn_implementation must be one of 'sdpa', 'eager'"),
        ({"packing": "sometimes"}, "packing must be one of"),
        ({"variant": "fp16"}, "variant must be None"),
        ({"device_map": {"a": "cpu", "b": "cpu:1"}}, "device_map must put the whole model on one device"),
    ],
)
def test_arguments_that_cannot_be_served(saved, arguments, message):
    with pytest.raises(InputError, match=message):
        load(saved[1], **arguments)


def test_files_that_do_not_fit(saved, tmp_path):
    _, folder = saved
    with pytest.raises(CheckpointError, match=r"must have the shape \(99, 24\)"):
        load(folder, vocab_size=99)
    with pytest.warns(LoadWarning, match="starts with fresh values"):
        assert load(folder, vocab_size=99, ignore_mismatched_sizes=True).params["lm_head"]["bias"].shape == (99,)
    with pytest.raises(ModelNotFoundError):
        load(tmp_path / "nowhere")
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError):
        load(folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"push_to_hub": True, "tags": ["x"]}, "tags must be None"),
        ({"params": {}}, "expected the"),
    ],
)
def test_what_cannot_be_saved_leaves_nothing(arguments, message, tmp_path):
    with pytest.raises(InputError, match=message):
        models.model().save_pretrained(tmp_path / "new", **arguments)
    with pytest.raises(InputError, match="_do_init=False"):
        models.model(_do_init=False).save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_interrupted_save_leaves_the_old_checkpoint(saved, monkeypatch):
    model, folder = saved
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    calls = []

    def fail(array):
        calls.append(1)
        if len(calls) > 60:
            raise KeyboardInterrupt
        return to_raw(array)

    to_raw = loading.to_raw
    monkeypatch.setattr(loading, "to_raw", fail)
    with pytest.raises(KeyboardInterrupt):
        model.save_pretrained(folder, params=jax.tree.map(lambda x: x + 1, model.params))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


# ---- Without files


@pytest.mark.parametrize("family", models.FAMILIES)
def test_canonical_names_and_back(family):
    model = models.model("ForMaskedLM", family, tie_word_embeddings=False)
    rows = model.parameter_table()
    tensors = functional.to_canonical(rows, model.params)
    assert {name: x.shape for name, x in tensors.items()} == {
        name: row.shape for name, row in rows.items() if row.tied_to is None
    }
    assert_same(functional.from_canonical(rows, tensors), model.params)
    jax.tree.map(partial(np.testing.assert_array_equal), functional.to_canonical(rows, model.params), tensors)
