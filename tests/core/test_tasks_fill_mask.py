"""Fill-mask without a framework: the recorded calls on the NumPy reference, then each rule on hand-made logits."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from tests.recorded_calls import assert_same, read_calls
from xlmr_core import reference
from xlmr_core.checkpoint import open_checkpoint
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.tasks.fill_mask import FillMask, FillMaskOptions, rank, target_ids
from xlmr_core.tasks.pipeline import Pipeline
from xlmr_core.tokenization import AutoTokenizer

MASK, PAD, EOS = 1001, 1, 2


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "fixtures" / "tasks" / "fill_mask"


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def calls(folder):
    calls = read_calls(folder)
    assert len(calls) == 50
    return calls


class Runner:
    """Runs a function of ids (B, S), attention mask (B, S) and masked positions (B, P) that gives logits (B, P, V)."""

    model = device = None
    config = SimpleNamespace(max_tokens=64)

    def __init__(self, forward):
        self.forward = forward

    def run(self, arrays, wanted):
        assert list(wanted) == ["logits"]
        return {"logits": self.forward(**arrays)}


@pytest.fixture(scope="module")
def reference_forward(folder):
    config = XLMRobertaConfig.from_pretrained(folder)
    with open_checkpoint(folder) as checkpoint:
        params = {name: checkpoint.tensor(name).to_numpy() for name in checkpoint.names}

    def forward(input_ids, attention_mask, masked_positions):
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "masked_positions": masked_positions}
        return reference.forward(config, "ForMaskedLM", params, **inputs).logits

    return forward


@pytest.mark.parametrize("number", range(50))
def test_recorded_call(number, calls, tokenizer, reference_forward):
    call = calls[number]
    fill = Pipeline("fill-mask", Runner(reference_forward), tokenizer, **call["kwargs_init"])
    if isinstance(call["output"], dict):
        with pytest.raises(InputError, match="expected|top_k"):
            fill(*call["args"], **call["kwargs_call"])
    else:
        assert_same(fill(*call["args"], **call["kwargs_call"]), call["output"])


@pytest.fixture
def seen():
    """What the fake model below was called with."""
    return []


@pytest.fixture
def forward(seen):
    """Logits that prefer the id 10 + (position of the mask), then the one after it."""

    def forward(input_ids, attention_mask, masked_positions):
        seen.append((input_ids, attention_mask, masked_positions))
        logits_BPV = np.zeros((*masked_positions.shape, 1002), np.float32)
        for place, position in np.ndenumerate(masked_positions):
            if position >= 0:
                logits_BPV[place][[10 + position, 11 + position]] = 9.0, 8.0
        return logits_BPV

    return forward


def best(answer):
    return [candidate["token"] for candidate in answer]


@pytest.fixture
def make(tokenizer, forward):
    """Makes a pipeline with options on the fake model."""
    return lambda **options: Pipeline("fill-mask", Runner(forward), tokenizer, **options)


def test_a_batch_is_padded_on_the_right_and_sorted_by_length(make, tokenizer, seen):
    texts = ["<mask>", "a <mask> b c <mask>", "the <mask>"]
    answers = make(batch_size=2, top_k=2)(texts)
    (ids, attention, masks), (last_ids, _, last_masks) = seen
    assert ids[0].tolist() == tokenizer(texts[1])["input_ids"]
    assert ids[1].tolist() == [0, 17, MASK, EOS] + [PAD] * (len(ids[0]) - 4)
    assert attention[1].tolist() == [1, 1, 1, 1] + [0] * (len(ids[0]) - 4)
    assert masks.tolist() == [np.flatnonzero(ids[0] == MASK).tolist(), [2, -1]]
    assert last_ids.tolist() == [[0, MASK, EOS]]
    assert last_masks.tolist() == [[1]]
    assert best(answers[0]) == [11, 12]
    assert [best(mask) for mask in answers[1]] == [[10 + p, 11 + p] for p in masks[0]]
    assert best(answers[2]) == [12, 13]


@pytest.mark.parametrize("texts", ["the <mask>", ["the <mask>"], ("the <mask>",)])
def test_a_list_of_one_text_is_answered_like_the_text(make, texts):
    assert best(make(top_k=1)(texts)) == [12]


class Numbered:
    """A data set as PyTorch's: items by number, and no ``__iter__``."""

    texts = ("<mask>", "the <mask>", "<mask> a")

    def __getitem__(self, number):
        return self.texts[number]


