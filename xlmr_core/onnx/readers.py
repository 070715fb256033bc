"""What other libraries need in a folder beside a graph.

transformers.js (npm ``@huggingface/transformers``) reads no sentencepiece model, but the ``tokenizer.json`` that is
made of it; it learns of special tokens from ``tokenizer_config.json`` alone; and it looks for values beside a graph
only where ``config.json`` says that there are any.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from xlmr_core.checkpoints.model_files import ModelFiles
from xlmr_core.errors import CheckpointError, InputError
from xlmr_core.formats.onnx_format import NAMES
from xlmr_core.onnx.writing import LARGEST_MESSAGE
from xlmr_core.tokenization import AutoTokenizer
from xlmr_core.tokenization.fast import tokenizer_json_from_model
from xlmr_core.tokenization.files import CONFIG_FILE, TOKENIZER_FILE, VOCAB_FILE
from xlmr_core.tokenization.special import DEFAULT_TOKENS

__all__ = ["READERS", "with_files_for"]

READERS = ("transformers.js",)


def with_files_for(reader: str | None, files: ModelFiles, small: Mapping[str, bytes]) -> dict[str, bytes]:
    """The small files of a folder, as a library reads them.

    Args:
        reader: of ``READERS``, or ``None`` for any.
        files: the model.
        small: the files as they are, by name.

    Raises:
        InputError: for another library.
        CheckpointError: if there is no tokenizer.
        TokenizerError: for a damaged one.
    """
    if reader is None:
        return dict(small)
    if reader not in READERS:
        raise InputError(f"reader must be {' or '.join(READERS)}, received {reader!r}")
    folder = files.tokenizer
    if folder is None:
        raise CheckpointError(
            f"expected a tokenizer for {reader} beside {files.checkpoint.path}, found none; copy it there"
        )
    found = dict(small)
    if TOKENIZER_FILE not in found:
        model = folder if folder.is_file() else folder / VOCAB_FILE
        found[TOKENIZER_FILE] = tokenizer_json_from_model(model).encode()
    _complete(found, CONFIG_FILE, _tokenizer_settings(files, _read(found.get(CONFIG_FILE))))
    if _float32_bytes(files) > LARGEST_MESSAGE:
        of_library = {"use_external_data_format": {NAMES[0]: True}}
        _complete(found, "config.json", {"transformers.js_config": of_library})
    return found


def _read(content: bytes | None) -> dict[str, Any]:
    values = json.loads(content) if content else {}
    return values if isinstance(values, dict) else {}


def _complete(found: dict[str, bytes], name: str, values: Mapping[str, Any]) -> None:
    """Put values into a file of JSON; bit for bit as it was where they are there."""
    there = _read(found.get(name))
    if any(there.get(key) != value for key, value in values.items()):
        found[name] = (json.dumps({**there, **values}, indent=2, ensure_ascii=False) + "\n").encode()


def _tokenizer_settings(files: ModelFiles, there: Mapping[str, Any]) -> dict[str, Any]:
    """Special tokens by their roles, and what else is missing."""
    assert files.tokenizer is not None, "refused before"
    tokenizer = AutoTokenizer.from_pretrained(files.tokenizer)
    settings: dict[str, Any] = {
        name: str(getattr(tokenizer, name)) for name in DEFAULT_TOKENS if not _is_known(there.get(name))
    }
    if "tokenizer_class" not in there:
        settings["tokenizer_class"] = "XLMRobertaTokenizer"
    if "model_max_length" not in there:
        settings["model_max_length"] = files.config.max_tokens
    return settings


def _is_known(token: object) -> bool:
    """Whether it is a token in one of the two ways in which that library reads them."""
    return isinstance(token, str) or (isinstance(token, dict) and token.get("__type") == "AddedToken")


def _float32_bytes(files: ModelFiles) -> int:
    shapes = (row.shape if row.quantized is None else row.quantized.shape for row in files.rows.values())
    return sum(4 * math.prod(shape) for shape in shapes)
