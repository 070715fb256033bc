"""``optimize_for_inference``: a model that only answers, as fast as this machine can."""

from __future__ import annotations

from typing import Any, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xlmr_core.checks import check_choice
from xlmr_core.errors import InputError
from xlmr_core.quantization import SCHEMES
from xlmr_torch.activations import ACTIVATIONS, ONEDNN
from xlmr_torch.layers import Intermediate
from xlmr_torch.linear import is_plain
from xlmr_torch.onednn import project
from xlmr_torch.pretrained import PreTrainedModel
from xlmr_torch.quantized import leave_file, prepare, quantize

__all__ = ["BFloat16Embedding", "FusedLinear", "Int8Head", "optimize_for_inference"]

Model = TypeVar("Model", bound=PreTrainedModel)

PRECISIONS = ("float32", "bfloat16", *SCHEMES)
HEADS = ("int8",)

# An operator of our own around oneDNN's, because the compiler takes the weight of oneDNN's for one that it has packed
# itself.
_LIBRARY = torch.library.Library("xlmr", "FRAGMENT")
_LIBRARY.define("fused_linear(Tensor x, Tensor weight, Tensor bias, str activation) -> Tensor")


@torch.library.impl(_LIBRARY, "fused_linear", "CompositeExplicitAutograd")
def _fused_linear(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    product = project(x, weight, bias, *ONEDNN[activation])
    if product is not None:
        return product
    product = F.linear(x, weight, bias)
    return product if activation == "none" else ACTIVATIONS[activation](product)


@torch.library.register_fake("xlmr::fused_linear", lib=_LIBRARY)
def _(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


class FusedLinear(nn.Linear):
    """A projection, and the activation after it, by one kernel of oneDNN, in the dtype of its weight.

    PyTorch multiplies float32 matrices with MKL, which on some processors is a fifth slower.

    Args:
        layer: a projection; its values are shared, or copied into another dtype.
        dtype: of weight, bias and product; ``None``: the layer's own.
        weight: the weight in that dtype, if there is one already that is shared.
        activation: a name of ``ONEDNN``.
        widen: whether what goes out is float32 in any case.
    """

    def __init__(
        self,
        layer: nn.Linear,
        dtype: torch.dtype | None = None,
        weight: nn.Parameter | None = None,
        activation: str = "none",
        widen: bool = False,
    ) -> None:
        nn.Module.__init__(self)
        self.out_features, self.in_features = layer.weight.shape
        self.weight = _frozen(layer.weight, dtype) if weight is None else weight
        self.bias = _frozen(layer.bias, dtype)
        self.activation, self.widen = activation, widen

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to (..., out).

        Raises:
            InputError: if a gradient with respect to the input is wanted.
        """
        _refuse_gradient(input)
        x = torch.ops.xlmr.fused_linear(input.to(self.weight.dtype), self.weight, self.bias, self.activation)
        return x.float() if self.widen else x


class Int8Head(FusedLinear):
    """A projection to the vocabulary that multiplies in int8, beside the table in bfloat16, which stays for looking
    tokens up and for files.

    Args:
        layer: the projection in float32, which is quantized as in docs/int8.md.
        weight: the same in bfloat16.
    """

    rows: Tensor
    scale: Tensor
    sums: Tensor

    def __init__(self, layer: nn.Linear, weight: nn.Parameter | None) -> None:
        from xlmr_torch.int8 import quantize_rows, row_sums  # it looks at the machine when it is imported

        super().__init__(layer, torch.bfloat16, weight, widen=True)
        rows, scale = quantize_rows(layer.weight.detach())
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("sums", row_sums(rows), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to float32 (..., out); see :meth:`FusedLinear.forward`."""
        from xlmr_torch.int8 import int8_linear

        _refuse_gradient(input)
        return int8_linear(input.float(), self.rows, self.scale, self.bias.float(), self.sums)


class BFloat16Embedding(nn.Embedding):
    """A table held in bfloat16 whose rows go out in float32, where they are added up and normed."""

    def __init__(self, table: nn.Embedding) -> None:
        frozen = _frozen(table.weight, torch.bfloat16)
        super().__init__(*frozen.shape, padding_idx=table.padding_idx, _weight=frozen, _freeze=True)

    def forward(self, input: Tensor) -> Tensor:
        """(...) to (..., D)."""
        return super().forward(input).float()

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        # Checked before anything is changed; the word embedding comes first in every model.
        found = fn(self.weight.new_empty(0, dtype=torch.float32)).dtype
        if found is not torch.float32:
            raise InputError(
                f"a model optimized in bfloat16 is float32 around its matrices, received {found}; "
                "leave its dtype, or convert the original model"
            )
        return super()._apply(fn, recurse)


def optimize_for_inference(
    model: Model,
    dtype: str | torch.dtype | None = None,
    *,
    head: str | None = None,
    compile: bool | None = None,
    backend: Any = "inductor",
) -> Model:
    """Make a model fast for answering only; it cannot be trained any more.

    The model is changed in place: put into evaluation mode, packed wherever that is right (see docs/packing.md), and
    its encoder compiled into one graph for all batch sizes and lengths. The first call compiles, which takes up to a
    minute; of further calls only one with a single token in the whole batch, or with other outputs (hidden states,
    attentions), compiles once more.

    Args:
        model: any model of this library, in float32 unless ``dtype`` is ``None``.
        dtype: ``None`` or ``"float32"``: as it is; ``"bfloat16"``: matrices, the word embedding included, are held and
            multiplied in bfloat16, while sums and norms stay in float32; ``"int8"``: matrices are held in int8 with a
            scale for each channel and multiplied with activations rounded to int8 token by token, and compiled, long
            texts attend in integers too (docs/int8.md);
            ``"int4"``, ``"nf4"`` and ``"fp4"``: in four bits, as :func:`~xlmr_torch.quantized.quantize` makes them
            (docs/quantization.md).
        head: ``"int8"``, with ``dtype="bfloat16"``: logits of the vocabulary are multiplied in int8, from a table of
            their own. Two thirds of the time of a generated token are this one product.
        compile: whether to compile the encoder; by default on the CPU, because on GPUs nobody has tried it yet.
        backend: a backend of ``torch.compile``; the default one needs a C++ compiler.

    Returns:
        The same model.

    Raises:
        InputError: for something that is no model of this library, an unknown dtype, a model that is not in float32 or
            was optimized before, or one with adapters that are not merged. The model is unchanged then.
    """
    name = str(dtype).removeprefix("torch.") if dtype is not None else None
    _check(model, dtype, name)
    _check_head(model, head, name)
    if name in SCHEMES:
        quantize(model, SCHEMES[name])
    prepare(model)
    _fuse(model, torch.bfloat16 if name == "bfloat16" else None, head)
    if name == "bfloat16":
        leave_file(model)
    model.eval().requires_grad_(False)
    if model.packing == "auto":
        model.set_packing("always")  # one graph also for batches without padding
    if compile or (compile is None and model.device.type == "cpu"):
        # Of its own: models of other sizes in the same process are no recompilations of this one.
        kept: dict[str, Any] = {"dynamic": True, "isolate_recompiles": True}
        if backend == "inductor":
            from xlmr_torch.compiling import options  # it imports the compiler, which takes a second

            in_int8 = model.quantization_scheme is SCHEMES["int8"]
            kept["options"] = options(rounds=in_int8)
            model.base_model.encoder.rounds_attention = in_int8  # its kernel needs the compiler too
        model.base_model.encoder.compile(backend=backend, **kept)
    return model


def _check(model: object, dtype: object, name: str | None) -> None:
    """Refuse what :func:`optimize_for_inference` cannot do."""
    if not isinstance(model, PreTrainedModel):
        raise InputError(f"expected a model of xlmr_torch, received {type(model).__name__}")
    if name is not None:
        check_choice("dtype", name, PRECISIONS)
    if any(isinstance(module, FusedLinear) for module in model.modules()):
        raise InputError("expected a model as it was loaded, received one that is optimized already; load it again")
    if name is not None and model.dtype is not torch.float32:
        raise InputError(
            f"dtype={name!r} needs a model in float32, received {model.dtype}; load it with dtype=torch.float32, or "
            "leave dtype out"
        )
    scheme = model.quantization_scheme
    if scheme is not None and name not in (None, scheme.name):
        raise InputError(
            f"dtype={name!r} needs a model with its float32 weights, received one with {scheme.name} weights; "
            "leave dtype out"
        )
    if name == "bfloat16" and type(model.get_input_embeddings()) is not nn.Embedding:
        raise InputError(
            f"the word embedding must be a plain one, received {type(model.get_input_embeddings()).__name__}; merge "
            "adapters first"
        )


def _check_head(model: PreTrainedModel, head: str | None, name: str | None) -> None:
    """Refuse a head that there is not, or that does not go with the rest."""
    if head is None:
        return
    check_choice("head", head, HEADS)
    if name != "bfloat16":
        raise InputError(
            f"head={head!r} goes with dtype='bfloat16', received dtype={name!r}; with dtype='int8' the head is int8 "
            "already"
        )
    if not is_plain(model.get_output_embeddings()):
        raise InputError(
            f"head={head!r} needs a plain projection to the vocabulary, {type(model).__name__} has none; leave head out"
        )


def _fuse(model: PreTrainedModel, dtype: torch.dtype | None, head: str | None) -> None:
    """Replace the projections of the layers, each with the activation after it, that to the vocabulary, and in bfloat16
    the word embedding.

    Args:
        model: the model to change.
        dtype: of the projections; ``None`` leaves each as it is.
        head: in what the vocabulary is multiplied, if not in that.
    """
    shared = None
    table, decoder = model.get_input_embeddings(), model.get_output_embeddings()
    if dtype is torch.bfloat16:
        assert isinstance(table, nn.Embedding)
        fast_table = BFloat16Embedding(table)
        if is_plain(decoder) and decoder.weight is table.weight:
            shared = fast_table.weight
        model.set_input_embeddings(fast_table)
    elif is_plain(decoder):
        shared = decoder.weight
    if head == "int8":
        model.set_output_embeddings(Int8Head(decoder, shared))
    elif is_plain(decoder):
        model.set_output_embeddings(FusedLinear(decoder, dtype, shared, widen=dtype is torch.bfloat16))
    for layer in model.base_model.encoder.layer:
        for parent in list(layer.modules()):
            for name, child in list(parent.named_children()):
                if not is_plain(child):
                    continue
                if isinstance(parent, Intermediate) and model.config.hidden_act in ONEDNN:
                    parent.dense = FusedLinear(child, dtype, activation=model.config.hidden_act)
                    parent.intermediate_act_fn = nn.Identity()
                else:
                    setattr(parent, name, FusedLinear(child, dtype))


def _refuse_gradient(x: Tensor) -> None:
    if x.requires_grad and torch.is_grad_enabled():
        raise InputError(
            "gradients do not flow through a model optimized for inference; compute under torch.no_grad(), or use "
            "the original model"
        )


def _frozen(values: Tensor, dtype: torch.dtype | None) -> nn.Parameter:
    return nn.Parameter(values.detach().to(dtype), requires_grad=False)
