"""Comparing checkpoints: equal ones are equal, and every kind of difference is found."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.core.small_models import (
    FAMILIES,
    Arrays,
    arrays_of,
    change_config,
    config_of,
    in_pieces,
    save,
    with_tokenizer,
)
from tests.core.tokenization_models import small_model, with_pieces
from xlmr_core import probe
from xlmr_core.checkpoints.model_files import open_model
from xlmr_core.conversion import convert
from xlmr_core.errors import CheckpointError, MissingBackendError
from xlmr_core.heads import HEADS
from xlmr_core.probe import make_probe, run_probe
from xlmr_core.verification import SENTENCES, compare

DENSE = "encoder.layer.0.output.dense.weight"


@pytest.fixture
def pair(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Two checkpoints of a masked language model, the second with changed arrays or config."""

    def make(change: Callable[[Arrays], None] = lambda arrays: None, **config: object) -> tuple[Path, Path]:
        for name in ("a", "b"):
            made = config_of("base", "ForMaskedLM")
            arrays = arrays_of(made, "ForMaskedLM")
            if name == "b":
                change(arrays)
            save(tmp_path / name, made, "ForMaskedLM", arrays)
            with_tokenizer(tmp_path / name)
        if config:
            change_config(tmp_path / "b", **config)
        return tmp_path / "a", tmp_path / "b"

    return make


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_equals_itself(family: str, head: str, tmp_path: Path) -> None:
    save(tmp_path, config_of(family, head, add_cross_attention=head == "ForCausalLM"), head)
    found = compare(tmp_path, tmp_path)
    assert found.equal
    assert found.identical == found.compared > 30
    assert found.outputs
    assert all(row.largest == 0 for row in found.outputs)
    assert "2 layers" in found.probe


def test_one_bit_is_found(pair: Callable[..., tuple[Path, Path]]) -> None:
    def change(arrays: Arrays) -> None:
        array = arrays[f"roberta.{DENSE}"]
        array[3, 5] = np.nextafter(array[3, 5], np.float32(9))

    found = compare(*pair(change))
    assert not found.equal
    assert [(row.name, row.count) for row in found.values] == [(DENSE, 1)]
    assert 0 < found.values[0].largest == found.largest < 1e-7
    assert found.identical == found.compared - 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_became_no_number_is_found(value: float, pair: Callable[..., tuple[Path, Path]]) -> None:
    def change(arrays: Arrays) -> None:
        arrays[f"roberta.{DENSE}"][0, 0] = value

    found = compare(*pair(change))
    assert found.values[0].largest == np.inf
    assert not any(row.equal for row in found.outputs)


def test_names_and_shapes(pair: Callable[..., tuple[Path, Path]]) -> None:
    def change(arrays: Arrays) -> None:
        del arrays["lm_head.dense.bias"]
        arrays["roberta.pooler.dense.weight"] = np.ones((16, 16), np.float32)
        arrays["roberta.pooler.dense.bias"] = np.ones(16, np.float32)

    found = compare(*pair(change))
    assert found.only_a == ("lm_head.dense.bias",)
    assert found.only_b == ("pooler.dense.weight", "pooler.dense.bias")
    assert not found.equal
    assert found.outputs == ()
    assert found.notes == ("outputs are not compared, because the models have different parameters",)


def test_two_vocabularies(pair: Callable[..., tuple[Path, Path]]) -> None:
    def change(arrays: Arrays) -> None:
        arrays["roberta.embeddings.word_embeddings.weight"] = np.ones((130, 16), np.float32)
        arrays["lm_head.bias"] = np.ones(130, np.float32)

    found = compare(*pair(change, vocab_size=130))
    assert [(row.name, row.a, row.b) for row in found.shapes] == [
        ("embeddings.word_embeddings.weight", (125, 16), (130, 16)),
        ("lm_head.bias", (125,), (130,)),
    ]
    assert not found.equal


@pytest.mark.parametrize(
    ("key", "value"),
    [("layer_norm_eps", 1e-3), ("hidden_act", "relu"), ("num_attention_heads", 4), ("pad_token_id", 2)],
)
def test_a_config_that_means_another_model(key: str, value: object, pair: Callable[..., tuple[Path, Path]]) -> None:
    found = compare(*pair(**{key: value}))
    assert not found.equal
    assert found.values == ()
    assert len(found.config) == 1
    assert found.config[0].startswith(f"{key}: ")
    if key != "pad_token_id":
        assert not found.outputs[0].equal


def test_two_names_of_an_activation_are_the_same(pair: Callable[..., tuple[Path, Path]]) -> None:
    assert compare(*pair(hidden_act="gelu_python")).equal


def test_rounded_weights_are_equal_up_to_rounding_and_others_are_not(pair: Callable[..., tuple[Path, Path]]) -> None:
    a, b = pair()
    for dtype in ("float16", "bfloat16"):
        convert(a, b.parent / dtype, "safetensors", dtype=dtype)
        found = compare(a, b.parent / dtype)
        assert found.equal
        assert found.identical == 0
        assert 0 < found.largest < 0.01

    def change(arrays: Arrays) -> None:
        arrays[f"roberta.{DENSE}"][1, 1] += 0.1

    config = config_of("base", "ForMaskedLM")
    arrays = arrays_of(config, "ForMaskedLM")
    change(arrays)
    save(b.parent / "changed", config, "ForMaskedLM", arrays)
    found = compare(b.parent / "changed", b.parent / "bfloat16")
    assert [(row.name, row.count) for row in found.values] == [(DENSE, 1)]


