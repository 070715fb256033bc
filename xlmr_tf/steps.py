"""What the loops of generation are made of, whichever of them runs: the model's steps, processors and stops.

:class:`Search` gives the prompt to the model, then one more token of each row. :class:`BetweenSteps` is what the host
does between steps. The loops are in ``decoding.py`` and ``beams.py``.

Shape letters: B prompts, R rows (all beams, or draws, of all prompts), L the buffer, P the prompt, V vocabulary, X
tokens that may follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from xlmr_core.generation import (
    RENORMALIZE,
    Generation,
    Hooks,
    LogitsProcessorList,
    Processor,
    Prompt,
    allowed_tokens,
    next_position,
    own_criteria,
)
from xlmr_tf.cache import StaticCache
from xlmr_tf.linear import dims
from xlmr_tf.processors import process

__all__ = ["Answer", "BetweenSteps", "Given", "Search", "as_came"]


class Given(NamedTuple):
    """The tensors of one call.

    Attributes:
        ids_BP, mask_BP: the prompt, arranged.
        types_BP: its token types, or ``None``.
        positions_BP: its positions, or ``None``: those of the forward pass.
        counted_B: how many tokens of each prompt have a position of their own.
        memory_BMD, memory_mask_BM: of an encoder, or ``None``.
        encoder_ids_BM: of the encoder's text; the prompt where there is none.
        max_length: scalar, the most tokens of a row: the plan may have it rounded up.
        seed: (2,), of draws.
    """

    ids_BP: tf.Tensor
    mask_BP: tf.Tensor
    types_BP: tf.Tensor | None
    positions_BP: tf.Tensor | None
    counted_B: tf.Tensor
    memory_BMD: tf.Tensor | None
    memory_mask_BM: tf.Tensor | None
    encoder_ids_BM: tf.Tensor
    max_length: tf.Tensor
    seed: tf.Tensor


class Answer(NamedTuple):
    """What the model says of the next tokens.

    Attributes:
        logits_RV: float32.
        cache: of the tokens so far; ``None`` if every step computes the whole sequence.
        extras: attentions and states by name, where the plan asks for them.
    """

    logits_RV: tf.Tensor
    cache: StaticCache | None
    extras: dict[str, Any]


class Search:
    """What the steps of every loop do, as functions of tensors.

    Args:
        model: with a head for causal language modelling.
        plan: what the call means.
        given: its tensors.
        between: what runs on the host between steps. Then each function that is called by its name is a program of its
            own; without it all is part of one program.
    """

    def __init__(self, model: Any, plan: Generation, given: Given, between: BetweenSteps | None = None) -> None:
        self.model, self.plan, self.given, self.between = model, plan, given, between

    def do(self, name: str, *tensors: Any) -> Any:
        """Call one of the functions by its name: here, or as a program of its own."""
        if self.between is None:
            return getattr(self, name)(*tensors)
        return self.between.programs.get(self.model, self.plan, name)(self.given, *tensors)

    # ---- The model

    def prefill(self) -> Answer:
        """The prompts, computed once for all their rows."""
        given, plan = self.given, self.plan
        output = self.model(
            input_ids=given.ids_BP,
            attention_mask=given.mask_BP,
            token_type_ids=given.types_BP,
            position_ids=given.positions_BP,
            encoder_hidden_states=given.memory_BMD,
            encoder_attention_mask=given.memory_mask_BM,
            past_key_values=StaticCache.empty(plan.max_length) if plan.use_cache else None,
            logits_to_keep=1,
            **self.asked(),
        )
        answer = self.answer(output)
        times = plan.rows_per_prompt
        if times == 1:
            return answer
        cache = answer.cache and answer.cache.repeat(times)
        extras = tf.nest.map_structure(lambda x: tf.repeat(x, times, 0), answer.extras)
        return Answer(tf.repeat(answer.logits_RV, times, 0), cache, extras)

    def advance(self, ids_RL: tf.Tensor, length: tf.Tensor, cache: StaticCache | None) -> Answer:
        """The last token of each row; without a cache all of them."""
        given, plan = self.given, self.plan
        new = plan.max_length - plan.prompt_length
        mask_RL = tf.pad(self.repeated(given.mask_BP), [[0, 0], [0, new]], constant_values=1)
        types_RP, positions = self.repeated(given.types_BP), None
        if cache is not None:
            inputs = {"input_ids": ids_RL[:, length - 1, None], "attention_mask": mask_RL, "past_key_values": cache}
            types = None if types_RP is None else types_RP[:, -1:]
            if given.positions_BP is not None:
                first = next_position(self.model.config, plan.position_numbering) + length - 1 - plan.prompt_length
                positions = self.repeated(given.counted_B)[:, None] + first
        else:
            # The last token of all is given to no layer. What stands behind the tokens that are there is masked.
            ids_RL, mask_RL = ids_RL[:, :-1], mask_RL[:, :-1]
            mask_RL *= tf.cast(tf.range(plan.max_length - 1) < length, tf.int32)
            inputs = {"input_ids": ids_RL, "attention_mask": mask_RL, "logits_to_keep": length[None] - 1}
            types = None if types_RP is None else tf.concat([types_RP, tf.repeat(types_RP[:, -1:], new - 1, 1)], 1)
            if given.positions_BP is not None:
                positions = tf.where(mask_RL == 1, tf.cumsum(mask_RL, 1) - 1, 1)
        output = self.model(
            **inputs,
            token_type_ids=types,
            position_ids=positions,
            encoder_hidden_states=self.repeated(given.memory_BMD),
            encoder_attention_mask=self.repeated(given.memory_mask_BM),
            **self.asked(),
        )
        return self.answer(output)

    def asked(self) -> dict[str, Any]:
        """What every call of the model is asked for."""
        plan = self.plan
        return {
            "use_cache": plan.use_cache,
            "output_attentions": plan.output_attentions,
            "output_hidden_states": plan.output_hidden_states,
            "return_dict": True,
            "training": False,
        }

    def answer(self, output: Any) -> Answer:
        """What the loops need of a model's output."""
        names = ("attentions", "cross_attentions", "hidden_states")
        extras = {name: output[name] for name in names if name in output and self.is_asked(name)}
        return Answer(tf.cast(output.logits[:, -1], tf.float32), output.past_key_values, extras)

    def is_asked(self, name: str) -> bool:
        """Whether attentions or states come back."""
        return self.plan.output_hidden_states if name == "hidden_states" else self.plan.output_attentions

    def repeated(self, x_B: tf.Tensor | None, rows: Any = None) -> tf.Tensor | None:
        """Something of the prompts, for each of their rows."""
        times = self.plan.rows_per_prompt if rows is None else rows // dims(x_B)[0]
        return x_B if x_B is None or times == 1 else tf.repeat(x_B, times, 0)

    # ---- Scores

    def processed(self, ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor) -> tf.Tensor:
        """Scores after all processors, in the published order."""
        plan, between = self.plan, self.between
        if between is None or not between.changes_scores:
            return self.do("by_all", ids_RL, length, scores_RV) if plan.all_processors else scores_RV
        if plan.processors:
            scores_RV = self.do("by_options", ids_RL, length, scores_RV)
        scores_RV = between.processed(ids_RL, length, scores_RV)
        return self.do("warped", ids_RL, length, scores_RV) if plan.warpers or plan.renormalize else scores_RV

    def by_all(self, ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor) -> tf.Tensor:
        """Scores after all processors, where none is a user's."""
        return self.by(self.plan.all_processors, ids_RL, length, scores_RV)

    def by_options(self, ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor) -> tf.Tensor:
        """Scores after the processors that come before a user's."""
        return self.by(self.plan.processors, ids_RL, length, scores_RV)

    def warped(self, ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor) -> tf.Tensor:
        """Scores after those that come after a user's."""
        last = (Processor(RENORMALIZE),) if self.plan.renormalize else ()
        return self.by((*self.plan.warpers, *last), ids_RL, length, scores_RV)

    def by(
        self, processors: tuple[Processor, ...], ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor
    ) -> tf.Tensor:
        """Scores after some processors."""
        encoder_ids_RM = self.repeated(self.given.encoder_ids_BM, dims(ids_RL)[0])
        return process(processors, ids_RL, length, scores_RV, encoder_ids_RM)

    def best(self, scores_RX: tf.Tensor, length: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
        """(R, count): the best, or draws without replacement (Kool et al. 2019), and their scores; of equal ones the
        first.
        """
        if not self.plan.do_sample:
            found = tf.math.top_k(scores_RX, count)
            return found.indices, found.values
        step = length - self.plan.prompt_length
        tiny = np.finfo(np.float32).tiny
        seed = self.given.seed + tf.stack([0, step])
        drawn_RX = tf.random.stateless_uniform(dims(scores_RX), seed, tiny, 1.0, alg="philox")
        chosen = tf.math.top_k(scores_RX - tf.math.log(-tf.math.log(drawn_RX)), count).indices
        return chosen, tf.gather(scores_RX, chosen, batch_dims=1)

    def stops(self, tokens: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
        """Whether each row ends with its last token, the one number ``length``."""
        found = tf.zeros_like(tokens, tf.bool) | (length == self.given.max_length)
        for end in self.plan.eos_token_ids:
            found = found | (tokens == end)
        return found

    def first_ids(self) -> tf.Tensor:
        """(R, L): the buffer with the prompts in it."""
        plan = self.plan
        new = [[0, 0], [0, plan.max_length - plan.prompt_length]]
        return tf.pad(self.repeated(self.given.ids_BP), new, constant_values=plan.pad_token_id)


# ---- What the host does


@dataclass
class BetweenSteps:
    """What runs on the host between steps.

    Attributes:
        programs: of the model, by name: ``Programs`` of ``decoding.py``.
        plan, prompt, hooks: of the call.
        vocabulary: of the model.
    """

    programs: Any
    plan: Generation
    prompt: Prompt
    hooks: Hooks
    vocabulary: int

    def __post_init__(self) -> None:
        plan, hooks = self.plan, self.hooks
        self.criteria = own_criteria(plan.max_time, plan.stop_strings, hooks.tokenizer, hooks.stopping_criteria)
        self.processors = LogitsProcessorList(hooks.logits_processor)

    @property
    def changes_scores(self) -> bool:
        """Whether the user has a say in the scores."""
        return self.hooks.prefix_allowed_tokens_fn is not None or bool(self.processors)

    def processed(self, ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor) -> tf.Tensor:
        """Scores after ``prefix_allowed_tokens_fn`` and the user's processors."""
        allowed = self.hooks.prefix_allowed_tokens_fn
        came = as_came(self.plan, self.prompt, ids_RL, length)
        if allowed is not None:
            found_RV = allowed_tokens(allowed, came, len(came) // self.prompt.batch, self.vocabulary)
            scores_RV = tf.where(found_RV, scores_RV, -np.inf)
        return tf.convert_to_tensor(self.processors(came, scores_RV), tf.float32)

    def stops(self, ids_RL: tf.Tensor, length: tf.Tensor, scores_RV: tf.Tensor) -> Any:
        """(R,): which rows a criterion ends."""
        if not self.criteria:
            return np.zeros(ids_RL.shape[0], bool)
        return self.criteria(as_came(self.plan, self.prompt, ids_RL, length), scores_RV)


def as_came(plan: Generation, prompt: Prompt, ids_RL: Any, length: Any) -> tf.Tensor:
    """Rows as they come back: the prompt as it came, and the new tokens up to ``length``."""
    came = np.repeat(prompt.came, ids_RL.shape[0] // prompt.batch, 0)
    return tf.concat([tf.cast(came, ids_RL.dtype), ids_RL[:, plan.prompt_length : int(length)]], 1)
