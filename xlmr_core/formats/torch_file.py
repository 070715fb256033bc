"""The files of ``torch.save``: a zip of a pickle and raw storages, or, before PyTorch 1.6, one stream of pickles and
storages.

The pickle is read by ``pickle_reader``; storages stay in the file and are handed out as views of a memory map.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from xlmr_core.bounded_files import opened, why
from xlmr_core.errors import CheckpointError
from xlmr_core.formats.finding import first_bytes
from xlmr_core.formats.parts import DICTIONARIES
from xlmr_core.formats.pickle_reader import Record, StorageRef, TensorRef, read_pickle, storage_tag
from xlmr_core.formats.tensors import (
    DTYPES,
    MOST_TENSORS,
    LazyTensor,
    MappedFile,
    RawTensor,
    TensorInfo,
    checked_name,
)
from xlmr_core.formats.zip_file import KERAS_WEIGHTS, ZIP, has_record, read_directory, span_of
from xlmr_core.wording import shown

__all__ = ["TorchArchive", "TorchFile", "described", "is_torch_file", "tensors_in"]

# How a stream of torch.save begins: protocol 2, and a number that says so.
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
LEGACY_PROTOCOL = 1001
# Pickles hold names and numbers; the largest known one has 2 MB.
MOST_PICKLE_BYTES = 1 << 26
# Of dictionaries and lists in each other, and of tensors in all of them; an optimizer of XXL has some 3000 tensors.
MOST_LEVELS, MOST_PLACES = 32, MOST_TENSORS


def is_torch_file(path: Path) -> bool:
    """Whether a file begins like one of ``torch.save``, and is no zip of Keras."""
    start = first_bytes(path)
    return start.startswith(LEGACY) or (start.startswith(ZIP) and not has_record(path, KERAS_WEIGHTS))


class TorchArchive:
    """An open file: what was saved, as plain values with references in place of tensors.

    Attributes:
        path: the file.
        root: what was saved.
    """

    def __init__(self, path: Path) -> None:
        """Open and check a file.

        Raises:
            CheckpointError: if it is missing, damaged, or holds anything but tensors, containers and plain values.
        """
        self.path = path
        self._spans: dict[str, tuple[int, int]] = {}
        self._infos: dict[int, tuple[TensorRef, TensorInfo]] = {}
        start = first_bytes(path)
        try:
            with opened(path) as file:
                self._file = MappedFile(path, file)
                if start.startswith(ZIP):
                    self.root = self._read_zip(file)
                elif start.startswith(LEGACY):
                    self.root = self._read_stream(file)
                else:
                    raise self._not_whole("it is no zip and no stream of torch.save")
        except OSError as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(
                f"cannot read {path}: {why(error)}; check the file, its permissions and the free memory"
            ) from error

    def _not_whole(self, why: object) -> CheckpointError:
        return CheckpointError(
            f"{self.path} ({self._file.size} bytes) is not a whole PyTorch file: {why}; it was cut short or altered, "
            "fetch or save it again"
        )

    # The zip

    def _read_zip(self, file: BinaryIO) -> Any:
        try:
            records = read_directory(file)
        except ValueError as error:
            raise self._not_whole(error) from error
        pickles = [name for name in records if name == "data.pkl" or name.endswith("/data.pkl")]
        folder = pickles[0].removesuffix("data.pkl") if len(pickles) == 1 else ""
        if f"{folder}constants.pkl" in records:
            raise CheckpointError(
                f"{self.path} is a TorchScript program and not a checkpoint; save the state_dict of the model it was "
                "made from"
            )
        if len(pickles) != 1:
            raise CheckpointError(
                f"{self.path} is a zip without the one data.pkl that torch.save writes; check that it is the file of "
                "weights"
            )
        try:
            spans = {name: span_of(file, member, self._file.size) for name, member in records.items()}
        except ValueError as error:
            raise self._not_whole(error) from error
        begin, end = spans[pickles[0]]
        if end - begin > MOST_PICKLE_BYTES:
            raise self._not_whole(f"its pickle has {end - begin} bytes")
        order = spans.get(f"{folder}byteorder")
        if order is not None and bytes(self._file.map[slice(*order)]).strip() != b"little":
            raise CheckpointError(
                f"{self.path} was saved on a big-endian machine; load it in PyTorch on any machine and save it again"
            )
        self._spans = {
            name.removeprefix(f"{folder}data/"): span
            for name, span in spans.items()
            if name.startswith(f"{folder}data/")
        }

        def storage(reference: tuple[Any, ...]) -> StorageRef:
            kind, dtype, key, _, count = reference
            if kind != "storage" or not isinstance(key, str) or type(count) is not int:
                raise TypeError(f"an unknown reference {shown(reference)}")
            return self._checked(StorageRef(storage_tag(dtype), key, count))

        return read_pickle(bytes(self._file.map[begin:end]), self.path, storage)

    # The stream

    def _read_stream(self, file: BinaryIO) -> Any:
        """Magic number, version, facts about the machine, what was saved, the keys of the storages, the storages."""
        references: dict[str, StorageRef] = {}

        def storage(reference: tuple[Any, ...]) -> StorageRef:
            kind, dtype, key, _, count, *view = reference
            if kind != "storage" or not isinstance(key, str) or type(count) is not int or count < 0:
                raise TypeError(f"an unknown reference {shown(reference)}")
            whole = references.setdefault(key, StorageRef(storage_tag(dtype), key, count))
            if not view or view[0] is None:
                return whole
            _, begin, size = view[0]
            if type(begin) is not int or type(size) is not int or begin < 0 or size < 0 or begin + size > count:
                raise ValueError("a view reaches beyond its storage")
            return whole._replace(length=size, begin=begin)

        def nothing(reference: tuple[Any, ...]) -> StorageRef:
            raise TypeError("a reference where none belongs")

        file.seek(len(LEGACY))
        pickles: Any = _Limited(file)
        version = read_pickle(pickles, self.path, nothing)
        machine = read_pickle(pickles, self.path, nothing)
        if version != LEGACY_PROTOCOL or not isinstance(machine, dict):
            raise self._not_whole(f"version {shown(version)}")
        if machine.get("little_endian") is not True:
            raise CheckpointError(
                f"{self.path} was saved on a big-endian machine; load it in PyTorch on any machine and save it again"
            )
        root = read_pickle(pickles, self.path, storage)
        keys = read_pickle(pickles, self.path, nothing)
        listed = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
        if not listed or set(keys) != set(references) or len(keys) != len(references):
            raise self._not_whole("its list of storages is not that of its tensors")
        for key in keys:
            whole = references[key]
            count = int.from_bytes(file.read(8), "little", signed=True)
            begin = file.tell()
            end = begin + whole.length * DTYPES[whole.dtype].size
            if count != whole.length or end > self._file.size:
                raise self._not_whole(f"storage {key} reaches beyond the file")
            self._spans[key] = (begin, end)
            file.seek(end)
        return root

    # Tensors

    def _checked(self, storage: StorageRef) -> StorageRef:
        if storage.key not in self._spans:
            raise ValueError(f"storage {shown(storage.key)} is not there")
        begin, end = self._spans[storage.key]
        if not 0 <= storage.length * DTYPES[storage.dtype].size <= end - begin:
            raise ValueError(f"storage {storage.key} has {end - begin} bytes and not {storage.length} values")
        return storage

    def info(self, name: str, tensor: TensorRef) -> TensorInfo:
        """Dtype tag and shape of a tensor, which is checked to lie in its storage.

        Raises:
            CheckpointError: if it does not.
        """
        count = math.prod(tensor.shape)
        begin, end = self._spans[tensor.storage.key]
        # In values of the tensor's own dtype: storages without a dtype count bytes.
        size = DTYPES[tensor.storage.dtype].size
        available = (end - begin) // size - tensor.storage.begin
        last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride, strict=True))
        if count and (last >= available or count * size > self._file.size):
            raise CheckpointError(
                f"{self.path} says that {name} has the shape {tensor.shape}, for which its storage of {end - begin} "
                "bytes is too small; "
                "it was altered, fetch or save it again"
            )
        return TensorInfo(tensor.storage.dtype, tensor.shape, self.path)

    def span(self, tensor: TensorRef) -> tuple[int, int] | None:
        """Where the values of a tensor lie one after the other; ``None`` if they do not."""
        expected = 1
        values = math.prod(tensor.shape)
        for n, step in zip(reversed(tensor.shape), reversed(tensor.stride), strict=True):
            if values and n != 1 and step != expected:
                return None
            expected *= n
        size = DTYPES[tensor.storage.dtype].size
        begin = self._spans[tensor.storage.key][0] + (tensor.storage.begin + tensor.offset) * size
        return begin, begin + values * size

    def tensor(self, tensor: TensorRef) -> RawTensor:
        """A tensor, as a view of the memory map where its values lie one after the other."""
        dtype = tensor.storage.dtype
        span = self.span(tensor)
        if span is not None:
            return RawTensor(dtype, tensor.shape, self._file.view(*span, dtype))
        size = DTYPES[dtype].size
        begin, end = self._spans[tensor.storage.key]
        begin += (tensor.storage.begin + tensor.offset) * size
        end -= (end - begin) % size
        bits = np.frombuffer(self._file.view(begin, end, dtype), f"<u{size}")
        strided = np.lib.stride_tricks.as_strided(bits, tensor.shape, [step * size for step in tensor.stride])
        return RawTensor(dtype, tensor.shape, memoryview(b"")).with_bits(strided.copy())

    def stream(self, tensor: TensorRef) -> LazyTensor:
        """A tensor as a stream."""
        span = self.span(tensor)
        if span is None:
            return LazyTensor(tensor.storage.dtype, tensor.shape, lambda: iter((self.tensor(tensor).data,)))
        return LazyTensor(tensor.storage.dtype, tensor.shape, lambda: self._file.pieces(span))


class _Limited:
    """A file that gives no more at a time than a pickle may have: a size in it would be reserved before it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.readline = file.readline
        self.tell = file.tell

    def read(self, count: int) -> bytes:
        if count > MOST_PICKLE_BYTES:
            raise ValueError(f"a value has {count} bytes")
        return self._file.read(count)


