"""Masked language modelling: a model goes on learning from running text, here in one language. With Keras.

    python examples/tf/masked_language_modeling.py --output swahili

A share of the tokens is hidden, others at each step, and found again from what stands around them. Short lines of one
document are put together to rows. The figure is the perplexity: among how many tokens it wavers.
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

DATA = Path(os.environ.get("XLMR_SHARED", "../shared")) / "data" / "pretrain"
SENTENCE = "Nairobi ni mji mkuu wa <mask>."

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--output", required=True, help="the folder of the run and its model; a run that is there goes on")
parser.add_argument("--model", default="xlmr-mini", help="what training starts from")
parser.add_argument("--language", default="sw", help="code of the language")
parser.add_argument("--steps", type=int, default=0, help="a first try: so many steps on little data")
arguments = parser.parse_args()

recipe = Recipe(
    task="masked-language-modeling",
    model=arguments.model,
    train=DATA / "train" / f"{arguments.language}.txt.xz",
    eval=DATA / "dev" / f"{arguments.language}.txt.xz",
    epochs=5,
    packing=True,
    whole_words=0.5,
    as_typed=True,
)
if arguments.steps:
    recipe = recipe.first_try(arguments.steps, train=recipe.eval)

with Run.of(recipe, arguments.output) as run:
    outcome = train(model_for(run), run)
if outcome is None:  # it was stopped, and the same call goes on
    raise SystemExit
if (figures := outcome.test or outcome.evaluation) is not None:
    print(*in_columns(table(figures)), sep="\n")

for answer in pipeline("fill-mask", arguments.output, top_k=3)(SENTENCE):
    print(f"{answer['score']:.2f}  {answer['sequence']}")
