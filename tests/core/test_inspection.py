"""What a checkpoint is said to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.core.small_models import FAMILIES, arrays_of, change_config, config_of, save
from xlmr_core.checkpoints.load_plan import Dropped, Mismatched, Tied
from xlmr_core.cli.inspect import lines
from xlmr_core.conversion import convert, writable_formats
from xlmr_core.errors import CheckpointError
from xlmr_core.heads import HEADS, model_class_name
from xlmr_core.inspection import DTypeShare, inspect_model
from xlmr_core.parameters import num_parameters, parameters
from xlmr_core.quantization import INT8


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_head(family: str, head: str, tmp_path: Path) -> None:
    config = config_of(family, head)
    arrays = save(tmp_path, config, head)
    found = inspect_model(tmp_path)
    count = sum(array.size for array in arrays.values())
    assert found.format == "safetensors"
    assert (found.architecture, found.head) == (model_class_name(config, head), head)
    assert found.model_type == config.model_type
    assert found.num_parameters == count == num_parameters(config, head)
    assert found.num_embedding_parameters == (125 + 34 + 1) * 16
    assert found.dtypes == (DTypeShare("F32", len(arrays), count, 4 * count),)
    assert [file.name for file in found.files] == ["model.safetensors"]
    assert found.files[0].nbytes == (tmp_path / "model.safetensors").stat().st_size
    assert found.sizes["vocab_size"] == 125
    assert found.sizes["max_tokens"] == 32
    assert ("num_labels" in found.sizes) == (head in ("ForSequenceClassification", "ForTokenClassification"))
    assert (found.missing, found.unexpected, found.dropped, found.mismatched, found.notes, found.problem) == (
        *((),) * 5,
        "",
    )
    tied = {"ForMaskedLM": 2, "ForCausalLM": 2}.get(head, 0)
    assert len(found.tied) == tied


def test_memory_is_what_the_formula_says(tmp_path: Path) -> None:
    config = config_of("base", "ForMaskedLM")
    save(tmp_path / "a", config, "ForMaskedLM")
    convert(tmp_path / "a", tmp_path / "b", "safetensors", dtype="bfloat16")
    count = num_parameters(config, "ForMaskedLM")
    memory = inspect_model(tmp_path / "b").memory
    assert (memory.as_stored, memory.half, memory.float32) == (2 * count, 2 * count, 4 * count)
    assert (memory.train_float32, memory.train_mixed) == (16 * count, 16 * count)


@pytest.mark.parametrize("format", writable_formats())
def test_every_format_says_the_same(format: str, tmp_path: Path) -> None:
    save(tmp_path / "a", config_of("base", "ForMaskedLM"), "ForMaskedLM")
    convert(tmp_path / "a", tmp_path / "b", format)
    one, other = inspect_model(tmp_path / "a"), inspect_model(tmp_path / "b")
    assert other.format == format
    for name in ("architecture", "sizes", "num_parameters", "memory", "tied", "missing", "unexpected", "dtypes"):
        assert getattr(one, name) == getattr(other, name), name


def test_shards_are_listed(tmp_path: Path) -> None:
    save(tmp_path, config_of("base", "Model"), "Model", max_shard_size="10kB")
    found = inspect_model(tmp_path)
    assert found.path.endswith("model.safetensors.index.json")
    assert len(found.files) > 1


def test_missing_unexpected_and_dropped(tmp_path: Path) -> None:
    config = config_of("base", "ForMaskedLM")
    arrays = arrays_of(config, "ForMaskedLM")
    del arrays["lm_head.dense.bias"]
    arrays["mine"] = np.ones(3, np.float32)
    arrays["roberta.embeddings.position_ids"] = np.arange(34)
    save(tmp_path, config, "ForMaskedLM", arrays)
    found = inspect_model(tmp_path)
    assert found.missing == ("lm_head.dense.bias",)
    assert found.unexpected == ("mine",)
    assert found.dropped == (Dropped("roberta.embeddings.position_ids", "a buffer in old checkpoints"),)
    assert Tied("lm_head.decoder.bias", "lm_head.bias") in found.tied


def test_a_class_of_a_users_own(tmp_path: Path) -> None:
    config = config_of("base", "Model")
    arrays = arrays_of(config, "Model")
    own = {"mine.weight": np.ones((3, 2), np.float32), "classifier.0.weight": np.ones((2, 2), np.float32)}
    save(tmp_path, config, "Model", {**arrays, **own})
    found = inspect_model(tmp_path)
    assert (found.unexpected, [row.name for row in found.dropped]) == (("mine.weight",), ["classifier.0.weight"])
    change_config(tmp_path, architectures=["Mine"])
    found = inspect_model(tmp_path)
    assert (found.own_class, found.architecture, found.head) == ("Mine", "XLMRobertaModel", "Model")
    assert (set(found.own), found.num_own_parameters, found.unexpected, found.dropped) == (set(own), 10, (), ())
    assert found.num_parameters == num_parameters(config, "Model") + 10 == sum(x.parameters for x in found.dtypes)
    assert found.memory.float32 == 4 * found.num_parameters
    text = "\n".join(lines(found))
    assert "  architecture Mine, which is none of this library; read as XLMRobertaModel (xlm-roberta)" in text
    assert ", 10 in its own parts" in text and "  own parts    classifier.0.weight" in text
    assert "unexpected" not in text


def test_a_checkpoint_that_cannot_be_loaded_is_described_all_the_same(tmp_path: Path) -> None:
    config = config_of("base", "Model")
    arrays = arrays_of(config, "Model")
    del arrays["encoder.layer.1.output.dense.bias"]
    save(tmp_path, config, "Model", arrays)
    found = inspect_model(tmp_path)
    assert found.problem.startswith("expected the encoder weight encoder.layer.1.output.dense.bias")
    assert found.missing == ("encoder.layer.1.output.dense.bias",)
    change_config(tmp_path, intermediate_size=25, num_hidden_layers=1)
    found = inspect_model(tmp_path)
    assert "intermediate_size" in found.problem
    assert Mismatched("encoder.layer.0.intermediate.dense.weight", (25, 16), (24, 16)) in found.mismatched
    assert "encoder.layer.1.output.dense.weight" in found.unexpected


def test_an_int8_checkpoint_has_the_parameters_it_was_made_from(tmp_path: Path) -> None:
    config = config_of("base", "ForMaskedLM")
    rows = parameters(config, "ForMaskedLM", scheme=INT8)
    save(
        tmp_path,
        config,
        "ForMaskedLM",
        {
            name: np.ones(row.shape, np.int8 if row.dtype == "I8" else np.float32)
            for name, row in rows.items()
            if row.tied_to is None
        },
    )
    change_config(tmp_path, quantization_config=INT8.written())
    found = inspect_model(tmp_path)
    assert found.num_parameters == num_parameters(config, "ForMaskedLM")
    assert {share.dtype for share in found.dtypes} == {"I8", "F32"}
    with pytest.raises(CheckpointError, match="has int8 weights, which are kept as they are and in safetensors only"):
        convert(tmp_path, tmp_path / "b", "torch")
    done = convert(tmp_path, tmp_path / "b", "safetensors", verify=True)
    assert done.comparison is not None and done.comparison.equal and done.comparison.outputs
