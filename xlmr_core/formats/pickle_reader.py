"""Pickles as data: an interpreter that builds containers, plain values and references to tensors, and cannot call or
import anything.

A pickle is a program for a stack machine. Its instructions are taken apart by the standard library's ``pickletools``;
the few that name something of a module look it up in the tables below, and what is in none of them is refused by its
name. Nothing that a file says leads to an import, an attribute access or a call of other code, and sizes in the file
reserve no memory.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple, TypeAlias

from xlmr_core.bounded_files import refusing
from xlmr_core.errors import CheckpointError
from xlmr_core.wording import shown

__all__ = ["Global", "Record", "StorageRef", "TensorRef", "is_plain", "read_pickle"]

# More instructions than the largest known checkpoint needs by a factor of ten. A call that copies a container counts
# for as many as it has items.
MOST_INSTRUCTIONS = 1_000_000
# One that copies a text counts for as many as it has of these.
BYTES_OF_AN_INSTRUCTION = 512
# What no size or place in a file exceeds.
MOST_NUMBER = 2**63
# Of the name of a class, which is made of texts that a file can repeat.
MOST_NAME = 500
# Values in one that is taken for a configuration.
MOST_PLAIN = 100_000
# Integers above this, and tuples, can be chosen to have all one hash; a dictionary of such keys takes for ever.
MOST_HASHED = 2**61 - 2


class StorageRef(NamedTuple):
    """Bytes that lie elsewhere in the file: dtype tag, key, number of values, and where a view of them begins."""

    dtype: str
    key: str
    length: int
    begin: int = 0


class TensorRef(NamedTuple):
    """A tensor over a storage; offset and strides count values."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Global(NamedTuple):
    """Something named by a pickle and not looked up."""

    name: str

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return self.name


@dataclass(repr=False)
class Record:
    """An object of a class that is not here: its name, and what the pickle says about it.

    Attributes:
        kind: module and name of the class.
        arguments: what it would have been made with.
        state: its attributes.
        items: what it would have been filled with.
    """

    kind: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<{self.kind}>"


# Torch's storage classes, and its dtypes by which newer files name them.
STORAGES = {
    "Double": "F64",
    "Float": "F32",
    "Half": "F16",
    "BFloat16": "BF16",
    "Long": "I64",
    "Int": "I32",
    "Short": "I16",
    "Char": "I8",
    "Byte": "U8",
    "Bool": "BOOL",
    "Untyped": "U8",
}
TORCH_DTYPES = {
    "float64": "F64",
    "double": "F64",
    "float32": "F32",
    "float": "F32",
    "float16": "F16",
    "half": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "long": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}

# Classes of which an object is kept as a record: configurations and logs that training programs store beside the
# weights.
RECORDS = {
    *(
        "argparse.Namespace",
        "operator.getitem",
        "_operator.getitem",
        "enum.Enum",
        "datetime.datetime",
        "datetime.timedelta",
    ),
    *("numpy.dtype", "numpy.ndarray", "numpy.core.multiarray.scalar", "numpy.core.multiarray._reconstruct"),
    *("numpy._core.multiarray.scalar", "numpy._core.multiarray._reconstruct", "numpy.core.numeric._frombuffer"),
    *("numpy._core.numeric._frombuffer", "collections.deque"),
    *("pathlib.Path", "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePosixPath"),
    *("torch.device", "torch.Size", "torch.serialization._get_layout", "torch.torch_version.TorchVersion"),
}
RECORD_PACKAGES = (
    "fairseq.",
    "omegaconf.",
    "lightning.",
    "pytorch_lightning.",
    "lightning_fabric.",
    "lightning_utilities.",
    "typing.",
    "transformers.",
    "accelerate.",
    "deepspeed.",
    "peft.",
    "torchmetrics.",
)
# What is refused with a word of its own.
SHARDS = "torch.distributed."


class _Mark:
    pass


_MARK = _Mark()
Plain: TypeAlias = str | int | float | bytes | bool | tuple[Any, ...] | None


