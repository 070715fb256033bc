"""The bare model: checks, packing, embeddings, layers, pooler. Base and XL differ in where the norms stand."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.heads import HEADS
from xlmr_core.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from xlmr_torch.checks import check_encoder_inputs, check_mask, check_tensors, is_concrete, is_traced
from xlmr_torch.embeddings import Embeddings
from xlmr_torch.kernels import AttentionPlan, causal_keep, check_attn_implementation, mask_bias
from xlmr_torch.layers import Layer, Pooler
from xlmr_torch.packed_attention import can_be_causal
from xlmr_torch.packing import Packing, choose_packing
from xlmr_torch.pretrained import PreTrainedModel

__all__ = ["Encoded", "EncoderModel", "Needs"]


@dataclass(frozen=True)
class Needs:
    """What a head will read of the encoder's states; decides whether a batch may be packed.

    Attributes:
        first_token: the state at position 0.
        positions_BS: bool (B, S), positions whose state counts even where the mask is 0.
        every_position: all of them, masked or not.
    """

    first_token: bool = False
    positions_BS: Tensor | None = None
    every_position: bool = False


@dataclass
class Encoded:
    """The states after the last layer, packed or padded, and how to read them."""

    states: Tensor
    packing: Packing | None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None

    def first_tokens(self) -> Tensor:
        """(B, D): the state at position 0."""
        return self.states[:, 0] if self.packing is None else self.packing.first_tokens(self.states)

    def at(self, flat_positions: Tensor) -> Tensor:
        """(n, D): the states at flat positions (row * length + column), which packing must not have left out."""
        if self.packing is None:
            return self.states.flatten(0, 1).index_select(0, flat_positions)
        return self.states.index_select(0, self.packing.locate(flat_positions))

    def rows(self, x_BS: Tensor) -> Tensor:
        """(n, ...) of a padded (B, S, ...), in the order of the flattened ``states``; what packing left out is left out."""
        return x_BS.flatten(0, 1) if self.packing is None else self.packing.pack(x_BS)

    def unpack(self, x: Tensor, fill: float = 0.0) -> Tensor:
        """(B, S, ...) of a token-wise result of ``states``; ``fill`` where packing left a position out."""
        return x if self.packing is None else self.packing.unpack(x, fill)


class Encoder(nn.Module):
    """The stack of layers; in XL with a last norm."""

    LayerNorm: nn.LayerNorm | None

    def __init__(self, config: XLMRobertaConfig, *, pre_norm: bool) -> None:
        super().__init__()
        # ---- Layers
        self.layer = nn.ModuleList(
            Layer(config, number, pre_norm=pre_norm) for number in range(config.num_hidden_layers)
        )
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if pre_norm else None
        self.gradient_checkpointing = False
        self.gradient_checkpointing_kwargs: dict[str, Any] = {}

    def forward(
        self,
        x: Tensor,
        plan: AttentionPlan,
        head_mask_LN: Tensor | None,
        memory_BTD: Tensor | None,
        memory_plan: AttentionPlan | None,
        output_hidden_states: bool,
    ) -> Encoded:
        """(..., D) through all layers."""
        hidden_states, attentions, cross_attentions = [x], [], []
        for number, layer in enumerate(self.layer):
            head_mask_N = None if head_mask_LN is None else head_mask_LN[number]
            arguments = (x, plan, head_mask_N, memory_BTD, memory_plan)
            if self.gradient_checkpointing and self.training:
                x, weights, cross_weights = checkpoint(layer, *arguments, **self.gradient_checkpointing_kwargs)
            else:
                x, weights, cross_weights = layer(*arguments)
            if output_hidden_states:
                hidden_states.append(x)
            attentions.append(weights)
            cross_attentions.append(cross_weights)
        if self.LayerNorm is not None:
            x = self.LayerNorm(x)
            hidden_states[-1] = x if output_hidden_states else hidden_states[-1]
        encoded = Encoded(x, plan.packing)
        if output_hidden_states:
            encoded.hidden_states = tuple(encoded.unpack(states) for states in hidden_states)
        if plan.return_weights:
            encoded.attentions = tuple(attentions)
            encoded.cross_attentions = tuple(cross_attentions) if memory_BTD is not None else None
        return encoded


class EncoderModel(PreTrainedModel):
    """The encoder of one family. Subclasses say where the norms stand.

    Args:
        config: the model's configuration.
        add_pooling_layer: whether there is a pooler.
    """

    _task_head = HEADS["Model"]
    pre_norm: bool
    pooler: Pooler | None

    def __init__(self, config: XLMRobertaConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        # ---- Layers
        self.embeddings = Embeddings(config, norm=not self.pre_norm)
        self.encoder = Encoder(config, pre_norm=self.pre_norm)
        self.pooler = Pooler(config) if add_pooling_layer else None
        # ---- Config
        self._attn_implementation = check_attn_implementation(config._attn_implementation or "sdpa")
        self._packing = "auto"
        self._has_cross_attention = config.add_cross_attention
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        cache_position: Tensor | None = None,
        *,
        needs: Needs | None = None,
    ) -> Any:
        """Encode a batch.

        Args:
            input_ids: integers (B, S).
            attention_mask: (B, S) of 0 and 1, or (B, S, S) with a row a query; default: attend everywhere.
            token_type_ids: integers (B, S); default zeros.
            position_ids: integers (B, S) or (1, S); default: from the padding of ``input_ids``.
            head_mask: (N,) or (layers, N), factors of the heads' attention probabilities.
            inputs_embeds: floats (B, S, D) in place of ``input_ids``.
            encoder_hidden_states: floats (B, S', D) that a decoder with cross-attention attends to.
            encoder_attention_mask: (B, S') of 0 and 1.
            past_key_values, use_cache, cache_position: the published places of a decoder's cache; this release computes without one.
            output_attentions: return the probabilities; selects the ``eager`` kernel on padded tokens.
            output_hidden_states: return the states after the embeddings and after each layer.
            return_dict: ``False`` returns a tuple.
            needs: for heads only: return :class:`Encoded` and say what will be read.

        Returns:
            :class:`~xlmr_core.outputs.BaseModelOutputWithPoolingAndCrossAttentions`.

        Raises:
            InputError: for inputs of a wrong shape, dtype or range.
        """
        config = self.config
        batch, length = check_encoder_inputs(
            config,
            input_ids=input_ids,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
        )
        if config.position_embedding_type != "absolute" and length > config.max_position_embeddings:
            raise InputError(
                f"sequence has {length} tokens, relative positions reach {config.max_position_embeddings}; shorten it"
            )
        self._check_decoder_inputs(
            batch, encoder_hidden_states, encoder_attention_mask, past_key_values, cache_position
        )
        if attention_mask is None and input_ids is not None:
            _warn_of_attended_padding(input_ids, config.pad_token_id)
        output_attentions = config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        check_tensors(head_mask=head_mask)
        head_mask_LN = self._head_mask(head_mask)
        asked = Needs(first_token=self.pooler is not None) if needs is None else needs

        source = inputs_embeds if input_ids is None else input_ids
        assert source is not None
        compiled = is_traced() or self.encoder._compiled_call_impl is not None
        packing = None
        if (
            self.attn_implementation != "eager"
            and config.position_embedding_type == "absolute"
            and not (output_attentions or asked.every_position)
            and head_mask_LN is None
            and encoder_hidden_states is None
            and (attention_mask is None or attention_mask.dim() == 2)
            and not (compiled and self.training and config.attention_probs_dropout_prob > 0)
            and not (config.is_decoder and not can_be_causal(source.device, self.dtype, config.head_size))
        ):
            packing = choose_packing(
                self.packing,
                attention_mask,
                batch,
                length,
                source.device,
                first_token=asked.first_token,
                needed_BS=asked.positions_BS,
            )
        x = self.embeddings(input_ids, inputs_embeds, token_type_ids, position_ids, packing)
        plan = self._attention_plan(x, attention_mask, length, packing, bool(output_attentions))
        memory_plan = None
        if encoder_hidden_states is not None:
            encoder_hidden_states = encoder_hidden_states.to(x.dtype)
            memory_plan = self._attention_plan(x, encoder_attention_mask, None, None, bool(output_attentions))
        if compiled and packing is not None and not is_traced():
            # Without this a first batch with as many tokens as there are hidden units would be compiled for that number alone.
            for tensor in (x, packing.indices_T, packing.cu_seqlens):
                torch._dynamo.maybe_mark_dynamic(tensor, 0)
        encoded = self.encoder(x, plan, head_mask_LN, encoder_hidden_states, memory_plan, bool(output_hidden_states))
        if needs is not None:
            return encoded
        return self.finish(
            BaseModelOutputWithPoolingAndCrossAttentions(
                last_hidden_state=encoded.unpack(encoded.states),
                pooler_output=None if self.pooler is None else self.pooler(encoded.first_tokens()),
                hidden_states=encoded.hidden_states,
                attentions=encoded.attentions,
                cross_attentions=encoded.cross_attentions,
            ),
            return_dict,
        )

    def _attention_plan(
        self, x: Tensor, mask: Tensor | None, length: int | None, packing: Packing | None, return_weights: bool
    ) -> AttentionPlan:
        """How to attend: self-attention has a ``length`` and may be causal, cross-attention has none."""
        # A mask with a row for each query has said everything already, as published.
        causal = self.config.is_decoder and length is not None and (mask is None or mask.dim() == 2)
        implementation = "eager" if return_weights else self.attn_implementation
        if packing is not None:
            return AttentionPlan(implementation, causal=causal, packing=packing)
        bias = None
        # A mask without zeros needs no bias; whether it has any is looked at only where that costs nothing.
        if mask is not None and not (is_concrete(mask) and bool((mask != 0).all())):
            keep = (mask != 0)[:, None] if mask.dim() == 3 else (mask != 0)[:, None, None]
            empty_rows = is_concrete(mask) and not bool((mask != 0).any(-1).all())
            if causal:
                assert length is not None
                keep = keep & causal_keep(length, mask.device)
                empty_rows = empty_rows or (is_concrete(mask) and not bool((mask[:, 0] != 0).all()))
            dtype = x.dtype
            if torch.amp.is_autocast_available(x.device.type) and torch.is_autocast_enabled(x.device.type):
                dtype = torch.get_autocast_dtype(x.device.type)
            # A query without keys attends uniformly. float16's range is too small for a bias that makes it so, and the fused kernel's
            # backward pass loses the number of keys there (its gradients come out as many times too large).
            if empty_rows and (dtype is torch.float16 or torch.is_grad_enabled()):
                implementation = "eager"
            bias = mask_bias(keep, dtype)
        return AttentionPlan(implementation, bias, causal, return_weights=return_weights)

    def _head_mask(self, head_mask: Tensor | None) -> Tensor | None:
        """The head mask as (layers, N)."""
        if head_mask is None:
            return None
        layers, heads = self.config.num_hidden_layers, self.config.num_attention_heads
        if tuple(head_mask.shape) not in ((heads,), (layers, heads)):
            raise InputError(
                f"head_mask must have the shape {(heads,)} or {(layers, heads)}, received {tuple(head_mask.shape)}"
            )
        return head_mask.expand(layers, heads)

    def _check_decoder_inputs(
        self, batch: int, states: Tensor | None, mask: Tensor | None, cache: Any, cache_position: Any
    ) -> None:
        for name, value in (("past_key_values", cache), ("cache_position", cache_position)):
            if value is not None:
                raise InputError(
                    f"{name} is not supported by this release: expected None; compute the whole sequence, or use logits_to_keep"
                )
        check_tensors(encoder_hidden_states=states, encoder_attention_mask=mask)
        if states is None:
            return
        config = self.config
        if not self._has_cross_attention:
            raise InputError(
                "encoder_hidden_states needs a decoder with cross-attention, which a model has from its building on: build or load it with "
                "is_decoder=True, add_cross_attention=True"
            )
        if states.dim() != 3 or 0 in states.shape or (states.shape[0], states.shape[2]) != (batch, config.hidden_size):
            raise InputError(
                f"encoder_hidden_states must have the shape ({batch}, source length, {config.hidden_size}), received {tuple(states.shape)}"
            )
        if mask is not None and mask.shape != states.shape[:2]:
            raise InputError(
                f"encoder_attention_mask must have the shape {tuple(states.shape[:2])}, received {tuple(mask.shape)}"
            )
        check_mask(config, "encoder_attention_mask", mask)

    def prune_heads(self, heads_to_prune: dict[int, list[int]]) -> None:
        """Remove attention heads for good (Michel et al. 2019).

        Args:
            heads_to_prune: heads by layer, by their original numbers; ones already gone are passed over.

        Raises:
            ConfigError: for heads or layers that the model does not have, or if a layer would be left without any.
        """
        self._refuse_quantized("prune_heads")
        pruned = {layer: set(heads) for layer, heads in self.config.pruned_heads.items()}
        for layer, heads in heads_to_prune.items():
            pruned[layer] = pruned.get(layer, set()) | set(heads)
        self.config.copy(pruned_heads=pruned)  # checks before anything is changed
        for layer, heads in heads_to_prune.items():
            gone = set(heads) - set(self.config.pruned_heads.get(layer, []))
            if gone:
                self.encoder.layer[layer].attention.prune_heads(gone)
        self.config.pruned_heads = {layer: sorted(heads) for layer, heads in pruned.items()}

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embeddings.word_embeddings = value


def _warn_of_attended_padding(input_ids: Tensor, pad_token_id: int) -> None:
    """Say that padding is attended to because no mask came with it."""
    if is_concrete(input_ids) and bool((input_ids[:, [0, -1]] == pad_token_id).any()):
        warnings.warn(
            "input_ids holds padding and no attention_mask was passed, so padding is attended to; pass the tokenizer's attention_mask",
            UserWarning,
            stacklevel=2,
        )
