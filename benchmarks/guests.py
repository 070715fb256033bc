"""Contestants of another environment: a process of another Python that is kept for all of its turns.

The original TensorFlow and Flax classes are in transformers 4 only, which cannot live beside what the other peers need.
``nox -s peers-4`` makes an environment for them; ``XLMR_TRANSFORMERS_4`` names its Python.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Absent, Numbers, Options
from benchmarks.machine import ROOT

VARIABLE = "XLMR_TRANSFORMERS_4"
ANSWER = "ANSWER "


def guest_python(options: Options) -> str:
    """The interpreter of the other environment.

    Raises:
        Absent: if there is no such environment, or it is not asked for.
    """
    if "transformers" not in options.peers:
        raise Absent(f"not among --peer {' '.join(options.peers)}")
    if VARIABLE not in os.environ:
        raise Absent(
            f"{VARIABLE} does not name a Python with transformers 4, tf-keras and Flax (`nox -s peers-4` makes one)"
        )
    return os.environ[VARIABLE]


class Kept:
    """A process that takes turns when it is told to. Its time is its own: what goes through the pipe is not counted.

    Args:
        command: what runs; it ends in :func:`serve`.
        root: the checkout whose source runs.
    """

    def __init__(self, command: Sequence[str], root: Path = ROOT) -> None:
        self._answers = tempfile.TemporaryDirectory(prefix="xlmr-guest-")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1"},
        )
        weakref.finalize(self, self._process.kill)

    def turn(self, request: Any) -> tuple[Numbers, Path]:
        """Let it work; what it measured, and the file of its answer (an array)."""
        path = Path(self._answers.name, "answer.npy")
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([request, str(path)]) + "\n")
        self._process.stdin.flush()
        line = next((line for line in self._process.stdout if line.startswith(ANSWER)), None)
        if line is None:
            raise RuntimeError(f"the process of a guest ended with {self._process.wait()}")
        return json.loads(line.removeprefix(ANSWER)), path


class Guest(Kept):
    """Such a process in the other environment.

    Args:
        options: of the question; ``--peer`` has to name transformers.
        module: what the process runs.
        *arguments: its arguments.

    Raises:
        Absent: if there is no such environment, or it is not asked for.
    """

    def __init__(self, options: Options, module: str, *arguments: str) -> None:
        super().__init__([guest_python(options), "-m", module, *arguments])


class GuestJob:
    """The job of such a process with one request; ``answer`` is that of the latest turn."""

    def __init__(self, guest: Kept, request: Any) -> None:
        self._guest, self._request = guest, request
        self.answer: Any = None

    def __call__(self) -> Numbers:
        numbers, path = self._guest.turn(self._request)
        self.answer = np.load(path)
        return numbers


def serve(work: Callable[[Any], Any]) -> None:
    """In the guest: answer requests until there are no more. ``work`` returns an array, or numbers and an array."""
    for line in sys.stdin:
        request, path = json.loads(line)
        start = time.perf_counter()
        answer = work(request)
        numbers = {"seconds": time.perf_counter() - start}
        if isinstance(answer, tuple):
            numbers, answer = answer
        np.save(path, np.asarray(answer))
        print(ANSWER + json.dumps(numbers), flush=True)
