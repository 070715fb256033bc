"""Keras on TensorFlow, for the parity tests."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

import xlmr_tf
from tests.parity.adapters import Mode
from tests.parity.compare import flatten
from xlmr_core.checkpoints.load_plan import LoadWarning
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.heads import model_class_name
from xlmr_core.outputs import ModelOutput
from xlmr_core.parameters import Role

Array = NDArray[Any]
# Keras computes in half precision by policies whose variables stay float32.
POLICIES = {"float16": "mixed_float16", "bfloat16": "mixed_bfloat16"}


class TFModel:
    """A Keras model, spoken to in NumPy."""

    def __init__(self, model: Any, mode: Mode) -> None:
        self.model = model
        self.model.set_attn_implementation(mode.kernel)
        self.model.set_packing("always" if mode.packed else "never")
        self.mode = mode
        self.output_attentions = mode.kernel == "eager"

    def call(self, inputs: Mapping[str, Any], training: bool = False) -> Any:
        return self.model(
            **inputs, output_hidden_states=True, output_attentions=self.output_attentions, training=training
        )

    def run(self, function: Any, inputs: Mapping[str, Any]) -> Any:
        """As the mode says: eagerly, or in a graph that knows the numbers of axes only, or all sizes if it is
        for XLA.
        """
        tensors = {name: tf.convert_to_tensor(x) for name, x in inputs.items() if isinstance(x, np.ndarray)}
        others = {name: x for name, x in inputs.items() if not isinstance(x, np.ndarray)}

        def body(tensors: dict[str, tf.Tensor]) -> Any:
            return function({**tensors, **others})

        if not self.mode.graph:
            return body(tensors)
        xla = self.mode.graph == "xla"
        signature = {
            name: tf.TensorSpec(x.shape if xla or name in FIXED else [None] * x.shape.rank, x.dtype)
            for name, x in tensors.items()
        }
        for name in ("inputs_embeds", "encoder_hidden_states"):
            if name in signature:
                signature[name] = tf.TensorSpec(
                    (*signature[name].shape[:-1], tensors[name].shape[-1]), tensors[name].dtype
                )
        return tf.function(body, input_signature=[signature], jit_compile=xla or None)(tensors)

    def forward(self, inputs: Mapping[str, Any], *, dropout_seed: int | None = None) -> dict[str, Array]:
        if dropout_seed is not None:
            self.seed(dropout_seed)
        output = self.run(lambda given: self.call(given, training=dropout_seed is not None), inputs)
        assert isinstance(output, ModelOutput)
        return flatten(as_numpy(output))

    def generate(self, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Array]:
        """The same functions that XLA gets, uncompiled: it takes seconds for each call, see test_generation.py."""
        given = {name: tf.convert_to_tensor(x) for name, x in inputs.items()}
        tf.config.run_functions_eagerly(True)
        try:
            if not self.model.can_generate():
                return {"sequences": self.model.generate(**given, **options).numpy()}
            output = self.model.generate(**given, **options, return_dict_in_generate=True)
        finally:
            tf.config.run_functions_eagerly(False)
        return {
            name: output[name].numpy() for name in ("sequences", "sequences_scores", "beam_indices") if name in output
        }

    def seed(self, seed: int) -> None:
        """What is dropped follows from ``seed`` alone: Keras gives each layer a random start when it is built."""
        parts = [part for part in self.model._flatten_layers() if isinstance(part, keras.layers.Layer)]
        for number, seeds in enumerate(seeds for part in parts for seeds in part._seed_generators):
            seeds.state.assign([seed, 1000 * number])

    def gradients(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        rows = [row for row in self.model.parameter_table().values() if row.tied_to is None]
        variables = [self.model.get_parameter(row.name) for row in rows]
        assert {id(v) for v in variables} == {id(v) for v in self.model.trainable_variables}

        def function(given: Mapping[str, Any]) -> Any:
            with tf.GradientTape() as tape:
                loss = self.call(given)["loss"]
            found = tape.gradient(loss, [v.value for v in variables], unconnected_gradients="zero")
            return [tf.convert_to_tensor(gradient) for gradient in found]

        found = [gradient.numpy().astype(np.float64) for gradient in self.run(function, inputs)]
        return {
            row.name: gradient.T if row.role is Role.LINEAR_WEIGHT else gradient
            for row, gradient in zip(rows, found, strict=True)
        }


# Their shapes follow from the config.
FIXED = ("head_mask",)


def as_numpy(output: Mapping[str, Any]) -> dict[str, Any]:
    def convert(x: tf.Tensor) -> Array:
        return tf.cast(x, tf.float64).numpy()

    # The cache is compared by what follows from it.
    found = {name: x for name, x in output.items() if name != "past_key_values"}
    return {name: tuple(map(convert, x)) if isinstance(x, tuple) else convert(x) for name, x in found.items()}


_last: list[Any] = []


def build(config: XLMRobertaConfig, head: str, params: Mapping[str, Array], mode: Mode, dtype: str) -> TFModel:
    """A model of these parameters; every name of its parameter table must be among them and no other."""
    # Keras takes its time to build; the modes of a case follow each other, so its model serves them all.
    if not _last or _last[0] is not params or _last[1:3] != [config, dtype]:
        cls = getattr(xlmr_tf, "TF" + model_class_name(config, head))
        policy = POLICIES.get(dtype, dtype)
        with warnings.catch_warnings(
            action="ignore", category=LoadWarning
        ):  # a mistake made on purpose may be one to warn of
            model, info = cls.from_pretrained(
                None, config=config, state_dict=params, dtype=policy, output_loading_info=True
            )
        assert set(params) == set(model.parameter_table()) == {*info["report"].loaded, *dict(info["report"].tied)}
        _last[:] = params, config, dtype, model
    return TFModel(_last[3], mode)


def load(folder: Path, class_name: str, mode: Mode, dtype: str) -> TFModel:
    """A saved model, through the backend's own loading."""
    model = getattr(xlmr_tf, "TF" + class_name).from_pretrained(folder, dtype=POLICIES.get(dtype, dtype))
    return TFModel(model, mode)
