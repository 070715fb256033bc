"""Reranking: which of several passages answers a question? With Flax.

    python examples/flax/rerank.py --output reranker

Question and passage are read together, and one number says how well they fit. The right passages are the contexts of
the questions; others of the same language are drawn at each step.
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
QUERY = "Where is the Eiffel Tower?"
PASSAGES = ["The tower stands in Paris, on the Champ de Mars.", "Bread is baked from flour, water and yeast."]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--output", required=True, help="the folder of the run and its model; a run that is there goes on")
parser.add_argument("--model", default="xlmr-mini", help="what training starts from")
parser.add_argument("--languages", nargs="*", default=[], help="train on these alone, and test on all")
parser.add_argument("--steps", type=int, default=0, help="a first try: so many steps on little data")
arguments = parser.parse_args()

recipe = Recipe(
    task="rerank",
    model=arguments.model,
    train=DATA / "train.jsonl.gz",
    eval=DATA / "dev.jsonl.gz",
    test=DATA / "test.jsonl.gz",
    columns={"query": "question", "passage": "context"},
    languages=arguments.languages,
    epochs=0.5,
    evaluate_every=250,
    checkpoint_every=100,
    max_length=128,
    negatives=3,
)
if arguments.steps:
    recipe = recipe.first_try(arguments.steps, languages=["en"])

with Run.of(recipe, arguments.output) as run:
    outcome = train(model_for(run), run)
if outcome is None:  # it was stopped, and the same call goes on
    raise SystemExit
if (figures := outcome.test or outcome.evaluation) is not None:
    print(*in_columns(table(figures)), sep="\n")

for row in pipeline("rerank", arguments.output)(QUERY, PASSAGES):
    print(f"{row['score']:.2f}  {PASSAGES[row['index']]}")
