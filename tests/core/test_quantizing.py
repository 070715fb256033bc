"""``xlmr quantize`` and ``convert --dequantize``: the bytes that schemes specify, in pieces, and what is refused."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core.small_models import arrays_of, change_config, config_of, save, with_tokenizer
from tests.core.test_encoder_decoder import config_of as pair_of
from xlmr_core import bounded_files
from xlmr_core.checkpoint import open_checkpoint
from xlmr_core.checkpoints.model_files import open_model
from xlmr_core.cli import main, quantize
from xlmr_core.conversion import convert
from xlmr_core.diagnosis import diagnose
from xlmr_core.errors import CheckpointError, ConfigError
from xlmr_core.formats import h5_file, tensors
from xlmr_core.inspection import inspect_model
from xlmr_core.parameters import Role
from xlmr_core.quantization import BITSANDBYTES, SCHEMES, scheme_of, scheme_with, widening
from xlmr_core.verification import compare

NAMES = (*SCHEMES, *BITSANDBYTES)
DENSE = "roberta.encoder.layer.1.output.dense.weight"


def scheme_called(name: str, skip: tuple[str, ...] = ()) -> Any:
    return scheme_with(name, skip, 8 if name in ("int4", "nf4", "fp4") else None)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "source"
    save(folder, config_of("base", "ForMaskedLM"), "ForMaskedLM")
    with_tokenizer(folder)
    return folder


def test_the_names_of_the_command_are_those_of_the_core() -> None:
    assert NAMES == quantize.SCHEME_NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_there_and_back(name: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widening, "PIECE", 64)  # so that a weight is many pieces
    scheme = scheme_called(name, ("query",))
    done = convert(source, tmp_path / "small", "safetensors", scheme=scheme)
    with open_model(tmp_path / "small") as small, open_checkpoint(source) as plain:
        assert small.scheme is not None and done.quantized == small.scheme.written() and not small.plan.report.message
        weights = {row.quantized.weight for row in small.rows.values() if row.quantized}
        assert DENSE in weights and not any(".query." in weight for weight in weights)
        parts = scheme.encode(plain.tensor(DENSE).to_numpy())
        for suffix, values in parts.items():
            stored = small.checkpoint.tensor(scheme.part_name(DENSE, suffix)).to_numpy()
            assert stored.dtype == values.dtype
            np.testing.assert_array_equal(stored, values)
    back = convert(tmp_path / "small", tmp_path / "back", "torch", dequantize=True, verify=True)
    assert back.comparison is not None and back.comparison.equal and back.comparison.outputs
    assert "quantization_config" not in json.loads((tmp_path / "back" / "config.json").read_text())
    with open_model(tmp_path / "back") as wide:
        assert {stream.dtype for stream in wide.streams().values()} == {"F32"}
        np.testing.assert_array_equal(
            wide.checkpoint.tensor(DENSE).to_numpy(), scheme.decode(parts, wide.rows[DENSE].shape)
        )


@pytest.mark.parametrize("name", ["int4", "bitsandbytes-nf4"])
def test_commands_know_it(name: str, source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "small", "safetensors", scheme=scheme_called(name))
    found = inspect_model(tmp_path / "small")
    assert found.quantized is not None and found.quantized.scheme == name.partition("-")[0] and not found.problem
    assert found.quantized.weights == 13
    assert found.num_parameters == inspect_model(source).num_parameters
    assert diagnose(tmp_path / "small").healthy
    against = compare(source, tmp_path / "small")
    assert not against.equal and not against.only_a and not against.only_b and not against.shapes
    assert {row.name.rpartition(".")[2] for row in against.values} == {"weight"}
    assert "by the values they stand for" in " ".join(against.notes)
    assert compare(tmp_path / "small", tmp_path / "small").equal


def test_weights_of_half_precision_and_shards(tmp_path: Path) -> None:
    config = config_of("xl", "ForSequenceClassification", dtype="float16")
    arrays = {name: x.astype(np.float16) for name, x in arrays_of(config, "ForSequenceClassification").items()}
    save(tmp_path / "source", config, "ForSequenceClassification", arrays)
    scheme = scheme_called("bitsandbytes-nf4")
    convert(tmp_path / "source", tmp_path / "small", "safetensors", scheme=scheme, max_shard_size=4000)
    assert len(list((tmp_path / "small").glob("*.safetensors"))) > 1
    with open_model(tmp_path / "small") as files:
        assert files.scheme is not None and files.scheme.found["classifier.out_proj.weight"].dtype == "float16"  # type: ignore[attr-defined]
        assert all(files.checkpoint.info(name).dtype == "F16" for name, row in files.rows.items() if not row.quantized)


@pytest.mark.parametrize(
    ("format", "shard", "name"),
    [
        *((format, "5GB", "int4") for format in ("safetensors", "torch", "tf", "flax")),
        *((format, "300KB", "bitsandbytes-nf4") for format in ("torch", "tf")),
    ],
)
def test_a_piece_of_the_table_is_in_memory_at_a_time(
    format: str, shard: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever format it comes from, in one file or in several."""
    config = config_of("xl", "ForMaskedLM", vocab_size=20_000, num_hidden_layers=1)
    save(tmp_path / "plain", config, "ForMaskedLM")
    convert(tmp_path / "plain", tmp_path / "source", format, max_shard_size=shard)
    table = config.vocab_size * config.hidden_size * 4
    for file in (tensors, h5_file):
        monkeypatch.setattr(file, "PIECE", 1 << 16)
    monkeypatch.setattr(bounded_files.read_bytes, "__defaults__", (1 << 17,))
    monkeypatch.setattr(widening, "PIECE", 1 << 13)
    scheme = scheme_called(name)
    convert(tmp_path / "source", tmp_path / "first", "safetensors", scheme=scheme)  # what is imported stays
    tracemalloc.start()
    try:
        convert(tmp_path / "source", tmp_path / "small", "safetensors", scheme=scheme)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < table / 2


