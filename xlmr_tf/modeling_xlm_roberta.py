"""XLM-RoBERTa base and large (Conneau et al. 2020): post-LN encoder, seven heads."""

from __future__ import annotations

from xlmr_core.config import XLMRobertaConfig
from xlmr_tf import heads, lm_heads
from xlmr_tf.encoder import EncoderModel

__all__ = [
    "TFXLMRobertaForCausalLM",
    "TFXLMRobertaForMaskedLM",
    "TFXLMRobertaForMultipleChoice",
    "TFXLMRobertaForQuestionAnswering",
    "TFXLMRobertaForSequenceClassification",
    "TFXLMRobertaForTokenClassification",
    "TFXLMRobertaModel",
]


class TFXLMRobertaModel(EncoderModel):
    __doc__ = EncoderModel.__doc__
    config_class = XLMRobertaConfig
    pre_norm = False


class TFXLMRobertaForMaskedLM(lm_heads.MaskedLM):
    """Masked language modelling with a base or large encoder."""

    config_class = XLMRobertaConfig
    encoder_class = TFXLMRobertaModel


class TFXLMRobertaForCausalLM(lm_heads.CausalLM):
    """Left-to-right language modelling with a base or large encoder; set ``config.is_decoder = True``."""

    config_class = XLMRobertaConfig
    encoder_class = TFXLMRobertaModel


class TFXLMRobertaForSequenceClassification(heads.SequenceClassification):
    """Classification or regression of sequences with a base or large encoder."""

    config_class = XLMRobertaConfig
    encoder_class = TFXLMRobertaModel


class TFXLMRobertaForMultipleChoice(heads.MultipleChoice):
    """Choice between sequences with a base or large encoder."""

    config_class = XLMRobertaConfig
    encoder_class = TFXLMRobertaModel


class TFXLMRobertaForTokenClassification(heads.TokenClassification):
    """Classification of tokens with a base or large encoder."""

    config_class = XLMRobertaConfig
    encoder_class = TFXLMRobertaModel


class TFXLMRobertaForQuestionAnswering(heads.QuestionAnswering):
    """Extractive question answering with a base or large encoder."""

    config_class = XLMRobertaConfig
    encoder_class = TFXLMRobertaModel
