"""Published names of the original tokenizers: each is there, or is refused with a reason; settings with such names."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core.tokenization_models import TEXTS, small_model
from xlmr_core.errors import TokenizerError
from xlmr_core.tokenization import (
    AddedToken,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    XLMRobertaTokenizer,
    XLMRobertaTokenizerFast,
)
from xlmr_core.tokenization.settings import NOT_HERE

CLASSES = pytest.mark.parametrize("cls", [XLMRobertaTokenizer, XLMRobertaTokenizerFast], ids=["slow", "fast"])
MODEL, JSON, CONFIG = "sentencepiece.bpe.model", "tokenizer.json", "tokenizer_config.json"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    (folder / MODEL).write_bytes(small_model())
    XLMRobertaTokenizerFast(folder / MODEL).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "folder"))


@pytest.fixture(params=[XLMRobertaTokenizer, XLMRobertaTokenizerFast], ids=["slow", "fast"])
def tokenizer(request: pytest.FixtureRequest, saved: Path) -> PreTrainedTokenizerBase:
    return request.param(saved / MODEL)  # type: ignore[no-any-return]


# -- names -------------------------------------------------------------------------------------------------------------

# Public names of 4.57.6 (PreTrainedTokenizerBase, SpecialTokensMixin, PushToHubMixin) and of 5.24
# (PreTrainedTokenizerBase), read off their sources; those that both classes have.
BOTH = """
    SPECIAL_TOKENS_ATTRIBUTES add_special_tokens add_tokens added_tokens_decoder added_tokens_encoder
    additional_special_tokens additional_special_tokens_ids all_special_ids all_special_tokens
    all_special_tokens_extended apply_chat_template as_target_tokenizer batch_decode batch_encode_plus bos_token
    bos_token_id build_inputs_with_special_tokens chat_template clean_up_tokenization clean_up_tokenization_spaces
    cls_token cls_token_id convert_added_tokens convert_ids_to_tokens convert_to_native_format convert_tokens_to_ids
    convert_tokens_to_string create_token_type_ids_from_sequences decode deprecation_warnings encode
    encode_message_with_chat_template encode_plus eos_token eos_token_id extra_special_tokens
    extra_special_tokens_ids from_pretrained get_added_vocab get_chat_template get_response_parser
    get_special_tokens_mask get_vocab init_inputs init_kwargs is_fast mask_token mask_token_id
    max_len_sentences_pair max_len_single_sentence model_input_names model_max_length name_or_path
    num_special_tokens_to_add pad pad_token pad_token_id pad_token_type_id padding_side parse_response
    prepare_for_model prepare_seq2seq_batch pretrained_vocab_files_map register_for_auto_class response_template
    sanitize_special_tokens save_chat_templates save_pretrained save_vocabulary sep_token sep_token_id
    slow_tokenizer_class special_tokens_map special_tokens_map_extended split_special_tokens tokenize
    truncate_sequences truncation_side unk_token unk_token_id verbose vocab_files_names vocab_size
"""
SLOW = ["prepare_for_tokenization", "sp_model", "sp_model_kwargs", "vocab_file", "fairseq_tokens_to_ids"]
FAST = """
    add_bos_token add_eos_token backend_tokenizer can_save_slow_tokenizer decoder set_truncation_and_padding
    train_new_from_iterator update_post_processor vocab vocab_file
