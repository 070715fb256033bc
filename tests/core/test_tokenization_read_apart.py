"""A tokenizer.json that is read in two parts makes the tokenizer that the library makes of the whole."""

from __future__ import annotations

import copy
import json
import pickle
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.core.tokenization_models import MIXED, TEXTS, small_model
from xlmr_core.errors import TokenizerError
from xlmr_core.tokenization import XLMRobertaTokenizerFast, deferred, fast, read_apart, tokenizer_json_from_model

MINI = Path(__file__).parents[2] / "weights" / "xlmr-mini" / "tokenizer.json"


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tokenizer.json of a small model, as the library writes it."""
    path = tmp_path_factory.mktemp("model") / "m.model"
    path.write_bytes(small_model())
    return tokenizer_json_from_model(path)


def by_the_library(text: str) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(text)


def written(folder: Path, text: str) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(text, encoding="utf-8")
    return path


def changed(text: str, change: Callable[[dict[str, Any]], object]) -> str:
    content = json.loads(text)
    change(content)
    return json.dumps(content)


def token(text: str, index: int, **flags: bool) -> dict[str, Any]:
    names = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return {"id": index, "content": text, **dict.fromkeys(names, False), **flags}


def of_odd_pieces(content: dict[str, Any]) -> None:
    pieces = ['a"b', "a\\b", "\u2028", "\U00010348", "vocab", '"vocab": [', "\x01", "é\u0301"]
    content["model"]["vocab"] += [[piece, -9.5] for piece in pieces]


def of_added_tokens(content: dict[str, Any]) -> None:
    last = len(content["model"]["vocab"])
    content["added_tokens"] += [
        token("<new>", last, special=True),
        token("word", last + 1, single_word=True, normalized=True),
        token("left ", last + 2, lstrip=True, rstrip=True),
        token("Paris", last + 3),
    ]


def in_use(content: dict[str, Any]) -> None:
    content["truncation"] = {"direction": "Left", "max_length": 7, "strategy": "LongestFirst", "stride": 2}
    content["padding"] = {
        "strategy": {"Fixed": 9},
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 1,
        "pad_type_id": 0,
        "pad_token": "<pad>",
    }


def of_two_vocabularies(content: dict[str, Any]) -> None:
    content["model"] = {"vocab": {"a": 1}, **content["model"]}


FORMS: dict[str, Callable[[dict[str, Any]], object]] = {
    "as it is": lambda content: None,
    "odd pieces": of_odd_pieces,
    "added tokens": of_added_tokens,
    "saved in use": in_use,
    "byte fallback": lambda content: content["model"].update(byte_fallback=True),
    "without byte fallback": lambda content: content["model"].pop("byte_fallback"),
    "no added tokens": lambda content: content.pop("added_tokens"),
    "no normalizer": lambda content: content.update(normalizer=None),
    "the model in front": lambda content: content.update({"version": content.pop("version")}),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("indent", [None, 2], ids=["compact", "pretty"])
@pytest.mark.parametrize("ascii_only", [True, False], ids=["escaped", "as letters"])
def test_every_form_is_the_same_tokenizer(
    content: str, form: str, indent: int | None, ascii_only: bool, tmp_path: Path
) -> None:
    value = json.loads(content)
    FORMS[form](value)
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    made, expected = read_apart.made_apart(written(tmp_path, text)), by_the_library(text)
    assert made is not None
    assert made.to_str() == expected.to_str()
    for one, other in zip(made.encode_batch(MIXED), expected.encode_batch(MIXED), strict=True):
        assert (one.ids, one.offsets, one.word_ids) == (other.ids, other.offsets, other.word_ids)


def test_the_published_vocabulary_bit_for_bit_and_random_texts() -> None:
    made, expected = read_apart.made_apart(MINI), by_the_library(MINI.read_text(encoding="utf-8"))
    assert made is not None and made.to_str() == expected.to_str()
    rng = random.Random(0)
    letters = "".join(TEXTS) + "  \t\u00a0\u0301\ufeff☃"
    texts = ["".join(rng.choices(letters, k=rng.randrange(40))) for _ in range(400)]
    for one, other in zip(made.encode_batch(texts), expected.encode_batch(texts), strict=True):
        assert (one.ids, one.offsets) == (other.ids, other.offsets)


def test_scores_are_read_as_the_library_reads_them(content: str, tmp_path: Path) -> None:
    """Which is one unit in the last place beside the nearest float for some, so that a float of Python's own would
    not do.
    """
    rng = random.Random(1)
    numbers = [
        f"-{rng.randrange(20)}.{rng.randrange(10**places):0{places}d}" for places in range(1, 17) for _ in range(80)
    ]
    numbers += ["0.0", "-0.0", "1.5", "-0.1", "123456789012345.678", "0.0000000000000000"]
    pieces = ",".join(f'["q{number}",{score}]' for number, score in enumerate(numbers))
    head = json.loads(content)
    first = json.dumps(head["model"]["vocab"][:4])[1:-1]
    head["model"]["vocab"], head["added_tokens"] = "HERE", []
    text = json.dumps(head).replace('"HERE"', f"[{first},{pieces}]")
    made = read_apart.made_apart(written(tmp_path, text))
    assert made is not None and made.to_str() == by_the_library(text).to_str()


def with_score(number: str) -> Callable[[str], str]:
    return lambda text: changed(text, lambda content: content["model"]["vocab"][9].__setitem__(1, "N")).replace(
        '"N"', number
    )


ODD: dict[str, Callable[[str], str]] = {
    "an exponent": with_score("-1.5e-3"),
    "an integer": with_score("-3"),
    "too many digits": with_score("-1.23456789012345678901"),
    "no number": with_score("NaN"),
    "no score": lambda text: changed(text, lambda content: content["model"]["vocab"][9].pop()),
    "no text": lambda text: changed(text, lambda content: content["model"]["vocab"][9].__setitem__(0, 7)),
    "half a character": lambda text: changed(
        text, lambda content: content["model"]["vocab"][9].__setitem__(0, "\ud800")
    ),
    "another model": lambda text: changed(text, lambda content: content["model"].update(type="WordLevel")),
    "a field that is new": lambda text: changed(text, lambda content: content["model"].update(alpha=0.5)),
    "no such id": lambda text: changed(text, lambda content: content["model"].update(unk_id=10**6)),
    "an empty vocabulary": lambda text: changed(text, lambda content: content["model"].update(vocab=[])),
    "an added token without a flag": lambda text: changed(
        text, lambda content: content["added_tokens"][0].pop("special")
    ),
    "an added token of another id": lambda text: changed(text, lambda content: content["added_tokens"][4].update(id=7)),
    "an unknown step": lambda text: changed(text, lambda content: content.update(normalizer={"type": "Rot13"})),
    "two vocabularies": lambda text: changed(text, lambda content: content.update(other={"vocab": []})),
    "half a file": lambda text: text[: len(text) // 2],
    "no JSON behind it": lambda text: text + "}",
    "no object": lambda text: "[]",
}


@pytest.mark.parametrize("odd", ODD)
def test_what_is_odd_is_for_the_library(
    content: str, odd: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It then reads or refuses the file, with the same words as ever."""
    path = written(tmp_path, ODD[odd](content).encode("utf-8", "surrogatepass").decode("utf-8", "replace"))
    assert read_apart.made_apart(path) is None
    found = said_by(path)
    monkeypatch.setattr(fast, "made_apart", lambda path: None)
    assert found == said_by(path)


