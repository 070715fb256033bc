"""Is this checkout as fast as another one? For a change that must not change the speed.

Each workload runs in two processes that are kept, one with the source of the other checkout and one with this one's,
which take turns on the same base-size checkpoint. Above 1 this checkout is the faster one. Start-up is a fresh process
a turn. The error is the largest difference between the answers of the two.

    git worktree add ../before main~10
    python -m benchmarks.before_after ../before --rounds 7 [--only encoder ...]
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, start_up
from benchmarks.children import Child
from benchmarks.guests import GuestJob, Kept
from benchmarks.harness import Case, Job, Numbers, Options, case_text, run_case
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
START_UP = "start_up"
# `benchmarks` is that of the checkout which runs.
SERVER = """
import json, sys
folder, what = json.loads(sys.argv[1])
from benchmarks import guests, texts
from xlmr_core.config import AutoConfig
vocabulary = AutoConfig.from_pretrained(folder).vocab_size
given = {{
    "natural": lambda: texts.natural(vocabulary),
    "full": lambda: texts.full(vocabulary),
    "sentence": lambda: "Plants create <mask> through a process known as photosynthesis.",
}}[what]()
{setup}
guests.serve(lambda _: turn(given))
"""


def cases(options: Options, roots: dict[str, Path], workloads: list[str]) -> Iterator[Case]:
    """A case for each workload and batch; the other checkout is the baseline."""
    folder = checkpoint(options)
    for workload in workloads:
        if workload == START_UP:
            code = start_up.FIRST_ANSWER.format(module="xlmr_torch", folder=str(folder))
            jobs = {name: functools.partial(Child, code, root=root) for name, root in roots.items()}
            yield Case(workload, jobs, ("before",), compare=start_up.difference)
            continue
        setup, batches = WORKLOADS[workload]
        for what in batches:
            command = [sys.executable, "-c", SERVER.format(setup=setup), json.dumps([str(folder), what])]
            kept = {name: functools.partial(_job, command, root) for name, root in roots.items()}
            yield Case(f"{workload} {what}", kept, ("before",), compare=difference)


def _job(command: list[str], root: Path) -> Job:
    return GuestJob(Kept(command, root), None)


def difference(expected: Any, found: Any) -> Numbers:
    """The largest difference between two answers."""
    return {"largest error": float(np.abs(expected - found).max())}


def main() -> None:
    """Compare all workloads, or some."""
    words = [*WORKLOADS, START_UP]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each (%(default)s)")
    parser.add_argument("--only", nargs="*", choices=words, default=words, help="of the workloads")
    parser.add_argument("--tiny", action="store_true", help="a tiny model: to see that it runs, not how fast")
    work = machine.cache_folder()
    parser.add_argument("--work", type=Path, default=work, help="folder for the checkpoint (%(default)s)")
    arguments = parser.parse_args()
    options = Options(rounds=arguments.rounds, tiny=arguments.tiny, work=arguments.work)
    machine.limit_threads(options.threads)
    roots = {"before": arguments.other.resolve(), "after": machine.ROOT}
    for case in cases(options, roots, arguments.only):
        print(case_text(run_case(case, options)), flush=True)


if __name__ == "__main__":
    main()
