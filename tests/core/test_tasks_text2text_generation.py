"""Text to text without a framework: the keys of answers, what ``generate`` is asked, lengths, and what comes in."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.core.writers import Given
from xlmr_core.config import AutoConfig, EncoderDecoderConfig
from xlmr_core.errors import InputError
from xlmr_core.tasks import find_task, models_for
from xlmr_core.tasks.choosing import choose
from xlmr_core.tasks.pipeline import Pipeline
from xlmr_core.tokenization import AutoTokenizer

KEYS = {"text2text-generation": "generated", "summarization": "summary", "translation": "translation"}
CONFIG = SimpleNamespace(max_tokens=64, decoder=SimpleNamespace(max_tokens=30, max_position_embeddings=32))


@pytest.fixture(scope="module")
def tokenizer(shared):
    return AutoTokenizer.from_pretrained(shared / "fixtures" / "tasks" / "text_generation")


@pytest.fixture
def given(tokenizer):
    """Makes a pipeline that writes ids which are given, behind the token that a decoder begins with."""

    def made(new=((336, 62, 2),), task="text2text-generation", config=CONFIG, options=None, **said):
        return Pipeline(task, Given(new, config, **said), tokenizer, **(options or {}))

    return made


@pytest.mark.parametrize("task", KEYS)
def test_each_task_has_its_keys(given, task):
    write, key = given(task=task), f"{KEYS[task]}_text"
    assert write("a text") == [{key: "woя"}]
    assert write(["a text"]) == [{key: "woя"}]
    assert list(write(iter(["a text"]))) == [[{key: "woя"}]]
    assert write(["a", "b"], return_text=True, batch_size=1) == [{key: "woя"}] * 2
    ids = {f"{KEYS[task]}_token_ids": ("tensor", [0, 336, 62, 2])}
    assert write("a text", return_tensors=True) == [ids] and write(["a"], return_tensors=True) == [ids]
    assert write.text(write("a text")) == write.text(write(["a text"])[0]) == "  woя"


def test_several_answers_stay_lists(given):
    write = given(((336, 2, 1), (62, 336, 2)))
    answer = [{"generated_text": "wo"}, {"generated_text": "я wo"}]
    assert write("a", num_return_sequences=2) == answer
    assert write(["a", "b"], num_return_sequences=2) == [answer, answer]
    first, _ = write("a", num_return_sequences=2, return_tensors=True)
    assert first["generated_token_ids"][1] == [0, 336, 2, 1], "as long as the longest of the same text, as published"


@pytest.mark.parametrize(
    ("options", "said", "asked"),
    [
        ({}, {}, {"num_beams": 4, "max_new_tokens": 30}),
        ({"max_length": 12, "min_length": 3}, {}, {"num_beams": 4, "max_length": 12, "max_new_tokens": None}),
        ({"max_length": 12}, {"max_new_tokens": 5, "num_beams": 2}, {"max_length": 12, "max_new_tokens": None}),
        ({"max_new_tokens": 7, "do_sample": True}, {}, {"num_beams": 4, "do_sample": True, "max_new_tokens": 7}),
    ],
)
def test_what_generate_is_asked(given, options, said, asked):
    write = given(**said)
    write("a", **options)
    (found,) = write.runner.asked
    assert found == {**asked, **({"min_length": 3} if "min_length" in options else {})}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 31}, "expected at most 30 new tokens, which is what this checkpoint writes, received 31"),
        ({"max_length": 32}, "expected at most 30 new tokens"),
        ({"on_overflow": "window"}, "on_overflow must be 'error' or 'truncate'"),
        ({"return_full_text": False}, "takes the options .*received return_full_text"),
        ({"src_lang": "en"}, "received src_lang"),
    ],
)
def test_options_that_make_no_sense(given, options, message):
    with pytest.raises(InputError, match=message):
        given()("a", **options)


def test_a_decoder_that_counts_from_zero_has_two_places_more(given):
    assert given()("a", max_new_tokens=32, position_numbering="zero_based")


def test_texts_that_are_too_long(given):
    write, long = given(), "word " * 90
    with pytest.raises(InputError, match="at most 64 tokens.*on_overflow='truncate'"):
        write(long)
    for how in ({"truncation": True}, {"on_overflow": "truncate"}):
        write(long, **how)
        assert write.truncated == [0] and len(write.runner.batches[-1][0]) == 64
    with pytest.raises(InputError, match="expected texts, received list"):
        write([["a"]])


def test_a_prefix_stands_before_each_text(given, tokenizer):
    config = SimpleNamespace(**vars(CONFIG), prefix="shorten: ")
    for write, options in ((given(config=config), {}), (given(), {"prefix": "shorten: "})):
        write("a text", **options)
        assert write.runner.batches == [[tokenizer("shorten: a text")["input_ids"]]]


def test_one_model_and_two_are_told_apart(tmp_path, shared):
    folder = shared / "fixtures" / "tasks" / "text_generation"
    part = AutoConfig.from_pretrained(folder)
    EncoderDecoderConfig.from_encoder_decoder_configs(part, part).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    pair, one = "is an encoder and a decoder; .* for it: text2text-", "is one model; .* for it: fill-mask"
    for task, model, said in (("fill-mask", tmp_path, pair), ("summarization", folder, one)):
        with pytest.raises(InputError, match=f"{task} takes .*, '{model}' {said}"):
            chosen = {"framework": None, "revision": None, "token": None, "use_fast": True, "model_kwargs": None}
            choose("torch", task, model, None, None, **chosen, options={}).check_head()


def test_translation_by_the_names_of_its_languages(given):
    assert find_task("translation_en_to_fr").name == "translation"
    assert models_for("translation_XX_to_YY") == ()
    assert given(task="translation_de_to_en")("a", src_lang="de", tgt_lang="en") == [{"translation_text": "woя"}]


def test_the_answer_of_beams_comes_whole(given):
    pieces = []
    assert given().streamer("a", pieces.append) is None
    write = given(options={"num_beams": 1})
    answer = write("a", streamer=write.streamer("a", pieces.append))
    assert "".join(pieces) == write.text(answer)
