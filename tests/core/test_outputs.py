"""Outputs: one object that reads by attribute, key, index and as a tuple, and that frameworks can take apart and
rebuild.
"""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from xlmr_core.heads import ENCODER_DECODER, HEADS
from xlmr_core.outputs import (
    OUTPUT_TYPES,
    BaseModelOutput,
    BaseModelOutputWithPoolingAndCrossAttentions,
    CausalLMOutputWithCrossAttentions,
    MaskedLMOutput,
    ModelOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    Seq2SeqLMOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)

# Fields and their order as the original library declares them.
PUBLISHED = {
    BaseModelOutputWithPoolingAndCrossAttentions: (
        "last_hidden_state",
        "pooler_output",
        "past_key_values",
        "hidden_states",
        "attentions",
        "cross_attentions",
    ),
    MaskedLMOutput: ("loss", "logits", "hidden_states", "attentions"),
    CausalLMOutputWithCrossAttentions: (
        "loss",
        "logits",
        "past_key_values",
        "hidden_states",
        "attentions",
        "cross_attentions",
    ),
    SequenceClassifierOutput: ("loss", "logits", "hidden_states", "attentions"),
    MultipleChoiceModelOutput: ("loss", "logits", "hidden_states", "attentions"),
    TokenClassifierOutput: ("loss", "logits", "hidden_states", "attentions"),
    QuestionAnsweringModelOutput: ("loss", "start_logits", "end_logits", "hidden_states", "attentions"),
    BaseModelOutput: ("last_hidden_state", "hidden_states", "attentions"),
    Seq2SeqLMOutput: (
        "loss",
        "logits",
        "past_key_values",
        "decoder_hidden_states",
        "decoder_attentions",
        "cross_attentions",
        "encoder_last_hidden_state",
        "encoder_hidden_states",
        "encoder_attentions",
    ),
}
LOGITS, HIDDEN = np.arange(6.0).reshape(2, 3), (np.zeros(2), np.ones(2))


@pytest.fixture
def output() -> MaskedLMOutput[Any]:
    return MaskedLMOutput(hidden_states=HIDDEN, logits=LOGITS)


def test_the_types_and_fields_are_the_published_ones() -> None:
    assert {kind: kind.fields for kind in OUTPUT_TYPES} == PUBLISHED
    # BaseModelOutput is what an encoder hands to a decoder, and no model's own.
    assert {ENCODER_DECODER.output, *(head.output for head in HEADS.values())} == {*OUTPUT_TYPES} - {BaseModelOutput}


def test_reading_by_attribute_key_index_slice_and_tuple(output: MaskedLMOutput[Any]) -> None:
    assert output.logits is output["logits"] is output[0] is output.to_tuple()[0] is LOGITS
    assert output.hidden_states is output[1] is output[-1] is HIDDEN
    assert output[:1] == (LOGITS,)
    assert output[1:] == (HIDDEN,)
    assert list(output) == list(output.keys()) == ["logits", "hidden_states"], "declaration order, not the order given"
    assert len(output) == 2
    assert isinstance(output, dict)
    logits, hidden = output.to_tuple()
    assert (logits is LOGITS, hidden is HIDDEN) == (True, True)


@dataclass
class FrameworkTensor:
    """As PyTorch, TensorFlow and JAX show themselves: dtypes as words or with names, sizes that may be unknown."""

    shape: Any
    dtype: Any


def test_an_output_says_what_it_is() -> None:
    named = SimpleNamespace(name="float32")
    state = FrameworkTensor((2, 3, 16), "torch.bfloat16")
    assert repr(MaskedLMOutput(loss=np.float32(1), logits=FrameworkTensor([None, 3, 9], named))) == (
        "MaskedLMOutput(loss=() float32, logits=(None, 3, 9) float32)"
    )
    assert repr(MaskedLMOutput(hidden_states=(state, state), attentions=(LOGITS, state))) == (
        "MaskedLMOutput(hidden_states=2 x (2, 3, 16) bfloat16, attentions=((2, 3) float64, (2, 3, 16) bfloat16))"
    )
    cache = {"layer": [(state, state)], "length": 3}
    assert repr(CausalLMOutputWithCrossAttentions(past_key_values=cache)) == (
        "CausalLMOutputWithCrossAttentions(past_key_values={'layer': (2 x (2, 3, 16) bfloat16), 'length': 3})"
    )
    assert repr(MaskedLMOutput()) == "MaskedLMOutput()"


def test_what_was_not_computed_reads_as_none_and_counts_for_nothing(output: MaskedLMOutput[Any]) -> None:
    assert output.loss is None
    assert output.attentions is None
    assert "loss" not in output
    assert output.get("loss", 7) == 7
    with pytest.raises(KeyError):
        output["loss"]
    with pytest.raises(IndexError):
        output[2]
    explicit = MaskedLMOutput(loss=None, logits=LOGITS, hidden_states=HIDDEN)
    assert list(explicit) == list(output)
    assert explicit[0] is LOGITS


