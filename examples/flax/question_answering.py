"""Question answering: the words of a text that answer a question. With Flax.

    python examples/flax/question_answering.py --output answers

A text that is longer than a row is read in windows that overlap. An answer counts by the words that it shares with the
right one (F1), or if it is the same (exact match).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from xlmr_core.training.recipe import Recipe
from xlmr_core.training.reports import in_columns, table
from xlmr_core.training.run import Run
from xlmr_flax import pipeline
from xlmr_flax.training import model_for, train

DATA = Path(os.environ.get("XLMR_SHARED", "../shared")) / "data" / "qa"
QUESTION = "Where do the two rivers meet?"
CONTEXT = "The Rhine and the Moselle meet in Koblenz, at a place that is called the German Corner."

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--output", required=True, help="the folder of the run and its model; a run that is there goes on")
parser.add_argument("--model", default="xlmr-mini", help="what training starts from")
parser.add_argument("--languages", nargs="*", default=[], help="train on these alone, and test on all")
parser.add_argument("--steps", type=int, default=0, help="a first try: so many steps on little data")
arguments = parser.parse_args()

recipe = Recipe(
    task="question-answering",
    model=arguments.model,
    train=DATA / "train.jsonl.gz",
    eval=DATA / "dev.jsonl.gz",
    test=DATA / "test.jsonl.gz",
    languages=arguments.languages,
    freeze_embeddings=bool(arguments.languages),  # so that words of other languages stay where they are
    epochs=4 if arguments.languages else 0.6,
    evaluate_every=250,
    checkpoint_every=100,
    max_length=256,
    doc_stride=64,
)
if arguments.steps:
    recipe = recipe.first_try(arguments.steps, languages=["en"])

with Run.of(recipe, arguments.output) as run:
    outcome = train(model_for(run), run)
if outcome is None:  # it was stopped, and the same call goes on
    raise SystemExit
if (figures := outcome.test or outcome.evaluation) is not None:
    print(*in_columns(table(figures)), sep="\n")

answer = pipeline("question-answering", arguments.output)(question=QUESTION, context=CONTEXT)
print(f"{answer['score']:.2f}  {answer['answer']}")
