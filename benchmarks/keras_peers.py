"""Encoders on TensorFlow: ours, and KerasHub's backbone with the same weights."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Absent, Options
from benchmarks.models import checkpoint
from benchmarks.peers import Forward
from benchmarks.texts import Batch

MODES = ("eager", "graph", "XLA")


def compiled(function: Callable[..., Any], mode: str) -> Callable[..., Any]:
    """A function of tensors as it is, as a graph, or as a graph that XLA compiles."""
    import tensorflow as tf

    return (
        function if mode == "eager" else tf.function(function, reduce_retracing=True, jit_compile=mode == "XLA" or None)
    )


def ours(options: Options, packing: str = "auto", mode: str = "graph", dtype: str | None = None) -> Forward:
    """``TFXLMRobertaModel`` as it comes out of ``from_pretrained``."""
    forward, tensors = encoder(options, packing, mode, dtype)
    return lambda batch: forward(*tensors(batch)).numpy()


def encoder(
    options: Options, packing: str, mode: str, dtype: str | None = None
) -> tuple[Any, Callable[[Batch], tuple[Any, ...]]]:
    """A function of ids and mask that gives states, and how a batch becomes its arguments."""
    import tensorflow as tf

    from xlmr_tf import TFXLMRobertaModel

    model = TFXLMRobertaModel.from_pretrained(
        checkpoint(options), add_pooling_layer=False, packing=packing, dtype=dtype or "float32"
    )

    def states(ids_BS: Any, mask_BS: Any) -> Any:
        return model(input_ids=ids_BS, attention_mask=mask_BS, training=False).last_hidden_state

    def tensors(batch: Batch) -> tuple[Any, ...]:
        return tuple(tf.constant(x, tf.int32) for x in (batch.ids_BS, batch.mask_BS))

    free = tf.TensorSpec((None, None), tf.int32)
    if mode == "graph":
        return tf.function(states, input_signature=(free, free)), tensors
    return compiled(states, mode), tensors


def keras_hub(options: Options, mode: str = "graph") -> Forward:
    """KerasHub's ``XLMRobertaBackbone`` with the weights of the checkpoint."""
    try:
        hub = importlib.import_module("keras_hub")
    except ModuleNotFoundError as error:
        raise Absent(f"{error.name} is not installed (pip install keras-hub)") from error
    import tensorflow as tf

    from xlmr_tf import TFXLMRobertaModel

    source = TFXLMRobertaModel.from_pretrained(checkpoint(options), add_pooling_layer=False)
    config = source.config
    model = hub.models.XLMRobertaBackbone(
        vocabulary_size=config.vocab_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        hidden_dim=config.hidden_size,
        intermediate_dim=config.intermediate_size,
        dropout=config.hidden_dropout_prob,
        max_sequence_length=config.max_position_embeddings - config.pad_token_id - 1,
    )
    give_weights(model, {name: source.get_values(name) for name in source.parameter_table()}, config)
    forward = compiled(lambda ids, mask: model({"token_ids": ids, "padding_mask": mask}, training=False), mode)
    return lambda batch: forward(*(tf.constant(x, tf.int32) for x in (batch.ids_BS, batch.mask_BS))).numpy()


def give_weights(model: Any, values: Mapping[str, NDArray[Any]], config: Any) -> None:
    """Put canonical values into KerasHub's layers, which count positions from 0 and have no token types: rows move, the
    type is added.
    """
    tables = model.get_layer("embeddings")
    positions = values["embeddings.position_embeddings.weight"][config.pad_token_id + 1 :]
    tables.token_embedding.embeddings.assign(values["embeddings.word_embeddings.weight"])
    tables.position_embedding.position_embeddings.assign(
        positions + values["embeddings.token_type_embeddings.weight"][0]
    )

    def norm(layer: Any, name: str) -> None:
        layer.gamma.assign(values[f"{name}.weight"])
        layer.beta.assign(values[f"{name}.bias"])

    def dense(layer: Any, name: str) -> None:
        layer.kernel.assign(np.reshape(values[f"{name}.weight"].T, layer.kernel.shape))
        layer.bias.assign(np.reshape(values[f"{name}.bias"], layer.bias.shape))

    norm(model.get_layer("embeddings_layer_norm"), "embeddings.LayerNorm")
    for number in range(config.num_hidden_layers):
        layer, name = model.get_layer(f"transformer_layer_{number}"), f"encoder.layer.{number}"
        attention = layer._self_attention_layer
        dense(attention._query_dense, f"{name}.attention.self.query")
        dense(attention._key_dense, f"{name}.attention.self.key")
        dense(attention._value_dense, f"{name}.attention.self.value")
        dense(attention._output_dense, f"{name}.attention.output.dense")
        norm(layer._self_attention_layer_norm, f"{name}.attention.output.LayerNorm")
        dense(layer._feedforward_intermediate_dense, f"{name}.intermediate.dense")
        dense(layer._feedforward_output_dense, f"{name}.output.dense")
        norm(layer._feedforward_layer_norm, f"{name}.output.LayerNorm")
