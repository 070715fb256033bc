"""Small training runs: a model of two layers and a few lines of data for each task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.tasks.task import Arrays
from xlmr_core.training.recipe import Recipe
from xlmr_core.training.run import Run

WORDS = [
    "sun",
    "rain",
    "snow",
    "wind",
    "storm",
    "cloud",
    "river",
    "lake",
    "stone",
    "grass",
    "bread",
    "milk",
    "salt",
    "honey",
    "apple",
    "fish",
    "horse",
    "goat",
    "sheep",
    "bird",
    "red",
    "green",
    "blue",
    "white",
    "black",
]


def sentence(number: int, length: int = 6) -> str:
    """Words that depend on a number."""
    return " ".join(WORDS[(number * (place + 3) + place * place) % len(WORDS)] for place in range(2 + number % length))


def _texts(count: int) -> list[dict[str, Any]]:
    return [{"text": f"{sentence(n)} {WORDS[n % 3]}", "label": WORDS[n % 3], "lang": "en"} for n in range(count)]


def _tokens(count: int) -> list[dict[str, Any]]:
    words = [sentence(n).split() for n in range(count)]
    return [{"tokens": own, "tags": ["B-PER" if word < "h" else "O" for word in own]} for own in words]


def _questions(count: int) -> list[dict[str, Any]]:
    found = []
    for n in range(count):
        context = f"{sentence(n, 9)} and {WORDS[n % 5]} here"
        start = context.index(f"{WORDS[n % 5]} here")
        answers = [{"text": WORDS[n % 5], "answer_start": start}]
        found.append({"question": "what is here", "context": context, "answers": answers, "id": str(n)})
    return found


ROWS = {
    "masked-language-modeling": lambda count: [{"text": sentence(n)} for n in range(count)],
    "causal-language-modeling": lambda count: [{"text": sentence(n)} for n in range(count)],
    "text-classification": _texts,
    "token-classification": _tokens,
    "question-answering": _questions,
    "multiple-choice": lambda count: [
        {"prompt": sentence(n), "choices": ["the sun", "a stone"][:: 1 - 2 * (n % 2)], "label": n % 2}
        for n in range(count)
    ],
    "sentence-embedding": lambda count: [{"text": sentence(n), "other": sentence(n + 1)} for n in range(count)],
    "rerank": lambda count: [{"query": sentence(n), "passage": f"{sentence(n)} {WORDS[n % 9]}"} for n in range(count)],
}
TASKS = list(ROWS)
SIZES = {
    "vocab_size": 32000,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 66,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}


def written(folder: Path, name: str, rows: Sequence[Any]) -> Path:
    """A file of JSON lines; one that is there stays, as other processes may be reading it."""
    path = folder / name
    if not path.exists():
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


def small_recipe(
    folder: Path, task: str = "text-classification", rows: int = 24, layers: int = 2, **values: Any
) -> Recipe:
    """A recipe of a few steps from fresh weights, its files in a folder. What is compiled takes half the time with one
    layer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / f"config-{layers}"
    if not config.exists():
        XLMRobertaConfig(**{**SIZES, "num_hidden_layers": layers}).save_pretrained(config)
    train = written(folder, "train.jsonl", ROWS[task](rows))
    usual = {
        "task": task,
        "config": str(config),
        "train": str(train),
        "steps": 6,
        "batch_size": 5,
        "max_length": 32,
        "learning_rate": 0.01,
        "evaluate_every": 100,
        "checkpoint_every": 100,
        "doc_stride": 8,
        "negatives": 2,
    }
    return Recipe(**{**usual, **values})


def small_run(folder: Path, task: str = "text-classification", at: Path | None = None, **values: Any) -> Run:
    """The run of such a recipe in a folder."""
    return Run.of(small_recipe(folder / "data", task, **values), at or folder / "run", tell=lambda kind, text: None)


def losses(run: Run) -> list[float]:
    """The losses of the steps of a run, as its log has them."""
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def alone(batch: Arrays, row: int) -> Arrays:
    """A row of a batch without its padding."""
    length = int(batch["attention_mask"][row].sum())
    return {
        name: array[row : row + 1, :length] if array.ndim > 1 else array[row : row + 1] for name, array in batch.items()
    }
