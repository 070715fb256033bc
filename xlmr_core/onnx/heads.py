"""A model as a graph of ONNX: an encoder with a head, and for vectors of texts what its folder says makes them.

The outputs are called as the fields of the published outputs. Of bge-m3 they are called as in its published graphs:
``dense_vecs``, ``sparse_vecs`` and ``colbert_vecs``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import CheckpointError
from xlmr_core.formats.tensors import RawTensor
from xlmr_core.heads import model_class_name
from xlmr_core.onnx.encoder import Encoder, gelu
from xlmr_core.onnx.four_bit import Codes
from xlmr_core.onnx.graph import FLOAT, INT64, Graph
from xlmr_core.onnx.packed import Packed
from xlmr_core.tasks.rerank import activation_of
from xlmr_core.tasks.sentence_folder import Dense, Normalize, SentenceFolder

__all__ = ["HEAD_GRAPHS", "OPTIONAL", "build_graph"]

# Inputs that may be left out, and what then takes their place.
OPTIONAL: Mapping[str, Any] = {
    "token_type_ids": np.zeros((1, 1), np.int64),
    "masked_positions": np.zeros((1, 0), np.int64),
}
# Tasks whose graphs have more outputs than the head.
VECTORS = ("sentence-embedding", "sentence-similarity")
SCORES = "rerank"
_LEAST = 1e-12
_ONE = RawTensor.from_numpy(np.ones(1, np.int64))

Outputs = Mapping[str, tuple[str, tuple[int | str, ...]]]
"""By the name of an output: the value, and its shape."""


def build_graph(
    config: XLMRobertaConfig,
    head: str,
    *,
    pooler: bool = False,
    task: str = "",
    folder: SentenceFolder | None = None,
    scales: Mapping[str, str] | None = None,
    codes: Mapping[str, Codes] | None = None,
) -> Graph:
    """The graph of a model.

    Args:
        config: its configuration, of an encoder.
        head: a suffix of ``HEADS``.
        pooler: whether the bare model has one.
        task: what it is for, where that asks for more than the head gives: a name of ``VECTORS`` or ``SCORES``.
        folder: what stands beside the model, for such a task.
        scales: of the weights that are stored in bytes, the name of their scales.
        codes: the weights of four bits.
    """
    g = Graph(model_class_name(config, head))
    axes = ("batch", "choices", "sequence") if head == "ForMultipleChoice" else ("batch", "sequence")
    ids, mask = (g.input(name, *axes) for name in ("input_ids", "attention_mask"))
    default = OPTIONAL["token_type_ids"].reshape((1,) * len(axes))
    given = g.input("token_type_ids", *(f"type_{axis}" for axis in axes), default=default)
    types = g("Expand", given, g("Shape", ids))
    if len(axes) > 2:
        flat = g("Concat", g.constant([-1]), g("Shape", ids, start=2), axis=0)
        ids, mask, types = (g("Reshape", x, flat) for x in (ids, mask, types))
    encoder = Encoder(g, config, "" if head == "Model" else "roberta.", scales or {}, codes or {})
    keep_first = head in ("ForSequenceClassification", "ForMultipleChoice") or pooler
    states_1TD, packed = encoder(ids, mask, types, keep_first)
    outputs = dict(HEAD_GRAPHS[head](encoder, packed, states_1TD))
    if head == "Model" and pooler:
        outputs["pooler_output"] = _pooler(encoder, packed, states_1TD), ("batch", config.hidden_size)
    if task in VECTORS and folder is not None:
        outputs |= _vectors(encoder, packed, outputs["last_hidden_state"][0], folder)
    if task == SCORES and folder is not None:
        word = _word(str(activation_of(config, folder)))
        outputs["scores"] = _activation(g, word, outputs["logits"][0]), outputs["logits"][1]
    for name, (value, shape) in outputs.items():
        g.output(name, value, *shape)
    return g


# Heads


def _bare_model(encoder: Encoder, packed: Packed, states_1TD: str) -> Outputs:
    size = encoder.config.hidden_size
    return {"last_hidden_state": (packed.unpack(states_1TD, encoder.width(size)), ("batch", "sequence", size))}


def _pooler(encoder: Encoder, packed: Packed, states_1TD: str) -> str:
    first_BD = packed.first_tokens(states_1TD, encoder.config.hidden_size)
    return encoder.graph("Tanh", encoder.linear(f"{encoder.prefix}pooler.dense", first_BD))


def _masked_lm(encoder: Encoder, packed: Packed, states_1TD: str) -> Outputs:
    """Logits everywhere, or at ``masked_positions`` (B, P) only, padded with -1; there they are zero."""
    g, vocabulary = encoder.graph, encoder.config.vocab_size
    default = OPTIONAL["masked_positions"]
    positions_BP = g.input("masked_positions", "position_batch", "positions", default=default)
    nothing = g("Equal", g("Size", positions_BP), g.constant(0))

    def everywhere(then: Graph) -> Sequence[str]:
        places_R = then("Reshape", packed.places_1T, g.constant([-1]))
        count = then("Size", places_R)
        return then("Range", g.constant(0), count, g.constant(1)), places_R, packed.shape_2

    def at_positions(then: Graph) -> Sequence[str]:
        flat = then("Reshape", positions_BP, g.constant([-1]))
        wanted = then("GreaterOrEqual", flat, g.constant(0))
        places_R = then("Reshape", then("NonZero", wanted), g.constant([-1]))
        shape_2 = then("Shape", positions_BP)
        row_R = then("Div", places_R, then("Gather", shape_2, g.constant(1), axis=0))
        length = then("Gather", packed.shape_2, g.constant(1), axis=0)
        in_batch = then("Add", then("Mul", row_R, length), then("Gather", flat, places_R, axis=0))
        slots = then("Reshape", packed.slots_BS, g.constant([-1]))
        return then("Gather", slots, in_batch, axis=0), places_R, shape_2

    tokens_R, places_R, shape_2 = g.either(nothing, everywhere, at_positions)
    x_1RD = g("Gather", states_1TD, tokens_R, axis=1)
    x_1RD = encoder.layer_norm("lm_head.layer_norm", gelu(g, encoder.linear("lm_head.dense", x_1RD)))
    logits_RV = _to_vocabulary(encoder, x_1RD)
    logits = packed.put(logits_RV, places_R, shape_2, encoder.width(vocabulary))
    return {"logits": (logits, ("batch", "places", vocabulary))}


def _to_vocabulary(encoder: Encoder, x_1RD: str) -> str:
    """(1, R, D) to (R, V), by the word embedding as it lies, or the decoder's own weight in the same layout.

    The weight stands on the left of the product: what stands on the right is copied into another order when a session
    starts, and this is most of the values of a model.
    """
    g, tied = encoder.graph, encoder.config.tie_word_embeddings
    name = f"{encoder.prefix}embeddings.word_embeddings.weight" if tied else "lm_head.decoder.weight"
    bias, codes = g.parameter("lm_head.bias"), encoder.codes.get(name)
    if codes is not None and not codes.is_table:
        product = codes.product(g, x_1RD)
    elif name in encoder.scales:
        # What starts a session turns the bytes round, once.
        product = encoder.product(x_1RD, g("Transpose", g.parameter(name), perm=[1, 0]), encoder.scales[name])
    else:
        weight_VD = g.parameter(name) if codes is None else codes.table(g)
        product_1VR = g("MatMul", weight_VD, g("Transpose", x_1RD, perm=[0, 2, 1]))
        product = g("Transpose", product_1VR, perm=[0, 2, 1])
    return g("Reshape", g("Add", product, bias), g.constant([-1, encoder.config.vocab_size]))


def _sequence_classification(encoder: Encoder, packed: Packed, states_1TD: str) -> Outputs:
    first_BD = packed.first_tokens(states_1TD, encoder.config.hidden_size)
    x_BD = encoder.graph("Tanh", encoder.linear("classifier.dense", first_BD))
    return {"logits": (encoder.linear("classifier.out_proj", x_BD), ("batch", encoder.config.num_labels))}


def _multiple_choice(encoder: Encoder, packed: Packed, states_1TD: str) -> Outputs:
    g = encoder.graph
    score_X1 = encoder.linear("classifier", _pooler(encoder, packed, states_1TD))
    shape = g("Shape", "input_ids", start=0, end=2)
    return {"logits": (g("Reshape", score_X1, shape), ("batch", "choices"))}


def _token_classification(encoder: Encoder, packed: Packed, states_1TD: str) -> Outputs:
    labels = encoder.config.num_labels
    logits_1TK = encoder.linear("classifier", states_1TD)
    return {"logits": (packed.unpack(logits_1TK, encoder.width(labels)), ("batch", "sequence", labels))}


def _question_answering(encoder: Encoder, packed: Packed, states_1TD: str) -> Outputs:
    g = encoder.graph
    logits_BS2 = packed.unpack(encoder.linear("qa_outputs", states_1TD), encoder.width(encoder.config.num_labels))
    names = ("start_logits", "end_logits")
    return {
        name: (g("Gather", logits_BS2, g.constant(place), axis=2), ("batch", "sequence"))
        for place, name in enumerate(names)
    }


HEAD_GRAPHS: Mapping[str, Callable[[Encoder, Packed, str], Outputs]] = {
    "Model": _bare_model,
    "ForMaskedLM": _masked_lm,
    "ForSequenceClassification": _sequence_classification,
    "ForMultipleChoice": _multiple_choice,
    "ForTokenClassification": _token_classification,
    "ForQuestionAnswering": _question_answering,
}


# Vectors of texts


def _vectors(encoder: Encoder, packed: Packed, states_BSD: str, folder: SentenceFolder) -> Outputs:
    """The vector of each text, and of bge-m3 what it gives beside it."""
    g, size = encoder.graph, encoder.config.hidden_size
    parts = [_pooled(g, packed, name, states_BSD) for name in folder.pooling or ("mean",)]
    vector = parts[0] if len(parts) == 1 else g("Concat", *parts, axis=-1)
    size *= len(parts)
    for layer in folder.layers:
        if isinstance(layer, Normalize):
            vector = _normalized(g, vector)
        elif isinstance(layer, Dense):
            vector, size = _activation(g, _word(layer.activation), _dense(g, vector, layer)), layer.weight.shape[0]
    name = "dense_vecs" if folder.heads else "sentence_embedding"
    found: dict[str, tuple[str, tuple[int | str, ...]]] = {name: (vector, ("batch", size))}
    mask_BS1 = g("Unsqueeze", packed.seen_BS, g.constant([2]))
    if "sparse_linear" in folder.heads:
        weights = g("Relu", _dense(g, states_BSD, Dense(*folder.heads["sparse_linear"], "")))
        found["sparse_vecs"] = g("Mul", weights, mask_BS1), ("batch", "sequence", 1)
    if "colbert_linear" in folder.heads:
        # Without the first token, as published.
        behind = [g("Slice", x, g.constant([1]), g.constant([2**62]), g.constant([1])) for x in (states_BSD, mask_BS1)]
        weight, bias = folder.heads["colbert_linear"]
        vectors = _normalized(g, g("Mul", _dense(g, behind[0], Dense(weight, bias, "")), behind[1]))
        found["colbert_vecs"] = vectors, ("batch", "sequence_behind", weight.shape[0])
    return found


def _pooled(g: Graph, packed: Packed, name: str, states_BSD: str) -> str:
    """(B, S, D) to (B, D), by the weights of ``pooling_weights``."""
    mask_BS = packed.seen_BS
    if name == "max":
        hidden = g("Unsqueeze", g("Squeeze", packed.bias_B1S, g.constant([1])), g.constant([2]))
        return g("ReduceMax", g("Add", states_BSD, hidden), axes=[1], keepdims=0)
    place_S = g(
        "Cast", g("CumSum", g("ConstantOfShape", g("Shape", mask_BS, start=1), value=_ONE), g.constant(0)), to=FLOAT
    )
    placed_BS = g("Mul", mask_BS, place_S)
    if name in ("cls", "lasttoken"):
        # Where nothing is to be seen they are the first, as published.
        at_B = g("ArgMax", mask_BS if name == "cls" else placed_BS, axis=1, keepdims=1)
        weights_BS = g("Cast", g("Equal", at_B, g("Sub", g("Cast", place_S, to=INT64), g.constant(1))), to=FLOAT)
    else:
        counted = placed_BS if name == "weightedmean" else mask_BS
        total = g("Max", g("ReduceSum", counted, g.constant([1]), keepdims=1), g.constant(1e-9))
        weights_BS = g("Div", counted, g("Sqrt", total) if name == "mean_sqrt_len_tokens" else total)
    pooled_B1D = g("MatMul", g("Unsqueeze", weights_BS, g.constant([1])), states_BSD)
    return g("Squeeze", pooled_B1D, g.constant([1]))


def _dense(g: Graph, x: str, layer: Dense) -> str:
    projected = g("MatMul", x, g.constant(layer.weight.T, np.float32))
    return projected if layer.bias is None else g("Add", projected, g.constant(layer.bias, np.float32))


def _normalized(g: Graph, x: str) -> str:
    return g("Div", x, g("Max", g("ReduceL2", x, axes=[-1], keepdims=1), g.constant(_LEAST)))


_OF_NUMBERS: Mapping[str, Callable[[Graph, str], str]] = {
    "": lambda g, x: x,
    "identity": lambda g, x: x,
    "sigmoid": lambda g, x: g("Sigmoid", x),
    "softmax": lambda g, x: g("Softmax", x, axis=-1),
    "tanh": lambda g, x: g("Tanh", x),
    "relu": lambda g, x: g("Relu", x),
    "logsigmoid": lambda g, x: g("Neg", g("Softplus", g("Neg", x))),
    "gelu": gelu,
    "silu": lambda g, x: g("Mul", x, g("Sigmoid", x)),
    "softplus": lambda g, x: g("Softplus", x),
}


def _word(activation: str) -> str:
    return activation.rpartition(".")[2].lower()


def _activation(g: Graph, word: str, x: str) -> str:
    if word not in _OF_NUMBERS:
        raise CheckpointError(
            f"a graph knows the activations {', '.join(filter(None, _OF_NUMBERS))}, received {word!r}; export without "
            "the task, and apply it to the outputs"
        )
    return _OF_NUMBERS[word](g, x)
