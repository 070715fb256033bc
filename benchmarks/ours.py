"""Our own contestants, loaded from the same checkpoint."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.harness import Options
from benchmarks.models import checkpoint
from benchmarks.peers import Forward
from benchmarks.texts import Batch
from xlmr_torch import XLMRobertaModel, optimize_for_inference


def encoder(options: Options, packing: str = "auto") -> Forward:
    """As it comes out of ``from_pretrained``."""
    return _forward(_load(options).set_packing(packing))


def optimized_encoder(options: Options, dtype: str, compile: bool = True) -> Forward:
    """After ``optimize_for_inference``."""
    return _forward(optimize_for_inference(_load(options), dtype=dtype, compile=compile))


def _load(options: Options) -> Any:
    return XLMRobertaModel.from_pretrained(checkpoint(options), add_pooling_layer=False)


def _forward(model: Any) -> Forward:
    @torch.inference_mode()
    def forward(batch: Batch) -> Any:
        ids, mask = torch.from_numpy(batch.ids_BS), torch.from_numpy(batch.mask_BS)
        return model(input_ids=ids, attention_mask=mask).last_hidden_state

    return forward
