"""The losses: chunked cross-entropy against PyTorch's own, and the three problems of a sequence classifier."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.torch.models import CLASSES, Case, each_family
from xlmr_torch import losses
from xlmr_torch.losses import cross_entropy

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}

# Rows by label: some ignored, none, one only, many; nine rows of eleven classes.
LABELS: dict[str, list[int]] = {
    "some": [3, -100, 0, 10, -100, 5, 5, -100, 1],
    "none ignored": [3, 2, 0, 10, 9, 5, 5, 4, 1],
    "one": [-100, -100, -100, -100, 7, -100, -100, -100, -100],
    "first and last": [0, -100, -100, -100, -100, -100, -100, -100, 10],
}


@pytest.fixture(params=[1, 33, 10**6], ids=["a row a chunk", "three rows a chunk", "one chunk"])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(losses.CHUNK_VALUES, "cpu", request.param)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("label_dtype", [torch.int64, torch.int32])
def test_cross_entropy_and_its_gradient(labels: list[int], dtype: torch.dtype, label_dtype: torch.dtype) -> None:
    logits = (torch.randn(9, 11, generator=torch.Generator().manual_seed(0)) * 4).to(dtype).requires_grad_()
    labels_n = torch.tensor(labels, dtype=label_dtype)
    exact = logits.detach().double().requires_grad_()
    expected = F.cross_entropy(exact, labels_n.long())
    actual = cross_entropy(logits, labels_n)
    assert actual.dtype is (torch.float64 if dtype is torch.float64 else torch.float32)
    torch.testing.assert_close(actual.double(), expected, rtol=max(TOLERANCES[dtype] / 100, 1e-12), atol=1e-6)
    # A factor, to see that the incoming gradient counts.
    (gradient,) = torch.autograd.grad(actual * 3, logits)
    (expected_gradient,) = torch.autograd.grad(expected * 3, exact)
    assert gradient.dtype is dtype
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=0, atol=TOLERANCES[dtype])
    assert not gradient[labels_n == -100].any()
    assert logits.is_leaf and torch.equal(logits.detach().double(), exact.detach()), "the logits were changed"


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("rows", [0, 3])
def test_no_label_to_count_gives_nan(rows: int) -> None:
    logits = torch.randn(rows, 5, requires_grad=True)
    loss = cross_entropy(logits, torch.full((rows,), -100))
    assert loss.isnan() and loss.shape == ()
    loss.backward()


@pytest.mark.usefixtures("chunk")
def test_extreme_logits_do_not_overflow() -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]], requires_grad=True)
    labels = torch.tensor([1, 2])
    loss = cross_entropy(logits, labels)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels))
    loss.backward()
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_the_loss_of_the_model_is_chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("XLMRoberta", "ForMaskedLM")
    model, inputs = case.build(), case.inputs("right")
    labels = case.labels(inputs)
    whole = model(**inputs, **labels).loss
    monkeypatch.setitem(losses.CHUNK_VALUES, "cpu", 50)
    torch.testing.assert_close(model(**inputs, **labels).loss, whole)


def problem(config: dict[str, Any], logits: Tensor, labels: Tensor) -> Tensor:
    """What the published classes compute."""
    if config.get("problem_type") == "regression" or config.get("num_labels") == 1:
        return F.mse_loss(
            logits.squeeze(-1) if logits.shape[-1] == 1 else logits, labels.float().view(logits.squeeze(-1).shape)
        )
    if config.get("problem_type") == "multi_label_classification" or (
        labels.is_floating_point() and "problem_type" not in config
    ):
        return F.binary_cross_entropy_with_logits(logits, labels.float())
    return F.cross_entropy(logits, labels.long().flatten())


@each_family
@pytest.mark.parametrize(
    ("config", "labels"),
    [
        ({}, [0, 2, 1, 0]),
        ({}, [[0], [2], [1], [0]]),
        ({}, [0, -100, 1, 0]),
        ({"problem_type": "single_label_classification"}, [0, 2, 1, 0]),
        ({}, [[0.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.5], [1.0, 1.0, 1.0]]),
        ({"problem_type": "multi_label_classification"}, [[0, 1, 1], [0, 0, 0], [1, 0, 1], [1, 1, 1]]),
        ({"problem_type": "multi_label_classification"}, [[False, True, True]] * 4),
        ({"num_labels": 1}, [0.5, -1.0, 2.0, 7.0]),
        ({"num_labels": 1}, [[0.5], [-1.0], [2.0], [7.0]]),
        ({"num_labels": 1}, [1, 2, 3, 4]),
        ({"problem_type": "regression"}, [[0.5, -1.0, 2.0]] * 4),
        ({"num_labels": 1, "problem_type": "regression"}, [0.5, -1.0, 2.0, 7.0]),
    ],
)
def test_problems_of_a_sequence_classifier(family: str, config: dict[str, Any], labels: list[Any]) -> None:
    case = Case(family, "ForSequenceClassification")
    model, targets = case.build(**config), torch.tensor(labels)
    before = model.config.to_dict()
    output = model(**case.inputs("right"), labels=targets)
    assert output.logits.shape == (4, config.get("num_labels", CLASSES))
    torch.testing.assert_close(output.loss, problem(config, output.logits, targets))
    assert model.config.to_dict() == before, "a call must not write the problem into the config"


@each_family
def test_token_and_choice_losses(family: str) -> None:
    for head in ("ForMaskedLM", "ForTokenClassification"):
        case = Case(family, head)
        inputs = case.inputs("right")
        output = case.build()(**inputs, **(labels := case.labels(inputs)))
        torch.testing.assert_close(
            output.loss, F.cross_entropy(output.logits.flatten(0, 1), labels["labels"].flatten())
        )
    case = Case(family, "ForCausalLM")
    inputs = case.inputs("right")
    output = case.build()(**inputs, **(labels := case.labels(inputs)))
    torch.testing.assert_close(
        output.loss, F.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels["labels"][:, 1:].flatten())
    )
    case = Case(family, "ForMultipleChoice")
    for shape in ((2,), (2, 1)):
        output = case.build()(**case.inputs("right"), labels=torch.tensor([1, 0]).view(shape))
        torch.testing.assert_close(output.loss, F.cross_entropy(output.logits, torch.tensor([1, 0])))


@each_family
@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_span_loss(family: str, shape: tuple[int, ...]) -> None:
    """Positions outside the sequence are ignored; negative ones are clamped to the first token, as published."""
    case = Case(family, "ForQuestionAnswering")
    start, end = torch.tensor([0, 6, 2, -3]), torch.tensor([5, 99, 6, 0])
    output = case.build()(**case.inputs("right"), start_positions=start.view(shape), end_positions=end.view(shape))
    expected_start = F.cross_entropy(output.start_logits[[0, 2, 3]], torch.tensor([0, 2, 0]))
    expected_end = F.cross_entropy(output.end_logits[[0, 3]], torch.tensor([5, 0]))
    torch.testing.assert_close(output.loss, (expected_start + expected_end) / 2)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
@pytest.mark.parametrize(
    "head", ["ForMaskedLM", "ForCausalLM", "ForTokenClassification", "ForSequenceClassification", "ForMultipleChoice"]
)
def test_narrow_integer_labels(head: str, dtype: torch.dtype) -> None:
    case = Case("XLMRoberta", head)
    model, inputs = case.build(), case.inputs(torch.ones(4, 6).long())
    labels = case.labels(inputs)["labels"].clamp(min=0)
    torch.testing.assert_close(model(**inputs, labels=labels.to(dtype)).loss, model(**inputs, labels=labels).loss)
