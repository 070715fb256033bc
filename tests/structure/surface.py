"""The public surface of a package as text: every public name with its signature, one a line.

Run as a script it writes the frozen lists anew, for all packages whose framework is installed::

    python tests/structure/surface.py

Read the difference before committing it: each line that goes away or changes breaks somebody's code.
"""

from __future__ import annotations

import enum
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

FROZEN = Path(__file__).resolve().parent / "surface"
# Package -> the framework without which it cannot be imported.
PACKAGES = {"xlmr_core": "numpy", "xlmr_torch": "torch", "xlmr_tf": "tensorflow", "xlmr_flax": "jax"}
# Of the core every module is public as far as its __all__ goes; a backend shows what the package itself names.
WITH_MODULES = {"xlmr_core"}


def installed(package: str) -> bool:
    return importlib.util.find_spec(PACKAGES[package]) is not None


def surface(package: str) -> list[str]:
    """The lines of a package, sorted."""
    lines: set[str] = set()
    for module in _modules(package):
        for name in getattr(module, "__all__", ()):
            lines.update(_describe(f"{module.__name__}.{name}", getattr(module, name)))
    return sorted(lines)


def _modules(package: str) -> Iterator[ModuleType]:
    top = importlib.import_module(package)
    yield top
    if package in WITH_MODULES:
        for found in pkgutil.walk_packages(top.__path__, f"{package}."):
            if not found.name.endswith("__main__"):
                yield importlib.import_module(found.name)


def _describe(path: str, value: Any) -> Iterator[str]:
    if inspect.isclass(value):
        yield from _describe_class(path, value)
    elif inspect.isroutine(value):
        yield path + _signature(value)
    elif isinstance(value, str | int | float | tuple) and _plain(value):
        yield f"{path} = {value!r}"
    else:
        yield f"{path}: {type(value).__name__}"


def _plain(value: Any) -> bool:
    return all(map(_plain, value)) if isinstance(value, tuple) else isinstance(value, str | int | float | None)


def _describe_class(path: str, kind: type) -> Iterator[str]:
    home = f"{kind.__module__}.{kind.__qualname__}"
    if home != path:
        # Named here and written there: the methods are listed once, under the class's own name.
        yield f"{path} is {home}"
    if kind.__module__.partition(".")[0] != path.partition(".")[0]:
        return  # listed with its own package
    yield from _describe_own(home, kind)
    for base in kind.__mro__[1:]:
        if base.__module__.partition(".")[0] == path.partition(".")[0]:
            yield from _describe_own(f"{base.__module__}.{base.__qualname__}", base)


def _describe_own(path: str, kind: type) -> Iterator[str]:
    bases = ", ".join(base.__name__ for base in kind.__bases__ if base is not object)
    makes = next((base for base in kind.__mro__ if {"__init__", "__new__"} & vars(base).keys()), object)
    ours = makes.__module__.startswith("xlmr_") and not issubclass(kind, enum.Enum)
    arguments = _signature(_maker(makes)) if ours else "(...)"
    yield f"{path}{arguments}" + (f" [{bases}]" if bases else "")
    if issubclass(kind, enum.Enum):
        yield from (f"{path}.{member.name} = {member.value!r}" for member in kind)
        return
    for name, member in vars(kind).items():
        if name.startswith("_") and name != "__call__":
            continue
        if isinstance(member, property):
            yield f"{path}.{name} [property{', settable' if member.fset else ''}]"
        elif isinstance(member, classmethod | staticmethod):
            yield f"{path}.{name}{_signature(member.__func__)} [{type(member).__name__}]"
        elif inspect.isfunction(member):
            yield f"{path}.{name}{_signature(member)}"


def _maker(kind: type) -> Any:
    """What takes a class's arguments, bound: of a class itself Python 3.11 says other things in its earlier releases."""
    maker = vars(kind).get("__init__") or vars(kind)["__new__"]
    return getattr(maker, "__func__", maker).__get__(object())


class _Bare(str):
    """An annotation that prints without the quotes that ``from __future__ import annotations`` leaves around it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _signature(value: Any) -> str:
    signature = inspect.signature(value)
    arguments = [
        one.replace(annotation=_Bare(one.annotation)) if isinstance(one.annotation, str) else one
        for one in signature.parameters.values()
    ]
    result = signature.return_annotation
    bare = signature.replace(
        parameters=arguments, return_annotation=_Bare(result) if isinstance(result, str) else result
    )
    return re.sub(r" at 0x[0-9a-f]+", "", str(bare))


def main() -> None:
    FROZEN.mkdir(exist_ok=True)
    for package in PACKAGES:
        if not installed(package):
            print(f"{package}: left as it is, {PACKAGES[package]} is not installed")
            continue
        lines = surface(package)
        (FROZEN / f"{package}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{package}: {len(lines)} lines")


if __name__ == "__main__":
    sys.path.insert(0, str(FROZEN.parents[2]))
    main()
