"""What importing and building brings along."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_brings_no_other_framework_and_no_tokenizer() -> None:
    foreign = (
        "tensorflow",
        "keras",
        "jax",
        "flax",
        "transformers",
        "tokenizers",
        "sentencepiece",
        "huggingface_hub",
        "xlmr_tf",
        "xlmr_flax",
    )
    code = f"import sys, xlmr_torch; xlmr_torch.XLMRobertaForMaskedLM; print([name for name in {foreign} if name in sys.modules])"
    assert run(code).strip() == "[]"


def test_importing_brings_little_beside_torch() -> None:
    code = """
import sys, torch, numpy, safetensors
before = set(sys.modules)
import xlmr_torch
new = set(sys.modules) - before
print(len(new), sorted(name for name in new if not name.startswith('xlmr_')))
"""
    count, others = run(code).strip().split(" ", 1)
    assert int(count) <= 60, others


@pytest.mark.parametrize("name", ["XLMRobertaConfig.base()", "XLMRobertaXLConfig.xl()"])
def test_building_on_meta_draws_nothing_and_imports_nothing(name: str) -> None:
    code = f"""
import sys, torch, xlmr_torch
config = xlmr_torch.{name}
family = type(config).__name__.removesuffix('Config')
state = torch.get_rng_state()
before = set(sys.modules)
with torch.device('meta'):
    model = getattr(xlmr_torch, family + 'ForMaskedLM')(config)
assert torch.equal(torch.get_rng_state(), state)
assert all(parameter.is_meta for parameter in model.parameters())
print(len(set(sys.modules) - before))
"""
    assert int(run(code)) <= 5


def test_loading_imports_little_and_draws_nothing(tmp_path: Path) -> None:
    code = f"""
import sys, torch, xlmr_torch
config = xlmr_torch.XLMRobertaConfig(vocab_size=41, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
xlmr_torch.XLMRobertaForMaskedLM(config).save_pretrained({str(tmp_path)!r})
state = torch.get_rng_state()
before = set(sys.modules)
xlmr_torch.XLMRobertaForMaskedLM.from_pretrained({str(tmp_path)!r})
assert torch.equal(torch.get_rng_state(), state)
print(len(set(sys.modules) - before))
"""
    assert int(run(code)) <= 30


def test_public_names_exist_and_are_listed() -> None:
    code = """
import xlmr_torch
assert set(dir(xlmr_torch)) == set(xlmr_torch.__all__)
assert all(getattr(xlmr_torch, name) is not None for name in xlmr_torch.__all__)
try:
    xlmr_torch.AutoModelForEverything
except AttributeError as error:
    print(error)
"""
    assert run(code).strip() == "module 'xlmr_torch' has no attribute 'AutoModelForEverything'"
