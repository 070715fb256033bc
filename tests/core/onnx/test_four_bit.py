"""Checkpoints of four bits as graphs: the bytes as they lie, ``MatMulBnb4`` for products, answers as the reference."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.core.small_models import config_of, save, with_tokenizer
from xlmr_core.conversion import convert
from xlmr_core.diagnosis import diagnose
from xlmr_core.errors import CheckpointError
from xlmr_core.inspection import inspect_model
from xlmr_core.onnx import OnnxModel, export
from xlmr_core.quantization import NF4, scheme_with
from xlmr_core.verification import compare

SIZES: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96}


def stored(folder: Path, head: str, scheme: Any, family: str = "base", **changes: Any) -> Path:
    save(folder / "plain", config_of(family, head, **{**SIZES, **changes}), head)
    with_tokenizer(folder / "plain")
    return convert(folder / "plain", folder / "stored", "safetensors", scheme=scheme).destination


def operators(path: Path) -> Counter[tuple[str, str]]:
    return Counter((node.domain, node.op_type) for node in onnx.load(path).graph.node)


@pytest.mark.parametrize(
    ("scheme", "head", "family"),
    [
        ("nf4", "ForMaskedLM", "base"),
        ("fp4", "ForTokenClassification", "xl"),
        ("bitsandbytes-nf4", "ForMaskedLM", "xl"),
        ("bitsandbytes-fp4", "ForSequenceClassification", "base"),
        (scheme_with(NF4, group_size=16, skip=["query"]), "Model", "base"),
    ],
    ids=str,
)
def test_a_graph_of_four_bits(scheme: Any, head: str, family: str, tmp_path: Path) -> None:
    source = stored(tmp_path, head, scheme, family, tie_word_embeddings=family == "base")
    done = export(source, tmp_path / "graph")
    assert done.files[0].name == "model_bnb4.onnx"
    found = operators(done.files[0])
    products = 2 * (6 if isinstance(scheme, str) else 5)
    # bitsandbytes takes the head's own as well.
    of_head = {"ForMaskedLM": 1, "ForSequenceClassification": 2}.get(head, 1)
    of_head = of_head if str(scheme).startswith("bitsandbytes") else 0
    assert found["com.microsoft", "MatMulBnb4"] == products + of_head
    assert {domain for domain, _ in found} == {"", "com.microsoft"}
    # The checkpoint again, bit for bit, with the same answers.
    result = compare(source, done.destination, backends=("reference", "onnx"))
    assert result.equal and result.identical == result.compared > 20, result
    share = inspect_model(done.destination).quantized
    assert share is not None and share.weights == done.quantized >= products
    assert diagnose(done.destination).healthy, diagnose(done.destination).findings


def test_it_is_small_and_runs_from_weights_too(tmp_path: Path) -> None:
    source = stored(tmp_path, "ForTokenClassification", "nf4", hidden_size=256, intermediate_size=512)
    graph = export(source, tmp_path / "graph").files[0]
    plain = export(tmp_path / "plain", tmp_path / "float32").files[0]
    assert graph.stat().st_size < 0.25 * plain.stat().st_size
    given = {"input_ids": np.array([[0, 5, 6, 2]]), "attention_mask": np.array([[1, 1, 1, 1]])}
    expected = OnnxModel.from_pretrained(tmp_path / "graph")(**given)["logits"]
    np.testing.assert_allclose(OnnxModel.from_pretrained(source)(**given)["logits"], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("scheme", "what"),
    [
        ("int4", "has int4 weights already, of which no operator of ONNX Runtime takes those of roberta.encoder"),
        ("bitsandbytes-int8", "has bitsandbytes weights already, of which no operator"),
        (scheme_with(NF4, group_size=8), "has nf4 weights already, of which no operator"),
    ],
    ids=str,
)
def test_what_no_operator_takes(scheme: Any, what: str, tmp_path: Path) -> None:
    source = stored(tmp_path, "ForTokenClassification", scheme)
    with pytest.raises(CheckpointError, match=f"{what}.*export the checkpoint it was made from"):
        export(source, tmp_path / "graph")
    assert not (tmp_path / "graph").exists()
