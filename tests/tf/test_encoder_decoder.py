"""The encoder-decoder in Keras: files, Keras's own files, fit, generating. That it computes what the reference does
stands in tests/parity.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

import keras  # noqa: E402

import xlmr_tf  # noqa: E402
from tests.choice import chosen  # noqa: E402
from tests.core.small_models import FAMILIES, SMALL, save  # noqa: E402
from tests.core.test_encoder_decoder import HEAD, IDS, LABELS, MASK, PAIRS, SHIFTED, config_of  # noqa: E402
from xlmr_core.conversion import convert  # noqa: E402
from xlmr_core.errors import ConfigError, InputError, LoadWarning  # noqa: E402
from xlmr_core.parameters import num_parameters, parameters  # noqa: E402
from xlmr_core.verification import compare  # noqa: E402
from xlmr_tf import TFAutoModelForSeq2SeqLM, TFEncoderDecoderModel  # noqa: E402

# The encoder's pooler is published, and nothing reads it.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Gradients do not exist for variables:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of Keras, which saves
]
TEXTS = {"input_ids": IDS, "attention_mask": MASK}


def built(pair: str = "base", **changes: Any) -> TFEncoderDecoderModel:
    encoder, decoder, own = PAIRS[pair]
    keras.utils.set_random_seed(0)
    return TFEncoderDecoderModel(config_of(encoder, decoder, **own, **changes))


def logits(model: Any) -> np.ndarray:
    found: np.ndarray = model(**TEXTS, labels=LABELS).logits.numpy()
    return found


@pytest.mark.parametrize("pair", ["base with xl, of another width", "one for both"])
def test_it_is_saved_and_loaded_in_all_forms(pair: str, tmp_path: Path) -> None:
    model = built(pair)
    rows = parameters(model.config, HEAD)
    assert set(model.parameter_table()) == set(rows)
    assert model.num_parameters() == num_parameters(model.config, HEAD)
    for name, row in rows.items():
        if row.tied_to is not None:
            assert model.get_parameter(name) is model.get_parameter(row.tied_to)
    model.save_pretrained(tmp_path / "own")
    loaded, info = TFAutoModelForSeq2SeqLM.from_pretrained(tmp_path / "own", output_loading_info=True)
    assert type(loaded) is TFEncoderDecoderModel
    assert info["report"].message == ""
    assert loaded.config.architectures == [HEAD]
    expected = logits(model)
    assert np.array_equal(logits(loaded), expected)
    # Keras's own weights, and those that the core writes for Keras.
    model.save_weights(tmp_path / "model.weights.h5")
    convert(tmp_path / "own", tmp_path / "keras", "keras", verify=True)
    other = TFEncoderDecoderModel(model.config.copy())
    for path in (tmp_path / "model.weights.h5", tmp_path / "keras" / "model.weights.h5"):
        other.load_weights(path)
        assert np.array_equal(logits(other), expected)
    model.save(tmp_path / "whole.keras")
    whole = keras.saving.load_model(tmp_path / "whole.keras")
    assert np.array_equal(logits(whole), expected)
    assert whole.config == model.config
    assert compare(tmp_path / "whole.keras", tmp_path / "own").equal


def test_two_checkpoints_become_one(tmp_path: Path) -> None:
    folders = {}
    for family in FAMILIES:
        config = FAMILIES[family](**SMALL, architectures=[f"XLMRoberta{'XL' * (family == 'xl')}ForMaskedLM"])
        folders[family] = tmp_path / family
        save(folders[family], config, "ForMaskedLM")
    with pytest.warns(LoadWarning, match="crossattention"):
        model = TFEncoderDecoderModel.from_encoder_decoder_pretrained(
            folders["base"], folders["xl"], encoder_add_pooling_layer=False, decoder_start_token_id=0
        )
    plain = xlmr_tf.TFAutoModelForMaskedLM.from_pretrained(folders["xl"])
    name = "roberta.encoder.layer.1.output.dense.weight"
    assert np.array_equal(model.get_values(f"decoder.{name}"), plain.get_values(name))
    assert model.config.decoder.add_cross_attention
    assert logits(model).shape == (2, 4, 125)
    with pytest.raises(InputError, match="received no encoder"):
        TFEncoderDecoderModel.from_encoder_decoder_pretrained(None, folders["xl"])
    with pytest.raises(ConfigError, match="expects an EncoderDecoderConfig, received an XLMRobertaConfig"):
        TFAutoModelForSeq2SeqLM.from_pretrained(folders["base"])


def test_it_learns_by_fit_and_writes_what_it_learnt() -> None:
    model = built("base with xl, of another width", layers=1)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    model.compile(keras.optimizers.Adam(1e-2))
    data = tf.data.Dataset.from_tensors(({**TEXTS}, LABELS)).repeat(40)
    losses = model.fit(data, epochs=2, verbose=0, shuffle=False).history["loss"]
    # Labels among the inputs are the same.
    inside = model.evaluate(tf.data.Dataset.from_tensors({**TEXTS, "labels": LABELS}), verbose=0)
    assert inside < 0.3 * losses[0]
    calls = []
    call = model.encoder.call
    model.encoder.call = lambda *args, **kwargs: calls.append(1) or call(*args, **kwargs)
    asked: list[dict[str, Any]] = chosen([{}, {"num_beams": 2}], [{"num_beams": 2}])
    for options in asked:
        found = model.generate(**TEXTS, max_new_tokens=4, eos_token_id=2, **options).numpy()
        assert found[0, :4].tolist() == [0, 9, 10, 2]
        assert found[1, :3].tolist() == [0, 11, 2]
    assert len(calls) == len(asked)


def test_padding_is_seen_without_a_mask_and_texts_are_checked() -> None:
    model = built()
    bare = {"input_ids": np.where(MASK == 1, IDS, 1)}
    asked = {"max_new_tokens": 3, "return_dict_in_generate": True, "output_logits": True}
    found, expected = (model.generate(**texts, **asked) for texts in (bare, {**TEXTS, **bare}))
    assert (MASK == 0).any() and np.array_equal(found.sequences, expected.sequences)
    assert np.allclose(found.logits[0], expected.logits[0])
    for texts in ({"attention_mask": 0 * MASK}, {"input_ids": np.ones_like(IDS)}):
        with pytest.raises(InputError, match="in the encoder: .*expected a token in every row"):
            model.generate(**{**bare, **texts})
    with pytest.raises(InputError, match=r"must have the shape \(2, 5\), received \(2, 3\)"):
        model.generate(**bare, attention_mask=MASK[:, :3])
    with pytest.raises(InputError, match="input_ids must be a tf.Tensor, received"):
        model.generate(IDS.tolist())
    with pytest.raises(InputError, match="generation_config must be a GenerationConfig, received a dict"):
        model.generation_config = {"num_beams": 2}


def test_programs_are_shared_while_texts_grow() -> None:
    model = built()
    model.generate(**TEXTS, max_new_tokens=3)
    count = model.decoder.generation_programs.traced
    for length in (3, 6, 7):
        ids = np.full((2, length), 9)
        model.generate(input_ids=ids, attention_mask=np.ones_like(ids), max_new_tokens=3)
    assert model.decoder.generation_programs.traced == count


def test_a_call_in_a_graph_and_what_is_refused() -> None:
    model = built()
    expected = model(**TEXTS, labels=LABELS, sample_weight=np.array([1.0, 0.0], np.float32)).loss
    graph = tf.function(lambda ids, mask, labels: model(input_ids=ids, attention_mask=mask, labels=labels))
    found = graph(*map(tf.constant, (IDS, MASK, LABELS)))
    assert np.allclose(found["logits"].numpy(), logits(model), atol=1e-5)
    first = model(input_ids=IDS[:1], attention_mask=MASK[:1], labels=LABELS[:1]).loss
    counted = (LABELS != -100).sum(1)
    assert np.allclose(expected.numpy(), first.numpy() * counted[0] / counted.sum(), atol=1e-5)
    assert model.prepare_decoder_input_ids_from_labels(LABELS).numpy().tolist() == SHIFTED.tolist()
    with pytest.raises(InputError, match="expected decoder_input_ids, decoder_inputs_embeds or labels"):
        model(**TEXTS)
    with pytest.raises(InputError, match="in the decoder: "):
        model(**TEXTS, decoder_input_ids=np.array([[200], [3]]))
    with pytest.raises(InputError, match=r"model\.decoder\.resize_token_embeddings"):
        model.resize_token_embeddings(130)
    model.config.decoder_start_token_id = None
    with pytest.raises(ConfigError, match="decoder_start_token_id, expected an id, received None"):
        model(**TEXTS, labels=LABELS)
