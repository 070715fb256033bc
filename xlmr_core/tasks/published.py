"""The published classes of pipelines as type checkers and editors see them.

They are made when asked for (``xlmr_core.tasks.pipeline.pipeline_class``), so nothing here runs. The options of a
task's calls are those of its ``Options``, each of which a call may leave out; a test holds the two together.

Texts and lists are iterables too: of the ways to call a pipeline the first that fits counts.
"""

# mypy: disable-error-code="overload-overlap"

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypedDict, Unpack, overload

from numpy.typing import NDArray

from xlmr_core.generation import GenerationConfig
from xlmr_core.tasks.fill_mask import Candidate
from xlmr_core.tasks.multiple_choice import Choice
from xlmr_core.tasks.pipeline import Pipeline
from xlmr_core.tasks.question_answering import Answer, Example
from xlmr_core.tasks.rerank import Ranked
from xlmr_core.tasks.text_generation import Generated
from xlmr_core.tasks.token_classification import Entity
from xlmr_core.tasks.zero_shot import ZeroShotAnswer

__all__ = [
    "FeatureExtractionPipeline",
    "FillMaskPipeline",
    "MultipleChoicePipeline",
    "QuestionAnsweringPipeline",
    "RerankPipeline",
    "SentenceEmbeddingPipeline",
    "SentenceSimilarityPipeline",
    "SummarizationPipeline",
    "Text2TextGenerationPipeline",
    "TextClassificationPipeline",
    "TextGenerationPipeline",
    "TokenClassificationPipeline",
    "TranslationPipeline",
    "ZeroShotClassificationPipeline",
]


class Call(TypedDict, total=False):
    """The options that every task has."""

    on_overflow: str | None
    batch_tokens: int | None
    progress: bool | None
    batch_size: int | None


class FillMaskCall(Call, total=False):
    """Those of fill-mask."""

    top_k: int | None
    targets: str | Sequence[str] | None
    multi_token_targets: bool | None
    tokenizer_kwargs: Mapping[str, Any] | None


class FillMaskPipeline(Pipeline):
    """The most likely tokens at each mask; see ``xlmr_core/tasks/fill_mask.py``."""

    def __init__(self, model: Any, tokenizer: Any, **options: Any) -> None: ...

    # A text with several masks is answered by a list for each mask, which the type of a text does not tell.
    @overload
    def __call__(self, inputs: str, **options: Unpack[FillMaskCall]) -> list[Candidate]: ...
    @overload
    def __call__(self, inputs: list[str] | tuple[str, ...], **options: Unpack[FillMaskCall]) -> list[Any]: ...
    @overload
    def __call__(self, inputs: Iterable[str], **options: Unpack[FillMaskCall]) -> Iterator[Any]: ...
    def __call__(self, *inputs: Any, **options: Any) -> Any: ...


class TokenizerCall(Call, total=False):
    """The arguments of the tokenizer."""

    truncation: bool | str | None
    max_length: int | None
    padding: bool | str | None
    add_special_tokens: bool | None
    tokenizer_kwargs: Mapping[str, Any] | None


class TextClassificationCall(TokenizerCall, total=False):
    """Those of text-classification."""

    top_k: int | str | None
    function_to_apply: str | None
    return_all_scores: bool | None


class TextClassificationPipeline(Pipeline):
    """The label of a text, or of a pair; see ``xlmr_core/tasks/text_classification.py``."""

    def __init__(self, model: Any, tokenizer: Any, **options: Any) -> None: ...

    @overload
    def __call__(
        self, inputs: str, *, text_pair: str | None = None, **options: Unpack[TextClassificationCall]
    ) -> list[Any]: ...
    @overload
    def __call__(self, inputs: Mapping[str, str], **options: Unpack[TextClassificationCall]) -> Any: ...
    @overload
    def __call__(self, inputs: list[Any] | tuple[Any, ...], **options: Unpack[TextClassificationCall]) -> list[Any]: ...
    @overload
    def __call__(self, inputs: Iterable[Any], **options: Unpack[TextClassificationCall]) -> Iterator[Any]: ...
    def __call__(self, *inputs: Any, **options: Any) -> Any: ...


class TokenClassificationCall(Call, total=False):
    """Those of token-classification."""

    aggregation_strategy: str | None
    ignore_labels: str | Sequence[str] | None
    stride: int | None
    word_label: str | None
    is_split_into_words: bool | None
    delimiter: str | None
    offset_mapping: Sequence[Any] | None
    grouped_entities: bool | None
    ignore_subwords: bool | None


