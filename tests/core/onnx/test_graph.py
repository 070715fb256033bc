"""Graphs against the reference: every head, both families, every kind of padding, in float32 and in bytes."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.choice import chosen
from tests.core.small_models import Arrays, arrays_of, config_of, save
from xlmr_core.checkpoints.model_files import open_model
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.heads import HEADS
from xlmr_core.onnx.heads import HEAD_GRAPHS
from xlmr_core.onnx.model import OnnxModel
from xlmr_core.onnx.pipelines import HEAD_OF_AUTO
from xlmr_core.onnx.writing import Model, model_to_write, write_model
from xlmr_core.quantization import INT8
from xlmr_core.reference import forward

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "untied": {"tie_word_embeddings": False},
    "token_types": {"type_vocab_size": 3},
    "relative_key": {"position_embedding_type": "relative_key"},
    "relative_key_query": {"position_embedding_type": "relative_key_query"},
    "pruned": {"pruned_heads": {1: [0]}},
    "gelu_new": {"hidden_act": "gelu_new"},
    "silu": {"hidden_act": "silu"},
}
# Rows of a batch, a token a letter, as of tests/parity/cases.py.
BATCHES = {
    "right": ("ttttttt", "ttt....", "t......"),
    "left": ("ttttttt", "....ttt", ".tttttt"),
    "inside": ("tt..ttt", "ttttt.t"),
    "nothing": ("ttttttt", "ttttttt"),
    "a row of padding": ("ttttttt", "......."),
    "one token": ("t",),
}
CASES = [(family, head, variant) for family in ("base", "xl") for head in HEAD_GRAPHS for variant in VARIANTS]
# Each head with each family, and each variant with some head.
FEW = [case for number, case in enumerate(CASES) if case[2] == "plain" or number % 7 == 0]


def model_of(
    folder: Path, family: str, head: str, changes: dict[str, Any], **how: Any
) -> tuple[Model, OnnxModel, Arrays]:
    config = config_of(family, head, **changes)
    arrays = save(folder, config, head)
    with open_model(folder) as files:
        model = model_to_write(files, **how)
        memory = io.BytesIO()
        write_model(model, memory)
        session = onnxruntime.InferenceSession(memory.getvalue(), providers=["CPUExecutionProvider"])
        return model, OnnxModel(session, config, HEADS[head]), arrays


def batch_of(config: XLMRobertaConfig, rows: tuple[str, ...], head: str) -> dict[str, np.ndarray]:
    mask = np.array([[int(letter == "t") for letter in row] for row in rows])
    if head == "ForMultipleChoice":
        mask = np.stack([mask, mask[::-1]], 1)
    rng = np.random.default_rng(1)
    ids = np.where(mask == 1, rng.integers(4, config.vocab_size, mask.shape), config.pad_token_id)
    types = rng.integers(0, config.type_vocab_size, mask.shape)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def where_it_counts(name: str, array: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The rows of tokens, of an output that has a row for each; of a text without any all of them."""
    if name in ("pooler_output",) or array.shape[: mask.ndim] != mask.shape or mask.ndim != 2:
        return array
    return array[(mask == 1) | (mask.sum(1, keepdims=True) == 0)]


@pytest.mark.parametrize(("family", "head", "variant"), chosen(CASES, FEW))
def test_a_graph_is_the_reference(family: str, head: str, variant: str, tmp_path: Path) -> None:
    model, graph, arrays = model_of(tmp_path, family, head, VARIANTS[variant])
    for name, rows in BATCHES.items():
        given = batch_of(graph.config, rows, head)
        expected = forward(graph.config, head, arrays, **given)
        found = graph.run(given)
        assert list(found) == [key for key in expected if key in found] and found, name
        for key, array in found.items():
            own = where_it_counts(key, array, given["attention_mask"])
            wanted = where_it_counts(key, np.asarray(expected[key]), given["attention_mask"])
            np.testing.assert_allclose(own, wanted, atol=2e-5, rtol=1e-5, err_msg=f"{name}: {key}")
    assert set(model.tensors) == set(arrays)


@pytest.mark.parametrize("head", HEAD_GRAPHS)
def test_a_graph_is_valid_and_standard(head: str, tmp_path: Path) -> None:
    for scheme in (None, INT8):
        model, _, _ = model_of(tmp_path / str(scheme), "base", head, {}, scheme=scheme)
        memory = io.BytesIO()
        write_model(model, memory)
        loaded = onnx.load_from_string(memory.getvalue())
        onnx.checker.check_model(loaded, full_check=True)
        assert {node.domain for node in loaded.graph.node} == {""}
        assert [entry.version for entry in loaded.opset_import] == [17]


def operators(model: Model) -> Counter[str]:
    memory = io.BytesIO()
    write_model(model, memory)
    return Counter(node.op_type for node in onnx.load_from_string(memory.getvalue()).graph.node)


