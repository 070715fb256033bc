"""Published arguments that every loader takes in the same way, and those of tokenizers that do nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from xlmr_core.arguments import NOT_NEEDED, ONLY
from xlmr_core.config import AutoConfig, XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.tokenization import AutoTokenizer, XLMRobertaTokenizer, XLMRobertaTokenizerFast

MINI = "xlmr-mini"
TOKENIZERS = (XLMRobertaTokenizer, XLMRobertaTokenizerFast)
LOADERS = (*TOKENIZERS, AutoTokenizer, XLMRobertaConfig, AutoConfig)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("use_auth_token", "hf_secret", r"None or False, received a str: .*pass token="),
        ("proxies", {"https": "http://me:hf_secret@host"}, "None, received a dict: set the HTTPS_PROXY"),
        ("gguf_file", "model.gguf", "None, received 'model.gguf': GGUF is not read"),
    ],
)
def test_what_cannot_be_served_is_refused_without_its_secret(loader: Any, name: str, value: Any, remedy: str) -> None:
    with pytest.raises(InputError, match=f"{name} must be {remedy}") as caught:
        loader.from_pretrained(MINI, **{name: value})
    assert "hf_secret" not in str(caught.value)


@pytest.mark.parametrize("loader", LOADERS)
def test_what_is_not_needed_leaves_no_trace(loader: Any, tmp_path: Path) -> None:
    arguments = dict.fromkeys(NOT_NEEDED, "anything") | dict.fromkeys(ONLY)
    loaded = loader.from_pretrained(MINI, **arguments)
    loaded.save_pretrained(tmp_path / "with")
    loader.from_pretrained(MINI).save_pretrained(tmp_path / "without")
    for path in (tmp_path / "without").iterdir():
        assert (tmp_path / "with" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("cls", TOKENIZERS)
def test_an_unknown_argument_of_decode_is_logged(cls: Any, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = cls.from_pretrained(MINI)
    ids = tokenizer("a model")["input_ids"]
    plain = tokenizer.decode(ids, spaces_between_special_tokens=True, use_source_tokenizer=False)
    assert not caplog.records
    assert tokenizer.decode(ids, skip_special_token=True) == plain
    assert "'skip_special_token'" in caplog.text
    caplog.clear()
    tokenizer.batch_decode([ids], skip_special_token=True)
    assert not caplog.records  # said once
    tokenizer.batch_decode([ids], colour="red")
    assert "'colour'" in caplog.text


@pytest.mark.parametrize("cls", TOKENIZERS)
def test_saving_a_tokenizer_refuses_unknown_arguments(cls: Any, tmp_path: Path) -> None:
    tokenizer = cls.from_pretrained(MINI)
    with pytest.raises(TypeError, match="does not know the argument 'filename_prefx'"):
        tokenizer.save_pretrained(tmp_path / "no", filename_prefx="a")
    assert not (tmp_path / "no").exists()
    tokenizer.save_pretrained(tmp_path / "yes", safe_serialization=True, commit_message="x")
    assert (tmp_path / "yes" / "tokenizer_config.json").exists()


def test_the_fast_class_says_that_it_cannot_sample(caplog: pytest.LogCaptureFixture) -> None:
    sampling = {"enable_sampling": True, "alpha": 0.1, "nbest_size": -1}
    AutoTokenizer.from_pretrained(MINI, use_fast=False, sp_model_kwargs=sampling)
    AutoTokenizer.from_pretrained(MINI, sp_model_kwargs={})
    assert not caplog.records
    AutoTokenizer.from_pretrained(MINI, sp_model_kwargs=sampling)
    assert "enable_sampling" in caplog.text and "use_fast=False" in caplog.text


@pytest.mark.parametrize("name", ["attn_implementation", "_attn_implementation"])
def test_a_configuration_says_how_to_attend_and_no_file_does(name: str, tmp_path: Path) -> None:
    config = XLMRobertaConfig(**{name: "eager"})
    assert config._attn_implementation == "eager" and XLMRobertaConfig()._attn_implementation is None
    assert config == XLMRobertaConfig() and not {name, "_attn_implementation"} & set(config.to_dict())
    assert config.copy(num_labels=3)._attn_implementation == "eager"
    assert config.copy(attn_implementation="sdpa")._attn_implementation == "sdpa"
    config.save_pretrained(tmp_path)
    assert "eager" not in (tmp_path / "config.json").read_text(encoding="utf-8")
    again = AutoConfig.from_pretrained(tmp_path, attn_implementation="eager")
    assert again._attn_implementation == "eager"
