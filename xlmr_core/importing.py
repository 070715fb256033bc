"""Names of a package that are imported when they are first used, and what is said of names that it does not have."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from typing import Any

from xlmr_core.elsewhere import answer

__all__ = ["import_when_used"]


def import_when_used(package: dict[str, Any], names: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package.

    Args:
        package: its ``globals()``, where a name is kept once it is imported.
        names: the module of each name.
    """

    def find(name: str) -> Any:
        if name not in names:
            raise _missing(package["__name__"], name, package.get("__all__", []), sys._getframe(1).f_code.co_name)
        value = getattr(importlib.import_module(names[name]), name)
        package[name] = value
        return value

    return find


def _missing(package: str, name: str, known: list[str], caller: str) -> AttributeError | ImportError:
    """The error for a name that is not there, with what is in its place.

    Of an ``AttributeError``, ``from package import name`` shows nothing; so where the import system asks, which is what
    its function is called for, and no module has the name, an ``ImportError`` it is.
    """
    if name.startswith("__"):
        return AttributeError(f"module {package!r} has no attribute {name!r}")
    told = answer(package, name, known)
    told = f"; {told}" if told else ""
    if caller == "_handle_fromlist" and importlib.util.find_spec(f"{package}.{name}") is None:
        return ImportError(f"cannot import name {name!r} from {package!r}{told}", name=name)
    return AttributeError(f"module {package!r} has no attribute {name!r}{told}")
