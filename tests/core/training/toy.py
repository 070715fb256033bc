"""A backend in NumPy, small enough to be trained a thousand times: softmax regression with momentum and dropout."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from xlmr_core.training.recipe import Recipe
from xlmr_core.training.run import Run
from xlmr_core.training.task import Answers

LABELS = ("sport", "politics", "music")
WIDTH, LANGUAGES = 8, ("de", "sw")


class Tokenizer:
    def save_pretrained(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text("{}", encoding="utf-8")


TASK = SimpleNamespace(
    name="text-classification",
    auto="AutoModelForSequenceClassification",
    problem="single_label_classification",
    labels=LABELS,
    metric="accuracy",
    tokenizer=Tokenizer(),
    counted=lambda batch: len(batch["labels"]),
    settings=lambda: {"id2label": dict(enumerate(LABELS))},
)


class Rows:
    """Batches, a function of (seed, step), of points around a centre for each label."""

    def __init__(self, seed: int = 0, size: int = 16, noise: float = 0.5, task: Any = TASK) -> None:
        self.seed, self.size, self.noise, self.task = seed, size, noise, task
        self.centres = np.random.default_rng(5).normal(size=(len(LABELS), WIDTH))

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        random = np.random.default_rng([1, self.seed, step])
        labels = random.integers(0, len(LABELS), self.size)
        points = self.centres[labels] + self.noise * random.normal(size=(self.size, WIDTH))
        return {"input_ids": points, "labels": labels}


class Looked(Rows):
    """An evaluation: the rows of a few batches, in two languages by turns."""

    def __iter__(self):
        return (self[1000 + number] for number in range(3))

    def answers(self, results: Any) -> Answers:
        answers = Answers()
        for batch, outputs in results:
            answers.predicted.extend(outputs["logits"].argmax(axis=1).tolist())
            answers.gold.extend(batch["labels"].tolist())
            answers.languages.extend(LANGUAGES[row % 2] for row in range(len(batch["labels"])))
        return answers


class Toy:
    """Weights and their momentum."""

    def __init__(self, seed: int = 0) -> None:
        self.weights = 0.01 * np.random.default_rng(seed).normal(size=(WIDTH, len(LABELS)))
        self.momentum = np.zeros_like(self.weights)

    def probabilities(self, points: np.ndarray) -> np.ndarray:
        scores = points @ self.weights
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def loss(self, points: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
        shares = self.probabilities(points)
        loss = -np.log(shares[np.arange(len(labels)), labels]).mean()
        shares[np.arange(len(labels)), labels] -= 1
        return float(loss), points.T @ shares / len(labels)


def recipe_of(**values: Any) -> Recipe:
    usual = {"steps": 12, "evaluate_every": 4, "checkpoint_every": 3, "learning_rate": 0.5, "batch_size": 16}
    return Recipe(**{"task": "text-classification", "patience": 0, **usual, **values}).completed(256, 4)


def run_in(folder: Path, said: list[str] | None = None, evaluation: Any = True, **how: Any) -> Run:
    """A run of the toy."""
    values = how.pop("recipe", {})
    evaluation = Looked() if evaluation is True else evaluation
    how = {"data": {"train": {"rows": "7"}}, "usual_rate": 0.5, "progress": False, **how}
    told = (lambda kind, text: said.append(f"{kind}: {text}" if kind else text)) if said is not None else quiet
    return Run(folder, recipe_of(**values), how.pop("batches", Rows()), evaluation, tell=told, **how)


def quiet(kind: str, text: str) -> None:
    pass


def train(model: Toy, run: Run, before: Any = lambda step: None) -> Any:
    """The loop, as a backend has it."""

    def save(folder: Path) -> None:
        np.savez(folder / "state.npz", weights=model.weights, momentum=model.momentum)

    def load(folder: Path) -> None:
        with np.load(folder / "state.npz") as state:
            model.weights, model.momentum = state["weights"], state["momentum"]

    def predict(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"logits": model.probabilities(batch["input_ids"])}

    def save_pretrained(folder: Path) -> None:
        np.save(folder / "weights.npy", model.weights)

    step = run.restore(load)
    while run.goes_on(step):
        before(step)
        batch = run.batch(step)
        kept = np.random.default_rng([2, run.recipe.seed, step]).random(batch["input_ids"].shape) > 0.1
        loss, gradient = model.loss(batch["input_ids"] * kept, batch["labels"])
        model.momentum = 0.9 * model.momentum + gradient
        model.weights = model.weights - run.rate(step) * model.momentum
        step += 1
        run.after(step, loss, np.linalg.norm(gradient), save=save, predict=predict)
    return run.finish(save_pretrained, predict=predict)
