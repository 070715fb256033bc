"""Attention within the sequences of packed tokens: no bias, no padding, no wasted scores.

On the CPU it is one operator to a compiler, ``xlmr::packed_attention``, and ``xlmr::packed_context`` where no gradient
is wanted, which read where sequences start from a tensor. So a graph has a dynamic number of tokens and of sequences,
and a stream of batches is compiled once. On CUDA it is PyTorch's attention over nested tensors, which brings its own
variable-length kernels and their gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from xlmr_core.errors import InputError
from xlmr_torch.integer_attention import has_integer_attention, integer_attention
from xlmr_torch.packing import Packing

__all__ = ["can_be_causal", "first_tokens_attention", "packed_attention"]


def packed_attention(
    q_TNH: Tensor,
    k_TNH: Tensor,
    v_TNH: Tensor,
    packing: Packing,
    *,
    scale: float,
    dropout: float,
    causal: bool,
    rounds: bool = False,
) -> Tensor:
    """Scaled dot-product attention within each sequence.

    Args:
        q_TNH, k_TNH, v_TNH: packed tokens of one dtype.
        packing: where the sequences are.
        scale: factor of the scores.
        dropout: probability of dropping an attention weight.
        causal: a query sees its predecessors only.
        rounds: long texts on the CPU may be rounded, see ``integer_attention.py``.

    Returns:
        The context (T, N, H).
    """
    if q_TNH.is_cuda:
        return _nested(q_TNH, k_TNH, v_TNH, packing, scale, dropout, causal)
    if dropout > 0:
        return _dropping(q_TNH, k_TNH, v_TNH, packing.cu_seqlens, scale, dropout, causal)
    if torch.is_grad_enabled():
        context_TNH, _ = torch.ops.xlmr.packed_attention(q_TNH, k_TNH, v_TNH, packing.cu_seqlens, scale, causal)
        return context_TNH
    return torch.ops.xlmr.packed_context(q_TNH, k_TNH, v_TNH, packing.cu_seqlens, scale, causal, rounds)


def first_tokens_attention(q_BNH: Tensor, k_TNH: Tensor, v_TNH: Tensor, packing: Packing, *, scale: float) -> Tensor:
    """The first token of each sequence attends to its sequence.

    All of them ask all tokens in one product, and a mask leaves those of their own. What is computed for nothing is a
    hundredth of a layer.

    Args:
        q_BNH: of the first tokens.
        k_TNH, v_TNH: of all.
        packing: where the sequences are.
        scale: factor of the scores.

    Returns:
        The context (B, N, H).
    """
    places_T = torch.arange(k_TNH.shape[0], device=k_TNH.device)
    keep_BT = (places_T >= packing.cu_seqlens[:-1, None]) & (places_T < packing.cu_seqlens[1:, None])
    bias_BT = torch.zeros(keep_BT.shape, dtype=q_BNH.dtype, device=q_BNH.device)
    bias_BT = bias_BT.masked_fill(~keep_BT, torch.finfo(q_BNH.dtype).min)
    heads_first = (_heads_first(x) for x in (q_BNH, k_TNH, v_TNH))
    context_1NBH = F.scaled_dot_product_attention(*heads_first, bias_BT[None, None], scale=scale)
    return context_1NBH[0].transpose(0, 1)


# ---- CPU: one operator, whose kernel and its gradient are PyTorch's own

# Not by torch.library.custom_op, whose first call imports torch._dynamo, and with it triton where there is one: that
# takes a second, and ends a process that has imported TensorFlow, because both bring an LLVM.
_LIBRARY = torch.library.Library("xlmr", "FRAGMENT")
# Up to so many tokens a sequence's scores fit into the cache, and two plain products are faster than PyTorch's kernel,
# which goes over them block by block: 0.43 against 0.72 ms for 128 tokens of 12 heads, the same for 256.
SHORT = 192
_LIBRARY.define(
    "packed_attention(Tensor q_TNH, Tensor k_TNH, Tensor v_TNH, Tensor cu_seqlens, float scale, bool causal)"
    " -> (Tensor context_TNH, Tensor logsumexp_NT)",
    tags=torch.Tag.pt2_compliant_tag,
)
_LIBRARY.define(
    "packed_context(Tensor q_TNH, Tensor k_TNH, Tensor v_TNH, Tensor cu_seqlens, float scale, bool causal, bool rounds)"
    " -> Tensor",
    tags=torch.Tag.pt2_compliant_tag,
)
_LIBRARY.define(
    "packed_attention_backward(Tensor gradient_TNH, Tensor q_TNH, Tensor k_TNH, Tensor v_TNH, Tensor context_TNH,"
    " Tensor logsumexp_NT, Tensor cu_seqlens, float scale, bool causal) -> (Tensor, Tensor, Tensor)",
    tags=torch.Tag.pt2_compliant_tag,
)


@torch.library.impl(_LIBRARY, "packed_attention", "CPU")
def _forward(
    q_TNH: Tensor, k_TNH: Tensor, v_TNH: Tensor, cu_seqlens: Tensor, scale: float, causal: bool
) -> tuple[Tensor, Tensor]:
    """The context (T, N, H), and the logarithm of each softmax's sum (N, T), float32 at least, which the gradient
    needs.
    """
    context_TNH, logsumexp_NT = _fake(q_TNH, k_TNH, v_TNH, cu_seqlens, scale, causal)
    packed = tuple(map(_side_by_side, (q_TNH, k_TNH, v_TNH)))
    for part in _sequences(cu_seqlens):
        context_1NSH, logsumexp_1NS = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            *(_heads_first(x[part]) for x in packed), 0.0, causal, scale=scale
        )
        context_TNH[part] = context_1NSH[0].transpose(0, 1)
        logsumexp_NT[:, part] = logsumexp_1NS[0]
    return context_TNH, logsumexp_NT


@torch.library.impl(_LIBRARY, "packed_context", "CPU")
def _context(
    q_TNH: Tensor, k_TNH: Tensor, v_TNH: Tensor, cu_seqlens: Tensor, scale: float, causal: bool, rounds: bool
) -> Tensor:
    """The context (T, N, H) for those who want no gradient: of short sequences by two plain products."""
    if causal or q_TNH.dtype is not torch.float32:
        return _forward(q_TNH, k_TNH, v_TNH, cu_seqlens, scale, causal)[0]
    context_TNH = _fake_context(q_TNH, k_TNH, v_TNH, cu_seqlens, scale, causal, rounds)
    packed = tuple(map(_side_by_side, (q_TNH, k_TNH, v_TNH)))
    for part in _sequences(cu_seqlens):
        q_SNH, k_SNH, v_SNH = (x[part] for x in packed)
        if part.stop - part.start <= SHORT:
            probabilities_NSS = torch.bmm(q_SNH.transpose(0, 1) * scale, k_SNH.permute(1, 2, 0)).softmax(-1)
            context_TNH[part] = torch.bmm(probabilities_NSS, v_SNH.transpose(0, 1)).transpose(0, 1)
        elif rounds and has_integer_attention():
            integer_attention(q_SNH, k_SNH, v_SNH, scale, context_TNH[part])
        else:
            context_NSH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                *map(_heads_first, (q_SNH, k_SNH, v_SNH)), 0.0, causal, scale=scale
            )[0][0]
            context_TNH[part] = context_NSH.transpose(0, 1)
    return context_TNH


@torch.library.register_fake("xlmr::packed_context", lib=_LIBRARY)
def _fake_context(
    q_TNH: Tensor, k_TNH: Tensor, v_TNH: Tensor, cu_seqlens: Tensor, scale: float, causal: bool, rounds: bool
) -> Tensor:
    return _fake(q_TNH, k_TNH, v_TNH, cu_seqlens, scale, causal)[0]


@torch.library.register_fake("xlmr::packed_attention", lib=_LIBRARY)
def _fake(
    q_TNH: Tensor, k_TNH: Tensor, v_TNH: Tensor, cu_seqlens: Tensor, scale: float, causal: bool
) -> tuple[Tensor, Tensor]:
    # PyTorch's kernel divides by zero, or reads what is not there, where these differ.
    if not (q_TNH.shape == k_TNH.shape == v_TNH.shape and q_TNH.dtype == k_TNH.dtype == v_TNH.dtype):
        received = ", ".join(f"{tuple(x.shape)} of {x.dtype}" for x in (q_TNH, k_TNH, v_TNH))
        raise InputError(
            f"packed attention expected queries, keys and values of one shape and one dtype, received {received}; "
            "set_packing('never') lets PyTorch decide"
        )
    statistics = torch.promote_types(q_TNH.dtype, torch.float32)
    return q_TNH.new_empty(q_TNH.shape), q_TNH.new_empty((q_TNH.shape[1], q_TNH.shape[0]), dtype=statistics)


@torch.library.impl(_LIBRARY, "packed_attention_backward", "CPU")
def _backward(
    gradient_TNH: Tensor,
    q_TNH: Tensor,
    k_TNH: Tensor,
    v_TNH: Tensor,
    context_TNH: Tensor,
    logsumexp_NT: Tensor,
    cu_seqlens: Tensor,
    scale: float,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values."""
    gradients = tuple(x.new_empty(x.shape) for x in (q_TNH, k_TNH, v_TNH))
    packed = tuple(map(_side_by_side, (gradient_TNH, q_TNH, k_TNH, v_TNH, context_TNH)))
    for part in _sequences(cu_seqlens):
        found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            *(_heads_first(x[part]) for x in packed), logsumexp_NT[None, :, part].contiguous(), 0.0, causal, scale=scale
        )
        for whole, found_1NSH in zip(gradients, found, strict=True):
            whole[part] = found_1NSH[0].transpose(0, 1)
    return gradients


