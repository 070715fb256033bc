"""What an encoder-decoder decides alike in every backend: whose an argument is, what the decoder reads for labels,
which configuration two checkpoints become.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xlmr_core.checks import Seen, Shape, check_mask, check_shape, see_array
from xlmr_core.config import EncoderDecoderConfig, XLMRobertaConfig
from xlmr_core.config_encoder_decoder import SHAPES
from xlmr_core.errors import ConfigError, InputError
from xlmr_core.generation.prompt import check_prompt, infer_mask
from xlmr_core.head_checks import check_class_labels
from xlmr_core.outputs import BaseModelOutput

if TYPE_CHECKING:
    from xlmr_core.quantization import Scheme

__all__ = [
    "check_decoder_source",
    "check_target_labels",
    "config_of_both",
    "on_side",
    "pad_token",
    "refuse_quantized_sides",
    "refuse_resizing",
    "source_mask",
    "start_token",
    "states_of",
    "wanted_outputs",
]


# ---- From two models


def config_of_both(
    config: EncoderDecoderConfig | None, encoder: XLMRobertaConfig, decoder: XLMRobertaConfig, **values: Any
) -> EncoderDecoderConfig:
    """The configuration of a model that is built from two others: theirs, as they are, and not copies.

    Args:
        config: of the model, if it was passed; the two have to be of its sizes.
        encoder, decoder: of the two.
        **values: further values of the configuration.

    Raises:
        ConfigError: if they do not go together.
    """
    made = EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder, **values) if config is None else config
    for name, part in (("encoder", encoder), ("decoder", decoder)):
        wanted = getattr(made, name)
        differing = [key for key in SHAPES if getattr(wanted, key) != getattr(part, key)]
        if differing or type(wanted) is not type(part):
            key = differing[0] if differing else "model_type"
            raise ConfigError(
                f"config.{name} and the {name} that was passed do not agree in {key}: expected "
                f"{getattr(wanted, key)!r}, received {getattr(part, key)!r}; leave config out, or build it with "
                "EncoderDecoderConfig.from_encoder_decoder_configs(encoder.config, decoder.config)"
            )
    made.encoder, made.decoder = encoder, decoder
    made.validate()
    return made


def refuse_quantized_sides(*schemes: Scheme | None) -> None:
    """Refuse to build a model of sides that are quantized already, which the model itself would not know of.

    Args:
        schemes: of the encoder and of the decoder; ``None`` where weights are as they were.

    Raises:
        InputError: if there is one.
    """
    found = [scheme.name for scheme in schemes if scheme is not None]
    if found:
        raise InputError(
            f"an encoder-decoder is built of models with floating point weights, received one with {found[0]} ones; "
            "build it of the original checkpoints, and quantize it as a whole"
        )


# ---- A call


def wanted_outputs(
    config: EncoderDecoderConfig, output_attentions: bool | None, output_hidden_states: bool | None
) -> dict[str, bool | None]:
    """What both sides are asked for; ``None``, if neither the call nor the configuration says, leaves it to theirs."""
    return {
        "output_attentions": (config.output_attentions or None) if output_attentions is None else output_attentions,
        "output_hidden_states": (config.output_hidden_states or None)
        if output_hidden_states is None
        else output_hidden_states,
    }


@contextmanager
def on_side(side: str) -> Iterator[None]:
    """For a block that calls a side: a refused input is said to be that side's."""
    try:
        yield
    except InputError as error:
        raise InputError(f"in the {side}: {error}") from error


def check_decoder_source(*, ids: bool, embeds: bool, labels: bool) -> None:
    """Refuse a call in which there is nothing for the decoder to read.

    Args:
        ids, embeds, labels: whether these came.

    Raises:
        InputError: if none of them did.
    """
    if not (ids or embeds or labels):
        raise InputError(
            "a decoder reads tokens, expected decoder_input_ids, decoder_inputs_embeds or labels, received none of "
            "them; pass one, or use generate()"
        )