def test_values_that_are_false_are_computed_all_the_same() -> None:
    output = MaskedLMOutput(loss=0.0, logits=np.zeros(0), hidden_states=())
    assert list(output) == ["loss", "logits", "hidden_states"]
    assert output[0] == 0.0


@pytest.mark.parametrize("how", ["attribute", "key", "update", "update with keywords"])
def test_a_field_that_is_set_takes_its_place(how: str, output: MaskedLMOutput[Any]) -> None:
    match how:
        case "attribute":
            output.loss = 3.0
        case "key":
            output["loss"] = 3.0
        case "update":
            output.update({"loss": 3.0})
        case _:
            output.update(loss=3.0)
    assert list(output) == ["loss", "logits", "hidden_states"]
    assert output[0] == output.loss == output["loss"] == 3.0
    output.loss = None
    assert list(output) == ["logits", "hidden_states"]
    output.logits = LOGITS + 1
    assert output[0][0, 0] == 1.0


def test_unknown_fields_are_refused(output: MaskedLMOutput[Any]) -> None:
    message = r"MaskedLMOutput has the fields loss, logits, hidden_states, attentions"
    with pytest.raises(TypeError, match=f"{message}, received 'logit'"):
        MaskedLMOutput(logit=1)
    with pytest.raises(TypeError, match=message):
        MaskedLMOutput({"logit": 1})
    with pytest.raises(AttributeError, match=f"{message}, not 'logit'"):
        _ = output.logit
    with pytest.raises(KeyError, match=message):
        output["logit"] = 1
    with pytest.raises(KeyError, match=message):
        output.logit = 1
    with pytest.raises(KeyError, match=message):
        output.update(logit=1)
    assert not hasattr(output, "logit")
    assert list(output) == ["logits", "hidden_states"]


@pytest.mark.parametrize("kind", OUTPUT_TYPES, ids=lambda kind: kind.__name__)
def test_every_type_survives_copying_pickling_and_being_rebuilt(kind: type[ModelOutput[Any]]) -> None:
    output = kind({name: np.full(2, number) for number, name in enumerate(kind.fields)})
    # What Keras and JAX do to a dict subclass: rebuild it from a plain dict.
    rebuilt = type(output)(dict(output))
    # What TensorFlow's nest and the gathering of torch.nn.DataParallel do: rebuild it from pairs.
    paired = type(output)((name, output[name]) for name in output)
    for twin in (copy.copy(output), copy.deepcopy(output), pickle.loads(pickle.dumps(output)), rebuilt, paired):
        assert type(twin) is kind
        assert list(twin) == list(kind.fields)
        assert all(np.array_equal(one, other) for one, other in zip(twin.to_tuple(), output.to_tuple(), strict=True))
    assert copy.copy(output)[0] is output[0]
    assert copy.deepcopy(output)[0] is not output[0]
    assert list(kind({})) == []


def test_building_does_not_keep_the_callers_mapping() -> None:
    values = {"logits": LOGITS}
    output = MaskedLMOutput(values)
    output.loss = 1.0
    assert list(values) == ["logits"]
    assert list(MaskedLMOutput(values, loss=2.0)) == ["loss", "logits"]


@pytest.mark.parametrize("kind", OUTPUT_TYPES, ids=lambda kind: kind.__name__)
def test_fields_are_taken_by_place(kind: type[ModelOutput[Any]]) -> None:
    values = [np.full(2, number) for number in range(len(kind.fields))]
    output = kind(*values)
    assert list(output) == list(PUBLISHED[kind])
    assert all(one is other for one, other in zip(output.to_tuple(), values, strict=True))
    assert list(kind(values[0])) == [kind.fields[0]]
    assert list(kind(None, values[1])) == [kind.fields[1]]
    assert list(kind(values[0], **{kind.fields[2]: values[2]})) == [kind.fields[0], kind.fields[2]]
    assert list(kind(None)) == list(kind()) == []


def test_fields_too_many_or_given_twice_are_refused() -> None:
    with pytest.raises(TypeError, match="MaskedLMOutput has 4 fields, received 5"):
        MaskedLMOutput(1, 2, 3, 4, 5)
    with pytest.raises(TypeError, match="MaskedLMOutput received 'logits' twice"):
        MaskedLMOutput(1.0, LOGITS, logits=LOGITS)
    with pytest.raises(TypeError, match="received 'logit'"):
        MaskedLMOutput(1.0, logit=LOGITS)
    # A mapping among several is a field like any other.
    assert MaskedLMOutput({"logits": 1}, LOGITS).loss == {"logits": 1}
