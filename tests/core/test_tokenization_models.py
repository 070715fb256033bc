"""Sentencepiece models unlike the published one: both classes give sentencepiece's own ids, or refuse with the name of
what they cannot do.
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.core.tokenization_models import piece, small_model
from xlmr_core import protobuf
from xlmr_core.errors import TokenizerError
from xlmr_core.tokenization import (
    PreTrainedTokenizerBase,
    XLMRobertaTokenizer,
    XLMRobertaTokenizerFast,
    pipeline,
    spm,
    wire,
)
from xlmr_core.tokenization.spm import SentencePieceModel

CLASSES = pytest.mark.parametrize("cls", [XLMRobertaTokenizer, XLMRobertaTokenizerFast], ids=["slow", "fast"])
LINES = [
    f"{a} {b} {c}"
    for a in ("the", "a", "one", "The")
    for b in ("small", "old", "green", "quiet")
    for c in ("house", "river", "bird.", "train, 12")
] + ["<0x 0123456789 > ABCDEF"] * 4
PROBES = [
    *("the old bird", "The  river   is read", " a quiet house ", "  the", "a ", " ", "the ▁old", "12 1 2\tx\n", "\n"),
    *(
        "☃ is new",
        "the ☃☃ ☃bird",
        "<sym>",
        "a <sym> b<sym>the",
        "housebird the housebird",
        "<☃ctrl> a<☃ctrl>",
        "<0x41> the",
        "①② ﬁne Ａ",
    ),
    *("the  <sym>  old", "river<sym>", "aaaaaaaa the aaaa", "x" * 40, "thethethe oldold"),
]


@functools.cache
def trained(**options: Any) -> bytes:
    """A small model; ``user`` and ``control`` are lists of symbols with commas between."""
    import sentencepiece

    for short, long in (("user", "user_defined_symbols"), ("control", "control_symbols")):
        if short in options:
            options[long] = options.pop(short).split(",")
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_writer=written,
        **{"vocab_size": 60, "hard_vocab_limit": False, "minloglevel": 3, **options},
    )
    return written.getvalue()


def field(number: int, value: bool | int | bytes) -> bytes:
    """A field of a message as the file holds it."""
    if isinstance(value, bytes):
        return bytes([number << 3 | 2]) + protobuf.number(len(value)) + value
    return protobuf.number(number << 3) + protobuf.number(int(value))


def with_settings(model: bytes, *, trainer: bytes = b"", normalizer: bytes = b"") -> bytes:
    """A model whose settings are overridden: parts of one message add up."""
    return model + field(2, trainer) + field(3, normalizer)


def without_specs(model: bytes) -> tuple[bytes, bytes, bytes]:
    """The pieces, trainer_spec and normalizer_spec of a model, each with its tag."""
    parts = {1: b"", 2: b"", 3: b""}
    pos = 0
    while pos < len(model):
        number, _, after = wire.field(model, pos)
        if number in parts:
            parts[number] += model[pos:after]
        pos = after
    return parts[1], parts[2], parts[3]


def expected_ids(model: bytes, text: str) -> list[int]:
    """XLM-R's ids by sentencepiece itself."""
    import sentencepiece

    return [index + 1 if index else 3 for index in sentencepiece.SentencePieceProcessor(model_proto=model).encode(text)]


def wrong(tokenizer: PreTrainedTokenizerBase, model: bytes) -> list[str]:
    # Nothing is cut out of a text before the model sees it, so that the model alone answers.
    return [text for text in PROBES if tokenizer.encode(text)[1:-1] != expected_ids(model, text)]


