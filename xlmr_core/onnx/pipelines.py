"""``pipeline`` on ONNX Runtime: a task on a graph, or on a checkpoint of which one is made."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from xlmr_core.errors import InputError
from xlmr_core.heads import HEADS, LossKind
from xlmr_core.onnx.model import SUFFIX, OnnxModel, find_graph
from xlmr_core.onnx.runner import Runner
from xlmr_core.placement import one_device
from xlmr_core.tasks.choosing import WHERE, choose
from xlmr_core.tasks.pipeline import Pipeline, pipeline_class

__all__ = ["pipeline"]

# Those that have a graph: all but the one that writes texts.
HEAD_OF_AUTO = {head.auto: suffix for suffix, head in HEADS.items() if head.loss is not LossKind.NEXT_TOKENS}
# Of from_pretrained, and without a meaning for a graph.
NOT_NEEDED = ("add_pooling_layer",)


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
    device: Any = None,
    device_map: Any = None,
    dtype: Any = None,
    torch_dtype: Any = None,
    trust_remote_code: bool | None = None,
    model_kwargs: dict[str, Any] | None = None,
    beside: Any = None,
    **options: Any,
) -> Pipeline:
    """Make the callable that does a task.

    Args:
        task: a name of ``xlmr_core.tasks.TASKS``; by default the task of the model.
        model: a folder with a graph or with weights, a graph in one, a built-in model, a name on the hub, or an
            :class:`~xlmr_core.onnx.OnnxModel`; by default the task's own, if it has one.
        config: in place of the folder's own.
        tokenizer: a folder or name as for ``model``, or a tokenizer; by default the model's own.
        framework: ``onnx``, which is also the default here.
        revision, token: which version on the hub, and the access token for it.
        use_fast: whether the tokenizer is the one of the ``tokenizers`` library.
        device, device_map: ``cpu``, or ``cuda`` where that build of ONNX Runtime is installed.
        dtype: ``float32``, or ``int8`` for the quantized graph; by default what is there.
        torch_dtype: the older name of ``dtype``.
        trust_remote_code: of the published signature; no code from a checkpoint is ever run.
        model_kwargs: further arguments of :meth:`OnnxModel.from_pretrained`, such as ``file_name`` and ``threads``.
        beside: what the task would read beside the model, where it is there already.
        **options: the task's options, e.g. ``top_k`` or ``batch_size``.

    Raises:
        XLMRError: for an unknown task or option, a task that writes texts, or a model that does not exist or lacks a
            tokenizer.
    """
    kwargs = dict(model_kwargs or {})
    if isinstance(model, str | os.PathLike) and os.fspath(model).endswith(SUFFIX) and os.path.isfile(model):
        # Its tokenizer and its configuration are where the folder of a model has them.
        kwargs.setdefault("file_name", os.path.relpath(model, find_graph(model)[0]))
        model = find_graph(model)[0]
    choice = choose(
        "onnx",
        *(task, model, config, tokenizer),
        framework=framework,
        revision=revision,
        token=token,
        use_fast=use_fast,
        model_kwargs=kwargs,
        options=options,
    )
    if choice.task.auto not in HEAD_OF_AUTO:
        raise InputError(f"{choice.task.name} writes texts, and graphs are of encoders; choose another backend")
    dtype = torch_dtype if dtype is None else dtype
    place = one_device(device, device_map)
    if not choice.named:
        choice.check_stays(device=device, device_map=device_map, dtype=dtype)
    arguments = {name: value for name, value in choice.arguments.items() if name not in NOT_NEEDED}
    where = {name: arguments[name] for name in WHERE if name in arguments}
    if choice.named and find_graph(choice.model, arguments.get("file_name"), **where)[1] is None:
        choice.check_head()
    arguments |= {"head": HEAD_OF_AUTO[choice.task.auto], "dtype": dtype, "device": place}
    # ONNX Runtime packs weights outside of Python: the tokenizer is read meanwhile.
    with ThreadPoolExecutor(1) as aside:
        loading = aside.submit(OnnxModel.from_pretrained, choice.model, **arguments) if choice.named else None
        tokenizer = choice.load_tokenizer()
        beside = choice.read_beside() if beside is None else beside
    made: Any = choice.model if loading is None else loading.result()
    return pipeline_class(__name__, Runner, choice.task.pipeline)(made, tokenizer, beside=beside, **choice.options)


def __getattr__(name: str) -> Any:
    # The published class of each task, such as FillMaskPipeline(model, tokenizer, **options).
    return pipeline_class(__name__, Runner, name)
