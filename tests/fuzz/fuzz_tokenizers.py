"""Damaged and hostile files of tokenizers: part of ``nox -s fuzz``.

Each is read by the fast and by the slow class, a few texts are encoded, and what was read is saved and read again:
the same ids.
"""

from __future__ import annotations

import base64
import functools
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from tests.core.tokenization_models import piece, small_model
from tests.fuzz.fuzz_formats import damaged
from tests.fuzz.fuzz_hostile import JSON_VALUES, Rng, as_bytes, json_object, one_of
from xlmr_core.errors import XLMRError
from xlmr_core.tokenization import XLMRobertaTokenizer, XLMRobertaTokenizerFast, spm, tokenizer_json_from_model

MODEL, JSON = "sentencepiece.bpe.model", "tokenizer.json"
TEXTS = ("", "a", "Paris <mask>. ① ﬁne", "  x  y ")


@functools.cache
def whole() -> str:
    """The ``tokenizer.json`` of the small model."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL
        path.write_bytes(small_model())
        return tokenizer_json_from_model(path)


def use(folder: Path) -> None:
    """Read with both classes, encode, save and read again; the last refusal of the two."""
    refused: XLMRError | None = None
    for kind in (XLMRobertaTokenizerFast, XLMRobertaTokenizer):
        try:
            tokenizer = kind.from_pretrained(folder)
            ids = [tokenizer(text)["input_ids"] for text in TEXTS]
            tokenizer.decode(ids[2])
            saved = folder / "saved"
            tokenizer.save_pretrained(saved)
            again = kind.from_pretrained(saved)
            assert [again(text)["input_ids"] for text in TEXTS] == ids, f"{kind.__name__}: other ids after saving"
        except XLMRError as error:
            refused = error
    if refused is not None:
        raise refused


# -- settings

SETTINGS = (
    *("model_max_length", "additional_special_tokens", "extra_special_tokens", "model_input_names", "padding_side"),
    *("truncation_side", "split_special_tokens", "sp_model_kwargs", "added_tokens_decoder", "chat_template", "special"),
    *("bos_token", "mask_token", "pad_token", "unk_token", "tokenizer_class", "vocab_file", "add_prefix_space", "self"),
    *("clean_up_tokenization_spaces", "max_len", "merges_file", "name_or_path", "verbose", "vocab", "image_token"),
    *("from_slow", "tokenizer_object", "__class__", "init_inputs", "_special", "pad", "model_specific_special_tokens"),
)
TOKENS = (
    {"content": "a"},
    {"content": 5},
    {"content": "\ud800"},
    {},
    5,
    None,
    {"content": "<new>", "lstrip": "x"},
    {"content": "x" * 100_000},
    {"content": ""},
    [],
)


def settings(seed: int, folder: Path) -> None:
    """The small files in JSON, with values of other types."""
    rng = np.random.default_rng(seed)
    (folder / MODEL).write_bytes(small_model())
    if rng.random() < 0.5:
        (folder / JSON).write_text(whole(), encoding="utf-8")
    name = one_of(rng, ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"))
    if rng.random() < 0.4:
        ids = ("-5", "0", "4", "121", "1000000", "2147483646", "2147483648", "9" * 5000, "x", "")
        listed = {one_of(rng, ids): one_of(rng, TOKENS) for _ in range(3)}
        content: Any = {"added_tokens_decoder": listed}
        if name == "added_tokens.json":
            content = {str(token)[:50]: one_of(rng, (-1, 4, 121, 2**31, 1e400, "1", None, [])) for token in TOKENS[:4]}
        elif name == "special_tokens_map.json":
            content = {one_of(rng, SETTINGS): one_of(rng, TOKENS), "additional_special_tokens": [one_of(rng, TOKENS)]}
        data = json.dumps(content).encode()
    else:
        data = json_object(rng, {}, SETTINGS)
    if rng.random() < 0.05:
        data = json.dumps({f"t{n}": 121 + n for n in range(int(one_of(rng, (3000, 150_000))))}).encode()
    (folder / name).write_bytes(data)
    use(folder)


# -- tokenizer.json


def places(node: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every value of a tree, but of a list the first few, as container and key."""
    for key, value in list(node.items()) if isinstance(node, dict) else list(enumerate(node))[:8]:
        found.append((node, key))
        if isinstance(value, dict | list):
            places(value, found)
    return found


PATTERNS = ("(", "a{1000000000}", "((a{1000}){1000}){1000}", "(a*)*b", "\\", "[", "", "(?<=a+)b", ".{0,100000}")


