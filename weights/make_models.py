"""Make ready-made models of `xlmr-mini`: `python -m weights.make_models langid --work FOLDER` from the repository root.

Each is trained by its recipe (`recipes/*.toml`) in the folder `--work`, which lies outside the repository; interrupt
it, and the same command goes on. Then it is cut to an adapter, tested on held-out rows beside a simple baseline, and
written into `--into` with its card: by default here, where the package finds it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from weights.maker import bags, corpus, delta
from weights.maker.manifest import hashes, write, write_manifest
from weights.maker.ready import READY, Ready, place_of, recipe_of
from weights.publish_mini import sources
from xlmr_core import hub
from xlmr_core.training.batches import Evaluation
from xlmr_core.training.examples import read_examples
from xlmr_core.training.features import Features
from xlmr_core.training.judging import Judge
from xlmr_core.training.metrics import Measured
from xlmr_core.training.reports import Outcome, in_markdown
from xlmr_core.training.run import Run
from xlmr_torch import auto
from xlmr_torch.objectives import answers
from xlmr_torch.training import model_for, train

HERE = Path(__file__).parent
BASE = hub.DEFAULT_MODEL
RANK = 96  # singular values that are kept of what training changed in a matrix
MANY = 20  # labels, of which the card has the figures in place of a list
DROPOUT = 0.1  # XLM-R's, for those who train on
# What a card says of models that start from more than the built-in one.
BEGUN = (
    "Before any training of layers vectors of pieces were learned in a minute or two (`../maker/pieces.py`), which "
    "the\nencoder has in coordinates of their own (`../maker/channels.py`). Then all but the embeddings was trained, "
)
# What makes a sentence encoder of an encoder, as the run wrote it.
SENTENCE_FILES = (
    *("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"),
    *("1_Pooling", "2_Normalize"),
)


def trained(ready: Ready, data: Path, work: Path, steps: int = 0) -> tuple[Run, Outcome]:
    """The run of a model, from where it is to its end, and what came of it.

    Args:
        ready: which.
        data: the folder of the data.
        work: for the run.
        steps: a first try of so many steps on few rows; 0: all.
    """
    work.mkdir(parents=True, exist_ok=True)
    ready.prepare(data, work, work / ready.start)
    recipe = recipe_of(ready, data, work).replace(test=())  # what is tested is what is shipped
    if steps:
        recipe = recipe.first_try(steps)
    with Run.of(recipe, work / ready.name) as run:
        outcome = train(model_for(run), run)
    if outcome is None:
        raise SystemExit("stopped; the same command goes on")
    return run, outcome


def publish(ready: Ready, run: Run, outcome: Outcome, data: Path, work: Path, into: Path, rank: int) -> None:
    """Write the model of a run that is over, with everything that stands beside it.

    Args:
        ready: which.
        run, outcome: of it.
        data, work: where the files of its tests are.
        into: the folder that gets the folder of the model.
        rank: of its adapter.
    """
    folder = into / f"{BASE}-{ready.name}"
    lost = write_model(ready, run, folder, rank)
    judge, (called, fit) = Judge(run.recipe, run.task), bags.BASELINES[ready.baseline]
    model = predicting(run, folder)
    after = None if run.evaluation is None else judge.measured(run.evaluation, model).figures
    beside = fit(run)
    figures = {}
    for title, file in ready.tests.items():
        test = evaluation_of(run, place_of(file, data, work))
        found = judge.measured(test, model)
        sides = {"model": _figures(found), "baseline": _figures(beside(test))}
        figures[title] = {"examples": found.examples, "counts": dict(found.counts), **sides}
        print(f"{folder.name}, {title}: {sides['model']['all']}; {called}: {sides['baseline']['all']}")
    evaluation = {
        "metric": run.recipe.metric or run.task.metric,
        "baseline": called,
        "tests": figures,
        "before the cut, on eval": None if outcome.evaluation is None else dict(outcome.evaluation.all),
        "after the cut, on eval": after,
        "left away by the cut": round(lost, 4),
        "steps": outcome.steps,
        "minutes": round(outcome.seconds / 60, 1),
    }
    write(folder / "evaluation.json", json.dumps(evaluation, ensure_ascii=False, indent=1) + "\n")
    write(folder / "SOURCES.md", sources(data, ready.data))
    write(folder / "README.md", card(ready, run, evaluation, folder, rank))
    base = hashes(hub.resolve(BASE))["model.safetensors"]["sha256"]
    entry = {"made of": {BASE: base}, "rank": rank, "files": hashes(folder)}
    write_manifest(into / "manifest.json", {folder.name: entry})


def write_model(ready: Ready, run: Run, folder: Path, rank: int) -> float:
    """Write the configuration and the adapter of a run that is over; what the cut left away comes back."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    adapter = delta.adapter_of(delta.values_of(hub.resolve(BASE)), delta.values_of(run.folder), rank)
    delta.write(adapter, folder, BASE, ready.peft)
    config = json.loads((run.folder / "config.json").read_text(encoding="utf-8"))
    config |= {"hidden_dropout_prob": DROPOUT, "attention_probs_dropout_prob": DROPOUT}
    write(folder / "config.json", json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True) + "\n")
    for name in SENTENCE_FILES if ready.task == "sentence-similarity" else ():
        if (run.folder / name).is_dir():
            shutil.copytree(run.folder / name, folder / name)
        elif (run.folder / name).is_file():
            shutil.copy(run.folder / name, folder / name)
    return adapter.lost


