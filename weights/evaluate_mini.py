"""Judge a checkpoint on held-out text: `python -m weights.evaluate_mini [folder]` writes `evaluation.json` into it.

Of every line of `pretrain/dev` 15 % of the tokens are replaced by `<mask>`, twice with different seeds; a guess counts
when the token is the first of 32 000. The baseline guesses the language's most frequent training token every time.

And as people ask: of every line one word that is a single token is replaced by a typed `<mask>`.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch

from weights.maker import corpus
from weights.maker.rows import BOS, EOS, LONGEST, PAD, SPECIAL, Hiding, encode, hiding_of
from xlmr_core.training.masking import as_typed
from xlmr_core.training.task import IGNORED

MODEL = Path(__file__).parent / "xlmr-mini"
RATE = 0.15
DRAWS = 2
ENOUGH = 100  # masked tokens of one draw from which on a language's accuracy tells something
BATCH = 32
SENTENCES = (
    "Plants create <mask> through a process known as photosynthesis.",
    "Bonjour, je suis un modèle <mask>.",
    "The capital of France is <mask>.",
    "Die Kinder spielen im <mask>.",
    "Мы живём в большом <mask>.",
    "Me gusta mucho <mask> libro.",
    "今天的<mask>气很好。",
)


def dev_rows(pretrain: Path, code: str, spm: sentencepiece.SentencePieceProcessor) -> list[list[int]]:
    """The held-out lines of one language as `<s> text </s>`, at most 512 tokens each."""
    path = pretrain / "dev" / f"{code}.txt.xz"
    lines = [line for line in corpus.lines(path) if line] if path.exists() else []
    return [[BOS, *ids[: LONGEST - 2], EOS] for ids in encode(spm, lines) if ids]


def most_frequent(pretrain: Path, code: str, spm: sentencepiece.SentencePieceProcessor) -> int:
    """The most frequent ordinary token of a language's training text."""
    counts: Counter[int] = Counter()
    for ids in encode(spm, corpus.lines(pretrain / "train" / f"{code}.txt.xz"), threads=2):
        counts.update(i for i in ids if i > SPECIAL)
    return counts.most_common(1)[0][0]


