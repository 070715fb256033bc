"""Token classification: the names in a sentence, or the part of speech of each word. With PyTorch.

    python examples/torch/token_classification.py --output names

``--data ner`` finds people, places and organisations in 14 languages, ``--data pos`` the 17 parts of speech of
Universal Dependencies in 47. A word's first piece carries its label. With ``--languages en`` it learns from English
alone and is asked about all.
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

DATA = Path(os.environ.get("XLMR_SHARED", "../shared")) / "data"
SENTENCE = "Angela Merkel besuchte die Universität in Porto Alegre."

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--output", required=True, help="the folder of the run and its model; a run that is there goes on")
parser.add_argument("--model", default="xlmr-mini", help="what training starts from")
parser.add_argument("--data", choices=["ner", "pos"], default="ner", help="names, or parts of speech")
parser.add_argument("--languages", nargs="*", default=[], help="train on these alone, and test on all")
parser.add_argument("--steps", type=int, default=0, help="a first try: so many steps on little data")
arguments = parser.parse_args()

folder = DATA / arguments.data
few = 2 if arguments.data == "pos" else 10  # what is the same in all languages is learned first
recipe = Recipe(
    task="token-classification",
    model=arguments.model,
    train=folder / "train.jsonl.gz",
    eval=folder / "dev.jsonl.gz",
    test=folder / "test.jsonl.gz",
    languages=arguments.languages,
    freeze_embeddings=bool(arguments.languages),  # so that words of other languages stay where they are
    epochs=few if arguments.languages else 3,
    evaluate_every=500,
    checkpoint_every=100,
)
if arguments.steps:
    recipe = recipe.first_try(arguments.steps, languages=["en"])

with Run.of(recipe, arguments.output) as run:
    outcome = train(model_for(run), run)
if outcome is None or os.environ.get("RANK", "0") != "0":  # it was stopped, or the first process goes on alone
    raise SystemExit
if (figures := outcome.test or outcome.evaluation) is not None:
    print(*in_columns(table(figures)), sep="\n")

tag = pipeline("token-classification", arguments.output, aggregation_strategy="first")
for part in tag(SENTENCE):
    print(f"{part['entity_group']}  {part['score']:.2f}  {part['word']}")
