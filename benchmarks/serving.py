"""How much does a server cost, beside the pipeline that it serves?

A server is a process of its own, asked over the loopback by this one; both have the same cores. "pipeline" is the same
model in this process: a call at a time, and all texts as one list.

In "one request alone" a client asks for a text when it has the vector of the one before; seconds are the median of its
requests, and "largest difference" that of a number of a vector. In "64 clients at once" each has a connection that
stays, and draws texts of natural lengths for ten minutes, or ``--seconds``. Every answer is compared with the
pipeline's; facts count those that were lost, refused, or differ by more than rounding, and say how long short and long
texts waited, and the server's own memory, without mapped files: after a fifth of the time, as buffers grow until they
fit the largest batches, at its highest, and at the end.
"""

from __future__ import annotations

import base64
import functools
import http.client
import json
import os
import queue
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from benchmarks import harness, machine
from benchmarks.harness import Case, Numbers, Options
from benchmarks.models import checkpoint
from benchmarks.tasks import passages
from xlmr_core.tokenization import AutoTokenizer

CLIENTS = 64
TEXTS, ALONE = 400, 40  # that are drawn from, and that are asked for one by one
SECONDS = 600.0
DIFFERENT = 1e-4  # of a number of two vectors for the same text
SHORT = 32  # tokens
PACE = "tokens a second"

Vector = NDArray[np.float32]


def cases(options: Options) -> Iterator[Case]:
    folder = checkpoint(options)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = passages(24 if options.tiny else TEXTS, tokenizer)
    lengths = [len(row) for row in tokenizer(texts)["input_ids"]]
    seconds = options.seconds or (1.0 if options.tiny else SECONDS)
    with closing(Both(folder, options.threads)) as both:
        yield Case(
            "one request alone",
            {
                "pipeline": lambda: OneByOne(lambda text: both.pipeline([text])[0], texts[:ALONE]),
                "server": lambda: OneByOne(functools.partial(ask, both.server.connect()), texts[:ALONE]),
            },
            ("pipeline",),
            facts={"texts": ALONE, "median tokens": statistics.median(lengths[:ALONE])},
            compare=difference,
        )
        found: dict[str, Any] = {}
        yield Case(
            f"{CLIENTS} clients at once",
            {
                "pipeline": lambda: OneList(both, texts, lengths),
                "server": lambda: Many(both, texts, lengths, seconds, found),
            },
            ("pipeline",),
            facts=found,
            rounds=1,
            warmup=0,
        )


def difference(expected: Sequence[Vector], found: Sequence[Vector]) -> Numbers:
    """The largest of a number of a vector."""
    far = (np.abs(one - other).max() for one, other in zip(expected, found, strict=True))
    return {"largest difference": float(max(far))}


# ---- The pipeline and the server


