"""The bare model: a call is read, planned and run. Base and XL differ in where the norms stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

from xlmr_core.cache import SeenCache, keeps_cache
from xlmr_core.calls import Call, Plan, called_like
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.heads import HEADS
from xlmr_core.outputs import BaseModelOutputWithPoolingAndCrossAttentions
from xlmr_core.packing import Needs
from xlmr_core.pretrained import recomputes_layers
from xlmr_core.resizing import heads_to_prune_now
from xlmr_torch.cache import Cache, Slots, Unchanged, new_cache, of_tokens, see_cache_of_model, tokens_counted
from xlmr_torch.embeddings import Embeddings
from xlmr_torch.inputs import is_traced, read
from xlmr_torch.kernels import check_attn_implementation
from xlmr_torch.layers import Layer, Pooler
from xlmr_torch.linear import values_follow
from xlmr_torch.packing import Packing
from xlmr_torch.plan import plan, plan_by_biases
from xlmr_torch.pretrained import PreTrainedModel
from xlmr_torch.values import first_float

__all__ = ["Encoded", "EncoderModel"]


@dataclass
class Encoded:
    """The states after the last layer, packed or padded, and how to read them.

    For those who look on it can also be read as what the published module returns there, by attribute and by index.
    """

    states: Tensor
    packing: Packing | None
    past_key_values: Any = None
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None

    @property
    def last_hidden_state(self) -> Tensor:
        """(B, S, D)."""
        return self.unpack(self.states)

    def output(self) -> BaseModelOutputWithPoolingAndCrossAttentions[Tensor]:
        """All of it as the bare model returns it."""
        return BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=self.last_hidden_state,
            pooler_output=self.pooler_output,
            past_key_values=self.past_key_values,
            hidden_states=self.hidden_states,
            attentions=self.attentions,
            cross_attentions=self.cross_attentions,
        )

    def __getitem__(self, key: Any) -> Any:
        return self.output()[key]

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


# Wrappers of the encoder below a head look for tensors in it: FSDP gathers parameters again when gradients come by.
pytree.register_pytree_node(
    Encoded,
    lambda encoded: ([getattr(encoded, field.name) for field in fields(encoded)], None),
    lambda values, _: Encoded(*values),
)


class Encoder(nn.Module):
    """The stack of layers; in XL with a last norm."""

    pre_norm: ClassVar[bool]
    layer_class: ClassVar[type[Layer]]
    LayerNorm: nn.LayerNorm | None

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__()
        # ---- Layers
        self.layer = nn.ModuleList(self.layer_class(config, number) for number in range(config.num_hidden_layers))
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if self.pre_norm else None
        # ---- Config
        self.config = config
        self.gradient_checkpointing = recomputes_layers(config)
        self.gradient_checkpointing_kwargs: dict[str, Any] = {"use_reentrant": False}
        self.rounds_attention = False  # of long texts, see integer_attention.py

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        head_mask: Any = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = False,
        output_hidden_states: bool | None = False,
        return_dict: bool | None = True,
        cache_position: Tensor | None = None,
        *,
        plan: Plan | None = None,
    ) -> Any:
        """(..., D) through all layers.

        Args:
            hidden_states ... cache_position: as in :class:`~xlmr_torch.layers.Layer`; ``head_mask`` has a row a layer.
            use_cache: return the cache; without one that came, a new one.
            output_hidden_states: return the states before the first layer and after each.
            return_dict: ``False`` returns a tuple.
            plan: in place of all these, inside a model: return :class:`Encoded`.

        Returns:
            :class:`~xlmr_core.outputs.BaseModelOutputWithPoolingAndCrossAttentions`, without a pooler's output.
        """
        if plan is not None:
            return self.run(hidden_states, plan)
        if isinstance(head_mask, Tensor):
            head_mask = head_mask.reshape(len(self.layer), -1)
        gives = keeps_cache(self.config, bool(use_cache), recomputes=self.recomputes)
        if gives and past_key_values is None:
            past_key_values = new_cache(with_memory=encoder_hidden_states is not None)
        plan = plan_by_biases(
            self.config,
            hidden_states,
            attention_mask,
            head_mask if isinstance(head_mask, Tensor) else None,  # a list of None, as get_head_mask makes it
            encoder_hidden_states,
            encoder_attention_mask,
            bool(output_attentions),
            bool(output_hidden_states),
            cache=past_key_values,
        )
        encoded = self.run(hidden_states, plan)
        encoded.past_key_values = plan.cache if gives else None
        output = encoded.output()
        return output.to_tuple() if return_dict is False else output

    @property
    def recomputes(self) -> bool:
        """Whether layers are computed once more in the backward pass."""
        return self.gradient_checkpointing and self.training

    def run(self, x: Tensor, plan: Plan) -> Encoded:
        """Compute the states as planned."""
        hidden_states, attentions, cross_attentions = [x], [], []
        for number, layer in enumerate(self.layer):
            run = recomputed(layer, self.gradient_checkpointing_kwargs) if self.recomputes else layer
            x, *weights = run(x, plan=plan.of_layer(number, len(self.layer)), number=number)
            if plan.output_hidden_states:
                hidden_states.append(x)
            attentions += weights[:1]
            cross_attentions += weights[1:]
        if self.LayerNorm is not None:
            x = self.LayerNorm(x)
            hidden_states[-1] = x if plan.output_hidden_states else hidden_states[-1]
        encoded = Encoded(x, plan.attention.packing)
        if plan.last is not None and len(self.layer):
            # The first token of each text, as texts of one token.
            encoded = Encoded(x if encoded.packing is None else x[:, None], None)
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
    embeddings_class: ClassVar[type[Embeddings]]
    layers_class: ClassVar[type[Encoder]]
    pooler_class: ClassVar[type[Pooler]]
    pooler: Pooler | None

    def __init__(self, config: XLMRobertaConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        # ---- Layers
        with values_follow():
            self.embeddings = self.embeddings_class(config)
            self.encoder = self.layers_class(config)
            self.pooler = self.pooler_class(config) if add_pooling_layer else None
        # ---- Config
        config._attn_implementation = check_attn_implementation(config._attn_implementation or "sdpa")
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
            attention_mask: (B, S) of 0 and 1, or (B, S, S) with a row a query; default: attend everywhere. With a cache
                it has a column for each token in it, too: (B, past + S) or (B, S, past + S).
            token_type_ids: integers (B, S); default zeros.
            position_ids: integers (B, S) or (1, S); default: from the padding of ``input_ids``.
            head_mask: (N,) or (layers, N), factors of the heads' attention probabilities.
            inputs_embeds: floats (B, S, D) in place of ``input_ids``.
            encoder_hidden_states: floats (B, M, D) that a decoder with cross-attention attends to.
            encoder_attention_mask: (B, M) of 0 and 1.
            past_key_values: the cache of a decoder, with the tokens that came before: the input holds the new ones
                only, and is added to it. One of :mod:`xlmr_torch.cache`, or of another library with the same methods,
                or the tuples of older releases.
            use_cache: return the cache; by default a decoder does as ``config.use_cache`` says, except in a training
                that recomputes layers.
            cache_position: integers (S,), the places of the new tokens, which follow those in the cache.
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
            return self._encode(call, needs or Needs())
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
            use_cache=use_cache,
            cache_position=cache_position,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        needs = self._onlookers.needs(self, call, Needs(first_token=self.pooler is not None))
        return self.finish(self._encode(call, needs).output(), return_dict)

    def _encode(self, call: Call[Tensor], needs: Needs[Tensor]) -> Encoded:
        if call.use_cache and call.cache is None:
            cache = new_cache(with_memory=call.memory_BMD is not None)
            call = replace(call, cache=cache, past=SeenCache(length=0))
        encoded = self.run(call, plan(self, call, needs))
        encoded.past_key_values = call.cache if call.use_cache else None
        # Here and not in a head: wrappers gather a module's parameters for as long as it runs.
        if needs.first_token and self.pooler is not None:
            encoded.pooler_output = self.pooler(encoded.first_tokens())
        return encoded

    if TYPE_CHECKING:

        @called_like(forward)
        def __call__(self) -> None: ...

    def run(self, call: Call[Tensor], plan: Plan) -> Encoded:
        """Compute the states of a call as planned."""
        packing, cache, length = plan.attention.packing, call.cache, call.source.shape[1]
        counted_B = None if cache is None else tokens_counted(call)
        inputs = (call.input_ids, call.token_type_ids, call.position_ids, call.inputs_embeds)
        x = self.embeddings(*inputs, packing=packing, counted_B=counted_B)
        if self.encoder._compiled_call_impl is not None and not is_traced():
            _let_grow(x, plan)
        encoded = self.encoder(x, plan=plan)
        if isinstance(plan.cache, Slots):
            plan.cache.close(cache, length, packing)
        if counted_B is not None and not isinstance(plan.cache, Unchanged) and isinstance(of_tokens(cache), Cache):
            new = length if call.input_ids is None else call.input_ids.ne(self.config.pad_token_id).sum(1)
            of_tokens(cache).counted_B = counted_B + new
        return encoded

    def _see_cache(self, given: Any) -> tuple[Any, SeenCache]:
        return see_cache_of_model(self.config, given)

    @property
    def _states_dtype(self) -> torch.dtype:
        """The dtype of the states between the layers; matrices may be narrower."""
        table = self.embeddings.token_type_embeddings
        weight = getattr(table, "weight", None)  # a wrapper has none of its own
        return (first_float(table) if weight is None else weight).dtype

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


def _let_grow(x: Tensor, plan: Plan) -> None:
    """Tell the compiler which sizes change from call to call. A first batch with as many tokens as there are hidden
    units would be compiled for that number alone.
    """
    packing, cache = plan.attention.packing, plan.cache
    growing = [] if packing is None else [(x, 0), (packing.indices_T, 0), (packing.cu_seqlens, 0)]
    if isinstance(cache, Slots):
        growing += [(memory, 2) for memory in (*cache.keys, *cache.values)]
        growing += [] if plan.attention.bias is None else [(plan.attention.bias, 3)]
    for tensor, axis in growing:
        torch._dynamo.maybe_mark_dynamic(tensor, axis)


def recomputed(layer: nn.Module, options: dict[str, Any]) -> Callable[..., tuple[Tensor, ...]]:
    """The same layer, whose activations are computed once more in the backward pass in place of being kept.

    Args:
        layer: the layer.
        options: of ``torch.utils.checkpoint.checkpoint``.
    """

    def run(x: Tensor, *, plan: Plan, number: int) -> Any:
        # The memory goes in by itself: of tensors inside a plan the reentrant way would not see that they want
        # gradients.
        def computed(x: Tensor, memory_BMD: Tensor | None) -> Any:
            return layer(x, plan=replace(plan, memory_BMD=memory_BMD), number=number)

        return checkpoint(computed, x, plan.memory_BMD, **options)

    return run
