"""Whatever a file holds, it is read in a stated time and memory, or refused in a sentence."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xlmr_core.bounded_files import parse_json, read_bytes, read_json, refusing
from xlmr_core.errors import CheckpointError, XLMRError
from xlmr_core.wording import shown


def doubled(levels: int, kind: Callable[[list[Any]], Any]) -> Any:
    value: Any = kind([])
    for _ in range(levels):
        value = kind([value, value])
    return value


@pytest.mark.parametrize("kind", [tuple, list])
def test_a_value_is_cut_without_its_text_being_made(kind: Callable[[list[Any]], Any]) -> None:
    start = time.process_time()
    text = shown(doubled(60, kind))
    assert len(text) == 120 and text.endswith("...")
    assert len(shown({"a": doubled(60, kind)}, 50)) == 50
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "value",
    [None, True, 5, -1.5, "a'b\n", b"x\0", [], [1, "a"], (), (1,), (1, 2), {}, {"a": [1]}, {1}, set(), frozenset()],
    ids=repr,
)
def test_a_small_value_is_shown_as_python_writes_it(value: Any) -> None:
    assert shown(value) == repr(value)


def test_large_and_odd_values_are_shown_in_a_few_words() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    assert shown(10**5000) == "an integer of 16610 bits"
    assert shown("x" * 10**6, 20) == "'" + "x" * 16 + "..."
    assert shown("x" * 30, 20, quoted=False) == "x" * 17 + "..."
    assert shown([Odd()]) == "[<Odd>]"
    endless: list[Any] = []
    endless.append(endless)
    assert len(shown(endless)) == 120


def test_only_ordinary_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/dev/zero")
    for name, what in (("pipe", "named pipe"), ("folder", "folder"), ("link", "device")):
        with pytest.raises(OSError, match=f"it is a {what}"):
            read_bytes(tmp_path / name)
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "good").symlink_to("file")
    assert read_bytes(tmp_path / "good", most=3) == b"abc"
    with pytest.raises(ValueError, match="more than 2 bytes"):
        read_bytes(tmp_path / "good", most=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a": 1' + "0" * 5000 + "}", "integer string conversion"),
        ('{"a": "\\ud800"}', "half a character"),
        ('{"a": "x', "Unterminated"),
        ("[" + "{}," * 5_000_000 + "{}]", "would take 1\\d{3} MiB of memory"),
    ],
    ids=["nested", "long", "half", "cut", "large"],
)
def test_json_that_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_json(tmp_path / "x.json")


def test_whole_characters_of_two_halves_are_read() -> None:
    assert parse_json(b'"\\ud83d\\ude00 \\u0041"') == "😀 A"


def test_damage_becomes_one_sentence_and_a_mistake_of_ours_does_not() -> None:
    for error in (KeyError("a"), RecursionError(), MemoryError(), OverflowError("x"), UnicodeError("x")):
        with (
            pytest.raises(CheckpointError, match=r"^broken \(.+\); fetch"),
            refusing(CheckpointError, "broken ({why}); fetch"),
        ):
            raise error
    with pytest.raises(AssertionError), refusing(CheckpointError, "broken"):
        raise AssertionError
    with pytest.raises(XLMRError, match="^ours$"), refusing(CheckpointError, "broken"):
        raise XLMRError("ours")


def test_no_message_is_longer_than_anybody_reads() -> None:
    text = str(CheckpointError("a" * 10**6 + "; fetch it again"))
    assert len(text) < 4100 and text.endswith("; fetch it again")


def test_keys_of_a_configuration_have_an_end(tmp_path: Path) -> None:
    from xlmr_core.config import XLMRobertaConfig

    many = {f"hiden_size{n}": n for n in range(100_001)}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "xlm-roberta", **many}))
    with pytest.raises(XLMRError, match="^expected at most 100000 keys in .*, received 100002; it is no configuration"):
        XLMRobertaConfig.from_pretrained(tmp_path)


def test_numbers_of_a_configuration_have_an_end(tmp_path: Path) -> None:
    from xlmr_core.config import XLMRobertaConfig

    for key, value in (("num_hidden_layers", 10**9), ("num_labels", 10**9), ("vocab_size", 2**70)):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "xlm-roberta", key: value}))
        with pytest.raises(XLMRError, match=f"^{key} must be at most"):
            XLMRobertaConfig.from_pretrained(tmp_path)
