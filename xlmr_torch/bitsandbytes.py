"""Layers as bitsandbytes has them, without it; what they hold is in ``xlmr_core/quantization/bitsandbytes.py``.

Weights are widened once a call, exactly, and multiplied in the dtype that ``bnb_4bit_compute_dtype`` says (8 bits: in
that of the inputs). bitsandbytes itself rounds activations to 8 bits too where weights have 8, which this does not:
answers lie closer to the original model's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from xlmr_core.parameters import Parameter
from xlmr_core.quantization import BitsAndBytes, BitsAndBytesConfig, Scheme
from xlmr_core.quantization.asked import refuse_drawing, refuse_training
from xlmr_core.quantization.bitsandbytes import FORMAT, SCB, STATE, State, state_of
from xlmr_torch.cuda_four_bit import has_kernel, product
from xlmr_torch.placement import TAG_OF_DTYPE
from xlmr_torch.widening import WidenedLinear, from_codes, frozen, pairs_of

__all__ = ["Linear4bit", "Linear8bitLt", "Params4bit", "encoded", "layer", "state_in"]

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Params4bit(nn.Parameter):
    """Codes. By this name libraries of adapters know that a tensor of a float dtype holds none of its values."""

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """As of any parameter.

        Raises:
            InputError: if it is to be trained.
        """
        if requires_grad:
            refuse_training("bitsandbytes")
        return super().requires_grad_(requires_grad)


def encoded(scheme: BitsAndBytes, weight: Tensor) -> dict[str, Tensor]:
    """The tensors of a weight by suffix: the very bits of the scheme's ``encode``."""
    weight = weight.detach()
    scheme = scheme.of_dtype(TAG_OF_DTYPE.get(weight.dtype, "F32"))
    storage = _DTYPES.get(scheme.config.bnb_4bit_quant_storage)
    found = {suffix: torch.from_numpy(x.copy()) for suffix, x in scheme.encode(weight.float().cpu().numpy()).items()}
    if scheme.kind != "int8" and storage is not None:
        found[""] = found[""].view(storage)
    return {suffix: x.to(weight.device) for suffix, x in found.items()}


def layer(scheme: Scheme, row: Parameter, tensors: Mapping[str, Tensor], bias: Tensor | None) -> nn.Module:
    """The layer of a weight that is stored in these tensors, by suffix."""
    assert isinstance(scheme, BitsAndBytes) and bias is not None
    if SCB in tensors:
        return Linear8bitLt(bias, tensors[""], tensors[SCB], tensors[FORMAT])
    return Linear4bit(row.shape, bias, tensors, _DTYPES[scheme.config.bnb_4bit_compute_dtype])


def state_in(module: nn.Module) -> State:
    """What lies beside the codes of a layer."""
    if isinstance(module, Linear8bitLt):
        return State("int8", storage="I8", shape=(module.out_features, module.in_features))
    assert isinstance(module, Linear4bit) and module.state is not None
    return module.state


