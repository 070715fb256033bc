"""transformers.js under node answers from an exported folder as we do; ``nox -s javascript`` fetches it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core.small_models import config_of, save
from xlmr_core.onnx import export, pipeline

MODULES = os.environ.get("XLMR_NODE_MODULES", "")
pytestmark = pytest.mark.skipif(not MODULES, reason="transformers.js is in the session `nox -s javascript`")
TEXTS = ["Ada Lovelace lived in London.", "Один текст, и ещё один", "第三个文本 with two scripts", "déjà vu"]
MASKED = ["Paris is the <mask> of France.", "Un <mask>."]
EXACT, BYTES = 2e-4, 0.05


@pytest.fixture(scope="module")
def root(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of exported models, by task."""
    root = tmp_path_factory.mktemp("models")
    for name in ("fill_mask", "text_classification", "token_classification", "feature_extraction"):
        source = root / "sources" / name
        shutil.copytree(shared / "fixtures" / "tasks" / name, source)
        # As the published checkpoints have it: a sentencepiece model, and nearly nothing of the special tokens.
        (source / "tokenizer.json").unlink()
        (source / "tokenizer_config.json").write_text('{"model_max_length": 64}')
        for scheme in (None, "int8"):
            export(source, root / name, scheme=scheme, reader="transformers.js")
    return root


@pytest.fixture(scope="module")
def folder(root: Path) -> Path:
    folder = root / "script"
    folder.mkdir()
    shutil.copy(Path(__file__).parent / "answers.mjs", folder)
    (folder / "node_modules").symlink_to(Path(MODULES).resolve())
    return folder


def ask(folder: Path, root: Path, jobs: list[dict[str, Any]]) -> list[Any]:
    given = json.dumps({"root": f"{root}/", "jobs": [{"dtype": "fp32", "options": {}, **job} for job in jobs]})
    done = subprocess.run(["node", "answers.mjs"], cwd=folder, input=given, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    answers: list[Any] = json.loads(done.stdout)
    return answers


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", EXACT), ("q8", BYTES)])
def test_a_mask_is_filled(dtype: str, tolerance: float, root: Path, folder: Path) -> None:
    job = {"task": "fill-mask", "model": "fill_mask", "dtype": dtype, "texts": MASKED, "options": {"top_k": 5}}
    expected = pipeline("fill-mask", root / "fill_mask", dtype={"fp32": "float32", "q8": "int8"}[dtype])(MASKED)
    for theirs, ours in zip(ask(folder, root, [job])[0], expected, strict=True):
        assert [row["token"] for row in theirs] == [row["token"] for row in ours]
        np.testing.assert_allclose([row["score"] for row in theirs], [row["score"] for row in ours], atol=tolerance)


def test_texts_are_classified(root: Path, folder: Path) -> None:
    job = {"task": "text-classification", "model": "text_classification", "texts": TEXTS, "options": {"top_k": None}}
    expected = pipeline("text-classification", root / "text_classification")(TEXTS, top_k=None)
    for theirs, ours in zip(ask(folder, root, [job])[0], expected, strict=True):
        assert [row["label"] for row in theirs] == [row["label"] for row in ours]
        np.testing.assert_allclose([row["score"] for row in theirs], [row["score"] for row in ours], atol=EXACT)


def compare_tokens(theirs: list[dict[str, Any]], ask: Any, text: str) -> None:
    """Piece by piece; theirs leaves out those that decode to nothing: a space alone, or what is unknown."""
    at, ours = {row["index"]: row for row in theirs}, ask(text)
    found = [row for row in ours if row["index"] in at]
    assert found and len(found) == len(theirs)
    left_out = {row["word"] for row in ours if row["index"] not in at} - {"\u2581"}
    assert all(ask.tokenizer.convert_tokens_to_ids(word) == ask.tokenizer.unk_token_id for word in left_out)
    for row in found:
        other = at[row["index"]]
        assert other["entity"] == row["entity"] and abs(other["score"] - row["score"]) < EXACT


def test_tokens_are_classified(root: Path, folder: Path) -> None:
    # One by one: their pipeline reads the label of padding too.
    options = {"ignore_labels": []}
    jobs = [
        {"task": "token-classification", "model": "token_classification", "texts": text, "options": options}
        for text in TEXTS
    ]
    ours_of = pipeline("token-classification", root / "token_classification", ignore_labels=[])
    for text, theirs in zip(TEXTS, ask(folder, root, jobs), strict=True):
        compare_tokens(theirs, ours_of, text)


def test_vectors_are_the_same(root: Path, folder: Path) -> None:
    job = {"task": "feature-extraction", "model": "feature_extraction"}
    pooled = {**job, "texts": TEXTS, "options": {"pooling": "mean", "normalize": True}}
    each = [{**job, "texts": text} for text in TEXTS]
    vectors, *states = ask(folder, root, [pooled, *each])
    ours = [np.array(rows[0]) for rows in pipeline("feature-extraction", root / "feature_extraction")(TEXTS)]
    for theirs, one in zip(states, ours, strict=True):
        np.testing.assert_allclose(theirs[0], one, atol=EXACT)
    means = np.stack([one.mean(0) for one in ours])
    np.testing.assert_allclose(vectors, means / np.linalg.norm(means, axis=1, keepdims=True), atol=EXACT)


def test_values_beside_the_graph_are_found(
    shared: Path, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    shutil.copytree(shared / "fixtures" / "tasks" / "text_classification", source)
    for module in ("exporting", "readers"):
        monkeypatch.setattr(f"xlmr_core.onnx.{module}.LARGEST_MESSAGE", 1000)
    done = export(source, tmp_path / "large", reader="transformers.js")
    assert [path.name for path in done.files] == ["model.onnx", "model.onnx_data"]
    job = {"task": "text-classification", "model": "large", "texts": TEXTS[:1]}
    ((answer,),) = ask(folder, tmp_path, [job])
    ours = pipeline("text-classification", tmp_path / "large")(TEXTS[0])[0]
    assert answer["label"] == ours["label"] and abs(answer["score"] - ours["score"]) < EXACT


def test_four_bits_are_read(tmp_path: Path, folder: Path, shared: Path) -> None:
    from xlmr_core.conversion import convert

    config = config_of("base", "ForTokenClassification", hidden_size=32, intermediate_size=64, vocab_size=1002)
    plain = tmp_path / "plain"
    save(plain, config, "ForTokenClassification")
    for path in (shared / "fixtures" / "tasks" / "fill_mask").iterdir():
        if "token" in path.name or "sentencepiece" in path.name:
            shutil.copy(path, plain)
    four = convert(plain, tmp_path / "four", "safetensors", scheme="nf4").destination
    assert export(four, tmp_path / "small", reader="transformers.js").files[0].name == "model_bnb4.onnx"
    options = {"ignore_labels": []}
    job = {"task": "token-classification", "model": "small", "dtype": "bnb4", "texts": "Ada", "options": options}
    (theirs,) = ask(folder, tmp_path, [job])
    compare_tokens(theirs, pipeline("token-classification", tmp_path / "small", ignore_labels=[]), "Ada")
