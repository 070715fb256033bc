"""XLM-RoBERTa base and large (Conneau et al. 2020): post-LN encoder, seven heads."""

from __future__ import annotations

from typing import ClassVar

from xlmr_core.config import XLMRobertaConfig
from xlmr_torch import heads, lm_heads
from xlmr_torch.encoder import EncoderModel
from xlmr_torch.parts_xlm_roberta import (
    XLMRobertaAttention,
    XLMRobertaClassificationHead,
    XLMRobertaEmbeddings,
    XLMRobertaEncoder,
    XLMRobertaIntermediate,
    XLMRobertaLayer,
    XLMRobertaLMHead,
    XLMRobertaOutput,
    XLMRobertaPooler,
    XLMRobertaSdpaSelfAttention,
    XLMRobertaSelfAttention,
    XLMRobertaSelfOutput,
    create_position_ids_from_input_ids,
)
from xlmr_torch.pretrained import PreTrainedModel

__all__ = [
    "XLMRobertaAttention",
    "XLMRobertaClassificationHead",
    "XLMRobertaEmbeddings",
    "XLMRobertaEncoder",
    "XLMRobertaForCausalLM",
    "XLMRobertaForMaskedLM",
    "XLMRobertaForMultipleChoice",
    "XLMRobertaForQuestionAnswering",
    "XLMRobertaForSequenceClassification",
    "XLMRobertaForTokenClassification",
    "XLMRobertaIntermediate",
    "XLMRobertaLMHead",
    "XLMRobertaLayer",
    "XLMRobertaModel",
    "XLMRobertaOutput",
    "XLMRobertaPooler",
    "XLMRobertaPreTrainedModel",
    "XLMRobertaSdpaSelfAttention",
    "XLMRobertaSelfAttention",
    "XLMRobertaSelfOutput",
    "create_position_ids_from_input_ids",
]


class XLMRobertaPreTrainedModel(PreTrainedModel):
    """Base class of everything with a base or large encoder, your own classes too, see
    :class:`~xlmr_torch.pretrained.PreTrainedModel`.
    """

    config_class = XLMRobertaConfig
    _no_split_modules: ClassVar[list[str] | None] = ["XLMRobertaEmbeddings", "XLMRobertaLayer"]


class XLMRobertaModel(EncoderModel, XLMRobertaPreTrainedModel):
    __doc__ = EncoderModel.__doc__
    embeddings_class, layers_class, pooler_class = XLMRobertaEmbeddings, XLMRobertaEncoder, XLMRobertaPooler


class XLMRobertaForMaskedLM(lm_heads.MaskedLM, XLMRobertaPreTrainedModel):
    """Masked language modelling with a base or large encoder."""

    encoder_class, head_class = XLMRobertaModel, XLMRobertaLMHead


class XLMRobertaForCausalLM(lm_heads.CausalLM, XLMRobertaPreTrainedModel):
    """Left-to-right language modelling with a base or large encoder; set ``config.is_decoder = True``."""

    encoder_class, head_class = XLMRobertaModel, XLMRobertaLMHead


class XLMRobertaForSequenceClassification(heads.SequenceClassification, XLMRobertaPreTrainedModel):
    """Classification or regression of sequences with a base or large encoder."""

    encoder_class, head_class = XLMRobertaModel, XLMRobertaClassificationHead


class XLMRobertaForMultipleChoice(heads.MultipleChoice, XLMRobertaPreTrainedModel):
    """Choice between sequences with a base or large encoder."""

    encoder_class = XLMRobertaModel


class XLMRobertaForTokenClassification(heads.TokenClassification, XLMRobertaPreTrainedModel):
    """Classification of tokens with a base or large encoder."""

    encoder_class = XLMRobertaModel


class XLMRobertaForQuestionAnswering(heads.QuestionAnswering, XLMRobertaPreTrainedModel):
    """Extractive question answering with a base or large encoder."""

    encoder_class = XLMRobertaModel
