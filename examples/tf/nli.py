"""Natural language inference: does a sentence follow from another one? In five languages. With Keras.

    python examples/tf/nli.py --output nli

Three labels: entailment, neutral, contradiction. A model that can tell sorts texts into classes that it was never
trained on (zero-shot classification).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from xlmr_core.training.recipe import Recipe
from xlmr_core.training.reports import in_columns, table
from xlmr_core.training.run import Run
from xlmr_tf import pipeline
from xlmr_tf.training import model_for, train

DATA = Path(os.environ.get("XLMR_SHARED", "../shared")) / "data" / "nli"
TEXT, CLASSES = "The team won the cup after extra time.", ["sport", "politics", "cooking"]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--output", required=True, help="the folder of the run and its model; a run that is there goes on")
parser.add_argument("--model", default="xlmr-mini", help="what training starts from")
parser.add_argument("--languages", nargs="*", default=[], help="train on these alone, and test on all")
parser.add_argument("--steps", type=int, default=0, help="a first try: so many steps on little data")
arguments = parser.parse_args()

recipe = Recipe(
    task="text-classification",
    model=arguments.model,
    train=DATA / "train.jsonl.gz",
    eval=DATA / "dev.jsonl.gz",
    test=DATA / "test.jsonl.gz",
    columns={"text": "premise", "pair": "hypothesis"},
    labels=["entailment", "neutral", "contradiction"],
    languages=arguments.languages,
    freeze_embeddings=bool(arguments.languages),  # so that words of other languages stay where they are
    epochs=4,
    evaluate_every=500,
    checkpoint_every=100,
)
if arguments.steps:
    recipe = recipe.first_try(arguments.steps, languages=["ja"])

with Run.of(recipe, arguments.output) as run:
    outcome = train(model_for(run), run)
if outcome is None:  # it was stopped, and the same call goes on
    raise SystemExit
if (figures := outcome.test or outcome.evaluation) is not None:
    print(*in_columns(table(figures)), sep="\n")

answer = pipeline("zero-shot-classification", arguments.output)(TEXT, CLASSES)
for label, score in zip(answer["labels"], answer["scores"], strict=True):
    print(f"{label}  {score:.2f}")
