"""Adapters of PEFT over their base: what a weight becomes, where the base is, what is refused, what commands say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.core.small_models import arrays_of, config_of, save, with_tokenizer
from xlmr_core.adapters import read_adapter_config
from xlmr_core.checkpoint import open_checkpoint, read_config
from xlmr_core.checkpoints import quantizing
from xlmr_core.checkpoints.model_files import ModelFiles, open_model
from xlmr_core.cli import main
from xlmr_core.conversion import convert
from xlmr_core.errors import CheckpointError, MismatchError, ModelNotFoundError
from xlmr_core.inspection import inspect_model
from xlmr_core.reference import forward
from xlmr_core.tokenization import AutoTokenizer
from xlmr_core.verification import compare

RECORDED = {"MaskedLM": "lora_on_nf4_single", "SequenceClassification": "lora_on_nf4_skip_classifier"}
QUERY = "roberta.encoder.layer.1.attention.self.query"
WORDS = "roberta.embeddings.word_embeddings"
Arrays = dict[str, np.ndarray]


def drawn(*shape: int, seed: int = 7) -> np.ndarray:
    return (np.random.default_rng([seed, *shape]).standard_normal(shape) * 0.3).astype(np.float32)


def pair(module: str = QUERY, rank: int = 2, rows: int = 16, width: int = 16) -> Arrays:
    return {f"{module}.lora_A.weight": drawn(rank, width), f"{module}.lora_B.weight": drawn(rows, rank)}


def adapter(folder: Path, base: str, tensors: Arrays, **settings: Any) -> Path:
    """An adapter as PEFT saves it."""
    folder.mkdir(parents=True)
    save_file(
        {f"base_model.model.{name}": value for name, value in tensors.items()}, folder / "adapter_model.safetensors"
    )
    said = {"peft_type": "LORA", "base_model_name_or_path": base, "r": 2, "lora_alpha": 8, "init_lora_weights": True}
    (folder / "adapter_config.json").write_text(json.dumps({**said, **settings}), encoding="utf-8")
    return folder


@pytest.fixture
def base(tmp_path: Path) -> tuple[Path, Arrays]:
    folder = tmp_path / "base"
    return folder, save(folder, config_of("base", "ForMaskedLM"), "ForMaskedLM")


def values_of(files: ModelFiles) -> Arrays:
    return {name: stream.read().to_numpy() for name, stream in files.streams().items()}


# ---- What others recorded


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_adapters_over_weights_of_four_bits(
    name: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shared / "quantized" / name / RECORDED[name]
    monkeypatch.chdir(shared / "quantized")  # from where its base was named
    expected = np.load(folder / "expected.npz")
    inputs = {key: expected[key] for key in ("input_ids", "attention_mask")}
    with open_model(folder) as files:
        assert files.architecture == f"XLMRobertaFor{name}" and files.scheme is None
        assert not (files.plan.report.missing or files.plan.report.unexpected or files.plan.report.notes)
        logits = forward(files.config, files.head, values_of(files), **inputs).logits
    np.testing.assert_allclose(logits, expected["logits_dequantized_float32"], atol=1e-5)
    assert np.abs(logits - expected["logits_without_adapter"]).max() > 0.1
    done = convert(folder, tmp_path / "whole", "flax", verify=True)
    assert done.comparison is not None and done.comparison.equal
    assert "quantization_config" not in json.loads((tmp_path / "whole" / "config.json").read_text(encoding="utf-8"))
    found = inspect_model(folder)
    assert found.adapter == "LoRA of rank 4 on 3 weights" and "nf4_s" in found.base
    assert {file.name for file in found.files} == {"model.safetensors", "adapter_model.safetensors"}


# ---- What a weight becomes


def product(tensors: Arrays, module: str = QUERY) -> np.ndarray:
    return tensors[f"{module}.lora_B.weight"] @ tensors[f"{module}.lora_A.weight"]


def rows_as_long_as(weight: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return weight / np.linalg.norm(weight, axis=1)[:, None] * lengths[:, None]


LENGTHS = np.abs(drawn(16)) + 1
WEIGHT, BIAS, EMBEDDING = f"{QUERY}.weight", f"{QUERY}.bias", f"{WORDS}.weight"
THIN = {f"{WORDS}.lora_embedding_A": drawn(2, 125), f"{WORDS}.lora_embedding_B": drawn(16, 2)}
ROWS_OF_THIN = (drawn(16, 2) @ drawn(2, 125)).T
# By what it shows: the adapter, its settings, and the values that differ from those of the base.
SUMS: dict[str, tuple[Arrays, dict[str, Any], Any]] = {
    "scale": (pair(), {}, lambda x: {WEIGHT: x[WEIGHT] + 4 * product(pair())}),
    "named default": (
        {key.replace(".weight", ".default.weight"): value for key, value in pair().items()},
        {},
        lambda x: {WEIGHT: x[WEIGHT] + 4 * product(pair())},
    ),
    "root of the rank": (
        pair(rank=4),
        {"use_rslora": True, "r": 4},
        lambda x: {WEIGHT: x[WEIGHT] + 4 * product(pair(rank=4))},
    ),
    "patterns": (
        pair(rank=3),
        {"rank_pattern": {"self.key": 9, "self.query": 3}, "alpha_pattern": {"layer.1.attention.self.query": 6}},
        lambda x: {WEIGHT: x[WEIGHT] + 2 * product(pair(rank=3))},
    ),
    "magnitudes": (
        {**pair(), f"{QUERY}.lora_magnitude_vector": LENGTHS},
        {"use_dora": True},
        lambda x: {WEIGHT: rows_as_long_as(x[WEIGHT] + 4 * product(pair()), LENGTHS)},
    ),
    "a bias of its own": (
        {**pair(), f"{QUERY}.lora_B.bias": drawn(16)},
        {"lora_bias": True},
        lambda x: {WEIGHT: x[WEIGHT] + 4 * product(pair()), BIAS: x[BIAS] + 4 * drawn(16)},
    ),
    "biases": (
        {**pair(), f"{QUERY}.base_layer.bias": drawn(16), "lm_head.dense.bias": drawn(16)},
        {"bias": "all"},
        lambda x: {WEIGHT: x[WEIGHT] + 4 * product(pair()), BIAS: drawn(16), "lm_head.dense.bias": drawn(16)},
    ),
    "embeddings": (
        THIN,
        {},
        lambda x: {EMBEDDING: x[EMBEDDING] + 4 * ROWS_OF_THIN},
    ),
    "embeddings that were saved whole": (
        {**THIN, f"{WORDS}.base_layer.weight": drawn(125, 16)},
        {},
        lambda x: {EMBEDDING: drawn(125, 16) + 4 * ROWS_OF_THIN},
    ),
    "a bare encoder": (
        {key.removeprefix("roberta."): value for key, value in pair().items()},
        {},
        lambda x: {WEIGHT: x[WEIGHT] + 4 * product(pair())},
    ),
}


@pytest.mark.parametrize("kind", SUMS)
def test_what_a_weight_becomes(
    kind: str, base: tuple[Path, Arrays], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, values = base
    monkeypatch.setattr(quantizing, "rows_at_once", lambda width: 5)
    tensors, settings, changed = SUMS[kind]
    with open_model(adapter(tmp_path / "adapter", str(folder), tensors, **settings)) as files:
        found = values_of(files)
        assert not files.plan.report.unexpected
    expected = {**values, **changed(values)}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=2e-6, err_msg=name)
        assert found[name].dtype == np.float32
    for name in set(expected) - set(changed(values)):
        np.testing.assert_array_equal(found[name], values[name])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_sum_with_half_precision_is_not_rounded(dtype: str, base: tuple[Path, Arrays], tmp_path: Path) -> None:
    convert(base[0], tmp_path / "half", "safetensors", dtype=dtype)
    folder = adapter(tmp_path / "adapter", str(tmp_path / "half"), pair())
    with open_model(tmp_path / "half") as half, open_model(folder) as whole:
        start = half.checkpoint.tensor(WEIGHT).to_numpy().astype(np.float32)
        raw = whole.checkpoint.tensor(WEIGHT)
        np.testing.assert_allclose(raw.to_numpy(), start + 4 * product(pair()), rtol=0, atol=1e-6)
        assert (raw.dtype, whole.checkpoint.info(BIAS).dtype) == ("F32", {"float16": "F16", "bfloat16": "BF16"}[dtype])


@pytest.mark.parametrize("scheme", ["int8", "int4", "nf4"])
def test_a_base_quantized_by_us_is_widened(scheme: str, tmp_path: Path) -> None:
    config = config_of("base", "ForSequenceClassification", hidden_size=32, intermediate_size=64)
    save(tmp_path / "plain", config, "ForSequenceClassification")
    convert(tmp_path / "plain", tmp_path / "codes", "safetensors", scheme=scheme)
    convert(tmp_path / "codes", tmp_path / "wide", "safetensors", dequantize=True)
    added = pair(rows=32, width=32)
    with (
        open_model(adapter(tmp_path / "one", str(tmp_path / "codes"), added)) as one,
        open_model(adapter(tmp_path / "other", str(tmp_path / "wide"), added)) as other,
    ):
        assert one.scheme is None
        found, expected = values_of(one), values_of(other)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], expected[name]) for name in expected)


# ---- The model


@pytest.mark.parametrize(
    ("settings", "head"),
    [
        ({"task_type": "SEQ_CLS"}, "XLMRobertaForSequenceClassification"),
        (
            {"auto_mapping": {"base_model_class": "XLMRobertaForTokenClassification"}},
            "XLMRobertaForTokenClassification",
        ),
    ],
)
def test_a_head_that_was_trained_beside_it(
    settings: dict[str, Any], head: str, base: tuple[Path, Arrays], tmp_path: Path
) -> None:
    small = config_of("base", head.removeprefix("XLMRoberta"), num_labels=5)
    whole = {
        name: value for name, value in arrays_of(small, head.removeprefix("XLMRoberta")).items() if "classifier" in name
    }
    folder = adapter(tmp_path / "adapter", str(base[0]), {**pair(), **whole}, **settings)
    assert read_config(folder).num_labels == 5
    with open_model(folder) as files:
        assert files.architecture == head and not files.plan.report.missing
        found = values_of(files)
    assert all(np.array_equal(found[name], value) for name, value in whole.items())


def test_a_config_beside_the_adapter_decides(base: tuple[Path, Arrays], tmp_path: Path) -> None:
    folder = adapter(tmp_path / "adapter", str(base[0]), pair())
    own = config_of("base", "ForMaskedLM", layer_norm_eps=1e-3, quantization_config={"quant_method": "other"})
    (folder / "config.json").write_text(own.to_json_string(), encoding="utf-8")
    with open_model(folder) as files:
        assert files.config.layer_norm_eps == 1e-3 and files.scheme is None


def test_what_stands_beside_the_base_belongs_to_the_adapter(base: tuple[Path, Arrays], tmp_path: Path) -> None:
    with_tokenizer(base[0])
    folder = adapter(tmp_path / "adapter", str(base[0]), pair())
    one, other = (AutoTokenizer.from_pretrained(place)("a b") for place in (folder, base[0]))
    assert one["input_ids"] == other["input_ids"]
    done = convert(folder, tmp_path / "whole", "safetensors", verify=True)
    assert done.comparison is not None and done.comparison.equal and "tokenizer_config.json" in done.copied
    assert compare(folder, tmp_path / "whole").equal and not compare(folder, base[0]).equal
    (folder / "special_tokens_map.json").write_text("{}", encoding="utf-8")
    assert AutoTokenizer.from_pretrained(folder)("a b")["input_ids"] == other["input_ids"]


# ---- Where the base is


def test_a_base_by_its_built_in_name_and_by_paths(
    base: tuple[Path, Arrays], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built_in = adapter(tmp_path / "built-in", "xlmr-mini", pair(width=256, rows=256))
    with open_checkpoint(built_in) as found:
        assert found.info(WEIGHT).shape == (256, 256) and found.format == "peft"
    beside = adapter(tmp_path / "runs" / "beside", "../../base", pair())
    with open_checkpoint(beside / "adapter_model.safetensors") as found:
        assert found.metadata["base"].endswith("model.safetensors")
    monkeypatch.chdir(tmp_path)
    with open_checkpoint(adapter(tmp_path / "runs" / "here", "base", pair())) as found:
        assert found.tensor(WEIGHT).shape == (16, 16)
    # An adapter that is saved into the folder of its base.
    both = tmp_path / "base"
    for file in beside.iterdir():
        (both / file.name).write_bytes(file.read_bytes())
    (both / "adapter_config.json").write_text(
        (beside / "adapter_config.json").read_text(encoding="utf-8").replace("../../base", str(both)), encoding="utf-8"
    )
    with open_checkpoint(both) as one, open_checkpoint(both, "safetensors") as other:
        assert not np.array_equal(one.tensor(WEIGHT).to_numpy(), other.tensor(WEIGHT).to_numpy())


def test_an_adapter_of_an_adapter_is_refused(base: tuple[Path, Arrays], tmp_path: Path) -> None:
    first = adapter(tmp_path / "first", str(base[0]), pair())
    second = adapter(tmp_path / "second", str(first), pair())
    with pytest.raises(CheckpointError, match=r"which is an adapter itself; write that as a whole model"):
        open_model(second)


# ---- What is refused

OTHER = {f"{QUERY}.lora_A.weight": drawn(2, 16)}
REFUSED: dict[str, tuple[Arrays, dict[str, Any], type[Exception], str]] = {
    "kind": (pair(), {"peft_type": "IA3"}, CheckpointError, r"of the kind 'IA3', expected LORA; merge it with peft"),
    "change": (pair(), {"use_qalora": True}, CheckpointError, r"has use_qalora=True, which is more than"),
    "layers": (pair(), {"layer_replication": [[0, 1]]}, CheckpointError, r"has layer_replication="),
    "pissa": (
        pair(),
        {"init_lora_weights": "pissa"},
        CheckpointError,
        r"'pissa', which changed the base's own weights",
    ),
    "rank": (
        pair(rank=3),
        {},
        MismatchError,
        r"query\.lora_A\.weight in .* must have the shape \(2, 16\), received \(3, 16",
    ),
    "shape": (
        pair(rows=24),
        {},
        MismatchError,
        r"must have a weight of the shape \(24, 16\), to which .* received \(16, 16\)",
    ),
    "name": (pair(QUERY.replace("query", "qery")), {}, CheckpointError, r"did you mean '.*self\.query'"),
    "half": (OTHER, {}, CheckpointError, r"has no .*query\.lora_B\.weight, which belongs to the others"),
    "tokens": (
        {f"{WORDS}.token_adapter.trainable_tokens_delta": drawn(2, 16)},
        {},
        CheckpointError,
        r"which is no part of LoRA",
    ),
    "r": (pair(), {"r": "2"}, CheckpointError, r"r and rank_pattern must be whole numbers above 0"),
    "alpha": (pair(), {"lora_alpha": None}, CheckpointError, r"lora_alpha and alpha_pattern must be numbers"),
    "hours": (pair(), {"rank_pattern": {"(a+)+": 2}}, CheckpointError, r"is more than a pattern of a name"),
    "pattern": (pair(), {"rank_pattern": {"(": 2}}, CheckpointError, r"is no regular expression"),
    "base": (pair(), {"base_model_name_or_path": None}, CheckpointError, r"names no model that the adapter changes"),
    "nowhere": (
        pair(),
        {"base_model_name_or_path": "/nowhere/at all"},
        ModelNotFoundError,
        r"adapter of '/nowhere/at all', which is needed with it: .*correct base_model_name_or_path",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str, base: tuple[Path, Arrays], tmp_path: Path) -> None:
    tensors, settings, error, message = REFUSED[what]
    folder = adapter(tmp_path / "adapter", str(base[0]), tensors, **settings)
    with pytest.raises(error, match=message):
        open_model(folder)


def test_settings_that_are_none(base: tuple[Path, Arrays], tmp_path: Path) -> None:
    folder = adapter(tmp_path / "adapter", str(base[0]), pair())
    for text in ("[]", "{", '{"peft_type": "LORA"}'):
        (folder / "adapter_config.json").write_text(text, encoding="utf-8")
        with pytest.raises(CheckpointError, match="no settings of an adapter as peft writes them"):
            read_adapter_config(folder)


# ---- Commands


def test_commands(base: tuple[Path, Arrays], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = adapter(tmp_path / "adapter", str(base[0]), pair())
    assert main(["inspect", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "format       peft: model.safetensors" in said and "adapter      LoRA of rank 2 on 1 weight, over" in said
    assert main(["convert", str(folder), str(tmp_path / "whole"), "--to", "safetensors", "--verify"]) == 0
    assert main(["verify", str(folder), str(tmp_path / "whole")]) == 0
    assert main(["verify", str(folder), str(base[0])]) == 1
    assert main(["doctor", str(folder)]) in (0, 1)
