"""``generate``: the surface. What arguments mean is in :mod:`xlmr_core.generation`, the loops are in ``decoding.py``.

Inside ``jax.jit`` a call becomes part of the caller's program, as it is published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.generation import (
    DECODER_INPUTS,
    Generation,
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
from xlmr_core.generation.outputs import GENERATION_OUTPUTS
from xlmr_core.outputs import MaybeNone, ModelOutput
from xlmr_core.positions import max_tokens
from xlmr_flax.decoding import decode
from xlmr_flax.inputs import check_key, has_values, see
from xlmr_flax.tensors import register_outputs

__all__ = [
    "Beginning",
    "FlaxBeamSearchOutput",
    "FlaxGreedySearchOutput",
    "FlaxSampleOutput",
    "GenerationMixin",
    "answer",
    "prompt_of",
    "runs_on_host",
]


class FlaxGreedySearchOutput(ModelOutput[Array]):
    """Greedy search, as published for Flax.

    Attributes:
        sequences: (R, C + N): the prompts as they came, and room for all new tokens, padding behind the last.
    """

    fields = ("sequences",)
    sequences: Array


class FlaxSampleOutput(FlaxGreedySearchOutput):
    """Sampling, as published for Flax: ``sequences``."""


class FlaxBeamSearchOutput(ModelOutput[Array]):
    """Beam search, as published for Flax.

    Attributes:
        sequences: (R, C + N), of each prompt the best first.
        scores: (R,) of the whole sequences: the sum of the log-probabilities over length ** length_penalty.
    """

    fields = ("sequences", "scores")
    sequences: Array
    scores: Array | MaybeNone


register_outputs([*GENERATION_OUTPUTS.values(), FlaxGreedySearchOutput, FlaxSampleOutput, FlaxBeamSearchOutput])


@dataclass
class Beginning:
    """What the loops start with.

    Attributes:
        decoder: what is asked for tokens, with its parameters.
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
    """The part of a model that continues texts."""

    config: XLMRobertaConfig
    init_cache: Any
    prepare: Any
    _config: Any
    _generation_inputs: ClassVar[tuple[str, ...]] = tuple(name for name in DECODER_INPUTS if name != "past_key_values")

    @classmethod
    def can_generate(cls) -> bool:
        """Whether there is a ``generate`` that continues texts: yes."""
        return True

    @property
    def generation_config(self) -> GenerationConfig:
        """Options of ``generate``, which those of a call win over: of ``generation_config.json``, or else what the
        configuration says.
        """
        if self._config.generation_config is None:
            self._config.generation_config = GenerationConfig.from_model_config(self.config)
        return cast(GenerationConfig, self._config.generation_config)

    @generation_config.setter
    def generation_config(self, value: GenerationConfig | None) -> None:
        self._config.generation_config = None if value is None else taken(value)

    @ends_streamer
    def generate(
        self,
        input_ids: Any = None,
        generation_config: GenerationConfig | None = None,
        prng_key: Array | None = None,
        trace: bool = True,
        params: Any = None,
        logits_processor: Iterable[Callable[..., Any]] | None = None,
        *,
        stopping_criteria: Iterable[Callable[..., Any]] | None = None,
        prefix_allowed_tokens_fn: Callable[[int, Any], Iterable[int]] | None = None,
        streamer: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Continue texts.

        The loop is one compiled program, kept by the options and by rounded shapes. Where the host has to see each step
        (``streamer``, ``logits_processor``, ``stopping_criteria``, ``prefix_allowed_tokens_fn``, ``stop_strings``,
        ``max_time``, and what is to come back of each step) compiled single steps run from Python, with the same
        tokens. Inside ``jax.jit`` and ``jax.pmap`` the loop becomes part of the caller's program; prompts are padded on
        the left there.

        Args:
            input_ids: integers (B, P), the prompts, padded on either side. Without any, ``bos_token_id`` begins.
            generation_config: options in place of the model's.
            prng_key: random key of draws; default: ``jax.random.key(0)``, so that the same call gives the same.
            trace: ``False`` takes single steps from Python.
            params: parameters in place of the model's own.
            logits_processor: callables (input_ids, scores, cur_len) or (input_ids, scores) that give other scores,
                after those of the options.
            stopping_criteria: callables (input_ids, scores) that say which rows are done.
            prefix_allowed_tokens_fn: (number of the prompt, ids so far) to the ids that may follow.
            streamer: is given every token as soon as it is there.
            **kwargs: options (see :class:`xlmr_core.generation.GenerationConfig`) and inputs of the model:
                ``attention_mask``, ``token_type_ids``, ``encoder_hidden_states``, ``encoder_attention_mask``; and
                ``tokenizer`` for ``stop_strings``.

        Returns:
            :class:`FlaxGreedySearchOutput`, :class:`FlaxSampleOutput` or :class:`FlaxBeamSearchOutput`; with
            ``return_dict_in_generate=True`` one of the outputs of :mod:`xlmr_core.generation.outputs`, whose sequences
            end with their last token (inside ``jax.jit``, where shapes are fixed, they have room for all).

        Raises:
            InputError: for inputs or options that cannot be served, more tokens than the model has positions for, and
                inside ``jax.jit`` for what needs the host.
            ConfigError: for a value that no option can have.
            TypeError: for an argument that is not known, with the nearest name.
        """
        if prng_key is not None:
            check_key("prng_key", prng_key)
        model, _ = self.prepare(params, None, False)
        request = read_request(
            self.config,
            self.generation_config,
            caller=f"{type(self).__name__}.generate()",
            inputs=input_ids,
            generation_config=generation_config,
            hooks=Hooks.of(logits_processor, stopping_criteria, prefix_allowed_tokens_fn, streamer),
            kwargs=kwargs,
            takes=self._generation_inputs,
            draws_from="prng_key",
        )
        beginning = model._begin(request)
        prompt, memory = beginning.prompt, beginning.memory
        plan = plan_generation(self.config, request, prompt)
        key = jax.random.key(0) if prng_key is None else prng_key
        traced = not all(map(has_values, jax.tree.leaves((prompt.ids, model.params, memory, key))))
        on_host = runs_on_host(plan, traced=traced, trace=trace)
        fields = decode(
            beginning.decoder,
            plan,
            prompt,
            request.hooks,
            key,
            memory=memory,
            encoder_ids=beginning.encoder_ids,
            on_host=on_host,
        )
        has_encoder = beginning.decoder is not model
        return answer(plan, {**fields, **beginning.fields}, prompt, traced=traced, has_encoder=has_encoder)

    def _begin(self, request: Request) -> Beginning:
        """What the loops start with."""
        given = request.inputs
        memory = {name: given[name] for name in ("encoder_hidden_states", "encoder_attention_mask") if name in given}
        ids = given.get("input_ids")
        see("input_ids", ids)
        if ids is None or 0 in ids.shape[1:]:
            states = memory.get("encoder_hidden_states")
            ids = start_ids(request, len(ids) if ids is not None else 1 if states is None else len(states))
        prompt = prompt_of(self.config, request, ids, given.get("attention_mask"), given.get("token_type_ids"))
        return Beginning(self, prompt, memory)

    def compute_transition_scores(
        self,
        sequences: Array,
        scores: tuple[Array, ...],
        beam_indices: Array | None = None,
        normalize_logits: bool = False,
    ) -> Array:
        """The score of each new token.

        Args:
            sequences: (R, length), of an output of ``return_dict_in_generate=True``.
            scores: (R, V) for each step, ``scores`` or ``logits`` of the same output.
            beam_indices: (R, new tokens), of an output of beam search.
            normalize_logits: make them log-probabilities first.

        Returns:
            (R, new tokens); 0 after the end of a row of beam search.
        """
        steps = [np.asarray(step) for step in scores]
        beams = None if beam_indices is None else np.asarray(beam_indices)
        return jnp.asarray(transition_scores(np.asarray(sequences), steps, beams, normalize_logits))

    def prepare_inputs_for_generation(
        self, input_ids: Any, max_length: int, attention_mask: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """What the first call of a loop of one's own needs beside the prompt, as published.

        Args:
            input_ids: (B, P), padded on the left.
            max_length: the most tokens of a row, prompt included.
            attention_mask: (B, P).
            **kwargs: further inputs, kept as they are.

        Returns:
            An empty cache as ``past_key_values``, and ``attention_mask`` (B, max_length) for all calls.
        """
        batch, length = input_ids.shape
        mask = jnp.ones((batch, max_length), jnp.int32)
        if attention_mask is not None:
            mask = mask.at[:, :length].set(attention_mask)
        return {"past_key_values": self.init_cache(batch, max_length), "attention_mask": mask, **kwargs}

    def update_inputs_for_generation(self, model_outputs: Any, model_kwargs: dict[str, Any]) -> dict[str, Any]:
        """The inputs of the next call, beside its token: with the cache of the last one, as published.

        Args:
            model_outputs: of the last call.
            model_kwargs: its inputs; ``position_ids`` count on.
        """
        found = {**model_kwargs, "past_key_values": model_outputs.past_key_values}
        if found.get("position_ids") is not None:
            found["position_ids"] = found["position_ids"][:, -1:] + 1
        return found


def prompt_of(config: XLMRobertaConfig, request: Request, ids: Any, mask: Any, token_type_ids: Any) -> Prompt:
    """The prompts of a call, arranged; inside ``jax.jit``, where there is nothing to be seen, taken as they are.

    Args:
        config: of the decoder.
        request: the arguments.
        ids, mask, token_type_ids: (B, C).
    """
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": token_type_ids}
    for name, x in given.items():
        see(name, x)
    numbering = request.options.position_numbering
    if all(x is None or has_values(x) for x in given.values()):
        ids, mask, types = (None if x is None else np.asarray(x) for x in given.values())

        def width(longest: int) -> int:
            return bucket(longest, max_tokens(config))

        return arrange_prompt(config, ids, mask, token_type_ids=types, position_numbering=numbering, width=width)
    ids = jnp.asarray(ids, jnp.int32)
    is_token = ids != config.pad_token_id
    mask = jnp.cumsum(is_token, axis=1) > 0 if mask is None else mask
    mask = jnp.asarray(mask, jnp.int32)
    counted_BP = jnp.cumsum(mask, axis=1)
    zero_based = numbering == "zero_based"
    return Prompt(
        came=ids,
        ids=ids,
        mask=mask,
        token_type_ids=None if token_type_ids is None else jnp.broadcast_to(token_type_ids, ids.shape),
        position_ids=jnp.where(mask != 0, counted_BP - 1, 1) if zero_based else None,
        counted=counted_BP[:, -1] if zero_based else is_token.sum(1),
        longest=ids.shape[1],
    )


def runs_on_host(plan: Generation, *, traced: bool, trace: bool) -> bool:
    """Whether steps are taken from Python.

    Args:
        plan: what the call means.
        traced: whether it stands inside ``jax.jit`` or the like.
        trace: as passed.

    Raises:
        InputError: if they have to be and cannot.
    """
    each_step = plan.output_scores or plan.output_logits or plan.output_attentions or plan.output_hidden_states
    if traced and (plan.needs_host or each_step):
        raise InputError(
            "inside jax.jit and jax.pmap nothing can run between steps; leave out streamers, processors and criteria, "
            "stop_strings, max_time and output_..., or call generate outside"
        )
    return not traced and (plan.needs_host or each_step or not trace)


def answer(plan: Generation, fields: dict[str, Any], prompt: Prompt, *, traced: bool, has_encoder: bool = False) -> Any:
    """What ``generate`` returns.

    Args:
        plan: what the call means.
        fields: of :func:`xlmr_flax.decoding.decode`.
        prompt: of the call.
        traced: whether it stands inside ``jax.jit`` or the like.
        has_encoder: whether the model is an encoder and a decoder.
    """
    if plan.return_dict:
        if not traced:
            steps = int(fields["steps"])
            fields["sequences"] = fields["sequences"][:, : prompt.came.shape[1] + steps]
            if plan.has_beams:
                fields["beam_indices"] = fields["beam_indices"][:, :steps]
        return generation_output(plan.has_beams, has_encoder, fields)
    if plan.has_beams:
        return FlaxBeamSearchOutput(sequences=fields["sequences"], scores=fields["sequences_scores"])
    return (FlaxSampleOutput if plan.do_sample else FlaxGreedySearchOutput)(sequences=fields["sequences"])
