"""What the recipes reach: full runs of those in ``torch/`` on the data of this project, for docs/results.md.

    python examples/results.py                              # which runs there are, and which were run
    python examples/results.py run --work RUNS pos-en pos   # trains, and keeps the figures in results.json
    python examples/results.py twins --work RUNS pos-en     # a tenth of the steps in each of the three frameworks
    python examples/results.py page                         # writes the tables anew, from results.json

A run is a command that you could type yourself; the page has it above its table. What was interrupted goes on with the
same call. Beside each figure stands what can be had without a model, counted here from the same rows.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("XLMR_SHARED", "../shared")) / "data"
RESULTS, PAGE = HERE / "results.json", HERE.parent / "docs" / "results.md"
BEGIN, END = "<!-- figures begin: python examples/results.py page -->\n", "<!-- figures end -->\n"
COSTS = "costs.json"  # in the folder of the runs: seconds of a core that each took so far
BACKENDS = ("torch", "tf", "flax")
TENTH, SEEDS = 10, (0, 1, 2)

Row = dict[str, Any]
Rows = Sequence[Row]
Figures = dict[str, Any]  # "all", and "languages" by their codes


# ---- What can be had without a model


def usual_label(train: Rows, test: Rows) -> Figures:
    """How often the label that most rows have is right."""
    usual = Counter(row["label"] for row in train).most_common(1)[0][0]
    return by_language(test, lambda rows: mean(row["label"] == usual for row in rows))


def usual_tag(train: Rows, test: Rows) -> Figures:
    """How often the tag that most words have is right."""
    usual = Counter(tag for row in train for tag in row["tags"]).most_common(1)[0][0]
    return by_language(test, lambda rows: mean(tag == usual for row in rows for tag in row["tags"]))


def with_usual_tags(train: Rows, test: Rows) -> list[Row]:
    """Rows with the tag that each word has most often in its language, else in any, else that of most words."""
    counts: dict[Any, Counter[str]] = defaultdict(Counter)
    for row in train:
        for word, tag in zip(row["tokens"], row["tags"], strict=True):
            for key in ((row["lang"], word), word, None):
                counts[key][tag] += 1
    usual = {key: own.most_common(1)[0][0] for key, own in counts.items()}

    def tag_of(language: str, word: str) -> str:
        return usual.get((language, word)) or usual.get(word) or usual[None]

    return [{**row, "told": [tag_of(row["lang"], word) for word in row["tokens"]]} for row in test]


def tag_of_word(train: Rows, test: Rows) -> Figures:
    """How often the usual tag of a word is right."""

    def share(rows: Rows) -> float:
        pairs = (pair for row in rows for pair in zip(row["tags"], row["told"], strict=True))
        return mean(tag == told for tag, told in pairs)

    return by_language(with_usual_tags(train, test), share)


def names_of_words(train: Rows, test: Rows) -> Figures:
    """F1 of whole names, where each word has its usual tag."""
    from seqeval.metrics import f1_score

    def f1(rows: Rows) -> float:
        return float(f1_score([row["tags"] for row in rows], [row["told"] for row in rows], zero_division=0))

    return by_language(with_usual_tags(train, test), f1)


def chance(train: Rows, test: Rows) -> Figures:
    """How often a choice is right that is drawn."""
    return by_language(test, lambda rows: mean(1 / len(row["choices"]) for row in rows))


def mean(values: Iterable[float]) -> float:
    held = list(values)
    return sum(held) / len(held)


def by_language(rows: Rows, score: Callable[[Rows], float]) -> Figures:
    """A score of all rows, and of those of each language."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["lang"]].append(row)
    return {"all": score(rows), "languages": {code: score(own) for code, own in sorted(groups.items())}}


# ---- The runs


@dataclass(frozen=True)
class Full:
    """A full run.

    Attributes:
        script: of the recipe.
        options: on its command line.
        figure: that the page tells; by default the one by which the task is measured.
        data: the folder of its files, where there is something to compare with that needs no model.
        beside: what that is called, and what counts it.
        before: whether the model is looked at before training too.
        called: what its column is called, where a table has several runs.
    """

    script: str
    options: tuple[str, ...] = ()
    figure: str = ""
    data: str = ""
    beside: tuple[str, Callable[[Rows, Rows], Figures]] | None = None
    before: bool = False
    called: str = ""


