"""A small forward pass of a checkpoint, in the reference or a backend: what its weights and its config mean together.

Two short sequences, one of them padded, go through all layers. Of a large vocabulary only some rows take part in the
reference, because in float64 an embedding of XL alone would be 5 GB; which rows is the same for every checkpoint of
that size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xlmr_core.backends import BACKENDS, Backend, load_backend
from xlmr_core.checkpoints.found import find
from xlmr_core.checkpoints.model_files import ModelFiles
from xlmr_core.config import EncoderDecoderConfig, ModelConfig, XLMRobertaConfig, parts_of_config
from xlmr_core.errors import CheckpointError
from xlmr_core.formats.tensors import LazyTensor, RawTensor
from xlmr_core.heads import ENCODER_DECODER, head_called
from xlmr_core.parameters import Quantized, parts_of
from xlmr_core.reference import forward, make_position_ids
from xlmr_core.wording import counted

__all__ = ["REFERENCE", "Counter", "Probe", "Progress", "largest_activation", "make_probe", "run_probe"]

Array: TypeAlias = NDArray[Any]

# Called with what is being done, how many of its bytes are done, and how many there are.
Progress: TypeAlias = Callable[[str, int, int], None]

REFERENCE = "reference"
# What is compared of an output, as far as the head has it.
FIELDS = (
    *("logits", "start_logits", "end_logits", "last_hidden_state", "pooler_output"),
    "encoder_last_hidden_state",
)
# So many tokens, so many of them padding in the second row.
LENGTH, PADDING = 16, 5
CHOICES = 2
# A larger vocabulary is sampled to so many rows.
VOCABULARY = 4096
# Parameters with a row for each token of the vocabulary.
_BY_TOKEN = ("embeddings.word_embeddings.weight", "lm_head.decoder.weight", "lm_head.bias", "lm_head.decoder.bias")


class Counter:
    """Adds up bytes for somebody's progress."""

    def __init__(self, what: str, total: int, progress: Progress | None) -> None:
        self._what, self._total, self._progress = what, total, progress
        self._done = 0

    def __call__(self, count: int) -> None:
        self._done = min(self._done + count, self._total)
        if self._progress is not None:
            self._progress(self._what, self._done, self._total)


@dataclass(frozen=True)
class Probe:
    """Inputs, and which rows of the vocabulary count.

    Attributes:
        inputs: arguments of a forward pass, as arrays.
        rows: ids of the tokens whose rows take part, ascending, for each vocabulary of which not all do, by what the
            names of its model's parameters begin with.
    """

    inputs: dict[str, Array]
    rows: dict[str, Array]

    def describe(self, config: ModelConfig) -> str:
        """What is run, for people."""
        ids = self.inputs["input_ids"]
        parts = parts_of_config(config)
        sampled = "".join(
            f", {len(rows)} of {parts[prefix].vocab_size} rows of the {prefix.replace('.', chr(39) + 's ')}vocabulary"
            for prefix, rows in self.rows.items()
        )
        size = f"{counted(ids.size // ids.shape[-1], 'sequence')} of {counted(ids.shape[-1], 'token')}"
        layers = " and ".join(counted(part.num_hidden_layers, "layer") for part in parts.values())
        return f"{size} through {layers}{sampled}"


def make_probe(config: ModelConfig, head: str) -> Probe:
    """The inputs for a model: the same for every checkpoint with these sizes."""
    if isinstance(config, EncoderDecoderConfig):
        return _of_both(config)
    random = np.random.default_rng(0)
    sampled = _sampled_rows(config)
    length = min(LENGTH, config.max_tokens)
    shape = (2, CHOICES, length) if head == "ForMultipleChoice" else (2, length)
    candidates = np.arange(config.vocab_size) if sampled is None else sampled
    candidates = candidates[candidates != config.pad_token_id]
    input_ids = random.choice(candidates, size=shape)
    mask = np.ones(shape, np.int64)
    padding = min(PADDING, length - 1)
    if padding:
        mask[1, ..., -padding:] = 0
    inputs: dict[str, Array] = {
        "input_ids": np.where(mask == 1, input_ids, config.pad_token_id),
        "attention_mask": mask,
    }
    if config.is_decoder and config.add_cross_attention:
        inputs["encoder_hidden_states"] = random.standard_normal((2, 3, config.hidden_size)).astype(np.float32)
    return Probe(inputs, {} if sampled is None else {"": sampled})


