"""How fast is a step of masked language modelling, and how much memory does it take?

A step is forward, backward and AdamW, with the dropout of the config, on 8 x 128 tokens of which 15 % are labelled.
xlmr projects to the vocabulary only where there is a label (``sparse_prediction=True``). The error is the difference of
the losses without dropout, before the first step. Peak memory is that of a process that does two steps, so that the
moments of AdamW are there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks import children, harness, peers, texts
from benchmarks.children import Child
from benchmarks.harness import PEERS, Case, Options, Timed
from benchmarks.models import checkpoint

BASELINES = ("transformers", "xlmr")

Model = Any
Inputs = dict[str, Any]


def load_transformers(folder: Path) -> Model:
    model_class = peers.installed("transformers").AutoModelForMaskedLM
    return model_class.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")


def load_xlmr(folder: Path) -> Model:
    from xlmr_torch import AutoModelForMaskedLM

    return AutoModelForMaskedLM.from_pretrained(folder)


# How to load, and what a call needs beside ids, mask and labels.
LIBRARIES: dict[str, tuple[Callable[[Path], Model], Inputs]] = {
    "transformers": (load_transformers, {}),
    "xlmr": (load_xlmr, {"sparse_prediction": True}),
}


def inputs(name: str, vocab_size: int, rows: int, length: int) -> Inputs:
    """A batch without padding, with labels at some tokens."""
    arrays = texts.labelled(vocab_size, rows, length)
    return {key: torch.from_numpy(value) for key, value in arrays.items()} | LIBRARIES[name][1]


def stepper(model: Model, batch: Inputs, fused: bool) -> Callable[[], float]:
    """A function that does one step and returns its loss."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=fused or None)

    def step() -> float:
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def cases(options: Options) -> Iterator[Case]:
    checkpoint(options)
    rows, length = (2, 16) if options.tiny else (8, 128)
    for optimizer in ("AdamW", "fused AdamW"):
        yield Case(
            f"8 x 128, {optimizer}",
            {
                name: functools.partial(step_job, options, name, rows, length, optimizer != "AdamW")
                for name in LIBRARIES
            },
            BASELINES,
            facts={"rows": rows, "length": length, "labelled": texts.LABELLED},
            compare=lambda expected, found: {"error of the loss": abs(found - expected)},
        )
    rows = 4 if options.tiny else 16
    yield Case(
        "16 x 128, peak memory",
        {name: functools.partial(memory_job, options, name, rows, length) for name in LIBRARIES},
        BASELINES,
        facts={"rows": rows, "length": length, "labelled": texts.LABELLED, "optimizer": "fused AdamW"},
        rounds=min(3, options.rounds),
        warmup=0,
    )


def step_job(options: Options, name: str, rows: int, length: int, fused: bool) -> Timed:
    model = _load(options, name)
    batch = inputs(name, model.config.vocab_size, rows, length)
    with torch.no_grad():
        loss = float(model.eval()(**batch).loss)
    return Timed(stepper(model, batch, fused), answer=loss)


def memory_job(options: Options, name: str, rows: int, length: int) -> Child:
    _present(options, name)
    code = (
        f"from benchmarks import training; training.two_steps({name!r}, {str(checkpoint(options))!r}, {rows}, {length})"
    )
    return Child(code, quantities=("peak_mib",))


def two_steps(name: str, folder: str, rows: int, length: int) -> None:
    """In the child."""
    model = LIBRARIES[name][0](Path(folder))
    step = stepper(model, inputs(name, model.config.vocab_size, rows, length), fused=True)
    step()
    children.answer(step())


def _load(options: Options, name: str) -> Model:
    _present(options, name)
    return LIBRARIES[name][0](checkpoint(options))


def _present(options: Options, name: str) -> None:
    if name in PEERS:
        peers.peer(name, options)


if __name__ == "__main__":
    harness.main("training", __doc__, cases)
