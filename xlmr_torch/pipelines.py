"""``pipeline``: a task on a model, from texts to plain Python.

What goes in and comes out is decided in ``xlmr_core/tasks``; here the model is found, put on its device and run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.hub import DEFAULT_MODEL
from xlmr_core.tasks import check_model, find_task, task_of
from xlmr_core.tasks.fill_mask import FillMask, FillMaskOptions
from xlmr_core.tokenization import AutoTokenizer
from xlmr_torch import auto
from xlmr_torch.placement import find_dtype, find_one_device

__all__ = ["PIPELINES", "FillMaskPipeline", "pipeline"]


class FillMaskPipeline:
    """The most likely tokens at each mask of a text.

    Args:
        model: a masked language model; it is used as it is, in evaluation mode.
        tokenizer: its tokenizer.
        **options: defaults of every call: ``top_k`` (5), ``targets``, ``tokenizer_kwargs``, ``batch_size`` (1); see
            :class:`~xlmr_core.tasks.fill_mask.FillMaskOptions`.
    """

    task = "fill-mask"

    def __init__(self, model: Any, tokenizer: Any, **options: Any) -> None:
        check_model(self.task, model)
        self.model = model.eval()
        self.tokenizer = tokenizer
        self._fill_mask = FillMask(tokenizer, model.config.max_tokens, FillMaskOptions().updated(options))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

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

    @torch.inference_mode()
    def _forward(
        self,
        input_ids_BS: NDArray[np.int64],
        attention_mask_BS: NDArray[np.int64],
        masked_positions_BP: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        device = self.device
        logits_BPV = self.model(
            input_ids=torch.from_numpy(input_ids_BS).to(device),
            attention_mask=torch.from_numpy(attention_mask_BS).to(device),
            masked_positions=torch.from_numpy(masked_positions_BP).to(device),
            return_dict=True,
        ).logits
        return logits_BPV.float().cpu().numpy()


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
    device: int | str | torch.device | None = None,
    device_map: Any = None,
    dtype: str | torch.dtype | None = None,
    torch_dtype: str | torch.dtype | None = None,
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
        framework: ``pt``, which is also the default here; the other backends have a ``pipeline`` of their own.
        revision, token: which version on the hub, and the access token for it.
        use_fast: whether the tokenizer is the one of the ``tokenizers`` library.
        device, device_map: a GPU's number, -1 for the CPU, a name such as ``cuda:1``, or a device; by default the CPU, or where a given
            model is.
        dtype: the model's dtype, by name or as a ``torch.dtype``; by default what ``from_pretrained`` gives, or what a given model has.
        torch_dtype: the older name of ``dtype``.
        trust_remote_code: of the published signature; no code from a checkpoint is ever run.
        model_kwargs: further arguments of the model's ``from_pretrained``.
        **options: the task's options, e.g. ``top_k`` or ``batch_size``.

    Raises:
        XLMRError: for an unknown task, a model that does not exist or lacks a tokenizer, a device that is not there.
    """
    if framework not in (None, "pt"):
        raise InputError(
            f"this is the PyTorch backend, framework must be 'pt', received {framework!r}; import the other backend's pipeline"
        )
    row = find_task(task_of(model) if task is None else task)
    if not isinstance(config, XLMRobertaConfig | str | os.PathLike | None):
        raise InputError(
            f"config must be a configuration or its name, received {type(config).__name__}; pass a tokenizer as tokenizer="
        )
    dtype = torch_dtype if dtype is None else dtype
    hub = {name: value for name, value in (("revision", revision), ("token", token)) if value is not None}
    device = device_map if device is None else device
    place = None if device is None else find_one_device(device)
    model = DEFAULT_MODEL if model is None else model
    if tokenizer is None:
        tokenizer = model if isinstance(model, str | os.PathLike) else getattr(model, "name_or_path", "")
        if tokenizer == "" and not isinstance(model, str):
            raise InputError(f"the model ({type(model).__name__}) does not say where its tokenizer is; pass tokenizer=")
    if isinstance(tokenizer, str | os.PathLike):
        tokenizer = AutoTokenizer.from_pretrained(tokenizer, use_fast=use_fast, **hub)
    if isinstance(model, str | os.PathLike):
        arguments = {**hub, **(model_kwargs or {}), **({} if config is None else {"config": config})}
        model = getattr(auto, row.auto).from_pretrained(model, dtype=dtype, device=place, **arguments)
    else:
        model = model.to(device=place, dtype=None if dtype in (None, "auto") else find_dtype(dtype))
    return PIPELINES[row.name](model, tokenizer, **options)
