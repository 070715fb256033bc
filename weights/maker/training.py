"""The training loop of `xlmr-mini`: resumable, on the clock, on any masked-language model with the library's signature.

A step's batch is cut into parts, which a few single-threaded workers take one by one; the gradients are summed in the
parts' order, so the number of workers does not change the result. On cores that are shared with other work this is
much faster than threads inside each operation, which wait for each other thousands of times a step.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from weights.maker.rows import LONGEST, PAD, Hiding, Rows, vocabulary_of
from xlmr_core.training.batches import cut_by_tokens
from xlmr_core.training.masking import as_typed, mask
from xlmr_core.training.task import IGNORED

LENGTH = ("minutes", "steps")
POOL = 8192  # rows that are sorted by length together


@dataclass(frozen=True)
class Recipe:
    """What decides the result of a run, apart from text, vocabulary and architecture.

    Attributes:
        minutes: training time; the learning rate follows this clock, so any machine finishes its schedule.
        steps: train for so many steps instead (exactly repeatable; `minutes` is then ignored).
        part_tokens: padded tokens of a part, whose rows are about equally long.
        parts: parts of a batch.
        masking: share of the tokens that is hidden.
        words: share of the parts in which whole words are hidden.
        adam_rate: peak learning rate of embeddings, biases and norms (AdamW).
        muon_rate: peak learning rate of the matrices of the encoder (Muon).
        warmup: share of the run over which the rates rise; afterwards they fall linearly to zero.
        decay: weight decay of the matrices.
        bfloat16: compute under bfloat16 autocast; weights, moments and losses stay float32.
        seed: of the initial weights, the order of the rows and the masks.
    """

    minutes: float = 54.0
    steps: int = 0
    part_tokens: int = 2048
    parts: int = 2
    masking: float = 0.2
    words: float = 0.0
    adam_rate: float = 3e-3
    muon_rate: float = 4e-3
    warmup: float = 0.03
    decay: float = 0.01
    bfloat16: bool = True
    seed: int = 0


def optimizers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the encoder and head, fused AdamW for everything else.

    Embeddings are looked up row by row, not multiplied, so Muon's orthogonal updates do not suit them.
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
        [{"params": embeddings, "weight_decay": recipe.decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=recipe.adam_rate,
        betas=(0.9, 0.98),
        eps=1e-8,
        fused=True,
    )
    halves = [matrices[0::2], matrices[1::2]]  # two, because the step of each runs in a worker of its own
    return [adam, *(torch.optim.Muon(half, lr=recipe.muon_rate, weight_decay=recipe.decay) for half in halves)]


def rate_factor(progress: float, warmup: float) -> float:
    """The learning rate as a share of its peak after `progress` (0 to 1) of the run."""
    return progress / warmup if progress < warmup else max(0.0, (1.0 - progress) / (1.0 - warmup))


class Run:
    """A training run in a folder: `state.pt` (replaced atomically), `log.jsonl` and nothing else.

    A run that was killed continues from its last state with the same rows, masks and moments; `steps` runs end in
    the same weights as an undisturbed one.

    Args:
        model: a masked-language model taking `input_ids`, `attention_mask`, `labels` and `sparse_prediction`.
        rows: the training rows.
        vocabulary: number of tokens.
        recipe: how to train.
        folder: of the run; a state in it is resumed. Its recipe must be the same, except that a run may be given more
            or less time.
        workers: parts computed at the same time; sets torch's own threads to one.
        words: what each token is to words; needed where the recipe hides whole ones, which are written as somebody
            types a `<mask>` (`as_typed`).
    """

    def __init__(
        self,
        model: nn.Module,
        rows: Rows,
        vocabulary: int,
        recipe: Recipe,
        folder: Path,
        workers: int = 2,
        words: Hiding | None = None,
    ) -> None:
        torch.set_num_threads(1)
        self.workers, self.words = workers, words
        self.pool = ThreadPoolExecutor(workers)
        self.model, self.rows, self.recipe, self.folder = model, rows, recipe, folder
        self.vocabulary = vocabulary_of(vocabulary)
        self.optimizers = optimizers(model, recipe)
        self.peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.batches = cut_by_tokens(rows.lengths, recipe.part_tokens, recipe.seed, POOL)
        self.step, self.seconds, self.tokens = 0, 0.0, 0
        folder.mkdir(parents=True, exist_ok=True)
        if self.state.exists():
            self._resume()

    @property
    def state(self) -> Path:
        """The file that holds all that a killed run needs to go on."""
        return self.folder / "state.pt"

    @property
    def progress(self) -> float:
        """Share of the run that is done, by the clock (or the steps) or by its rows, whichever is further."""
        clock = self.step / self.recipe.steps if self.recipe.steps else self.seconds / (60 * self.recipe.minutes)
        return max(clock, self.step / (len(self.batches) // self.recipe.parts))

    def train(self, save_every: float = 120.0, log_every: int = 50) -> None:
        """Train to the end of the schedule, saving the state every `save_every` seconds and at the end."""
        self.model.train()
        saved = begun = time.monotonic()
        before = self.seconds
        losses: list[float] = []
        while self.progress < 1.0:
            losses.append(self._step())
            now = time.monotonic()
            self.seconds = before + now - begun
            if self.step % log_every == 0:
                self._log(losses)
                losses = []
            if now - saved >= save_every:
                self._save()
                saved = now
        self._log(losses)
        self._save()

    def _step(self) -> float:
        factor = rate_factor(self.progress, self.recipe.warmup)
        for optimizer, peaks in zip(self.optimizers, self.peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * max(factor, 1e-4)
        parts = [self._part(self.step * self.recipe.parts + i) for i in range(self.recipe.parts)]
        hidden = sum(int((labels != IGNORED).sum()) for _, labels in parts)
        results = list(self.pool.map(lambda part: self._gradients(*part, hidden), parts))
        for i, parameter in enumerate(self.parameters):
            parameter.grad = results[0][1][i]
            for _, gradients in results[1:]:
                parameter.grad += gradients[i]
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        list(self.pool.map(lambda optimizer: optimizer.step(), self.optimizers))
        self.model.zero_grad()
        self.step += 1
        self.tokens += sum(int((fed != PAD).sum()) for fed, _ in parts)
        return sum(loss for loss, _ in results)

    def _part(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids to feed and labels of one part, each of shape (B, S)."""
        ids = self.rows.padded(self.batches[number])
        rng = np.random.default_rng([self.recipe.seed, number])
        # Drawn only where it decides, so that a run without whole words is what it was before there were any.
        words = self.words if self.recipe.words and rng.random() < self.recipe.words else None
        about = None if words is None else words.words
        fed, labels = mask(ids, self.vocabulary, self.recipe.masking, rng, about)
        if words is not None:
            fed, labels = as_typed(fed, labels, self.vocabulary, words.opens, LONGEST)
        return fed, labels

    def _gradients(self, fed: np.ndarray, labels: np.ndarray, hidden: int) -> tuple[float, tuple[torch.Tensor, ...]]:
        """This part's share of the loss over all `hidden` tokens of the batch, and its gradients."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bfloat16):
            loss: torch.Tensor = self.model(
                input_ids=torch.from_numpy(fed),
                attention_mask=torch.from_numpy((fed != PAD).astype(np.int64)),
                labels=torch.from_numpy(labels),
                sparse_prediction=True,
            ).loss
        loss = loss * (int((labels != IGNORED).sum()) / hidden)
        return float(loss.detach()), torch.autograd.grad(loss, self.parameters)

    def _log(self, losses: Iterable[float]) -> None:
        values = list(losses)
        line = {
            "step": self.step,
            "minutes": round(self.seconds / 60, 2),
            "progress": round(self.progress, 4),
            "tokens": self.tokens,
            "loss": round(sum(values) / len(values), 4) if values else None,
        }
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)

    def _save(self) -> None:
        state = {
            "recipe": asdict(self.recipe),
            "rows": len(self.rows),
            "step": self.step,
            "seconds": self.seconds,
            "tokens": self.tokens,
            "planned_tokens": int(self.rows.starts[-1]),
            "workers": self.workers,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "torch_rng": torch.get_rng_state(),
        }
        temporary = self.state.with_suffix(".tmp")
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.state)

    def _resume(self) -> None:
        state = torch.load(self.state, weights_only=True)
        expected = {**asdict(self.recipe), "rows": len(self.rows)}
        found = {**asdict(Recipe()), **state["recipe"], "rows": state["rows"]}
        differing = [name for name in expected if name not in LENGTH and found[name] != expected[name]]
        if differing:
            raise ValueError(
                f"the run in {self.folder} was started with another recipe or other rows: "
                + ", ".join(f"{name} was {found[name]}, is now {expected[name]}" for name in differing)
                + "; use the same options or another folder"
            )
        self.model.load_state_dict(state["model"])
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        torch.set_rng_state(state["torch_rng"])
        self.step, self.seconds, self.tokens = state["step"], state["seconds"], state["tokens"]