SERVED: dict[str, Callable[[], bytes]] = {
    "as published": lambda: trained(),
    "add_dummy_prefix": lambda: trained(add_dummy_prefix=False),
    "remove_extra_whitespaces": lambda: trained(remove_extra_whitespaces=False),
    "neither": lambda: trained(add_dummy_prefix=False, remove_extra_whitespaces=False),
    "escape_whitespaces": lambda: with_settings(trained(), normalizer=field(5, False)),
    "byte_fallback": lambda: trained(byte_fallback=True, vocab_size=330),
    "split_by_whitespace": lambda: trained(split_by_whitespace=False, vocab_size=120),
    "allow_whitespace_only_pieces": lambda: trained(allow_whitespace_only_pieces=True, remove_extra_whitespaces=False),
    "across words": lambda: trained() + piece("▁the▁old", -0.5) + piece("d▁h", -0.5),
    "user-defined": lambda: trained(user="<sym>,river<"),
    "user-defined, spaces": lambda: trained(user="▁▁,<sym>▁", remove_extra_whitespaces=False),
    "control": lambda: trained(control="housebird"),
    "control, of unknown letters": lambda: trained(control="<☃ctrl>"),
    "unused": lambda: _unused(trained()),
    "identity": lambda: trained(normalization_rule_name="identity"),
    "nfkc": lambda: trained(normalization_rule_name="nfkc"),
    "nmt_nfkc_cf": lambda: trained(normalization_rule_name="nmt_nfkc_cf"),
    "everything at once": lambda: trained(
        byte_fallback=True,
        vocab_size=330,
        user="<sym>",
        control="housebird",
        split_digits=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="nfkc_cf",
    ),
}


def _unused(model: bytes) -> bytes:
    """The model with its longest piece out of use."""
    read = SentencePieceModel.from_bytes(model)
    text = max(read.pieces[3:], key=len)
    number = read.pieces.index(text)
    start, end = spm.scan_model(model, "")[0][number]
    return model[: start - 2] + piece(text, read.scores[number], spm.Kind.UNUSED) + model[end:]


@CLASSES
@pytest.mark.parametrize("name", SERVED)
def test_a_setting_that_both_classes_serve(cls: Any, name: str, tmp_path: Path) -> None:
    model = SERVED[name]()
    (tmp_path / "sentencepiece.bpe.model").write_bytes(model)
    tokenizer = cls.from_pretrained(tmp_path)
    assert wrong(tokenizer, model) == []
    tokenizer.save_pretrained(tmp_path / "saved")
    assert wrong(cls.from_pretrained(tmp_path / "saved"), model) == []


SLOW_ONLY: dict[str, tuple[Callable[[], bytes], str]] = {
    "treat_whitespace_as_suffix": (lambda: trained(treat_whitespace_as_suffix=True), "treat_whitespace_as_suffix"),
    **{
        name: (functools.partial(trained, model_type=name, vocab_size=size), f"model_type {name}")
        for name, size in (("bpe", 60), ("char", 60), ("word", 20))
    },
    "user-defined, normalized": (lambda: trained(user="①"), "'①'"),
}


@pytest.mark.parametrize("name", SLOW_ONLY)
def test_a_setting_that_only_the_sentencepiece_class_serves(name: str, tmp_path: Path) -> None:
    make, message = SLOW_ONLY[name]
    (tmp_path / "sentencepiece.bpe.model").write_bytes(make())
    assert wrong(XLMRobertaTokenizer.from_pretrained(tmp_path), make()) == []
    with pytest.raises(TokenizerError, match=f"{message}.*use XLMRobertaTokenizer "):
        XLMRobertaTokenizerFast.from_pretrained(tmp_path)


@pytest.mark.parametrize(("rule", "served"), [("69\t78", True), ("74 68 65 20\t78", False), ("69 6E\t69", False)])
def test_normalization_rules_of_a_users_own(rule: str, served: bool, tmp_path: Path) -> None:
    (tmp_path / "rules.tsv").write_text(f"{rule}\n")
    model = trained(normalization_rule_tsv=str(tmp_path / "rules.tsv"))
    (tmp_path / "sentencepiece.bpe.model").write_bytes(model)
    assert wrong(XLMRobertaTokenizer.from_pretrained(tmp_path), model) == []
    if served:
        assert wrong(XLMRobertaTokenizerFast.from_pretrained(tmp_path), model) == []
    else:
        with pytest.raises(TokenizerError, match="normalization rules.*precompiled_charsmap"):
            XLMRobertaTokenizerFast.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["add_dummy_prefix", "byte_fallback", "control", "across words", "identity"])