class TokenClassificationPipeline(Pipeline):
    """What is found in a text; see ``xlmr_core/tasks/token_classification.py``."""

    def __init__(self, model: Any, tokenizer: Any, **options: Any) -> None: ...

    @overload
    def __call__(self, inputs: str, **options: Unpack[TokenClassificationCall]) -> list[Entity]: ...
    @overload
    def __call__(
        self, inputs: list[Any] | tuple[Any, ...], **options: Unpack[TokenClassificationCall]
    ) -> list[list[Entity]]: ...
    @overload
    def __call__(self, inputs: Iterable[Any], **options: Unpack[TokenClassificationCall]) -> Iterator[list[Entity]]: ...
    def __call__(self, *inputs: Any, **options: Any) -> Any: ...


class QuestionAnsweringCall(Call, total=False):
    """Those of question-answering."""

    top_k: int | None
    topk: int | None
    handle_impossible_answer: bool | None
    max_answer_len: int | None
    max_seq_len: int | None
    doc_stride: int | None
    max_question_len: int | None
    align_to_words: bool | None
    words: str | None
    equal_answers: str | None
    trim: bool | None
    padding: str | bool | None


class QuestionAnsweringPipeline(Pipeline):
    """The spans of a text that answer a question; see ``xlmr_core/tasks/question_answering.py``."""

    def __init__(self, model: Any, tokenizer: Any, **options: Any) -> None: ...

    # With top_k above one a question is answered by a list, which the type of its argument does not tell.
    @overload
    def __call__(self, question: str, context: str, **options: Unpack[QuestionAnsweringCall]) -> Answer: ...
    @overload
    def __call__(
        self, question: Sequence[str], context: str | Sequence[str], **options: Unpack[QuestionAnsweringCall]
    ) -> Any: ...
    @overload
    def __call__(self, data: Mapping[str, Any] | Example, **options: Unpack[QuestionAnsweringCall]) -> Answer: ...
    @overload
    def __call__(self, data: list[Any] | tuple[Any, ...], **options: Unpack[QuestionAnsweringCall]) -> Any: ...
    @overload
    def __call__(self, data: Iterable[Any], **options: Unpack[QuestionAnsweringCall]) -> Iterator[Any]: ...
    def __call__(self, *inputs: Any, **options: Any) -> Any: ...


class ZeroShotClassificationCall(Call, total=False):
    """Those of zero-shot-classification."""

    candidate_labels: str | Iterable[str] | None
    hypothesis_template: str | None
    language: str | None
    multi_label: bool | None
    multi_class: bool | None


class ZeroShotClassificationPipeline(Pipeline):
    """Which of your own labels fit a text; see ``xlmr_core/tasks/zero_shot.py``."""

    def __init__(self, model: Any, tokenizer: Any, **options: Any) -> None: ...

    @overload
    def __call__(
        self, sequences: str, *labels: str | Sequence[str], **options: Unpack[ZeroShotClassificationCall]
    ) -> ZeroShotAnswer: ...
    @overload
    def __call__(
        self,
        sequences: list[str] | tuple[str, ...],
        *labels: str | Sequence[str],
        **options: Unpack[ZeroShotClassificationCall],
    ) -> list[ZeroShotAnswer]: ...
    @overload
    def __call__(
        self, sequences: Iterable[str], *labels: str | Sequence[str], **options: Unpack[ZeroShotClassificationCall]
    ) -> Iterator[ZeroShotAnswer]: ...
    def __call__(self, *inputs: Any, **options: Any) -> Any: ...


class MultipleChoiceCall(TokenizerCall, total=False):
    """Those of multiple-choice."""


class MultipleChoicePipeline(Pipeline):
    """Which of several texts goes on from a prompt; see ``xlmr_core/tasks/multiple_choice.py``."""

    def __init__(self, model: Any, tokenizer: Any, **options: Any) -> None: ...

    @overload
    def __call__(self, prompt: str, choices: Sequence[str], **options: Unpack[MultipleChoiceCall]) -> list[Choice]: ...
    @overload
    def __call__(self, prompt: Any, choices: Any = None, **options: Unpack[MultipleChoiceCall]) -> Any: ...
    def __call__(self, *inputs: Any, **options: Any) -> Any: ...