def read_pickle(source: bytes | BinaryIO, file: object, storage: Callable[[tuple[Any, ...]], StorageRef]) -> Any:
    """Read one pickle.

    Args:
        source: its bytes, or a file that stands at its beginning and will stand behind its end.
        file: what to call it in messages.
        storage: what the pickle's own references to bytes elsewhere mean.

    Raises:
        CheckpointError: if it is damaged, or names anything but tensors, containers and plain values.
    """
    machine = _Machine(file, storage)
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    with refusing(
        CheckpointError,
        f"{file} holds a damaged pickle ({{why}}); it was cut short or altered, fetch or save it again",
    ):
        for opcode, argument, _ in pickletools.genops(stream):
            machine.spend(1)
            machine.step(opcode.name, argument)
        return machine.result()


def is_plain(value: Any) -> bool:
    """Whether a value is made of texts, numbers, lists and dictionaries alone, and of no more than a configuration is:
    what a pickle says once it can hold many times, and within itself.
    """
    waiting, left = [value], MOST_PLAIN
    while waiting:
        part = waiting.pop()
        left -= 1
        if left < 0 or not (part is None or isinstance(part, str | int | float | list | dict)):
            return False
        if isinstance(part, dict):
            waiting += (*part.keys(), *part.values())
        elif isinstance(part, list):
            waiting += part
        if len(waiting) > MOST_PLAIN:
            return False
    return True


class _Machine:
    """The stack machine."""

    def __init__(self, file: object, storage: Callable[[tuple[Any, ...]], StorageRef]) -> None:
        self.file = file
        self.storage = storage
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.left = MOST_INSTRUCTIONS

    def spend(self, count: int) -> None:
        """Count instructions."""
        self.left -= count
        if self.left < 0:
            raise CheckpointError(
                f"{self.file} has a pickle of more than {MOST_INSTRUCTIONS} instructions; it is no checkpoint"
            )

    def step(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _VALUES:
            self.stack.append(argument)
        elif name in _MAKES:
            self.stack.append(_MAKES[name]())
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise self.refusal(f"the pickle instruction {name}")

    def result(self) -> Any:
        (value,) = self.stack
        return value

    def refusal(self, what: str) -> CheckpointError:
        if what.startswith(SHARDS):
            return CheckpointError(
                f"{self.file} holds {what}, one process's share of a sharded model; gather the full state dict "
                "(get_model_state_dict with full_state_dict=True) and save that"
            )
        return CheckpointError(
            f"{self.file} holds {what}; only tensors, containers and plain values are read, because anything else "
            "could run code. "
            "If you trust the file, load it in the library that wrote it and save its state dict alone"
        )

    def above_mark(self) -> list[Any]:
        """What was put on the stack since the last mark."""
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                values = self.stack[index + 1 :]
                del self.stack[index:]
                return values
        raise ValueError("no mark on the stack")

    # Instructions

    def find(self, name: str) -> None:
        module, _, attribute = name.partition(" ")
        self.stack.append(self.known(f"{module}.{attribute}"))

    def find_on_stack(self, _: Any) -> None:
        attribute, module = self.stack.pop(), self.stack.pop()
        if not isinstance(attribute, str) or not isinstance(module, str):
            raise TypeError("a name must be a text")
        self.stack.append(self.known(f"{module}.{attribute}"))

    def known(self, name: str) -> Global:
        if len(name) > MOST_NAME:
            raise ValueError(f"a class has a name of {len(name)} characters")
        is_record = name in RECORDS or name.startswith(RECORD_PACKAGES)
        if not (is_record or name in _CALLS or _storage_tag(name) or _dtype_tag(name)):
            raise self.refusal(name)
        return Global(name)

    def call(self, _: Any) -> None:
        arguments, what = self.stack.pop(), self.stack.pop()
        self.stack.append(self.called(what, arguments))

    def called(self, what: Any, arguments: Any) -> Any:
        if not isinstance(what, Global) or not isinstance(arguments, tuple):
            raise self.refusal("a call of something that is no class")
        if what.name in _CALLS:
            return _CALLS[what.name](self, *arguments)
        return Record(what.name, arguments)

    def call_above_mark(self, name: str | None) -> None:
        values = self.above_mark()
        if name is None:  # OBJ: the class is the first of the values
            what, *values = values
        else:  # INST: the class is named in the instruction
            self.find(name)
            what = self.stack.pop()
        self.stack.append(self.called(what, tuple(values)))

    def call_with_keywords(self, _: Any) -> None:
        keywords, arguments, what = self.stack.pop(), self.stack.pop(), self.stack.pop()
        made = self.called(what, arguments)
        if keywords and not isinstance(made, Record):
            raise self.refusal(f"a call of {what} with keywords")
        if keywords:
            made.state = keywords
        self.stack.append(made)

    def build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Record):
            target.state = state
        elif not isinstance(target, dict | list | set | TensorRef):  # whose attributes are of no interest
            raise self.refusal(f"a state for {type(target).__name__}")

    def persistent(self, _: Any) -> None:
        reference = self.stack.pop()
        if not isinstance(reference, tuple):
            raise TypeError(f"a reference must be a tuple, and not {shown(reference)}")
        self.stack.append(self.storage(reference))

    def put(self, index: int) -> None:
        if index >= 2**32:
            raise ValueError("a place in the memory of a pickle has more than 32 bits")
        self.memo[index] = self.stack[-1]

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def append(self, _: Any) -> None:
        value = self.stack.pop()
        self.extend(self.stack[-1], [value])

    def appends(self, _: Any) -> None:
        values = self.above_mark()
        self.extend(self.stack[-1], values)

    def extend(self, target: Any, values: list[Any]) -> None:
        if isinstance(target, Record):
            target.items.extend(values)
        elif isinstance(target, list):
            target.extend(values)
        elif isinstance(target, set):
            target.update(map(_key, values))
        else:
            raise TypeError(f"{type(target).__name__} takes no items")

    def set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.fill(self.stack[-1], [key, value])

    def set_items(self, _: Any) -> None:
        values = self.above_mark()
        self.fill(self.stack[-1], values)

    def fill(self, target: Any, values: list[Any]) -> None:
        pairs = list(zip(values[::2], values[1::2], strict=True))
        if isinstance(target, Record):
            target.items.extend(pairs)
            return
        if not isinstance(target, dict):
            raise TypeError(f"{type(target).__name__} takes no keys")
        for key, value in pairs:
            # An optimizer that was saved whole has tensors for keys; they are of no interest.
            name = f"{type(key).__name__} {len(target)}" if isinstance(key, TensorRef | Record) else _key(key)
            if name in target:
                raise CheckpointError(f"{self.file} names {shown(key)} twice; it was altered, fetch or save it again")
            target[name] = value

    def make_dict(self, _: Any) -> None:
        values = self.above_mark()
        self.stack.append({})
        self.fill(self.stack[-1], values)

    def make_list(self, _: Any) -> None:
        self.stack.append(self.above_mark())

    def make_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self.above_mark()))

    def make_small_tuple(self, count: int) -> None:
        values = self.stack[-count:]
        if len(values) < count:
            raise IndexError("the stack is empty")
        del self.stack[-count:]
        self.stack.append(tuple(values))

    def make_frozenset(self, _: Any) -> None:
        self.stack.append(set(map(_key, self.above_mark())))

    def mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def pop(self, _: Any) -> None:
        self.stack.pop()

    def pop_mark(self, _: Any) -> None:
        self.above_mark()

    def duplicate(self, _: Any) -> None:
        self.stack.append(self.stack[-1])


