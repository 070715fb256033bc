"""``generate``: the published arguments of a decoder that continues texts. The loops are in ``decoding.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from xlmr_core.checks import check_memory
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.generation import (
    DECODER_INPUTS,
    GenerationConfig,
    Hooks,
    Prompt,
    Request,
    arrange_prompt,
    bucket,
    ends_streamer,
    generation_output,
    plan_generation,
    read_request,
    start_ids,
    transition_scores,
)
from xlmr_core.generation.config import taken
from xlmr_tf.cache import Cache
from xlmr_tf.decoding import Programs, decode, search, wants_steps
from xlmr_tf.inputs import is_traced, see
from xlmr_tf.steps import Given

__all__ = ["Beginning", "GenerationMixin", "draw_seed", "given_of", "on_host", "width_of"]

MEMORY = ("encoder_hidden_states", "encoder_attention_mask")


def on_host(name: str, x: Any) -> NDArray[Any] | None:
    """An input of a call as an array in the host's memory.

    Raises:
        InputError: for what is no tensor.
    """
    if x is None:
        return None
    tensor = tf.convert_to_tensor(x) if isinstance(x, np.ndarray) else x
    see(name, tensor)
    return np.asarray(tensor)


def width_of(decoder: XLMRobertaConfig, request: Request) -> Callable[[int], int]:
    """How many columns prompts get whose longest has so many tokens: rounded up, so that programs are shared, but where
    columns come back, or cost something at every step.

    Args:
        decoder: its configuration.
        request: the arguments of the call.
    """
    options = request.options
    uses_cache = options.use_cache and decoder.is_decoder
    columns_come_back = options.output_attentions or options.output_hidden_states
    if tf.config.functions_run_eagerly() or columns_come_back or not uses_cache:
        return lambda longest: longest
    # One token, such as the first of a decoder with an encoder, is what it is.
    return lambda longest: bucket(longest, decoder.max_tokens) if longest > 1 else 1


def given_of(
    prompt: Prompt,
    max_length: int,
    seed: tf.Tensor | None,
    *,
    encoder_hidden_states: Any = None,
    encoder_attention_mask: Any = None,
    encoder_ids: Any = None,
) -> Given:
    """The tensors of a call.

    Args:
        prompt: arranged.
        max_length: the most tokens of a row, prompt included.
        seed: (2,), of draws.
        encoder_hidden_states, encoder_attention_mask: (B, M, D) and (B, M), of an encoder.
        encoder_ids: (B, M), of its text.
    """

    def integers(x: Any) -> tf.Tensor | None:
        return None if x is None else tf.cast(x, tf.int32)

    return Given(
        ids_BP=integers(prompt.ids),
        mask_BP=integers(prompt.mask),
        types_BP=integers(prompt.token_type_ids),
        positions_BP=integers(prompt.position_ids),
        counted_B=integers(prompt.counted),
        memory_BMD=None if encoder_hidden_states is None else tf.convert_to_tensor(encoder_hidden_states),
        memory_mask_BM=integers(encoder_attention_mask),
        encoder_ids_BM=integers(prompt.ids if encoder_ids is None else encoder_ids),
        max_length=tf.constant(max_length),
        seed=tf.zeros((2,), tf.int32) if seed is None else seed,
    )


def dtype_of(ids: Any) -> Any:
    """The dtype of the ids that come back: that of those that came."""
    return tf.int32 if ids is None else tf.as_dtype(ids.dtype)


def draw_seed(seed: Any) -> tf.Tensor:
    """(2,): what draws follow from; without a seed it is drawn from TensorFlow's global generator.

    Raises:
        InputError: for what is neither one integer nor two.
    """
    if seed is None:
        return tf.random.uniform((2,), maxval=np.iinfo(np.int32).max, dtype=tf.int32)
    found = np.asarray(seed)
    if found.dtype.kind not in "iu" or found.shape not in ((), (2,)):
        raise InputError(f"seed must be an integer, or two of them, received {seed!r}")
    return tf.constant(np.broadcast_to(found, (2,)) % np.iinfo(np.int32).max, tf.int32)


@dataclass
class Beginning:
    """What the loops start with.

    Attributes:
        decoder: what is asked for tokens.
        prompt: arranged.
        memory: ``encoder_hidden_states`` and ``encoder_attention_mask``, for cross-attention.
        encoder_ids: (B, M) of an encoder's text.
        fields: of the output, beside those of the loops.
    """

    decoder: Any
    prompt: Prompt
    memory: dict[str, Any]
    encoder_ids: Any = None
    fields: dict[str, Any] = field(default_factory=dict)


class GenerationMixin:
    """The part of a model that continues texts; a base before ``keras.Model``."""

    config: XLMRobertaConfig
    _generation_inputs: ClassVar[tuple[str, ...]] = tuple(name for name in DECODER_INPUTS if name != "past_key_values")
    _generation_config: GenerationConfig | None = None
    _programs: Programs | None = None

    @classmethod
    def can_generate(cls) -> bool:
        """Whether there is a ``generate`` that continues texts: yes."""
        return True

    @property
    def generation_config(self) -> GenerationConfig:
        """Options of ``generate``, which those of a call win over: of ``generation_config.json``, or else what the
        configuration says.
        """
        if self._generation_config is None:
            self._generation_config = GenerationConfig.from_model_config(self.config)
        return self._generation_config

    @generation_config.setter
    def generation_config(self, value: GenerationConfig | None) -> None:
        value = dict(value) if isinstance(value, dict) else value  # Keras puts its own in the place of one
        self._generation_config = None if value is None else taken(value)

    @property
    def generation_programs(self) -> Programs:
        """The compiled programs of ``generate``; ``generation_programs.traced`` counts them."""
        if self._programs is None:
            self._programs = Programs()
        return self._programs

    @ends_streamer
    def generate(
        self,
        inputs: Any = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: Iterable[Callable[..., Any]] | None = None,
        seed: Any = None,
        stopping_criteria: Iterable[Callable[..., Any]] | None = None,
        prefix_allowed_tokens_fn: Callable[[int, Any], Iterable[int]] | None = None,
        streamer: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Continue texts.

        The loop is one program for XLA, compiled when the first call of its kind comes; lengths are rounded up, so
        that calls of other lengths share it. A streamer, processors and criteria of one's own, ``stop_strings``,
        ``max_time``, and whatever comes back for each step, make the steps programs of their own that Python calls:
        the tokens are the same.

        Args:
            inputs: integers (B, P), the prompts, padded on either side; ``input_ids`` says the same. Without any,
                ``bos_token_id`` begins.
            generation_config: options in place of the model's.
            logits_processor: callables (input_ids, scores) that give other scores, after those of the options.
            seed: an integer or two, for draws; without one TensorFlow's global generator decides.
            stopping_criteria: callables (input_ids, scores) that say which rows are done.
            prefix_allowed_tokens_fn: (number of the prompt, ids so far) to the ids that may follow.
            streamer: is given every token as soon as it is there.
            **kwargs: options (see :class:`xlmr_core.generation.GenerationConfig`) and inputs of the model:
                ``attention_mask``, ``token_type_ids``, ``encoder_hidden_states``, ``encoder_attention_mask``; and
                ``tokenizer`` for ``stop_strings``.

        Returns:
            Integers (R, length): the prompts as they came and the new tokens, R of them a prompt where
            ``num_return_sequences`` says so; with ``return_dict_in_generate=True`` one of the outputs of
            :mod:`xlmr_core.generation.outputs`.

        Raises:
            InputError: for inputs or options that cannot be served, and more tokens than the model has positions for.
            ConfigError: for a value that no option can have.
            TypeError: for an argument that is not known, with the nearest name.
        """
        hooks = Hooks.of(logits_processor, stopping_criteria, prefix_allowed_tokens_fn, streamer)
        request = self._read_request(inputs, generation_config, hooks, kwargs)
        if is_traced():
            return self._generate_in_graph(request, dict(request.inputs), seed)
        beginning = self._begin(request)
        prompt, decoder = beginning.prompt, beginning.decoder
        plan = plan_generation(self.config, request, prompt)
        drawn = draw_seed(seed) if plan.do_sample else None
        tensors = given_of(prompt, plan.max_length, drawn, encoder_ids=beginning.encoder_ids, **beginning.memory)
        found = decode(decoder, decoder.generation_programs, plan, prompt, tensors, request.hooks)
        fields = {**found, **beginning.fields}
        fields["sequences"] = tf.cast(fields["sequences"], dtype_of(request.inputs.get("input_ids")))
        if not plan.return_dict:
            return fields["sequences"]
        return generation_output(plan.has_beams, decoder is not self, fields)

    def _begin(self, request: Request) -> Beginning:
        """What the loops start with."""
        given = request.inputs
        memory = {name: given.get(name) for name in MEMORY}
        memory = {name: tf.convert_to_tensor(x) if isinstance(x, np.ndarray) else x for name, x in memory.items()}
        ids = on_host("input_ids", given.get("input_ids"))
        if ids is None or 0 in ids.shape[1:]:
            states = memory["encoder_hidden_states"]
            ids = start_ids(request, len(ids) if ids is not None else 1 if states is None else len(states))
        prompt = arrange_prompt(
            self.config,
            ids,
            on_host("attention_mask", given.get("attention_mask")),
            token_type_ids=on_host("token_type_ids", given.get("token_type_ids")),
            position_numbering=request.options.position_numbering,
            width=width_of(self.config, request),
        )
        # Before the memory's length is rounded up, which a message would show.
        states, mask = (see(name, memory[name]) for name in MEMORY)
        check_memory(self.config, prompt.batch, states, mask, has_cross_attention=self.config.add_cross_attention)
        return Beginning(self, prompt, memory)

    def _generate_in_graph(self, request: Request, given: Mapping[str, Any], seed: Any) -> Any:
        """``generate`` inside a function that is being traced: as long as the longest answer, filled up with padding.
        Prompts have to be padded on the left then.
        """
        config, ids = self.config, given.get("input_ids")
        if ids is None or not ids.shape.is_fully_defined():
            raise InputError(
                "generate() inside a tf.function needs input_ids of a known shape, received "
                f"{None if ids is None else ids.shape}; give the function an input_signature of fixed sizes"
            )
        mask_BP = given.get("attention_mask")
        if mask_BP is None:
            is_token = tf.cast(ids != config.pad_token_id, tf.int32)
            mask_BP = tf.cumsum(is_token, 1) * tf.cumsum(is_token, 1, reverse=True) > 0
        mask_BP = tf.cast(mask_BP, tf.int32)
        zero_based = request.options.position_numbering == "zero_based"
        counted_BP = mask_BP if zero_based else tf.cast(ids != config.pad_token_id, tf.int32)
        prompt = Prompt(
            came=ids,
            ids=ids,
            mask=mask_BP,
            token_type_ids=given.get("token_type_ids"),
            position_ids=tf.where(mask_BP == 1, tf.cumsum(mask_BP, 1) - 1, 1) if zero_based else None,
            counted=tf.reduce_sum(counted_BP, 1),
            longest=int(ids.shape[1]),
        )
        plan = plan_generation(config, request, prompt)
        if plan.needs_host or wants_steps(plan):
            raise InputError(
                "generate() inside a tf.function has no steps that Python sees, expected no streamer, no processors, "
                "criteria or texts to stop at, and no output of each step; call it outside of the function"
            )
        memory = {name: given.get(name) for name in MEMORY}
        tensors = given_of(prompt, plan.max_length, draw_seed(seed) if plan.do_sample else None, **memory)
        found = search(self, plan, tensors)
        fields = {"sequences": tf.cast(found["ids"], ids.dtype), "sequences_scores": found.get("scores")}
        return generation_output(plan.has_beams, False, fields) if plan.return_dict else fields["sequences"]

    def _read_request(self, inputs: Any, options: Any, hooks: Hooks, kwargs: Mapping[str, Any]) -> Request:
        return read_request(
            self.config,
            self.generation_config,
            caller=f"{type(self).__name__}.generate()",
            inputs=inputs,
            generation_config=options,
            hooks=hooks,
            kwargs=kwargs,
            takes=self._generation_inputs,
            draws_from="seed",
        )

    def compute_transition_scores(
        self,
        sequences: Any,
        scores: Iterable[Any],
        beam_indices: Any = None,
        normalize_logits: bool = False,
    ) -> tf.Tensor:
        """The score of each new token.

        Args:
            sequences: (R, length), of an output.
            scores: (R, V) for each step, ``scores`` or ``logits`` of the same output.
            beam_indices: (R, new tokens), of an output of beam search.
            normalize_logits: make them log-probabilities first.

        Returns:
            (R, new tokens); 0 after the end of a row of beam search.
        """
        beams = None if beam_indices is None else np.asarray(beam_indices)
        found = transition_scores(np.asarray(sequences), [*map(np.asarray, scores)], beams, normalize_logits)
        return tf.convert_to_tensor(found)

    def prepare_inputs_for_generation(
        self, input_ids: tf.Tensor, past_key_values: Any = None, attention_mask: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The inputs of the next call of a loop of one's own.

        Args:
            input_ids: (B, S), the tokens so far.
            past_key_values: what the call before gave, which holds all but the last of them.
            attention_mask: (B, S); default: ones.
            **kwargs: further inputs; those with a column a token are cut to the last one.
        """
        if attention_mask is None:
            attention_mask = tf.ones_like(input_ids)
        by_token = {"input_ids": input_ids}
        by_token |= {name: kwargs.pop(name) for name in ("token_type_ids", "position_ids") if name in kwargs}
        if past_key_values is not None:
            by_token = {name: None if x is None else x[:, -1:] for name, x in by_token.items()}
        return {**by_token, "attention_mask": attention_mask, "past_key_values": past_key_values, **kwargs}

    @staticmethod
    def _reorder_cache(past_key_values: Any, beam_idx: tf.Tensor) -> Any:
        """A published tuple whose rows go on from others."""
        return Cache.from_legacy_cache(past_key_values).reorder_cache(beam_idx).to_legacy_cache()
