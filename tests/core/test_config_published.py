"""The published names of configurations, each there, or not there for a reason; and classes of a user's own."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from xlmr_core.config import CONFIG_CLASSES, AutoConfig, XLMRobertaConfig, XLMRobertaXLConfig
from xlmr_core.config_base import PretrainedConfig
from xlmr_core.errors import ConfigError, TokenizerError
from xlmr_core.pretrained import REGISTERED as MODELS
from xlmr_core.pretrained import check_auto_config, check_config, dtype_to_build, register_model, registered_model
from xlmr_core.tokenization import AutoTokenizer, XLMRobertaTokenizer, XLMRobertaTokenizerFast
from xlmr_core.tokenization.auto import REGISTERED as TOKENIZERS

# ---- Public names of the configurations of transformers 4.57.6 and 5.24

THERE = "there"
ONE_PART = "of models of several parts; this one is a single encoder"
ITS_OWN = "how the original library writes files, which is not ours"
GENERATION = "of generation, which version 5 took out of configurations; kept where a file has it"
CODE = "no code is read from a checkpoint"
PARALLEL = "plans of that library's own sharding; here models are sharded with the framework's own means"
METHODS = {
    **dict.fromkeys(
        (
            *("from_pretrained", "get_config_dict", "from_dict", "from_json_file", "save_pretrained", "push_to_hub"),
            *("to_dict", "to_diff_dict", "to_json_string", "to_json_file", "update", "update_from_string"),
            *("get_text_config", "register_for_auto_class"),
        ),
        THERE,
    ),
    **dict.fromkeys(("from_text_vision_configs", "from_text_audio_configs", "get_mtp_config"), ONE_PART),
    **dict.fromkeys(("dict_dtype_to_str", "default_config_fields"), ITS_OWN),
    **dict.fromkeys(("is_remote_code", "is_custom_code"), CODE),
    **dict.fromkeys(
        ("validate_architecture", "validate_token_ids", "validate_layer_type", "validate_output_attentions"),
        "checks of that library; ours is validate()",
    ),
}
ATTRIBUTES = {
    **dict.fromkeys(
        (
            *("model_type", "base_config_key", "sub_configs", "has_no_defaults_at_init", "attribute_map"),
            *("name_or_path", "_name_or_path", "num_labels", "id2label", "label2id", "use_return_dict", "return_dict"),
            *("output_attentions", "output_hidden_states", "torchscript", "dtype", "torch_dtype", "pruned_heads"),
            *("tie_word_embeddings", "chunk_size_feed_forward", "is_encoder_decoder", "is_decoder", "architectures"),
            *("cross_attention_hidden_size", "add_cross_attention", "tie_encoder_decoder", "finetuning_task"),
            *("task_specific_params", "problem_type", "tokenizer_class", "prefix", "bos_token_id", "pad_token_id"),
            *("eos_token_id", "sep_token_id", "decoder_start_token_id", "transformers_version", "tf_legacy_loss"),
            *("use_bfloat16", "_attn_implementation"),
            *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
            *("hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob", "max_position_embeddings"),
            *("type_vocab_size", "initializer_range", "layer_norm_eps", "position_embedding_type", "use_cache"),
            "classifier_dropout",
        ),
        THERE,
    ),
    **dict.fromkeys(("max_length", "num_beams", "do_sample", "temperature", "top_k", "top_p"), GENERATION),
    **dict.fromkeys(("base_model_tp_plan", "base_model_pp_plan", "base_model_ep_plan"), PARALLEL),
    **dict.fromkeys(("sub_configs_defaults", "per_layer_config", "rope_scaling"), ONE_PART),
}


@pytest.mark.parametrize("config", [XLMRobertaConfig(), XLMRobertaXLConfig()], ids=["base", "XL"])
def test_published_names_are_there_or_have_a_reason(config: XLMRobertaConfig) -> None:
    for name, settled in {**METHODS, **ATTRIBUTES}.items():
        assert hasattr(config, name) is (settled == THERE), name
    assert all(callable(getattr(config, name)) for name, settled in METHODS.items() if settled == THERE)
    values = config.to_dict()
    assert list(config) == list(values)
    assert "hidden_size" in config and "hiden_size" not in config


def test_values_that_nobody_reads_are_read_as_published_and_no_part_of_a_file() -> None:
    config = XLMRobertaConfig()
    assert (config.torchscript, config.prefix, config.transformers_version) == (False, None, None)
    assert not {"torchscript", "prefix", "transformers_version"} & set(config.to_dict())
    config.update({"prefix": "query: "})
    assert config.prefix == config.copy().prefix == "query: "
    assert json.loads(config.to_json_string())["prefix"] == "query: "


def test_the_base_class_stands_alone() -> None:
    """As scripts use it, to see whether labels were named."""
    base = PretrainedConfig(num_labels=3)
    assert base.label2id == XLMRobertaConfig(num_labels=3).label2id
    assert "LABEL_2" in repr(base)


def test_values_from_a_text() -> None:
    config = XLMRobertaConfig()
    config.update_from_string("num_hidden_layers=2, hidden_act=relu,use_cache=false,layer_norm_eps=1e-5")
    assert (config.num_hidden_layers, config.hidden_act, config.use_cache, config.layer_norm_eps) == (
        *(2, "relu", False, 1e-5),
    )
    for text, message in {
        "hidden_sice=3": "did you mean 'hidden_size'?",
        "hidden_size": "write key=value",
        "hidden_size=a": "hidden_size must be an int, received 'a'; it is 768 now",
        "use_cache=perhaps": "use_cache must be a bool, received 'perhaps'",
        "classifier_dropout=0.1": "classifier_dropout is None and no number",
        "hidden_size=7": "must be a multiple of num_attention_heads",
    }.items():
        with pytest.raises(ConfigError, match=message.replace("?", "[?]")):
            config.copy().update_from_string(text)


def test_code_is_not_saved() -> None:
    with pytest.raises(ConfigError, match=r"call AutoConfig.register\('xlm-roberta', XLMRobertaConfig\)"):
        XLMRobertaConfig.register_for_auto_class()


# ---- What is no configuration


class Foreign:
    """A configuration of another library."""

    model_type = "xlm-roberta"

    def to_dict(self) -> dict[str, Any]:
        return XLMRobertaConfig().to_dict()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            "xlmr-mini",
            r"expects an XLMRobertaConfig, received the name 'xlmr-mini'; .*Model.from_pretrained\('xlmr-mini'\)",
        ),
        (Path("a"), r"received the name 'a'"),
        ({}, r"received a dict; build one with XLMRobertaConfig.from_dict\(...\)"),
        (None, r"received None; build one with XLMRobertaConfig\(...\)"),
        (XLMRobertaConfig, r"received the class XLMRobertaConfig; build one"),
        (Foreign(), r"received Foreign of tests; build one with XLMRobertaConfig.from_dict\(config.to_dict\(\)\)"),
        (3, r"received an int; build one"),
    ],
    ids=str,
)
def test_what_is_no_configuration_is_refused_with_the_way_to_one(config: Any, message: str) -> None:
    class Model:
        pass

    with pytest.raises(ConfigError, match=f"Model {message}" if message.startswith("expects") else message):
        check_config(Model, XLMRobertaConfig, config)
    with pytest.raises(ConfigError, match=r"Model.from_config\(\) expects an XLMRobertaConfig, received"):
        check_auto_config(Model, config)


@pytest.mark.parametrize(
    ("wanted", "config"), [(XLMRobertaConfig, XLMRobertaXLConfig), (XLMRobertaXLConfig, XLMRobertaConfig)]
)
def test_the_other_family_is_refused(wanted: Any, config: Any) -> None:
    with pytest.raises(
        ConfigError, match=f"expects an {wanted.__name__}, received {config.__name__} .*use the class of"
    ):
        check_config(int, wanted, config())


@pytest.mark.parametrize("kind", [XLMRobertaConfig, AutoConfig])
@pytest.mark.parametrize(
    ("received", "message"),
    [
        (XLMRobertaConfig(), "received an XLMRobertaConfig; pass it as config="),
        ({}, "received a dict"),
        (None, "a NoneType"),
    ],
)
def test_from_pretrained_expects_a_name(kind: Any, received: Any, message: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"{kind.__name__}.from_pretrained\(\) expects a name or folder, .*{message}"
    ):
        kind.from_pretrained(received)


@pytest.mark.parametrize("kind", [XLMRobertaConfig, XLMRobertaXLConfig])
def test_a_constructor_called_with_a_name_says_what_reads_it(kind: Any) -> None:
    for name in ("xlmr-mini", Path("xlmr-mini")):
        with pytest.raises(ConfigError, match=rf"{kind.__name__} expects numbers, .*{kind.__name__}.from_pretrained"):
            kind(name)
    with pytest.raises(ConfigError, match="AutoConfig is not built itself; use AutoConfig.from_pretrained"):
        AutoConfig("xlmr-mini")
    with pytest.raises(ConfigError, match=r"from_dict\(\) expects a dictionary, received a str"):
        kind.from_dict("xlmr-mini")


@pytest.mark.parametrize(
    ("asked", "config", "dtype"),
    [
        (None, {}, None),
        ("auto", {}, None),
        (None, {"dtype": "bfloat16"}, "bfloat16"),
        ("auto", {"torch_dtype": "float16"}, "float16"),
        ("float32", {"dtype": "bfloat16"}, "float32"),
        (None, {"dtype": "auto"}, None),
    ],
)
def test_a_model_of_a_configuration_has_its_dtype(asked: Any, config: dict[str, Any], dtype: Any) -> None:
    assert dtype_to_build(asked, XLMRobertaConfig(**config)) == dtype


# ---- Classes of a user's own


class Own(XLMRobertaConfig):
    model_type = "own-xlmr"

    def __init__(self, extra: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.extra = extra


class Model:
    config_class: Any = Own


class OwnModel(Model):
    pass


class OwnFast(XLMRobertaTokenizerFast):
    pass


class OwnSlow(XLMRobertaTokenizer):
    pass


@pytest.fixture
def registries() -> Iterator[None]:
    """The tables of classes, which are as before when a test has written in them."""
    tables: tuple[dict[Any, Any], ...] = (CONFIG_CLASSES, MODELS, TOKENIZERS)
    before = [dict(table) for table in tables]
    yield
    for table, content in zip(tables, before, strict=True):
        table.clear()
        table.update(content)


@pytest.mark.usefixtures("registries")
def test_a_configuration_of_ones_own(tmp_path: Path) -> None:
    AutoConfig.register("own-xlmr", Own)
    Own(extra=5, hidden_size=24).save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path, num_labels=3)
    assert type(config) is Own and (config.extra, config.hidden_size, config.num_labels) == (5, 24, 3)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "own-xlmr"
    assert type(AutoConfig.for_model("own-xlmr", extra=2)) is Own
    assert AutoConfig.from_pretrained(tmp_path, extra=6).extra == 6  # type: ignore[attr-defined]
    check_config(Model, XLMRobertaConfig, config)  # of the published family
    published = Own.from_pretrained("xlmr-mini")
    assert (published.model_type, published.extra) == ("own-xlmr", 1), "what is read becomes its own"
    with pytest.raises(ConfigError, match="received 'own-xlmr'; load it with Own and its models"):
        XLMRobertaConfig.from_pretrained(tmp_path)


@pytest.mark.usefixtures("registries")
def test_a_configuration_that_cannot_be_registered() -> None:
    for wrong in (PretrainedConfig, dict, "Own", Own()):
        with pytest.raises(ConfigError, match="expects a class derived from XLMRobertaConfig or XLMRobertaXLConfig"):
            AutoConfig.register("own-xlmr", wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Own has model_type 'own-xlmr', received 'other'; register it under its own"):
        AutoConfig.register("other", Own)
    with pytest.raises(ConfigError, match=r"'xlm-roberta' belongs to XLMRobertaConfig; .*exist_ok=True"):
        AutoConfig.register("xlm-roberta", XLMRobertaConfig)
    AutoConfig.register("own-xlmr", Own)
    with pytest.raises(ConfigError, match="belongs to Own"):
        AutoConfig.register("own-xlmr", Own)
    AutoConfig.register("own-xlmr", Own, exist_ok=True)


@pytest.mark.usefixtures("registries")
def test_models_of_ones_own() -> None:
    class Auto:
        pass

    class OtherAuto:
        pass

    register_model(Auto, Own, OwnModel, Model, exist_ok=False)
    assert registered_model(Auto, Own()) is OwnModel
    assert registered_model(OtherAuto, Own()) is None and registered_model(Auto, XLMRobertaConfig()) is None
    for config_class, model_class, message in (
        (Own, OwnModel, "Auto has a model for Own; register a configuration of your own, or pass exist_ok=True"),
        (OwnModel, Own, "Auto.register expects a class derived from XLMRobertaConfig, received OwnModel"),
        (Own, dict, "Auto.register expects a class derived from Model, received dict"),
        (XLMRobertaXLConfig, OwnModel, "OwnModel has config_class Own, received XLMRobertaXLConfig; set config_class"),
    ):
        with pytest.raises(ConfigError, match=message):
            register_model(Auto, config_class, model_class, Model, exist_ok=False)
    register_model(Auto, Own, OwnModel, Model, exist_ok=True)


@pytest.mark.usefixtures("registries")
def test_tokenizers_of_ones_own(tmp_path: Path) -> None:
    AutoConfig.register("own-xlmr", Own)
    Own().save_pretrained(tmp_path)
    XLMRobertaTokenizerFast.from_pretrained("xlmr-mini").save_pretrained(tmp_path)
    AutoTokenizer.register(Own, slow_tokenizer_class=OwnSlow)
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is OwnSlow, "the one that there is"
    AutoTokenizer.register(Own, fast_tokenizer_class=OwnFast)
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is OwnFast
    assert type(AutoTokenizer.from_pretrained(tmp_path, use_fast=False)) is OwnSlow
    assert type(AutoTokenizer.from_pretrained("xlmr-mini")) is XLMRobertaTokenizerFast
    assert type(AutoTokenizer.from_pretrained("xlmr-mini", config=Own())) is OwnFast
    for arguments, message in (
        ({"slow_tokenizer_class": OwnFast}, "derived from XLMRobertaTokenizer, received OwnFast"),
        ({"fast_tokenizer_class": OwnSlow}, "derived from XLMRobertaTokenizerFast, received OwnSlow"),
        ({"tokenizer_class": dict}, "received dict"),
        ({}, "expects a class of tokenizers, received none"),
        ({"tokenizer_class": OwnFast}, "AutoTokenizer has tokenizers for Own"),
    ):
        with pytest.raises(TokenizerError, match=message):
            AutoTokenizer.register(Own, **arguments)
    with pytest.raises(TokenizerError, match="AutoTokenizer has tokenizers for XLMRobertaConfig"):
        AutoTokenizer.register(XLMRobertaConfig, OwnFast)
    AutoTokenizer.register(Own, OwnFast, exist_ok=True)
    AutoTokenizer.register(Own, OwnSlow, OwnFast, exist_ok=True)  # by position as in version 4: slow, fast


# Signatures of transformers 4.57.6 (AutoTokenizer: 5.24, whose second argument is the first's older two in one).
REGISTER = {
    AutoConfig: "model_type config exist_ok",
    AutoTokenizer: "config_class tokenizer_class slow_tokenizer_class fast_tokenizer_class exist_ok",
}


@pytest.mark.parametrize("kind", REGISTER)
def test_register_is_called_as_published(kind: Any) -> None:
    assert " ".join(inspect.signature(kind.register).parameters) == REGISTER[kind]
