"""A model on disk, opened: what ``convert``, ``inspect``, ``verify`` and ``doctor`` start from."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType

from xlmr_core.checkpoints.found import fetch_files, find
from xlmr_core.checkpoints.head_in_file import has_pooler, head_of, is_known
from xlmr_core.checkpoints.load_plan import OTHER_TASK, LoadPlan, LoadWarning, plan_load
from xlmr_core.config import EncoderDecoderConfig, ModelConfig
from xlmr_core.errors import CheckpointError
from xlmr_core.formats import Checkpoint
from xlmr_core.formats.onnx_format import FOLDER, ONNX
from xlmr_core.formats.tensors import LazyTensor
from xlmr_core.heads import ENCODER_DECODER, HEADS, model_class_name
from xlmr_core.hub import MODEL_FILES
from xlmr_core.parameters import Parameter, parameters, stored_names
from xlmr_core.quantization import Scheme, scheme_of
from xlmr_core.tokenization.files import TOKENIZER_FILE, VOCAB_FILE

__all__ = ["ModelFiles", "find_model", "head_of", "open_model"]


@dataclass(frozen=True)
class ModelFiles:
    """An open checkpoint with its configuration and its head. Use it in a ``with`` statement, or close it.

    Attributes:
        name: what the user called it.
        checkpoint: the open weights.
        config: its configuration.
        head: a suffix of ``HEADS``, or that of an encoder-decoder.
        pooler: whether the file has a pooler.
        base: of an adapter, the folder of the model that it changes.
    """

    name: str
    checkpoint: Checkpoint
    config: ModelConfig
    head: str
    pooler: bool
    base: Path | None = None

    @property
    def folder(self) -> Path:
        """Where the weights are, and beside them the config and the tokenizer."""
        folder = Path(self.checkpoint.path).parent
        is_graph = self.checkpoint.format == ONNX.name and folder.name == FOLDER
        return folder.parent if is_graph and not (folder / "config.json").is_file() else folder

    @property
    def tokenizer(self) -> Path | None:
        """Where its tokenizer is read from: the folder, or else that of an adapter's base; of a KerasHub preset, with
        files of its own, the model.
        """
        if self.checkpoint.format == "kerashub":
            model = self.folder / "assets" / "tokenizer" / "vocabulary.spm"
            return model if model.is_file() else None
        folders = (self.folder,) if self.base is None else (self.folder, self.base)
        names = (TOKENIZER_FILE, VOCAB_FILE)
        return next((folder for folder in folders if any((folder / name).is_file() for name in names)), None)

    @property
    def architecture(self) -> str:
        """The published class name."""
        return model_class_name(self.config, self.head)

    @property
    def own_class(self) -> str:
        """The class that the configuration names, where it is none that this library knows; empty otherwise."""
        named = self.config.architectures or ()
        return ", ".join(named) if named and not any(map(is_known, named)) else ""

    @property
    def own_parts(self) -> tuple[str, ...]:
        """Of a class of its own: the tensors of the file that the class it is read as has no place for."""
        if not self.own_class:
            return ()
        # Under the name of a head that it replaces they look like that of another task.
        report = self.plan.report
        own = {*report.unexpected, *(row.name for row in report.dropped if row.why == OTHER_TASK)}
        return tuple(name for name in self.checkpoint.names if name in own)

    @cached_property
    def scheme(self) -> Scheme | None:
        """How the weights are quantized, if they are."""
        return scheme_of(self.config, self.checkpoint)

    @cached_property
    def rows(self) -> dict[str, Parameter]:
        """The parameter table of the model, with the pooler that the file has or has not."""
        return parameters(self.config, self.head, pooler=self.pooler, scheme=self.scheme)

    @cached_property
    def plan(self) -> LoadPlan:
        """Where each parameter is in the file. What has to be said about that is in its report, and not a warning here.

        Raises:
            CheckpointError: if the file does not fit the configuration.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LoadWarning)
            return plan_load(self.config, self.head, self.checkpoint, pooler=self.pooler, scheme=self.scheme)

    def streams(self) -> dict[str, LazyTensor]:
        """The parameters that a checkpoint stores, by canonical name; those that the file lacks are left out."""
        found = {}
        for name in stored_names(self.rows):
            source = self.plan.sources.get(name) or self.plan.sources.get(self.rows[name].tied_to or "")
            if source is not None:
                found[name] = self.checkpoint.stream(source)
        return found

    def close(self) -> None:
        """Let go of the files."""
        self.checkpoint.close()

    def __enter__(self) -> ModelFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def find_model(name_or_path: str | os.PathLike[str]) -> Path:
    """The folder or the file of weights that a path, a built-in name or a name on the hub means.

    Raises:
        ModelNotFoundError: if there is none.
    """
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    return fetch_files(name_or_path, patterns=MODEL_FILES)


def open_model(
    name_or_path: str | os.PathLike[str],
    *,
    head: str | None = None,
    format: str | None = None,
    part: str | None = None,
) -> ModelFiles:
    """Open a checkpoint of any format with its configuration.

    Args:
        name_or_path: a folder, a file of weights, a built-in name or a name on the hub.
        head: a suffix of ``HEADS``, in place of what the config or the parameters say.
        format: which of a folder's formats to open, a name of ``FORMATS``; by default the first of them that is there.
        part: of a file that holds several models or heads, the one to read: see
            :func:`xlmr_core.checkpoint.open_checkpoint`.

    Raises:
        ModelNotFoundError: if there is no such model.
        CheckpointError: if its files are damaged, or if they hold several heads and nothing says which is meant.
        ConfigError: if it is a model of another architecture.
    """
    if head is not None and head not in (*HEADS, ENCODER_DECODER.suffix):
        raise CheckpointError(f"head must be one of {', '.join(HEADS)}, received {head!r}")
    found = find(find_model(name_or_path), format)
    checkpoint = found.open(part)
    try:
        config = found.config(part)
        _refuse_head_of_both(config, head)
        head = head_of(config, checkpoint) if head is None else head
        base = None if found.base is None else found.base.folder
        return ModelFiles(str(name_or_path), checkpoint, config, head, has_pooler(checkpoint), base)
    except BaseException:
        checkpoint.close()
        raise


def _refuse_head_of_both(config: ModelConfig, head: str | None) -> None:
    """Refuse a head for an encoder-decoder, which has none to choose, and an encoder-decoder where there is but one."""
    is_both = isinstance(config, EncoderDecoderConfig)
    if head is not None and is_both is not (head == ENCODER_DECODER.suffix):
        remedy = "leave head out, or ask for a side of it with part='encoder.' or 'decoder.'"
        raise CheckpointError(
            f"{ENCODER_DECODER.suffix} is the only head of an encoder-decoder, received model_type "
            f"{config.model_type!r} and head {head!r}; {remedy if is_both else 'name another'}"
        )
