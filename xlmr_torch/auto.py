"""Auto classes: the family follows from the checkpoint's ``config.json``, the head from the class."""

from __future__ import annotations

import os
from typing import Any, ClassVar, Generic, Literal, TypeVar, overload

import torch

from xlmr_core.arguments import MODEL_NOT_NEEDED, without_published
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.heads import model_class_name
from xlmr_core.loading import auto_checkpoint
from xlmr_core.pretrained import refuse_building
from xlmr_torch import modeling_xlm_roberta, modeling_xlm_roberta_xl
from xlmr_torch.encoder import EncoderModel
from xlmr_torch.heads import MultipleChoice, QuestionAnswering, SequenceClassification, TokenClassification
from xlmr_torch.lm_heads import CausalLM, MaskedLM
from xlmr_torch.loading import MODEL_ONLY
from xlmr_torch.placement import find_dtype
from xlmr_torch.pretrained import PreTrainedModel

__all__ = [
    "AutoModel",
    "AutoModelForCausalLM",
    "AutoModelForMaskedLM",
    "AutoModelForMultipleChoice",
    "AutoModelForQuestionAnswering",
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
    "model_class",
]

ModelT = TypeVar("ModelT", bound=PreTrainedModel)


def model_class(config: XLMRobertaConfig, head: str) -> type[PreTrainedModel]:
    """The class for a configuration and a head of ``xlmr_core.heads.HEADS``."""
    name = model_class_name(config, head)
    found = getattr(modeling_xlm_roberta, name, None) or getattr(modeling_xlm_roberta_xl, name)
    assert isinstance(found, type) and issubclass(found, PreTrainedModel)
    return found


class _AutoModel(Generic[ModelT]):
    head: ClassVar[str]

    def __init__(self) -> None:
        refuse_building(type(self))

    @classmethod
    def from_config(
        cls,
        config: XLMRobertaConfig,
        *,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        attn_implementation: str | None = None,
        packing: str | None = None,
        **kwargs: Any,
    ) -> ModelT:
        """A model with fresh values.

        Args:
            config: of the model.
            dtype: of the parameters; ``None`` is the default one, ``"auto"`` the config's. ``torch_dtype`` is its older
                name.
            attn_implementation, packing: as in ``from_pretrained``.
            **kwargs: model arguments such as ``add_pooling_layer``.
        """
        model = model_class(config, cls.head)(config, **without_published(kwargs, MODEL_ONLY, MODEL_NOT_NEEDED))
        dtype = torch_dtype if dtype is None else dtype
        dtype = config.dtype if dtype == "auto" else dtype
        if attn_implementation is not None:
            model.set_attn_implementation(attn_implementation)
        if packing is not None:
            model.set_packing(packing)
        return model if dtype is None else model.to(find_dtype(dtype))

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *model_args: Any,
        output_loading_info: Literal[True],
        **kwargs: Any,
    ) -> tuple[ModelT, dict[str, Any]]: ...

    @overload
    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *model_args: Any, **kwargs: Any
    ) -> ModelT: ...

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *model_args: Any, **kwargs: Any
    ) -> Any:
        """Load a checkpoint; arguments as in :func:`xlmr_torch.loading.from_pretrained`."""
        config, source = auto_checkpoint(pretrained_model_name_or_path, kwargs)
        kwargs["config"] = config
        return model_class(config, cls.head).from_pretrained(source, *model_args, **kwargs)


class AutoModel(_AutoModel[EncoderModel]):
    """The bare encoder of a checkpoint."""

    head = "Model"


class AutoModelForMaskedLM(_AutoModel[MaskedLM]):
    """Masked language modelling with a checkpoint's encoder."""

    head = "ForMaskedLM"


class AutoModelForCausalLM(_AutoModel[CausalLM]):
    """Left-to-right language modelling with a checkpoint's encoder."""

    head = "ForCausalLM"


class AutoModelForSequenceClassification(_AutoModel[SequenceClassification]):
    """Classification or regression of sequences with a checkpoint's encoder."""

    head = "ForSequenceClassification"


class AutoModelForMultipleChoice(_AutoModel[MultipleChoice]):
    """Choice between sequences with a checkpoint's encoder."""

    head = "ForMultipleChoice"


class AutoModelForTokenClassification(_AutoModel[TokenClassification]):
    """Classification of tokens with a checkpoint's encoder."""

    head = "ForTokenClassification"


class AutoModelForQuestionAnswering(_AutoModel[QuestionAnswering]):
    """Extractive question answering with a checkpoint's encoder."""

    head = "ForQuestionAnswering"
