"""Published names of PyTorch models that other libraries, and scripts of the original one, call or read.

The ones with an underscore are there because others read them: what they say is true of every model here.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from xlmr_core.checks import warn_of_attended_padding
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_torch.inputs import see
from xlmr_torch.kernels import causal_keep, check_attn_implementation, mask_bias
from xlmr_torch.placement import find_dtype
from xlmr_torch.values import tensor_at

__all__ = ["PublishedNames"]


class PublishedNames(nn.Module):
    """The part of a model that only others need."""

    config: XLMRobertaConfig
    base_model: Any
    dtype: torch.dtype
    num_parameters: Any
    init_weights: Any
    set_attn_implementation: Any
    gradient_checkpointing_enable: Any
    gradient_checkpointing_disable: Any
    is_gradient_checkpointing: bool

    framework: ClassVar[str] = "pt"
    is_parallelizable: ClassVar[bool] = False
    supports_tp_plan: ClassVar[bool] = False
    supports_pp_plan: ClassVar[bool] = False
    tp_size: ClassVar[int | None] = None
    model_tags: list[str] | None = None

    _supports_sdpa: ClassVar[bool] = True
    _supports_flash_attn: ClassVar[bool] = False
    _supports_flash_attn_2: ClassVar[bool] = False
    _supports_flex_attn: ClassVar[bool] = False
    _supports_attention_backend: ClassVar[bool] = False
    _supports_cache_class: ClassVar[bool] = False
    _supports_static_cache: ClassVar[bool] = False
    _is_stateful: ClassVar[bool] = False
    _hf_peft_config_loaded: ClassVar[bool] = False
    _no_split_modules: ClassVar[list[str] | None] = None
    _tied_weights_keys: ClassVar[dict[str, str] | None] = None
    _skip_keys_device_placement: ClassVar[list[str] | None] = None
    _keep_in_fp32_modules: ClassVar[list[str] | None] = None
    _keys_to_ignore_on_save: ClassVar[list[str] | None] = None
    _keys_to_ignore_on_load_missing: ClassVar[list[str] | None] = None
    _keys_to_ignore_on_load_unexpected: ClassVar[list[str] | None] = None
    _auto_class: ClassVar[str | None] = None
    _tp_plan: ClassVar[dict[str, str] | None] = None
    _pp_plan: ClassVar[dict[str, Any] | None] = None

    # ---- Masks

    def get_extended_attention_mask(
        self,
        attention_mask: Tensor,
        input_shape: tuple[int, ...],
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """The additive mask that layers take: 0 where a position is attended to, else the dtype's smallest number.

        Args:
            attention_mask: (B, S) or (B, S, S) of 0 and 1.
            input_shape: (B, S).
            device: of the published signature; the mask stays where it is.
            dtype: of the result; the model's by default.

        Returns:
            (B, 1, 1, S), or (B, 1, S, S) for a mask of three axes and for a decoder.

        Raises:
            InputError: for a mask of another number of axes.
        """
        keep = attention_mask != 0
        if keep.dim() not in (2, 3):
            raise InputError(
                f"attention_mask must have shape (B, S) or (B, S, S), received {tuple(keep.shape)}; "
                "pass the mask of the tokenizer"
            )
        if keep.dim() == 3:
            return mask_bias(keep[:, None], dtype or self.dtype)
        keep = keep[:, None, None]
        if self.config.is_decoder:
            keep = keep & causal_keep(input_shape[1], keep.device)
        return mask_bias(keep, dtype or self.dtype)

    def invert_attention_mask(self, encoder_attention_mask: Tensor) -> Tensor:
        """The additive mask (B, 1, 1, M), or (B, 1, S, M), of what cross-attention attends to; see
        :meth:`get_extended_attention_mask`.
        """
        keep = encoder_attention_mask != 0
        return mask_bias(keep[:, None] if keep.dim() == 3 else keep[:, None, None], self.dtype)

    @staticmethod
    def create_extended_attention_mask_for_decoder(
        input_shape: tuple[int, ...], attention_mask: Tensor, device: torch.device | None = None
    ) -> Tensor:
        """(B, 1, S, S) of 0 and 1: what is attended to by a position that sees itself and its predecessors.

        Args:
            input_shape: (B, S).
            attention_mask: (B, S) of 0 and 1.
            device: of the published signature; the mask stays where it is.
        """
        causal = causal_keep(input_shape[1], attention_mask.device).to(attention_mask.dtype)
        return causal[None, None] * attention_mask[:, None, None]

    def get_head_mask(
        self, head_mask: Tensor | None, num_hidden_layers: int, is_attention_chunked: bool = False
    ) -> Tensor | list[None]:
        """Head masks as layers take them, one a layer.

        Args:
            head_mask: (N,) or (layers, N), or ``None``.
            num_hidden_layers: how many.
            is_attention_chunked: one more axis at the end.

        Returns:
            (layers, 1, N, 1, 1), or as many ``None``.
        """
        if head_mask is None:
            return [None] * num_hidden_layers
        rows = head_mask.expand(num_hidden_layers, -1).to(self.dtype)[:, None, :, None, None]
        return rows.unsqueeze(-1) if is_attention_chunked else rows

    # ---- What a model is

    @classmethod
    def can_generate(cls) -> bool:
        """Whether there is a ``generate`` that continues texts."""
        return False

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return True

    @classmethod
    def is_backend_compatible(cls) -> bool:
        """Whether attention functions of other libraries can be put in: no."""
        return cls._supports_attention_backend

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """A small batch that the model takes."""
        return {"input_ids": torch.tensor([[0, 3, 4, 2], [0, 4, 3, 2]]) % self.config.vocab_size}

    def add_model_tags(self, tags: list[str] | str) -> None:
        """Add to ``model_tags``, words that other libraries write into a model card."""
        added = [tags] if isinstance(tags, str) else list(tags)
        known = self.model_tags or []
        self.model_tags = [*known, *(tag for tag in added if tag not in known)]

    def get_parameter_or_buffer(self, target: str) -> Tensor:
        """The tensor of a name.

        Raises:
            AttributeError: if there is none.
        """
        return tensor_at(self, target)

    # ---- What a call costs

    def estimate_tokens(self, input_dict: dict[str, Any]) -> int:
        """Number of ids in a batch."""
        ids = input_dict.get("input_ids")
        return 0 if ids is None else int(ids.numel())

    def floating_point_ops(self, input_dict: dict[str, Any], exclude_embeddings: bool = True) -> int:
        """About how many operations a training step takes: six for each token and parameter (Kaplan et al. 2020)."""
        parameters = self.num_parameters(exclude_embeddings=exclude_embeddings)
        return 6 * self.estimate_tokens(input_dict) * int(parameters)

    # ---- Other names of what there is

    @classmethod
    def _from_config(
        cls,
        config: XLMRobertaConfig,
        *,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        attn_implementation: str | None = None,
        **kwargs: Any,
    ) -> Self:
        model = cls(config, **kwargs)  # type: ignore[arg-type]
        if attn_implementation is not None:
            model.set_attn_implementation(attn_implementation)
        dtype = torch_dtype if dtype is None else dtype
        dtype = config.dtype if dtype == "auto" else dtype
        return model if dtype is None else model.to(find_dtype(dtype))

    def initialize_weights(self) -> None:
        """Draw fresh values for all parameters."""
        self.init_weights()

    def get_correct_attn_implementation(self, requested_attention: str | None, is_init_check: bool = False) -> str:
        """The name of an attention kernel, ``sdpa`` for ``None``.

        Raises:
            InputError: if there is none of that name.
        """
        return check_attn_implementation(requested_attention or "sdpa")

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: dict[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """The name of ``gradient_checkpointing_enable`` in later releases.

        Raises:
            InputError: for some layers only, or activations in the host's memory.
        """
        if every_n_layers != 1 or offload:
            raise InputError(
                "expected every_n_layers=1 and offload=False, as every layer is recomputed, "
                f"received {every_n_layers!r} and {offload!r}; leave them out"
            )
        self.gradient_checkpointing_enable(activation_checkpointing_kwargs)

    def activation_checkpointing_disable(self) -> None:
        """The name of ``gradient_checkpointing_disable`` in later releases."""
        self.gradient_checkpointing_disable()

    @property
    def is_activation_checkpointing(self) -> bool:
        """The name of ``is_gradient_checkpointing`` in later releases."""
        return self.is_gradient_checkpointing

    def warn_if_padding_and_no_attention_mask(self, input_ids: Tensor, attention_mask: Tensor | None) -> None:
        """Warn of padding that is attended to, as every call does."""
        seen = see("input_ids", input_ids)
        if attention_mask is None and seen is not None:
            warn_of_attended_padding(self.config, seen)
