"""The documented door to checkpoints; the work is done in :mod:`xlmr_core.checkpoints`."""

from __future__ import annotations

from xlmr_core.checkpoints.found import open_checkpoint, read_config
from xlmr_core.checkpoints.saving import save_checkpoint
from xlmr_core.formats import Checkpoint
from xlmr_core.formats.tensors import RawTensor

__all__ = ["Checkpoint", "RawTensor", "open_checkpoint", "read_config", "save_checkpoint"]
