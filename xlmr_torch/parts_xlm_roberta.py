"""The published parts of base and large models, for code that imports, derives from or looks for them.

Made by themselves they take the published arguments (``attention_mask`` as ``model.get_extended_attention_mask`` makes
it) and start with values as PyTorch's own layers do. In a model they are given a plan, see :mod:`xlmr_core.calls`.
"""

from __future__ import annotations

from xlmr_torch.attention import Attention, AttentionOutput, SelfAttention
from xlmr_torch.embeddings import Embeddings, create_position_ids_from_input_ids
from xlmr_torch.encoder import Encoder
from xlmr_torch.heads import ClassificationHead
from xlmr_torch.layers import FeedForwardOutput, Intermediate, Layer, Pooler
from xlmr_torch.lm_heads import LMHead

__all__ = [
    "XLMRobertaAttention",
    "XLMRobertaClassificationHead",
    "XLMRobertaEmbeddings",
    "XLMRobertaEncoder",
    "XLMRobertaIntermediate",
    "XLMRobertaLMHead",
    "XLMRobertaLayer",
    "XLMRobertaOutput",
    "XLMRobertaPooler",
    "XLMRobertaSdpaSelfAttention",
    "XLMRobertaSelfAttention",
    "XLMRobertaSelfOutput",
    "create_position_ids_from_input_ids",
]


class XLMRobertaEmbeddings(Embeddings):
    __doc__ = Embeddings.__doc__
    pre_norm = False


class XLMRobertaSelfAttention(SelfAttention):
    __doc__ = SelfAttention.__doc__


XLMRobertaSdpaSelfAttention = XLMRobertaSelfAttention  # which kernel it takes is in the configuration


class XLMRobertaSelfOutput(AttentionOutput):
    __doc__ = AttentionOutput.__doc__
    pre_norm = False


class XLMRobertaAttention(Attention):
    __doc__ = Attention.__doc__
    pre_norm = False
    self_class, output_class = XLMRobertaSelfAttention, XLMRobertaSelfOutput


class XLMRobertaIntermediate(Intermediate):
    __doc__ = Intermediate.__doc__


class XLMRobertaOutput(FeedForwardOutput):
    __doc__ = FeedForwardOutput.__doc__
    pre_norm = False


class XLMRobertaLayer(Layer):
    __doc__ = Layer.__doc__
    pre_norm = False
    attention_class = XLMRobertaAttention
    intermediate_class, output_class = XLMRobertaIntermediate, XLMRobertaOutput


class XLMRobertaEncoder(Encoder):
    __doc__ = Encoder.__doc__
    pre_norm = False
    layer_class = XLMRobertaLayer


class XLMRobertaPooler(Pooler):
    __doc__ = Pooler.__doc__


class XLMRobertaLMHead(LMHead):
    __doc__ = LMHead.__doc__


class XLMRobertaClassificationHead(ClassificationHead):
    __doc__ = ClassificationHead.__doc__
