"""Write a model for TensorFlow Serving and for LiteRT, and ask both. Neither file needs this package."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from xlmr_tf import AutoTokenizer, TFXLMRobertaForMaskedLM, TFXLMRobertaModel

tokenizer = AutoTokenizer.from_pretrained("xlmr-mini")
inputs = tokenizer(
    ["Plants create <mask> through a process known as photosynthesis.", "Bonjour, je suis un modèle <mask>."],
    padding=True,
    return_tensors="np",
)
inputs = {name: values.astype(np.int32) for name, values in inputs.items()}

with tempfile.TemporaryDirectory() as folder:
    model = TFXLMRobertaForMaskedLM.from_pretrained("xlmr-mini")
    model.export(Path(folder, "fill_mask"), verbose=False)
    served = tf.saved_model.load(Path(folder, "fill_mask"))
    logits = served.serve(inputs)["logits"]
    # Logits lie near -90, where float32 has five digits behind the point at best: so a relative bound beside the
    # absolute.
    np.testing.assert_allclose(logits, model(inputs).logits, rtol=1e-5, atol=1e-4)
    for row, column in np.argwhere(inputs["input_ids"] == tokenizer.mask_token_id):
        print(tokenizer.decode(int(logits[row, column].numpy().argmax())))

    encoder = TFXLMRobertaModel.from_pretrained("xlmr-mini", add_pooling_layer=False)
    encoder.export(Path(folder, "encoder.tflite"), format="litert", verbose=False)
    runner = tf.lite.Interpreter(model_path=str(Path(folder, "encoder.tflite"))).get_signature_runner()
    lite = runner(**inputs)["last_hidden_state"]
    real = inputs["attention_mask"].astype(bool)
    difference = np.abs(lite - encoder(inputs).last_hidden_state.numpy())[real].max()
    print(
        f"LiteRT: {Path(folder, 'encoder.tflite').stat().st_size / 2**20:.0f} MiB, largest difference {difference:.1e}"
    )
    assert difference < 1e-4
