"""``pipeline``: a task on a model, from texts to plain Python.

What goes in and comes out, and what the arguments mean, is decided in ``xlmr_core/tasks``; here the model is loaded and
put on its device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

import jax

from xlmr_core.tasks.choosing import choose
from xlmr_core.tasks.pipeline import pipeline_class
from xlmr_flax import auto
from xlmr_flax.placement import find_one_device
from xlmr_flax.runner import Runner

if TYPE_CHECKING:
    from xlmr_core.tasks.pipeline import Pipeline
    from xlmr_core.tasks.published import FeatureExtractionPipeline as FeatureExtractionPipeline
    from xlmr_core.tasks.published import FillMaskPipeline as FillMaskPipeline
    from xlmr_core.tasks.published import MultipleChoicePipeline as MultipleChoicePipeline
    from xlmr_core.tasks.published import QuestionAnsweringPipeline as QuestionAnsweringPipeline
    from xlmr_core.tasks.published import RerankPipeline as RerankPipeline
    from xlmr_core.tasks.published import SentenceEmbeddingPipeline as SentenceEmbeddingPipeline
    from xlmr_core.tasks.published import SentenceSimilarityPipeline as SentenceSimilarityPipeline
    from xlmr_core.tasks.published import SummarizationPipeline as SummarizationPipeline
    from xlmr_core.tasks.published import Text2TextGenerationPipeline as Text2TextGenerationPipeline
    from xlmr_core.tasks.published import TextClassificationPipeline as TextClassificationPipeline
    from xlmr_core.tasks.published import TextGenerationPipeline as TextGenerationPipeline
    from xlmr_core.tasks.published import TokenClassificationPipeline as TokenClassificationPipeline
    from xlmr_core.tasks.published import TranslationPipeline as TranslationPipeline
    from xlmr_core.tasks.published import ZeroShotClassificationPipeline as ZeroShotClassificationPipeline

__all__ = ["pipeline"]


@overload
def pipeline(
    task: Literal["fill-mask"], model: Any = None, config: Any = None, tokenizer: Any = None, **arguments: Any
) -> FillMaskPipeline: ...


@overload
def pipeline(
    task: Literal["text-classification"], model: Any = None, config: Any = None, tokenizer: Any = None, **arguments: Any
) -> TextClassificationPipeline: ...


@overload
def pipeline(
    task: Literal["token-classification"],
    model: Any = None,
    config: Any = None,
    tokenizer: Any = None,
    **arguments: Any,
) -> TokenClassificationPipeline: ...


@overload
def pipeline(
    task: Literal["question-answering"], model: Any = None, config: Any = None, tokenizer: Any = None, **arguments: Any
) -> QuestionAnsweringPipeline: ...


@overload
def pipeline(
    task: Literal["zero-shot-classification"],
    model: Any = None,
    config: Any = None,
    tokenizer: Any = None,
    **arguments: Any,
) -> ZeroShotClassificationPipeline: ...


@overload
def pipeline(
    task: Literal["multiple-choice"], model: Any = None, config: Any = None, tokenizer: Any = None, **arguments: Any
) -> MultipleChoicePipeline: ...


@overload
def pipeline(
    task: Literal["feature-extraction"], model: Any = None, config: Any = None, tokenizer: Any = None, **arguments: Any
) -> FeatureExtractionPipeline: ...


@overload
def pipeline(
    task: Literal["sentence-embedding"], model: Any = None, config: Any = None, tokenizer: Any = None, **arguments: Any
) -> SentenceEmbeddingPipeline: ...


@overload
def pipeline(
    task: Literal["sentence-similarity"], model: Any = None, config: Any = None, tokenizer: Any = None, **arguments: Any
) -> SentenceSimilarityPipeline: ...


@overload
def pipeline(
    task: Literal["rerank"], model: Any = None, config: Any = None, tokenizer: Any = None, **arguments: Any
) -> RerankPipeline: ...


@overload
def pipeline(
    task: Literal["text-generation"], model: Any = None, config: Any = None, tokenizer: Any = None, **arguments: Any
) -> TextGenerationPipeline: ...


@overload
def pipeline(
    task: Literal["text2text-generation"],
    model: Any = None,
    config: Any = None,
    tokenizer: Any = None,
    **arguments: Any,
) -> Text2TextGenerationPipeline: ...


@overload
def pipeline(
    task: Literal["summarization"], model: Any = None, config: Any = None, tokenizer: Any = None, **arguments: Any
) -> SummarizationPipeline: ...


@overload
def pipeline(
    task: Literal["translation"], model: Any = None, config: Any = None, tokenizer: Any = None, **arguments: Any
) -> TranslationPipeline: ...


@overload
def pipeline(
    task: str | None = None,
    model: Any = None,
    config: Any = None,
    tokenizer: Any = None,
    *,
    framework: str | None = None,
    revision: str | None = None,
    use_fast: bool = True,
    token: str | bool | None = None,
    device: int | str | jax.Device | None = None,
    device_map: Any = None,
    dtype: Any = None,
    torch_dtype: Any = None,
    trust_remote_code: bool | None = None,
    model_kwargs: dict[str, Any] | None = None,
    beside: Any = None,
    **options: Any,
) -> Pipeline: ...


def pipeline(
    task: str | None = None,
    model: Any = None,
    config: Any = None,
    tokenizer: Any = None,
    *,
    framework: str | None = None,
    revision: str | None = None,
    use_fast: bool = True,
    token: str | bool | None = None,
    device: int | str | jax.Device | None = None,
    device_map: Any = None,
    dtype: Any = None,
    torch_dtype: Any = None,
    trust_remote_code: bool | None = None,
    model_kwargs: dict[str, Any] | None = None,
    beside: Any = None,
    **options: Any,
) -> Any:
    """Make the callable that does a task.

    Args:
        task: a name of ``xlmr_core.tasks.TASKS``; by default the task of the model's class.
        model: a folder, a built-in model, a name on the hub, or a model; by default the task's own, if it has one.
        config: in place of the checkpoint's own.
        tokenizer: a folder or name as for ``model``, or a tokenizer; by default the model's own.
        framework: ``flax`` or ``jax``, which is also the default here; the other backends have their own ``pipeline``.
        revision, token: which version on the hub, and the access token for it.
        use_fast: whether the tokenizer is the one of the ``tokenizers`` library.
        device, device_map: an accelerator's number, -1 for the CPU, a name such as ``gpu:1``, or a device; by default
            JAX's default device, or where a given model is.
        dtype: in which everything is computed; by default float32, or what a given model has.
        torch_dtype: of the parameters, as ``from_pretrained`` takes it; by default float32.
        trust_remote_code: of the published signature; no code from a checkpoint is ever run.
        model_kwargs: further arguments of the model's ``from_pretrained``.
        beside: what the task would read beside the model, where it is there already.
        **options: the task's options, e.g. ``top_k`` or ``batch_size``.

    Returns:
        A :class:`~xlmr_core.tasks.pipeline.Pipeline`, of the class published for the task.

    Raises:
        XLMRError: for an unknown task or option, a model that does not exist or lacks a tokenizer, or a device that is
            not there.
    """
    choice = choose(
        "flax",
        *(task, model, config, tokenizer),
        framework=framework,
        revision=revision,
        token=token,
        use_fast=use_fast,
        model_kwargs=model_kwargs,
        options=options,
    )
    place = find_one_device(device, device_map)
    choice.check_head()
    tokenizer = choice.load_tokenizer()
    beside = choice.read_beside() if beside is None else beside
    if choice.named:
        auto_class = getattr(auto, f"Flax{choice.task.auto}")
        arguments = {**choice.arguments, **({} if torch_dtype is None else {"torch_dtype": torch_dtype})}
        model = auto_class.from_pretrained(choice.model, dtype=dtype, device=place, **arguments)
    else:
        choice.check_stays(device=place, dtype=dtype, torch_dtype=torch_dtype)
    return pipeline_class(__name__, Runner, choice.task.pipeline)(model, tokenizer, beside=beside, **choice.options)


def __getattr__(name: str) -> Any:
    # The published class of each task, such as FillMaskPipeline(model, tokenizer, **options).
    return pipeline_class(__name__, Runner, name)