def check_target_labels(config: EncoderDecoderConfig, labels: Seen | None, *shapes: tuple[int, ...]) -> None:
    """Refuse labels that are no ids of the decoder, or of another shape than what it reads.

    Args:
        config: of the model.
        labels: integers (B, T), -100 where nothing is to be predicted.
        shapes: (B, T) of what the decoder reads, if it does not read the labels themselves.

    Raises:
        InputError: if they are.
    """
    if labels is not None:
        if not shapes and len(labels.shape) != 2:
            raise InputError(f"labels must have shape (B, T), received {tuple(labels.shape)}; pass a row a text")
        check_class_labels(labels, config.decoder.vocab_size, *(shapes or (tuple(labels.shape),)))


def start_token(config: EncoderDecoderConfig) -> int:
    """What the decoder reads before the first label.

    Raises:
        ConfigError: where nobody said it.
    """
    if config.decoder_start_token_id is None:
        raise ConfigError(
            "labels are shifted to the right behind decoder_start_token_id, expected an id, received None; set "
            "model.config.decoder_start_token_id = tokenizer.cls_token_id, or pass decoder_input_ids"
        )
    return config.decoder_start_token_id


def pad_token(config: EncoderDecoderConfig) -> int:
    """What the decoder reads for a label that does not count: ``pad_token_id``, or the decoder's own."""
    return config.decoder.pad_token_id if config.pad_token_id is None else config.pad_token_id


def states_of(encoder_outputs: Any) -> BaseModelOutput[Any]:
    """The states of an encoder that has run before, however they came.

    Args:
        encoder_outputs: an output of an encoder, a tuple ``(last_hidden_state, hidden_states, attentions)``, or the
            states alone.

    Raises:
        InputError: for what is neither.
    """
    if isinstance(encoder_outputs, BaseModelOutput):
        return encoder_outputs
    if isinstance(encoder_outputs, tuple | list) and 1 <= len(encoder_outputs) <= 3:
        return BaseModelOutput(*encoder_outputs)
    if hasattr(encoder_outputs, "shape"):
        return BaseModelOutput(last_hidden_state=encoder_outputs)
    found = (
        {name: encoder_outputs.get(name) for name in BaseModelOutput.fields}
        if isinstance(encoder_outputs, Mapping)
        else {name: getattr(encoder_outputs, name, None) for name in BaseModelOutput.fields}
    )
    if found["last_hidden_state"] is None:
        raise InputError(
            "encoder_outputs must be what the encoder returns, or a tuple of its states, received "
            f"{type(encoder_outputs).__name__}; pass model.encoder(...)"
        )
    return BaseModelOutput(**found)


# ---- Generating


def source_mask(
    config: XLMRobertaConfig,
    ids: NDArray[Any] | None,
    mask: NDArray[Any] | None,
    token_type_ids: NDArray[Any] | None = None,
    *,
    shape: Shape | None = None,
) -> NDArray[Any] | None:
    """What is attended to of the texts that a generation begins with; all of it is checked before anything is computed.

    Args:
        config: of the encoder.
        ids: integers (B, S), padded on either side; ``None`` where something else came in their place.
        mask: (B, S) of 0 and 1; without it, padding is what has the padding id, at either end.
        token_type_ids: (B, S).
        shape: (B, S, ...) of what came in the place of ids: embeddings, or the states of an encoder that has run.

    Returns:
        (B, S), or ``None`` for all of it.

    Raises:
        InputError: for ids or a mask of a wrong shape, kind or range, or a text without a token.
    """
    if ids is not None:
        check_prompt(config, ids, mask, token_type_ids)
        mask = infer_mask(config, ids) if mask is None else mask
    elif mask is not None and shape is not None:
        check_shape("attention_mask", mask.shape, shape[:2])
        check_mask(see_array("attention_mask", mask))
    if mask is not None and mask.ndim == 2:
        empty = np.flatnonzero(mask.sum(axis=1) == 0)
        if empty.size:
            raise InputError(
                f"a decoder attends to the encoder's text, expected a token in every row of attention_mask, row "
                f"{empty[0]} has none; leave the row out"
            )
    return mask


# ---- Both sides


def refuse_resizing(model: str) -> None:
    """Refuse to resize the vocabulary of both sides at once.

    Raises:
        InputError: always.
    """
    raise InputError(
        f"{model} has two vocabularies, expected the side to resize, received none; call "
        "model.encoder.resize_token_embeddings(...) or model.decoder.resize_token_embeddings(...)"
    )