def test_in_bytes_the_operators_are_those_of_bytes(tmp_path: Path) -> None:
    plain, _, _ = model_of(tmp_path / "plain", "base", "ForMaskedLM", {})
    quantized, _, _ = model_of(tmp_path / "int8", "base", "ForMaskedLM", {}, scheme=INT8)
    before, after = operators(plain), operators(quantized)
    # Of two layers six projections and two products of attention each; the head's own, and that to the vocabulary.
    assert (before["MatMul"], before["Gemm"], before["MatMulInteger"]) == (2 * 6 + 2 * 2 + 2, 0, 0)
    assert (after["MatMul"], after["Gemm"], after["MatMulInteger"]) == (2 * 2 + 1, 0, 2 * 6 + 1)
    # What three projections share is rounded once.
    assert after["DynamicQuantizeLinear"] == 2 * 4 + 1
    in_bytes = {name for name, tensor in quantized.tensors.items() if tensor.dtype == "I8"}
    assert "roberta.embeddings.word_embeddings.weight" in in_bytes and len(in_bytes) == 2 * 6 + 1
    assert quantized.nbytes < 0.6 * plain.nbytes


@pytest.mark.parametrize("family", ["base", "xl"])
@pytest.mark.parametrize("head", ["ForMaskedLM", "ForTokenClassification"])
def test_in_bytes_answers_are_close(family: str, head: str, tmp_path: Path) -> None:
    _, graph, arrays = model_of(tmp_path, family, head, {"hidden_size": 64, "intermediate_size": 96}, scheme=INT8)
    given = batch_of(graph.config, BATCHES["right"], head)
    own = where_it_counts("logits", graph.run(given)["logits"], given["attention_mask"])
    wanted = forward(graph.config, head, arrays, **given)["logits"]
    wanted = where_it_counts("logits", np.asarray(wanted), given["attention_mask"])
    assert np.linalg.norm(own - wanted) < 0.1 * np.linalg.norm(wanted)


def test_logits_at_some_positions(tmp_path: Path) -> None:
    _, graph, arrays = model_of(tmp_path, "base", "ForMaskedLM", {})
    given = batch_of(graph.config, BATCHES["right"], "ForMaskedLM")
    places = np.array([[1, 6], [2, -1], [0, -1]])
    wanted = forward(graph.config, "ForMaskedLM", arrays, **given, masked_positions=places)["logits"]
    np.testing.assert_allclose(graph.run({**given, "masked_positions": places})["logits"], wanted, atol=2e-5)


def test_padding_is_answered_where_it_is_asked_for(tmp_path: Path) -> None:
    _, graph, arrays = model_of(tmp_path, "base", "Model", {})
    given = batch_of(graph.config, BATCHES["left"], "Model")
    for_each = np.repeat(given["attention_mask"][:, None], given["attention_mask"].shape[1], 1)
    wanted = forward(graph.config, "Model", arrays, **given)["last_hidden_state"]
    found = graph.run({**given, "attention_mask": for_each})["last_hidden_state"]
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    given = batch_of(graph.config, BATCHES["right"], "Model")
    padding = given["attention_mask"] == 0
    assert (graph.run(given)["last_hidden_state"][padding] == 0).all()


def test_token_types_may_be_left_out_and_are_ignored_where_there_is_one(tmp_path: Path) -> None:
    _, graph, _ = model_of(tmp_path, "base", "Model", {})
    given = batch_of(graph.config, BATCHES["right"], "Model")
    types = given.pop("token_type_ids")
    feeds = {name: array.astype(np.int64) for name, array in given.items()}
    (alone,) = graph.session.run(["last_hidden_state"], feeds)
    (ignored,) = graph.session.run(["last_hidden_state"], {**feeds, "token_type_ids": types + 7})
    np.testing.assert_array_equal(alone, ignored)


def test_values_beside_the_graph_are_the_same_model(tmp_path: Path) -> None:
    config = config_of("base", "ForTokenClassification")
    save(tmp_path, config, "ForTokenClassification", arrays_of(config, "ForTokenClassification"))
    with open_model(tmp_path) as files:
        model = model_to_write(files)
        (tmp_path / "one").mkdir()
        (tmp_path / "two").mkdir()
        with (tmp_path / "one" / "model.onnx").open("wb") as file:
            write_model(model, file)
        values = tmp_path / "two" / "model.onnx_data"
        with (tmp_path / "two" / "model.onnx").open("wb") as file, values.open("wb") as beside:
            write_model(model, file, (values.name, beside))
    assert (tmp_path / "two" / "model.onnx").stat().st_size < 60_000
    given = batch_of(config, BATCHES["right"], "")
    found = []
    for folder in ("one", "two"):
        session = onnxruntime.InferenceSession(tmp_path / folder / "model.onnx", providers=["CPUExecutionProvider"])
        found.append(OnnxModel(session, config, HEADS["ForTokenClassification"]).run(given)["logits"])
    np.testing.assert_array_equal(*found)


def test_every_head_of_an_encoder_has_a_graph() -> None:
    assert set(HEAD_GRAPHS) == set(HEADS) - {"ForCausalLM"} == set(HEAD_OF_AUTO.values())
