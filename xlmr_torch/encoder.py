"""The bare model: a call is read, planned and run. Base and XL differ in where the norms stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from xlmr_core.calls import Call, Plan, called_like
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.heads import HEADS
from xlmr_core.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from xlmr_core.packing import Needs
from xlmr_core.resizing import heads_to_prune_now
from xlmr_torch.embeddings import Embeddings
from xlmr_torch.inputs import is_traced, read
from xlmr_torch.kernels import check_attn_implementation
from xlmr_torch.layers import Layer, Pooler
from xlmr_torch.packing import Packing
from xlmr_torch.plan import plan
from xlmr_torch.pretrained import PreTrainedModel

__all__ = ["Encoded", "EncoderModel"]


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
        """(n, ...) of a padded (B, S, ...), in the order of the flattened ``states``; what packing left out is left
        out.
        """
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

    def forward(self, x: Tensor, plan: Plan) -> Encoded:
        """(..., D) through all layers."""
        hidden_states, attentions, cross_attentions = [x], [], []
        for number, layer in enumerate(self.layer):
            recompute = self.gradient_checkpointing and self.training
            run = recomputed(layer, self.gradient_checkpointing_kwargs) if recompute else layer
            x, weights, cross_weights = run(x, plan, number)
            if plan.output_hidden_states:
                hidden_states.append(x)
            attentions.append(weights)
            cross_attentions.append(cross_weights)
        if self.LayerNorm is not None:
            x = self.LayerNorm(x)
            hidden_states[-1] = x if plan.output_hidden_states else hidden_states[-1]
        encoded = Encoded(x, plan.attention.packing)
        if plan.output_hidden_states:
            encoded.hidden_states = tuple(encoded.unpack(states) for states in hidden_states)
        if plan.output_attentions:
            encoded.attentions = tuple(attentions)
            encoded.cross_attentions = tuple(cross_attentions) if plan.memory_attention is not None else None
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
        self.has_cross_attention = config.add_cross_attention
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
        call: Call[Tensor] | None = None,
        needs: Needs[Tensor] | None = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions[Tensor]:
        """Encode a batch.

        Args:
            input_ids: integers (B, S).
            attention_mask: (B, S) of 0 and 1, or (B, S, S) with a row a query; default: attend everywhere.
            token_type_ids: integers (B, S); default zeros.
            position_ids: integers (B, S) or (1, S); default: from the padding of ``input_ids``.
            head_mask: (N,) or (layers, N), factors of the heads' attention probabilities.
            inputs_embeds: floats (B, S, D) in place of ``input_ids``.
            encoder_hidden_states: floats (B, M, D) that a decoder with cross-attention attends to.
            encoder_attention_mask: (B, M) of 0 and 1.
            past_key_values, use_cache, cache_position: the published places of a decoder's cache; this release computes
                without one.
            output_attentions: return the probabilities; selects the ``eager`` kernel on padded tokens.
            output_hidden_states: return the states after the embeddings and after each layer.
            return_dict: ``False`` returns a tuple.
            call, needs: for heads only, which have read the inputs already and say what they read of the states: return
                :class:`Encoded`.

        Returns:
            :class:`~xlmr_core.outputs.BaseModelOutputWithPoolingAndCrossAttentions`.

        Raises:
            InputError: for inputs of a wrong shape, dtype or range.
        """
        if call is not None:
            return self.run(call, plan(self, call, needs or Needs()))
        call = read(
            self,
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            inputs_embeds=inputs_embeds,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=past_key_values,
            cache_position=cache_position,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        encoded = self.run(call, plan(self, call, Needs(first_token=self.pooler is not None)))
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

    if TYPE_CHECKING:

        @called_like(forward)
        def __call__(self) -> None: ...

    def run(self, call: Call[Tensor], plan: Plan) -> Encoded:
        """Compute the states of a call as planned."""
        packing = plan.attention.packing
        x = self.embeddings(call.input_ids, call.inputs_embeds, call.token_type_ids, call.position_ids, packing=packing)
        if packing is not None and self.encoder._compiled_call_impl is not None and not is_traced():
            # Without this a first batch with as many tokens as there are hidden units would be compiled for that number
            # alone.
            for tensor in (x, packing.indices_T, packing.cu_seqlens):
                torch._dynamo.maybe_mark_dynamic(tensor, 0)
        return self.encoder(x, plan)

    @property
    def _states_dtype(self) -> torch.dtype:
        """The dtype of the states between the layers; matrices may be narrower."""
        return self.embeddings.token_type_embeddings.weight.dtype

    def prune_heads(self, heads_to_prune: dict[int, list[int]]) -> None:
        """Remove attention heads for good (Michel et al. 2019).

        Args:
            heads_to_prune: heads by layer, by their original numbers; ones already gone are passed over.

        Raises:
            ConfigError: for heads or layers that the model does not have, or if a layer would be left without any.
        """
        self._refuse_quantized("prune_heads")
        going, pruned = heads_to_prune_now(self.config, heads_to_prune)
        for layer, heads in going.items():
            self.encoder.layer[layer].attention.prune_heads(heads)
        self.config.pruned_heads = pruned

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embeddings.word_embeddings = value


def recomputed(layer: nn.Module, options: dict[str, Any]) -> Callable[..., tuple[Tensor, Tensor | None, Tensor | None]]:
    """The same layer, whose activations are computed once more in the backward pass in place of being kept.

    Args:
        layer: the layer.
        options: of ``torch.utils.checkpoint.checkpoint``.
    """

    def run(x: Tensor, plan: Plan, number: int) -> Any:
        # The memory goes in by itself: of tensors inside a plan the reentrant way would not see that they want
        # gradients.
        def computed(x: Tensor, memory_BMD: Tensor | None) -> Any:
            return layer(x, replace(plan, memory_BMD=memory_BMD), number)

        return checkpoint(computed, x, plan.memory_BMD, **options)

    return run
