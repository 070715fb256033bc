"""Causal language modelling: an encoder learns to write, word after word. With PyTorch.

    python examples/torch/causal_language_modeling.py --output writer

The weights are those of the masked language model; each token now sees those before it alone, and is to foretell the
next one. The loss begins high and falls soon, because most of what the model knows it can use.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from xlmr_core.training.recipe import Recipe
from xlmr_core.training.reports import in_columns, table
from xlmr_core.training.run import Run
from xlmr_torch import pipeline
from xlmr_torch.training import model_for, train

DATA = Path(os.environ.get("XLMR_SHARED", "../shared")) / "data" / "pretrain"
BEGINNING = "The city lies"

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--output", required=True, help="the folder of the run and its model; a run that is there goes on")
parser.add_argument("--model", default="xlmr-mini", help="what training starts from")
parser.add_argument("--language", default="en", help="code of the language")
parser.add_argument("--steps", type=int, default=0, help="a first try: so many steps on little data")
arguments = parser.parse_args()

recipe = Recipe(
    task="causal-language-modeling",
    model=arguments.model,
    train=DATA / "train" / f"{arguments.language}.txt.xz",
    eval=DATA / "dev" / f"{arguments.language}.txt.xz",
    epochs=1,
    packing=True,
)
if arguments.steps:
    recipe = recipe.first_try(arguments.steps, train=recipe.eval)

with Run.of(recipe, arguments.output) as run:
    outcome = train(model_for(run), run)
if outcome is None or os.environ.get("RANK", "0") != "0":  # it was stopped, or the first process goes on alone
    raise SystemExit
if (figures := outcome.test or outcome.evaluation) is not None:
    print(*in_columns(table(figures)), sep="\n")

write = pipeline("text-generation", arguments.output)
print(write(BEGINNING, max_new_tokens=20, repetition_penalty=1.3)[0]["generated_text"])
