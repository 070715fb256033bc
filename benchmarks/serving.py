"""How much does a server cost, beside the pipeline that it serves?

One model of base size, served by a process of its own, and asked on the loopback by threads of another. ``offline`` is
the pipeline, given all texts as one list, on the same machine before the server runs.

- ``alone``: one request at a time beside one call of the pipeline at a time: the median of each, and the difference.
- ``many``: ``--clients`` clients at once, each with a connection that stays, texts of mixed lengths, for ``--minutes``;
  requests and tokens a second, beside the pipeline's; p50 and p99 of short and of long texts; every answer compared
  with the offline one; those that were lost; the server's memory at the beginning, at its highest, and at the end.
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
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from benchmarks import harness, machine
from benchmarks.harness import Options
from benchmarks.models import checkpoint
from benchmarks.tasks import passages
from xlmr_core.tokenization import AutoTokenizer

DIFFERENT = 1e-4  # of a number of two vectors for the same text
SHORT = 32  # tokens
ALONE = 40  # calls


def main(arguments: list[str] | None = None) -> None:
    """The command line of the question."""
    parser = harness.parser(__doc__ or "")
    parser.add_argument("--minutes", type=float, help="how long many clients ask (10; a second with --tiny)")
    parser.add_argument("--clients", type=int, default=64, help="who ask at once (%(default)s)")
    parser.add_argument("--backend", default="torch", help="what runs the model (%(default)s)")
    parsed = parser.parse_args(arguments)
    options = harness.options_of(parsed)
    machine.limit_threads(options.threads)
    environment = machine.environment(options.threads)
    print(f"# serving: {(__doc__ or '').splitlines()[0]}\n\n{machine.text(environment)}\n", flush=True)
    seconds = 60 * (parsed.minutes or (1 / 60 if options.tiny else 10))
    outcome = measured(options, parsed.backend, parsed.clients, seconds)
    for name, part in outcome.items():
        print(f"### {name}\n\n" + "\n".join(f"- {what}: {value}" for what, value in part.items()) + "\n", flush=True)
    if parsed.json is not None:
        report = {"question": "serving", "tiny": options.tiny, "environment": environment, "parts": outcome}
        harness.write_json(parsed.json, report)


def measured(options: Options, backend: str, clients: int, seconds: float) -> dict[str, dict[str, Any]]:
    """All parts, the offline ones first, as the pipeline would take the server's cores."""
    folder = checkpoint(options)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = passages(24 if options.tiny else 1500, tokenizer)
    lengths = [len(row) for row in tokenizer(texts)["input_ids"]]
    offline, call_seconds, all_seconds = _offline(folder, backend, texts)
    with running(folder, backend, options.threads) as server:
        alone = _alone(server, texts)
        many = _many(server, texts, lengths, offline, clients, seconds)
    pace = sum(lengths) / all_seconds
    many["of the pipeline's throughput"] = round(many["tokens a second"] / pace, 3)
    return {
        "alone": {
            "pipeline, median ms": round(1e3 * call_seconds, 3),
            "server, median ms": round(1e3 * alone, 3),
            "more, ms": round(1e3 * (alone - call_seconds), 3),
        },
        "offline": {"texts": len(texts), "tokens": sum(lengths), "tokens a second": round(pace, 1)},
        "many": many,
    }


# ---- The pipeline


def _offline(folder: Path, backend: str, texts: Sequence[str]) -> tuple[NDArray[Any], float, float]:
    """The vectors, the median seconds of a call with one text, and the seconds of all texts as one list."""
    from xlmr_core.backends import load_backend

    embed = load_backend(backend).pipeline("sentence-embedding", model=str(folder), pooling="mean", progress=False)
    embed(list(texts[:8]))
    vectors, whole = _timed(lambda: embed(list(texts)))
    single = [_timed(functools.partial(embed, text))[1] for text in texts[:ALONE] for _ in range(2)]
    return vectors, statistics.median(single), whole


