"""Values that stay in their file: graphs of references, and what they are not made of."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.core.small_models import config_of, save
from xlmr_core.formats.onnx_file import OnnxFile
from xlmr_core.onnx import OnnxModel, exporting
from xlmr_core.onnx.exporting import export
from xlmr_core.onnx.mapped import SMALLEST, map_values
from xlmr_core.onnx.writing import ALIGNMENT_INSIDE

GIVEN = {"input_ids": np.array([[0, 5, 6, 7, 2]]), "attention_mask": np.ones((1, 5), np.int64)}
HEAD = "ForMaskedLM"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    save(folder, config_of("base", HEAD), HEAD)
    return folder


@pytest.fixture(scope="module")
def graph(source: Path) -> Path:
    return export(source, source).files[0]


def logits(model: object) -> np.ndarray:
    return OnnxModel.from_pretrained(str(model))(**GIVEN)["logits"]


def test_values_begin_where_they_can_be_used(graph: Path) -> None:
    file = OnnxFile(graph)
    assert len(file.tensors) > 40
    for name in [name for name in file.tensors if "." in name]:
        assert not file._places[name][1] % ALIGNMENT_INSIDE, name
    onnx.checker.check_model(str(graph), full_check=True)


def test_a_graph_of_references_is_the_same_model(graph: Path, source: Path) -> None:
    mapped = map_values(graph)
    assert mapped is not None and mapped.folder == graph.parent
    loaded = onnx.load_from_string(mapped.graph)
    outside = [one for one in loaded.graph.initializer if one.data_location == onnx.TensorProto.EXTERNAL]
    assert {entry.value for one in outside for entry in one.external_data if entry.key == "location"} == {graph.name}
    left = [one for one in loaded.graph.initializer if one.data_location != onnx.TensorProto.EXTERNAL]
    assert outside and all(len(one.raw_data) < SMALLEST for one in left)
    assert len(mapped.graph) < 0.6 * graph.stat().st_size
    whole = onnx.load(graph)
    for one in outside:
        onnx.external_data_helper.load_external_data_for_tensor(one, str(graph.parent))
    assert {one.name: one.raw_data for one in loaded.graph.initializer} == {
        one.name: one.raw_data for one in whole.graph.initializer
    }
    from_weights = source.parent / "weights"
    from_weights.mkdir()
    for name in ("config.json", "model.safetensors"):
        (from_weights / name).write_bytes((source / name).read_bytes())
    np.testing.assert_array_equal(logits(source), logits(from_weights))


def test_a_link_as_the_cache_of_the_hub_has_it(graph: Path, source: Path, tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    blob = tmp_path / "blobs" / "8c5f"
    blob.write_bytes(graph.read_bytes())
    (tmp_path / "snapshot" / "onnx").mkdir(parents=True)
    (tmp_path / "snapshot" / "config.json").write_bytes((source / "config.json").read_bytes())
    (tmp_path / "snapshot" / "onnx" / "model.onnx").symlink_to(blob)
    mapped = map_values(tmp_path / "snapshot" / "onnx" / "model.onnx")
    assert mapped is not None and mapped.folder == blob.parent
    np.testing.assert_array_equal(logits(tmp_path / "snapshot"), logits(source))


def test_values_that_cannot_be_used_as_they_lie(
    graph: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another library aligns nothing.
    other = tmp_path / "other" / "onnx" / "model.onnx"
    other.parent.mkdir(parents=True)
    (tmp_path / "other" / "config.json").write_bytes((source / "config.json").read_bytes())
    onnx.save(onnx.load(graph), other)
    monkeypatch.setattr("xlmr_core.onnx.mapped._MOST", 10_000)
    assert map_values(other) is None
    np.testing.assert_array_equal(logits(tmp_path / "other"), logits(source))
    # They lie beside the graph, or the file is damaged.
    monkeypatch.setattr(exporting, "LARGEST_MESSAGE", 1000)
    beside = export(source, tmp_path / "beside").files[0]
    assert map_values(beside) is None
    np.testing.assert_array_equal(logits(tmp_path / "beside"), logits(source))
    for content in (b"", graph.read_bytes()[:5000], b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"):
        other.write_bytes(content)
        assert map_values(other) is None


def test_values_of_a_graph_made_now_live_as_long_as_the_session(source: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    model = OnnxModel.from_pretrained(tmp_path)
    before = model(**GIVEN)["logits"]
    (tmp_path / "model.safetensors").unlink()
    gc.collect()
    filled = [np.full(400, 7, np.float32) for _ in range(10_000)]
    np.testing.assert_array_equal(model(**GIVEN)["logits"], before)
    del filled
