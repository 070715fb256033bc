"""ONNX: packed graphs of encoders, written without a framework and run by ONNX Runtime.

``export`` writes a folder as the hub has them, and NumPy is enough; ``pipeline``, ``OnnxModel`` and the classes for
vectors run one, and need the extra ``onnx``. Read in this order: ``graph``, ``packed``, ``encoder``, ``heads``,
``writing``, ``exporting``; then ``model``, ``runner`` and ``pipelines``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xlmr_core.importing import import_when_used

if TYPE_CHECKING:
    from xlmr_core.onnx.exporting import Export, export
    from xlmr_core.onnx.model import OnnxModel
    from xlmr_core.onnx.pipelines import pipeline
    from xlmr_core.onnx.vectors import BGEM3FlagModel, CrossEncoder, SentenceTransformer

__all__ = [
    "BGEM3FlagModel",
    "CrossEncoder",
    "Export",
    "OnnxModel",
    "SentenceTransformer",
    "export",
    "pipeline",
    "to_tensor",
]

# Imported when first used: writing needs no ONNX Runtime, and running no writing.
__getattr__ = import_when_used(
    globals(),
    {
        **dict.fromkeys(("Export", "export"), "xlmr_core.onnx.exporting"),
        "OnnxModel": "xlmr_core.onnx.model",
        "pipeline": "xlmr_core.onnx.pipelines",
        **dict.fromkeys(("BGEM3FlagModel", "CrossEncoder", "SentenceTransformer"), "xlmr_core.onnx.vectors"),
    },
)


def to_tensor(array: NDArray[Any]) -> NDArray[Any]:
    """What stands for a tensor here: the array."""
    return np.asarray(array)
