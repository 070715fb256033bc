"""The graphs that ``xlmr export`` writes, read as checkpoints: their parameters bear canonical names.

So ``xlmr verify``, ``inspect`` and ``doctor`` know an exported folder, and a model can be loaded from it again. Graphs
of other libraries have names of their own and are none of this format.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from xlmr_core import protobuf
from xlmr_core.bounded_files import opened
from xlmr_core.formats.base import Format, Naming
from xlmr_core.formats.layouts import KEPT, TRANSPOSED, Layout
from xlmr_core.formats.naming import role_of
from xlmr_core.formats.onnx_file import OWN, PRODUCER, OnnxFile
from xlmr_core.formats.tensors import Described
from xlmr_core.parameters import Role

__all__ = ["FOLDER", "NAMES", "ONNX", "START", "layout_of"]

# As on the hub: float32, with weights in bytes, and of four bits.
FOLDER = "onnx"
NAMES = ("model.onnx", "model_quantized.onnx", "model_bnb4.onnx")
# The version of the format (ModelProto.ir_version), and who wrote it.
START = protobuf.field(1, 8) + protobuf.field(2, PRODUCER)
DECODER = "lm_head.decoder.weight"


def layout_of(name: str, dtype: str) -> Layout:
    """How a parameter lies in a graph: weights as (in, out), but that to the vocabulary as the word embedding lies, and
    codes of four bits (U8) as in any file.
    """
    is_turned = role_of(name) is Role.LINEAR_WEIGHT and name != DECODER and dtype != "U8"
    return TRANSPOSED if is_turned else KEPT


def _naming(file: Described, head: str | None) -> Naming:
    if file.metadata.get("producer") != PRODUCER:
        raise ValueError("it is a graph of another library")

    def decode(stored: str) -> Iterable[tuple[str, Layout]]:
        if stored.startswith(OWN) or "." not in stored:
            return ()
        return ((stored, layout_of(stored, file.tensors[stored].dtype)),)

    return Naming(decode)


def _find(folder: Path) -> Path | None:
    found = (folder / FOLDER / name for name in NAMES)
    return next((path for path in found if path.is_file() and _recognises(path)), None)


def _recognises(path: Path) -> bool:
    with opened(path) as file:
        return file.read(len(START)) == START


ONNX = Format(
    name="onnx",
    title="ONNX (as xlmr export writes it)",
    single="",
    index="",
    find=_find,
    recognises=_recognises,
    open=OnnxFile,
    naming=_naming,
)
