"""Properties of both tokenizer classes over arbitrary texts."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.core.tokenization_models import TEXTS, small_model
from xlmr_core.tokenization import PreTrainedTokenizerBase, XLMRobertaTokenizer, XLMRobertaTokenizerFast

with tempfile.TemporaryDirectory() as _folder:
    _path = Path(_folder) / "sentencepiece.bpe.model"
    _path.write_bytes(small_model())
    SLOW, FAST = XLMRobertaTokenizer(_path), XLMRobertaTokenizerFast(_path)

BOTH = pytest.mark.parametrize("tokenizer", [SLOW, FAST], ids=["slow", "fast"])
anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
known = st.text(st.sampled_from(sorted(set("".join(TEXTS)) - set("ＦＵＬＬ①½ﬁ²"))), max_size=40)
texts = st.one_of(
    anything,
    known,
    st.lists(st.sampled_from(["Paris", " ", "<mask>", "  ", "</s>", "é", "☃"]), max_size=8).map("".join),
)
few = settings(max_examples=60, deadline=None)


@BOTH
@few
@given(text=texts, pair=st.none() | texts)
def test_rows_are_well_formed(tokenizer: PreTrainedTokenizerBase, text: str, pair: str | None) -> None:
    encoded = tokenizer(
        [text], None if pair is None else [pair], return_offsets_mapping=True, return_special_tokens_mask=True
    )
    ids, offsets = encoded["input_ids"][0], encoded["offset_mapping"][0]
    assert ids[0] == 0
    assert ids[-1] == 2
    assert all(0 <= index < len(tokenizer) for index in ids)
    assert len(ids) == len(offsets) == len(encoded["special_tokens_mask"][0]) == len(encoded["attention_mask"][0])
    longest = max(len(text), len(pair or ""))
    assert all(0 <= start <= end <= longest for start, end in offsets)


@few
@given(text=texts)
def test_offsets_of_the_sentencepiece_class_go_forward(text: str) -> None:
    encoded = SLOW(text, add_special_tokens=False, return_offsets_mapping=True)
    assert encoded["input_ids"] == SLOW.encode(text, add_special_tokens=False)
    for one, two in itertools.pairwise(encoded["offset_mapping"]):
        assert one[0] <= two[0]
        assert one[1] <= two[1]


@BOTH
@few
@given(batch=st.lists(texts, max_size=5), side=st.sampled_from(["left", "right"]), length=st.integers(2, 30))
def test_batch_is_one_by_one(tokenizer: PreTrainedTokenizerBase, batch: list[str], side: str, length: int) -> None:
    padded = tokenizer(batch, padding=True, truncation=True, max_length=length, padding_side=side)
    width = max((len(row) for row in padded["input_ids"]), default=0)
    for text, ids, mask in zip(batch, padded["input_ids"], padded["attention_mask"], strict=True):
        alone = tokenizer(text, truncation=True, max_length=length)["input_ids"]
        assert len(alone) <= length
        assert len(ids) == len(mask) == width
        real = ids[width - len(alone) :] if side == "left" else ids[: len(alone)]
        assert real == alone
        assert sum(mask) == len(alone)


@BOTH
@few
@given(text=texts, length=st.integers(2, 12))
def test_truncation_keeps_a_prefix(tokenizer: PreTrainedTokenizerBase, text: str, length: int) -> None:
    whole = tokenizer(text)["input_ids"]
    cut = tokenizer(text, truncation=True, max_length=length)["input_ids"]
    assert cut == (whole if len(whole) <= length else [*whole[: length - 1], 2])


@BOTH
@few
@given(text=known)
def test_decoding_and_encoding_again_is_stable(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    assume(tokenizer.unk_token_id not in ids)
    once = tokenizer.decode(ids)
    assert tokenizer.decode(tokenizer.encode(once, add_special_tokens=False)) == once


@BOTH
@few
@given(text=texts)
def test_tokens_and_ids_agree(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    tokens = tokenizer.tokenize(text)
    assert len(tokens) == len(ids)
    names = tokenizer.convert_ids_to_tokens(ids)
    for token, name, index in zip(tokens, names, ids, strict=True):
        assert name == "<unk>" or token.strip() == name
        assert tokenizer.convert_tokens_to_ids(name) == index


@few
@given(text=known)
def test_both_classes_agree_on_plain_text(text: str) -> None:
    plain = " ".join(text.split())
    assert SLOW.encode(plain) == FAST.encode(plain)


OPTIONS = {
    "add_special_tokens": st.booleans(),
    "padding": st.sampled_from([False, "longest", "max_length"]),
    "truncation": st.sampled_from([False, "longest_first", "only_first"]),
    "max_length": st.sampled_from([4, 8, 12]),
    "pad_to_multiple_of": st.none() | st.just(4),
    "padding_side": st.none() | st.just("left"),
    "return_token_type_ids": st.booleans(),
    "return_attention_mask": st.booleans(),
    "return_length": st.booleans(),
    "split_special_tokens": st.booleans(),
}


class LongWay(XLMRobertaTokenizer):
    """Does what the tokenizer itself does, but as methods of a user's own, which take the long way."""

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        return super().build_inputs_with_special_tokens(token_ids_0, token_ids_1)

    def prepare_for_tokenization(
        self, text: str, is_split_into_words: bool = False, **kwargs: Any
    ) -> tuple[str, dict[str, Any]]:
        return super().prepare_for_tokenization(text, is_split_into_words, **kwargs)


with tempfile.TemporaryDirectory() as _folder:
    SLOW.save_pretrained(_folder)
    LONG = LongWay.from_pretrained(_folder)
LONG._added.stand_in = lambda text: True  # type: ignore[method-assign]


@pytest.mark.parametrize("truncation_side", ["right", "left"])
@settings(max_examples=200, deadline=None)
@given(batch=st.lists(texts, max_size=20), options=st.fixed_dictionaries({}, optional=OPTIONS))
def test_the_short_way_of_plain_batches_is_the_long_way(
    truncation_side: str, batch: list[str], options: dict[str, object]
) -> None:
    """Texts without added tokens, and the usual special tokens, go a short way, which gives what the long way gives."""
    with pytest.MonkeyPatch.context() as patch:
        for tokenizer in (SLOW, LONG):
            patch.setattr(tokenizer, "truncation_side", truncation_side)
        found, expected = SLOW(batch, **options), LONG(batch, **options)
    assert dict(found) == dict(expected)
    assert list(found) == list(expected)


def test_a_plain_batch_goes_the_short_way() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SLOW._added, "split", None)
        patch.setattr(PreTrainedTokenizerBase, "build_inputs_with_special_tokens", None)
        assert len(SLOW(["a day", "", "Paris"])["input_ids"]) == 3
        with pytest.raises(TypeError):
            SLOW(["a day", "a <mask>"])
