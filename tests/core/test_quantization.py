"""Quantization schemes: what the table, load plans and commands ask of them, what they write, and their arithmetic."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from tests.core.small_models import arrays_of, change_config, config_of, save
from xlmr_core.checkpoint import open_checkpoint
from xlmr_core.checkpoints.model_files import open_model
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.conversion import convert
from xlmr_core.errors import CheckpointError, ConfigError
from xlmr_core.heads import HEADS
from xlmr_core.inspection import inspect_model
from xlmr_core.parameters import Parameter, Role, num_parameters, parameters, stored_names
from xlmr_core.probe import make_probe, run_probe
from xlmr_core.quantization import (
    BITSANDBYTES,
    FP4,
    INT4,
    INT8,
    NF4,
    SCHEMES,
    Scheme,
    Stored,
    find_scheme,
    scheme_of,
    scheme_with,
)
from xlmr_core.quantization.base import Array, Parts
from xlmr_core.quantization.four_bit import FourBit, Int4, Nf4

RECORDED = Path(__file__).parent / "recorded" / "int8-v1"
WORDS, DENSE = "roberta.embeddings.word_embeddings.weight", "roberta.encoder.layer.1.output.dense.weight"


# ---- What config.json says


def with_config(said: Any) -> XLMRobertaConfig:
    return XLMRobertaConfig.from_dict({"model_type": "xlm-roberta", "quantization_config": said})


def test_a_config_names_its_scheme() -> None:
    assert scheme_of(XLMRobertaConfig()) is None
    assert scheme_of(with_config({"quant_method": "xlmr-int8", "version": 1})) == INT8
    assert INT8.written() == {"quant_method": "xlmr-int8", "version": 1}
    assert {name: scheme.name for name, scheme in SCHEMES.items()} == {name: name for name in SCHEMES}
    for scheme in SCHEMES.values():
        assert scheme_of(with_config(scheme.written())) == scheme


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"quant_method": "gptq", "bits": 4}, "another library.*'gptq'.*expected none or .*'xlmr-int8'"),
        ("gptq", "another library.*'gptq'"),
        ({}, "another library.*None"),
        ([1], r"another library.*\[1\]"),
        ({"quant_method": ["x"]}, r"another library.*\['x'\]"),
        ({"quant_method": "xlmr-int8", "version": 2}, "must be .*'version': 1.*received .*another release"),
        ({"quant_method": "xlmr-int8"}, "another release"),
        ("xlmr-int8", "another release"),
    ],
)
def test_what_nobody_knows_is_refused(said: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        scheme_of(with_config(said))


# ---- int8


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", ["base", "xl"])
def test_the_table_of_an_int8_model_is_that_of_the_float_one_and_scales(family: str, head: str) -> None:
    config = config_of(family, head)
    rows, floats = parameters(config, head, scheme=INT8), parameters(config, head)
    scales = {name for name, row in rows.items() if row.role is Role.BESIDE}
    assert [name for name in rows if name not in scales] == list(floats)
    assert scales == {f"{name}_scale" for name, row in rows.items() if row.dtype == "I8"}
    for name, row in floats.items():
        now = rows[name]
        assert (now.shape, now.role, now.init, now.tied_to) == (row.shape, row.role, row.init, row.tied_to)
        if now.quantized is None:
            assert now == row
            continue
        assert now.quantized == (INT8, name, "", row.shape)
        scale = rows[f"{name}_scale"]
        assert (scale.dtype, scale.shape, scale.init) == ("F32", row.shape[:1], row.init)
        assert scale.quantized == (INT8, name, "_scale", row.shape)
        assert scale.tied_to == (None if row.tied_to is None else f"{row.tied_to}_scale")


@pytest.mark.parametrize("head", ["Model", "ForMaskedLM", "ForSequenceClassification"])
def test_a_quarter_of_the_size(head: str) -> None:
    def size(scheme: Scheme | None) -> int:
        rows = parameters(XLMRobertaConfig.base(), head, scheme=scheme)
        return sum(math.prod(rows[name].shape) * (1 if rows[name].dtype == "I8" else 4) for name in stored_names(rows))

    assert 0.25 < size(INT8) / size(None) < 0.258


def test_the_recorded_checkpoint_is_what_its_weights_encode_to() -> None:
    expected = np.load(RECORDED / "expected.npz")
    with open_checkpoint(RECORDED) as checkpoint:
        for name in (WORDS, DENSE):
            weight = expected[f"source__{name}"]
            parts = {suffix: checkpoint.tensor(name + suffix).to_numpy() for suffix in ("", "_scale")}
            encoded = INT8.encode(weight)
            assert set(encoded) == set(parts)
            for suffix, values in parts.items():
                assert encoded[suffix].dtype == values.dtype
                np.testing.assert_array_equal(encoded[suffix], values)
            decoded = INT8.decode(parts, weight.shape)
            assert decoded.dtype == np.float32
            assert (np.abs(decoded - weight) <= parts["_scale"][:, None] * 0.5001).all()


def test_rows_that_are_zero_tiny_or_constant() -> None:
    weight = np.array([[0, 0], [1e-45, -1e-45], [-3, -3], [1e38, -1e38], [0.5, 127]], np.float32)
    encoded = INT8.encode(weight)
    assert encoded[""].tolist()[2:] == [[-127, -127], [127, -127], [0, 127]]  # a half goes to the even neighbour
    assert not encoded[""][:2].any() and (encoded["_scale"] > 0).all()


# ---- Four bits


def errors(scheme: Scheme, weight: Array) -> float:
    """The root mean square of what is rounded, over that of the weight."""
    return float(np.std(scheme.decode(scheme.encode(weight), weight.shape) - weight) / np.std(weight))


def test_how_far_off_each_scheme_is() -> None:
    """Of normal weights; bitsandbytes' nf4 with nested scales errs by 0.0922 here."""
    weight = np.random.default_rng(0).standard_normal((256, 512)).astype(np.float32) * np.float32(0.02)
    found = {name: errors(scheme, weight) for name, scheme in {**SCHEMES, **BITSANDBYTES}.items()}
    assert found["int8"] < 0.008 and found["int4"] < 0.079
    assert found["nf4"] <= found["bitsandbytes-nf4"] < 0.093
    assert found["fp4"] <= found["bitsandbytes-fp4"] + 1e-5 < 0.123


