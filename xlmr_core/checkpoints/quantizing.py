"""Weights quantized, or widened again, while a checkpoint is written: a piece of rows in memory at a time, and the
whole weight where its rows hang together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xlmr_core.checkpoints.casting import widened
from xlmr_core.errors import CheckpointError
from xlmr_core.formats.tensors import DTYPES, FLOAT_TAGS, LazyTensor
from xlmr_core.parameters import Parameter, parts_of
from xlmr_core.quantization import Scheme
from xlmr_core.quantization.widening import rows_at_once

__all__ = ["dequantized", "quantized", "rows_of"]

Array: TypeAlias = NDArray[Any]


def quantized(scheme: Scheme, row: Parameter, source: LazyTensor) -> dict[str, LazyTensor]:
    """The tensors of a weight, by name.

    Args:
        scheme: how to store it.
        row: of the weight as it is.
        source: its values, of any floating point dtype.

    Raises:
        CheckpointError: if it is of another dtype, or when it is written for a value that is not finite.
    """
    if source.dtype not in FLOAT_TAGS:
        raise CheckpointError(
            f"{row.name} holds {source.dtype}, expected {' or '.join(FLOAT_TAGS)} to quantize; convert the checkpoint "
            "it was made from"
        )
    scheme = scheme.for_weight(row).of_dtype(source.dtype)
    streams = _by_rows(scheme, row, source) if scheme.by_rows else _as_a_whole(scheme, row, source)
    return {scheme.part_name(row.name, suffix): stream for suffix, stream in streams.items()}


def _by_rows(scheme: Scheme, row: Parameter, source: LazyTensor) -> dict[str, LazyTensor]:
    first, *others = scheme.stored(row)
    beside: dict[str, list[bytes]] = {}

    def codes() -> Iterator[memoryview]:
        # What lies beside the codes is small; it is kept until it is written, which is next.
        beside.clear()
        beside.update({stored.suffix: [] for stored in others})
        for piece in rows_of(source):
            parts = scheme.encode(_finite(piece, row.name))
            for stored in others:
                beside[stored.suffix].append(parts[stored.suffix].tobytes())
            yield _bytes(parts[""])

    def others_of(suffix: str) -> Iterator[memoryview]:
        if suffix not in beside:
            for _ in codes():
                pass
        yield memoryview(b"".join(beside.pop(suffix)))

    return {
        "": LazyTensor(first.dtype, first.shape, codes),
        **{
            stored.suffix: LazyTensor(stored.dtype, stored.shape, partial(others_of, stored.suffix))
            for stored in others
        },
    }


def _as_a_whole(scheme: Scheme, row: Parameter, source: LazyTensor) -> dict[str, LazyTensor]:
    """The weight is encoded twice: now for what lies beside its codes, of which the header says how long it is, and
    once more for the codes when their turn comes.
    """
    stored = {part.suffix: part for part in scheme.stored(row)}

    def encoded() -> dict[str, Array]:
        whole = np.empty(row.shape, np.float32)
        done = 0
        for piece in rows_of(source):
            whole[done : done + len(piece)] = piece
            done += len(piece)
        return scheme.encode(_finite(whole, row.name))

    def codes() -> Iterator[memoryview]:
        yield _bytes(encoded()[""])

    parts = encoded()
    del parts[""]

    def beside(suffix: str) -> Iterator[memoryview]:
        yield _bytes(parts[suffix])

    return {
        "": LazyTensor(stored[""].dtype, stored[""].shape, codes),
        **{
            suffix: LazyTensor(stored[suffix].dtype, part.shape, partial(beside, suffix))
            for suffix, part in parts.items()
        },
    }


def dequantized(streams: Mapping[str, LazyTensor], rows: Mapping[str, Parameter]) -> dict[str, LazyTensor]:
    """The tensors of a checkpoint with every quantized weight as float32 values.

    Args:
        streams: the tensors as they are stored, by name.
        rows: what they are.
    """
    found = {}
    for name, stream in streams.items():
        part = rows[name].quantized
        if part is None:
            found[name] = stream
        elif not part.suffix:
            parts = {suffix: streams[row.name] for suffix, row in parts_of(part.weight, rows).items()}
            found[name] = _decoded(part.scheme, parts, part.shape)
    return found


def _decoded(scheme: Scheme, parts: Mapping[str, LazyTensor], shape: tuple[int, ...]) -> LazyTensor:
    def pieces() -> Iterator[memoryview]:
        if not scheme.by_rows:
            whole = {suffix: stream.read() for suffix, stream in parts.items()}
            values = {suffix: raw.bits() if raw.dtype == "BF16" else raw.to_numpy() for suffix, raw in whole.items()}
            yield _bytes(scheme.decode(values, shape))
            return
        step = rows_at_once(shape[1])
        for columns in zip(*(_in_steps(stream, step) for stream in parts.values()), strict=True):
            piece = dict(zip(parts, columns, strict=True))
            yield _bytes(scheme.decode(piece, (len(piece[""]), *shape[1:])))

    return LazyTensor("F32", shape, pieces)


def rows_of(source: LazyTensor) -> Iterator[Array]:
    """The float values of a weight by whole rows."""
    step = rows_at_once(source.shape[1])
    for data in _rows_in_bytes(source, step):
        yield widened(data, source.dtype).reshape(-1, source.shape[1])


def _in_steps(source: LazyTensor, step: int) -> Iterator[Array]:
    for data in _rows_in_bytes(source, step):
        yield np.frombuffer(data, DTYPES[source.dtype].numpy).reshape(-1, *source.shape[1:])


def _rows_in_bytes(source: LazyTensor, step: int) -> Iterator[memoryview]:
    """The bytes of so many rows at a time, valid until the next ones are asked for."""
    width = source.nbytes // source.shape[0]
    block, filled = memoryview(bytearray(min(step * width, source.nbytes))), 0
    for piece in source.pieces():
        while piece.nbytes:
            count = min(piece.nbytes, len(block) - filled)
            block[filled : filled + count] = piece[:count]
            piece, filled = piece[count:], filled + count
            if filled == len(block):
                yield block
                filled = 0
    if filled:
        yield block[:filled]


def _finite(values: Array, name: str) -> Array:
    if not np.isfinite(values).all():
        raise CheckpointError(
            f"{name} holds values that are no finite numbers, and no scale can be found for them; xlmr doctor says "
            "where, or skip it"
        )
    return values


def _bytes(values: Array) -> memoryview:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
