"""The common surface of both tokenizer classes, on a small model trained here."""

from __future__ import annotations

import copy
import logging
import pickle
import random
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core.tokenization_models import MIXED, TEXTS, small_model
from xlmr_core.errors import TokenizerError
from xlmr_core.tokenization import (
    AddedToken,
    CharSpan,
    PreTrainedTokenizerBase,
    TokenSpan,
    XLMRobertaTokenizer,
    XLMRobertaTokenizerFast,
)
from xlmr_core.tokenization.finder import TokenFinder

CLASSES = [XLMRobertaTokenizer, XLMRobertaTokenizerFast]


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "sentencepiece.bpe.model"
    path.write_bytes(small_model())
    return path


@pytest.fixture(params=CLASSES, ids=["slow", "fast"])
def tokenizer(request: pytest.FixtureRequest, model_file: Path) -> PreTrainedTokenizerBase:
    return request.param(model_file)  # type: ignore[no-any-return]


@pytest.fixture
def slow(model_file: Path) -> XLMRobertaTokenizer:
    return XLMRobertaTokenizer(model_file)


@pytest.fixture
def fast(model_file: Path) -> XLMRobertaTokenizerFast:
    return XLMRobertaTokenizerFast(model_file)


def test_ids_follow_fairseq(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) == ["<s>", "<pad>", "</s>", "<unk>"]
    assert tokenizer.mask_token_id == len(tokenizer) - 1 == tokenizer.vocab_size - 1 == 121
    assert tokenizer("")["input_ids"] == [0, 2]
    assert tokenizer([("", "")])["input_ids"] == [[0, 2, 2, 2]]
    assert tokenizer.convert_tokens_to_ids(["<s>", "no such piece", "<mask>"]) == [0, 3, 121]
    assert tokenizer.get_vocab()["<mask>"] == 121
    assert len(tokenizer.get_vocab()) == len(tokenizer)


