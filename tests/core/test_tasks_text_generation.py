"""Text generation without a framework: the recorded calls on the reference; then options, lengths, batches, streams."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tests.core.writers import Given, Reference, reference
from tests.recorded_calls import FOLDERS, ask_again, read_calls
from xlmr_core import cli
from xlmr_core.cli import run
from xlmr_core.config import AutoConfig
from xlmr_core.errors import ConfigError, InputError, LoadWarning
from xlmr_core.generation import GenerationConfig
from xlmr_core.tasks.generating import AnswerStreamer, trimmed
from xlmr_core.tasks.pipeline import Pipeline
from xlmr_core.tokenization import AutoTokenizer

TASK = "text-generation"
GREEDY = {"do_sample": False, "add_special_tokens": False}


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "fixtures" / "tasks" / "text_generation"


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def writes(folder, tokenizer):
    """The reference, writing."""
    return Pipeline(TASK, Reference(reference(folder)), tokenizer, **GREEDY)


@pytest.fixture
def given(folder, tokenizer):
    """Makes a pipeline that writes ids which are given."""

    def made(new=((336, 62),), options=None, **said):
        return Pipeline(TASK, Given(new, reference(folder).config, **said), tokenizer, **(options or {}))

    return made


# ---- As recorded


@pytest.mark.parametrize("number", range(FOLDERS["text_generation"][0]))
def test_recorded_call(number, folder, tokenizer):
    def pipeline(task, model, *, tokenizer, **options):
        return Pipeline(task, Reference(model), tokenizer, **options)

    usual = SimpleNamespace(model=reference(folder), tokenizer=tokenizer)
    ask_again(pipeline, lambda task, folder: usual, folder, number)


def test_the_default_differs_by_its_numbering_alone(writes, folder):
    call = read_calls(folder)[0]
    (text,) = call["args"]
    default = writes(text, max_new_tokens=8)
    assert default == writes(text, max_new_tokens=8, position_numbering="model") != call["output"]
    assert writes(text, max_new_tokens=8, position_numbering="zero_based") == call["output"]


# ---- Batches

TEXTS = ["The river", "Once upon a time there was a", "", "今天的", "Вчера мы"]


@pytest.mark.parametrize(
    "how",
    [
        {"max_new_tokens": 6},
        {"max_new_tokens": 6, "num_beams": 3, "num_return_sequences": 2},
        {"max_new_tokens": 6, "repetition_penalty": 1.5, "position_numbering": "zero_based"},
        {"max_new_tokens": 6, "return_tensors": True, "min_length": 6, "eos_token_id": 336},
        {"generation_config": GenerationConfig(max_length=24)},
        {"prefix": "Once upon a time ", "generation_config": GenerationConfig(max_length=24), "min_length": 8},
    ],
    ids=str,
)
def test_a_batch_gives_what_the_texts_give_alone(writes, how):
    alone = [writes(text, **how) for text in TEXTS]
    assert writes(TEXTS, **how) == alone == list(writes(iter(TEXTS), batch_size=2, **how))


def test_texts_of_any_length_run_together_where_it_does_not_matter(writes):
    writes(TEXTS, max_new_tokens=2)
    assert [sorted(batch) for batch in writes.runner.batches] == [[1, 4, 5, 7, 19]]
    writes.runner.batches.clear()
    writes(TEXTS, generation_config=GenerationConfig(max_length=20))
    assert writes.runner.batches == [[19], [7], [5], [4], [1]]


def test_shorter_texts_are_filled_up_at_their_beginning(given):
    pipeline = given()
    pipeline(["The river", "今天的"], add_special_tokens=False, max_new_tokens=2)
    first, second = pipeline.runner.batches[0]
    assert len(first) == len(second) == 5 and 1 not in first and second[0] == 1 != second[1]


def test_tokens_that_will_be_written_count_where_tokens_run_together(given):
    pipeline = given()
    pipeline(["a"] * 6, batch_tokens=100, max_new_tokens=20, add_special_tokens=False)
    assert [len(batch) for batch in pipeline.runner.batches] == [4, 2]
    pipeline.runner.batches.clear()
    pipeline(["a"] * 6, batch_tokens=100, max_new_tokens=20, num_beams=2, add_special_tokens=False)
    assert [len(batch) for batch in pipeline.runner.batches] == [2, 2, 2]


def test_answers_end_with_their_own_last_token(given):
    assert trimmed(np.array([[5, 2, 1, 1], [5, 6, 2, 1]]), 1) == [[5, 2, 1], [5, 6, 2]]
    assert trimmed(np.array([[1, 1]]), 1) == [[]]
    (answer,) = given([[336, 2, 1, 1]])("a", add_special_tokens=False, return_tensors=True)
    assert answer == {"generated_token_ids": [*given().tokenizer("a", add_special_tokens=False)["input_ids"], 336, 2]}


# ---- What generate is asked


@pytest.mark.parametrize(
    ("options", "said", "asked"),
    [
        ({}, {}, {"do_sample": True, "temperature": 0.7, "max_new_tokens": 60}),
        ({"do_sample": False}, {}, {"do_sample": False, "max_new_tokens": 60}),
        ({"do_sample": False, "temperature": 0.5}, {}, {"do_sample": False, "temperature": 0.5, "max_new_tokens": 60}),
        ({"max_new_tokens": 3}, {"do_sample": True, "temperature": 0.9}, {"max_new_tokens": 3}),
        (
            {"temperature": None, "seed": 5, "min_length": 3},
            {"max_new_tokens": 9},
            {"do_sample": True, "temperature": 0.7, "seed": 5, "max_new_tokens": 9, "min_length": 3},
        ),
        (
            {"top_p": 0.5, "typical_p": 0.4, "suppress_tokens": [3]},
            {"max_length": 30},
            {
                "do_sample": True,
                "temperature": 0.7,
                "top_p": 0.5,
                "typical_p": 0.4,
                "suppress_tokens": [3],
                "max_length": 30,
                "max_new_tokens": None,
            },
        ),
    ],
)
def test_who_says_what(given, options, said, asked):
    pipeline = given(**said)
    pipeline("The river", add_special_tokens=False, **options)
    assert pipeline.runner.asked == [asked]
    pipeline.runner.asked.clear()
    given(options=options, **said)("The river", add_special_tokens=False)


def test_a_configuration_takes_the_place_of_what_the_task_does(given):
    pipeline = given(do_sample=True)
    own = GenerationConfig(max_new_tokens=4, num_beams=2)
    pipeline("a", generation_config=own, length_penalty=2.0)
    assert pipeline.runner.asked == [{"generation_config": own, "length_penalty": 2.0, "max_new_tokens": 4}]
    with pytest.raises(InputError, match="generation_config must be a GenerationConfig, received a dict"):
        pipeline("a", generation_config={"num_beams": 2})


def test_a_configuration_of_another_library_is_taken(given):
    theirs = SimpleNamespace(to_dict=lambda: {"max_new_tokens": 4, "num_beams": 2})
    pipeline = given()
    pipeline("a", generation_config=theirs)
    own = GenerationConfig(max_new_tokens=4, num_beams=2)
    assert pipeline.runner.asked == [{"generation_config": own, "max_new_tokens": 4}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 4, "generate_kwargs": {"max_new_tokens": 2}}, "max_new_tokens=4 and generate_kwargs={'max"),
        (
            {"typical_p": 0.9, "generate_kwargs": {"typical_p": 0.8}},
            "typical_p=0.9 and generate_kwargs={'typ.*leave one",
        ),
        ({"generate_kwargs": 3}, "generate_kwargs must be a dictionary, received an int"),
    ],
)
def test_one_thing_is_said_once(given, options, message):
    with pytest.raises(InputError, match=message):
        given()("a", **options)
    with pytest.raises(InputError, match=message):
        given(options=options)


def test_a_call_goes_before_what_the_pipeline_says_otherwise(given):
    pipeline = given(options={"generate_kwargs": {"max_new_tokens": 2, "num_beams": 3}, "do_sample": False})
    pipeline("a", max_new_tokens=4)
    pipeline("a", max_new_tokens=4, generate_kwargs={"max_new_tokens": 4})
    pipeline("a", max_new_tokens=4, generate_kwargs={"max_new_tokens": None})
    assert [one["max_new_tokens"] for one in pipeline.runner.asked] == [4, 4, 4]
    assert [one.get("num_beams") for one in pipeline.runner.asked] == [3, None, None]


def test_a_least_length_of_a_call_goes_before_new_tokens_of_the_model(given):
    pipeline = given(min_new_tokens=2)
    pipeline("The river", min_length=8, max_new_tokens=4, do_sample=False)
    assert pipeline.runner.asked == [{"do_sample": False, "min_length": 8, "max_new_tokens": 4}]


def test_a_text_at_which_an_answer_ends(given):
    pipeline = given()
    pipeline("a", stop_sequence=".", max_new_tokens=4, do_sample=False)
    pipeline("a", stop_sequence=["x", "y"], stop_strings="z", max_new_tokens=4, do_sample=False)
    first, second = pipeline.runner.asked
    assert first["stop_strings"] == ["."] and second["stop_strings"] == ["x", "y", "z"]
    assert first["tokenizer"] is pipeline.tokenizer


def test_arguments_of_generate_are_options_of_the_pipeline_too(given):
    hook = [lambda ids, scores: scores]
    pipeline = given(options={"logits_processor": hook, "bad_words_ids": [[5]], "max_new_tokens": 2})
    pipeline("a", bad_words_ids=[[6]], use_cache=None)
    (asked,) = pipeline.runner.asked
    assert asked["logits_processor"] is hook and asked["bad_words_ids"] == [[6]] and "use_cache" not in asked


def test_sampling_begins_with_its_seed(writes):
    drawn = [writes("The river", do_sample=True, max_new_tokens=12, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_new_token": 3}, InputError, "did you mean 'max_new_tokens'"),
        ({"supress_tokens": [3]}, InputError, "did you mean 'suppress_tokens'"),
        ({"do_sample": "yes"}, InputError, "do_sample must be True or False, received 'yes'"),
        ({"max_new_tokens": 0}, InputError, "max_new_tokens must be an integer of at least 1"),
        ({"length_penalty": "long"}, InputError, "length_penalty must be a number, received 'long'"),
        ({"temperature": 0.0}, ConfigError, "temperature must be a number above 0"),
        ({"early_stopping": "soon"}, ConfigError, "early_stopping must be"),
        ({"position_numbering": "one"}, InputError, "must be one of 'model', 'zero_based'"),
        ({"on_overflow": "window"}, InputError, "on_overflow must be 'error' or 'truncate', received 'window'"),
        ({"handle_long_generation": "gap"}, InputError, "must be one of 'hole', received 'gap'"),
        ({"tools": ["x"]}, InputError, "tools must be None.*no template for chats"),
        ({"return_full_text": True, "return_tensors": True}, InputError, "return_full_text and return_tensors; leave"),
        ({"return_text": True, "return_tensors": True}, InputError, "return_text and return_tensors; leave one out"),
        ({"tokenizer_encode_kwargs": {"return_tensors": "pt"}}, InputError, "cannot set return_tensors"),
        ({"max_length": 12}, InputError, "max_length=12 counts the tokens of the text too.*pass max_new_tokens"),
    ],
)
def test_options_that_make_no_sense(given, options, error, message):
    with pytest.raises(error, match=message):
        given()("a", **options)


def test_options_are_checked_before_there_is_a_text(given):
    with pytest.raises(ConfigError, match="num_beams must be"):
        given(options={"generate_kwargs": {"num_beams": 0}}).check_options()


def test_what_failed_before_it_began_shows_nothing():
    pieces = []
    AnswerStreamer(str, pieces.append).end()
    assert pieces == []


# ---- How long


def test_an_answer_that_nobody_gave_a_length_ends_where_the_model_does(writes):
    long = "The river " * 10
    for text in ("The river", long):
        (answer,) = writes(text, return_tensors=True, eos_token_id=1001)
        assert len(answer["generated_token_ids"]) == 65  # the last one has no position, and needs none
    assert writes([long, "The river"]) == [writes(long), writes("The river")]


LONG = "In the spring of 1921 Clara Novak left Prague for Vienna with two suitcases and a violin. " * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"max_new_tokens": 8},
            "at most 65 tokens.*received 116 and 8 that are to be written; shorten the text 'In",
        ),
        ({}, "received 116 and 1 that are"),
        ({"generation_config": GenerationConfig(max_length=20)}, "fewer tokens than the 20 that a text and its answer"),
        ({"max_new_tokens": 65, "on_overflow": "truncate"}, "received 5 and 65"),
    ],
)
def test_a_text_that_leaves_no_room_is_refused(writes, options, message):
    with pytest.raises(InputError, match=message) as error:
        writes(["short", LONG], **options)
    assert "(index " in str(error.value) and "handle_long_generation='hole'" in str(error.value)


def test_an_answer_that_is_too_long_by_a_little_says_by_how_much(writes):
    with pytest.raises(InputError, match="write fewer with max_new_tokens=60"):
        writes("The river", max_new_tokens=61)
    assert writes("The river", max_new_tokens=60)


def test_the_beginning_of_a_text_may_be_left_out(writes, caplog):
    ids = writes.tokenizer(LONG, add_special_tokens=False, verbose=False)["input_ids"]
    (answer,) = writes(LONG, on_overflow="truncate", return_tensors=True)
    assert answer["generated_token_ids"][:32] == ids[-32:], "half of the room where nobody says how much is written"
    for how in ({"handle_long_generation": "hole"}, {"on_overflow": "truncate"}):
        (answer,) = writes(LONG, max_new_tokens=10, return_tensors=True, **how)
        assert answer["generated_token_ids"][:54] == ids[-54:] and writes.truncated == [0]
    assert not caplog.records
    (kept,) = writes("The river", max_new_tokens=60, return_tensors=True, handle_long_generation="hole")
    assert kept["generated_token_ids"][:4] == [4, 18, 9, 225]
    whole = writes(LONG, max_new_tokens=10, handle_long_generation="hole")[0]["generated_text"]
    assert whole.startswith(LONG)


def test_the_end_of_a_text_may_be_cut(writes, caplog):
    ids = writes.tokenizer(LONG, add_special_tokens=False, verbose=False)["input_ids"]
    for how, kept in (({"truncation": True}, 55), ({"max_length": 12}, 12), ({"truncation": True, "max_length": 9}, 9)):
        (answer,) = writes(LONG, max_new_tokens=10, return_tensors=True, **how)
        assert answer["generated_token_ids"][:kept] == ids[:kept] and len(answer["generated_token_ids"]) == kept + 10
        assert writes.truncated == [0]
    assert "truncated" in caplog.text


# ---- What comes in and out


def test_a_chat_is_refused(writes):
    chat = [{"role": "user", "content": "Hello"}]
    for given in (chat, [chat, chat]):
        with pytest.raises(InputError, match="received a chat .*no template for chats; pass one text"):
            writes(given)
    with pytest.raises(InputError, match="expected texts, received int 5"):
        writes([5])


def test_the_text_by_its_published_name_and_what_changes_nothing(writes):
    usual = writes("The river", max_new_tokens=3)
    assert writes(text_inputs="The river", max_new_tokens=3, padding=True, return_text=True, num_workers=2) == usual
    assert writes("The river", max_new_tokens=3, continue_final_message=None) == usual


def test_what_comes_back_may_be_said_anew_in_a_call(given):
    pipeline = given(options={"return_tensors": True, "add_special_tokens": False, "max_new_tokens": 2})
    assert list(pipeline("a")[0]) == ["generated_token_ids"]
    assert pipeline("a", return_full_text=False) == [{"generated_text": " woя"}]
    assert pipeline("a", return_text=True)[0]["generated_text"] == "a woя"


def test_special_tokens_may_stay(given):
    options = {"skip_special_tokens": False, "max_new_tokens": 2}
    assert given([[336, 2]])("a", **options) == [{"generated_text": "a wo</s>"}]


def test_spaces_before_punctuation(given, tokenizer):
    ids = tokenizer(" . x", add_special_tokens=False)["input_ids"]
    pipeline = given([ids], {"add_special_tokens": False})
    clean, kept = (pipeline("a", clean_up_tokenization_spaces=way)[0]["generated_text"] for way in (True, False))
    assert (clean, kept) == ("a. x", "a . x") and pipeline("a")[0]["generated_text"] == clean


def test_an_empty_text_begins_with_a_token(given):
    pipeline = given()
    assert pipeline("", add_special_tokens=False) == [{"generated_text": "woя"}]
    assert pipeline.runner.batches == [[[0]]]
    (answer,) = pipeline("", add_special_tokens=False, return_tensors=True)
    assert answer == {"generated_token_ids": [0, 336, 62]}


def test_special_tokens_around_a_text(given):
    pipeline = given(options={"max_new_tokens": 2})
    ids = pipeline.tokenizer("a", add_special_tokens=False)["input_ids"]
    around = {None: [0, *ids, 2], "both": [0, *ids, 2], "start": [0, *ids], "none": ids}
    for way, row in around.items():
        assert pipeline("a", special_tokens=way) == [{"generated_text": "a woя"}]
        assert pipeline.runner.batches.pop() == [row]
    pipeline("a", add_special_tokens=True)
    assert pipeline.runner.batches.pop() == [around["both"]]
    started = given(options={"max_new_tokens": 20, "special_tokens": "start", "prefix": "a "})
    (answer,) = started(LONG, handle_long_generation="hole", return_tensors=True)
    whole = started.tokenizer(f"a {LONG}", add_special_tokens=False, verbose=False)["input_ids"]
    assert answer["generated_token_ids"][:44] == [0, *whole[-43:]] and started.truncated == [0]
    (answer,) = started(LONG, truncation=True, return_tensors=True)
    assert answer["generated_token_ids"][:45] == [0, *whole[:44]]
    assert started("", add_special_tokens=False, prefix="") and started.runner.batches.pop() == [[0]]
    with pytest.raises(InputError, match="special_tokens or add_special_tokens, received both; leave one out"):
        pipeline("a", special_tokens="none", add_special_tokens=False)


def test_an_encoder_is_told_apart(folder, tokenizer):
    config = AutoConfig.from_pretrained(folder, is_decoder=False)
    with pytest.warns(LoadWarning, match="reads in both directions, is_decoder is False"):
        Pipeline(TASK, Given([[5]], config), tokenizer)


def test_a_tokenizer_without_a_token_to_begin_with(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.bos_token = None
    with pytest.raises(InputError, match="bos_token is None; pass texts with tokens"):
        Pipeline(TASK, Given([[5]], reference(folder).config), tokenizer, **GREEDY)("")


# ---- As it comes


@pytest.mark.parametrize("ids", [[336, 62, 979, 336], [778, 778], [4, 18, 9, 225, 933], [], [36, 12, 4, 5]])
@pytest.mark.parametrize("clean", [True, False])
def test_pieces_make_the_whole(tokenizer, ids, clean):
    def decode(ids):
        return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=clean)

    prompt, pieces = tokenizer("The river", add_special_tokens=False)["input_ids"], []
    streamer = AnswerStreamer(decode, pieces.append, "The river")
    streamer.put(np.array([prompt]))
    for token in ids:
        streamer.put(np.array([token]))
    streamer.end()
    assert "".join(pieces) == "  The river" + decode(prompt + ids)[len(decode(prompt)) :]
    assert pieces[0] == "  The river"


def test_words_come_as_soon_as_they_are_whole(tokenizer):
    pieces = []
    streamer = AnswerStreamer(tokenizer.decode, pieces.append)
    streamer.put([[]])
    for text in ("今", "天"):
        streamer.put(tokenizer(text, add_special_tokens=False)["input_ids"][-1:])
    assert len("".join(pieces).strip()) == 2


def test_a_streamer_of_the_users_takes_texts_one_by_one(writes):
    seen = []
    streamer = SimpleNamespace(put=lambda ids: seen.append(np.ravel(ids).tolist()), end=lambda: seen.append("end"))
    answers = writes(["The river", "今天的"], streamer=streamer, max_new_tokens=2)
    assert answers == writes(["The river", "今天的"], max_new_tokens=2)
    assert [one for one in seen if one == "end" or len(one) > 1].count("end") == 2 and len(seen) == 8


@pytest.fixture
def commanded(monkeypatch, folder, tokenizer):
    """``xlmr run`` on the reference."""

    def pipeline(task, *, model, device, dtype, progress, **options):
        return Pipeline(task, Reference(reference(folder)), tokenizer, **options)

    monkeypatch.setattr(run, "load_backend", lambda name: SimpleNamespace(pipeline=pipeline))
    monkeypatch.setattr("xlmr_core.backends.installed", lambda name: True)
    return ["run", "--task", TASK, "--model", "m", "--no-do-sample", "--special-tokens", "none"]


def test_one_text_on_a_terminal_is_shown_as_it_comes(commanded, capsys, monkeypatch):
    words = [*commanded, "--max-new-tokens", "8", "--position-numbering", "zero_based", "Вчера мы"]
    assert cli.main(words) == 0
    whole = capsys.readouterr().out
    assert whole.startswith("Вчера мы\n  Вчера мы wo") and whole.endswith("\n\n")
    monkeypatch.setattr("sys.stdout", Terminal())

    def shown(*more):
        sys.stdout.pieces.clear()
        assert cli.main([*words[:-1], *more, words[-1]]) == 0
        return sys.stdout.pieces

    assert "".join(shown()) == whole and len(sys.stdout.pieces) > 3
    assert "".join(shown("--no-return-full-text")) == whole.replace("\n  Вчера мы", "\n  ")
    assert len(shown("--num-beams", "2")) == len(shown("The river")) - 1 == len(shown("--format", "json")) == 1
    sys.stdout.pieces.clear()
    assert cli.main([*words[:-1], LONG * 2]) == 2 and sys.stdout.pieces == []
    assert "line 1: expected at most 67 tokens of a text" in capsys.readouterr().err


class Terminal(io.StringIO):
    """A terminal, and what is written to it piece by piece."""

    def __init__(self):
        super().__init__()
        self.pieces = []

    def isatty(self):
        return True

    def write(self, text):
        self.pieces.append(text)


def test_a_job_over_a_file(commanded, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.txt").write_text(f"The river\n{LONG}\n今天的\n", encoding="utf-8")
    words = [*commanded, "--max-new-tokens", "4", "--num-beams", "2", "--num-return-sequences", "2"]
    assert cli.main([*words, "--input", "texts.txt", "--output", "out.jsonl"]) == 2
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [len(row.get("answer", ())) for row in rows] == [2, 0, 2] and "at most 65 tokens" in rows[1]["error"]
    assert rows[0]["answer"][0]["generated_text"].startswith("The river")
    assert cli.main([*words, "--input", "texts.txt", "--output", "out.csv", "--seed", "3"]) == 2
    table = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()
    assert "generated_text" in table[0] and len(table) == 1 + 2 + 1 + 2


def test_options_are_settled_once(writes):
    task = writes._task
    settled = task.prepare(replace(writes.options, max_new_tokens=3))
    assert settled.asked.new == 3 and not settled.asked.usual
