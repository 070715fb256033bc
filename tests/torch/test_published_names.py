"""Names of the published modeling files and models that others import, call and read."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import xlmr_torch
from tests.torch.models import Case, assert_close, each_case, each_family
from xlmr_core.errors import InputError

MODULES = {"XLMRoberta": "modeling_xlm_roberta", "XLMRobertaXL": "modeling_xlm_roberta_xl"}
PARTS = (
    *("Embeddings", "SelfAttention", "SdpaSelfAttention", "SelfOutput", "Attention", "Intermediate", "Output", "Layer"),
    *("Encoder", "Pooler", "LMHead", "ClassificationHead"),
)


def module(family: str) -> Any:
    return importlib.import_module(f"xlmr_torch.{MODULES[family]}")


def part(family: str, name: str) -> Any:
    return getattr(module(family), family + name)


# ---- Parts


@each_family
def test_models_are_made_of_the_parts(family: str) -> None:
    made = {
        type(one).__name__
        for head in ("ForMultipleChoice", "ForMaskedLM", "ForSequenceClassification")
        for one in Case(family, head).build().modules()
    }
    assert made >= {family + name for name in PARTS if name != "SdpaSelfAttention"}
    assert {family + name for name in PARTS} <= set(module(family).__all__)
    assert set(Case(family, "Model").build()._no_split_modules) <= made


@each_family
@pytest.mark.parametrize("decoder", [False, True])
@pytest.mark.parametrize("mask", ["right", "left"])
def test_parts_called_as_published_compute_what_the_model_does(family: str, decoder: bool, mask: str) -> None:
    case = Case(family, "Model")
    model, inputs = case.build(is_decoder=decoder).set_packing("never"), case.inputs(mask)
    expected = model(**inputs, output_hidden_states=True, output_attentions=True)
    bias = model.get_extended_attention_mask(inputs["attention_mask"], inputs["input_ids"].shape)
    x = model.embeddings(inputs["input_ids"])
    assert torch.equal(x, expected.hidden_states[0])
    found = model.encoder(x, bias, output_hidden_states=True, output_attentions=True)
    assert list(found) == ["last_hidden_state", "hidden_states", "attentions"]
    assert_close(found[0], expected[0])
    as_tuple = model.encoder(x, bias.bool().logical_not(), return_dict=False, head_mask=model.get_head_mask(None, 2))
    assert len(as_tuple) == 1 and torch.allclose(as_tuple[0], expected[0], atol=1e-5)
    for number, layer in enumerate(model.encoder.layer):
        assert len(layer(x, bias)) == 1
        x, weights = layer(x, bias, output_attentions=True)
        assert_close(weights, expected.attentions[number])
    x = x if model.encoder.LayerNorm is None else model.encoder.LayerNorm(x)
    assert_close(x, expected[0])
    assert_close(model.pooler(x), expected.pooler_output)


@each_family
def test_head_masks_and_memories_of_parts(family: str) -> None:
    case = Case(family, "Model")
    model = case.build(is_decoder=True, add_cross_attention=True).set_packing("never")
    inputs, memory = case.inputs("right"), torch.randn(4, 3, 16)
    mask, memory_mask = inputs["attention_mask"], torch.tensor([[1, 1, 0]] * 4)
    heads = torch.tensor([[1.0, 0.0], [0.5, 1.0]])
    expected = model(
        **inputs, head_mask=heads, encoder_hidden_states=memory, encoder_attention_mask=memory_mask
    ).last_hidden_state
    given = (
        model.get_extended_attention_mask(mask, mask.shape),
        model.get_head_mask(heads, 2),
        memory,
        model.invert_attention_mask(memory_mask),
    )
    x = model.embeddings(inputs["input_ids"])
    assert_close(model.encoder(x, *given).last_hidden_state, expected)
    first = model.encoder.layer[0](x, given[0], given[1][0], *given[2:], output_attentions=True)
    assert [tuple(weights.shape) for weights in first[1:]] == [(4, 2, 6, 6), (4, 2, 6, 3)]


@each_family
@pytest.mark.parametrize("name", PARTS)
def test_parts_made_by_themselves_have_values(family: str, name: str) -> None:
    torch.manual_seed(0)
    config = Case(family, "Model").config()
    one = part(family, name)(config)
    for path, parameter in one.named_parameters():
        assert parameter.isfinite().all() and parameter.abs().max() < 6, path
        assert "bias" in path or parameter.any(), path
    states = torch.randn(2, 5, 16)
    given = {
        "Embeddings": (torch.tensor([[0, 5, 2]]),),
        "SelfOutput": (states, states),
        "Output": (torch.randn(2, 5, 24), states),
    }
    answer = one(*given.get(name, (states,)))
    answer = answer[0] if isinstance(answer, tuple) or name == "Encoder" else answer
    assert isinstance(answer, Tensor) and answer.isfinite().all()


@each_family
def test_parts_refuse_what_they_cannot_serve(family: str) -> None:
    layer, states = part(family, "Layer")(Case(family, "Model").config()), torch.randn(2, 5, 16)
    with pytest.raises(InputError, match=r"attention_mask of shape \(B, 1, 1 or S, 5\), received \(2, 5\)"):
        layer(states, torch.ones(2, 5))
    with pytest.raises(InputError, match="past_key_values"):
        layer(states, past_key_values=())
    with pytest.raises(InputError, match="past_key_values must be a cache"):
        layer(states, past_key_values=1)
    with pytest.raises(InputError, match="add_cross_attention=True"):
        layer(states, encoder_hidden_states=states)


@each_family
def test_positions(family: str) -> None:
    ids = torch.tensor([[5, 6, 1, 7], [1, 1, 8, 9]])
    positions = module(family).create_position_ids_from_input_ids(ids, 1)
    assert positions.tolist() == [[2, 3, 1, 4], [1, 1, 2, 3]]
    embeddings = part(family, "Embeddings")(Case(family, "Model").config())
    assert embeddings.create_position_ids_from_input_ids(ids, 1, 3).tolist() == [[5, 6, 1, 7], [1, 1, 5, 6]]
    assert embeddings.create_position_ids_from_inputs_embeds(torch.zeros(2, 3, 4)).tolist() == [[2, 3, 4]] * 2
    assert embeddings.position_ids.tolist() == [list(range(24))] and not dict(embeddings.named_buffers())


@each_family
def test_a_longer_position_table(family: str) -> None:
    model = Case(family, "ForMaskedLM").build()
    embeddings = model.roberta.embeddings
    table = embeddings.position_embeddings.weight.data
    embeddings.position_embeddings.weight.data = torch.cat([table, table[2:]])
    longer = torch.arange(46)[None]
    embeddings.position_ids.data = longer
    assert torch.equal(embeddings.position_ids, longer)
    embeddings.position_ids = longer + 1
    assert torch.equal(embeddings.position_ids, longer + 1)
    embeddings.register_buffer("position_ids", longer, persistent=False)
    assert torch.equal(embeddings.position_ids, longer)
    model.config.max_position_embeddings = 46
    assert model(torch.full((1, 40), 5)).logits.shape == (1, 40, 41)


# ---- Methods and attributes of models


def test_masks_of_published_methods() -> None:
    model = Case("XLMRoberta", "Model").build()
    lowest = torch.finfo(torch.float32).min
    mask = torch.tensor([[1, 1, 0]])
    assert model.get_extended_attention_mask(mask, (1, 3)).tolist() == [[[[0, 0, lowest]]]]
    assert model.get_extended_attention_mask(mask.expand(1, 3, 3), (1, 3)).shape == (1, 1, 3, 3)
    assert model.get_extended_attention_mask(mask, (1, 3), dtype=torch.float16).dtype is torch.float16
    assert model.invert_attention_mask(mask).tolist() == [[[[0, 0, lowest]]]]
    causal = model.create_extended_attention_mask_for_decoder((1, 3), mask)
    assert causal.tolist() == [[[[1, 0, 0], [1, 1, 0], [1, 1, 0]]]]
    assert model.get_head_mask(None, 2) == [None, None]
    assert model.get_head_mask(torch.ones(4), 2).shape == (2, 1, 4, 1, 1)
    assert model.get_head_mask(torch.ones(2, 4), 2, is_attention_chunked=True).shape == (2, 1, 4, 1, 1, 1)
    with pytest.raises(InputError, match="attention_mask must have shape"):
        model.get_extended_attention_mask(mask[0], (3,))


@each_case
def test_what_others_read_of_a_model(case: Case) -> None:
    model = case.build()
    assert model.framework == "pt" and not model.is_backend_compatible()
    assert model.can_generate() is (case.head == "ForCausalLM")
    if case.head != "ForMultipleChoice":
        assert model(**model.dummy_inputs)
    tied = model._tied_weights_keys or {}
    assert bool(tied) == ("LM" in case.head)
    for name, source in tied.items():
        assert model.get_parameter(name) is model.get_parameter_or_buffer(source)
    ids = torch.zeros(2, 3, dtype=torch.long)
    parameters = model.num_parameters(exclude_embeddings=True)
    assert model.floating_point_ops({"input_ids": ids}) == 6 * 6 * parameters
    model.add_model_tags("one")
    model.add_model_tags(["one", "two"])
    assert model.model_tags == ["one", "two"] and case.build().model_tags is None
    model.activation_checkpointing_enable()
    assert model.is_activation_checkpointing and model.is_gradient_checkpointing
    model.activation_checkpointing_disable()
    assert not model.is_gradient_checkpointing
    with pytest.raises(InputError, match="every_n_layers=1"):
        model.activation_checkpointing_enable(every_n_layers=2)
    built = type(model)._from_config(model.config, dtype="bfloat16", attn_implementation="eager")
    assert built.dtype is torch.bfloat16 and built.attn_implementation == "eager"
    with pytest.warns(UserWarning, match="padding"):
        model.warn_if_padding_and_no_attention_mask(torch.tensor([[5, 1]]), None)


def test_inputs_of_a_loop_that_generates() -> None:
    model, ids = Case("XLMRoberta", "ForCausalLM").build(), torch.tensor([[0, 5, 6]])
    assert torch.equal(model(**model.prepare_inputs_for_generation(ids, use_cache=False)).logits, model(ids).logits)


def test_the_kernel_is_read_and_set_in_the_configuration(tmp_path: Path) -> None:
    case = Case("XLMRoberta", "ForMaskedLM")
    case.build().save_pretrained(tmp_path)
    loaded = [case.model_class.from_pretrained(tmp_path, **more) for more in ({}, {"attn_implementation": "eager"})]
    assert [model.config._attn_implementation for model in loaded] == ["sdpa", "eager"]
    assert [model.roberta.config._attn_implementation for model in loaded] == ["sdpa", "eager"]
    loaded[0].config._attn_implementation = "eager"
    assert loaded[0].attn_implementation == "eager"
    loaded[0].config._attn_implementation = "flash"
    with pytest.raises(InputError, match="attn_implementation must be one of"):
        loaded[0](**case.inputs())
    assert loaded[1].get_correct_attn_implementation(None) == "sdpa"


@pytest.mark.parametrize(
    ("given", "kept"),
    [("cpu", {"": "cpu"}), ({"": "cpu"}, {"": "cpu"}), ({"roberta": "cpu", "lm_head": "cpu"}, None), (None, "absent")],
)
def test_the_device_map_is_kept(given: Any, kept: Any, tmp_path: Path) -> None:
    case = Case("XLMRoberta", "ForMaskedLM")
    case.build().save_pretrained(tmp_path)
    model = case.model_class.from_pretrained(tmp_path, device_map=given)
    assert getattr(model, "hf_device_map", "absent") == (given if kept is None else kept)


@each_family
def test_a_configuration_that_asks_for_gradient_checkpointing(family: str, tmp_path: Path) -> None:
    case = Case(family, "ForTokenClassification")
    model = case.build(gradient_checkpointing=True)
    assert model.is_gradient_checkpointing
    model.save_pretrained(tmp_path)
    assert case.model_class.from_pretrained(tmp_path).is_gradient_checkpointing
    model.train()(**case.inputs(), **case.labels(case.inputs())).loss.backward()


def test_attention_dropout_is_a_module_that_can_be_set() -> None:
    """As scripts do that draw several answers of a model in evaluation mode, or change its dropout."""
    case = Case("XLMRoberta", "Model")
    model, inputs = case.build(attention_probs_dropout_prob=0.5), case.inputs()
    dropout = model.encoder.layer[0].attention.self.dropout
    expected = model(**inputs)[0]
    dropout.train()
    assert not torch.equal(model(**inputs)[0], expected)
    dropout.p = 0.0
    assert_close(model(**inputs)[0], expected)


def test_heads_of_layers_from_the_end_can_be_pruned() -> None:
    model = xlmr_torch.XLMRobertaModel(Case("XLMRoberta", "Model").config())
    model.prune_heads({-1: [0]})
    assert model.config.pruned_heads == {1: [0]}
    attention = model.encoder.layer[1].attention
    assert (
        attention.pruned_heads == {0} and attention.self.num_attention_heads == 1 and attention.self.all_head_size == 8
    )
