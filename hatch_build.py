"""Carries the built-in checkpoints into the wheel as package data of xlmr_core.

An editable install reads them from the checkout's ``weights/`` instead, so nothing is copied there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "weights"
TARGET = "xlmr_core/data"
BASE = "xlmr-mini"
# What the base has, and what those that are made from it have beside it.
REQUIRED = ("config.json", "model.safetensors", "sentencepiece.bpe.model", "tokenizer.json")
ADAPTER = ("config.json", "adapter_config.json", "adapter_model.safetensors")


class BuiltInCheckpoint(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        folders = [Path(self.root, SOURCE, BASE), *sorted(Path(self.root, SOURCE).glob(f"{BASE}-*"))]
        for folder in folders:
            needed = REQUIRED if folder.name == BASE else ADAPTER
            absent = [name for name in needed if not (folder / name).is_file()]
            if absent:
                raise FileNotFoundError(
                    f"the wheel carries {SOURCE}/{folder.name}, which lacks {', '.join(absent)}; build from a complete "
                    "checkout"
                )
            build_data["force_include"][str(folder)] = f"{TARGET}/{folder.name}"