ENGLISH = ("--languages", "en")
EN, ALL = "from English", "from all"
LABEL, TAG = ("usual label", usual_label), ("usual tag", usual_tag)
WORD, NAME = ("usual tag of each word", tag_of_word), ("usual tag of each word", names_of_words)
TAGGER, POS = "token_classification", ("--data", "pos")
# Those of which the page tells most for the least time stand first.
FULL = {
    "pos-en": Full(TAGGER, (*POS, *ENGLISH), "accuracy", "pos", TAG, called=EN),
    "topic-en": Full("text_classification", ENGLISH, "", "topic", LABEL, called=EN),
    "ner-en": Full(TAGGER, ENGLISH, "", "ner", NAME, called=EN),
    "mlm": Full("masked_language_modeling", before=True),
    "sts": Full("regression"),
    "nli-en": Full("nli", ENGLISH, "", "nli", LABEL, called=EN),
    "sentences": Full("sentence_embedding", before=True),
    "pos": Full(TAGGER, POS, "accuracy", "pos", WORD, called=ALL),
    "topic": Full("text_classification", (), "", "topic", LABEL, called=ALL),
    "ner": Full(TAGGER, (), "", "ner", NAME, called=ALL),
    "nli": Full("nli", (), "", "nli", LABEL, called=ALL),
    "qa-en": Full("question_answering", ENGLISH, called=EN),
    "qa": Full("question_answering", called=ALL),
    "causal": Full("causal_language_modeling", before=True),
    "mc": Full("multiple_choice", (), "", "mc", ("chance", chance)),
    "rerank": Full("rerank"),
}
SECTIONS = {
    "Parts of speech": ("pos-en", "pos"),
    "Names": ("ner-en", "ner"),
    "Topics": ("topic-en", "topic"),
    "Inference": ("nli-en", "nli"),
    "Questions": ("qa-en", "qa"),
    "Sentences": ("sentences",),
    "Likeness": ("sts",),
    "Masked words": ("mlm",),
    "Writing": ("causal",),
    "Choices": ("mc",),
    "Passages": ("rerank",),
}


def command(name: str, output: str = "RUN") -> list[str]:
    """What trains, behind ``python``."""
    full = FULL[name]
    return [f"examples/torch/{full.script}.py", *full.options, "--output", output]


def run(name: str, work: Path) -> dict[str, Any]:
    """Run a recipe to its end, or go on with it, and the figures that came of it."""
    full, folder = FULL[name], work / name
    started(work, name, [str(HERE / "torch" / f"{full.script}.py"), *full.options, "--output", str(folder)])
    kept = gathered(folder, full.figure)
    kept["minutes of a core"] = round(costs(work).get(name, 0.0) / 60, 1)
    if full.beside is not None:
        train, test = (rows_of(DATA / full.data / f"{part}.jsonl.gz") for part in ("train", "test"))
        languages = full.options[-1:] if full.options[-2:] == ENGLISH else ()
        found = full.beside[1]([row for row in train if not languages or row["lang"] in languages], test)
        kept["beside"] = {"name": full.beside[0], **rounded(found)}
    if full.before:
        # A step at a rate of nothing: the same recipe, the same rows, and the model as it was.
        still = ("--steps", "1", "--warmup", "0", "--learning-rate", "0", "--weight-decay", "0")
        by_recipe(work, f"{name}-before", folder, *still)
        before = gathered(work / f"{name}-before", full.figure)
        languages_before = {code: own[before["metric"]] for code, own in before["languages"].items()}
        figures = {"all": before["figures"][before["metric"]], "languages": languages_before}
        kept["beside"] = {"name": "before training", **figures}
    return kept


