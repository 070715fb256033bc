"""How fast is a step of masked language modelling, and how much memory does it take?

A step is forward, backward and AdamW, with the dropout of the config, on 8 x 128 tokens of which 15 % are labelled. The
call is the published one, ``model(input_ids, attention_mask, labels=labels).loss``, whose logits nobody reads; ``xlmr``
alone is ours with ``sparse_prediction=True``, which has no others. The loops are those of users: one that still holds
the outputs when it steps, transformers' Trainer in float32 and bfloat16, and DistributedDataParallel. The error is the
difference of the losses without dropout, before the first step. Peak memory is that of a process that does three steps,
so that the moments of AdamW are there, and the outputs of the step before.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks import children, harness, peers, texts
from benchmarks.children import Child
from benchmarks.harness import PEERS, Case, Options, Timed
from benchmarks.models import checkpoint

BASELINES = ("transformers", "xlmr published call", "xlmr")

Model = Any
Inputs = dict[str, Any]
Step = Callable[[], float]


def load_transformers(folder: Path) -> Model:
    model_class = peers.installed("transformers").AutoModelForMaskedLM
    return model_class.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")


def load_xlmr(folder: Path) -> Model:
    from xlmr_torch import AutoModelForMaskedLM

    return AutoModelForMaskedLM.from_pretrained(folder)


@dataclass(frozen=True)
class Contestant:
    """Whose model, what its call gets beside ids, mask and labels, and in what loop it is trained."""

    library: str
    given: Inputs = field(default_factory=dict)
    loop: str = "bare"


LIBRARIES: dict[str, Callable[[Path], Model]] = {"transformers": load_transformers, "xlmr": load_xlmr}
PUBLISHED, KEPT = "xlmr published call", "xlmr published call, outputs kept"
CONTESTANTS = {
    "transformers": Contestant("transformers"),
    PUBLISHED: Contestant("xlmr"),
    "xlmr": Contestant("xlmr", {"sparse_prediction": True}),
    KEPT: Contestant("xlmr", loop="outputs kept"),
}


def inputs(vocab_size: int, rows: int, length: int) -> Inputs:
    """A batch without padding, with labels at some tokens."""
    return {key: torch.from_numpy(value) for key, value in texts.labelled(vocab_size, rows, length).items()}


# ---- Loops


def bare(model: Model, batch: Inputs, fused: bool) -> Step:
    """The loss, and nothing else."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-5, fused=fused or None)

    def step() -> float:
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def outputs_kept(model: Model, batch: Inputs, fused: bool) -> Step:
    """As tutorials have it: a name holds the outputs until the next step's take its place."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-5, fused=fused or None)
    names: Inputs = {}

    def step() -> float:
        names["outputs"] = model(**batch)
        names["outputs"].loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(names["outputs"].loss.detach())

    return step


def data_parallel(model: Model, batch: Inputs, fused: bool) -> Step:
    """DistributedDataParallel, in a group of one process."""
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    return bare(torch.nn.parallel.DistributedDataParallel(model), batch, fused)


def trainer(model: Model, batch: Inputs, fused: bool, bf16: bool = False) -> Step:
    """transformers' Trainer; a turn is a training of one step."""
    hf = peers.installed("transformers")
    peers.installed("accelerate")
    rows = [{name: values[row] for name, values in batch.items()} for row in range(len(batch["labels"]))]
    arguments = hf.TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=len(rows),
        max_steps=1,
        learning_rate=1e-5,
        optim="adamw_torch_fused" if fused else "adamw_torch",
        bf16=bf16,
        use_cpu=True,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
    )
    training = hf.Trainer(model=model, args=arguments, train_dataset=rows)
    return lambda: float(training.train().training_loss)


LOOPS: dict[str, Callable[[Model, Inputs, bool], Step]] = {
    "bare": bare,
    "outputs kept": outputs_kept,
    "Trainer": trainer,
    "Trainer in bfloat16": functools.partial(trainer, bf16=True),
    "DistributedDataParallel": data_parallel,
}


# ---- Cases


def cases(options: Options) -> Iterator[Case]:
    checkpoint(options)
    rows, length = (2, 16) if options.tiny else (8, 128)
    facts = {"rows": rows, "length": length, "labelled": texts.LABELLED}
    for optimizer in ("AdamW", "fused AdamW"):
        yield Case(
            f"8 x 128, {optimizer}",
            {
                name: functools.partial(step_job, options, CONTESTANTS[name], rows, length, optimizer != "AdamW")
                for name in BASELINES
            },
            BASELINES,
            facts=facts,
            compare=lambda expected, found: {"error of the loss": abs(found - expected)},
        )
    for loop in list(LOOPS)[1:]:
        yield Case(
            f"8 x 128, {loop}",
            {
                name: functools.partial(
                    step_job, options, Contestant(CONTESTANTS[name].library, loop=loop), rows, length, True
                )
                for name in BASELINES[:2]
            },
            BASELINES,
            facts={**facts, "optimizer": "fused AdamW"},
            rounds=min(3, options.rounds),
            warmup=1,
        )
    rows = 4 if options.tiny else 16
    yield Case(
        "16 x 128, peak memory",
        {name: functools.partial(memory_job, options, name, rows, length) for name in CONTESTANTS},
        BASELINES,
        facts={"rows": rows, "length": length, "labelled": texts.LABELLED, "optimizer": "fused AdamW"},
        rounds=min(3, options.rounds),
        warmup=0,
    )


def step_job(options: Options, contestant: Contestant, rows: int, length: int, fused: bool) -> Timed:
    _present(options, contestant.library)
    model = LIBRARIES[contestant.library](checkpoint(options))
    batch = inputs(model.config.vocab_size, rows, length)
    with torch.no_grad():
        loss = float(model.eval()(**batch).loss)
    return Timed(LOOPS[contestant.loop](model, batch | contestant.given, fused), answer=loss)


def memory_job(options: Options, name: str, rows: int, length: int) -> Child:
    _present(options, CONTESTANTS[name].library)
    given = f"{name!r}, {str(checkpoint(options))!r}, {rows}, {length}"
    return Child(f"from benchmarks import training; training.three_steps({given})", quantities=("peak_mib",))


def three_steps(name: str, folder: str, rows: int, length: int) -> None:
    """In the child."""
    contestant = CONTESTANTS[name]
    model = LIBRARIES[contestant.library](Path(folder))
    batch = inputs(model.config.vocab_size, rows, length) | contestant.given
    step = LOOPS[contestant.loop](model, batch, True)
    step()
    step()
    children.answer(step())


def _present(options: Options, name: str) -> None:
    if name in PEERS:
        peers.peer(name, options)


if __name__ == "__main__":
    harness.main("training", __doc__, cases)
