"""transformers' own encoder-decoders beside ours, freshly drawn: names, files, outputs, gradients, generation.

PyTorch's in both versions; TensorFlow's and Flax's, which version 4 has, where their frameworks are installed too.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

import xlmr_torch  # noqa: E402
from tests.parity import tolerances  # noqa: E402
from tests.parity.adapter_torch import as_numpy  # noqa: E402
from tests.parity.compare import difference, flatten  # noqa: E402
from xlmr_core.config import EncoderDecoderConfig, XLMRobertaConfig, XLMRobertaXLConfig  # noqa: E402
from xlmr_core.conversion import convert  # noqa: E402
from xlmr_core.parameters import parameters  # noqa: E402
from xlmr_core.reference import make_position_ids  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:input_ids holds padding:UserWarning"),
    # What the original warns about is not ours to judge.
    pytest.mark.filterwarnings("ignore::Warning:transformers"),
    pytest.mark.filterwarnings("ignore:Version v4.12.0 introduces:FutureWarning"),
]

HEAD = "EncoderDecoderModel"
VERSION = int(transformers.__version__.split(".")[0])
FIRST_SEED = int(os.environ.get("XLMR_ORACLE_SEED", secrets.randbelow(10**6)))
KINDS: dict[str, type[Any]] = {"base": XLMRobertaConfig, "xl": XLMRobertaXLConfig}
# Encoder, decoder, whether they share their parameters. Version 5 shares none.
PAIRS = [("base", "base", False), ("xl", "base", False), ("base", "xl", False), ("xl", "xl", False)]
PAIRS += [("base", "base", True), ("xl", "xl", True)] if VERSION == 4 else []
DRAWN = [
    pytest.param(*pair, FIRST_SEED + number, id=f"{pair[0]}-{pair[1]}{'-tied' * pair[2]}-seed{FIRST_SEED + number}")
    for number, pair in enumerate(pair for pair in PAIRS for _ in range(2))
]
Array = NDArray[Any]
Model = tuple[EncoderDecoderConfig, dict[str, Array]]


def draw(encoder: str, decoder: str, tied: bool, seed: int) -> Model:
    """A configuration and parameters by all names, of numbers that float32 holds."""
    rng = np.random.default_rng(seed)

    def sizes() -> dict[str, Any]:
        heads, width = int(rng.integers(1, 4)), int(rng.integers(1, 5)) * 2
        return {
            "vocab_size": int(rng.integers(20, 60)),
            "hidden_size": heads * width,
            "num_hidden_layers": int(rng.integers(1, 4)),
            "num_attention_heads": heads,
            "intermediate_size": int(rng.integers(3, 40)),
            "max_position_embeddings": 40,
            "type_vocab_size": int(rng.integers(1, 3)),
            "layer_norm_eps": float(rng.choice([1e-12, 1e-5, 1e-3])),
        }

    of_encoder = sizes()
    of_decoder = of_encoder if tied else sizes()
    config = EncoderDecoderConfig.from_encoder_decoder_configs(
        KINDS[encoder](**of_encoder),
        KINDS[decoder](**of_decoder),
        decoder_start_token_id=0,
        pad_token_id=1,
        **({"tie_encoder_decoder": True} if tied else {}),
    )
    rows = parameters(config, HEAD)
    drawn = {
        name: (rng.standard_normal(row.shape) * 0.3).astype(np.float32)
        for name, row in rows.items()
        if row.tied_to is None
    }
    return config, {name: drawn[row.tied_to or name] for name, row in rows.items()}


def inputs(config: EncoderDecoderConfig, seed: int) -> dict[str, Array]:
    """Texts and labels, padded on the right."""
    rng = np.random.default_rng(seed)

    def padded(vocabulary: int, length: int, filling: int) -> Array:
        ids = rng.integers(3, vocabulary, (3, length))
        for row in range(1, 3):
            ids[row, int(rng.integers(2, length)) :] = filling
        return ids

    ids = padded(config.encoder.vocab_size, 7, 1)
    labels = padded(config.decoder.vocab_size, 5, -100)
    return {"input_ids": ids, "attention_mask": (ids != 1).astype(np.int64), "labels": labels}


def build_original(model: Model) -> Any:
    config, params = model
    values = {key: x for key, x in config.to_dict().items() if key not in ("_name_or_path", "dtype")}
    original = transformers.EncoderDecoderModel(transformers.EncoderDecoderConfig(**values)).double().eval()
    original.set_attn_implementation("eager")
    original.load_state_dict({name: torch.from_numpy(np.array(x)).double() for name, x in params.items()}, strict=True)
    return original


def build_ours(model: Model) -> Any:
    config, params = model
    ours = xlmr_torch.EncoderDecoderModel(config.copy()).double().eval().set_attn_implementation("eager")
    ours.load_state_dict({name: torch.from_numpy(np.array(x)).double() for name, x in params.items()}, strict=True)
    return ours


def answer(model: Any, given: dict[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Outputs and gradients."""
    model.zero_grad()
    tensors = {name: torch.from_numpy(x) for name, x in given.items()}
    output = model(**tensors, output_hidden_states=True, output_attentions=True)
    output["loss"].backward()
    named = model.named_parameters(remove_duplicate=False)
    gradients = {name: p.grad.numpy() for name, p in named if p.grad is not None}
    # The cache, which 5.24 calls so, is compared by what is generated with it.
    wanted = {name: x for name, x in output.items() if x is not None and name not in ("past_key_values", "cache")}
    return flatten(as_numpy(wanted)), gradients