class Both:
    """The same model here and in a process of its own, each loaded when it is asked for.

    Args:
        folder: of the model.
        threads: of each.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        self._folder = folder
        self._threads = threads

    @cached_property
    def pipeline(self) -> Any:
        from xlmr_torch import pipeline

        return pipeline("sentence-embedding", model=str(self._folder), pooling="mean", progress=False)

    @cached_property
    def server(self) -> Server:
        return Server(self._folder, self._threads)

    def close(self) -> None:
        """End the server, if it was started."""
        if "server" in self.__dict__:
            self.server.close()


class Server:
    """A running server."""

    def __init__(self, folder: Path, threads: int) -> None:
        command = [sys.executable, "-m", "benchmarks.serving", "--serve", str(folder), str(threads)]
        self._process = subprocess.Popen(command, cwd=machine.ROOT, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        url = urlsplit(self._process.stdout.readline().strip())
        assert url.hostname and url.port, "the server did not start"
        self._address = (url.hostname, url.port)

    def mib(self) -> float:
        """The process's own memory: without pages of files, such as mapped weights, which the system can take back."""
        _, resident, of_files, *_ = map(int, Path(f"/proc/{self._process.pid}/statm").read_text("ascii").split())
        return (resident - of_files) * os.sysconf("SC_PAGESIZE") / 2**20

    def connect(self) -> http.client.HTTPConnection:
        """A connection that stays."""
        return http.client.HTTPConnection(*self._address, timeout=600)

    def close(self) -> None:
        """End it as a supervisor does."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=120)
        assert self._process.stdout is not None
        self._process.stdout.close()


def serve(folder: str, threads: str) -> None:
    """What the process of the server runs."""
    from xlmr_core.serving import Settings, load_model, serve

    machine.limit_threads(int(threads))
    model = load_model(folder, "sentence-embedding", name="model", backend="torch")
    serve([model], Settings(request_timeout=600.0), port=0, ready=lambda url: print(url, flush=True))


# ---- Who ask


def ask(connection: http.client.HTTPConnection, text: str) -> Vector:
    """The vector of a text.

    Raises:
        Refused: if there is another answer.
    """
    body = json.dumps({"input": text, "encoding_format": "base64"})
    connection.request("POST", "/v1/embeddings", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise Refused(f"{answer.status}: {content.decode()}")
    return np.frombuffer(base64.b64decode(json.loads(content)["data"][0]["embedding"]), "<f4")


class Refused(Exception):
    """Another answer than a vector."""


class OneByOne:
    """A client that waits for each answer."""

    def __init__(self, ask: Callable[[str], Vector], texts: Sequence[str]) -> None:
        self._ask = ask
        self._texts = texts
        self.answer: list[Vector] = []

    def __call__(self) -> Numbers:
        took = []
        self.answer = []
        for text in self._texts:
            start = time.perf_counter()
            self.answer.append(self._ask(text))
            took.append(time.perf_counter() - start)
        return {"seconds": statistics.median(took)}


class OneList:
    """The pipeline, given all texts at once."""

    def __init__(self, both: Both, texts: Sequence[str], lengths: Sequence[int]) -> None:
        self._both = both
        self._texts = list(texts)
        self._tokens = sum(lengths)
        self.answer = both.pipeline(self._texts)

    def __call__(self) -> Numbers:
        start = time.perf_counter()
        self.answer = self._both.pipeline(self._texts)
        return {PACE: round(self._tokens / (time.perf_counter() - start), 1)}


@dataclass
class Tally:
    """What a client found."""

    waited: dict[str, list[float]] = field(default_factory=lambda: {"short": [], "long": []})
    tokens: int = 0
    differ: int = 0
    refused: int = 0
    lost: int = 0
    farthest: float = 0.0


class Many:
    """Many clients at once; what else they found than a pace goes into the facts.

    Args:
        both: whose server is asked, and whose pipeline knows what is right.
        texts, lengths: that are drawn, and their tokens.
        seconds: how long.
        facts: of the case.
    """

    def __init__(
        self, both: Both, texts: Sequence[str], lengths: Sequence[int], seconds: float, facts: dict[str, Any]
    ) -> None:
        self._server = both.server
        self._texts = texts
        self._lengths = lengths
        self._seconds = seconds
        self._facts = facts
        self._expected = both.pipeline(list(texts))
        self.answer = self._expected

    def __call__(self) -> Numbers:
        tallies: queue.Queue[Tally] = queue.Queue()
        start = time.perf_counter()
        end = start + self._seconds
        threads = [
            threading.Thread(target=lambda seed=seed: tallies.put(self._asked(seed, end))) for seed in range(CLIENTS)
        ]
        memory = [self._server.mib()]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(min(2.0, self._seconds / 10))
            memory.append(self._server.mib())
        took = time.perf_counter() - start
        found = [tallies.get(timeout=1) for _ in threads]
        self._facts.update(_facts(found, memory, took))
        return {PACE: round(sum(tally.tokens for tally in found) / took, 1)}

    def _asked(self, seed: int, end: float) -> Tally:
        draw, tally = random.Random(seed), Tally()
        with closing(self._server.connect()) as connection:
            while (start := time.perf_counter()) < end:
                place = draw.randrange(len(self._texts))
                try:
                    vector = ask(connection, self._texts[place])
                except Refused:
                    tally.refused += 1
                    time.sleep(0.05)
                    continue
                except (OSError, http.client.HTTPException):
                    tally.lost += 1
                    with suppress(OSError):
                        connection.close()
                    continue
                far = float(np.abs(vector - self._expected[place]).max())
                tally.farthest = max(tally.farthest, far)
                tally.differ += far > DIFFERENT
                tally.tokens += self._lengths[place]
                kind = "short" if self._lengths[place] <= SHORT else "long"
                tally.waited[kind].append(time.perf_counter() - start)
        return tally


def _facts(found: Sequence[Tally], memory: Sequence[float], took: float) -> dict[str, Any]:
    waited = {kind: [value for tally in found for value in tally.waited[kind]] for kind in ("short", "long")}
    every = [value for values in waited.values() for value in values]
    return {
        "seconds": round(took, 1),
        "requests": len(every),
        **{name: sum(getattr(tally, name) for tally in found) for name in ("lost", "refused", "differ")},
        "largest difference": float(f"{max(tally.farthest for tally in found):.2g}"),
        **{
            f"ms of {kind} requests, {name}": round(1e3 * float(np.quantile(values, at)))
            for kind, values in {"all": every, **waited}.items()
            for name, at in (("p50", 0.5), ("p99", 0.99))
            if values
        },
        "own MiB after a fifth": round(memory[len(memory) // 5]),
        "own MiB at most": round(max(memory)),
        "own MiB at the end": round(memory[-1]),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
    else:
        harness.main("serving", str(__doc__), cases)
