"""The encoder-decoder in PyTorch: built, loaded, saved, trained, generating. That it computes what the reference does
stands in tests/parity.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import xlmr_torch  # noqa: E402
from tests.core.small_models import FAMILIES, SMALL, save  # noqa: E402
from tests.core.test_encoder_decoder import HEAD, IDS, LABELS, MASK, PAIRS, SHIFTED, config_of  # noqa: E402
from xlmr_core.config import EncoderDecoderConfig  # noqa: E402
from xlmr_core.errors import ConfigError, InputError, LoadWarning  # noqa: E402
from xlmr_core.parameters import num_parameters, parameters  # noqa: E402
from xlmr_core.verification import compare  # noqa: E402
from xlmr_torch import AutoModelForSeq2SeqLM, EncoderDecoderModel  # noqa: E402

TENSORS = {"input_ids": torch.tensor(IDS), "attention_mask": torch.tensor(MASK)}


def built(pair: str = "base", **changes: Any) -> EncoderDecoderModel:
    """A model of fresh values that are not all alike."""
    encoder, decoder, own = PAIRS[pair]
    torch.manual_seed(0)
    return EncoderDecoderModel(config_of(encoder, decoder, **own, **changes)).eval()


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """An encoder and a decoder of XLM-R, saved as they were pretrained."""
    found = {}
    for family in FAMILIES:
        config = FAMILIES[family](**SMALL, architectures=[f"XLMRoberta{'XL' * (family == 'xl')}ForMaskedLM"])
        save(tmp_path / family, config, "ForMaskedLM")
        found[family] = tmp_path / family
    return found


# ---- Building


@pytest.mark.parametrize("pair", PAIRS)
def test_it_has_the_parameters_of_the_table(pair: str) -> None:
    model = built(pair)
    rows = parameters(model.config, HEAD)
    named = dict(model.named_parameters(remove_duplicate=False))
    assert {name: tuple(p.shape) for name, p in named.items()} == {name: row.shape for name, row in rows.items()}
    assert all(named[name] is named[row.tied_to] for name, row in rows.items() if row.tied_to is not None)
    assert model.num_parameters() == num_parameters(model.config, HEAD)
    assert model.config.encoder is model.encoder.config
    assert model.config.decoder is model.decoder.config
    assert model.get_encoder() is model.encoder
    assert model.get_output_embeddings() is model.decoder.lm_head.decoder
    assert set(model.state_dict()) == set(rows)


def test_it_is_built_of_two_models() -> None:
    encoder = xlmr_torch.XLMRobertaModel(FAMILIES["base"](**SMALL))
    decoder = xlmr_torch.XLMRobertaXLForCausalLM(FAMILIES["xl"](**SMALL, is_decoder=True, add_cross_attention=True))
    model = EncoderDecoderModel(encoder=encoder, decoder=decoder)
    assert model.encoder is encoder
    assert model.config.decoder is decoder.config
    with pytest.raises(ConfigError, match="EncoderDecoderConfig, received None"):
        EncoderDecoderModel(encoder=encoder)
    with pytest.raises(ConfigError, match="do not agree in hidden_size: expected 24, received 16"):
        EncoderDecoderModel(config_of("base", "xl", width=24), encoder, decoder)
    with pytest.raises(ConfigError, match="EncoderDecoderConfig, received an XLMRobertaConfig"):
        AutoModelForSeq2SeqLM.from_config(encoder.config)
    made = AutoModelForSeq2SeqLM.from_config(config_of("base", "base"), attn_implementation="eager")
    assert type(made) is EncoderDecoderModel
    assert made.encoder.attn_implementation == made.decoder.attn_implementation == "eager"


# ---- Files


@pytest.mark.parametrize("pair", PAIRS)
def test_it_is_saved_and_loaded(pair: str, tmp_path: Path) -> None:
    model = built(pair)
    model.save_pretrained(tmp_path)
    for kind in (EncoderDecoderModel, AutoModelForSeq2SeqLM):
        loaded, info = kind.from_pretrained(tmp_path, output_loading_info=True)
        assert info["report"].message == ""
        assert loaded.config.architectures == [HEAD]
        assert not loaded.training
        assert loaded.num_parameters() == model.num_parameters()
        expected, found = model.state_dict(), loaded.state_dict()
        assert all(torch.equal(found[name], x) for name, x in expected.items())
    half = EncoderDecoderModel.from_pretrained(tmp_path, dtype="bfloat16")
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    with pytest.raises(ConfigError, match="received 'encoder-decoder'; load it with EncoderDecoderConfig"):
        xlmr_torch.XLMRobertaModel.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="AutoModelForSeq2SeqLM, or the class of its encoder"):
        xlmr_torch.AutoModel.from_pretrained(tmp_path)


def test_a_side_is_loaded_from_it(tmp_path: Path) -> None:
    model = built("base with xl, of another width")
    model.save_pretrained(tmp_path)
    encoder = xlmr_torch.AutoModel.from_pretrained(tmp_path, part="encoder.")
    decoder = xlmr_torch.AutoModelForCausalLM.from_pretrained(tmp_path, part="decoder.")
    assert type(encoder) is xlmr_torch.XLMRobertaModel
    assert type(decoder) is xlmr_torch.XLMRobertaXLForCausalLM
    assert all(torch.equal(x, model.encoder.state_dict()[name]) for name, x in encoder.state_dict().items())
    assert all(torch.equal(x, model.decoder.state_dict()[name]) for name, x in decoder.state_dict().items())


@pytest.mark.parametrize(("encoder", "decoder"), [("base", "base"), ("base", "xl"), ("xl", "base")])
def test_two_checkpoints_become_one(encoder: str, decoder: str, folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.warns(LoadWarning, match="crossattention"):
        model = EncoderDecoderModel.from_encoder_decoder_pretrained(
            folders[encoder],
            folders[decoder],
            encoder_add_pooling_layer=False,
            decoder_hidden_dropout_prob=0.0,
            decoder_start_token_id=0,
        )
    assert not model.training
    assert (model.config.decoder.is_decoder, model.config.decoder.hidden_dropout_prob) == (True, 0.0)
    assert model.config.encoder.hidden_dropout_prob == 0.1
    assert model.config.decoder_start_token_id == 0
    # Both sides are what they were.
    plain = xlmr_torch.AutoModelForMaskedLM.from_pretrained(folders[decoder]).state_dict()
    own = model.decoder.state_dict()
    assert all(torch.equal(own[name], x) for name, x in plain.items())
    model.save_pretrained(tmp_path / "whole")
    with pytest.warns(LoadWarning, match="encoder.pooler.dense.weight"):
        again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "whole")
    with torch.no_grad():
        assert torch.equal(
            again(**TENSORS, labels=torch.tensor(LABELS)).logits, model(**TENSORS, labels=torch.tensor(LABELS)).logits
        )


@pytest.mark.filterwarnings("ignore::xlmr_core.errors.LoadWarning")
def test_two_of_one_checkpoint_share_what_both_have(folders: dict[str, Path], tmp_path: Path) -> None:
    model = EncoderDecoderModel.from_encoder_decoder_pretrained(
        folders["base"], folders["base"], tie_encoder_decoder=True, encoder_attn_implementation="eager"
    )
    assert (
        model.encoder.encoder.layer[1].output.dense.weight is model.decoder.roberta.encoder.layer[1].output.dense.weight
    )
    assert (model.encoder.attn_implementation, model.decoder.attn_implementation) == ("eager", "sdpa")
    model.save_pretrained(tmp_path / "tied")
    again = EncoderDecoderModel.from_pretrained(tmp_path / "tied")
    assert again.encoder.get_input_embeddings().weight is again.decoder.get_input_embeddings().weight
    assert compare(tmp_path / "tied", tmp_path / "tied").equal
    apart = EncoderDecoderModel.from_encoder_decoder_pretrained(folders["base"], folders["base"])
    assert apart.num_parameters() > model.num_parameters()


def test_sides_that_are_not_named_or_do_not_know_an_argument(folders: dict[str, Path]) -> None:
    make = EncoderDecoderModel.from_encoder_decoder_pretrained
    with pytest.raises(InputError, match="received no decoder"):
        make(folders["base"])
    with pytest.raises(TypeError, match="does not know the argument 'hidden_dropout'"):
        make(folders["base"], folders["base"], encoder_hidden_dropout=0.0)
    with pytest.raises(TypeError, match="does not know the argument 'tie_encoder_decodr'; did you mean"):
        make(folders["base"], folders["base"], tie_encoder_decodr=True)


# ---- A call


def test_labels_are_shifted_behind_the_start_token() -> None:
    model = built()
    labels = torch.tensor(LABELS)
    assert model.prepare_decoder_input_ids_from_labels(labels).tolist() == SHIFTED.tolist()
    with torch.no_grad():
        found = model(**TENSORS, labels=labels)
        mask = torch.tensor((SHIFTED != 1).astype(np.int64))
        given = model(**TENSORS, decoder_input_ids=torch.tensor(SHIFTED), decoder_attention_mask=mask, labels=labels)
    assert torch.equal(found.logits, given.logits)
    assert torch.equal(found.loss, given.loss)
    assert labels.tolist() == LABELS.tolist()
    model.config.decoder_start_token_id = None
    with pytest.raises(ConfigError, match="decoder_start_token_id, expected an id, received None"):
        model(**TENSORS, labels=labels)
    with pytest.raises(InputError, match="needs decoder_start_token_id"):
        model.generate(**TENSORS)


def test_what_the_encoder_gave_is_taken_and_a_tuple_comes_back() -> None:
    model = built("xl with base, of another width")
    ids = torch.tensor(SHIFTED).clamp(min=2)
    with torch.no_grad():
        whole = model(**TENSORS, decoder_input_ids=ids, output_hidden_states=True, output_attentions=True)
        encoded = model.encoder(**TENSORS, output_attentions=True)
        for given in (encoded, (encoded.last_hidden_state,), encoded.last_hidden_state):
            again = model(encoder_outputs=given, attention_mask=TENSORS["attention_mask"], decoder_input_ids=ids)
            assert torch.allclose(again.logits, whole.logits, atol=1e-6)
        plain = model(**TENSORS, decoder_input_ids=ids, return_dict=False)
        config = model.config.copy(output_attentions=True)
        model.config.output_attentions = config.output_attentions
        assert "cross_attentions" in model(**TENSORS, decoder_input_ids=ids)
    assert isinstance(plain, tuple)
    assert torch.allclose(plain[0], whole.logits, atol=1e-6)
    layers = model.config.encoder.num_hidden_layers, model.config.decoder.num_hidden_layers
    assert (len(whole.encoder_attentions), len(whole.cross_attentions)) == layers
    assert (len(whole.encoder_hidden_states), len(whole.decoder_hidden_states)) == (layers[0] + 1, layers[1] + 1)


@pytest.mark.parametrize("pair", ["base", "base with xl, of another width"])
def test_tokens_that_come_one_by_one_give_what_all_give(pair: str) -> None:
    model = built(pair)
    ids = torch.tensor(SHIFTED).clamp(min=2)
    with torch.no_grad():
        whole = model(**TENSORS, decoder_input_ids=ids, use_cache=False)
        assert "past_key_values" not in whole
        encoded, past, logits = model.encoder(**TENSORS), None, []
        for column in range(ids.shape[1]):
            step = model(
                encoder_outputs=encoded,
                attention_mask=TENSORS["attention_mask"],
                decoder_input_ids=ids[:, column : column + 1],
                past_key_values=past,
                use_cache=True,
            )
            past = step.past_key_values
            logits.append(step.logits)
    assert torch.allclose(torch.cat(logits, 1), whole.logits, atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({}, InputError, "expected decoder_input_ids, decoder_inputs_embeds or labels"),
        ({"decoder_input_ids": torch.tensor([[200]])}, InputError, "in the decoder: "),
        ({"decoder_input_ids": torch.tensor([[0], [0], [0]])}, InputError, "in the decoder: "),
        ({"labels": torch.tensor([1, 2])}, InputError, r"labels must have shape \(B, T\)"),
        ({"labels": torch.tensor([[1], [125]])}, InputError, "labels"),
        ({"labels": torch.tensor(LABELS), "decoder_input_ids": torch.tensor(SHIFTED)[:, 1:]}, InputError, "labels"),
        ({"labels": torch.tensor(LABELS), "logits_to_keep": 1}, InputError, "logits_to_keep"),
        ({"labels": torch.tensor(LABELS), "decoder_position_id": 1}, TypeError, "did you mean 'decoder_position_ids'"),
        ({"labels": torch.tensor(LABELS), "encoder_outputs": "states"}, InputError, "encoder_outputs must be"),
    ],
)
def test_a_call_that_cannot_be_served(inputs: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        built()(**TENSORS, **inputs)


def test_further_inputs_reach_their_side() -> None:
    model = built()
    ids = torch.tensor(SHIFTED).clamp(min=2)
    with torch.no_grad():
        plain = model(**TENSORS, decoder_input_ids=ids).logits
        for name in ("position_ids", "decoder_position_ids"):
            places = torch.full((1, IDS.shape[1] if name == "position_ids" else 4), 7)
            assert not torch.allclose(model(**TENSORS, decoder_input_ids=ids, **{name: places}).logits, plain)
        mask = torch.tensor([0.0, 1.0])
        assert not torch.allclose(model(**TENSORS, decoder_input_ids=ids, decoder_head_mask=mask).logits, plain)


def test_the_vocabulary_of_a_side_is_resized() -> None:
    model = built()
    with pytest.raises(InputError, match=r"model.decoder.resize_token_embeddings"):
        model.resize_token_embeddings(130)
    model.decoder.resize_token_embeddings(130)
    assert model.config.decoder.vocab_size == 130
    with torch.no_grad():
        assert model(**TENSORS, labels=torch.tensor(LABELS)).logits.shape == (2, 4, 130)


# ---- Training and generating


@pytest.mark.parametrize("pair", ["base with xl, of another width", "one for both"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_it_learns_and_writes_what_it_learnt(pair: str, checkpointing: bool) -> None:
    model = built(pair, eos_token_id=2)
    if checkpointing:
        model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing is checkpointing
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for dropout in (part for part in model.modules() if isinstance(part, torch.nn.Dropout)):
        dropout.p = 0.0
    losses = []
    for _ in range(40):
        model.train()
        loss = model(**TENSORS, labels=torch.tensor(LABELS)).loss
        loss.backward()
        assert all(p.grad is not None for name, p in model.named_parameters() if "pooler" not in name)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]
    model.eval().gradient_checkpointing_disable()
    for options in ({}, {"num_beams": 3}):
        found = model.generate(**TENSORS, max_new_tokens=5, **options)
        assert found.tolist()[0][:4] == [0, 9, 10, 2], options
        assert found.tolist()[1][:3] == [0, 11, 2], options


def test_the_encoder_runs_once_for_a_generation() -> None:
    model = built()
    calls = []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    found = model.generate(
        **TENSORS,
        decoder_input_ids=torch.tensor([[9], [10]]),
        max_new_tokens=4,
        num_beams=2,
        num_return_sequences=2,
        return_dict_in_generate=True,
        output_attentions=True,
        output_hidden_states=True,
    )
    assert len(calls) == 1
    assert found.sequences[:, :2].tolist() == [[0, 9], [0, 9], [0, 10], [0, 10]]
    assert len(found.encoder_attentions) == len(found.cross_attentions[0]) == 2
    with torch.no_grad():
        encoded = model.encoder(**TENSORS)
    again = model.generate(encoder_outputs=encoded, attention_mask=TENSORS["attention_mask"], max_new_tokens=4)
    assert torch.equal(again, model.generate(**TENSORS, max_new_tokens=4))
    assert len(calls) == 3


def test_padding_is_seen_without_a_mask_and_texts_are_checked() -> None:
    model = built()
    bare = {"input_ids": TENSORS["input_ids"].masked_fill(TENSORS["attention_mask"] == 0, 1)}
    asked = {"max_new_tokens": 3, "return_dict_in_generate": True, "output_logits": True}
    found, expected = (model.generate(**texts, **asked) for texts in (bare, {**TENSORS, **bare}))
    assert (TENSORS["attention_mask"] == 0).any() and torch.equal(found.sequences, expected.sequences)
    assert torch.equal(found.logits[0], expected.logits[0])
    for texts in ({"attention_mask": 0 * TENSORS["attention_mask"]}, {"input_ids": bare["input_ids"] * 0 + 1}):
        with pytest.raises(InputError, match="in the encoder: .*expected a token in every row"):
            model.generate(**{**bare, **texts})
    with pytest.raises(InputError, match="generation_config must be a GenerationConfig, received a dict"):
        model.generation_config = {"num_beams": 2}
    model.generation_config = None
    assert model.generation_config.num_beams == 1


def test_options_come_from_both_configurations(tmp_path: Path) -> None:
    model = built()
    model.config.decoder.eos_token_id = 116
    model.config.pad_token_id = 5
    assert model.generation_config.eos_token_id == 116
    assert (model.generation_config.pad_token_id, model.generation_config.decoder_start_token_id) == (5, 0)
    assert isinstance(model.config, EncoderDecoderConfig)
