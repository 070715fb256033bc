"""The encoder-decoder of every backend, against the reference: outputs, losses, gradients, greedy generation."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.choice import EVERYTHING
from tests.parity import tolerances
from tests.parity.adapters import TESTED, Mode, adapter, modes
from tests.parity.compare import difference, flatten
from xlmr_core import reference
from xlmr_core.config import EncoderDecoderConfig, XLMRobertaConfig, XLMRobertaXLConfig
from xlmr_core.parameters import parameters

HEAD = "EncoderDecoderModel"
SIZES: dict[str, Any] = {
    "vocab_size": 43,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 34,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-5,
    "initializer_range": 0.3,
}
BASE, XL = XLMRobertaConfig, XLMRobertaXLConfig
# Encoder, decoder, values of the decoder, and of both.
PAIRS: dict[str, tuple[type[Any], type[Any], dict[str, Any], dict[str, Any]]] = {
    "base": (BASE, BASE, {}, {}),
    "xl-to-base": (XL, BASE, {"hidden_size": 24, "vocab_size": 37, "num_hidden_layers": 1}, {"pad_token_id": 5}),
    "base-to-xl": (BASE, XL, {"hidden_size": 24, "tie_word_embeddings": False}, {}),
    "one-for-both": (BASE, BASE, {}, {"tie_encoder_decoder": True}),
    "one-for-both-xl": (XL, XL, {"position_embedding_type": "relative_key"}, {"tie_encoder_decoder": True}),
}
# Where building and compiling takes its time, the pairs that have most in them.
FEW = list(PAIRS) if TESTED == "torch" or EVERYTHING else ["base-to-xl", "one-for-both-xl"]
IDS = np.array([[0, 5, 6, 7, 9, 2], [0, 8, 11, 2, 1, 1], [0, 2, 1, 1, 1, 1]], np.int32)
MASK = (IDS != 1).astype(np.int32)
LABELS = np.array([[9, 10, 14, 2], [11, -100, 12, 2], [11, 2, -100, -100]], np.int32)

Array = NDArray[Any]


@cache
def made(name: str) -> tuple[EncoderDecoderConfig, dict[str, Array]]:
    """A configuration and random parameters by all of their names."""
    encoder, decoder, of_decoder, of_both = PAIRS[name]
    of_encoder = {key: of_decoder[key] for key in ("position_embedding_type",) if key in of_decoder}
    config = EncoderDecoderConfig.from_encoder_decoder_configs(
        encoder(**{**SIZES, **of_encoder}), decoder(**{**SIZES, **of_decoder}), decoder_start_token_id=0, **of_both
    )
    rng = np.random.default_rng(len(name))
    rows = parameters(config, HEAD)
    drawn = {
        key: (rng.standard_normal(row.shape) * 0.3).astype(np.float32).astype(np.float64)
        for key, row in rows.items()
        if row.tied_to is None
    }
    return config, {key: drawn[row.tied_to or key] for key, row in rows.items()}


def inputs_of(name: str) -> dict[str, Array]:
    if name == "base":  # what the decoder reads is given, and padded on the left in a row
        ids = np.array([[0, 9, 10, 14], [1, 0, 11, 12], [0, 11, 2, 7]], np.int32)
        mask = (ids != 1).astype(np.int32)
        return {
            "input_ids": IDS,
            "attention_mask": MASK,
            "decoder_input_ids": ids,
            "decoder_attention_mask": mask,
            "labels": LABELS,
        }
    return {"input_ids": IDS, "attention_mask": MASK, "labels": LABELS}


@pytest.mark.parametrize("mode", modes())
@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equals_reference(name: str, dtype: str, mode: Mode) -> None:
    if dtype not in mode.dtypes:
        pytest.skip("this way is not compared in this dtype")
    config, params = made(name)
    inputs = inputs_of(name)
    expected = flatten(reference.forward(config, HEAD, params, **inputs))
    if mode.kernel != "eager":
        expected = {key: x for key, x in expected.items() if "attentions" not in key}
    actual = adapter(mode).build(config, HEAD, params, mode, dtype).forward(inputs)
    tolerance = tolerances.FLOAT64 if dtype == "float64" else tolerances.FLOAT32
    for key, x in expected.items():
        found, wanted = actual[key], x
        packs = mode.packed and config.encoder.position_embedding_type == "absolute"
        if packs and key.startswith(("encoder_last", "encoder_hidden")):
            assert not found[MASK == 0].any(), "packing promises zeros where the mask is 0"
            found, wanted = found[MASK == 1], x[MASK == 1]
        assert found.shape == wanted.shape, key
        assert difference(found, wanted) <= tolerance, key


# Of each, the loss is followed in a random direction.
FOLLOWED = (
    *("encoder.embeddings.word_embeddings.weight", "encoder.encoder.layer.1.attention.self.key.weight"),
    *("decoder.roberta.encoder.layer.0.crossattention.self.value.weight", "decoder.lm_head.dense.bias"),
    *("decoder.roberta.embeddings.word_embeddings.weight", "enc_to_dec_proj.weight"),
)


@pytest.mark.parametrize("mode", modes(dtype="float64")[:1])
@pytest.mark.parametrize("name", FEW)
def test_gradients_are_those_of_the_reference(name: str, mode: Mode) -> None:
    config, params = made(name)
    inputs = inputs_of(name)
    gradients = adapter(mode).build(config, HEAD, params, mode, "float64").gradients(inputs)
    rows = parameters(config, HEAD)
    assert set(gradients) == {key for key, row in rows.items() if row.tied_to is None} or set(gradients) == set(
        first_names(config)
    )
    rng = np.random.default_rng(1)
    # Under the first name of a tensor, or under that which a checkpoint stores.
    found = {
        key: gradients.get(first, gradients.get(rows[key].tied_to or key)) for key, first in first_of(config).items()
    }
    for key in FOLLOWED:
        if key not in rows:
            continue
        direction = rng.standard_normal(rows[key].shape)
        if "word_embeddings" in key:
            direction[1] = 0  # looking padding up gives its row no gradient, as published
        shared = rows[key].tied_to or key
        together = [other for other, row in rows.items() if (row.tied_to or other) == shared]

        def loss(step: float, names: list[str] = together, towards: Array = direction) -> float:
            moved = {**params, **{other: params[other] + step * towards for other in names}}
            return float(reference.forward(config, HEAD, moved, **inputs)["loss"])

        expected = (loss(1e-4) - loss(-1e-4)) / 2e-4
        gradient = found[key]
        assert gradient is not None, key
        assert abs(float((gradient * direction).sum()) - expected) <= 1e-5 * max(1.0, abs(expected)), key


def first_of(config: EncoderDecoderConfig) -> dict[str, str]:
    """For every name the first one of the tensor that it has."""
    firsts: dict[str, str] = {}
    rows = parameters(config, HEAD)
    return {key: firsts.setdefault(row.tied_to or key, key) for key, row in rows.items()}


def first_names(config: EncoderDecoderConfig) -> list[str]:
    return list(dict.fromkeys(first_of(config).values()))


@pytest.mark.parametrize("mode", modes(packed=False, dtype="float32")[:1] or modes(dtype="float32")[:1])
@pytest.mark.parametrize("name", ["xl-to-base", "one-for-both"] if TESTED == "torch" else ["xl-to-base"])
def test_generates_what_the_reference_does(name: str, mode: Mode) -> None:
    """Token by token, with the encoder run once and a cache, against whole passes of the reference."""
    config, params = made(name)
    ids = np.zeros((len(IDS), 1), np.int64)
    for _ in range(6):
        given = {"input_ids": IDS, "attention_mask": MASK, "decoder_input_ids": ids}
        logits = reference.forward(config, HEAD, params, **given)["logits"][:, -1]
        ids = np.concatenate([ids, logits.argmax(-1)[:, None]], axis=1)
    model = adapter(mode).build(config, HEAD, params, mode, "float32")
    options = {"max_new_tokens": 6, "eos_token_id": None}
    found = model.generate({"input_ids": IDS, "attention_mask": MASK}, options)
    assert np.array_equal(found["sequences"], ids)
