"""The encoder of the reference: embeddings, attention, layers, pooler."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlmr_core.config import XLMRobertaConfig, XLMRobertaXLConfig
from xlmr_core.errors import InputError
from xlmr_core.positions import first_position
from xlmr_core.reference.mathematics import Array, Integers, Params, activation, layer_norm, linear, rows, softmax

# Added to the score of a key that must not be seen. Finite on purpose: it swallows any score, so that a query that may
# see no key at all attends to every key alike, which is what the published models do.
UNSEEN = float(np.finfo(np.float32).min)


@dataclass(frozen=True)
class Inputs:
    """A call's arguments by their published names; all are optional but one of ``input_ids`` and ``inputs_embeds``.

    Attributes:
        input_ids: (B, S) integers; (B, C, S) for multiple choice, as for all inputs that have S.
        attention_mask: (B, S) or (B, S, S), 1 = attend, 0 = ignore; absent means ones. A decoder is causal with the
            former and takes the latter as it is.
        token_type_ids: (B, S); absent means zeros.
        position_ids: (B, S) or (1, S); absent means counted from the ids, or by index if there are only embeddings.
        head_mask: (N,) or (L, N), 1 = keep.
        inputs_embeds: (B, S, D), in place of the word embeddings.
        encoder_hidden_states: (B, M, D), for a decoder with cross-attention.
        encoder_attention_mask: (B, M), 1 = attend, 0 = ignore; absent means ones.
        labels: what the head's ``LossKind`` says.
        start_positions, end_positions: (B,), for question answering.
        masked_positions: (B, P), padded with -1: masked language modelling at these positions only.
        sparse_prediction: with labels, language modelling logits at labelled positions only.
        logits_to_keep: causal language modelling logits of the last so many positions only; 0 means all. Not with
            labels.
    """

    input_ids: Integers | None = None
    attention_mask: NDArray[Any] | None = None
    token_type_ids: Integers | None = None
    position_ids: Integers | None = None
    head_mask: NDArray[Any] | None = None
    inputs_embeds: NDArray[Any] | None = None
    encoder_hidden_states: NDArray[Any] | None = None
    encoder_attention_mask: NDArray[Any] | None = None
    labels: NDArray[Any] | None = None
    start_positions: Integers | None = None
    end_positions: Integers | None = None
    masked_positions: Integers | None = None
    sparse_prediction: bool = False
    logits_to_keep: int = 0


@dataclass(frozen=True)
class Encoded:
    """What the encoder hands to a head."""

    last_hidden_state_BSD: Array
    pooled_BD: Array | None
    hidden_states: tuple[Array, ...]
    attentions: tuple[Array, ...]
    cross_attentions: tuple[Array, ...]


# Embeddings


def make_position_ids(config: XLMRobertaConfig, input_ids: Integers) -> Integers:
    """Positions that count the tokens which are not padding; padding keeps ``pad_token_id`` (see positions.py).

    Args:
        config: gives the padding id.
        input_ids: (B, S) integers.

    Returns:
        (B, S) integers.
    """
    is_token = input_ids != config.pad_token_id
    return np.where(is_token, np.cumsum(is_token, axis=1) + config.pad_token_id, config.pad_token_id)


def embed(config: XLMRobertaConfig, params: Params, prefix: str, given: Inputs) -> Array:
    """Words, positions and token types, added; base and large normalize the sum, XL does not."""
    name = f"{prefix}embeddings"
    if given.input_ids is not None:
        words_BSD = rows(params, f"{name}.word_embeddings", given.input_ids)
        position_ids = make_position_ids(config, given.input_ids)
    else:
        words_BSD = np.asarray(given.inputs_embeds, dtype=np.float64)
        position_ids = first_position(config) + np.arange(words_BSD.shape[1])[None, :]
    if given.position_ids is not None:
        position_ids = given.position_ids
    token_type_ids = np.zeros((1, 1), dtype=np.int64) if given.token_type_ids is None else given.token_type_ids
    x_BSD = words_BSD + rows(params, f"{name}.token_type_embeddings", token_type_ids)
    if config.position_embedding_type == "absolute":
        x_BSD = x_BSD + rows(params, f"{name}.position_embeddings", position_ids)
    if isinstance(config, XLMRobertaXLConfig):
        return x_BSD
    return layer_norm(params, f"{name}.LayerNorm", x_BSD, config.layer_norm_eps)


# Attention


def additive_mask(mask: NDArray[Any], causal: bool) -> Array:
    """What is added to the scores (B, N, S, M) so that masked keys are not seen.

    Args:
        mask: (B, M) for all queries alike, or (B, S, M).
        causal: hide later keys as well; a 3-D mask has said everything already.
    """
    mask_BNSM = mask.astype(np.float64)[:, None, :, :] if mask.ndim == 3 else mask.astype(np.float64)[:, None, None, :]
    if causal and mask.ndim == 2:
        mask_BNSM = mask_BNSM * np.tri(mask.shape[1])
    return (1.0 - mask_BNSM) * UNSEEN


def split_heads(x_BSX: Array, heads: int) -> Array:
    """(B, S, N * H) -> (B, N, S, H)."""
    batch, length, width = x_BSX.shape
    return x_BSX.reshape(batch, length, heads, width // heads).transpose(0, 2, 1, 3)


def merge_heads(x_BNSH: Array) -> Array:
    """(B, N, S, H) -> (B, S, N * H)."""
    batch, heads, length, head_size = x_BNSH.shape
    return x_BNSH.transpose(0, 2, 1, 3).reshape(batch, length, heads * head_size)


def relative_scores(config: XLMRobertaConfig, params: Params, name: str, q_BNSH: Array, k_BNSH: Array) -> Array | float:
    """What relative positions add to the scores: by distance of the indices, whatever is padding between them."""
    if config.position_embedding_type == "absolute" or f"{name}.distance_embedding.weight" not in params:
        return 0.0
    index = np.arange(q_BNSH.shape[2])
    distance_SS = index[:, None] - index[None, :] + config.max_position_embeddings - 1
    distance_SSH = rows(params, f"{name}.distance_embedding", distance_SS)
    scores = np.einsum("bnqh,qkh->bnqk", q_BNSH, distance_SSH)
    if config.position_embedding_type == "relative_key_query":
        scores = scores + np.einsum("bnkh,qkh->bnqk", k_BNSH, distance_SSH)
    return np.asarray(scores)


def attend(
    config: XLMRobertaConfig,
    params: Params,
    name: str,
    heads: int,
    x_BSD: Array,
    memory_BMD: Array,
    mask_BNSM: Array,
    head_mask_N: Array | None,
) -> tuple[Array, Array]:
    """Scaled dot-product attention (Vaswani et al. 2017) up to, and without, the output projection.

    Returns:
        The context (B, S, N * H) and the probabilities (B, N, S, M), the head mask applied to them.
    """
    q_BNSH = split_heads(linear(params, f"{name}.query", x_BSD), heads)
    k_BNMH = split_heads(linear(params, f"{name}.key", memory_BMD), heads)
    v_BNMH = split_heads(linear(params, f"{name}.value", memory_BMD), heads)
    scores_BNSM = q_BNSH @ k_BNMH.swapaxes(-1, -2) + relative_scores(config, params, name, q_BNSH, k_BNMH)
    probabilities_BNSM = softmax(scores_BNSM / math.sqrt(config.head_size) + mask_BNSM)
    if head_mask_N is not None:
        probabilities_BNSM = probabilities_BNSM * head_mask_N[:, None, None]
    return merge_heads(probabilities_BNSM @ v_BNMH), probabilities_BNSM


def attention_block(
    config: XLMRobertaConfig,
    params: Params,
    name: str,
    heads: int,
    x_BSD: Array,
    memory_BMD: Array | None,
    mask_BNSM: Array,
    head_mask_N: Array | None,
) -> tuple[Array, Array]:
    """Attention with its projection, residual and norm: before it in XL, after it in base and large.

    ``memory_BMD`` is the encoder's output in cross-attention and ``None`` in self-attention.
    """
    is_xl = isinstance(config, XLMRobertaXLConfig)
    queries_BSD = layer_norm(params, f"{name}.self_attn_layer_norm", x_BSD, config.layer_norm_eps) if is_xl else x_BSD
    keys_BMD = queries_BSD if memory_BMD is None else memory_BMD
    context, probabilities = attend(
        config, params, f"{name}.self", heads, queries_BSD, keys_BMD, mask_BNSM, head_mask_N
    )
    x_BSD = x_BSD + linear(params, f"{name}.output.dense", context)
    if not is_xl:
        x_BSD = layer_norm(params, f"{name}.output.LayerNorm", x_BSD, config.layer_norm_eps)
    return x_BSD, probabilities


# Layers and encoder


def feed_forward_block(config: XLMRobertaConfig, params: Params, name: str, x_BSD: Array) -> Array:
    """The feed-forward layer with residual and norm: before it in XL, after it in base and large."""
    is_xl = isinstance(config, XLMRobertaXLConfig)
    y_BSD = layer_norm(params, f"{name}.LayerNorm", x_BSD, config.layer_norm_eps) if is_xl else x_BSD
    y_BSF = activation(config)(linear(params, f"{name}.intermediate.dense", y_BSD))
    x_BSD = x_BSD + linear(params, f"{name}.output.dense", y_BSF)
    return x_BSD if is_xl else layer_norm(params, f"{name}.output.LayerNorm", x_BSD, config.layer_norm_eps)


def cross_attention_source(config: XLMRobertaConfig, given: Inputs) -> tuple[Array, Array] | None:
    """The encoder's states (B, M, D) and their additive mask; ``None`` if the call has no cross-attention."""
    if not config.is_decoder or given.encoder_hidden_states is None:
        return None
    if not config.add_cross_attention:
        raise InputError(
            "encoder_hidden_states needs a model with cross-attention, received a config with add_cross_attention="
            "False; set it to True, or leave encoder_hidden_states out"
        )
    memory_BMD = np.asarray(given.encoder_hidden_states, dtype=np.float64)
    mask = np.ones(memory_BMD.shape[:2]) if given.encoder_attention_mask is None else given.encoder_attention_mask
    return memory_BMD, additive_mask(mask, causal=False)


