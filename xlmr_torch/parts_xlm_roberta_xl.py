"""The published parts of XL and XXL models, for code that imports, derives from or looks for them.

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
    "XLMRobertaXLAttention",
    "XLMRobertaXLClassificationHead",
    "XLMRobertaXLEmbeddings",
    "XLMRobertaXLEncoder",
    "XLMRobertaXLIntermediate",
    "XLMRobertaXLLMHead",
    "XLMRobertaXLLayer",
    "XLMRobertaXLOutput",
    "XLMRobertaXLPooler",
    "XLMRobertaXLSdpaSelfAttention",
    "XLMRobertaXLSelfAttention",
    "XLMRobertaXLSelfOutput",
    "create_position_ids_from_input_ids",
]


class XLMRobertaXLEmbeddings(Embeddings):
    __doc__ = Embeddings.__doc__
    pre_norm = True


class XLMRobertaXLSelfAttention(SelfAttention):
    __doc__ = SelfAttention.__doc__


XLMRobertaXLSdpaSelfAttention = XLMRobertaXLSelfAttention  # which kernel it takes is in the configuration


class XLMRobertaXLSelfOutput(AttentionOutput):
    __doc__ = AttentionOutput.__doc__
    pre_norm = True


class XLMRobertaXLAttention(Attention):
    __doc__ = Attention.__doc__
    pre_norm = True
    self_class, output_class = XLMRobertaXLSelfAttention, XLMRobertaXLSelfOutput


class XLMRobertaXLIntermediate(Intermediate):
    __doc__ = Intermediate.__doc__


class XLMRobertaXLOutput(FeedForwardOutput):
    __doc__ = FeedForwardOutput.__doc__
    pre_norm = True


class XLMRobertaXLLayer(Layer):
    __doc__ = Layer.__doc__
    pre_norm = True
    attention_class = XLMRobertaXLAttention
    intermediate_class, output_class = XLMRobertaXLIntermediate, XLMRobertaXLOutput


class XLMRobertaXLEncoder(Encoder):
    __doc__ = Encoder.__doc__
    pre_norm = True
    layer_class = XLMRobertaXLLayer


class XLMRobertaXLPooler(Pooler):
    __doc__ = Pooler.__doc__


class XLMRobertaXLLMHead(LMHead):
    __doc__ = LMHead.__doc__


class XLMRobertaXLClassificationHead(ClassificationHead):
    __doc__ = ClassificationHead.__doc__