def test_codes_that_lie_in_a_float_dtype_are_no_values(shared: Path) -> None:
    found = diagnose(shared / "quantized/MaskedLM/nf4_double_storage_bf16")
    assert not [row for row in found.findings if row.check in ("values", "dtype", "float16")]


@pytest.mark.parametrize("name", NAMES)
def test_both_sides_of_an_encoder_decoder(name: str, tmp_path: Path) -> None:
    save(tmp_path / "source", pair_of("base", "xl", width=24), "EncoderDecoderModel")
    convert(tmp_path / "source", tmp_path / "small", "safetensors", scheme=scheme_called(name))
    with open_model(tmp_path / "small") as files:
        weights = {row.quantized.weight for row in files.rows.values() if row.quantized}
    own = name in SCHEMES
    taken = {
        "encoder.embeddings.word_embeddings.weight": own,
        "encoder.encoder.layer.1.attention.self.query.weight": True,
        "decoder.roberta.encoder.layer.1.crossattention.self.key.weight": True,
        "decoder.roberta.embeddings.word_embeddings.weight": own,
        "decoder.lm_head.dense.weight": not own,
        "enc_to_dec_proj.weight": not own,
    }
    assert {key: key in weights for key in taken} == taken
    convert(tmp_path / "small", tmp_path / "wide", "safetensors", dequantize=True, verify=True)
    assert not compare(tmp_path / "small", tmp_path / "wide").values
    shared = pair_of("base", "base", tie_encoder_decoder=True)
    save(tmp_path / "shared", shared, "EncoderDecoderModel")
    with pytest.raises(ConfigError, match="weights of its own on each side, received one with tie_encoder_decoder"):
        convert(tmp_path / "shared", tmp_path / "other", "safetensors", scheme=scheme_called(name))


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"scheme": "int3"}, ConfigError, "scheme must be one of int8, int4, .*received 'int3'"),
        ({"scheme": "nf4"}, ConfigError, "groups of 32 .*choose a group_size that divides 16, or skip it"),
        ({"scheme": "int8", "dequantize": True}, CheckpointError, "ask for opposites"),
        ({"scheme": "int8", "verify": True}, CheckpointError, "leave it out"),
        ({"scheme": "int8", "to": "torch"}, CheckpointError, "in safetensors only, received 'torch'"),
        ({"dequantize": True}, CheckpointError, "has no quantized weights, expected some"),
        ({"scheme": scheme_with("int8", ["qery"])}, ConfigError, "skip must name modules .*received 'qery'"),
    ],
)
def test_what_is_refused_writes_nothing(
    arguments: dict[str, Any], error: type[Exception], match: str, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=match):
        convert(source, tmp_path / "small", arguments.pop("to", "safetensors"), **arguments)
    assert not (tmp_path / "small").exists()


def test_what_is_quantized_already(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "small", "safetensors", scheme="int8")
    with pytest.raises(CheckpointError, match="has int8 weights already, expected floating point ones; quantize the"):
        convert(tmp_path / "small", tmp_path / "other", "safetensors", scheme="bitsandbytes-nf4")
    with pytest.raises(CheckpointError, match="in safetensors only; .*or pass dequantize=True"):
        convert(tmp_path / "small", tmp_path / "other", "torch")


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    config = config_of("base", "ForMaskedLM")
    arrays = arrays_of(config, "ForMaskedLM")
    arrays[DENSE][3, 3] = np.inf
    save(tmp_path / "source", config, "ForMaskedLM", arrays)
    for name in ("int4", "bitsandbytes-nf4"):
        with pytest.raises(CheckpointError, match=f"{DENSE} holds values that are no finite numbers"):
            convert(tmp_path / "source", tmp_path / "small", "safetensors", scheme=scheme_called(name))
    assert not (tmp_path / "small").exists()


def test_the_command(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, options = str(tmp_path / "small"), ["--group-size", "8", "--skip", "query", "--skip", "embeddings"]
    assert main(["quantize", str(source), small, "--scheme", "nf4", *options]) == 0
    with open_model(small) as files:
        scheme = scheme_of(files.config)
        assert scheme is not None and scheme.written()["skip"] == ["query", "embeddings"]
        assert files.rows["roberta.embeddings.word_embeddings.weight"].role is Role.EMBEDDING
    assert "safetensors" in capsys.readouterr().out
    assert main(["inspect", small]) == 0
    shown = capsys.readouterr().out
    assert (
        "quantized    nf4: 10 weights of 3 072 values, 6 bits a value (group_size 8, skip ['query', 'embeddings'])"
        in shown
    )
    assert main(["convert", small, str(tmp_path / "wide"), "--to", "safetensors", "--dequantize"]) == 0
    capsys.readouterr()
    assert main(["quantize", str(source), small, "--scheme", "int3"]) == 2
    assert "int3" in capsys.readouterr().err
    assert main(["quantize", str(source), str(tmp_path / "x"), "--scheme", "int8", "--group-size", "8"]) == 2
    assert "--group-size" in capsys.readouterr().err


def test_a_config_that_is_not_the_weights(source: Path, tmp_path: Path) -> None:
    save(tmp_path, config_of("base", "ForMaskedLM"), "ForMaskedLM")
    change_config(tmp_path, quantization_config=SCHEMES["int8"].written())
    assert "dtype F32, expected I8" in inspect_model(tmp_path).problem
