"""XLM-RoBERTa-XL and -XXL (Goyal et al. 2021): pre-LN encoder, seven heads."""

from __future__ import annotations

from typing import ClassVar

from xlmr_core.config import XLMRobertaXLConfig
from xlmr_torch import heads, lm_heads
from xlmr_torch.encoder import EncoderModel
from xlmr_torch.parts_xlm_roberta_xl import (
    XLMRobertaXLAttention,
    XLMRobertaXLClassificationHead,
    XLMRobertaXLEmbeddings,
    XLMRobertaXLEncoder,
    XLMRobertaXLIntermediate,
    XLMRobertaXLLayer,
    XLMRobertaXLLMHead,
    XLMRobertaXLOutput,
    XLMRobertaXLPooler,
    XLMRobertaXLSdpaSelfAttention,
    XLMRobertaXLSelfAttention,
    XLMRobertaXLSelfOutput,
    create_position_ids_from_input_ids,
)
from xlmr_torch.pretrained import PreTrainedModel

__all__ = [
    "XLMRobertaXLAttention",
    "XLMRobertaXLClassificationHead",
    "XLMRobertaXLEmbeddings",
    "XLMRobertaXLEncoder",
    "XLMRobertaXLForCausalLM",
    "XLMRobertaXLForMaskedLM",
    "XLMRobertaXLForMultipleChoice",
    "XLMRobertaXLForQuestionAnswering",
    "XLMRobertaXLForSequenceClassification",
    "XLMRobertaXLForTokenClassification",
    "XLMRobertaXLIntermediate",
    "XLMRobertaXLLMHead",
    "XLMRobertaXLLayer",
    "XLMRobertaXLModel",
    "XLMRobertaXLOutput",
    "XLMRobertaXLPooler",
    "XLMRobertaXLPreTrainedModel",
    "XLMRobertaXLSdpaSelfAttention",
    "XLMRobertaXLSelfAttention",
    "XLMRobertaXLSelfOutput",
    "create_position_ids_from_input_ids",
]


class XLMRobertaXLPreTrainedModel(PreTrainedModel):
    """Base class of everything with an XL or XXL encoder, your own classes too, see
    :class:`~xlmr_torch.pretrained.PreTrainedModel`.
    """

    config_class = XLMRobertaXLConfig
    _no_split_modules: ClassVar[list[str] | None] = ["XLMRobertaXLEmbeddings", "XLMRobertaXLLayer"]


class XLMRobertaXLModel(EncoderModel, XLMRobertaXLPreTrainedModel):
    __doc__ = EncoderModel.__doc__
    embeddings_class, layers_class, pooler_class = XLMRobertaXLEmbeddings, XLMRobertaXLEncoder, XLMRobertaXLPooler


class XLMRobertaXLForMaskedLM(lm_heads.MaskedLM, XLMRobertaXLPreTrainedModel):
    """Masked language modelling with an XL or XXL encoder."""

    encoder_class, head_class = XLMRobertaXLModel, XLMRobertaXLLMHead


class XLMRobertaXLForCausalLM(lm_heads.CausalLM, XLMRobertaXLPreTrainedModel):
    """Left-to-right language modelling with an XL or XXL encoder; set ``config.is_decoder = True``."""

    encoder_class, head_class = XLMRobertaXLModel, XLMRobertaXLLMHead


class XLMRobertaXLForSequenceClassification(heads.SequenceClassification, XLMRobertaXLPreTrainedModel):
    """Classification or regression of sequences with an XL or XXL encoder."""

    encoder_class, head_class = XLMRobertaXLModel, XLMRobertaXLClassificationHead


class XLMRobertaXLForMultipleChoice(heads.MultipleChoice, XLMRobertaXLPreTrainedModel):
    """Choice between sequences with an XL or XXL encoder."""

    encoder_class = XLMRobertaXLModel


class XLMRobertaXLForTokenClassification(heads.TokenClassification, XLMRobertaXLPreTrainedModel):
    """Classification of tokens with an XL or XXL encoder."""

    encoder_class = XLMRobertaXLModel
    counts_masked_labels = False


class XLMRobertaXLForQuestionAnswering(heads.QuestionAnswering, XLMRobertaXLPreTrainedModel):
    """Extractive question answering with an XL or XXL encoder."""

    encoder_class = XLMRobertaXLModel
