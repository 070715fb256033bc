"""Tasks on ONNX Runtime: recorded calls of the original pipelines and classes, asked again, without a framework."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core.small_models import config_of, save, with_tokenizer
from tests.recorded_calls import EVERY, EVERY_PUBLISHED, ask_again, ask_published
from xlmr_core import onnx, pipeline
from xlmr_core.cli import main
from xlmr_core.errors import InputError, MissingBackendError
from xlmr_core.onnx import OnnxModel, export, pipelines
from xlmr_core.onnx.pipelines import pipeline as on_onnx

WRITES = "text_generation"
CALLS = [(name, number) for name, number in EVERY if name != WRITES]


@pytest.fixture(scope="module")
def fixtures(shared: Path) -> Path:
    return shared / "fixtures" / "tasks"


@cache
def made(task: str, folder: Path) -> Any:
    return on_onnx(task, model=folder)


@pytest.mark.parametrize(("name", "number"), CALLS)
def test_recorded_call(name: str, number: int, fixtures: Path) -> None:
    ask_again(on_onnx, made, fixtures / name, number)


@cache
def of_class(kind: str, folder: Path, arguments: str) -> Any:
    return getattr(onnx, kind)(folder, **json.loads(arguments))


@pytest.mark.parametrize(("name", "number"), EVERY_PUBLISHED)
def test_recorded_call_of_a_class(name: str, number: int, fixtures: Path) -> None:
    ask_published(of_class, fixtures / name, number)


@pytest.mark.parametrize("name", ["fill_mask", "token_classification", "question_answering", "cross_encoder"])
def test_an_exported_folder_answers_as_the_checkpoint(name: str, fixtures: Path, tmp_path: Path) -> None:
    folder = fixtures / name
    numbers = [number for one, number in CALLS if one == name][:4]
    target = tmp_path / name
    export(folder, target)
    for number in numbers:
        ask_again(on_onnx, lambda task, _: on_onnx(task, model=target), folder, number)


def test_a_mask_is_filled_in_bytes(fixtures: Path, tmp_path: Path) -> None:
    text = "Paris is the <mask> of France."
    exact = made("fill-mask", fixtures / "fill_mask")(text, top_k=3)
    export(fixtures / "fill_mask", tmp_path / "a", scheme="int8")
    for model in (tmp_path / "a", tmp_path / "a" / "onnx" / "model_quantized.onnx"):
        found = pipeline("fill-mask", model, backend="onnx")(text, top_k=3)
        assert found[0]["token"] == exact[0]["token"] and abs(found[0]["score"] - exact[0]["score"]) < 0.1


def test_vectors_inside_the_graph(fixtures: Path, tmp_path: Path) -> None:
    for name in ("st_cls", "st_mean", "st_max"):
        export(fixtures / name, tmp_path / name)
        model = OnnxModel.from_pretrained(tmp_path / name)
        embed = on_onnx("sentence-embedding", tmp_path / name, prompt="")
        texts = ["a text", "another text that is longer than the first", "x"]
        given = embed.tokenizer(texts, padding=True, return_tensors="np")
        found = model.run({name: given[name] for name in ("input_ids", "attention_mask")}, ["sentence_embedding"])
        np.testing.assert_allclose(found["sentence_embedding"], embed(texts), atol=2e-6)


def test_three_kinds_of_vectors_inside_the_graph(fixtures: Path, tmp_path: Path) -> None:
    done = export(fixtures / "bge_m3", tmp_path / "a")
    assert done.outputs[-3:] == ("dense_vecs", "sparse_vecs", "colbert_vecs")
    embed = on_onnx("sentence-embedding", tmp_path / "a", outputs=("dense", "sparse", "colbert"))
    texts = ["a text", "another text that is longer than the first"]
    given = embed.tokenizer(texts, padding=True, return_tensors="np")
    found = OnnxModel.from_pretrained(tmp_path / "a")(**{name: given[name] for name in ("input_ids", "attention_mask")})
    for row, answer in enumerate(embed(texts)):
        np.testing.assert_allclose(found["dense_vecs"][row], answer["dense"], atol=2e-6)
        length = len(answer["colbert"])
        np.testing.assert_allclose(found["colbert_vecs"][row, :length], answer["colbert"], atol=5e-6)
        weights = found["sparse_vecs"][row, :, 0]
        ids = given["input_ids"][row]
        for token, weight in answer["sparse"].items():
            assert abs(max(weights[ids == int(token)]) - weight) < 5e-6


def test_scores_inside_the_graph(fixtures: Path, tmp_path: Path) -> None:
    done = export(fixtures / "cross_encoder", tmp_path / "a", task="rerank")
    assert done.outputs == ("logits", "scores")
    rank = on_onnx("rerank", tmp_path / "a")
    pairs = [["a query", "a passage"], ["a query", "another"]]
    given = rank.tokenizer(pairs, padding=True, return_tensors="np")
    found = OnnxModel.from_pretrained(tmp_path / "a")(**{name: given[name] for name in ("input_ids", "attention_mask")})
    expected = {row["index"]: row["score"] for row in rank("a query", ["a passage", "another"])}
    np.testing.assert_allclose(found["scores"][:, 0], [expected[0], expected[1]], atol=1e-5)


def test_what_is_refused(fixtures: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="text-generation writes texts, and graphs are of encoders"):
        on_onnx("text-generation", fixtures / WRITES)
    with pytest.raises(InputError, match="needs a trained head"):
        on_onnx("question-answering", fixtures / "fill_mask")
    export(fixtures / "fill_mask", tmp_path / "a")
    with pytest.raises(InputError, match="question-answering needs a model of AutoModelForQuestionAnswering"):
        on_onnx("question-answering", tmp_path / "a")
    model = OnnxModel.from_pretrained(tmp_path / "a")
    ask = on_onnx("fill-mask", model, tokenizer=str(tmp_path / "a"))
    assert ask.framework == "onnx" and str(ask.device) == "cpu"
    with pytest.raises(InputError, match="stays where"):
        on_onnx("fill-mask", model, tokenizer=str(tmp_path / "a"), device="cpu")
    with pytest.raises(InputError, match="graphs are of encoders"):
        ask.runner.generate({}, {})
    assert type(ask) is pipelines.FillMaskPipeline


def test_other_backends_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from xlmr_core import pipelines as by_name

    asked = []
    monkeypatch.setattr(by_name, "load_backend", lambda name: asked.append(name) or pipelines)
    assert pipeline("fill-mask", backend="onnx").task == "fill-mask" and asked == ["onnx"]
    monkeypatch.setattr("xlmr_core.backends.installed", lambda name: False)
    with pytest.raises(MissingBackendError, match=r"pip install one of .*'xlmr\[onnx\]'"):
        pipeline("fill-mask")


def test_from_the_command_line(fixtures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", "--backend", "onnx", "--task", "fill-mask", "--top-k", "1", "--json", "Paris is the <mask>."]
    assert main([*command, "--model", str(fixtures / "fill_mask")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["answer"][0]["token_str"] if "answer" in found else found


def test_nothing_of_a_framework_is_imported(tmp_path: Path) -> None:
    source = tmp_path / "a"
    save(source, config_of("base", "ForMaskedLM"), "ForMaskedLM")
    with_tokenizer(source)
    code = f"""
import sys
from xlmr_core import onnx, pipeline
from xlmr_core.onnx import export
export({str(source)!r}, {str(tmp_path / "b")!r})
assert "onnxruntime" not in sys.modules
pipeline("fill-mask", {str(tmp_path / "b")!r}, backend="onnx")("a <mask>")
print(sorted({{name.partition(".")[0] for name in sys.modules}} & {{"torch", "tensorflow", "jax", "onnx", "google"}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.strip() == "[]", done.stdout + done.stderr