@pytest.mark.parametrize("scheme", [INT4, NF4, FP4], ids=lambda scheme: str(scheme.name))
def test_rows_of_four_bits(scheme: FourBit) -> None:
    """Zeros stay zeros, what lies on one side of zero keeps its range, and a group knows nothing of its neighbours."""
    size = scheme.group_size
    weight = np.zeros((4, 2 * size), np.float32)
    weight[1], weight[2, :size], weight[3] = 3.0, np.linspace(1, 2, size), np.linspace(-1e-6, 1e5, 2 * size)
    decoded = scheme.decode(scheme.encode(weight), weight.shape)
    assert not decoded[0].any() and not decoded[2, size:].any()
    np.testing.assert_allclose(decoded[1], 3.0, rtol=0.02)
    assert np.abs(decoded[2, :size] - weight[2, :size]).max() < (0.4 if scheme is FP4 else 0.3)
    assert np.isfinite(decoded).all()
    for rows in (slice(0, 1), slice(1, 4)):
        parts = {suffix: x[rows] for suffix, x in scheme.encode(weight).items()}
        np.testing.assert_array_equal(scheme.decode(parts, weight[rows].shape), decoded[rows])


@pytest.mark.parametrize(
    ("name", "most"), [("int8", 0.258), ("int4", 0.16), ("nf4", 0.16), ("fp4", 0.16), ("bitsandbytes-nf4", 0.8)]
)
@pytest.mark.parametrize("head", ["Model", "ForMaskedLM"])
def test_the_size_of_base(name: str, most: float, head: str) -> None:
    """With the table of words, which bitsandbytes leaves as it is."""
    sizes = {"F32": 4, None: 4, "F16": 2}
    rows = parameters(XLMRobertaConfig.base(), head, scheme=find_scheme(name))
    size = sum(math.prod(rows[name].shape) * sizes.get(rows[name].dtype, 1) for name in stored_names(rows))
    assert size < most * 4 * num_parameters(XLMRobertaConfig.base(), head)


def test_the_table_of_words_is_int4_in_every_scheme_of_four_bits() -> None:
    config = config_of("base", "ForMaskedLM", tie_word_embeddings=False)
    rows = parameters(config, "ForMaskedLM", scheme=Nf4(group_size=8))
    found = {row.quantized.weight: row.quantized.scheme for row in rows.values() if row.quantized}
    assert found[WORDS] == found["lm_head.decoder.weight"] == Int4(group_size=8) and found[DENSE] == Nf4(group_size=8)
    assert NF4.for_weight(rows[WORDS]) == INT4 and INT4.for_weight(rows[WORDS]) is INT4


