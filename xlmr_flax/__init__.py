"""XLM-RoBERTa and XLM-RoBERTa-XL for Flax on JAX, under the published names.

from xlmr_flax import AutoTokenizer, FlaxXLMRobertaForSequenceClassification, pipeline
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xlmr_core import __version__
from xlmr_core.config import AutoConfig, EncoderDecoderConfig, PretrainedConfig, XLMRobertaConfig, XLMRobertaXLConfig
from xlmr_core.importing import import_when_used
from xlmr_flax.auto import (
    FlaxAutoModel,
    FlaxAutoModelForCausalLM,
    FlaxAutoModelForMaskedLM,
    FlaxAutoModelForMultipleChoice,
    FlaxAutoModelForPreTraining,
    FlaxAutoModelForQuestionAnswering,
    FlaxAutoModelForSeq2SeqLM,
    FlaxAutoModelForSequenceClassification,
    FlaxAutoModelForTokenClassification,
)
from xlmr_flax.cache import Cache
from xlmr_flax.encoder_decoder import FlaxEncoderDecoderModel
from xlmr_flax.modeling_xlm_roberta import (
    FlaxXLMRobertaForCausalLM,
    FlaxXLMRobertaForMaskedLM,
    FlaxXLMRobertaForMultipleChoice,
    FlaxXLMRobertaForQuestionAnswering,
    FlaxXLMRobertaForSequenceClassification,
    FlaxXLMRobertaForTokenClassification,
    FlaxXLMRobertaModel,
    FlaxXLMRobertaPreTrainedModel,
)
from xlmr_flax.modeling_xlm_roberta_xl import (
    FlaxXLMRobertaXLForCausalLM,
    FlaxXLMRobertaXLForMaskedLM,
    FlaxXLMRobertaXLForMultipleChoice,
    FlaxXLMRobertaXLForQuestionAnswering,
    FlaxXLMRobertaXLForSequenceClassification,
    FlaxXLMRobertaXLForTokenClassification,
    FlaxXLMRobertaXLModel,
    FlaxXLMRobertaXLPreTrainedModel,
)
from xlmr_flax.tensors import register_outputs, to_tensor

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
    from xlmr_flax.collators import (
        DataCollatorForLanguageModeling,
        DataCollatorForMultipleChoice,
        DataCollatorForSeq2Seq,
        DataCollatorForTokenClassification,
        DataCollatorForWholeWordMask,
        DataCollatorWithPadding,
        DefaultDataCollator,
        default_data_collator,
    )
    from xlmr_flax.pipelines import pipeline
    from xlmr_flax.quantized import quantize
    from xlmr_flax.schedules import learning_rate_schedule
    from xlmr_flax.vectors import BGEM3FlagModel, CrossEncoder, SentenceTransformer

__all__ = [
    "AutoConfig",
    "AutoTokenizer",
    "BGEM3FlagModel",
    "BitsAndBytesConfig",
    "Cache",
    "CrossEncoder",
    "EncoderDecoderConfig",
    "FeatureExtractionPipeline",
    "FillMaskPipeline",
    "FlaxAutoModel",
    "FlaxAutoModelForCausalLM",
    "FlaxAutoModelForMaskedLM",
    "FlaxAutoModelForMultipleChoice",
    "FlaxAutoModelForPreTraining",
    "FlaxAutoModelForQuestionAnswering",
    "FlaxAutoModelForSeq2SeqLM",
    "FlaxAutoModelForSequenceClassification",
    "FlaxAutoModelForTokenClassification",
    "FlaxEncoderDecoderModel",
    "FlaxXLMRobertaForCausalLM",
    "FlaxXLMRobertaForMaskedLM",
    "FlaxXLMRobertaForMultipleChoice",
    "FlaxXLMRobertaForQuestionAnswering",
    "FlaxXLMRobertaForSequenceClassification",
    "FlaxXLMRobertaForTokenClassification",
    "FlaxXLMRobertaModel",
    "FlaxXLMRobertaPreTrainedModel",
    "FlaxXLMRobertaXLForCausalLM",
    "FlaxXLMRobertaXLForMaskedLM",
    "FlaxXLMRobertaXLForMultipleChoice",
    "FlaxXLMRobertaXLForQuestionAnswering",
    "FlaxXLMRobertaXLForSequenceClassification",
    "FlaxXLMRobertaXLForTokenClassification",
    "FlaxXLMRobertaXLModel",
    "FlaxXLMRobertaXLPreTrainedModel",
    "MultipleChoicePipeline",
    "PretrainedConfig",
    "SentenceTransformer",
    "QuestionAnsweringPipeline",
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
    "learning_rate_schedule",
    "__version__",
    "pipeline",
    "quantize",
    "to_tensor",
]

register_outputs()

# Imported when first used: a model alone needs neither tokenizers nor pipelines.
__getattr__ = import_when_used(
    globals(),
    {
        "AutoTokenizer": "xlmr_core.tokenization",
        "XLMRobertaTokenizer": "xlmr_core.tokenization",
        "XLMRobertaTokenizerFast": "xlmr_core.tokenization",
        "BGEM3FlagModel": "xlmr_flax.vectors",
        "BitsAndBytesConfig": "xlmr_core.quantization",
        "quantize": "xlmr_flax.quantized",
        "CrossEncoder": "xlmr_flax.vectors",
        "SentenceTransformer": "xlmr_flax.vectors",
        "pipeline": "xlmr_flax.pipelines",
        "FeatureExtractionPipeline": "xlmr_flax.pipelines",
        "FillMaskPipeline": "xlmr_flax.pipelines",
        "MultipleChoicePipeline": "xlmr_flax.pipelines",
        "QuestionAnsweringPipeline": "xlmr_flax.pipelines",
        "TextClassificationPipeline": "xlmr_flax.pipelines",
        "TokenClassificationPipeline": "xlmr_flax.pipelines",
        "ZeroShotClassificationPipeline": "xlmr_flax.pipelines",
        "SummarizationPipeline": "xlmr_flax.pipelines",
        "Text2TextGenerationPipeline": "xlmr_flax.pipelines",
        "TextGenerationPipeline": "xlmr_flax.pipelines",
        "TranslationPipeline": "xlmr_flax.pipelines",
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
        "DataCollatorForLanguageModeling": "xlmr_flax.collators",
        "DataCollatorForMultipleChoice": "xlmr_flax.collators",
        "DataCollatorForSeq2Seq": "xlmr_flax.collators",
        "DataCollatorForTokenClassification": "xlmr_flax.collators",
        "DataCollatorForWholeWordMask": "xlmr_flax.collators",
        "DataCollatorWithPadding": "xlmr_flax.collators",
        "DefaultDataCollator": "xlmr_flax.collators",
        "default_data_collator": "xlmr_flax.collators",
        "learning_rate_schedule": "xlmr_flax.schedules",
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
