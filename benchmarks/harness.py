"""The measuring itself: contestants take turns, medians count, the outcome is a table and a JSON file.

A *question* (one file of this package) has *cases* (a batch, a length); in a case, *contestants* do the same work. A
contestant's turn gives numbers, usually its wall time. Every round gives each contestant one turn, in an order drawn
afresh, so that whatever disturbs the machine disturbs all alike; ratios are taken within a round and their median
counts.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import machine

PEERS = ("transformers", "ctranslate2", "onnxruntime", "openvino", "sentence_transformers", "FlagEmbedding")
# How measured quantities are shown, by name; others are plain numbers.
UNITS: dict[str, Callable[[float], str]] = {
    "seconds": lambda value: f"{value:.2f} s" if value >= 10 else f"{1e3 * value:.4g} ms",
    "peak_mib": lambda value: f"{value:.0f} MiB",
    "mib": lambda value: f"{value:.0f} MiB",
}
# Threads that spin after their work (OpenMP, ONNX Runtime) have gone to sleep after this long.
PAUSE = 0.25

Numbers = dict[str, float]
Job = Callable[[], Numbers]
Result = dict[str, Any]


class Absent(Exception):
    """A contestant that cannot take part here; the message says why."""


class Timed:
    """A job whose wall time is measured.

    Args:
        work: one turn.
        answer: what to compare with the baseline's; by default what the latest turn returned.
    """

    def __init__(self, work: Callable[[], Any], answer: Any = None) -> None:
        self._work = work
        self._keep = answer is not None
        self.answer = answer

    def __call__(self) -> Numbers:
        start = time.perf_counter()
        answer = self._work()
        seconds = time.perf_counter() - start
        if not self._keep:
            self.answer = answer
        return {"seconds": seconds}


@dataclass(frozen=True)
class Options:
    """What every question can be asked with; the meaning of each stands in :func:`parser`."""

    rounds: int = 7
    warmup: int = 2
    threads: int = 2
    tiny: bool = False
    peers: tuple[str, ...] = PEERS
    only: tuple[str, ...] = ()
    work: Path = Path()
    seconds: float | None = None


@dataclass
class Case:
    """Contestants with the same work to do.

    Attributes:
        name: of the case.
        contestants: how to build each contestant's job, by name. Built once, just before the first round; may raise
            :class:`Absent`.
        baselines: names in order of preference; ratios and errors are against the first that takes part.
        facts: what a reader has to know of the work, such as the padding ratio.
        compare: the error of an answer against the baseline's, by name of the error. Answers are the jobs' attribute
            ``answer``.
        rounds, warmup: in place of the options', for what is counted instead of timed.
    """

    name: str
    contestants: Mapping[str, Callable[[], Job]]
    baselines: Sequence[str]
    facts: dict[str, Any] = field(default_factory=dict)
    compare: Callable[[Any, Any], Numbers] | None = None
    rounds: int | None = None
    warmup: int | None = None


# ---- Rounds


def take_turns(jobs: Mapping[str, Job], rounds: int, warmup: int, pause: float) -> dict[str, dict[str, list[float]]]:
    """Give every job a turn in every round, in an order of its own; warm-up rounds come first and are not kept.

    Returns:
        by job and measured quantity, one number a round.
    """
    samples: dict[str, dict[str, list[float]]] = {name: {} for name in jobs}
    for number in range(-warmup, rounds):
        order = list(jobs)
        random.Random(number).shuffle(order)
        for name in order:
            gc.collect()
            time.sleep(pause)
            for quantity, value in jobs[name]().items():
                if number >= 0:
                    samples[name].setdefault(quantity, []).append(value)
    return samples


def run_case(case: Case, options: Options) -> Result:
    """Build the contestants, measure them, sum up."""
    jobs: dict[str, Job] = {}
    absent: dict[str, str] = {}
    for name, build in case.contestants.items():
        if options.only and name not in options.only:
            continue
        print(f"  {case.name}: preparing {name}", file=sys.stderr, flush=True)
        try:
            jobs[name] = build()
        except Absent as reason:
            absent[name] = str(reason)
            print(f"  {case.name}: {name} is left out: {reason}", file=sys.stderr, flush=True)
    rounds = options.rounds if case.rounds is None else case.rounds
    warmup = options.warmup if case.warmup is None else case.warmup
    print(f"  {case.name}: {rounds} rounds after {warmup} to warm up", file=sys.stderr, flush=True)
    samples = take_turns(jobs, rounds, warmup, 0.0 if options.tiny else PAUSE)
    baseline = next((name for name in case.baselines if name in jobs), None)
    contestants = {name: summary(samples[name], samples.get(baseline or "")) for name in jobs}
    if case.compare is not None and baseline is not None:
        expected = jobs[baseline].answer  # type: ignore[attr-defined]
        for name, job in jobs.items():
            contestants[name]["error"] = case.compare(expected, job.answer)  # type: ignore[attr-defined]
    return {
        "name": case.name,
        "baseline": baseline,
        "rounds": rounds,
        "facts": case.facts,
        "contestants": contestants,
        "absent": absent,
    }


# ---- Statistics


def spread(values: Sequence[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    if len(values) == 1:
        return [values[0]] * 3
    return statistics.quantiles(values, n=4, method="inclusive")


def ratios(quantity: str, own: Sequence[float], other: Sequence[float]) -> list[float]:
    """Round by round: of seconds how many times as fast as the other, of anything else how many times as much."""
    if quantity == "seconds":
        return [theirs / ours for ours, theirs in zip(own, other, strict=True)]
    return [ours / theirs if theirs else float(ours != 0) for ours, theirs in zip(own, other, strict=True)]


def summary(samples: Mapping[str, list[float]], baseline: Mapping[str, list[float]] | None) -> Result:
    """A contestant's entry of the JSON file."""
    entry: Result = {
        "samples": dict(samples),
        "quartiles": {quantity: spread(values) for quantity, values in samples.items()},
    }
    if baseline is not None:
        both = [quantity for quantity in samples if quantity in baseline]
        entry["ratio"] = {key: spread(ratios(key, samples[key], baseline[key])) for key in both}
    return entry


