"""The other heads under ``fit``, each for a few steps on a few sentences: questions, tokens, choices, several labels,
numbers.
"""

from __future__ import annotations

import keras
import numpy as np

from xlmr_tf import (
    AutoTokenizer,
    TFXLMRobertaForMultipleChoice,
    TFXLMRobertaForQuestionAnswering,
    TFXLMRobertaForSequenceClassification,
    TFXLMRobertaForTokenClassification,
)

keras.utils.set_random_seed(0)
tokenizer = AutoTokenizer.from_pretrained("xlmr-mini")
PLACES = ["She lives in Lisbon.", "Er wohnt in Berlin.", "Il habite à Paris.", "Vive en Madrid."]


def train(model, inputs, labels=None, loss=None, epochs=6):
    """Fit, and see that the loss falls."""
    model.compile(keras.optimizers.Adam(3e-4), loss=loss)
    losses = model.fit(inputs, labels, batch_size=4, epochs=epochs, verbose=0).history["loss"]
    print(f"{type(model).__name__}: loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    assert losses[-1] < losses[0]


# Answers in a text: two outputs. Labels in the dictionary mean the model's own loss; nothing is given to compile.
questions = ["Where does she live?", "Wo wohnt er?", "Où habite-t-il ?", "¿Dónde vive?"]
answers = ["Lisbon", "Berlin", "Paris", "Madrid"]
encoded = tokenizer(questions, PLACES, padding=True, return_tensors="np")
starts, ends = [], []
for row, (text, answer) in enumerate(zip(PLACES, answers, strict=True)):
    begin = text.index(answer)
    starts.append(encoded.char_to_token(row, begin, sequence_index=1))
    ends.append(encoded.char_to_token(row, begin + len(answer) - 1, sequence_index=1))
spans = {"start_positions": np.array(starts), "end_positions": np.array(ends)}
train(TFXLMRobertaForQuestionAnswering.from_pretrained("xlmr-mini"), {**encoded, **spans})

# Tokens: only the first token of a word has a label, -100 is passed over.
encoded = tokenizer(PLACES, padding=True, return_tensors="np")
labels = np.full_like(encoded["input_ids"], -100)
for row, (text, place) in enumerate(zip(PLACES, answers, strict=True)):
    words = text.removesuffix(".").split()
    for word in words:
        labels[row, encoded.char_to_token(row, text.index(word))] = int(word == place)
ignoring = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-100)
train(TFXLMRobertaForTokenClassification.from_pretrained("xlmr-mini", num_labels=2), dict(encoded), labels, ignoring)

# Choices: every row is a context with each of its continuations, (rows, choices, length).
contexts = ["It is raining, so", "Es ist kalt, also", "J'ai faim, donc", "Tengo sed, así que"]
endings = ["I take my umbrella.", "ziehe ich einen Mantel an.", "je mange.", "bebo agua."]
pairs = [
    (context, ending) for number, context in enumerate(contexts) for ending in (endings[number], endings[number - 1])
]
encoded = tokenizer(*map(list, zip(*pairs, strict=True)), padding=True, return_tensors="np")
choices = {name: values.reshape(4, 2, -1) for name, values in encoded.items()}
train(TFXLMRobertaForMultipleChoice.from_pretrained("xlmr-mini"), {**choices, "labels": np.zeros(4, np.int64)})

# Several labels at once, and a number.
encoded = dict(tokenizer(PLACES, padding=True, return_tensors="np"))
several = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 1], [1, 0, 1]], np.float32)
model = TFXLMRobertaForSequenceClassification.from_pretrained(
    "xlmr-mini", num_labels=3, problem_type="multi_label_classification"
)
train(model, encoded, several, keras.losses.BinaryCrossentropy(from_logits=True))
model = TFXLMRobertaForSequenceClassification.from_pretrained("xlmr-mini", num_labels=1)
train(model, {**encoded, "labels": np.array([0.1, 0.9, 0.4, 0.6], np.float32)})
