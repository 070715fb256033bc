"""The peers: how each one loads the checkpoint and computes the states of a batch.

None is a dependency. What has to be converted is converted once, into the work folder, from the same checkpoint.
"""

from __future__ import annotations

import functools
import importlib
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.harness import Absent, Options
from benchmarks.models import checkpoint, once
from benchmarks.texts import Batch, natural
from xlmr_core.config import AutoConfig

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
    path = _exported(source)
    if int8:
        kind = f"onnx-{machine.version('onnxruntime')}-int8"
        path = once(source.parent / kind, lambda folder: _quantize(path, folder)) / "model.onnx"
    settings = engine.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    session = engine.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {"input_ids": batch.ids_BS, "attention_mask": batch.mask_BS})[0]


def openvino(options: Options, int8: str | None = None) -> Forward:
    """OpenVINO on the same export, in float32 or quantized by NNCF.

    Args:
        options: of the question.
        int8: ``"static"``: weights and activations, whose ranges come from 16 batches of natural length; ``"weights"``:
            weights alone.
    """
    engine = peer("openvino", options)
    source = checkpoint(options)
    path = exported = _exported(source)
    if int8 is not None:
        installed("nncf")
        kind = f"openvino-{machine.version('openvino')}-{machine.version('nncf')}-{int8}"
        vocabulary = AutoConfig.from_pretrained(source).vocab_size
        quantize = functools.partial(_quantize_by_nncf, exported, int8, vocabulary)
        path = once(source.parent / kind, quantize) / "model.xml"
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": options.threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    try:
        model = engine.Core().compile_model(str(path), "CPU", settings)
    except RuntimeError as error:
        if int8 is None:
            raise
        # It says where in its source first, and in the last line why.
        why = str(error).strip().splitlines()[-1].strip()
        versions = f"OpenVINO {machine.version('openvino')} does not take what NNCF {machine.version('nncf')} made"
        raise Absent(f"{versions}: {why}") from error
    return lambda batch: model([batch.ids_BS, batch.mask_BS])[0]


def _quantize_by_nncf(path: Path, kind: str, vocabulary: int, folder: Path) -> None:
    engine, nncf = installed("openvino"), installed("nncf")
    model = engine.convert_model(str(path))
    if kind == "static":
        batches = [natural(vocabulary, rows=8, seed=seed) for seed in range(1, 17)]
        dataset = nncf.Dataset(batches, lambda batch: [batch.ids_BS, batch.mask_BS])
        model = nncf.quantize(
            model, dataset, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(batches), fast_bias_correction=True
        )
    else:
        model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
    folder.mkdir()
    engine.save_model(model, str(folder / "model.xml"), compress_to_fp16=False)


def _exported(source: Path) -> Path:
    """The model of transformers, exported once by PyTorch."""
    kind = f"onnx-of-torch-{machine.version('torch')}"
    return once(source.parent / kind, lambda folder: _export(source, folder)) / "model.onnx"


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
