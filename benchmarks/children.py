"""Work measured in a process of its own: the time from its start to its answer, and the most memory it held."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Both would change how long an import takes: what is installed has its byte code.
NOT_HANDED_ON = ("PYTHONDONTWRITEBYTECODE", "PYTHONPROFILEIMPORTTIME")
# A child says when it has its answer, so that taking the interpreter down is not counted.
ANSWER = "ANSWER "


class Child:
    """A job: Python code that runs in a fresh process and ends with ``children.answer(value)`` from this module.

    Args:
        code: the code.
        quantities: what of it is wanted.
        python: the interpreter.
        root: the checkout whose source runs.
    """

    def __init__(
        self,
        code: str,
        quantities: Sequence[str] = ("seconds", "peak_mib"),
        python: str = sys.executable,
        root: Path = ROOT,
    ) -> None:
        self._command = [python, "-c", code]
        handed_on = {name: value for name, value in os.environ.items() if name not in NOT_HANDED_ON}
        self._environment = {**handed_on, "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1"}
        self._root = root
        self._quantities = quantities
        self.answer: Any = None

    def __call__(self) -> dict[str, float]:
        with tempfile.TemporaryFile("w+") as errors:
            start = time.perf_counter()
            with subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=self._root, env=self._environment
            ) as process:
                assert process.stdout is not None
                line = next((line for line in process.stdout if line.startswith(ANSWER)), None)
                seconds = time.perf_counter() - start
            if line is None or process.returncode:
                errors.seek(0)
                raise RuntimeError(f"the process of a contestant failed:\n{errors.read()}")
        told = json.loads(line.removeprefix(ANSWER))
        self.answer = told["answer"]
        found = {"seconds": seconds, "peak_mib": told["peak"] / 2**20}
        return {quantity: found[quantity] for quantity in self._quantities}


def answer(value: Any = None) -> None:
    """Called by the child when its work is done."""
    print(ANSWER + json.dumps({"answer": value, "peak": peak_bytes()}), flush=True)


def peak_bytes() -> int:
    """The most resident memory this process has held.

    Linux says it of this program alone; ``getrusage`` also counts what the process held before it became this program.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="ascii").splitlines() if ":" in line)
        return int(lines["VmHWM"].split()[0]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