def hide(rows: list[list[int]], vocabulary: int, seed: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows with 15 % of the ordinary tokens of each replaced by `<mask>`, and the labels; both (B, S), padded."""
    rng = np.random.default_rng(seed)
    fed = np.full((len(rows), max(map(len, rows))), PAD, dtype=np.int64)
    labels = np.full_like(fed, IGNORED)
    for i, row in enumerate(rows):
        ids = np.array(row)
        ordinary = np.flatnonzero(ids > SPECIAL)
        size = max(1, round(RATE * len(ordinary))) if len(ordinary) else 0
        chosen = rng.choice(ordinary, size=size, replace=False)
        labels[i, chosen] = ids[chosen]
        fed[i, : len(ids)] = ids
        fed[i, chosen] = vocabulary - 1
    return fed, labels


def hide_a_word(rows: list[list[int]], hiding: Hiding, seed: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """The rows that have a word of one token, with one such replaced by a typed `<mask>`, and the labels; both (B, S),
    padded.
    """
    rng = np.random.default_rng(seed)
    words = hiding.words
    goes_on = words.letters & ~words.begins
    found: list[tuple[np.ndarray, int]] = []
    for row in rows:
        ids = np.array(row)
        places = np.flatnonzero(words.begins[ids[:-1]] & words.letters[ids[:-1]] & ~goes_on[ids[1:]])
        if len(places):
            found.append((ids, int(rng.choice(places))))
    fed = np.full((len(found), max((len(ids) for ids, _ in found), default=1)), PAD, dtype=np.int64)
    labels = np.full_like(fed, IGNORED)
    for i, (ids, place) in enumerate(found):
        fed[i, : len(ids)] = ids
        labels[i, place] = ids[place]
        fed[i, place] = hiding.vocabulary.mask
    return as_typed(fed, labels, hiding.vocabulary, hiding.opens, LONGEST) if found else (fed, labels)


@torch.inference_mode()
def judge_words(model: torch.nn.Module, rows: list[list[int]], hiding: Hiding, seed: int) -> dict[str, Any]:
    """Words hidden, and the shares of which the right one comes first and among the first five; no shares without
    words.
    """
    hidden = first = in_five = 0
    ordered = sorted(rows, key=len)
    for begin in range(0, len(ordered), BATCH):
        fed, labels = hide_a_word(ordered[begin : begin + BATCH], hiding, [seed, begin])
        if not len(fed):
            continue
        truth = torch.from_numpy(labels[labels != IGNORED])[:, None]
        best = model(
            input_ids=torch.from_numpy(fed),
            attention_mask=torch.from_numpy((fed != PAD).astype(np.int64)),
            labels=torch.from_numpy(labels),
            sparse_prediction=True,
        ).logits.topk(5)
        hidden += len(truth)
        first += int((best.indices[:, :1] == truth).sum())
        in_five += int((best.indices == truth).sum())
    return {"words": hidden} | (
        {"first": round(first / hidden, 4), "in_five": round(in_five / hidden, 4)} if hidden else {}
    )


@torch.inference_mode()
def judge(model: torch.nn.Module, rows: list[list[int]], vocabulary: int, baseline: int, seed: int) -> dict[str, Any]:
    """Masked tokens, accuracy, mean loss (nats) and the baseline's accuracy on these rows."""
    masked = hits = frequent = 0
    loss = 0.0
    ordered = sorted(rows, key=len)
    for draw in range(DRAWS):
        for begin in range(0, len(ordered), BATCH):
            fed, labels = hide(ordered[begin : begin + BATCH], vocabulary, [seed, draw, begin])
            truth = torch.from_numpy(labels[labels != IGNORED])
            logits = model(
                input_ids=torch.from_numpy(fed),
                attention_mask=torch.from_numpy((fed != PAD).astype(np.int64)),
                labels=torch.from_numpy(labels),
                sparse_prediction=True,
            ).logits.float()
            masked += len(truth)
            hits += int((logits.argmax(-1) == truth).sum())
            frequent += int((truth == baseline).sum())
            loss += float(torch.nn.functional.cross_entropy(logits, truth, reduction="sum"))
    return {
        "lines": len(rows),
        "masked": masked // DRAWS,
        "accuracy": round(hits / masked, 4),
        "baseline": round(frequent / masked, 4),
        "loss": round(loss / masked, 3),
    }


@torch.inference_mode()
def answers(model: torch.nn.Module, spm: sentencepiece.SentencePieceProcessor, text: str, top: int = 5) -> list[str]:
    """The most likely tokens at the one `<mask>` of a text, best first."""
    before, after = text.split("<mask>")
    vocabulary = spm.get_piece_size() + 2
    left, right = encode(spm, [before.rstrip(), after])
    ids = torch.tensor([[BOS, *left, vocabulary - 1, *right, EOS]])
    labels = torch.where(ids == vocabulary - 1, 4, IGNORED)
    logits = model(input_ids=ids, labels=labels, sparse_prediction=True).logits[0]
    return [spm.id_to_piece(int(i) - 1) for i in logits.topk(top).indices if i > SPECIAL]


def evaluate(folder: Path, pretrain: Path, seed: int = 0) -> dict[str, Any]:
    """All figures of the checkpoint in `folder`: per language, over all, and its answers to a few sentences."""
    from xlmr_torch import XLMRobertaForMaskedLM

    model = XLMRobertaForMaskedLM.from_pretrained(folder, dtype="float32").eval()
    spm = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sentencepiece.bpe.model"))
    hiding = hiding_of(folder / "sentencepiece.bpe.model")
    languages: dict[str, Any] = {}
    for code in corpus.characters(pretrain):
        rows = dev_rows(pretrain, code, spm)
        if rows:
            frequent = most_frequent(pretrain, code, spm)
            languages[code] = judge(model, rows, int(model.config.vocab_size), frequent, seed)
            languages[code] |= judge_words(model, rows, hiding, seed)
    total = {counted: sum(figures[counted] for figures in languages.values()) for counted in ("masked", "words")}
    over_all = {
        key: round(sum(figures.get(key, 0) * figures[counted] for figures in languages.values()) / total[counted], 4)
        for counted, keys in (("masked", ("accuracy", "baseline", "loss")), ("words", ("first", "in_five")))
        for key in keys
    }
    return {
        "seed": seed,
        "rate": RATE,
        "draws": DRAWS,
        "enough": ENOUGH,
        "all": {**total, **over_all},
        "languages": languages,
        "sentences": {text: answers(model, spm, text) for text in SENTENCES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=MODEL)
    parser.add_argument("--data", type=Path, default=corpus.PRETRAIN, help="the folder pretrain of the data")
    options = parser.parse_args()
    figures = evaluate(options.folder, options.data)
    target = options.folder / "evaluation.json"
    target.write_text(json.dumps(figures, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({"all": figures["all"], "sentences": figures["sentences"]}, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
