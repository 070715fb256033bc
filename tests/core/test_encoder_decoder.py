"""The encoder-decoder in the core: configuration, parameters, files, what the commands know of it, the reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core.small_models import FAMILIES, SMALL, Arrays, arrays_of, change_config, save
from xlmr_core import probe
from xlmr_core.checkpoints.load_plan import LoadWarning, plan_load
from xlmr_core.checkpoints.model_files import open_model
from xlmr_core.config import AutoConfig, EncoderDecoderConfig, XLMRobertaConfig, XLMRobertaXLConfig
from xlmr_core.conversion import convert
from xlmr_core.diagnosis import diagnose
from xlmr_core.encoder_decoder import source_mask, states_of
from xlmr_core.errors import CheckpointError, ConfigError, InputError, MismatchError
from xlmr_core.formats import FORMATS
from xlmr_core.heads import head_of_class
from xlmr_core.inspection import inspect_model
from xlmr_core.loading import sides_to_load
from xlmr_core.outputs import BaseModelOutput, BaseModelOutputWithPoolingAndCrossAttentions
from xlmr_core.parameters import num_parameters, parameters, stored_names
from xlmr_core.reference import forward
from xlmr_core.verification import compare

HEAD = "EncoderDecoderModel"
# Encoder, decoder, and how they are put together.
PAIRS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "base": ("base", "base", {}),
    "xl with base, of another width": ("xl", "base", {"width": 24}),
    "base with xl, of another width": ("base", "xl", {"width": 24}),
    "one for both": ("base", "base", {"tie_encoder_decoder": True}),
    "one for both, of xl": ("xl", "xl", {"tie_encoder_decoder": True}),
}


def config_of(encoder: str, decoder: str, width: int = 16, layers: int = 2, **changes: Any) -> EncoderDecoderConfig:
    """A configuration of two small models."""
    sizes = {**SMALL, "num_hidden_layers": layers}
    sides = FAMILIES[encoder](**sizes), FAMILIES[decoder](**{**sizes, "hidden_size": width})
    values = {"decoder_start_token_id": 0, "architectures": [HEAD], "dtype": "float32", **changes}
    return EncoderDecoderConfig.from_encoder_decoder_configs(*sides, **values)


@pytest.fixture(params=PAIRS)
def config(request: pytest.FixtureRequest) -> EncoderDecoderConfig:
    encoder, decoder, changes = PAIRS[request.param]
    return config_of(encoder, decoder, **changes)


# ---- Configuration


def test_a_configuration_is_written_and_read(config: EncoderDecoderConfig, tmp_path: Path) -> None:
    config.encoder._attn_implementation = "eager"
    config.save_pretrained(tmp_path)
    read = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(read, EncoderDecoderConfig)
    assert read == config == config.copy() == EncoderDecoderConfig.from_dict(config.to_dict())
    assert [type(part) for part in read.parts.values()] == [type(config.encoder), type(config.decoder)]
    assert config.copy().encoder._attn_implementation == "eager"
    assert config.copy(pad_token_id=3) != config
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["model_type"] == "encoder-decoder"
    assert written["is_encoder_decoder"] is True
    assert written["decoder"]["is_decoder"] is written["decoder"]["add_cross_attention"] is True
    assert "pad_token_id" not in written
    assert written["encoder"]["model_type"] == config.encoder.model_type


def test_what_is_passed_stays_as_it_is() -> None:
    encoder = XLMRobertaConfig(**SMALL)
    made = EncoderDecoderConfig.from_encoder_decoder_configs(encoder, encoder)
    assert made.decoder.is_decoder
    assert not encoder.is_decoder
    values = made.to_dict()
    EncoderDecoderConfig.from_dict(values).encoder.vocab_size = 3
    assert values["encoder"]["vocab_size"] == SMALL["vocab_size"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "expects an encoder and a decoder, received neither"),
        ({"encoder": XLMRobertaConfig()}, "received encoder; pass"),
        ({"encoder": {"model_type": "bert"}, "decoder": {}}, "the encoder of an encoder-decoder: .*'bert'"),
        ({"encoder": 3, "decoder": 4}, "must be XLM-RoBERTa or XLM-RoBERTa-XL, received an int"),
        ({"encoder": config_of("base", "base"), "decoder": XLMRobertaConfig()}, "received an EncoderDecoderConfig"),
        ({"model_type": "xlm-roberta"}, "received 'xlm-roberta'.*from_encoder_decoder_pretrained"),
    ],
)
def test_an_impossible_configuration_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EncoderDecoderConfig(**values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder_start_token_id": 125}, "decoder_start_token_id must lie in the decoder's vocabulary of 125"),
        ({"pad_token_id": -1}, "pad_token_id must lie"),
        ({"tie_encoder_decoder": True, "width": 24}, "hidden_size is 16 in the encoder and 24 in the decoder"),
        (
            {"tie_encoder_decoder": True, "decoder": "xl"},
            "one family, received XLMRobertaConfig and XLMRobertaXLConfig",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], message: str) -> None:
    decoder = changes.pop("decoder", "base")
    with pytest.raises(ConfigError, match=message):
        config_of("base", decoder, **changes)


def test_a_decoder_that_is_none_is_refused() -> None:
    config = config_of("base", "base")
    config.decoder.add_cross_attention = False
    with pytest.raises(
        ConfigError, match="needs is_decoder=True and add_cross_attention=True, received True and False"
    ):
        config.validate()


def test_misspelt_arguments_name_the_nearest() -> None:
    with pytest.raises(TypeError, match="did you mean 'pad_token_id'"):
        EncoderDecoderConfig.from_dict(config_of("base", "base").to_dict(), pad_tokenid=3)


def test_the_class_is_known_by_its_published_names() -> None:
    assert {head_of_class(name).suffix for name in (HEAD, "TF" + HEAD, "Flax" + HEAD)} == {HEAD}
    kind = type(AutoConfig.for_model("xlm-roberta-xl"))
    assert kind is XLMRobertaXLConfig


# ---- Parameters


def test_the_table_is_that_of_both_sides(config: EncoderDecoderConfig) -> None:
    rows = parameters(config, HEAD)
    encoder = parameters(config.encoder, "Model")
    decoder = parameters(config.decoder, "ForCausalLM")
    sides = [*(f"encoder.{name}" for name in encoder), *(f"decoder.{name}" for name in decoder)]
    between = [f"enc_to_dec_proj.{part}" for part in ("weight", "bias")] if config.has_projection else []
    assert list(rows) == sides + between
    if between:
        assert rows[between[0]].shape == (config.decoder.hidden_size, config.encoder.hidden_size)
    assert rows["decoder.lm_head.decoder.weight"].tied_to == "decoder.roberta.embeddings.word_embeddings.weight"
    tied = {name for name, row in rows.items() if name.startswith("encoder.") and row.tied_to is not None}
    shared = {f"encoder.{name}" for name in encoder if "pooler" not in name} if config.tie_encoder_decoder else set()
    assert tied == shared
    assert all(rows[str(rows[name].tied_to)].shape == rows[name].shape for name in tied)
    counts = num_parameters(config.encoder, "Model"), num_parameters(config.decoder, "ForCausalLM")
    between_count = sum(int(np.prod(rows[name].shape)) for name in between)
    shared_count = sum(int(np.prod(rows[name].shape)) for name in tied)
    assert num_parameters(config, HEAD) == sum(counts) + between_count - shared_count


def test_an_untied_bias_of_the_decoder_is_stored_twice() -> None:
    config = config_of("base", "base")
    config.decoder.tie_word_embeddings = False
    stored = stored_names(parameters(config, HEAD))
    assert {"decoder.lm_head.bias", "decoder.lm_head.decoder.bias", "decoder.lm_head.decoder.weight"} <= set(stored)


# ---- Files


@pytest.mark.parametrize("size", ["5GB", "20KB"])
@pytest.mark.parametrize("format", ["safetensors", "torch", "tf", "flax", "keras"])
def test_every_format_holds_both_sides(config: EncoderDecoderConfig, format: str, size: str, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    arrays = save(tmp_path / "source", config, HEAD)
    written = convert(tmp_path / "source", there, format, max_shard_size=size, verify=True)
    assert written.comparison is not None
    assert written.comparison.equal
    assert [row.name for row in written.comparison.outputs] == ["logits", "encoder_last_hidden_state"]
    assert written.report.message == ""
    assert len(written.files) > 1 or size == "5GB" or not FORMATS[format].index
    convert(there, back, "safetensors")
    with open_model(back) as files:
        assert files.architecture == HEAD
        streams = files.streams()
        assert set(streams) == set(arrays)
        assert all(np.array_equal(streams[name].read().to_numpy(), arrays[name]) for name in arrays)


@pytest.mark.parametrize(
    ("format", "names"),
    [
        ("tf", ["encoder/roberta/encoder/layer_._0/attention/self/query/kernel:0", "enc_to_dec_proj/kernel:0"]),
        ("tf", ["decoder/roberta/embeddings/word_embeddings/weight:0", "decoder/lm_head/dense/kernel:0"]),
        ("flax", ["encoder/embeddings/word_embeddings/embedding", "decoder/roberta/encoder/layer/0/output/dense/bias"]),
    ],
)
def test_names_in_files_are_the_published_ones(format: str, names: list[str], tmp_path: Path) -> None:
    config = config_of("base", "base", width=24)
    save(tmp_path, config, HEAD, format=format)
    row = FORMATS[format]
    path = row.find(tmp_path)
    assert path is not None
    assert set(names) <= set(row.open(path).tensors)


def test_fairseq_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "source", config_of("base", "base"), HEAD)
    with pytest.raises(CheckpointError, match=f"it has no {HEAD}"):
        convert(tmp_path / "source", tmp_path / "there", "fairseq")


@pytest.mark.parametrize(("part", "architecture"), [("encoder", "Model"), ("decoder.", "ForCausalLM")])
def test_a_side_is_taken_out(part: str, architecture: str, tmp_path: Path) -> None:
    config = config_of("base", "xl", width=24)
    save(tmp_path / "source", config, HEAD)
    done = convert(tmp_path / "source", tmp_path / "side", "safetensors", part=part, verify=True)
    assert done.comparison is not None
    assert done.comparison.equal
    family = "XLMRoberta" if part == "encoder" else "XLMRobertaXL"
    assert done.architecture == family + architecture
    read = AutoConfig.from_pretrained(tmp_path / "side")
    assert read.hidden_size == config.parts[f"{part.rstrip('.')}."].hidden_size


def saved_without(folder: Path, config: EncoderDecoderConfig, arrays: Arrays, *lacking: str) -> None:
    kept = {name: array for name, array in arrays.items() if not name.startswith(lacking)}
    save(folder, config, HEAD, kept)


def test_what_is_missing_is_named_in_full(tmp_path: Path) -> None:
    config = config_of("base", "base", width=24)
    arrays = arrays_of(config, HEAD)
    fresh = ("decoder.roberta.encoder.layer.1.crossattention", "enc_to_dec_proj", "encoder.pooler")
    saved_without(tmp_path / "fresh", config, arrays, *fresh)
    with (
        open_model(tmp_path / "fresh") as files,
        pytest.warns(LoadWarning, match="decoder.roberta.encoder.layer.1.cross"),
    ):
        plan = plan_load(config, HEAD, files.checkpoint)
    assert set(plan.report.missing) == {name for name in arrays if name.startswith(fresh)}
    assert set(plan.sources) == set(arrays) - set(plan.report.missing)
    saved_without(tmp_path / "broken", config, arrays, "decoder.roberta.encoder.layer.1.output.dense.weight")
    with (
        open_model(tmp_path / "broken") as files,
        pytest.raises(CheckpointError, match=r"encoder.layer.1.output.dense.weight .* in decoder\.\* of "),
    ):
        plan_load(config, HEAD, files.checkpoint)
    wrong = {**arrays, "enc_to_dec_proj.weight": np.zeros((24, 15), np.float32)}
    save(tmp_path / "wrong", config, HEAD, wrong)
    with (
        open_model(tmp_path / "wrong") as files,
        pytest.raises(MismatchError, match="enc_to_dec_proj.weight must have"),
    ):
        plan_load(config, HEAD, files.checkpoint)


def test_shared_values_are_found_under_the_other_sides_names(tmp_path: Path) -> None:
    config = config_of("base", "base", tie_encoder_decoder=True)
    arrays = arrays_of(config, HEAD)
    rows = parameters(config, HEAD)
    other = {row.tied_to: name for name, row in rows.items() if name.startswith("encoder.") and row.tied_to is not None}
    renamed = {other.get(name, name): array for name, array in arrays.items()}
    save(tmp_path / "own", config, HEAD, arrays)
    save(tmp_path / "other", config, HEAD, renamed)
    save(tmp_path / "both", config, HEAD, {**arrays, **renamed})
    for folder in ("other", "both"):
        compared = compare(tmp_path / "own", tmp_path / folder)
        assert compared.equal, folder
        assert compared.compared == len(arrays)
        with open_model(tmp_path / folder) as files:
            assert files.plan.report.message == ""


def test_two_checkpoints_become_sides(tmp_path: Path) -> None:
    plain, decoder = XLMRobertaConfig(**SMALL), XLMRobertaConfig(**SMALL, is_decoder=True)
    save(tmp_path / "plain", plain, "ForMaskedLM")
    save(tmp_path / "decoder", decoder, "ForCausalLM")
    given = {"decoder_start_token_id": 2, "encoder_dtype": "float16", "tie_encoder_decoder": True}
    one, other, values = sides_to_load("here()", tmp_path / "decoder", tmp_path / "plain", given)
    assert values == {"decoder_start_token_id": 2, "tie_encoder_decoder": True}
    assert (one.arguments, other.arguments) == ({"dtype": "float16"}, {})
    assert one.config is not None
    assert other.config is not None
    assert (one.config.is_decoder, one.config.add_cross_attention) == (False, False)
    assert (other.config.is_decoder, other.config.add_cross_attention) == (True, True)
    assert sides_to_load("here()", None, tmp_path / "plain", {"encoder_model": 3})[0].model == 3
    with pytest.raises(InputError, match="received no decoder; pass the name or folder of its checkpoint"):
        sides_to_load("here()", tmp_path / "plain", None, {})
    with pytest.raises(TypeError, match=r"here\(\) does not know the argument 'decodr_start'"):
        sides_to_load("here()", tmp_path / "plain", tmp_path / "plain", {"decodr_start": 3})
    save(tmp_path / "both", config_of("base", "base"), HEAD)
    with pytest.raises(InputError, match="received the encoder-decoder .* encoder_part='encoder.'"):
        sides_to_load("here()", tmp_path / "both", tmp_path / "plain", {})
    taken = sides_to_load(
        "here()", tmp_path / "both", tmp_path / "both", {"encoder_part": "encoder.", "decoder_part": "decoder"}
    )
    assert [side.config is not None and side.config.is_decoder for side in taken[:2]] == [False, True]


# ---- Commands


def test_inspect_says_what_both_sides_are(tmp_path: Path) -> None:
    config = config_of("base", "xl", width=24)
    save(tmp_path, config, HEAD)
    found = inspect_model(tmp_path)
    assert (found.model_type, found.architecture, found.problem) == ("encoder-decoder", HEAD, "")
    assert (found.sizes["encoder.hidden_size"], found.sizes["decoder.hidden_size"]) == (16, 24)
    assert "num_labels" not in found.sizes
    assert found.num_parameters == num_parameters(config, HEAD)
    with pytest.raises(CheckpointError, match="the only head of an encoder-decoder.*part='encoder.'"):
        inspect_model(tmp_path, head="ForMaskedLM")


def test_verify_compares_both_configurations(tmp_path: Path) -> None:
    config = config_of("base", "base")
    arrays = save(tmp_path / "a", config, HEAD)
    save(tmp_path / "b", config, HEAD, arrays)
    assert compare(tmp_path / "a", tmp_path / "b").equal
    config.decoder.layer_norm_eps = 1e-3
    config.decoder_start_token_id = 2
    save(tmp_path / "c", config, HEAD, {**arrays, "decoder.lm_head.bias": arrays["decoder.lm_head.bias"] + 1})
    compared = compare(tmp_path / "a", tmp_path / "c")
    assert not compared.equal
    assert [row.name for row in compared.values] == ["decoder.lm_head.bias"]
    assert compared.config == ("decoder_start_token_id: 0 and 2", "decoder.layer_norm_eps: 1e-05 and 0.001")
    assert [row.equal for row in compared.outputs] == [False, True]


def test_a_sampled_vocabulary_gives_what_the_whole_one_gives(
    config: EncoderDecoderConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, config, HEAD)
    monkeypatch.setattr(probe, "VOCABULARY", 20)
    with open_model(tmp_path) as files:
        sampled = probe.make_probe(config, HEAD)
        assert set(sampled.rows) == {"encoder.", "decoder."}
        assert "20 of 125 rows of the decoder's vocabulary" in sampled.describe(config)
        some = probe.run_probe(files, sampled)
        every = probe.run_probe(files, probe.Probe(sampled.inputs, {}))
    every["logits"] = every["logits"][..., sampled.rows["decoder."]]
    assert all(np.allclose(some[name], every[name], rtol=0, atol=1e-12) for name in every)


def test_doctor_examines_both_sides(tmp_path: Path) -> None:
    config = config_of("base", "xl", width=24)
    arrays = save(tmp_path, config, HEAD)
    assert diagnose(tmp_path).healthy
    config.decoder_start_token_id = None
    config.encoder.layer_norm_eps = 1e-12
    broken = {**arrays, "decoder.roberta.encoder.layer.0.output.dense.weight": np.full((24, 24), np.nan, np.float32)}
    save(tmp_path, config, HEAD, broken)
    found = {finding.what: finding.is_ill for finding in diagnose(tmp_path).findings}
    assert any("decoder_start_token_id is not set" in what and not ill for what, ill in found.items())
    assert any(what.startswith("in the encoder, layer_norm_eps is 1e-12") for what in found)
    assert any("decoder.roberta.encoder.layer.0.output.dense.weight holds values" in what for what in found)
    change_config(tmp_path, decoder=None)
    assert not diagnose(tmp_path).healthy


# ---- Reference


IDS = np.array([[0, 5, 6, 7, 2], [0, 8, 2, 1, 1]])
MASK = (IDS != 1).astype(np.int64)
LABELS = np.array([[9, 10, 2, -100], [11, 2, -100, -100]])
SHIFTED = np.array([[0, 9, 10, 2], [0, 11, 2, 1]])


def test_the_reference_composes_both_sides(config: EncoderDecoderConfig) -> None:
    arrays = arrays_of(config, HEAD)
    found = forward(config, HEAD, arrays, input_ids=IDS, attention_mask=MASK, labels=LABELS)
    shared = {name.replace("decoder.roberta.", "encoder."): x for name, x in arrays.items()}
    encoder = {
        name.removeprefix("encoder."): x for name, x in {**shared, **arrays}.items() if name.startswith("encoder.")
    }
    decoder = {name.removeprefix("decoder."): x for name, x in arrays.items() if name.startswith("decoder.")}
    encoded = forward(config.encoder, "Model", encoder, input_ids=IDS, attention_mask=MASK)
    memory = encoded["last_hidden_state"]
    if config.has_projection:
        memory = memory @ arrays["enc_to_dec_proj.weight"].astype(np.float64).T + arrays["enc_to_dec_proj.bias"]
    decoded = forward(
        config.decoder,
        "ForCausalLM",
        decoder,
        input_ids=SHIFTED,
        attention_mask=(SHIFTED != 1).astype(np.int64),
        encoder_hidden_states=memory,
        encoder_attention_mask=MASK,
    )
    assert np.array_equal(found["logits"], decoded["logits"])
    assert np.array_equal(found["encoder_last_hidden_state"], encoded["last_hidden_state"])
    shifted = found["logits"] - found["logits"].max(-1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    rows, columns = np.nonzero(LABELS >= 0)
    loss = -log_probabilities[rows, columns, LABELS[rows, columns]].mean()
    assert np.allclose(found["loss"], loss, rtol=0, atol=1e-12)
    assert len(found["cross_attentions"]) == config.decoder.num_hidden_layers
    given = forward(
        config,
        HEAD,
        arrays,
        encoder_outputs=(encoded["last_hidden_state"],),
        attention_mask=MASK,
        decoder_input_ids=SHIFTED,
        decoder_attention_mask=(SHIFTED != 1).astype(np.int64),
    )
    assert np.array_equal(given["logits"], found["logits"])


def test_padding_of_labels_is_the_decoders_unless_said() -> None:
    config = config_of("base", "base", pad_token_id=4)
    arrays = arrays_of(config, HEAD)
    found = forward(config, HEAD, arrays, input_ids=IDS, labels=LABELS)
    ids = np.where(SHIFTED == 1, 4, SHIFTED)
    mask = (ids != 4).astype(np.int64)
    expected = forward(config, HEAD, arrays, input_ids=IDS, decoder_input_ids=ids, decoder_attention_mask=mask)
    assert np.array_equal(found["logits"], expected["logits"])


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({}, InputError, "expected decoder_input_ids, decoder_inputs_embeds or labels, received none"),
        ({"labels": LABELS[0]}, InputError, r"labels must have shape \(B, T\)"),
        ({"labels": LABELS + 120}, InputError, "labels"),
        ({"labels": LABELS, "decoder_input_ids": SHIFTED[:, 1:]}, InputError, "labels"),
        ({"decoder_input_ids": SHIFTED + 200}, InputError, "in the decoder: "),
        ({"decoder_input_ids": SHIFTED, "input_ids": IDS + 200}, InputError, "in the encoder: "),
    ],
)
def test_what_no_backend_takes_is_refused(inputs: dict[str, Any], error: type[Exception], message: str) -> None:
    config = config_of("base", "base")
    with pytest.raises(error, match=message):
        forward(config, HEAD, arrays_of(config, HEAD), **{"input_ids": IDS, **inputs})


def test_labels_need_a_start_token() -> None:
    config = config_of("base", "base", decoder_start_token_id=None)
    arrays = arrays_of(config, HEAD)
    with pytest.raises(ConfigError, match="decoder_start_token_id, expected an id, received None; set"):
        forward(config, HEAD, arrays, input_ids=IDS, labels=LABELS)
    assert forward(config, HEAD, arrays, input_ids=IDS, decoder_input_ids=SHIFTED, labels=LABELS)["loss"] > 0


@pytest.mark.parametrize(
    "given",
    [
        BaseModelOutput(last_hidden_state=IDS),
        BaseModelOutputWithPoolingAndCrossAttentions(last_hidden_state=IDS, pooler_output=MASK),
        (IDS,),
        IDS,
    ],
    ids=lambda given: type(given).__name__,
)
def test_states_of_an_encoder_come_in_several_forms(given: Any) -> None:
    assert states_of(given).to_tuple() == (IDS,)


def test_states_that_are_none_are_refused() -> None:
    with pytest.raises(InputError, match="encoder_outputs must be what the encoder returns, .* received str"):
        states_of("states")


@pytest.mark.parametrize(
    ("ids", "mask", "shape", "message"),
    [
        ([[], []], None, None, "with a token at least, received"),
        ([[0, 5], [1, 1]], None, None, "expected a token in every row of attention_mask, row 1 has none"),
        ([[0, 5], [6, 7]], [[0, 0], [1, 1]], None, "row 0 has none; leave the row out"),
        ([[0, 5], [6, 7]], [[1, 1, 1], [1, 1, 1]], None, r"must have the shape \(2, 2\), received \(2, 3\)"),
        (None, [[1, 1]], (2, 2, 16), r"must have the shape \(2, 2\), received \(1, 2\)"),
        (None, [[1, 2], [1, 1]], (2, 2, 16), "attention_mask must lie between 0 and 1"),
        (None, [[0, 0], [1, 1]], (2, 2, 16), "row 0 has none"),
    ],
)
def test_texts_that_no_encoder_reads_for_a_generation(ids: Any, mask: Any, shape: Any, message: str) -> None:
    texts = (None if x is None else np.array(x, np.int64) for x in (ids, mask))
    with pytest.raises(InputError, match=message):
        source_mask(config_of("base", "base").encoder, *texts, shape=shape)


def test_the_mask_of_an_encoders_texts_is_seen_in_their_ids() -> None:
    config = config_of("base", "base").encoder
    found = source_mask(config, np.array([[0, 1, 5, 1], [1, 0, 5, 6]]), None)
    assert found is not None and found.tolist() == [[1, 1, 1, 0], [0, 1, 1, 1]]
    assert source_mask(config, None, None, shape=(2, 3, 16)) is None
