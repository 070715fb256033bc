"""XLM-RoBERTa base and large (Conneau et al. 2020): post-LN encoder, seven heads."""

from __future__ import annotations

from xlmr_core.config import XLMRobertaConfig
from xlmr_torch import heads, lm_heads
from xlmr_torch.encoder import EncoderModel
from xlmr_torch.pretrained import PreTrainedModel

__all__ = [
    "XLMRobertaForCausalLM",
    "XLMRobertaForMaskedLM",
    "XLMRobertaForMultipleChoice",
    "XLMRobertaForQuestionAnswering",
    "XLMRobertaForSequenceClassification",
    "XLMRobertaForTokenClassification",
    "XLMRobertaModel",
    "XLMRobertaPreTrainedModel",
]


class XLMRobertaPreTrainedModel(PreTrainedModel):
    """Base class of everything with a base or large encoder, your own classes too, see
    :class:`~xlmr_torch.pretrained.PreTrainedModel`.
    """

    config_class = XLMRobertaConfig


class XLMRobertaModel(EncoderModel, XLMRobertaPreTrainedModel):
    __doc__ = EncoderModel.__doc__
    pre_norm = False


class XLMRobertaForMaskedLM(lm_heads.MaskedLM, XLMRobertaPreTrainedModel):
    """Masked language modelling with a base or large encoder."""

    encoder_class = XLMRobertaModel


class XLMRobertaForCausalLM(lm_heads.CausalLM, XLMRobertaPreTrainedModel):
    """Left-to-right language modelling with a base or large encoder; set ``config.is_decoder = True``."""

    encoder_class = XLMRobertaModel


class XLMRobertaForSequenceClassification(heads.SequenceClassification, XLMRobertaPreTrainedModel):
    """Classification or regression of sequences with a base or large encoder."""

    encoder_class = XLMRobertaModel


class XLMRobertaForMultipleChoice(heads.MultipleChoice, XLMRobertaPreTrainedModel):
    """Choice between sequences with a base or large encoder."""

    encoder_class = XLMRobertaModel


class XLMRobertaForTokenClassification(heads.TokenClassification, XLMRobertaPreTrainedModel):
    """Classification of tokens with a base or large encoder."""

    encoder_class = XLMRobertaModel


class XLMRobertaForQuestionAnswering(heads.QuestionAnswering, XLMRobertaPreTrainedModel):
    """Extractive question answering with a base or large encoder."""

    encoder_class = XLMRobertaModel