def tokenizer_json(seed: int, folder: Path) -> None:
    rng = np.random.default_rng(seed)
    content = json.loads(whole())
    for _ in range(int(rng.integers(1, 4))):
        node, key = one_of(rng, places(content, []))
        kind = int(rng.integers(7))
        if kind == 0:
            del node[key]
        elif kind == 1:
            node[key] = one_of(rng, (None, True, 0, -1, 2**63, 1.5, "", "x", [], {}, [[]], {"type": "Sequence"}))
        elif kind == 2:
            node[key] = json.loads(one_of(rng, JSON_VALUES[:3])(rng))
        elif kind == 3:
            content["model"]["vocab"].append([one_of(rng, ("x" * 50_000, "\ud800", "", "<pad>", "a")), -1.0])
        elif kind == 4:
            steps = content["normalizer"]["normalizers"] if isinstance(content.get("normalizer"), dict) else []
            table = next((step for step in steps if isinstance(step, dict) and "precompiled_charsmap" in step), {})
            if isinstance(table.get("precompiled_charsmap"), str):
                data = damaged_table(rng, base64.b64decode(table["precompiled_charsmap"] + "=="))
                table["precompiled_charsmap"] = base64.b64encode(data).decode()
        elif kind == 5 and isinstance(content.get("normalizer"), dict):
            steps = content["normalizer"].get("normalizers")
            if isinstance(steps, list):
                steps.append({"type": "Replace", "pattern": {"Regex": one_of(rng, PATTERNS)}, "content": ""})
        else:
            added = content.get("added_tokens")
            flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
            if isinstance(added, list):
                count = int(one_of(rng, (1, 10, 2000)))
                added += [{"id": 120 + n, "content": f"[{n}]", **flags} for n in range(count)]
        if not isinstance(content, dict) or "normalizer" not in content or "model" not in content:
            break
        if not isinstance(content["model"], dict) or not isinstance(content["model"].get("vocab"), list):
            break
        if not isinstance(content["normalizer"], dict) or not isinstance(
            content["normalizer"].get("normalizers"), list
        ):
            break
    (folder / JSON).write_bytes(as_bytes(rng, json.dumps(content)))
    if rng.random() < 0.3:
        (folder / MODEL).write_bytes(small_model())
    use(folder)


def damaged_table(rng: Rng, table: bytes) -> bytes:
    """A normalization table with other numbers in it."""
    data = bytearray(table)
    for _ in range(int(rng.integers(1, 20))):
        place = int(one_of(rng, (0, int(rng.integers(max(1, len(data) - 4))) & ~3)))
        value = int(one_of(rng, (0, 2**32 - 1, 2**31, 2**31 - 1, int(rng.integers(2**32)), 0x80FFFFFF, 0x3FF)))
        data[place : place + 4] = struct.pack("<I", value)
    return bytes(data[: int(one_of(rng, (len(data), len(data), len(data), 3, 4, len(data) // 2)))])


# -- the sentencepiece model


def model(seed: int, folder: Path) -> None:
    rng = np.random.default_rng(seed)
    data = small_model()
    kind = int(rng.integers(4))
    if kind == 0:
        data = damaged(data, seed)
    elif kind == 1:
        _, settings_ = spm.scan_model(data, "x")
        table = damaged_table(rng, settings_.charsmap)
        if len(table) == len(settings_.charsmap):
            data = data.replace(settings_.charsmap, table)
    elif kind == 2:
        texts = ("x" * 3000, "x" * 10**6, "<pad>", "<mask>", "a", "\0", "▁" * 50, "<0x41>", "☃")
        scores = (0.0, -1.0, float("nan"), float("inf"), -float("inf"), 1e38)
        data = b"".join(
            piece(one_of(rng, texts), float(one_of(rng, scores)), int(one_of(rng, (1, 1, 2, 3, 4, 5, 6, 9))))
            for _ in range(int(rng.integers(1, 4)))
        )
        data = small_model() + data
    else:
        fields = [(3 << 3, int(one_of(rng, (0, 1, 2, 3, 4, 9)))), (35 << 3, 1), (24 << 3, 1), (22 << 3, 0)]
        tag, value = one_of(rng, fields)
        trainer = (bytes([tag]) if tag < 128 else bytes([tag & 127 | 128, tag >> 7])) + bytes([value])
        data += b"\x12" + bytes([len(trainer)]) + trainer
        if rng.random() < 0.5:
            data += bytes(rng.integers(0, 256, int(rng.integers(1, 40)), dtype=np.uint8))
    (folder / MODEL).write_bytes(data)
    if rng.random() < 0.1:
        lines = "".join(f"{one_of(rng, ('a', 'b', '▁', '☃', '<s>'))}{n} {n}\n" for n in range(100))
        (folder / "dict.txt").write_text(lines, encoding="utf-8")
    use(folder)


KINDS = {"tokenizer settings": settings, "tokenizer.json": tokenizer_json, "sentencepiece models": model}
