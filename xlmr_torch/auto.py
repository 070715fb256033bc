"""Auto classes: the family follows from the checkpoint's ``config.json``, the head from the class."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from xlmr_core.config import AutoConfig, XLMRobertaConfig, XLMRobertaXLConfig
from xlmr_core.errors import XLMRError
from xlmr_core.heads import HEADS
from xlmr_torch import modeling_xlm_roberta, modeling_xlm_roberta_xl
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


def model_class(config: XLMRobertaConfig, head: str) -> type[PreTrainedModel]:
    """The class for a configuration and a head of ``xlmr_core.heads.HEADS``."""
    if isinstance(config, XLMRobertaXLConfig):
        found = getattr(modeling_xlm_roberta_xl, f"XLMRobertaXL{HEADS[head].suffix}")
    else:
        found = getattr(modeling_xlm_roberta, f"XLMRoberta{HEADS[head].suffix}")
    assert isinstance(found, type) and issubclass(found, PreTrainedModel)
    return found


class _AutoModel:
    head: ClassVar[str]

    def __init__(self) -> None:
        raise XLMRError(
            f"{type(self).__name__} is not built itself; use its from_pretrained(name_or_path) or from_config(config)"
        )

    @classmethod
    def from_config(cls, config: XLMRobertaConfig, **kwargs: Any) -> Any:
        """A model with fresh values."""
        return model_class(config, cls.head)(config, **kwargs)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *model_args: Any, **kwargs: Any
    ) -> Any:
        """Load a checkpoint; arguments as in :func:`xlmr_torch.loading.from_pretrained`."""
        from xlmr_core.hub import HUB_ARGUMENTS

        config = kwargs.get("config")
        if not isinstance(config, XLMRobertaConfig):
            where = {key: kwargs[key] for key in HUB_ARGUMENTS if key in kwargs}
            config = AutoConfig.from_pretrained(pretrained_model_name_or_path if config is None else config, **where)
        return model_class(config, cls.head).from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)


class AutoModel(_AutoModel):
    """The bare encoder of a checkpoint."""

    head = "Model"


class AutoModelForMaskedLM(_AutoModel):
    """Masked language modelling with a checkpoint's encoder."""

    head = "ForMaskedLM"


class AutoModelForCausalLM(_AutoModel):
    """Left-to-right language modelling with a checkpoint's encoder."""

    head = "ForCausalLM"


class AutoModelForSequenceClassification(_AutoModel):
    """Classification or regression of sequences with a checkpoint's encoder."""

    head = "ForSequenceClassification"


class AutoModelForMultipleChoice(_AutoModel):
    """Choice between sequences with a checkpoint's encoder."""

    head = "ForMultipleChoice"


class AutoModelForTokenClassification(_AutoModel):
    """Classification of tokens with a checkpoint's encoder."""

    head = "ForTokenClassification"


class AutoModelForQuestionAnswering(_AutoModel):
    """Extractive question answering with a checkpoint's encoder."""

    head = "ForQuestionAnswering"
