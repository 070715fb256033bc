"""Checkpoint formats: ``FORMATS`` has a row for each, in the order in which a folder is searched."""

from __future__ import annotations

from xlmr_core.formats.base import Checkpoint, Format, Model
from xlmr_core.formats.fairseq_format import FAIRSEQ
from xlmr_core.formats.flax_format import FLAX
from xlmr_core.formats.keras_format import KERAS
from xlmr_core.formats.kerashub_format import KERASHUB
from xlmr_core.formats.lightning_format import LIGHTNING
from xlmr_core.formats.onnx_format import ONNX
from xlmr_core.formats.peft_format import PEFT
from xlmr_core.formats.safetensors_format import SAFETENSORS
from xlmr_core.formats.tf_format import TF
from xlmr_core.formats.torch_format import TORCH

__all__ = ["FORMATS", "Checkpoint", "Format", "Model"]

FORMATS: dict[str, Format] = {
    format.name: format for format in (PEFT, SAFETENSORS, TORCH, TF, FLAX, FAIRSEQ, KERAS, KERASHUB, LIGHTNING, ONNX)
}
