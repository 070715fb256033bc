"""What a run needs, from a recipe alone: its model's configuration and tokenizer, its data, and what these decide."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlmr_core.config import AutoConfig
from xlmr_core.errors import InputError
from xlmr_core.hub import BUILT_IN, resolve
from xlmr_core.tokenization import AutoTokenizer
from xlmr_core.tokenization.files import ADDED_FILE, CONFIG_FILE, SPECIAL_FILE, TOKENIZER_FILE, VOCAB_FILE
from xlmr_core.training.batches import Batches, Evaluation
from xlmr_core.training.data import Data
from xlmr_core.training.extras import require
from xlmr_core.training.formats import files_of
from xlmr_core.training.recipe import FILES, Recipe

__all__ = ["Prepared", "fingerprint", "fingerprint_of_model", "prepared"]

# Of a larger file the beginning and the end are looked at.
MOST_BYTES, ENDS = 1 << 28, 1 << 20
CONFIG, WEIGHTS = ("config.json",), (".safetensors", ".bin", ".h5", ".msgpack")
TOKENIZER = (VOCAB_FILE, TOKENIZER_FILE, CONFIG_FILE, SPECIAL_FILE, ADDED_FILE)


@dataclass(frozen=True)
class Prepared:
    """What a run needs.

    Attributes:
        recipe: completed.
        batches, evaluation, test: of the data.
        data: what tells the files and the model that training starts from from others, in plain Python.
        usual_rate: the rate that the task and the width of the model usually have.
    """

    recipe: Recipe
    batches: Batches
    evaluation: Evaluation | None
    test: Evaluation | None
    data: dict[str, Any]
    usual_rate: float


def prepared(recipe: Recipe, multiple: int = 1) -> Prepared:
    """Read and look at everything that a recipe names, but for the weights.

    Args:
        recipe: what is to be trained.
        multiple: rows are padded to a multiple of this.

    Raises:
        XLMRError: for a model, files, columns or labels that cannot be trained with, naming which.
        MissingBackendError: for a package of the extra ``train`` that is not installed.
    """
    require("matplotlib", *(("sklearn", "seqeval") if recipe.eval or recipe.test else ()))
    place = recipe.config or recipe.model
    if not place:
        raise InputError("expected a model to start from, or a config for fresh weights, received neither; name one")
    config: Any = AutoConfig.from_pretrained(place)
    tokenizer = AutoTokenizer.from_pretrained(_beside(recipe.model or place))
    data = Data.read(recipe, tokenizer, config, multiple)
    completed = recipe.completed(config.hidden_size, len(data.train))
    files = {name: fingerprint(getattr(recipe, name)) for name in FILES if getattr(recipe, name)}
    files["model"] = fingerprint_of_model(recipe)
    usual_rate = recipe.usual_rate(config.hidden_size)
    return Prepared(completed, data.train, data.evaluation, data.test, files, usual_rate)


def fingerprint(paths: Sequence[str | os.PathLike[str]]) -> dict[str, Any]:
    """What tells the content of files from any other: names, sizes and hashes, in the order in which they are read.

    The names are those from the folder on that holds all of them, so that ``en/train.jsonl`` is not ``de/train.jsonl``.
    """
    found: dict[str, Any] = {}
    files = [path.absolute() for path in files_of(paths)]
    above = os.path.commonpath([path.parent for path in files])
    for path in files:
        name = path.relative_to(above).as_posix()
        while name in found:
            name += " again"
        found[name] = _content(path)
    return found


def fingerprint_of_model(recipe: Recipe) -> dict[str, Any]:
    """What tells the weights that training starts from, or the config of fresh ones, and the tokenizer from any other.

    Of a model of the hub it is the name of the folder that holds it, which is that of its commit.
    """
    if not recipe.config:
        return _contents_of(recipe.model, (*CONFIG, *TOKENIZER), WEIGHTS)
    place = Path(recipe.config)
    config = place if place.is_file() else resolve(place, patterns=CONFIG) / CONFIG[0]
    return {config.name: _content(config), **_contents_of(_beside(recipe.model or recipe.config), TOKENIZER)}


def _contents_of(model: str, names: Sequence[str], suffixes: Sequence[str] = ()) -> dict[str, str]:
    """The content of the files of a model that have these names or suffixes; of one of the hub its commit."""
    folder = resolve(model, patterns=CONFIG)
    if not Path(model).expanduser().is_dir() and model not in BUILT_IN:
        return {"commit": folder.name}
    return {
        path.name: _content(path) for path in sorted(folder.iterdir()) if path.name in names or path.suffix in suffixes
    }


def _content(path: Path) -> str:
    return f"{path.stat().st_size} bytes, sha256 {_hash(path)}"


def _hash(path: Path) -> str:
    found, size = hashlib.sha256(), path.stat().st_size
    with path.open("rb") as file:
        if size <= MOST_BYTES:
            return hashlib.file_digest(file, "sha256").hexdigest()
        found.update(file.read(ENDS))
        file.seek(size - ENDS)
        found.update(file.read(ENDS))
    return f"{found.hexdigest()} of its first and last mebibyte"


def _beside(place: str) -> str:
    """The folder of a file of a configuration; any other place as it is."""
    return os.path.dirname(place) or "." if place.endswith(".json") else place
