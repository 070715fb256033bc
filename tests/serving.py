"""``xlmr serve`` in a process of its own, as a user starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

__all__ = ["serving"]

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def serving(*words: str, env: Mapping[str, str] = MappingProxyType({}), seconds: float = 30) -> Iterator[str]:
    """A running server's URL; it has to end well within some seconds of being asked to.

    Args:
        words: models and options.
        env: variables beside those of this process.
        seconds: that it may take to end.
    """
    command = [sys.executable, "-m", "xlmr_core", "serve", *words, "--port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env={**os.environ, **env})
    assert process.stderr is not None
    said = ""
    while not (found := re.search(r"serves at (\S+)", said)):
        line = process.stderr.readline()
        assert line, said
        said += line
    yield found[1]
    process.send_signal(signal.SIGTERM)
    process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=seconds) == 0
