"""``GenerationConfig``: the table of options, in and out of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlmr_core.arguments import OF_GENERATION
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.config_encoder_decoder import EncoderDecoderConfig
from xlmr_core.errors import CheckpointError, ConfigError, ConfigWarning
from xlmr_core.generation import GenerationConfig, read_generation_config
from xlmr_core.generation.options import NOT_SERVED, OPTIONS

PUBLISHED_DEFAULTS = {
    "max_length": 20,
    "max_new_tokens": None,
    "do_sample": False,
    "num_beams": 1,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "length_penalty": 1.0,
    "early_stopping": False,
    "use_cache": True,
    "num_return_sequences": 1,
    "eos_token_id": None,
}


def test_defaults_are_the_published_ones() -> None:
    config = GenerationConfig()
    assert {name: getattr(config, name) for name in PUBLISHED_DEFAULTS} == PUBLISHED_DEFAULTS
    assert config.position_numbering == "model"
    assert config.to_diff_dict() == {}


def test_every_default_is_what_its_option_may_be() -> None:
    assert {name for name, option in OPTIONS.items() if not option.kind[1](option.default)} == set()
    assert set(NOT_SERVED) < set(OPTIONS)
    assert set(OF_GENERATION) <= set(OPTIONS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 0}, "max_length must be a positive integer, or None, received 0"),
        ({"max_new_tokens": -1}, "max_new_tokens must be a positive integer, or None, received -1"),
        ({"max_length": 10**5000}, "max_length must be a positive integer, or None, received an integer of 16610 bits"),
        ({"num_beams": 1.5}, "num_beams must be a positive integer, received 1.5"),
        ({"num_beams": True}, "num_beams must be a positive integer, received True"),
        ({"early_stopping": "always"}, "early_stopping must be False or True or 'never', received 'always'"),
        ({"do_sample": 1}, "do_sample must be True or False, received 1"),
        ({"do_sample": True, "temperature": 0.0}, "temperature must be a number above 0, or None, received 0.0"),
        ({"do_sample": True, "top_p": 1.5}, "top_p must be a number from 0 to 1, or None, received 1.5"),
        ({"do_sample": True, "top_k": -1}, "top_k must be 0 or a positive integer, or None, received -1"),
        ({"eos_token_id": [2, -1]}, "eos_token_id must be a token's id, 0 or more, or a list of such, or None"),
        ({"eos_token_id": []}, "eos_token_id must be"),
        ({"bad_words_ids": [7]}, "bad_words_ids must be a list of words, each a list of at least one token's id"),
        ({"bad_words_ids": [[]]}, "bad_words_ids must be"),
        ({"sequence_bias": {7: 1.0}}, "sequence_bias must be"),
        ({"sequence_bias": [[[7], "x"]]}, "sequence_bias must be"),
        ({"stop_strings": [""]}, "stop_strings must be a text or a list of texts, none of them empty"),
        ({"max_time": 0}, "max_time must be a number above 0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be a number above 0"),
        ({"do_sample": True, "temperature": float("inf")}, "temperature must be a number above 0"),
        ({"sequence_bias": [[[7], float("nan")]]}, "sequence_bias must be"),
        ({"length_penalty": float("nan")}, "length_penalty must be a number"),
        ({"exponential_decay_length_penalty": [1]}, "exponential_decay_length_penalty must be two numbers"),
        ({"position_numbering": "one_based"}, "position_numbering must be 'model' or 'zero_based'"),
    ],
)
def test_values_are_refused_with_what_they_may_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(").replace("[", r"\[")):
        GenerationConfig(**options)


def test_options_of_drawing_count_only_when_drawing() -> None:
    config = GenerationConfig(temperature=0.0, do_sample=False)  # as published files have it
    with pytest.raises(ConfigError, match="temperature"):
        config.validate(strict=True)
    with pytest.raises(ConfigError, match="temperature"):
        config.update(do_sample=True)


def test_numbers_of_numpy_become_plain() -> None:
    config = GenerationConfig(max_new_tokens=np.int64(5), temperature=np.float64(0.5))
    assert type(config.max_new_tokens) is int and type(config.temperature) is float
    config.num_beams = np.int32(3)  # type: ignore[assignment]
    assert json.loads(config.to_json_string())["num_beams"] == 3


def test_what_is_not_known_is_kept_and_a_misspelling_is_told() -> None:
    config = GenerationConfig(of_a_fork={"a": [1]}, update="x")
    assert config.of_a_fork == {"a": [1]}
    assert callable(config.update)  # a method is not hidden
    assert config.to_dict()["update"] == "x"
    with pytest.warns(ConfigWarning, match="reads no 'max_new_token'.*did you mean 'max_new_tokens'"):
        assert GenerationConfig(max_new_token=3).max_new_token == 3


def test_callers_values_stay_their_own() -> None:
    words = [[1, 2]]
    config = GenerationConfig(bad_words_ids=words)
    words[0].append(3)
    assert config.bad_words_ids == [[1, 2]]
    config.to_dict()["bad_words_ids"].append([9])
    assert config.bad_words_ids == [[1, 2]]


def test_update_gives_back_what_names_no_option() -> None:
    config = GenerationConfig()
    assert config.update(num_beams=4, input_ids="x", attention_mask=None) == {"input_ids": "x", "attention_mask": None}
    assert config.num_beams == 4


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 4, "length_penalty": 0.6, "eos_token_id": [2, 5], "early_stopping": "never"},
        {"do_sample": True, "temperature": 0.7, "top_k": 0, "bad_words_ids": [[3], [4, 5]]},
        {"sequence_bias": [[[3, 4], -1.5]], "stop_strings": ["."], "position_numbering": "zero_based"},
        {"of_a_fork": 3, "transformers_version": "4.57.6", "max_length": None},
    ],
)
def test_a_file_says_the_same(tmp_path: Path, options: dict[str, Any]) -> None:
    config = GenerationConfig(**options)
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_text()) == options
    assert GenerationConfig.from_pretrained(tmp_path) == config
    assert read_generation_config(tmp_path, XLMRobertaConfig()) == config


def test_bias_by_tuples_is_written_as_a_list(tmp_path: Path) -> None:
    GenerationConfig(sequence_bias={(3, 4): -1.5}).save_pretrained(tmp_path, "other.json")
    assert GenerationConfig.from_pretrained(tmp_path, "other.json").sequence_bias == [[[3, 4], -1.5]]


def test_from_pretrained_takes_options_and_gives_back_others(tmp_path: Path) -> None:
    GenerationConfig(num_beams=3).save_pretrained(tmp_path)
    config, unused = GenerationConfig.from_pretrained(tmp_path, top_k=7, what=1, return_unused_kwargs=True)
    assert (config.num_beams, config.top_k, unused) == (3, 7, {"what": 1})
    with pytest.raises(TypeError, match="does not know the argument 'num_beam'; did you mean 'num_beams'"):
        GenerationConfig.from_pretrained(tmp_path, num_beam=7)


def test_a_recorded_file_is_read(shared: Path) -> None:
    folder = shared / "fixtures" / "tasks" / "text_generation"
    config = GenerationConfig.from_pretrained(folder)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (0, 2, 1)
    assert json.loads(config.to_json_string()) == json.loads((folder / "generation_config.json").read_text())


def test_a_folder_without_the_file_gives_what_its_model_says(tmp_path: Path) -> None:
    XLMRobertaConfig(num_beams=3, max_length=40, temperature=0.5).save_pretrained(tmp_path)
    config = GenerationConfig.from_pretrained(tmp_path)
    assert (config.num_beams, config.max_length, config.temperature, config.eos_token_id) == (3, 40, 0.5, 2)
    with pytest.raises(CheckpointError, match="expected the options of generation at"):
        GenerationConfig.from_pretrained(tmp_path, "generation_config.json")


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not valid JSON"):
        read_generation_config(tmp_path, XLMRobertaConfig())
    (tmp_path / "generation_config.json").write_text('{"num_beams": 0}')
    with pytest.raises(ConfigError, match="num_beams"):
        read_generation_config(tmp_path, XLMRobertaConfig())


def test_of_a_model() -> None:
    config = GenerationConfig.from_model_config(XLMRobertaConfig(eos_token_id=[2, 7], use_cache=False))
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (1, 0, [2, 7])
    assert config.use_cache is False
    assert config.return_dict_in_generate is False
    outputs = GenerationConfig.from_model_config(XLMRobertaConfig(output_attentions=True))
    assert outputs.return_dict_in_generate is True  # or they could not come back


def test_of_an_encoder_and_a_decoder() -> None:
    decoder = XLMRobertaConfig(is_decoder=True, num_beams=3, eos_token_id=7, max_length=30)
    both = EncoderDecoderConfig.from_encoder_decoder_configs(XLMRobertaConfig(), decoder)
    both.max_length = 40
    config = GenerationConfig.from_model_config(both)
    # What the whole says counts more than what the decoder says.
    assert (config.num_beams, config.eos_token_id, config.max_length) == (3, 7, 40)
    assert config.decoder_start_token_id is None


def test_equal_and_shown() -> None:
    assert GenerationConfig(num_beams=2) == GenerationConfig(num_beams=2, transformers_version="4")
    assert GenerationConfig(num_beams=2) != GenerationConfig(num_beams=3)
    assert GenerationConfig() != {}
    assert repr(GenerationConfig(num_beams=2)) == 'GenerationConfig {\n  "num_beams": 2\n}'
