"""What stands beside the model of a run: the model card (README.md), its figures as JSON, and the pictures.

The card says what was done and what came of it, by figures of this run alone. It names files and no folders, so that
nothing of the machine is published with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from xlmr_core import __version__
from xlmr_core.atomic_files import write_all_atomically
from xlmr_core.jobs.values import shown_in_json
from xlmr_core.training.curves import confusion_picture, curves_picture
from xlmr_core.training.log import CONFUSION, Log
from xlmr_core.training.metrics import FEWEST
from xlmr_core.training.recipe import FILES, Recipe
from xlmr_core.training.reports import Figures, Outcome, as_values, in_markdown, table
from xlmr_core.training.sentences import sentence_files
from xlmr_core.wording import counted

if TYPE_CHECKING:
    from xlmr_core.training.task import TrainingTask

__all__ = ["RUN_AS", "card", "publish"]

CARD, FIGURES, CURVES, CONFUSIONS = "README.md", "evaluation.json", "curves.png", "confusion.png"
# What a trained model does: the task of ``xlmr run``, and the word that the hub has for it.
RUN_AS = {
    "masked-language-modeling": ("fill-mask", "fill-mask"),
    "causal-language-modeling": ("text-generation", "text-generation"),
    "text-classification": ("text-classification", "text-classification"),
    "token-classification": ("token-classification", "token-classification"),
    "question-answering": ("question-answering", "question-answering"),
    "multiple-choice": ("multiple-choice", "multiple-choice"),
    "sentence-embedding": ("sentence-embedding", "sentence-similarity"),
    "rerank": ("rerank", "text-ranking"),
}
WORDS = {
    "masked-language-modeling": "masked language modelling",
    "causal-language-modeling": "causal language modelling",
    "sentence-embedding": "sentence embeddings",
    "rerank": "ranking passages",
}


def publish(
    folder: Path,
    log: Log,
    recipe: Recipe,
    task: TrainingTask,
    metric: str,
    best: int | None,
    done: Mapping[str, Any],
) -> None:
    """Write all this of a run into its folder, all or nothing.

    Args:
        folder: of the run.
        log: of it.
        recipe: of it.
        task: its task's object.
        metric: the figure that says what is best.
        best: the step of the best evaluation.
        done: what the log will say last.

    Raises:
        CheckpointError: if there is no room.
    """
    name, outcome = folder.resolve().name, Outcome.of(log, metric, best, done)
    contents = {CURVES: curves_picture(log.lines(), name)}
    line = log.evaluation(best)
    if CONFUSION in line:
        contents[CONFUSIONS] = confusion_picture(task.labels, np.array(line[CONFUSION], np.int64))
    data = log.run["data"] if log.run else {}
    text = card(name, recipe, task.labels, outcome, data, has_confusion=CONFUSION in line)
    contents |= {FIGURES: _json(outcome).encode(), CARD: text.encode()}
    if recipe.task == "sentence-embedding":
        contents |= sentence_files(folder, recipe, task.tokenizer)
    write_all_atomically(folder, contents)


def card(
    name: str, recipe: Recipe, labels: Sequence[str], outcome: Outcome, data: Mapping[str, Any], has_confusion: bool
) -> str:
    """The model card.

    Args:
        name: of the model.
        recipe: of the run.
        labels: names of labels, where there are some.
        outcome: of the run.
        data: what the log says of the training data.
        has_confusion: whether there is a picture of the confusion matrix.
    """
    parts = [
        _head(recipe, outcome),
        f"# {name}",
        _what(recipe, labels),
        *_results(outcome, has_confusion),
        _use(name, recipe),
        _making(recipe, outcome, data),
        _limits(outcome),
    ]
    return "\n\n".join(parts) + "\n"


def _head(recipe: Recipe, outcome: Outcome) -> str:
    lines = ["library_name: xlmr", f"pipeline_tag: {RUN_AS[recipe.task][1]}"]
    if "/" in _named(recipe.model):
        lines.append(f"base_model: {recipe.model}")
    languages = sorted({*(outcome.evaluation or outcome.test or Figures({})).languages, *recipe.languages})
    lines += [f"language: {json.dumps(languages, ensure_ascii=False)}"] if languages else []
    metrics = list((outcome.test or outcome.evaluation or Figures({})).all)
    lines += [f"metrics: {json.dumps(metrics)}"] if metrics else []
    return "\n".join(["---", *lines, "---"])


def _what(recipe: Recipe, labels: Sequence[str]) -> str:
    start = "fresh weights" if recipe.config else f"`{_named(recipe.model)}`"
    text = f"{start[:1].upper() + start[1:]}, trained for {WORDS.get(recipe.task, recipe.task.replace('-', ' '))}"
    text += f" with xlmr {__version__}."
    if recipe.head_only:
        text += " Nothing but the head was trained."
    elif recipe.lora_rank:
        text += f" Low-rank deltas of rank {recipe.lora_rank} were trained, and are merged into the weights."
    if labels and recipe.task.endswith("classification"):
        few = ", ".join(f"`{label}`" for label in labels[:40])
        text += f"\n\n{counted(len(labels), 'label')}: {few}" + (", ..." if len(labels) > 40 else ".")
    return text


def _results(outcome: Outcome, has_confusion: bool) -> list[str]:
    parts = ["## Figures"]
    if outcome.test is not None:
        parts += ["On `test`, which had no part in training:", in_markdown(table(outcome.test))]
    if outcome.evaluation is not None:
        chosen = f"On `eval`, at step {outcome.best}, which was chosen because its {outcome.metric} was the best there:"
        parts += [chosen, in_markdown(table(outcome.evaluation))]
    if outcome.test is None and outcome.evaluation is None:
        last = "" if outcome.loss is None else f" The loss of the last step was {outcome.loss:.4g}."
        parts.append(f"It was not evaluated.{last}")
    parts.append(f"![the curves of the run]({CURVES})")
    return [*parts, f"![how often each label got each answer]({CONFUSIONS})"] if has_confusion else parts


def _use(name: str, recipe: Recipe) -> str:
    task = RUN_AS[recipe.task][0]
    return (
        f"## Use\n\n```sh\nxlmr run --task {task} --model {name}\n```\n\n```python\nfrom xlmr_torch import pipeline\n\n"
        f'pipe = pipeline("{task}", model="{name}")\n```'
    )


def _making(recipe: Recipe, outcome: Outcome, data: Mapping[str, Any]) -> str:
    took = f"{outcome.seconds / 60:.1f} minutes" if outcome.seconds >= 60 else f"{outcome.seconds:.0f} seconds"
    named = {name: tuple(PurePath(path).name for path in getattr(recipe, name)) for name in FILES}
    short = recipe.replace(**named, model=_named(recipe.model), config=_named(recipe.config))
    files = "\n".join(f"- {what}: {_said(value)}" for what, value in data.items())
    return (
        f"## How it was made\n\n{counted(outcome.steps, 'step')} in {took}, by `xlmr train --recipe recipe.toml`:\n\n"
        f"```toml\n{short.to_toml()}```" + (f"\n\nMade from:\n\n{files}" if files else "")
    )


def _named(model: str) -> str:
    """The name of a model on the hub as it is, of one on this machine without the folders above it."""
    return PurePath(model).name if model and (Path(model).exists() or PurePath(model).is_absolute()) else model


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_said(one)}" for name, one in value.items())
    return f"`{value}`" if isinstance(value, str) else str(value)


def _limits(outcome: Outcome) -> str:
    lines = []
    if outcome.collapsed:
        lines.append("- **The run seems to have collapsed**: at its end the model answered much as a constant does.")
    if outcome.test is None and outcome.evaluation is not None:
        lines.append(
            "- The figures are of the examples by which the best step was chosen, so they flatter it a little."
        )
    figures = outcome.test or outcome.evaluation
    few = [f"{language} ({count})" for language, count in (figures.counts if figures else {}).items() if count < FEWEST]
    if figures and few:
        fewest = f"{FEWEST} {figures.unit}"
        lines.append(f"- Languages with fewer than {fewest}, of which the figures tell little: {', '.join(few)}.")
    lines.append(
        "- Languages and kinds of text that are not in the training data were not measured, unless they stand above."
    )
    lines.append("- The licence is that of the training data and of the model that training started from; say it here.")
    return "\n".join(["## Limits", "", *lines])


def _json(outcome: Outcome) -> str:
    # What is no number, such as an infinite perplexity, is null.
    return json.dumps(json.loads(shown_in_json(as_values(outcome))), ensure_ascii=False, indent=1) + "\n"
