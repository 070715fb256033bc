"""What importing and building brings along."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = (
    *("tensorflow", "keras", "jax", "flax", "transformers", "tokenizers", "sentencepiece", "huggingface_hub"),
    *("h5py", "triton", "xlmr_tf", "xlmr_flax"),
)
FOR_SOME_CALLS = (
    *("torch._dynamo", "torch._inductor", "xlmr_core.tokenization", "xlmr_core.tasks", "xlmr_core.reference"),
    *("xlmr_torch.pipelines", "xlmr_torch.int8", "xlmr_torch.inference"),
)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_brings_no_other_framework_and_no_tokenizer() -> None:
    found = f"[name for name in {FOREIGN} if name in sys.modules]"
    code = f"import sys, xlmr_torch; xlmr_torch.XLMRobertaForMaskedLM; print({found})"
    assert run(code).strip() == "[]"


def test_importing_brings_nothing_that_only_some_calls_need() -> None:
    """How long it takes is measured in benchmarks/start_up.py; this is what would make it long."""
    code = f"""
import sys, torch, numpy, safetensors
before = set(sys.modules)
import xlmr_torch
new = set(sys.modules) - before
known = {{'xlmr_core', 'xlmr_torch', 'numpy.typing', 'numpy._typing._add_docstring', *sys.stdlib_module_names}}
foreign = {{name for name in new - known if name.partition('.')[0] not in known}}
print(sorted(foreign), [name for name in {FOR_SOME_CALLS} if name in new])
"""
    assert run(code).strip() == "[] []"


@pytest.mark.parametrize("name", ["XLMRobertaConfig.base()", "XLMRobertaXLConfig.xl()"])
def test_building_on_meta_draws_nothing_and_imports_no_other_library(name: str) -> None:
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
print([name for name in {(*FOREIGN, *FOR_SOME_CALLS)} if name in set(sys.modules) - before])
"""
    assert run(code).strip() == "[]"


def test_loading_imports_no_other_library_and_draws_nothing(tmp_path: Path) -> None:
    code = f"""
import sys, torch, xlmr_torch
sizes = dict(vocab_size=41, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
config = xlmr_torch.XLMRobertaConfig(**sizes)
xlmr_torch.XLMRobertaForMaskedLM(config).save_pretrained({str(tmp_path)!r})
state = torch.get_rng_state()
before = set(sys.modules)
xlmr_torch.XLMRobertaForMaskedLM.from_pretrained({str(tmp_path)!r})
assert torch.equal(torch.get_rng_state(), state)
print([name for name in {(*FOREIGN, *FOR_SOME_CALLS)} if name in set(sys.modules) - before])
"""
    assert run(code).strip() == "[]"


def test_a_packed_batch_imports_no_compiler() -> None:
    """Neither in inference nor in training. Where PyTorch brings triton, that would end a process that has imported
    TensorFlow; anywhere it would take a second.
    """
    code = """
import sys, torch
from xlmr_torch import XLMRobertaForMaskedLM
before = set(sys.modules)
model = XLMRobertaForMaskedLM.from_pretrained("xlmr-mini").eval()
ids = torch.tensor([[0, 5, 2, 1], [0, 5, 7, 2]])
given = {"input_ids": ids, "attention_mask": (ids != 1).long()}
packed = []
model.base_model.encoder.register_forward_hook(lambda *_: packed.append(_[2].packing is not None))
type(model._onlookers).are_there = lambda *_: False
with torch.no_grad():
    model(**given)
with torch.inference_mode():
    model(**given)
model(**given, labels=ids.masked_fill(ids == 1, -100)).loss.backward()
model.train()(**given, labels=ids.masked_fill(ids == 1, -100)).loss.backward()
with torch.autocast("cpu", torch.bfloat16):
    model.eval()(**given).logits.sum().backward()
assert packed == [True] * 5, packed
new = {name.partition('.')[0] if name[:5] != 'torch' else name for name in set(sys.modules) - before}
print([name for name in ("torch._dynamo", "torch._inductor", "triton", "sympy") if name in new])
"""
    assert run(code).strip() == "[]"


def test_public_names_exist_and_are_listed() -> None:
    code = """
import xlmr_torch
assert set(dir(xlmr_torch)) == set(xlmr_torch.__all__)
assert all(getattr(xlmr_torch, name) is not None for name in xlmr_torch.__all__)
try:
    xlmr_torch.Nonsense
except AttributeError as error:
    print(error)
"""
    assert run(code).strip() == "module 'xlmr_torch' has no attribute 'Nonsense'"
