"""A graph of ONNX while it is built: nodes of standard operators, constants, and the parameters that it uses.

What a node gives is a name, which the next node takes: ``y = graph("Add", a, b)``. Axes have the shape letters of
``reference``, and T for packed tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xlmr_core import protobuf
from xlmr_core.formats.onnx_file import CODE_OF_TAG, OWN
from xlmr_core.formats.tensors import RawTensor

__all__ = ["OPSET", "Graph", "Port"]

# The oldest with LayerNormalization: runtimes in browsers lag behind.
OPSET = 17
FLOAT, INT32, INT64, BOOL = (CODE_OF_TAG[tag] for tag in ("F32", "I32", "I64", "BOOL"))

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class Port:
    """An input or an output.

    Attributes:
        name: as a caller says it.
        code: of the dtype, as ONNX numbers them.
        axes: a size, or a name where it is the caller's choice.
    """

    name: str
    code: int
    axes: tuple[int | str, ...]

    def to_bytes(self) -> bytes:
        """Its ``ValueInfoProto``."""
        sizes = [protobuf.field(1 if isinstance(axis, int) else 2, axis) for axis in self.axes]
        shape = b"".join(protobuf.field(1, size) for size in sizes)
        kind = protobuf.field(1, protobuf.field(1, self.code) + protobuf.field(2, shape))
        return protobuf.field(1, self.name) + protobuf.field(2, kind)


@dataclass
class Graph:
    """See the module.

    Attributes:
        name: of the graph.
        nodes: each as its ``NodeProto``, in the order in which they run.
        constants: by name; the default of an input that may be left out is one too.
        parameters: canonical names of what it uses, in the order of their use.
        inputs, outputs: what a caller gives and gets.
        domains: of operators that are not of the standard set.
    """

    name: str
    nodes: list[bytes] = field(default_factory=list)
    constants: dict[str, RawTensor] = field(default_factory=dict)
    parameters: dict[str, None] = field(default_factory=dict)
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    domains: dict[str, None] = field(default_factory=dict)
    _named: Counter[str] = field(default_factory=Counter)
    _kept: dict[tuple[Any, ...], str] = field(default_factory=dict)

    def __call__(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output, of which it gives the name."""
        return self.node(operator, *inputs, **attributes)[0]

    def node(self, operator: str, *inputs: str, count: int = 1, domain: str = "", **attributes: Any) -> list[str]:
        """A node.

        Args:
            operator: of the standard set, or of a domain.
            *inputs: what it takes.
            count: how many outputs it has.
            domain: of an operator that is not of the standard set.
            **attributes: integers, numbers, texts, lists of integers, or the graphs of branches.

        Returns:
            The names of its outputs.
        """
        outputs = [self._fresh(operator) for _ in range(count)]
        self._append(operator, inputs, outputs, attributes, domain)
        return outputs

    def _append(
        self,
        operator: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        attributes: Mapping[str, Any],
        domain: str = "",
    ) -> None:
        parts = [protobuf.field(1, name) for name in inputs]
        parts += [protobuf.field(2, name) for name in outputs]
        parts += [protobuf.field(3, outputs[0]), protobuf.field(4, operator)]
        parts += [protobuf.field(5, _attribute(name, value)) for name, value in attributes.items()]
        if domain:
            self.domains[domain] = None
            parts.append(protobuf.field(7, domain))
        self.nodes.append(b"".join(parts))

    def _fresh(self, what: str) -> str:
        self._named[what] += 1
        return f"{OWN}{what}_{self._named[what]}"

    def constant(self, value: Any, dtype: Any = None) -> str:
        """A constant, once for each value."""
        array = np.asarray(value, dtype or (np.int64 if np.asarray(value).dtype.kind == "i" else np.float32))
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._kept:
            self._kept[key] = self._fresh("constant")
            self.constants[self._kept[key]] = RawTensor.from_numpy(array)
        return self._kept[key]

    def parameter(self, name: str) -> str:
        """A parameter of the model, by its canonical name."""
        self.parameters[name] = None
        return name

    def input(self, name: str, *axes: int | str, default: Array | None = None) -> str:
        """An input of integers.

        Args:
            name: as a caller says it.
            *axes: its shape.
            default: taken where the caller leaves it out.
        """
        self.inputs.append(Port(name, INT64, axes))
        if default is not None:
            self.constants[name] = RawTensor.from_numpy(default)
        return name

    def output(self, name: str, value: str, *axes: int | str) -> None:
        """Call a value an output of float32."""
        self._append("Identity", (value,), (name,), {})
        self.outputs.append(Port(name, FLOAT, axes))

    def either(self, condition: str, *branches: Callable[[Graph], Sequence[str]]) -> list[str]:
        """One of two: what the first branch gives where a condition holds, else what the second does.

        Args:
            condition: a boolean.
            *branches: each builds nodes on a graph, in which all values of this one are known, and gives their names.
        """
        graphs, count = [], 0
        for name, build in zip(("then", "else"), branches, strict=True):
            inner = Graph(f"{self.name}_{name}", _named=self._named, _kept=self._kept, constants=self.constants)
            found = build(inner)
            count = len(found)
            for value in found:
                own = self._fresh(name)
                inner._append("Identity", (value,), (own,), {})
                inner.outputs.append(Port(own, INT64, (own,)))
            graphs.append(inner)
        return self.node("If", condition, count=count, then_branch=graphs[0], else_branch=graphs[1])

    def branch_to_bytes(self) -> bytes:
        """The ``GraphProto`` of a branch, which has nothing of its own but nodes and outputs."""
        nodes = b"".join(protobuf.field(1, node) for node in self.nodes)
        return nodes + protobuf.field(2, self.name) + b"".join(protobuf.field(12, x.to_bytes()) for x in self.outputs)


# The numbers of ``AttributeProto``: the field of a value, and the word for its kind.
def _attribute(name: str, value: Any) -> bytes:
    named = protobuf.field(1, name)
    if isinstance(value, Graph):
        return named + protobuf.field(6, value.branch_to_bytes()) + protobuf.field(20, 5)
    if isinstance(value, RawTensor):
        return named + protobuf.field(5, _tensor(value)) + protobuf.field(20, 4)
    if isinstance(value, float):
        return named + protobuf.field(2, value) + protobuf.field(20, 1)
    if isinstance(value, int):
        return named + protobuf.field(3, value) + protobuf.field(20, 2)
    if isinstance(value, str):
        return named + protobuf.field(4, value) + protobuf.field(20, 3)
    return named + b"".join(protobuf.field(8, one) for one in value) + protobuf.field(20, 7)


def _tensor(value: RawTensor) -> bytes:
    sizes = b"".join(protobuf.field(1, size) for size in value.shape)
    return sizes + protobuf.field(2, CODE_OF_TAG[value.dtype]) + protobuf.field(9, bytes(value.data))
