"""What importing brings along, and what it does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jax", reason="needs the extra flax: pip install 'xlmr[flax]'")

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = (
    *("torch", "tensorflow", "keras", "transformers", "tokenizers", "sentencepiece", "huggingface_hub", "h5py"),
    *("xlmr_torch", "xlmr_tf"),
)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_and_building_bring_no_other_framework_and_draw_nothing():
    code = f"""
import sys, jax, xlmr_flax
config = xlmr_flax.XLMRobertaXLConfig.xl()
model = xlmr_flax.FlaxXLMRobertaXLForMaskedLM(config, _do_init=False)
assert model.num_parameters() > 3.4e9 and not jax.live_arrays()
print([name for name in {FOREIGN} if name in sys.modules])
"""
    assert run(code) == "[]"


def test_public_names_exist_and_are_listed():
    code = """
import xlmr_flax
assert set(dir(xlmr_flax)) == set(xlmr_flax.__all__)
assert all(getattr(xlmr_flax, name) is not None for name in xlmr_flax.__all__)
try:
    xlmr_flax.Nonsense
except AttributeError as error:
    print(error)
"""
    assert run(code) == "module 'xlmr_flax' has no attribute 'Nonsense'"
