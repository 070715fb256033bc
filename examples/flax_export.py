"""One file of StableHLO that answers batches of any size and needs JAX alone: ``jax.export`` and back."""

from __future__ import annotations

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from xlmr_flax import AutoTokenizer, FlaxAutoModel

LENGTH = 32
tokenizer = AutoTokenizer.from_pretrained("xlmr-mini")
model = FlaxAutoModel.from_pretrained("xlmr-mini", add_pooling_layer=False)


def states(params, input_ids, attention_mask):
    return model(input_ids=input_ids, attention_mask=attention_mask, params=params).last_hidden_state


# The batch size is left open, the length is not. ``params`` is an argument, so the file holds no weights.
integers = jax.ShapeDtypeStruct((*export.symbolic_shape("batch"), LENGTH), jnp.int32)
exported = export.export(jax.jit(states))(model.params_shape_tree, integers, integers)

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "encoder.stablehlo")
    path.write_bytes(exported.serialize())
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")
    restored = export.deserialize(path.read_bytes())

for texts in (["Hello"], ["Guten Morgen", "Elle boit un café.", "Hoy hace mucho viento."]):
    batch = tokenizer(texts, padding="max_length", max_length=LENGTH, return_tensors="np")
    batch = {name: x.astype(np.int32) for name, x in batch.items()}
    found = restored.call(model.params, batch["input_ids"], batch["attention_mask"])
    expected = model(**batch).last_hidden_state
    real = batch["attention_mask"] == 1
    print(f"{len(texts)} texts: {found.shape}, at most {np.abs(found - expected)[real].max():.1e} off")
    assert np.allclose(found[real], expected[real], atol=1e-4)
