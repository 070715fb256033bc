"""How every kind of ``nox -s fuzz`` is tried, counted and shown in one table.

A kind is a function ``attempt(seed, folder)`` in a file ``fuzz_*.py``, listed in the ``KINDS`` of that file: it makes
one thing that hurts in an empty folder, by chance of the seed alone, and does with it what a user does. What comes of
it is one of ``OUTCOMES`` (what all attempts share, such as an import, is for a method ``prepare``):

* it returns: opened fine;
* an ``XLMRError`` of a readable length: a clear error;
* an ``assert`` of a file of ``tests`` fails: a wrong answer;
* any other exception: a raw error;
* more than ``MOST_SECONDS`` of a core, or no answer for ``PATIENCE``, or more memory than ``MOST_BYTES`` over the size
  of the folder: over the bounds;
* the process dies: a crash.

Many attempts share a child process. It says which seed it tries before it does, so whatever becomes of it, the parent
knows whose fault it is, and goes on behind that seed with another child.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from xlmr_core.errors import XLMRError

__all__ = ["OUTCOMES", "Attempt", "Result", "run_all", "run_child", "shown"]

ROOT = Path(__file__).resolve().parents[2]
Attempt: TypeAlias = Callable[[int, Path], object]

# The promise of docs/formats.md.
MOST_SECONDS, MOST_BYTES = 10.0, 1 << 30
# Of wall-clock time without an answer, beside which other work may run: then it hangs.
PATIENCE = 40.0
# Of address space: what asks for more dies here and not with the machine.
MOST_ADDRESSES = 12 << 30
LONGEST_SENTENCE = 4000

FINE, CLEAR = "opened fine", "clear errors"
RAW, OVER, CRASH, WRONG = "raw errors", "over the bounds", "crashes", "wrong answers"
OUTCOMES = (CLEAR, FINE, RAW, OVER, CRASH, WRONG)
FAULTS = (RAW, OVER, CRASH, WRONG)
# How many faults of a sort are told in full, and how many of a kind are looked at before it is left.
MOST_TOLD, MOST_FAULTS = 3, 40


@dataclass
class Result:
    """What came of the attempts of a kind."""

    kind: str
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[str, int, str]] = field(default_factory=list)
    slowest: float = 0.0
    largest: int = 0

    @property
    def tried(self) -> int:
        """How many there were."""
        return sum(self.counts.values())

    def add(self, outcome: str, seed: int, told: str = "") -> None:
        """Count one."""
        self.counts[outcome] += 1
        if outcome in FAULTS:
            self.faults.append((outcome, seed, told))


# In the child


def run_child(attempt: Attempt, seed: int, seconds: float, tries: int) -> None:
    """Try one seed after the other until the time is over, and say on standard output what comes of each."""
    faulthandler.enable()
    warnings.simplefilter("ignore")
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESSES, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    getattr(attempt, "prepare", bool)()
    top = Path(tempfile.mkdtemp(prefix="xlmr-fuzz-"))
    out.write(json.dumps({"folder": str(top)}) + "\n")
    end = time.monotonic() + seconds
    try:
        for number in range(seed, seed + tries):
            if time.monotonic() > end:
                break
            out.write(json.dumps({"seed": number}) + "\n")
            folder = top / str(number)
            folder.mkdir()
            out.write(json.dumps(_tried(attempt, number, folder)) + "\n")
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        shutil.rmtree(top, ignore_errors=True)


def _tried(attempt: Attempt, seed: int, folder: Path) -> dict[str, Any]:
    random.seed(seed)
    _forget_peak()
    before, start, told = _peak(), time.process_time(), ""
    try:
        attempt(seed, folder)
        outcome = FINE
    except XLMRError as error:
        told = str(error)
        outcome = CLEAR if len(told) <= LONGEST_SENTENCE else RAW
        told = f"{type(error).__name__} of {len(told)} characters: {told[:200]}"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of Rust code is no Exception
        file, place = _place(error)
        ours = isinstance(error, AssertionError) and Path(file).is_relative_to(ROOT / "tests")
        outcome = WRONG if ours else RAW
        told = f"{type(error).__name__}: {_start_of(error)} ({place})"
    used, more = time.process_time() - start, _peak() - before
    allowed = MOST_BYTES + sum(file.lstat().st_size for file in folder.rglob("*"))
    if used > MOST_SECONDS or more > allowed:
        outcome, told = OVER, f"{used:.1f} s, {more >> 20} MiB; {told}"
    return {"outcome": outcome, "told": told, "seconds": used, "bytes": more}


def _start_of(error: BaseException) -> str:
    try:
        return str(error)[:300]
    except Exception as again:
        return f"(its text: {type(again).__name__})"


def _place(error: BaseException) -> tuple[str, str]:
    """The file that raised it, and the last place of this project on the way there."""
    trace, file, place = error.__traceback__, "", ""
    while trace is not None:
        code = trace.tb_frame.f_code
        file = code.co_filename
        if Path(file).is_relative_to(ROOT):
            place = f"{Path(file).name}:{trace.tb_lineno} {code.co_name}"
        trace = trace.tb_next
    return file, place


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """The most memory that this process had since ``_forget_peak``, of its own and not of mapped files."""
    rows = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return (int(rows["VmHWM"].split()[0]) - int(rows["RssFile"].split()[0])) << 10


# In the parent


def run_kind(kind: str, seed: int, seconds: float, tries: int) -> Result:
    """Try a kind in child processes until the time is over, or all tries are made."""
    result = Result(kind)
    end, next_seed, last = time.monotonic() + seconds, seed, seed + tries
    while next_seed < last and (left := end - time.monotonic()) > 0 and len(result.faults) < MOST_FAULTS:
        next_seed = _run_batch(result, next_seed, left, last - next_seed)
    return result


def _run_batch(result: Result, seed: int, seconds: float, tries: int) -> int:
    """One child. Returns the seed to go on with."""
    command = [sys.executable, "-m", "tests.fuzz", "--child", result.kind, "--seed", str(seed)]
    command += ["--seconds", str(seconds), "--tries", str(tries)]
    folder, running, next_seed = "", False, seed
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=said)
        assert child.stdout is not None
        rest = b""
        while True:
            ready, _, _ = select.select([child.stdout], [], [], PATIENCE)
            if not ready:
                child.send_signal(signal.SIGABRT)  # faulthandler says where it is
                time.sleep(1)
                child.kill()
                child.wait()
                result.add(OVER, next_seed, f"no answer for {PATIENCE:.0f} s; {_end_of(said)}")
                next_seed += 1
                break
            data = os.read(child.stdout.fileno(), 1 << 16)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                answer = json.loads(line)
                if "folder" in answer:
                    folder = answer["folder"]
                elif "seed" in answer:
                    running, next_seed = True, answer["seed"]
                else:
                    running, next_seed = False, next_seed + 1
                    result.add(answer["outcome"], next_seed - 1, answer["told"])
                    result.slowest = max(result.slowest, answer["seconds"])
                    result.largest = max(result.largest, answer["bytes"])
            if not data:
                status = child.wait()
                if running:
                    result.add(CRASH, next_seed, f"ended with {status}; {_end_of(said)}")
                    next_seed += 1
                elif status or not folder:
                    raise RuntimeError(f"the child of {result.kind} ended with {status}: {_end_of(said)}")
                else:
                    next_seed = max(next_seed, seed + (tries if next_seed >= seed + tries else 0))
                break
        child.stdout.close()
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
    return next_seed


def _end_of(file: Any) -> str:
    file.seek(0)
    return " | ".join(file.read().decode("utf-8", "replace").splitlines()[-12:])[-700:]


def run_all(kinds: Iterable[str], *, seed: int, minutes: float, workers: int, tries: int) -> list[Result]:
    """Try all kinds, ``workers`` of them at a time, each for the same share of the minutes."""
    names = list(kinds)
    seconds = minutes * 60 * workers / max(1, len(names))
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda kind: run_kind(kind, seed, seconds, tries), names))


def shown(results: Iterable[Result]) -> str:
    """The table, and the first faults of each sort."""
    rows = [["", "tried", *OUTCOMES, "slowest", "memory"]]
    whole, told = Result("all"), []
    for result in results:
        for outcome, seed, text in result.faults:
            if sum(row[:2] == (result.kind, outcome) for row in told) < MOST_TOLD:
                told.append((result.kind, outcome, f"--kind {result.kind} --seed {seed} --tries 1: {outcome}: {text}"))
        whole.counts += result.counts
        whole.slowest, whole.largest = max(whole.slowest, result.slowest), max(whole.largest, result.largest)
        rows.append(_row(result))
    rows.append(_row(whole))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            f"{word:{'<' if place == 0 else '>'}{width}}"
            for place, (word, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([*(line.rstrip() for line in lines), *(text for _, _, text in told)])


def _row(result: Result) -> list[str]:
    counts = [str(result.counts[outcome]) for outcome in OUTCOMES]
    return [result.kind, str(result.tried), *counts, f"{result.slowest:.1f} s", f"{result.largest >> 20} MiB"]


def is_clean(results: Iterable[Result]) -> bool:
    """Whether nothing is in the last four columns."""
    return not any(result.faults for result in results)


def kinds_of(modules: Iterable[Mapping[str, Any]]) -> dict[str, Attempt]:
    """The kinds of all files, by name."""
    kinds: dict[str, Attempt] = {}
    for module in modules:
        for name, attempt in module["KINDS"].items():
            assert name not in kinds, f"two kinds are named {name}"
            kinds[name] = attempt
    return kinds
