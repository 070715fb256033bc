"""The Python on the pages about this backend runs, each page from its first line to its last."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

pytest.importorskip("jax", reason="needs the extra flax: pip install 'xlmr[flax]'")

from xlmr_core.checkpoints.load_plan import LoadWarning

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("page", ["flax.md", "flax-training.md"])
def test_python_on_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert blocks
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LoadWarning)  # a head that starts fresh says so, as it should
        exec(compile("\n".join(blocks), page, "exec"), {})