def assert_same(actual: dict[str, Array], expected: dict[str, Array], tolerance: float = tolerances.ORACLE) -> None:
    assert set(actual) == set(expected)
    for name, x in expected.items():
        assert difference(actual[name], x) <= tolerance, name


@pytest.mark.parametrize(("encoder", "decoder", "tied", "seed"), DRAWN)
def test_same_names_outputs_and_gradients(encoder: str, decoder: str, tied: bool, seed: int) -> None:
    model = draw(encoder, decoder, tied, seed)
    original, ours = build_original(model), build_ours(model)
    shapes = {name: tuple(x.shape) for name, x in original.state_dict().items()}
    assert {name: tuple(x.shape) for name, x in ours.state_dict().items()} == shapes
    given = inputs(model[0], seed)
    (expected, expected_gradients), (actual, gradients) = answer(original, given), answer(ours, given)
    assert_same(actual, expected)
    whole = np.sqrt(sum((x**2).sum() for x in expected_gradients.values()))
    assert set(gradients) == set(expected_gradients)
    for name, gradient in gradients.items():
        error = np.abs(gradient - expected_gradients[name]).max()
        assert error <= tolerances.ORACLE * max(1.0, whole), f"{name}: gradient is {error:.1e} off"


@pytest.mark.parametrize(("encoder", "decoder", "tied", "seed"), DRAWN)
def test_files_both_ways(encoder: str, decoder: str, tied: bool, seed: int, tmp_path: Path) -> None:
    """What either saves, the other loads to the same answer."""
    model = draw(encoder, decoder, tied, seed)
    original, ours = build_original(model).float(), build_ours(model).float()
    original.save_pretrained(tmp_path / "original")
    ours.save_pretrained(tmp_path / "ours")
    ours_again, info = xlmr_torch.AutoModelForSeq2SeqLM.from_pretrained(
        tmp_path / "original", attn_implementation="eager", output_loading_info=True
    )
    assert info["report"].message == ""
    original_again = transformers.EncoderDecoderModel.from_pretrained(tmp_path / "ours")
    original_again.set_attn_implementation("eager")
    given = inputs(model[0], seed)
    expected, _ = answer(original.double(), given)
    for again in (ours_again, original_again):
        assert again.config.decoder_start_token_id == 0
        actual, _ = answer(again.double().eval(), given)
        assert_same(actual, expected)
    if VERSION == 4:  # a pickle
        original.float().save_pretrained(tmp_path / "pickle", safe_serialization=False)
        pickled = xlmr_torch.EncoderDecoderModel.from_pretrained(tmp_path / "pickle", attn_implementation="eager")
        actual, _ = answer(pickled.double().eval(), given)
        assert_same(actual, expected)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3, "length_penalty": 0.7}, {"repetition_penalty": 1.3}], ids=str)
@pytest.mark.parametrize(("encoder", "decoder", "tied", "seed"), DRAWN[::2])
def test_same_generations(encoder: str, decoder: str, tied: bool, seed: int, options: dict[str, Any]) -> None:
    model = draw(encoder, decoder, tied, seed)
    given = {name: torch.from_numpy(x) for name, x in inputs(model[0], seed).items() if name != "labels"}
    # Behind a padding token in the text the original with its cache numbers positions otherwise than without it.
    options = {**options, "suppress_tokens": [1]}
    expected, found = (
        one.generate(**given, max_new_tokens=6, eos_token_id=2, pad_token_id=1, **options).tolist()
        for one in (build_original(model), build_ours(model))
    )
    assert found == expected


