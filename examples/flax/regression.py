"""Regression: how alike are two sentences, from 0 to 5? In Japanese and Korean. With Flax.

    python examples/flax/regression.py --output likeness

The model has one output, and its loss is the squared error. What counts is whether its numbers rise and fall with those
of people (Pearson's and Spearman's correlation).
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

DATA = Path(os.environ.get("XLMR_SHARED", "../shared")) / "data" / "sts"
PAIR = {"text": "犬が公園を走っている。", "text_pair": "公園で犬が走り回っています。"}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--output", required=True, help="the folder of the run and its model; a run that is there goes on")
parser.add_argument("--model", default="xlmr-mini", help="what training starts from")
parser.add_argument("--steps", type=int, default=0, help="a first try: so many steps on little data")
arguments = parser.parse_args()

recipe = Recipe(
    task="text-classification",
    problem="regression",
    model=arguments.model,
    train=DATA / "train.jsonl.gz",
    eval=DATA / "dev.jsonl.gz",
    test=DATA / "test.jsonl.gz",
    columns={"text": "text1", "pair": "text2", "label": "score"},
    epochs=8,
)
if arguments.steps:
    recipe = recipe.first_try(arguments.steps, languages=["ja"])

with Run.of(recipe, arguments.output) as run:
    outcome = train(model_for(run), run)
if outcome is None:  # it was stopped, and the same call goes on
    raise SystemExit
if (figures := outcome.test or outcome.evaluation) is not None:
    print(*in_columns(table(figures)), sep="\n")

likeness = pipeline("text-classification", arguments.output, function_to_apply="none")
print(f"{likeness(PAIR)['score']:.1f}  {PAIR['text']}  {PAIR['text_pair']}")