def _key(value: Any) -> Plain:
    """What stands for a key: of numbers and tuples that could be made to have one hash their text."""
    for part in value if type(value) is tuple else (value,):
        if part is not None and not isinstance(part, str | int | float | bytes):
            raise TypeError(f"a key must be a plain value, not {type(part).__name__}")
    is_safe = type(value) is not tuple and not (isinstance(value, int) and abs(value) > MOST_HASHED)
    key: Plain = value if is_safe else shown(value, MOST_NAME)
    return key


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_MAKES: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": set}
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "GLOBAL": _Machine.find,
    "STACK_GLOBAL": _Machine.find_on_stack,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "NEWOBJ_EX": _Machine.call_with_keywords,
    "INST": _Machine.call_above_mark,
    "OBJ": _Machine.call_above_mark,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "DICT": _Machine.make_dict,
    "LIST": _Machine.make_list,
    "TUPLE": _Machine.make_tuple,
    "TUPLE1": lambda machine, _: machine.make_small_tuple(1),
    "TUPLE2": lambda machine, _: machine.make_small_tuple(2),
    "TUPLE3": lambda machine, _: machine.make_small_tuple(3),
    "FROZENSET": _Machine.make_frozenset,
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "DUP": _Machine.duplicate,
}


# What a pickle may call: each makes a container, a plain value or a reference, here.