def test_a_json_that_does_not_do_what_the_model_says(name: str, tmp_path: Path) -> None:
    """As the original library converts a model: the published steps, whatever the settings."""
    model = SERVED[name]()
    (tmp_path / "sentencepiece.bpe.model").write_bytes(model)
    read = SentencePieceModel.from_bytes(model)
    pairs = [*((token, 0.0) for token in spm.FAIRSEQ_SPECIAL), *zip(read.pieces[3:], read.scores[3:], strict=True)]
    made = XLMRobertaTokenizerFast(vocab=[*pairs, ("<mask>", 0.0)])
    from tokenizers import Regex, normalizers, pre_tokenizers

    table = [normalizers.Precompiled(read.settings.charsmap)] if read.settings.charsmap else []
    published = [normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), "▁")]
    made.backend_tokenizer.normalizer = normalizers.Sequence(table + published)
    made.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    (tmp_path / "tokenizer.json").write_text(made.backend_tokenizer.to_str())
    with pytest.raises(TokenizerError, match=rf"({name}|a type of their own|leaves white space).*remove .*json"):
        XLMRobertaTokenizerFast.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    assert wrong(XLMRobertaTokenizerFast.from_pretrained(tmp_path), model) == []


def test_a_json_of_other_normalization_rules(tmp_path: Path) -> None:
    (tmp_path / "sentencepiece.bpe.model").write_bytes(trained())
    XLMRobertaTokenizerFast.from_pretrained(tmp_path).save_pretrained(tmp_path)
    pieces, trainer, _ = without_specs(trained())
    (tmp_path / "sentencepiece.bpe.model").write_bytes(pieces + trainer)
    with pytest.raises(TokenizerError, match="precompiled_charsmap"):
        XLMRobertaTokenizerFast.from_pretrained(tmp_path)


# -- pieces with the names of XLM-R's own tokens -----------------------------------------------------------------------

RESERVED: dict[str, dict[str, Any]] = {
    "pad_id": {"pad_id": 3},
    "user-defined": {"user": "<pad>,<mask>"},
    "control": {"control": "<mask>,<pad>"},
    "one of two": {"user": "<sym>,<mask>"},
}


@pytest.mark.parametrize("options", RESERVED.values(), ids=RESERVED)
def test_pieces_named_like_reserved_tokens(options: dict[str, Any], tmp_path: Path) -> None:
    model = trained(**options)
    (tmp_path / "sentencepiece.bpe.model").write_bytes(model)
    slow, fast = (cls.from_pretrained(tmp_path) for cls in (XLMRobertaTokenizer, XLMRobertaTokenizerFast))
    for tokenizer in (slow, fast):
        assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) == list(spm.FAIRSEQ_SPECIAL)
        assert (tokenizer.pad_token_id, tokenizer.mask_token_id) == (1, len(tokenizer) - 1)
        assert tokenizer(["a", "a longer text"], padding=True)["input_ids"][0][-1] == 1
        row = tokenizer("the <mask> <pad>bird")["input_ids"]
        assert {1, len(tokenizer) - 1} <= set(row)
        assert tokenizer.convert_tokens_to_ids(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))) == list(
            range(len(tokenizer))
        )
    assert slow.get_vocab() == fast.get_vocab()
    for text in (*PROBES, "the <mask> <pad>bird", "<pad> of fairseq", "<pad> of sentencepiece"):
        assert slow.encode(text) == fast.encode(text)


