"""Adapters by PEFT: what is trained, that a run goes on, and that the merged model and the adapter say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.small_runs import losses, small_run
from xlmr_core.errors import InputError
from xlmr_torch import AutoModelForSequenceClassification, BitsAndBytesConfig
from xlmr_torch.training import model_for, train

peft = pytest.importorskip("peft", reason="adapters are PEFT's")
pytestmark = pytest.mark.filterwarnings("ignore")  # its own

INPUTS = {
    "input_ids": torch.tensor([[0, 5, 60, 7, 2], [0, 8, 9, 2, 1]]),
    "attention_mask": torch.tensor([[1] * 5, [1, 1, 1, 1, 0]]),
}


def answers(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**INPUTS).logits


def base_of(folder: Path, **values: Any) -> Any:
    run = small_run(folder, at=folder / "base", steps=1, **values)
    model_for(run).save_pretrained(folder / "start")
    return str(folder / "start")


@pytest.mark.parametrize("scheme", ["", "nf4"])
def test_adapters_train_and_merge(scheme: str, tmp_path: Path) -> None:
    start = base_of(tmp_path)
    more: dict[str, Any] = {}
    if scheme:
        four_bits = {"load_in_4bit": True, "bnb_4bit_quant_type": scheme}
        more["quantization_config"] = BitsAndBytesConfig(**four_bits, llm_int8_skip_modules=["classifier"])
    values = {"steps": 6, "checkpoint_every": 3, "lora_rank": 2, "dropout": 0.1, "lora_targets": ["query", "value"]}
    run = small_run(tmp_path, **values)
    model = AutoModelForSequenceClassification.from_pretrained(start, **run.settings, **more)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with run:
        train(model, run)
    after = {name.replace("base_layer.", ""): value for name, value in model.state_dict().items()}
    for name, value in before.items():
        assert "classifier" in name or torch.equal(after[name], value), name
    stored = torch.load(run.folder / "checkpoints" / "step-6" / "state.pt", weights_only=True)["model"]
    assert all("lora_" in name or "classifier" in name or "pairs" in name for name in stored)
    # The folder has the plain model; the adapter beside it says the same on the weights that it was trained on.
    merged = AutoModelForSequenceClassification.from_pretrained(run.folder)
    assert not merged.is_quantized and merged.dtype is torch.float32
    base = AutoModelForSequenceClassification.from_pretrained(start, **run.settings, **more)
    expected = answers(peft.PeftModel.from_pretrained(base, str(run.folder / "adapter")))
    torch.testing.assert_close(answers(merged), expected, rtol=0, atol=1e-5)
    plain = AutoModelForSequenceClassification.from_pretrained(start, **run.settings, **more)
    assert not torch.allclose(answers(plain), expected, atol=1e-3)


def test_a_run_with_adapters_goes_on(tmp_path: Path) -> None:
    values = {"steps": 6, "checkpoint_every": 2, "lora_rank": 2, "dropout": 0.1, "layer_decay": 0.9}
    whole = small_run(tmp_path, at=tmp_path / "whole", **values)
    with whole:
        train(model_for(whole), whole)
    broken = small_run(tmp_path, at=tmp_path / "broken", **values)
    broken.goes_on = lambda step: step < 5  # type: ignore[method-assign]
    broken.finish = lambda *arguments, **named: broken._flush()  # type: ignore[method-assign]
    with broken:
        train(model_for(broken), broken)
    resumed = small_run(tmp_path, at=tmp_path / "broken", **values)
    with resumed:
        train(model_for(resumed), resumed)
    assert losses(resumed) == losses(whole)
    one, other = (torch.load(run.folder / "checkpoints/step-6/state.pt", weights_only=True) for run in (whole, resumed))
    assert all(torch.equal(value, other["model"][name]) for name, value in one["model"].items())


def test_a_head_of_codes_is_refused(tmp_path: Path) -> None:
    run = small_run(tmp_path, lora_rank=2)
    codes = {"quantization_config": BitsAndBytesConfig(load_in_4bit=True)}
    model = AutoModelForSequenceClassification.from_pretrained(base_of(tmp_path), **run.settings, **codes)
    with run, pytest.raises(InputError, match=r"classifier: expected float.*llm_int8_skip_modules=\['classifier'\]"):
        train(model, run)


# What PEFT is told, by what it shows.
SAVED: dict[str, dict[str, Any]] = {
    "plain": {"lora_alpha": 3},
    "root of the rank": {"use_rslora": True},
    "magnitudes": {"use_dora": True},
    "patterns": {"rank_pattern": {"layer.0.attention.self.query": 3}, "alpha_pattern": {"self.value": 5}},
    "embeddings": {"target_modules": ["word_embeddings", "dense"], "exclude_modules": ["classifier.dense"]},
    "biases": {"bias": "all"},
    "biases of their own": {"lora_bias": True},
    "a head": {"task_type": "SEQ_CLS"},
    "norms": {"modules_to_save": ["LayerNorm", "classifier"]},
}


@pytest.mark.parametrize("kind", SAVED)
def test_what_peft_saved_loads_without_it(kind: str, tmp_path: Path) -> None:
    base = AutoModelForSequenceClassification.from_pretrained(base_of(tmp_path))
    config = peft.LoraConfig(**{"r": 2, "target_modules": ["query", "value"], **SAVED[kind]})
    model = peft.get_peft_model(base, config)
    with torch.no_grad():
        torch.manual_seed(1)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter).abs())
    model.save_pretrained(tmp_path / "adapter")
    found = AutoModelForSequenceClassification.from_pretrained(tmp_path / "adapter")
    torch.testing.assert_close(answers(found), answers(model), rtol=0, atol=1e-5)
    start = AutoModelForSequenceClassification.from_pretrained(tmp_path / "start")
    assert not torch.allclose(answers(start), answers(model), atol=1e-4)
