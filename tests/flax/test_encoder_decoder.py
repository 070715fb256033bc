"""The encoder-decoder in Flax: files, pure functions, encode and decode, generating. That it computes what the
reference does stands in tests/parity.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import xlmr_flax  # noqa: E402
from tests.core.small_models import FAMILIES, SMALL, save  # noqa: E402
from tests.core.test_encoder_decoder import HEAD, IDS, LABELS, MASK, PAIRS, SHIFTED, config_of  # noqa: E402
from xlmr_core.errors import ConfigError, InputError, LoadWarning  # noqa: E402
from xlmr_core.parameters import num_parameters, parameters  # noqa: E402
from xlmr_core.verification import compare  # noqa: E402
from xlmr_flax import FlaxAutoModelForSeq2SeqLM, FlaxEncoderDecoderModel  # noqa: E402
from xlmr_flax.functional import flatten  # noqa: E402

TEXTS = {"input_ids": IDS, "attention_mask": MASK}
TOKENS = np.maximum(SHIFTED, 2)


def built(pair: str = "base", **changes: Any) -> FlaxEncoderDecoderModel:
    encoder, decoder, own = PAIRS[pair]
    return FlaxEncoderDecoderModel(config_of(encoder, decoder, **own, **changes))


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("pair", ["base with xl, of another width", "one for both"])
def test_it_is_saved_and_loaded(pair: str, safe: bool, tmp_path: Path) -> None:
    model = built(pair)
    assert set(model.parameter_table()) == set(parameters(model.config, HEAD))
    assert model.num_parameters() == num_parameters(model.config, HEAD)
    model.save_pretrained(tmp_path / "own", safe_serialization=safe)
    loaded, info = FlaxAutoModelForSeq2SeqLM.from_pretrained(tmp_path / "own", output_loading_info=True)
    assert type(loaded) is FlaxEncoderDecoderModel
    assert info["report"].message == ""
    one, other = flatten(model.params), flatten(loaded.params)
    assert set(one) == set(other)
    assert all(np.array_equal(one[path], other[path]) for path in one)
    assert compare(tmp_path / "own", tmp_path / "own").equal
    apart, params = FlaxEncoderDecoderModel.from_pretrained(tmp_path / "own", _do_init=False)
    with pytest.raises(InputError, match="holds no parameters"):
        apart(**TEXTS, decoder_input_ids=TOKENS)
    assert apart(**TEXTS, decoder_input_ids=TOKENS, params=params).logits.shape == (2, 4, 125)


def test_two_checkpoints_become_one(tmp_path: Path) -> None:
    folders = {}
    for family in FAMILIES:
        config = FAMILIES[family](**SMALL, architectures=[f"XLMRoberta{'XL' * (family == 'xl')}ForMaskedLM"])
        folders[family] = tmp_path / family
        save(folders[family], config, "ForMaskedLM")
    with pytest.warns(LoadWarning, match="crossattention"):
        model = FlaxEncoderDecoderModel.from_encoder_decoder_pretrained(
            folders["base"], folders["xl"], encoder_add_pooling_layer=False, decoder_start_token_id=0
        )
    plain = flatten(xlmr_flax.FlaxAutoModelForMaskedLM.from_pretrained(folders["xl"]).params)
    own = flatten(model.params["decoder"])
    assert all(np.array_equal(own[path], x) for path, x in plain.items())
    assert model(**TEXTS, labels=LABELS).logits.shape == (2, 4, 125)
    with pytest.raises(InputError, match="received no encoder"):
        FlaxEncoderDecoderModel.from_encoder_decoder_pretrained(None, folders["xl"])
    with pytest.raises(ConfigError, match="expects an EncoderDecoderConfig, received an XLMRobertaConfig"):
        FlaxAutoModelForSeq2SeqLM.from_pretrained(folders["base"])


@pytest.mark.filterwarnings("ignore::xlmr_core.errors.LoadWarning")
def test_two_of_one_checkpoint_share_what_both_have(tmp_path: Path) -> None:
    save(tmp_path, FAMILIES["base"](**SMALL, architectures=["XLMRobertaForMaskedLM"]), "ForMaskedLM")
    model = FlaxEncoderDecoderModel.from_encoder_decoder_pretrained(tmp_path, tmp_path, tie_encoder_decoder=True)
    assert model.num_parameters() == num_parameters(model.config, HEAD)
    assert set(model.params["encoder"]) == {"pooler"}


def test_encoding_and_decoding_apart_give_the_call() -> None:
    model = built("base with xl, of another width")
    whole = model(**TEXTS, decoder_input_ids=TOKENS)
    encoded = model.encode(IDS, MASK)
    apart = model.decode(TOKENS, encoded, MASK)
    assert np.allclose(apart.logits, whole.logits, atol=1e-6)
    found = []
    past = model.init_cache(2, 8, encoded)
    for column in range(TOKENS.shape[1]):
        step = model.decode(TOKENS[:, column : column + 1], encoded, MASK, past_key_values=past)
        past = step.past_key_values
        found.append(step.logits)
    assert np.allclose(np.concatenate(found, 1), whole.logits, atol=1e-5)
    assert isinstance(model.decode(TOKENS, (encoded.last_hidden_state,), MASK, return_dict=False), tuple)


def test_it_learns_and_writes_what_it_learnt() -> None:
    import optax

    model = built("base with xl, of another width", layers=1)
    optimizer = optax.adam(1e-2)
    params = model.params
    state = optimizer.init(params)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        value, gradients = jax.value_and_grad(lambda params: model(**TEXTS, labels=LABELS, params=params).loss)(params)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), state, value

    losses = []
    for _ in range(40):
        params, state, value = step(params, state)
        losses.append(float(value))
    assert losses[-1] < 0.3 * losses[0]
    for longer in (0, 1, 3):  # padded or not, the same
        more = ((0, 0), (0, longer))
        texts = {"input_ids": np.pad(IDS, more, constant_values=1), "attention_mask": np.pad(MASK, more)}
        found = model.generate(**texts, params=params, max_new_tokens=4, eos_token_id=2).sequences
        assert found[0, :4].tolist() == [0, 9, 10, 2]
        assert found[1, :3].tolist() == [0, 11, 2]
    dropped = model(**TEXTS, labels=LABELS, train=True, dropout_rng=jax.random.key(1)).loss
    assert float(dropped) != float(model(**TEXTS, labels=LABELS).loss)


def test_padding_is_seen_without_a_mask_and_texts_are_checked() -> None:
    model = built()
    bare = {"input_ids": np.where(MASK == 1, IDS, 1)}
    asked = {"max_new_tokens": 3, "return_dict_in_generate": True, "output_logits": True}
    found, expected = (model.generate(**texts, **asked) for texts in (bare, {**TEXTS, **bare}))
    assert (MASK == 0).any() and np.array_equal(found.sequences, expected.sequences)
    assert np.allclose(found.logits[0], expected.logits[0])
    in_program = jax.jit(lambda ids: model.generate(ids, max_new_tokens=3).sequences)(bare["input_ids"])
    assert in_program.tolist() == model.generate(**bare, max_new_tokens=3).sequences.tolist()
    for texts in ({"attention_mask": 0 * MASK}, {"input_ids": np.ones_like(IDS)}):
        with pytest.raises(InputError, match="in the encoder: .*expected a token in every row"):
            model.generate(**{**bare, **texts})
    with pytest.raises(InputError, match=r"must have the shape \(2, 5\), received \(2, 3\)"):
        model.generate(**bare, attention_mask=MASK[:, :3])
    with pytest.raises(InputError, match=r"with a token at least, received \(2, 0\)"):
        model.generate(IDS[:, :0])
    with pytest.raises(InputError, match="input_ids must be an array of JAX or NumPy, received"):
        model.generate(IDS.tolist())
    with pytest.raises(InputError, match="generation_config must be a GenerationConfig, received a dict"):
        model.generation_config = {"num_beams": 2}


def test_what_is_refused() -> None:
    model = built()
    assert model.prepare_decoder_input_ids_from_labels(LABELS).tolist() == SHIFTED.tolist()
    with pytest.raises(InputError, match="expected decoder_input_ids, decoder_inputs_embeds or labels"):
        model(**TEXTS)
    with pytest.raises(InputError, match="in the decoder: "):
        model(**TEXTS, decoder_input_ids=np.array([[200], [3]]))
    with pytest.raises(InputError, match=r"model\.decoder\.resize_token_embeddings"):
        model.resize_token_embeddings(130)
    model.config.decoder_start_token_id = None
    with pytest.raises(ConfigError, match="decoder_start_token_id, expected an id, received None"):
        model(**TEXTS, labels=LABELS)
