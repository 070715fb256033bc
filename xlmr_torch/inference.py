"""``optimize_for_inference``: a model that only answers, as fast as this machine can."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xlmr_core.errors import InputError
from xlmr_torch.activations import ACTIVATIONS
from xlmr_torch.layers import Intermediate
from xlmr_torch.pretrained import PreTrainedModel

__all__ = ["BFloat16Embedding", "FusedLinear", "optimize_for_inference"]

Model = TypeVar("Model", bound=PreTrainedModel)

# Names of the config to oneDNN's kernel and its algorithm; "none" is the projection alone.
ONEDNN = {
    "none": ("none", ""),
    "gelu": ("gelu", "none"),
    "gelu_new": ("gelu", "tanh"),
    "relu": ("relu", ""),
    "silu": ("swish", ""),
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}


# An operator of our own around oneDNN's, because the compiler takes the weight of oneDNN's for one that it has packed itself.
_LIBRARY = torch.library.Library("xlmr", "FRAGMENT")
_LIBRARY.define("fused_linear(Tensor x, Tensor weight, Tensor bias, str activation) -> Tensor")


@torch.library.impl(_LIBRARY, "fused_linear", "CompositeExplicitAutograd")
def _fused_linear(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    if x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16) and torch.backends.mkldnn.is_available():
        kernel, algorithm = ONEDNN[activation]
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, kernel, [], algorithm)
    product = F.linear(x, weight, bias)
    return product if activation == "none" else ACTIVATIONS[activation](product)


@torch.library.register_fake("xlmr::fused_linear", lib=_LIBRARY)
def _(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


class FusedLinear(nn.Linear):
    """A projection, and the activation after it, by one kernel of oneDNN, in the dtype of its weight.

    PyTorch multiplies float32 matrices with MKL, which on some processors is a fifth slower.

    Args:
        layer: a projection; its values are copied, in a dtype of its own if there is one.
        dtype: of weight, bias and product; ``None``: the layer's own.
        weight: the weight in that dtype, if there is one already that is shared.
        activation: a name of ``ONEDNN``.
        out: dtype of what goes out; by default the same.
    """

    def __init__(
        self,
        layer: nn.Linear,
        dtype: torch.dtype | None = None,
        weight: nn.Parameter | None = None,
        activation: str = "none",
        out: torch.dtype | None = None,
    ) -> None:
        nn.Module.__init__(self)
        dtype = layer.weight.dtype if dtype is None else dtype
        self.out_features, self.in_features = layer.weight.shape
        self.weight = _frozen(layer.weight, dtype) if weight is None else weight
        self.bias = _frozen(layer.bias, dtype)
        self.dtype, self.out, self.activation = dtype, dtype if out is None else out, activation

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        x = input.to(self.dtype)
        return torch.ops.xlmr.fused_linear(x, self.weight, self.bias, self.activation).to(self.out)


class BFloat16Embedding(nn.Embedding):
    """A table held in bfloat16 whose rows go out in float32, where they are added up and normed."""

    def __init__(self, table: nn.Embedding) -> None:
        frozen = _frozen(table.weight, torch.bfloat16)
        super().__init__(*frozen.shape, padding_idx=table.padding_idx, _weight=frozen, _freeze=True)

    def forward(self, input: Tensor) -> Tensor:
        """(...) to (..., D)."""
        return super().forward(input).float()


def optimize_for_inference(
    model: Model, dtype: str | torch.dtype | None = None, *, compile: bool = True, backend: Any = "inductor"
) -> Model:
    """Make a model fast for answering only; it cannot be trained any more.

    The model is changed in place: put into evaluation mode, packed wherever that is right (see docs/packing.md), and its encoder compiled
    into one graph for all batch sizes and lengths. The first call compiles, which takes up to a minute; further calls do not.

    Args:
        model: any model of this library, in float32.
        dtype: ``None`` or ``"float32"``: as it is; ``"bfloat16"``: matrices, the word embedding included, are held and multiplied in
            bfloat16, while sums, norms and outputs stay in float32; ``"int8"``: matrices are held in int8 with a scale for each channel
            and multiplied with activations rounded to int8 token by token (docs/int8.md), on the CPU only.
        compile: whether to compile the encoder.
        backend: a backend of ``torch.compile``; the default one needs a C++ compiler.

    Returns:
        The same model.

    Raises:
        InputError: for something that is no model of this library, an unknown dtype, or a model that is not in float32.
    """
    name = str(dtype).removeprefix("torch.") if dtype is not None else None
    if not isinstance(model, PreTrainedModel):
        raise InputError(f"expected a model of xlmr_torch, received {type(model).__name__}")
    if name is not None and name not in DTYPES:
        raise InputError(f"dtype must be one of {', '.join(map(repr, DTYPES))}, received {dtype!r}")
    if name is not None and model.dtype is not torch.float32:
        raise InputError(
            f"dtype={name!r} needs a model in float32, received {model.dtype}; load it with dtype=torch.float32, or leave dtype out"
        )
    if name not in (None, "int8") and model.is_quantized:
        raise InputError(
            f"dtype={name!r} needs a model with its float32 weights, received an int8 one; leave dtype out"
        )
    model.eval().requires_grad_(False)
    if name == "int8":
        from xlmr_torch.int8 import quantize

        quantize(model)
    else:
        _fuse(model, None if name is None else DTYPES[name])
    if model.packing == "auto":
        model.set_packing("always")  # one graph also for batches without padding
    if compile:
        model.base_model.encoder.compile(backend=backend, dynamic=True, fullgraph=True)
    return model


def _fuse(model: PreTrainedModel, dtype: torch.dtype | None) -> None:
    """Replace the projections of the encoder, each with the activation that follows it, and in bfloat16 the word embedding and its head.

    Args:
        model: the model to change.
        dtype: of the projections; ``None`` leaves each as it is.
    """
    if dtype is torch.bfloat16:
        table = model.get_input_embeddings()
        assert isinstance(table, nn.Embedding)
        fast_table = BFloat16Embedding(table)
        decoder = model.get_output_embeddings()
        if isinstance(decoder, nn.Linear):
            shared = fast_table.weight if decoder.weight is table.weight else None
            model.set_output_embeddings(FusedLinear(decoder, dtype, shared, out=torch.float32))
        model.set_input_embeddings(fast_table)
    for layer in model.base_model.encoder.layer:
        for parent in list(layer.modules()):
            for name, child in list(parent.named_children()):
                if type(child) is not nn.Linear:
                    continue
                if isinstance(parent, Intermediate) and model.config.hidden_act in ONEDNN:
                    parent.dense = FusedLinear(child, dtype, activation=model.config.hidden_act)
                    parent.intermediate_act_fn = nn.Identity()
                else:
                    setattr(parent, name, FusedLinear(child, dtype))


def _frozen(values: Tensor, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(values.detach().to(dtype), requires_grad=False)
