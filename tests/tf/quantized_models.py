"""Tiny quantized models for the tests of Keras."""

from __future__ import annotations

from functools import cache

from tests.tf.models import Case
from xlmr_core.checkpoint import open_checkpoint
from xlmr_core.quantization.four_bit import Int4, Nf4
from xlmr_tf import BitsAndBytesConfig, quantize

OURS = ["int8", "int4", "nf4", "fp4"]
WIDE = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1}
MASKED_LM, CLASSIFIER = Case("XLMRoberta", "ForMaskedLM"), Case("XLMRoberta", "ForSequenceClassification")
XL = Case("XLMRobertaXL", "ForMaskedLM")
NF4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
INT8 = BitsAndBytesConfig(load_in_8bit=True)
DENSE = "roberta.encoder.layer.0.output.dense.weight"
SCHEMES = {
    "int8": "int8",
    "int4": Int4(),
    "nf4 skip": Nf4(("query", "embeddings"), 32),
    "bnb nf4": NF4,
    "bnb fp4 bf16": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_storage="bfloat16"),
    "bnb int8": INT8,
}


def built(case=MASKED_LM, **changes):
    return case.build(**{**WIDE, **changes})


@cache
def kept(name, case=MASKED_LM):
    """A quantized model, made once; for tests that leave it as it is."""
    return quantize(built(case), SCHEMES[name])


@cache
def plain():
    """Not quantized; for tests that leave it as it is."""
    return built()


def logits_of(model, inputs):
    return model.set_packing("never")(inputs).logits


def same_tensors(one, other):
    with open_checkpoint(one) as ours, open_checkpoint(other) as theirs:
        assert set(ours.names) == set(theirs.names)
        for name in theirs.names:
            mine, wanted = ours.tensor(name), theirs.tensor(name)
            assert (mine.dtype, mine.shape, bytes(mine.data)) == (wanted.dtype, wanted.shape, bytes(wanted.data)), name
