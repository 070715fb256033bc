"""The files that make a sentence encoder of an encoder, as sentence-transformers has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from xlmr_core.bounded_files import read_json
from xlmr_core.formats.finding import MODULES
from xlmr_core.tasks.sentence_folder import LENGTHS, POOLINGS, SETTINGS
from xlmr_core.training.recipe import Recipe

__all__ = ["sentence_files"]

PARTS = ("Transformer", "Pooling", "Normalize")


def sentence_files(folder: Path, recipe: Recipe, tokenizer: Any) -> dict[str, bytes]:
    """The files, by their path in the folder. Vectors are pooled as in training, and have length one.

    Args:
        folder: with the config.json of the model.
        recipe: of its training.
        tokenizer: of the model.
    """
    places = ["", *(f"{number}_{name}" for number, name in enumerate(PARTS) if number)]
    modules = [
        {"idx": number, "name": str(number), "path": place, "type": f"sentence_transformers.models.{name}"}
        for number, (name, place) in enumerate(zip(PARTS, places, strict=True))
    ]
    width = read_json(folder / "config.json")["hidden_size"]
    pooling = {"word_embedding_dimension": width, **{flag: recipe.pooling == name for name, flag in POOLINGS.items()}}
    contents: dict[str, Any] = {
        MODULES: modules,
        f"{places[1]}/config.json": pooling,
        LENGTHS[0]: {"max_seq_length": int(tokenizer.model_max_length), "do_lower_case": False},
        SETTINGS: {"prompts": {}, "similarity_fn_name": "cosine"},
    }
    (folder / places[1]).mkdir(exist_ok=True)
    return {name: (json.dumps(content, indent=2) + "\n").encode() for name, content in contents.items()}
