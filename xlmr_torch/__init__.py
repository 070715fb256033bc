"""XLM-RoBERTa and XLM-RoBERTa-XL for PyTorch, under the published names.

from xlmr_torch import AutoTokenizer, XLMRobertaForSequenceClassification, pipeline
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xlmr_core import __version__
from xlmr_core.config import AutoConfig, EncoderDecoderConfig, PretrainedConfig, XLMRobertaConfig, XLMRobertaXLConfig
from xlmr_core.importing import import_when_used
from xlmr_torch.auto import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTextEncoding,
    AutoModelForTokenClassification,
    AutoModelWithLMHead,
)
from xlmr_torch.cache import Cache, DynamicCache, EncoderDecoderCache, StaticCache
from xlmr_torch.encoder_decoder import EncoderDecoderModel
from xlmr_torch.modeling_xlm_roberta import (
    XLMRobertaForCausalLM,
    XLMRobertaForMaskedLM,
    XLMRobertaForMultipleChoice,
    XLMRobertaForQuestionAnswering,
    XLMRobertaForSequenceClassification,
    XLMRobertaForTokenClassification,
    XLMRobertaModel,
    XLMRobertaPreTrainedModel,
)
from xlmr_torch.modeling_xlm_roberta_xl import (
    XLMRobertaXLForCausalLM,
    XLMRobertaXLForMaskedLM,
    XLMRobertaXLForMultipleChoice,
    XLMRobertaXLForQuestionAnswering,
    XLMRobertaXLForSequenceClassification,
    XLMRobertaXLForTokenClassification,
    XLMRobertaXLModel,
    XLMRobertaXLPreTrainedModel,
)
from xlmr_torch.tensors import register_outputs, to_tensor

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
    from xlmr_torch.collators import (
        DataCollatorForLanguageModeling,
        DataCollatorForMultipleChoice,
        DataCollatorForSeq2Seq,
        DataCollatorForTokenClassification,
        DataCollatorForWholeWordMask,
        DataCollatorWithPadding,
        DefaultDataCollator,
        default_data_collator,
    )
    from xlmr_torch.inference import optimize_for_inference
    from xlmr_torch.pipelines import pipeline
    from xlmr_torch.quantized import quantize
    from xlmr_torch.schedules import (
        get_constant_schedule,
        get_constant_schedule_with_warmup,
        get_cosine_schedule_with_warmup,
        get_cosine_with_hard_restarts_schedule_with_warmup,
        get_inverse_sqrt_schedule,
        get_linear_schedule_with_warmup,
        get_polynomial_decay_schedule_with_warmup,
        get_scheduler,
    )
    from xlmr_torch.vectors import BGEM3FlagModel, CrossEncoder, SentenceTransformer

__all__ = [
    "AutoConfig",
    "AutoModel",
    "AutoModelForCausalLM",
    "AutoModelForMaskedLM",
    "AutoModelForMultipleChoice",
    "AutoModelForPreTraining",
    "AutoModelForQuestionAnswering",
    "AutoModelForSeq2SeqLM",
    "AutoModelForSequenceClassification",
    "AutoModelForTextEncoding",
    "AutoModelForTokenClassification",
    "AutoModelWithLMHead",
    "AutoTokenizer",
    "BGEM3FlagModel",
    "BitsAndBytesConfig",
    "Cache",
    "CrossEncoder",
    "DynamicCache",
    "EncoderDecoderCache",
    "EncoderDecoderConfig",
    "EncoderDecoderModel",
    "PretrainedConfig",
    "SentenceTransformer",
    "StaticCache",
    "FeatureExtractionPipeline",
    "FillMaskPipeline",
    "MultipleChoicePipeline",
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
    "XLMRobertaForCausalLM",
    "XLMRobertaForMaskedLM",
    "XLMRobertaForMultipleChoice",
    "XLMRobertaForQuestionAnswering",
    "XLMRobertaForSequenceClassification",
    "XLMRobertaForTokenClassification",
    "XLMRobertaModel",
    "XLMRobertaPreTrainedModel",
    "XLMRobertaTokenizer",
    "XLMRobertaTokenizerFast",
    "XLMRobertaXLConfig",
    "XLMRobertaXLForCausalLM",
    "XLMRobertaXLForMaskedLM",
    "XLMRobertaXLForMultipleChoice",
    "XLMRobertaXLForQuestionAnswering",
    "XLMRobertaXLForSequenceClassification",
    "XLMRobertaXLForTokenClassification",
    "XLMRobertaXLModel",
    "XLMRobertaXLPreTrainedModel",
    "ZeroShotClassificationPipeline",
    "DataCollatorForLanguageModeling",
    "DataCollatorForMultipleChoice",
    "DataCollatorForSeq2Seq",
    "DataCollatorForTokenClassification",
    "DataCollatorForWholeWordMask",
    "DataCollatorWithPadding",
    "DefaultDataCollator",
    "default_data_collator",
    "get_constant_schedule",
    "get_constant_schedule_with_warmup",
    "get_cosine_schedule_with_warmup",
    "get_cosine_with_hard_restarts_schedule_with_warmup",
    "get_inverse_sqrt_schedule",
    "get_linear_schedule_with_warmup",
    "get_polynomial_decay_schedule_with_warmup",
    "get_scheduler",
    "__version__",
    "optimize_for_inference",
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
        "optimize_for_inference": "xlmr_torch.inference",
        "BitsAndBytesConfig": "xlmr_core.quantization",
        "quantize": "xlmr_torch.quantized",
        "BGEM3FlagModel": "xlmr_torch.vectors",
        "CrossEncoder": "xlmr_torch.vectors",
        "SentenceTransformer": "xlmr_torch.vectors",
        "pipeline": "xlmr_torch.pipelines",
        "FeatureExtractionPipeline": "xlmr_torch.pipelines",
        "FillMaskPipeline": "xlmr_torch.pipelines",
        "MultipleChoicePipeline": "xlmr_torch.pipelines",
        "QuestionAnsweringPipeline": "xlmr_torch.pipelines",
        "TextClassificationPipeline": "xlmr_torch.pipelines",
        "TokenClassificationPipeline": "xlmr_torch.pipelines",
        "ZeroShotClassificationPipeline": "xlmr_torch.pipelines",
        "SummarizationPipeline": "xlmr_torch.pipelines",
        "Text2TextGenerationPipeline": "xlmr_torch.pipelines",
        "TextGenerationPipeline": "xlmr_torch.pipelines",
        "TranslationPipeline": "xlmr_torch.pipelines",
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
        "DataCollatorForLanguageModeling": "xlmr_torch.collators",
        "DataCollatorForMultipleChoice": "xlmr_torch.collators",
        "DataCollatorForSeq2Seq": "xlmr_torch.collators",
        "DataCollatorForTokenClassification": "xlmr_torch.collators",
        "DataCollatorForWholeWordMask": "xlmr_torch.collators",
        "DataCollatorWithPadding": "xlmr_torch.collators",
        "DefaultDataCollator": "xlmr_torch.collators",
        "default_data_collator": "xlmr_torch.collators",
        "get_constant_schedule": "xlmr_torch.schedules",
        "get_constant_schedule_with_warmup": "xlmr_torch.schedules",
        "get_cosine_schedule_with_warmup": "xlmr_torch.schedules",
        "get_cosine_with_hard_restarts_schedule_with_warmup": "xlmr_torch.schedules",
        "get_inverse_sqrt_schedule": "xlmr_torch.schedules",
        "get_linear_schedule_with_warmup": "xlmr_torch.schedules",
        "get_polynomial_decay_schedule_with_warmup": "xlmr_torch.schedules",
        "get_scheduler": "xlmr_torch.schedules",
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
