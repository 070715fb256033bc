"""Work measured in a process of its own: once, from its start to its answer, or again and again in one that stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
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
        self._environment = environment(root)
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


class Standing:
    """A process that stays and answers one request after another: what it needs is loaded and compiled once.

    Args:
        code: Python code that ends with ``children.serve(work)`` from this module.
    """

    def __init__(self, code: str) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (open as long as the process is)
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
            env=environment(ROOT),
        )

    def ask(self, *arguments: Any) -> Any:
        """What ``work`` returns for these."""
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None and answers is not None
        try:
            print(json.dumps(arguments), file=requests, flush=True)
            line = next((line for line in answers if line.startswith(ANSWER)), None)
        except BrokenPipeError:
            line = None
        if line is None:
            self._errors.seek(0)
            raise RuntimeError(f"the process of a contestant failed:\n{self._errors.read()}")
        return json.loads(line.removeprefix(ANSWER))

    def close(self) -> None:
        """End the process."""
        with self._errors, self._process as process:
            process.kill()


def serve(work: Callable[..., Any]) -> None:
    """Called by a child that stays: answers what :meth:`Standing.ask` asks, until nobody asks any more."""
    for line in sys.stdin:
        print(ANSWER + json.dumps(work(*json.loads(line))), flush=True)


def environment(root: Path) -> dict[str, str]:
    """The environment variables of a child that runs the source of a checkout."""
    handed_on = {name: value for name, value in os.environ.items() if name not in NOT_HANDED_ON}
    return {**handed_on, "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1"}


def answer(value: Any = None) -> None:
    """Called by the child when its work is done."""
    print(ANSWER + json.dumps({"answer": value, "peak": peak_bytes()}), flush=True)


def forget_peak() -> None:
    """Let :func:`peak_bytes` begin anew with what is held now; only Linux can."""
    forget = Path("/proc/self/clear_refs")
    if forget.exists():
        forget.write_text("5", encoding="ascii")


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
