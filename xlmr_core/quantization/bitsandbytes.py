"""``bitsandbytes``: linear layers as bitsandbytes stores them, and as transformers chooses them.

=====  ===============================================  ==============================================================
bits   beside a weight (N, K), ``m.weight``             a value
=====  ===============================================  ==============================================================
4      ``m.weight.absmax``, ``.quant_map`` and          ``quant_map[code] * absmax``, in the dtype that the weight had
       ``.quant_state.bitsandbytes__nf4`` (or ``fp4``)
4,     further ``.nested_absmax`` and                   the same, and an ``absmax`` is
twice  ``.nested_quant_map``                            ``nested_quant_map[code] * nested_absmax + nested_offset``
8      ``m.SCB``, ``m.weight_format``                   ``m.weight * SCB * (1 / 127)``
=====  ===============================================  ==============================================================

A weight of four bits is flattened row by row and lies in blocks of 64 across rows, two codes a byte, the first in the
high half; the last block may be short and the last half byte a filler. ``quant_state`` is a text in JSON with the
dtype, the shape and the sizes of blocks. The embeddings stay as they are.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from xlmr_core.errors import CheckpointError, ConfigError
from xlmr_core.parameters import Parameter, Role
from xlmr_core.quantization.base import Array, Parts, Scheme, Stored, check_skip, is_in, refuse_shared_sides
from xlmr_core.quantization.bitsandbytes_config import METHOD, BitsAndBytesConfig
from xlmr_core.quantization.codes import CODEBOOKS, dynamic_values, nearest_codes, packed, unpacked
from xlmr_core.wording import shown

if TYPE_CHECKING:
    from xlmr_core.checkpoints.load_plan import TensorFile

__all__ = [
    *("ABSMAX", "FORMAT", "NESTED_ABSMAX", "NESTED_MAP", "QUANT_MAP", "SCB", "STATE"),
    *("BitsAndBytes", "State", "state_of"),
]

ABSMAX, QUANT_MAP, STATE = ".absmax", ".quant_map", ".quant_state.bitsandbytes__"
NESTED_ABSMAX, NESTED_MAP = ".nested_absmax", ".nested_quant_map"
SCB, FORMAT = ".SCB", "_format"

_DECODER = "lm_head.decoder"
_TAG = {"uint8": "U8", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_BYTES = {"U8": 1, "F16": 2, "BF16": 2, "F32": 4}
_LONGEST_TEXT = 4096


class State(NamedTuple):
    """What a file says of a weight beside its codes.

    Attributes:
        kind: ``nf4``, ``fp4`` or ``int8``.
        text: the JSON of ``quant_state``; empty for 8 bits.
        storage: tag of the dtype that the codes lie in.
        dtype: that the weight had, and that its values are rounded to.
        shape: (N, K); of 8 bits the tensor's own.
        block: values that share an absmax.
        nested_block: how many absmax share a scale; 0 if they are float32.
        nested_offset: what is added to each.
    """

    kind: str
    text: bytes = b""
    storage: str = "U8"
    dtype: str = "float32"
    shape: tuple[int, ...] = ()
    block: int = 64
    nested_block: int = 0
    nested_offset: float = 0.0


def state_of(text: bytes, name: str, storage: str = "U8") -> State:
    """Read the text of a ``quant_state``.

    Raises:
        CheckpointError: if it is no such text.
    """
    try:
        said = json.loads(text.decode())
        nested = said.get("nested_blocksize")
        state = State(
            kind=said["quant_type"],
            text=text,
            storage=storage,
            dtype=said["dtype"],
            shape=tuple(said["shape"]),
            block=said["blocksize"],
            nested_block=0 if nested is None else nested,
            nested_offset=0.0 if nested is None else float(said["nested_offset"]),
        )
        whole = (*state.shape, state.block, state.nested_block)
        good = (
            state.kind in CODEBOOKS
            and state.dtype in _TAG
            and said.get("nested_dtype", "float32") == "float32"
            and len(state.shape) == 2
            and all(type(size) is int and 0 <= size < 1 << 40 for size in whole)
            and state.block > 0
            and state.block % 2 == 0
            and (nested is None or nested > 0)
            and math.isfinite(state.nested_offset)
        )
    except (UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError):
        good = False
    if not good:
        raise CheckpointError(
            f"the quant_state of {name} must be JSON with quant_type nf4 or fp4, blocksize, dtype and shape, received "
            f"{shown(text[:200])}; fetch or save the checkpoint again"
        )
    return state


@dataclass(frozen=True)
class BitsAndBytes(Scheme):
    """See the module.

    Attributes:
        config: what was asked for.
        dtype: of the weights that are quantized.
        found: of a file or of a model, what lies beside each quantized weight, by bare name; ``None`` where the rule of
            transformers is yet to choose them.
        skip: modules that stay as they are beside those of ``config``, by steps of their names, until they are chosen.
    """

    name: ClassVar[str] = METHOD
    config: BitsAndBytesConfig = field(default_factory=lambda: BitsAndBytesConfig(load_in_4bit=True))
    dtype: str = "float32"
    found: Mapping[str, State] | None = field(default=None, hash=False)
    skip: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """``nf4``, ``fp4`` or ``int8``."""
        return "int8" if self.config.load_in_8bit else self.config.bnb_4bit_quant_type

    @property
    def _asked(self) -> State:
        """What will lie beside a weight, but for the text."""
        nested = 256 if self.config.bnb_4bit_use_double_quant else 0
        return State(self.kind, storage=_TAG[self.config.bnb_4bit_quant_storage], nested_block=nested)

    def written(self) -> dict[str, Any]:
        return self.config.to_dict()

    def read(self, said: Any) -> BitsAndBytes:
        if not isinstance(said, Mapping):
            raise ConfigError(f"quantization_config must be a dictionary, received {shown(said)}")
        known = BitsAndBytesConfig().to_dict()
        # Later releases may say more; what counts is beside each weight.
        return BitsAndBytes(BitsAndBytesConfig.of({key: value for key, value in said.items() if key in known}))

    # ---- Which weights

    def in_file(self, file: TensorFile) -> BitsAndBytes:
        """What the tensors of a file say, whatever the config's list of skipped modules does.

        Raises:
            CheckpointError: if none of its weights is quantized, or a text beside one cannot be read.
        """
        found, here = {}, set(file.names)
        for name in file.names:
            if name.endswith(".weight"):
                state = _state_in(file, name, here)
                if state is not None:
                    found[_bare(name)] = state
        if not found:
            raise CheckpointError(
                f"config.json says that {file.path} is quantized by bitsandbytes, and none of its weights is; remove "
                "quantization_config from config.json, or fetch or save the checkpoint again"
            )
        return replace(self, found=found)

    def planned(self, rows: Mapping[str, Parameter]) -> BitsAndBytes:
        """With a list of skipped modules that names every projection left wide, which other releases of transformers
        choose in other ways.
        """
        if self.found is not None:
            return self
        refuse_shared_sides(rows)
        weights = [row for row in rows.values() if row.role is Role.LINEAR_WEIGHT]
        check_skip(self.kind, self.skip, [row.name for row in weights if row.tied_to is None])
        wide = [_module(row.name) for row in weights if not self.takes(row)]
        if len(wide) == len(weights):
            raise ConfigError("llm_int8_skip_modules leaves no linear layer to quantize; name fewer")
        return replace(self, config=self.config.with_values(llm_int8_skip_modules=tuple(wide) or None), skip=())

    def takes(self, row: Parameter) -> bool:
        if row.role is not Role.LINEAR_WEIGHT or row.tied_to is not None:
            return False
        if self.found is not None:
            return _bare(row.name) in self.found
        if any(is_in(row.name, skipped) for skipped in self.skip):
            return False
        module, skip = _module(row.name), self.config.llm_int8_skip_modules
        if skip is None:
            return not module.endswith(_DECODER)
        return not any(_matches(module, pattern) for pattern in skip)

    def known(self, states: Mapping[str, State]) -> BitsAndBytes:
        """With what lies beside weights that were quantized."""
        return replace(self, found={_bare(name): state for name, state in states.items()})

    def of_dtype(self, tag: str) -> BitsAndBytes:
        names = [name for name, found in _TAG.items() if found == tag and name != "uint8"]
        return replace(self, dtype=names[0]) if names else self

    def of_side(self, side: str) -> BitsAndBytes:
        if self.found is None:
            return self
        here = f"{side}."
        return self.known({name.removeprefix(here): x for name, x in self.found.items() if name.startswith(here)})

    # ---- In which tensors

    def part_name(self, weight: str, suffix: str) -> str:
        return _module(weight) + SCB if suffix == SCB else weight + suffix

    def stored(self, row: Parameter) -> tuple[Stored, ...]:
        state = self._asked if self.found is None else self.found[_bare(row.name)]
        if state.kind == "int8":
            beside = Stored(SCB, "F32", row.shape[:1], row.dims[:1]), Stored(FORMAT, "U8", (), ())
            return Stored("", "I8", row.shape, row.dims), *beside
        if state.shape and state.shape != row.shape:
            raise CheckpointError(
                f"the quant_state of {row.name} says that the weight has the shape {state.shape}, and the config that "
                f"it has {row.shape}; correct the config, or fetch or save the checkpoint again"
            )
        count = math.prod(row.shape)
        blocks, codes = -(-count // state.block), -(-((count + 1) // 2) // _BYTES[state.storage])
        nested = state.nested_block
        return (
            Stored("", state.storage, (codes, 1), ("pairs of codes", "one")),
            Stored(ABSMAX, "U8" if nested else "F32", (blocks,), ("blocks",)),
            Stored(QUANT_MAP, "F32", (16,), ("codes",)),
            *((Stored(NESTED_ABSMAX, "F32", (-(-blocks // nested),), ("blocks of blocks",)),) if nested else ()),
            *((Stored(NESTED_MAP, "F32", (256,), ("codes of absmax",)),) if nested else ()),
            Stored(STATE + state.kind, "U8", (len(state.text),), ("characters",)),
        )

    # ---- The arithmetic

    def encode(self, weight: Array) -> dict[str, Array]:
        """A weight of any floating point dtype; bfloat16, which NumPy has not, as float32."""
        values = rounded_to(weight.astype(np.float32), self.dtype)
        if self.kind == "int8":
            return _encode_int8(values)
        absmax = block_maxima(values, 64)
        codes = self.codes(values, absmax)
        return {"": codes[:, None], **self.beside(absmax, values.shape)}

    def beside(self, absmax: Array, shape: tuple[int, ...]) -> dict[str, Array]:
        """The tensors beside the codes, from the largest magnitude of each block."""
        said: dict[str, Any] = {"quant_type": self.kind, "blocksize": 64, "dtype": self.dtype, "shape": list(shape)}
        parts = {ABSMAX: absmax, QUANT_MAP: CODEBOOKS[self.kind]}
        if self.config.bnb_4bit_use_double_quant:
            offset = np.float32(absmax.mean(dtype=np.float64))
            parts |= _nested(absmax - offset)
            said |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": float(offset)}
        return {**parts, STATE + self.kind: np.frombuffer(json.dumps(said).encode(), np.uint8)}

    def codes(self, values: Array, absmax: Array) -> Array:
        """The codes of a weight, or of whole blocks of one, two a byte of the storage's dtype."""
        flat, last = values.reshape(-1), values.size // 64 * 64
        with np.errstate(over="ignore"):
            factor = np.float32(1) / np.where(absmax == 0, np.float32(1e-38), absmax)
        normal = np.empty(flat.size + flat.size % 2, np.float32)
        normal[:last] = (flat[:last].reshape(-1, 64) * factor[: last // 64, None]).reshape(-1)
        if last < flat.size:
            normal[last : flat.size] = flat[last:] / np.where(absmax[-1] == 0, np.float32(1e-38), absmax[-1])
        normal[flat.size :] = 0
        pairs = packed(nearest_codes(np.clip(normal, -1, 1), CODEBOOKS[self.kind]))
        return pairs.view(_NUMPY.get(self.config.bnb_4bit_quant_storage, np.uint8))

    def decode(self, parts: Parts, shape: tuple[int, ...]) -> Array:
        if SCB in parts:
            eighth: Array = parts[""].astype(np.float32) * parts[SCB][:, None] * np.float32(1 / 127)
            return eighth
        suffix = next(suffix for suffix in parts if suffix.startswith(STATE))
        state = state_of(parts[suffix].tobytes(), "the weight")
        absmax = parts[ABSMAX]
        if state.nested_block:
            scales = np.repeat(parts[NESTED_ABSMAX], state.nested_block)[: absmax.size]
            absmax = parts[NESTED_MAP][absmax] * scales + np.float32(state.nested_offset)
        count = math.prod(shape)
        codes = unpacked(np.ascontiguousarray(parts[""]).reshape(-1).view(np.uint8))[:count]
        values = parts[QUANT_MAP][codes] * np.repeat(absmax, state.block)[:count]
        return rounded_to(values, state.dtype).reshape(shape)


# By a dtype of storage; of bfloat16, which NumPy has not, its bits.
_NUMPY: dict[str, Any] = {"float16": np.float16, "bfloat16": np.uint16, "float32": np.float32}


def rounded_to(values: Array, dtype: str) -> Array:
    """Float32 values rounded to a dtype, as float32."""
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).astype(np.float32)
    if dtype != "bfloat16":
        return values
    bits = values.view(np.uint32)
    # Half of a last place, less a little where the last place is even: what carries over is the rounding.
    upper = (bits + (np.uint32(0x7FFF) + ((bits >> 16) & 1))) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(values), values, upper.view(np.float32))