def said_by(path: Path) -> str:
    try:
        return str(XLMRobertaTokenizerFast(tokenizer_file=path).backend_tokenizer.to_str())
    except TokenizerError as error:
        return str(error)


def test_a_folder_is_read_this_way_and_nothing_is_written(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that read-only folders, two processes and a file that changes are as they always were."""
    (tmp_path / "sentencepiece.bpe.model").write_bytes(small_model())
    path = written(tmp_path, content)
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(fast, "read_tokenizer_json", lambda path: pytest.fail("the library read the whole"))
    tokenizer = XLMRobertaTokenizerFast.from_pretrained(tmp_path)
    assert sorted(tmp_path.iterdir()) == before
    ids = tokenizer(TEXTS)["input_ids"]
    written(tmp_path, changed(content, lambda value: value["model"]["vocab"][5].__setitem__(0, "other")))
    path.with_name("sentencepiece.bpe.model").unlink()
    again = XLMRobertaTokenizerFast.from_pretrained(tmp_path)
    assert again.convert_ids_to_tokens(5) == "other" != tokenizer.convert_ids_to_tokens(5)
    assert again(TEXTS)["input_ids"] != ids


# ---- The vocabulary that is made later


CALLS: dict[str, dict[str, Any]] = {
    "plain": {},
    "windows": {"truncation": True, "max_length": 9, "stride": 2, "return_overflowing_tokens": True},
    "padded": {"padding": "max_length", "max_length": 12, "truncation": True},
    "special tokens as text": {"split_special_tokens": True},
    "without special tokens": {"add_special_tokens": False},
}


def all_of(batch: Any) -> Any:
    """Everything that a call gives."""
    rows = [(row.ids, row.tokens, row.offsets, row.word_ids, row.special_tokens_mask) for row in batch.encodings]
    return batch.data, rows, [[inner.ids for inner in row.overflowing] for row in batch.encodings]


@pytest.mark.parametrize("call", CALLS)
def test_first_calls_give_what_the_whole_vocabulary_gives(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random texts with special tokens in them, pairs and words too, without the whole being made."""
    monkeypatch.setattr(deferred, "CALLS", 10**6)
    folder = MINI.parent
    first, whole = (XLMRobertaTokenizerFast.from_pretrained(folder) for _ in range(2))
    assert whole.backend_tokenizer is whole._tokenizer
    assert type(first._tokenizer) is deferred.Deferred
    rng = random.Random(call)
    parts = [
        *"".join(TEXTS),
        "  ",
        "\t",
        "\u0301",
        "☃",
        "<mask>",
        "</s>",
        "<unk>",
        "<pad",
        " <s> ",
        "\u00ad",
        "▁",
        "▁▁",
        "\0",
        "\ufdd0\ufdd1",
    ]
    for number in range(30):
        texts = ["".join(rng.choices(parts, k=rng.randrange(30))) for _ in range(3)]
        pairs = texts[::-1] if number % 3 == 0 and call != "windows" else None
        given = {"is_split_into_words": True} if number % 3 == 1 else {}
        inputs = [text.split() or ["a"] for text in texts] if given else texts
        found, expected = (one(inputs, pairs, **given, **CALLS[call]) for one in (first, whole))
        assert all_of(found) == all_of(expected), texts
    assert first._tokenizer._vocabulary is not None, "the whole was made"


@pytest.mark.parametrize("skips", [True, False])
def test_ids_become_the_same_text_without_the_whole(skips: bool) -> None:
    """Special and added tokens, ids that there are not, and pieces that begin no word among them."""
    first, whole = (XLMRobertaTokenizerFast.from_pretrained(MINI.parent) for _ in range(2))
    rng, end = random.Random(skips), len(whole)
    for size in (0, 1, 2, 7, 40):
        for _ in range(20):
            ids = rng.choices([*range(8), *range(end - 3, end + 3), *(rng.randrange(end) for _ in range(40))], k=size)
            found = first._tokenizer.decode(ids, skip_special_tokens=skips)
            assert found == whole.backend_tokenizer.decode(ids, skip_special_tokens=skips), ids
            assert first.decode(ids, skip_special_tokens=skips) == whole.decode(ids, skip_special_tokens=skips)
    assert first._tokenizer._vocabulary is not None, "the whole was made"


def test_the_whole_is_made_when_it_pays_or_is_asked_for() -> None:
    for ask in (
        lambda tokenizer: tokenizer.backend_tokenizer,
        lambda tokenizer: tokenizer.get_vocab(),
        lambda tokenizer: tokenizer.convert_tokens_to_ids("no such piece"),
        lambda tokenizer: tokenizer.add_tokens(["<new>"]),
        lambda tokenizer: tokenizer("a " * deferred.LETTERS),
        lambda tokenizer: [tokenizer("a") for _ in range(deferred.CALLS + 1)],
        lambda tokenizer: pickle.dumps(tokenizer),
        lambda tokenizer: copy.deepcopy(tokenizer),
    ):
        tokenizer = XLMRobertaTokenizerFast.from_pretrained(MINI.parent)
        held = tokenizer._tokenizer
        tokenizer("one text")
        tokenizer.convert_ids_to_tokens([4, 5, 6])
        assert held._vocabulary is not None
        ask(tokenizer)
        assert held._vocabulary is None
        again = XLMRobertaTokenizerFast.from_pretrained(MINI.parent)
        assert again.backend_tokenizer.get_vocab_size() <= len(tokenizer)
        assert tokenizer(TEXTS)["input_ids"] == again(TEXTS)["input_ids"]


def test_threads_share_it() -> None:
    tokenizer, texts = XLMRobertaTokenizerFast.from_pretrained(MINI.parent), [*MIXED, *TEXTS] * 3
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda text: tokenizer(text)["input_ids"], texts))
    assert found == [tokenizer(text)["input_ids"] for text in texts]
