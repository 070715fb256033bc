"""Fine-tune with the model as an object: ``nnx.Optimizer``, ``nnx.jit``; save it, load it again and use it."""

from __future__ import annotations

import tempfile

import numpy as np
import optax
from flax import nnx

from xlmr_flax import AutoTokenizer, FlaxAutoModelForTokenClassification

LABELS = {0: "O", 1: "CITY"}
EXAMPLES = [
    ("Wir wohnen in Berlin.", "Berlin"),
    ("She flew to Paris.", "Paris"),
    ("Elle travaille à Lisbonne.", "Lisbonne"),
    ("Llegamos a Madrid ayer.", "Madrid"),
]

tokenizer = AutoTokenizer.from_pretrained("xlmr-mini")
model = FlaxAutoModelForTokenClassification.from_pretrained("xlmr-mini", id2label=LABELS)

encoded = tokenizer([text for text, _ in EXAMPLES], padding=True, return_tensors="np", return_offsets_mapping=True)
spans = encoded.pop("offset_mapping")
labels = np.full(spans.shape[:2], -100)
for row, (text, city) in enumerate(EXAMPLES):
    start = text.index(city)
    for column, (first, last) in enumerate(spans[row]):
        if last > first:  # special tokens have no place in the text
            labels[row, column] = int(first < start + len(city) and last > start)
batch = {**encoded, "labels": labels}

optimizer = nnx.Optimizer(model, optax.adamw(1e-3), wrt=nnx.Param)


@nnx.jit
def train_step(model, optimizer, batch):
    loss, gradients = nnx.value_and_grad(lambda model: model(**batch).loss)(model)
    optimizer.update(model, gradients)
    return loss


losses = []
for step in range(12):
    losses.append(float(train_step(model, optimizer, batch)))
    if step % 4 == 3:
        print(f"step {step + 1:2}  loss {losses[-1]:.3f}")
assert losses[-1] < losses[0] / 2, losses

with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    model = FlaxAutoModelForTokenClassification.from_pretrained(folder)

found = model(**encoded).logits.argmax(-1)
counted = labels != -100
print(f"{(found == labels)[counted].mean():.0%} of the tokens are labelled as they were in training")
