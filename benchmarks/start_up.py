"""How long does it take from nothing to the first answer, and how much memory?

Each turn is a fresh process: import, ``from_pretrained`` of the checkpoint, the vocabulary logits of one sentence. The
same code for both libraries; the file is in the system's cache for both. Time runs from the start of the process to its
answer, the interpreter's own start included. "torch alone" is a process that only imports torch; "file_mib" is the size
of the weights. The error is that of the logits at the sentence's mask. ``keras_start_up`` and ``flax_start_up`` ask the
same of the other backends.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from benchmarks import harness, peers
from benchmarks.children import Child
from benchmarks.guests import guest_python
from benchmarks.harness import PEERS, Case, Numbers, Options
from benchmarks.models import checkpoint, converted

LIBRARIES = {"transformers": "transformers", "xlmr": "xlmr_torch"}

IMPORT = "import {module}; from benchmarks import children; children.answer()"
FIRST_ANSWER = """
from {module} import AutoModelForMaskedLM
import torch
model = AutoModelForMaskedLM.from_pretrained({folder!r})
ids = torch.tensor([[0, 101, 2002, 303, 4004, 505, model.config.vocab_size - 1, 707, 8008, 909, 5, 2]])
with torch.inference_mode():
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
found = logits[0, 6, :1000].tolist()
from benchmarks import children
children.answer(found)
"""

# The same for the backends whose models take arrays.
OF_ARRAYS = """
{setup}
from {module} import {name}
import numpy as np
model = {name}.from_pretrained({folder!r})
ids = np.array([[0, 101, 2002, 303, 4004, 505, model.config.vocab_size - 1, 707, 8008, 909, 5, 2]], np.int32)
logits = model(input_ids=ids, attention_mask=np.ones_like(ids)).logits
found = np.asarray(logits[0, 6, :1000]).tolist()
from benchmarks import children
children.answer(found)
"""


def cases(options: Options) -> Iterator[Case]:
    folder = checkpoint(options)
    imports = {
        name: functools.partial(Child, IMPORT.format(module=name), ("seconds",)) for name in ("torch", "xlmr_torch")
    }
    yield Case("import", imports, ("torch",))
    answers = {name: functools.partial(_job, options, name) for name in LIBRARIES}
    yield Case(
        "first answer",
        {**answers, "torch alone": functools.partial(Child, IMPORT.format(module="torch"))},
        tuple(LIBRARIES),
        facts={"file_mib": file_mib(folder)},
        compare=difference,
    )


def beside_the_original(
    options: Options,
    folder: Path,
    *,
    name: str,
    native: str,
    original: str,
    ours: str,
    module: str,
    framework: str,
    setup: str = "",
) -> Case:
    """The first answer of another backend, from the original class's own format and from safetensors.

    Args:
        options: of the question.
        folder: the checkpoint, in safetensors.
        name: the class, of the original library and of ours.
        native: the format that the original reads.
        original, ours: what the contestants are called.
        module: of our backend.
        framework: that a process imports alone.
        setup: what the original needs before it is imported.
    """

    def theirs() -> Child:
        python = guest_python(options)
        code = OF_ARRAYS.format(setup=setup, module="transformers", name=name, folder=str(converted(options, native)))
        return Child(code, python=python)

    def own(same_file: bool) -> Child:
        source = converted(options, native) if same_file else folder
        return Child(OF_ARRAYS.format(setup="", module=module, name=name, folder=str(source)))

    return Case(
        "first answer",
        {
            original: theirs,
            f"{ours}, same file": functools.partial(own, True),
            ours: functools.partial(own, False),
            f"{framework} alone": functools.partial(Child, IMPORT.format(module=framework)),
        },
        (original, ours),
        facts={"file_mib": file_mib(folder)},
        compare=difference,
    )


def file_mib(folder: Path) -> float:
    """The size of a checkpoint's weights."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 2**20


def _job(options: Options, name: str) -> Child:
    if name in PEERS:
        peers.peer(name, options)
    return Child(FIRST_ANSWER.format(module=LIBRARIES[name], folder=str(checkpoint(options))))


def difference(expected: list[float], found: list[float] | None) -> Numbers:
    if found is None:
        return {}
    return {"largest error": max(abs(ours - theirs) for ours, theirs in zip(found, expected, strict=True))}


if __name__ == "__main__":
    harness.main("start_up", __doc__, cases)
