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
from xlmr_tf.cache import StaticCache
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
    from xlmr_core.generation import (
        AsyncTextIteratorStreamer,
        EosTokenCriteria,
        GenerationConfig,
        LogitsProcessor,
        LogitsProcessorList,
        MaxLengthCriteria,
        MaxTimeCriteria,
        StoppingCriteria,
        StoppingCriteriaList,
        StopStringCriteria,
        TextIteratorStreamer,
        TextStreamer,
    )
    from xlmr_core.quantization import BitsAndBytesConfig
    from xlmr_core.tasks.published import (
        FeatureExtractionPipeline,
        FillMaskPipeline,
        MultipleChoicePipeline,
        QuestionAnsweringPipeline,
        SummarizationPipeline,
        Text2TextGenerationPipeline,
        TextClassificationPipeline,
        TextGenerationPipeline,
        TokenClassificationPipeline,
        TranslationPipeline,
        ZeroShotClassificationPipeline,
    )
    from xlmr_core.tokenization import AutoTokenizer, XLMRobertaTokenizer, XLMRobertaTokenizerFast
    from xlmr_tf.collators import (
        DataCollatorForLanguageModeling,
        DataCollatorForMultipleChoice,
        DataCollatorForSeq2Seq,
        DataCollatorForTokenClassification,
        DataCollatorForWholeWordMask,
        DataCollatorWithPadding,
        DefaultDataCollator,
        default_data_collator,
    )
    from xlmr_tf.pipelines import pipeline
    from xlmr_tf.quantized import quantize
    from xlmr_tf.schedules import WarmUp, create_optimizer, learning_rate_schedule
    from xlmr_tf.vectors import BGEM3FlagModel, CrossEncoder, SentenceTransformer

__all__ = [
    "AutoConfig",
    "AutoTokenizer",
    "BGEM3FlagModel",
    "BitsAndBytesConfig",
    "CrossEncoder",
    "EncoderDecoderConfig",
    "PretrainedConfig",
    "SentenceTransformer",
    "StaticCache",
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
    "AsyncTextIteratorStreamer",
    "EosTokenCriteria",
    "GenerationConfig",
    "LogitsProcessor",
    "LogitsProcessorList",
    "MaxLengthCriteria",
    "MaxTimeCriteria",
    "StoppingCriteria",
    "StoppingCriteriaList",
    "StopStringCriteria",
    "TextIteratorStreamer",
    "TextStreamer",
    "SummarizationPipeline",
    "Text2TextGenerationPipeline",
    "TextGenerationPipeline",
    "TranslationPipeline",
    "XLMRobertaConfig",
    "XLMRobertaTokenizer",
    "XLMRobertaTokenizerFast",
    "XLMRobertaXLConfig",
    "ZeroShotClassificationPipeline",
    "DataCollatorForLanguageModeling",
    "DataCollatorForMultipleChoice",
    "DataCollatorForSeq2Seq",
    "DataCollatorForTokenClassification",
    "DataCollatorForWholeWordMask",
    "DataCollatorWithPadding",
    "DefaultDataCollator",
    "default_data_collator",
    "WarmUp",
    "create_optimizer",
    "learning_rate_schedule",
    "__version__",
    "pipeline",
    "quantize",
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
        "BitsAndBytesConfig": "xlmr_core.quantization",
        "CrossEncoder": "xlmr_tf.vectors",
        "SentenceTransformer": "xlmr_tf.vectors",
        "pipeline": "xlmr_tf.pipelines",
        "quantize": "xlmr_tf.quantized",
        "FeatureExtractionPipeline": "xlmr_tf.pipelines",
        "FillMaskPipeline": "xlmr_tf.pipelines",
        "MultipleChoicePipeline": "xlmr_tf.pipelines",
        "QuestionAnsweringPipeline": "xlmr_tf.pipelines",
        "TextClassificationPipeline": "xlmr_tf.pipelines",
        "TokenClassificationPipeline": "xlmr_tf.pipelines",
        "ZeroShotClassificationPipeline": "xlmr_tf.pipelines",
        "SummarizationPipeline": "xlmr_tf.pipelines",
        "Text2TextGenerationPipeline": "xlmr_tf.pipelines",
        "TextGenerationPipeline": "xlmr_tf.pipelines",
        "TranslationPipeline": "xlmr_tf.pipelines",
        "AsyncTextIteratorStreamer": "xlmr_core.generation",
        "EosTokenCriteria": "xlmr_core.generation",
        "GenerationConfig": "xlmr_core.generation",
        "LogitsProcessor": "xlmr_core.generation",
        "LogitsProcessorList": "xlmr_core.generation",
        "MaxLengthCriteria": "xlmr_core.generation",
        "MaxTimeCriteria": "xlmr_core.generation",
        "StoppingCriteria": "xlmr_core.generation",
        "StoppingCriteriaList": "xlmr_core.generation",
        "StopStringCriteria": "xlmr_core.generation",
        "TextIteratorStreamer": "xlmr_core.generation",
        "TextStreamer": "xlmr_core.generation",
        "DataCollatorForLanguageModeling": "xlmr_tf.collators",
        "DataCollatorForMultipleChoice": "xlmr_tf.collators",
        "DataCollatorForSeq2Seq": "xlmr_tf.collators",
        "DataCollatorForTokenClassification": "xlmr_tf.collators",
        "DataCollatorForWholeWordMask": "xlmr_tf.collators",
        "DataCollatorWithPadding": "xlmr_tf.collators",
        "DefaultDataCollator": "xlmr_tf.collators",
        "default_data_collator": "xlmr_tf.collators",
        "WarmUp": "xlmr_tf.schedules",
        "create_optimizer": "xlmr_tf.schedules",
        "learning_rate_schedule": "xlmr_tf.schedules",
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