"""


@CLASSES
def test_published_names_are_there_or_say_why_not(cls: Any, saved: Path) -> None:
    tokenizer = cls(saved / MODEL)
    names = {*BOTH.split(), *(FAST.split() if cls.is_fast else SLOW)}
    absent = {name for name in names if not hasattr(tokenizer, name)}
    assert absent == names & NOT_HERE.keys()
    for name in absent:
        with pytest.raises(AttributeError, match=rf"no attribute '{name}': \S+"):
            getattr(tokenizer, name)
    assert len(names & NOT_HERE.keys()) > 5


def test_every_reason_is_of_a_published_name() -> None:
    assert {*BOTH.split(), *FAST.split()} >= NOT_HERE.keys()


def test_targets(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.model_max_length = 12
    with tokenizer.as_target_tokenizer():
        assert tokenizer(TEXTS[0])["input_ids"] == tokenizer(text_target=TEXTS[0])["input_ids"]
    batch = tokenizer.prepare_seq2seq_batch(TEXTS[:2], TEXTS[2:4], max_target_length=6, src_lang="en_XX")
    assert {len(row) for row in batch["input_ids"]} == {12}
    assert {len(row) for row in batch["labels"]} == {6}
    assert set(tokenizer.prepare_seq2seq_batch(TEXTS[:2], return_tensors="np")) == {"input_ids", "attention_mask"}


def test_special_tokens_by_id(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.additional_special_tokens_ids = [5, np.int64(6)]
    assert tokenizer.additional_special_tokens == tokenizer.convert_ids_to_tokens([5, 6])
    assert tokenizer.additional_special_tokens_ids == [5, 6]
    tokenizer.additional_special_tokens_ids = None
    assert tokenizer.additional_special_tokens == []


def test_assigned_tokens_are_added_when_asked(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.pad_token = "[PAD]"
    assert tokenizer.sanitize_special_tokens() == 1
    assert tokenizer.pad_token_id == len(tokenizer) - 1
    assert tokenizer.sanitize_special_tokens() == 0


@CLASSES
def test_tokens_equal_those_of_the_tokenizers_library(cls: Any, saved: Path) -> None:
    import tokenizers

    end = tokenizers.AddedToken("<E>", lstrip=True, normalized=False, special=True)
    tokenizer = cls(saved / MODEL, eos_token=end)
    assert end in tokenizer.added_tokens_decoder.values()
    ours = AddedToken("<E>", lstrip=True, special=True)
    assert ours == end and end == ours and ours != AddedToken("<E>", special=True) and ours != "<E>"
    assert len({ours, AddedToken("<E>", lstrip=True, special=True)}) == 1
    assert tokenizer.init_kwargs["eos_token"] is end
    assert tokenizer.init_kwargs["bos_token"] == "<s>"


def test_tokens_in_the_form_of_files(tokenizer: PreTrainedTokenizerBase) -> None:
    token = AddedToken("<q>", lstrip=True, special=True)
    stored = tokenizer.convert_added_tokens({"a": [token, "text"], "b": 5}, save=True)
    assert stored["a"][0]["__type"] == "AddedToken"
    assert tokenizer.convert_added_tokens(stored) == {"a": [token, "text"], "b": 5}
    assert "special" not in tokenizer.convert_added_tokens(token, save=True, add_type_field=False)


@pytest.mark.parametrize("name", ["max_len_single_sentence", "max_len_sentences_pair"])
def test_lengths_that_follow_another(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    setattr(tokenizer, name, getattr(tokenizer, name))
    with pytest.raises(TokenizerError, match=f"{name} to stay .*set model_max_length"):
        setattr(tokenizer, name, 5)


def test_a_max_len_of_the_first_releases(saved: Path) -> None:
    assert XLMRobertaTokenizerFast(saved / MODEL, max_len=77).model_max_length == 77
    assert XLMRobertaTokenizerFast(saved / MODEL, max_len=77, model_max_length=9).model_max_length == 9


# -- words of the sentencepiece class ----------------------------------------------------------------------------------

CALLS: list[tuple[Any, Any, dict[str, Any]]] = [
    ("Paris is the capital", None, {}),
    ("Paris <mask> the  capital </s> x", "and the river", {}),
    (["Paris is", "", "☃ the capital of France"], None, {"padding": True}),
    (["Paris is", "a"], ["the river", "the capital of France"], {"padding": True, "padding_side": "left"}),
    (TEXTS, None, {"truncation": True, "max_length": 9, "padding": "max_length"}),
    (TEXTS[:2], TEXTS[5:], {"truncation": True, "max_length": 14}),
    (["Paris", "is", "photosynthesis"], None, {"is_split_into_words": True}),
    ([["Paris", "is"], ["a"]], [["b"], ["photosynthesis", "c"]], {"is_split_into_words": True, "padding": True}),
    ("Paris is", None, {"add_special_tokens": False, "return_tensors": "np"}),
]


@pytest.mark.parametrize(("texts", "pairs", "options"), CALLS, ids=str)
@pytest.mark.parametrize("side", ["left", "right"])
def test_words_are_those_of_the_fast_class(
    texts: Any, pairs: Any, options: dict[str, Any], side: str, saved: Path
) -> None:
    """<mask> takes the spaces before it, as from_pretrained makes it, so that the pieces are the same."""
    slow, fast = (cls.from_pretrained(saved / MODEL) for cls in (XLMRobertaTokenizer, XLMRobertaTokenizerFast))
    slow.truncation_side = fast.truncation_side = side
    one, other = slow(texts, pairs, **options), fast(texts, pairs, **options)
    for row in range(len(other.encodings or ())):
        assert one.word_ids(row) == one.words(row) == other.word_ids(row)
        assert one.sequence_ids(row) == other.sequence_ids(row)
        assert len(one.tokens(row)) == len(other.tokens(row))
    assert one.word_ids(-1) == other.word_ids(-1)
    with pytest.raises(TokenizerError, match="a row below"):
        one.word_ids(99)


def test_words_do_not_go_along(saved: Path) -> None:
    tokenizer = XLMRobertaTokenizer(saved / MODEL)
    batch = tokenizer(TEXTS)
    assert len(pickle.dumps(batch)) < 20_000, "the tokenizer is not sent to every worker"
    with pytest.raises(TokenizerError, match="after copying or pickling"):
        pickle.loads(pickle.dumps(batch)).word_ids()
    with pytest.raises(TokenizerError, match="received ids"):
        tokenizer.encode_plus([5, 6]).word_ids()


# -- tokens with names of their own ------------------------------------------------------------------------------------


@CLASSES
@pytest.mark.parametrize("key", ["extra_special_tokens", "model_specific_special_tokens", None])
@pytest.mark.parametrize("form", [str, lambda text: {"content": text, "lstrip": False, "__type": "AddedToken"}])
def test_tokens_with_names_of_their_own(cls: Any, key: str | None, form: Any, folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    config.pop("extra_special_tokens")
    named = {"ent_token": form("<ent>"), "rel_token": form("<rel>")}
    (folder / CONFIG).write_text(json.dumps({**config, **({key: named} if key else named)}))
    tokenizer = cls.from_pretrained(folder)
    for again in (tokenizer, cls.from_pretrained(tokenizer.save_pretrained(tmp_path / "out") and tmp_path / "out")):
        assert (again.ent_token, again.rel_token) == ("<ent>", "<rel>")
        assert again.ent_token_id == again.convert_tokens_to_ids("<ent>") >= again.vocab_size
        assert {"<ent>", "<rel>"} <= set(again.all_special_tokens)
        assert again.special_tokens_map["ent_token"] == "<ent>"
        assert again.SPECIAL_TOKENS_ATTRIBUTES[-2:] == ["ent_token", "rel_token"]
        assert again.extra_special_tokens == {"ent_token": "<ent>", "rel_token": "<rel>"}
        assert again.decode(again.encode("a<ent>"), skip_special_tokens=True) == "a"
    tokenizer.ent_token = "</s>"
    assert (tokenizer.ent_token_id, "<ent>" in tokenizer.all_special_tokens) == (2, False)
    tokenizer.ent_token_id = 0
    assert tokenizer.ent_token == "<s>"


def test_version_5_names_in_add_special_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.add_special_tokens({"extra_special_tokens": ["<a>"]}) == 1
    assert tokenizer.add_special_tokens({"extra_special_tokens": ["<b>"]}, replace_extra_special_tokens=False) == 1
    assert tokenizer.additional_special_tokens == ["<a>", "<b>"]


# -- settings ----------------------------------------------------------------------------------------------------------


def routines(cls: type) -> list[str]:
    return sorted(name for name in dir(cls) if not name.startswith("_") and callable(getattr(cls, name)))


@CLASSES
def test_the_name_of_a_method_is_no_setting(cls: Any, saved: Path, folder: Path) -> None:
    names = [name for name in routines(cls) if name != "slow_tokenizer_class"]
    assert len(names) > 25
    for name in names:
        for error in (AttributeError, ValueError):
            with pytest.raises(error, match=f"conflicts with the method {name};"):
                cls(saved / MODEL, **{name: False})
    for name in ("add_special_tokens", "pad"):
        with pytest.raises(TokenizerError, match=f"conflicts with the method {name}"):
            AutoTokenizer.from_pretrained(saved, use_fast=cls.is_fast, **{name: False})
        (folder / CONFIG).write_text(json.dumps({name: False}))
        with pytest.raises(TokenizerError, match=f"conflicts with the method {name}"):
            cls.from_pretrained(folder)


@CLASSES
@pytest.mark.parametrize("name", ["pad", "vocab_size", "model_input_names", "add_tokens"])
def test_a_token_has_a_name_of_its_own(cls: Any, name: str, saved: Path) -> None:
    for key in ("extra_special_tokens", "model_specific_special_tokens"):
        with pytest.raises(TokenizerError, match=f"{name}.*choose another"):
            cls(saved / MODEL, **{key: {name: "<x>"}})


BAD_SETTINGS: list[tuple[str, Any]] = [
    *(("model_max_length", value) for value in ("x", [], -1, 5.5, True, {}, float("nan"))),
    *(("model_input_names", value) for value in (5, [], "input_ids", [5])),
    *(("split_special_tokens", value) for value in ("x", 5)),
    *(("additional_special_tokens", value) for value in (5, "<x>", [5])),
    *(("extra_special_tokens", value) for value in (5, "<x>", [5], {"a": 5})),
    *(("model_specific_special_tokens", value) for value in (5, ["<x>"], {"a_token": []})),
    *(("sp_model_kwargs", value) for value in (5, [5])),
    *(("added_tokens_decoder", value) for value in (5, {"-5": {"content": "a"}}, {"x": {"content": "a"}}, {"5": 5})),
    *(("padding_side", value) for value in ("up", 5)),
    ("mask_token", 5),
]  # fmt: skip


@CLASSES
@pytest.mark.parametrize(("name", "value"), BAD_SETTINGS, ids=str)
def test_settings_of_another_kind(cls: Any, name: str, value: Any, folder: Path) -> None:
    (folder / CONFIG).write_text(json.dumps({name: value}))
    (folder / "special_tokens_map.json").unlink()
    with pytest.raises(TokenizerError, match=r"expected .*received"):
        cls.from_pretrained(folder)
    if name != "added_tokens_decoder" or isinstance(value, dict):
        with pytest.raises(TokenizerError, match=r"expected .*received"):
            cls(folder / MODEL, **{name: value})


@CLASSES
def test_settings_that_do_nothing(cls: Any, folder: Path, tmp_path: Path) -> None:
    kept = {"special": 1, "vocab": {"a": 1}, "tokenizer_object": {}, "model_max_length": float("inf")}
    (folder / CONFIG).write_text(json.dumps(kept))
    tokenizer = cls.from_pretrained(folder)
    assert tokenizer.model_max_length > 10**20
    tokenizer.save_pretrained(tmp_path / "out")
    assert json.loads((tmp_path / "out" / CONFIG).read_text())["special"] == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("added_tokens.json", '{"a": 1e400}'),
        ("added_tokens.json", '{"a": 1' + "0" * 5000 + "}"),
        ("special_tokens_map.json", "[" * 100_000),
        (CONFIG, '{"a":' * 100_000),
    ],
    ids=["infinite id", "5000 digits", "deep list", "deep dict"],
)
def test_files_with_numbers_and_depths_of_no_use(name: str, content: str, folder: Path) -> None:
    (folder / CONFIG).unlink()
    (folder / name).write_text(content)
    with pytest.raises(TokenizerError, match="expected"):
        AutoTokenizer.from_pretrained(folder)


def test_a_template_without_its_tokens(folder: Path) -> None:
    content = json.loads((folder / JSON).read_text())
    content["post_processor"]["special_tokens"] = {}
    (folder / JSON).write_text(json.dumps(content))
    with pytest.raises(TokenizerError, match="tokens that it puts around a text"):
        AutoTokenizer.from_pretrained(folder)


def test_settings_that_no_file_can_hold(saved: Path, tmp_path: Path) -> None:
    tokenizer = XLMRobertaTokenizerFast(saved / MODEL, chat_template="\ud800")
    with pytest.raises(TokenizerError, match="lone surrogate"):
        tokenizer.save_pretrained(tmp_path / "out")


@CLASSES
@pytest.mark.parametrize(
    ("given", "meant"),
    [("model_max_lenght", "model_max_length"), ("pading_side", "padding_side"), ("masktoken", "mask_token")],
)
def test_a_misspelt_setting_is_kept_and_said(
    cls: Any, given: str, meant: str, saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "xlmr_core.tokenization"):
        tokenizer = cls.from_pretrained(saved, **{given: 5, "some_future_setting": 1})
    assert tokenizer.init_kwargs[given] == 5
    assert [record.getMessage() for record in caplog.records] == [
        f"the tokenizer's setting {given!r} is kept and does nothing; did you mean {meant!r}?"
    ]


# -- what the words of an error lead to --------------------------------------------------------------------------------


class Column:
    """A column of a data set: neither list nor tuple."""

    def __iter__(self) -> Any:
        return iter(["a", "b"])


GAP = [*"aaaaaaa", float("nan"), *"bb"]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (GAP, r"received float nan in row 7; it is a gap in the data: fill it .*fillna"),
        (["a", None], "received NoneType None in row 1; it is a gap"),
        (["a", b"b"], r"received bytes b'b' in row 1; decode it"),
        (["a", "b", 5], "received int 5 in row 2"),
        (["a", {"text": "b"}], "received dict .* in row 1"),
        (np.array(["a", "b"]), r"received ndarray of shape \(2,\) and dtype <U1; pass a list, as .tolist\(\)"),
        (np.array(["a", 5], object), r"pass a list, as .tolist\(\)"),
        (Column(), r"received Column .*; pass a list, as list\(...\) makes it"),
        ((text for text in "ab"), r"received generator .*; pass a list"),
        ({"a", "b"}, "received set .*; pass a list"),
        (b"text", "decode it"),
        (float("nan"), "a gap in the data"),
    ],
    ids=ascii,
)
def test_what_is_no_text_and_where(tokenizer: PreTrainedTokenizerBase, texts: Any, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        tokenizer(texts)
    if isinstance(texts, list) and None not in texts and texts is not GAP:
        with pytest.raises(TokenizerError, match=f"in row {len(texts) - 1}"):
            tokenizer(["x"] * len(texts), texts)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["a"], "b c"], r"a list of words .*received str 'b c' in row 1; split it"),
        ([["a"], ["b", None]], r"in row 1; word 1 is NoneType None"),
        ([["a"], ["b", float("nan")]], "in row 1; word 1 is float nan"),
    ],
    ids=str,
)
def test_what_is_no_list_of_words_and_where(tokenizer: PreTrainedTokenizerBase, rows: Any, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        tokenizer(rows, is_split_into_words=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "longst"}, "did you mean 'longest'"),
        ({"truncation": "longest-first"}, "did you mean 'longest_first'"),
        ({"padding": True, "padding_side": "rigth"}, "did you mean 'right'"),
        ({"return_tensors": "torch"}, "did you mean 'pt'"),
        ({"return_tensors": "numpy"}, "did you mean 'np'"),
        ({"return_tensors": "np"}, r"different lengths: 3 in row 0 and \d+ in row 1; pass padding=True"),
    ],
    ids=str,
)
def test_values_of_options(tokenizer: PreTrainedTokenizerBase, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        tokenizer(["a", TEXTS[0]], **options)


def test_names_of_options(tokenizer: PreTrainedTokenizerBase, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer("a", max_lenght=5, colour="red")
    assert caplog.messages[0].endswith("['colour', 'max_lenght'] are not known to the tokenizer and do nothing; "
                                       "did you mean max_length?")  # fmt: skip


def test_columns_that_make_no_tensor(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [{"input_ids": [0, 2], "labels": labels} for labels in ([1, 2], [1], [1, 2])]
    with pytest.raises(TokenizerError, match="'labels', received rows of different lengths: 2 in row 0 and 1 in row 1"):
        tokenizer.pad(rows, return_tensors="np")
    rows = [{"input_ids": [0, 2], "labels": label} for label in (1, None)]
    with pytest.raises(TokenizerError, match="'labels', received None in row 1"):
        tokenizer.pad(rows, return_tensors="np")


def test_a_tokenizer_says_what_it_is(tokenizer: PreTrainedTokenizerBase, saved: Path) -> None:
    tokenizer.add_tokens(["<x>"])
    said = repr(tokenizer)
    assert said.startswith(f"{type(tokenizer).__name__}(name_or_path='', vocab_size=122, model_max_length=none")
    assert "'mask_token': '<mask>'" in said and said.endswith("added=1)")
    assert f"name_or_path={str(saved)!r}, " in repr(AutoTokenizer.from_pretrained(saved))