class TorchFile:
    """The tensors of an archive, by the keys that lead to them: a container.

    Attributes:
        path: the file.
        tensors: what it holds.
        metadata: in which dictionary each tensor is, if there are several.
    """

    def __init__(self, archive: TorchArchive, root: Mapping[Any, Any]) -> None:
        """Look for tensors.

        Args:
            archive: the file.
            root: its root, or a dictionary in it.

        Raises:
            CheckpointError: if there are none, or if it nests values as no checkpoint does.
        """
        self.path = archive.path
        self.metadata: dict[str, Any] = {}
        self._archive = archive
        found = tensors_in(root, archive.path)
        if not found:
            raise CheckpointError(
                f"{self.path} holds no state dict: expected tensors by name, found {described(root)}; "
                "save model.state_dict()"
            )
        places = {name: place for name, (_, place) in found.items()}
        if any(places.values()):
            self.metadata[DICTIONARIES] = places
        self._refs = {name: ref for name, (ref, _) in found.items()}
        self.tensors = {name: archive.info(name, ref) for name, ref in self._refs.items()}

    def tensor(self, name: str) -> RawTensor:
        """The tensor of that name."""
        return self._archive.tensor(self._refs[name])

    def stream(self, name: str) -> LazyTensor:
        """The tensor of that name as a stream."""
        return self._archive.stream(self._refs[name])


