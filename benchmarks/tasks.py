"""How fast are the pipelines of tasks on the work that they are used for?

The same folders for both: vectors of 1 500 sentences of natural lengths, by transformers 32 at a time and by us as we
choose; 20 labels for each of 20 texts; 8 questions about one long context. transformers 5 has no pipeline for questions
any more: its model runs as that of version 4 did, a question at a time and a window at a time, on the tokenizer's own
windows.

"means" are the vectors as tensors, averaged. Errors: the largest difference of the mean vectors, of the scores of
labels, and of the best answers' scores, relative to the score.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import harness, peers, texts
from benchmarks.fill_mask import LIBRARIES
from benchmarks.harness import PEERS, Case, Numbers, Options, Timed
from benchmarks.models import checkpoint, once, place_of
from xlmr_core.tokenization import AutoTokenizer

BATCH = 32
LABELS = (
    *("politics", "sport", "music", "film", "food", "travel", "health", "science", "history", "religion"),
    *("money", "work", "school", "weather", "nature", "art", "war", "law", "family", "technology"),
)
QUESTIONS = (
    *("Who feeds the gulls?", "When do the boats come home?", "What does the baker open?", "Where are the buyers?"),
    *("Who crosses the square?", "Why are the streets empty?", "What has the town put up?", "What is disputed?"),
)
# As the pipeline of version 4 cuts a context, and how long it lets an answer be.
WINDOW, OVERLAP, LONGEST_ANSWER = 384, 128, 15


def cases(options: Options) -> Iterator[Case]:
    count, contexts = (24, 4) if options.tiny else (1500, 24)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint(options))
    sentences = passages(count, tokenizer)
    counts = [len(row) for row in tokenizer(sentences)["input_ids"]]
    vectors = functools.partial(load, options, "feature-extraction", "")
    yield Case(
        "vectors of natural sentences",
        {
            "transformers": functools.partial(_job, vectors, "transformers", sentences, batch_size=BATCH),
            "xlmr": functools.partial(_job, vectors, "xlmr", sentences),
            "xlmr, means": lambda: Timed(functools.partial(means_of, vectors("xlmr"), sentences)),
        },
        tuple(LIBRARIES),
        facts={"sentences": count, "tokens": sum(counts), "batch": BATCH},
        compare=functools.partial(difference_of_means, counts),
        warmup=0,  # minutes a turn
    )
    few = passages(4 if options.tiny else 20, tokenizer, seed=1)
    judge = functools.partial(load, options, "zero-shot-classification", "SequenceClassification")
    yield Case(
        "20 labels for each text",
        {
            **{name: functools.partial(_job, judge, name, few, candidate_labels=LABELS) for name in LIBRARIES},
            f"transformers, {BATCH} at a time": functools.partial(
                _job, judge, "transformers", few, candidate_labels=LABELS, batch_size=BATCH
            ),
        },
        tuple(LIBRARIES),
        facts={"texts": len(few), "labels": len(LABELS)},
        compare=difference_of_labels,
    )
    context = " ".join([texts.PASSAGE] * contexts)
    yield Case(
        "8 questions about one context",
        {
            "transformers": functools.partial(asked_by_hand, options, context),
            "xlmr": functools.partial(asked, options, context),
        },
        tuple(LIBRARIES),
        facts={"questions": len(QUESTIONS), "tokens": len(tokenizer(context)["input_ids"])},
        compare=difference_of_answers,
    )


# ---- The work


def passages(count: int, tokenizer: Any, seed: int = 0) -> list[str]:
    """Parts of a passage, of natural lengths in tokens, as near as whole words come to them."""
    rng = np.random.default_rng(seed)
    words = texts.PASSAGE.split()
    tokens_a_word = len(tokenizer.tokenize(texts.PASSAGE)) / len(words)
    lengths = np.maximum(1, (texts.natural_lengths(count, rng) - 2) / tokens_a_word).round().astype(int)
    starts = rng.integers(0, len(words), count)
    endless = words * (2 + int(lengths.max()) // len(words))
    return [" ".join(endless[start : start + length]) for start, length in zip(starts, lengths, strict=True)]


def with_head(options: Options, head: str) -> Path:
    """The folder of a model with a head of random weights, and the labels of one that was trained for it."""

    def make(folder: Path) -> None:
        from xlmr_torch import auto

        source = checkpoint(options)
        labels = {"id2label": {0: "contradiction", 1: "neutral", 2: "entailment"}} if head[0] == "S" else {}
        config = importlib.import_module("xlmr_core").AutoConfig.from_pretrained(source, **labels)
        model = getattr(auto, f"AutoModelFor{head}").from_config(config)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(source).save_pretrained(folder)

    return once(place_of(f"checkpoint-{head}", options), make)


@functools.cache
def load(options: Options, task: str, head: str, name: str) -> Any:
    folder = with_head(options, head) if head else checkpoint(options)
    if name in PEERS:
        peers.peer(name, options)
    return importlib.import_module(LIBRARIES[name]).pipeline(task, model=str(folder))


def _job(loaded: Callable[[str], Any], name: str, inputs: list[str], **how: Any) -> Timed:
    answer = loaded(name)
    answer(inputs[:2], **how)  # what is done once only
    return Timed(functools.partial(answer, inputs, **how))


def means_of(extract: Any, sentences: list[str]) -> NDArray[np.float32]:
    """A vector for each sentence: the mean of those of its tokens."""
    found = extract(sentences, return_tensors=True)
    return np.stack([vectors[0].numpy().mean(axis=0) for vectors in found])


def asked(options: Options, context: str) -> Timed:
    answer = load(options, "question-answering", "QuestionAnswering", "xlmr")
    how = {
        "max_seq_len": WINDOW,
        "doc_stride": OVERLAP,
        "max_answer_len": LONGEST_ANSWER,
        "align_to_words": False,
        "equal_answers": "best",
    }
    return Timed(lambda: [found["score"] for found in answer(question=list(QUESTIONS), context=context, **how)])


def asked_by_hand(options: Options, context: str) -> Timed:
    """The model of transformers, a question and a window at a time; the best score of each question."""
    import torch

    hf = peers.peer("transformers", options)
    folder = with_head(options, "QuestionAnswering")
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    model = hf.AutoModelForQuestionAnswering.from_pretrained(folder).eval()

    @torch.inference_mode()
    def score(question: str) -> float:
        windows = tokenizer(
            *(question, context),
            truncation="only_second",
            max_length=WINDOW,
            stride=OVERLAP,
            return_overflowing_tokens=True,
        )
        best = 0.0
        for number, ids in enumerate(windows["input_ids"]):
            output = model(input_ids=torch.tensor([ids]))
            in_context = np.array([part == 1 for part in windows.sequence_ids(number)])
            start_S, end_S = (
                _probabilities(logits[0].numpy(), in_context) for logits in (output.start_logits, output.end_logits)
            )
            spans_SS = np.tril(np.triu(np.outer(start_S, end_S)), LONGEST_ANSWER - 1)
            best = max(best, float(spans_SS.max()))
        return best

    return Timed(lambda: [score(question) for question in QUESTIONS])


def _probabilities(logits_S: NDArray[np.float32], in_context: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Over the context and ``<s>``, which takes its share and is no answer."""
    kept = in_context.copy()
    kept[0] = True
    scaled = np.where(kept, np.exp(logits_S - logits_S[kept].max()), 0)
    scaled /= scaled.sum()
    scaled[0] = 0
    return scaled


# ---- Whether the answers are the same


def difference_of_means(counts: list[int], expected: Any, found: Any) -> Numbers:
    """Of texts, whose vectors may be followed by those of padding."""
    one, other = (_means(answer, counts) for answer in (expected, found))
    return {"error of the means": float(np.abs(one - other).max())}


def _means(answer: Any, counts: list[int]) -> NDArray[np.float32]:
    if isinstance(answer, np.ndarray):
        return answer
    return np.stack([np.mean(vectors[0][:count], axis=0) for vectors, count in zip(answer, counts, strict=True)])


def difference_of_labels(expected: Any, found: Any) -> Numbers:
    one, other = (
        np.array([[score for _, score in sorted(zip(row["labels"], row["scores"], strict=True))] for row in answer])
        for answer in (expected, found)
    )
    return {"error of the scores": float(np.abs(one - other).max())}


def difference_of_answers(expected: Any, found: Any) -> Numbers:
    return {"error of the scores": float((np.abs(np.array(found) - expected) / expected).max())}


if __name__ == "__main__":
    harness.main("tasks", __doc__, cases)
