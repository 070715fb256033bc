"""Train the sentencepiece vocabulary of `xlmr-mini`: `python -m weights.make_vocab` from the repository root.

A unigram model with XLM-R's normalization (nmt_nfkc) and its first pieces (`<unk>`, `<s>`, `</s>`), so that the
published offset holds: piece `i` of the file is token `i + 1`, `<pad>` is 1 and `<mask>` comes last. `PIECES` + 2 is
the model's `vocab_size`.
"""

from __future__ import annotations

import argparse
import io
import random
from collections.abc import Iterator
from pathlib import Path

import sentencepiece

from weights.maker import corpus

PIECES = 31_998  # with <pad> and <mask> 32 000 tokens, a multiple of 64
COVERAGE = 0.9997
OUTPUT = Path(__file__).parent / "xlmr-mini" / "sentencepiece.bpe.model"


def sample(pretrain: Path, total: int, seed: int) -> Iterator[str]:
    """Lines of all languages, about `total` characters, each language by its characters to the power 0.7."""
    counts = corpus.characters(pretrain)
    largest = total / sum(counts[code] * times for code, times in corpus.passes(counts).items())
    for code, times in corpus.passes(counts, largest).items():
        lines = [line for line in corpus.lines(pretrain / "train" / f"{code}.txt.xz") if line]
        yield from corpus.repeated(lines, times, random.Random(f"{seed}/{code}"))


def train(lines: Iterator[str], threads: int) -> bytes:
    """The content of a `sentencepiece.bpe.model` trained on `lines`."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines,
        model_writer=model,
        model_type="unigram",
        vocab_size=PIECES,
        character_coverage=COVERAGE,
        normalization_rule_name="nmt_nfkc",
        max_sentence_length=20_000,
        seed_sentencepiece_size=500_000,
        num_threads=threads,
        train_extremely_large_corpus=False,
        minloglevel=1,
    )
    return model.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=corpus.PRETRAIN, help="the folder pretrain of the data")
    parser.add_argument("--characters", type=int, default=20_000_000, help="size of the sample")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    content = train(sample(options.data, options.characters, options.seed), options.threads)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    temporary = options.output.with_suffix(".tmp")
    temporary.write_bytes(content)
    temporary.replace(options.output)


if __name__ == "__main__":
    main()