class FeatureExtractionCall(Call, total=False):
    """Those of feature-extraction."""

    truncation: bool | str | None
    tokenize_kwargs: Mapping[str, Any] | None
    return_tensors: bool | None


class FeatureExtractionPipeline(Pipeline):
    """A vector for each token of a text; see ``xlmr_core/tasks/feature_extraction.py``."""

    def __init__(self, model: Any, tokenizer: Any, **options: Any) -> None: ...

    @overload
    def __call__(self, inputs: str, **options: Unpack[FeatureExtractionCall]) -> Any: ...
    @overload
    def __call__(self, inputs: list[str] | tuple[str, ...], **options: Unpack[FeatureExtractionCall]) -> list[Any]: ...
    @overload
    def __call__(self, inputs: Iterable[str], **options: Unpack[FeatureExtractionCall]) -> Iterator[Any]: ...
    def __call__(self, *inputs: Any, **options: Any) -> Any: ...


class SentenceEmbeddingCall(Call, total=False):
    """Those of sentence-embedding."""

    prompt: str | None
    prompt_name: str | None
    normalize: bool | None
    dimensions: int | None
    precision: str | None
    ranges: Sequence[Any] | None
    pooling: str | None
    max_length: int | None
    spans: Sequence[Any] | None
    outputs: str | Sequence[str] | None


class SentenceEmbeddingPipeline(Pipeline):
    """A vector for a text; see ``xlmr_core/tasks/sentence_embedding.py``."""

    def __init__(self, model: Any, tokenizer: Any, **options: Any) -> None: ...

    # With spans or outputs a list of texts is answered by a list, which the type of the texts does not tell.
    @overload
    def __call__(self, inputs: str, **options: Unpack[SentenceEmbeddingCall]) -> Any: ...
    @overload
    def __call__(self, inputs: list[str] | tuple[str, ...], **options: Unpack[SentenceEmbeddingCall]) -> Any: ...
    @overload
    def __call__(self, inputs: Iterable[str], **options: Unpack[SentenceEmbeddingCall]) -> Iterator[Any]: ...
    def __call__(self, *inputs: Any, **options: Any) -> Any: ...


class SentenceSimilarityCall(Call, total=False):
    """Those of sentence-similarity."""

    similarity: str | None
    prompt: str | None
    prompt_name: str | None
    source_prompt_name: str | None
    target_prompt_name: str | None
    dimensions: int | None
    pooling: str | None
    max_length: int | None


class SentenceSimilarityPipeline(Pipeline):
    """How alike texts are; see ``xlmr_core/tasks/sentence_similarity.py``."""

    def __init__(self, model: Any, tokenizer: Any, **options: Any) -> None: ...

    @overload
    def __call__(self, sources: str, targets: str, **options: Unpack[SentenceSimilarityCall]) -> float: ...
    @overload
    def __call__(
        self, sources: str | Sequence[str], targets: str | Sequence[str], **options: Unpack[SentenceSimilarityCall]
    ) -> NDArray[Any]: ...
    @overload
    def __call__(self, pairs: Mapping[str, Any], **options: Unpack[SentenceSimilarityCall]) -> Any: ...
    @overload
    def __call__(self, pairs: list[Any] | tuple[Any, ...], **options: Unpack[SentenceSimilarityCall]) -> list[Any]: ...
    @overload
    def __call__(self, pairs: Iterable[Any], **options: Unpack[SentenceSimilarityCall]) -> Iterator[Any]: ...
    def __call__(self, *inputs: Any, **options: Any) -> Any: ...


class RerankCall(Call, total=False):
    """Those of rerank."""

    top_k: int | None
    return_documents: bool | None
    function_to_apply: str | None
    max_length: int | None


class RerankPipeline(Pipeline):
    """Passages in the order in which they answer a query; see ``xlmr_core/tasks/rerank.py``."""

    def __init__(self, model: Any, tokenizer: Any, **options: Any) -> None: ...

    @overload
    def __call__(self, query: str, passages: Sequence[str], **options: Unpack[RerankCall]) -> list[Ranked]: ...
    @overload
    def __call__(
        self, query: Sequence[str], passages: Sequence[Any], **options: Unpack[RerankCall]
    ) -> list[list[Ranked]]: ...
    @overload
    def __call__(self, given: Mapping[str, Any], **options: Unpack[RerankCall]) -> list[Ranked]: ...
    @overload
    def __call__(self, given: list[Any] | tuple[Any, ...], **options: Unpack[RerankCall]) -> list[list[Ranked]]: ...
    @overload
    def __call__(self, given: Iterable[Any], **options: Unpack[RerankCall]) -> Iterator[list[Ranked]]: ...
    def __call__(self, *inputs: Any, **options: Any) -> Any: ...


