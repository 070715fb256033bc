"""The encoder-decoder of the reference: the bare encoder, the causal language model, and what leads from one to the
other (Rothe et al. 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from xlmr_core.checks import IGNORE_INDEX, see_array
from xlmr_core.config import EncoderDecoderConfig
from xlmr_core.encoder_decoder import (
    check_decoder_source,
    check_target_labels,
    on_side,
    pad_token,
    start_token,
    states_of,
)
from xlmr_core.outputs import ModelOutput, Seq2SeqLMOutput
from xlmr_core.parameters import PROJECTION
from xlmr_core.reference.mathematics import Array, Integers, Params, cross_entropy, linear

__all__ = ["PartOf", "forward_both", "shifted_right"]

# Runs one of the two.
Forward = Callable[..., ModelOutput[Array]]


class PartOf(Mapping[str, Array]):
    """The parameters of a side, by their names in it.

    Args:
        params: of the whole.
        prefix: what their names begin with there.
        tied: the prefix of the other side's, where the two share what this one lacks.
    """

    def __init__(self, params: Params, prefix: str, tied: str = "") -> None:
        self._params, self._prefix, self._tied = params, prefix, tied

    def __getitem__(self, name: str) -> Array:
        own = self._prefix + name
        return self._params[own if own in self._params or not self._tied else self._tied + name]

    def __contains__(self, name: object) -> bool:
        own, other = f"{self._prefix}{name}", f"{self._tied}{name}"
        return own in self._params or (bool(self._tied) and other in self._params)

    def __iter__(self) -> Iterator[str]:
        return (name.removeprefix(self._prefix) for name in self._params if name.startswith(self._prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def shifted_right(config: EncoderDecoderConfig, labels: Integers) -> Integers:
    """(B, T): what the decoder reads to predict labels: the start token and all but the last, padding for -100."""
    shifted = np.full_like(labels, start_token(config))
    shifted[:, 1:] = labels[:, :-1]
    return np.where(shifted == IGNORE_INDEX, pad_token(config), shifted)


def forward_both(
    config: EncoderDecoderConfig, params: Params, forward: Forward, **inputs: Any
) -> Seq2SeqLMOutput[Array]:
    """Run an encoder-decoder in float64.

    Args:
        config: the model's configuration.
        params: by canonical name.
        forward: :func:`xlmr_core.reference.forward`, for a side.
        **inputs: of the encoder by their names, of the decoder with ``decoder_`` in front; ``labels`` (B, T);
            ``encoder_outputs`` in place of the encoder's inputs.

    Returns:
        :class:`~xlmr_core.outputs.Seq2SeqLMOutput` with all fields that the call defines.

    Raises:
        InputError: for inputs that no backend takes either.
        ConfigError: for labels without a ``decoder_start_token_id``.
    """
    given = {name: np.asarray(x) if isinstance(x, list) else x for name, x in inputs.items()}
    labels, memory = given.pop("labels", None), given.pop("encoder_outputs", None)
    of_decoder = {name.removeprefix("decoder_"): x for name, x in given.items() if name.startswith("decoder_")}
    of_encoder = {name: x for name, x in given.items() if not name.startswith("decoder_")}
    ids, embeds = of_decoder.get("input_ids"), of_decoder.get("inputs_embeds")
    check_decoder_source(ids=ids is not None, embeds=embeds is not None, labels=labels is not None)
    if ids is None and embeds is None:
        check_target_labels(config, see_array("labels", labels))
        ids = of_decoder["input_ids"] = shifted_right(config, labels)
        of_decoder.setdefault("attention_mask", (ids != pad_token(config)).astype(np.int64))
    source = ids if embeds is None else embeds
    assert source is not None
    check_target_labels(config, see_array("labels", labels), tuple(source.shape[:2]))
    if memory is None:
        tied = "decoder.roberta." if config.tie_encoder_decoder else ""
        with on_side("encoder"):
            encoded = states_of(forward(config.encoder, "Model", PartOf(params, "encoder.", tied), **of_encoder))
    else:
        encoded = states_of(memory)
    states_BSD = np.asarray(encoded.last_hidden_state, dtype=np.float64)
    if config.has_projection:
        states_BSD = linear(params, PROJECTION, states_BSD)
    with on_side("decoder"):
        decoded = forward(
            config.decoder,
            "ForCausalLM",
            PartOf(params, "decoder."),
            **of_decoder,
            encoder_hidden_states=states_BSD,
            encoder_attention_mask=of_encoder.get("attention_mask"),
        )
    return Seq2SeqLMOutput(
        loss=None if labels is None else cross_entropy(decoded["logits"], labels),
        logits=decoded["logits"],
        decoder_hidden_states=decoded["hidden_states"],
        decoder_attentions=decoded["attentions"],
        cross_attentions=decoded["cross_attentions"],
        encoder_last_hidden_state=encoded.last_hidden_state,
        encoder_hidden_states=encoded.hidden_states,
        encoder_attentions=encoded.attentions,
    )
