"""What a checkpoint format is, and what an opened checkpoint of any format offers.

A format is a container (how tensors lie in a file) and a naming (how their names and layouts differ from the canonical
ones). Nothing else in the library knows of either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeAlias

from xlmr_core.bounded_files import refusing
from xlmr_core.config import ModelConfig
from xlmr_core.errors import CheckpointError
from xlmr_core.formats.layouts import KEPT, Layout, refuse_shape
from xlmr_core.formats.tensors import Container, Described, LazyTensor, RawTensor, TensorInfo
from xlmr_core.parameters import HEAD_PARTS

__all__ = ["Checkpoint", "Entry", "Format", "Model", "Naming"]


class Model(NamedTuple):
    """Which model is written: some formats store its name or its numbers beside the tensors.

    Attributes:
        config: its configuration.
        head: a suffix of ``HEADS``, or that of an encoder-decoder.
        metadata: texts to store, where the format has a place for them; ``None`` is what loaders of the original
            library expect.
        sharded: whether the file to write is one of several.
    """

    config: ModelConfig
    head: str
    metadata: Mapping[str, str] | None = None
    sharded: bool = False


# How the names of parameters begin, but for what a user's class adds.
PUBLISHED = re.compile(rf"(roberta\.)?(embeddings|encoder|pooler)\.|({'|'.join(HEAD_PARTS)})\.")

Decoded: TypeAlias = Iterable[tuple[str, Layout]]


@dataclass(frozen=True)
class Naming:
    """Canonical names and layouts for stored ones, and the other way round.

    Attributes:
        decode: the canonical name and the layout of what is stored under a name. Mostly one; several if the stored
            tensor is a compound, none if it is known to be no weight. A name that it does not know stays as it is, so
            that nothing vanishes.
        encode: the name to store and the layout for a canonical name. ``None`` if the format is only read.
    """

    decode: Callable[[str], Decoded]
    encode: Callable[[str], tuple[str, Layout]] | None = None


CANONICAL = Naming(lambda name: ((name, KEPT),), lambda name: (name, KEPT))


@dataclass(frozen=True)
class Format:
    """A checkpoint format.

    Attributes:
        name: the word for it, as in ``xlmr convert --to``.
        title: what to call it to people.
        single: name of the file in a folder.
        index: name of the index if the tensors are in several files; empty if the format has none.
        find: the file or index that decides in a folder, ``None`` if there is none.
        recognises: whether a file is of this format, from its content.
        open: open one file.
        naming: names and layouts of what an open file holds; the text is the one of the ``heads`` in its metadata that
            was asked for, if it has any.
        written: names and layouts of what is written; ``None`` if the format is only read.
        prepare: what is to be done to canonical tensors before they are named and laid out; refuses models that the
            format cannot hold.
        write: write tensors by stored name into one file, a piece in memory at a time.
        config: the configuration that the files imply where there is no ``config.json``; ``None`` for a format whose
            files imply none.
        name_in_index: the stored name for a name in the index.
        is_part: whether its files hold no model but what is added to one, under names that stand for themselves.
    """

    name: str
    title: str
    single: str
    index: str
    find: Callable[[Path], Path | None]
    recognises: Callable[[Path], bool]
    open: Callable[[Path], Container]
    naming: Callable[[Described, str | None], Naming]
    written: Callable[[Model], Naming] | None = None
    prepare: Callable[[Mapping[str, LazyTensor], Model], Mapping[str, LazyTensor]] | None = None
    write: Callable[[Path, Mapping[str, LazyTensor], Model], None] | None = None
    config: Callable[[Path, Checkpoint], ModelConfig] | None = None
    name_in_index: Callable[[str], str] = lambda name: name
    is_part: bool = False

    @property
    def can_write(self) -> bool:
        """Whether checkpoints are written in this format."""
        return self.write is not None

    @property
    def files(self) -> tuple[str, ...]:
        """Shell patterns of its files in a repository, also one folder down."""
        single = Path(self.single)
        names = (self.single, self.index, f"{single.stem}-*-of-*{single.suffix}") if self.index else (self.single,)
        return (*names, *(f"0_Transformer/{name}" for name in names))

    def encode(self, tensors: Mapping[str, LazyTensor], model: Model) -> dict[str, LazyTensor]:
        """Canonical tensors by the names and in the layouts to store.

        Raises:
            CheckpointError: if the format cannot hold the model.
        """
        assert self.written is not None, f"{self.title} is only read"
        encode = self.written(model).encode
        assert encode is not None
        stored: dict[str, LazyTensor] = {}
        for canonical, tensor in (tensors if self.prepare is None else self.prepare(tensors, model)).items():
            name, layout = encode(canonical)
            assert name not in stored, f"{canonical} and another parameter would both be stored as {name}"
            stored[name] = layout.stored(tensor)
        return stored


class Entry(NamedTuple):
    """Where a tensor is: the file, the name it is stored under, and how it lies there."""

    file: Container
    stored: str
    layout: Layout


class Checkpoint:
    """The tensors of a checkpoint, by canonical name and in canonical layout. Use it in a ``with`` statement, or close
    it.

    A tensor stays valid after closing: its memory map lives as long as the tensor.

    Attributes:
        path: the file, or the index, that was opened.
        metadata: what the file or the index says beside the tensors.
        format: the word for its format, see ``FORMATS``.
    """

    def __init__(self, path: Path, format: str, entries: Mapping[str, Entry], metadata: Mapping[str, Any]) -> None:
        self.path = path
        self.format = format
        self.metadata = dict(metadata)
        self._entries = dict(entries)
        self._infos: dict[str, TensorInfo] = {}
        for name, (file, stored, layout) in self._entries.items():
            info = file.tensors[stored]
            shape = layout.shape(info.shape)
            if shape is None:
                raise refuse_shape(info.file, stored, info.shape, layout)
            self._infos[name] = TensorInfo(info.dtype, shape, info.file)

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in the order of the files."""
        return tuple(self._entries)

    def info(self, name: str) -> TensorInfo:
        """Dtype tag, shape and file of a tensor."""
        self._entry(name)
        return self._infos[name]

    def tensor(self, name: str) -> RawTensor:
        """A tensor. A view of its file wherever the layout is the canonical one: memory is then touched only when it is
        used.
        """
        file, stored, layout = self._entry(name)
        return layout.canonical(file.tensor(stored))

    def stream(self, name: str) -> LazyTensor:
        """A tensor to be written elsewhere: it is read when it is written, piece by piece wherever the layout is the
        canonical one.
        """
        file, stored, layout = self._entry(name)
        return layout.canonical_stream(file.stream(stored))

    def _entry(self, name: str) -> Entry:
        if name not in self._entries:
            raise CheckpointError(
                f"{self.path} has no tensor {name!r}" if self._entries else f"{self.path} was closed; open it again"
            )
        return self._entries[name]

    def close(self) -> None:
        """Let go of the files. Tensors that were handed out keep theirs."""
        self._entries = {}

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def damaged(path: Path, format: Format) -> AbstractContextManager[None]:
    """For a block that reads a file: whatever a damaged one does to it becomes a ``CheckpointError``."""
    return refusing(
        CheckpointError,
        f"{path} is no whole file of the format {format.title} ({{why}}); it was cut short or altered, fetch or save "
        "it again",
    )


def entries_of(container: Container, stored: Iterable[str], naming: Naming) -> dict[str, Entry]:
    """Canonical name -> where it is, for some of the tensors of a file.

    Raises:
        CheckpointError: if two of them are the same parameter.
    """
    entries: dict[str, Entry] = {}
    for name in stored:
        for canonical, layout in naming.decode(name):
            if canonical in entries:
                raise CheckpointError(
                    f"{container.path} stores {canonical} twice, as {entries[canonical].stored} and as {name}; "
                    "it was altered, fetch or save it again"
                )
            # A kernel of a user's convolution beside the model is not of the table, and lies there as it is.
            fits = layout.shape(container.tensors[name].shape) is not None
            entries[canonical] = Entry(container, name, layout if fits or PUBLISHED.match(canonical) else KEPT)
    return entries