@pytest.mark.parametrize(
    ("skip", "wide"),
    [
        (("query",), ("encoder.layer.0.attention.self.query.weight", "encoder.layer.1.attention.self.query.weight")),
        (("roberta.encoder.layer.1.output",), ("encoder.layer.1.output.dense.weight",)),
        (("embeddings",), ("embeddings.word_embeddings.weight", "lm_head.decoder.weight")),  # tied
    ],
)
def test_weights_that_are_skipped_stay_as_they_are(skip: tuple[str, ...], wide: tuple[str, ...]) -> None:
    config, scheme = config_of("base", "ForMaskedLM"), Nf4(skip, group_size=8)
    plain = parameters(config, "ForMaskedLM")
    assert scheme.planned(plain) is scheme
    rows = parameters(config, "ForMaskedLM", scheme=scheme)
    taken = {row.quantized.weight for row in rows.values() if row.quantized}
    left = {name.removeprefix("roberta.") for name, row in plain.items() if Nf4().takes(row) and name not in taken}
    assert left == set(wide)
    assert scheme_of(with_config(scheme.written())) == scheme and scheme.written()["skip"] == list(skip)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda rows: NF4.planned(rows), "groups of 32 needs weights whose rows .*choose a group_size that divides 16"),
        (lambda rows: Nf4(("qery",), 8).planned(rows), "skip must name .*such as .embeddings.word_embeddings.*'qery'"),
        (lambda rows: Nf4(("dens",), 8).planned(rows), "received 'dens'"),
        (lambda rows: Int4(group_size=7), "even number of at least 2, received 7"),
        (lambda rows: scheme_with("nf4", "query"), "skip must be a list of names of modules, received 'query'"),
        (lambda rows: Nf4((3,)), "skip must be a list of names"),  # type: ignore[arg-type]
        (lambda rows: scheme_of(with_config({**NF4.written(), "group_size": "64"})), "another release"),
        (lambda rows: scheme_of(with_config({**NF4.written(), "bits": 4})), "another release"),
        (lambda rows: scheme_of(with_config({**NF4.written(), "skip": "query"})), "another release"),
    ],
)
def test_settings_that_do_not_fit(make: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        make(parameters(config_of("base", "ForMaskedLM"), "ForMaskedLM"))


# ---- A scheme of another kind: packed shapes, groups across rows, settings in the file, more than two tensors


@dataclass(frozen=True)
class Nibbles(Scheme):
    """Two codes a byte of the flattened weight, a scale for each group of them, and a text that says how.

    Which weights are left as they were only the file says.
    """

    name: ClassVar[str] = "nibbles"
    group: int = 6
    left: tuple[str, ...] = ()

    def written(self) -> dict[str, Any]:
        return {"quant_method": "nibbles", "group": self.group}

    def read(self, said: Any) -> Nibbles:
        return Nibbles(said["group"])

    def in_file(self, file: Any) -> Nibbles:
        left = (name for name in file.names if name.endswith(".weight") and file.info(name).dtype == "F32")
        return replace(self, left=tuple(left))

    def takes(self, row: Parameter) -> bool:
        return row.role in (Role.EMBEDDING, Role.LINEAR_WEIGHT) and row.name not in self.left

    def stored(self, row: Parameter) -> tuple[Stored, ...]:
        count = math.prod(row.shape)
        return (
            Stored("", "U8", (-(-count // 2), 1), ("pairs of codes", "one")),
            Stored(".absmax", "F32", (-(-count // self.group),), ("groups",)),
            Stored(".state.nibbles", "U8", (len(self.state(row.shape)),), ("characters",)),
        )

    def state(self, shape: tuple[int, ...]) -> bytes:
        return json.dumps({"group": self.group, "shape": shape}).encode()

    def encode(self, weight: Array) -> dict[str, Array]:
        flat = np.pad(weight.ravel(), (0, -weight.size % self.group)).reshape(-1, self.group)
        scales = np.abs(flat).max(1).astype(np.float32)
        codes = (np.rint(flat / scales[:, None] * 7) + 8).astype(np.uint8).ravel()[: weight.size]
        codes = np.pad(codes, (0, weight.size % 2))
        state = np.frombuffer(self.state(weight.shape), np.uint8)
        return {"": (codes[::2] << 4 | codes[1::2])[:, None], ".absmax": scales, ".state.nibbles": state}

    def decode(self, parts: Parts, shape: tuple[int, ...]) -> Array:
        assert json.loads(parts[".state.nibbles"].tobytes())["shape"] == list(shape)
        pairs, count = parts[""].ravel(), math.prod(shape)
        codes = np.stack([pairs >> 4, pairs & 15], 1).ravel()[:count].astype(np.float32) - 8
        scales: Array = np.repeat(parts[".absmax"], self.group)[:count]
        return (codes / 7 * scales).astype(np.float32).reshape(shape)


@pytest.fixture
def nibbles(monkeypatch: pytest.MonkeyPatch) -> Nibbles:
    monkeypatch.setitem(SCHEMES, "nibbles", Nibbles())
    return Nibbles(group=10)


def quantized(scheme: Scheme, config: XLMRobertaConfig, head: str) -> tuple[dict[str, Array], dict[str, Array]]:
    """The tensors of a checkpoint of that scheme, and of a plain one with the weights they stand for."""
    plain, stored = arrays_of(config, head), {}
    rows = parameters(config, head, scheme=scheme)
    for name, weight in list(plain.items()):
        if rows[name].quantized is None:
            stored[name] = weight
            continue
        parts = scheme.encode(weight)
        stored |= {name + suffix: values for suffix, values in parts.items()}
        plain[name] = scheme.decode(parts, weight.shape)
    assert {name: values.shape for name, values in stored.items()} == {
        name: rows[name].shape for name in stored_names(rows)
    }
    return stored, plain


def save_both(scheme: Scheme, folder: Path, **changes: Any) -> XLMRobertaConfig:
    config = config_of("base", "ForMaskedLM", **changes)
    stored, plain = quantized(scheme, config, "ForMaskedLM")
    save(folder / "plain", config, "ForMaskedLM", plain)
    save(folder / "small", config, "ForMaskedLM", stored)
    change_config(folder / "small", quantization_config=scheme.written())
    return config


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}, {"vocab_size": 4999}], ids=str)
@pytest.mark.parametrize("name", ["int8", "nibbles"])
def test_a_probe_is_that_of_the_weights_as_decoded(
    name: str, changes: dict[str, Any], nibbles: Nibbles, tmp_path: Path
) -> None:
    """Also where only some rows of a large vocabulary take part."""
    scheme = INT8 if name == "int8" else replace(nibbles, left=(DENSE,))
    config = save_both(scheme, tmp_path, **changes)
    probe = make_probe(config, "ForMaskedLM")
    assert bool(probe.rows) == ("vocab_size" in changes)
    with open_model(tmp_path / "small") as small, open_model(tmp_path / "plain") as plain:
        assert small.scheme is not None and small.scheme.written() == scheme.written() and plain.scheme is None
        assert small.rows == parameters(config, "ForMaskedLM", scheme=small.scheme, pooler=False)
        assert small.plan.report.message == "" and set(small.streams()) == set(stored_names(small.rows))
        np.testing.assert_array_equal(run_probe(small, probe)["logits"], run_probe(plain, probe)["logits"])


def test_commands_take_a_scheme_as_it_is(nibbles: Nibbles, tmp_path: Path) -> None:
    config = save_both(nibbles, tmp_path)
    found = inspect_model(tmp_path / "small")
    assert found.num_parameters == num_parameters(config, "ForMaskedLM") and not found.problem
    with pytest.raises(CheckpointError, match="has nibbles weights, which are kept as they are"):
        convert(tmp_path / "small", tmp_path / "other", "torch")
    done = convert(tmp_path / "small", tmp_path / "other", "safetensors", verify=True)
    assert done.comparison is not None and done.comparison.equal and done.comparison.outputs


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda stored: stored.pop(f"{DENSE}.absmax"), f"expected the absmax {DENSE}.absmax of shape"),
        (lambda stored: stored.pop(DENSE), f"expected the encoder weight {DENSE} of shape"),
        (
            lambda stored: stored.pop("lm_head.dense.weight.state.nibbles"),
            "expected the state.nibbles lm_head.dense.weight.state.nibbles of shape",
        ),
        (
            lambda stored: stored.update({f"{DENSE}.absmax": np.ones(3, np.float32)}),
            rf"{DENSE}.absmax must have the shape \(39,\), received \(3,\)",
        ),
        (
            lambda stored: stored.update({DENSE: np.ones((16, 24), np.float16)}),
            "dtype F16, expected U8; config.json says that the weights are nibbles",
        ),
    ],
)
def test_a_damaged_weight_is_refused(change: Any, match: str, nibbles: Nibbles, tmp_path: Path) -> None:
    config = config_of("base", "ForMaskedLM")
    stored, _ = quantized(nibbles, config, "ForMaskedLM")
    change(stored)
    save(tmp_path, config, "ForMaskedLM", stored)
    change_config(tmp_path, quantization_config=nibbles.written())
    with open_model(tmp_path) as files, pytest.raises(CheckpointError, match=match):
        files.plan  # noqa: B018
