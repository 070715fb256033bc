"""A model on disk, opened: what ``convert``, ``inspect``, ``verify`` and ``doctor`` start from."""

from __future__ import annotations

import contextlib
import os
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType

from xlmr_core.checkpoint import Checkpoint, open_checkpoint, read_config
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import CheckpointError, ModelNotFoundError, XLMRError
from xlmr_core.formats import FORMATS, Format
from xlmr_core.formats.tensors import LazyTensor
from xlmr_core.heads import HEADS, head_of_class, model_class_name
from xlmr_core.hub import BUILT_IN, resolve
from xlmr_core.load_plan import LoadPlan, LoadWarning, plan_load
from xlmr_core.parameters import Parameter, parameters, stored_names
from xlmr_core.quantization import is_int8

__all__ = ["ModelFiles", "find_model", "head_of", "open_model"]

# What betrays a head in a file: a parameter of its own, by name.
_HEAD_PARAMETERS = {
    "lm_head.dense.weight": "ForMaskedLM",
    "classifier.dense.weight": "ForSequenceClassification",
    "classifier.weight": "ForTokenClassification",
    "qa_outputs.weight": "ForQuestionAnswering",
}
# The two ways in which a language model is told apart by its config, and no parameter.
_DECODER_HEAD = "ForCausalLM"


@dataclass(frozen=True)
class ModelFiles:
    """An open checkpoint with its configuration and its head. Use it in a ``with`` statement, or close it.

    Attributes:
        name: what the user called it.
        checkpoint: the open weights.
        config: its configuration.
        head: a suffix of ``HEADS``.
        pooler: whether the file has a pooler.
    """

    name: str
    checkpoint: Checkpoint
    config: XLMRobertaConfig
    head: str
    pooler: bool

    @property
    def folder(self) -> Path:
        """Where the weights are, and beside them the config and the tokenizer."""
        return Path(self.checkpoint.path).parent

    @property
    def architecture(self) -> str:
        """The published class name."""
        return model_class_name(self.config, self.head)

    @cached_property
    def int8(self) -> bool:
        """Whether the weights are int8."""
        return is_int8(self.config)

    @cached_property
    def rows(self) -> dict[str, Parameter]:
        """The parameter table of the model, with the pooler that the file has or has not."""
        return parameters(self.config, self.head, pooler=self.pooler, int8=self.int8)

    @cached_property
    def plan(self) -> LoadPlan:
        """Where each parameter is in the file. What has to be said about that is in its report, and not a warning here.

        Raises:
            CheckpointError: if the file does not fit the configuration.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LoadWarning)
            return plan_load(self.config, self.head, self.checkpoint, pooler=self.pooler, int8=self.int8)

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
    folder = resolve(name_or_path)
    if path.is_dir() or os.fspath(name_or_path) in BUILT_IN:
        return folder
    # On the hub a repository may hold the weights once for every framework: of those, the first format that is there.
    for format in FORMATS.values():
        found = format.find(folder)
        if found is not None and (found.name != format.index or format.name == "safetensors"):
            break  # came with the folder; of another format only the index would have
        with contextlib.suppress(ModelNotFoundError):  # it has no such files
            resolve(name_or_path, patterns=_files_of(format))
            break
    return folder


def _files_of(format: Format) -> tuple[str, ...]:
    """Patterns for the files of a format: the single one, or the index and the shards."""
    if not format.index:
        return (format.single,) if format.single else ()
    single = Path(format.single)
    return (format.single, format.index, f"{single.stem}-*-of-*{single.suffix}")


def open_model(
    name_or_path: str | os.PathLike[str], *, head: str | None = None, format: str | None = None
) -> ModelFiles:
    """Open a checkpoint of any format with its configuration.

    Args:
        name_or_path: a folder, a file of weights, a built-in name or a name on the hub.
        head: a suffix of ``HEADS``, in place of what the config or the parameters say.
        format: which of a folder's formats to open, a name of ``FORMATS``; by default the first of them that is there.

    Raises:
        ModelNotFoundError: if there is no such model.
        CheckpointError: if its files are damaged, or if they hold several heads and nothing says which is meant.
        ConfigError: if it is a model of another architecture.
    """
    if head is not None and head not in HEADS:
        raise CheckpointError(f"head must be one of {', '.join(HEADS)}, received {head!r}")
    path = find_model(name_or_path)
    checkpoint = open_checkpoint(path, format)
    try:
        config = read_config(checkpoint.path, format)
        pooler = any(name.removeprefix("roberta.").startswith("pooler.") for name in checkpoint.names)
        return ModelFiles(
            str(name_or_path), checkpoint, config, head_of(config, checkpoint) if head is None else head, pooler
        )
    except BaseException:
        checkpoint.close()
        raise


def head_of(config: XLMRobertaConfig, checkpoint: Checkpoint) -> str:
    """The head of a checkpoint: what ``architectures`` of the config says, or else what the parameters in the file betray.

    Raises:
        CheckpointError: if the file holds several heads.
    """
    for architecture in config.architectures or ():
        try:
            return head_of_class(architecture).suffix
        except XLMRError:
            continue  # of another library: the file itself says more
    found = [head for name, head in _HEAD_PARAMETERS.items() if name in checkpoint.names]
    if len(found) > 1:
        raise CheckpointError(
            f"{checkpoint.path} holds the heads {' and '.join(found)}, and no architectures in its config say which is meant; "
            f"name one: head={found[0]!r} (--head {found[0]})"
        )
    if not found:
        return "Model"
    if found == ["ForMaskedLM"] and config.is_decoder:
        return _DECODER_HEAD
    has_pooler = any(name.removeprefix("roberta.").startswith("pooler.") for name in checkpoint.names)
    one_score = "classifier.weight" in checkpoint.names and checkpoint.info("classifier.weight").shape[0] == 1
    if found == ["ForTokenClassification"] and has_pooler and one_score:
        return "ForMultipleChoice"
    return found[0]
