"""How fast the PyTorch backend is: start-up, tokenizing, the encoder packed and padded, fill-mask.

``python benchmarks/bench_torch.py [--base] [--repeats N]``. By default on the built-in checkpoint; ``--base`` takes a model of the size of
xlm-roberta-base with random weights. What is compared runs in turns, and the median counts, so that a busy machine disturbs both alike.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from xlmr_core.tokenization import AutoTokenizer
from xlmr_torch import AutoModelForMaskedLM, XLMRobertaConfig, XLMRobertaForMaskedLM, pipeline

SENTENCE = "Plants create <mask> through a process known as photosynthesis."


def medians(repeats: int, **jobs: Callable[[], object]) -> dict[str, float]:
    """Median seconds of each job; the jobs take turns, the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats + 1):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(found[1:]) for name, found in seconds.items()}


def natural_batch(vocab_size: int, rows: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask of texts of natural lengths: lognormal, median 24, 95th percentile 120, between 5 and 256."""
    rng = np.random.default_rng(0)
    lengths = np.clip(np.exp(rng.normal(np.log(24), np.log(5) / 1.645, rows)), 5, 256).astype(int)
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.where(mask, rng.integers(5, vocab_size - 1, mask.shape), 1)
    return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))


def start_up(code: str) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, "-c", code], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", action="store_true", help="a model of base size with random weights")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained("xlmr-mini")
    if options.base:
        model = XLMRobertaForMaskedLM(XLMRobertaConfig.base()).eval()
    else:
        model = AutoModelForMaskedLM.from_pretrained("xlmr-mini")
    ids, mask = natural_batch(model.config.vocab_size)

    def encode(packing: str) -> Callable[[], object]:
        def run() -> None:
            with torch.inference_mode():
                model.set_packing(packing).base_model(ids, attention_mask=mask)

        return run

    tokens = int(mask.sum())
    print(
        f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, {model.num_parameters() / 1e6:.1f} M parameters"
    )
    print(f"batch of {len(ids)} texts, {tokens} tokens, {mask.numel() / tokens:.1f} positions a token")
    for name, seconds in medians(options.repeats, packed=encode("always"), padded=encode("never")).items():
        print(f"  encoder, {name:18} {1e3 * seconds:9.1f} ms {tokens / seconds:9.0f} tokens/s")

    fill_mask = pipeline("fill-mask", model=model.set_packing("auto"), tokenizer=tokenizer)
    jobs = {"one": lambda: fill_mask(SENTENCE), "eight": lambda: fill_mask([SENTENCE] * 8, batch_size=8)}
    for name, seconds in medians(options.repeats, **jobs).items():
        print(f"  fill-mask, {name:16} {1e3 * seconds:9.1f} ms")

    texts = [SENTENCE] * 2000
    for name, seconds in medians(options.repeats, tokenize=lambda: tokenizer(texts)).items():
        print(f"  {name:27} {1e3 * seconds:9.1f} ms {len(texts) / seconds:9.0f} texts/s")

    imports = {"torch": "import torch", "xlmr_torch": "import xlmr_torch"}
    load = "from xlmr_torch import AutoModelForMaskedLM as M; M.from_pretrained('xlmr-mini')"
    commands = {**{f"import {name}": code for name, code in imports.items()}, "import and load xlmr-mini": load}
    for name, seconds in medians(options.repeats, **{name: start_up(code) for name, code in commands.items()}).items():
        print(f"  {name:27} {1e3 * seconds:9.1f} ms")


if __name__ == "__main__":
    main()
