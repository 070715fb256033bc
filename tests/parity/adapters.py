"""One adapter a backend: the whole of what parity asks of it.

To add a backend: its modes in the table below, and ``adapter_<backend>.py`` with ``build`` and ``load``. A process
tests one backend, the one that the environment variable ``XLMR_PARITY`` names (``torch``, ``tf``, ``flax``; by default
``torch``), so that no two frameworks share a process.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from numpy.typing import NDArray

from tests.choice import EVERYTHING
from tests.parity.cases import FAMILIES, TURNS
from xlmr_core.backends import installed
from xlmr_core.config import XLMRobertaConfig

__all__ = ["MODES", "Adapter", "Mode", "Model", "adapter", "graphs", "modes", "modes_in_turn", "runs"]

Array = NDArray[Any]


class Model(Protocol):
    """A model of a backend, spoken to in NumPy. Outputs are flat (see ``compare.flatten``) and float64 or float32."""

    def forward(self, inputs: Mapping[str, Any], *, dropout_seed: int | None = None) -> dict[str, Array]:
        """Run a call by published argument names, with all hidden states, and attentions where the mode gives them.

        With a seed in training mode, in which dropout acts; without one in evaluation mode.
        """
        ...

    def generate(self, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Array]:
        """``generate`` by published argument names: ``sequences``, and of beams ``sequences_scores`` and
        ``beam_indices``.
        """
        ...

    def gradients(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Gradient of the loss by canonical name, in evaluation mode; tied parameters once, under the name of the
        first.
        """
        ...


class Adapter(Protocol):
    """An adapter module."""

    def build(
        self, config: XLMRobertaConfig, head: str, params: Mapping[str, Array], mode: Mode, dtype: str
    ) -> Model: ...

    def load(self, folder: Path, class_name: str, mode: Mode, dtype: str) -> Model: ...


@dataclass(frozen=True)
class Mode:
    """A way through a backend that must give the same numbers.

    Attributes:
        backend: short name, as in ``adapter_<backend>.py``.
        kernel: ``attn_implementation``.
        packed: whether batches are packed wherever that promises the answer, or never.
        graph: how the framework compiles a call, by the backend's own word for it; empty if it does not.
        dtypes: in which dtypes it is compared with the reference.
        more: further ones, in ``nox -s everything``.
        cases: which cases it runs, by the ends of their names; empty means all. Compiling is slow.
        turn: which cases the default suite runs, in float32 and float64: each in one family only, by its number of
            ``TURNS``, 0 for even ones; ``None`` means in both.
        left: cases that only ``nox -s everything`` runs, by parts of their names.
    """

    backend: str
    kernel: str
    packed: bool
    graph: str = ""
    dtypes: tuple[str, ...] = ("float32", "float64", "float16", "bfloat16")
    more: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()
    turn: int | None = None
    left: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.backend}-{'packed' if self.packed else self.kernel}" + (f"-{self.graph}" if self.graph else "")

    def takes(self, name: str, dtype: str) -> bool:
        """Whether a case is run in a dtype."""
        if EVERYTHING:
            return dtype in self.dtypes + self.more and (not self.cases or name.endswith(self.cases))
        half = dtype in HALVES and (dtype, self.backend) not in half_precision_of(name)
        other = self.turn is not None and dtype not in HALVES and TURNS[name] % 2 != self.turn
        left = other or any(part in name for part in self.left)
        return dtype in self.dtypes and not half and not left and (not self.cases or name.endswith(self.cases))


HALVES = ("float16", "bfloat16")


