"""XLM-RoBERTa-XL and -XXL (Goyal et al. 2021): pre-LN encoder, seven heads."""

from __future__ import annotations

from xlmr_core.config import XLMRobertaXLConfig
from xlmr_flax import heads, lm_heads
from xlmr_flax.embeddings import create_position_ids_from_input_ids
from xlmr_flax.encoder import EncoderModel
from xlmr_flax.pretrained import PreTrainedModel

__all__ = [
    "FlaxXLMRobertaXLForCausalLM",
    "FlaxXLMRobertaXLForMaskedLM",
    "FlaxXLMRobertaXLForMultipleChoice",
    "FlaxXLMRobertaXLForQuestionAnswering",
    "FlaxXLMRobertaXLForSequenceClassification",
    "FlaxXLMRobertaXLForTokenClassification",
    "FlaxXLMRobertaXLModel",
    "FlaxXLMRobertaXLPreTrainedModel",
    "create_position_ids_from_input_ids",
]


class FlaxXLMRobertaXLPreTrainedModel(PreTrainedModel):
    """Base class of everything with an XL or XXL encoder."""

    config_class = XLMRobertaXLConfig


class FlaxXLMRobertaXLModel(EncoderModel, FlaxXLMRobertaXLPreTrainedModel):
    __doc__ = EncoderModel.__doc__
    pre_norm = True


class FlaxXLMRobertaXLForMaskedLM(lm_heads.MaskedLM, FlaxXLMRobertaXLPreTrainedModel):
    """Masked language modelling with an XL or XXL encoder."""

    encoder_class = FlaxXLMRobertaXLModel


class FlaxXLMRobertaXLForCausalLM(lm_heads.CausalLM, FlaxXLMRobertaXLPreTrainedModel):
    """Left-to-right language modelling with an XL or XXL encoder; set ``config.is_decoder = True``."""

    encoder_class = FlaxXLMRobertaXLModel


class FlaxXLMRobertaXLForSequenceClassification(heads.SequenceClassification, FlaxXLMRobertaXLPreTrainedModel):
    """Classification or regression of sequences with an XL or XXL encoder."""

    encoder_class = FlaxXLMRobertaXLModel


class FlaxXLMRobertaXLForMultipleChoice(heads.MultipleChoice, FlaxXLMRobertaXLPreTrainedModel):
    """Choice between sequences with an XL or XXL encoder."""

    encoder_class = FlaxXLMRobertaXLModel


class FlaxXLMRobertaXLForTokenClassification(heads.TokenClassification, FlaxXLMRobertaXLPreTrainedModel):
    """Classification of tokens with an XL or XXL encoder."""

    encoder_class = FlaxXLMRobertaXLModel
    counts_masked_labels = False


class FlaxXLMRobertaXLForQuestionAnswering(heads.QuestionAnswering, FlaxXLMRobertaXLPreTrainedModel):
    """Extractive question answering with an XL or XXL encoder."""

    encoder_class = FlaxXLMRobertaXLModel
