"""Compiled as a whole, as users run them, models give the reference's numbers; the parity tests run operation by
operation.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs the extra flax: pip install 'xlmr[flax]'")

from tests.choice import chosen  # noqa: E402
from tests.flax import models  # noqa: E402
from xlmr_core import reference  # noqa: E402
from xlmr_flax.functional import to_canonical  # noqa: E402
from xlmr_flax.packing import Packing  # noqa: E402

CASES = [(family, head) for family in models.FAMILIES for head in models.HEADS[1:]]


def expected(model, given):
    rows = model.parameter_table()
    found = {name: np.asarray(x, np.float64) for name, x in to_canonical(rows, model.params).items()}
    tied = {name: found[row.tied_to] for name, row in rows.items() if row.tied_to is not None}
    return reference.forward(model.config, model._task_head.suffix, {**found, **tied}, **given)


@pytest.mark.parametrize(("family", "head"), CASES)
def test_the_parts_that_are_compiled_equal_the_reference(family, head):
    model = models.model(head, family)
    given = models.labelled(head, models.batch())
    output, wanted = model(**given), expected(model, given)
    assert set(output) == set(wanted) - {"hidden_states", "attentions"}
    np.testing.assert_allclose(output.loss, wanted.loss, atol=2e-5)
    where = given["attention_mask"] == 1 if head in ("ForMaskedLM", "ForCausalLM", "ForTokenClassification") else ...
    logits = "start_logits" if head == "ForQuestionAnswering" else "logits"
    np.testing.assert_allclose(output[logits][where], wanted[logits][where], atol=2e-5)


WAYS = [(family, packed) for family in models.FAMILIES for packed in (False, True)]


@pytest.mark.parametrize(("family", "packed"), chosen(WAYS, [WAYS[0], WAYS[3]]))
def test_inside_jit_it_is_the_same_function(family, packed):
    """Of parameters, batch and packing, with gradients."""
    model = models.model("ForMaskedLM", family, num_hidden_layers=1)
    given = models.labelled("ForMaskedLM", models.batch())
    packing = Packing.from_mask(given["attention_mask"]) if packed else None

    def loss(params, batch, packing):
        return model(**batch, params=params, packing=packing).loss

    value, gradients = jax.jit(jax.value_and_grad(loss))(model.params, given, packing)
    np.testing.assert_allclose(value, expected(model, given).loss, atol=2e-5)
    model.set_packing("never")
    _, wanted = jax.value_and_grad(partial(loss, packing=None))(model.params, given)
    jax.tree.map(partial(np.testing.assert_allclose, atol=2e-5), gradients, wanted)


def test_a_stream_of_natural_lengths_compiles_a_handful_of_programs():
    """Two hundred batches of 32 texts with lognormal lengths, none like another."""
    from xlmr_flax.functional import _compiled

    rng = np.random.default_rng(0)
    shapes, paddings = set(), set()
    for _ in range(200):
        lengths = np.exp(rng.normal(np.log(24), 0.98, 32)).clip(5, 256).astype(int)
        paddings.add(lengths.max())
        mask = np.arange(lengths.max()) < lengths[:, None]
        shapes.add(Packing.from_mask(mask).source_RW.shape)
    assert len(paddings) > 60
    assert len(shapes) <= 8, sorted(shapes)

    model = models.model("ForSequenceClassification")
    before = _compiled._cache_size()
    for seed in range(30):
        lengths = np.random.default_rng(seed).integers(2, 40, 16)
        model(**models.batch(tuple(lengths), seed))
    assert _compiled._cache_size() - before <= 6  # of the encoder by number of rows, and one of the head


def test_short_texts_one_by_one_compile_a_handful_of_programs():
    from xlmr_flax.functional import _compiled

    model = models.model("ForSequenceClassification")
    before = _compiled._cache_size()
    for length in range(1, 60):
        model(**models.batch((length,)))
    assert _compiled._cache_size() - before <= 4
