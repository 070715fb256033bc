"""Models that a user's code changed: what was added is saved and loaded with the rest, what was taken away is not asked
for.
"""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import xlmr_torch
from tests.torch.models import CLASSES, Case
from xlmr_core.checkpoints.load_plan import LoadWarning
from xlmr_core.errors import CheckpointError, InputError

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
    with pytest.raises(
        InputError, match=r"Without has no encoder as self.roberta; set self.roberta = XLMRobertaModel\(config\)"
    ):
        Without(config)

    class Elsewhere(own_class("XLMRoberta")):  # type: ignore[misc]
        base_model_prefix = "encoder"

    with pytest.raises(InputError, match="Elsewhere has no encoder as self.roberta"):
        Elsewhere(config)
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


# ---- Models inside, ties, frozen parts, and names that mean something elsewhere


def plain(base: Any, **parts: Any) -> Any:
    """A class with an encoder and whatever ``parts`` make of the model, in order:
    ``name=function of the model and its config``.
    """

    class Plain(base):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.roberta = xlmr_torch.XLMRobertaModel(config, add_pooling_layer=False)
            for name, part in parts.items():
                setattr(self, name, part(self, config))
            self.post_init()

    return Plain


BASE = xlmr_torch.XLMRobertaPreTrainedModel
CONFIG = Case("XLMRoberta", "Model").config()


class Holder(nn.Module):
    """Names that checkpoints of other writers have for other things."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.rand(3)), nn.Parameter(torch.rand(3))
        self.scale, self.kernel = nn.Parameter(torch.rand(3)), nn.Parameter(torch.rand(3, 4))
        self.dense = nn.Linear(16, 16)
        self.register_buffer("position_ids", torch.arange(5))
        self.register_buffer("exact", torch.rand(3, dtype=torch.float64))


@pytest.mark.parametrize("size", ["5GB", 60])
@pytest.mark.parametrize("name", ["film", "pooler", "embeddings"])
def test_a_name_of_ones_own_means_what_it_says(name: str, size: str | int, tmp_path: Path) -> None:
    # With an encoder that has a pooler of its own, whose names differ by the prefix alone.
    with_pooler = {"roberta": lambda model, config: xlmr_torch.XLMRobertaModel(config)}
    own = plain(BASE, **with_pooler, **{name: lambda model, config: Holder()})
    model = randomized(own(CONFIG))
    model.save_pretrained(tmp_path, max_shard_size=size)
    loaded, info = own.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] == info["unexpected_keys"] == []
    assert_same(loaded, model)
    assert loaded.get_submodule(name).exact.dtype is torch.float64
    assert str(loaded.load_state_dict(model.state_dict())) == "<All keys matched successfully>"


def test_a_second_encoder_has_values_whatever_the_file_lacks(tmp_path: Path) -> None:
    case = Case("XLMRoberta", "Model")
    published = case.build()
    published.save_pretrained(tmp_path / "published")
    teacher = lambda model, config: xlmr_torch.XLMRobertaModel.from_pretrained(tmp_path / "published")  # noqa: E731
    second = lambda model, config: xlmr_torch.XLMRobertaModel(config)  # noqa: E731
    own = plain(BASE, teacher=teacher, second=second)

    class Quiet(own):  # type: ignore[misc, valid-type]
        def _init_weights(self, module: nn.Module) -> None:
            raise AssertionError("nothing here is of this class itself")

    assert_same(Quiet(CONFIG).teacher, published)  # the end of the constructor leaves it as it was loaded
    with pytest.warns(LoadWarning, match="teacher.embeddings.word_embeddings.weight.* and 66 more"):
        model = Quiet.from_pretrained(tmp_path / "published")
    assert_same(model.teacher, published)
    for name, parameter in model.second.named_parameters():
        if name.endswith("dense.weight"):
            assert parameter.std().item() == pytest.approx(0.02, rel=0.3), name
    model = randomized(model)
    model.save_pretrained(tmp_path / "own")
    assert_same(Quiet.from_pretrained(tmp_path / "own"), model)


class Vocabulary(plain(BASE, out=lambda model, config: nn.Linear(16, 41, bias=False))):  # type: ignore[misc]
    """As published: who has an output embedding shares the input's."""

    def get_output_embeddings(self) -> Any:
        return self.out


def shared_out(model: Any, config: Any) -> nn.Linear:
    out = nn.Linear(16, 41)
    out.weight = model.roberta.embeddings.word_embeddings.weight
    return out


