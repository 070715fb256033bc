"""The format ``fairseq``: the archive in which XLM-R was released, ``model.pt`` beside ``dict.txt`` and the
sentencepiece model.

Read with either of its two configurations (``args``, a Namespace, or ``cfg``, which may be of omegaconf) and with any
classification heads. Written for the encoder, the MLM head and one classification head, with ``args``, which every
fairseq from 2019 to 0.12 reads.
"""

from __future__ import annotations

import argparse
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xlmr_core.config import EncoderDecoderConfig, XLMRobertaConfig, XLMRobertaXLConfig
from xlmr_core.errors import CheckpointError, ConfigError
from xlmr_core.formats.base import Checkpoint, Format, Model, Naming
from xlmr_core.formats.fairseq_names import HEADS, NO_TYPES, TYPES, WRITTEN_HEAD, fairseq_naming
from xlmr_core.formats.finding import in_folder
from xlmr_core.formats.pickle_reader import Record
from xlmr_core.formats.tensors import DTYPES, FLOAT_TAGS, Described, LazyTensor, RawTensor, TensorInfo
from xlmr_core.formats.torch_file import TorchArchive, TorchFile, described, is_torch_file
from xlmr_core.formats.torch_writer import write_torch
from xlmr_core.wording import shown

__all__ = ["FAIRSEQ", "fairseq_dictionary"]

SINGLE = "model.pt"
# fairseq's names of activations.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_accurate": "gelu_new",
    "gelu_fast": "gelu_new",
    "relu": "relu",
    "tanh": "tanh",
    "swish": "silu",
}
WRITTEN_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_accurate",
    "gelu_pytorch_tanh": "gelu_accurate",
    "gelu_fast": "gelu_accurate",
    "relu": "relu",
    "tanh": "tanh",
    "silu": "swish",
    "swish": "swish",
}
# What fairseq does not let one choose.
LAYER_NORM_EPS = 1e-5
SPECIAL = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
POSITION_OFFSET = 2
LM_HEAD = "lm_head."
# Without this mark fairseq takes an encoder for one of 2017, which has no last norm.
VERSION = "encoder.sentence_encoder.version"


# Reading


def _is_archive(root: Any) -> bool:
    state = root.get("model") if isinstance(root, dict) else None
    return isinstance(state, dict) and any(isinstance(key, str) and "sentence_encoder." in key for key in state)


class FairseqFile(TorchFile):
    """The tensors of an archive, and a row of zeros for the token types that it does not have."""

    def __init__(self, path: Path) -> None:
        archive = TorchArchive(path)
        root = archive.root
        if not _is_archive(root):
            raise CheckpointError(
                f"{path} is no archive of a RoBERTa model of fairseq: expected its weights under 'model', found "
                + described(root)
                + "; check the file"
            )
        super().__init__(archive, root["model"])
        self.settings = _settings(root)
        heads = [name.removeprefix(HEADS).partition(".")[0] for name in self.tensors if name.startswith(HEADS)]
        self.metadata["heads"] = tuple(dict.fromkeys(heads))
        words = next((info for name, info in self.tensors.items() if name.endswith("embed_tokens.weight")), None)
        if words is not None and len(words.shape) == 2:
            self.tensors[NO_TYPES] = TensorInfo(words.dtype, (1, words.shape[1]), path)

    def tensor(self, name: str) -> RawTensor:
        return self.stream(name).read() if name == NO_TYPES else super().tensor(name)

    def stream(self, name: str) -> LazyTensor:
        if name != NO_TYPES:
            return super().stream(name)
        dtype, shape, _ = self.tensors[name]
        return LazyTensor(dtype, shape, lambda: iter((memoryview(bytes(shape[1] * DTYPES[dtype].size)),)))


