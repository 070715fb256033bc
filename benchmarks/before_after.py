"""Is this checkout as fast as another one? For a change that must not change the speed.

Each workload runs in two processes that are kept, one with the source of the other checkout and one with this one's,
which take turns, on the same base-size checkpoint. A ratio is the other's median over this one's: above 1 this checkout
is faster. The answers of the two must be equal to float32's rounding.

    git worktree add ../before main~10
    python -m benchmarks.before_after ../before --rounds 7 [--only encoder ...]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import Options
from benchmarks.machine import ROOT, cache_folder
from benchmarks.models import checkpoint

# What each workload prepares, and what one turn of it is; `batch` is a batch of texts of natural lengths, `full` one
# without padding.
WORKLOADS = {
    "encoder": (
        "from xlmr_torch import XLMRobertaModel; import torch\n"
        "model = XLMRobertaModel.from_pretrained(folder, add_pooling_layer=False)\n"
        "def turn(batch):\n"
        "    with torch.inference_mode():\n"
        "        ids, mask = torch.from_numpy(batch.ids_BS), torch.from_numpy(batch.mask_BS)\n"
        "        return model(input_ids=ids, attention_mask=mask).last_hidden_state.numpy()",
        ("natural", "full"),
    ),
    "fill-mask": (
        "from xlmr_torch import pipeline; import numpy as np\n"
        "answer = pipeline('fill-mask', model=folder)\n"
        "def turn(text):\n"
        "    return np.array([x['score'] for x in answer(text)])",
        ("sentence",),
    ),
    "start-up": ("", ("process",)),
    "keras_encoder": (
        "from xlmr_tf import TFXLMRobertaModel; import tensorflow as tf\n"
        "model = TFXLMRobertaModel.from_pretrained(folder, add_pooling_layer=False)\n"
        "graph = tf.function(lambda ids, mask: model(ids, attention_mask=mask).last_hidden_state)\n"
        "def turn(batch):\n"
        "    return graph(*(tf.constant(x, tf.int32) for x in (batch.ids_BS, batch.mask_BS))).numpy()",
        ("natural", "full"),
    ),
    "flax_encoder": (
        "from xlmr_flax import FlaxXLMRobertaModel; import numpy as np\n"
        "model = FlaxXLMRobertaModel.from_pretrained(folder, add_pooling_layer=False)\n"
        "def turn(batch):\n"
        "    return np.asarray(model(batch.ids_BS, batch.mask_BS).last_hidden_state)",
        ("natural", "full"),
    ),
}
SERVER = """
import json, sys, time
import numpy as np
folder, workload, what = json.loads(sys.argv[1])
from benchmarks import texts
from xlmr_core.config import AutoConfig
vocabulary = AutoConfig.from_pretrained(folder).vocab_size
inputs = {{
    "natural": lambda: texts.natural(vocabulary),
    "full": lambda: texts.full(vocabulary),
    "sentence": lambda: "Plants create <mask> through a process known as photosynthesis.",
}}
given = inputs[what]()
{setup}
np.save(sys.argv[2], turn(given))
turn(given)
print("ready", flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    turn(given)
    print(time.perf_counter() - start, flush=True)
"""
# Import, load, one sentence: the seconds that a user waits for a first answer.
START_UP = """
import sys, time
start = time.perf_counter()
import torch
from xlmr_torch import AutoModelForMaskedLM, AutoTokenizer
tokenizer, model = (kind.from_pretrained(sys.argv[1]) for kind in (AutoTokenizer, AutoModelForMaskedLM))
with torch.inference_mode():
    model(**tokenizer("Plants create <mask>.", return_tensors="pt"))
print(time.perf_counter() - start)
"""


class Side:
    """One checkout: a process that takes turns."""

    def __init__(self, root: Path, folder: Path, workload: str, what: str, answer: Path) -> None:
        self._environment = {**os.environ, "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        self._folder, self._root, self._process = folder, root, None
        if what == "process":
            return
        code = SERVER.format(setup=WORKLOADS[workload][0])
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, json.dumps([str(folder), workload, what]), str(answer)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env=self._environment,
        )
        assert self._process.stdout is not None
        if not any(line == "ready\n" for line in self._process.stdout):
            raise RuntimeError(f"{workload} in {root} ended with {self._process.wait()}")

    def turn(self) -> float:
        """Seconds of a turn."""
        if self._process is None:
            command = [sys.executable, "-c", START_UP, str(self._folder)]
            return float(subprocess.check_output(command, cwd=self._root, env=self._environment, text=True))
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def end(self) -> None:
        """Let the process go."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def compare(other: Path, folder: Path, workload: str, what: str, rounds: int) -> str:
    """A line: both medians, the ratio and its quartiles over the rounds."""
    with tempfile.TemporaryDirectory() as name:
        answers = [Path(name, side + ".npy") for side in ("before", "after")]
        sides = [
            Side(root, folder, workload, what, answer) for root, answer in zip((other, ROOT), answers, strict=True)
        ]
        before, after = [], []
        for number in range(rounds):
            order = [(sides[0], before), (sides[1], after)]
            for side, times in order if number % 2 else order[::-1]:
                times.append(side.turn())
        for side in sides:
            side.end()
        apart = "" if what == "process" else f", answers {difference(*answers):.1e} apart"
    ratios = [old / new for old, new in zip(before, after, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    old, new = statistics.median(before), statistics.median(after)
    times = f"{old * 1000:.0f} and {new * 1000:.0f} ms"
    return f"{workload} {what}: {times}, ratio {old / new:.3f} ({low:.3f}-{high:.3f}){apart}"


def difference(before: Path, after: Path) -> float:
    """The largest difference between the answers of the two."""
    import numpy as np

    return float(np.abs(np.load(before) - np.load(after)).max())


def main() -> None:
    """Compare all workloads, or some."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each (%(default)s)")
    parser.add_argument("--only", nargs="*", choices=list(WORKLOADS), default=list(WORKLOADS), help="of the workloads")
    parser.add_argument("--work", type=Path, default=cache_folder(), help="folder for the checkpoint (%(default)s)")
    arguments = parser.parse_args()
    folder = checkpoint(Options(work=arguments.work))
    for workload in arguments.only:
        for what in WORKLOADS[workload][1]:
            print(compare(arguments.other.resolve(), folder, workload, what, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
