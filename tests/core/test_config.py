"""Configurations: published defaults, labels, dtypes, and refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core.config_numbers import BASE_DEFAULTS, RELEASED, SHARED_DEFAULTS, XL_DEFAULTS, read
from xlmr_core.config import ACTIVATIONS, AutoConfig, XLMRobertaConfig, XLMRobertaXLConfig
from xlmr_core.errors import ConfigError

# Defaults and sizes


@pytest.mark.parametrize(
    ("config", "expected"),
    [(XLMRobertaConfig(), BASE_DEFAULTS), (XLMRobertaXLConfig(), XL_DEFAULTS)],
    ids=["base", "xl"],
)
def test_the_defaults_are_the_documented_ones(config: XLMRobertaConfig, expected: dict[str, Any]) -> None:
    assert read(config, expected) == expected
    assert read(config, SHARED_DEFAULTS) == SHARED_DEFAULTS
    written = {key: value for key, value in json.loads(config.to_json_string()).items() if key != "model_type"}
    assert written == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            XLMRobertaConfig.base(),
            {
                **RELEASED,
                "hidden_size": 768,
                "num_hidden_layers": 12,
                "num_attention_heads": 12,
                "intermediate_size": 3072,
            },
        ),
        (
            XLMRobertaConfig.large(),
            {
                **RELEASED,
                "hidden_size": 1024,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "intermediate_size": 4096,
            },
        ),
        (XLMRobertaXLConfig.xl(), XL_DEFAULTS),
        (
            XLMRobertaXLConfig.xxl(),
            {
                **XL_DEFAULTS,
                "hidden_size": 4096,
                "num_hidden_layers": 48,
                "num_attention_heads": 32,
                "intermediate_size": 16384,
            },
        ),
    ],
    ids=["base", "large", "xl", "xxl"],
)
def test_the_sizes_are_the_published_ones(config: XLMRobertaConfig, expected: dict[str, Any]) -> None:
    assert read(config, expected) == expected
    assert config.max_tokens == 512


def test_a_size_takes_overrides_and_the_other_family_has_none() -> None:
    assert XLMRobertaConfig.base(vocab_size=99, num_labels=7).vocab_size == 99
    for size in ("base", "large"):
        with pytest.raises(ConfigError, match="has no"):
            getattr(XLMRobertaXLConfig, size)()


def test_positional_arguments_follow_the_published_order() -> None:
    config = XLMRobertaConfig(*BASE_DEFAULTS.values())
    assert read(config, BASE_DEFAULTS) == BASE_DEFAULTS


def test_derived_numbers() -> None:
    config = XLMRobertaConfig(
        hidden_size=48, num_attention_heads=4, max_position_embeddings=70, pruned_heads={"0": [3, 1], "-1": [2]}
    )
    assert (config.head_size, config.max_tokens) == (12, 68)
    assert config.pruned_heads == {0: [1, 3], 11: [2]}
    assert (config.heads_in_layer(0), config.heads_in_layer(1)) == (2, 4)


# Labels


def test_labels_by_number_by_name_and_set_later() -> None:
    three = XLMRobertaConfig(num_labels=3)
    assert three.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert three.label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
    named = XLMRobertaConfig(id2label={"0": "no", "1": "yes"})
    assert (named.num_labels, named.id2label, named.label2id) == (2, {0: "no", 1: "yes"}, {"no": 0, "yes": 1})
    by_label = XLMRobertaConfig(label2id={"no": 0, "yes": 1, "maybe": 2})
    assert by_label.id2label == {0: "no", 1: "yes", 2: "maybe"}
    named.num_labels = 2
    assert named.id2label == {0: "no", 1: "yes"}, "the same number keeps the names"
    named.num_labels = 1
    assert (named.id2label, named.label2id) == ({0: "LABEL_0"}, {"LABEL_0": 0})


@pytest.mark.parametrize("number", [0, -1, 2.0, "3", True, None])
def test_num_labels_must_be_a_positive_integer(number: Any) -> None:
    config = XLMRobertaConfig()
    with pytest.raises(ConfigError, match="num_labels must be a positive integer"):
        config.num_labels = number
    if number is not None:
        with pytest.raises(ConfigError, match="num_labels must be a positive integer"):
            XLMRobertaConfig(num_labels=number)


@pytest.mark.parametrize("build", [XLMRobertaConfig, lambda **values: XLMRobertaConfig.from_dict({}, **values)])
def test_labels_that_disagree_are_refused(build: Any) -> None:
    with pytest.raises(ConfigError, match="num_labels=5 disagrees with id2label of 2 labels"):
        build(num_labels=5, id2label={0: "a", 1: "b"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"id2label": [1, 2]}, 'id2label must be a dictionary such as {0: "no", 1: "yes"}, received [1, 2]'),
        ({"id2label": 2}, "id2label must be a dictionary such as"),
        ({"id2label": "ab", "num_labels": 2}, "id2label must be a dictionary such as"),
        ({"id2label": {"a": "b"}}, "id2label must give each label an integer"),
        ({"id2label": {"0.5": "b"}}, "id2label must give each label an integer"),
        ({"id2label": {0.5: "b"}}, "it has 0.5"),
        ({"id2label": {"0": ["b"]}}, "id2label must name each label by a word, such as"),
        ({"label2id": ["a"]}, 'label2id must be a dictionary such as {"no": 0, "yes": 1}, received [\'a\']'),
        ({"label2id": ["a"], "id2label": {"0": "a"}}, "label2id must be a dictionary"),
        ({"label2id": {"a": "b"}}, "label2id must give each label an integer"),
        ({"pruned_heads": [1]}, "pruned_heads must map layers to lists of heads"),
        ({"pruned_heads": {"a": [1]}}, "pruned_heads must map layers to lists of heads"),
        ({"pruned_heads": {"1": ["x"]}}, "pruned_heads must map layers to lists of heads"),
        ({"pruned_heads": {"1": 1}}, "pruned_heads must map layers to lists of heads"),
    ],
    ids=str,
)
def test_maps_that_are_none_are_refused(values: dict[str, Any], message: str) -> None:
    for build in (XLMRobertaConfig, XLMRobertaConfig.from_dict):
        with pytest.raises(ConfigError, match=re.escape(message)):
            build(**values) if build is XLMRobertaConfig else build(values)
    config = XLMRobertaConfig()
    if "must be a dictionary" in message:
        key = message.split()[0]
        with pytest.raises(ConfigError, match=re.escape(message)):
            config.update({key: values[key]})


def test_numbers_may_be_numpys(tmp_path: Path) -> None:
    config = XLMRobertaConfig(num_labels=np.int64(3), vocab_size=np.int32(100), hidden_dropout_prob=np.float32(0.5))
    config.layer_norm_eps = np.float64(1e-6)
    config.update({"is_decoder": np.bool_(True)})
    assert (config.num_labels, config.vocab_size, config.hidden_dropout_prob) == (3, 100, 0.5)
    config.save_pretrained(tmp_path)
    assert XLMRobertaConfig.from_pretrained(tmp_path) == config and config.is_decoder is True
    with pytest.raises(ConfigError, match="vocab_size must be a positive integer, received -1"):
        XLMRobertaConfig(vocab_size=np.int64(-1))


def test_labels_may_be_numbered_by_numpy() -> None:
    named = XLMRobertaConfig(id2label={np.int64(index): label for index, label in enumerate("ab")})
    assert json.loads(named.to_json_string())["id2label"] == {"0": "a", "1": "b"}


def test_labels_of_a_file_and_of_overrides() -> None:
    file = {"id2label": {"0": "x", "1": "y", "2": "z"}, "label2id": {"x": 0, "y": 1, "z": 2}}
    # Recorded from transformers 4.57.6: a file's labels count for more than the number beside them.
    for key in ("num_labels", "_num_labels"):
        assert XLMRobertaConfig.from_dict({**file, key: 2}).id2label == {0: "x", 1: "y", 2: "z"}
    assert XLMRobertaConfig.from_dict({"_num_labels": 4}).num_labels == 4
    assert XLMRobertaConfig.from_dict(file, num_labels=3).id2label == {0: "x", 1: "y", 2: "z"}
    renumbered = XLMRobertaConfig.from_dict(file, num_labels=4)
    assert renumbered.label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2, "LABEL_3": 3}
    renamed = XLMRobertaConfig.from_dict(file, id2label={0: "no", 1: "yes"})
    assert (renamed.num_labels, renamed.label2id) == (2, {"no": 0, "yes": 1})
    assert XLMRobertaConfig.from_dict(file, label2id={"n": 0}).id2label == {0: "n"}


def test_labels_in_two_steps() -> None:
    """However labels come after a number, their ids are numbers and the two maps say the same."""
    names = {"0": "no", "1": "yes", "2": "maybe"}
    for config in (XLMRobertaConfig(num_labels=3), XLMRobertaConfig(), XLMRobertaConfig(id2label={0: "a", 1: "b"})):
        for change in (
            lambda config: setattr(config, "id2label", names),
            lambda config: config.update({"id2label": names}),
            lambda config: config.update({"num_labels": 3, "id2label": names}),
        ):
            changed = config.copy()
            change(changed)
            assert (changed.num_labels, changed.id2label) == (3, {0: "no", 1: "yes", 2: "maybe"})
            assert changed.label2id == {"no": 0, "yes": 1, "maybe": 2}
            assert XLMRobertaConfig(**changed.to_dict()).to_dict() == changed.to_dict()
            assert XLMRobertaConfig.from_dict(json.loads(changed.to_json_string())) == changed
    own = XLMRobertaConfig(id2label={0: "no", 1: "yes"}, label2id={"NO": 0, "YES": 1})
    own.id2label = {0: "nein", 1: "ja"}
    assert own.label2id == {"NO": 0, "YES": 1}, "ids of other names are the user's"
    with pytest.raises(ConfigError, match="id2label must give each label an integer"):
        own.id2label = {"a": "b"}  # type: ignore[dict-item]


def test_none_asks_for_no_other_labels() -> None:
    file = {"id2label": {"0": "x", "1": "y", "2": "z"}}
    none = {"num_labels": None, "id2label": None, "label2id": None}
    assert XLMRobertaConfig.from_dict(file, **none).id2label == {0: "x", 1: "y", 2: "z"}
    assert XLMRobertaConfig.from_dict(file, **{**none, "num_labels": 2}).num_labels == 2
    assert XLMRobertaConfig.from_dict({"num_labels": 5}, **none).num_labels == 5


def test_the_callers_dictionaries_stay_as_they_are() -> None:
    values = {"id2label": {"0": "a"}, "pruned_heads": {"0": [1]}, "num_labels": 1, "torch_dtype": "float16"}
    values["extra"] = {"list": [1]}
    before = json.dumps(values)
    config = XLMRobertaConfig.from_dict(values, num_labels=3)
    config.extra["list"].append(2)  # type: ignore[attr-defined]
    config.pruned_heads[0].append(2)
    config.id2label[0] = "changed"
    assert json.dumps(values) == before
    assert XLMRobertaConfig().pruned_heads == {}, "defaults are never shared between configurations"


# dtype


class PrintsAsTorch:
    def __repr__(self) -> str:
        return "torch.bfloat16"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("float16", "float16"),
        ("torch.float16", "float16"),
        (PrintsAsTorch(), "bfloat16"),
        (np.dtype("float32"), "float32"),
        (np.float64, "float64"),
        ("auto", "auto"),
        (None, None),
    ],
)
@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_dtype_is_kept_by_name_under_either_key(key: str, given: Any, expected: str | None) -> None:
    config = XLMRobertaConfig(**{key: given})
    assert (config.dtype, config.torch_dtype) == (expected, expected)
    setattr(later := XLMRobertaConfig(), key, given)
    for one in (config, later):
        written = json.loads(one.to_json_string())
        assert written.get("dtype") == expected
        assert "torch_dtype" not in written


def test_the_dtype_of_an_override_wins_over_the_file() -> None:
    assert XLMRobertaConfig.from_dict({"dtype": "float32"}, torch_dtype="float16").dtype == "float16"
    assert XLMRobertaConfig.from_dict({"torch_dtype": "float32"}, dtype="float16").dtype == "float16"
    assert XLMRobertaConfig.from_dict({"torch_dtype": "float32"}).dtype == "float32"


# Refusals


REFUSED: list[tuple[dict[str, Any], str]] = [
    *(
        ({key: value}, f"{key} must be a positive integer, received {value!r}")
        for key in (
            "vocab_size",
            "hidden_size",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
            "type_vocab_size",
        )
        for value in (-1, 1.5, "12", True, None)
    ),
    *(
        ({"num_hidden_layers": value}, f"num_hidden_layers must be 0 or a positive integer, received {value!r}")
        for value in (-1, 1.5, "12", True, None)
    ),
    *(
        ({key: value}, f"{key} must be a token's id, 0 or more, or None, received {value!r}")
        for key in ("bos_token_id", "sep_token_id", "decoder_start_token_id")
        for value in (-5, 1.0, "2", True)
    ),
    *(
        (
            {"eos_token_id": value},
            f"eos_token_id must be a token's id, 0 or more, a list of such, or None, received {value!r}",
        )
        for value in (-5, 1.0, "2", True, [2, -1], [2, "3"], (2,))
    ),
    ({"vocab_size": 0}, "vocab_size must be a positive integer"),
    ({"num_attention_heads": 0}, "num_attention_heads must be a positive integer"),
    *(
        ({key: value}, f"{key} must be a probability")
        for key in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
        for value in (-0.1, 1.1, float("nan"), "0.1", True)
    ),
    ({"hidden_dropout_prob": None}, "hidden_dropout_prob must be a probability"),
    ({"hidden_size": 770}, "hidden_size (770) must be a multiple of num_attention_heads (12)"),
    ({"hidden_act": "swiglu"}, "hidden_act must be one of gelu, relu, silu, gelu_new"),
    ({"hidden_act": dict}, "hidden_act must be a function, received the class dict; pass an instance of it"),
    ({"hidden_act": None}, "hidden_act must be one of"),
    ({"hidden_act": "gleu"}, "received 'gleu'; did you mean 'gelu'?"),
    ({"problem_type": "multilabel_classification"}, "did you mean 'multi_label_classification'?"),
    ({"position_embedding_type": "relativ_key"}, "did you mean 'relative_key'?"),
    (
        {"position_embedding_type": "rotary"},
        "position_embedding_type must be one of absolute, relative_key, relative_key_query",
    ),
    ({"problem_type": "ranking"}, "problem_type must be one of None, regression"),
    ({"pad_token_id": -1}, "pad_token_id must lie in the vocabulary of 30522 ids, received -1"),
    ({"pad_token_id": 30522}, "pad_token_id must lie in the vocabulary"),
    ({"pad_token_id": True}, "pad_token_id must lie in the vocabulary"),
    ({"pad_token_id": None}, "pad_token_id must lie in the vocabulary"),
    ({"max_position_embeddings": 2}, "max_position_embeddings (2) leaves no room for a token"),
    ({"layer_norm_eps": True}, "layer_norm_eps must be positive"),
    ({"layer_norm_eps": 0}, "layer_norm_eps must be positive"),
    ({"layer_norm_eps": float("nan")}, "layer_norm_eps must be positive"),
    ({"layer_norm_eps": "1e-5"}, "layer_norm_eps must be positive"),
    ({"initializer_range": -0.02}, "initializer_range must not be negative"),
    ({"add_cross_attention": True}, "add_cross_attention=True needs is_decoder=True"),
    *(
        (
            {"chunk_size_feed_forward": value},
            f"chunk_size_feed_forward must be 0 (off) or a positive number of tokens, received {value}",
        )
        for value in (-1, 1.5, True)
    ),
    ({"pruned_heads": {12: [0]}}, "pruned_heads names heads [0] of layer 12, which this model does not have"),
    ({"pruned_heads": {0: [12]}}, "pruned_heads names heads [12] of layer 0"),
    ({"pruned_heads": {3: list(range(12))}}, "pruned_heads leaves no attention head in layer 3"),
]


@pytest.mark.parametrize(
    ("values", "message"), REFUSED, ids=lambda value: str(value) if isinstance(value, dict) else ""
)
def test_impossible_values_are_refused_when_read_and_after_they_were_set(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        XLMRobertaConfig.from_dict(values)
    assert isinstance(caught.value, ValueError)
    config = XLMRobertaConfig()
    with pytest.raises(ConfigError, match=re.escape(message)):
        config.update(values)


def test_a_value_by_itself_is_refused_at_once_and_a_pair_when_a_model_is_built() -> None:
    with pytest.raises(ConfigError, match="hidden_act must be one of"):
        XLMRobertaConfig(hidden_act="swiglu")
    config = XLMRobertaConfig(hidden_size=32, vocab_size=1, pruned_heads={-1: [0, 1]})
    with pytest.raises(ConfigError, match="hidden_size"):
        config.validate()
    config.num_attention_heads, config.vocab_size = 4, 100
    config.validate()
    assert config.pruned_heads == {11: [0, 1]}


@pytest.mark.parametrize(
    "values",
    [
        {"num_hidden_layers": 0},
        {"hidden_dropout_prob": 0},
        {"hidden_dropout_prob": 1.0},
        {"classifier_dropout": 0.3},
        {"initializer_range": 0.0},
        {"is_decoder": True, "add_cross_attention": True},
        {"bos_token_id": None},
        {"eos_token_id": [2, 5]},
        {"sep_token_id": 0},
        {"chunk_size_feed_forward": 3},
        {"hidden_act": abs},
        *({"hidden_act": name} for name in ACTIVATIONS),
    ],
    ids=str,
)
def test_odd_but_possible_values_are_taken(values: dict[str, Any]) -> None:
    assert read(XLMRobertaConfig(**values), values) == values


# Changing and copying


def test_is_decoder_can_be_set_after_loading(tmp_path: Path) -> None:
    XLMRobertaConfig().save_pretrained(tmp_path)
    config = XLMRobertaConfig.from_pretrained(tmp_path)
    config.is_decoder = True
    config.validate()
    config.save_pretrained(tmp_path)
    assert XLMRobertaConfig.from_pretrained(tmp_path).is_decoder is True


def test_copies_are_equal_and_independent() -> None:
    config = XLMRobertaXLConfig(num_labels=3, extra=[1])
    twin = config.copy()
    assert twin == config
    assert type(twin) is XLMRobertaXLConfig
    twin.extra.append(2)  # type: ignore[attr-defined]
    twin.id2label[0] = "other"
    assert config.extra == [1]  # type: ignore[attr-defined]
    assert config.id2label[0] == "LABEL_0"
    assert twin != config
    assert config.copy(num_labels=4).num_labels == 4
    assert config != XLMRobertaConfig()
    assert XLMRobertaConfig() != "XLMRobertaConfig"


def test_where_a_config_came_from_is_no_part_of_its_equality(tmp_path: Path) -> None:
    config = XLMRobertaConfig(hidden_size=24)
    config.save_pretrained(tmp_path)
    loaded = XLMRobertaConfig.from_pretrained(tmp_path)
    assert loaded == config
    assert loaded != config.copy(hidden_size=36)
    assert loaded.to_dict() == config.to_dict()
    named = AutoConfig.from_pretrained(tmp_path)
    assert named._name_or_path == named.name_or_path == str(tmp_path)  # which other libraries read
    assert named == config and named.to_dict() == {**config.to_dict(), "_name_or_path": str(tmp_path)}
    assert loaded.get_text_config(decoder=True) is loaded


def test_a_callable_activation_is_used_but_not_written(tmp_path: Path) -> None:
    def double(x: Any) -> Any:
        return 2 * x

    XLMRobertaConfig().save_pretrained(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    config = XLMRobertaConfig(hidden_act=double)
    assert config.copy().hidden_act is double
    assert "double" in repr(config)
    with pytest.raises(ConfigError, match=r"hidden_act is the callable .*double.*set config.hidden_act to one of gelu"):
        config.save_pretrained(tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before
    with pytest.raises(ConfigError, match="cannot be written as JSON"):
        XLMRobertaConfig(extra=object()).save_pretrained(tmp_path / "never made")
    assert not (tmp_path / "never made").exists()


def test_repr_is_the_file() -> None:
    name, _, text = repr(XLMRobertaConfig(num_labels=3)).partition(" ")
    assert name == "XLMRobertaConfig"
    assert json.loads(text)["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}
