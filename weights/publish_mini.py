"""Make the checkpoint of a finished training run: `python -m weights.publish_mini` from the repository root.

Writes into `weights/xlmr-mini`: config, float16 weights, tokenizer files, `evaluation.json`, `SOURCES.md` and the model
card; and `weights/manifest.json` with the hash of every file. The sentencepiece file is there already
(`weights.make_vocab`).
"""

from __future__ import annotations

import argparse
import json
import math
import re
import string
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from weights import evaluate_mini, make_mini
from weights.maker import corpus, rows, training
from weights.maker.manifest import hashes, write, write_manifest
from xlmr_core.tokenization import XLMRobertaTokenizerFast

HERE = Path(__file__).parent
MODEL = make_mini.MODEL
TEMPLATE = HERE / "maker" / "card.md"
DROPOUT = 0.1  # XLM-R's, for those who fine-tune; it was trained with none


def export(run: Path, folder: Path) -> int:
    """Write config, weights and tokenizer files of a run that is over; the number of parameters comes back."""
    from xlmr_torch import XLMRobertaForMaskedLM

    model = XLMRobertaForMaskedLM.from_pretrained(run, dtype="float32")
    config = model.config
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = DROPOUT
    parameters = sum(parameter.numel() for parameter in model.parameters())
    model.half().save_pretrained(folder)
    tokenizer = XLMRobertaTokenizerFast(
        vocab_file=str(folder / "sentencepiece.bpe.model"), model_max_length=config.max_position_embeddings - 2
    )
    tokenizer.save_pretrained(folder)
    return parameters


def sources(data: Path, folders: Collection[str] = ("pretrain",)) -> str:
    """The page of attributions: the rows of the data folder's licence table that went into some of its folders."""
    table = re.findall(r"^\|.+\|$", (data / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in table]
    used = [row for row in cells if len(row) == 5 and {*folders} & {*re.split(r",\s*", row[3])}]
    lines = [f"| {repository} | {commit} | {licence} | {credit} |" for repository, commit, licence, _, credit in used]
    return "\n".join(
        [
            "# Sources of the training text",
            "",
            "Public repositories, the commit that was read, its licence, and whom to credit. Parts under CC BY-SA stay "
            "under it.",
            "",
            "| repository | commit | licence | attribution |",
            "| --- | --- | --- | --- |",
            *lines,
            "",
        ]
    )


def _language_table(figures: dict[str, Any], counts: dict[str, int]) -> str:
    enough = {code: row for code, row in figures["languages"].items() if row["masked"] >= figures["enough"]}
    head = (
        "| language | training characters | masked tokens | accuracy | baseline | loss | words | first | in five |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    body = [
        f"| {code} | {counts[code]:,} | {row['masked']} | {row['accuracy']:.3f} | {row['baseline']:.3f} | "
        f"{row['loss']:.2f} |"
        + (f" {row['words']} | {row['first']:.3f} | {row['in_five']:.3f} |" if row["words"] else " 0 | | |")
        for code, row in enough.items()
    ]
    return "\n".join([head, *body])


def _runs(runs: list[dict[str, Any]]) -> tuple[str, str]:
    """The commands that trained, and a table of how each run went."""
    commands: list[str] = []
    lines: list[str] = []
    works: list[str] = []
    option = ""
    for number, run in enumerate(runs):
        recipe = run["recipe"]
        after = f" --after {run.get('after', f'run{number}')}" if number else ""
        words = f" --words {recipe['words']:g}" if recipe.get("words") else ""
        rate = recipe["adam_rate"] / training.ADAM_RATE
        # Runs of the maker's former loop, which had a clock, say so in `minutes`.
        length = f"--steps {recipe['steps']}" if recipe["steps"] else f"--minutes {recipe['minutes']:g}"
        commands.append(
            f"python -m weights.make_mini --work run{number + 1}{after}"
            f" {length} --largest {run['largest']:g} --seed {recipe['seed']}"
            + words
            + (f" --rate {rate:g}" if rate != 1 else "")
        )
        lines.append(
            f"| {number + 1} | {run['steps']} | {run['minutes']} | {run['tokens'] / 1e6:.1f} M | "
            f"{100 * run['share_of_rows']:.0f} %"
            f" | {run['largest']:g} | {recipe['seed']} | {run['loss']} |"
        )
        if "after" in run:
            commands.insert(-1, f"python -m weights.publish_mini --work {' '.join(works)}")
            works, option = [], " --continued"
        works.append(f"run{number + 1}")
    commands.append(f"python -m weights.publish_mini{option} --work {' '.join(works)}")
    head = "| run | steps | minutes | tokens | of its rows | passes over the largest language | seed | last loss |"
    return "\n".join(commands), "\n".join([head, "| --- | --- | --- | --- | --- | --- | --- | --- |", *lines])


def card(
    runs: list[dict[str, Any]], figures: dict[str, Any], config: dict[str, Any], parameters: int, counts: dict[str, int]
) -> str:
    """The model card, with every figure taken from the runs and the evaluation."""
    recipe = runs[-1]["recipe"]
    commands, table = _runs(runs)
    languages = figures["languages"]
    read = corpus.passes_in_all(runs, counts)
    often = [f"{code} {times:.1f}" for code, times in read.items() if times > corpus.MOST_PASSES]
    few = [f"{code} ({row['masked']})" for code, row in languages.items() if row["masked"] < figures["enough"]]
    examples = [
        f"- `{text}` → {', '.join(f'`{piece}`' for piece in top)}" for text, top in figures["sentences"].items()
    ]
    return string.Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        codes=", ".join(f'"{code}"' for code in counts),
        parameters=f"{parameters / 1e6:.1f} M",
        languages=len(counts),
        megabytes=round((MODEL / "model.safetensors").stat().st_size / 1e6, 1),
        examples="\n".join(["What it answers (five most likely tokens; `▁` begins a word):", "", *examples]),
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        heads=config["num_attention_heads"],
        intermediate=config["intermediate_size"],
        vocabulary=f"{config['vocab_size']:,}".replace(",", " "),
        positions=config["max_position_embeddings"] - 2,
        characters=round(sum(counts.values()) / 1e6),
        power=corpus.SAMPLING_POWER,
        most=f"{corpus.MOST_PASSES:g}",
        least=f"{min(read.values()):.1f}",
        often=", ".join(often) or "none",
        commands=commands,
        runs=table,
        minutes=round(sum(run["minutes"] for run in runs)),
        cpus=runs[-1]["workers"],
        tokens=round(sum(run["tokens"] for run in runs) / 1e6, 1),
        masking=round(100 * recipe["masking"]),
        batch=recipe["part_tokens"] * recipe["parts"],
        muon=runs[0]["recipe"]["muon_rate"],
        adam=runs[0]["recipe"]["adam_rate"],
        warmup=round(100 * recipe["warmup"]),
        draws=figures["draws"],
        uniform=round(math.log(config["vocab_size"]), 2),
        accuracy=f"{figures['all']['accuracy']:.3f}",
        baseline=f"{figures['all']['baseline']:.3f}",
        all_loss=f"{figures['all']['loss']:.2f}",
        first=f"{figures['all']['first']:.3f}",
        in_five=f"{figures['all']['in_five']:.3f}",
        table=_language_table(figures, counts),
        enough=figures["enough"],
        few=", ".join(few) or "none",
        without=", ".join(code for code in counts if code not in languages) or "none",
    )


