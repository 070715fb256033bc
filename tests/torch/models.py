"""Tiny models and inputs for the PyTorch tests: every head of both families from one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import xlmr_torch
from tests.choice import chosen, in_turn
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.heads import FAMILIES, HEADS, LossKind

VOCABULARY, CLASSES, CHOICES = 41, 3, 2
TOKENWISE = ("last_hidden_state", "logits", "start_logits", "end_logits")

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 24,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-5,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}

# Four rows each; in multiple choice they are two questions of two choices.
MASKS: dict[str, list[list[int]]] = {
    "right": [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0]],
    "left": [[1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 1], [0, 1, 1, 1, 1, 1]],
    "inside": [[1, 1, 0, 0, 1, 1], [1, 0, 1, 0, 1, 0], [1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 1]],
}


@dataclass(frozen=True)
class Case:
    """A head of a family."""

    family: str
    head: str

    def __str__(self) -> str:
        return self.family + self.head

    @property
    def model_class(self) -> Any:
        return getattr(xlmr_torch, self.family + self.head)

    @property
    def first_token(self) -> bool:
        """Whether the answer depends on the state at position 0."""
        return HEADS[self.head].reads_first_token or self.head == "Model"

    def config(self, **changes: Any) -> XLMRobertaConfig:
        labels = 2 if self.head == "ForQuestionAnswering" else CLASSES
        decoder = self.head == "ForCausalLM"
        # Without a cache, which test_cache.py is about.
        kind = {"num_labels": labels, "is_decoder": decoder, "use_cache": False}
        return FAMILIES[self.family](**{**SIZES, **kind, **changes})

    def build(self, *, seed: int = 0, **changes: Any) -> Any:
        """A model in evaluation mode in which every parameter is random, so that none can be forgotten unnoticed."""
        torch.manual_seed(seed)
        model = self.model_class(self.config(**changes)).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.normal_(1.0 if "orm.weight" in name else 0.0, 0.3)
        return model

    def inputs(self, mask: str | Tensor = "right") -> dict[str, Tensor]:
        """Ids with padding and masked tokens where the mask is 0, and the mask."""
        mask_BS = torch.tensor(MASKS[mask]) if isinstance(mask, str) else mask
        ids_BS = torch.randint(4, VOCABULARY, mask_BS.shape, generator=torch.Generator().manual_seed(1))
        padding_BS = (mask_BS == 0) & (torch.arange(mask_BS.shape[1]) % 3 != 1)
        inputs = {"input_ids": ids_BS.masked_fill(padding_BS, 1), "attention_mask": mask_BS}
        return {name: self.grouped(x) for name, x in inputs.items()}

    def grouped(self, x: Tensor) -> Tensor:
        """(B, ...) as (B / C, C, ...) for multiple choice."""
        return x.unflatten(0, (-1, CHOICES)) if self.head == "ForMultipleChoice" else x

    def labels(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Labels for the inputs, at tokens that the mask keeps; nothing for the bare model."""
        generator = torch.Generator().manual_seed(2)
        mask_BS = inputs["attention_mask"].flatten(0, -2) == 1
        batch, length = mask_BS.shape
        match HEADS[self.head].loss:
            case LossKind.TOKENS:
                classes = VOCABULARY if self.head == "ForMaskedLM" else CLASSES
                labels_BS = torch.randint(0, classes, (batch, length), generator=generator)
                return {"labels": labels_BS.masked_fill(~mask_BS, -100).index_fill(1, torch.tensor([2]), -100)}
            case LossKind.NEXT_TOKENS:
                follows_BS = mask_BS & torch.nn.functional.pad(mask_BS[:, :-1], (1, 0))
                labels_BS = torch.randint(0, VOCABULARY, (batch, length), generator=generator)
                return {"labels": labels_BS.masked_fill(~follows_BS, -100)}
            case LossKind.SEQUENCE:
                return {"labels": torch.randint(0, CLASSES, (batch,), generator=generator)}
            case LossKind.CHOICE:
                return {"labels": torch.randint(0, CHOICES, (batch // CHOICES,), generator=generator)}
            case LossKind.SPAN:
                return {"start_positions": torch.arange(batch) % 2, "end_positions": torch.arange(batch) % 3 + 1}
            case _:
                return {}


CASES = [Case(family, head) for family in FAMILIES for head in HEADS]
each_case = pytest.mark.parametrize("case", CASES, ids=str)
# For what compiles a graph a case.
GRAPHS = chosen(CASES, [Case(family, head) for family, head in in_turn(list(FAMILIES), list(HEADS))])
each_graph = pytest.mark.parametrize("case", GRAPHS, ids=str)
each_family = pytest.mark.parametrize("family", FAMILIES)


def loss_of(case: Case, output: Any) -> Tensor:
    """The loss, or for the bare model some number that depends on everything it gives."""
    if case.head != "Model":
        return output.loss
    weights = torch.linspace(-1, 1, output.last_hidden_state.shape[-1])
    return (output.last_hidden_state.float() * weights).mean() + (output.pooler_output.float() * weights).mean()


def gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    """Every parameter's gradient, by name."""
    model.zero_grad()
    loss.backward()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def reached(case: Case, found: dict[str, Tensor]) -> bool:
    """Whether every parameter has a gradient, but for those that a softmax over them cannot feel."""
    unfelt = ("key.bias", "classifier.bias") if case.head == "ForMultipleChoice" else ("key.bias",)
    return all(bool(gradient.any()) for name, gradient in found.items() if not name.endswith(unfelt))


@contextmanager
def packed_calls(model: Any) -> Iterator[list[bool]]:
    """Watch whether calls are packed: one entry for each time the embeddings run."""
    packed: list[bool] = []
    with outputs_of(model.base_model.embeddings, lambda x: packed.append(x.dim() == 2)):
        yield packed


@contextmanager
def outputs_of(module: torch.nn.Module, see: Callable[[Tensor], Any] | None = None) -> Iterator[list[Tensor]]:
    """Collect what a module returns, of tuples the first. By no hook, because a call that hooks look on is not
    packed.
    """
    seen: list[Tensor] = []
    before, forward = vars(module).get("forward"), module.forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        answer = forward(*args, **kwargs)
        (see or seen.append)(answer[0] if isinstance(answer, tuple) else answer)
        return answer

    module.forward = watched  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        vars(module).pop("forward")
        if before is not None:
            module.forward = before  # type: ignore[method-assign]


def assert_close(actual: Tensor, expected: Tensor, *, tolerance: float = 1e-5, what: str = "") -> None:
    """Equal shapes, dtypes and values; the tolerance is relative to the largest expected value."""
    scale = max(1.0, float(expected.detach().abs().max())) if expected.numel() else 1.0
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * scale, msg=lambda text: f"{what}: {text}")


def is_exactly_int8(model: Any) -> None:
    """Every weight that the table calls int8 is, everything else is float32, nothing is trained, and ties hold."""
    rows, values = model.parameter_table(), dict(model.named_parameters(remove_duplicate=False))
    assert list(model.state_dict()) == [*values] and set(rows) == set(values)
    for name, row in rows.items():
        assert values[name].dtype is (torch.int8 if row.dtype == "I8" else torch.float32), name
        assert values[name].shape == row.shape and not values[name].requires_grad, name
        if row.tied_to is not None:
            assert values[name] is values[row.tied_to]
