"""An encoder and a decoder that attends to its states, as one model (Rothe et al. 2020)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, NoReturn, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from xlmr_core.checks import IGNORE_INDEX
from xlmr_core.config import EncoderDecoderConfig, XLMRobertaConfig
from xlmr_core.encoder_decoder import (
    check_decoder_source,
    check_target_labels,
    config_of_both,
    on_side,
    pad_token,
    refuse_quantized_sides,
    refuse_resizing,
    source_mask,
    start_token,
    states_of,
    wanted_outputs,
)
from xlmr_core.generation import ENCODER_DECODER_INPUTS, Request, bucket, decoder_prompt
from xlmr_core.head_checks import check_kept_columns
from xlmr_core.heads import ENCODER_DECODER, model_class_name
from xlmr_core.loading import SideToLoad, sides_to_load
from xlmr_core.outputs import (
    BaseModelOutputWithPoolingAndCrossAttentions,
    CausalLMOutputWithCrossAttentions,
    Seq2SeqLMOutput,
)
from xlmr_core.parameters import Parameter, parameters
from xlmr_core.quantization import Scheme
from xlmr_flax import modeling_xlm_roberta, modeling_xlm_roberta_xl
from xlmr_flax.functional import compiled, path_of
from xlmr_flax.generation import Beginning, GenerationMixin, prompt_of
from xlmr_flax.heads import class_labels
from xlmr_flax.inputs import has_values, is_concrete, see
from xlmr_flax.linear import Linear
from xlmr_flax.losses import cross_entropy
from xlmr_flax.pretrained import PreTrainedModel

__all__ = ["FlaxEncoderDecoderModel", "family_class", "shift_tokens_right"]

# What generate hands on to the encoder.
ENCODER_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "inputs_embeds")


def family_class(config: XLMRobertaConfig, head: str) -> type[PreTrainedModel]:
    """The class for a configuration of a family and a head of ``xlmr_core.heads.HEADS``."""
    name = "Flax" + model_class_name(config, head)
    found = getattr(modeling_xlm_roberta, name, None) or getattr(modeling_xlm_roberta_xl, name)
    assert isinstance(found, type) and issubclass(found, PreTrainedModel)
    return found


def shift_tokens_right(input_ids: Any, pad_token_id: int, decoder_start_token_id: int) -> Any:
    """What a decoder reads to predict labels.

    Args:
        input_ids: labels, integers (B, T).
        pad_token_id: takes the place of -100.
        decoder_start_token_id: stands before the first; the last one falls off.
    """
    xp = np if is_concrete(input_ids) else jnp
    shifted = xp.pad(input_ids[:, :-1], ((0, 0), (1, 0)), constant_values=decoder_start_token_id)
    return xp.where(shifted == IGNORE_INDEX, xp.asarray(pad_token_id, shifted.dtype), shifted)


class FlaxEncoderDecoderModel(GenerationMixin, PreTrainedModel):
    """An encoder of XLM-R or XLM-R XL, and a decoder of either with a vocabulary on it.

    Args:
        config ... gradient_checkpointing: see :class:`~xlmr_flax.pretrained.PreTrainedModel`; the configuration is of
            both.
    """

    config_class = EncoderDecoderConfig
    _task_head = ENCODER_DECODER
    base_model_prefix: ClassVar[str] = "encoder_decoder"
    _generation_inputs: ClassVar[tuple[str, ...]] = ENCODER_DECODER_INPUTS

    def _build(self, config: Any) -> None:
        # ---- Layers
        # The decoder first: what both share goes by its names.
        self.decoder = _built(config.decoder, "ForCausalLM")
        self.encoder = _built(config.encoder, "Model")
        width, wanted = config.encoder.hidden_size, config.decoder.hidden_size
        self.enc_to_dec_proj = Linear(width, wanted) if config.has_projection else None
        # ---- Tying
        for row in self.published_rows().values():
            if row.tied_to is not None and row.name.startswith("encoder."):
                _share(self, row)

    def __call__(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        decoder_input_ids: Any = None,
        decoder_attention_mask: Any = None,
        position_ids: Any = None,
        decoder_position_ids: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        train: bool | None = None,
        params: Any = None,
        dropout_rng: Any = None,
        *,
        labels: Any = None,
        encoder_outputs: Any = None,
        past_key_values: Any = None,
        inputs_embeds: Any = None,
        decoder_inputs_embeds: Any = None,
        token_type_ids: Any = None,
        head_mask: Any = None,
        decoder_token_type_ids: Any = None,
        decoder_head_mask: Any = None,
        logits_to_keep: Any = 0,
        num_items_in_batch: Any = None,
    ) -> Seq2SeqLMOutput[Array]:
        """Encode a batch, and predict each next token of another.

        Args:
            input_ids: integers (B, S), what is encoded.
            attention_mask: (B, S) of 0 and 1; the decoder attends to what it leaves.
            decoder_input_ids: integers (B, T), what the decoder reads; with labels alone, these shifted to the right.
            decoder_attention_mask: (B, T), or with a cache a column for each token so far.
            output_attentions, output_hidden_states: of both sides.
            return_dict: ``False`` returns a tuple.
            train: whether dropout acts; default: as ``model.train()`` and ``model.eval()`` say.
            params: parameters in place of the model's own, as in ``model.params``.
            dropout_rng: the random key of dropout.
            labels: integers (B, T), -100 where nothing is to be predicted.
            encoder_outputs: what the encoder has given before, in place of its inputs.
            past_key_values: the decoder's cache, of :meth:`init_cache` or the call before.
            inputs_embeds, decoder_inputs_embeds: floats (B, S, D), (B, T, D) in place of ids.
            token_type_ids, position_ids, head_mask: of the encoder, as in the bare model.
            decoder_token_type_ids, decoder_position_ids, decoder_head_mask: of the decoder.
            logits_to_keep: as in the causal language model.
            num_items_in_batch: divide the summed loss by this number and not by the number of labels.

        Returns:
            :class:`~xlmr_core.outputs.Seq2SeqLMOutput`; logits (B, T, V).

        Raises:
            InputError: for inputs of a wrong shape, dtype or range.
            ConfigError: for labels without a ``decoder_start_token_id``.
        """
        model, key = self.prepare(params, dropout_rng, train)
        encoder_key, decoder_key = (None, None) if key is None else jax.random.split(key)
        outputs = wanted_outputs(model.config, output_attentions, output_hidden_states)
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = model.prepare_decoder_input_ids_from_labels(labels)
            if decoder_attention_mask is None:
                is_token = decoder_input_ids != pad_token(model.config)
                decoder_attention_mask = is_token.astype(np.int32)
        model._check_target(decoder_input_ids, decoder_inputs_embeds, labels, logits_to_keep)
        if encoder_outputs is None:
            with on_side("encoder"):
                encoder_outputs = model.encoder(
                    input_ids=input_ids,
                    attention_mask=attention_mask,
                    token_type_ids=token_type_ids,
                    position_ids=position_ids,
                    head_mask=head_mask,
                    inputs_embeds=inputs_embeds,
                    train=key is not None,
                    dropout_rng=encoder_key,
                    return_dict=True,
                    **outputs,
                )
        encoded = states_of(encoder_outputs)
        with on_side("decoder"):
            decoded = model.decoder(
                input_ids=decoder_input_ids,
                attention_mask=decoder_attention_mask,
                token_type_ids=decoder_token_type_ids,
                position_ids=decoder_position_ids,
                head_mask=decoder_head_mask,
                inputs_embeds=decoder_inputs_embeds,
                encoder_hidden_states=model.project(encoded.last_hidden_state),
                encoder_attention_mask=attention_mask,
                past_key_values=past_key_values,
                logits_to_keep=logits_to_keep,
                train=key is not None,
                dropout_rng=decoder_key,
                return_dict=True,
                **outputs,
            )
        loss = None
        if labels is not None:
            loss = cross_entropy(decoded.logits, class_labels(labels), num_items_in_batch)
        output = Seq2SeqLMOutput(
            loss=loss,
            logits=decoded.logits,
            past_key_values=decoded.past_key_values,
            decoder_hidden_states=decoded.hidden_states,
            decoder_attentions=decoded.attentions,
            cross_attentions=decoded.cross_attentions,
            encoder_last_hidden_state=encoded.last_hidden_state,
            encoder_hidden_states=encoded.hidden_states,
            encoder_attentions=encoded.attentions,
        )
        return model.finish(output, return_dict)

    def _check_target(self, ids: Any, embeds: Any, labels: Any, kept: Any) -> None:
        """Refuse what the decoder cannot read, or labels that do not belong to it."""
        check_decoder_source(ids=ids is not None, embeds=embeds is not None, labels=labels is not None)
        if labels is not None:
            shape = tuple(getattr(ids if embeds is None else embeds, "shape", ()))[:2]
            check_target_labels(self.config, see("labels", labels), *([shape] if shape else []))
            columns = kept if isinstance(kept, int) else see("logits_to_keep", kept)
            check_kept_columns(columns, labels.shape[1], labelled=True)

    def prepare_decoder_input_ids_from_labels(self, labels: Any) -> Any:
        """(B, T): what the decoder reads to predict labels, as collators ask for it.

        Raises:
            ConfigError: if ``config.decoder_start_token_id`` is not set.
        """
        check_target_labels(self.config, see("labels", labels))
        return shift_tokens_right(class_labels(labels), pad_token(self.config), start_token(self.config))

    def project(self, states_BSD: Array) -> Array:
        """The encoder's states in the width of the decoder."""
        if self.enc_to_dec_proj is None:
            return states_BSD
        projected: Array = compiled(self.enc_to_dec_proj, "__call__", states_BSD)
        return projected

    # ---- In two calls, as published

    def encode(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        train: bool | None = None,
        params: Any = None,
        dropout_rng: Any = None,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions[Array]:
        """Run the encoder.

        Args:
            input_ids ... dropout_rng: as of a call.

        Returns:
            What :meth:`decode` takes as ``encoder_outputs``.

        Raises:
            InputError: for inputs of a wrong shape, dtype or range.
        """
        model, key = self.prepare(params, dropout_rng, train)
        outputs = wanted_outputs(model.config, output_attentions, output_hidden_states)
        with on_side("encoder"):
            encoded = model.encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                train=key is not None,
                dropout_rng=key,
                return_dict=True,
                **outputs,
            )
        return model.finish(encoded, return_dict)

    def decode(
        self,
        decoder_input_ids: Any,
        encoder_outputs: Any,
        encoder_attention_mask: Any = None,
        decoder_attention_mask: Any = None,
        decoder_position_ids: Any = None,
        past_key_values: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        train: bool | None = None,
        params: Any = None,
        dropout_rng: Any = None,
    ) -> CausalLMOutputWithCrossAttentions[Array]:
        """Run the decoder.

        Args:
            decoder_input_ids: integers (B, T); with a cache the new ones alone.
            encoder_outputs: of :meth:`encode`.
            encoder_attention_mask: (B, S), what of it is attended to.
            decoder_attention_mask ... dropout_rng: as of a call.

        Returns:
            :class:`~xlmr_core.outputs.CausalLMOutputWithCrossAttentions`.

        Raises:
            InputError: for inputs of a wrong shape, dtype or range.
        """
        output = self(
            attention_mask=encoder_attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            decoder_position_ids=decoder_position_ids,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            train=train,
            params=params,
            dropout_rng=dropout_rng,
        )
        found = CausalLMOutputWithCrossAttentions(
            logits=output.logits,
            past_key_values=output.past_key_values,
            hidden_states=output.decoder_hidden_states,
            attentions=output.decoder_attentions,
            cross_attentions=output.cross_attentions,
        )
        return self.finish(found, return_dict)

    def init_cache(self, batch_size: int, max_length: int, encoder_outputs: Any = None) -> Any:
        """An empty cache of a fixed size for :meth:`decode`.

        Args:
            batch_size: number of rows.
            max_length: how many tokens it is to hold at most.
            encoder_outputs: of the published signature; the first call brings the memory.
        """
        return self.decoder.init_cache(batch_size, max_length)

    # ---- Generating

    def _begin(self, request: Request) -> Beginning:
        """What the loops start with: the encoder has run, once."""
        given, options = dict(request.inputs), request.options
        encoded = given.get("encoder_outputs")
        with on_side("encoder"):
            attended = self._source_mask(given)
            if attended is not None:
                given["attention_mask"] = attended
        if encoded is None:
            wanted = options.return_dict_in_generate
            if not (wanted and (options.output_attentions or options.output_hidden_states)):
                given.update(_rounded(self.config.encoder, given))
            inputs = {name: x for name, x in given.items() if name in ENCODER_INPUTS}
            with on_side("encoder"):
                encoded = self.encoder(
                    **inputs,
                    train=False,
                    output_attentions=bool(wanted and options.output_attentions),
                    output_hidden_states=bool(wanted and options.output_hidden_states),
                    return_dict=True,
                )
        states = states_of(encoded)
        memory = {"encoder_hidden_states": self.project(jnp.asarray(states.last_hidden_state))}
        if "attention_mask" in given:
            memory["encoder_attention_mask"] = given["attention_mask"]
        ids, mask = given.get("decoder_input_ids"), given.get("decoder_attention_mask")
        for name, x in (("decoder_input_ids", ids), ("decoder_attention_mask", mask)):
            see(name, x)
        first, first_mask = decoder_prompt(
            request, len(states.last_hidden_state), *(None if x is None else np.asarray(x) for x in (ids, mask))
        )
        first_mask = np.ones_like(first) if ids is None else first_mask
        prompt = prompt_of(self.config.decoder, request, first, first_mask, None)
        fields = {"encoder_attentions": states.attentions, "encoder_hidden_states": states.hidden_states}
        return Beginning(self.decoder, prompt, memory, encoder_ids=given.get("input_ids"), fields=fields)

    def _source_mask(self, given: Mapping[str, Any]) -> Any:
        """(B, S): what is attended to of the encoder's texts; ``None`` for all of it."""
        config, source, encoded = self.config.encoder, given.get("inputs_embeds"), given.get("encoder_outputs")
        names = ("input_ids", "attention_mask", "token_type_ids")
        texts = [given.get(name) for name in names]
        for name, x in zip(names, texts, strict=True):
            see(name, x)
        if encoded is not None:
            texts[0], source = None, states_of(encoded).last_hidden_state
        if all(x is None or has_values(x) for x in texts):
            seen = (None if x is None else np.asarray(x) for x in texts)
            return source_mask(config, *seen, shape=getattr(source, "shape", None))
        ids, mask, _ = texts
        if mask is not None or ids is None:
            return mask
        # Inside jax.jit there is nothing to be checked.
        is_token = (ids != config.pad_token_id).astype(jnp.int32)
        return (jnp.cumsum(is_token, 1) * lax.cumsum(is_token, 1, reverse=True) > 0).astype(jnp.int32)

    def prepare_inputs_for_generation(
        self,
        decoder_input_ids: Any,
        max_length: int,
        attention_mask: Any = None,
        decoder_attention_mask: Any = None,
        encoder_outputs: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """What the first call of :meth:`decode` in a loop of one's own needs beside the first tokens, as published.

        Args:
            decoder_input_ids: (B, P), padded on the left.
            max_length: the most tokens of a row, the first ones included.
            attention_mask: (B, S), of the encoder.
            decoder_attention_mask: (B, P).
            encoder_outputs: of :meth:`encode`.
            **kwargs: further inputs, kept as they are.

        Returns:
            An empty cache as ``past_key_values``, and the masks for all calls.
        """
        found = super().prepare_inputs_for_generation(decoder_input_ids, max_length, decoder_attention_mask, **kwargs)
        return {
            "decoder_attention_mask": found.pop("attention_mask"),
            "encoder_outputs": encoder_outputs,
            "encoder_attention_mask": attention_mask,
            **found,
        }

    # ---- The parts

    def published_rows(self) -> dict[str, Parameter]:
        return parameters(
            self.config,
            self._task_head.suffix,
            pooler=self.encoder.pooler is not None,
            scheme=self.quantization_scheme,
        )

    def _take_scheme(self, scheme: Scheme) -> None:
        super()._take_scheme(scheme)
        for name, side in zip(("encoder", "decoder"), self.sides, strict=True):
            side._take_scheme(scheme.of_side(name))

    def _has_encoder(self) -> bool:
        return hasattr(self, "encoder")

    def _fresh(self, row: Parameter, rng: Array, dtype: Any = jnp.float32) -> Array:
        """Fresh values of a row; those of a side by its own configuration."""
        for prefix, side in (("encoder.", self.encoder), ("decoder.", self.decoder)):
            if row.name.startswith(prefix):
                return side._fresh(replace(row, name=row.name.removeprefix(prefix)), rng, dtype)
        return super()._fresh(row, rng, dtype)

    @property
    def sides(self) -> tuple[Any, Any]:
        """The encoder and the decoder."""
        return self.encoder, self.decoder

    def get_encoder(self) -> Any:
        """The encoder."""
        return self.encoder

    def get_decoder(self) -> Any:
        """The decoder."""
        return self.decoder

    def get_input_embeddings(self) -> nnx.Module:
        """The word embedding of the encoder."""
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nnx.Module) -> None:
        """Replace the word embedding of the encoder."""
        self.encoder.set_input_embeddings(value)

    def get_output_embeddings(self) -> nnx.Module | None:
        """The vocabulary projection of the decoder, ``None`` if its word embedding serves as such."""
        return self.decoder.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nnx.Module) -> None:
        """Replace the vocabulary projection of the decoder."""
        self.decoder.set_output_embeddings(new_embeddings)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: which of the two vocabularies is meant, its side is asked.

        Raises:
            InputError: always.
        """
        refuse_resizing(type(self).__name__)

    # ---- Running

    @property
    def dtype(self) -> Any:
        """The dtype in which everything is computed."""
        return self.encoder.dtype

    def _set_dtype(self, dtype: Any) -> None:
        for side in self.sides:
            side._set_dtype(dtype)

    @property
    def attn_implementation(self) -> str:
        """Name of the encoder's attention kernel."""
        return str(self.encoder.attn_implementation)

    def set_attn_implementation(self, name: str) -> Self:
        """Choose the attention kernel of both sides: ``sdpa`` or ``eager``."""
        for side in self.sides:
            side.set_attn_implementation(name)
        return self

    @property
    def packing(self) -> str:
        """When batches are packed: ``auto``, ``always`` or ``never``."""
        return str(self.encoder.packing)

    def set_packing(self, mode: str) -> Self:
        """Choose when batches of the encoder are packed; what attends to a memory never is."""
        for side in self.sides:
            side.set_packing(mode)
        return self

    def gradient_checkpointing_enable(self, policy: Any = None) -> None:
        """Recompute each layer of both sides in the backward pass in place of keeping its activations.

        Args:
            policy: what is kept all the same, one of ``jax.checkpoint_policies``.
        """
        for side in self.sides:
            side.gradient_checkpointing_enable(policy)

    def gradient_checkpointing_disable(self) -> None:
        """Keep activations again."""
        for side in self.sides:
            side.gradient_checkpointing_disable()

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether layers are recomputed in the backward pass."""
        return any(side.is_gradient_checkpointing for side in self.sides)

    def set_scan_layers(self, on: bool) -> Self:
        """Compile one layer of each side and loop over all; see :meth:`PreTrainedModel.set_scan_layers`."""
        for side in self.sides:
            side.set_scan_layers(on)
        return self

    # ---- From two checkpoints

    @classmethod
    def from_encoder_decoder_pretrained(
        cls,
        encoder_pretrained_model_name_or_path: str | os.PathLike[str] | None = None,
        decoder_pretrained_model_name_or_path: str | os.PathLike[str] | None = None,
        *model_args: Any,
        **kwargs: Any,
    ) -> Self:
        """An encoder-decoder of two checkpoints. What the second lacks, cross-attention, starts fresh and has to be
        trained.

        Args:
            encoder_pretrained_model_name_or_path, decoder_pretrained_model_name_or_path: names or folders; both may be
                the same.
            *model_args: passed to the encoder's constructor.
            **kwargs: of ``from_pretrained`` of a side, with ``encoder_`` or ``decoder_`` in front; ``encoder_model``
                and ``decoder_model`` are models in place of checkpoints; without, values of the configuration of both,
                such as ``decoder_start_token_id`` and ``tie_encoder_decoder``.

        Raises:
            ModelNotFoundError, CheckpointError, ConfigError: if there is no such checkpoint.
            InputError: if one of the two is not named.
            TypeError: for an argument that neither side, nor the configuration, knows.
        """
        encoder, decoder, values = sides_to_load(
            f"{cls.__name__}.from_encoder_decoder_pretrained()",
            encoder_pretrained_model_name_or_path,
            decoder_pretrained_model_name_or_path,
            kwargs,
        )
        sides = [_loaded(encoder, "Model", *model_args), _loaded(decoder, "ForCausalLM")]
        refuse_quantized_sides(*(side.quantization_scheme for side in sides))
        config = config_of_both(None, sides[0].config, sides[1].config, **values)
        model = cls(config, dtype=sides[0].dtype)
        for name, side in zip(("encoder", "decoder"), sides, strict=True):
            setattr(model, name, side)
        for row in model.published_rows().values():
            if row.tied_to is not None and row.name.startswith("encoder."):
                _share(model, row)
        return model


def _rounded(config: XLMRobertaConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    """Texts of an encoder with a length that is rounded up, so that compiled programs serve many; what is added is
    masked. Embeddings, and what has no values, stay as they are.
    """
    names = ("input_ids", "attention_mask", "token_type_ids")
    here = {name: given[name] for name in names if name in given}
    if "input_ids" not in here or not all(has_values(x) and len(x.shape) == 2 for x in here.values()):
        return {}
    length = here["input_ids"].shape[1]
    fill = {"input_ids": config.pad_token_id}
    more = (
        ((0, 0), (0, bucket(length, config.max_tokens) - length)) if length <= config.max_tokens else ((0, 0), (0, 0))
    )
    return {name: np.pad(np.asarray(x), more, constant_values=fill.get(name, 0)) for name, x in here.items()}


def _built(config: XLMRobertaConfig, head: str) -> Any:
    """A side without values."""
    return family_class(config, head)(config, _do_init=False)


def _loaded(side: SideToLoad, head: str, *args: Any) -> Any:
    """A side, loaded if it is not there."""
    if side.model is not None:
        return side.model
    assert side.config is not None
    kind: Any = family_class(side.config, head)
    return kind.from_pretrained(side.source, *args, config=side.config, **side.arguments)


def _share(model: FlaxEncoderDecoderModel, row: Parameter) -> None:
    """Let the encoder's place of a row hold the very variable of the decoder."""
    *steps, last = path_of(row)
    holder, other = model.encoder, model.decoder.roberta
    for step in steps[1:]:
        holder, other = (part[step] if isinstance(part, nnx.Dict) else getattr(part, step) for part in (holder, other))
    setattr(holder, last, getattr(other, last))
