"""Carries the built-in checkpoint into the wheel as package data of xlmr_core.

An editable install reads it from the checkout's ``weights/`` instead, so nothing is copied there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "weights/xlmr-mini"
TARGET = "xlmr_core/data/xlmr-mini"
REQUIRED = ("config.json", "model.safetensors", "sentencepiece.bpe.model", "tokenizer.json")


class BuiltInCheckpoint(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        folder = Path(self.root, SOURCE)
        absent = [name for name in REQUIRED if not (folder / name).is_file()]
        if absent:
            raise FileNotFoundError(
                f"the wheel carries {SOURCE}, which lacks {', '.join(absent)}; build from a complete checkout"
            )
        build_data["force_include"][str(folder)] = TARGET
