"""Writing a folder with a graph, as the hub has them: ``onnx/model.onnx``, with weights in bytes
``onnx/model_quantized.onnx`` or of four bits ``onnx/model_bnb4.onnx``, and at the top ``config.json``, the tokenizer
and the other small files of the model.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from xlmr_core.atomic_files import Temporaries, locked, put_in_place, remove_abandoned, saving_to, settle
from xlmr_core.checkpoints.model_files import ModelFiles, open_model
from xlmr_core.conversion import folders_for, holds, refuse_mixture, small_files
from xlmr_core.errors import CheckpointError
from xlmr_core.formats.onnx_format import FOLDER, NAMES
from xlmr_core.heads import HEADS
from xlmr_core.onnx.heads import VECTORS
from xlmr_core.onnx.readers import with_files_for
from xlmr_core.onnx.writing import LARGEST_MESSAGE, Model, model_to_write, write_model
from xlmr_core.probe import Counter, Progress
from xlmr_core.quantization import Scheme, find_scheme
from xlmr_core.tasks import TASKS, find_task
from xlmr_core.tasks.sentence_folder import SentenceFolder, read_sentence_folder

__all__ = ["Export", "export"]

# Of a quantized weight, for each of NAMES.
BITS = (32, 8, 4)


@dataclass(frozen=True)
class Export:
    """What an export did.

    Attributes:
        source: the file or index that was read.
        destination: the folder that was written.
        architecture: the class of the model.
        task: the task that the graph is for.
        files: the graph, and its values where they lie beside it.
        copied: the small files, ``config.json`` included.
        inputs, outputs: of the graph, by name.
        optional: those of the inputs that may be left out.
        quantized: how many weights are stored in eight bits or four.
        parameters, nbytes: how many tensors, and their bytes.
        seconds: that it took.
    """

    source: str
    destination: Path
    architecture: str
    task: str
    files: tuple[Path, ...]
    copied: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    optional: tuple[str, ...]
    quantized: int
    parameters: int
    nbytes: int
    seconds: float


def export(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    task: str | None = None,
    scheme: str | Scheme | None = None,
    reader: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Export:
    """Write a model as a graph of ONNX, all or nothing, a tensor in memory at a time, without a framework.

    Args:
        source: a folder, a file of weights, a built-in name or a name on the hub; in any format that can be read.
        destination: a folder; made if it is missing. The source's own folder will do.
        task: a name of ``xlmr_core.tasks.TASKS``. It says which head the graph has, and ``sentence-embedding`` and
            ``rerank`` give it outputs of their own: the pooled vectors, the scores. By default the task of the
            checkpoint's architecture.
        scheme: ``int8`` for weights in bytes, a scale for each output channel and each token of the table, and inputs
            of their products rounded at run time.
        reader: of ``readers.READERS``, a library that is to read the folder: gives it what this one needs beside what
            there is.
        force: replace files in ``destination`` that differ. Nothing else there is removed.
        progress: called with what is being done, the bytes that are done, and all there are.

    Raises:
        ModelNotFoundError, ConfigError, CheckpointError: if the source cannot be read, has no trained head for the
            task, is a decoder or has weights that no operator takes.
        CheckpointError: if files would be replaced without ``force``, if other files in ``destination`` would be
            mistaken for parts of the model, or if the disk refuses.
        InputError: for a task that writes texts.
    """
    folder = Path(destination).expanduser()
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"expected a folder to write to, received the file {folder}; name a folder")
    with open_model(source, head=None if task is None else _head_of_task(task)) as files:
        beside = read_sentence_folder(source)
        row = _task_of(files, beside) if task is None else find_task(task).name
        found = None if scheme is None else find_scheme(scheme)
        model = model_to_write(files, task=row, folder=beside, scheme=found)
        name = f"{FOLDER}/{NAMES[BITS.index(model.bits)]}"
        small = with_files_for(reader, files, small_files(files))
        refuse_mixture(files, folder, "onnx", small, force, target=name)
        _refuse_other_graph(folder, name, small)
        start = time.perf_counter()
        with folders_for(folder, (*small, name)):
            written = _write(folder, name, model, small, progress)
        return Export(
            source=str(files.checkpoint.path),
            destination=folder,
            architecture=files.architecture,
            task=row,
            files=written,
            copied=tuple(small),
            inputs=tuple(port.name for port in model.graph.inputs),
            outputs=tuple(port.name for port in model.graph.outputs),
            optional=tuple(port.name for port in model.graph.inputs if port.name in model.graph.constants),
            quantized=model.quantized,
            parameters=len(model.tensors),
            nbytes=model.nbytes,
            seconds=time.perf_counter() - start,
        )


def _head_of_task(task: str) -> str:
    """The head of a task; a task that writes texts has one that is refused where all such are."""
    auto = find_task(task).auto
    return next((suffix for suffix, head in HEADS.items() if head.auto == auto), "ForCausalLM")


def _task_of(files: ModelFiles, beside: SentenceFolder) -> str:
    """The first task of a head; of the bare model, where something beside it makes vectors, that."""
    if files.head == "Model" and (beside.pooling or beside.heads):
        return VECTORS[0]
    auto = HEADS[files.head].auto if files.head in HEADS else ""
    return next((row.name for row in TASKS.values() if row.auto == auto), "")


def _refuse_other_graph(folder: Path, name: str, small: dict[str, bytes]) -> None:
    """Refuse to leave a graph of another model beside the new one, or to replace values that lie in a file of their
    own: they are too large to be put back if something fails.
    """
    others = [f"{FOLDER}/{other}" for other in NAMES if f"{FOLDER}/{other}" != name]
    there = [other for other in others if (folder / other).is_file()]
    changed = [one for one, content in small.items() if (folder / one).is_file() and not holds(folder / one, content)]
    if there and changed:
        raise CheckpointError(
            f"{folder} holds {', '.join(there)} of a model with another {changed[0]}; remove it, or choose another "
            "folder"
        )
    if (folder / f"{name}_data").exists():
        raise CheckpointError(f"{folder} holds {name}_data already; remove it, or choose another folder")


def _write(
    folder: Path, name: str, model: Model, small: dict[str, bytes], progress: Progress | None
) -> tuple[Path, ...]:
    advance = Counter("exporting", model.nbytes, progress)
    names = [name] if model.nbytes <= LARGEST_MESSAGE else [f"{name}_data", name]
    with saving_to(folder, f"{model.nbytes} bytes"), Temporaries(folder) as graphs, Temporaries(folder) as files:
        with ExitStack() as stack:
            opened = [stack.enter_context(graphs.new(one).open("wb")) for one in names]
            beside = (Path(names[0]).name, opened[0]) if len(names) > 1 else None
            write_model(model, opened[-1], beside, advance)
        for one in names:
            settle(graphs.paths[one])
        for one, content in small.items():
            files.write(one, content)
        with locked(folder):
            # The large ones stand last.
            files.paths.update(graphs.paths)
            graphs.paths = {}
            put_in_place(files)
            remove_abandoned(files)
    return tuple(folder / one for one in reversed(names))
