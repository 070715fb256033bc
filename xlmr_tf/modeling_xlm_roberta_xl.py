"""XLM-RoBERTa-XL and -XXL (Goyal et al. 2021): pre-LN encoder, seven heads."""

from __future__ import annotations

from xlmr_core.config import XLMRobertaXLConfig
from xlmr_tf import heads, lm_heads
from xlmr_tf.encoder import EncoderModel
from xlmr_tf.pretrained import PreTrainedModel

__all__ = [
    "TFXLMRobertaXLForCausalLM",
    "TFXLMRobertaXLForMaskedLM",
    "TFXLMRobertaXLForMultipleChoice",
    "TFXLMRobertaXLForQuestionAnswering",
    "TFXLMRobertaXLForSequenceClassification",
    "TFXLMRobertaXLForTokenClassification",
    "TFXLMRobertaXLModel",
    "TFXLMRobertaXLPreTrainedModel",
]


class TFXLMRobertaXLPreTrainedModel(PreTrainedModel):
    """Base class of everything with an XL or XXL encoder, your own classes too, see
    :class:`~xlmr_tf.pretrained.PreTrainedModel`.
    """

    config_class = XLMRobertaXLConfig


class TFXLMRobertaXLModel(EncoderModel, TFXLMRobertaXLPreTrainedModel):
    __doc__ = EncoderModel.__doc__
    pre_norm = True


class TFXLMRobertaXLForMaskedLM(lm_heads.MaskedLM, TFXLMRobertaXLPreTrainedModel):
    """Masked language modelling with an XL or XXL encoder."""

    encoder_class = TFXLMRobertaXLModel


class TFXLMRobertaXLForCausalLM(lm_heads.CausalLM, TFXLMRobertaXLPreTrainedModel):
    """Left-to-right language modelling with an XL or XXL encoder; set ``config.is_decoder = True``."""

    encoder_class = TFXLMRobertaXLModel


class TFXLMRobertaXLForSequenceClassification(heads.SequenceClassification, TFXLMRobertaXLPreTrainedModel):
    """Classification or regression of sequences with an XL or XXL encoder."""

    encoder_class = TFXLMRobertaXLModel


class TFXLMRobertaXLForMultipleChoice(heads.MultipleChoice, TFXLMRobertaXLPreTrainedModel):
    """Choice between sequences with an XL or XXL encoder."""

    encoder_class = TFXLMRobertaXLModel


class TFXLMRobertaXLForTokenClassification(heads.TokenClassification, TFXLMRobertaXLPreTrainedModel):
    """Classification of tokens with an XL or XXL encoder."""

    encoder_class = TFXLMRobertaXLModel
    counts_masked_labels = False


class TFXLMRobertaXLForQuestionAnswering(heads.QuestionAnswering, TFXLMRobertaXLPreTrainedModel):
    """Extractive question answering with an XL or XXL encoder."""

    encoder_class = TFXLMRobertaXLModel
