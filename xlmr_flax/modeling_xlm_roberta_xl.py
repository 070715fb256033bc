"""XLM-RoBERTa-XL and -XXL (Goyal et al. 2021): pre-LN encoder, seven heads."""

from __future__ import annotations

from xlmr_core.config import XLMRobertaXLConfig
from xlmr_flax import heads, lm_heads
from xlmr_flax.encoder import EncoderModel

__all__ = [
    "FlaxXLMRobertaXLForCausalLM",
    "FlaxXLMRobertaXLForMaskedLM",
    "FlaxXLMRobertaXLForMultipleChoice",
    "FlaxXLMRobertaXLForQuestionAnswering",
    "FlaxXLMRobertaXLForSequenceClassification",
    "FlaxXLMRobertaXLForTokenClassification",
    "FlaxXLMRobertaXLModel",
]


class FlaxXLMRobertaXLModel(EncoderModel):
    __doc__ = EncoderModel.__doc__
    config_class = XLMRobertaXLConfig
    pre_norm = True


class FlaxXLMRobertaXLForMaskedLM(lm_heads.MaskedLM):
    """Masked language modelling with an XL or XXL encoder."""

    config_class = XLMRobertaXLConfig
    encoder_class = FlaxXLMRobertaXLModel


class FlaxXLMRobertaXLForCausalLM(lm_heads.CausalLM):
    """Left-to-right language modelling with an XL or XXL encoder; set ``config.is_decoder = True``."""

    config_class = XLMRobertaXLConfig
    encoder_class = FlaxXLMRobertaXLModel


class FlaxXLMRobertaXLForSequenceClassification(heads.SequenceClassification):
    """Classification or regression of sequences with an XL or XXL encoder."""

    config_class = XLMRobertaXLConfig
    encoder_class = FlaxXLMRobertaXLModel


class FlaxXLMRobertaXLForMultipleChoice(heads.MultipleChoice):
    """Choice between sequences with an XL or XXL encoder."""

    config_class = XLMRobertaXLConfig
    encoder_class = FlaxXLMRobertaXLModel


class FlaxXLMRobertaXLForTokenClassification(heads.TokenClassification):
    """Classification of tokens with an XL or XXL encoder."""

    config_class = XLMRobertaXLConfig
    encoder_class = FlaxXLMRobertaXLModel
    counts_masked_labels = False


class FlaxXLMRobertaXLForQuestionAnswering(heads.QuestionAnswering):
    """Extractive question answering with an XL or XXL encoder."""

    config_class = XLMRobertaXLConfig
    encoder_class = FlaxXLMRobertaXLModel
