"""Packed rows: where tokens go, when a batch is packed, and that the answer stays the same."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs the extra flax: pip install 'xlmr[flax]'")

import jax.numpy as jnp  # noqa: E402

from tests.choice import chosen, in_turn  # noqa: E402
from tests.flax import models  # noqa: E402
from tests.parity.compare import fill_of  # noqa: E402
from xlmr_core.errors import InputError  # noqa: E402
from xlmr_core.packing import Needs  # noqa: E402
from xlmr_flax import encoder  # noqa: E402
from xlmr_flax.packing import Packing, bucket, choose_packing  # noqa: E402
from xlmr_flax.plan import Plan  # noqa: E402

MASK = np.array([[1, 1, 0, 0], [0, 1, 1, 1], [1, 0, 0, 1]])


def test_packing_of_a_literal_mask():
    packing = Packing.from_mask(MASK, length=5)
    # The longest text first, the others behind it where they fit.
    assert packing.source_RW.tolist() == [[5, 6, 7, 0, 1], [8, 11, -1, -1, -1]]
    assert packing.segments_RW.tolist() == [[1, 1, 1, 2, 2], [1, 1, 0, 0, 0]]
    assert packing.slots_BS.tolist() == [[3, 4, -1, -1], [-1, 0, 1, 2], [5, -1, -1, 6]]


def test_pack_and_unpack_literal_values():
    packing = Packing.from_mask(MASK, length=5)
    x = np.arange(12).reshape(3, 4) + 10
    packed = packing.pack(x, fill=-100)
    assert isinstance(packed, np.ndarray)
    assert packed.tolist() == [[15, 16, 17, 10, 11], [18, 21, -100, -100, -100]]
    assert packing.unpack(jnp.asarray(packed)).tolist() == [[10, 11, 0, 0], [0, 15, 16, 17], [18, 0, 0, 21]]
    assert packing.first_tokens(jnp.asarray(packed)).tolist() == [10, 0, 18]
    assert packing.locate(np.array([5, 11])).tolist() == [0, 6]
    traced = jax.jit(lambda packing, x: packing.pack(x, fill=-100))(packing, x)
    assert traced.tolist() == packed.tolist()


def test_rows_can_be_fixed():
    assert Packing.from_mask(MASK, rows=4, length=8).source_RW.shape == (4, 8)
    with pytest.raises(InputError, match="need 2 rows of at least 3 tokens, received 1 rows of 5"):
        Packing.from_mask(MASK, rows=1, length=5)
    with pytest.raises(InputError, match="at least 3 tokens, received 9 rows of 2"):
        Packing.from_mask(MASK, rows=9, length=2)


def test_numbers_of_rows_are_few_and_waste_little():
    counts = range(1, 1000)
    assert [bucket(count) for count in (1, 8, 9, 16, 17, 33)] == [1, 8, 9, 16, 18, 36]
    assert all(count <= bucket(count) <= count * 9 / 8 for count in counts)
    assert len({bucket(count) for count in counts}) < 65


@pytest.mark.parametrize(
    ("lengths", "shape"),
    [
        ((3,), (1, 16)),
        ((17,), (1, 32)),
        ((40,), (1, 64)),
        ((70, 30), (2, 96)),
        ((130,) * 8, (8, 160)),  # rows of 256 would be half empty
        ((100,) * 4 + (20,) * 30, (5, 256)),
    ],
)
def test_shape_of_the_rows(lengths, shape):
    assert Packing.from_mask(models.batch(lengths)["attention_mask"]).source_RW.shape == shape


@pytest.mark.parametrize(
    ("mask", "needs", "packs"),
    [
        (MASK, {}, True),
        (MASK, {"first_token": True}, False),
        (MASK[[0, 2]], {"first_token": True}, True),
        (np.array([[1, 1], [0, 0]]), {}, False),
        (MASK, {"positions_BS": MASK == 1}, True),
        (MASK, {"positions_BS": np.ones((3, 4), bool)}, False),
    ],
)
def test_when_a_batch_is_packed(mask, needs, packs):
    for mode, expected in (("auto", packs), ("always", packs), ("never", False)):
        assert (choose_packing(mode, mask, mask, Needs(**needs)) is not None) == expected
    traced = []
    jax.eval_shape(lambda mask: traced.append(choose_packing("always", mask, mask, Needs())), mask)
    assert traced == [None]


@pytest.mark.parametrize(("shape", "auto"), [((2, 10), True), ((8, 100), False)])
def test_when_a_batch_without_padding_is_packed(shape, auto):
    """A small one always: rows of few lengths save programs."""
    ids = np.ones(shape, int)
    assert (choose_packing("auto", None, ids, Needs()) is not None) == auto
    assert (choose_packing("auto", np.ones(shape), ids, Needs()) is not None) == auto
    assert choose_packing("always", None, ids, Needs()) is not None


@pytest.fixture
def packed(monkeypatch):
    """Whether each call since was packed."""
    seen = []
    compiled = encoder.compiled

    def spy(module, method, *arrays):
        if method == "run":
            seen.append(next(x for x in arrays if isinstance(x, Plan)).attention.segments_RW is not None)
        return compiled(module, method, *arrays)

    monkeypatch.setattr(encoder, "compiled", spy)
    return seen


EACH = [(family, head) for family in models.FAMILIES for head in models.HEADS]


@pytest.mark.parametrize(("family", "head"), chosen(EACH, in_turn(list(models.FAMILIES), models.HEADS)))
def test_packed_equals_padded(family, head, packed):
    model = models.model(head, family)
    given = models.batch((10, 6, 3, 9))
    given = given if head in ("Model", "ForQuestionAnswering") else models.labelled(head, given)
    first = model.set_packing("always")(**given, output_hidden_states=True)
    second = model.set_packing("never")(**given, output_hidden_states=True)
    assert packed == [True, False]
    mask = given["attention_mask"].reshape(-1, given["attention_mask"].shape[-1])
    for name in first:
        for one, other in zip(jax.tree.leaves(first[name]), jax.tree.leaves(second[name]), strict=True):
            if one.shape[:2] == mask.shape and one.ndim > 1:
                assert (np.asarray(one)[mask == 0] == fill_of(name)).all()
                one, other = np.asarray(one)[mask == 1], np.asarray(other)[mask == 1]
            np.testing.assert_allclose(one, other, atol=2e-5)


CHANGES = {
    "head mask": ({"head_mask": np.ones(3)}, {}),
    "attentions": ({"output_attentions": True}, {}),
    "mask of three axes": ({"attention_mask": np.tril(np.ones((3, 10, 10), int))}, {}),
    "relative positions": ({}, {"position_embedding_type": "relative_key"}),
    "cross-attention": (
        {"encoder_hidden_states": np.ones((3, 4, 24), np.float32)},
        {"is_decoder": True, "add_cross_attention": True},
    ),
    "label at a masked position": ({"labels": np.ones((3, 10), int)}, {}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_padded_path_where_it_defines_the_answer(change, packed):
    """And a packing that the caller brings is refused where the encoder itself would not have packed."""
    inputs, config = CHANGES[change]
    head = "ForMaskedLM" if "labels" in inputs else "Model"
    model = models.model(head, **config).set_packing("always")
    given = {**models.batch(), **inputs}
    model(**given)
    assert packed == [False]
    if change != "label at a masked position":
        with pytest.raises(InputError, match="packing cannot serve this call"):
            model(**given, packing=Packing.from_mask(models.batch()["attention_mask"]))


def test_a_packing_of_another_batch_is_refused():
    model = models.model("Model")
    with pytest.raises(InputError, match=r"for a batch of shape \(3, 4\), received one of \(3, 10\)"):
        model(**models.batch(), packing=Packing.from_mask(MASK))


@pytest.mark.parametrize("dtype", ["int32", "int8", "bool", "float32"])
def test_dtypes_of_the_mask(dtype, packed):
    model = models.model("Model")
    given = models.batch()
    expected = model(**given).last_hidden_state
    found = model(given["input_ids"], jnp.asarray(given["attention_mask"]).astype(dtype)).last_hidden_state
    np.testing.assert_array_equal(found, expected)
    assert packed == [True, True]


def test_texts_of_a_row_do_not_see_each_other():
    model = models.model("ForCausalLM", is_decoder=True).set_packing("always")
    given = models.batch((10, 6, 3))
    before = model(**given).logits
    changed = {**given, "input_ids": np.where(np.arange(3)[:, None] == 0, 5, given["input_ids"])}
    after = model(**changed).logits
    np.testing.assert_array_equal(before[1:], after[1:])
    assert np.abs(before[0] - after[0]).max() > 0.01
