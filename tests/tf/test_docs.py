"""What the pages on Keras show runs, block after block; ``<!-- not run: REASON -->`` exempts one."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")

from xlmr_core.checkpoints.load_plan import LoadWarning

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCK = re.compile(r"^(<!-- not run: [^\n]+ -->\n)?```python\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated:UserWarning")
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")  # the default of fit, also for datasets
@pytest.mark.parametrize("page", ["keras.md", "keras-training.md", "keras-serving.md"])
def test_python_on_the_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = [code for exempt, code in BLOCK.findall((DOCS / page).read_text(encoding="utf-8")) if not exempt]
    assert len(blocks) >= 2
    names: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LoadWarning)  # a head that starts fresh says so, as it should
        for code in blocks:
            exec(compile(code, page, "exec"), names)
