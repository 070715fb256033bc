"""Every head learns a handful of examples: in training mode, with dropout, packed, under AdamW."""

from __future__ import annotations

import pytest
import torch

from tests.torch.models import Case, each_case, loss_of, packed_calls


@each_case
@pytest.mark.parametrize("mode", ["always", "never"])
def test_the_loss_falls(case: Case, mode: str) -> None:
    torch.manual_seed(0)
    model = case.model_class(case.config(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)).set_packing(mode)
    inputs = case.inputs("right")
    labels = case.labels(inputs)
    target = torch.randn(4, 16, generator=torch.Generator().manual_seed(3)).sign() * 0.5

    def loss() -> torch.Tensor:
        output = model(**inputs, **labels)
        return loss_of(case, output) if case.head != "Model" else (output.pooler_output - target).square().mean()

    with torch.no_grad():
        before = loss().item()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    with packed_calls(model) as packed:
        for _ in range(40):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
    assert packed == [mode == "always" and case.head != "ForQuestionAnswering"] * 40
    model.eval()
    with torch.no_grad():
        after = loss().item()
    assert after < 0.5 * before, f"from {before:.3f} to {after:.3f}"
