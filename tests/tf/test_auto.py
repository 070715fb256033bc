"""Auto classes for classes of a user's own, uploads, and what a call is told that was meant otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")

import xlmr_tf  # noqa: E402
from xlmr_core import uploads  # noqa: E402
from xlmr_core.config import CONFIG_CLASSES, AutoConfig, XLMRobertaConfig  # noqa: E402
from xlmr_core.errors import ConfigError, InputError  # noqa: E402
from xlmr_core.pretrained import REGISTERED  # noqa: E402

SMALL: dict[str, Any] = {
    "vocab_size": 31,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_labels": 3,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
    "type_vocab_size": 1,
}
IDS = np.array([[0, 5, 6, 2], [0, 7, 8, 2]])


class OwnConfig(XLMRobertaConfig):
    model_type = "own-xlmr-tf"


class OwnModel(xlmr_tf.TFXLMRobertaForSequenceClassification):
    config_class = OwnConfig


def model(name: str = "ForSequenceClassification", **changes: Any) -> Any:
    return getattr(xlmr_tf, f"TFXLMRoberta{name}")(XLMRobertaConfig(**{**SMALL, **changes}))


def test_the_published_auto_classes() -> None:
    for name, expected in {
        "ForPreTraining": "ForMaskedLM",
        "ForTextEncoding": "Model",
        "WithLMHead": "ForMaskedLM",
    }.items():
        auto = getattr(xlmr_tf, f"TFAutoModel{name}")
        assert type(auto.from_config(XLMRobertaConfig(**SMALL))).__name__ == f"TFXLMRoberta{expected}"
        with pytest.raises(ValueError, match=f"TFAutoModel{name} is not built itself"):
            auto("xlmr-mini")


def test_an_auto_class_builds_and_loads_classes_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONFIG_CLASSES, OwnConfig.model_type, OwnConfig)
    monkeypatch.setattr("xlmr_core.pretrained.REGISTERED", dict(REGISTERED))
    auto = xlmr_tf.TFAutoModelForSequenceClassification
    config = OwnConfig(**SMALL)
    assert type(auto.from_config(config)) is xlmr_tf.TFXLMRobertaForSequenceClassification, "the family's, so far"
    auto.register(OwnConfig, OwnModel)
    assert type(auto.from_config(config)) is OwnModel
    OwnModel(config).save_pretrained(tmp_path)
    loaded, info = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is OwnModel and type(loaded.config) is OwnConfig and info["missing_keys"] == []
    assert type(OwnModel.from_pretrained(tmp_path)) is OwnModel
    with pytest.raises(ConfigError, match="derived from PreTrainedModel, received dict"):
        auto.register(OwnConfig, dict)
    assert type(AutoConfig.from_pretrained(tmp_path)) is OwnConfig


def test_a_model_of_a_configuration_has_its_dtype() -> None:
    auto = xlmr_tf.TFAutoModel
    built = auto.from_config(XLMRobertaConfig(**SMALL, dtype="bfloat16"))
    assert built.compute_dtype == "bfloat16"
    built = auto.from_config(XLMRobertaConfig(**SMALL, dtype="bfloat16"), dtype="float32")
    assert built.compute_dtype == "float32"
    built = auto.from_config(XLMRobertaConfig(**SMALL))
    assert built.compute_dtype == "float32"
    with pytest.raises(
        TypeError, match="from_config\\(\\) does not know the argument 'add_poling_layer'; did you mean"
    ):
        auto.from_config(XLMRobertaConfig(**SMALL), add_poling_layer=False)
    with pytest.raises(ConfigError, match="received the name 'xlmr-mini'; to load what it names, use"):
        auto.from_config("xlmr-mini")


def test_a_constructor_or_a_call_that_was_meant_otherwise() -> None:
    kind = xlmr_tf.TFXLMRobertaForSequenceClassification
    with pytest.raises(
        ConfigError, match=rf"expects an XLMRobertaConfig, .*{kind.__name__}.from_pretrained\('xlmr-mini'\)"
    ):
        kind("xlmr-mini")
    with pytest.raises(
        ConfigError, match=rf"{kind.__name__}.from_pretrained\(\) expects a name or folder, received an XLM"
    ):
        kind.from_pretrained(XLMRobertaConfig(**SMALL))
    with pytest.raises(
        TypeError, match="does not know the argument 'ignore_mismatched_size'; did you mean 'ignore_mis"
    ):
        kind.from_pretrained("xlmr-mini", ignore_mismatched_size=True)
    with pytest.raises(
        TypeError, match=rf"{kind.__name__}\(\) does not know the argument 'label'; did you mean 'labels'"
    ):
        model()(IDS, label=np.array([0, 1]))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[0, 1, 1], [1, 0, 0]], "multi_label_classification"),
        ([1.0, 2.0], r"pass integers \(int64\)"),
        ([True, False], r"pass integers \(int64\)"),
        ([[0.0, 1.0, float("nan")]] * 2, "received nan in row 0, position 2"),
    ],
    ids=str,
)
def test_labels_of_another_dtype_say_what_to_do(labels: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model()(IDS, labels=np.array(labels))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (lambda: tf.sparse.from_dense(IDS), r"received a sparse one; pass tf.sparse.to_dense\(...\)"),
        (
            lambda: tf.ragged.constant([[0, 5, 2], [0, 2]]),
            r"received a ragged one; pass input_ids.to_tensor\(pad_token_id\), and attention_mask",
        ),
        (lambda: tf.zeros((0,)), r"at least one sequence of at least one token, received the shape \(0,\)"),
        (lambda: np.array([["a text"]]), "texts go through the tokenizer first"),
    ],
    ids=["sparse", "ragged", "empty", "texts"],
)
def test_what_is_no_ordinary_tensor(tensor: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model()(input_ids=tensor())


def test_what_is_saved_is_uploaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[list[str], str]] = []
    monkeypatch.setattr(uploads, "_hub_package", lambda repo_id: None)
    monkeypatch.setattr(
        uploads,
        "_upload",
        lambda paths, **of: sent.append(([path.name for path in paths], of["repo_id"])) or "an address",
    )
    built = model("ForMaskedLM")
    files = ["config.json", "model.safetensors"]
    assert built.push_to_hub("org/model", max_shard_size="1GB") == "an address"
    built.save_pretrained(tmp_path / "here", push_to_hub=True)
    built.save_pretrained(tmp_path / "here", push_to_hub=True, repo_id="org/other", private=True)
    assert sent == [(files, "org/model"), (files, "here"), (files, "org/other")]
    with pytest.raises(TypeError, match="does not know the argument 'repo_idd'; did you mean 'repo_id'"):
        built.save_pretrained(tmp_path / "no", push_to_hub=True, repo_idd="a")
    assert not (tmp_path / "no").exists()