def _settings(root: Mapping[Any, Any]) -> dict[str, Any]:
    """What ``args`` or ``cfg.model`` says, as plain values."""
    if root.get("cfg") is not None:
        whole = _content(root["cfg"])
        found = _content(whole.get("model")) if isinstance(whole, dict) else None
    else:
        found = _content(root.get("args"))
    return {key: _content(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _content(value: Any) -> Any:
    """The attributes of a Namespace, or the content of an object of omegaconf; what is in them stays as it is, because
    objects may hold each other.
    """
    if not isinstance(value, Record):
        return value
    state = value.state if isinstance(value.state, dict) else {}
    if not value.kind.startswith("omegaconf."):
        return state
    return state["_content"] if "_content" in state else state.get("_val")


def _is_xl(names: Iterable[str]) -> bool:
    """Whether the norms stand where XL has them."""
    return any(name.endswith("sentence_encoder.layer_norm.weight") for name in names)


def _naming(container: Described, head: str | None) -> Naming:
    bare = not any(name.startswith((HEADS, "encoder.lm_head.", "decoder.lm_head.")) for name in container.tensors)
    heads = container.metadata["heads"]
    return fairseq_naming(_is_xl(container.tensors), bare, heads[0] if head is None and len(heads) == 1 else head)


def _config(path: Path, checkpoint: Checkpoint) -> XLMRobertaConfig:
    file = FairseqFile(path)
    said = file.settings
    absent = [key for key in ("encoder_layers", "encoder_embed_dim", "encoder_attention_heads") if key not in said]
    if absent:
        raise CheckpointError(
            f"{path} says nothing about {', '.join(absent)}, neither in args nor in cfg; put a config.json beside it"
        )
    for key, expected in (("activation_fn", ACTIVATIONS), ("pooler_activation_fn", {"tanh": "tanh"})):
        received = said.get(key, next(iter(expected)))
        if not isinstance(received, str) or received not in expected:
            raise ConfigError(
                f"{path} has {key}={shown(received)}, expected one of {', '.join(expected)}; no such model is here"
            )
    named = {name.removeprefix("roberta."): checkpoint.info(name) for name in checkpoint.names}
    words, positions = named["embeddings.word_embeddings.weight"], named["embeddings.position_embeddings.weight"]
    head = "ForMaskedLM" if any(name.startswith(LM_HEAD) for name in named) else "Model"
    values: dict[str, Any] = {
        "vocab_size": words.shape[0],
        "max_position_embeddings": positions.shape[0],
        "hidden_size": said["encoder_embed_dim"],
        "num_hidden_layers": said["encoder_layers"],
        "num_attention_heads": said["encoder_attention_heads"],
        "intermediate_size": said.get("encoder_ffn_embed_dim", 4 * said["encoder_embed_dim"]),
        "hidden_act": ACTIVATIONS[said.get("activation_fn", "gelu")],
        "hidden_dropout_prob": said.get("dropout", 0.1),
        "attention_probs_dropout_prob": said.get("attention_dropout", 0.1),
        "tie_word_embeddings": not said.get("untie_weights_roberta", False),
        "type_vocab_size": 1,
        "layer_norm_eps": LAYER_NORM_EPS,
        **SPECIAL,
    }
    if "classifier.out_proj.weight" in named:
        head = "ForSequenceClassification"
        values["num_labels"] = named["classifier.out_proj.weight"].shape[0]
        values["classifier_dropout"] = said.get("pooler_dropout", 0.0)
    family = XLMRobertaXLConfig if _is_xl(file.tensors) else XLMRobertaConfig
    return family(**values, architectures=[family.__name__.removesuffix("Config") + head])


# Writing


def _written(model: Model) -> Naming:
    return fairseq_naming(isinstance(model.config, XLMRobertaXLConfig), model.head == "Model", WRITTEN_HEAD)


def _prepare(tensors: Mapping[str, LazyTensor], model: Model) -> dict[str, LazyTensor]:
    """The parameters that fairseq has, under canonical names.

    Raises:
        CheckpointError: for a model that fairseq has not.
    """
    _refuse(tensors, model)
    prefix = "" if model.head == "Model" else "roberta."
    kept = dict(tensors)
    types = kept.pop(prefix + TYPES).read()
    if np.any(types.bits()):
        # Every token has the type 0, so its row can stand in the rows of the positions.
        positions = f"{prefix}embeddings.position_embeddings.weight"
        kept[positions] = _with_row_added(kept[positions], types)
    words = kept[f"{prefix}embeddings.word_embeddings.weight"]
    kept.setdefault("lm_head.decoder.weight", words)
    kept.pop("lm_head.decoder.bias", None)  # the other name of lm_head.bias
    if "lm_head.bias" not in kept:
        vocab, width = words.shape
        # fairseq has no RoBERTa without a head for the vocabulary: one that predicts nothing.
        kept["lm_head.bias"] = _constant(words.dtype, (vocab,), 0)
        kept["lm_head.dense.weight"] = _constant(words.dtype, (width, width), 0)
        kept["lm_head.dense.bias"] = _constant(words.dtype, (width,), 0)
        kept["lm_head.layer_norm.weight"] = _constant(words.dtype, (width,), 1)
        kept["lm_head.layer_norm.bias"] = _constant(words.dtype, (width,), 0)
    return kept


WRITTEN_HEADS = ("Model", "ForMaskedLM", "ForSequenceClassification")


def _refuse(tensors: Mapping[str, LazyTensor], model: Model) -> None:
    config = model.config
    why = None
    if isinstance(config, EncoderDecoderConfig) or model.head not in WRITTEN_HEADS:
        why = f"it has no {model.head}"
    elif config.is_decoder or config.add_cross_attention:
        why = "its RoBERTa is no decoder"
    elif config.position_embedding_type != "absolute":
        why = f"it has no position_embedding_type {config.position_embedding_type!r}"
    elif config.type_vocab_size != 1:
        why = f"it has no token types, and type_vocab_size is {config.type_vocab_size}"
    elif config.layer_norm_eps != LAYER_NORM_EPS:
        why = f"its layer_norm_eps is always {LAYER_NORM_EPS}, and here it is {config.layer_norm_eps}"
    elif config.hidden_act not in WRITTEN_ACTIVATIONS:
        why = f"it has no hidden_act {config.hidden_act!r}"
    elif config.pruned_heads:
        why = "it cannot hold pruned heads"
    elif any(getattr(config, key) != value for key, value in SPECIAL.items()):
        why = f"its special tokens are always {SPECIAL}"
    elif any("pooler." in name for name in tensors):
        why = "it has no pooler; leave it out, or convert the checkpoint of a head without one"
    elif any(tensor.dtype not in FLOAT_TAGS for tensor in tensors.values()):
        why = "its weights are floating point numbers"
    if why is not None:
        raise CheckpointError(f"fairseq cannot hold this model: {why}; write another format, such as safetensors")


def _with_row_added(table: LazyTensor, row: RawTensor) -> LazyTensor:
    if table.dtype not in ("F64", "F32", "F16"):
        raise CheckpointError(
            f"fairseq has no token types, and adding their row to positions in {table.dtype} would lose digits; "
            "convert with dtype='float32'"
        )

    def pieces() -> Iterator[memoryview]:
        values = table.read().to_numpy()
        yield RawTensor.from_numpy(values + row.to_numpy().astype(values.dtype)).data

    return LazyTensor(table.dtype, table.shape, pieces)


def _constant(dtype: str, shape: tuple[int, ...], value: int) -> LazyTensor:
    # One is, in bfloat16, the upper half of a float32's.
    one = {"BF16": b"\x80\x3f"}.get(dtype) or np.ones((), DTYPES[dtype].numpy).tobytes()
    value_bytes = one if value else bytes(len(one))

    def pieces() -> Iterator[memoryview]:
        yield memoryview(value_bytes * int(np.prod(shape)))

    return LazyTensor(dtype, shape, pieces)


def _write(path: Path, tensors: Mapping[str, LazyTensor], model: Model) -> None:
    config = model.config
    assert isinstance(config, XLMRobertaConfig) and isinstance(config.hidden_act, str), "checked before"
    xl = isinstance(config, XLMRobertaXLConfig)
    args = argparse.Namespace(
        arch="roberta_prenorm" if xl else "roberta_base",
        task="multilingual_masked_lm",
        criterion="masked_lm",
        optimizer="adam",
        lr_scheduler="fixed",
        lr=[0.0001],
        data=".",
        seed=1,
        cpu=False,
        encoder_layers=config.num_hidden_layers,
        encoder_embed_dim=config.hidden_size,
        encoder_ffn_embed_dim=config.intermediate_size,
        encoder_attention_heads=config.num_attention_heads,
        encoder_normalize_before=xl,
        layernorm_embedding=not xl,
        activation_fn=WRITTEN_ACTIVATIONS[config.hidden_act],
        pooler_activation_fn="tanh",
        dropout=config.hidden_dropout_prob,
        attention_dropout=config.attention_probs_dropout_prob,
        activation_dropout=0.0,
        pooler_dropout=config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout,
        encoder_layerdrop=0,
        encoder_layers_to_keep=None,
        max_positions=config.max_position_embeddings - POSITION_OFFSET,
        tokens_per_sample=config.max_position_embeddings - POSITION_OFFSET,
        untie_weights_roberta=not config.tie_word_embeddings,
        sample_break_mode="complete",
        mask_prob=0.15,
        leave_unmasked_prob=0.1,
        random_token_prob=0.1,
        freq_weighted_replacement=False,
        mask_whole_words=False,
        multilang_sampling_alpha=1.0,
    )
    history = {
        "criterion_name": "MaskedLmLoss",
        "optimizer_name": "FairseqAdam",
        "lr_scheduler_state": {"best": None},
        "num_updates": 0,
    }
    root = {
        "args": args,
        "model": {VERSION: LazyTensor("F32", (1,), lambda: iter((memoryview(struct.pack("<f", 3)),))), **tensors},
        "optimizer_history": [history],
        "extra_state": {"train_iterator": {"epoch": 0, "iterations_in_epoch": 0}},
    }
    write_torch(path, root)


def fairseq_dictionary(pieces: Iterable[str]) -> bytes:
    """The content of ``dict.txt`` for the pieces of a sentencepiece model, in their order, without its first three.

    fairseq puts its own special tokens before them and ``<mask>`` behind them, and reads a count beside each piece only
    to keep their order. The row of a piece with the name of one of those is no text's: one of fairseq's fillers.
    """
    fillers = {"<pad>": "madeupword9998", "<mask>": "madeupword9999"}
    plain = [fillers.get(piece, piece) for piece in pieces if piece not in ("<s>", "</s>", "<unk>")]
    return "".join(f"{piece} {len(plain) - index}\n" for index, piece in enumerate(plain)).encode()


FAIRSEQ = Format(
    name="fairseq",
    title="fairseq archive",
    single=SINGLE,
    index="",
    find=in_folder(SINGLE),
    recognises=lambda path: is_torch_file(path) and _is_archive(TorchArchive(path).root),
    open=FairseqFile,
    naming=_naming,
    written=_written,
    prepare=_prepare,
    write=_write,
    config=_config,
)
