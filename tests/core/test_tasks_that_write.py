"""Tasks that write, without a framework: zero, False and None that a call says, and streamers of calls that fail."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest

from tests.core.writers import Given, Reference, reference
from xlmr_core.errors import ConfigError, InputError
from xlmr_core.generation import GenerationConfig, TextIteratorStreamer
from xlmr_core.tasks.pipeline import Pipeline
from xlmr_core.tokenization import AutoTokenizer

TASK = "text-generation"


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "fixtures" / "tasks" / "text_generation"


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


# ---- Zero, False and None


NOT_SAID = object()


@pytest.mark.parametrize(
    ("options", "said", "asked"),
    [
        ({"min_length": 0}, {"min_length": 6}, {"min_length": 0}),
        ({"min_length": 0}, {"min_new_tokens": 6}, {"min_length": 0}),
        ({"min_new_tokens": 0}, {"min_length": 6}, {"min_new_tokens": 0, "min_length": NOT_SAID}),
        ({"generate_kwargs": {"min_length": None}}, {"min_length": 6}, {"min_length": 0}),
        ({"generate_kwargs": {"min_length": None}}, {"min_new_tokens": 6}, {"min_length": NOT_SAID}),
        ({"generate_kwargs": {"min_new_tokens": None}}, {"min_new_tokens": 6, "min_length": 3}, {"min_length": 3}),
        ({"generate_kwargs": {"max_new_tokens": None}}, {"max_new_tokens": 3}, {"max_new_tokens": 60}),
        ({"generate_kwargs": {"max_new_tokens": None}}, {"max_new_tokens": 3, "max_length": 9}, {"max_length": 9}),
        ({"no_repeat_ngram_size": 0, "top_k": 0}, {"top_k": 2}, {"no_repeat_ngram_size": 0, "top_k": 0}),
        ({"do_sample": False, "num_beams": 1}, {"do_sample": True}, {"do_sample": False, "num_beams": 1}),
        ({"renormalize_logits": False}, {"renormalize_logits": True}, {"renormalize_logits": False}),
        ({"eos_token_id": None}, {"eos_token_id": 2}, {"eos_token_id": None}),
        ({"pad_token_id": None}, {"eos_token_id": [7, 2]}, {"pad_token_id": None}),
        ({"bad_words_ids": None}, {"bad_words_ids": [[5]]}, {"bad_words_ids": None}),
        ({"stop_sequence": []}, {"stop_strings": ["a"]}, {"stop_strings": None}),
        ({"generate_kwargs": {"top_k": None}}, {"top_k": 2}, {"top_k": None}),
        # Nobody's word
        ({"use_cache": None, "seed": None}, {"use_cache": False}, {"use_cache": NOT_SAID, "seed": NOT_SAID}),
        ({"generate_kwargs": {"seed": None}}, {}, {"seed": NOT_SAID}),
        ({"generate_kwargs": {"do_sample": None}}, {"do_sample": True}, {"do_sample": NOT_SAID}),
        ({"top_k": None}, {"top_k": 2}, {"top_k": NOT_SAID}),
    ],
    ids=str,
)
def test_what_a_call_says_goes_before_the_model(folder, tokenizer, options, said, asked):
    pipeline = Pipeline(TASK, Given([[336, 62]], reference(folder).config, **said), tokenizer)
    pipeline("The river", add_special_tokens=False, **options)
    (found,) = pipeline.runner.asked
    assert {name: found.get(name, NOT_SAID) for name in asked} == asked


def test_a_least_length_of_nothing_lets_an_answer_end(folder, tokenizer):
    model = copy.copy(reference(folder))
    pipeline = Pipeline(TASK, Reference(model), tokenizer, do_sample=False, add_special_tokens=False)
    (first,) = pipeline("The river", max_new_tokens=1, return_tensors=True)
    shortest, end = len(first["generated_token_ids"]), first["generated_token_ids"][-1]
    model.generation_config = GenerationConfig(pad_token_id=1, eos_token_id=end, min_length=9)
    lengths = [
        len(pipeline("The river", max_new_tokens=6, return_tensors=True, **how)[0]["generated_token_ids"])
        for how in ({"min_length": 0}, {}, {"min_length": 0, "eos_token_id": None})
    ]
    assert lengths[0] == shortest < 9 <= lengths[1] and lengths[2] == shortest + 5


def test_an_empty_text_to_end_at(folder, tokenizer):
    pipeline = Pipeline(TASK, Given([[336, 62]], reference(folder).config), tokenizer)
    with pytest.raises(InputError, match="stop_sequence must be a text or several, none of them empty, received"):
        pipeline("a", stop_sequence="")


# ---- Streamers of calls that fail


class Broken(Given):
    """Fails in ``generate``, which ends its streamer."""

    def generate(self, arrays, options, streamer=None):
        if len(self.batches) == 1:
            streamer.put(arrays["input_ids"])
            streamer.end()
            raise RuntimeError("broken")
        return super().generate(arrays, options, streamer)


@pytest.fixture
def heard():
    return []


@pytest.fixture
def streamer(heard):
    return SimpleNamespace(put=lambda ids: None, end=lambda: heard.append("end"))


def unreadable():
    yield "a"
    raise OSError("unreadable")


@pytest.mark.parametrize(
    ("given", "options", "error", "ends"),
    [
        ("a", {"max_new_token": 3}, InputError, 1),
        ("a", {"temperature": 0.0}, ConfigError, 1),
        ("a", {"generate_kwargs": 3}, InputError, 1),
        ([["a"]], {}, InputError, 1),
        ("a " * 200, {}, InputError, 1),
        (["a", "b", "a " * 200], {}, InputError, 3),
        (["a", "b", "c"], {"num_beams": 0}, InputError, 3),
        (iter(["a", "b", 5]), {}, InputError, 3),
        (unreadable(), {}, OSError, 2),
        (7, {}, InputError, 1),
    ],
    ids=str,
)
def test_a_call_that_fails_before_it_writes(folder, tokenizer, heard, streamer, given, options, error, ends):
    pipeline = Pipeline(TASK, Given([[336, 62]], reference(folder).config), tokenizer)
    with pytest.raises(error):
        answers = pipeline(given, streamer=streamer, **options)
        list(answers)
    assert len(heard) == ends


def test_texts_behind_one_that_fails(folder, tokenizer, heard, streamer):
    pipeline = Pipeline(TASK, Broken([[336, 62]], reference(folder).config), tokenizer)
    with pytest.raises(RuntimeError, match="broken"):
        pipeline(["a", "b", "c", "d"], streamer=streamer)
    assert heard == ["end"] * 4


@pytest.mark.parametrize("where", ["pipeline", "call", "both"])
def test_wherever_the_streamer_is_said(folder, tokenizer, heard, streamer, where):
    own = {} if where == "call" else {"streamer": streamer}
    pipeline = Pipeline(TASK, Given([[336, 62]], reference(folder).config), tokenizer, **own)
    said = {} if where == "pipeline" else {"generate_kwargs": {"streamer": streamer}}
    with pytest.raises(InputError):
        pipeline("a " * 200, **said)
    assert heard == ["end"]
    pipeline(["a", "b"], **said)
    assert heard == ["end"] * 3
    pipeline("a", streamer=None)
    assert heard == ["end"] * 3


def test_who_reads_pieces_hears_the_end(folder, tokenizer):
    words = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=5.0)
    pipeline = Pipeline(TASK, Given([[336, 62]], reference(folder).config), tokenizer)
    with pytest.raises(InputError):
        pipeline("a", max_new_token=3, streamer=words)
    assert "".join(words) == ""
    pipeline("a", streamer=words)
    assert "".join(words) == "woя"


def test_what_is_no_streamer_is_told_by_generate(folder, tokenizer):
    pipeline = Pipeline(TASK, Reference(reference(folder)), tokenizer, max_new_tokens=2)
    with pytest.raises(InputError, match=r"streamer must have put\(value\) and end\(\), received a str"):
        pipeline("a", streamer="x")
