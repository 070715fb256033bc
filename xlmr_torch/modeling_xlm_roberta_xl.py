"""XLM-RoBERTa-XL and -XXL (Goyal et al. 2021): pre-LN encoder, seven heads."""

from __future__ import annotations

from xlmr_core.config import XLMRobertaXLConfig
from xlmr_torch import heads, lm_heads
from xlmr_torch.encoder import EncoderModel

__all__ = [
    "XLMRobertaXLForCausalLM",
    "XLMRobertaXLForMaskedLM",
    "XLMRobertaXLForMultipleChoice",
    "XLMRobertaXLForQuestionAnswering",
    "XLMRobertaXLForSequenceClassification",
    "XLMRobertaXLForTokenClassification",
    "XLMRobertaXLModel",
]


class XLMRobertaXLModel(EncoderModel):
    __doc__ = EncoderModel.__doc__
    config_class = XLMRobertaXLConfig
    pre_norm = True


class XLMRobertaXLForMaskedLM(lm_heads.MaskedLM):
    """Masked language modelling with an XL or XXL encoder."""

    config_class = XLMRobertaXLConfig
    encoder_class = XLMRobertaXLModel


class XLMRobertaXLForCausalLM(lm_heads.CausalLM):
    """Left-to-right language modelling with an XL or XXL encoder; set ``config.is_decoder = True``."""

    config_class = XLMRobertaXLConfig
    encoder_class = XLMRobertaXLModel


class XLMRobertaXLForSequenceClassification(heads.SequenceClassification):
    """Classification or regression of sequences with an XL or XXL encoder."""

    config_class = XLMRobertaXLConfig
    encoder_class = XLMRobertaXLModel


class XLMRobertaXLForMultipleChoice(heads.MultipleChoice):
    """Choice between sequences with an XL or XXL encoder."""

    config_class = XLMRobertaXLConfig
    encoder_class = XLMRobertaXLModel


class XLMRobertaXLForTokenClassification(heads.TokenClassification):
    """Classification of tokens with an XL or XXL encoder."""

    config_class = XLMRobertaXLConfig
    encoder_class = XLMRobertaXLModel
    counts_masked_labels = False


class XLMRobertaXLForQuestionAnswering(heads.QuestionAnswering):
    """Extractive question answering with an XL or XXL encoder."""

    config_class = XLMRobertaXLConfig
    encoder_class = XLMRobertaXLModel
