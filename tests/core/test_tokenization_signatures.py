"""Public methods and class attributes of both tokenizer classes: names, order and defaults of transformers 4.57.6."""

from __future__ import annotations

import dataclasses
import inspect
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.core.tokenization_models import small_model
from xlmr_core.errors import TokenizerError
from xlmr_core.tokenization import PreTrainedTokenizerBase, XLMRobertaTokenizer, XLMRobertaTokenizerFast
from xlmr_core.tokenization.calling import CallArguments, CallOptions

CLASSES = {"slow": XLMRobertaTokenizer, "fast": XLMRobertaTokenizerFast}
BOTH = pytest.mark.parametrize("cls", CLASSES.values(), ids=CLASSES)

# Read off the published classes with inspect.signature, annotations left out; the sentencepiece file is optional, as in
# version 5.
PUBLISHED = {
    ("slow", "__init__"): (
        "vocab_file=None, bos_token='<s>', eos_token='</s>', sep_token='</s>', cls_token='<s>', unk_token='<unk>', "
        "pad_token='<pad>', mask_token='<mask>', sp_model_kwargs=None, **kwargs"
    ),
    ("fast", "__init__"): (
        "vocab_file=None, tokenizer_file=None, bos_token='<s>', eos_token='</s>', sep_token='</s>', "
        "cls_token='<s>', unk_token='<unk>', pad_token='<pad>', mask_token='<mask>', **kwargs"
    ),
    ("both", "__call__"): (
        "text=None, text_pair=None, text_target=None, text_pair_target=None, add_special_tokens=True, "
        "padding=False, truncation=None, max_length=None, stride=0, is_split_into_words=False, "
        "pad_to_multiple_of=None, padding_side=None, return_tensors=None, return_token_type_ids=None, "
        "return_attention_mask=None, return_overflowing_tokens=False, return_special_tokens_mask=False, "
        "return_offsets_mapping=False, return_length=False, verbose=True, **kwargs"
    ),
    ("both", "encode"): (
        "text, text_pair=None, add_special_tokens=True, padding=False, truncation=None, max_length=None, stride=0, "
        "padding_side=None, return_tensors=None, **kwargs"
    ),
    ("both", "encode_plus"): (
        "text, text_pair=None, add_special_tokens=True, padding=False, truncation=None, max_length=None, stride=0, "
        "is_split_into_words=False, pad_to_multiple_of=None, padding_side=None, return_tensors=None, "
        "return_token_type_ids=None, return_attention_mask=None, return_overflowing_tokens=False, "
        "return_special_tokens_mask=False, return_offsets_mapping=False, return_length=False, verbose=True, "
        "**kwargs"
    ),
    ("both", "batch_encode_plus"): (
        "batch_text_or_text_pairs, add_special_tokens=True, padding=False, truncation=None, max_length=None, "
        "stride=0, is_split_into_words=False, pad_to_multiple_of=None, padding_side=None, return_tensors=None, "
        "return_token_type_ids=None, return_attention_mask=None, return_overflowing_tokens=False, "
        "return_special_tokens_mask=False, return_offsets_mapping=False, return_length=False, verbose=True, "
        "split_special_tokens=False, **kwargs"
    ),
    ("both", "prepare_for_model"): (
        "ids, pair_ids=None, add_special_tokens=True, padding=False, truncation=None, max_length=None, stride=0, "
        "pad_to_multiple_of=None, padding_side=None, return_tensors=None, return_token_type_ids=None, "
        "return_attention_mask=None, return_overflowing_tokens=False, return_special_tokens_mask=False, "
        "return_offsets_mapping=False, return_length=False, verbose=True, prepend_batch_axis=False, **kwargs"
    ),
    ("both", "pad"): (
        "encoded_inputs, padding=True, max_length=None, pad_to_multiple_of=None, padding_side=None, "
        "return_attention_mask=None, return_tensors=None, verbose=True"
    ),
    ("both", "truncate_sequences"): (
        "ids, pair_ids=None, num_tokens_to_remove=0, truncation_strategy='longest_first', stride=0"
    ),
    ("slow", "tokenize"): ("text, **kwargs"),
    ("slow", "prepare_for_tokenization"): ("text, is_split_into_words=False, **kwargs"),
    ("fast", "set_truncation_and_padding"): (
        "padding_strategy, truncation_strategy, max_length, stride, pad_to_multiple_of, padding_side"
    ),
    ("fast", "tokenize"): ("text, pair=None, add_special_tokens=False, **kwargs"),
    ("both", "decode"): ("token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=None, **kwargs"),
    ("both", "batch_decode"): ("sequences, skip_special_tokens=False, clean_up_tokenization_spaces=None, **kwargs"),
    ("both", "convert_tokens_to_ids"): ("tokens"),
    ("both", "convert_ids_to_tokens"): ("ids, skip_special_tokens=False"),
    ("both", "convert_tokens_to_string"): ("tokens"),
    ("both", "clean_up_tokenization"): ("out_string"),
    ("both", "build_inputs_with_special_tokens"): ("token_ids_0, token_ids_1=None"),
    ("both", "create_token_type_ids_from_sequences"): ("token_ids_0, token_ids_1=None"),
    ("both", "get_special_tokens_mask"): ("token_ids_0, token_ids_1=None, already_has_special_tokens=False"),
    ("both", "num_special_tokens_to_add"): ("pair=False"),
    ("both", "get_vocab"): "",
    ("both", "get_added_vocab"): "",
    ("both", "add_tokens"): ("new_tokens, special_tokens=False"),
    ("both", "add_special_tokens"): ("special_tokens_dict, replace_additional_special_tokens=True"),
    ("both", "from_pretrained"): (
        "pretrained_model_name_or_path, *init_inputs, cache_dir=None, force_download=False, "
        "local_files_only=False, token=None, revision='main', trust_remote_code=False, **kwargs"
    ),
    ("both", "save_pretrained"): (
        "save_directory, legacy_format=None, filename_prefix=None, push_to_hub=False, **kwargs"
    ),
    ("both", "save_vocabulary"): ("save_directory, filename_prefix=None"),
    ("fast", "train_new_from_iterator"): (
        "text_iterator, vocab_size, length=None, new_special_tokens=None, special_tokens_map=None, **kwargs"
    ),
}