def test_a_json_with_a_reserved_token_twice(tmp_path: Path) -> None:
    """As the original library converts such a model: <pad> means the second one there."""
    pairs = [*((token, 0.0) for token in spm.FAIRSEQ_SPECIAL), ("<pad>", 0.0), ("▁", -1.0), ("<mask>", 0.0)]
    pipeline.assembled(pairs, spm.Settings()).save(str(tmp_path / "tokenizer.json"))
    for cls in (XLMRobertaTokenizer, XLMRobertaTokenizerFast):
        with pytest.raises(TokenizerError, match="<pad>"):
            cls(tokenizer_file=tmp_path / "tokenizer.json")


# -- what may be left out ----------------------------------------------------------------------------------------------


@CLASSES
@pytest.mark.parametrize("what", ["scores", "types", "explicit types", "trainer_spec", "normalizer_spec", "fields"])
def test_a_file_without_optional_fields_is_a_good_one(cls: Any, what: str, tmp_path: Path) -> None:
    model = trained()
    pieces, trainer, normalizer = without_specs(model)
    read = SentencePieceModel.from_bytes(model)
    head = b"".join(piece(*args) for args in [("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3)])
    assert pieces.startswith(head)
    rest = pieces[len(head) :]
    if what == "scores":  # 0 by default
        bare = [("<unk>", 2), ("<s>", 3), ("</s>", 3)]
        pieces = b"".join(field(1, field(1, text.encode()) + field(3, kind)) for text, kind in bare) + rest
    elif what == "types":  # of the two that may be ordinary; the unknown piece has to say that it is one
        pieces = piece("<unk>", 0, 2) + piece("<s>", 0) + piece("</s>", 0) + rest
    elif what == "explicit types":
        written = zip(read.pieces[3:], read.scores[3:], strict=True)
        pieces = head + b"".join(
            field(1, field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + field(3, 1))
            for text, score in written
        )
    elif what == "trainer_spec":
        trainer = b""
    elif what == "normalizer_spec":
        normalizer = b""
    else:
        trainer = field(2, b"")
    changed = pieces + trainer + normalizer
    (tmp_path / "m.model").write_bytes(changed)
    assert wrong(cls(tmp_path / "m.model"), changed) == []


@CLASSES
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda pieces, trainer: pieces, "trainer_spec or normalizer_spec"),
        (lambda pieces, trainer: pieces.replace(piece("<unk>", 0, 2), piece("<unk>", 0)) + trainer, "UNKNOWN"),
        (lambda pieces, trainer: pieces + trainer + field(2, field(3, 9)), "model_type"),
        (lambda pieces, trainer: pieces + piece("x", -1) + piece("x", -2) + trainer, "each piece|already"),
        (lambda pieces, trainer: pieces + field(3, field(2, b"\xff\xff\xff\xffabc")), "normalization table"),
    ],
    ids=["no specs", "no unknown piece", "another model_type", "a piece twice", "a table of four gigabytes"],
)  # fmt: skip
def test_a_file_that_is_none(cls: Any, change: Callable[..., bytes], message: str, tmp_path: Path) -> None:
    (tmp_path / "m.model").write_bytes(change(*without_specs(small_model())[:2]))
    with pytest.raises(TokenizerError, match=message):
        cls(tmp_path / "m.model")


# -- the constructors of version 5 -------------------------------------------------------------------------------------


def pairs_of(model: bytes) -> list[tuple[str, float]]:
    return spm.xlmr_vocabulary(SentencePieceModel.from_bytes(model))


@CLASSES
@pytest.mark.parametrize("form", [list, dict, lambda pairs: [list(pair) for pair in pairs], lambda pairs: pairs[:-1]])
def test_a_vocabulary_of_pairs(cls: Any, form: Callable[[Any], Any], tmp_path: Path) -> None:
    model = trained(normalization_rule_name="identity")
    tokenizer = cls(vocab=form(pairs_of(model)))
    (tmp_path / "m.model").write_bytes(model)
    known = cls(tmp_path / "m.model")
    assert tokenizer.get_vocab() == known.get_vocab()
    assert tokenizer(PROBES)["input_ids"] == known(PROBES)["input_ids"]
    tokenizer.save_pretrained(tmp_path / "saved")
    assert cls.from_pretrained(tmp_path / "saved")(PROBES)["input_ids"] == known(PROBES)["input_ids"]