class Computed(Numbered):
    """One whose items do not end by themselves."""

    def __len__(self):
        return 3

    def __getitem__(self, number):
        return self.texts[number % 3]


@pytest.mark.parametrize(
    "stream", [Numbered(), Computed(), (text for text in Numbered.texts), dict.fromkeys(Numbered.texts).keys()]
)
def test_a_stream_is_answered_as_it_comes(make, seen, stream):
    answers = make(batch_size=2, top_k=1)(stream, num_workers=4)
    assert seen == []
    assert best(next(answers)) == [11]
    assert len(seen) == 1 and len(seen[0][0]) == 2
    assert [best(answer) for answer in answers] == [[12], [11]]


def test_a_stream_names_its_mistakes_where_they_come(make):
    with pytest.raises(InputError, match="takes the options"):
        make()(iter(["<mask>"]), topk=3)
    answers = make()(iter(["<mask>", "no blank", "<mask>"]))
    assert len(next(answers)) == 5
    with pytest.raises(InputError, match="found none"):
        next(answers)


def test_no_text_no_call(make, seen):
    assert make()([]) == []
    assert seen == []


def test_options_of_a_call_win_over_those_of_the_pipeline_and_do_not_stay(make):
    fill = make(top_k=3)
    assert len(fill("<mask>", top_k=1)) == 1
    assert len(fill("<mask>")) == 3
    assert len(fill("<mask>", top_k=None)) == 3


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ("no blank", {}, "at least one <mask>, found none.*'no blank'"),
        (["<mask>", "no blank"], {}, r"found none.*'no blank' \(index 1\)"),
        ("x " * 80 + "<mask>", {}, r"at most 64 tokens.*received 163.*on_overflow='truncate'"),
        (
            "x " * 80 + "<mask>",
            {"tokenizer_kwargs": {"truncation": True}},
            "truncation cut it off.*'x x x .*\\.\\.\\.'",
        ),
        (["the <mask>", None], {}, "expected texts, received NoneType None at index 1"),
        (7, {}, "expected a text, a list of texts or an iterable of them, received int"),
        ({"text": "<mask>"}, {}, "an iterable of them, received dict"),
        (b"<mask>", {}, "an iterable of them, received bytes"),
        ("<mask>", {"feature_extractor": 3}, "feature_extractor must be None, received 3"),
        ("<mask>", {"top_k": 0}, "top_k must be an integer of at least 1, received 0"),
        ("<mask>", {"top_k": True}, "top_k .* received True"),
        ("<mask>", {"top_k": 1003}, "top_k must be at most 1002"),
        ("<mask>", {"batch_size": -1}, "batch_size must be an integer of at least 1"),
        ("<mask>", {"topk": 3}, "takes the options top_k, .*received topk"),
        ("<mask>", {"targets": []}, "at least one target"),
        ("<mask>", {"targets": [3]}, "targets must be tokens or words, received int 3"),
        (
            "<mask>",
            {"tokenizer_kwargs": {"return_tensors": "np"}},
            "tokenizer cannot set return_tensors",
        ),
    ],
)
def test_mistakes_are_named(make, inputs, options, message):
    with pytest.raises(InputError, match=message):
        make()(inputs, **options)


def test_a_call_is_about_one_argument(make):
    assert make()(inputs="<mask>") == make()("<mask>")
    for wrong in ((), ("<mask>", 3)):
        with pytest.raises(InputError, match="expected one argument, a text or several, received [02]"):
            make()(*wrong)


def test_a_long_text_is_read_around_each_mask(make, tokenizer, seen):
    text = " ".join(["a <mask> b", *"x" * 80, "<mask> c", *"y" * 80, "d <mask>"])
    ids = tokenizer(text, verbose=False)["input_ids"]
    answers = make(top_k=1, batch_size=4)([text, "<mask>"], on_overflow="window")
    middle = np.flatnonzero(np.array(ids) == MASK)[1]
    (rows, _, positions) = seen[0]
    windows = [[*ids[:63], EOS], [0, *ids[middle - 30 : middle + 32], EOS], [0, *ids[-63:]]]
    assert rows.shape == (4, 64) and rows[:3].tolist() == windows and positions.shape == (4, 1)
    assert [best(mask) for mask in answers[0]] == [[12], [41], [72]] and best(answers[1]) == [11]
    assert answers[0][0][0]["sequence"] == tokenizer.decode([*ids[:2], 12, *ids[3:]])
    pieces = make(top_k=1)(text, on_overflow="window", targets=["lighthouse"], multi_token_targets=True)
    count = len(tokenizer("lighthouse", add_special_tokens=False)["input_ids"])
    assert count > 1 and [len(mask[0]["token"]) for mask in pieces] == [count] * 3
    assert seen[-1][0].shape == (3, 64) and (seen[-1][0] == MASK).sum() == 3 * count


