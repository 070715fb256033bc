"""Fine-tune a classifier for a few steps, save it, load it again and use it.

Eight sentences are no data set: this shows the moving parts and that they learn, not a result.
"""

from __future__ import annotations

import tempfile

import torch

from xlmr_torch import AutoModelForSequenceClassification, AutoTokenizer

LABELS = {0: "weather", 1: "food"}
EXAMPLES = [
    ("It rains all day.", 0),
    ("Es schneit seit gestern.", 0),
    ("Il fait très chaud.", 0),
    ("Hoy hace mucho viento.", 0),
    ("The soup is too salty.", 1),
    ("Ich esse gern Brot mit Käse.", 1),
    ("Elle boit un café.", 1),
    ("Me gusta el arroz.", 1),
]

torch.manual_seed(0)
tokenizer = AutoTokenizer.from_pretrained("xlmr-mini")
model = AutoModelForSequenceClassification.from_pretrained("xlmr-mini", id2label=LABELS)

inputs = tokenizer([text for text, _ in EXAMPLES], padding=True, return_tensors="pt")
labels = torch.tensor([label for _, label in EXAMPLES])
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)

model.train()
losses = []
for step in range(20):
    loss = model(**inputs, labels=labels).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
    if step % 5 == 4:
        print(f"step {step + 1:2}  loss {loss.item():.3f}")
assert losses[-1] < losses[0] / 2, losses

with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    with torch.no_grad():
        logits = model(**tokenizer("Es regnet.", return_tensors="pt")).logits
    print("Es regnet. ->", model.config.id2label[int(logits.argmax())])
