"""How `xlmr-mini` is trained: by the library's own loop, on rows that are made beforehand.

Masks, log, checkpoints and going on after a kill are the library's (`xlmr_core/training`, `xlmr_torch`); the rows and
the sizes of its batches are from here, and Muon beside AdamW.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from weights.maker.rows import LONGEST, Rows
from xlmr_core.training.batches import Batches, cut_by_tokens
from xlmr_core.training.lines import MaskedLanguageModeling
from xlmr_core.training.recipe import Recipe
from xlmr_core.training.run import Run

TOKENS = 4096  # padded tokens of a batch, whose rows are about equally long
POOL = 8192  # rows that are sorted by length together
ADAM_RATE, MUON_RATE = 3e-3, 4e-3  # at their highest


def recipe_of(*, steps: int = 0, words: float = 0.0, rate: float = 1.0, seed: int = 0) -> Recipe:
    """What decides the result of a run, apart from text, vocabulary and architecture.

    Args:
        steps: of the run; 0: until its rows end.
        words: share of the batches in which whole words are hidden, and the text behind a `<mask>` is written as where
            somebody types one.
        rate: factor of the learning rates.
        seed: of the order of the rows and the masks.
    """
    return Recipe(
        task=MaskedLanguageModeling.name,
        steps=steps,
        epochs=1.0,
        max_length=LONGEST,
        learning_rate=ADAM_RATE * rate,
        warmup=0.03,
        weight_decay=0.01,
        epsilon=1e-8,
        dropout=0.0,  # most text is read twice or less, so there is little to overfit
        precision="bfloat16",
        masking_rate=0.2,
        whole_words=words,
        as_typed=True,
        checkpoint_every=200,
        keep=1,
        seed=seed,
    )


class ByTokens(Batches):
    """Batches of about so many padded tokens, where the library's have as many rows each."""

    def __init__(self, task: MaskedLanguageModeling, rows: Rows, recipe: Recipe, tokens: int = TOKENS) -> None:
        features: Any = rows
        super().__init__(task, features, recipe)
        self._cut = cut_by_tokens(rows.lengths, tokens, recipe.seed, POOL)

    def __len__(self) -> int:
        return len(self._cut)

    def numbers(self, step: int) -> np.ndarray:
        return self._cut[step % len(self)]


def run_of(
    rows: Rows,
    tokenizer: Any,
    recipe: Recipe,
    folder: Path,
    *,
    tokens: int = TOKENS,
    data: Mapping[str, Any] | None = None,
    tell: Callable[[str, str], None] | None = None,
) -> Run:
    """A run on rows that are there.

    Args:
        rows: to train on.
        tokenizer: of their vocabulary.
        recipe: as of `recipe_of`.
        folder: of the run; a run that is there goes on, if it is of the same recipe and data.
        tokens: of a batch.
        data: what tells these rows from others.
        tell: is told how it goes.
    """
    batches = ByTokens(MaskedLanguageModeling(recipe, tokenizer), rows, recipe, tokens)
    return Run(folder, recipe.completed(0, len(batches)), batches, data=data, tell=tell)


def tokens_read(rows: Rows, steps: int, seed: int) -> int:
    """Tokens of the rows that so many steps read, without padding."""
    cut = cut_by_tokens(rows.lengths, TOKENS, seed, POOL)
    return int(sum(rows.lengths[cut[step % len(cut)]].sum() for step in range(steps)))


class Together(torch.optim.Optimizer):
    """Several optimizers as one. Their groups and moments are its own, so that one checkpoint holds all."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        begin = 0
        for part in self.parts:
            end = begin + len(part.param_groups)
            part.param_groups, part.state = self.param_groups[begin:end], self.state
            begin = end

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """A step of each."""
        for part in self.parts:
            part.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Give all of them the state of a checkpoint."""
        super().load_state_dict(state_dict)
        self._share()


def optimizer_of(model: nn.Module, recipe: Recipe, layers: int) -> Together:
    """Muon for the matrices of the encoder and head, fused AdamW for everything else.

    Embeddings are looked up row by row, not multiplied, so Muon's orthogonal updates do not suit them. A group's
    `share` is what its rate is of that of the step.
    """
    matrices, embeddings, vectors = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            vectors.append(parameter)
        elif "embeddings" in name or parameter.shape[0] > 8 * parameter.shape[1]:
            embeddings.append(parameter)
        else:
            matrices.append(parameter)
    adam = torch.optim.AdamW(
        [
            {"params": embeddings, "share": 1.0, "weight_decay": recipe.weight_decay},
            {"params": vectors, "share": 1.0, "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=(recipe.beta1, recipe.beta2),
        eps=recipe.epsilon,
        fused=True,
    )
    group = {"params": matrices, "share": MUON_RATE / ADAM_RATE}
    muon = torch.optim.Muon([group], lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    return Together(adam, muon)
