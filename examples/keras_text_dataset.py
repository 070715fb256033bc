"""Raw strings in a ``tf.data.Dataset``, adapters in place of all weights, gradients accumulated over batches."""

from __future__ import annotations

import keras
import tensorflow as tf

from xlmr_tf import AutoTokenizer, TFXLMRobertaForSequenceClassification
from xlmr_tf.datasets import tokenized

TEXTS = [
    *("It rains all day.", "Es schneit seit gestern.", "Il fait très chaud.", "Hoy hace mucho viento."),
    *("The soup is too salty.", "Ich esse gern Brot.", "Elle boit un café.", "Me gusta el arroz."),
]
LABELS = [0, 0, 0, 0, 1, 1, 1, 1]

keras.utils.set_random_seed(0)
tokenizer = AutoTokenizer.from_pretrained("xlmr-mini")
texts = tf.data.Dataset.from_tensor_slices((TEXTS, LABELS)).shuffle(8, seed=0).batch(2)

model = TFXLMRobertaForSequenceClassification.from_pretrained("xlmr-mini", num_labels=2)
model.enable_lora(4)
print(f"{model.num_parameters(only_trainable=True)} of {model.num_parameters()} values are trained")

optimizer = keras.optimizers.Adam(1e-2, gradient_accumulation_steps=2)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(optimizer, loss=loss, metrics=["accuracy"])
history = model.fit(tokenized(texts, tokenizer, max_length=64), epochs=5, verbose=2).history
assert history["loss"][-1] < history["loss"][0], history["loss"]