def _storage_tag(name: str) -> str | None:
    module, _, kind = name.rpartition(".")
    if module not in ("torch", "torch.cuda", "torch.storage") or not kind.endswith("Storage"):
        return None
    return STORAGES.get(kind.removesuffix("Storage"))


def _dtype_tag(name: str) -> str | None:
    module, _, kind = name.rpartition(".")
    return TORCH_DTYPES.get(kind) if module == "torch" else None


def storage_tag(kind: Any) -> str:
    """The dtype tag of a storage class that a pickle names."""
    tag = _storage_tag(kind.name) if isinstance(kind, Global) else None
    if tag is None:
        raise TypeError(f"{shown(kind)} is no class of storages")
    return tag


def _tensor(machine: _Machine, storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> TensorRef:
    if not isinstance(storage, StorageRef):
        raise TypeError("a tensor needs a storage")
    numbers = (offset, *_sizes(shape), *_sizes(stride))
    sizes, steps = _sizes(shape), _sizes(stride)
    if not all(type(number) is int and 0 <= number < MOST_NUMBER for number in numbers) or len(sizes) != len(steps):
        raise ValueError(f"a tensor has the shape {shown(shape)}, stride {shown(stride)} and offset {shown(offset)}")
    return TensorRef(storage, offset, sizes, steps)


def _sizes(value: Any) -> tuple[Any, ...]:
    if isinstance(value, Record) and value.kind == "torch.Size" and len(value.arguments) == 1:
        value = value.arguments[0]
    if not isinstance(value, tuple | list) or len(value) > 16:
        raise TypeError("a shape must be a tuple of at most 16 sizes")
    return tuple(value)


def _tensor_of_dtype(
    machine: _Machine, storage: Any, offset: Any, shape: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, *_: Any
) -> TensorRef:
    tag = _dtype_tag(dtype.name) if isinstance(dtype, Global) else None
    if tag is None or not isinstance(storage, StorageRef):
        raise TypeError(f"a tensor has the dtype {shown(dtype)}")
    return _tensor(machine, storage._replace(dtype=tag), offset, shape, stride)


def _parameter(machine: _Machine, data: Any, *_: Any) -> TensorRef:
    if not isinstance(data, TensorRef):
        raise TypeError("a parameter needs a tensor")
    return data


def _of_type(machine: _Machine, function: Any, _kind: Any, arguments: Any, _state: Any) -> Any:
    return machine.called(function, arguments)


def _dict(machine: _Machine, *pairs: Any) -> dict[Any, Any]:
    filled: dict[Any, Any] = {}
    listed = pairs[-1] if pairs and isinstance(pairs[-1], list) else []
    machine.spend(len(listed))
    for key, value in listed:
        machine.fill(filled, [key, value])
    return filled


def _set(machine: _Machine, values: Any = ()) -> set[Any]:
    machine.spend(len(values))
    return set(map(_key, values))


def _bytes(machine: _Machine, text: str = "", encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1", "ascii", "utf-8", "utf8"):
        raise ValueError(f"an unknown encoding {shown(encoding)}")
    machine.spend(len(text) // BYTES_OF_AN_INSTRUCTION)
    return text.encode(encoding)


def _object(machine: _Machine, kind: Any, _base: Any = None, _state: Any = None) -> Any:
    if not isinstance(kind, Global) or kind.name in _CALLS:
        raise TypeError(f"{shown(kind)} is no class")
    return Record(kind.name)


_CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.Tensor": _parameter,
    "collections.OrderedDict": _dict,
    "collections.defaultdict": _dict,
    "collections.Counter": _dict,
    "_codecs.encode": _bytes,
    "copyreg._reconstructor": _object,
    "copy_reg._reconstructor": _object,
}
for _module in ("builtins", "__builtin__"):
    _CALLS |= {f"{_module}.set": _set, f"{_module}.frozenset": _set, f"{_module}.dict": _dict}
    RECORDS |= {
        f"{_module}.{kind}" for kind in ("list", "tuple", "int", "float", "str", "bool", "object", "bytearray", "slice")
    }