def layer_head_mask(given: Inputs, layer: int) -> Array | None:
    """The factors of one layer's heads."""
    if given.head_mask is None:
        return None
    head_mask = np.asarray(given.head_mask, dtype=np.float64)
    return head_mask[layer] if head_mask.ndim == 2 else head_mask


def encode(config: XLMRobertaConfig, params: Params, prefix: str, given: Inputs) -> Encoded:
    """Embeddings, all layers, XL's final norm, and the pooler where the parameters have one."""
    x_BSD = embed(config, params, prefix, given)
    batch, length, _ = x_BSD.shape
    mask = np.ones((batch, length)) if given.attention_mask is None else given.attention_mask
    mask_BNSS = additive_mask(mask, causal=config.is_decoder)
    source = cross_attention_source(config, given)

    hidden_states, attentions, cross_attentions = [x_BSD], [], []
    for layer in range(config.num_hidden_layers):
        name = f"{prefix}encoder.layer.{layer}"
        head_mask_N = layer_head_mask(given, layer)
        x_BSD, probabilities = attention_block(
            config, params, f"{name}.attention", config.heads_in_layer(layer), x_BSD, None, mask_BNSS, head_mask_N
        )
        attentions.append(probabilities)
        if source is not None:
            x_BSD, probabilities = attention_block(
                config, params, f"{name}.crossattention", config.num_attention_heads, x_BSD, *source, head_mask_N
            )
            cross_attentions.append(probabilities)
        x_BSD = feed_forward_block(config, params, name, x_BSD)
        hidden_states.append(x_BSD)

    if isinstance(config, XLMRobertaXLConfig):
        x_BSD = layer_norm(params, f"{prefix}encoder.LayerNorm", x_BSD, config.layer_norm_eps)
        hidden_states[-1] = x_BSD
    has_pooler = f"{prefix}pooler.dense.weight" in params
    pooled_BD = np.tanh(linear(params, f"{prefix}pooler.dense", x_BSD[:, 0])) if has_pooler else None
    return Encoded(x_BSD, pooled_BD, tuple(hidden_states), tuple(attentions), tuple(cross_attentions))
