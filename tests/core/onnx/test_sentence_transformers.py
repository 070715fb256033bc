"""sentence-transformers reads an exported folder with its own ONNX backend; ``nox -s guests-onnx`` has both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xlmr_core.onnx import SentenceTransformer, export

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs
TEXTS = ["a text", "another text that is longer than the first", "第三个文本", "déjà vu, again"]


@pytest.mark.parametrize("name", ["st_mean", "st_cls", "st_max"])
def test_vectors_are_ours(name: str, shared: Path, tmp_path: Path) -> None:
    theirs = pytest.importorskip("sentence_transformers", reason="it is in the session `nox -s guests-onnx`")
    pytest.importorskip("optimum.onnxruntime", reason="it is in the session `nox -s guests-onnx`")
    export(shared / "fixtures" / "tasks" / name, tmp_path / name)
    how = {"file_name": "onnx/model.onnx", "provider": "CPUExecutionProvider"}
    model = theirs.SentenceTransformer(str(tmp_path / name), backend="onnx", device="cpu", model_kwargs=how)
    assert model.get_backend() == "onnx"
    ours = SentenceTransformer(str(tmp_path / name))
    np.testing.assert_allclose(model.encode(TEXTS, prompt=""), ours.encode(TEXTS, prompt=""), atol=2e-5)