def history(work: Path) -> dict[str, Any]:
    """How a run went: its recipe, length, data and last loss (mean of the last twentieth of the run)."""
    text = (work / make_mini.RUN / "log.jsonl").read_text(encoding="utf-8")
    first, *log = [json.loads(line) for line in text.splitlines()]
    recipe, steps = first["run"]["recipe"], [line for line in log if "loss" in line]
    losses = [line["loss"] for line in steps]
    last = losses[-max(1, len(losses) // 20) :]
    settings = json.loads((work / rows.SETTINGS).read_text(encoding="utf-8"))
    packed = rows.read(work)
    tokens = training.tokens_read(packed, len(steps), recipe["seed"])
    return {
        "recipe": {
            "steps": recipe["steps"],
            "part_tokens": training.TOKENS,
            "parts": 1,
            "masking": recipe["masking_rate"],
            "words": recipe["whole_words"],
            "adam_rate": recipe["learning_rate"],
            "muon_rate": recipe["learning_rate"] * training.MUON_RATE / training.ADAM_RATE,
            "warmup": recipe["warmup"],
            "decay": recipe["weight_decay"],
            "bfloat16": recipe["precision"] == "bfloat16",
            "seed": recipe["seed"],
        },
        "steps": len(steps),
        "minutes": round(steps[-1]["seconds"] / 60, 1),
        "tokens": tokens,
        "share_of_rows": round(tokens / int(packed.starts[-1]), 3),
        "largest": settings["largest"],
        "workers": torch.get_num_threads(),
        "loss": round(float(np.mean(last)), 3),
        "torch": torch.__version__.split("+")[0],
        "text_manifest_sha256": settings["text"],
    }


def continued(published: list[dict[str, Any]], runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs behind the published checkpoint, then those that went on from it; published again, they stand there
    once.
    """
    runs = [{**runs[0], "after": f"weights/{MODEL.name}"}, *runs[1:]]
    before = published.index(runs[0]) if runs[0] in published else len(published)
    return [*published[:before], *runs]


def manifest(folder: Path, parameters: int, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Hash and size of every file of the checkpoint, and how it was trained."""
    return {folder.name: {"parameters": parameters, "training": runs, "files": hashes(folder)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=corpus.PRETRAIN, help="the folder pretrain of the data")
    parser.add_argument(
        "--work",
        type=Path,
        nargs="+",
        default=[make_mini.WORK],
        help="the folders of the training runs, the last one last",
    )
    parser.add_argument(
        "--continued",
        action="store_true",
        help="the first of these runs went on from the checkpoint that is published now",
    )
    options = parser.parse_args()
    runs = [history(work) for work in options.work]
    if options.continued:
        published = json.loads((HERE / "manifest.json").read_text(encoding="utf-8"))[MODEL.name]["training"]
        runs = continued(published, runs)
    parameters = export(options.work[-1] / make_mini.RUN, MODEL)
    figures = evaluate_mini.evaluate(MODEL, options.data)
    config = json.loads((MODEL / "config.json").read_text(encoding="utf-8"))
    write(MODEL / "evaluation.json", json.dumps(figures, ensure_ascii=False, indent=1) + "\n")
    write(MODEL / "SOURCES.md", sources(options.data.parent))
    write(MODEL / "README.md", card(runs, figures, config, parameters, corpus.characters(options.data)))
    write_manifest(HERE / "manifest.json", manifest(MODEL, parameters, runs))
    print(json.dumps({"all": figures["all"], "sentences": figures["sentences"]}, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