def _cases() -> list[Any]:
    return [
        pytest.param(CLASSES[kind], name, published, id=f"{kind}-{name}")
        for (which, name), published in PUBLISHED.items()
        for kind in (CLASSES if which == "both" else [which])
    ]


@pytest.mark.parametrize(("cls", "name", "published"), _cases())
def test_signature(cls: type[PreTrainedTokenizerBase], name: str, published: str) -> None:
    """Beyond the published arguments only keyword-only ones are allowed, which no published call can meet."""
    words = published.replace("=", " ").replace(",", " ").split()
    ours = [
        argument.replace(annotation=inspect.Parameter.empty)
        for argument in inspect.signature(getattr(cls, name)).parameters.values()
        if argument.name != "self" and (argument.kind is not argument.KEYWORD_ONLY or argument.name in words)
    ]
    assert str(inspect.Signature(ours))[1:-1] == published


def test_editors_see_what_a_call_takes() -> None:
    """The names for editors and type checkers are those that a call reads, with their types."""
    first_releases = {"pad_to_max_length": "bool", "truncation_strategy": "str | None"}
    read = {option.name: option.type for option in dataclasses.fields(CallOptions) if option.init}
    seen = {name: kind.__forward_arg__ for name, kind in CallArguments.__annotations__.items()}
    assert seen == {**read, **first_releases}


@BOTH
def test_arguments_given_twice_or_beyond_the_last_one(cls: Any, model_file: Path) -> None:
    tokenizer = cls(model_file)
    for call, texts in (
        (tokenizer, ("a", None, None, None)),
        (tokenizer.encode, ("a", None)),
        (tokenizer.encode_plus, ("a", None)),
        (tokenizer.batch_encode_plus, (["a"],)),
        (tokenizer.prepare_for_model, ([5], None)),
    ):
        with pytest.raises(TypeError, match="add_special_tokens"):
            call(*texts, True, add_special_tokens=True)
        with pytest.raises(TypeError, match="at most"):
            call(*texts, *[True] * 30)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "sentencepiece.bpe.model"
    path.write_bytes(small_model())
    return path


