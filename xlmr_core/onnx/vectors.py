"""The published classes of other libraries for vectors and ranking; what they do is decided in ``xlmr_core/tasks``."""

from __future__ import annotations

from xlmr_core.onnx.pipelines import pipeline
from xlmr_core.tasks import bge_m3, cross_encoder, sentence_transformer

__all__ = ["BGEM3FlagModel", "CrossEncoder", "SentenceTransformer"]


class SentenceTransformer(sentence_transformer.SentenceTransformer):
    __doc__ = sentence_transformer.SentenceTransformer.__doc__
    _pipeline = staticmethod(pipeline)


class CrossEncoder(cross_encoder.CrossEncoder):
    __doc__ = cross_encoder.CrossEncoder.__doc__
    _pipeline = staticmethod(pipeline)


class BGEM3FlagModel(bge_m3.BGEM3FlagModel):
    __doc__ = bge_m3.BGEM3FlagModel.__doc__
    _pipeline = staticmethod(pipeline)