def evaluation_of(run: Run, file: Path) -> Evaluation:
    """The rows of a file, as the task of a run is evaluated on them."""
    examples = read_examples(type(run.task), [file], run.recipe.columns, problem=run.task.problem)
    return Evaluation(run.task, Features(run.task, examples), run.recipe)


def _figures(measured: Measured) -> dict[str, Any]:
    def rounded(figures: Any) -> dict[str, float]:
        return {name: round(value, 4) for name, value in figures.items()}

    languages = {language: rounded(own) for language, own in measured.languages.items()}
    mean = {
        name: round(sum(own[name] for own in measured.languages.values()) / len(measured.languages), 4)
        for name in next(iter(measured.languages.values()))
    }
    return {"all": rounded(measured.figures), "mean": mean, "languages": languages}


def predicting(run: Run, model: str | Path) -> Callable[[Any], dict[str, Any]]:
    """What predicts for an evaluation: a model by its name or folder."""
    kind = getattr(auto, run.task.auto)
    bare = {"add_pooling_layer": False} if kind is auto.AutoModel else {}
    loaded = kind.from_pretrained(model, **bare).eval()

    def predict(batch: Any) -> dict[str, Any]:
        with torch.no_grad():
            found = answers(loaded, run.task, batch, torch.device("cpu"))
        return {name: value.float().numpy() for name, value in found.items()}

    return predict


def card(ready: Ready, run: Run, evaluation: dict[str, Any], folder: Path, rank: int) -> str:
    """The model card."""
    languages = sorted({code for test in evaluation["tests"].values() for code in test["counts"]})
    size = sum(path.stat().st_size for path in (folder / delta.WEIGHTS, folder / "config.json"))
    labels = list(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("id2label", {}).values())
    return string.Template((HERE / "maker" / "ready.md").read_text(encoding="utf-8")).substitute(
        pipeline=ready.pipeline,
        base=BASE,
        codes=", ".join(f'"{code}"' for code in languages),
        name=folder.name,
        what=ready.what,
        megabytes=round(size / 1e6, 1),
        task=ready.task,
        line=ready.line,
        call=ready.call,
        baseline=evaluation["baseline"],
        tables="\n\n".join(_section(title, evaluation["metric"], test) for title, test in evaluation["tests"].items()),
        first=BEGUN if ready.start else "All but the embeddings was trained, ",
        steps=evaluation["steps"],
        rows=run.recipe.batch_size,
        minutes=evaluation["minutes"],
        recipe=ready.name,
        rank=rank,
        lost=round(100 * evaluation["left away by the cut"], 1),
        limits="\n".join(f"- {limit}" for limit in ready.limits),
        labels=f"\n\nIts labels: {', '.join(f'`{label}`' for label in labels)}." if 0 < len(labels) < MANY else "",
    )


def _section(title: str, metric: str, test: dict[str, Any]) -> str:
    names = [metric, *(name for name in test["model"]["all"] if name not in (metric, "loss"))]
    model, baseline = test["model"], test["baseline"]

    def row(language: str, count: Any, one: dict[str, float], other: dict[str, float]) -> Sequence[str]:
        return [language, str(count), *(f"{side[name]:.3f}" for name in names for side in (one, other))]

    rows = [
        ["language", "examples", *(text for name in names for text in (name, "beside it"))],
        row("**all**", test["examples"], model["all"], baseline["all"]),
        row("mean of the languages", "", model["mean"], baseline["mean"]),
        *(
            row(code, count, model["languages"][code], baseline["languages"][code])
            for code, count in test["counts"].items()
        ),
    ]
    return f"On the test rows of {title}:\n\n{in_markdown(rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=READY, metavar="NAME", help=", ".join(READY))
    parser.add_argument("--work", type=Path, required=True, help="a folder for the runs, outside the repository")
    parser.add_argument("--data", type=Path, default=corpus.SHARED / "data", help="the folder of the data")
    parser.add_argument("--into", type=Path, default=HERE, help="the folder that gets the folders of the models")
    parser.add_argument("--rank", type=int, default=RANK, help="of the adapters")
    parser.add_argument("--steps", type=int, default=0, help="a first try: so many steps on few rows")
    parser.add_argument("--train", action="store_true", help="train alone, and write nothing")
    options = parser.parse_args()
    for name in options.names:
        ready = READY[name]
        run, outcome = trained(ready, options.data, options.work, options.steps)
        if not options.train:
            publish(ready, run, outcome, options.data, options.work, options.into, options.rank)


if __name__ == "__main__":
    main()
