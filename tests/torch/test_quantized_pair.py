"""Encoder-decoders of four and eight bits: both sides quantized together, as the command does; what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.core.test_encoder_decoder import IDS, MASK, config_of
from xlmr_core.checkpoint import open_checkpoint
from xlmr_core.conversion import convert
from xlmr_core.errors import ConfigError, InputError
from xlmr_core.quantization.four_bit import Int4, Nf4
from xlmr_torch import BitsAndBytesConfig, EncoderDecoderModel, quantize

INPUTS = {"input_ids": torch.tensor(IDS), "attention_mask": torch.tensor(MASK)}
BNB = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)

SCHEMES = {"int8": "int8", "int4": Int4(group_size=8), "nf4": Nf4(("decoder.embeddings",), 8), "bnb nf4": BNB}


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_both_sides_of_an_encoder_decoder(scheme: Any, tmp_path: Path) -> None:
    def built() -> EncoderDecoderModel:
        torch.manual_seed(0)
        return EncoderDecoderModel(config_of("base", "xl", width=24, initializer_range=0.3)).eval()

    def answers(model: EncoderDecoderModel) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            logits = model(**INPUTS, decoder_input_ids=torch.tensor([[0, 7, 9], [0, 5, 6]])).logits
        return logits, model.generate(**INPUTS, max_new_tokens=4, do_sample=False)

    plain, model = built(), quantize(built(), scheme)
    found, ids = answers(model)
    assert float((found - answers(plain)[0]).norm() / answers(plain)[0].norm()) < 0.6
    wide = {path for path, layer in model.named_modules() if type(layer) in (nn.Linear, nn.Embedding)}
    assert not any("query" in path for path in wide) and model.decoder.is_quantized and model.encoder.is_quantized
    model.save_pretrained(tmp_path / "small")
    loaded = EncoderDecoderModel.from_pretrained(tmp_path / "small")
    assert torch.equal(answers(loaded)[0], found) and torch.equal(answers(loaded)[1], ids)
    plain.save_pretrained(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "written", "safetensors", scheme=scheme)
    with open_checkpoint(tmp_path / "small") as one, open_checkpoint(tmp_path / "written") as other:
        assert set(one.names) == set(other.names)
        assert all(bytes(one.tensor(name).data) == bytes(other.tensor(name).data) for name in one.names)
    with pytest.raises(InputError, match="built of models with floating point weights.*as a whole"):
        EncoderDecoderModel(encoder=model.encoder, decoder=model.decoder)


def test_sides_that_share_their_weights_are_refused() -> None:
    for scheme in (Int4(group_size=8), BNB):
        with pytest.raises(ConfigError, match="weights of its own on each side.*tie_encoder_decoder=True"):
            quantize(EncoderDecoderModel(config_of("base", "base", tie_encoder_decoder=True)), scheme)
