"""The tables of names and layouts: what is encoded is decoded to the same bits, for every head, family and variant."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.format_cases import WRITABLE, configs, contents_of, fairseq_has, plain, tensors_of, write
from tests.core.small_models import config_of
from xlmr_core.checkpoints.saving import save_checkpoint
from xlmr_core.errors import CheckpointError
from xlmr_core.formats import FORMATS, Model
from xlmr_core.formats.layouts import KEPT, TRANSPOSED, folded, rows
from xlmr_core.formats.naming import role_of
from xlmr_core.formats.tensors import RawTensor
from xlmr_core.parameters import Role, parameters
from xlmr_core.quantization import INT8

CONFIGS = configs()
IDS = [name for name, _, _ in CONFIGS]


def test_the_order_in_which_a_folder_is_searched() -> None:
    assert tuple(FORMATS) == (
        *("peft", "safetensors", "torch", "tf", "flax", "fairseq", "keras", "kerashub", "lightning", "onnx"),
    )
    assert WRITABLE == ("safetensors", "torch", "tf", "flax", "fairseq", "keras")


@pytest.mark.parametrize(("config", "head"), [entry[1:] for entry in CONFIGS], ids=IDS)
def test_a_name_tells_the_role_that_the_parameter_table_gives_it(config: object, head: str) -> None:
    for name, row in parameters(config, head).items():  # type: ignore[arg-type]
        assert role_of(name) is row.role, name
    assert role_of("roberta.embeddings.position_ids") is None
    rows = parameters(config, head, scheme=INT8)  # type: ignore[arg-type]
    beside = [name for name, row in rows.items() if row.role is Role.BESIDE]
    assert beside and not any(map(role_of, beside))


@pytest.mark.parametrize(
    ("config", "head", "format"),
    [
        pytest.param(config, head, format, id=f"{name}-{format}")
        for name, config, head in CONFIGS
        for format in WRITABLE
        if format != "fairseq" or fairseq_has(config, head)
    ],
)
def test_names_are_decoded_to_themselves_and_never_meet(config: object, head: str, format: str) -> None:
    model = Model(config, head)  # type: ignore[arg-type]
    written = FORMATS[format].written
    assert written is not None
    naming = written(model)
    assert naming.encode is not None
    seen: dict[str, str] = {}
    for name, row in parameters(model.config, head, pooler=False if format == "fairseq" else None).items():
        if row.tied_to is not None or (format == "fairseq" and "token_type" in name):
            continue
        stored, layout = naming.encode(name)
        assert seen.setdefault(stored, name) == name
        ((decoded, back),) = naming.decode(stored)
        assert (decoded, back) == (name, layout)


@pytest.mark.parametrize("format", WRITABLE)
def test_a_file_comes_back_bit_for_bit_in_every_variant(format: str, tmp_path: Path) -> None:
    count = 0
    for number, (name, config, head) in enumerate(CONFIGS):
        if format == "fairseq" and not fairseq_has(config, head):
            continue
        tags = (("F32",), ("F16",), ("BF16",), ("F32", "BF16", "F16", "F64"))[number % 4]
        tensors = tensors_of(config, head, format, tags)
        save_checkpoint(tmp_path / name, format, tensors, config, head)
        found, expected = contents_of(tmp_path / name), plain(tensors)
        if format == "fairseq":
            # Beside the model there are a neutral head, and token types in the dtype of the words.
            prefix = "roberta." if head == "Model" else ""
            own = {prefix + key for key in expected if key != "lm_head.decoder.bias" and "token_type" not in key}
            found = {key: value for key, value in found.items() if key in own}
            expected = {prefix + key: value for key, value in expected.items() if prefix + key in own}
        if format == "keras":
            expected.pop("lm_head.decoder.bias", None)  # the other name of lm_head.bias
        assert found == expected, name
        count += 1
    assert count == (12 if format == "fairseq" else 84)


@pytest.mark.parametrize("format", [name for name in WRITABLE if FORMATS[name].index])
@pytest.mark.parametrize("head", ["Model", "ForMaskedLM"])
def test_shards_come_back_bit_for_bit(format: str, head: str, tmp_path: Path) -> None:
    config = config_of("base", head)
    tensors = tensors_of(config, head, format, ("F32", "BF16"))
    paths = save_checkpoint(tmp_path, format, tensors, config, head, max_shard_size="4KB")
    assert len(paths) > 3
    single = Path(FORMATS[format].single)
    assert paths[0].name == f"{single.stem}-00001-of-{len(paths):05d}{single.suffix}"
    assert contents_of(tmp_path) == contents_of(tmp_path / FORMATS[format].index) == plain(tensors)
    again = save_checkpoint(tmp_path, format, tensors, config, head)
    assert [path.name for path in tmp_path.iterdir()] == [again[0].name], (
        "shards and index are gone with the old checkpoint"
    )


# Layouts

SHAPES = st.lists(st.integers(0, 4), min_size=1, max_size=3).map(tuple)
TAGS = st.sampled_from(("F32", "F16", "BF16", "U8", "I64"))


@given(st.data(), TAGS)
@settings(max_examples=60, deadline=None)
def test_layouts_are_their_own_inverse(data: st.DataObject, tag: str) -> None:
    from xlmr_core.formats.tensors import DTYPES, as_lazy

    layout = data.draw(st.sampled_from((KEPT, TRANSPOSED)))
    shape = data.draw(SHAPES.filter(lambda sizes: layout.shape(sizes) is not None))
    values = np.random.default_rng(len(shape)).integers(0, 256, int(np.prod(shape)) * DTYPES[tag].size, np.uint8)
    raw = RawTensor(tag, shape, memoryview(values.tobytes()))
    stored = layout.stored(as_lazy(raw))
    assert layout.shape(stored.shape) == shape
    for back in (layout.canonical(stored.read()), layout.canonical_stream(stored).read()):
        assert (back.dtype, back.shape, bytes(back.data)) == (tag, shape, bytes(raw.data))


def test_parts_and_folded_weights() -> None:
    whole = RawTensor.from_numpy(np.arange(12, dtype=np.float32).reshape(6, 2))
    parts = [rows(part, 3).canonical(whole).to_numpy().tolist() for part in range(3)]
    assert parts == [[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[8, 9], [10, 11]]]
    assert rows(0, 4).shape((6, 2)) is None
    kernel = np.arange(12, dtype=np.float32).reshape(3, 2, 2)  # in, heads, head size
    assert np.array_equal(folded(1, 2).canonical(RawTensor.from_numpy(kernel)).to_numpy(), kernel.reshape(3, 4).T)
    assert np.array_equal(folded(2, 1).canonical(RawTensor.from_numpy(kernel)).to_numpy(), kernel.reshape(6, 2).T)
    bias = RawTensor.from_numpy(np.arange(4, dtype=np.float32).reshape(2, 2))
    assert folded(0, 2).canonical(bias).to_numpy().tolist() == [0, 1, 2, 3]
    assert folded(1, 2).shape((3, 4)) is None


# What a format cannot hold


@pytest.mark.parametrize(
    ("head", "changes", "message"),
    [
        ("ForTokenClassification", {}, "it has no ForTokenClassification"),
        ("ForMaskedLM", {"is_decoder": True}, "is no decoder"),
        ("ForMaskedLM", {"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'"),
        ("ForMaskedLM", {"type_vocab_size": 2}, "type_vocab_size is 2"),
        ("ForMaskedLM", {"layer_norm_eps": 1e-12}, "layer_norm_eps is always 1e-05, and here it is 1e-12"),
        ("ForMaskedLM", {"hidden_act": abs}, "hidden_act <built-in function abs>"),
        ("ForMaskedLM", {"pad_token_id": 3}, "special tokens are always"),
        ("ForMaskedLM", {"pruned_heads": {0: [1]}}, "cannot hold pruned heads"),
        ("Model", {}, "it has no pooler"),
    ],
)
def test_fairseq_refuses_models_that_it_has_not(head: str, changes: dict, message: str, tmp_path: Path) -> None:
    config = config_of("base", head, **changes)
    with pytest.raises(CheckpointError, match=f"fairseq cannot hold this model: .*{re.escape(message)}"):
        save_checkpoint(tmp_path / "out", "fairseq", tensors_of(config, head, "safetensors"), config, head)
    assert not (tmp_path / "out").exists()


def test_token_types_go_into_the_positions_of_fairseq(tmp_path: Path) -> None:
    config = config_of("base", "ForMaskedLM")
    tensors = tensors_of(config, "ForMaskedLM", "safetensors")
    save_checkpoint(tmp_path, "fairseq", tensors, config, "ForMaskedLM")
    found = contents_of(tmp_path)
    positions, types = (f"roberta.embeddings.{kind}_embeddings.weight" for kind in ("position", "token_type"))
    expected = tensors[positions].to_numpy() + tensors[types].to_numpy()
    assert found[positions][2] == expected.tobytes()
    assert not any(found[types][2])


def test_a_tied_decoder_of_fairseq_takes_no_room(tmp_path: Path) -> None:
    config = config_of("base", "ForMaskedLM", vocab_size=5000)
    tensors = tensors_of(config, "ForMaskedLM", "fairseq")
    (path,) = save_checkpoint(tmp_path, "fairseq", tensors, config, "ForMaskedLM")
    assert path.stat().st_size < sum(raw.nbytes for raw in tensors.values()) + 20_000
    found = contents_of(tmp_path)
    assert found["lm_head.decoder.weight"] == found["roberta.embeddings.word_embeddings.weight"]


def test_formats_that_are_only_read_are_not_written(tmp_path: Path) -> None:
    config = config_of("base", "Model")
    for format in ("kerashub", "lightning"):
        with pytest.raises(
            CheckpointError, match="is only read; write one of safetensors, torch, tf, flax, fairseq, keras"
        ):
            save_checkpoint(tmp_path, format, {}, config, "Model")


@pytest.mark.parametrize("format", WRITABLE)
def test_equal_checkpoints_are_equal_files(format: str, tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / name, format)
    single = FORMATS[format].single
    assert (tmp_path / "a" / single).read_bytes() == (tmp_path / "b" / single).read_bytes()
