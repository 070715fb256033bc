"""Packed tokens: the same answer as the padded path wherever the mask is 1, zero elsewhere, and the padded path where
the two would differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.parity.compare import fill_of
from tests.torch.models import (
    CASES,
    MASKS,
    TOKENWISE,
    VOCABULARY,
    Case,
    assert_close,
    each_case,
    each_family,
    gradients,
    loss_of,
    outputs_of,
    packed_calls,
    reached,
)
from xlmr_core.errors import InputError
from xlmr_core.packing import Needs
from xlmr_torch.packing import Packing, choose_packing

LITERAL = torch.tensor([[1, 1, 1, 0], [0, 1, 0, 1]])


# ---- Packing itself


def test_packing_of_a_literal_mask() -> None:
    packing = Packing.from_mask(LITERAL.bool())
    assert packing.cu_seqlens.tolist() == [0, 3, 5]
    assert packing.indices_T.tolist() == [0, 1, 2, 5, 7]
    assert (packing.batch, packing.length) == (2, 4)


def test_packing_without_padding_is_that_of_a_full_mask() -> None:
    full, masked = Packing.full(2, 3, torch.device("cpu")), Packing.from_mask(torch.ones(2, 3).bool())
    assert torch.equal(full.indices_T, masked.indices_T) and torch.equal(full.cu_seqlens, masked.cu_seqlens)
    assert (full.batch, full.length) == (masked.batch, masked.length)


def test_pack_and_unpack_literal_values() -> None:
    packing = Packing.from_mask(LITERAL.bool())
    x_BS = torch.tensor([[10, 11, 12, 13], [20, 21, 22, 23]])
    packed_T = packing.pack(x_BS)
    assert packed_T.tolist() == [10, 11, 12, 21, 23]
    assert packing.unpack(packed_T).tolist() == [[10, 11, 12, 0], [0, 21, 0, 23]]
    assert packing.first_tokens(packed_T).tolist() == [10, 21]
    assert packing.locate(torch.tensor([7, 0, 5])).tolist() == [4, 0, 3]
    vectors_T2 = torch.stack([packed_T, -packed_T], -1)
    assert packing.unpack(vectors_T2)[1].tolist() == [[0, 0], [21, -21], [0, 0], [23, -23]]


@pytest.mark.parametrize(
    ("mode", "mask", "first_token", "needed", "packs"),
    [
        ("auto", [[1, 1], [1, 0]], True, None, True),
        ("always", [[1, 1], [1, 0]], True, None, True),
        ("never", [[1, 1], [1, 0]], True, None, False),
        ("auto", [[1, 1], [1, 1]], False, None, False),
        ("always", [[1, 1], [1, 1]], True, None, True),
        ("always", [[1, 1], [0, 0]], False, None, False),
        ("always", [[1, 1], [0, 1]], False, None, True),
        ("always", [[1, 1], [0, 1]], True, None, False),
        ("always", [[1, 1], [1, 0]], False, [[1, 1], [1, 0]], True),
        ("always", [[1, 1], [1, 0]], False, [[0, 0], [0, 1]], False),
    ],
)
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32])
def test_when_a_batch_is_packed(
    mode: str, mask: list[list[int]], first_token: bool, needed: list[list[int]] | None, packs: bool, dtype: torch.dtype
) -> None:
    needed_BS = None if needed is None else torch.tensor(needed).bool()
    needs = Needs(first_token=first_token, positions_BS=needed_BS)
    packing = choose_packing(mode, torch.tensor(mask).to(dtype), torch.zeros(2, 2).long(), needs)
    assert (packing is not None) == packs


@pytest.mark.parametrize(("mode", "packs"), [("auto", False), ("always", True), ("never", False)])
def test_when_a_batch_without_a_mask_is_packed(mode: str, packs: bool) -> None:
    assert (choose_packing(mode, None, torch.zeros(2, 3).long(), Needs()) is not None) == packs


@pytest.mark.parametrize("mode", ["auto", "always"])
def test_devices_without_a_packed_kernel_take_the_padded_path(mode: str) -> None:
    mask = torch.ones(2, 2, device="meta")
    assert choose_packing(mode, mask, mask, Needs()) is None


def test_unknown_mode_is_refused() -> None:
    model = CASES[0].build()
    with pytest.raises(InputError, match=r"packing must be one of 'auto', 'always', 'never', received 'sometimes'"):
        model.set_packing("sometimes")
    assert model.packing == "auto"


# ---- The promise


def both_ways(case: Case, model: Any, mode: str = "always", **inputs: Any) -> tuple[Any, Any, bool]:
    """What the padded and the packed path say, and whether the second was packed."""
    padded = model.set_packing("never")(**inputs)
    with packed_calls(model) as seen:
        packed = model.set_packing(mode)(**inputs)
    return padded, packed, seen == [True]


def compare_outputs(
    case: Case, padded: Any, packed: Any, mask: Tensor, *, is_packed: bool, tolerance: float = 1e-5
) -> None:
    """Equal everywhere; or, if packed, equal at mask 1 and filled at mask 0 in every token-wise field."""
    assert list(packed) == list(padded)
    mask_BS = mask.flatten(0, -2) == 1
    for name in padded:
        pairs = (
            zip(packed[name], padded[name], strict=True)
            if isinstance(padded[name], tuple)
            else [(packed[name], padded[name])]
        )
        tokenwise = name == "hidden_states" or (name in TOKENWISE and not (case.first_token and name == "logits"))
        for actual, expected in pairs:
            assert actual.shape == expected.shape
            if tokenwise and is_packed:
                assert_close(actual[mask_BS], expected[mask_BS], tolerance=tolerance, what=name)
                fill = fill_of(name)
                assert (actual[~mask_BS] == fill).all(), f"{name} is not {fill} at masked positions"
                assert (expected[~mask_BS] != fill).any()
            else:
                assert_close(actual, expected, tolerance=tolerance, what=name)


def should_pack(case: Case, mask: str, *, labels: bool) -> bool:
    return not (case.first_token and mask == "left") and not (labels and case.head == "ForQuestionAnswering")


@each_case
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("mode", ["always", "auto"])
def test_packed_equals_padded(case: Case, mask: str, mode: str) -> None:
    model, inputs = case.build(), case.inputs(mask)
    with torch.no_grad():
        padded, packed, is_packed = both_ways(case, model, mode, **inputs, output_hidden_states=True)
    assert is_packed == should_pack(case, mask, labels=False)
    assert len(packed.hidden_states) == 3
    compare_outputs(case, padded, packed, inputs["attention_mask"], is_packed=is_packed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mask", MASKS)
def test_an_answer_is_never_padding(mask: str, dtype: torch.dtype) -> None:
    case = Case("XLMRoberta", "ForQuestionAnswering")
    model, inputs = case.build().to(dtype).set_packing("always"), case.inputs(mask)
    with torch.no_grad():
        model.qa_outputs.bias -= 50  # as a trained model: most scores are negative
        output = model(**inputs)
    for scores_BS in (output.start_logits, output.end_logits):
        assert inputs["attention_mask"].gather(1, scores_BS.argmax(1, keepdim=True)).all()
        assert not scores_BS.softmax(1)[inputs["attention_mask"] == 0].any()


@each_case
@pytest.mark.parametrize("mask", MASKS)
def test_gradients_of_packed_and_padded_are_equal(case: Case, mask: str) -> None:
    model, inputs = case.build(), case.inputs(mask)
    labels = case.labels(inputs)

    def loss_by(mode: str) -> Tensor:
        output = model.set_packing(mode)(**inputs, **labels)
        if case.head == "Model":  # masked positions are zero when packed, so a loss may only read the others
            output["last_hidden_state"] = output.last_hidden_state * inputs["attention_mask"][..., None]
        return loss_of(case, output)

    expected_loss = loss_by("never")
    expected = gradients(model, expected_loss)
    with packed_calls(model) as seen:
        loss = loss_by("always")
    assert seen == [should_pack(case, mask, labels=True)]
    actual = gradients(model, loss)
    assert_close(loss, expected_loss, what="loss")
    assert set(actual) == set(expected)
    for name in expected:
        assert_close(actual[name], expected[name], what=name)
    assert reached(case, expected)


@each_case
def test_bfloat16(case: Case) -> None:
    model, inputs = case.build().to(torch.bfloat16), case.inputs("right")
    with torch.no_grad():
        padded, packed, is_packed = both_ways(case, model, **inputs)
    assert is_packed
    assert all(x.dtype is torch.bfloat16 for x in packed.values())
    compare_outputs(case, padded, packed, inputs["attention_mask"], is_packed=True, tolerance=0.05)


@each_case
@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.float32, torch.float16])
def test_dtypes_of_the_mask(case: Case, dtype: torch.dtype) -> None:
    model, inputs = case.build(), case.inputs("inside")
    for mode in ("always", "never"):
        with torch.no_grad():
            expected = model.set_packing(mode)(**inputs)
            actual = model(**{**inputs, "attention_mask": inputs["attention_mask"].to(dtype)})
        assert all(torch.equal(actual[name], expected[name]) for name in expected)


@each_case
def test_other_inputs_are_packed_along(case: Case) -> None:
    model, inputs = case.build(), case.inputs("inside")
    shape = inputs["input_ids"].shape
    ids = inputs.pop("input_ids")
    inputs["inputs_embeds"] = torch.randn(*shape, 16, generator=torch.Generator().manual_seed(3))
    inputs["token_type_ids"] = ids % 2
    inputs["position_ids"] = (ids % 20) + 2
    with torch.no_grad():
        padded, packed, is_packed = both_ways(case, model, **inputs)
    assert is_packed
    compare_outputs(case, padded, packed, inputs["attention_mask"], is_packed=True)


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_chunked_feed_forward(chunk: int) -> None:
    case = CASES[0]
    inputs = case.inputs("right")
    with torch.no_grad():
        whole = case.build().set_packing("always")(**inputs)
        chunked = case.build(chunk_size_feed_forward=chunk).set_packing("always")(**inputs)
    assert_close(chunked.last_hidden_state, whole.last_hidden_state)


# ---- Training


@each_case
@pytest.mark.parametrize("dropout", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
@pytest.mark.parametrize("mode", ["always", "never"])
def test_training_with_dropout(case: Case, dropout: str, mode: str) -> None:
    model = case.build(**{dropout: 0.4, "classifier_dropout": 0.0}).set_packing(mode)
    inputs = case.inputs("right")
    labels = case.labels(inputs)
    evaluated = loss_of(case, model(**inputs, **labels))
    assert torch.equal(evaluated, loss_of(case, model(**inputs, **labels)))
    model.train()
    with packed_calls(model) as seen:
        losses = [loss_of(case, model(**inputs, **labels)) for _ in range(3)]
    assert seen == [mode == "always" and should_pack(case, "right", labels=True)] * 3
    assert len({loss.item() for loss in [evaluated, *losses]}) == 4
    found = gradients(model, losses[0])
    assert all(gradient.isfinite().all() for gradient in found.values())
    assert reached(case, found)
    torch.manual_seed(5)
    first = loss_of(case, model(**inputs, **labels))
    torch.manual_seed(5)
    assert torch.equal(first, loss_of(case, model(**inputs, **labels)))


@each_family
@pytest.mark.parametrize("mode", ["always", "never"])
@pytest.mark.parametrize("place", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_dropout_keeps_the_mean(family: str, mode: str, place: str) -> None:
    """What is kept makes up for what is dropped: averaged over many draws, the result is the one without dropout."""
    case = Case(family, "Model")
    model = case.build(**{place: 0.2}, num_hidden_layers=1).set_packing(mode)
    inputs = case.inputs("right")
    dropping = model.embeddings if place == "hidden_dropout_prob" else model.encoder.layer[0].attention.self
    with torch.no_grad(), outputs_of(dropping) as drawn:
        model(**inputs)
        expected = drawn.pop()
        model.train()
        for _ in range(250):
            model(**inputs)
    assert_close(
        torch.stack(drawn).mean(0), expected, tolerance=0.16
    )  # five standard deviations; a forgotten scaling is 0.2 off


# ---- When the padded path is taken: the answer is then its own, at masked positions too

Change = Callable[[Case, dict[str, Any]], None]


def left_padding(case: Case, inputs: dict[str, Any]) -> None:
    inputs.update(case.inputs("left"))


def fully_masked_row(case: Case, inputs: dict[str, Any]) -> None:
    mask = inputs["attention_mask"].flatten(0, -2).clone()
    mask[1] = 0
    inputs["attention_mask"] = case.grouped(mask)


def three_dimensional_mask(case: Case, inputs: dict[str, Any]) -> None:
    mask_BS = inputs["attention_mask"].flatten(0, -2)
    mask_BSS = mask_BS[:, None].expand(-1, mask_BS.shape[1], -1).tril()
    inputs["attention_mask"] = case.grouped(mask_BSS)


def head_mask(case: Case, inputs: dict[str, Any]) -> None:
    inputs["head_mask"] = torch.tensor([[1.0, 0.5], [0.0, 1.0]])


def attention_weights(case: Case, inputs: dict[str, Any]) -> None:
    inputs["output_attentions"] = True


def label_at_masked(case: Case, inputs: dict[str, Any]) -> None:
    labels = case.labels(inputs)["labels"]
    labels[1, 4] = 2  # the mask is 0 there, and at its predecessor
    inputs["labels"] = labels


def answer_positions(case: Case, inputs: dict[str, Any]) -> None:
    inputs.update(case.labels(inputs))


def masked_positions_hit_padding(case: Case, inputs: dict[str, Any]) -> None:
    inputs["masked_positions"] = torch.tensor([[0, 5], [4, -1], [0, -1], [1, 2]])


def sparse_labels_at_masked(case: Case, inputs: dict[str, Any]) -> None:
    label_at_masked(case, inputs)
    inputs["sparse_prediction"] = True


def keep_last_logit(case: Case, inputs: dict[str, Any]) -> None:
    inputs["logits_to_keep"] = 1


def keep_columns(case: Case, inputs: dict[str, Any]) -> None:
    inputs["logits_to_keep"] = torch.tensor([0, -2])


def label_after_masked(case: Case, inputs: dict[str, Any]) -> None:
    inputs.update(case.inputs("inside"))
    labels = torch.full(inputs["input_ids"].shape, -100)
    labels[0, 4] = 3  # position 4 is kept, but its predecessor, which predicts it, is not
    inputs["labels"] = labels


EVERY = tuple(case.head for case in CASES[:7])
COUNTS_NO_MASKED_LABELS = Case("XLMRobertaXL", "ForTokenClassification")
PADDED_PATH: list[tuple[Change, tuple[str, ...], dict[str, Any]]] = [
    (left_padding, ("Model", "ForSequenceClassification", "ForMultipleChoice"), {}),
    (fully_masked_row, EVERY, {}),
    (three_dimensional_mask, tuple(head for head in EVERY if head != "ForMultipleChoice"), {}),
    (head_mask, EVERY, {}),
    (attention_weights, EVERY, {}),
    (label_at_masked, ("ForMaskedLM", "ForCausalLM", "ForTokenClassification"), {}),
    (label_after_masked, ("ForCausalLM",), {}),
    (answer_positions, ("ForQuestionAnswering",), {}),
    (masked_positions_hit_padding, ("ForMaskedLM",), {}),
    (sparse_labels_at_masked, ("ForMaskedLM",), {}),
    (keep_last_logit, ("ForCausalLM",), {}),
    (keep_columns, ("ForCausalLM",), {}),
    (lambda case, inputs: None, EVERY, {"position_embedding_type": "relative_key"}),
    (lambda case, inputs: None, EVERY, {"position_embedding_type": "relative_key_query"}),
]


@pytest.mark.parametrize(
    ("case", "change", "config"),
    [
        pytest.param(case, change, config, id=f"{case}-{config.get('position_embedding_type', change.__name__)}")
        for change, heads, config in PADDED_PATH
        for case in CASES
        if case.head in heads and not (change is label_at_masked and case == COUNTS_NO_MASKED_LABELS)
    ],
)
def test_padded_path_where_it_defines_the_answer(case: Case, change: Change, config: dict[str, Any]) -> None:
    model, inputs = case.build(**config), case.inputs("right")
    change(case, inputs)
    with torch.no_grad():
        padded, chosen, is_packed = both_ways(case, model, **inputs, output_hidden_states=True)
    assert not is_packed
    compare_outputs(case, padded, chosen, inputs["attention_mask"], is_packed=False, tolerance=0)


@pytest.mark.parametrize("mode", ["always", "never"])
def test_xl_counts_no_label_at_masked_positions(mode: str) -> None:
    case = COUNTS_NO_MASKED_LABELS
    model, inputs = case.build().set_packing(mode), case.inputs("right")
    expected = model(**inputs, **case.labels(inputs)).loss
    label_at_masked(case, inputs)
    with packed_calls(model) as seen:
        assert torch.equal(model(**inputs).loss, expected)
    assert seen == [mode == "always"]
    inputs["attention_mask"] = None
    with pytest.warns(UserWarning, match="padding"):
        counted = model(**inputs).loss
    inputs["labels"][1, 4] = -100
    with pytest.warns(UserWarning, match="padding"):
        assert not torch.equal(counted, model(**inputs).loss)


@each_family
def test_cross_attention_takes_the_padded_path(family: str) -> None:
    case = Case(family, "ForCausalLM")
    model, inputs = case.build(add_cross_attention=True), case.inputs("right")
    with torch.no_grad():
        _, _, is_packed = both_ways(case, model, **inputs)
        assert is_packed, "without states to attend to there is no reason to pad"
        inputs["encoder_hidden_states"] = torch.randn(4, 3, 16)
        inputs["encoder_attention_mask"] = torch.tensor([[1, 1, 1], [1, 0, 1], [1, 0, 0], [1, 1, 0]])
        padded, chosen, is_packed = both_ways(case, model, **inputs)
    assert not is_packed
    compare_outputs(case, padded, chosen, inputs["attention_mask"], is_packed=False, tolerance=0)


@each_family
def test_eager_kernel_takes_the_padded_path(family: str) -> None:
    case = Case(family, "ForMaskedLM")
    model, inputs = case.build(), case.inputs("right")
    expected = model.set_packing("never")(**inputs).logits
    with packed_calls(model) as seen:
        actual = model.set_attn_implementation("eager").set_packing("always")(**inputs).logits
    assert seen == [False]
    assert_close(actual, expected)


@each_family
def test_positions_chosen_at_kept_tokens_stay_packed(family: str) -> None:
    inputs = Case(family, "ForMaskedLM").inputs("right")
    model = Case(family, "ForMaskedLM").build()
    positions = torch.tensor([[5, 0], [2, -1], [0, -1], [-1, -1]])
    with packed_calls(model) as seen:
        packed = model.set_packing("always")(**inputs, masked_positions=positions).logits
        padded = model.set_packing("never")(**inputs, masked_positions=positions).logits
    assert seen == [True, False]
    assert packed.shape == (4, 2, VOCABULARY)
    assert_close(packed, padded)

    left = Case(family, "ForCausalLM").inputs("left")
    decoder = Case(family, "ForCausalLM").build()
    with packed_calls(decoder) as seen:
        packed = decoder.set_packing("always")(**left, logits_to_keep=1).logits
        padded = decoder.set_packing("never")(**left, logits_to_keep=1).logits
    assert seen == [True, False]
    assert_close(packed, padded)


@each_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_fully_masked_rows_attend_uniformly(case: Case, dtype: torch.dtype) -> None:
    """Their attention is the same to every key, hence the same at every query, and all numbers are finite."""
    model, inputs = case.build(is_decoder=False).to(dtype), case.inputs("right")
    fully_masked_row(case, inputs)
    with torch.no_grad(), outputs_of(model.base_model.encoder.layer[0].attention.self) as contexts:
        output = model(**inputs)
    assert all(x.isfinite().all() for x in output.values())
    row_SD = contexts[0][1].float()
    assert_close(row_SD, row_SD.mean(0).expand_as(row_SD), tolerance=1e-5 if dtype is torch.float32 else 2e-2)
    weights = model(**inputs, output_attentions=True).attentions[0][1].float()
    assert_close(weights, torch.full_like(weights, 1 / 6), tolerance=1e-3)
