"""Parameters to every format that the core writes and back, by the core alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs the extra flax: pip install 'xlmr[flax]'")

import xlmr_flax  # noqa: E402
from tests.flax import models  # noqa: E402
from xlmr_core.conversion import writable_formats  # noqa: E402
from xlmr_core.heads import HEADS  # noqa: E402
from xlmr_core.verification import compare  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
# Formats that need more than a model: a tokenizer's dictionary.
FORMATS = [name for name in writable_formats() if name != "fairseq"]

WITHOUT_FRAMEWORKS = """
import sys
sys.modules.update(dict.fromkeys(("jax", "jaxlib", "flax", "torch", "tensorflow", "keras", "transformers")))
from xlmr_core.conversion import convert
for family in ("XLMRoberta", "XLMRobertaXL"):
    for name in sys.argv[1:]:
        convert(f"{family}/start", f"{family}/{name}", name)
        convert(f"{family}/{name}", f"{family}/{name}/back", "flax")
"""


def test_to_every_format_and_back(tmp_path):
    for family in models.FAMILIES:
        models.model("ForMaskedLM", family).save_pretrained(tmp_path / family / "start")
    command = [sys.executable, "-c", WITHOUT_FRAMEWORKS, *FORMATS]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(FORMATS) >= 4
    for family in models.FAMILIES:
        wanted = models.model("ForMaskedLM", family).params
        model_class = getattr(xlmr_flax, f"Flax{family}ForMaskedLM")
        for name in FORMATS:
            assert (tmp_path / family / name / "back" / "flax_model.msgpack").exists()
            found = model_class.from_pretrained(tmp_path / family / name / "back", from_flax=True)
            jax.tree.map(np.testing.assert_array_equal, found.params, wanted)


@pytest.mark.parametrize("head", HEADS)
def test_verify_compares_this_backend_with_the_reference(head, shared: Path):
    folder = shared / "fixtures" / "hf" / head
    found = compare(folder, folder, backends=("reference", "jax"))
    assert found.equal and found.outputs
    assert all(row.largest < 1e-4 for row in found.outputs)
