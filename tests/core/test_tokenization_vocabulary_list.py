"""A vocabulary that NumPy takes out of a tokenizer.json is the one that a reader of JSON finds in it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from xlmr_core.tokenization import vocabulary_list
from xlmr_core.tokenization.vocabulary_list import Taken, taken_out

MINI = Path(__file__).parents[2] / "weights" / "xlmr-mini" / "tokenizer.json"
# Pieces that look like what stands between pieces, and what is written with a backslash.
HARD = [
    *("],[", '"],["', '",', '","', "[", "]]", '",-1.5],["a', ",", "0.5", "-1.5]]", "\\", '\\"', '"\\', "\\\\", '"', ""),
    *("é\u0301", "\U00010348", "\u2028", "\x7f", "vocab", '"vocab": [', "▁的", "a b", "\ufdd0"),
]
HEAD = {"version": "1.0", "added_tokens": [{"id": 0, "content": '<s>"'}], "normalizer": {"text": '"],["\\'}}
LAYOUTS = ["compact", "spaced", "pretty", "tabs", "odd"]


def written(pairs: list[tuple[str, str]], layout: str, behind: str = ',"byte_fallback":false') -> bytes:
    """A file with these pieces and scores; the latter as they are to be written."""
    pieces = [json.dumps(piece, ensure_ascii=False) for piece, _ in pairs]
    before, between, after, joint = {
        "compact": ("[", ",", "]", ","),
        "spaced": ("[", ", ", "]", ", "),
        "pretty": ("\n      [\n        ", ",\n        ", "\n      ]", ","),
        "tabs": ("\r\n\t[\r\n\t\t", " ,\r\n\t\t", "\r\n\t]", " , "),
        "odd": ("[ ", " , ", "\t]", "\n,\n"),
    }[layout]
    listed = joint.join(
        f"{before}{piece}{between}{score}{after}" for piece, (_, score) in zip(pieces, pairs, strict=True)
    )
    text = json.dumps({**HEAD, "model": {"type": "Unigram", "unk_id": 3, "vocab": []}}, ensure_ascii=False)
    return text.replace('"vocab": []}', f'"vocab": [{listed} ]{behind}}}').encode()


def random_pairs(rng: random.Random) -> list[tuple[str, str]]:
    pieces = [
        "<s>",
        *(rng.choice((rng.choice(HARD), "".join(rng.choices("ab▁的é", k=3)))) for _ in range(rng.randrange(30))),
    ]
    return [
        (
            piece,
            rng.choice(("0.0", "-0.0", f"-{rng.random() * 20:.{rng.randrange(1, 16)}f}", f"{rng.randrange(99)}.50")),
        )
        for piece in pieces
    ]


def alike(data: bytes) -> Taken | None:
    key = vocabulary_list._VOCABULARY.search(data)
    try:
        return vocabulary_list._laid_out_alike(data, key.end()) if key else None
    except ValueError:
        return None


def by_json(data: bytes) -> Taken | None:
    key = vocabulary_list._VOCABULARY.search(data)
    try:
        return vocabulary_list._read_as_json(data, key.end()) if key else None
    except (ValueError, AttributeError, TypeError):
        return None


def same(one: Taken, other: Taken | None) -> bool:
    return (
        other is not None
        and (one.pieces, one.rest) == (other.pieces, other.rest)
        and one.scores.tobytes() == other.scores.tobytes()
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(layout: str) -> None:
    """Those of every writer are read without JSON: a piece as it was written, and the scores to the last bit."""
    rng = random.Random(layout)
    by_numpy = 0
    for _ in range(100):
        pairs = random_pairs(rng)
        data = written(pairs, layout)
        found, expected = taken_out(data), by_json(data)
        assert found is not None and same(found, expected), data
        assert found.pieces == [piece for piece, _ in pairs]
        by_numpy += alike(data) is not None
        # A piece that looks like a joint may be for the reader of JSON.
        assert (
            alike(data) is not None or len(pairs) == 1 or any("],[" in piece for piece, _ in pairs) or layout == "odd"
        )
    assert by_numpy > 50


def test_the_files_of_the_tokenizers_library() -> None:
    data = MINI.read_bytes()
    compact = json.dumps(json.loads(data), ensure_ascii=False, separators=(",", ":")).encode()
    for text in (data, compact):
        found = alike(text)
        assert found is not None and same(found, by_json(text))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_damaged_files(layout: str) -> None:
    """What NumPy takes for whole, a reader of JSON reads in the same way."""
    rng = random.Random(layout)
    signs = [
        b'"',
        b"\\",
        b",",
        b"[",
        b"]",
        b"-",
        b".",
        b"0",
        b"7",
        b"e",
        b" ",
        b"\n",
        b"\0",
        b"\1",
        b"\xfe",
        b"\xff",
        b"\xc3",
    ]
    taken = 0
    for _ in range(400):
        data = bytearray(written(random_pairs(rng), layout))
        start = data.index(b'"vocab"')
        for _ in range(rng.randrange(1, 3)):
            at = rng.randrange(start, len(data))
            data[at : at + rng.randrange(3)] = rng.choice((b"", rng.choice(signs), rng.choice(signs)))
        found = alike(bytes(data))
        taken += found is not None
        assert found is None or same(found, by_json(bytes(data))), bytes(data)
    assert taken > 20


@pytest.mark.parametrize(
    "score",
    [
        "01.5",
        "-01.5",
        "1.",
        ".5",
        "--1.5",
        "1-.5",
        "1.5.5",
        "-",
        "1.5e3",
        "1",
        "+1.5",
        "1 .5",
        "NaN",
        "1.1234567890123456789",
    ],
)
@pytest.mark.parametrize("layout", ["compact", "pretty"])
def test_other_numbers_are_no_scores(score: str, layout: str) -> None:
    pairs = [("<s>", "0.0"), ("a", score), ("b", "-1.5")]
    data = written(pairs, layout)
    assert alike(data) is None and by_json(data) is None


def test_a_second_vocabulary_and_what_stands_elsewhere() -> None:
    pairs = [("<s>", "0.0"), ("a", "-1.5")]
    assert taken_out(written(pairs, "compact", ',"other":{"vocab":[1]}')) is None
    assert taken_out(b'{"vocab": {}, "text": "\\"vocab\\": [1]"}') is None
    # The list of another writer, whose model stands in front: far from the end of the file.
    data = written(pairs, "compact", ',"more":"' + "x" * 10000 + '"')
    assert alike(data) is None and same(by_json(data), taken_out(data))


def test_one_pair_that_is_laid_out_otherwise() -> None:
    """Then all are read as JSON."""
    pairs = [("<s>", "0.0"), ("a", " -1.5"), ("b", "-2.5"), ("c", "-3.5 ")]
    data = written(pairs, "compact")
    found = taken_out(data)
    assert alike(data) is None
    assert found is not None and found.scores.tolist() == [0.0, -1.5, -2.5, -3.5]
    escaped = data.replace(b'"b"', b'"\\u0062"')
    assert alike(escaped) is None and same(found, taken_out(escaped))