def test_tokenizers(pair: Callable[..., tuple[Path, Path]]) -> None:
    a, b = pair()
    assert compare(a, b).sentences == len(SENTENCES)
    (b / "sentencepiece.bpe.model").write_bytes(with_pieces(small_model(), 123))
    found = compare(a, b)
    assert found.tokens
    assert found.tokens[0].a != found.tokens[0].b
    assert not found.equal
    (b / "sentencepiece.bpe.model").unlink()
    found = compare(a, b)
    assert found.sentences == 0
    assert found.notes == (f"tokenizers are not compared, because there is none in {b}",)
    assert found.equal


def test_the_sentences_are_of_many_scripts() -> None:
    import unicodedata

    scripts = {unicodedata.name(letter, "?").split()[0] for text in SENTENCES for letter in text if letter.isalpha()}
    assert len(scripts) >= 20
    assert len(set(SENTENCES)) == len(SENTENCES)


# What other people's code wrote


RECORDED = [
    *(f"hf/{head}" for head in (*HEADS, "ForCausalLM_cross")),
    "xl/ForMaskedLM",
]


@pytest.mark.parametrize("folder", RECORDED)
def test_recorded_files_of_every_format_hold_the_same_model(folder: str, shared: Path) -> None:
    first = shared / "fixtures" / folder / "model.safetensors"
    others = [path for path in first.parent.iterdir() if path.suffix in (".bin", ".h5", ".msgpack")]
    assert others
    for other in others:
        found = compare(first, other)
        assert found.equal, other
        assert found.identical == found.compared
        assert found.outputs, other


@pytest.mark.parametrize("writer", ["bin", "h5", "msgpack", "safetensors"])
def test_recorded_shards_hold_the_same_model(writer: str, shared: Path) -> None:
    folder = shared / "fixtures" / "hf_sharded" / f"ForMaskedLM_{writer}"
    found = compare(shared / "fixtures" / "hf_variants" / "ForMaskedLM_small", folder)
    assert found.equal
    assert found.identical == found.compared


# The small forward pass


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("head", ["ForMaskedLM", "ForCausalLM", "Model", "ForMultipleChoice"])
def test_a_sampled_vocabulary_gives_what_the_whole_one_gives(
    family: str, tied: bool, head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, config_of(family, head, tie_word_embeddings=tied), head)
    with open_model(tmp_path) as files:
        monkeypatch.setattr(probe, "VOCABULARY", 20)
        sampled = make_probe(files.config, head)
        rows = sampled.rows[""]
        assert 1 in rows
        assert "20 of 125 rows" in sampled.describe(files.config)
        some = run_probe(files, sampled)
        every = run_probe(files, probe.Probe(sampled.inputs, {}))
    for name, values in every.items():
        expected = values[..., rows] if name == "logits" and head in ("ForMaskedLM", "ForCausalLM") else values
        assert np.allclose(some[name], expected, rtol=0, atol=1e-12), name


@pytest.mark.parametrize("size", [1, 7, 64, 100, 10_000])
def test_rows_are_picked_from_pieces_of_any_size(size: int) -> None:
    array = np.arange(50 * 16, dtype=np.float32).reshape(50, 16)
    rows = np.array([0, 1, 7, 30, 31, 49])
    assert np.array_equal(probe._rows_of(in_pieces(array, size), rows).to_numpy(), array[rows])


def test_padding_is_left_out_of_what_is_compared(tmp_path: Path) -> None:
    save(tmp_path, config_of("base", "ForTokenClassification"), "ForTokenClassification")
    with open_model(tmp_path) as files:
        made = make_probe(files.config, files.head)
        assert made.inputs["attention_mask"].sum() == 27
        assert run_probe(files, made)["logits"].shape == (27, 3)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_backend_gives_what_the_reference_gives(
    family: str, head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "VOCABULARY", 30)
    save(tmp_path, config_of(family, head, add_cross_attention=head == "ForCausalLM"), head)
    found = compare(tmp_path, tmp_path, backends=("reference", "pt"))
    assert found.equal
    assert found.backends == ("reference", "torch")
    assert any(0 < row.largest < 1e-4 for row in found.outputs)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_a_model_without_a_pooler_gets_none_in_a_backend(tmp_path: Path) -> None:
    config = config_of("base", "Model")
    save(tmp_path, config, "Model", arrays_of(config, "Model", pooler=False))
    found = compare(tmp_path, tmp_path, backends=("reference", "pt"))
    assert found.equal
    assert [row.name for row in found.outputs] == ["last_hidden_state"]


def test_a_backend_reads_the_file_that_is_compared(pair: Callable[..., tuple[Path, Path]]) -> None:
    def change(arrays: Arrays) -> None:
        arrays[f"roberta.{DENSE}"] += 1

    pytest.importorskip("torch")
    a, b = pair(change)
    named = (b / "model.safetensors").rename(b / "named.safetensors")
    assert compare(named, named, backends=("pt", "pt")).equal  # alone in its folder
    mine = named.rename(a / "mine.safetensors")
    with pytest.raises(CheckpointError, match="it would read model.safetensors; move mine.safetensors to a folder"):
        compare(a / "model.safetensors", mine, backends=("pt", "pt"))


def test_a_backend_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, config_of("base", "Model"), "Model")
    with pytest.raises(CheckpointError, match="^expected a backend of reference, torch, tf, flax, onnx, received"):
        compare(tmp_path, tmp_path, backends=("reference", "mxnet"))
    monkeypatch.setattr("xlmr_core.backends.installed", lambda name: False)
    with pytest.raises(MissingBackendError, match=r"pip install 'xlmr\[flax\]'"):
        compare(tmp_path, tmp_path, backends=("reference", "jax"))