def block_maxima(values: Array, block: int) -> Array:
    """The largest magnitude of each block of the flattened values."""
    magnitudes = np.abs(values.reshape(-1))
    maxima: Array = np.maximum.reduceat(magnitudes, np.arange(0, magnitudes.size, block))
    return maxima


def _nested(centred: Array) -> dict[str, Array]:
    nested = block_maxima(centred, 256)
    factor = np.float32(1) / np.where(nested == 0, np.float32(1e-38), nested)
    normal = np.clip(centred * np.repeat(factor, 256)[: centred.size], -1, 1)
    return {ABSMAX: nearest_codes(normal, dynamic_values()), NESTED_ABSMAX: nested, NESTED_MAP: dynamic_values()}


def _encode_int8(values: Array) -> dict[str, Array]:
    halves = rounded_to(values, "float16")
    scale = np.abs(halves).max(1)
    with np.errstate(divide="ignore", over="ignore"):
        factor = np.float32(1) / scale * np.float32(127)
    rows = np.rint(halves * np.where(scale == 0, np.float32(0), factor)[:, None]).astype(np.int8)
    return {"": rows, SCB: scale, FORMAT: np.zeros((), np.uint8)}


def _state_in(file: TensorFile, name: str, here: set[str]) -> State | None:
    """What a file says of a weight; ``None`` if that is a plain one."""
    dtype = file.info(name).dtype
    if dtype == "I8" and _module(name) + SCB in here:
        return State("int8", storage="I8", shape=file.info(name).shape)
    if dtype != "U8" and name + ABSMAX not in here:
        return None
    texts = [name + STATE + kind for kind in CODEBOOKS if name + STATE + kind in here]
    if not texts:
        raise CheckpointError(
            f"{name} in {file.path} has no {name}{STATE}nf4 or fp4, which says how it is quantized; fetch or save the "
            "checkpoint again"
        )
    if file.info(texts[0]).shape[0] > _LONGEST_TEXT or dtype not in _BYTES:
        raise CheckpointError(f"{texts[0]} in {file.path} is no text of bitsandbytes; fetch or save it again")
    return state_of(bytes(file.tensor(texts[0]).data), name, dtype)


def _bare(name: str) -> str:
    return name.removeprefix("roberta.")


def _module(weight: str) -> str:
    return weight.removesuffix(".weight")


def _matches(module: str, pattern: str) -> bool:
    """As transformers has it: the first steps of a name, as a regular expression, or its end."""
    try:
        return re.match(rf"(?:{pattern})(?:(?<=\.)|(?=\.|$))", module) is not None or module.endswith(pattern)
    except re.error as error:
        raise ConfigError(
            f"llm_int8_skip_modules must hold names or regular expressions, received {shown(pattern)} ({error})"
        ) from error