class GenerationCall(Call, total=False):
    """Those of all tasks that write: by name, and what ``generate`` takes beside them."""

    max_new_tokens: int | None
    min_new_tokens: int | None
    do_sample: bool | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    num_beams: int | None
    num_return_sequences: int | None
    repetition_penalty: float | None
    no_repeat_ngram_size: int | None
    length_penalty: float | None
    stop_sequence: str | Sequence[str] | None
    position_numbering: str | None
    seed: int | None
    prefix: str | None
    clean_up_tokenization_spaces: bool | None
    return_tensors: bool | None
    truncation: bool | str | None
    max_length: int | None
    generation_config: GenerationConfig | None
    generate_kwargs: Mapping[str, Any] | None
    # Of generate
    min_length: int | None
    early_stopping: bool | str | None
    max_time: float | None
    stop_strings: str | Sequence[str] | None
    num_beam_groups: int | None
    diversity_penalty: float | None
    use_cache: bool | None
    cache_implementation: str | None
    min_p: float | None
    typical_p: float | None
    epsilon_cutoff: float | None
    eta_cutoff: float | None
    encoder_repetition_penalty: float | None
    encoder_no_repeat_ngram_size: int | None
    bad_words_ids: Sequence[Sequence[int]] | None
    renormalize_logits: bool | None
    forced_bos_token_id: int | None
    forced_eos_token_id: int | Sequence[int] | None
    remove_invalid_values: bool | None
    exponential_decay_length_penalty: tuple[int, float] | None
    suppress_tokens: Sequence[int] | None
    begin_suppress_tokens: Sequence[int] | None
    sequence_bias: Any
    pad_token_id: int | None
    bos_token_id: int | None
    eos_token_id: int | Sequence[int] | None
    decoder_start_token_id: int | None
    logits_processor: Any
    stopping_criteria: Any
    prefix_allowed_tokens_fn: Any
    streamer: Any


class TextGenerationCall(GenerationCall, total=False):
    """Those of text-generation."""

    return_full_text: bool | None
    special_tokens: str | None
    add_special_tokens: bool | None
    handle_long_generation: str | None
    return_text: bool | None
    skip_special_tokens: bool | None
    tokenizer_encode_kwargs: Mapping[str, Any] | None


class TextGenerationPipeline(Pipeline):
    """How a text goes on; see ``xlmr_core/tasks/text_generation.py``."""

    def __init__(self, model: Any, tokenizer: Any, **options: Any) -> None: ...

    @overload
    def __call__(self, text_inputs: str, **options: Unpack[TextGenerationCall]) -> list[Generated]: ...
    @overload
    def __call__(
        self, text_inputs: list[str] | tuple[str, ...], **options: Unpack[TextGenerationCall]
    ) -> list[list[Generated]]: ...
    @overload
    def __call__(
        self, text_inputs: Iterable[str], **options: Unpack[TextGenerationCall]
    ) -> Iterator[list[Generated]]: ...
    def __call__(self, *inputs: Any, **options: Any) -> Any: ...


class Text2TextGenerationPipeline(Pipeline):
    """A text to another text; see ``xlmr_core/tasks/text2text_generation.py``."""

    def __init__(self, model: Any, tokenizer: Any, **options: Any) -> None: ...

    # A list of texts with several answers each is answered by lists, which the type of the texts does not tell.
    @overload
    def __call__(self, inputs: str, **options: Unpack[GenerationCall]) -> list[Any]: ...
    @overload
    def __call__(self, inputs: list[str] | tuple[str, ...], **options: Unpack[GenerationCall]) -> list[Any]: ...
    @overload
    def __call__(self, inputs: Iterable[str], **options: Unpack[GenerationCall]) -> Iterator[list[Any]]: ...
    def __call__(self, *inputs: Any, **options: Any) -> Any: ...


class SummarizationPipeline(Text2TextGenerationPipeline):
    """What a text says, in fewer words."""


class TranslationPipeline(Text2TextGenerationPipeline):
    """A text in another language."""
