"""The peers: how each one loads the checkpoint and computes the states of a batch.

None is a dependency. What has to be converted is converted once, into the work folder, from the same checkpoint.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.harness import Absent, Options
from benchmarks.models import checkpoint, once
from benchmarks.texts import Batch

Forward = Callable[[Batch], Any]


def peer(name: str, options: Options) -> Any:
    """A peer's module.

    Raises:
        Absent: it is not installed, or not asked for.
    """
    if name not in options.peers:
        raise Absent(f"not among --peer {' '.join(options.peers)}")
    return installed(name)


def installed(name: str) -> Any:
    """A module; transformers without its progress bars."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise Absent(f"{error.name} is not installed (`nox -s bench` makes an environment with all peers)") from error
    if name == "transformers":
        module.logging.set_verbosity_error()
        module.logging.disable_progress_bar()
    return module


def transformers(options: Options, dtype: str = "float32") -> Forward:
    """PyTorch, sdpa attention, the padded batch as its tokenizer gives it: what most people run."""
    import torch

    hf = peer("transformers", options)
    model = hf.AutoModel.from_pretrained(
        checkpoint(options), dtype=getattr(torch, dtype), attn_implementation="sdpa", add_pooling_layer=False
    ).eval()

    @torch.inference_mode()
    def forward(batch: Batch) -> Any:
        ids, mask = torch.from_numpy(batch.ids_BS), torch.from_numpy(batch.mask_BS)
        return model(input_ids=ids, attention_mask=mask).last_hidden_state

    return forward


def ctranslate2(options: Options, compute_type: str = "float32") -> Forward:
    """CTranslate2 with its own converter; it leaves the padding out itself."""
    engine = peer("ctranslate2", options)
    installed("transformers")  # its converter reads the checkpoint with it
    source = checkpoint(options)
    kind = f"ctranslate2-{machine.version('ctranslate2')}-{compute_type}"

    def convert(folder: Path) -> None:
        importlib.import_module("ctranslate2.converters").TransformersConverter(str(source)).convert(
            str(folder), quantization=compute_type
        )

    folder = once(source.parent / kind, convert)
    encoder = engine.Encoder(
        str(folder), device="cpu", compute_type=compute_type, inter_threads=1, intra_threads=options.threads
    )
    return lambda batch: encoder.forward_batch(batch.lists).last_hidden_state


def onnxruntime(options: Options, int8: bool = False) -> Forward:
    """ONNX Runtime on the model of transformers, exported by PyTorch; int8 by its own dynamic quantization, per
    channel.
    """
    engine = peer("onnxruntime", options)
    source = checkpoint(options)
    version = machine.version("onnxruntime")
    path = once(source.parent / f"onnx-{version}", lambda folder: _export(source, folder)) / "model.onnx"
    if int8:
        path = once(source.parent / f"onnx-{version}-int8", lambda folder: _quantize(path, folder)) / "model.onnx"
    settings = engine.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    session = engine.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {"input_ids": batch.ids_BS, "attention_mask": batch.mask_BS})[0]


def _export(source: Path, folder: Path) -> None:
    import torch

    for name in ("onnx", "onnxscript"):
        installed(name)
    hf = installed("transformers")
    model = hf.AutoModel.from_pretrained(source, attn_implementation="sdpa", add_pooling_layer=False).eval()
    folder.mkdir()
    ids = torch.full((2, 7), 5)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _states_only(model),
            (ids, mask),
            folder / "model.onnx",
            input_names=["input_ids", "attention_mask"],
            output_names=["last_hidden_state"],
            dynamic_shapes=(sizes, sizes),
            dynamo=True,
            external_data=True,
            verbose=False,
        )


def _states_only(model: Any) -> Any:
    """The model as a module with one tensor as output."""
    import torch

    class States(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            states: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            return states

    return States()


def _quantize(path: Path, folder: Path) -> None:
    quantization = importlib.import_module("onnxruntime.quantization")
    folder.mkdir()
    quantization.quantize_dynamic(
        path,
        folder / "model.onnx",
        per_channel=True,
        weight_type=quantization.QuantType.QInt8,
        use_external_data_format=True,
    )
