"""XLM-RoBERTa base and large (Conneau et al. 2020): post-LN encoder, seven heads."""

from __future__ import annotations

from xlmr_core.config import XLMRobertaConfig
from xlmr_flax import heads, lm_heads
from xlmr_flax.embeddings import create_position_ids_from_input_ids
from xlmr_flax.encoder import EncoderModel
from xlmr_flax.pretrained import PreTrainedModel

__all__ = [
    "FlaxXLMRobertaForCausalLM",
    "FlaxXLMRobertaForMaskedLM",
    "FlaxXLMRobertaForMultipleChoice",
    "FlaxXLMRobertaForQuestionAnswering",
    "FlaxXLMRobertaForSequenceClassification",
    "FlaxXLMRobertaForTokenClassification",
    "FlaxXLMRobertaModel",
    "FlaxXLMRobertaPreTrainedModel",
    "create_position_ids_from_input_ids",
]


class FlaxXLMRobertaPreTrainedModel(PreTrainedModel):
    """Base class of everything with a base or large encoder."""

    config_class = XLMRobertaConfig


class FlaxXLMRobertaModel(EncoderModel, FlaxXLMRobertaPreTrainedModel):
    __doc__ = EncoderModel.__doc__
    pre_norm = False


class FlaxXLMRobertaForMaskedLM(lm_heads.MaskedLM, FlaxXLMRobertaPreTrainedModel):
    """Masked language modelling with a base or large encoder."""

    encoder_class = FlaxXLMRobertaModel


class FlaxXLMRobertaForCausalLM(lm_heads.CausalLM, FlaxXLMRobertaPreTrainedModel):
    """Left-to-right language modelling with a base or large encoder; set ``config.is_decoder = True``."""

    encoder_class = FlaxXLMRobertaModel


class FlaxXLMRobertaForSequenceClassification(heads.SequenceClassification, FlaxXLMRobertaPreTrainedModel):
    """Classification or regression of sequences with a base or large encoder."""

    encoder_class = FlaxXLMRobertaModel


class FlaxXLMRobertaForMultipleChoice(heads.MultipleChoice, FlaxXLMRobertaPreTrainedModel):
    """Choice between sequences with a base or large encoder."""

    encoder_class = FlaxXLMRobertaModel


class FlaxXLMRobertaForTokenClassification(heads.TokenClassification, FlaxXLMRobertaPreTrainedModel):
    """Classification of tokens with a base or large encoder."""

    encoder_class = FlaxXLMRobertaModel


class FlaxXLMRobertaForQuestionAnswering(heads.QuestionAnswering, FlaxXLMRobertaPreTrainedModel):
    """Extractive question answering with a base or large encoder."""

    encoder_class = FlaxXLMRobertaModel