def described(root: Any) -> str:
    """What was saved, in a few words."""
    if isinstance(root, dict):
        return ", ".join(shown(_key_text(key), 60) for key in list(root)[:8]) or "an empty dictionary"
    if isinstance(root, TensorRef):
        return "a single tensor"
    return root.kind if isinstance(root, Record) else type(root).__name__


def tensors_in(root: Any, file: object) -> dict[str, tuple[TensorRef, str]]:
    """The tensors of a dictionary and of what is nested in it, each with the place of the dictionary that it is in. A
    name is made of the keys that lead to it, a place of all but the last: ``state_dict.`` for
    ``state_dict.roberta.embeddings.word_embeddings.weight``.

    State dicts hold numbers and texts too, such as a count of steps: they are no weights.

    Raises:
        CheckpointError: for values that are nested too deeply, or in more places than a checkpoint has.
    """
    found: dict[str, tuple[TensorRef, str]] = {}
    leading = _with_tensors_below(root)
    waiting = [("", id(root), 0)] if isinstance(root, dict) and id(root) in leading else []
    visited = 0
    while waiting:
        place, container, level = waiting.pop()
        inner = []
        for key, value in leading[container]:
            name = checked_name(place + _key_text(key), file)
            if not isinstance(value, TensorRef):
                inner.append((f"{name}.", id(value), level + 1))
            elif name in found:
                raise CheckpointError(f"{file} has two tensors named {name}; save the state dict of the model alone")
            else:
                found[name] = value, place
        waiting += reversed(inner)
        visited += 1
        if level >= MOST_LEVELS or max(visited, len(found), len(waiting)) > MOST_PLACES:
            raise CheckpointError(
                f"{file} nests tensors in more than {MOST_LEVELS} levels or {MOST_PLACES} places, as no checkpoint "
                "does; save the state dict of the model alone"
            )
    return found


def _with_tensors_below(root: Any) -> dict[int, list[tuple[Any, Any]]]:
    """The containers that lead to tensors, by their identities, each with what does so in it. Each is looked at once,
    however often it is referred to.
    """
    holders: dict[int, Any] = {}
    above: dict[int, list[int]] = {}
    lead: list[int] = []
    waiting = [root]
    while waiting:
        container = waiting.pop()
        if id(container) in holders:
            continue
        holders[id(container)] = container
        for _, value in _items(container):
            if isinstance(value, TensorRef):
                lead.append(id(container))
            elif isinstance(value, dict | list | tuple):
                above.setdefault(id(value), []).append(id(container))
                waiting.append(value)
    found: set[int] = set()
    while lead:
        here = lead.pop()
        if here not in found:
            found.add(here)
            lead += above.get(here, ())
    return {
        here: [row for row in _items(holders[here]) if isinstance(row[1], TensorRef) or id(row[1]) in found]
        for here in found
    }


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if type(value) in (list, tuple) else ()


def _key_text(key: Any) -> str:
    if isinstance(key, str):
        return key
    return str(key) if key is None or isinstance(key, float | int) else type(key).__name__
