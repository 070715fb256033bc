"""XLM-RoBERTa base and large (Conneau et al. 2020): post-LN encoder, seven heads."""

from __future__ import annotations

from xlmr_core.config import XLMRobertaConfig
from xlmr_flax import heads, lm_heads
from xlmr_flax.encoder import EncoderModel

__all__ = [
    "FlaxXLMRobertaForCausalLM",
    "FlaxXLMRobertaForMaskedLM",
    "FlaxXLMRobertaForMultipleChoice",
    "FlaxXLMRobertaForQuestionAnswering",
    "FlaxXLMRobertaForSequenceClassification",
    "FlaxXLMRobertaForTokenClassification",
    "FlaxXLMRobertaModel",
]


class FlaxXLMRobertaModel(EncoderModel):
    __doc__ = EncoderModel.__doc__
    config_class = XLMRobertaConfig
    pre_norm = False


class FlaxXLMRobertaForMaskedLM(lm_heads.MaskedLM):
    """Masked language modelling with a base or large encoder."""

    config_class = XLMRobertaConfig
    encoder_class = FlaxXLMRobertaModel


class FlaxXLMRobertaForCausalLM(lm_heads.CausalLM):
    """Left-to-right language modelling with a base or large encoder; set ``config.is_decoder = True``."""

    config_class = XLMRobertaConfig
    encoder_class = FlaxXLMRobertaModel


class FlaxXLMRobertaForSequenceClassification(heads.SequenceClassification):
    """Classification or regression of sequences with a base or large encoder."""

    config_class = XLMRobertaConfig
    encoder_class = FlaxXLMRobertaModel


class FlaxXLMRobertaForMultipleChoice(heads.MultipleChoice):
    """Choice between sequences with a base or large encoder."""

    config_class = XLMRobertaConfig
    encoder_class = FlaxXLMRobertaModel


class FlaxXLMRobertaForTokenClassification(heads.TokenClassification):
    """Classification of tokens with a base or large encoder."""

    config_class = XLMRobertaConfig
    encoder_class = FlaxXLMRobertaModel


class FlaxXLMRobertaForQuestionAnswering(heads.QuestionAnswering):
    """Extractive question answering with a base or large encoder."""

    config_class = XLMRobertaConfig
    encoder_class = FlaxXLMRobertaModel
