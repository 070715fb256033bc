"""XLM-RoBERTa-XL and -XXL (Goyal et al. 2021): pre-LN encoder, seven heads."""

from __future__ import annotations

from xlmr_core.config import XLMRobertaXLConfig
from xlmr_tf import heads, lm_heads
from xlmr_tf.encoder import EncoderModel

__all__ = [
    "TFXLMRobertaXLForCausalLM",
    "TFXLMRobertaXLForMaskedLM",
    "TFXLMRobertaXLForMultipleChoice",
    "TFXLMRobertaXLForQuestionAnswering",
    "TFXLMRobertaXLForSequenceClassification",
    "TFXLMRobertaXLForTokenClassification",
    "TFXLMRobertaXLModel",
]


class TFXLMRobertaXLModel(EncoderModel):
    __doc__ = EncoderModel.__doc__
    config_class = XLMRobertaXLConfig
    pre_norm = True


class TFXLMRobertaXLForMaskedLM(lm_heads.MaskedLM):
    """Masked language modelling with an XL or XXL encoder."""

    config_class = XLMRobertaXLConfig
    encoder_class = TFXLMRobertaXLModel


class TFXLMRobertaXLForCausalLM(lm_heads.CausalLM):
    """Left-to-right language modelling with an XL or XXL encoder; set ``config.is_decoder = True``."""

    config_class = XLMRobertaXLConfig
    encoder_class = TFXLMRobertaXLModel


class TFXLMRobertaXLForSequenceClassification(heads.SequenceClassification):
    """Classification or regression of sequences with an XL or XXL encoder."""

    config_class = XLMRobertaXLConfig
    encoder_class = TFXLMRobertaXLModel


class TFXLMRobertaXLForMultipleChoice(heads.MultipleChoice):
    """Choice between sequences with an XL or XXL encoder."""

    config_class = XLMRobertaXLConfig
    encoder_class = TFXLMRobertaXLModel


class TFXLMRobertaXLForTokenClassification(heads.TokenClassification):
    """Classification of tokens with an XL or XXL encoder."""

    config_class = XLMRobertaXLConfig
    encoder_class = TFXLMRobertaXLModel
    counts_masked_labels = False


class TFXLMRobertaXLForQuestionAnswering(heads.QuestionAnswering):
    """Extractive question answering with an XL or XXL encoder."""

    config_class = XLMRobertaXLConfig
    encoder_class = TFXLMRobertaXLModel