# ---- Showing


def shown(quantity: str, value: float) -> str:
    """A measured value with its unit."""
    return UNITS[quantity](value) if quantity in UNITS else f"{value:g}"


def quartiles(values: Sequence[float] | None, show: Callable[[float], str]) -> str:
    """The median, with the quartiles around it where they differ."""
    if values is None:
        return ""
    low, middle, high = map(show, values)
    return middle if low == middle == high else f"{middle} ({low}–{high})"


def table(result: Result) -> str:
    """A case as a Markdown table."""
    baseline, rows = result["baseline"], result["contestants"]
    quantities = list(dict.fromkeys(key for row in rows.values() for key in row["samples"]))
    errors = list(dict.fromkeys(key for row in rows.values() for key in row.get("error", {})))
    head = ["contestant"]
    for quantity in quantities:
        head.append(f"{quantity.removesuffix('_mib')}: median (quartiles)")
        if baseline is not None:
            head.append(f"times as {'fast' if quantity == 'seconds' else 'much'} as {baseline}")
    lines = [head + errors, ["---"] * len(head + errors)]
    for name, row in rows.items():
        cells = [name]
        for quantity in quantities:
            cells.append(quartiles(row["quartiles"].get(quantity), functools.partial(shown, quantity)))
            if baseline is not None:
                cells.append(quartiles(row.get("ratio", {}).get(quantity), "{:.2f}".format))
        lines.append(cells + [f"{row['error'][key]:.2g}" if key in row.get("error", {}) else "" for key in errors])
    text = [f"| {' | '.join(cells)} |" for cells in lines] if rows else []
    text += [""] + [f"Left out: {name}: {reason}\\" for name, reason in result["absent"].items()]
    return "\n".join(text).strip().removesuffix("\\")


def case_text(result: Result) -> str:
    """A case with its heading and facts."""
    facts = ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in result["facts"].items()
    )
    return f"### {result['name']}\n\n{facts + chr(10) * 2 if facts else ''}{table(result)}\n"


# ---- Command line


def parser(description: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, help="measured rounds (7; 1 with --tiny)")
    made.add_argument("--warmup", type=int, help="rounds before them that are not counted (2; 1 with --tiny)")
    made.add_argument(
        "--threads",
        type=int,
        default=min(2, os.cpu_count() or 1),
        help="threads, and cores, of everybody (%(default)s)",
    )
    made.add_argument(
        "--tiny", action="store_true", help="a tiny model and one round: to see that it runs, not how fast"
    )
    made.add_argument(
        "--peer", nargs="*", choices=PEERS, default=list(PEERS), metavar="NAME", help=f"of {', '.join(PEERS)} (all)"
    )
    made.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="contestants by their name in the table (all)"
    )
    made.add_argument("--case", nargs="+", default=[], metavar="NAME", help="cases by a part of their name (all)")
    made.add_argument(
        "--work", type=Path, default=machine.cache_folder(), help="folder for models and conversions (%(default)s)"
    )
    made.add_argument("--seconds", type=float, help="how long what is measured by the clock runs (the question says)")
    made.add_argument("--json", type=Path, metavar="PATH", help="write the outcome there too")
    return made


def options_of(parsed: argparse.Namespace) -> Options:
    few = 1 if parsed.tiny else None
    return Options(
        rounds=parsed.rounds or few or 7,
        warmup=(few or 2) if parsed.warmup is None else parsed.warmup,
        threads=parsed.threads,
        tiny=parsed.tiny,
        peers=tuple(parsed.peer),
        only=tuple(parsed.only),
        work=parsed.work,
        seconds=parsed.seconds,
    )


def main(
    question: str, description: str, cases: Callable[[Options], Iterable[Case]], arguments: list[str] | None = None
) -> None:
    """The command line of a question.

    Args:
        question: name of the module.
        description: its docstring.
        cases: gives the cases one after the other, so that one can be let go before the next is built.
        arguments: in place of those of the process.
    """
    parsed = parser(description).parse_args(arguments)
    options = options_of(parsed)
    machine.limit_threads(options.threads)
    environment = machine.environment(options.threads)  # before the work: the load is that of others
    print(f"# {question}: {description.strip().splitlines()[0]}\n\n{machine.text(environment)}\n", flush=True)
    results = []
    try:
        for case in cases(options):
            if parsed.case and not any(part in case.name for part in parsed.case):
                continue
            results.append(run_case(case, options))
            print(case_text(results[-1]), flush=True)
    except Absent as reason:  # what all contestants need
        sys.exit(f"{question}: {reason}")
    report = {"question": question, "tiny": options.tiny, "environment": environment, "cases": results}
    if parsed.json is not None:
        write_json(parsed.json, report)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)
