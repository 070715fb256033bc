"""The configuration of an encoder-decoder: two configurations of this family, and how they work together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

from xlmr_core.arguments import known_names
from xlmr_core.config_base import PretrainedConfig
from xlmr_core.errors import ConfigError
from xlmr_core.wording import an, shown

if TYPE_CHECKING:
    from xlmr_core.config import XLMRobertaConfig

__all__ = ["EncoderDecoderConfig"]

ENCODER, DECODER = "encoder", "decoder"
# Values that are written only where somebody set them.
UNSET: dict[str, Any] = {
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
    "tie_encoder_decoder": False,
}


class EncoderDecoderConfig(PretrainedConfig):
    """Configuration of an encoder and a decoder that attends to its states (Rothe et al. 2020).

    Args:
        encoder: configuration of the encoder, or the values of one with its ``model_type``.
        decoder: of the decoder, with ``is_decoder`` and ``add_cross_attention``;
            :meth:`from_encoder_decoder_configs` sets both.
        pad_token_id: what fills labels that are shifted to the right; ``None`` means the decoder's.
        bos_token_id, eos_token_id: of generation, as published.
        tie_encoder_decoder: the two share all parameters that both have.
        **kwargs: the keys every configuration shares; ``decoder_start_token_id`` is what the decoder reads first, and
            has to be set before labels are given to a model.

    Raises:
        ConfigError: if one of the two is missing or is of another architecture.
    """

    model_type: str = "encoder-decoder"
    # AutoConfig for both, as published; config.py puts it here.
    sub_configs: ClassVar[dict[str, Any]] = {}
    has_no_defaults_at_init: ClassVar[bool] = True

    encoder: XLMRobertaConfig
    decoder: XLMRobertaConfig
    decoder_start_token_id: int | None
    is_encoder_decoder: bool

    def __init__(
        self,
        /,
        encoder: XLMRobertaConfig | Mapping[str, Any] | None = None,
        decoder: XLMRobertaConfig | Mapping[str, Any] | None = None,
        pad_token_id: int | None = None,
        bos_token_id: int | None = None,
        eos_token_id: int | list[int] | None = None,
        tie_encoder_decoder: bool = False,
        **kwargs: Any,
    ) -> None:
        model_type = kwargs.pop("model_type", None) or self.model_type
        if model_type != self.model_type:
            raise ConfigError(
                f"{type(self).__name__} expects model_type {self.model_type!r}, received {shown(model_type)}; load it "
                "with AutoConfig, or make an encoder-decoder of two checkpoints with from_encoder_decoder_pretrained"
            )
        if encoder is None or decoder is None:
            given = ", ".join(name for name, part in ((ENCODER, encoder), (DECODER, decoder)) if part is not None)
            raise ConfigError(
                f"{type(self).__name__} expects an encoder and a decoder, received {given or 'neither'}; pass the "
                "configurations of both, or use from_encoder_decoder_configs(encoder, decoder)"
            )
        kwargs["is_encoder_decoder"] = True
        super().__init__(**kwargs)
        self.encoder, self.decoder = encoder, decoder  # type: ignore[assignment]
        self.pad_token_id = pad_token_id
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id
        self.tie_encoder_decoder = tie_encoder_decoder

    @classmethod
    def from_encoder_decoder_configs(
        cls, encoder_config: XLMRobertaConfig, decoder_config: XLMRobertaConfig, **kwargs: Any
    ) -> Self:
        """The configuration of both together; the two that are passed stay as they are.

        Args:
            encoder_config, decoder_config: of XLM-R or XLM-R XL; of the second a decoder with cross-attention is made.
            **kwargs: as of the class.

        Raises:
            ConfigError: for what is no such configuration, or two that do not go together.
        """
        parts = {ENCODER: encoder_config, DECODER: decoder_config}
        values = {name: _values_of(name, config) for name, config in parts.items()}
        values[DECODER].update(is_decoder=True, add_cross_attention=True)
        config = cls(values[ENCODER], values[DECODER], **kwargs)
        for name, part in parts.items():
            getattr(config, name)._attn_implementation = part._attn_implementation
        config.validate()
        return config

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, self._part(name, value) if name in (ENCODER, DECODER) else value)

    def _part(self, name: str, value: Any) -> Any:
        """The configuration of one side, which may come as its values."""
        config = value
        if isinstance(value, Mapping) and value.get("model_type") != self.model_type:
            try:
                kind = self.sub_configs[name].for_model(value.get("model_type"))
                config = type(kind).from_dict(value)
            except ConfigError as error:
                raise ConfigError(f"the {name} of an encoder-decoder: {error}") from error
        if isinstance(config, EncoderDecoderConfig) or not hasattr(config, "num_hidden_layers"):
            _refuse_part(name, value)
        return config

    @property
    def parts(self) -> dict[str, XLMRobertaConfig]:
        """The two configurations, by what the names of their parameters begin with."""
        return {f"{ENCODER}.": self.encoder, f"{DECODER}.": self.decoder}

    @property
    def max_tokens(self) -> int:
        """The longest sequence that the encoder reads."""
        return self.encoder.max_tokens

    @property
    def initializer_range(self) -> float:
        """Standard deviation of freshly drawn weights that belong to neither side."""
        return self.decoder.initializer_range

    @property
    def has_projection(self) -> bool:
        """Whether a projection (``enc_to_dec_proj``) leads from the encoder's width to the decoder's."""
        return self.encoder.hidden_size != self.decoder.hidden_size

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> Any:
        """The configuration of a side, or of both if none is asked for.

        Args:
            decoder, encoder: ask for one.
        """
        if bool(decoder) == bool(encoder):
            return self
        return self.decoder if decoder else self.encoder

    # ---- Checks

    def validate(self) -> None:
        super().validate()
        self.encoder.validate()
        self.decoder.validate()
        decoder = self.decoder
        if not (decoder.is_decoder and decoder.add_cross_attention):
            raise ConfigError(
                "the decoder of an encoder-decoder needs is_decoder=True and add_cross_attention=True, received "
                f"{decoder.is_decoder} and {decoder.add_cross_attention}; set both, or use "
                "EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)"
            )
        for name in ("decoder_start_token_id", "pad_token_id"):
            token = getattr(self, name)
            is_id = isinstance(token, int) and not isinstance(token, bool) and 0 <= token < decoder.vocab_size
            if token is not None and not is_id:
                raise ConfigError(
                    f"{name} must lie in the decoder's vocabulary of {decoder.vocab_size} ids, or be None, received "
                    f"{token!r}; pass an id of its tokenizer, such as tokenizer.cls_token_id"
                )
        if self.tie_encoder_decoder:
            self._check_tied()

    def _check_tied(self) -> None:
        """Refuse to share the parameters of two that differ in shape."""
        for key in SHAPES:
            one, other = getattr(self.encoder, key), getattr(self.decoder, key)
            if one != other:
                raise ConfigError(
                    f"tie_encoder_decoder=True shares all parameters, and {key} is {one!r} in the encoder and {other!r}"
                    " in the decoder; make them equal, or leave the two apart"
                )
        if type(self.encoder) is not type(self.decoder):
            raise ConfigError(
                "tie_encoder_decoder=True shares all parameters, expected an encoder and a decoder of one family, "
                f"received {type(self.encoder).__name__} and {type(self.decoder).__name__}; leave the two apart"
            )

    # ---- Reading and writing

    @classmethod
    def _known_names(cls) -> set[str]:
        part = cls.sub_configs[ENCODER].for_model("xlm-roberta")
        return known_names(cls(encoder=part, decoder=part))

    def to_dict(self) -> dict[str, Any]:
        """Every value as plain Python, ready for ``from_dict``; the two sides are dictionaries in it."""
        return {**super().to_dict(), ENCODER: self.encoder.to_dict(), DECODER: self.decoder.to_dict()}

    def to_diff_dict(self) -> dict[str, Any]:
        """The content of ``config.json``."""
        values = super().to_diff_dict()
        return {key: value for key, value in values.items() if key not in UNSET or value != UNSET[key]}

    def copy(self, **overrides: Any) -> Self:
        """A copy with some values replaced; the original, and both sides of it, stay as they are."""
        copied = super().copy(**overrides)
        for name in (ENCODER, DECODER):
            if name not in overrides:
                getattr(copied, name)._attn_implementation = getattr(self, name)._attn_implementation
        return copied

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EncoderDecoderConfig) or type(self) is not type(other):
            return False
        own = [{**config.to_dict(), "_name_or_path": None, ENCODER: None, DECODER: None} for config in (self, other)]
        return own[0] == own[1] and self.encoder == other.encoder and self.decoder == other.decoder

    __hash__ = None  # as of every configuration


# What both sides have to agree in where they share their parameters.
SHAPES = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("max_position_embeddings", "type_vocab_size", "position_embedding_type", "pruned_heads"),
)


def _values_of(name: str, config: Any) -> dict[str, Any]:
    if not hasattr(config, "num_hidden_layers") or not hasattr(config, "to_dict"):
        _refuse_part(name, config)
    values: dict[str, Any] = config.to_dict()
    return values


def _refuse_part(name: str, received: object) -> NoReturn:
    raise ConfigError(
        f"the {name} of an encoder-decoder must be XLM-RoBERTa or XLM-RoBERTa-XL, received "
        f"{an(type(received).__name__)}; pass an XLMRobertaConfig or an XLMRobertaXLConfig"
    )