@pytest.mark.parametrize(("encoder", "decoder"), [("base", "xl"), ("xl", "base")])
def test_two_checkpoints_become_the_same_model(encoder: str, decoder: str, tmp_path: Path) -> None:
    """Both build a model of the same names of two checkpoints, with the same values where the checkpoints have some."""
    config, params = draw(encoder, decoder, False, FIRST_SEED)
    for side, prefix in (("encoder", "encoder."), ("decoder", "decoder.")):
        own = getattr(config, side).copy(is_decoder=False, add_cross_attention=False)
        name = "XLMRobertaXL" if (encoder, decoder)[side == "decoder"] == "xl" else "XLMRoberta"
        kind = getattr(transformers, name + ("Model" if side == "encoder" else "ForMaskedLM"))
        values = {key: x for key, x in own.to_dict().items() if key not in ("_name_or_path", "dtype")}
        model = kind(getattr(transformers, f"{name}Config")(**values))
        shared = {key.removeprefix(prefix): x for key, x in params.items() if key.startswith(prefix)}
        known = model.state_dict()
        model.load_state_dict({key: torch.from_numpy(np.array(shared[key])) for key in known}, strict=True)
        model.save_pretrained(tmp_path / side)
    found = []
    for module in (transformers, xlmr_torch):
        made = module.EncoderDecoderModel
        with pytest.warns() if module is xlmr_torch else nullcontext():
            found.append(made.from_encoder_decoder_pretrained(tmp_path / "encoder", tmp_path / "decoder"))
    original, ours = (model.state_dict() for model in found)
    assert set(original) == set(ours)
    fresh = ("crossattention", "enc_to_dec_proj")
    assert all(torch.equal(original[name], x) for name, x in ours.items() if not any(part in name for part in fresh))
    assert (found[1].config.decoder.is_decoder, found[1].config.decoder.add_cross_attention) == (True, True)


# ---- Files of the other frameworks


@pytest.mark.skipif(importlib.util.find_spec("flax") is None or VERSION > 4, reason="there is no Flax in transformers")
@pytest.mark.parametrize("width", [16, 24])
def test_flax_reads_and_writes_the_same(width: int, tmp_path: Path) -> None:
    model = _of_base(width)
    build_ours(model).float().save_pretrained(tmp_path / "ours")
    original = transformers.FlaxEncoderDecoderModel.from_pretrained(tmp_path / "ours", from_pt=True)
    _compare_with(original, model, tmp_path, decoder_input_ids="jax")


@pytest.mark.skipif(importlib.util.find_spec("tf_keras") is None or VERSION > 4, reason="there is no tf-keras")
@pytest.mark.parametrize("width", [16, 24])
def test_tensorflow_reads_and_writes_the_same(width: int, tmp_path: Path) -> None:
    model = _of_base(width)
    build_ours(model).float().save_pretrained(tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "h5", "tf")
    original = transformers.TFEncoderDecoderModel.from_pretrained(tmp_path / "h5")
    _compare_with(original, model, tmp_path, decoder_input_ids="tf")


def _of_base(width: int) -> Model:
    """A model of base, the one family that all three frameworks have."""
    config, params = draw("base", "base", False, 11)
    if config.encoder.hidden_size == width:
        return config, params
    sizes = {"vocab_size": 31, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    sides = [XLMRobertaConfig(hidden_size=size, max_position_embeddings=40, **sizes) for size in (16, width)]
    config = EncoderDecoderConfig.from_encoder_decoder_configs(*sides, decoder_start_token_id=0, pad_token_id=1)
    rng = np.random.default_rng(width)
    rows = parameters(config, HEAD)
    drawn = {
        name: (rng.standard_normal(row.shape) * 0.3).astype(np.float32)
        for name, row in rows.items()
        if row.tied_to is None
    }
    return config, {name: drawn[row.tied_to or name] for name, row in rows.items()}


def _compare_with(original: Any, model: Model, tmp_path: Path, decoder_input_ids: str) -> None:
    """An original of another framework gives what ours gives, and what it saves we load."""
    given = inputs(model[0], 5)
    labels = given.pop("labels")
    given["decoder_input_ids"] = np.maximum(labels, 3)
    positions: dict[str, Array] = {}
    if decoder_input_ids == "jax":  # in this class alone the original numbers positions from 0 on
        for name in ("input_ids", "decoder_input_ids"):
            places = make_position_ids(model[0].encoder, given[name])
            positions[name.replace("input", "position")] = places
    output = original(**given, **positions)
    ours = build_ours(model)
    with torch.no_grad():
        expected = ours(**{name: torch.from_numpy(x) for name, x in given.items()}).logits.numpy()
    assert difference(np.asarray(output.logits), expected) <= tolerances.FLOAT32, decoder_input_ids
    original.save_pretrained(tmp_path / "original")
    again = xlmr_torch.EncoderDecoderModel.from_pretrained(tmp_path / "original").double()
    values = again.state_dict()
    assert all(np.allclose(values[name].numpy(), x, rtol=0, atol=1e-7) for name, x in model[1].items())