class Linear4bit(WidenedLinear):
    """A linear layer of four bit codes in blocks that go across rows.

    Args:
        shape: (N, K).
        bias: (N,).
        tensors: by suffix, as a file has them.
        compute_dtype: of products.
    """

    weight: Tensor
    weight_absmax: Tensor
    weight_quant_map: Tensor
    weight_nested_absmax: Tensor
    weight_nested_quant_map: Tensor
    weight_quant_state: Tensor
    pairs: Tensor

    def __init__(
        self, shape: tuple[int, ...], bias: Tensor, tensors: Mapping[str, Tensor], compute_dtype: torch.dtype
    ) -> None:
        super().__init__(shape[0], shape[1], bias)
        self.compute_dtype, self.state = compute_dtype, None
        for suffix, tensor in tensors.items():
            stored = f"weight{suffix}"
            name = "weight_quant_state" if suffix.startswith(STATE) else stored.replace(".", "_")
            self.register_parameter(name, frozen(tensor))
            if name != stored:
                self.stored_names[name] = stored
            self.kept = (*self.kept, name)
        self.register_buffer("pairs", torch.empty(0, dtype=torch.int64, device="cpu"), persistent=False)
        self.settle()

    def settle(self) -> None:
        if self.weight.is_meta:
            return
        if type(self.weight) is not Params4bit:
            self.weight = Params4bit(self.weight.data, False)
        text = self.weight_quant_state.cpu().numpy().tobytes()
        self.state: State | None = state_of(text, "the weight", TAG_OF_DTYPE[self.weight.dtype])
        self.alignment = self.state.block  # so many rows are whole blocks
        self.pairs = pairs_of(self.weight_quant_map.data)

    def product_dtype(self, x: Tensor) -> torch.dtype:
        return self.compute_dtype

    def by_kernel(self, x: Tensor) -> Tensor | None:
        state = self.state
        assert state is not None
        # An odd number of values ends with a filler.
        if not has_kernel(x, state.block) or 2 * self.weight.nbytes != self.out_features * self.in_features:
            return None
        codes = self.weight.data.view(torch.uint8)
        scales = self._scales(0, self.weight_absmax.numel())
        return product(x, codes, scales, self.weight_quant_map, state.kind, state.block, _DTYPES[state.dtype])

    def rows(self, begin: int, end: int) -> Tensor:
        state = self.state
        assert state is not None
        first, last = begin * self.in_features, end * self.in_features
        codes = self.weight.data.view(torch.uint8).view(-1)[first // 2 : -(-last // 2)]
        scales = self._scales(first // state.block, -(-last // state.block))
        values = from_codes(codes, self.pairs, scales, state.block)
        # The last half byte may be a filler.
        return values[: last - first].view(end - begin, self.in_features).to(_DTYPES[state.dtype])

    def _scales(self, begin: int, end: int) -> Tensor:
        """The largest magnitudes of some blocks, float32."""
        state = self.state
        assert state is not None
        absmax = self.weight_absmax[begin:end]
        if not state.nested_block:
            return absmax
        numbers = torch.arange(begin, end, device=absmax.device)
        nested = self.weight_nested_absmax[numbers // state.nested_block]
        return self.weight_nested_quant_map[absmax.int()] * nested + state.nested_offset

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        text = state_dict.get(prefix + self.stored_names["weight_quant_state"])
        if text is not None and text.shape != self.weight_quant_state.shape:
            self.weight_quant_state = frozen(torch.empty_like(text, device=self.weight_quant_state.device))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def set_values(self, weight: Tensor) -> None:
        """Refuse fresh values: what lies beside a weight depends on them."""
        refuse_drawing()


class Linear8bitLt(WidenedLinear):
    """A linear layer of eight bits and a scale for each output."""

    weight: Tensor
    SCB: Tensor
    weight_format: Tensor

    def __init__(self, bias: Tensor, weight: Tensor, scales: Tensor, format: Tensor) -> None:
        super().__init__(weight.shape[0], weight.shape[1], bias)
        self.weight, self.SCB, self.weight_format = frozen(weight), frozen(scales), frozen(format)
        self.kept = ("weight", "SCB", "weight_format")

    def product_dtype(self, x: Tensor) -> torch.dtype:
        return x.dtype

    def rows(self, begin: int, end: int) -> Tensor:
        return self.weight[begin:end].float() * self.SCB[begin:end, None] * (1 / 127)

    @torch.no_grad()
    def set_values(self, weight: Tensor) -> None:
        """Quantize a float weight into this layer's parameters."""
        parts = BitsAndBytes(BitsAndBytesConfig(load_in_8bit=True)).encode(weight.float().cpu().numpy())
        self.weight.copy_(torch.from_numpy(parts[""]))
        self.SCB.copy_(torch.from_numpy(parts[SCB]))
        self.weight_format.zero_()
