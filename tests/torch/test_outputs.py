"""What a call takes and gives: outputs in all their forms, inputs in all their dtypes and shapes, and the arguments of
the vocabulary heads.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.torch.models import CASES, CLASSES, VOCABULARY, Case, assert_close, each_case, each_family, gradients
from xlmr_core.errors import InputError
from xlmr_core.heads import HEADS

# Shapes of the fields for a batch of 4 rows of 6 tokens.
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "Model": {"last_hidden_state": (4, 6, 16), "pooler_output": (4, 16)},
    "ForMaskedLM": {"logits": (4, 6, VOCABULARY)},
    "ForCausalLM": {"logits": (4, 6, VOCABULARY)},
    "ForSequenceClassification": {"logits": (4, CLASSES)},
    "ForMultipleChoice": {"logits": (2, 2)},
    "ForTokenClassification": {"logits": (4, 6, CLASSES)},
    "ForQuestionAnswering": {"start_logits": (4, 6), "end_logits": (4, 6)},
}


# ---- Outputs


@each_case
def test_output_by_attribute_key_index_and_tuple(case: Case) -> None:
    model, inputs = case.build(), case.inputs("right")
    labels = case.labels(inputs)
    output = model(**inputs, **labels)
    assert type(output) is HEADS[case.head].output
    shapes = {**({"loss": ()} if labels else {}), **SHAPES[case.head]}
    assert {name: tuple(x.shape) for name, x in output.items()} == shapes
    for index, name in enumerate(shapes):
        assert output[index] is output[name] is getattr(output, name) is output.to_tuple()[index]
    assert output.hidden_states is None and output.attentions is None and "attentions" not in output
    assert output[:2] == output.to_tuple()[:2]
    as_tuple = model(**inputs, **labels, return_dict=False)
    assert isinstance(as_tuple, tuple) and len(as_tuple) == len(shapes)
    assert all(torch.equal(x, y) for x, y in zip(as_tuple, output.to_tuple(), strict=True))
    model.config.return_dict = False
    assert isinstance(model(**inputs), tuple)
    assert type(model(**inputs, return_dict=True)) is HEADS[case.head].output


@each_case
@pytest.mark.parametrize("by", ["argument", "config"])
@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager"])
def test_hidden_states_and_attentions(case: Case, by: str, attn_implementation: str) -> None:
    asked = {"output_hidden_states": True, "output_attentions": True}
    model, inputs = case.build(**(asked if by == "config" else {})), case.inputs("right")
    model.set_attn_implementation(attn_implementation)
    assert model.attn_implementation == attn_implementation
    output = model(**inputs, **(asked if by == "argument" else {}))
    assert [tuple(x.shape) for x in output.hidden_states] == [(4, 6, 16)] * 3
    assert [tuple(x.shape) for x in output.attentions] == [(4, 2, 6, 6)] * 2
    mask_BS = inputs["attention_mask"].flatten(0, -2)
    for weights in output.attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones(4, 2, 6))
        assert not weights.masked_select(mask_BS[:, None, None] == 0).any()
        if case.head == "ForCausalLM":
            assert not weights.triu(1).any()
    assert model.attn_implementation == attn_implementation, "asking for weights must not change the model"
    plain = model(**inputs, output_hidden_states=False, output_attentions=False)
    assert list(plain) == list(SHAPES[case.head])
    for name in plain:
        kept = mask_BS == 1 if plain[name].shape[:2] == mask_BS.shape else ...
        assert_close(plain[name][kept], output[name][kept], what=name)
    if case.head == "Model":
        assert torch.equal(output.hidden_states[-1], output.last_hidden_state)


# ---- Inputs


@each_case
@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.int8, torch.uint8])
def test_integer_dtypes(case: Case, dtype: torch.dtype) -> None:
    model, inputs = case.build(), case.inputs("inside")
    ids = inputs["input_ids"]
    inputs = {**inputs, "token_type_ids": ids % 2, "position_ids": ids % 20 + 2}
    expected = model(**inputs)
    actual = model(**{name: x.to(dtype) for name, x in inputs.items()})
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


@each_case
def test_a_mask_of_ones_is_no_mask(case: Case) -> None:
    model, inputs = case.build(), case.inputs(torch.ones(4, 6).long())
    expected = model(**inputs)
    del inputs["attention_mask"]
    actual = model(**inputs)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


@each_case
def test_token_types_and_positions(case: Case) -> None:
    model, inputs = case.build(), case.inputs(torch.ones(4, 6).long())
    expected = model(**inputs)
    name = next(iter(SHAPES[case.head]))
    ids = inputs["input_ids"]
    zeros = model(**inputs, token_type_ids=torch.zeros_like(ids))
    assert_close(zeros[name], expected[name])
    assert not torch.allclose(model(**inputs, token_type_ids=torch.ones_like(ids))[name], expected[name])
    positions = torch.arange(2, 8).expand(ids.shape)
    assert_close(model(**inputs, position_ids=positions)[name], expected[name])
    assert not torch.allclose(model(**inputs, position_ids=positions + 1)[name], expected[name])
    if case.head != "ForMultipleChoice":
        assert_close(model(**inputs, position_ids=torch.arange(2, 8)[None])[name], expected[name])
        assert_close(model(**inputs, token_type_ids=torch.zeros(1, 6).long())[name], expected[name])


@each_case
@pytest.mark.parametrize("mode", ["always", "never"])
def test_embeddings_in_place_of_ids(case: Case, mode: str) -> None:
    model, inputs = case.build().set_packing(mode), case.inputs("right")
    # Without ids nobody knows what is padding, so positions count every place; with padding on the right only that is
    # no difference.
    expected = model(**inputs)
    embeds = model.get_input_embeddings()(inputs.pop("input_ids"))
    actual = model(**inputs, inputs_embeds=embeds)
    mask_BS = inputs["attention_mask"].flatten(0, -2) == 1
    for name in expected:
        kept = mask_BS if expected[name].shape[:2] == mask_BS.shape else ...
        assert_close(actual[name][kept], expected[name][kept], what=name)


@each_family
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", ["always", "never"])
def test_embeddings_of_another_dtype_become_the_model_s(family: str, dtype: torch.dtype, mode: str) -> None:
    case = next(case for case in CASES if case.family == family and case.head == "Model")
    model, inputs = case.build().set_packing(mode), case.inputs("right")
    embeds = model.get_input_embeddings()(inputs.pop("input_ids")).detach().to(dtype).requires_grad_()
    expected = model(**inputs, inputs_embeds=embeds.float()).last_hidden_state
    actual = model(**inputs, inputs_embeds=embeds).last_hidden_state
    assert actual.dtype == torch.float32 and torch.equal(actual, expected)
    actual.sum().backward()
    assert embeds.grad is not None and embeds.grad.dtype == dtype


@each_case
@pytest.mark.parametrize("mask", [[[1]], [[1], [1]], [[1] * 22], [[1] * 22, [1] * 21 + [0]]])
@pytest.mark.parametrize("mode", ["always", "never"])
def test_one_token_and_the_longest_sequence(case: Case, mask: list[list[int]], mode: str) -> None:
    mask_BS = torch.tensor(mask * 2 if case.head == "ForMultipleChoice" else mask)
    output = case.build().set_packing(mode)(**case.inputs(mask_BS))
    assert all(x.isfinite().all() for x in output.values())


@each_family
def test_514_positions_take_512_tokens(family: str) -> None:
    case = Case(family, "ForTokenClassification")
    model = case.build(max_position_embeddings=514)
    assert model.config.max_tokens == 512
    assert model(**case.inputs(torch.ones(1, 512).long())).logits.shape == (1, 512, CLASSES)
    with pytest.raises(InputError, match="sequence has 513 tokens, this checkpoint takes 512"):
        model(**case.inputs(torch.ones(1, 513).long()))


@each_family
@pytest.mark.parametrize("mode", ["always", "never"])
@pytest.mark.parametrize("head", ["Model", "ForCausalLM"])
def test_is_decoder_set_after_building_makes_attention_causal(family: str, head: str, mode: str) -> None:
    case = Case(family, head)
    model, inputs = case.build(is_decoder=False).set_packing(mode), case.inputs("right")
    name = next(iter(SHAPES[head]))
    changed = {**inputs, "input_ids": inputs["input_ids"].clone()}
    changed["input_ids"][0, 4] = 5 if changed["input_ids"][0, 4] != 5 else 6
    assert not torch.allclose(model(**inputs)[name][0, :4], model(**changed)[name][0, :4])
    model.config.is_decoder = True
    before, after = model(**inputs)[name], model(**changed)[name]
    assert_close(after[0, :4], before[0, :4])
    assert not torch.allclose(after[0, 4:], before[0, 4:])
    assert_close(after[1:], before[1:])


# ---- The arguments of the vocabulary heads

POSITIONS = torch.tensor([[5, 0, -1], [2, -1, 1], [0, 0, -1], [-1, -1, -1]])


@each_family
@pytest.mark.parametrize("mode", ["always", "never"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int8])
def test_masked_positions(family: str, mode: str, dtype: torch.dtype) -> None:
    case = Case(family, "ForMaskedLM")
    model, inputs = case.build().set_packing(mode), case.inputs("right")
    everywhere = model(**inputs).logits
    logits = model(**inputs, masked_positions=POSITIONS.to(dtype)).logits
    assert logits.shape == (4, 3, VOCABULARY)
    for row, positions in enumerate(POSITIONS.tolist()):
        for place, position in enumerate(positions):
            if position == -1:
                assert not logits[row, place].any()
            else:
                assert_close(logits[row, place], everywhere[row, position])


@each_family
@pytest.mark.parametrize("mode", ["always", "never"])
def test_labels_with_masked_positions(family: str, mode: str) -> None:
    case = Case(family, "ForMaskedLM")
    model, inputs = case.build().set_packing(mode), case.inputs("right")
    labels_BS = torch.randint(4, VOCABULARY, (4, 6), generator=torch.Generator().manual_seed(4))
    labels_BS[1, 2] = -100
    # What is at -1 must not count, so it is a wrong label here.
    labels_BP = labels_BS.gather(1, POSITIONS.clamp(min=0)).masked_fill(POSITIONS == -1, 7)
    by_sequence = model(**inputs, masked_positions=POSITIONS, labels=labels_BS)
    by_position = model(**inputs, masked_positions=POSITIONS, labels=labels_BP)
    counted = (POSITIONS != -1) & (labels_BP != -100)
    expected = F.cross_entropy(by_sequence.logits[counted], labels_BP[counted])
    torch.testing.assert_close(by_sequence.loss, expected)
    torch.testing.assert_close(by_position.loss, expected)


@each_family
@pytest.mark.parametrize("mode", ["always", "never"])
def test_masked_positions_gradients(family: str, mode: str) -> None:
    case = Case(family, "ForMaskedLM")
    model, inputs = case.build().set_packing(mode), case.inputs("right")
    positions = torch.tensor([[5, 0], [2, -1], [0, -1], [-1, -1]])
    labels = torch.full((4, 6), -100)
    labels[0, 5], labels[0, 0], labels[1, 2], labels[2, 0] = 6, 7, 8, 9
    expected = gradients(model, model(**inputs, labels=labels).loss)
    actual = gradients(model, model(**inputs, labels=labels, masked_positions=positions).loss)
    for name in expected:
        assert_close(actual[name], expected[name], what=name)


@each_family
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("mode", ["always", "never"])
def test_sparse_prediction(family: str, mode: str, tied: bool) -> None:
    case = Case(family, "ForMaskedLM")
    model, inputs = case.build(tie_word_embeddings=tied).set_packing(mode), case.inputs("right")
    labels = case.labels(inputs)["labels"]
    full, sparse = model(**inputs, labels=labels), model(**inputs, labels=labels, sparse_prediction=True)
    assert sparse.logits.shape == (int((labels != -100).sum()), VOCABULARY)
    assert_close(sparse.logits, full.logits[labels != -100])
    assert_close(sparse.loss, full.loss)
    expected, actual = gradients(model, full.loss), gradients(model, sparse.loss)
    for name in expected:
        assert_close(actual[name], expected[name], what=name)


@each_family
@pytest.mark.parametrize("mode", ["always", "never"])
@pytest.mark.parametrize("sparse", [True, False])
def test_no_labelled_position_gives_nan(family: str, mode: str, sparse: bool) -> None:
    case = Case(family, "ForMaskedLM")
    model, inputs = case.build().set_packing(mode), case.inputs("right")
    output = model(**inputs, labels=torch.full((4, 6), -100), sparse_prediction=sparse)
    assert output.loss.isnan()
    assert output.logits.shape == ((0, VOCABULARY) if sparse else (4, 6, VOCABULARY))


@each_family
@pytest.mark.parametrize("mode", ["always", "never"])
@pytest.mark.parametrize(
    ("keep", "columns"),
    [(1, [5]), (3, [3, 4, 5]), (6, range(6)), (99, range(6)), (0, range(6)), ([0, 2], [0, 2]), ([-1, 1, 1], [5, 1, 1])],
)
def test_logits_to_keep(family: str, mode: str, keep: Any, columns: Any) -> None:
    case = Case(family, "ForCausalLM")
    model, inputs = case.build().set_packing(mode), case.inputs("left")
    everywhere = model(**inputs).logits
    logits = model(**inputs, logits_to_keep=torch.tensor(keep) if isinstance(keep, list) else keep).logits
    expected = everywhere[:, list(columns)]
    kept_BS = inputs["attention_mask"][:, list(columns)] == 1
    assert logits.shape == expected.shape
    assert_close(logits[kept_BS], expected[kept_BS])
