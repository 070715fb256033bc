"""Ask all questions, or some, each in a process of its own: ``python -m benchmarks [QUESTION ...] [-- OPTIONS]``.

What stands after ``--`` goes to every question, such as ``--rounds 9``. Outcomes go into benchmarks/results, a file a
backend, beside those of questions that were not asked now; ``python -m benchmarks.page`` then writes
docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import page
from benchmarks.harness import write_json
from benchmarks.machine import ROOT

QUESTIONS = (
    *(
        "encoder",
        "near_limit",
        "training",
        "recipes",
        "fill_mask",
        "tasks",
        "vectors",
        "bge_m3",
        "long_texts",
        "generation",
    ),
    "start_up",
    *("tokenizing", "recompiles", "int8_files", "quantized", "quantized_xl", "conversion", "onnx", "serving"),
    *("flax_encoder", "flax_training", "flax_compiling", "flax_generation", "flax_start_up"),
    *("keras_encoder", "keras_training", "keras_retraces", "keras_generation", "keras_start_up"),
)


def main(arguments: list[str]) -> int:
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=f"of {', '.join(QUESTIONS)} (all)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="(in benchmarks/results, by backend)")
    parsed = parser.parse_args(arguments[:cut])
    unknown = set(parsed.questions) - set(QUESTIONS)
    if unknown:
        parser.error(f"no such question: {', '.join(sorted(unknown))}; there are {', '.join(QUESTIONS)}")
    failed = [
        name
        for name in parsed.questions or QUESTIONS
        if not ask(name, arguments[cut + 1 :], parsed.json or page.kept(name))
    ]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


def ask(question: str, options: list[str], kept: Path) -> bool:
    """Run a question and keep its outcome, unless it was only to see that it runs (``--tiny``)."""
    with tempfile.TemporaryDirectory(prefix="xlmr-benchmarks-") as folder:
        path = Path(folder, "report.json")
        command = [sys.executable, "-m", f"benchmarks.{question}", "--json", str(path), *options]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            return False
        report = json.loads(path.read_text(encoding="utf-8"))
    if not report["tiny"]:
        reports = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
        reports[question] = report
        write_json(kept, {name: reports[name] for name in QUESTIONS if name in reports})
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
