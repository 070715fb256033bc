"""``generate``: the surface. What it means is in :mod:`xlmr_core.generation`, the loops are in ``decoding.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.generation import (
    DECODER_INPUTS,
    GenerationConfig,
    Hooks,
    Prompt,
    Request,
    arrange_prompt,
    ends_streamer,
    generation_output,
    plan_generation,
    read_request,
    start_ids,
    transition_scores,
)
from xlmr_core.generation.config import taken
from xlmr_core.wording import an
from xlmr_torch.cache import see_cache_of_model
from xlmr_torch.decoding import check_cache_of_prompt, decode
from xlmr_torch.inputs import see
from xlmr_torch.steps import Steps

__all__ = ["Beginning", "GenerationMixin", "on_host"]


def on_host(name: str, x: Any) -> NDArray[Any] | None:
    """An input of a call as an array in the host's memory.

    Raises:
        InputError: for what is no tensor.
    """
    if x is None:
        return None
    see(name, x)
    tensor: Tensor = x.detach().cpu()
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()


@dataclass
class Beginning:
    """What the loops start with.

    Attributes:
        decoder: what is asked for tokens.
        prompt: arranged.
        memory: ``encoder_hidden_states`` and ``encoder_attention_mask``, for cross-attention.
        cache: with the beginning of the prompt.
        encoder_ids: (B, M) of an encoder's text.
        fields: of the output, beside those of the loops.
    """

    decoder: Any
    prompt: Prompt
    memory: dict[str, Tensor]
    cache: Any = None
    encoder_ids: Tensor | None = None
    fields: dict[str, Any] = field(default_factory=dict)


class GenerationMixin(nn.Module):
    """The part of a model that continues texts."""

    config: XLMRobertaConfig
    get_input_embeddings: Any
    _supports_cache_class: ClassVar[bool] = True
    _supports_static_cache: ClassVar[bool] = True
    _generation_inputs: ClassVar[tuple[str, ...]] = DECODER_INPUTS
    _generation_config: GenerationConfig | None = None

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
        self._generation_config = None if value is None else taken(value)

    @ends_streamer
    def generate(
        self,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: Iterable[Callable[..., Any]] | None = None,
        stopping_criteria: Iterable[Callable[..., Any]] | None = None,
        prefix_allowed_tokens_fn: Callable[[int, Tensor], Iterable[int]] | None = None,
        synced_gpus: bool | None = None,
        assistant_model: Any = None,
        streamer: Any = None,
        negative_prompt_ids: Tensor | None = None,
        negative_prompt_attention_mask: Tensor | None = None,
        use_model_defaults: bool | None = None,
        custom_generate: Any = None,
        *,
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> Any:
        """Continue texts.

        Args:
            inputs: integers (B, P), the prompts, padded on either side; ``input_ids`` says the same. Without any,
                ``bos_token_id`` begins.
            generation_config: options in place of the model's.
            logits_processor: callables (input_ids, scores) that give other scores, after those of the options.
            stopping_criteria: callables (input_ids, scores) that say which rows are done.
            prefix_allowed_tokens_fn: (number of the prompt, ids so far) to the ids that may follow.
            streamer: is given every token as soon as it is there.
            synced_gpus, assistant_model, negative_prompt_ids, negative_prompt_attention_mask, custom_generate: of the
                published signature; must be ``None``.
            use_model_defaults: ``False``: a ``generation_config`` counts as it is, with the model's special tokens.
            generator: for draws; PyTorch's own by default, which ``torch.manual_seed`` sets.
            **kwargs: options (see :class:`xlmr_core.generation.GenerationConfig`) and inputs of the model:
                ``attention_mask``, ``token_type_ids``, ``encoder_hidden_states``, ``encoder_attention_mask``, and
                ``past_key_values`` with the beginning of the prompts; and ``tokenizer`` for ``stop_strings``.

        Returns:
            Integers (R, length): the prompts as they came and the new tokens, R of them a prompt where
            ``num_return_sequences`` says so; with ``return_dict_in_generate=True`` one of the outputs of
            :mod:`xlmr_core.generation.outputs`.

        Raises:
            InputError: for inputs or options that cannot be served, and more tokens than the model has positions for.
            ConfigError: for a value that no option can have.
            TypeError: for an argument that is not known, with the nearest name.
        """
        request = self._read_request(
            inputs,
            generation_config,
            Hooks.of(logits_processor, stopping_criteria, prefix_allowed_tokens_fn, streamer),
            {
                "synced_gpus": synced_gpus,
                "assistant_model": assistant_model,
                "negative_prompt_ids": negative_prompt_ids,
                "negative_prompt_attention_mask": negative_prompt_attention_mask,
                "use_model_defaults": use_model_defaults,
                "custom_generate": custom_generate,
                **kwargs,
            },
        )
        if not isinstance(generator, torch.Generator | None):
            raise InputError(
                f"generator must be a torch.Generator, received {an(type(generator).__name__)}; make one by "
                "torch.Generator().manual_seed(5)"
            )
        beginning = self._begin(request)
        plan = plan_generation(self.config, request, beginning.prompt)
        steps = Steps(beginning.decoder, plan, beginning.prompt, beginning.memory, beginning.cache)
        fields = decode(steps, request.hooks, generator, beginning.encoder_ids)
        if not plan.return_dict:
            return fields["sequences"]
        return generation_output(plan.has_beams, beginning.decoder is not self, {**fields, **beginning.fields})

    def _begin(self, request: Request) -> Beginning:
        """What the loops start with."""
        given = dict(request.inputs)
        cache = given.pop("past_key_values", None)
        memory = {name: given[name] for name in ("encoder_hidden_states", "encoder_attention_mask") if name in given}
        ids = on_host("input_ids", given.get("input_ids"))
        if ids is None or 0 in ids.shape[1:]:
            states = memory.get("encoder_hidden_states")
            ids = start_ids(request, len(ids) if ids is not None else 1 if states is None else len(states))
        prompt = arrange_prompt(
            self.config,
            ids,
            on_host("attention_mask", given.get("attention_mask")),
            token_type_ids=on_host("token_type_ids", given.get("token_type_ids")),
            position_numbering=request.options.position_numbering,
        )
        if cache is not None:
            cache, past = see_cache_of_model(self.config, cache)
            check_cache_of_prompt(prompt, past.length or 0)
        return Beginning(self, prompt, memory, cache)

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
            draws_from="generator",
        )

    def compute_transition_scores(
        self,
        sequences: Tensor,
        scores: tuple[Tensor, ...],
        beam_indices: Tensor | None = None,
        normalize_logits: bool = False,
    ) -> Tensor:
        """The score of each new token.

        Args:
            sequences: (R, length), of an output.
            scores: (R, V) for each step, ``scores`` or ``logits`` of the same output.
            beam_indices: (R, new tokens), of an output of beam search.
            normalize_logits: make them log-probabilities first.

        Returns:
            (R, new tokens); 0 after the end of a row of beam search.
        """
        found = transition_scores(
            sequences.cpu().numpy(),
            [np.asarray(step.float().cpu()) for step in scores],
            None if beam_indices is None else beam_indices.cpu().numpy(),
            normalize_logits,
        )
        return torch.from_numpy(found).to(sequences.device)

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        past_key_values: Any = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        cache_position: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The inputs of the next call of a loop that generates; peft puts its own in this place.

        Args:
            input_ids: (B, S), the tokens so far.
            past_key_values: a cache, which holds the first of them.
            attention_mask: (B, S).
            inputs_embeds, cache_position: of the published signature; they follow from the rest.
            **kwargs: further inputs; those with a column a token are cut to the new ones.
        """
        past = 0 if past_key_values is None else int(past_key_values.get_seq_length())
        by_token = {"input_ids": input_ids}
        by_token |= {name: kwargs.pop(name) for name in ("token_type_ids", "position_ids") if name in kwargs}
        new = {name: x if x is None or past == 0 else x[:, past:] for name, x in by_token.items()}
        return {**new, "attention_mask": attention_mask, "past_key_values": past_key_values, **kwargs}

    @staticmethod
    def _reorder_cache(past_key_values: Any, beam_idx: Tensor) -> Any:
        """A cache whose rows go on from others; tuples give tuples, as in releases that had them."""
        if isinstance(past_key_values, tuple):
            return tuple(tuple(x.index_select(0, beam_idx.to(x.device)) for x in layer) for layer in past_key_values)
        past_key_values.reorder_cache(beam_idx)
        return past_key_values
