"""fairseq's ``dict.txt`` beside a tokenizer: the rows of the embedding follow it, so ids do."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.core.small_models import config_of, save
from tests.core.tokenization_models import TEXTS, small_model
from xlmr_core.conversion import convert
from xlmr_core.diagnosis import diagnose
from xlmr_core.errors import TokenizerError
from xlmr_core.tokenization import AutoTokenizer, XLMRobertaTokenizer, XLMRobertaTokenizerFast
from xlmr_core.tokenization.spm import SentencePieceModel
from xlmr_core.verification import compare

CLASSES = pytest.mark.parametrize("cls", [XLMRobertaTokenizer, XLMRobertaTokenizerFast], ids=["slow", "fast"])
MODEL, JSON, DICTIONARY = "sentencepiece.bpe.model", "tokenizer.json", "dict.txt"
PIECES = SentencePieceModel.from_bytes(small_model()).pieces[3:]
BACKWARDS = PIECES[::-1]


def write(folder: Path, lines: list[str], model: bytes | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / MODEL).write_bytes(small_model() if model is None else model)
    (folder / DICTIONARY).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


def counted(pieces: list[str]) -> list[str]:
    return [f"{piece} {number}" for number, piece in enumerate(pieces, 7)]


def ids_of(pieces: list[str], text: str) -> list[int]:
    """The ids that fairseq gives: the line of each piece behind its four special tokens."""
    import sentencepiece

    found = sentencepiece.SentencePieceProcessor(model_proto=small_model()).encode(text, out_type=str)
    return [pieces.index(piece) + 4 if piece in pieces else 3 for piece in found]


FILLED = [*BACKWARDS[:50], "madeupword0000", *BACKWARDS[50:], "madeupword0001"]


@CLASSES
@pytest.mark.parametrize("pieces", [PIECES, BACKWARDS, FILLED], ids=["in order", "backwards", "filled up"])
@pytest.mark.parametrize("ending", [[], ["<mask> 1"]], ids=["", "mask"])
def test_ids_follow_the_dictionary(
    cls: Any, pieces: list[str], ending: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write(tmp_path, counted(pieces) + ending)
    with caplog.at_level(logging.WARNING, "xlmr_core.tokenization"):
        tokenizer = cls.from_pretrained(folder)
    assert ("another order" in caplog.text) is (pieces != PIECES)
    for made in (tokenizer, cls(folder / MODEL), cls.from_pretrained(folder / MODEL)):
        assert made.mask_token_id == len(made) - 1 == 4 + len(pieces)
        for text in TEXTS:
            assert made.encode(text)[1:-1] == ids_of(pieces, text)
            assert made.decode(made.encode(text), skip_special_tokens=True) == cls(model_alone(tmp_path)).decode(
                cls(model_alone(tmp_path)).encode(text), skip_special_tokens=True
            )
    # What is saved needs no dictionary, and other libraries give the same ids.
    tokenizer.save_pretrained(tmp_path / "saved")
    assert cls.from_pretrained(tmp_path / "saved").encode(TEXTS[0])[1:-1] == ids_of(pieces, TEXTS[0])


def model_alone(folder: Path) -> Path:
    (folder / "alone").mkdir(exist_ok=True)
    (folder / "alone" / MODEL).write_bytes(small_model())
    return folder / "alone" / MODEL


@CLASSES
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[1:], r"it lacks 1 \('▁'\) and has none"),
        (lambda lines: [*lines, "☃ 3"], r"it lacks none and has 1 \('☃'\)"),
        (lambda lines: [*lines[2:], "☃ 3"], "it lacks 2 .* and has 1 "),
        (lambda lines: [lines[0], *lines], "each piece once"),
        (lambda lines: ["<mask> 1", *lines], "no special token but <mask> at its end"),
        (lambda lines: [*lines, "<pad> 1"], "no special token but <mask> at its end"),
        (lambda lines: [*lines[:5], "▁one"], "in line 6"),
        (lambda lines: [*lines[:5], "a jieba line n"], "in line 6"),
    ],
)
def test_a_dictionary_of_another_vocabulary(
    cls: Any, change: Callable[[list[str]], list[str]], message: str, tmp_path: Path
) -> None:
    folder = write(tmp_path, change(counted(PIECES)))
    with pytest.raises(TokenizerError, match=message):
        cls.from_pretrained(folder)


@CLASSES
@pytest.mark.parametrize("what", ["subset", "no dictionary", "json alone"])
def test_a_dictionary_that_the_rows_say_is_a_strangers(
    cls: Any, what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write(tmp_path, ["jieba 3 n"] if what == "no dictionary" else counted(PIECES[9:]))
    if what == "json alone":
        XLMRobertaTokenizerFast(model_alone(tmp_path)).save_pretrained(folder)
        (folder / MODEL).unlink()
    with pytest.raises(TokenizerError, match=r"dict\.txt"):
        cls.from_pretrained(folder)
    for rows in (len(PIECES) + 5 - 9, 999):
        (folder / "config.json").write_text(json.dumps({"vocab_size": rows}))
        with pytest.raises(TokenizerError, match=r"dict\.txt"):
            cls.from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"vocab_size": len(PIECES) + 5}))
    assert cls.from_pretrained(folder).encode(TEXTS[0])[1:-1] == ids_of(PIECES, TEXTS[0])
    assert "not used" in caplog.text


def test_a_dictionary_that_is_no_text(tmp_path: Path) -> None:
    write(tmp_path, [])
    (tmp_path / DICTIONARY).write_bytes(b"\xff\xfe")
    with pytest.raises(TokenizerError, match=r"dict\.txt, but it cannot be read"):
        AutoTokenizer.from_pretrained(tmp_path)


@CLASSES
@pytest.mark.parametrize("with_model", [True, False])
def test_a_json_in_another_order(cls: Any, with_model: bool, tmp_path: Path) -> None:
    folder = write(tmp_path, counted(PIECES))
    XLMRobertaTokenizerFast.from_pretrained(folder).save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).encode(TEXTS[0])[1:-1] == ids_of(PIECES, TEXTS[0])
    write(folder, counted(BACKWARDS))
    if not with_model:
        (folder / MODEL).unlink()
    if with_model and not cls.is_fast:  # which reads the model, and not the other file
        assert cls.from_pretrained(folder).encode(TEXTS[0])[1:-1] == ids_of(BACKWARDS, TEXTS[0])
    else:
        with pytest.raises(TokenizerError, match="one vocabulary in .*json and"):
            cls.from_pretrained(folder)


def archive(folder: Path, lines: list[str]) -> Path:
    """A model of fairseq with its dictionary in another order, as fairseq-preprocess leaves it."""
    save(folder.parent / "plain", config_of("base", "ForMaskedLM"), "ForMaskedLM")
    convert(folder.parent / "plain", folder, "fairseq")
    return write(folder, lines)


def test_a_conversion_writes_a_model_in_the_order_of_the_rows(tmp_path: Path) -> None:
    source = archive(tmp_path / "source", counted(BACKWARDS))
    done = convert(source, tmp_path / "a", "safetensors", verify=True)
    assert done.comparison is not None and done.comparison.equal
    assert any("follow its dict.txt" in note for note in done.comparison.notes)
    assert not (tmp_path / "a" / DICTIONARY).exists(), "the model says it all now"
    for cls in (XLMRobertaTokenizer, XLMRobertaTokenizerFast):
        assert cls.from_pretrained(tmp_path / "a").encode(TEXTS[0])[1:-1] == ids_of(BACKWARDS, TEXTS[0])
    convert(tmp_path / "a", tmp_path / "b", "fairseq")
    symbols = [line.rpartition(" ")[0] for line in (tmp_path / "b" / DICTIONARY).read_text().splitlines()]
    assert symbols == BACKWARDS
    convert(source, tmp_path / "c", "fairseq", dtype="float64")
    assert (tmp_path / "c" / DICTIONARY).read_bytes() == (tmp_path / "b" / DICTIONARY).read_bytes()
    assert (tmp_path / "c" / MODEL).read_bytes() == (tmp_path / "a" / MODEL).read_bytes()
    assert compare(source, tmp_path / "a").equal


def test_a_conversion_of_a_dictionary_that_fits_nothing_is_refused(tmp_path: Path) -> None:
    source = archive(tmp_path / "source", counted(PIECES[3:]))
    with pytest.raises(TokenizerError, match=r"it lacks 3 .* take the file away"):
        convert(source, tmp_path / "a", "safetensors")
    assert not (tmp_path / "a").exists()
    write(source, counted(PIECES))
    XLMRobertaTokenizerFast.from_pretrained(source).save_pretrained(source)
    write(source, counted(BACKWARDS))
    with pytest.raises(TokenizerError, match=r"tokenizer\.json and .*dict\.txt"):
        convert(source, tmp_path / "a", "safetensors")
    (source / JSON).write_text(json.dumps({"model": {"vocab": 5}}))
    with pytest.raises(TokenizerError, match="damaged or of another kind"):
        convert(source, tmp_path / "a", "safetensors")


@pytest.mark.parametrize(("to", "is_ill"), [("fairseq", False), ("safetensors", True)])
def test_the_doctor_speaks_of_the_dictionary(to: str, is_ill: bool, tmp_path: Path) -> None:
    source = archive(tmp_path / "source", counted(BACKWARDS))
    if to == "safetensors":  # as an earlier conversion left it: the model as it was, and the dictionary beside it
        convert(source, tmp_path / "a", to)
        source = write(tmp_path / "a", counted(BACKWARDS))
    found = [item for item in diagnose(source).findings if DICTIONARY in item.what]
    assert [item.is_ill for item in found] == [is_ill]
    write(source, counted(PIECES))
    assert not [item for item in diagnose(source).findings if DICTIONARY in item.what]
    write(source, counted(PIECES[1:]))
    assert [item.is_ill for item in diagnose(source).findings if DICTIONARY in item.what] == [True]


def test_a_piece_named_like_a_reserved_token_has_a_row_that_fairseq_fills(tmp_path: Path) -> None:
    from tests.core.test_tokenization_models import trained

    save(tmp_path / "plain", config_of("base", "ForMaskedLM"), "ForMaskedLM")
    (tmp_path / "plain" / MODEL).write_bytes(trained(user="<mask>,<pad>"))
    convert(tmp_path / "plain", tmp_path / "a", "fairseq")
    plain, again = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("plain", "a"))
    assert again("the old bird <mask>")["input_ids"] == plain("the old bird <mask>")["input_ids"]
    assert len(again) == len(plain)
