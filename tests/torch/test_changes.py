"""Changing a model: resizing, pruning, gradient checkpointing, freezing, precision."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.torch.models import (
    VOCABULARY,
    Case,
    assert_close,
    each_case,
    each_family,
    gradients,
    loss_of,
    outputs_of,
    packed_calls,
)
from xlmr_core.errors import ConfigError, InputError

# ---- Resizing


@each_family
@pytest.mark.parametrize("head", ["ForMaskedLM", "Model"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        ({"new_num_tokens": 50}, 50),
        ({"new_num_tokens": 20}, 20),
        ({"new_num_tokens": 50, "pad_to_multiple_of": 64}, 64),
        ({"pad_to_multiple_of": 8}, 48),
        ({"new_num_tokens": 50, "mean_resizing": False}, 50),
        ({"new_num_tokens": 41}, 41),
        ({}, 41),
    ],
)
def test_resize(family: str, head: str, tied: bool, arguments: dict[str, Any], rows: int, tmp_path: Path) -> None:
    case = Case(family, head)
    model = case.build(tie_word_embeddings=tied)
    old = {name: x.clone() for name, x in model.state_dict().items()}
    embeddings = model.resize_token_embeddings(**arguments)
    assert embeddings is model.get_input_embeddings() and embeddings.num_embeddings == rows
    assert model.config.vocab_size == model.base_model.config.vocab_size == rows
    kept = min(rows, VOCABULARY)
    for name, x in model.state_dict().items():
        if "word_embeddings" in name or name in ("lm_head.bias", "lm_head.decoder.weight", "lm_head.decoder.bias"):
            assert x.shape[0] == rows, name
            assert torch.equal(x[:kept], old[name][:kept]), (
                f"{name}: a row that stays was changed, the padding row perhaps"
            )
            if x.dim() == 1:
                assert not x[kept:].any()
            elif arguments.get("mean_resizing", True):
                assert_close(x[kept:], old[name].mean(0).expand(rows - kept, -1), what=name, tolerance=1e-4)
            else:
                assert 0.01 < x[kept:].std().item() < 0.03
        else:
            assert torch.equal(x, old[name]), name
    assert embeddings.padding_idx == 1
    if head in ("ForMaskedLM", "ForCausalLM"):
        decoder = model.get_output_embeddings()
        assert (decoder.weight is embeddings.weight) == tied and model.lm_head.bias is decoder.bias
        assert decoder.out_features == rows
    inputs = {name: x.clamp(max=19) for name, x in case.inputs("right").items()}
    output = model(**inputs)
    if head in ("ForMaskedLM", "ForCausalLM"):
        assert output.logits.shape[-1] == rows
    model.save_pretrained(tmp_path)
    loaded = case.model_class.from_pretrained(tmp_path)
    assert loaded.config.vocab_size == rows
    assert all(torch.equal(loaded(**inputs)[name], output[name]) for name in output)


@each_family
def test_new_rows_are_trained(family: str) -> None:
    case = Case(family, "ForMaskedLM")
    model = case.build()
    model.resize_token_embeddings(45)
    inputs = case.inputs("right")
    inputs["input_ids"][0, 2] = 44
    labels = torch.full((4, 6), -100)
    labels[0, 1] = 43
    found = gradients(model, model(**inputs, labels=labels).loss)
    assert found["roberta.embeddings.word_embeddings.weight"][43:].any(1).all()
    assert found["lm_head.bias"][43] != 0


@each_family
def test_resizing_keeps_what_is_frozen_and_the_dtype(family: str) -> None:
    model = Case(family, "ForMaskedLM").build().to(torch.bfloat16)
    model.get_input_embeddings().requires_grad_(False)
    model.resize_token_embeddings(44)
    assert not model.get_input_embeddings().weight.requires_grad and model.lm_head.bias.requires_grad
    assert {x.dtype for x in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"new_num_tokens": 0}, r"new_num_tokens must be an integer above pad_token_id \(1\), received 0"),
        ({"new_num_tokens": 1}, r"new_num_tokens must be an integer above pad_token_id \(1\), received 1"),
        ({"new_num_tokens": -5}, r"new_num_tokens must be .*received -5"),
        ({"new_num_tokens": True}, r"new_num_tokens must be .*received True"),
        ({"new_num_tokens": 50.0}, r"new_num_tokens must be .*received 50\.0"),
        ({"new_num_tokens": "50", "pad_to_multiple_of": 8}, r"new_num_tokens must be .*received '50'"),
        ({"new_num_tokens": 50, "pad_to_multiple_of": 0}, r"pad_to_multiple_of must be a positive integer, received 0"),
        ({"pad_to_multiple_of": 2.5}, r"pad_to_multiple_of must be a positive integer, received 2\.5"),
    ],
)
def test_impossible_sizes(arguments: dict[str, Any], message: str) -> None:
    model = Case("XLMRoberta", "ForMaskedLM").build()
    with pytest.raises(InputError, match=message):
        model.resize_token_embeddings(**arguments)
    assert model.config.vocab_size == model.get_input_embeddings().num_embeddings == VOCABULARY


# ---- Pruning


@each_case
@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager"])
def test_a_pruned_head_is_a_masked_head(case: Case, attn_implementation: str, tmp_path: Path) -> None:
    model, inputs = case.build().set_attn_implementation(attn_implementation), case.inputs("right")
    expected = model(**inputs, head_mask=torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    model.prune_heads({0: [1]})
    first, second = (layer.attention.self for layer in model.base_model.encoder.layer)
    assert first.query.weight.shape == (8, 16) and second.query.weight.shape == (16, 16)
    assert model.config.pruned_heads == {0: [1]}
    padded = model.set_packing("never")(**inputs)
    for name in expected:
        assert_close(padded[name], expected[name], what=name)
    # The mask still counts heads by their original numbers.
    masked = model(**inputs, head_mask=torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    assert all(torch.allclose(masked[name], expected[name], atol=1e-5) for name in expected)
    assert [tuple(x.shape) for x in model(**inputs, output_attentions=True).attentions] == [(4, 1, 6, 6), (4, 2, 6, 6)]
    model.save_pretrained(tmp_path)
    loaded = case.model_class.from_pretrained(tmp_path).set_packing("never")
    assert loaded.config.pruned_heads == {0: [1]}
    assert_close(loaded(**inputs)[0], padded[0])


@each_family
def test_pruning_twice(family: str) -> None:
    case = Case(family, "Model")
    model, inputs = case.build(num_attention_heads=4).set_packing("never"), case.inputs("right")
    mask = torch.tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0]])
    expected = model(**inputs, head_mask=mask).last_hidden_state
    model.prune_heads({0: [2]})
    model.prune_heads({0: [2, 1], 1: [3]})
    assert model.config.pruned_heads == {0: [1, 2], 1: [3]}
    assert_close(model(**inputs).last_hidden_state, expected)
    model.prune_heads({0: [1, 2]})
    assert_close(model(**inputs).last_hidden_state, expected)
    model.set_packing("always")
    kept_BS = inputs["attention_mask"] == 1
    assert_close(model(**inputs).last_hidden_state[kept_BS], expected[kept_BS])


@each_family
def test_pruning_leaves_cross_attention_whole(family: str) -> None:
    case = Case(family, "ForCausalLM")
    model = case.build(add_cross_attention=True)
    model.prune_heads({0: [0]})
    assert model.base_model.encoder.layer[0].crossattention.self.query.weight.shape == (16, 16)
    inputs = {**case.inputs("right"), "encoder_hidden_states": torch.randn(4, 3, 16)}
    output = model(**inputs, output_attentions=True)
    assert output.cross_attentions[0].shape == (4, 2, 6, 3) and output.attentions[0].shape == (4, 1, 6, 6)


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ({0: [2]}, r"pruned_heads names heads \[2\] of layer 0, which this model does not have"),
        ({0: [-1]}, r"pruned_heads names heads \[-1\] of layer 0"),
        ({5: [0]}, r"pruned_heads names heads \[0\] of layer 5"),
        ({0: [0], 1: [0, 1]}, r"pruned_heads leaves no attention head in layer 1"),
    ],
)
def test_heads_that_cannot_be_pruned(heads: dict[int, list[int]], message: str) -> None:
    model = Case("XLMRoberta", "Model").build()
    before = {name: x.shape for name, x in model.state_dict().items()}
    with pytest.raises(ConfigError, match=message):
        model.prune_heads(heads)
    assert {name: x.shape for name, x in model.state_dict().items()} == before
    assert model.config.pruned_heads == {}


# ---- Gradient checkpointing


@each_case
@pytest.mark.parametrize("mode", ["always", "never"])
@pytest.mark.parametrize(("dropout", "reentrant"), [(0.0, None), (0.3, None), (0.3, True)])
def test_gradient_checkpointing(case: Case, mode: str, dropout: float, reentrant: bool | None) -> None:
    model = case.build(hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout).set_packing(mode).train()
    inputs = case.inputs("right")
    labels = case.labels(inputs)

    def run() -> tuple[Tensor, dict[str, Tensor], int]:
        torch.manual_seed(7)
        with outputs_of(model.base_model.encoder.layer[0].attention.self) as ran, packed_calls(model) as packed:
            loss = loss_of(case, model(**inputs, **labels))
            found = gradients(model, loss)
        assert packed == [mode == "always" and case.head != "ForQuestionAnswering"]
        return loss, found, len(ran)

    expected_loss, expected, once = run()
    assert not model.is_gradient_checkpointing and once == 1
    model.gradient_checkpointing_enable(None if reentrant is None else {"use_reentrant": reentrant})
    assert model.is_gradient_checkpointing
    loss, found, twice = run()
    assert twice == 2, "the layer was not computed again"
    assert torch.equal(loss, expected_loss)
    for name in expected:
        assert_close(found[name], expected[name], tolerance=1e-6, what=name)
    with outputs_of(model.base_model.encoder.layer[0].attention.self) as ran, torch.no_grad():
        model.eval()(**inputs)
    assert len(ran) == 1
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing and model.train() and run()[2] == 1


@each_family
def test_gradient_checkpointing_of_cross_attention(family: str) -> None:
    case = Case(family, "ForCausalLM")
    model = case.build(add_cross_attention=True).train()
    inputs = {**case.inputs("right"), "encoder_hidden_states": torch.randn(4, 3, 16, requires_grad=True)}
    labels = case.labels(inputs)
    expected = gradients(model, model(**inputs, **labels).loss)
    model.gradient_checkpointing_enable()
    actual = gradients(model, model(**inputs, **labels).loss)
    for name in expected:
        assert_close(actual[name], expected[name], what=name)


# ---- Freezing


@each_case
@pytest.mark.parametrize("mode", ["always", "never"])
def test_training_over_a_frozen_encoder(case: Case, mode: str) -> None:
    """With checkpointing and every encoder weight frozen, gradients still reach an adapter in the middle."""
    model = case.build().set_packing(mode).train()
    inputs = case.inputs("right")
    labels = case.labels(inputs)
    model.requires_grad_(False)
    adapted = model.base_model.encoder.layer[0].output.dense.weight.requires_grad_(True)
    expected = gradients(model, loss_of(case, model(**inputs, **labels)))
    model.gradient_checkpointing_enable({"use_reentrant": True})
    model.enable_input_require_grads()
    actual = gradients(model, loss_of(case, model(**inputs, **labels)))
    assert adapted.grad is not None and adapted.grad.any()
    for name in expected:
        assert_close(actual[name], expected[name], what=name)
    assert copy.deepcopy(model) is not model and pickle.loads(pickle.dumps(model)).is_gradient_checkpointing
    model.disable_input_require_grads()
    model.gradient_checkpointing_disable()
    with outputs_of(model.base_model.embeddings) as embedded:
        model(**inputs)
    assert not embedded[0].requires_grad


# ---- Precision


@each_case
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", ["always", "never"])
def test_half_weights(case: Case, dtype: torch.dtype, mode: str) -> None:
    model, inputs = case.build().set_packing(mode), case.inputs("right")
    labels = case.labels(inputs)
    expected = dict(model(**inputs, **labels))  # logits are computed when they are read
    model.to(dtype)
    output = model(**inputs, **labels)
    for name in expected:
        assert output[name].dtype is (torch.float32 if name == "loss" else dtype)
        assert_close(output[name].float(), expected[name], tolerance=0.06, what=name)
    found = gradients(model, loss_of(case, output))
    assert all(x.dtype is dtype and x.isfinite().all() for x in found.values())


@each_case
@pytest.mark.parametrize("mode", ["always", "never"])
@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager"])
def test_autocast(case: Case, mode: str, attn_implementation: str) -> None:
    model, inputs = case.build().set_packing(mode).set_attn_implementation(attn_implementation), case.inputs("right")
    labels = case.labels(inputs)
    expected = model(**inputs, **labels)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(**inputs, **labels)
    for name in expected:
        assert_close(output[name].float(), expected[name], tolerance=0.06, what=name)
    found = gradients(model, loss_of(case, output))
    assert all(x.dtype is torch.float32 and x.isfinite().all() for x in found.values())


@each_case
@pytest.mark.parametrize("config", [{}, {"position_embedding_type": "relative_key_query"}])
def test_autocast_of_fully_masked_rows(case: Case, config: dict[str, Any]) -> None:
    model, inputs = case.build(**config), case.inputs("right")
    mask = inputs["attention_mask"].flatten(0, -2).clone()
    mask[1] = 0
    inputs["attention_mask"] = case.grouped(mask)
    expected = model(**inputs)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype):
            output = model(**inputs)
        for name in expected:
            assert output[name].isfinite().all()
            assert_close(output[name].float(), expected[name], tolerance=0.06, what=name)


# ---- Transforms of torch.func


@pytest.mark.parametrize("head", ["ForMaskedLM", "ForSequenceClassification", "ForTokenClassification"])
@each_family
def test_gradients_of_each_example(family: str, head: str) -> None:
    case = Case(family, head)
    # The eager kernel, because PyTorch warns that the others are slow here.
    model, inputs = case.build().set_attn_implementation("eager"), case.inputs("right")
    labels = case.labels(inputs)["labels"]
    parameters = dict(model.named_parameters())

    def loss(parameters: dict[str, Tensor], ids: Tensor, mask: Tensor, label: Tensor) -> Tensor:
        arguments = {"input_ids": ids[None], "attention_mask": mask[None], "labels": label[None]}
        return torch.func.functional_call(model, parameters, (), arguments, tie_weights=True).loss

    rows = slice(0, 2)
    chosen = (inputs["input_ids"][rows], inputs["attention_mask"][rows], labels[rows])
    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0, 0))(parameters, *chosen)
    for row in range(2):
        one = {name: x[row : row + 1] for name, x in inputs.items()}
        expected = gradients(model, model(**one, labels=labels[row : row + 1]).loss)
        for name in expected:
            assert_close(found[name][row], expected[name], what=name)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated:DeprecationWarning")
@each_family
def test_a_trace_holds_for_other_masks(family: str) -> None:
    case = Case(family, "ForTokenClassification")
    model, inputs = case.build(), case.inputs("right")
    model.config.return_dict = False
    with torch.no_grad():
        traced = torch.jit.trace(model, (inputs["input_ids"], inputs["attention_mask"]), check_trace=False)
        other = case.inputs("inside")
        expected = model.set_packing("never")(**other)[0]
        assert_close(traced(other["input_ids"], other["attention_mask"])[0], expected)
