"""Write the figures of benchmarks/results into docs/benchmarks.md: ``python -m benchmarks.page``.

Everything between the two marks of the page comes from here, so that no figure is typed by hand; a test holds the page
to the files.
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import machine
from benchmarks.harness import case_text
from benchmarks.targets import TARGETS, WITHOUT, Reports

PAGE = machine.ROOT / "docs" / "benchmarks.md"
RESULTS = Path(__file__).parent / "results"
# Questions about PyTorch are in the first file; those about another backend begin with its name.
FILES = {"": "latest.json", "keras": "keras.json", "flax": "flax.json"}
# What else was measured on a processor that does not multiply bfloat16, by question: half precision is slow there, and
# int8 is what makes a model fast.
ELSEWHERE = "without-bfloat16.json"
# What `benchmarks.picture` draws of a question, once it was measured: the file, and what it shows.
PICTURES = {
    "generation": ("generation.svg", "What a token costs, by the number of new tokens"),
    "long_texts": ("lengths.svg", "Texts of each length: how many times as fast as transformers"),
}
BEGIN, END = "<!-- figures begin: python -m benchmarks.page -->\n", "<!-- figures end -->\n"


def kept(question: str) -> Path:
    """The file that holds the results of a question."""
    return RESULTS / FILES.get(question.partition("_")[0], FILES[""])


def latest() -> Reports:
    """The results that are kept, by question; none if there are none."""
    found: Reports = {}
    for name in (*FILES.values(), ELSEWHERE):
        if (RESULTS / name).exists():
            behind = WITHOUT if name == ELSEWHERE else ""
            reports = json.loads((RESULTS / name).read_text(encoding="utf-8"))
            found |= {question + behind: report for question, report in reports.items()}
    return found


def figures(reports: Reports) -> str:
    """The figures as Markdown: the targets, then every case of every question."""
    rows = [["figure", "wanted", "found (quartiles)", "met"], ["---"] * 4, *(target.row(reports) for target in TARGETS)]
    parts = ["## Figures that are asked for\n", "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"]
    for question, report in reports.items():
        parts += [f"## {question}\n", f"{machine.text(report['environment'])}; {rounds(report['cases'])}.\n"]
        parts += [case_text(case) for case in report["cases"]]
        file, shows = PICTURES.get(question, ("", ""))
        parts += [f"![{shows}]({file})\n"] if file and (PAGE.parent / file).exists() else []
    return "\n".join(parts)


def rounds(cases: list[dict[str, object]]) -> str:
    counts = sorted({case["rounds"] for case in cases})  # type: ignore[type-var]
    return f"medians of {' or '.join(map(str, counts))} rounds"


def with_figures(page: str, reports: Reports) -> str:
    """The page with the part between its marks written anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{figures(reports)}\n{END}{after}"


def main() -> None:
    PAGE.write_text(with_figures(PAGE.read_text(encoding="utf-8"), latest()), encoding="utf-8")


if __name__ == "__main__":
    main()
