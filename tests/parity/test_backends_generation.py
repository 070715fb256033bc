"""What each backend generates, against the reference's loop in float64, and against what transformers recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.choice import EVERYTHING
from tests.parity.adapters import TESTED, Mode, adapter, modes
from tests.parity.generation_cases import GENERATIONS, MASKED, expected_of, made_of
from tests.parity.test_generation_recorded import BEAMS, FOLDERS, POSITIONS, stored
from xlmr_core.config import AutoConfig
from xlmr_core.heads import model_class_name

pytestmark = [
    pytest.mark.filterwarnings("ignore:input_ids holds padding:UserWarning"),
    pytest.mark.filterwarnings("ignore:at least .* were asked for:UserWarning"),
]

EVERY = {**GENERATIONS, **MASKED}
EVERY_MODE = modes()
# Of these the two backends that compile a program for each take turns.
SMALL = [name for name, asked in EVERY.items() if asked.small]
TAKEN = EVERY if TESTED == "torch" else SMALL[("tf", "flax").index(TESTED) :: 2]
# Every case in one mode, the modes in turn.
ASKED = [
    pytest.param(name, *mode.values, id=f"{name}-{mode.id}", marks=mode.marks)
    for number, name in enumerate(EVERY)
    for turn, mode in enumerate(EVERY_MODE)
    if EVERYTHING or (number % len(EVERY_MODE) == turn and name in TAKEN)
]


@pytest.mark.parametrize(("name", "mode"), ASKED)
def test_equals_reference(name: str, mode: Mode) -> None:
    asked, expected = EVERY[name], expected_of(name)
    made = made_of(asked)
    model = adapter(mode).build(made.config, asked.head, made.params, mode, "float32")
    found = model.generate(made.inputs, made.options)
    np.testing.assert_array_equal(found["sequences"], expected["sequences"])
    if "sequences_scores" in expected:
        np.testing.assert_allclose(found["sequences_scores"], expected["sequences_scores"], atol=2e-5)
        np.testing.assert_array_equal(found["beam_indices"], expected["beam_indices"])


@pytest.mark.parametrize("mode", EVERY_MODE[-1:])
@pytest.mark.parametrize("positions", POSITIONS if TESTED == "torch" or EVERYTHING else POSITIONS[::3])
@pytest.mark.parametrize("folder", FOLDERS if TESTED == "torch" or EVERYTHING else FOLDERS[:1])
def test_equals_the_recorded(shared: Path, folder: str, positions: str, mode: Mode) -> None:
    path = shared / "fixtures" / folder
    config, values = AutoConfig.from_pretrained(path), stored(path)
    part = "decpad" if positions.endswith("pad") else "dec"
    zero_based = positions.startswith("hfpos") and config.model_type == "xlm-roberta"
    inputs: dict[str, Any] = {"input_ids": values[f"{part}_prompt"]}
    if f"{part}_attention_mask" in values:
        inputs["attention_mask"] = values[f"{part}_attention_mask"]
    names = ("dec_encoder_hidden_states", "dec_encoder_attention_mask")
    inputs |= {name.removeprefix("dec_"): values[name] for name in names if name in values}
    model = adapter(mode).load(path, model_class_name(config, "ForCausalLM"), mode, "float32")
    options = {"max_new_tokens": 10, "position_numbering": "zero_based" if zero_based else "model"}
    found = model.generate(inputs, options)
    np.testing.assert_array_equal(found["sequences"], values[f"gen_{positions}_greedy"])
    found = model.generate(inputs, {**options, **BEAMS})
    np.testing.assert_array_equal(found["sequences"], values[f"gen_{positions}_beam4"])
    np.testing.assert_allclose(found["sequences_scores"], values[f"gen_{positions}_beam4_scores"], atol=2e-5)


def test_ends_are_met() -> None:
    """The cases with several ends do end early, in some rows and not in others, so that filling up is tested."""
    sequences = expected_of("greedy-ends")["sequences"]
    ended = (sequences[:, 8:] == 1).any(axis=1)
    assert ended.any() and not ended.all()
