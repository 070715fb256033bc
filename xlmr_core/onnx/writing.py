"""A graph and its parameters as a file of ONNX, or two: what fits into no message of protobuf lies beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from xlmr_core import __version__, protobuf
from xlmr_core.checkpoints.casting import cast
from xlmr_core.checkpoints.model_files import ModelFiles
from xlmr_core.checkpoints.quantizing import quantized
from xlmr_core.config import EncoderDecoderConfig
from xlmr_core.errors import CheckpointError
from xlmr_core.formats.onnx_file import CODE_OF_TAG, OWN
from xlmr_core.formats.onnx_format import START, layout_of
from xlmr_core.formats.tensors import LazyTensor, RawTensor
from xlmr_core.onnx.encoder import ACTIVATIONS
from xlmr_core.onnx.four_bit import codes_of
from xlmr_core.onnx.graph import OPSET, Graph
from xlmr_core.onnx.heads import HEAD_GRAPHS, build_graph
from xlmr_core.quantization import IN_FILE, Scheme
from xlmr_core.quantization.int8 import INT8, SCALE, Int8
from xlmr_core.tasks.sentence_folder import SentenceFolder
from xlmr_core.wording import shown

__all__ = ["LARGEST_MESSAGE", "Model", "model_to_write", "write_model"]

# Bytes of a message at most, less some for what is no value.
LARGEST_MESSAGE = 2**31 - 2**24
# Values begin at a multiple of these, in a file of their own and in that of the graph, so that they can be mapped.
ALIGNMENT, ALIGNMENT_INSIDE = 4096, 64
# Bytes of the length of the graph, however short it is: where its tensors lie is known before it is.
_WIDTH = 5


@dataclass(frozen=True)
class Model:
    """What is written.

    Attributes:
        graph: of the model.
        tensors: its parameters by canonical name, as they lie in the file.
        metadata: texts.
        bits: of a weight that is quantized: 8 or 4, or of a model without any 32.
        quantized: how many weights are.
    """

    graph: Graph
    tensors: Mapping[str, LazyTensor]
    metadata: Mapping[str, str]
    bits: int = 32
    quantized: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the parameters."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def model_to_write(
    files: ModelFiles, *, task: str = "", folder: SentenceFolder | None = None, scheme: Scheme | None = None
) -> Model:
    """The graph of an open checkpoint and the parameters that it uses.

    Args:
        files: the checkpoint; with weights of eight or four bits it stays as it is.
        task, folder: as of :func:`.heads.build_graph`.
        scheme: stores weights in bytes; of our own schemes ``int8``.

    Raises:
        CheckpointError: for a decoder, a head that is not there, or weights that no graph can hold.
    """
    config = files.config
    if isinstance(config, EncoderDecoderConfig) or config.is_decoder or files.head not in HEAD_GRAPHS:
        raise CheckpointError(
            f"expected an encoder to make a graph of, received {files.architecture}, which writes texts; run it with "
            "PyTorch, TensorFlow or JAX"
        )
    if files.plan.fresh:
        raise CheckpointError(
            f"{files.name} lacks {', '.join(list(files.plan.fresh)[:3])}, which {files.architecture} needs; train the "
            "head, or export for a task that the checkpoint can do"
        )
    if not isinstance(config.hidden_act, str) or config.hidden_act not in ACTIVATIONS:
        raise CheckpointError(
            f"hidden_act must be one of {', '.join(ACTIVATIONS)} in a graph, received {shown(config.hidden_act)}"
        )
    stored = files.scheme
    if stored is not None and scheme is not None:
        raise CheckpointError(
            f"{files.name} has {stored.name} weights already, which are exported as they are; leave the scheme out, or "
            "export the checkpoint it was made from"
        )
    if scheme is not None and not isinstance(scheme, Int8):
        raise CheckpointError(f"a graph holds weights as {INT8.name}, received {scheme.name}; choose that, or none")
    streams = files.streams()
    if scheme is not None:
        scheme = scheme.planned(files.rows)
        for name in [name for name in streams if scheme.takes(files.rows[name])]:
            streams |= quantized(scheme, files.rows[name], streams[name])
    used = stored or scheme
    in_bytes = streams if isinstance(used, Int8) else {}
    scales = {name: name + SCALE for name in in_bytes if name + SCALE in in_bytes}
    codes = {} if stored is None or isinstance(stored, Int8) else codes_of(files.rows, files.name)
    graph = build_graph(config, files.head, pooler=files.pooler, task=task, folder=folder, scales=scales, codes=codes)
    # Those that it does not use as well, so that the file is a checkpoint.
    names = dict.fromkeys((*graph.parameters, *streams))
    tensors = {}
    for name in names:
        row = files.rows.get(name)
        is_part = name in scales or (row is not None and row.quantized is not None)
        tensor = streams[name] if is_part else cast(streams[name], "F32", name=name)
        tensors[name] = layout_of(name, tensor.dtype).stored(tensor)
    bits = 4 if codes else 8 if scales else 32
    return Model(graph, tensors, _metadata(files.head, task, used), bits, len(codes) or len(scales))


def _metadata(head: str, task: str, scheme: Scheme | None) -> dict[str, str]:
    said = {"version": __version__, "head": head, "task": task}
    return said if scheme is None else {**said, IN_FILE: json.dumps(scheme.written())}


# ---- Bytes


def write_model(
    model: Model,
    file: BinaryIO,
    beside: tuple[str, BinaryIO] | None = None,
    advance: Callable[[int], Any] = lambda count: None,
) -> None:
    """Write a model, a piece of a tensor in memory at a time, as far as its layout allows.

    Args:
        model: what to write.
        file: takes the graph, and the parameters where nothing stands beside it.
        beside: the name of a file beside it, and the file.
        advance: told of bytes that were written.
    """
    graph = model.graph
    before = [START, protobuf.field(3, __version__)]
    before += [
        protobuf.field(14, protobuf.field(1, key) + protobuf.field(2, said)) for key, said in model.metadata.items()
    ]
    versions = {"": OPSET, **dict.fromkeys(graph.domains, 1)}
    before += [protobuf.field(8, protobuf.field(1, name) + protobuf.field(2, one)) for name, one in versions.items()]
    nodes = [protobuf.field(1, node) for node in graph.nodes] + [protobuf.field(2, graph.name)]
    nodes += [_constant(name, value) for name, value in graph.constants.items()]
    ports = [protobuf.field(11, port.to_bytes()) for port in graph.inputs]
    ports += [protobuf.field(12, port.to_bytes()) for port in graph.outputs]
    heads, offset = [], 0
    begin = sum(map(len, (*before, protobuf.header(7, 0, _WIDTH), *nodes)))
    for name, tensor in model.tensors.items():
        if beside is None:
            heads.append(_aligned_head(name, tensor, begin))
            begin += len(heads[-1]) + tensor.nbytes
            continue
        offset += -offset % ALIGNMENT
        place = {"location": beside[0], "offset": str(offset), "length": str(tensor.nbytes)}
        heads.append(_head(name, tensor, place))
        offset += tensor.nbytes
    inside = 0 if beside is not None else model.nbytes
    length = sum(map(len, (*nodes, *ports, *heads))) + inside
    for part in (*before, protobuf.header(7, length, _WIDTH), *nodes):
        file.write(part)
    for (_, tensor), head in zip(model.tensors.items(), heads, strict=True):
        file.write(head)
        if beside is None:
            target = file
        else:
            target = beside[1]
            target.write(b"\0" * (-target.tell() % ALIGNMENT))
        for piece in tensor.pieces():
            target.write(piece)
            advance(piece.nbytes)
    for part in ports:
        file.write(part)


def _head(name: str, tensor: LazyTensor, place: Mapping[str, str] | None, filler: int | None = None) -> bytes:
    """What stands before the values of a tensor, or in their stead where they lie elsewhere."""
    described = b"".join(protobuf.field(1, size) for size in tensor.shape)
    described += protobuf.field(2, CODE_OF_TAG[tensor.dtype]) + protobuf.field(8, name)
    if place is None:
        # A remark that means nothing (doc_string) moves the values to where they are to begin.
        described += b"" if filler is None else protobuf.field(12, " " * filler)
        described += protobuf.header(9, tensor.nbytes)
        return protobuf.header(5, len(described) + tensor.nbytes) + described
    for key, said in place.items():
        described += protobuf.field(13, protobuf.field(1, key) + protobuf.field(2, said))
    return protobuf.field(5, described + protobuf.field(14, 1))


def _aligned_head(name: str, tensor: LazyTensor, begin: int) -> bytes:
    """That of a tensor whose head begins there, and whose values then begin at a multiple of ``ALIGNMENT_INSIDE``."""
    heads = (_head(name, tensor, None, filler) for filler in (None, *range(2 * ALIGNMENT_INSIDE)))
    return next(head for head in heads if not (begin + len(head)) % ALIGNMENT_INSIDE)


def _constant(name: str, value: RawTensor) -> bytes:
    lazy = LazyTensor(value.dtype, value.shape, lambda: iter(()))
    assert name.startswith(OWN) or "." not in name, "no name of a parameter"
    return _head(name, lazy, None) + bytes(value.data)
