"""Model configurations: the published ``config.json`` keys, in and out.

``XLMRobertaConfig`` covers base and large (post-LN), ``XLMRobertaXLConfig`` covers XL and XXL (pre-LN). The documented
defaults are kept as published although they are not those of any released checkpoint; ``base()``, ``large()``, ``xl()``
and ``xxl()`` give the real numbers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar, overload

from xlmr_core.config_base import SHARED_DEFAULTS, PretrainedConfig, check_name, read_config_json
from xlmr_core.config_checks import (
    ACTIVATIONS,
    POSITION_EMBEDDING_TYPES,
    check_together,
    check_values,
    layers_from_the_first,
)
from xlmr_core.config_encoder_decoder import EncoderDecoderConfig
from xlmr_core.errors import ConfigError
from xlmr_core.positions import max_tokens
from xlmr_core.wording import an, shown

__all__ = [
    "ACTIVATIONS",
    "CONFIG_CLASSES",
    "POSITION_EMBEDDING_TYPES",
    "SHARED_DEFAULTS",
    "AutoConfig",
    "EncoderDecoderConfig",
    "ModelConfig",
    "PretrainedConfig",
    "XLMRobertaConfig",
    "XLMRobertaXLConfig",
    "config_class_of",
    "parts_of_config",
    "read_config_json",
]

ConfigT = TypeVar("ConfigT", bound="XLMRobertaConfig")


class XLMRobertaConfig(PretrainedConfig):
    """Configuration of XLM-RoBERTa base and large (post-LN).

    Args:
        vocab_size: rows of the word embedding.
        hidden_size: width of the residual stream; divisible by ``num_attention_heads``.
        num_hidden_layers: number of transformer layers.
        num_attention_heads: attention heads of a layer.
        intermediate_size: width of the feed-forward layer.
        hidden_act: name of the activation (see ``ACTIVATIONS``), or a callable of the backend that will run the model.
            A callable cannot be written to ``config.json``; ``save_pretrained`` refuses it.
        hidden_dropout_prob: dropout after embeddings, attention and feed-forward output.
        attention_probs_dropout_prob: dropout on attention probabilities.
        max_position_embeddings: rows of the position table. Positions start at ``pad_token_id + 1``, so a sequence has
            at most ``max_tokens`` = ``max_position_embeddings - pad_token_id - 1`` tokens.
        type_vocab_size: rows of the token type table.
        initializer_range: standard deviation of freshly drawn weights.
        layer_norm_eps: epsilon of every layer norm.
        pad_token_id, bos_token_id, eos_token_id: ids of ``<pad>``, ``<s>`` and ``</s>``; the last may be a list, as
            published.
        position_embedding_type: ``absolute``, ``relative_key`` (Shaw et al. 2018) or ``relative_key_query`` (Huang et
            al. 2020).
        use_cache: whether a decoder returns its keys and values.
        classifier_dropout: dropout of the classification heads; ``None`` means ``hidden_dropout_prob``.
        **kwargs: the keys every configuration shares (``num_labels``, ``id2label``, ``label2id``, ``problem_type``,
            ``is_decoder``, ``add_cross_attention``, ``tie_word_embeddings``, ``output_attentions``,
            ``output_hidden_states``, ``return_dict``, ``chunk_size_feed_forward``, ``dtype``, ...). Unknown keys are
            kept and written back.

    Raises:
        ConfigError: for a value that no model can be built from. That values do not go together (``hidden_size`` and
            ``num_attention_heads``) is an error where a model is built, so that they can be set one after the other.
    """

    model_type: str = "xlm-roberta"
    accepted_model_types: ClassVar[tuple[str, ...]] = ("xlm-roberta", "roberta", "camembert")

    def __init__(
        self,
        /,
        vocab_size: int = 30522,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        hidden_act: str | Callable[..., Any] = "gelu",
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.1,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 2,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12,
        pad_token_id: int = 1,
        bos_token_id: int | None = 0,
        eos_token_id: int | list[int] | None = 2,
        position_embedding_type: str = "absolute",
        use_cache: bool = True,
        classifier_dropout: float | None = None,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.pad_token_id = pad_token_id
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id
        self.position_embedding_type = position_embedding_type
        self.use_cache = use_cache
        self.classifier_dropout = classifier_dropout
        model_type = kwargs.pop("model_type", None)
        if model_type is not None:
            self._check_model_type(model_type)
            # A file of RoBERTa stays one; what a class of a user's own reads becomes that class's.
            own = type(self).model_type
            if model_type != own and own in self.accepted_model_types:
                self.model_type = model_type
        super().__init__(**kwargs)
        # Which values go together is looked at when a model is built: the next line of a script may change one.
        super().validate()
        check_values(self)
        self.pruned_heads = layers_from_the_first(self.pruned_heads, num_hidden_layers)

    @classmethod
    def _check_model_type(cls, model_type: str) -> None:
        if model_type not in (cls.model_type, *cls.accepted_model_types):
            hint = CONFIG_CLASSES.get(str(model_type))
            others = "only XLM-RoBERTa, XLM-RoBERTa-XL, RoBERTa and CamemBERT load here"
            remedy = f"load it with {hint.__name__} and its models" if hint else others
            raise ConfigError(
                f"{cls.__name__} expects a config.json with model_type "
                f"{' or '.join(map(repr, dict.fromkeys((cls.model_type, *cls.accepted_model_types))))}, "
                f"received {shown(model_type)}; {remedy}"
            )

    # Published sizes

    @classmethod
    def base(cls: type[ConfigT], **kwargs: Any) -> ConfigT:
        """The numbers of ``xlm-roberta-base``: 12 layers of 768, 278 M parameters."""
        return cls(
            **{
                **RELEASED,
                "hidden_size": 768,
                "num_hidden_layers": 12,
                "num_attention_heads": 12,
                "intermediate_size": 3072,
                **kwargs,
            }
        )

    @classmethod
    def large(cls: type[ConfigT], **kwargs: Any) -> ConfigT:
        """The numbers of ``xlm-roberta-large``: 24 layers of 1024, 560 M parameters."""
        return cls(
            **{
                **RELEASED,
                "hidden_size": 1024,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "intermediate_size": 4096,
                **kwargs,
            }
        )

    # Derived values

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def max_tokens(self) -> int:
        """The longest sequence, special tokens included (512 for the released checkpoints; see
        ``xlmr_core.positions``).
        """
        return max_tokens(self)

    def heads_in_layer(self, layer: int) -> int:
        """Attention heads left in a layer after pruning."""
        return self.num_attention_heads - len(self.pruned_heads.get(layer, ()))

    def validate(self) -> None:
        super().validate()
        check_values(self)
        self.pruned_heads = layers_from_the_first(self.pruned_heads, self.num_hidden_layers)
        check_together(self)


class XLMRobertaXLConfig(XLMRobertaConfig):
    """Configuration of XLM-RoBERTa-XL and -XXL (pre-LN). Arguments as in :class:`XLMRobertaConfig`; only the defaults
    differ.
    """

    model_type: str = "xlm-roberta-xl"
    accepted_model_types: ClassVar[tuple[str, ...]] = ("xlm-roberta-xl",)

    def __init__(
        self,
        /,
        vocab_size: int = 250880,
        hidden_size: int = 2560,
        num_hidden_layers: int = 36,
        num_attention_heads: int = 32,
        intermediate_size: int = 10240,
        hidden_act: str | Callable[..., Any] = "gelu",
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.1,
        max_position_embeddings: int = 514,
        type_vocab_size: int = 1,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-05,
        pad_token_id: int = 1,
        bos_token_id: int | None = 0,
        eos_token_id: int | list[int] | None = 2,
        position_embedding_type: str = "absolute",
        use_cache: bool = True,
        classifier_dropout: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            vocab_size,
            hidden_size,
            num_hidden_layers,
            num_attention_heads,
            intermediate_size,
            hidden_act,
            hidden_dropout_prob,
            attention_probs_dropout_prob,
            max_position_embeddings,
            type_vocab_size,
            initializer_range,
            layer_norm_eps,
            pad_token_id,
            bos_token_id,
            eos_token_id,
            position_embedding_type,
            use_cache,
            classifier_dropout,
            **kwargs,
        )

    @classmethod
    def base(cls: type[ConfigT], **kwargs: Any) -> ConfigT:
        raise ConfigError("XLM-RoBERTa-XL has no base size; use XLMRobertaXLConfig.xl() or XLMRobertaConfig.base()")

    @classmethod
    def large(cls: type[ConfigT], **kwargs: Any) -> ConfigT:
        raise ConfigError("XLM-RoBERTa-XL has no large size; use XLMRobertaXLConfig.xxl() or XLMRobertaConfig.large()")

    @classmethod
    def xl(cls, **kwargs: Any) -> XLMRobertaXLConfig:
        """The numbers of ``facebook/xlm-roberta-xl``: 36 layers of 2560, 3.5 B parameters (Goyal et al. 2021)."""
        return cls(**kwargs)

    @classmethod
    def xxl(cls, **kwargs: Any) -> XLMRobertaXLConfig:
        """The numbers of ``facebook/xlm-roberta-xxl``: 48 layers of 4096, 10.7 B parameters (Goyal et al. 2021)."""
        return cls(
            **{
                "hidden_size": 4096,
                "num_hidden_layers": 48,
                "num_attention_heads": 32,
                "intermediate_size": 16384,
                **kwargs,
            }
        )


# What base and large share (Conneau et al. 2020, and the published config.json files).
RELEASED: dict[str, Any] = {
    "vocab_size": 250002,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}

# Of a model that is read or written: one encoder or decoder, or one of each.
ModelConfig: TypeAlias = XLMRobertaConfig | EncoderDecoderConfig

CONFIG_CLASSES: dict[str, type[Any]] = {
    **{
        model_type: config_class
        for config_class in (XLMRobertaConfig, XLMRobertaXLConfig)
        for model_type in config_class.accepted_model_types
    },
    EncoderDecoderConfig.model_type: EncoderDecoderConfig,
}


class AutoConfig:
    """Chooses the configuration class by the ``model_type`` of a ``config.json``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise ConfigError(
            "AutoConfig is not built itself; use AutoConfig.from_pretrained(name_or_path) or "
            "AutoConfig.for_model(model_type)"
        )

    @overload
    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str | os.PathLike[str], *, return_unused_kwargs: Literal[True], **kwargs: Any
    ) -> tuple[XLMRobertaConfig, dict[str, Any]]: ...

    @overload
    @staticmethod
    def from_pretrained(pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> XLMRobertaConfig: ...

    @staticmethod
    def from_pretrained(pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> Any:
        """Load the configuration of a checkpoint; arguments as in :meth:`XLMRobertaConfig.from_pretrained`.

        Raises:
            ConfigError: if the architecture is none of XLM-RoBERTa, XLM-RoBERTa-XL, RoBERTa and CamemBERT, and none
                that was registered.
            TypeError: for arguments that name no value, unless ``return_unused_kwargs=True``.
        """
        check_name(pretrained_model_name_or_path, "AutoConfig.from_pretrained()")
        values, overrides = XLMRobertaConfig.get_config_dict(pretrained_model_name_or_path, **kwargs)
        values["_name_or_path"] = str(pretrained_model_name_or_path)
        return config_class_of(values).from_dict(values, **overrides)

    @staticmethod
    def for_model(model_type: str, *args: Any, **kwargs: Any) -> XLMRobertaConfig:
        """The default configuration of a model type, with some values set."""
        config: XLMRobertaConfig = config_class_of({"model_type": model_type})(*args, **kwargs)
        return config

    @staticmethod
    def register(model_type: str, config: type[XLMRobertaConfig], exist_ok: bool = False) -> None:
        """Make a configuration class of your own known, to every Auto class.

        Args:
            model_type: what stands in its ``config.json``, and as ``model_type`` in the class.
            config: the class, derived from :class:`XLMRobertaConfig` or :class:`XLMRobertaXLConfig`.
            exist_ok: let it take the place of one that is known by this type.

        Raises:
            ConfigError: for a class of another kind or type, or a type that is known.
        """
        given: Any = config
        if not (isinstance(given, type) and issubclass(given, XLMRobertaConfig)):
            received = given.__name__ if isinstance(given, type) else an(type(given).__name__)
            raise ConfigError(
                f"AutoConfig.register expects a class derived from XLMRobertaConfig or XLMRobertaXLConfig, received "
                f"{received}; the models here are built from these"
            )
        if config.model_type != model_type:
            raise ConfigError(
                f"{config.__name__} has model_type {config.model_type!r}, received {model_type!r}; "
                "register it under its own"
            )
        if model_type in CONFIG_CLASSES and not exist_ok:
            raise ConfigError(
                f"model_type {model_type!r} belongs to {CONFIG_CLASSES[model_type].__name__}; "
                "name another one, or pass exist_ok=True"
            )
        CONFIG_CLASSES[model_type] = config


EncoderDecoderConfig.sub_configs = {"encoder": AutoConfig, "decoder": AutoConfig}


def parts_of_config(config: ModelConfig) -> dict[str, XLMRobertaConfig]:
    """The configurations of the encoders and decoders of a model, by what the names of their parameters begin with."""
    return config.parts if isinstance(config, EncoderDecoderConfig) else {"": config}


def config_class_of(values: Mapping[str, Any]) -> type[Any]:
    """The configuration class for the content of a ``config.json``; files older than ``model_type`` are told by their
    architecture.
    """
    model_type = values.get("model_type")
    if model_type is None:
        named = values.get("architectures")
        architecture = str(named[0]) if isinstance(named, list | tuple) and named else "?"
        if architecture.endswith("EncoderDecoderModel"):
            model_type = EncoderDecoderConfig.model_type
        elif "XLMRobertaXL" in architecture:
            model_type = "xlm-roberta-xl"
        elif architecture.startswith(("XLMRoberta", "Roberta", "Camembert")):
            model_type = "xlm-roberta"
    if not isinstance(model_type, str) or model_type not in CONFIG_CLASSES:
        raise ConfigError(
            f"expected a config.json with model_type {', '.join(map(repr, CONFIG_CLASSES))}, received "
            f"{shown(model_type)}; this library holds XLM-RoBERTa only (AutoConfig.register makes a class of your own "
            "known)"
        )
    return CONFIG_CLASSES[model_type]
