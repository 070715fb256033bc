"""XLM-RoBERTa and XLM-RoBERTa-XL for Keras 3 on TensorFlow, under the published names.

from xlmr_tf import AutoTokenizer, TFXLMRobertaForSequenceClassification, pipeline
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xlmr_core import __version__
from xlmr_core.config import AutoConfig, EncoderDecoderConfig, PretrainedConfig, XLMRobertaConfig, XLMRobertaXLConfig
from xlmr_core.importing import import_when_used
from xlmr_tf import _keras as _keras
from xlmr_tf.auto import (
    TFAutoModel,
    TFAutoModelForCausalLM,
    TFAutoModelForMaskedLM,
    TFAutoModelForMultipleChoice,
    TFAutoModelForPreTraining,
    TFAutoModelForQuestionAnswering,
    TFAutoModelForSeq2SeqLM,
    TFAutoModelForSequenceClassification,
    TFAutoModelForTextEncoding,
    TFAutoModelForTokenClassification,
    TFAutoModelWithLMHead,
)
from xlmr_tf.encoder_decoder import TFEncoderDecoderModel
from xlmr_tf.modeling_xlm_roberta import (
    TFXLMRobertaForCausalLM,
    TFXLMRobertaForMaskedLM,
    TFXLMRobertaForMultipleChoice,
    TFXLMRobertaForQuestionAnswering,
    TFXLMRobertaForSequenceClassification,
    TFXLMRobertaForTokenClassification,
    TFXLMRobertaModel,
    TFXLMRobertaPreTrainedModel,
)
from xlmr_tf.modeling_xlm_roberta_xl import (
    TFXLMRobertaXLForCausalLM,
    TFXLMRobertaXLForMaskedLM,
    TFXLMRobertaXLForMultipleChoice,
    TFXLMRobertaXLForQuestionAnswering,
    TFXLMRobertaXLForSequenceClassification,
    TFXLMRobertaXLForTokenClassification,
    TFXLMRobertaXLModel,
    TFXLMRobertaXLPreTrainedModel,
)
from xlmr_tf.tensors import register_errors, register_outputs, to_tensor

if TYPE_CHECKING:
    from xlmr_core.tasks.published import (
        FeatureExtractionPipeline,
        FillMaskPipeline,
        MultipleChoicePipeline,
        QuestionAnsweringPipeline,
        TextClassificationPipeline,
        TokenClassificationPipeline,
        ZeroShotClassificationPipeline,
    )
    from xlmr_core.tokenization import AutoTokenizer, XLMRobertaTokenizer, XLMRobertaTokenizerFast
    from xlmr_tf.pipelines import pipeline
    from xlmr_tf.vectors import BGEM3FlagModel, CrossEncoder, SentenceTransformer

__all__ = [
    "AutoConfig",
    "AutoTokenizer",
    "BGEM3FlagModel",
    "CrossEncoder",
    "EncoderDecoderConfig",
    "PretrainedConfig",
    "SentenceTransformer",
    "FeatureExtractionPipeline",
    "FillMaskPipeline",
    "MultipleChoicePipeline",
    "QuestionAnsweringPipeline",
    "TFAutoModel",
    "TFAutoModelForCausalLM",
    "TFAutoModelForMaskedLM",
    "TFAutoModelForMultipleChoice",
    "TFAutoModelForPreTraining",
    "TFAutoModelForQuestionAnswering",
    "TFAutoModelForSeq2SeqLM",
    "TFAutoModelForSequenceClassification",
    "TFAutoModelForTextEncoding",
    "TFAutoModelForTokenClassification",
    "TFAutoModelWithLMHead",
    "TFEncoderDecoderModel",
    "TFXLMRobertaForCausalLM",
    "TFXLMRobertaForMaskedLM",
    "TFXLMRobertaForMultipleChoice",
    "TFXLMRobertaForQuestionAnswering",
    "TFXLMRobertaForSequenceClassification",
    "TFXLMRobertaForTokenClassification",
    "TFXLMRobertaModel",
    "TFXLMRobertaPreTrainedModel",
    "TFXLMRobertaXLForCausalLM",
    "TFXLMRobertaXLForMaskedLM",
    "TFXLMRobertaXLForMultipleChoice",
    "TFXLMRobertaXLForQuestionAnswering",
    "TFXLMRobertaXLForSequenceClassification",
    "TFXLMRobertaXLForTokenClassification",
    "TFXLMRobertaXLModel",
    "TFXLMRobertaXLPreTrainedModel",
    "TextClassificationPipeline",
    "TokenClassificationPipeline",
    "XLMRobertaConfig",
    "XLMRobertaTokenizer",
    "XLMRobertaTokenizerFast",
    "XLMRobertaXLConfig",
    "ZeroShotClassificationPipeline",
    "__version__",
    "pipeline",
    "to_tensor",
]

register_outputs()
register_errors()

# Imported when first used: a model alone needs neither tokenizers nor pipelines.
__getattr__ = import_when_used(
    globals(),
    {
        "AutoTokenizer": "xlmr_core.tokenization",
        "XLMRobertaTokenizer": "xlmr_core.tokenization",
        "XLMRobertaTokenizerFast": "xlmr_core.tokenization",
        "BGEM3FlagModel": "xlmr_tf.vectors",
        "CrossEncoder": "xlmr_tf.vectors",
        "SentenceTransformer": "xlmr_tf.vectors",
        "pipeline": "xlmr_tf.pipelines",
        "FeatureExtractionPipeline": "xlmr_tf.pipelines",
        "FillMaskPipeline": "xlmr_tf.pipelines",
        "MultipleChoicePipeline": "xlmr_tf.pipelines",
        "QuestionAnsweringPipeline": "xlmr_tf.pipelines",
        "TextClassificationPipeline": "xlmr_tf.pipelines",
        "TokenClassificationPipeline": "xlmr_tf.pipelines",
        "ZeroShotClassificationPipeline": "xlmr_tf.pipelines",
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
