"""A forked child that is killed before its n-th operation on files, or in the middle of what it writes."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable
from typing import Any

# Of the module `os`, through which our files are written.
STEPS = ("write", "fsync", "ftruncate", "replace", "unlink", "lseek")


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do it in a child; whether the child was killed before it was done.

    Raises:
        AssertionError: if it failed by itself.
    """
    # JAX warns of threads, if another test has imported it; what a child does here needs none.
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status) or status == 0, f"it failed by itself at step {step}: {status}"
        return os.WIFSIGNALED(status)
    try:
        count = 0

        def watched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **others: Any) -> Any:
                nonlocal count
                count += 1
                if count == step:
                    if name == "write":
                        real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
                # Only a crash of the machine needs it, and it is slow.
                return None if name == "fsync" else real(*arguments, **others)

            return call

        for name in STEPS:
            setattr(os, name, watched(name, getattr(os, name)))
        work()
        os._exit(0)
    finally:
        os._exit(1)
