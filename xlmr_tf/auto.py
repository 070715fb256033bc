"""Auto classes: the family follows from the checkpoint's ``config.json``, the head from the class."""

from __future__ import annotations

import os
from typing import Any, ClassVar, Generic, Literal, TypeVar, overload

from xlmr_core.config import EncoderDecoderConfig, ModelConfig, XLMRobertaConfig
from xlmr_core.heads import ENCODER_DECODER
from xlmr_core.loading import auto_checkpoint
from xlmr_core.pretrained import (
    arguments_to_build,
    check_auto_config,
    dtype_to_build,
    refuse_building,
    register_model,
    registered_model,
)
from xlmr_tf.encoder import EncoderModel
from xlmr_tf.encoder_decoder import TFEncoderDecoderModel, family_class
from xlmr_tf.heads import MultipleChoice, QuestionAnswering, SequenceClassification, TokenClassification
from xlmr_tf.lm_heads import CausalLM, MaskedLM
from xlmr_tf.placement import find_policy
from xlmr_tf.pretrained import PreTrainedModel

__all__ = [
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
    "model_class",
]

ModelT = TypeVar("ModelT", bound=PreTrainedModel)


def model_class(config: ModelConfig, head: str) -> type[PreTrainedModel]:
    """The class for a configuration and a head of ``xlmr_core.heads.HEADS``, or of an encoder-decoder."""
    return TFEncoderDecoderModel if isinstance(config, EncoderDecoderConfig) else family_class(config, head)


class _AutoModel(Generic[ModelT]):
    head: ClassVar[str]
    config_class: ClassVar[type[ModelConfig]] = XLMRobertaConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        refuse_building(type(self))

    @classmethod
    def register(cls, config_class: type[XLMRobertaConfig], model_class: type, exist_ok: bool = False) -> None:
        """Let this class build models of your own for configurations of your own.

        Args:
            config_class: of the configurations, made known by ``AutoConfig.register``.
            model_class: of the models; its ``config_class`` is that class.
            exist_ok: let it take the place of another one.

        Raises:
            ConfigError: for classes of another kind or that do not belong together, or if there is a model already.
        """
        register_model(cls, config_class, model_class, PreTrainedModel, exist_ok)

    @classmethod
    def _class_for(cls, config: ModelConfig) -> type[PreTrainedModel]:
        """The class of the model for a configuration: a registered one, or the published one of the head."""
        check_auto_config(cls, config, cls.config_class)
        return registered_model(cls, config) or model_class(config, cls.head)

    @classmethod
    def from_config(
        cls,
        config: XLMRobertaConfig,
        *,
        dtype: Any = None,
        torch_dtype: Any = None,
        attn_implementation: str | None = None,
        packing: str | None = None,
        **kwargs: Any,
    ) -> ModelT:
        """A model with fresh values.

        Args:
            config: of the model.
            dtype: the dtype policy; by default the config's dtype, or Keras's global policy where it has none.
                ``torch_dtype`` is its older name.
            attn_implementation, packing: as in ``from_pretrained``.
            **kwargs: model arguments such as ``add_pooling_layer``.
        """
        kind = cls._class_for(config)
        dtype = dtype_to_build(torch_dtype if dtype is None else dtype, config)
        dtype = None if dtype is None else find_policy(dtype)
        model = kind(config, dtype=dtype, **arguments_to_build(cls, kind, kwargs))
        if attn_implementation is not None:
            model.set_attn_implementation(attn_implementation)
        if packing is not None:
            model.set_packing(packing)
        return model

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
        """Load a checkpoint; arguments as in :func:`xlmr_tf.loading.from_pretrained`."""
        config, source = auto_checkpoint(pretrained_model_name_or_path, kwargs)
        kwargs["config"] = config
        return cls._class_for(config).from_pretrained(source, *model_args, **kwargs)


class TFAutoModel(_AutoModel[EncoderModel]):
    """The bare encoder of a checkpoint."""

    head = "Model"


class TFAutoModelForMaskedLM(_AutoModel[MaskedLM]):
    """Masked language modelling with a checkpoint's encoder."""

    head = "ForMaskedLM"


class TFAutoModelForCausalLM(_AutoModel[CausalLM]):
    """Left-to-right language modelling with a checkpoint's encoder."""

    head = "ForCausalLM"


class TFAutoModelForSequenceClassification(_AutoModel[SequenceClassification]):
    """Classification or regression of sequences with a checkpoint's encoder."""

    head = "ForSequenceClassification"


class TFAutoModelForMultipleChoice(_AutoModel[MultipleChoice]):
    """Choice between sequences with a checkpoint's encoder."""

    head = "ForMultipleChoice"


class TFAutoModelForTokenClassification(_AutoModel[TokenClassification]):
    """Classification of tokens with a checkpoint's encoder."""

    head = "ForTokenClassification"


class TFAutoModelForQuestionAnswering(_AutoModel[QuestionAnswering]):
    """Extractive question answering with a checkpoint's encoder."""

    head = "ForQuestionAnswering"


class TFAutoModelForSeq2SeqLM(_AutoModel[TFEncoderDecoderModel]):
    """An encoder-decoder of a checkpoint of one."""

    head = ENCODER_DECODER.suffix
    config_class = EncoderDecoderConfig


class TFAutoModelForPreTraining(TFAutoModelForMaskedLM):
    """The published name for what a checkpoint was pretrained with, which is masked language modelling."""


class TFAutoModelForTextEncoding(TFAutoModel):
    """The published name for an encoder of texts, which is the bare encoder."""


class TFAutoModelWithLMHead(TFAutoModelForMaskedLM):
    """The older name of ``TFAutoModelForMaskedLM``."""