@torch.library.register_fake("xlmr::packed_attention_backward", lib=_LIBRARY)
def _fake_backward(
    gradient_TNH: Tensor, q_TNH: Tensor, k_TNH: Tensor, v_TNH: Tensor, *others: object
) -> tuple[Tensor, Tensor, Tensor]:
    return q_TNH.new_empty(q_TNH.shape), k_TNH.new_empty(k_TNH.shape), v_TNH.new_empty(v_TNH.shape)


def _save(ctx: torch.autograd.function.FunctionCtx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    q_TNH, k_TNH, v_TNH, cu_seqlens, ctx.scale, ctx.causal = inputs
    ctx.save_for_backward(q_TNH, k_TNH, v_TNH, *output, cu_seqlens)


def _gradient(ctx: torch.autograd.function.FunctionCtx, gradient_TNH: Tensor, _: Tensor | None) -> tuple:
    found = torch.ops.xlmr.packed_attention_backward(gradient_TNH, *ctx.saved_tensors, ctx.scale, ctx.causal)
    return *found, None, None, None


torch.library.register_autograd("xlmr::packed_attention", _gradient, setup_context=_save, lib=_LIBRARY)


def _side_by_side(x_TNH: Tensor) -> Tensor:
    """The same with the values of a head side by side, as PyTorch's kernel takes them to be."""
    return x_TNH if x_TNH.stride(-1) == 1 else x_TNH.contiguous()


def _sequences(cu_seqlens: Tensor) -> Iterator[slice]:
    """The tokens of each sequence that has any."""
    bounds = cu_seqlens.tolist()
    return (slice(start, end) for start, end in pairwise(bounds) if start < end)


def _heads_first(x_SNH: Tensor) -> Tensor:
    return x_SNH.transpose(0, 1).unsqueeze(0)


def _dropping(
    q_TNH: Tensor, k_TNH: Tensor, v_TNH: Tensor, cu_seqlens: Tensor, scale: float, dropout: float, causal: bool
) -> Tensor:
    """With dropout, for which the CPU has no fused kernel: PyTorch's own choice for each sequence."""
    # Divided at once, so that the gradients are put together at once: that of a slice is as large as the whole.
    lengths = [part.stop - part.start for part in _sequences(cu_seqlens)]
    contexts = [
        F.scaled_dot_product_attention(*map(_heads_first, own), None, dropout, is_causal=causal, scale=scale)
        for own in zip(*(x.split(lengths) for x in (q_TNH, k_TNH, v_TNH)), strict=True)
    ]
    return torch.cat([context_1NSH[0].transpose(0, 1) for context_1NSH in contexts])


# ---- CUDA


def can_be_causal(device: torch.device, dtype: torch.dtype, head_size: int) -> bool:
    """Whether packed attention can be causal: nested tensors are so only in fused kernels, which take these dtypes and
    sizes.
    """
    fused = dtype in (torch.float32, torch.bfloat16, torch.float16) and head_size % 8 == 0
    return device.type != "cuda" or fused


def _nested(
    q_TNH: Tensor, k_TNH: Tensor, v_TNH: Tensor, packing: Packing, scale: float, dropout: float, causal: bool
) -> Tensor:
    def ragged(x_TNH: Tensor) -> Tensor:
        # The bounds need only hold. The true ones would have to be read from the device, in every layer.
        bounds = {"min_seqlen": 1, "max_seqlen": packing.length}
        return torch.nested.nested_tensor_from_jagged(x_TNH, packing.cu_seqlens, **bounds).transpose(1, 2)

    query, key, value = ragged(q_TNH), ragged(k_TNH), ragged(v_TNH)
    context = F.scaled_dot_product_attention(query, key, value, None, dropout, is_causal=causal, scale=scale)
    return context.transpose(1, 2).values()