def _of_both(config: EncoderDecoderConfig) -> Probe:
    """The inputs of an encoder-decoder: those of both sides, of which the decoder's memory is the encoder's states."""
    inputs: dict[str, Array] = {}
    rows: dict[str, Array] = {}
    for prefix, part in config.parts.items():
        alone = make_probe(part.copy(is_decoder=False, add_cross_attention=False), "Model")
        before = "decoder_" if prefix == "decoder." else ""
        inputs.update({before + name: x for name, x in alone.inputs.items()})
        if alone.rows:
            rows[prefix] = alone.rows[""]
    return Probe(inputs, rows)


def _sampled_rows(config: XLMRobertaConfig) -> Array | None:
    if config.vocab_size <= VOCABULARY:
        return None
    spread = np.linspace(0, config.vocab_size - 1, VOCABULARY - 1).astype(np.int64)
    return np.unique(np.append(spread, config.pad_token_id))


def run_probe(
    files: ModelFiles, probe: Probe, backend: str = REFERENCE, progress: Progress | None = None
) -> dict[str, Array]:
    """Run the probe.

    Args:
        files: an open checkpoint.
        probe: of :func:`make_probe`.
        backend: ``reference``, or a name of ``BACKENDS``, which then loads the model in float32.
        progress: told of the bytes that the reference has read.

    Returns:
        the outputs as float64 arrays, by name. Of a token-wise output only tokens that are no padding, of logits over
        the vocabulary only the sampled rows.

    Raises:
        MissingBackendError: if the backend is not installed.
    """
    outputs = _in_reference(files, probe, progress) if backend == REFERENCE else _in_backend(files, probe, backend)
    masks = [mask for name, mask in probe.inputs.items() if name.endswith("attention_mask")]
    return {name: _of_tokens(x, masks) for name, x in outputs.items()}


def _of_tokens(x: Array, masks: Iterable[Array]) -> Array:
    """The rows of tokens that are no padding, of an output that has a row for each."""
    return next((x[mask == 1] for mask in masks if x.shape[: mask.ndim] == mask.shape), x)


# The reference


def largest_activation(files: ModelFiles, progress: Progress | None = None) -> float:
    """The largest absolute value in any hidden state of the probe."""
    output = _reference_output(files, make_probe(files.config, files.head), progress)
    kinds = ("hidden_states", "encoder_hidden_states", "decoder_hidden_states")
    return max(float(np.abs(states).max()) for kind in kinds for states in output.get(kind, ()))


def _in_reference(files: ModelFiles, probe: Probe, progress: Progress | None) -> dict[str, Array]:
    output = _reference_output(files, probe, progress)
    return {name: np.asarray(output[name]) for name in FIELDS if output.get(name) is not None}


def _reference_output(files: ModelFiles, probe: Probe, progress: Progress | None) -> Mapping[str, Any]:
    config, inputs = files.config, dict(probe.inputs)
    parts = parts_of_config(config)
    for prefix, rows in probe.rows.items():
        parts[prefix] = _on_rows(parts[prefix], "decoder_" if prefix == "decoder." else "", inputs, rows)
    if isinstance(config, EncoderDecoderConfig):
        sides = {prefix.removesuffix("."): part for prefix, part in parts.items()}
        config = config.copy(**sides, decoder_start_token_id=None, pad_token_id=None)
    else:
        config = parts[""]
    with np.errstate(all="ignore"):  # broken weights give broken outputs, which is for the caller to see
        return forward(config, files.head, _Parameters(files, probe.rows, progress), **inputs)


def _on_rows(config: XLMRobertaConfig, before: str, inputs: dict[str, Array], rows: Array) -> XLMRobertaConfig:
    """A configuration, and its inputs, that speak of some rows of the vocabulary only."""
    # Positions are counted with the padding id of the model.
    ids = inputs[f"{before}input_ids"]
    positions = make_position_ids(config, ids.reshape(-1, ids.shape[-1])).reshape(ids.shape)
    inputs[f"{before}position_ids"] = positions
    inputs[f"{before}input_ids"] = np.searchsorted(rows, ids)
    pad = int(np.searchsorted(rows, config.pad_token_id))
    return config.copy(vocab_size=len(rows), pad_token_id=pad, bos_token_id=None, eos_token_id=None)


