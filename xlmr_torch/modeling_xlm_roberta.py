"""XLM-RoBERTa base and large (Conneau et al. 2020): post-LN encoder, seven heads."""

from __future__ import annotations

from xlmr_core.config import XLMRobertaConfig
from xlmr_torch import heads, lm_heads
from xlmr_torch.encoder import EncoderModel

__all__ = [
    "XLMRobertaForCausalLM",
    "XLMRobertaForMaskedLM",
    "XLMRobertaForMultipleChoice",
    "XLMRobertaForQuestionAnswering",
    "XLMRobertaForSequenceClassification",
    "XLMRobertaForTokenClassification",
    "XLMRobertaModel",
]


class XLMRobertaModel(EncoderModel):
    __doc__ = EncoderModel.__doc__
    config_class = XLMRobertaConfig
    pre_norm = False


class XLMRobertaForMaskedLM(lm_heads.MaskedLM):
    """Masked language modelling with a base or large encoder."""

    config_class = XLMRobertaConfig
    encoder_class = XLMRobertaModel


class XLMRobertaForCausalLM(lm_heads.CausalLM):
    """Left-to-right language modelling with a base or large encoder; set ``config.is_decoder = True``."""

    config_class = XLMRobertaConfig
    encoder_class = XLMRobertaModel


class XLMRobertaForSequenceClassification(heads.SequenceClassification):
    """Classification or regression of sequences with a base or large encoder."""

    config_class = XLMRobertaConfig
    encoder_class = XLMRobertaModel


class XLMRobertaForMultipleChoice(heads.MultipleChoice):
    """Choice between sequences with a base or large encoder."""

    config_class = XLMRobertaConfig
    encoder_class = XLMRobertaModel


class XLMRobertaForTokenClassification(heads.TokenClassification):
    """Classification of tokens with a base or large encoder."""

    config_class = XLMRobertaConfig
    encoder_class = XLMRobertaModel


class XLMRobertaForQuestionAnswering(heads.QuestionAnswering):
    """Extractive question answering with a base or large encoder."""

    config_class = XLMRobertaConfig
    encoder_class = XLMRobertaModel
