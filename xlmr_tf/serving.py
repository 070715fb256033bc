"""Models as files that are served without this package: SavedModel, LiteRT, ONNX."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from xlmr_core.errors import InputError, MissingBackendError
from xlmr_core.heads import Head, LossKind
from xlmr_core.positions import max_tokens
from xlmr_core.tokenization.dictionary import read_model_file

__all__ = ["ExportedByKeras"]

SAVED_MODEL = "tf_saved_model"


class ExportedByKeras:
    """The part of a model that writes it for serving; stands before ``keras.Model`` among the bases."""

    _task_head: Head
    config: Any
    packing: str
    set_packing: Any

    def export(
        self,
        filepath: str | os.PathLike[str],
        format: str = SAVED_MODEL,
        verbose: bool | None = None,
        input_signature: Any = None,
        *,
        tokenizer: Any = None,
        **kwargs: Any,
    ) -> None:
        """Write the model for serving.

        A SavedModel has the endpoint ``serve`` (signature ``serving_default``), which takes tensors by name and returns
        a plain dictionary of tensors. Batch and length are free.

        Args:
            filepath: a folder for a SavedModel; a file that ends in ``.tflite`` for LiteRT, in ``.onnx`` for ONNX.
            format: ``tf_saved_model``, or another of Keras's formats: ``litert``, ``onnx``, ``openvino``. Those get the
                padded path.
            verbose: whether Keras prints a summary.
            input_signature: a list of one dictionary of ``tf.TensorSpec`` by input; by default ``input_ids``,
                ``attention_mask`` and, where there is more than one type, ``token_type_ids``: int32, all sizes free.
            tokenizer: adds the endpoint ``serve_text`` to a SavedModel, which takes strings (B,) and tokenizes them
                inside. Needs the sentencepiece model of the tokenizer and the package ``tensorflow_text``, here and
                where the file is served.
            **kwargs: options of Keras for the format.

        Raises:
            InputError: for a tokenizer that cannot be part of the file.
            MissingBackendError: if ``tensorflow_text`` is needed and not installed.
        """
        signature = [serving_signature(self)] if input_signature is None else input_signature
        if format == SAVED_MODEL:
            archive = keras.export.ExportArchive()
            archive.track(self)
            archive.add_endpoint("serve", lambda inputs: _served(self, inputs), signature, **kwargs)
            if tokenizer is not None:
                encode = _TextEncoder(self, tokenizer)
                archive.track(encode.pieces)
                archive.add_endpoint(
                    "serve_text", lambda text: _served(self, encode(text)), [tf.TensorSpec((None,), tf.string, "text")]
                )
            archive.write_out(str(filepath), verbose=True if verbose is None else verbose)
            return
        if tokenizer is not None:
            raise InputError(
                f"a tokenizer can be part of a {SAVED_MODEL} only, received format={format!r}; leave it out"
            )
        mode = self.packing
        self.set_packing("never")  # other runtimes have no sizes that follow from values
        try:
            super().export(filepath, format, verbose=verbose, input_signature=signature, **kwargs)  # type: ignore[misc]
        finally:
            self.set_packing(mode)


def serving_signature(model: Any) -> dict[str, tf.TensorSpec]:
    """The inputs in use: int32, every size free."""
    names = ["input_ids", "attention_mask"]
    if model.config.type_vocab_size > 1:
        names.append("token_type_ids")
    rank = 3 if model._task_head.loss is LossKind.CHOICE else 2
    return {name: tf.TensorSpec([None] * rank, tf.int32, name) for name in names}


def _served(model: Any, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The outputs as a flat dictionary, as a signature wants it: states of layer 3 become ``hidden_states_3``. What is
    served has no cache.
    """
    flat: dict[str, tf.Tensor] = {}
    for name, value in model(dict(inputs), return_dict=True, training=False).items():
        if name == "past_key_values":
            continue
        if isinstance(value, tuple):
            flat.update({f"{name}_{number}": part for number, part in enumerate(value)})
        else:
            flat[name] = value
    return flat


class _TextEncoder:
    """Strings to ids and mask, as operators of a graph.

    Args:
        model: whose length the texts are cut to.
        tokenizer: with a sentencepiece model.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        if model._task_head.loss is LossKind.CHOICE:
            raise InputError(
                "a model that chooses between texts takes several a row; expected no tokenizer, leave it out"
            )
        if tokenizer.vocab_file is None:
            raise InputError(
                "expected a tokenizer with its sentencepiece model, received one that was read from tokenizer.json "
                "alone; "
                "load it from a folder that has sentencepiece.bpe.model"
            )
        try:
            text = importlib.import_module("tensorflow_text")
        except ModuleNotFoundError as error:
            raise MissingBackendError(
                "tokenizing inside a SavedModel needs the operators of tensorflow_text; "
                "pip install tensorflow-text, or tokenize before the call"
            ) from error
        self.pieces = text.SentencepieceTokenizer(read_model_file(tokenizer.vocab_file))
        self.bos, self.eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.unknown, self.padding = tokenizer.unk_token_id, tokenizer.pad_token_id
        self.longest = max_tokens(model.config)

    def __call__(self, text_B: tf.Tensor) -> dict[str, tf.Tensor]:
        pieces = self.pieces.tokenize(text_B)[:, : self.longest - 2]
        # The published ids: a piece's number in the file and one, but for the unknown piece, which is 0 there.
        numbers = pieces.flat_values
        ids = pieces.with_flat_values(tf.where(numbers == 0, self.unknown, numbers + 1))
        ends = [tf.fill((tf.size(text_B), 1), token) for token in (self.bos, self.eos)]
        ids = tf.concat([ends[0], ids, ends[1]], axis=1)
        return {"input_ids": ids.to_tensor(self.padding), "attention_mask": tf.ones_like(ids).to_tensor(0)}
