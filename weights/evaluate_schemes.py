"""What four and eight bits cost a checkpoint: `python -m weights.evaluate_schemes [folder]` prints a table.

For each scheme: how far the last hidden states of held-out lines are off (the root mean square of the difference to
float32, over that of the states), and the share of masked tokens that are guessed right in each language, as
`evaluate_mini` masks and counts them, in per cent. The kinds of bitsandbytes are the library's own layers with the
same codes; they round no activations, as bitsandbytes does with 8 bits.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch

from weights.evaluate_mini import MODEL, dev_rows, judge
from weights.maker import corpus
from weights.maker.rows import PAD
from xlmr_core.quantization import find_scheme, scheme_with

SCHEMES = ("int8", "int4", "nf4", "fp4", "bitsandbytes-nf4", "bitsandbytes-fp4", "bitsandbytes-int8")
WIDE = ", table wide"  # behind a scheme: the table of words, and what is tied to it, stay as they are
LANGUAGES = ("ar", "de", "en", "fi", "fr", "hi", "ja", "ru", "sw", "zh")
LINES = 60  # of each language that are masked
SEEN = 8  # of these, whose hidden states are compared


def model_of(folder: Path, scheme: str) -> Any:
    """The masked language model of a folder, its weights stored in a scheme (empty: as they are)."""
    from xlmr_torch import AutoModelForMaskedLM, quantize

    model = AutoModelForMaskedLM.from_pretrained(folder, dtype="float32").eval()
    if not scheme:
        return model
    name = scheme.removesuffix(WIDE)
    return quantize(model, scheme_with(name, ["embeddings"]) if name != scheme else find_scheme(name))


@torch.inference_mode()
def states(model: Any, rows: Sequence[list[int]]) -> np.ndarray:
    """The last hidden states of rows of ids, of all their tokens: float64 (T, D)."""
    fed = np.full((len(rows), max(map(len, rows))), PAD, dtype=np.int64)
    for i, row in enumerate(rows):
        fed[i, : len(row)] = row
    mask = fed != PAD
    found = model.base_model(input_ids=torch.from_numpy(fed), attention_mask=torch.from_numpy(mask.astype(np.int64)))
    return found.last_hidden_state.float().numpy()[mask].astype(np.float64)


def figures(folder: Path, pretrain: Path, schemes: Sequence[str], lines: int = LINES) -> dict[str, dict[str, float]]:
    """By scheme (float32 is the empty one): `error`, and the share of right guesses by language."""
    spm = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sentencepiece.bpe.model"))
    rows = {code: dev_rows(pretrain, code, spm)[:lines] for code in LANGUAGES}
    seen = [row for some in rows.values() for row in some[:SEEN]]
    found: dict[str, dict[str, float]] = {}
    exact: np.ndarray | None = None
    for scheme in ("", *schemes):
        model = model_of(folder, scheme)
        mine = states(model, seen)
        exact = mine if exact is None else exact
        found[scheme] = {"error": float(np.linalg.norm(mine - exact) / np.linalg.norm(exact))}
        for code, some in rows.items():
            found[scheme][code] = judge(model, some, int(model.config.vocab_size), -1, 0)["accuracy"]
    return found


def table(found: dict[str, dict[str, float]]) -> str:
    """The figures as a table in Markdown, a column a scheme."""
    lines = ["| | " + " | ".join(scheme or "float32" for scheme in found) + " |", "| --- " * (len(found) + 1) + "|"]
    lines.append("| hidden states | " + " | ".join(f"{row['error']:.3f}" for row in found.values()) + " |")
    lines += [
        f"| {code} | " + " | ".join(f"{100 * row[code]:.1f}" for row in found.values()) + " |" for code in LANGUAGES
    ]
    means = (100 * np.mean([row[code] for code in LANGUAGES]) for row in found.values())
    return "\n".join([*lines, "| mean | " + " | ".join(f"{mean:.1f}" for mean in means) + " |"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=MODEL)
    parser.add_argument("--data", type=Path, default=corpus.PRETRAIN, help="the folder pretrain of the data")
    parser.add_argument("--lines", type=int, default=LINES, help="held-out lines of each language")
    parser.add_argument(
        "--scheme",
        action="append",
        metavar="NAME",
        help=f"one of {', '.join(SCHEMES)}, with '{WIDE}' behind one of ours where its table is to stay as it is; "
        "may be repeated (default: all of them, and nf4, int4 and fp4 with a wide table)",
    )
    options = parser.parse_args()
    wide = [name + WIDE for name in ("int4", "nf4", "fp4")]
    print(table(figures(options.folder, options.data, options.scheme or (*SCHEMES, *wide), options.lines)))


if __name__ == "__main__":
    main()
