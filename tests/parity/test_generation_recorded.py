"""Generation of the reference against what transformers 4.57.6 recorded, token for token.

``hfpos`` is its generation as it is: with positions 0, 1, 2, ... in base and large, and with those of the forward pass
in XL, which numbers them itself. ``fspos`` and ``fsfull`` leave positions to the forward pass, which counts from
``pad_token_id + 1``.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.parity import recorded
from xlmr_core.config import AutoConfig
from xlmr_core.generation import GenerationConfig, arrange_prompt, plan_generation, read_request
from xlmr_core.reference.generation import generate

FOLDERS = ("hf/ForCausalLM", "hf/ForCausalLM_cross", "xl/ForCausalLM_cross")
POSITIONS = ("hfpos", "hfpospad", "fspos", "fsfullpad")
# Recorded with a cache and positions left to a forward pass that cannot know of the padding before: the same library
# gives other tokens without its cache (``fsfullpad``), which are the right ones.
WRONG = ("fspospad",)
BEAMS = {"num_beams": 4, "num_return_sequences": 2, "early_stopping": False, "length_penalty": 1.0}


@functools.cache
def stored(path: Path) -> dict[str, Any]:
    with np.load(path / "expected.npz") as file:
        return dict(file)


def generated(path: Path, positions: str, **options: Any) -> Any:
    """What the reference generates after the recorded prompt."""
    config, values = AutoConfig.from_pretrained(path), stored(path)
    numbering = "zero_based" if positions.startswith("hfpos") and config.model_type == "xlm-roberta" else "model"
    part = "decpad" if positions.endswith("pad") else "dec"
    request = read_request(
        config,
        GenerationConfig.from_model_config(config),
        caller="generate()",
        kwargs={"max_new_tokens": 10, "position_numbering": numbering, **options},
    )
    prompt = arrange_prompt(
        config,
        values[f"{part}_prompt"],
        values.get(f"{part}_attention_mask"),
        position_numbering=numbering,
    )
    memory = {
        name.removeprefix("dec_"): values[name]
        for name in ("dec_encoder_hidden_states", "dec_encoder_attention_mask")
        if name in values
    }
    plan = plan_generation(config, request, prompt)
    return generate(config, recorded.read_parameters(path), plan, prompt, **memory)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_recorded_generation_is_judged(shared: Path, folder: str) -> None:
    names = {name.split("_")[1] for name in stored(shared / "fixtures" / folder) if name.startswith("gen_")}
    assert names == {*POSITIONS, *WRONG}


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("folder", FOLDERS)
def test_greedy(shared: Path, folder: str, positions: str) -> None:
    path = shared / "fixtures" / folder
    output = generated(path, positions)
    expected = stored(path)[f"gen_{positions}_greedy"]
    np.testing.assert_array_equal(output.sequences, expected)
    top = stored(path).get(f"gen_{positions}_greedy_top")
    if top is not None:
        np.testing.assert_allclose(np.stack([step.max(axis=1) for step in output.scores], axis=1), top, atol=2e-5)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("folder", FOLDERS)
def test_beams(shared: Path, folder: str, positions: str) -> None:
    path = shared / "fixtures" / folder
    output = generated(path, positions, **BEAMS)
    np.testing.assert_array_equal(output.sequences, stored(path)[f"gen_{positions}_beam4"])
    np.testing.assert_allclose(output.sequences_scores, stored(path)[f"gen_{positions}_beam4_scores"], atol=2e-5)
