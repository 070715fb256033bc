"""Fine-tune a classifier with ``fit``: warm-up, weight decay, callbacks, weights of classes; save, load and use it.

Eight sentences are no data set: this shows the moving parts and that they learn, not a result.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import keras
import numpy as np

from xlmr_tf import AutoTokenizer, TFXLMRobertaForSequenceClassification

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
EPOCHS, BATCH = 12, 4

keras.utils.set_random_seed(0)
tokenizer = AutoTokenizer.from_pretrained("xlmr-mini")
model = TFXLMRobertaForSequenceClassification.from_pretrained("xlmr-mini", id2label=LABELS)

inputs = dict(tokenizer([text for text, _ in EXAMPLES], padding=True, return_tensors="np"))
labels = np.array([label for _, label in EXAMPLES])

# Ten percent of the steps to warm up, then down along a cosine; no decay of biases and norms.
steps = EPOCHS * len(EXAMPLES) // BATCH
warm_up = steps // 10
rate = keras.optimizers.schedules.CosineDecay(0.0, steps - warm_up, warmup_target=1e-3, warmup_steps=warm_up)
optimizer = keras.optimizers.AdamW(rate, weight_decay=0.01, global_clipnorm=1.0)
optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])

loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(optimizer, loss=loss, metrics=["accuracy"])

with tempfile.TemporaryDirectory() as folder:
    best = Path(folder, "best.weights.h5")
    callbacks = [
        keras.callbacks.ModelCheckpoint(best, monitor="loss", save_best_only=True, save_weights_only=True),
        keras.callbacks.EarlyStopping(monitor="loss", patience=5),
        keras.callbacks.TerminateOnNaN(),
    ]
    history = model.fit(
        inputs, labels, batch_size=BATCH, epochs=EPOCHS, class_weight={0: 1.0, 1: 1.5}, callbacks=callbacks, verbose=2
    )
    assert history.history["loss"][-1] < history.history["loss"][0] / 2, history.history["loss"]
    model.load_weights(best)
    print(model.evaluate(inputs, labels, batch_size=BATCH, verbose=0, return_dict=True))

    # Keras's own file holds the optimizer too, so training can go on; save_pretrained writes what every framework
    # reads.
    model.save(Path(folder, "model.keras"))
    model.save_pretrained(Path(folder, "checkpoint"))
    tokenizer.save_pretrained(Path(folder, "checkpoint"))

    model = keras.saving.load_model(Path(folder, "model.keras"))
    predicted = model.predict(
        dict(tokenizer(["Es regnet.", "I like bread."], padding=True, return_tensors="np")), verbose=0
    )
    for text, row in zip(("Es regnet.", "I like bread."), predicted.logits, strict=True):
        print(text, "->", model.config.id2label[int(row.argmax())])