@BOTH
def test_positions_mean_what_they_are_called(cls: Any, model_file: Path) -> None:
    tokenizer = cls(model_file)
    bare = tokenizer("Paris is", add_special_tokens=False)["input_ids"]
    assert tokenizer.encode("Paris is", None, False) == bare
    assert tokenizer.encode("Paris is", None, True, "max_length", True, 9, 0, "left")[-2:] == [bare[-1], 2]
    assert tokenizer.encode_plus("Paris is", None, False)["input_ids"] == bare
    assert tokenizer.batch_encode_plus(["Paris is"], False)["input_ids"] == [bare]
    assert dict(tokenizer.prepare_for_model([5, 6], None, False)) == {"input_ids": [5, 6], "attention_mask": [1, 1]}
    assert tokenizer.prepare_for_model([5, 6], [7], False)["input_ids"] == [5, 6, 7]
    assert tokenizer.prepare_for_model([5, 6], None, True, "max_length", None, 6)["input_ids"] == [0, 5, 6, 2, 1, 1]
    assert tokenizer.prepare_for_model([5], return_tensors="np")["input_ids"].shape == (3,)
    assert tokenizer.prepare_for_model([5], return_tensors="np", prepend_batch_axis=True)["input_ids"].shape == (1, 3)


# Every argument of a call that changes a row, with a value that does.
CHANGES: dict[str, Any] = {
    "add_special_tokens": False, "padding": "max_length", "truncation": False, "stride": 2, "pad_to_multiple_of": 64,
    "padding_side": "left", "return_tensors": "np", "return_token_type_ids": True, "return_attention_mask": False,
    "return_overflowing_tokens": True, "return_special_tokens_mask": True, "return_length": True,
    "return_offsets_mapping": True, "is_split_into_words": True,
}  # fmt: skip
BESIDE: dict[str, dict[str, Any]] = {
    "padding": {"max_length": 40},
    "truncation": {"max_length": 5},
    "stride": {"max_length": 6, "truncation": True, "return_overflowing_tokens": True},
    "pad_to_multiple_of": {"padding": True},
    "padding_side": {"padding": "max_length", "max_length": 40},
    "return_overflowing_tokens": {"max_length": 5, "truncation": True},
}
TEXT = "Paris is the capital"


@BOTH
@pytest.mark.parametrize("name", CHANGES)
def test_every_argument_is_passed_on(cls: Any, name: str, model_file: Path) -> None:
    tokenizer = cls(model_file)
    words = name == "is_split_into_words"
    text: Any = TEXT.split() if words else TEXT
    beside = BESIDE.get(name, {})
    plain = {key: str(value) for key, value in tokenizer(TEXT, **beside).items()}
    changed = {key: str(value) for key, value in tokenizer(text, **beside, **{name: CHANGES[name]}).items()}
    if not words:  # these words happen to have the pieces of the text
        assert changed != plain
    one = tokenizer.encode_plus(text, **beside, **{name: CHANGES[name]})
    assert {key: str(value) for key, value in one.items()} == changed
    many = tokenizer.batch_encode_plus([text], **beside, **{name: CHANGES[name]})
    called = tokenizer([text], **beside, **{name: CHANGES[name]})
    assert {key: str(value) for key, value in many.items()} == {key: str(value) for key, value in called.items()}
    if name in ("return_offsets_mapping", "is_split_into_words"):
        return
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    row = tokenizer.prepare_for_model(ids, **beside, **{name: CHANGES[name]})
    assert {key: str(value) for key, value in row.items()} != {
        key: str(value) for key, value in tokenizer.prepare_for_model(ids, **beside).items()
    }