def half_precision_of(name: str) -> list[tuple[str, str]]:
    """Which half precision a case is run in, and by which backends: by PyTorch, and by one of the two that compile."""
    turn = TURNS[name]
    return [(HALVES[turn % 2], "torch"), (HALVES[turn % 2], ("tf", "flax")[turn // 2 % 2])]


MODES = (
    Mode("torch", "eager", packed=False),
    Mode("torch", "sdpa", packed=False, dtypes=("float32", "float64"), more=HALVES),
    Mode("torch", "sdpa", packed=True),
    Mode("tf", "eager", packed=False, dtypes=("float64",), more=("float32",), turn=0),
    Mode("tf", "sdpa", packed=True, dtypes=("float32", "float16", "bfloat16"), turn=1),
    Mode(
        "tf",
        "sdpa",
        packed=True,
        graph="function",
        dtypes=("float32",),
        turn=0,
        left=("activation", "epsilon", "one-head", "chunked", "pruned", "untied", "pad-", "relative-key"),
    ),
    Mode(
        "tf",
        "sdpa",
        packed=False,
        graph="xla",
        dtypes=("float32",),
        cases=(
            *("XLMRoberta-Model-left-and-inside", "XLMRoberta-MaskedLM-label-at-masked", "XLMRoberta-CausalLM-right"),
            *("XLMRobertaXL-MultipleChoice-left", "XLMRobertaXL-TokenClassification-inside"),
            *("XLMRobertaXL-QuestionAnswering-answer", "XLMRoberta-masked-positions-all-labels"),
            *("XLMRobertaXL-relative-decoder", "XLMRobertaXL-multi-label"),
        ),
    ),
    Mode("flax", "eager", packed=False, dtypes=("float64",), more=("float32",), turn=0),
    Mode("flax", "sdpa", packed=True, dtypes=("float32", "float16", "bfloat16"), turn=1),
)

# The name under which xlmr_core.backends knows each.
SHORT_NAMES = {"torch": "pt", "tf": "tf", "flax": "jax"}
TESTED = os.environ.get("XLMR_PARITY", "torch")
assert TESTED in SHORT_NAMES, f"XLMR_PARITY must be one of {', '.join(SHORT_NAMES)}, received {TESTED!r}"


def adapter(mode: Mode) -> Adapter:
    """The adapter of a mode's backend, imported only now."""
    module: Any = importlib.import_module(f"tests.parity.adapter_{mode.backend}")
    return module


def modes(*, padded: bool = True, packed: bool = True, dtype: str | None = None) -> list[Any]:
    """Test parameters: the tested backend's modes that do not compile, skipped with a word where the framework is not
    installed.

    Args:
        padded, packed: whether these modes are among them.
        dtype: only the modes that run in it.
    """
    return [
        pytest.param(mode, id=str(mode), marks=_if_installed(mode))
        for mode in MODES
        if mode.backend == TESTED
        and not mode.graph
        and (packed if mode.packed else padded)
        and (dtype is None or dtype in mode.dtypes)
    ]


def runs(names: Iterable[str], dtypes: Iterable[str] = ("float32",)) -> list[Any]:
    """Test parameters ``name, dtype, mode``: all of the tested backend's modes, compiling ones too, as far as each
    takes a case.
    """
    return [
        pytest.param(name, dtype, mode, id=f"{name}-{dtype}-{mode}", marks=_if_installed(mode))
        for name in names
        for dtype in dtypes
        for mode in MODES
        if mode.backend == TESTED and mode.takes(name, dtype)
    ]


def modes_in_turn(names: Iterable[str], *, ahead: int = 0, in_all: Collection[str] = ()) -> list[Any]:
    """Test parameters ``name, mode``: each case in one of the modes that do not compile, which take turns; in backends
    other than PyTorch in one family, which take turns as well.

    Args:
        names: of cases.
        ahead: where a second test takes the same cases: how many turns further it is.
        in_all: cases that are run in all modes, as all are in ``nox -s everything``.
    """
    every = modes()
    return [
        pytest.param(name, *mode.values, id=f"{name}-{mode.id}", marks=mode.marks)
        for name in names
        for number, mode in enumerate(every)
        if EVERYTHING
        or name in in_all
        or ((TURNS[name] + ahead) % len(every) == number and (TESTED == "torch" or _has_the_turn(name, ahead)))
    ]


def _has_the_turn(name: str, ahead: int) -> bool:
    """Whether it is the turn of a case's family: two cases of one, two of the other, so that each meets every mode."""
    family, _, rest = name.partition("-")
    number = FAMILIES.index(family)
    alone = any(f"{other}-{rest}" not in TURNS for other in FAMILIES)
    return alone or ((TURNS[name] - number) // 2 + ahead) % len(FAMILIES) == number


def graphs(names: Iterable[str]) -> list[Any]:
    """Test parameters ``name, mode``: the tested backend's compiling modes, as far as each takes a case."""
    return [
        pytest.param(name, mode, id=f"{name}-{mode}", marks=_if_installed(mode))
        for name in names
        for mode in MODES
        if mode.backend == TESTED and mode.graph and mode.takes(name, "float32")
    ]


def _if_installed(mode: Mode) -> Any:
    return pytest.mark.skipif(not installed(SHORT_NAMES[mode.backend]), reason=f"{mode.backend} is not installed")
