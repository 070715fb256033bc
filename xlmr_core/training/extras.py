"""The packages of the extra ``train``: asked for where they are used, and looked for before a run begins."""

from __future__ import annotations

import importlib.util

from xlmr_core.errors import MissingBackendError

__all__ = ["require"]


def require(*packages: str) -> None:
    """Refuse at once where a package of the extra is missing; imports nothing.

    Raises:
        MissingBackendError: with the command that installs it.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingBackendError(
                f"{package} is needed for training and is not installed; install it with: pip install 'xlmr[train]'"
            )
