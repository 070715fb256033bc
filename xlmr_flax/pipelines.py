"""``pipeline``: a task on a model, from texts to plain Python.

What goes in and comes out is decided in ``xlmr_core/tasks``; here the model is found, put on its device and run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.hub import DEFAULT_MODEL
from xlmr_core.tasks import check_model, find_task, task_of
from xlmr_core.tasks.fill_mask import FillMask, FillMaskOptions
from xlmr_core.tokenization import AutoTokenizer
from xlmr_flax import auto
from xlmr_flax.placement import find_device

__all__ = ["PIPELINES", "FillMaskPipeline", "pipeline"]


class FillMaskPipeline:
    """The most likely tokens at each mask of a text.

    Args:
        model: a masked language model; it is used as it is, without dropout.
        tokenizer: its tokenizer.
        **options: defaults of every call: ``top_k`` (5), ``targets``, ``tokenizer_kwargs``, ``batch_size`` (1); see
            :class:`~xlmr_core.tasks.fill_mask.FillMaskOptions`.
    """

    task = "fill-mask"

    def __init__(self, model: Any, tokenizer: Any, **options: Any) -> None:
        check_model(self.task, model)
        self.model = model
        self.tokenizer = tokenizer
        self._fill_mask = FillMask(tokenizer, model.config.max_tokens, FillMaskOptions().updated(options))

    @property
    def device(self) -> jax.Device:
        """Where the model is."""
        return next(iter(self.model.get_input_embeddings().embedding[...].devices()))

    def __call__(self, inputs: str | Iterable[str], **options: Any) -> Any:
        """Answer a text, a list of texts or a stream of them, each with at least one mask token.

        Args:
            inputs: the text or texts.
            **options: as of the constructor, for this call.

        Returns:
            For a text with one mask (or a list of one such text) the candidates, best first, as dicts of ``score``, ``token``,
            ``token_str`` and ``sequence``; with several masks a list of candidates for each; for a list of texts a list of these, for a
            generator, a data set or another iterable an iterator, which reads ``batch_size`` texts at a time.

        Raises:
            InputError: for a text without a mask or over the model's length, or for an option that makes no sense.
        """
        return self._fill_mask(inputs, self._forward, **options)

    def _forward(
        self,
        input_ids_BS: NDArray[np.int64],
        attention_mask_BS: NDArray[np.int64],
        masked_positions_BP: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        logits_BPV = self.model(
            input_ids=input_ids_BS,
            attention_mask=attention_mask_BS,
            masked_positions=masked_positions_BP,
            train=False,
            return_dict=True,
        ).logits
        return np.asarray(logits_BPV, dtype=np.float32)


PIPELINES = {"fill-mask": FillMaskPipeline}


def pipeline(
    task: str | None = None,
    model: Any = None,
    config: Any = None,
    tokenizer: Any = None,
    *,
    framework: str | None = None,
    revision: str | None = None,
    use_fast: bool = True,
    token: str | bool | None = None,
    device: int | str | jax.Device | None = None,
    dtype: Any = None,
    trust_remote_code: bool | None = None,
    model_kwargs: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Make the callable that does a task.

    Args:
        task: ``fill-mask``; by default the task of the model's class.
        model: a folder, a built-in model, a name on the hub, or a model; by default the built-in ``xlmr-mini``.
        config: in place of the checkpoint's own.
        tokenizer: a folder or name as for ``model``, or a tokenizer; by default the model's own.
        framework: ``jax`` or ``flax``, which is also the default here; the other backends have a ``pipeline`` of their own.
        revision, token: which version on the hub, and the access token for it.
        use_fast: whether the tokenizer is the one of the ``tokenizers`` library.
        device: an accelerator's number, -1 for the CPU, a name such as ``gpu:1``, or a device; by default JAX's default device, or where a
            given model is.
        dtype: in which everything is computed; by default float32, or what a given model has.
        trust_remote_code: of the published signature; no code from a checkpoint is ever run.
        model_kwargs: further arguments of the model's ``from_pretrained``.
        **options: the task's options, e.g. ``top_k`` or ``batch_size``.

    Raises:
        XLMRError: for an unknown task, a model that does not exist or lacks a tokenizer, a device that is not there.
    """
    if framework not in (None, "jax", "flax"):
        raise InputError(
            f"this is the Flax backend, framework must be 'jax', received {framework!r}; import the other backend's pipeline"
        )
    row = find_task(task_of(model) if task is None else task)
    if not isinstance(config, XLMRobertaConfig | str | os.PathLike | None):
        raise InputError(
            f"config must be a configuration or its name, received {type(config).__name__}; pass a tokenizer as tokenizer="
        )
    hub = {name: value for name, value in (("revision", revision), ("token", token)) if value is not None}
    place = find_device(device)
    model = DEFAULT_MODEL if model is None else model
    if tokenizer is None:
        tokenizer = model if isinstance(model, str | os.PathLike) else getattr(model, "name_or_path", "")
        if tokenizer == "" and not isinstance(model, str):
            raise InputError(f"the model ({type(model).__name__}) does not say where its tokenizer is; pass tokenizer=")
    if isinstance(tokenizer, str | os.PathLike):
        tokenizer = AutoTokenizer.from_pretrained(tokenizer, use_fast=use_fast, **hub)
    if isinstance(model, str | os.PathLike):
        arguments = {**hub, **(model_kwargs or {}), **({} if config is None else {"config": config})}
        model = getattr(auto, f"Flax{row.auto}").from_pretrained(model, dtype=dtype, device=place, **arguments)
    elif place is not None or dtype is not None:
        raise InputError(
            "a model that is given stays where and as it is; pass device= and dtype= to its from_pretrained"
        )
    return PIPELINES[row.name](model, tokenizer, **options)
