"""How a runner gives attention, beside the reference in float64; the tests of each backend ask it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from xlmr_core.checkpoints.model_files import open_model
from xlmr_core.reference import forward

TEXTS = ["The weather in <mask> is cold.", "<mask>"]


def check_attentions(pipeline: Any, folder: Path) -> None:
    """The probabilities of a batch with padding, a layer an array, are those of the reference."""
    encoded = pipeline.tokenizer(TEXTS, padding=True, return_tensors="np")
    arrays = {name: np.asarray(encoded[name], np.int64) for name in ("input_ids", "attention_mask")}
    with open_model(folder) as files:
        values = {name: stream.read().to_numpy() for name, stream in files.streams().items()}
        expected = forward(files.config, files.head, values, **arrays).attentions
    found = pipeline.runner.attentions(arrays)
    assert len(found) == len(expected) == pipeline.model.config.num_hidden_layers
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        for row, length in enumerate(arrays["attention_mask"].sum(axis=1)):  # what padding attends to means nothing
            np.testing.assert_allclose(
                one[row, :, :length], other[row, :, :length], atol=1e-5, err_msg=f"layer {number}"
            )
        assert one.dtype == np.float32
