"""The heads of the reference: each returns the fields of its output that are its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from xlmr_core.checks import IGNORE_INDEX, see_array
from xlmr_core.config import XLMRobertaConfig, XLMRobertaXLConfig
from xlmr_core.head_checks import (
    check_class_labels,
    check_kept_columns,
    check_masked_positions,
    check_span,
    check_where_logits_are_computed,
)
from xlmr_core.reference.encoder import Encoded, Inputs
from xlmr_core.reference.mathematics import (
    Array,
    Params,
    cross_entropy,
    gelu,
    layer_norm,
    linear,
    sequence_loss,
    weight,
)

Fields: TypeAlias = dict[str, Any]


def language_model(config: XLMRobertaConfig, params: Params, x_XD: Array) -> Array:
    """(..., D) -> (..., V): dense, exact GELU whatever ``hidden_act`` is, norm, decoder."""
    decoder = "roberta.embeddings.word_embeddings.weight" if config.tie_word_embeddings else "lm_head.decoder.weight"
    x_XD = layer_norm(params, "lm_head.layer_norm", gelu(linear(params, "lm_head.dense", x_XD)), config.layer_norm_eps)
    return x_XD @ weight(params, decoder).T + weight(params, "lm_head.bias")


def bare_model(config: XLMRobertaConfig, params: Params, encoded: Encoded, given: Inputs) -> Fields:
    return {"last_hidden_state": encoded.last_hidden_state_BSD, "pooler_output": encoded.pooled_BD}


def masked_lm(config: XLMRobertaConfig, params: Params, encoded: Encoded, given: Inputs) -> Fields:
    """Logits everywhere, at ``masked_positions`` only, or at labelled ones only; the loss is the same."""
    x_BSD, labels = encoded.last_hidden_state_BSD, given.labels
    check_masked_lm(config, given, (x_BSD.shape[0], x_BSD.shape[1]))
    if given.masked_positions is None:
        logits = language_model(config, params, x_BSD)
    else:
        positions_BP = given.masked_positions
        wanted_BP = positions_BP >= 0
        at_BP = np.where(wanted_BP, positions_BP, 0)
        x_BPD = np.take_along_axis(x_BSD, at_BP[:, :, None], axis=1)
        logits = language_model(config, params, x_BPD) * wanted_BP[:, :, None]
        if labels is not None:
            if labels.shape != positions_BP.shape:
                labels = np.take_along_axis(labels, at_BP, axis=1)
            labels = np.where(wanted_BP, labels, IGNORE_INDEX)
    if labels is None:
        return {"logits": logits}
    loss = cross_entropy(logits, labels)
    return {"loss": loss, "logits": logits[labels != IGNORE_INDEX] if given.sparse_prediction else logits}


def check_masked_lm(config: XLMRobertaConfig, given: Inputs, shape: tuple[int, int]) -> None:
    """Refuse what no backend takes either."""
    check_where_logits_are_computed(
        labelled=given.labels is not None,
        masked_positions=given.masked_positions is not None,
        sparse_prediction=given.sparse_prediction,
    )
    places = see_array("masked_positions", given.masked_positions)
    check_masked_positions(places, *shape)
    shapes = [shape] if places is None else [shape, places.shape]
    check_class_labels(see_array("labels", given.labels), config.vocab_size, *shapes)


def causal_lm(config: XLMRobertaConfig, params: Params, encoded: Encoded, given: Inputs) -> Fields:
    """Each position predicts its successor."""
    logits_BSV = language_model(config, params, encoded.last_hidden_state_BSD)
    kept_BSV = logits_BSV[:, -given.logits_to_keep :] if given.logits_to_keep else logits_BSV
    check_kept_columns(given.logits_to_keep, logits_BSV.shape[1], labelled=given.labels is not None)
    if given.labels is None:
        return {"logits": kept_BSV}
    check_class_labels(see_array("labels", given.labels), config.vocab_size, logits_BSV.shape[:2])
    return {"loss": cross_entropy(logits_BSV[:, :-1], given.labels[:, 1:]), "logits": logits_BSV}


def sequence_classification(config: XLMRobertaConfig, params: Params, encoded: Encoded, given: Inputs) -> Fields:
    """The first token's state through a dense layer with tanh."""
    x_BD = np.tanh(linear(params, "classifier.dense", encoded.last_hidden_state_BSD[:, 0]))
    logits_BK = linear(params, "classifier.out_proj", x_BD)
    loss = None if given.labels is None else sequence_loss(config, logits_BK, given.labels)
    return {"loss": loss, "logits": logits_BK}


def multiple_choice(config: XLMRobertaConfig, params: Params, encoded: Encoded, given: Inputs) -> Fields:
    """One number for each choice, from the pooler; the choices were flattened into the batch by ``flatten_choices``."""
    assert encoded.pooled_BD is not None
    asked = given.input_ids if given.input_ids is not None else given.inputs_embeds
    assert asked is not None
    logits_BC = linear(params, "classifier", encoded.pooled_BD).reshape(asked.shape[:2])
    if given.labels is None:
        return {"logits": logits_BC}
    check_class_labels(see_array("labels", given.labels), asked.shape[1], asked.shape[:1], (len(asked), 1))
    return {"loss": cross_entropy(logits_BC, given.labels.reshape(-1)), "logits": logits_BC}


def token_classification(config: XLMRobertaConfig, params: Params, encoded: Encoded, given: Inputs) -> Fields:
    """A class for each token. XL does not count labels at masked positions, base and large do, as published."""
    logits_BSK = linear(params, "classifier", encoded.last_hidden_state_BSD)
    if given.labels is None:
        return {"logits": logits_BSK}
    labels, mask = given.labels, given.attention_mask
    check_class_labels(see_array("labels", labels), config.num_labels, logits_BSK.shape[:2])
    if isinstance(config, XLMRobertaXLConfig) and mask is not None and mask.ndim == 2:
        labels = np.where(mask == 1, labels, IGNORE_INDEX)
    return {"loss": cross_entropy(logits_BSK, labels), "logits": logits_BSK}


def question_answering(config: XLMRobertaConfig, params: Params, encoded: Encoded, given: Inputs) -> Fields:
    """A start and an end logit for each token; an answer outside the sequence is clamped to its length and ignored."""
    start_BS, end_BS = np.moveaxis(linear(params, "qa_outputs", encoded.last_hidden_state_BSD), -1, 0)
    batch, length = start_BS.shape
    start, end = (see_array(name, getattr(given, name)) for name in ("start_positions", "end_positions"))
    check_span(start, end, batch)
    loss = None
    if given.start_positions is not None and given.end_positions is not None:
        losses = []
        for logits_BS, answer in ((start_BS, given.start_positions), (end_BS, given.end_positions)):
            clamped = np.clip(answer.reshape(batch), 0, length)
            losses.append(cross_entropy(logits_BS, clamped, ignore_index=length))
        loss = np.asarray((losses[0] + losses[1]) / 2.0)
    return {"loss": loss, "start_logits": start_BS, "end_logits": end_BS}


HEAD_GRAPHS: dict[str, Callable[[XLMRobertaConfig, Params, Encoded, Inputs], Fields]] = {
    "Model": bare_model,
    "ForMaskedLM": masked_lm,
    "ForCausalLM": causal_lm,
    "ForSequenceClassification": sequence_classification,
    "ForMultipleChoice": multiple_choice,
    "ForTokenClassification": token_classification,
    "ForQuestionAnswering": question_answering,
}
