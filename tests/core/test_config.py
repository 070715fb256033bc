"""Configurations: published defaults, files of every writer, and refusals."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlmr_core.config import ACTIVATIONS, AutoConfig, XLMRobertaConfig, XLMRobertaXLConfig, check_known
from xlmr_core.errors import CheckpointError, ConfigError, InputError, ModelNotFoundError

# The documented defaults of the original library, literally.
BASE_DEFAULTS = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "position_embedding_type": "absolute",
    "use_cache": True,
    "classifier_dropout": None,
}
XL_DEFAULTS = {
    **BASE_DEFAULTS,
    "vocab_size": 250880,
    "hidden_size": 2560,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "intermediate_size": 10240,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-05,
}
SHARED_DEFAULTS = {
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
    "output_attentions": False,
    "output_hidden_states": False,
    "return_dict": True,
    "use_return_dict": True,
    "chunk_size_feed_forward": 0,
    "pruned_heads": {},
    "problem_type": None,
    "num_labels": 2,
    "id2label": {0: "LABEL_0", 1: "LABEL_1"},
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "architectures": None,
    "dtype": None,
    "torch_dtype": None,
    "name_or_path": "",
}
RELEASED = {"vocab_size": 250002, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-05}


def read(config: XLMRobertaConfig, keys: Any) -> dict[str, Any]:
    return {key: getattr(config, key) for key in keys}


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
        hidden_size=48, num_attention_heads=4, max_position_embeddings=70, pruned_heads={"0": [3, 1]}
    )
    assert (config.head_size, config.max_tokens) == (12, 68)
    assert config.pruned_heads == {0: [1, 3]}
    assert (config.heads_in_layer(0), config.heads_in_layer(1)) == (2, 4)


# Files


def fixture_configs(shared: Path) -> list[Path]:
    return [
        path
        for path in sorted((shared / "fixtures").glob("**/config.json"))
        if "model_type" in json.loads(path.read_text())
    ]


def test_every_recorded_config_survives_a_round_trip(shared: Path, tmp_path: Path) -> None:
    paths = fixture_configs(shared)
    assert len(paths) > 40
    for path in paths:
        original = json.loads(path.read_text())
        config = AutoConfig.from_pretrained(path.parent)
        config.save_pretrained(tmp_path)
        written = json.loads((tmp_path / "config.json").read_text())
        if "torch_dtype" in original:
            original["dtype"] = original.pop("torch_dtype")
        for key, value in original.items():
            if key in written:
                assert written[key] == value, (path, key)
            elif key == "id2label":
                assert value == {"0": "LABEL_0", "1": "LABEL_1"}, path
            elif key == "label2id":
                assert value == {"LABEL_0": 0, "LABEL_1": 1}, path
            elif key in SHARED_DEFAULTS:
                assert value == SHARED_DEFAULTS[key], (path, key)
            else:
                assert value is None, (path, key)
        again = AutoConfig.from_pretrained(tmp_path)
        assert again == config
        assert type(again) is type(config)
        assert again.to_json_string() == config.to_json_string()


# A file of transformers 2.x (2019): no model_type, keys that later versions dropped, bools as 0 and 1.
OLD_FILE = {
    "architectures": ["XLMRobertaForMaskedLM"],
    "attention_probs_dropout_prob": 0.1,
    "bos_token_id": 0,
    "do_sample": False,
    "eos_token_ids": 0,
    "finetuning_task": None,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "is_decoder": False,
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "layer_norm_eps": 1e-05,
    "length_penalty": 1.0,
    "max_length": 20,
    "max_position_embeddings": 514,
    "num_attention_heads": 12,
    "num_beams": 1,
    "num_hidden_layers": 12,
    "num_labels": 2,
    "output_attentions": False,
    "output_hidden_states": False,
    "output_past": True,
    "pruned_heads": {},
    "torchscript": False,
    "type_vocab_size": 1,
    "use_bfloat16": False,
    "vocab_size": 250002,
}


def test_a_file_older_than_model_type_reads_by_its_architecture(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(OLD_FILE))
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config) is XLMRobertaConfig
    assert read(config, BASE_DEFAULTS) == {**BASE_DEFAULTS, **RELEASED}
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["XLMRobertaXLModel"]}))
    assert type(AutoConfig.from_pretrained(tmp_path)) is XLMRobertaXLConfig


UNKNOWN = {
    "adapters": {"a": [1, {"b": None}]},
    "my_key": "ü",
    "transformers_version": "4.2",
    "max_tokens": 9,
    "use_return_dict": 0,
}


def test_unknown_keys_survive_a_round_trip(tmp_path: Path) -> None:
    config = XLMRobertaConfig.from_dict({**UNKNOWN, "hidden_size": 24})
    assert config.adapters == UNKNOWN["adapters"]  # type: ignore[attr-defined]
    config.save_pretrained(tmp_path / "new" / "folder")
    written = json.loads((tmp_path / "new" / "folder" / "config.json").read_text(encoding="utf-8"))
    assert {key: written[key] for key in UNKNOWN} == UNKNOWN
    again = XLMRobertaConfig.from_pretrained(tmp_path / "new" / "folder")
    assert {key: again.to_dict()[key] for key in UNKNOWN} == UNKNOWN
    assert again.max_tokens == 510, "a key of the file must not replace what is computed"


# Names of methods, properties, class attributes, and of what the class needs for itself.
COLLIDING: dict[str, Any] = {
    "copy": 1,
    "validate": [2],
    "to_dict": 5,
    "from_dict": None,
    "head_size": "x",
    "accepted_model_types": {"a": 1},
    "self": 3,
    "__class__": 4,
    "__dict__": {},
    "_set_aside": 6,
    "_keep": 7,
    "config_dict": 8,
    "kwargs": 9,
}


@pytest.mark.parametrize("key", COLLIDING)
@pytest.mark.parametrize("config_class", [XLMRobertaConfig, XLMRobertaXLConfig])
def test_a_key_with_the_name_of_a_method_hides_nothing_and_is_kept(
    config_class: type[XLMRobertaConfig], key: str, tmp_path: Path
) -> None:
    there = {"model_type": config_class.model_type, "mine": [1], key: COLLIDING[key]}
    (tmp_path / "config.json").write_text(json.dumps(there))
    loaded = AutoConfig.from_pretrained(tmp_path)
    built = config_class(**{"mine": [1], key: COLLIDING[key]})
    updated = config_class(mine=[1])
    updated.update({key: COLLIDING[key]})
    if key == "_set_aside":
        updated = built  # only a file can bring it
    for config in (loaded, built, updated):
        twins = (config, config.copy(), copy.copy(config), copy.deepcopy(config), pickle.loads(pickle.dumps(config)))
        for twin in twins:
            assert type(twin) is config_class
            assert twin == loaded
            twin.validate()
            assert twin.head_size == twin.hidden_size // twin.num_attention_heads
            assert {name: twin.to_dict()[name] for name in there} == there
            assert json.loads(twin.to_json_string()).items() >= there.items()
            assert not {"_set_aside"} & (twin.to_dict().keys() - there.keys())
            assert twin.mine == [1]  # type: ignore[attr-defined]
            assert hasattr(twin, "mine")
            assert not hasattr(twin, "other")
    changed = AutoConfig.from_pretrained(tmp_path, mine=2, **{key: "passed"}) if key not in NOT_PASSED else loaded
    assert changed.to_dict()[key] == ("passed" if key not in NOT_PASSED else COLLIDING[key])


NOT_PASSED = ("self", "config_dict")  # no argument of a function can have these names


def test_unknown_attributes_can_be_set_read_and_deleted() -> None:
    config = XLMRobertaConfig(mine=1)
    config.mine, config.later = 2, 3  # type: ignore[attr-defined]
    assert {"mine": 2, "later": 3}.items() <= json.loads(config.to_json_string()).items()
    del config.mine  # type: ignore[attr-defined]
    assert "mine" not in config.to_dict()
    with pytest.raises(AttributeError, match="'XLMRobertaConfig' object has no attribute 'mine'"):
        _ = config.mine  # type: ignore[attr-defined]


# Arguments that name no value


WITH_UNKNOWN: list[tuple[dict[str, Any], str, str]] = [
    ({"num_lables": 3}, "num_lables", "did you mean 'num_labels'?"),
    ({"hidden_size": 24, "outputattentions": True}, "outputattentions", "did you mean 'output_attentions'?"),
    ({"torch_dtyp": "float16"}, "torch_dtyp", "did you mean 'torch_dtype'?"),
    ({"my_kye": 1}, "my_kye", "did you mean 'my_key'?"),
    ({"zzzzzz": 1}, "zzzzzz", "check the spelling"),
    ({"max_tokens": 5}, "max_tokens", ""),
    ({"to_dict": 5}, "to_dict", ""),
]


@pytest.mark.parametrize(("passed", "unknown", "remedy"), WITH_UNKNOWN, ids=lambda value: str(value))
def test_an_argument_that_names_no_value_is_refused(
    passed: dict[str, Any], unknown: str, remedy: str, tmp_path: Path
) -> None:
    XLMRobertaConfig(my_key=7).save_pretrained(tmp_path)
    original = XLMRobertaConfig.from_pretrained(tmp_path)
    message = f"XLMRobertaConfig does not know the argument '{unknown}'; {remedy}"
    for build in (
        lambda **values: AutoConfig.from_pretrained(tmp_path, **values),
        lambda **values: XLMRobertaConfig.from_pretrained(tmp_path, **values),
        lambda **values: XLMRobertaConfig.from_pretrained(tmp_path, return_unused_kwargs=False, **values),
        lambda **values: XLMRobertaConfig.from_json_file(tmp_path / "config.json", **values),
        lambda **values: XLMRobertaConfig.from_dict({"my_key": 1}, **values),
        original.copy,
    ):
        with pytest.raises(TypeError, match=re.escape(message)):
            build(**passed)
    with pytest.raises(TypeError, match=re.escape(f"Model.load() does not know the argument '{unknown}'; {remedy}")):
        check_known(original, passed, "Model.load()")
    check_known(original, ["my_key", "num_labels", "torch_dtype", "hidden_size", "name_or_path"], "Model.load()")


# Recorded from transformers 4.57.6: what is known is applied, what is not comes back.
def test_unused_arguments_come_back_when_asked_for(tmp_path: Path) -> None:
    XLMRobertaConfig(my_key=7).save_pretrained(tmp_path)
    passed: dict[str, Any] = {"foo": 1, "my_key": 8, "hidden_size": 24, "num_labels": 3, "local_files_only": True}
    values, left = XLMRobertaConfig.get_config_dict(tmp_path, return_unused_kwargs=True, **passed)
    assert left == {"foo": 1, "my_key": 8, "hidden_size": 24, "num_labels": 3, "return_unused_kwargs": True}
    for config, unused in (
        AutoConfig.from_pretrained(tmp_path, return_unused_kwargs=True, **passed),
        XLMRobertaConfig.from_pretrained(tmp_path, return_unused_kwargs=True, **passed),
        XLMRobertaConfig.from_dict(values, **left),
    ):
        assert unused == {"foo": 1}
        assert (config.hidden_size, config.num_labels, config.my_key) == (24, 3, 8)
        assert not {"foo", "return_unused_kwargs"} & config.to_dict().keys()
    assert AutoConfig.from_pretrained(tmp_path, return_unused_kwargs=True)[1] == {}


# Signatures of transformers 4.57.6, as far as a script can call them: the names of the arguments and what has a default.
PUBLISHED_SIGNATURES = {
    (XLMRobertaConfig, "from_dict"): "config_dict **kwargs",
    (XLMRobertaConfig, "from_json_file"): "json_file",
    (XLMRobertaConfig, "from_pretrained"): (
        "pretrained_model_name_or_path cache_dir= force_download= local_files_only= token= revision= **kwargs"
    ),
    (XLMRobertaConfig, "get_config_dict"): "pretrained_model_name_or_path **kwargs",
    (XLMRobertaConfig, "save_pretrained"): "self save_directory push_to_hub= **kwargs",
    (XLMRobertaConfig, "to_dict"): "self",
    (XLMRobertaConfig, "to_diff_dict"): "self",
    (XLMRobertaConfig, "to_json_file"): "self json_file_path use_diff=",
    (XLMRobertaConfig, "to_json_string"): "self use_diff=",
    (XLMRobertaConfig, "update"): "self config_dict",
    (AutoConfig, "for_model"): "model_type *args **kwargs",
    (AutoConfig, "from_pretrained"): "pretrained_model_name_or_path **kwargs",
}


@pytest.mark.parametrize(("where", "published"), PUBLISHED_SIGNATURES.items(), ids=lambda value: str(value))
def test_signatures_begin_as_published(where: tuple[type, str], published: str) -> None:
    marks = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    ours = [
        marks.get(parameter.kind, "") + name + ("" if parameter.default is inspect.Parameter.empty else "=")
        for name, parameter in inspect.signature(getattr(*where)).parameters.items()
    ]
    assert ours[: len(published.split())] == published.split()


def test_saving_takes_the_published_arguments_and_uploads_nothing(tmp_path: Path) -> None:
    config = XLMRobertaConfig(hidden_size=24)
    config.save_pretrained(tmp_path / "a", push_to_hub=False, repo_id="org/model", token=None, commit_message="x")
    assert XLMRobertaConfig.from_pretrained(tmp_path / "a") == config
    with pytest.raises(InputError, match="push_to_hub=True asks for an upload, which this library does not do"):
        config.save_pretrained(tmp_path / "b", push_to_hub=True)
    with pytest.raises(TypeError, match=r"save_pretrained\(\) does not know the argument 'push_to_hup'"):
        config.save_pretrained(tmp_path / "b", push_to_hup=True)
    assert not (tmp_path / "b").exists()
    config.to_json_file(tmp_path / "short.json")
    config.to_json_file(tmp_path / "long.json", use_diff=False)
    assert (tmp_path / "short.json").read_text() == config.to_json_string()
    assert json.loads((tmp_path / "long.json").read_text())["is_decoder"] is False
    assert XLMRobertaConfig.from_json_file(tmp_path / "long.json") == config


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [
        ("xlm-roberta", XLMRobertaConfig),
        ("roberta", XLMRobertaConfig),
        ("camembert", XLMRobertaConfig),
        ("xlm-roberta-xl", XLMRobertaXLConfig),
    ],
)
def test_auto_config_chooses_by_model_type_and_keeps_it(model_type: str, expected: type, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, "hidden_size": 96}))
    config = AutoConfig.from_pretrained(tmp_path)
    assert (type(config), config.model_type, config.hidden_size) == (expected, model_type, 96)
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == model_type
    assert type(AutoConfig.for_model(model_type)) is expected
    assert pickle.loads(pickle.dumps(config)) == config


@pytest.mark.parametrize(
    "values", [{"model_type": "bert"}, {}, {"architectures": ["BertModel"]}, {"architectures": []}]
)
def test_auto_config_refuses_other_architectures(values: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"expected a config.json with model_type 'xlm-roberta'.*received"):
        AutoConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("config_class", "model_type", "remedy"),
    [
        (XLMRobertaConfig, "xlm-roberta-xl", "XLMRobertaXLConfig"),
        (XLMRobertaXLConfig, "roberta", "XLMRobertaConfig"),
        (XLMRobertaConfig, "bert", "only XLM-RoBERTa"),
    ],
)
def test_a_config_class_refuses_another_family(
    config_class: type, model_type: str, remedy: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(ConfigError, match=f"received '{model_type}'.*{remedy}"):
        config_class.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[1]", "must hold a JSON object, it holds list"),
        (b"", "not valid JSON"),
    ],
)
def test_a_broken_file_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    for load in (XLMRobertaConfig.from_pretrained, AutoConfig.from_pretrained):
        with pytest.raises(CheckpointError, match=message):
            load(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        XLMRobertaConfig.from_json_file(tmp_path / "config.json")


def test_a_folder_without_config_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected a config.json at .*found none"):
        XLMRobertaConfig.from_pretrained(tmp_path)
    with pytest.raises(ModelNotFoundError):
        XLMRobertaConfig.from_pretrained(tmp_path / "nowhere" / "at all")


def test_from_pretrained_takes_a_file_a_folder_and_overrides(tmp_path: Path) -> None:
    XLMRobertaConfig(hidden_size=24, num_labels=3).save_pretrained(tmp_path)
    for where in (tmp_path, str(tmp_path), tmp_path / "config.json"):
        config = XLMRobertaConfig.from_pretrained(
            where, output_attentions=True, num_labels=5, local_files_only=True, trust_remote_code=True
        )
        assert (config.hidden_size, config.output_attentions, config.num_labels) == (24, True, 5)
        assert config.name_or_path == str(where)
        assert config.to_dict().keys() == XLMRobertaConfig().to_dict().keys()
    assert "name_or_path" not in json.loads(config.to_json_string())


def test_saving_is_refused_into_a_file_and_leaves_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(CheckpointError, match="expects a folder, received the file"):
        XLMRobertaConfig().save_pretrained(file)
    assert file.read_text() == "mine"


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
        ({"label2id": ["a"]}, 'label2id must be a dictionary such as {"no": 0, "yes": 1}, received [\'a\']'),
        ({"label2id": ["a"], "id2label": {"0": "a"}}, "label2id must be a dictionary"),
        ({"label2id": {"a": "b"}}, "label2id must give each label an integer"),
        ({"pruned_heads": [1]}, "pruned_heads must map layers to lists of heads"),
        ({"pruned_heads": {"a": [1]}}, "pruned_heads must map layers to lists of heads"),
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
        for key in ("bos_token_id", "eos_token_id", "sep_token_id", "decoder_start_token_id")
        for value in (-5, 1.0, "2", True)
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
def test_impossible_values_are_refused_at_once_and_after_they_were_set(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        XLMRobertaConfig(**values)
    assert isinstance(caught.value, ValueError)
    config = XLMRobertaConfig()
    with pytest.raises(ConfigError, match=re.escape(message)):
        config.update(values)


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
