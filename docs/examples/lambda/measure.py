"""How long an unpacked function takes to start and to answer, with as much memory and processor as Lambda gives it.

    unzip -q function.zip -d function
    python docs/examples/lambda/measure.py function --task fill-mask --memory 512 --text "Ich weiß es <mask>."

Lambda's share of a processor goes with the memory: 1769 MB are one. Where this machine has control groups that can be
made (root, version 1), both are held to; elsewhere the times are those of a whole processor, and that is said.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
NAME = f"xlmr-function-{os.getpid()}"
OF_ONE_PROCESSOR = 1769  # MB
PROCESS = """
import json, sys, time
begun = float(sys.argv[1])
from xlmr_core.serverless import handler
event = {"requestContext": {"http": {"method": "POST"}}, "body": json.dumps({"inputs": sys.argv[2]})}
started = time.time()
answers, times = [handler(event)], [time.time() - begun]
for _ in range(30):
    before = time.perf_counter()
    answers.append(handler(event))
    times.append(time.perf_counter() - before)
status = open("/proc/self/status").read()
peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
assert {answer["statusCode"] for answer in answers} == {200}, answers[0]
warm = sorted(times[1:])
print(json.dumps({"start": started - begun, "cold": times[0], "warm": warm[15], "slow": warm[28], "peak": peak}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="the unpacked zip")
    parser.add_argument("--task", required=True)
    parser.add_argument("--text", default="Ich weiß es <mask>.")
    parser.add_argument("--memory", type=int, default=512, help="MB")
    asked = parser.parse_args()
    print(json.dumps(measure(asked.folder, asked.task, asked.text, asked.memory)))


def measure(folder: Path, task: str, text: str, memory: int) -> dict[str, object]:
    """Seconds until the model is loaded, to the first answer, and of later ones (median and nearly slowest); the peak
    of memory in MiB; whether the process was held to its memory and its share of a processor.
    """
    environ = {
        "PYTHONPATH": str(folder.resolve()),
        "PATH": os.environ["PATH"],
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "XLMR_MODEL": str(folder.resolve() / "model"),
        "XLMR_TASK": task,
    }
    with limited(memory) as join:
        command = [sys.executable, "-S", "-P", "-c", PROCESS, str(time.time()), text]
        done = subprocess.run(command, env=environ, cwd="/", capture_output=True, text=True, preexec_fn=join)
    if done.returncode:
        sys.exit(f"failed with {done.returncode}: {done.stderr[-2000:]}")
    return {"memory": memory, **json.loads(done.stdout), "held": join is not None}


@contextmanager
def limited(memory: int) -> Iterator[Callable[[], object] | None]:
    """What a process calls to join groups that limit it, if such can be made."""
    folders = [GROUPS / kind / NAME for kind in ("memory", "cpu")]
    try:
        for folder in folders:
            folder.mkdir()
        (folders[0] / "memory.limit_in_bytes").write_text(str(memory << 20))
        (folders[1] / "cpu.cfs_period_us").write_text("20000")
        (folders[1] / "cpu.cfs_quota_us").write_text(str(round(20000 * memory / OF_ONE_PROCESSOR)))
    except OSError:
        remove(folders)
        yield None
        return
    try:
        yield lambda: [(folder / "cgroup.procs").write_text(str(os.getpid())) for folder in folders]
    finally:
        remove(folders)


def remove(folders: list[Path]) -> None:
    for folder in folders:
        if folder.is_dir():
            folder.rmdir()


if __name__ == "__main__":
    main()
