"""The PyTorch backend in a breath: every head, a pipeline, a file, a step of training."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
import torch

from tests.smoke.common import NAMES, answers_survive_a_save, head_equals_the_reference
from xlmr_torch import XLMRobertaForSequenceClassification, pipeline


@pytest.mark.parametrize("name", NAMES)
def test_a_head_equals_the_reference(name: str) -> None:
    head_equals_the_reference("torch", name)


def test_answers_survive_a_save(tmp_path: Path) -> None:
    answers_survive_a_save(pipeline, tmp_path)


@pytest.mark.filterwarnings("ignore:.*start with fresh values")
def test_a_step_of_training_lowers_the_loss() -> None:
    model = XLMRobertaForSequenceClassification.from_pretrained("xlmr-mini", num_labels=2).eval()
    ids, labels = torch.tensor([[0, 5, 6, 2], [0, 7, 8, 2]]), torch.tensor([0, 1])
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    before = model(ids, labels=labels).loss
    before.backward()
    optimizer.step()
    assert model(ids, labels=labels).loss < before
