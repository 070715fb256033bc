"""What is a packed graph worth, and how fast is the runtime without a framework?

The encoder: everybody computes the last hidden states of the same batch with the same weights on ONNX Runtime, beside
PyTorch's own export of the model of transformers (padded), in float32 and with ONNX Runtime's dynamic int8 of that
export. The error is the difference to that baseline, or to our own in PyTorch where there is none, at real tokens.

The first answer: each turn is a fresh process, from its start to the candidates for the mask of one sentence. "xlmr
exported" loads a folder that ``xlmr export`` wrote, "xlmr made now" makes the graph of the checkpoint in memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import encoder, harness, ours, peers
from benchmarks.children import Child
from benchmarks.harness import Case, Options
from benchmarks.models import checkpoint, once
from benchmarks.peers import Forward
from benchmarks.start_up import difference, file_mib
from benchmarks.texts import Batch

BASELINE = "ONNX Runtime"
TORCH, EXPORTED, MADE_NOW = "xlmr in PyTorch", "xlmr exported", "xlmr made now"

FIRST_ANSWER = """
from xlmr_core import pipeline
ask = pipeline("fill-mask", {folder!r}, backend={backend!r})
found = [row["score"] for row in ask("Plants create <mask> through photosynthesis.", top_k=50)]
from benchmarks import children
children.answer(found)
"""


def cases(options: Options) -> Iterator[Case]:
    contestants = {
        BASELINE: functools.partial(encoder.here, peers.onnxruntime),
        f"{BASELINE} int8": functools.partial(encoder.here, functools.partial(peers.onnxruntime, int8=True)),
        TORCH: functools.partial(encoder.here, ours.encoder),
        EXPORTED: functools.partial(encoder.here, graph),
        f"{EXPORTED} int8": functools.partial(encoder.here, functools.partial(graph, scheme="int8")),
    }
    yield from encoder.over_batches(options, checkpoint(options), contestants, (BASELINE, TORCH))
    children: dict[str, tuple[Callable[[Options], Path], str]] = {
        TORCH: (checkpoint, "torch"),
        EXPORTED: (functools.partial(exported, task="fill-mask"), "onnx"),
        f"{EXPORTED} int8": (functools.partial(exported, task="fill-mask", scheme="int8"), "onnx"),
        MADE_NOW: (checkpoint, "onnx"),
    }
    yield Case(
        "first answer",
        {name: functools.partial(_child, options, folder, backend) for name, (folder, backend) in children.items()},
        (TORCH,),
        facts={"file_mib": file_mib(checkpoint(options))},
        compare=difference,
    )


def exported(options: Options, task: str, scheme: str | None = None) -> Path:
    """The checkpoint as a graph for a task, written once."""
    from xlmr_core.onnx import export

    source = checkpoint(options)
    name = f"onnx-aligned-of-xlmr-{task}" + (f"-{scheme}" if scheme else "")
    return once(source.parent / name, lambda folder: export(source, folder, task=task, scheme=scheme))


def graph(options: Options, scheme: str | None = None) -> Forward:
    """The encoder as a graph of ours."""
    from xlmr_core.onnx import OnnxModel

    model = OnnxModel.from_pretrained(exported(options, "feature-extraction", scheme), threads=options.threads)

    def forward(batch: Batch) -> object:
        states = "last_hidden_state"
        return model.run({"input_ids": batch.ids_BS, "attention_mask": batch.mask_BS}, [states])[states]

    return forward


def _child(options: Options, folder: Callable[[Options], Path], backend: str) -> Child:
    return Child(FIRST_ANSWER.format(folder=str(folder(options)), backend=backend))


if __name__ == "__main__":
    harness.main("onnx", str(__doc__), cases)
