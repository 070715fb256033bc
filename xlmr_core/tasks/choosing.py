"""What ``pipeline()`` decides before anything is loaded, once for all backends: task, model, where the tokenizer is."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xlmr_core.checkpoints.found import Found
from xlmr_core.checkpoints.load_plan import plan_load
from xlmr_core.config import EncoderDecoderConfig, XLMRobertaConfig
from xlmr_core.errors import InputError, LoadWarning, MismatchError
from xlmr_core.formats import Checkpoint
from xlmr_core.heads import ENCODER_DECODER, FAMILIES, HEADS
from xlmr_core.loading import auto_checkpoint
from xlmr_core.parameters import HEAD_PARTS
from xlmr_core.quantization import scheme_of
from xlmr_core.tasks import TASKS, TaskRow, auto_of, default_model, find_task, models_for
from xlmr_core.tasks.pipeline import changed, check_framework
from xlmr_core.tokenization import AutoTokenizer

__all__ = ["Choice", "choose"]


@dataclass(frozen=True)
class Choice:
    """What a call of ``pipeline()`` means.

    Attributes:
        task: the row of the task.
        model: the name or folder of a model to load, or a model.
        arguments: of the model's ``from_pretrained``, beside where and in which dtype it is loaded.
        options: of the pipeline.
        tokenizer: its name or folder, or a pair of that and arguments of its own, or a tokenizer.
        tokenizer_arguments: of the tokenizer's ``from_pretrained``.
    """

    task: TaskRow
    model: Any
    arguments: Mapping[str, Any]
    options: Mapping[str, Any]
    tokenizer: Any
    tokenizer_arguments: Mapping[str, Any]

    @property
    def named(self) -> bool:
        """Whether the model is named, and has to be loaded."""
        return isinstance(self.model, str | os.PathLike)

    def check_head(self) -> None:
        """Refuse a named checkpoint that lacks the head of the task. Its headers are read, and no weights.

        A class that is registered for the checkpoint's own kind of configuration is taken at its word.

        Raises:
            InputError: naming what is missing, and the tasks that the checkpoint can do.
        """
        if not self.named or "state_dict" in self.arguments:
            return
        config, found = auto_checkpoint(self.model, self.arguments)
        self._check_kind(config)
        if not (
            isinstance(found, Found) and isinstance(config, XLMRobertaConfig) and type(config) in FAMILIES.values()
        ):
            return
        with found.open() as checkpoint:
            missing = _missing_head(config, checkpoint, self.task.auto)
            if not missing:
                return
            able = [row.name for row in TASKS.values() if _is_able(row, config, checkpoint)]
        raise InputError(
            f"{self.task.name} needs a trained head, {str(self.model)!r} has none ({', '.join(missing)} missing or of "
            f"another shape); choose another model, or a task that it can do: {', '.join(able)}"
        )

    def _check_kind(self, config: object) -> None:
        """Refuse one model where the task takes an encoder and a decoder, and those two where it takes one.

        Raises:
            InputError: naming the tasks that the checkpoint can do.
        """
        is_pair, takes_pair = type(config) is EncoderDecoderConfig, self.task.auto == ENCODER_DECODER.auto
        if is_pair == takes_pair or not (is_pair or type(config) in FAMILIES.values()):
            return
        ways = ("one model", "an encoder and a decoder")
        able = [row.name for row in TASKS.values() if (row.auto == ENCODER_DECODER.auto) == is_pair]
        raise InputError(
            f"{self.task.name} takes {ways[takes_pair]}, {str(self.model)!r} is {ways[is_pair]}; choose another model, "
            f"or a task for it: {', '.join(able)}"
        )

    def load_tokenizer(self) -> Any:
        """The tokenizer, loaded where it is named."""
        # As published, arguments of its own may stand beside the name.
        named, own = self.tokenizer if isinstance(self.tokenizer, tuple) else (self.tokenizer, {})
        if not isinstance(named, str | os.PathLike):
            return named
        return AutoTokenizer.from_pretrained(named, **{**self.tokenizer_arguments, **own})

    def read_beside(self) -> Any:
        """What the task needs of the files beside the model; see :meth:`xlmr_core.tasks.task.Task.read_beside`."""
        place = self.model if self.named else getattr(self.model, "name_or_path", "") or ""
        where = {name: self.arguments[name] for name in WHERE if name in self.arguments}
        return self.task.load().read_beside(place, **where)

    def check_stays(self, **wanted: Any) -> None:
        """Refuse to move a model that is given, in frameworks whose models stay where they are.

        Args:
            **wanted: the device and dtypes that were passed, by the names of their arguments.

        Raises:
            InputError: if it should be somewhere else or of another dtype.
        """
        for name, value in wanted.items():
            if value is not None:
                raise InputError(
                    f"a model that is given stays where and as it is, received {name}={value!r}; "
                    "pass device and dtype to its from_pretrained"
                )


# Arguments of from_pretrained that say where on the hub and on this machine files are.
WHERE = ("revision", "cache_dir", "local_files_only", "token", "force_download", "subfolder")
# Of pipeline(), beside the options of a task.
PIPELINE_ARGUMENTS = (
    *("task", "model", "config", "tokenizer", "framework", "revision", "use_fast", "token", "device", "device_map"),
    *("dtype", "torch_dtype", "trust_remote_code", "model_kwargs", "beside"),
)


def choose(
    backend: str,
    task: str | None,
    model: Any,
    config: Any,
    tokenizer: Any,
    *,
    framework: str | None,
    revision: str | None,
    token: str | bool | None,
    use_fast: bool,
    model_kwargs: Mapping[str, Any] | None,
    options: Mapping[str, Any],
) -> Choice:
    """Read the arguments of ``pipeline()`` that mean the same in every backend.

    Args:
        backend: the name in ``BACKENDS`` of the backend that is asked.
        task, model, config, tokenizer: as documented there, and so are
        framework, revision, token, use_fast, model_kwargs, options.

    Raises:
        XLMRError: for an unknown task or option, another backend's framework, or a model that does not say its task or
            where its tokenizer is.
    """
    check_framework(backend, framework)
    row = _task_of(model) if task is None else find_task(task)
    changed(row.name, row.load().Options(), options, others=PIPELINE_ARGUMENTS)
    if not isinstance(config, XLMRobertaConfig | str | os.PathLike | None):
        received = type(config).__name__
        raise InputError(
            f"config must be a configuration or its name, received {received}; pass a tokenizer as tokenizer="
        )
    usual = row.model if task is None else default_model(task)
    if model is None and not usual:
        known = ", such as " + " or ".join(map(repr, models_for(str(task)))) if models_for(str(task)) else ""
        raise InputError(f"{task} needs a model, received none; pass model=, a folder or a name on the hub{known}")
    model = usual if model is None else model
    hub = {name: value for name, value in (("revision", revision), ("token", token)) if value is not None}
    return Choice(
        task=row,
        model=model,
        arguments={**row.arguments, **hub, **(model_kwargs or {}), **({} if config is None else {"config": config})},
        options=options,
        tokenizer=_tokenizer_of(model) if tokenizer is None else tokenizer,
        tokenizer_arguments={"use_fast": use_fast, **hub},
    )


def _task_of(model: object) -> TaskRow:
    """The task of a model given without one."""
    for row in TASKS.values():
        if row.auto == auto_of(model):
            return row
    raise InputError(f"expected a task of {', '.join(map(repr, TASKS))}, received none; pass task=")


def _tokenizer_of(model: Any) -> Any:
    """Where the tokenizer of a model is: beside it."""
    place = model if isinstance(model, str | os.PathLike) else getattr(model, "name_or_path", "")
    if place == "" and not isinstance(model, str):
        raise InputError(f"the model ({type(model).__name__}) does not say where its tokenizer is; pass tokenizer=")
    return place


def _is_able(row: TaskRow, config: XLMRobertaConfig, checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint of one encoder or decoder has what a task needs; a decoder is what writes."""
    if row.auto == HEADS["ForCausalLM"].auto and not config.is_decoder:
        return False
    return row.auto != ENCODER_DECODER.auto and not _missing_head(config, checkpoint, row.auto)


def _missing_head(config: XLMRobertaConfig, checkpoint: Checkpoint, auto: str) -> list[str]:
    """The parameters of a head that a checkpoint lacks, or has in a shape that is another head's."""
    head = next((head for head in HEADS.values() if head.auto == auto), None)
    if head is None or head.auto == HEADS["Model"].auto:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LoadWarning)
        try:
            scheme = scheme_of(config, checkpoint)
            report = plan_load(config, head.suffix, checkpoint, scheme=scheme, ignore_mismatched_sizes=True).report
        except MismatchError:
            return []
    return [name for name in report.fresh if name.startswith(HEAD_PARTS)]
