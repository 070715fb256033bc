"""Sentence embeddings: sentences that say the same lie close together, in any language. With Keras.

    python examples/tf/sentence_embedding.py --output embeddings

The training data has each sentence in 83 languages. A step draws two of them for each sentence, and each is
to be nearer to the other than to all other sentences of the batch. The loss is also taken of the first 64 and 128
numbers of a vector, so that vectors may be cut (Matryoshka). The test finds the translation of a sentence among all.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from xlmr_core.training.recipe import Recipe
from xlmr_core.training.reports import in_columns, table
from xlmr_core.training.run import Run
from xlmr_tf import SentenceTransformer
from xlmr_tf.training import model_for, train

DATA = Path(os.environ.get("XLMR_SHARED", "../shared")) / "data"
SENTENCES = ["The cat sleeps.", "Die Katze schläft.", "The train is late."]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--output", required=True, help="the folder of the run and its model; a run that is there goes on")
parser.add_argument("--model", default="xlmr-mini", help="what training starts from")
parser.add_argument("--steps", type=int, default=0, help="a first try: so many steps on little data")
arguments = parser.parse_args()

recipe = Recipe(
    task="sentence-embedding",
    model=arguments.model,
    train=DATA / "topic" / "train.jsonl.gz",
    eval=DATA / "pairs_pud" / "test.jsonl.gz",
    test=DATA / "pairs_tatoeba" / "test.jsonl.gz",
    evaluate_every=250,
    batch_size=128,
    max_length=64,
    matryoshka=[64, 128],
)
if arguments.steps:
    recipe = recipe.first_try(arguments.steps, languages=["en", "de"])

with Run.of(recipe, arguments.output) as run:
    outcome = train(model_for(run), run)
if outcome is None:  # it was stopped, and the same call goes on
    raise SystemExit
if (figures := outcome.test or outcome.evaluation) is not None:
    print(*in_columns(table(figures)), sep="\n")

model = SentenceTransformer(arguments.output)
vectors = model.encode(SENTENCES)
for other, likeness in zip(SENTENCES[1:], model.similarity(vectors[:1], vectors[1:])[0], strict=True):
    print(f"{float(likeness):.2f}  {SENTENCES[0]}  {other}")
