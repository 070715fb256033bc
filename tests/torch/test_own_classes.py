"""Models that a user's code changed: what was added is saved and loaded with the rest, what was taken away is not asked for."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import xlmr_torch
from tests.torch.models import CLASSES, Case
from xlmr_core.errors import CheckpointError, InputError
from xlmr_core.load_plan import LoadWarning

each_family = pytest.mark.parametrize("family", ["XLMRoberta", "XLMRobertaXL"])
ADDED = ["scale", "steps", "projection.weight", "projection.bias", "head.0.weight", "head.2.weight", "head.2.bias"]


def own_class(family: str) -> Any:
    """A class as users write it: an encoder, layers with names that anybody may choose, a parameter and buffers."""
    base = getattr(xlmr_torch, f"{family}PreTrainedModel")
    encoder = getattr(xlmr_torch, f"{family}Model")

    class Own(base):
        def __init__(self, config: Any, width: int = 5, constant: float = 0.25) -> None:
            super().__init__(config)
            self.roberta = encoder(config, add_pooling_layer=False)
            self.scale = nn.Parameter(torch.full((2,), constant))
            self.register_buffer("steps", torch.arange(3))
            self.register_buffer("grid", torch.linspace(0, 1, 4), persistent=False)
            self.projection = nn.Linear(config.hidden_size, width)
            self.head = nn.Sequential(nn.Embedding(3, 4, padding_idx=1), nn.Tanh(), nn.LayerNorm(4))
            self.depth = int(torch.tensor(3).item())  # which needs values
            self.post_init()

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            return self.projection(self.roberta(input_ids, attention_mask=attention_mask).last_hidden_state[:, 0])

    return Own


def randomized(model: nn.Module) -> Any:
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.normal_()
    return model.eval()


def assert_same(one: nn.Module, other: nn.Module) -> None:
    expected, actual = one.state_dict(), other.state_dict()
    assert list(actual) == list(expected)
    for name in expected:
        assert torch.equal(actual[name], expected[name]), name


@each_family
@pytest.mark.parametrize("size", ["5GB", 3000])
def test_a_class_of_ones_own_comes_back_whole(family: str, size: int | str, tmp_path: Path) -> None:
    case = Case(family, "Model")
    model = randomized(own_class(family)(case.config()))
    model.steps += 7
    model.save_pretrained(tmp_path, max_shard_size=size)
    loaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert_same(loaded, model)
    assert info["missing_keys"] == info["unexpected_keys"] == []
    assert torch.equal(loaded.grid, torch.linspace(0, 1, 4)) and loaded.steps.dtype is torch.int64
    inputs = case.inputs("right")
    assert torch.equal(loaded(**inputs), model(**inputs))
    assert not loaded.training and all(tensor.device.type == "cpu" for tensor in loaded.state_dict().values())


@each_family
def test_what_a_checkpoint_lacks_is_as_the_class_made_it(family: str, tmp_path: Path) -> None:
    case = Case(family, "ForMaskedLM")
    published = case.build()
    published.save_pretrained(tmp_path)
    torch.manual_seed(0)
    with pytest.warns(LoadWarning, match=r"Own: scale, steps, projection.weight.* start with fresh values"):
        model, info = own_class(family).from_pretrained(
            tmp_path, output_loading_info=True, dtype="bfloat16", width=300, num_labels=7
        )
    assert sorted(info["missing_keys"]) == sorted(ADDED)
    assert info["report"].model == "Own" and model.config.num_labels == 7
    assert torch.equal(
        model.roberta.embeddings.word_embeddings.weight, published.get_input_embeddings().weight.bfloat16()
    )
    # The published rule for layers, and the constructor's own values for everything else.
    assert model.projection.weight.shape[0] == 300
    assert model.projection.weight.float().std().item() == pytest.approx(0.02, rel=0.1)
    assert not model.projection.bias.any() and not model.head[0].weight[1].any() and model.head[0].weight[0].any()
    assert (model.scale == 0.25).all() and torch.equal(model.steps, torch.arange(3))
    floats = [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()]
    assert {tensor.dtype for tensor in floats} == {torch.bfloat16}


def test_a_class_may_draw_by_its_own_rule(tmp_path: Path) -> None:
    class Seven(own_class("XLMRoberta")):  # type: ignore[misc]
        def _init_weights(self, module: nn.Module) -> None:
            if isinstance(module, nn.Linear):
                module.weight.fill_(7.0)

    Case("XLMRoberta", "Model").build().save_pretrained(tmp_path)
    with pytest.warns(LoadWarning):
        model = Seven.from_pretrained(tmp_path)
    assert (model.projection.weight == 7).all() and not (model.roberta.encoder.layer[0].output.dense.weight == 7).any()


@each_family
def test_a_replaced_layer(family: str, tmp_path: Path) -> None:
    case = Case(family, "ForTokenClassification")

    class Replaced(case.model_class):  # type: ignore[misc, name-defined]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.classifier = nn.Sequential(nn.Linear(config.hidden_size, 9), nn.Linear(9, config.num_labels))
            self.post_init()

    case.build().save_pretrained(tmp_path)
    with pytest.warns(LoadWarning, match=r"classifier.0.weight, classifier.0.bias, classifier.1.weight"):
        model = Replaced.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = Replaced.from_pretrained(tmp_path)
    assert_same(loaded, model)
    assert loaded(**case.inputs("right")).logits.shape == (4, 6, CLASSES)


def test_what_is_put_into_a_model_is_saved(tmp_path: Path) -> None:
    model = Case("XLMRoberta", "ForMaskedLM").build()
    model.adapter = nn.Linear(3, 3)
    model.register_buffer("class_weights", torch.rand(4))
    # A layer that is wrapped changes its name, and another decoder has no bias.
    model.roberta.encoder.layer[0].attention.self.query = nn.Sequential(
        model.roberta.encoder.layer[0].attention.self.query
    )
    model.lm_head.decoder = nn.Linear(16, 41, bias=False)
    model.config.tie_word_embeddings = False
    model.save_pretrained(tmp_path)
    from safetensors.torch import load_file

    found, expected = load_file(tmp_path / "model.safetensors"), model.state_dict()
    assert found.keys() == expected.keys() and {"adapter.bias", "class_weights"} < found.keys()
    assert "roberta.encoder.layer.0.attention.self.query.0.weight" in found and "lm_head.decoder.bias" not in found
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_state_dict_is_written_whole(tmp_path: Path) -> None:
    model = Case("XLMRoberta", "ForMaskedLM").build()
    values = {**model.state_dict(), "mine": torch.ones(2)}
    model.save_pretrained(tmp_path, state_dict=values)
    from safetensors.torch import load_file

    found = load_file(tmp_path / "model.safetensors")
    tied = {"lm_head.decoder.weight", "lm_head.decoder.bias"}
    assert found.keys() == values.keys() - tied and torch.equal(found["mine"], torch.ones(2))
    del values["lm_head.dense.weight"]
    with pytest.raises(InputError, match=r"the state_dict passed lacks lm_head.dense.weight; pass the model's whole"):
        model.save_pretrained(tmp_path, state_dict=values)


def test_another_size_is_named(tmp_path: Path) -> None:
    own = own_class("XLMRoberta")
    own(Case("XLMRoberta", "Model").config(), width=6).save_pretrained(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"projection.weight must have the shape \(5, 16\).*from the class itself"
    ):
        own.from_pretrained(tmp_path)
    with pytest.warns(LoadWarning, match=r"projection.weight has the shape \(6, 16\)"):
        model = own.from_pretrained(tmp_path, ignore_mismatched_sizes=True)
    assert model.projection.weight.shape == (5, 16) and model.projection.weight.std().item() < 0.05


def test_mistakes_are_named(tmp_path: Path) -> None:
    class Without(xlmr_torch.XLMRobertaPreTrainedModel):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.layer = nn.Linear(2, 2)
            self.post_init()

    config = Case("XLMRoberta", "Model").config()
    with pytest.raises(InputError, match=r"Without has no encoder; set self.roberta = XLMRobertaModel\(config\)"):
        Without(config)
    model = own_class("XLMRoberta")(config)
    model.register_buffer("wave", torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(InputError, match=r"wave is torch.complex64, which no checkpoint here holds"):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(TypeError, match="wdith"):
        own_class("XLMRoberta").from_pretrained("xlmr-mini", wdith=3)


@each_family
def test_an_own_class_can_be_changed_like_any_other(family: str, tmp_path: Path) -> None:
    case = Case(family, "Model")
    model = randomized(own_class(family)(case.config()))
    assert isinstance(model.roberta, getattr(xlmr_torch, f"{family}PreTrainedModel"))
    model.resize_token_embeddings(50)
    model.prune_heads({0: [1]})
    model.gradient_checkpointing_enable()
    model.train()(**case.inputs("right")).sum().backward()
    assert model.projection.weight.grad is not None
    model.save_pretrained(tmp_path)
    assert_same(type(model).from_pretrained(tmp_path), model)


@pytest.mark.parametrize("name", ["ForSequenceClassification", "Model"])
def test_heads_take_the_states_as_published_too(name: str) -> None:
    model = Case("XLMRoberta", name).build()
    states = torch.randn(2, 5, 16)
    head = model.classifier if name == "ForSequenceClassification" else model.pooler
    assert torch.equal(head(states), head(states[:, 0]))
