"""The model in float64 NumPy: the executable specification that judges every backend.

Evaluation mode (no dropout), padded, without a cache and without any trick: what is written here is what the model
means. Read in this order: ``mathematics``, ``encoder``, ``heads``, ``encoder_decoder``,
and ``forward`` here. Sources: Devlin et al. 2019
(the layer), Liu et al. 2019 (RoBERTa), Conneau et al. 2020 (XLM-R), Goyal et al. 2021 (XL, pre-LN), Shaw et al. 2018
and Huang et al. 2020 (relative positions); where papers leave a choice, the published PyTorch implementation decides,
and recorded outputs of it hold these files to that.

Shape letters: B batch, S sequence, M what is attended to (in cross-attention the memory), D hidden, N heads, H head
size, F feed-forward, V vocabulary, P masked positions, C choices, K labels; X stands for any leading axes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from xlmr_core.checks import check_encoder_inputs, check_head_mask, see_array
from xlmr_core.config import EncoderDecoderConfig, ModelConfig, XLMRobertaConfig
from xlmr_core.heads import HEADS
from xlmr_core.outputs import ModelOutput
from xlmr_core.reference.encoder import Inputs, encode, make_position_ids
from xlmr_core.reference.encoder_decoder import forward_both
from xlmr_core.reference.heads import HEAD_GRAPHS
from xlmr_core.reference.mathematics import ACTIVATION_FUNCTIONS, Array, Params

__all__ = ["ACTIVATION_FUNCTIONS", "Inputs", "forward", "make_position_ids"]


def flatten_choices(given: Inputs) -> Inputs:
    """(B, C, S, ...) -> (B * C, S, ...) for the inputs that describe a sequence."""
    flat: dict[str, Any] = {}
    for name in ("input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds"):
        x = getattr(given, name)
        flat[name] = None if x is None else x.reshape(-1, *x.shape[2:])
    return dataclasses.replace(given, **flat)


def forward(config: ModelConfig, head: str, params: Params, **inputs: Any) -> ModelOutput[Array]:
    """Run a model in float64.

    Args:
        config: the model's configuration.
        head: a suffix of ``HEADS``, such as ``"ForMaskedLM"``.
        params: parameters by canonical name, any float dtype, in the canonical layout; tied ones may be absent.
        **inputs: see :class:`Inputs`, and of an encoder-decoder :func:`.encoder_decoder.forward_both`; nested lists of
            numbers are converted.

    Returns:
        The head's output type with every field that the call defines: the loss if there are labels, always all hidden
        states and attention probabilities, those of cross-attention for a decoder that was given an encoder's states.

    Raises:
        InputError: for inputs that no backend takes either.
        KeyError: for a parameter that is missing.
    """
    if isinstance(config, EncoderDecoderConfig):
        return forward_both(config, params, forward, **inputs)
    converted: dict[str, Any] = {name: np.asarray(x) if isinstance(x, list) else x for name, x in inputs.items()}
    given = Inputs(**converted)
    encoder_inputs = flatten_choices(given) if head == "ForMultipleChoice" else given
    check(config, encoder_inputs)
    encoded = encode(config, params, "" if head == "Model" else "roberta.", encoder_inputs)
    output = HEADS[head].output
    fields = {
        **HEAD_GRAPHS[head](config, params, encoded, given),
        "hidden_states": encoded.hidden_states,
        "attentions": encoded.attentions,
        "cross_attentions": encoded.cross_attentions or None,
    }
    return output({name: value for name, value in fields.items() if name in output.fields})


def check(config: XLMRobertaConfig, given: Inputs) -> None:
    """The core's checks, by which every backend refuses the same inputs."""
    names = ("input_ids", "inputs_embeds", "attention_mask", "token_type_ids", "position_ids")
    seen: dict[str, Any] = {name: see_array(name, getattr(given, name)) for name in names}
    check_encoder_inputs(config, **seen)
    check_head_mask(config, see_array("head_mask", given.head_mask))
