"""What ``generate`` returns with ``return_dict_in_generate=True``. R is the number of rows: one for each sequence that
comes back, L the longest of them, G the steps, K the beams.
"""

from __future__ import annotations

from typing import Any, TypeVar

from xlmr_core.outputs import MaybeNone, ModelOutput

__all__ = [
    "GENERATION_OUTPUTS",
    "GenerateBeamDecoderOnlyOutput",
    "GenerateBeamEncoderDecoderOutput",
    "GenerateDecoderOnlyOutput",
    "GenerateEncoderDecoderOutput",
    "generation_output",
]

ArrayT = TypeVar("ArrayT")


class GenerateDecoderOnlyOutput(ModelOutput[ArrayT]):
    """Greedy search and sampling by a decoder.

    Attributes:
        sequences: (R, L) ids, the prompt first.
        scores: for each step (R, V), after the processors; on request.
        logits: for each step (R, V), before them; on request.
        attentions, hidden_states: for each step those of every layer; on request.
        past_key_values: the cache at the end.
    """

    fields = ("sequences", "scores", "logits", "attentions", "hidden_states", "past_key_values")
    sequences: ArrayT
    scores: tuple[ArrayT, ...] | MaybeNone
    logits: tuple[ArrayT, ...] | MaybeNone
    attentions: tuple[tuple[ArrayT, ...], ...] | MaybeNone
    hidden_states: tuple[tuple[ArrayT, ...], ...] | MaybeNone
    past_key_values: Any


class GenerateEncoderDecoderOutput(ModelOutput[ArrayT]):
    """Greedy search and sampling by a decoder with an encoder.

    Attributes:
        sequences, scores, logits: as of a decoder alone.
        encoder_attentions, encoder_hidden_states: of every layer of the encoder; on request.
        decoder_attentions, cross_attentions, decoder_hidden_states: for each step those of every layer; on request.
        past_key_values: the cache at the end.
    """

    fields = (
        *("sequences", "scores", "logits", "encoder_attentions", "encoder_hidden_states", "decoder_attentions"),
        *("cross_attentions", "decoder_hidden_states", "past_key_values"),
    )
    sequences: ArrayT
    scores: tuple[ArrayT, ...] | MaybeNone
    logits: tuple[ArrayT, ...] | MaybeNone
    encoder_attentions: tuple[ArrayT, ...] | MaybeNone
    encoder_hidden_states: tuple[ArrayT, ...] | MaybeNone
    decoder_attentions: tuple[tuple[ArrayT, ...], ...] | MaybeNone
    cross_attentions: tuple[tuple[ArrayT, ...], ...] | MaybeNone
    decoder_hidden_states: tuple[tuple[ArrayT, ...], ...] | MaybeNone
    past_key_values: Any


class GenerateBeamDecoderOnlyOutput(ModelOutput[ArrayT]):
    """Beam search by a decoder.

    Attributes:
        sequences: (R, L) ids, the prompt first, of each prompt the best first.
        sequences_scores: (R,) of the whole sequences: the sum of the log-probabilities over length ** length_penalty.
        scores: for each step (B * K, V), after the processors; on request.
        logits: for each step (B * K, V), before them; on request.
        beam_indices: (R, G), of which beam each token came, -1 after the end.
        attentions, hidden_states: for each step those of every layer; on request.
        past_key_values: the cache at the end.
    """

    fields = (
        *("sequences", "sequences_scores", "scores", "logits", "beam_indices", "attentions", "hidden_states"),
        "past_key_values",
    )
    sequences: ArrayT
    sequences_scores: ArrayT | MaybeNone
    scores: tuple[ArrayT, ...] | MaybeNone
    logits: tuple[ArrayT, ...] | MaybeNone
    beam_indices: ArrayT | MaybeNone
    attentions: tuple[tuple[ArrayT, ...], ...] | MaybeNone
    hidden_states: tuple[tuple[ArrayT, ...], ...] | MaybeNone
    past_key_values: Any


class GenerateBeamEncoderDecoderOutput(ModelOutput[ArrayT]):
    """Beam search by a decoder with an encoder.

    Attributes:
        sequences, sequences_scores, scores, logits, beam_indices: as of a decoder alone.
        encoder_attentions, encoder_hidden_states: of every layer of the encoder; on request.
        decoder_attentions, cross_attentions, decoder_hidden_states: for each step those of every layer; on request.
        past_key_values: the cache at the end.
    """

    fields = (
        *("sequences", "sequences_scores", "scores", "logits", "beam_indices", "encoder_attentions"),
        *("encoder_hidden_states", "decoder_attentions", "cross_attentions", "decoder_hidden_states"),
        "past_key_values",
    )
    sequences: ArrayT
    sequences_scores: ArrayT | MaybeNone
    scores: tuple[ArrayT, ...] | MaybeNone
    logits: tuple[ArrayT, ...] | MaybeNone
    beam_indices: ArrayT | MaybeNone
    encoder_attentions: tuple[ArrayT, ...] | MaybeNone
    encoder_hidden_states: tuple[ArrayT, ...] | MaybeNone
    decoder_attentions: tuple[tuple[ArrayT, ...], ...] | MaybeNone
    cross_attentions: tuple[tuple[ArrayT, ...], ...] | MaybeNone
    decoder_hidden_states: tuple[tuple[ArrayT, ...], ...] | MaybeNone
    past_key_values: Any


# By whether there are beams, and whether there is an encoder.
GENERATION_OUTPUTS: dict[tuple[bool, bool], type[ModelOutput[Any]]] = {
    (False, False): GenerateDecoderOnlyOutput,
    (False, True): GenerateEncoderDecoderOutput,
    (True, False): GenerateBeamDecoderOnlyOutput,
    (True, True): GenerateBeamEncoderDecoderOutput,
}


def generation_output(beams: bool, has_encoder: bool, fields: dict[str, Any]) -> ModelOutput[Any]:
    """The output of a call. ``attentions`` and ``hidden_states`` are the decoder's, whatever they are called in it.

    Args:
        beams: whether it was beam search.
        has_encoder: whether the model is an encoder and a decoder.
        fields: by name; ``None`` and what the output has no field for (``sequences_scores`` of greedy search) are left
            out.
    """
    kind = GENERATION_OUTPUTS[beams, has_encoder]
    if has_encoder:
        renamed = {"attentions": "decoder_attentions", "hidden_states": "decoder_hidden_states"}
        fields = {renamed.get(name, name): value for name, value in fields.items()}
    return kind(**{name: value for name, value in fields.items() if name in kind.fields})
