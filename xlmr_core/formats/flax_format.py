"""The format ``flax``: ``flax_model.msgpack`` as the Flax classes of the original library wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from xlmr_core.formats.base import Format, Model
from xlmr_core.formats.finding import in_folder
from xlmr_core.formats.msgpack_file import MsgpackFile, is_msgpack, write_msgpack
from xlmr_core.formats.naming import flax_naming
from xlmr_core.formats.tensors import LazyTensor
from xlmr_core.parameters import with_both_sides

__all__ = ["FLAX"]

SINGLE = "flax_model.msgpack"
INDEX = "flax_model.msgpack.index.json"


def _write(path: Path, tensors: Mapping[str, LazyTensor], model: Model) -> None:
    write_msgpack(path, tensors)


FLAX = Format(
    name="flax",
    title="Flax MessagePack",
    single=SINGLE,
    index=INDEX,
    find=in_folder(SINGLE, INDEX),
    recognises=is_msgpack,
    open=MsgpackFile,
    naming=lambda container, head: flax_naming(),
    written=lambda model: flax_naming(),
    prepare=lambda tensors, model: with_both_sides(tensors, model.config),
    write=_write,
)
