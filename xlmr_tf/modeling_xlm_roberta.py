"""XLM-RoBERTa base and large (Conneau et al. 2020): post-LN encoder, seven heads. As in the published module the parts
can be imported from here.
"""

from __future__ import annotations

from xlmr_core.config import XLMRobertaConfig
from xlmr_tf import heads, lm_heads
from xlmr_tf.encoder import EncoderModel
from xlmr_tf.parts_xlm_roberta import (
    TFXLMRobertaAttention,
    TFXLMRobertaClassificationHead,
    TFXLMRobertaEmbeddings,
    TFXLMRobertaEncoder,
    TFXLMRobertaIntermediate,
    TFXLMRobertaLayer,
    TFXLMRobertaLMHead,
    TFXLMRobertaOutput,
    TFXLMRobertaPooler,
    TFXLMRobertaSelfAttention,
    TFXLMRobertaSelfOutput,
)
from xlmr_tf.pretrained import PreTrainedModel

__all__ = [
    "TFXLMRobertaAttention",
    "TFXLMRobertaClassificationHead",
    "TFXLMRobertaEmbeddings",
    "TFXLMRobertaEncoder",
    "TFXLMRobertaForCausalLM",
    "TFXLMRobertaForMaskedLM",
    "TFXLMRobertaForMultipleChoice",
    "TFXLMRobertaForQuestionAnswering",
    "TFXLMRobertaForSequenceClassification",
    "TFXLMRobertaForTokenClassification",
    "TFXLMRobertaIntermediate",
    "TFXLMRobertaLMHead",
    "TFXLMRobertaLayer",
    "TFXLMRobertaMainLayer",
    "TFXLMRobertaModel",
    "TFXLMRobertaOutput",
    "TFXLMRobertaPooler",
    "TFXLMRobertaPreTrainedModel",
    "TFXLMRobertaSelfAttention",
    "TFXLMRobertaSelfOutput",
]


class TFXLMRobertaPreTrainedModel(PreTrainedModel):
    """Base class of everything with a base or large encoder, your own classes too, see
    :class:`~xlmr_tf.pretrained.PreTrainedModel`.
    """

    config_class = XLMRobertaConfig


class TFXLMRobertaModel(EncoderModel, TFXLMRobertaPreTrainedModel):
    __doc__ = EncoderModel.__doc__
    pre_norm = False


class TFXLMRobertaMainLayer(TFXLMRobertaModel):
    """The encoder as a layer of a class of one's own, which a Keras model is."""


class TFXLMRobertaForMaskedLM(lm_heads.MaskedLM, TFXLMRobertaPreTrainedModel):
    """Masked language modelling with a base or large encoder."""

    encoder_class = TFXLMRobertaModel


class TFXLMRobertaForCausalLM(lm_heads.CausalLM, TFXLMRobertaPreTrainedModel):
    """Left-to-right language modelling with a base or large encoder; set ``config.is_decoder = True``."""

    encoder_class = TFXLMRobertaModel


class TFXLMRobertaForSequenceClassification(heads.SequenceClassification, TFXLMRobertaPreTrainedModel):
    """Classification or regression of sequences with a base or large encoder."""

    encoder_class = TFXLMRobertaModel


class TFXLMRobertaForMultipleChoice(heads.MultipleChoice, TFXLMRobertaPreTrainedModel):
    """Choice between sequences with a base or large encoder."""

    encoder_class = TFXLMRobertaModel


class TFXLMRobertaForTokenClassification(heads.TokenClassification, TFXLMRobertaPreTrainedModel):
    """Classification of tokens with a base or large encoder."""

    encoder_class = TFXLMRobertaModel


class TFXLMRobertaForQuestionAnswering(heads.QuestionAnswering, TFXLMRobertaPreTrainedModel):
    """Extractive question answering with a base or large encoder."""

    encoder_class = TFXLMRobertaModel