@CLASSES
@pytest.mark.parametrize(
    ("vocab", "message"),
    [
        ({"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}, "received ids"),
        (["<s>", "<pad>"], "scores"),
        ([("<s>", "0")], "scores"),
        ([], "scores"),
        (5, "scores"),
        ([("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("a", -1.0)], "ids 0 to 3"),
    ],
    ids=str,
)
def test_no_vocabulary(cls: Any, vocab: Any, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        cls(vocab=vocab)


def test_a_mask_among_the_pieces_has_no_place_in_a_sentencepiece_model() -> None:
    pairs = [*((token, 0.0) for token in spm.FAIRSEQ_SPECIAL), ("<mask>", 0.0), ("▁", -2.0), ("a", -1.0)]
    assert XLMRobertaTokenizerFast(vocab=pairs).mask_token_id == 4
    with pytest.raises(TokenizerError, match="<mask>.*use XLMRobertaTokenizerFast"):
        XLMRobertaTokenizer(vocab=pairs)


@CLASSES
def test_a_json_alone(cls: Any, tmp_path: Path) -> None:
    (tmp_path / "sentencepiece.bpe.model").write_bytes(trained())
    fast = XLMRobertaTokenizerFast(tmp_path / "sentencepiece.bpe.model")
    fast.add_tokens(["<new>"])
    fast.save_pretrained(tmp_path / "saved", legacy_format=False)
    path = tmp_path / "saved" / "tokenizer.json"
    for tokenizer in (cls(tokenizer_file=path), cls(path), cls(vocab=path), cls.from_pretrained(tmp_path / "saved")):
        assert wrong(tokenizer, trained()) == []
        assert tokenizer.convert_tokens_to_ids("<new>") == len(fast) - 1
        assert tokenizer.encode("a <mask>") == cls(tmp_path / "sentencepiece.bpe.model").encode("a <mask>")


def test_a_json_that_no_sentencepiece_model_is_like(tmp_path: Path) -> None:
    for name in ("byte_fallback", "add_dummy_prefix"):
        (tmp_path / f"{name}.model").write_bytes(SERVED[name]())
        fast = XLMRobertaTokenizerFast(tmp_path / f"{name}.model")
        fast.save_pretrained(tmp_path / name, legacy_format=False)
        with pytest.raises(TokenizerError, match=r"byte_fallback|without a space.*use XLMRobertaTokenizerFast"):
            XLMRobertaTokenizer.from_pretrained(tmp_path / name)


@CLASSES
def test_arguments_answered_once(cls: Any, tmp_path: Path) -> None:
    (tmp_path / "m.model").write_bytes(trained())
    assert cls(tmp_path / "m.model", add_prefix_space=True, merges_file=None).tokenize("a")[0][0] == "▁"
    with pytest.raises(TokenizerError, match="no merges_file.*unigram"):
        cls(tmp_path / "m.model", merges_file="merges.txt")
    with pytest.raises(TokenizerError, match="add_prefix_space=True, received False"):
        cls(tmp_path / "m.model", add_prefix_space=False)
    (tmp_path / "m.model").write_bytes(trained(add_dummy_prefix=False))
    assert cls(tmp_path / "m.model", add_prefix_space=False).tokenize("a") == ["a"]


def test_bytes_are_decoded(tmp_path: Path) -> None:
    (tmp_path / "m.model").write_bytes(trained(byte_fallback=True, vocab_size=330))
    for cls in (XLMRobertaTokenizer, XLMRobertaTokenizerFast):
        tokenizer = cls(tmp_path / "m.model")
        assert tokenizer.decode(tokenizer.encode("the ☃ bird"), skip_special_tokens=True) == "the ☃ bird"
        broken = tokenizer.convert_tokens_to_ids(["▁", "a", "<0xE2>", "<0x98>", "▁", "a"])
        assert tokenizer.decode(broken) == "a\ufffd\ufffd a"