@pytest.mark.parametrize("name", ["bos", "eos", "unk", "sep", "pad", "cls", "mask"])
def test_special_token_attributes(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    token = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>"}.get(name, f"<{name}>")
    assert getattr(tokenizer, f"{name}_token") == token
    assert getattr(tokenizer, f"{name}_token_id") == tokenizer.convert_tokens_to_ids(token)
    setattr(tokenizer, f"{name}_token", None)
    assert getattr(tokenizer, f"{name}_token") is None
    assert getattr(tokenizer, f"{name}_token_id") is None
    setattr(tokenizer, f"{name}_token_id", 4)
    assert getattr(tokenizer, f"{name}_token") == tokenizer.convert_ids_to_tokens(4)


def test_lists_of_special_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.all_special_tokens == ["<s>", "</s>", "<unk>", "<pad>", "<mask>"]
    assert tokenizer.all_special_ids == [0, 2, 3, 1, 121]
    assert tokenizer.special_tokens_map["mask_token"] == "<mask>"
    assert tokenizer.additional_special_tokens == []
    with pytest.raises(AttributeError, match="no_such"):
        _ = tokenizer.no_such


def test_adding_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.add_tokens(["<new>", "<new>", "<s>", ""]) == 1
    assert tokenizer.add_tokens("<new>") == 0
    assert tokenizer.add_special_tokens({"additional_special_tokens": ["<q>", AddedToken("<a>", lstrip=True)]}) == 2
    assert tokenizer.add_special_tokens({"pad_token": "[PAD]"}) == 1
    assert len(tokenizer) == tokenizer.vocab_size + 4
    assert (tokenizer.pad_token_id, tokenizer.additional_special_tokens_ids) == (125, [123, 124])
    assert tokenizer("x <new>y<q>", add_special_tokens=False)["input_ids"][-1] == 123
    assert tokenizer.tokenize("Paris  <a>")[-1].strip() == "<a>"
    assert {"<new>": 122, "<q>": 123}.items() <= tokenizer.get_added_vocab().items()
    assert tokenizer.added_tokens_decoder[124].lstrip
    ids = tokenizer.encode("Paris<q>", add_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "Paris"
    assert tokenizer(["", "a"], padding=True)["input_ids"][0][-1] == 125


def test_additional_special_tokens_replace_or_extend(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.add_special_tokens({"additional_special_tokens": ["<a>"]})
    tokenizer.add_special_tokens({"additional_special_tokens": ["<b>"]}, replace_additional_special_tokens=False)
    assert tokenizer.additional_special_tokens == ["<a>", "<b>"]
    tokenizer.add_special_tokens({"additional_special_tokens": ["<c>"]})
    assert tokenizer.additional_special_tokens == ["<c>"]


@pytest.mark.parametrize("special", [False, True])
def test_a_str_leaves_the_flags_of_a_known_token(slow: XLMRobertaTokenizer, special: bool) -> None:
    slow.add_tokens(AddedToken("<a>", rstrip=True))
    before = slow.added_tokens_decoder
    assert slow.add_tokens(["<mask>", "<a>", "</s>"], special_tokens=special) == 0
    assert slow.added_tokens_decoder == before
    assert slow.additional_special_tokens == []
    slow.add_tokens(AddedToken("<a>", lstrip=True))
    assert slow.added_tokens_decoder[122].lstrip


@pytest.mark.parametrize("strips", [{}, {"lstrip": True}, {"rstrip": True}, {"lstrip": True, "rstrip": True}], ids=str)
@pytest.mark.parametrize(
    ("text", "found"),
    [
        *((text, True) for text in ("ab <x> cd", "ab  <x>  cd", "<x> cd", "ab <x>", "<x>")),
        *((text, False) for text in ("ab<x> cd", "ab <x>cd", "ab<x>", "<x>cd", "ab\t<x> cd")),
    ],
)
def test_a_single_word_is_one_before_white_space_is_taken(
    slow: XLMRobertaTokenizer, strips: dict[str, bool], text: str, found: bool
) -> None:
    slow.add_tokens(AddedToken("<x>", single_word=True, **strips))
    assert ("<x>" in slow.tokenize(text)) is found
    if found:
        before, after = text.split("<x>")
        before = before.rstrip() if strips.get("lstrip") else before
        after = after.lstrip() if strips.get("rstrip") else after
        parts = [part for part, _, _ in slow._split(text, False)]
        assert parts == [part for part in (before, "<x>", after) if part]


@pytest.mark.parametrize("count", [0, 3, 500])
def test_tokens_are_found_leftmost_and_longest(count: int) -> None:
    generator = random.Random(count)
    letters = "ab<^-]é"
    tokens = {"".join(generator.choices(letters, k=generator.randrange(1, 7))) for _ in range(count)}
    longest_first = "|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or "(?!)"
    for _ in range(200):
        text = "".join(generator.choices(letters + " ", k=60))
        expected = [(match.start(), match[0]) for match in re.finditer(longest_first, text)]
        assert list(TokenFinder(tokens).find(text)) == expected


@pytest.mark.slow
def test_ten_thousand_added_tokens(slow: XLMRobertaTokenizer, tmp_path: Path) -> None:
    """Adding and loading them, and calls and decoding with them, take a fraction of a second; the bounds leave room."""
    generator = random.Random(0)
    tokens = ["".join(generator.choices("abcdefghijklmnopqrstuvwxyz", k=9)) for _ in range(10_000)]
    started = time.process_time()
    slow.add_tokens(tokens)
    slow.save_pretrained(tmp_path)
    again = XLMRobertaTokenizer.from_pretrained(tmp_path)
    assert time.process_time() - started < 3
    started = time.process_time()
    ids = again(TEXTS * 50)["input_ids"]
    again.batch_decode(ids)
    assert time.process_time() - started < 1
    assert again.convert_tokens_to_ids(tokens[7]) in again(f"a {tokens[7]}")["input_ids"]


def test_stripping_and_single_words(slow: XLMRobertaTokenizer) -> None:
    slow.add_tokens(
        [AddedToken("<r>", rstrip=True), AddedToken("<l>", lstrip=True), AddedToken("cat", single_word=True)]
    )
    assert slow._split("a <r>  b <l> c", False) == [
        ("a ", 0, None),
        ("<r>", 2, 122),
        ("b", 7, None),
        ("<l>", 9, 123),
        (" c", 12, None),
    ]
    assert [part for part, _, _ in slow._split("a cat", False)] == ["a ", "cat"]
    assert [index for _, _, index in slow._split("concatenate", False)] == [None, None]


@pytest.mark.parametrize("split", [True, False])
def test_split_special_tokens(slow: XLMRobertaTokenizer, split: bool) -> None:
    ids = slow(["a <mask> b"], split_special_tokens=split)["input_ids"][0]
    assert (slow.mask_token_id in ids) is not split


@pytest.mark.parametrize("pair", [False, True])
def test_batch_equals_one_by_one(tokenizer: PreTrainedTokenizerBase, pair: bool) -> None:
    pairs = [(text, text[::-1] or "x") if pair else (text, None) for text in MIXED]
    batch = tokenizer(
        [text for text, _ in pairs], [other for _, other in pairs] if pair else None, return_offsets_mapping=True
    )
    for row, (text, other) in enumerate(pairs):
        alone = tokenizer(text, other, return_offsets_mapping=True)
        assert {key: value[row] for key, value in batch.items()} == dict(alone)


def test_threads_change_nothing(slow: XLMRobertaTokenizer) -> None:
    assert slow(MIXED * 4)["input_ids"] == [slow.encode(text) for text in MIXED] * 4


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("multiple", [None, 8])
@pytest.mark.parametrize("padding", [True, "longest", "max_length", False])
def test_padding(tokenizer: PreTrainedTokenizerBase, side: str, multiple: int | None, padding: bool | str) -> None:
    plain = tokenizer(MIXED)["input_ids"]
    encoded = tokenizer(
        MIXED, padding=padding, max_length=200 if padding == "max_length" else None, truncation=False,
        padding_side=side, pad_to_multiple_of=multiple, return_special_tokens_mask=True, return_token_type_ids=True,
        return_offsets_mapping=True,
    )  # fmt: skip
    longest = max(map(len, plain))
    length = {True: longest, "longest": longest, "max_length": 200}.get(padding)
    length = -(-length // 8) * 8 if multiple and length else length
    for row, ids in enumerate(plain):
        fill = 0 if length is None else length - len(ids)
        assert encoded["input_ids"][row] == ([1] * fill + ids if side == "left" else ids + [1] * fill)
        mask = [1] * len(ids)
        assert encoded["attention_mask"][row] == ([0] * fill + mask if side == "left" else mask + [0] * fill)
        assert sum(encoded["special_tokens_mask"][row]) >= fill
        assert len(encoded["offset_mapping"][row]) == len(encoded["token_type_ids"][row]) == len(ids) + fill


def test_pad_takes_lists_arrays_and_encodings(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [tokenizer("a"), tokenizer("Paris is the capital")]
    expected = dict(tokenizer(["a", "Paris is the capital"], padding=True))
    assert dict(tokenizer.pad(rows)) == expected
    assert dict(tokenizer.pad({"input_ids": [row["input_ids"] for row in rows]})) == expected
    arrays = tokenizer.pad(rows, return_tensors="np", pad_to_multiple_of=16)
    assert arrays["input_ids"].shape == (2, 16)
    assert arrays["input_ids"].dtype == np.int64
    assert tokenizer.pad({"input_ids": [0, 2]}, padding="max_length", max_length=4)["input_ids"] == [0, 2, 1, 1]
    assert dict(tokenizer.pad({"input_ids": []})) == {"input_ids": [], "attention_mask": []}


@pytest.mark.parametrize("strategy", ["longest_first", "only_first", "only_second"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_truncating_a_pair(tokenizer: PreTrainedTokenizerBase, strategy: str, side: str) -> None:
    tokenizer.truncation_side = side
    first, second = (tokenizer.encode(text, add_special_tokens=False) for text in (TEXTS[0], TEXTS[6]))
    room = {"longest_first": 20, "only_first": len(second) + 9, "only_second": len(first) + 9}[strategy]
    ids = tokenizer(TEXTS[0], TEXTS[6], truncation=strategy, max_length=room)["input_ids"]
    middle = ids.index(2)
    left, right = ids[1:middle], ids[middle + 2 : -1]
    assert len(ids) == room
    kept = {"only_first": (5, len(second)), "only_second": (len(first), 5), "longest_first": (8, 8)}[strategy]
    assert (len(left), len(right)) == kept
    assert left == (first[-len(left) :] if side == "left" else first[: len(left)])
    assert right == (second[-len(right) :] if side == "left" else second[: len(right)])


def test_windows_cover_the_text(fast: XLMRobertaTokenizerFast) -> None:
    text = " ".join(TEXTS)
    whole = fast.encode(text, add_special_tokens=False)
    windows = fast(text, truncation=True, max_length=12, stride=3, return_overflowing_tokens=True)
    joined = windows["input_ids"][0][1:-1]
    for ids in windows["input_ids"][1:]:
        assert joined[-3:] == ids[1:4]
        joined = joined + ids[4:-1]
    assert joined == whole
    assert windows["overflow_to_sample_mapping"] == [0] * len(windows["input_ids"])


def test_threads_with_other_lengths_do_not_mix(tokenizer: PreTrainedTokenizerBase) -> None:
    def widths(length: int) -> set[int]:
        calls = [tokenizer(TEXTS, truncation=True, padding="max_length", max_length=length) for _ in range(40)]
        return {len(ids) for call in calls for ids in call["input_ids"]}

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(widths, (5, 9, 80))) == [{5}, {9}, {80}]


def test_what_was_cut_off(slow: XLMRobertaTokenizer) -> None:
    whole = slow.encode(TEXTS[0], add_special_tokens=False)
    encoded = slow(TEXTS[0], truncation=True, max_length=10, stride=2, return_overflowing_tokens=True)
    assert encoded["input_ids"][1:-1] == whole[:8]
    assert encoded["overflowing_tokens"] == whole[6:]
    assert encoded["num_truncated_tokens"] == len(whole) - 8


def test_model_max_length_counts(tokenizer: PreTrainedTokenizerBase, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer.model_max_length = 8
    assert len(tokenizer(TEXTS[0], truncation=True)["input_ids"]) == 8
    assert len(tokenizer("a", padding="max_length")["input_ids"]) == 8
    assert tokenizer.max_len_single_sentence == 6
    assert tokenizer.max_len_sentences_pair == 4
    with caplog.at_level(logging.WARNING, "xlmr_core.tokenization"):
        tokenizer(TEXTS[0])
        tokenizer(TEXTS[:3])
    assert len([r for r in caplog.records if "> 8" in r.getMessage()]) == 1


def test_old_argument_names(tokenizer: PreTrainedTokenizerBase, caplog: pytest.LogCaptureFixture) -> None:
    assert len(tokenizer.encode("a", pad_to_max_length=True, max_length=9, truncation=True)) == 9
    assert len(tokenizer.encode(TEXTS[0], truncation_strategy="only_first", max_length=7)) == 7
    with caplog.at_level(logging.WARNING, "xlmr_core.tokenization"):
        assert len(tokenizer.encode(TEXTS[0], max_length=7)) == 7
        tokenizer("a", colour="red")
    assert "colour" in caplog.text
    assert "longest_first" in caplog.text


@pytest.mark.parametrize(
    "call",
    [
        {"max_length": 4},
        {"truncation": True},
        {"padding": "max_length"},
        {"padding": "max_length", "truncation": True},
        {"colour": "red"},
        {"colour": "red", "shade": "dark"},
    ],
    ids=str,
)
def test_advice_is_given_once(
    tokenizer: PreTrainedTokenizerBase, call: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer("a b c d", verbose=False, **call)
    assert not caplog.records
    tokenizer("a b c d", **call)
    said = [record.getMessage() for record in caplog.records]
    assert said
    for _ in range(3):
        tokenizer(["a b c d"], **call)
        tokenizer.encode("a b c d", **call)
    assert [record.getMessage() for record in caplog.records] == said
    assert len(set(said)) == len(said)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("Truncation-not-explicitly-activated", {"max_length": 4}),
        ("Asking-to-truncate-to-max_length", {"truncation": True}),
        ("Asking-to-pad-to-max_length", {"padding": "max_length"}),
    ],
)
def test_advice_is_silenced_by_its_published_name(
    tokenizer: PreTrainedTokenizerBase, name: str, call: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer.deprecation_warnings[name] = True
    tokenizer("a b c d", **call)
    assert not caplog.records


@pytest.mark.parametrize(("padding", "cut"), [(False, True), ("do_not_pad", False), (True, False)])
def test_when_max_length_alone_truncates(tokenizer: PreTrainedTokenizerBase, padding: Any, cut: bool) -> None:
    whole = tokenizer(TEXTS[0])["input_ids"]
    assert tokenizer(TEXTS[0], padding=padding, max_length=5)["input_ids"] == ([*whole[:4], 2] if cut else whole)


def test_what_a_call_returns(tokenizer: PreTrainedTokenizerBase) -> None:
    assert set(tokenizer("a b")) == {"input_ids", "attention_mask"}
    everything = tokenizer(
        ["a b"], return_token_type_ids=True, return_special_tokens_mask=True, return_offsets_mapping=True,
        return_length=True, return_attention_mask=False,
    )  # fmt: skip
    assert set(everything) == {"input_ids", "token_type_ids", "special_tokens_mask", "offset_mapping", "length"}
    assert everything["length"] == [len(everything["input_ids"][0])]
    assert everything["special_tokens_mask"][0][0] == 1
    labelled = tokenizer("a", text_target="b")
    assert labelled["labels"] == tokenizer.encode("b")
    assert tokenizer(text_target="b")["input_ids"] == tokenizer.encode("b")


def test_pre_split_words(tokenizer: PreTrainedTokenizerBase) -> None:
    words = ["Paris", "is", "", "<mask>"]
    one = tokenizer(words, is_split_into_words=True)["input_ids"]
    expected = [i for word in words for i in tokenizer.encode(word, add_special_tokens=False)]
    assert one == [0, *expected, 2]
    batch = tokenizer([words, ["a"]], [["b"], words], is_split_into_words=True)["input_ids"]
    assert batch[0][: len(one)] == one
    assert len(batch) == 2


def test_word_ids_of_words(fast: XLMRobertaTokenizerFast) -> None:
    ids = fast(["Paris", "is", "here"], is_split_into_words=True).word_ids()
    assert (ids[0], ids[-1]) == (None, None)
    assert sorted(set(ids[1:-1])) == [0, 1, 2]


def test_alignment_helpers_agree(fast: XLMRobertaTokenizerFast) -> None:
    text, pair = TEXTS[6], TEXTS[1]
    encoded = fast([text], [pair], return_offsets_mapping=True)
    for token, span in enumerate(encoded["offset_mapping"][0]):
        side = encoded.token_to_sequence(0, token)
        if encoded.sequence_ids(0)[token] is None:
            assert encoded.token_to_chars(0, token) is None
            continue
        assert side == encoded.sequence_ids(0)[token]
        assert encoded.token_to_chars(0, token) == CharSpan(*span)
        word = encoded.token_to_word(0, token)
        assert word == encoded.word_ids(0)[token] == encoded.words(0)[token]
        tokens = encoded.word_to_tokens(0, word, sequence_index=side)
        assert isinstance(tokens, TokenSpan)
        assert tokens.start <= token < tokens.end
        chars = encoded.word_to_chars(0, word, sequence_index=side)
        assert chars.start <= span[0] <= span[1] <= chars.end
        if span[1] > span[0]:
            assert encoded.char_to_word(0, span[1] - 1, sequence_index=side) == word
            found = encoded.char_to_token(0, span[1] - 1, sequence_index=side)
            assert encoded.token_to_chars(0, found).end >= span[1]
    assert encoded[0].ids == encoded["input_ids"][0]
    assert encoded.n_sequences == 2
    assert encoded.token_to_chars(-2) == encoded.token_to_chars(0, len(encoded["input_ids"][0]) - 2)


def test_slow_has_no_alignment(slow: XLMRobertaTokenizer) -> None:
    encoded = slow("a")
    assert encoded.encodings is None
    assert not encoded.is_fast
    with pytest.raises(TokenizerError, match="Fast"):
        encoded.token_to_chars(0)
    with pytest.raises(KeyError, match="slice"):
        _ = encoded[0]


def test_batch_encoding_is_a_dict_with_attributes(tokenizer: PreTrainedTokenizerBase) -> None:
    encoded = tokenizer(["a", "b"])
    assert encoded.input_ids is encoded["input_ids"]
    assert {**encoded} == encoded.data
    assert encoded[:1] == {key: value[:1] for key, value in encoded.items()}
    assert copy.copy(encoded) == encoded
    assert pickle.loads(pickle.dumps(encoded)) == encoded
    encoded["labels"] = [1, 0]
    assert encoded.labels == [1, 0]
    with pytest.raises(AttributeError, match="nothing"):
        _ = encoded.nothing


def test_encode_plus_and_batch_encode_plus(tokenizer: PreTrainedTokenizerBase) -> None:
    assert dict(tokenizer.encode_plus("a", "b")) == dict(tokenizer("a", "b"))
    pairs = [("a", "b"), ("c d", "")]
    assert dict(tokenizer.batch_encode_plus(pairs)) == dict(tokenizer(["a", "c d"], ["b", ""]))
    assert dict(tokenizer.batch_encode_plus(["a", "b c"])) == dict(tokenizer(["a", "b c"]))


def test_from_ids(tokenizer: PreTrainedTokenizerBase) -> None:
    row = tokenizer.prepare_for_model(
        [5, 6, 7], [8, 9], truncation="only_first", max_length=8, return_special_tokens_mask=True
    )
    assert row["input_ids"] == [0, 5, 6, 2, 2, 8, 9, 2]
    assert row["special_tokens_mask"] == [1, 0, 0, 1, 1, 0, 0, 1]
    assert tokenizer.build_inputs_with_special_tokens([5]) == [0, 5, 2]
    assert tokenizer.build_inputs_with_special_tokens([5], [6]) == [0, 5, 2, 2, 6, 2]
    assert tokenizer.create_token_type_ids_from_sequences([5], [6]) == [0] * 6
    assert tokenizer.get_special_tokens_mask([0, 5, 2], already_has_special_tokens=True) == [1, 0, 1]
    assert tokenizer.get_special_tokens_mask([5], [6]) == [1, 0, 1, 1, 0, 1]
    assert (tokenizer.num_special_tokens_to_add(), tokenizer.num_special_tokens_to_add(pair=True)) == (2, 4)
    assert tokenizer.truncate_sequences([1, 2, 3, 4], num_tokens_to_remove=2, stride=1) == ([1, 2], None, [2, 3, 4])


def test_slow_takes_tokens_and_ids(slow: XLMRobertaTokenizer) -> None:
    assert slow.encode(["<mask>", "▁"]) == [0, 121, slow.convert_tokens_to_ids("▁"), 2]
    assert slow.encode([7, 8]) == [0, 7, 8, 2]


def test_decoding(tokenizer: PreTrainedTokenizerBase) -> None:
    for text in (TEXTS[0], TEXTS[1], TEXTS[6]):
        ids = tokenizer.encode(text)
        assert 3 not in ids
        back = tokenizer.decode(ids, skip_special_tokens=True)
        assert tokenizer.encode(back) == ids
        assert tokenizer.decode(np.array(ids), skip_special_tokens=True) == back
    rows = tokenizer(TEXTS, padding=True, return_tensors="np")["input_ids"]
    assert tokenizer.batch_decode(rows, skip_special_tokens=True) == [
        tokenizer.decode(row, skip_special_tokens=True) for row in rows
    ]
    assert tokenizer.decode(0) == "<s>"
    ids = tokenizer.encode("Paris , is .", add_special_tokens=False)
    assert tokenizer.decode(ids) == "Paris , is ."
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=True) == "Paris, is."
    assert tokenizer.convert_tokens_to_string(["▁Par", "is"]) == "Paris"


@pytest.mark.parametrize("spaces", [True, False])
def test_decoding_replaced_and_added_tokens(slow: XLMRobertaTokenizer, spaces: bool) -> None:
    """A named token is joined like a piece, also under another name; one that a user added stands apart."""
    slow.add_special_tokens({"cls_token": "[CLS]", "sep_token": "[SEP]", "additional_special_tokens": ["<q>"]})
    slow.add_tokens(["<n>"])
    ids = slow("Paris", "is")["input_ids"]
    assert slow.decode(ids, spaces_between_special_tokens=spaces) == "[CLS] Paris[SEP][SEP] is[SEP]"
    gap = " " if spaces else ""
    text = f"[CLS] Paris{gap}<q>{gap}is{gap}<n>{gap}[SEP]"
    assert slow.decode(slow("Paris<q>is<n>")["input_ids"], spaces_between_special_tokens=spaces) == text


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda item: pickle.loads(pickle.dumps(item))], ids=["deepcopy", "pickle"]
)
def test_copies_are_independent(tokenizer: PreTrainedTokenizerBase, duplicate: Any) -> None:
    tokenizer.add_tokens(["<one>"])
    other = duplicate(tokenizer)
    assert other(MIXED)["input_ids"] == tokenizer(MIXED)["input_ids"]
    other.add_tokens(["<two>"])
    assert len(other) == len(tokenizer) + 1
    assert "<two>" not in tokenizer.get_vocab()


def test_sampling_gives_other_segmentations(model_file: Path) -> None:
    sampled = XLMRobertaTokenizer(model_file, sp_model_kwargs={"enable_sampling": True, "nbest_size": -1, "alpha": 0.1})
    found = {tuple(sampled.encode(TEXTS[0])) for _ in range(8)}
    assert len(found) > 1
    assert {sampled.decode(ids, skip_special_tokens=True) for ids in found} == {TEXTS[0]}
    assert len({tuple(pickle.loads(pickle.dumps(sampled)).encode(TEXTS[0])) for _ in range(8)}) > 1


def test_slow_offsets_are_sentencepieces_own(slow: XLMRobertaTokenizer) -> None:
    encoded = slow("ab <mask> é①", return_offsets_mapping=True)
    spans = dict(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))
    assert spans[121] == (3, 9)
    assert (spans[0], spans[2]) == ((0, 0), (0, 0))
    plain = slow.sp_model.encode(TEXTS[5], return_type="offset_mapping")["offsets"]
    assert slow(TEXTS[5], add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"] == plain
    cut = slow(TEXTS[5], truncation=True, max_length=6, return_offsets_mapping=True)["offset_mapping"]
    assert cut == [(0, 0), *plain[:4], (0, 0)]


def test_training_another_vocabulary(fast: XLMRobertaTokenizerFast, tmp_path: Path) -> None:
    new = fast.train_new_from_iterator([TEXTS[:3], TEXTS[3:]], 110, new_special_tokens=["<q>"])
    assert new.convert_ids_to_tokens([0, 1, 2, 3, 4, 5]) == ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<q>"]
    assert 6 < len(new) <= 110
    assert new.additional_special_tokens == ["<q>"]
    assert new("Paris <mask>")["input_ids"][-2:] == [4, 2]
    assert new.decode(new.encode(TEXTS[0]), skip_special_tokens=True) == TEXTS[0]
    new.save_pretrained(tmp_path)
    assert XLMRobertaTokenizerFast.from_pretrained(tmp_path).encode(TEXTS[1]) == new.encode(TEXTS[1])


def test_import_is_light(model_file: Path) -> None:
    program = (
        "import sys, xlmr_core.tokenization as t\n"
        "heavy = {'torch', 'tensorflow', 'jax', 'transformers', 'sentencepiece', 'tokenizers', 'huggingface_hub'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "for cls, other in ((t.XLMRobertaTokenizer, 'tokenizers'), (t.XLMRobertaTokenizerFast, 'sentencepiece')):\n"
        "    before = set(sys.modules); cls(sys.argv[1])('a'); assert other not in set(sys.modules) - before\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(model_file)], check=True, cwd=Path(__file__).resolve().parents[2]
    )
