"""Jobs over files of random rows that are killed again and again: part of ``nox -s fuzz``.

However often a job is killed, its output is that of one that was not; and whatever bytes a row has, it is one row.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.core.killed import killed_at
from tests.fuzz.harness import Attempt
from xlmr_core.errors import InputError
from xlmr_core.jobs import job as jobs
from xlmr_core.jobs.job import Job
from xlmr_core.tasks.feature_extraction import FeatureExtraction

MOST_ROWS, MOST_KILLS, MOST_STEPS = 12, 4, 40
PIECES = ("a", "日本", "?", '"', '""', ",", "\t", "\n", "\r\n", "{", "\\", "\x00", "\u2028", "\ud800", " ", "[" * 500)
OUTPUTS = (".jsonl", ".csv", ".npy")


class Lengths:
    """Answers with the length of a text; refuses questions."""

    truncated = ()

    def __call__(self, texts: Any) -> list[Any]:
        texts = list(texts)
        if any("?" in text for text in texts):
            raise InputError("expected no question, received one; ask nothing")
        return [np.array([len(text), random.random() * 0], np.float32) for text in texts]

    def rows(self, answer: Any) -> list[dict[str, Any]]:
        return [{"length": float(answer[0])}]


def text() -> str:
    return "".join(random.choices(PIECES, k=random.randint(0, 6)))


def content(ending: str) -> bytes:
    """A file of rows, some bytes of which may be changed."""
    texts = [text() for _ in range(random.randint(0, MOST_ROWS))]
    if ending == ".txt":
        lines = texts
    elif ending == ".csv":
        lines = ["text,id", *(f'"{one.replace(chr(34), chr(34) * 2)}",{number}' for number, one in enumerate(texts))]
    else:
        lines = [json.dumps({"text": one}, ensure_ascii=random.random() < 0.5) for one in texts]
    data = bytearray("\n".join(lines).encode("utf-8", "surrogatepass"))
    for _ in range(random.choice((0, 0, 1, 3))):
        if data:
            data[random.randrange(len(data))] = random.randrange(256)
    return bytes(data)


def attempt(seed: int, folder: Path, input: str, outputs: Sequence[str]) -> None:
    given, output = folder / f"in{input}", random.choice(outputs)
    given.write_bytes(content(input))
    jobs.WINDOW = random.randint(1, 4)

    def run(name: str) -> Path:
        path = folder / (name + output)
        Job(given, path, FeatureExtraction).run(lambda rows, examples: Lengths(), lambda kind, said: None)
        return path

    expected = run("whole").read_bytes()
    for _ in range(random.randint(1, MOST_KILLS)):
        if not killed_at(random.randint(1, MOST_STEPS), lambda: run("killed")):
            break
        if (folder / f"killed{output}").exists() and not (folder / f"killed{output}{jobs.JOURNAL}").exists():
            break
    path = folder / f"killed{output}"
    if not path.exists() or path.with_name(path.name + jobs.JOURNAL).exists():
        run("killed")
    assert path.read_bytes() == expected, "a job that was killed has another output"
    left = {one.name for one in folder.iterdir()} - {given.name, path.name, f"whole{output}"}
    assert not left, f"left over: {sorted(left)}"


def kind(input: str) -> Attempt:
    return lambda seed, folder: attempt(seed, folder, input, OUTPUTS)


KINDS = {f"job over {ending}": kind(ending) for ending in (".txt", ".csv", ".jsonl")}
