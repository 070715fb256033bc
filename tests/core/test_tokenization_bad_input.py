"""What is no text, cannot be a length, or is very long: a clear error or the right answer, never a panic."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core.tokenization_models import TEXTS, small_model, with_pieces
from xlmr_core.errors import NoTextError, TokenizerError
from xlmr_core.tokenization import PreTrainedTokenizerBase, XLMRobertaTokenizer, XLMRobertaTokenizerFast

CLASSES = [XLMRobertaTokenizer, XLMRobertaTokenizerFast]


@pytest.fixture(scope="module", params=CLASSES, ids=["slow", "fast"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    path = tmp_path_factory.mktemp("model") / "sentencepiece.bpe.model"
    path.write_bytes(small_model())
    return request.param(path)  # type: ignore[no-any-return]


@pytest.mark.parametrize("text", ["\ud800", "fine \udfff until here", "<mask>\udc80"])
def test_lone_surrogates(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    for call in (
        lambda: tokenizer(text),
        lambda: tokenizer(["good", text]),
        lambda: tokenizer("good", text),
        lambda: tokenizer(["good", text], is_split_into_words=True),
        lambda: tokenizer.tokenize(text),
        lambda: tokenizer(text, return_offsets_mapping=True),
        lambda: tokenizer.add_tokens([text]),
        lambda: tokenizer.convert_tokens_to_ids(text),
    ):
        with pytest.raises(TokenizerError, match=r"lone surrogate .* at character"):
            call()


@pytest.mark.parametrize(
    "bad", [5, 1.5, b"bytes", {"a": 1}, ["a", None], ["a", 5], [["a"], None], object(), np.array(["a"])], ids=repr
)
def test_no_text(tokenizer: PreTrainedTokenizerBase, bad: Any) -> None:
    with pytest.raises(TokenizerError, match="expected"):
        tokenizer(bad)


@pytest.mark.parametrize("bad", [5, [3], "words", None, [None]], ids=repr)
def test_no_words(tokenizer: PreTrainedTokenizerBase, bad: Any) -> None:
    with pytest.raises(TokenizerError, match="expected"):
        tokenizer(bad, is_split_into_words=True)


def test_none_and_uneven_pairs(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(TokenizerError, match="received None"):
        tokenizer(None)
    with pytest.raises(TokenizerError, match="received 2 and 1"):
        tokenizer(["a", "b"], ["c"])
    with pytest.raises(TokenizerError, match="received str"):
        tokenizer(["a", "b"], "c")
    with pytest.raises(TokenizerError, match="expected"):
        tokenizer("a", ["b", 5])
    for no_list in ("text", None):
        with pytest.raises(NoTextError, match="a list of texts"):
            tokenizer.batch_encode_plus(no_list)


def test_empty(tokenizer: PreTrainedTokenizerBase) -> None:
    assert dict(tokenizer("")) == {"input_ids": [0, 2], "attention_mask": [1, 1]}
    assert tokenizer("", add_special_tokens=False)["input_ids"] == []
    assert tokenizer("", add_special_tokens=False, return_tensors="np")["input_ids"].shape == (1, 0)
    assert dict(tokenizer([])) == {"input_ids": [], "attention_mask": []}
    assert tokenizer([], padding=True, truncation=True, max_length=4)["input_ids"] == []
    assert dict(tokenizer([], return_length=True, return_attention_mask=False)) == {"input_ids": [], "length": []}
    assert tokenizer([""], return_offsets_mapping=True)["offset_mapping"] == [[(0, 0), (0, 0)]]
    assert tokenizer([], is_split_into_words=True)["input_ids"] == [0, 2]
    assert tokenizer.decode([]) == ""
    assert tokenizer.batch_decode([]) == []
    assert tokenizer.tokenize("") == []
    assert tokenizer.add_tokens([]) == 0


def test_nul_bytes(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer("\x00")["input_ids"][0] == 0
    ids = tokenizer("Paris\x00 is")["input_ids"]
    assert ids[-2:] == tokenizer("is")["input_ids"][-2:]
    offsets = tokenizer("\x00Paris", return_offsets_mapping=True)["offset_mapping"]
    assert offsets[-2][1] == 6


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["a", "☃", " ", "<mask>"])
def test_a_megabyte_without_a_space(tokenizer: PreTrainedTokenizerBase, unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    started = time.process_time()
    encoded = tokenizer(text, return_offsets_mapping=True, verbose=False)
    assert time.process_time() - started < 20
    assert encoded["offset_mapping"][-2][1] in (0, len(text))
    assert encoded["input_ids"][-1] == 2


@pytest.mark.parametrize("pair", [None, "b"])
def test_no_room_for_the_special_tokens(tokenizer: PreTrainedTokenizerBase, pair: str | None) -> None:
    special = 4 if pair else 2
    for length in range(special):
        with pytest.raises(TokenizerError, match=f"at least {special}"):
            tokenizer(TEXTS[0], pair, truncation=True, max_length=length)
    assert tokenizer("a b c", truncation=True, max_length=2)["input_ids"] == [0, 2]
    assert tokenizer("a b", "c d", truncation=True, max_length=4)["input_ids"] == [0, 2, 2, 2]
    assert tokenizer("a b c", truncation=True, max_length=0, add_special_tokens=False)["input_ids"] == []


def test_a_text_too_short_to_be_cut(tokenizer: PreTrainedTokenizerBase, caplog: pytest.LogCaptureFixture) -> None:
    """The recorded classes differ: one logs and leaves the text as it is, the other refuses."""
    if tokenizer.is_fast:
        with pytest.raises(TokenizerError, match="too short"):
            tokenizer("a", TEXTS[0], truncation="only_first", max_length=8)
    else:
        whole = tokenizer("a", TEXTS[0])["input_ids"]
        assert tokenizer("a", TEXTS[0], truncation="only_first", max_length=8)["input_ids"] == whole
        assert "left as it is" in caplog.text


@pytest.mark.parametrize("stride", [6, 8, 100])
def test_stride_of_a_whole_window(stride: int, tokenizer: PreTrainedTokenizerBase) -> None:
    call = {"truncation": True, "max_length": 8, "stride": stride, "return_overflowing_tokens": True}
    if tokenizer.is_fast:
        for text in ("a", TEXTS[0]):
            with pytest.raises(TokenizerError, match="stride below 6"):
                tokenizer(text, **call)
    else:
        whole = tokenizer.encode(TEXTS[0], add_special_tokens=False)
        assert tokenizer(TEXTS[0], **call)["overflowing_tokens"] == whole[max(0, 6 - stride) :]


@pytest.mark.parametrize(
    "arguments",
    [
        {"padding": "sideways"},
        {"truncation": "middle"},
        {"max_length": -1, "truncation": True},
        {"max_length": 2.5, "truncation": True},
        {"max_length": True, "truncation": True},
        {"max_length": "8", "truncation": True},
        {"stride": -1},
        {"pad_to_multiple_of": 0, "padding": True},
        {"padding_side": "up", "padding": True},
        {"return_tensors": "xx"},
        {"padding": True, "truncation": True, "max_length": 10, "pad_to_multiple_of": 8},
        {"return_tensors": "np"},
    ],
    ids=str,
)
def test_impossible_arguments(tokenizer: PreTrainedTokenizerBase, arguments: dict[str, Any]) -> None:
    with pytest.raises(TokenizerError):
        tokenizer(["a", TEXTS[0]], **arguments)


def test_padding_without_a_padding_token(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.pad_token = None
    try:
        with pytest.raises(TokenizerError, match="pad_token"):
            tokenizer(["a"], padding=True)
    finally:
        tokenizer.pad_token = "<pad>"


@pytest.mark.parametrize(
    "bad", [[{"labels": [1]}], {"labels": [1]}, "text", 5, [5], {"input_ids": [[1], [2]], "labels": [1]}], ids=str
)
def test_padding_what_is_no_encoding(tokenizer: PreTrainedTokenizerBase, bad: Any) -> None:
    with pytest.raises(TokenizerError, match="expected"):
        tokenizer.pad(bad)


def test_ids_that_are_none(tokenizer: PreTrainedTokenizerBase) -> None:
    for bad in ([-100], [0, -1], ["a"], [None], "text"):
        with pytest.raises(TokenizerError, match="id"):
            tokenizer.decode(bad)
    for beyond in (len(tokenizer), 2**31, 2**40):
        if tokenizer.is_fast:
            assert tokenizer.convert_ids_to_tokens(beyond) is None
            assert tokenizer.decode([0, beyond]) == "<s>"
        else:
            with pytest.raises(TokenizerError, match="below"):
                tokenizer.decode([0, beyond])


@pytest.mark.parametrize("bad", [5, [5], [None], None, [["a"]]], ids=str)
def test_tokens_that_are_none(tokenizer: PreTrainedTokenizerBase, bad: Any) -> None:
    with pytest.raises(TokenizerError, match="expected"):
        tokenizer.add_tokens(bad)
    if bad is not None:
        with pytest.raises((TokenizerError, TypeError)):
            tokenizer.convert_tokens_to_ids([*bad, 5] if isinstance(bad, list) and bad != [None] else 5)


@pytest.mark.parametrize(
    "bad", [{"no_such_token": "a"}, {"pad_token": 5}, {"additional_special_tokens": "a"}, ["a"]], ids=str
)
def test_special_tokens_that_are_none(tokenizer: PreTrainedTokenizerBase, bad: Any) -> None:
    with pytest.raises(TokenizerError, match="expected"):
        tokenizer.add_special_tokens(bad)


SURROGATE = "a\ud800b"


@pytest.mark.parametrize(
    "bad",
    [
        {"additional_special_tokens": [SURROGATE]},
        {"pad_token": "<s>", "additional_special_tokens": ["<q>", SURROGATE]},
        {"additional_special_tokens": ["<q>"], "pad_token": SURROGATE},
        {"pad_token": "<s>", "no_such_token": "a"},
        {"pad_token": "<s>", "mask_token": None},
        {"additional_special_tokens": ["<q>"], "pad_token": 5},
        {"pad_token": "<s>", "additional_special_tokens": "a"},
    ],
    ids=ascii,
)
def test_refused_special_tokens_change_nothing(tokenizer: PreTrainedTokenizerBase, bad: dict[str, Any]) -> None:
    before = (tokenizer.special_tokens_map_extended, tokenizer.added_tokens_decoder, len(tokenizer))
    with pytest.raises(TokenizerError, match="expected"):
        tokenizer.add_special_tokens(bad)
    assert (tokenizer.special_tokens_map_extended, tokenizer.added_tokens_decoder, len(tokenizer)) == before
    assert tokenizer("a", padding=True)["input_ids"][-1] == 2


@pytest.mark.parametrize(
    ("name", "value"), [("pad_token", SURROGATE), ("additional_special_tokens", ["<q>", SURROGATE])]
)
def test_a_special_token_that_is_no_text(tokenizer: PreTrainedTokenizerBase, name: str, value: Any) -> None:
    before = getattr(tokenizer, name)
    with pytest.raises(TokenizerError, match="lone surrogate .* at character 1"):
        setattr(tokenizer, name, value)
    assert getattr(tokenizer, name) == before


def test_unknown_sampling_arguments(tmp_path: Path) -> None:
    (tmp_path / "m.model").write_bytes(small_model())
    with pytest.raises(TokenizerError, match="sp_model_kwargs"):
        XLMRobertaTokenizer(tmp_path / "m.model", sp_model_kwargs={"colour": "red"})


@pytest.mark.slow
@pytest.mark.parametrize("cls", CLASSES, ids=["slow", "fast"])
def test_a_quarter_of_a_million_pieces(cls: Any, tmp_path: Path) -> None:
    """Starts in about a second (docs/tokenizers.md); the bound leaves room for a busy machine."""
    (tmp_path / "m.model").write_bytes(with_pieces(small_model(), 250_000))
    started = time.process_time()
    tokenizer = cls(tmp_path / "m.model")
    assert tokenizer("Paris")["input_ids"][0] == 0
    assert time.process_time() - started < 4
    assert tokenizer.mask_token_id == 250_001
