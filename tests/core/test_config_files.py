"""Configurations in files: every writer, unknown keys, published calls, and files that are none."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from tests.core.config_numbers import BASE_DEFAULTS, RELEASED, SHARED_DEFAULTS, read
from tests.fuzz.fuzz_configs import check as check_drawn
from xlmr_core.arguments import check_known
from xlmr_core.config import AutoConfig, XLMRobertaConfig, XLMRobertaXLConfig
from xlmr_core.errors import CheckpointError, ConfigError, ConfigWarning, ModelNotFoundError

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


# Keys that are probably misspelt


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("hiden_size", "hidden_size"),
        ("hidden_sizee", "hidden_size"),
        ("num_hidden_layer", "num_hidden_layers"),
        ("num_atention_heads", "num_attention_heads"),
        ("num_labls", "num_labels"),
        ("problemtype", "problem_type"),
        ("dtpye", "dtype"),
        ("id2lable", "id2label"),
    ],
)
def test_a_key_near_one_that_is_not_given_is_kept_with_a_warning(key: str, meant: str, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"model_type": "xlm-roberta", key: 24}))
    message = f"XLMRobertaConfig reads no '{key}' and keeps it as it is; did you mean '{meant}'?"
    builds: list[Any] = [
        lambda: XLMRobertaConfig(**{key: 24}),
        lambda: XLMRobertaConfig.from_dict({key: 24}),
        lambda: XLMRobertaConfig.from_json_file(file),
        lambda: XLMRobertaConfig.from_pretrained(tmp_path),
        lambda: AutoConfig.from_pretrained(tmp_path),
    ]
    for build in builds:
        with pytest.warns(ConfigWarning, match=re.escape(message)) as caught:
            config = build()
        assert [entry.filename for entry in caught] == [__file__], "one, and it names the line that asked"
        assert json.loads(config.to_json_string())[key] == 24
        assert config.copy() == config  # without another warning: here they are errors


@pytest.mark.parametrize(
    "given",
    [
        {"hiden_size": 24, "hidden_size": 48},  # said, beside a key of another's
        {"max_lenght": 9},  # near one that nothing reads
        {"eos_token_ids": 2},  # of older releases
        {"cls_token_id": 0, "unk_token_id": 3},
        {"adapters": {}, "my_key": 1, "pool": 1, "type": "x", "heads": 2, "cls": 1, "self": 2},
        {"max_length": 20, "torchscript": True, "transformers_version": "4.2", "_num_labels": 3},
    ],
    ids=str,
)
def test_a_key_that_is_no_misspelling_is_kept_in_silence(given: dict[str, Any]) -> None:
    assert json.loads(XLMRobertaConfig.from_dict(given).to_json_string()).items() >= (
        {key: value for key, value in given.items() if key != "_num_labels"}.items()
    )


def test_several_misspelt_keys_are_one_warning_also_beside_positional_arguments() -> None:
    with pytest.warns(ConfigWarning, match="'hiden_act', 'num_lables'.* 'hidden_act' and 'num_labels'") as caught:
        XLMRobertaConfig(99, 24, 1, 4, hiden_act="relu", num_lables=3)
    assert len(caught) == 1
    XLMRobertaConfig(99, 24, 1, 4, hiden_size=1)  # hidden_size is given, by its place


@pytest.mark.parametrize("first", range(0, 300, 100))
def test_configurations_drawn_at_random(first: int) -> None:
    """A few of what ``nox -s fuzz`` draws."""
    built = [check_drawn(seed) for seed in range(first, first + 100)]
    assert 20 < sum(built) < 100


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
    # The dtype is the configuration's, and an argument of the model's from_pretrained.
    for name in ("dtype", "torch_dtype"):
        config, unused = AutoConfig.from_pretrained(tmp_path, return_unused_kwargs=True, **{name: "float16"})
        assert config.dtype == "float16" and unused == {"dtype": "float16"}


# Signatures of transformers 4.57.6, as far as a script can call them: the names of the arguments and what has a
# default.
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


def test_saving_takes_the_published_arguments(tmp_path: Path) -> None:
    config = XLMRobertaConfig(hidden_size=24)
    config.save_pretrained(tmp_path / "a", push_to_hub=False, repo_id="org/model", token=None, commit_message="x")
    assert XLMRobertaConfig.from_pretrained(tmp_path / "a") == config
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
    "values",
    [
        {"model_type": "bert"},
        {"model_type": ["xlm-roberta"]},
        {},
        {"architectures": ["BertModel"]},
        {"architectures": []},
    ],
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
        (b"[" * 100_000, "not valid JSON"),
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
        assert config.name_or_path == ""
        assert AutoConfig.from_pretrained(where).name_or_path == str(where)
        assert config.to_dict().keys() == XLMRobertaConfig().to_dict().keys()
    assert not {"name_or_path", "_name_or_path"} & set(json.loads(AutoConfig.from_pretrained(where).to_json_string()))


def test_saving_is_refused_into_a_file_and_leaves_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(CheckpointError, match="expects a folder, received the file"):
        XLMRobertaConfig().save_pretrained(file)
    assert file.read_text() == "mine"
