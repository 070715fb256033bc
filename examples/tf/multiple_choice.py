"""Multiple choice: which of several texts goes on from another one? In 22 languages. With Keras.

    python examples/tf/multiple_choice.py --output choices

Each choice is read together with what comes before it, and gets a score; the scores of one question are compared. The
data are questions of school exams, of common sense, and of causes and effects.
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

DATA = Path(os.environ.get("XLMR_SHARED", "../shared")) / "data" / "mc"
PROMPT, CHOICES = "The glass fell off the table.", ["It broke.", "It was cooked."]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--output", required=True, help="the folder of the run and its model; a run that is there goes on")
parser.add_argument("--model", default="xlmr-mini", help="what training starts from")
parser.add_argument("--steps", type=int, default=0, help="a first try: so many steps on little data")
arguments = parser.parse_args()

recipe = Recipe(
    task="multiple-choice",
    model=arguments.model,
    train=DATA / "train.jsonl.gz",
    eval=DATA / "dev.jsonl.gz",
    test=DATA / "test.jsonl.gz",
    columns={"prompt": "premise", "question": "question"},
    epochs=2,
    evaluate_every=400,
    checkpoint_every=100,
    max_length=96,
)
if arguments.steps:
    recipe = recipe.first_try(arguments.steps, languages=["pt"])

with Run.of(recipe, arguments.output) as run:
    outcome = train(model_for(run), run)
if outcome is None:  # it was stopped, and the same call goes on
    raise SystemExit
if (figures := outcome.test or outcome.evaluation) is not None:
    print(*in_columns(table(figures)), sep="\n")

for row in pipeline("multiple-choice", arguments.output)(PROMPT, CHOICES):
    print(f"{row['score']:.2f}  {PROMPT} {CHOICES[row['index']]}")
