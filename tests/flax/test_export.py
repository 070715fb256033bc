"""A model as one file of StableHLO, with sizes left open, that needs nothing of this library to run."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs the extra flax: pip install 'xlmr[flax]'")

import jax.numpy as jnp  # noqa: E402
from jax import export  # noqa: E402

from tests.flax import models  # noqa: E402


def exported(model, sizes, constraints=()):
    """The forward as a function of parameters, ids and mask."""
    shape = export.symbolic_shape(sizes, constraints=constraints)
    integers = jax.ShapeDtypeStruct(shape, jnp.int32)

    @jax.jit
    def forward(params, input_ids, attention_mask):
        return model(input_ids=input_ids, attention_mask=attention_mask, params=params)

    return export.export(forward)(model.params_shape_tree, integers, integers)


@pytest.mark.parametrize(
    ("family", "head", "sizes", "constraints", "lengths"),
    [
        ("XLMRoberta", "ForSequenceClassification", "batch, 12", (), [(12, 5), (7,), (3, 12, 1, 4, 9)]),
        ("XLMRobertaXL", "ForMaskedLM", "batch, length", ("length <= 78",), [(12, 5), (30,), (3, 2, 1)]),
    ],
)
def test_any_batch_runs_in_what_was_exported_once(family, head, sizes, constraints, lengths):
    model = models.model(head, family)
    blob = exported(model, sizes, constraints).serialize()
    restored = export.deserialize(blob)
    model.set_packing("never")
    for texts in lengths:
        given = {k: x.astype(np.int32) for k, x in models.batch(texts, columns=12 if "12" in sizes else None).items()}
        output = restored.call(model.params, given["input_ids"], given["attention_mask"])
        wanted = model(**given)
        assert type(output) is type(wanted) and set(output) == set(wanted)
        np.testing.assert_allclose(output.logits, wanted.logits, atol=1e-5)


def test_what_was_exported_needs_jax_alone(tmp_path):
    """But for the output's type: a function that returns an array needs none."""
    model = models.model("ForSequenceClassification")
    integers = jax.ShapeDtypeStruct((*export.symbolic_shape("batch"), 12), jnp.int32)
    params = model.params  # constants of the program

    def forward(input_ids, attention_mask):
        return model(input_ids=input_ids, attention_mask=attention_mask, params=params).logits

    (tmp_path / "model.stablehlo").write_bytes(export.export(jax.jit(forward))(integers, integers).serialize())
    given = {name: x.astype(np.int32) for name, x in models.batch((12, 5)).items()}
    np.savez(tmp_path / "batch.npz", **given, wanted=model(**given).logits)
    code = """
import sys
import jax.export, numpy as np
batch = np.load("batch.npz")
model = jax.export.deserialize(open("model.stablehlo", "rb").read())
np.testing.assert_allclose(model.call(batch["input_ids"], batch["attention_mask"]), batch["wanted"], atol=1e-5)
assert not {"flax", "xlmr_flax", "xlmr_core"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
