"""State dicts: the published keys, no others; and tied parameters that stay tied whatever is done to a module."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tests.torch.models import Case, each_case, each_family
from xlmr_core.config import XLMRobertaConfig, XLMRobertaXLConfig
from xlmr_core.parameters import WORD_EMBEDDINGS, parameters

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "untied": {"tie_word_embeddings": False},
    "relative": {"position_embedding_type": "relative_key_query"},
    "cross": {"is_decoder": True, "add_cross_attention": True},
    "pruned": {"pruned_heads": {1: [0]}},
}


@each_case
@pytest.mark.parametrize("variant", VARIANTS)
def test_keys_and_shapes_are_the_parameter_table(case: Case, variant: str) -> None:
    config = case.config(**VARIANTS[variant])
    expected = {name: row.shape for name, row in parameters(config, case.head).items()}
    model = case.model_class(config)
    assert {name: tuple(x.shape) for name, x in model.state_dict().items()} == expected
    assert list(model.state_dict()) == list(dict.fromkeys(model.state_dict()))
    assert not list(model.named_buffers())
    with torch.device("meta"):
        on_meta = case.model_class(config)
    assert {name: tuple(x.shape) for name, x in on_meta.state_dict().items()} == expected
    assert all(x.is_meta for x in on_meta.parameters())


@each_family
@pytest.mark.parametrize("pooler", [True, False])
def test_pooler_of_the_bare_model(family: str, pooler: bool) -> None:
    case = Case(family, "Model")
    model = case.model_class(case.config(), add_pooling_layer=pooler)
    assert set(model.state_dict()) == set(parameters(case.config(), "Model", pooler=pooler))
    output = model(**case.inputs("right"))
    assert ("pooler_output" in output) == pooler


# The names a user's script has in it, written out.
PUBLISHED = {
    "XLMRoberta": [
        "roberta.embeddings.word_embeddings.weight",
        "roberta.embeddings.LayerNorm.bias",
        "roberta.encoder.layer.0.attention.self.query.weight",
        "roberta.encoder.layer.1.attention.output.LayerNorm.weight",
        "roberta.encoder.layer.1.output.LayerNorm.weight",
        "lm_head.bias",
        "lm_head.dense.weight",
        "lm_head.layer_norm.bias",
        "lm_head.decoder.weight",
        "lm_head.decoder.bias",
    ],
    "XLMRobertaXL": [
        "roberta.embeddings.position_embeddings.weight",
        "roberta.encoder.layer.0.attention.self_attn_layer_norm.weight",
        "roberta.encoder.layer.1.attention.output.dense.weight",
        "roberta.encoder.layer.1.LayerNorm.bias",
        "roberta.encoder.LayerNorm.weight",
        "lm_head.decoder.bias",
    ],
}


@each_family
def test_published_names(family: str) -> None:
    assert set(PUBLISHED[family]) <= set(Case(family, "ForMaskedLM").build().state_dict())


@each_case
def test_fresh_values(case: Case) -> None:
    torch.manual_seed(0)
    model = case.model_class(case.config(vocab_size=500, hidden_size=64, initializer_range=0.1))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "orm" in name:
            assert (parameter == 1).all(), name
        elif "word" in name or "position" in name:
            assert not parameter[1].any(), f"{name}: the padding row"
        elif parameter.numel() > 500:
            assert abs(parameter.std().item() - 0.1) < 0.02, name
            assert abs(parameter.mean().item()) < 0.02, name
    torch.manual_seed(0)
    again = case.model_class(case.config(vocab_size=500, hidden_size=64, initializer_range=0.1))
    assert all(torch.equal(x, y) for x, y in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("config", [XLMRobertaConfig.base(), XLMRobertaConfig.large(), XLMRobertaXLConfig.xl()])
def test_number_of_parameters_of_the_released_sizes(config: XLMRobertaConfig) -> None:
    case = Case("XLMRobertaXL" if isinstance(config, XLMRobertaXLConfig) else "XLMRoberta", "ForMaskedLM")
    with torch.device("meta"):
        model = case.model_class(config)
    # As published for xlm-roberta-base and xlm-roberta-large; XL counted by hand.
    assert model.num_parameters() == {768: 278_295_186, 1024: 560_142_482, 2560: 3_482_741_760}[config.hidden_size]


# ---- Tying


def is_tied(model: Any) -> bool:
    decoder, embeddings = model.lm_head.decoder, model.roberta.embeddings.word_embeddings
    assert model.lm_head.bias is decoder.bias, "the two names of the bias"
    return decoder.weight is embeddings.weight


def through_pickle(model: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(model))


def through_file(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def loading_itself(model: nn.Module, **how: Any) -> nn.Module:
    model.load_state_dict({name: x.clone() for name, x in model.state_dict().items()}, **how)
    return model


def after_a_step(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    return model


TREATMENTS: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": through_pickle,
    "torch.save": through_file,
    "half": lambda model: model.half(),
    "to bfloat16": lambda model: model.to(torch.bfloat16),
    "to cpu": lambda model: model.to("cpu"),
    "to meta": lambda model: model.to("meta"),
    "to_empty": lambda model: model.to_empty(device="meta").to_empty(device="cpu"),
    "double": lambda model: model.double(),
    "share_memory": lambda model: model.share_memory(),
    "load_state_dict": loading_itself,
    "load_state_dict, assign": lambda model: loading_itself(model, assign=True),
    "inner load_state_dict": lambda model: (loading_itself(model.roberta), model)[1],
    "freeze": lambda model: model.requires_grad_(False),
    "step": after_a_step,
}


@each_family
@pytest.mark.parametrize("head", ["ForMaskedLM", "ForCausalLM"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("treatment", TREATMENTS)
def test_tying_survives(family: str, head: str, tied: bool, treatment: str) -> None:
    model = Case(family, head).build(tie_word_embeddings=tied)
    count = model.num_parameters()
    assert is_tied(model) == tied
    treated = TREATMENTS[treatment](model)
    assert is_tied(treated) == tied
    assert treated.num_parameters() == count
    assert treated.roberta.config is treated.config


@each_family
def test_a_copy_is_independent(family: str) -> None:
    case = Case(family, "ForMaskedLM")
    model = case.build()
    expected = model(**case.inputs("right")).logits
    other = copy.deepcopy(model)
    assert torch.equal(other(**case.inputs("right")).logits, expected)
    with torch.no_grad():
        other.lm_head.bias.add_(1)
    other.config.is_decoder = True
    assert torch.equal(model(**case.inputs("right")).logits, expected)


@each_family
def test_conversion_in_place_of_parameters(family: str) -> None:
    """The setting by which every conversion makes new parameters."""
    model = Case(family, "ForMaskedLM").build()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        assert is_tied(model.to(torch.bfloat16))
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)


@each_family
def test_a_state_dict_with_and_without_the_decoder(family: str) -> None:
    """A file has one name of a tied pair, and older releases wrote buffers: neither is a mistake, everything else is,
    as in any module.
    """
    case = Case(family, "ForMaskedLM")
    published = case.build(seed=1).state_dict()
    model = case.build(seed=2)
    assert str(model.load_state_dict(published, strict=True)) == "<All keys matched successfully>"
    expected = model(**case.inputs("right")).logits
    without = {name: x for name, x in published.items() if not name.startswith("lm_head.decoder.")}
    others = {name: x for name, x in published.items() if name not in ("lm_head.bias", WORD_EMBEDDINGS)}
    old = {**without, "roberta.embeddings.position_ids": torch.arange(24)[None]}
    for values in (without, others, old):
        model = case.build(seed=2)
        names = list(values)
        assert str(model.load_state_dict(values, strict=True)) == "<All keys matched successfully>"
        assert list(values) == names and is_tied(model)
        assert torch.equal(model(**case.inputs("right")).logits, expected)
    del without["lm_head.dense.bias"]
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"lm_head.dense.bias\""):
        case.build().load_state_dict(without)
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\) in state_dict: \"position_ids\""):
        case.build().load_state_dict({**published, "position_ids": torch.ones(1)})


@each_case
def test_materialising_from_meta(case: Case) -> None:
    """The recipe of sharded training: build without memory, assign a state dict."""
    source = case.build()
    with torch.device("meta"):
        model = case.model_class(case.config())
    model.load_state_dict(source.state_dict(), assign=True)
    inputs = case.inputs("right")
    expected, actual = source(**inputs), model.eval()(**inputs)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)
    assert model.num_parameters() == source.num_parameters()


@each_family
def test_input_and_output_embeddings(family: str) -> None:
    model = Case(family, "ForMaskedLM").build()
    embeddings, decoder = model.get_input_embeddings(), model.get_output_embeddings()
    assert embeddings is model.roberta.embeddings.word_embeddings is model.roberta.get_input_embeddings()
    assert decoder is model.lm_head.decoder
    assert Case(family, "Model").build().get_output_embeddings() is None
    replacement = nn.Linear(16, 41)
    model.set_output_embeddings(replacement)
    assert model.lm_head.decoder is replacement and model.lm_head.bias is replacement.bias
    table = nn.Embedding(41, 16, padding_idx=1)
    model.set_input_embeddings(table)
    assert model.get_input_embeddings() is table
    model.tie_weights()
    assert is_tied(model) and model.lm_head.decoder.weight is table.weight
    assert model.base_model is model.roberta and model.roberta.base_model is model.roberta


@each_case
def test_counting(case: Case) -> None:
    model = case.build()
    total = sum(p.numel() for p in model.parameters())
    assert model.num_parameters() == total
    tables = (41 + 24 + 2) * 16
    assert model.num_parameters(exclude_embeddings=True) == total - tables
    model.base_model.embeddings.requires_grad_(False)
    norm = 0 if case.family == "XLMRobertaXL" else 32
    assert model.num_parameters(only_trainable=True) == total - tables - norm
    assert model.num_parameters(only_trainable=True, exclude_embeddings=True) == total - tables - norm
    assert model.get_memory_footprint() == 4 * total
    assert (model.dtype, model.device) == (torch.float32, torch.device("cpu"))
    assert model.half().get_memory_footprint() == 2 * total and model.dtype is torch.float16