@pytest.mark.parametrize(
    ("own", "one", "other"),
    [
        (Vocabulary, "out", "roberta"),
        (plain(BASE, out=shared_out), "out", "roberta"),
        (
            plain(BASE, mlm=lambda model, config: xlmr_torch.XLMRobertaForMaskedLM(config)),
            "mlm.lm_head.decoder",
            "mlm.roberta",
        ),
    ],
)
def test_what_a_class_shares_stays_shared(own: Any, one: str, other: str, tmp_path: Path) -> None:
    def is_shared(model: nn.Module) -> bool:
        return model.get_submodule(one).weight is model.get_submodule(other).embeddings.word_embeddings.weight

    model = randomized(own(CONFIG))
    assert is_shared(model)
    model.save_pretrained(tmp_path)
    from safetensors import safe_open

    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert f"{one}.weight" not in file.keys()  # noqa: SIM118
    loaded, info = own.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] == [] and is_shared(loaded)
    assert_same(loaded, model)
    Case("XLMRoberta", "Model").build().save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LoadWarning)
        assert is_shared(own.from_pretrained(tmp_path))


def test_what_a_class_freezes_stays_frozen(tmp_path: Path) -> None:
    class Frozen(xlmr_torch.XLMRobertaForSequenceClassification):
        def __init__(self, config: Any, **options: Any) -> None:
            super().__init__(config)
            self.options = options
            self.roberta.requires_grad_(False)
            self.fixed = nn.Parameter(torch.ones(3), requires_grad=False)

        def encode(self, texts: list[str]) -> list[str]:
            return texts

    model = Frozen(Case("XLMRoberta", "ForSequenceClassification").config())
    model.save_pretrained(tmp_path)
    loaded = Frozen.from_pretrained(tmp_path, width=3)
    assert loaded.options == {"width": 3}
    assert {name for name, x in loaded.named_parameters() if x.requires_grad} == set(loaded.head_names()) - {"fixed"}
    assert loaded(**Case("XLMRoberta", "ForSequenceClassification").inputs("right")).logits.shape == (4, CLASSES)


def test_an_encoder_of_ones_own_below_a_published_head(tmp_path: Path) -> None:
    class Encoder(xlmr_torch.XLMRobertaModel):
        def __init__(self, config: Any, add_pooling_layer: bool = True) -> None:
            super().__init__(config, add_pooling_layer)
            self.register_buffer("steps", torch.arange(4), persistent=False)
            self.gate = nn.Parameter(torch.ones(2))

    class Own(xlmr_torch.XLMRobertaForSequenceClassification):
        encoder_class = Encoder

    Case("XLMRoberta", "Model").build().save_pretrained(tmp_path)
    with pytest.warns(LoadWarning, match="roberta.gate"):
        model = Own.from_pretrained(tmp_path)
    assert torch.equal(model.roberta.steps, torch.arange(4)) and (model.roberta.gate == 1).all()


def test_a_layer_of_the_same_kind_and_another_width(tmp_path: Path) -> None:
    class Wide(xlmr_torch.XLMRobertaForTokenClassification):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.classifier = nn.Linear(2 * config.hidden_size, config.num_labels)
            self.post_init()

    model = randomized(Wide(Case("XLMRoberta", "ForTokenClassification").config()))
    model.save_pretrained(tmp_path)
    assert_same(Wide.from_pretrained(tmp_path), model)


def test_layers_copied_from_a_model_without_values_are_drawn(tmp_path: Path) -> None:
    own = plain(BASE, copied=lambda model, config: copy.deepcopy(model.roberta.encoder.layer[0]))
    Case("XLMRoberta", "Model").build().save_pretrained(tmp_path)
    with pytest.warns(LoadWarning, match="copied.attention.self.query.weight"):
        model = own.from_pretrained(tmp_path)
    for name, parameter in model.copied.named_parameters():
        spread = (
            0.02 if parameter.dim() == 2 else 0.0
        )  # the published rule: projections are drawn, biases and norms are not
        assert not parameter.is_meta and parameter.std().item() == pytest.approx(spread, rel=0.4), name


def test_a_decoder_that_is_tied_no_longer_is_not_lost_in_silence(tmp_path: Path) -> None:
    model = Case("XLMRoberta", "ForMaskedLM").build()
    model.set_output_embeddings(nn.Linear(16, 41))
    with pytest.raises(InputError, match=r"lm_head.decoder.weight is tied to .*set config.tie_word_embeddings = False"):
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    model.config.tie_word_embeddings = False
    model.save_pretrained(tmp_path / "new")
    assert_same(type(model).from_pretrained(tmp_path / "new"), model)
