"""The HDF5 container: datasets by path, read as views of the file where they lie in one piece, and written as a stream.
The file may lie in a zip (``.keras``).

h5py is imported here and nowhere else, when the first such file is opened. It reads the structure; values that lie in
one piece are taken from the file itself. Whatever would lead out of the file (links to other files, external or virtual
storage, filter plugins) is refused.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from xlmr_core.bounded_files import DAMAGE, opened, why
from xlmr_core.errors import CheckpointError
from xlmr_core.formats.finding import first_bytes
from xlmr_core.formats.tensors import (
    DTYPES,
    PIECE,
    LazyTensor,
    MappedFile,
    RawTensor,
    TensorInfo,
    checked_name,
    checked_shape,
)
from xlmr_core.formats.zip_file import KERAS_WEIGHTS, ZIP, read_directory, span_of
from xlmr_core.wording import shown

__all__ = ["SIGNATURE", "H5File", "write_h5"]

SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Far more than any model has, and few enough to walk through in seconds.
MOST_OBJECTS = 10_000
MOST_LEVELS = 64
# The only attribute of the root that is read.
MODEL = "model"
# Filters that HDF5 and h5py bring along: deflate, shuffle, fletcher32, lzf. Others would be looked for as plugins.
FILTERS = {1, 2, 3, 32000}
# Deflate makes at most this many bytes of one; and all values of a file may take so many more bytes than the file, so
# that a small one does not fill the memory.
MOST_EXPANSION = 1032
MOST_UNPACKED = 1 << 30


class H5File:
    """An open file.

    Attributes:
        path: the file.
        tensors: its datasets of numbers, by path.
        metadata: the name of the model, where the root says it in a text of fixed length.
        groups: paths of its groups.
    """

    def __init__(self, path: Path) -> None:
        """Open and check a file.

        Raises:
            CheckpointError: if it is missing, damaged, or leads to other files.
        """
        self.path = path
        self.tensors: dict[str, TensorInfo] = {}
        self.metadata: dict[str, Any] = {}
        self.groups: list[str] = []
        self._begins: dict[str, int] = {}
        self._places: dict[str, int] = {}
        start = first_bytes(path)
        try:
            with opened(path) as file:
                self._file = MappedFile(path, file)
                self._span = self._span_in_zip(file) if start.startswith(ZIP) else (0, self._file.size)
        except OSError as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(
                f"cannot read {path}: {why(error)}; check the file, its permissions and the free memory"
            ) from error
        try:
            with self._opened() as root:
                self._read_name(root)
                self._walk(root)
        except CheckpointError:
            raise
        except (*DAMAGE, RuntimeError) as error:
            raise self._damaged(error) from error

    def _span_in_zip(self, file: BinaryIO) -> tuple[int, int]:
        """Where the HDF5 file in a ``.keras`` lies."""
        try:
            records = read_directory(file)
            if KERAS_WEIGHTS not in records:
                raise ValueError(f"it is a zip without {KERAS_WEIGHTS}")
            return span_of(file, records[KERAS_WEIGHTS], self._file.size)
        except ValueError as error:
            raise self._damaged(error) from error

    def _opened(self) -> Any:
        """The file as h5py sees it."""
        import h5py

        begin, end = self._span
        if (begin, end) == (0, self._file.size):
            return h5py.File(self.path, "r", locking=False)
        return h5py.File(_Window(memoryview(self._file.map)[begin:end]), "r")

    def _damaged(self, error: object) -> CheckpointError:
        return CheckpointError(
            f"{self.path} ({self._file.size} bytes) is not a whole HDF5 file: {str(error)[:200]}; "
            "it was cut short or altered, fetch or save it again"
        )

    def _read_name(self, root: Any) -> None:
        """The name of the model. Texts of no fixed length lie in a heap, from which HDF5 does not return where a size
        in it is absurd; so of them none is read.
        """
        import h5py

        if not h5py.h5a.exists(root.id, MODEL.encode()):
            return
        kind = h5py.h5a.open(root.id, MODEL.encode()).get_type()
        if isinstance(kind, h5py.h5t.TypeStringID) and not kind.is_variable_str() and kind.get_size() <= PIECE:
            value = root.attrs[MODEL]
            self.metadata[MODEL] = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    def _walk(self, root: Any) -> None:
        import h5py

        waiting: list[tuple[str, Any]] = [("", root)]
        groups, datasets = {h5py.h5o.get_info(root.id).addr}, set()
        seen = unpacked = stored = 0
        while waiting:
            path, group = waiting.pop()
            for name in group:
                where = checked_name(f"{path}/{name}" if path else name, self.path)
                seen += 1
                if seen > MOST_OBJECTS or where.count("/") > MOST_LEVELS:
                    raise CheckpointError(f"{self.path} has too many or too deeply nested groups for a checkpoint")
                link = group.get(name, getlink=True)
                if not isinstance(link, h5py.HardLink):
                    to = getattr(link, "filename", self.path.name)
                    raise CheckpointError(
                        f"{self.path} has a link at {where} to {shown(link.path)} in {shown(to)} instead of values; "
                        "links are not followed, save the checkpoint again"
                    )
                found = group[name]
                place = h5py.h5o.get_info(found.id).addr
                if isinstance(found, h5py.Group):
                    if place in groups:
                        raise CheckpointError(f"{self.path} has the group {where} twice; it was altered, save it again")
                    groups.add(place)
                    self.groups.append(where)
                    waiting.append((where, found))
                elif isinstance(found, h5py.Dataset):
                    self._places[where] = place
                    sizes = self._look_at(where, found)
                    if place not in datasets:  # variables that layers share are linked
                        datasets.add(place)
                        stored, unpacked = stored + sizes[0], unpacked + sizes[1]
        if stored > self._file.size or unpacked > self._file.size + MOST_UNPACKED:
            raise CheckpointError(
                f"{self.path} ({self._file.size} bytes) holds {stored} bytes for {unpacked} bytes of values: "
                "the same are named several times, or they are packed; save it uncompressed"
            )

    def _look_at(self, where: str, dataset: Any) -> tuple[int, int]:
        """Check a dataset, and list it if it may be a weight. Returns its bytes as they are stored, and as values."""
        tag = _tag_of(dataset)
        if tag is None:
            return 0, 0  # texts and the like are no weights
        shape = checked_shape([int(n) for n in dataset.shape or ()], where)
        nbytes = math.prod(shape) * DTYPES[tag].size
        plan = dataset.id.get_create_plist()
        if plan.get_external_count() or dataset.is_virtual:
            raise CheckpointError(
                f"{self.path} keeps the values of {where} in other files; they are not followed, save the checkpoint "
                "again"
            )
        foreign = {plan.get_filter(number)[0] for number in range(plan.get_nfilters())} - FILTERS
        if foreign:
            raise CheckpointError(
                f"{self.path} stores {where} through the HDF5 filter {min(foreign)}, which needs a plugin; save it "
                "uncompressed"
            )
        begin = dataset.id.get_offset()
        stored = int(dataset.id.get_storage_size())
        one_piece = begin is not None and dataset.chunks is None and dataset.dtype.isnative
        limit = stored if dataset.chunks is None else stored * MOST_EXPANSION
        first, end = self._span
        if nbytes > limit or (one_piece and first + begin + nbytes > end):
            raise CheckpointError(
                f"{self.path} says that {where} has the shape {shape}, for which it holds {stored} bytes; "
                "it was cut short or altered, fetch or save it again"
            )
        if one_piece:
            self._begins[where] = first + int(begin)
        self.tensors[where] = TensorInfo(tag, shape, self.path)
        return stored, nbytes

    def is_linked(self, one: str, other: str) -> bool:
        """Whether two paths lead to one dataset."""
        return self._places[one] == self._places[other]

    def is_in_one_piece(self, name: str) -> bool:
        """Whether the values of a dataset lie in the file one after the other, as they are."""
        return name in self._begins

    def tensor(self, name: str) -> RawTensor:
        """The dataset of that path: a view of the file where it lies in one piece."""
        dtype, shape, _ = self.tensors[name]
        if name in self._begins:
            begin = self._begins[name]
            end = begin + math.prod(shape) * DTYPES[dtype].size
            return RawTensor(dtype, shape, self._file.view(begin, end, dtype))
        return self.stream(name).read()

    def stream(self, name: str) -> LazyTensor:
        """The dataset of that path as a stream."""
        dtype, shape, _ = self.tensors[name]
        if name in self._begins:
            begin = self._begins[name]
            end = begin + math.prod(shape) * DTYPES[dtype].size
            return LazyTensor(dtype, shape, lambda: self._file.pieces((begin, end)))
        return LazyTensor(dtype, shape, lambda: self._through_h5py(name))

    def _through_h5py(self, name: str) -> Iterator[memoryview]:
        """Compressed, chunked or foreign-endian values, some rows at a time."""
        import numpy as np

        dtype, shape, _ = self.tensors[name]
        kind = np.dtype(DTYPES[dtype].numpy or f"V{DTYPES[dtype].size}")
        try:
            with self._opened() as root:
                dataset = root[name]
                if not shape:
                    yield np.asarray(dataset[()], kind).reshape(1).view(np.uint8).data
                    return
                step = max(1, PIECE // max(1, kind.itemsize * math.prod(shape[1:])))
                if dataset.chunks is not None:  # HDF5 unpacks a large one anew each time that a row of it is asked for
                    step = max(1, step // dataset.chunks[0]) * dataset.chunks[0]
                for start in range(0, shape[0] if math.prod(shape) else 0, step):
                    rows = np.ascontiguousarray(dataset[start : start + step].astype(kind, copy=False))
                    yield rows.reshape(-1).view(np.uint8).data
        except CheckpointError:
            raise
        except (*DAMAGE, RuntimeError) as error:
            raise self._damaged(error) from error


class _Window(io.RawIOBase):
    """Some bytes as a file."""

    def __init__(self, data: memoryview) -> None:
        self._data, self._position = data, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._data[self._position : self._position + len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._data)}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position


def _tag_of(dataset: Any) -> str | None:
    kind = dataset.dtype
    if kind.kind == "V" and kind.itemsize == 2 and kind.fields is None:
        return "BF16"  # as Keras and h5py store what NumPy does not know
    name = kind.newbyteorder("=").name
    return next((tag for tag, dtype in DTYPES.items() if dtype.numpy == name), None)


def write_h5(
    path: Path,
    tensors: Mapping[str, LazyTensor],
    *,
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
    links: Mapping[str, str] | None = None,
) -> None:
    """Write datasets by path, one piece in memory at a time.

    Args:
        path: the file, which is written in place: give a temporary path.
        tensors: by path. bfloat16 is stored as two opaque bytes and an attribute that says so, as Keras does.
        attributes: of groups, by path (``""`` is the root), which are made if no dataset makes them.
        links: further paths of datasets.
    """
    import h5py

    begins: dict[str, int] = {}
    with h5py.File(path, "w", libver=("earliest", "v110")) as root:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_layout(h5py.h5d.CONTIGUOUS)
        # Room is made now and filled below, so that values do not pass through HDF5; without times, equal checkpoints
        # are equal files.
        plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        plan.set_obj_track_times(False)
        for name, tensor in tensors.items():
            group = root.require_group(name.rpartition("/")[0]) if "/" in name else root
            space = h5py.h5s.create_simple(tensor.shape) if tensor.shape else h5py.h5s.create(h5py.h5s.SCALAR)
            dataset = h5py.h5d.create(group.id, name.rpartition("/")[2].encode(), _type_of(tensor), space, plan)
            begins[name] = dataset.get_offset() if tensor.nbytes else 0
            if tensor.dtype == "BF16":
                h5py.Dataset(dataset).attrs["dtype"] = "bfloat16"
        for name, target in (links or {}).items():
            root[name] = root[target]
        for name, values in (attributes or {}).items():
            group = root.require_group(name) if name else root
            for key, value in values.items():
                group.attrs[key] = value
    with path.open("r+b") as file:
        for name, tensor in tensors.items():
            file.seek(begins[name])
            for piece in tensor.pieces():
                file.write(piece)
            assert not tensor.nbytes or file.tell() == begins[name] + tensor.nbytes, f"{name} has another size"


def _type_of(tensor: LazyTensor) -> Any:
    import h5py
    import numpy as np

    name = DTYPES[tensor.dtype].numpy
    if name is None and tensor.dtype != "BF16":
        raise CheckpointError(f"HDF5 files hold no {tensor.dtype}; write safetensors, or convert with a dtype")
    return h5py.h5t.py_create(np.dtype(name or "V2").newbyteorder("<"), logical=True)


def texts(values: list[str]) -> Any:
    """An attribute of several texts."""
    import h5py
    import numpy as np

    return np.array(values, dtype=h5py.string_dtype())
