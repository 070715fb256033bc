"""``pipeline`` for scripts that name their backend: the one of that backend."""

from __future__ import annotations

from typing import Any

from xlmr_core.backends import first_installed, load_backend

__all__ = ["pipeline"]


def pipeline(
    task: str | None = None,
    model: Any = None,
    config: Any = None,
    tokenizer: Any = None,
    *,
    backend: str | None = None,
    **arguments: Any,
) -> Any:
    """Make the callable that does a task.

    Args:
        task: a name of ``xlmr_core.tasks.TASKS``; by default the task of the model's class.
        model: a folder, a built-in model, a name on the hub, or a model of the backend.
        config, tokenizer: in place of the model's own.
        backend: ``torch``, ``tf``, ``flax`` or ``onnx``, which needs no framework but ONNX Runtime; by default the
            first of them that is installed.
        **arguments: of the backend's ``pipeline``, the options of the task among them.

    Returns:
        A :class:`~xlmr_core.tasks.pipeline.Pipeline`, of the class published for the task.

    Raises:
        MissingBackendError: if it is not installed, or none is.
        XLMRError: as of the backend's ``pipeline``.
    """
    name = backend or first_installed()
    return load_backend(name).pipeline(task, model, config, tokenizer, **arguments)
