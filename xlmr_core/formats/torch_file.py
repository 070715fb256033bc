"""The files of ``torch.save``: a zip of a pickle and raw storages, or, before PyTorch 1.6, one stream of pickles and
storages.

The pickle is read by ``pickle_reader``; storages stay in the file and are handed out as views of a memory map.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from xlmr_core.errors import CheckpointError
from xlmr_core.formats.finding import first_bytes
from xlmr_core.formats.pickle_reader import StorageRef, TensorRef, read_pickle, storage_tag
from xlmr_core.formats.tensors import DTYPES, LazyTensor, MappedFile, RawTensor, TensorInfo

__all__ = ["TorchArchive", "TorchFile", "is_torch_file"]

ZIP = b"PK\x03\x04"
# How a stream of torch.save begins: protocol 2, and a number that says so.
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
LEGACY_PROTOCOL = 1001
# Pickles hold names and numbers; the largest known one has 2 MB.
MOST_PICKLE_BYTES = 1 << 28


def is_torch_file(path: Path) -> bool:
    """Whether a file begins like one of ``torch.save``."""
    start = first_bytes(path)
    return start.startswith((ZIP, LEGACY))


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
            with path.open("rb") as file:
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
                f"cannot read {path}: {error.strerror or error}; check the file, its permissions and the free memory"
            ) from error

    def _not_whole(self, why: object) -> CheckpointError:
        return CheckpointError(
            f"{self.path} ({self._file.size} bytes) is not a whole PyTorch file: {why}; it was cut short or altered, "
            "fetch or save it again"
        )

    # The zip

    def _read_zip(self, file: BinaryIO) -> Any:
        try:
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError, EOFError, MemoryError) as error:
            raise self._not_whole(error) from error
        except Exception as error:  # struct.error has no common base
            raise self._not_whole(f"{type(error).__name__}: {error}") from error
        records = {member.filename: member for member in members}
        if len(records) < len(members):
            raise self._not_whole("a record is there twice")
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
        spans = {name: self._span_of(file, member) for name, member in records.items()}
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
                raise TypeError(f"an unknown reference {reference!r:.80}")
            return self._checked(StorageRef(storage_tag(dtype), key, count))

        return read_pickle(bytes(self._file.map[begin:end]), self.path, storage)

    def _span_of(self, file: BinaryIO, member: zipfile.ZipInfo) -> tuple[int, int]:
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise self._not_whole(
                f"its record {member.filename} is compressed or encrypted, which torch.save never does"
            )
        file.seek(member.header_offset)
        header = file.read(30)
        if len(header) < 30 or not header.startswith(ZIP):
            raise self._not_whole(f"its record {member.filename} has no header")
        name_size, extra_size = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
        begin = member.header_offset + 30 + name_size + extra_size
        if member.compress_size != member.file_size or begin + member.file_size > self._file.size:
            raise self._not_whole(f"its record {member.filename} reaches beyond the file")
        return begin, begin + member.file_size

    # The stream

    def _read_stream(self, file: BinaryIO) -> Any:
        """Magic number, version, facts about the machine, what was saved, the keys of the storages, the storages."""
        references: dict[str, StorageRef] = {}

        def storage(reference: tuple[Any, ...]) -> StorageRef:
            kind, dtype, key, _, count, *view = reference
            if kind != "storage" or not isinstance(key, str) or type(count) is not int or count < 0:
                raise TypeError(f"an unknown reference {reference!r:.80}")
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
        version = read_pickle(file, self.path, nothing)
        machine = read_pickle(file, self.path, nothing)
        if version != LEGACY_PROTOCOL or not isinstance(machine, dict):
            raise self._not_whole(f"version {version!r:.40}")
        if machine.get("little_endian") is not True:
            raise CheckpointError(
                f"{self.path} was saved on a big-endian machine; load it in PyTorch on any machine and save it again"
            )
        root = read_pickle(file, self.path, storage)
        keys = read_pickle(file, self.path, nothing)
        if (
            not isinstance(keys, list)
            or set(map(repr, keys)) != set(map(repr, references))
            or len(keys) != len(references)
        ):
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
            raise ValueError(f"storage {storage.key!r:.40} is not there")
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


class TorchFile:
    """The tensors of one dictionary inside an archive: a container."""

    def __init__(self, archive: TorchArchive, state: Mapping[Any, Any], metadata: Mapping[str, Any]) -> None:
        self.path = archive.path
        self.metadata = dict(metadata)
        self._archive = archive
        # State dicts hold numbers and texts too, such as a count of steps: they are no weights.
        self._refs = {
            key: value for key, value in state.items() if isinstance(key, str) and isinstance(value, TensorRef)
        }
        self.tensors = {name: archive.info(name, ref) for name, ref in self._refs.items()}

    def tensor(self, name: str) -> RawTensor:
        """The tensor of that name."""
        return self._archive.tensor(self._refs[name])

    def stream(self, name: str) -> LazyTensor:
        """The tensor of that name as a stream."""
        return self._archive.stream(self._refs[name])