def _timed(work: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    found = work()
    return found, time.perf_counter() - start


# ---- The server


@dataclass
class Server:
    """A running server: where it is, and how much memory it takes."""

    host: str
    port: int
    process: subprocess.Popen[str]

    def mib(self) -> float:
        """Of the process, resident."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGESIZE") / 2**20

    def connect(self) -> http.client.HTTPConnection:
        """A connection that stays."""
        return http.client.HTTPConnection(self.host, self.port, timeout=600)


def ask(connection: http.client.HTTPConnection, text: str) -> NDArray[Any] | int:
    """The vector of a text, or the status that says that there is none."""
    body = json.dumps({"input": text, "encoding_format": "base64"})
    connection.request("POST", "/v1/embeddings", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        return answer.status
    return np.frombuffer(base64.b64decode(json.loads(content)["data"][0]["embedding"]), "<f4")


@contextmanager
def running(folder: Path, backend: str, threads: int) -> Iterator[Server]:
    """A server of the model, in a process of its own, until the block ends."""
    command = [sys.executable, "-m", "benchmarks.serving", "--serve", str(folder), backend, str(threads)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        url = urlsplit(process.stdout.readline().strip())
        assert url.hostname and url.port, "the server did not start"
        yield Server(url.hostname, url.port, process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)


def _serve(folder: str, backend: str, threads: int) -> None:
    from xlmr_core.serving import Settings, load_model, serve

    machine.limit_threads(threads)
    model = load_model(folder, "sentence-embedding", name="model", backend=backend)
    serve([model], Settings(request_timeout=600.0), port=0, ready=lambda url: print(url, flush=True))


# ---- Who ask


def _alone(server: Server, texts: Sequence[str]) -> float:
    with closing(server.connect()) as connection:
        ask(connection, texts[0])
        return statistics.median(
            _timed(functools.partial(ask, connection, text))[1] for text in texts[:ALONE] for _ in range(2)
        )


@dataclass
class Tally:
    """What clients found, each for itself."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {"short": [], "long": []})
    tokens: int = 0
    wrong: int = 0
    refused: int = 0
    lost: int = 0
    farthest: float = 0.0


def _many(
    server: Server,
    texts: Sequence[str],
    lengths: Sequence[int],
    offline: NDArray[Any],
    clients: int,
    seconds: float,
) -> dict[str, Any]:
    tallies: queue.Queue[Tally] = queue.Queue()
    start = time.perf_counter()
    end = start + seconds

    def client(seed: int) -> None:
        draw, tally = random.Random(seed), Tally()
        with closing(server.connect()) as connection:
            while time.perf_counter() < end:
                place = draw.randrange(len(texts))
                try:
                    found, took = _timed(functools.partial(ask, connection, texts[place]))
                except (OSError, http.client.HTTPException):
                    tally.lost += 1
                    connection.close()
                    continue
                if isinstance(found, int):
                    tally.refused += 1
                    time.sleep(0.05)
                    continue
                far = float(np.abs(found - offline[place]).max())
                tally.farthest = max(tally.farthest, far)
                tally.wrong += far > DIFFERENT
                tally.tokens += lengths[place]
                tally.seconds["short" if lengths[place] <= SHORT else "long"].append(took)
        tallies.put(tally)

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(clients)]
    memory = [server.mib()]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(min(5.0, seconds / 4))
        memory.append(server.mib())
    took = time.perf_counter() - start
    found = [tallies.get() for _ in threads]
    every = {kind: [value for tally in found for value in tally.seconds[kind]] for kind in ("short", "long")}
    # The first part is left out: buffers grow until they fit the largest batches.
    settled = memory[len(memory) // 5 :]
    return {
        "clients": clients,
        "minutes": round(took / 60, 3),
        "requests": sum(map(len, every.values())),
        "requests a second": round(sum(map(len, every.values())) / took, 2),
        "tokens a second": round(sum(tally.tokens for tally in found) / took, 1),
        **{
            f"{kind}, {name} ms": value
            for kind, values in every.items()
            for name, value in _percentiles(values).items()
        },
        "lost": sum(tally.lost for tally in found),
        "refused": sum(tally.refused for tally in found),
        "of another text": sum(tally.wrong for tally in found),
        "largest difference of a number": float(f"{max(tally.farthest for tally in found):.3g}"),
        "memory at the beginning, MiB": round(memory[0]),
        "memory after a fifth, MiB": round(settled[0]),
        "highest memory, MiB": round(max(memory)),
        "memory at the end, MiB": round(memory[-1]),
    }


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return {name: round(1e3 * float(np.quantile(values, at)), 1) for name, at in (("p50", 0.5), ("p99", 0.99))}


def _cli(words: list[str]) -> None:
    if words[:1] == ["--serve"]:
        _serve(words[1], words[2], int(words[3]))
    else:
        main(words)


if __name__ == "__main__":
    _cli(sys.argv[1:])
