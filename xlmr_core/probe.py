"""A small forward pass of a checkpoint, in the reference or a backend: what its weights and its config mean together.

Two short sequences, one of them padded, go through all layers. Of a large vocabulary only some rows take part in the
reference, because in float64 an embedding of XL alone would be 5 GB; which rows is the same for every checkpoint of
that size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xlmr_core.backends import BACKENDS, load_backend
from xlmr_core.checkpoints.found import find
from xlmr_core.checkpoints.model_files import ModelFiles
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import CheckpointError
from xlmr_core.formats.tensors import LazyTensor, RawTensor
from xlmr_core.heads import HEADS
from xlmr_core.parameters import Quantized, parts_of
from xlmr_core.reference import forward, make_position_ids
from xlmr_core.wording import counted

__all__ = ["REFERENCE", "Counter", "Probe", "Progress", "largest_activation", "make_probe", "run_probe"]

Array: TypeAlias = NDArray[Any]

# Called with what is being done, how many of its bytes are done, and how many there are.
Progress: TypeAlias = Callable[[str, int, int], None]

REFERENCE = "reference"
# What is compared of an output, as far as the head has it.
FIELDS = ("logits", "start_logits", "end_logits", "last_hidden_state", "pooler_output")
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
        rows: ids of the tokens whose rows take part, ascending; ``None`` for all.
    """

    inputs: dict[str, Array]
    rows: Array | None

    def describe(self, config: XLMRobertaConfig) -> str:
        """What is run, for people."""
        ids = self.inputs["input_ids"]
        sampled = "" if self.rows is None else f", {len(self.rows)} of {config.vocab_size} rows of the vocabulary"
        size = f"{counted(ids.size // ids.shape[-1], 'sequence')} of {counted(ids.shape[-1], 'token')}"
        return f"{size} through {counted(config.num_hidden_layers, 'layer')}{sampled}"


def make_probe(config: XLMRobertaConfig, head: str) -> Probe:
    """The inputs for a model: the same for every checkpoint with these sizes."""
    random = np.random.default_rng(0)
    rows = _sampled_rows(config)
    length = min(LENGTH, config.max_tokens)
    shape = (2, CHOICES, length) if head == "ForMultipleChoice" else (2, length)
    candidates = np.arange(config.vocab_size) if rows is None else rows
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
    mask = probe.inputs["attention_mask"]
    return {name: x[mask == 1] if x.shape[: mask.ndim] == mask.shape else x for name, x in outputs.items()}


# The reference


def largest_activation(files: ModelFiles, progress: Progress | None = None) -> float:
    """The largest absolute value in any hidden state of the probe."""
    output = _reference_output(files, make_probe(files.config, files.head), progress)
    return max(float(np.abs(states).max()) for states in output["hidden_states"])


def _in_reference(files: ModelFiles, probe: Probe, progress: Progress | None) -> dict[str, Array]:
    output = _reference_output(files, probe, progress)
    return {name: np.asarray(output[name]) for name in FIELDS if output.get(name) is not None}


def _reference_output(files: ModelFiles, probe: Probe, progress: Progress | None) -> Mapping[str, Any]:
    config, inputs = files.config, dict(probe.inputs)
    if probe.rows is not None:
        # Positions are counted with the padding id of the model, then everything speaks of the rows that are left.
        ids = inputs["input_ids"]
        inputs["position_ids"] = make_position_ids(config, ids.reshape(-1, ids.shape[-1])).reshape(ids.shape)
        inputs["input_ids"] = np.searchsorted(probe.rows, ids)
        pad = int(np.searchsorted(probe.rows, config.pad_token_id))
        config = config.copy(vocab_size=len(probe.rows), pad_token_id=pad, bos_token_id=None, eos_token_id=None)
    with np.errstate(all="ignore"):  # broken weights give broken outputs, which is for the caller to see
        return forward(config, files.head, _Parameters(files, probe.rows, progress), **inputs)


class _Parameters(Mapping[str, Array]):
    """The parameters of a file as arrays, each read when it is asked for and not kept."""

    def __init__(self, files: ModelFiles, rows: Array | None, progress: Progress | None) -> None:
        self._files = files
        self._rows = rows
        self._sources = files.plan.sources
        nbytes = sum(files.checkpoint.stream(source).nbytes for source in self._sources.values())
        self._count = Counter("running", nbytes, progress)

    def __getitem__(self, name: str) -> Array:
        rows = self._rows if name.removeprefix("roberta.") in _BY_TOKEN else None
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
    backend = load_backend(name)
    auto = BACKENDS[name].prefix + HEADS[files.head].auto
    # A backend finds the weights of a folder by itself: they have to be the ones that are compared.
    first = find(files.folder).path
    if first != Path(files.checkpoint.path):
        raise CheckpointError(
            f"a backend reads folders, and of {files.folder} it would read {first.name}; "
            f"move {Path(files.checkpoint.path).name} to a folder of its own, or compare with the reference"
        )
    # A model without a pooler must not be given a fresh one.
    pooling = {"add_pooling_layer": files.pooler} if files.head == "Model" else {}
    model = getattr(backend, auto).from_pretrained(files.folder, dtype="float32", **pooling)
    output = model(**{key: backend.to_tensor(value) for key, value in probe.inputs.items()})
    found = {key: _to_numpy(output[key]) for key in FIELDS if key in output and output[key] is not None}
    if probe.rows is not None and files.head in ("ForMaskedLM", "ForCausalLM"):
        found["logits"] = found["logits"][..., probe.rows]
    return found


def _to_numpy(tensor: Any) -> Array:
    # PyTorch hands out the values of a tensor only once its gradient is let go of; other frameworks have no such
    # method.
    detached = tensor.detach() if hasattr(tensor, "detach") else tensor
    return np.asarray(detached, dtype=np.float64)