def test_logits_that_are_not_finite_are_refused(tokenizer):
    def forward(**arrays):
        return np.full((1, 1, 1002), np.nan, np.float16)

    with pytest.raises(InputError, match="finite logits, the model gave nan"):
        Pipeline("fill-mask", Runner(forward), tokenizer)("<mask>")


@pytest.mark.parametrize(
    ("targets", "expected", "warning"),
    [
        ("▁the", [17], None),
        (["▁the", "▁de", "▁the"], [17, 23], None),
        ("<unk>", [3], None),
        (["lighthouse"], [126], "'lighthouse' is no piece"),
        (["", "▁the"], [17], "'' has no tokens"),
    ],
)
def test_targets(tokenizer, caplog, targets, expected, warning):
    with caplog.at_level(logging.WARNING, "xlmr_core.tasks"):
        assert target_ids(tokenizer, targets).tolist() == expected
    assert len(caplog.records) == (warning is not None)
    assert (warning or "") in caplog.text


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_rank_is_a_softmax(dtype):
    logits = np.array([1.0, 3.0, 2.0, -100.0], dtype)
    ranked = list(rank(logits, 4))
    exact = np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum()
    assert [token for token, _ in ranked] == [1, 2, 0, 3]
    np.testing.assert_allclose([score for _, score in ranked], exact[[1, 2, 0, 3]], atol=1e-6)


@pytest.mark.parametrize(("top_k", "expected"), [(1, [1]), (2, [1, 3]), (3, [1, 3, 4]), (5, [1, 3, 4, 0, 2])])
def test_rank_decides_ties_by_id(top_k, expected):
    assert [token for token, _ in rank(np.array([0.0, 5, 0, 5, 5], np.float32), top_k)] == expected


def test_rank_among_targets_keeps_probabilities_of_the_whole_vocabulary():
    everything = dict(rank(np.array([1.0, 3, 2, 0], np.float32), 4))
    among = list(rank(np.array([1.0, 3, 2, 0], np.float32), 9, np.array([3, 0])))
    assert among == [(0, everything[0]), (3, everything[3])]


def test_rank_survives_large_logits():
    assert list(rank(np.array([5e4, 0.0], np.float32), 1)) == [(0, 1.0)]


@pytest.mark.parametrize(
    ("targets", "tokens", "warnings"), [("▁the", [17], 0), (["▁de", "lighthouse", "▁de"], [23, 126], 1)]
)
def test_targets_of_a_call_are_looked_up_once(make, caplog, targets, tokens, warnings):
    with caplog.at_level(logging.WARNING, "xlmr_core.tasks"):
        answers = make(top_k=9)(["<mask>", "the <mask>", "<mask>"], targets=targets)
    assert [sorted(best(answer)) for answer in answers] == [tokens] * 3
    assert len(caplog.records) == warnings


def test_a_tokenizer_without_a_mask_is_refused(forward):
    with pytest.raises(InputError, match="needs a tokenizer with a mask token"):
        Pipeline("fill-mask", Runner(forward), SimpleNamespace(mask_token_id=None))


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        ("energy", "energy"),
        ("能量", "能量"),
        ("طاقة", "طاقة"),
        ("", "''"),
        (" ", "' '"),
        ("\u200b", "'\\u200b'"),
        ("\n", "'\\n'"),
    ],
)
def test_a_token_that_would_not_be_seen_is_quoted(tokenizer, token, shown):
    task = FillMask(tokenizer, Runner.config)
    assert task.text([{"score": 0.25, "token_str": token}]) == f"  0.2500  {shown}"


def test_several_masks_are_printed_with_their_numbers(tokenizer):
    candidates = [{"score": 0.25, "token_str": "a"}]
    task = FillMask(tokenizer, Runner.config)
    assert task.text([candidates] * 2) == "  <mask> 1\n  0.2500  a\n  <mask> 2\n  0.2500  a"


def test_options_can_be_made_by_name_and_by_position():
    options = FillMaskOptions(3, "a", batch_size=2)
    assert (options.top_k, options.targets, options.tokenizer_kwargs, options.batch_size) == (3, "a", None, 2)