def twins(name: str, work: Path) -> dict[str, Any]:
    """A tenth of a run in each framework, in PyTorch with several seeds, which is the noise of it."""
    folder, figure = work / name, FULL[name].figure
    steps = max(1, gathered(folder, figure)["planned"] // TENTH)
    short = ("--steps", str(steps), "--evaluate-every", str(steps), "--checkpoint-every", str(steps))
    kept: dict[str, Any] = {"steps": steps}
    for backend in BACKENDS:
        values = []
        for seed in SEEDS if backend == "torch" else SEEDS[:1]:
            own = f"{name}-{backend}-{seed}"
            by_recipe(work, own, folder, *short, "--backend", backend, "--seed", str(seed))
            found = gathered(work / own, figure)
            values.append(found["figures"][found["metric"]])
        kept |= {"metric": found["metric"], backend: values}
    return kept


def by_recipe(work: Path, name: str, of: Path, *options: str) -> None:
    """Another run of the recipe in the folder of a run."""
    words = ["train", "--recipe", str(of / "recipe.toml"), "--output", str(work / name), *options]
    started(work, name, ["-m", "xlmr_core", *words])


def started(work: Path, name: str, words: Sequence[str]) -> None:
    """Run a command of Python, unless it was run, and count what it costs."""
    work.mkdir(parents=True, exist_ok=True)
    if is_over(work / name):
        return
    print(f"{name}: python {' '.join(words)}", flush=True)
    before = os.times()
    code = subprocess.run([sys.executable, *words], cwd=HERE.parent, check=False).returncode
    after = os.times()
    cost = after.children_user + after.children_system - before.children_user - before.children_system
    written(work / COSTS, {**costs(work), name: costs(work).get(name, 0.0) + cost})
    if not is_over(work / name):
        raise SystemExit(f"{name} ended with status {code} before its run was over; the same call goes on")


def costs(work: Path) -> dict[str, float]:
    """Seconds of a core by the name of a run."""
    path = work / COSTS
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def is_over(folder: Path) -> bool:
    """Whether a run came to its end."""
    return any("done" in line for line in log(folder))


def log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, without those of steps; a part of one at the end is none."""
    path, found = folder / "log.jsonl", []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        if not line.startswith('{"step": ') or '"evaluation": ' in line:
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return found


def gathered(folder: Path, figure: str = "") -> dict[str, Any]:
    """The figures of a run that is over: of its test, or where it has none of its best evaluation."""
    lines = log(folder)
    recipe, done = lines[0]["run"]["recipe"], lines[-1]
    looked = [line for line in lines if "evaluation" in line and line["step"] == done["best"]]
    source, name = (done, "test") if "test" in done else (looked[0], "evaluation")
    outcome = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    return {
        "metric": figure or outcome["metric"],
        "tested": name,
        "examples": source["examples"],
        "figures": rounded(source[name]),
        "languages": rounded(source["languages"]),
        "counts": source["counts"],
        "steps": outcome["steps"],
        "planned": recipe["steps"],
        "best": done["best"],
    }


def rounded(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {name: rounded(value) for name, value in values.items()}
    return round(values, 4) if isinstance(values, float) else values


def rows_of(path: Path) -> Rows:
    """The rows of a file of the data."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


# ---- The page


def tables(results: Mapping[str, Any]) -> str:
    """All that stands between the two marks of the page."""
    runs, parts = results.get("runs", {}), [overview(results)]
    for title, names in SECTIONS.items():
        there = [name for name in names if name in runs]
        if there:
            commands = "\n".join(f"python {' '.join(command(name))}" for name in there)
            parts.append(f"## {title}\n\n```sh\n{commands}\n```\n\n{section(there, runs)}")
    if results.get("twins"):
        parts.append(f"## A tenth of a run in three frameworks\n\n{table_of_twins(results['twins'])}")
    missing = [f"`{name}`" for name in FULL if name not in runs]
    if missing:
        parts.append(f"Not run yet: {', '.join(missing)}.")
    return "\n\n".join(parts)


def overview(results: Mapping[str, Any]) -> str:
    """A row for each run."""
    head = ["run", "figure", "all", "mean of languages", "English", "mean of the others", "beside it", "steps"]
    rows = []
    for name, own in sorted(results.get("runs", {}).items(), key=lambda pair: list(FULL).index(pair[0])):
        values = {code: figures[own["metric"]] for code, figures in own["languages"].items()}
        others = [value for code, value in values.items() if code != "en"]
        beside = own.get("beside")
        rows.append(
            [
                f"`{name}`",
                own["metric"],
                shown(own["figures"][own["metric"]]),
                shown(mean(values.values())) if len(values) > 1 else "",
                shown(values.get("en")),
                shown(mean(others)) if len(others) > 1 else "",
                f"{shown(beside['all'])} ({beside['name']})" if beside else "",
                f"{own['steps']} in {own['minutes of a core']:.0f} min",
            ]
        )
    return markdown([head, *rows])


def section(names: Sequence[str], runs: Mapping[str, Any]) -> str:
    """The table of a task: a row for each language, and columns for its runs and what stands beside them."""
    several = len(names) > 1
    columns: list[tuple[str, Mapping[str, Any]]] = []
    for name in names:
        own = runs[name]
        for figure in [own["metric"]] if several else own["figures"]:
            values = {code: figures[figure] for code, figures in own["languages"].items() if figure in figures}
            called = f"{figure} {FULL[name].called}" if several else figure
            columns.append((called, {"all": own["figures"][figure], "languages": values}))
        if "beside" in own and own["beside"]["name"] not in [called for called, _ in columns]:
            columns.append((own["beside"]["name"], own["beside"]))
    counts = {code: count for name in names for code, count in runs[name]["counts"].items()}
    summaries = [("all", [values["all"] for _, values in columns])]
    if len(counts) > 1:
        summaries.append(("mean", [mean_of(values, counts) for _, values in columns]))
    if len(counts) > 2 and "en" in counts and any(name.endswith("-en") for name in names):
        others = [code for code in counts if code != "en"]
        summaries.append(("mean without English", [mean_of(values, others) for _, values in columns]))
    total = runs[names[0]]["examples"]
    rows = [[f"**{name}**", str(total) if name == "all" else "", *map(shown, own)] for name, own in summaries]
    if len(counts) > 1:
        rows += [
            [code, str(counts[code]), *(shown(values["languages"].get(code)) for _, values in columns)]
            for code in sorted(counts)
        ]
    return markdown([["language", "examples", *(called for called, _ in columns)], *rows])


def mean_of(values: Mapping[str, Any], codes: Iterable[str]) -> float | None:
    held = [values["languages"][code] for code in codes if code in values["languages"]]
    return mean(held) if held else None


def table_of_twins(results: Mapping[str, Any]) -> str:
    head = ["run", "steps", "figure", *(f"PyTorch, seed {seed}" for seed in SEEDS), "Keras, seed 0", "Flax, seed 0"]
    rows = [
        [f"`{name}`", str(own["steps"]), own["metric"], *(shown(one) for backend in BACKENDS for one in own[backend])]
        for name, own in results.items()
    ]
    return markdown([head, *rows])


def shown(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table, numbers to the right."""
    head, *body = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---", *["---:"] * (len(head) - 1)], *body])


def with_tables(page: str, results: Mapping[str, Any]) -> str:
    """The page with the part between its marks written anew."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{tables(results)}\n\n{END}{rest.partition(END)[2]}"


# ---- The command


def kept() -> dict[str, Any]:
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"runs": {}, "twins": {}}


def written(path: Path, content: Any) -> None:
    """Write JSON, all or nothing."""
    partial = path.with_suffix(".tmp")
    partial.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command")
    for name, what in (("run", "train, and keep the figures"), ("twins", "a tenth of each in three frameworks")):
        own = commands.add_parser(name, help=what)
        own.add_argument("names", nargs="+", choices=[*FULL, "everything"], metavar="NAME", help=", ".join(FULL))
        own.add_argument("--work", type=Path, required=True, help="a folder for the runs, outside the repository")
    commands.add_parser("page", help="write the tables of docs/results.md anew")
    options = parser.parse_args()
    if options.command in ("run", "twins"):
        does, place = (run, "runs") if options.command == "run" else (twins, "twins")
        for name in FULL if "everything" in options.names else options.names:
            found = does(name, options.work.absolute())
            written(RESULTS, {**kept(), place: {**kept()[place], name: found}})
    elif options.command == "page":
        PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), kept()), encoding="utf-8")
    else:
        there = kept()["runs"]
        for name in FULL:
            state = f"{there[name]['steps']} steps" if name in there else "not run"
            print(f"{name:10} {state:12} python {' '.join(command(name, name))}")


if __name__ == "__main__":
    main()
