"""``generate`` of a masked model: mask-predict, see :mod:`xlmr_core.generation.mask_predict`."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.generation import (
    MaskPredict,
    MaskPredictInputs,
    check_certainty,
    ends_streamer,
    one_prompt,
    plan_mask_predict,
)
from xlmr_tf.generation import dtype_of, on_host
from xlmr_tf.linear import dims

__all__ = ["MaskPredictMixin"]


class MaskPredictMixin:
    """The part of a masked model that fills in what follows a text; a base before ``keras.Model``."""

    config: XLMRobertaConfig
    _pass: Any = None

    @ends_streamer
    def generate(
        self,
        inputs: Any = None,
        generation_config: Any = None,
        logits_processor: Any = None,
        seed: Any = None,
        stopping_criteria: Any = None,
        prefix_allowed_tokens_fn: Any = None,
        streamer: Any = None,
        *,
        input_ids: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        **kwargs: Any,
    ) -> tf.Tensor:
        """Fill in what follows texts: all new positions are masked, the model fills them, and in a few passes those of
        which it is least certain are masked and filled again (mask-predict, Ghazvininejad et al. 2019).

        A model that was trained to fill in words here and there does not write as one that was trained to continue
        texts does; ``can_generate()`` says so.

        Args:
            inputs, input_ids: integers (B, P), the prompts, padded on either side. What a prompt ends with, ``</s>``,
                the model sees after the new tokens.
            generation_config ... streamer: of the published signature, for models that continue texts; must be
                ``None``.
            attention_mask: (B, P) of 0 and 1.
            token_type_ids: integers (B, P).
            **kwargs: ``max_new_tokens`` or ``max_length`` (by default 20 new ones), ``passes`` (10), ``mask_token_id``
                (that of the vocabulary), ``suppress_tokens``.

        Returns:
            Integers (B, P + new tokens): the prompts as they came and the new tokens.

        Raises:
            InputError: for an option of models that continue texts, by its name, or more tokens than the model has
                positions for.
            TypeError: for an argument that is not known, with the nearest name.
        """
        hooks = {
            "generation_config": generation_config,
            "logits_processor": logits_processor,
            "seed": seed,
            "stopping_criteria": stopping_criteria,
            "prefix_allowed_tokens_fn": prefix_allowed_tokens_fn,
            "streamer": streamer,
        }
        caller = f"{type(self).__name__}.generate()"
        prompt = one_prompt(caller, inputs, input_ids)
        plan, given = plan_mask_predict(
            self.config,
            caller=caller,
            ids=on_host("input_ids", prompt),
            mask=on_host("attention_mask", attention_mask),
            token_type_ids=on_host("token_type_ids", token_type_ids),
            kwargs=kwargs,
            hooks=hooks,
            rounded=not tf.config.functions_run_eagerly(),
        )
        if self._pass is None:
            self._pass = Pass(self)
        return tf.cast(mask_predict(self._pass, plan, given), dtype_of(prompt))


class Pass:
    """One pass of a model over its new tokens, compiled once for all passes.

    Args:
        model: with a head for masked language modelling.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._kept: dict[Any, Any] = {}

    def of(self, plan: MaskPredict) -> Any:
        """The program for what a call means: (ids, mask, types, tokens, certainty, count) to tokens and certainty."""
        model = self.model
        key = (plan.first, plan.mask_token_id, plan.forbidden, model.attn_implementation, *map(id, model.weights))
        if key not in self._kept:
            # Without those of variables that were replaced.
            self._kept = {known: program for known, program in self._kept.items() if known[4:] == key[4:]}
            self._kept[key] = tf.function(partial(one_pass, model, plan), autograph=False, jit_compile=True)
        return self._kept[key]

    @property
    def traced(self) -> int:
        """How many programs were made so far."""
        return sum(program.experimental_get_tracing_count() for program in self._kept.values())


def one_pass(
    model: Any,
    plan: MaskPredict,
    ids_BS: tf.Tensor,
    mask_BS: tf.Tensor,
    types_BS: tf.Tensor | None,
    tokens_BN: tf.Tensor,
    certainty_BN: tf.Tensor,
    count: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The new tokens after the ``count`` least certain of them were masked and filled in again, and how certain each of
    them is.
    """
    batch, new = dims(tokens_BN)
    # The place of each among all, the least certain first; of equal ones the first.
    rank_BN = tf.argsort(tf.argsort(certainty_BN, stable=True), stable=True)
    chosen_BN = rank_BN < count
    before, after = ids_BS[:, : plan.first], ids_BS[:, plan.first + new :]
    ids_BS = tf.concat([before, tf.where(chosen_BN, plan.mask_token_id, tokens_BN), after], 1)
    places_BN = tf.repeat(plan.first + tf.range(new)[None], batch, 0)
    output = model(ids_BS, mask_BS, types_BS, masked_positions=places_BN, return_dict=True, training=False)
    forbidden_V = np.zeros(model.config.vocab_size, bool)
    forbidden_V[list(plan.forbidden)] = True
    logits_BNV = tf.where(tf.constant(forbidden_V), -np.inf, tf.cast(output.logits, tf.float32))
    found_BN = tf.argmax(logits_BNV, -1, output_type=tf.int32)
    found_certainty_BN = tf.reduce_max(tf.nn.softmax(logits_BNV), -1)
    return tf.where(chosen_BN, found_BN, tokens_BN), tf.where(chosen_BN, found_certainty_BN, certainty_BN)


def mask_predict(program: Pass, plan: MaskPredict, given: MaskPredictInputs) -> tf.Tensor:
    """(B, C + N): prompts, and the tokens that a masked model fills in.

    Args:
        program: a pass of the model.
        plan, given: what the call means, and what the model is given.

    Raises:
        InputError: if the model gives no numbers.
    """
    ids_BS, mask_BS = tf.constant(given.ids, tf.int32), tf.constant(given.mask, tf.int32)
    types_BS = None if given.token_type_ids is None else tf.constant(given.token_type_ids, tf.int32)
    tokens_BN = ids_BS[:, plan.first : plan.first + plan.new_tokens]
    certainty_BN = tf.zeros(tokens_BN.shape)
    for count in plan.masked:
        tokens_BN, certainty_BN = program.of(plan)(
            ids_BS, mask_BS, types_BS, tokens_BN, certainty_BN, tf.constant(count)
        )
    check_certainty(certainty_BN.numpy())
    return tf.concat([tf.cast(given.came, tf.int32), tokens_BN], 1)