@BOTH
def test_quiet_calls(cls: Any, model_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = cls(model_file, model_max_length=3)
    for call, given in (
        (tokenizer, TEXT),
        (tokenizer.encode, TEXT),
        (tokenizer.encode_plus, TEXT),
        (tokenizer.batch_encode_plus, [TEXT]),
        (tokenizer.prepare_for_model, [5, 6]),
    ):
        call(given, verbose=False)
        assert not caplog.records
    tokenizer(TEXT)
    assert "longer than" in caplog.text


@BOTH
def test_splitting_special_tokens_in_a_batch(cls: Any, model_file: Path) -> None:
    text = ["a <q>"]
    for own, asked in ((True, False), (False, True)):
        tokenizer = cls(model_file, split_special_tokens=own, additional_special_tokens=["<q>"])
        ids = tokenizer.batch_encode_plus(text, split_special_tokens=asked)["input_ids"][0]
        assert tokenizer.convert_tokens_to_ids("<q>") not in ids


# -- class attributes --------------------------------------------------------------------------------------------------


@BOTH
def test_class_attributes(cls: Any) -> None:
    files = {"vocab_file": "sentencepiece.bpe.model", "tokenizer_file": "tokenizer.json"}
    assert cls.vocab_files_names == (files if cls.is_fast else {"vocab_file": files["vocab_file"]})
    assert cls.slow_tokenizer_class is (XLMRobertaTokenizer if cls.is_fast else None)
    assert (cls.padding_side, cls.truncation_side) == ("right", "right")
    assert cls.model_input_names == ["input_ids", "attention_mask"]
    assert cls.pretrained_vocab_files_map == {}
    assert cls.SPECIAL_TOKENS_ATTRIBUTES[-2:] == ["mask_token", "additional_special_tokens"]


@BOTH
def test_a_subclass_sets_them(cls: Any, model_file: Path) -> None:
    own = type("Own", (cls,), {"padding_side": "left", "truncation_side": "left", "model_input_names": ["input_ids"]})
    tokenizer = own(model_file)
    assert set(tokenizer(["a", TEXT], padding=True)) == {"input_ids"}
    assert tokenizer(["a", TEXT], padding=True)["input_ids"][0][0] == 1
    assert tokenizer.encode(TEXT, truncation=True, max_length=4)[2] == tokenizer.encode(TEXT)[-2]
    assert own(model_file, padding_side="right").padding_side == "right"
    tokenizer.model_input_names.append("token_type_ids")
    assert own.model_input_names == ["input_ids"]
    with pytest.raises(TokenizerError, match="padding_side"):
        type("Bad", (cls,), {"padding_side": "up"})(model_file)


# -- what the two classes take differently -----------------------------------------------------------------------------


def test_slow_tokenize_ignores_what_only_the_fast_class_knows(
    model_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slow, fast = XLMRobertaTokenizer(model_file), XLMRobertaTokenizerFast(model_file)
    with caplog.at_level(logging.WARNING, "xlmr_core.tokenization"):
        assert slow.tokenize("a b", pair="c", add_special_tokens=True) == slow.tokenize("a b") == fast.tokenize("a b")
    assert "['add_special_tokens', 'pair']" in caplog.text
    assert fast.tokenize("a b", "c", True) == [
        "<s>",
        *slow.tokenize("a b"),
        "</s>",
        "</s>",
        *slow.tokenize("c"),
        "</s>",
    ]


@BOTH
def test_published_attributes(cls: Any, model_file: Path) -> None:
    tokenizer = cls(model_file)
    assert (tokenizer.chat_template, tokenizer.extra_special_tokens, tokenizer.init_inputs) == (None, {}, ())


def test_a_subclass_prepares_its_texts(model_file: Path) -> None:
    class Shouting(XLMRobertaTokenizer):
        def prepare_for_tokenization(
            self, text: str, is_split_into_words: bool = False, **kwargs: Any
        ) -> tuple[str, dict[str, Any]]:
            return text.upper(), kwargs

    plain, shouting = XLMRobertaTokenizer(model_file), Shouting(model_file)
    assert plain.prepare_for_tokenization("a", is_split_into_words=True, left=1) == ("a", {"left": 1})
    assert shouting.tokenize(TEXT) == plain.tokenize(TEXT.upper())
    ids = plain(TEXT.upper())["input_ids"]
    assert shouting(TEXT)["input_ids"] == shouting([TEXT])["input_ids"][0] == ids != plain(TEXT)["input_ids"]
    words = plain(TEXT.upper().split(), is_split_into_words=True)["input_ids"]
    assert shouting(TEXT.split(), is_split_into_words=True)["input_ids"] == words


def test_lengths_of_the_tokenizer_underneath(model_file: Path) -> None:
    fast = XLMRobertaTokenizerFast(model_file)
    fast.set_truncation_and_padding("max_length", "longest_first", 6, 0, None, "left")
    assert fast.backend_tokenizer.encode("a").ids == [1, 1, 1, *fast("a")["input_ids"]]
    fast.set_truncation_and_padding("max_length", "longest_first", 6, 0, None, None)
    assert len(fast.backend_tokenizer.encode(TEXT).ids) == 6
    assert len(fast(TEXT)["input_ids"]) > 6  # a call has lengths of its own
    fast.set_truncation_and_padding("do_not_pad", "do_not_truncate", None, 0, None, None)
    assert fast.backend_tokenizer.encode("a").ids == fast("a")["input_ids"]


def test_training_keeps_the_names_of_special_tokens(model_file: Path) -> None:
    fast = XLMRobertaTokenizerFast(model_file)
    with pytest.raises(TokenizerError, match="keep their names"):
        fast.train_new_from_iterator([TEXT], 50, special_tokens_map={"<mask>": "[MASK]"})
