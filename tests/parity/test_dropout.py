"""Dropout acts in training and nowhere else, each place of it by itself."""

from __future__ import annotations

import numpy as np
import pytest

from tests.parity import tolerances
from tests.parity.adapters import Mode, adapter, modes
from tests.parity.cases import CASES, DROPOUT, FAMILIES, NO_DROPOUT
from tests.parity.compare import assert_close, flatten
from tests.parity.inputs import make
from xlmr_core import reference

PLACES = [
    pytest.param(f"{family}-{name}", config, id=f"{family}-{place}")
    for family in FAMILIES
    for place, (name, config) in DROPOUT.items()
]


@pytest.mark.parametrize("mode", modes())
@pytest.mark.parametrize(("name", "config"), PLACES)
def test_dropout_acts_in_training_only(name: str, config: dict[str, float], mode: Mode) -> None:
    case = CASES[name]
    made = make(case, **config)
    model = adapter(mode).build(made.config, case.head, made.params, mode, "float32")
    expected = flatten(reference.forward(made.config, case.head, made.params, **made.inputs))
    expected = {name: expected[name] for name in ("loss", "logits")}
    where_BS = made.mask_BS == 1
    assert_close(case.head, model.forward(made.inputs), expected, tolerances.FLOAT32, where_BS)
    first, second = (model.forward(made.inputs, dropout_seed=seed) for seed in (1, 2))
    # Each sequence is touched, wherever the dropped values were: a row of logits that stayed would be a row that
    # dropout forgot.
    for other in (second, expected):
        moved = np.abs(first["logits"] - other["logits"]).reshape(len(first["logits"]), -1).max(1)
        assert (moved > 100 * tolerances.FLOAT32).all()
    assert_close(case.head, model.forward(made.inputs), expected, tolerances.FLOAT32, where_BS)


@pytest.mark.parametrize("mode", modes())
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "name", ["MaskedLM-left-and-inside", "CausalLM-right", "SequenceClassification-right", "MultipleChoice-right"]
)
def test_training_without_dropout_is_evaluation(family: str, name: str, mode: Mode) -> None:
    case = CASES[f"{family}-{name}"]
    made = make(case, **NO_DROPOUT)
    model = adapter(mode).build(made.config, case.head, made.params, mode, "float32")
    expected = flatten(reference.forward(made.config, case.head, made.params, **made.inputs))
    expected = {name: expected[name] for name in ("loss", "logits")}
    assert_close(case.head, model.forward(made.inputs, dropout_seed=1), expected, tolerances.FLOAT32, made.mask_BS == 1)


DRAWS = 300
# Place -> the dropout of its config, and the output in which it shows. Nothing but sums lies between the two: behind a
# layer norm or an activation the mean of many draws is another one.
MEANS = {
    "hidden": ({"hidden_dropout_prob": 0.3}, "hidden_states_0"),
    "attention": ({"attention_probs_dropout_prob": 0.3}, "hidden_states_1"),
    "classifier": ({"classifier_dropout": 0.3}, "logits"),
}


@pytest.mark.parametrize("mode", modes())
@pytest.mark.parametrize("place", MEANS)
def test_dropout_keeps_the_mean(place: str, mode: Mode) -> None:
    """Kept values are scaled up by 1 / (1 - p), so the mean of many draws comes near the value without dropout.

    What is dropped is measured by its effect: the output with it, less the output without it (all heads masked, all
    states zero). The mean effect of many draws is that effect; a forgotten scale would leave 70 % of it. The first
    layer's feed-forward part is silent, so that its output is its input and what attention adds.
    """
    config, output = MEANS[place]
    case = CASES["XLMRobertaXL-TokenClassification-right"]
    made = make(case, num_hidden_layers=2, **{**NO_DROPOUT, **config})
    silent = "roberta.encoder.layer.0.output.dense.weight"
    params = {**made.params, silent: np.zeros_like(made.params[silent])}
    given = {name: x for name, x in made.inputs.items() if name != "labels"}
    with_it = flatten(reference.forward(made.config, case.head, params, **given))[output]
    if place == "attention":
        without = flatten(reference.forward(made.config, case.head, params, **given, head_mask=np.zeros(3)))[output]
    else:
        without = np.broadcast_to(params["classifier.bias"] if place == "classifier" else 0.0, with_it.shape)
    model = adapter(mode).build(made.config, case.head, params, mode, "float32")
    many = {name: np.tile(x, (DRAWS, 1)) for name, x in given.items()}
    drawn = model.forward(many, dropout_seed=0)[output]
    where_BS = made.mask_BS == 1
    effect = (with_it - without)[where_BS]
    mean_effect = (drawn.reshape(DRAWS, *with_it.shape).mean(0) - without)[where_BS]
    # Six times the spread over seeds.
    assert (mean_effect * effect).sum() / (effect**2).sum() == pytest.approx(1.0, abs=0.03)