class _Parameters(Mapping[str, Array]):
    """The parameters of a file as arrays, each read when it is asked for and not kept."""

    def __init__(self, files: ModelFiles, rows: Mapping[str, Array], progress: Progress | None) -> None:
        self._files = files
        self._rows = rows
        self._sources = files.plan.sources
        nbytes = sum(files.checkpoint.stream(source).nbytes for source in self._sources.values())
        self._count = Counter("running", nbytes, progress)

    def __getitem__(self, name: str) -> Array:
        rows = _rows_for(name, self._rows)
        quantized = self._files.rows[name].quantized
        return self._read(name, rows) if quantized is None else self._decoded(quantized, rows)

    def _decoded(self, quantized: Quantized, rows: Array | None) -> Array:
        parts, shape = parts_of(quantized.weight, self._files.rows), quantized.shape
        if rows is not None and all(part.shape[:1] == shape[:1] for part in parts.values()):
            # Each row is on its own: the others need not be read.
            values = {suffix: self._read(part.name, rows) for suffix, part in parts.items()}
            return quantized.scheme.decode(values, (len(rows), *shape[1:]))
        whole = quantized.scheme.decode({suffix: self._read(part.name, None) for suffix, part in parts.items()}, shape)
        return whole if rows is None else whole[rows]

    def _read(self, name: str, rows: Array | None) -> Array:
        # As a stream: pages of a mapped file would add up in this process.
        stream = self._files.checkpoint.stream(self._sources[name])
        self._count(stream.nbytes)
        return (stream.read() if rows is None else _rows_of(stream, rows)).to_numpy()

    def __contains__(self, name: object) -> bool:
        return name in self._sources

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


def _rows_for(name: str, rows: Mapping[str, Array]) -> Array | None:
    """Which rows of a parameter take part; ``None`` for all."""
    return next((ids for prefix, ids in rows.items() if _within(name, prefix) in _BY_TOKEN), None)


def _within(name: str, prefix: str) -> str:
    """The bare name of a parameter in the model of a prefix; empty for another model's."""
    return name.removeprefix(prefix).removeprefix("roberta.") if name.startswith(prefix) else ""


def _rows_of(stream: LazyTensor, rows: Array) -> RawTensor:
    """Some rows of a tensor, ascending, while it streams past."""
    width = stream.nbytes // stream.shape[0]
    picked = memoryview(bytearray(len(rows) * width))
    begins = rows * width
    at = 0
    for piece in stream.pieces():
        # Those that end behind the start of the piece and begin before its end; a row may lie in several pieces.
        first, last = np.searchsorted(begins + width, at, "right"), np.searchsorted(begins, at + piece.nbytes)
        for number in range(int(first), int(last)):
            begin = int(begins[number])
            low, high = max(begin, at), min(begin + width, at + piece.nbytes)
            to = number * width - begin
            picked[to + low : to + high] = piece[low - at : high - at]
        at += piece.nbytes
    return RawTensor(stream.dtype, (len(rows), *stream.shape[1:]), picked)


# A backend


def _in_backend(files: ModelFiles, probe: Probe, name: str) -> dict[str, Array]:
    backend, row = load_backend(name), BACKENDS[name]
    model = getattr(backend, row.model).from_files(files) if row.model else _loaded(backend, row, files)
    output = model(**{key: backend.to_tensor(value) for key, value in probe.inputs.items()})
    found = {key: _to_numpy(output[key]) for key in FIELDS if key in output and output[key] is not None}
    rows = _rows_for("decoder.lm_head.bias" if "decoder." in probe.rows else "lm_head.bias", probe.rows)
    if rows is not None and files.head in ("ForMaskedLM", "ForCausalLM", ENCODER_DECODER.suffix):
        found["logits"] = found["logits"][..., rows]
    return found


def _loaded(backend: Any, row: Backend, files: ModelFiles) -> Any:
    # A backend finds the weights of a folder by itself: they have to be the ones that are compared.
    first = find(files.folder).path
    if first != Path(files.checkpoint.path):
        raise CheckpointError(
            f"a backend reads folders, and of {files.folder} it would read {first.name}; "
            f"move {Path(files.checkpoint.path).name} to a folder of its own, or compare with the reference"
        )
    # A model without a pooler must not be given a fresh one.
    pooling = {"add_pooling_layer": files.pooler} if files.head == "Model" else {}
    return getattr(backend, row.prefix + head_called(files.head).auto).from_pretrained(
        files.folder, dtype="float32", **pooling
    )


def _to_numpy(tensor: Any) -> Array:
    # PyTorch hands out the values of a tensor only once its gradient is let go of; other frameworks have no such
    # method.
    detached = tensor.detach() if hasattr(tensor, "detach") else tensor
    return np.asarray(detached, dtype=np.float64)
