"""An encoder and a decoder that attends to its states, as one model (Rothe et al. 2020)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

import keras
import numpy as np
import tensorflow as tf

from xlmr_core.calls import called_like
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
from xlmr_core.errors import InputError
from xlmr_core.generation import ENCODER_DECODER_INPUTS, Request, arrange_prompt, decoder_prompt
from xlmr_core.head_checks import check_kept_columns, check_sample_weight
from xlmr_core.heads import ENCODER_DECODER, model_class_name
from xlmr_core.loading import SideToLoad, sides_to_load
from xlmr_core.outputs import BaseModelOutput, Seq2SeqLMOutput
from xlmr_core.parameters import PROJECTION, Parameter, parameters
from xlmr_core.quantization import Scheme
from xlmr_tf import modeling_xlm_roberta, modeling_xlm_roberta_xl
from xlmr_tf.encoder import EncoderModel
from xlmr_tf.generation import Beginning, GenerationMixin, on_host, width_of
from xlmr_tf.heads import flat_logits, weights_of
from xlmr_tf.inputs import fitted, see, shape_of
from xlmr_tf.linear import Linear, dims, linear
from xlmr_tf.lm_heads import CausalLM
from xlmr_tf.losses import cross_entropy
from xlmr_tf.pretrained import PreTrainedModel
from xlmr_tf.values import share

__all__ = ["TFEncoderDecoderModel", "family_class", "shift_tokens_right"]

# What generate hands on to the encoder.
ENCODER_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "inputs_embeds")


def family_class(config: XLMRobertaConfig, head: str) -> type[PreTrainedModel]:
    """The class for a configuration of a family and a head of ``xlmr_core.heads.HEADS``."""
    name = "TF" + model_class_name(config, head)
    found = getattr(modeling_xlm_roberta, name, None) or getattr(modeling_xlm_roberta_xl, name)
    assert isinstance(found, type) and issubclass(found, PreTrainedModel)
    return found


def shift_tokens_right(input_ids: tf.Tensor, pad_token_id: int, decoder_start_token_id: int) -> tf.Tensor:
    """What a decoder reads to predict labels.

    Args:
        input_ids: labels, integers (B, T).
        pad_token_id: takes the place of -100.
        decoder_start_token_id: stands before the first; the last one falls off.
    """
    start = tf.fill(dims(input_ids[:, :1]), tf.cast(decoder_start_token_id, input_ids.dtype))
    shifted = tf.concat([start, input_ids[:, :-1]], 1)
    return tf.where(shifted == IGNORE_INDEX, tf.cast(pad_token_id, shifted.dtype), shifted)


class TFEncoderDecoderModel(GenerationMixin, PreTrainedModel):
    """An encoder of XLM-R or XLM-R XL, and a decoder of either with a vocabulary on it.

    Args:
        config: of both; may be left out where both models are passed.
        encoder: the bare model; by default one of fresh values.
        decoder: a causal language model with cross-attention; by default one of fresh values.
        dtype: the dtype policy, such as ``mixed_bfloat16``; by default Keras's global one.
        **kwargs: ``name`` and ``trainable``, as of every Keras model.

    Raises:
        ConfigError: for a configuration of something else, or two models that do not go together.
    """

    config_class = EncoderDecoderConfig
    config: EncoderDecoderConfig
    _task_head = ENCODER_DECODER
    base_model_prefix: ClassVar[str] = "encoder_decoder"
    _generation_inputs: ClassVar[tuple[str, ...]] = ENCODER_DECODER_INPUTS
    lora: dict[str, Any] | None = None
    encoder: EncoderModel
    decoder: CausalLM
    enc_to_dec_proj: Linear | None

    def __init__(
        self,
        config: EncoderDecoderConfig | None = None,
        encoder: EncoderModel | None = None,
        decoder: CausalLM | None = None,
        *,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        if encoder is not None and decoder is not None:
            refuse_quantized_sides(encoder.quantization_scheme, decoder.quantization_scheme)
            config = config_of_both(config, encoder.config, decoder.config)
        super().__init__(config, dtype=dtype, **kwargs)  # type: ignore[arg-type]  # which refuses None
        for name in ("encoder", "decoder"):
            self._arguments.pop(name, None)  # the configuration says all of them
        # ---- Layers
        # The decoder first: what both share goes by its names.
        policy = self.dtype_policy
        self.decoder = _built(self.config.decoder, "ForCausalLM", policy) if decoder is None else decoder
        self.encoder = _built(self.config.encoder, "Model", policy) if encoder is None else encoder
        width, wanted = self.config.encoder.hidden_size, self.config.decoder.hidden_size
        self.enc_to_dec_proj = linear(width, wanted, policy) if self.config.has_projection else None
        # ---- Config
        self.config.encoder, self.config.decoder = self.encoder.config, self.decoder.config
        # ---- Tying
        rows = self.published_rows()
        for row in rows.values():
            if row.tied_to is not None and row.name.startswith("encoder."):
                share(self, row, rows[row.tied_to])
        self.post_init([name for name in rows if name.startswith(PROJECTION)])

    def call(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        decoder_input_ids: Any = None,
        decoder_attention_mask: Any = None,
        encoder_outputs: Any = None,
        past_key_values: Any = None,
        inputs_embeds: Any = None,
        decoder_inputs_embeds: Any = None,
        labels: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool | None = None,
        *,
        logits_to_keep: Any = 0,
        num_items_in_batch: Any = None,
        sample_weight: Any = None,
        token_type_ids: Any = None,
        position_ids: Any = None,
        head_mask: Any = None,
        decoder_token_type_ids: Any = None,
        decoder_position_ids: Any = None,
        decoder_head_mask: Any = None,
    ) -> Seq2SeqLMOutput[tf.Tensor]:
        """Encode a batch, and predict each next token of another.

        Args:
            input_ids: integers (B, S), what is encoded.
            attention_mask: (B, S) of 0 and 1; the decoder attends to what it leaves.
            decoder_input_ids: integers (B, T), what the decoder reads; with labels alone, these shifted to the right.
            decoder_attention_mask: (B, T), or with a cache (B, tokens so far).
            encoder_outputs: what the encoder has given before, in place of its inputs.
            past_key_values, use_cache: the decoder's cache, as in the bare model.
            inputs_embeds, decoder_inputs_embeds: floats (B, S, D), (B, T, D) in place of ids.
            labels: integers (B, T), -100 where nothing is to be predicted.
            output_attentions, output_hidden_states: of both sides.
            return_dict: ``False`` returns a tuple.
            training: whether dropout acts.
            logits_to_keep: as in the causal language model.
            num_items_in_batch: divide the summed loss by this number and not by the number of labels.
            sample_weight: factors of the labels' losses, (B,) or (B, T).
            token_type_ids, position_ids, head_mask: of the encoder, as in the bare model.
            decoder_token_type_ids, decoder_position_ids, decoder_head_mask: of the decoder.

        Returns:
            :class:`~xlmr_core.outputs.Seq2SeqLMOutput`; logits (B, T, V).

        Raises:
            InputError: for inputs of a wrong shape, dtype or range.
            ConfigError: for labels without a ``decoder_start_token_id``.
        """
        outputs = wanted_outputs(self.config, output_attentions, output_hidden_states)
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
            if decoder_attention_mask is None:
                decoder_attention_mask = tf.cast(decoder_input_ids != pad_token(self.config), tf.int32)
        self._check_target(decoder_input_ids, decoder_inputs_embeds, labels, logits_to_keep)
        if encoder_outputs is None:
            with on_side("encoder"):
                encoder_outputs = self.encoder(
                    input_ids=input_ids,
                    attention_mask=attention_mask,
                    token_type_ids=token_type_ids,
                    position_ids=position_ids,
                    head_mask=head_mask,
                    inputs_embeds=inputs_embeds,
                    return_dict=True,
                    training=training,
                    **outputs,
                )
        encoded: BaseModelOutput[tf.Tensor] = states_of(encoder_outputs)
        with on_side("decoder"):
            decoded = self.decoder(
                input_ids=decoder_input_ids,
                attention_mask=decoder_attention_mask,
                token_type_ids=decoder_token_type_ids,
                position_ids=decoder_position_ids,
                head_mask=decoder_head_mask,
                inputs_embeds=decoder_inputs_embeds,
                encoder_hidden_states=self.project(encoded.last_hidden_state),
                encoder_attention_mask=attention_mask,
                past_key_values=past_key_values,
                use_cache=use_cache,
                logits_to_keep=logits_to_keep,
                return_dict=True,
                training=training,
                **outputs,
            )
        output = Seq2SeqLMOutput(
            loss=self._loss(decoded.logits, labels, num_items_in_batch, sample_weight),
            logits=decoded.logits,
            past_key_values=decoded.past_key_values,
            decoder_hidden_states=decoded.hidden_states,
            decoder_attentions=decoded.attentions,
            cross_attentions=decoded.cross_attentions,
            encoder_last_hidden_state=encoded.last_hidden_state,
            encoder_hidden_states=encoded.hidden_states,
            encoder_attentions=encoded.attentions,
        )
        return self.finish(output, return_dict)

    if TYPE_CHECKING:

        @called_like(call)
        def __call__(self) -> None: ...

    def _check_target(self, ids: Any, embeds: Any, labels: Any, kept: Any) -> None:
        """Refuse what the decoder cannot read, or labels that do not belong to it."""
        check_decoder_source(ids=ids is not None, embeds=embeds is not None, labels=labels is not None)
        if labels is not None:
            source = ids if embeds is None else embeds
            shape = shape_of(source)[:2] if tf.is_tensor(source) else ()  # what is no tensor, the decoder refuses
            check_target_labels(self.config, see("labels", labels), *([shape] if shape else []))
            check_kept_columns(kept if isinstance(kept, int) else see("logits_to_keep", kept), shape[1], labelled=True)

    def _loss(self, logits: tf.Tensor, labels: Any, divisor: Any, sample_weight: Any) -> tf.Tensor | None:
        """Of logits (B, T, V), if there are labels."""
        check_sample_weight(see("sample_weight", sample_weight), labels is not None, *shape_of(logits)[:2])
        if labels is None:
            return None
        batch, length = dims(logits)[:2]
        labels = fitted("labels", labels, (batch, length))
        sample_weight = fitted("sample_weight", sample_weight, (batch,), (batch, 1), (batch, length))
        weights = weights_of(sample_weight, labels)
        weights_n = None if weights is None else tf.reshape(weights, (-1,))
        return cross_entropy(flat_logits(logits), tf.reshape(labels, (-1,)), divisor, weights_n)

    def prepare_decoder_input_ids_from_labels(self, labels: Any) -> tf.Tensor:
        """(B, T): what the decoder reads to predict labels, as collators ask for it.

        Raises:
            ConfigError: if ``config.decoder_start_token_id`` is not set.
        """
        labels = tf.convert_to_tensor(labels) if isinstance(labels, np.ndarray) else labels
        check_target_labels(self.config, see("labels", labels))
        return shift_tokens_right(labels, pad_token(self.config), start_token(self.config))

    def project(self, states_BSD: tf.Tensor) -> tf.Tensor:
        """The encoder's states in the width of the decoder."""
        return states_BSD if self.enc_to_dec_proj is None else self.enc_to_dec_proj(states_BSD)

    # ---- Generating

    def _begin(self, request: Request) -> Beginning:
        """What the loops start with: the encoder has run, once."""
        given, options = dict(request.inputs), request.options
        encoded = given.get("encoder_outputs")
        with on_side("encoder"):
            given["attention_mask"] = self._source_mask(given)
        if encoded is None:
            inputs = {name: x for name, x in given.items() if name in ENCODER_INPUTS}
            wanted = options.return_dict_in_generate
            with on_side("encoder"):
                encoded = self.encoder(
                    **inputs,
                    output_attentions=bool(wanted and options.output_attentions),
                    output_hidden_states=bool(wanted and options.output_hidden_states),
                    return_dict=True,
                )
        states = states_of(encoded)
        memory = {
            "encoder_hidden_states": self.project(tf.convert_to_tensor(states.last_hidden_state)),
            "encoder_attention_mask": given["attention_mask"],
        }
        ids, mask = (on_host(name, given.get(name)) for name in ("decoder_input_ids", "decoder_attention_mask"))
        first, first_mask = decoder_prompt(request, len(states.last_hidden_state), ids, mask)
        prompt = arrange_prompt(
            self.config.decoder,
            first,
            np.ones_like(first) if ids is None else first_mask,
            position_numbering=options.position_numbering,
            width=width_of(self.config.decoder, request),
        )
        fields = {"encoder_attentions": states.attentions, "encoder_hidden_states": states.hidden_states}
        return Beginning(self.decoder, prompt, memory, encoder_ids=given.get("input_ids"), fields=fields)

    def _source_mask(self, given: Mapping[str, Any]) -> Any:
        """(B, S): what is attended to of the encoder's texts; ``None`` for all of it."""
        source, encoded = given.get("inputs_embeds"), given.get("encoder_outputs")
        names = ("input_ids", "attention_mask", "token_type_ids")
        ids, mask, types = (on_host(name, given.get(name)) for name in names)
        if encoded is not None:
            ids, source = None, states_of(encoded).last_hidden_state
        found = source_mask(self.config.encoder, ids, mask, types, shape=getattr(source, "shape", None))
        return None if found is None else tf.constant(found, tf.int32)

    def _generate_in_graph(self, request: Request, given: Mapping[str, Any], seed: Any) -> NoReturn:
        """Refused.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"{request.caller} cannot run inside a tf.function, whose texts would be of one length; call it outside of "
            "the function: the loop is compiled anyway"
        )

    def prepare_inputs_for_generation(
        self,
        input_ids: tf.Tensor,
        past_key_values: Any = None,
        attention_mask: Any = None,
        use_cache: bool | None = None,
        encoder_outputs: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The inputs of the next call of a loop of one's own.

        Args:
            input_ids: (B, T), the decoder's tokens so far.
            past_key_values: what the call before gave, which holds all but the last of them.
            attention_mask: (B, S), of the encoder.
            use_cache: whether a cache is wanted.
            encoder_outputs: what the encoder has given.
            **kwargs: what other models need.
        """
        new = self.decoder.prepare_inputs_for_generation(input_ids, past_key_values=past_key_values)
        return {
            "attention_mask": attention_mask,
            "decoder_input_ids": new["input_ids"],
            "encoder_outputs": encoder_outputs,
            "past_key_values": past_key_values,
            "use_cache": use_cache,
        }

    # ---- The parts

    def published_rows(self) -> dict[str, Parameter]:
        self._refuse_keras_mode()
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

    def _draw(self, row: Parameter) -> None:
        """Draw fresh values of a row; those of a side by its own configuration."""
        for prefix, side in (("encoder.", self.encoder), ("decoder.", self.decoder)):
            if row.name.startswith(prefix):
                part = row.quantized
                part = part and part._replace(weight=part.weight.removeprefix(prefix))
                side._draw(replace(row, name=row.name.removeprefix(prefix), quantized=part))
                return
        super()._draw(row)

    @property
    def sides(self) -> tuple[PreTrainedModel, PreTrainedModel]:
        """The encoder and the decoder."""
        return self.encoder, self.decoder

    def get_encoder(self) -> EncoderModel:
        """The encoder."""
        return self.encoder

    def get_decoder(self) -> CausalLM:
        """The decoder."""
        return self.decoder

    def get_input_embeddings(self) -> keras.layers.Embedding:
        """The word embedding of the encoder."""
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: keras.layers.Embedding) -> None:
        """Replace the word embedding of the encoder."""
        self.encoder.set_input_embeddings(value)

    def get_output_embeddings(self) -> keras.layers.Layer | None:
        """The vocabulary projection of the decoder."""
        return self.decoder.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: keras.layers.Layer) -> None:
        """Replace the vocabulary projection of the decoder."""
        self.decoder.set_output_embeddings(new_embeddings)

    def get_lm_head(self) -> keras.layers.Layer:
        """The head that predicts tokens."""
        return self.decoder.lm_head

    def set_output_bias(self, bias: Any) -> None:
        """Replace the values of the vocabulary projection's bias, (V,)."""
        self.decoder.set_output_bias(bias)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: which of the two vocabularies is meant, its side is asked.

        Raises:
            InputError: always.
        """
        refuse_resizing(type(self).__name__)

    # ---- Running

    @property
    def attn_implementation(self) -> str:
        """Name of the encoder's attention kernel."""
        return self.encoder.attn_implementation

    def set_attn_implementation(self, name: str) -> Self:
        """Choose the attention kernel of both sides: ``sdpa`` or ``eager``."""
        for side in self.sides:
            side.set_attn_implementation(name)
        return self

    @property
    def packing(self) -> str:
        """When batches are packed: ``auto``, ``always`` or ``never``."""
        return self.encoder.packing

    def set_packing(self, mode: str) -> Self:
        """Choose when batches of the encoder are packed; what attends to a memory never is."""
        for side in self.sides:
            side.set_packing(mode)
        return self

    def gradient_checkpointing_enable(self) -> None:
        """Recompute each layer of both sides in the backward pass in place of keeping its activations."""
        for side in self.sides:
            side.gradient_checkpointing_enable()
        self._forget_functions()

    def gradient_checkpointing_disable(self) -> None:
        """Keep activations again."""
        for side in self.sides:
            side.gradient_checkpointing_disable()
        self._forget_functions()

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether layers are recomputed in the backward pass."""
        return any(side.is_gradient_checkpointing for side in self.sides)

    def enable_lora(
        self, rank: int, lora_alpha: float | None = None, targets: Iterable[str] = ("query", "value")
    ) -> Self:
        """Train low-rank adapters in both sides; see :meth:`PreTrainedModel.enable_lora`."""
        targets = tuple(targets)
        for side in self.sides:
            side.enable_lora(rank, lora_alpha, targets)
        self.lora = {"rank": rank, "lora_alpha": lora_alpha, "targets": list(targets)}
        self._forget_functions()
        return self

    @property
    def input_signature(self) -> dict[str, tf.TensorSpec]:
        """The inputs by name, as ``tf.TensorSpec``: int32, every size free."""
        names = ("input_ids", "attention_mask", "decoder_input_ids", "decoder_attention_mask")
        return {name: tf.TensorSpec((None, None), tf.int32, name) for name in names}

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
        return cls(config_of_both(None, sides[0].config, sides[1].config, **values), *sides)


def _built(config: XLMRobertaConfig, head: str, dtype: Any) -> Any:
    """A side of fresh values."""
    return family_class(config, head)(config, dtype=dtype)


def _loaded(side: SideToLoad, head: str, *args: Any) -> Any:
    """A side, loaded if it is not there."""
    if side.model is not None:
        return side.model
    assert side.config is not None
    kind: Any = family_class(side.config, head)
    return kind.from_pretrained(side.source, *args, config=side.config, **side.arguments)
