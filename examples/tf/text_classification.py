"""Text classification: the topic of a sentence, one of seven, in 83 languages. With Keras.

    python examples/tf/text_classification.py --output topics

With ``--languages en`` it sees English sentences alone and is asked about all languages: what it knows of the others it
knows from its pretraining.
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

DATA = Path(os.environ.get("XLMR_SHARED", "../shared")) / "data" / "topic"
SENTENCES = ("The midfielder scored twice in the final.", "Der Impfstoff wird im Kühlschrank gelagert.")

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
    languages=arguments.languages,
    freeze_embeddings=bool(arguments.languages),  # so that words of other languages stay where they are
    epochs=20 if arguments.languages else 2,
    evaluate_every=500,
    checkpoint_every=100,
)
if arguments.steps:
    recipe = recipe.first_try(arguments.steps, languages=["en"])

with Run.of(recipe, arguments.output) as run:
    outcome = train(model_for(run), run)
if outcome is None:  # it was stopped, and the same call goes on
    raise SystemExit
if (figures := outcome.test or outcome.evaluation) is not None:
    print(*in_columns(table(figures)), sep="\n")

classify = pipeline("text-classification", arguments.output)
for sentence, answer in zip(SENTENCES, classify(list(SENTENCES)), strict=True):
    print(f"{answer['label']}  {answer['score']:.2f}  {sentence}")
