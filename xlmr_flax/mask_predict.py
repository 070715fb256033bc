"""``generate`` of a masked model: mask-predict, see :mod:`xlmr_core.generation.mask_predict`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.generation import (
    MaskPredict,
    MaskPredictInputs,
    check_certainty,
    ends_streamer,
    one_prompt,
    plan_mask_predict,
)
from xlmr_flax.generation import FlaxGreedySearchOutput
from xlmr_flax.inputs import has_values, see

__all__ = ["MaskPredictMixin"]


class MaskPredictMixin:
    """The part of a masked model that fills in what follows a text."""

    config: XLMRobertaConfig
    prepare: Any

    @ends_streamer
    def generate(
        self,
        input_ids: Any = None,
        generation_config: Any = None,
        prng_key: Any = None,
        trace: bool = True,
        params: Any = None,
        logits_processor: Any = None,
        *,
        stopping_criteria: Any = None,
        prefix_allowed_tokens_fn: Any = None,
        streamer: Any = None,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        **kwargs: Any,
    ) -> FlaxGreedySearchOutput:
        """Fill in what follows texts: all new positions are masked, the model fills them, and in a few passes those of
        which it is least certain are masked and filled again (mask-predict, Ghazvininejad et al. 2019).

        A model that was trained to fill in words here and there does not write as one that was trained to continue
        texts does; ``can_generate()`` says so. A pass is one compiled program, kept by rounded shapes.

        Args:
            input_ids: integers (B, P), the prompts, padded on either side. What a prompt ends with, ``</s>``, the model
                sees after the new tokens.
            generation_config, prng_key, logits_processor, stopping_criteria, prefix_allowed_tokens_fn, streamer: for
                models that continue texts; must be ``None``.
            trace: of the published signature.
            params: parameters in place of the model's own.
            attention_mask: (B, P) of 0 and 1.
            token_type_ids: integers (B, P).
            **kwargs: ``max_new_tokens`` or ``max_length`` (by default 20 new ones), ``passes`` (10), ``mask_token_id``
                (that of the vocabulary), ``suppress_tokens``.

        Returns:
            ``sequences``, integers (B, P + new tokens): the prompts as they came and the new tokens.

        Raises:
            InputError: for an option of models that continue texts, by its name, more tokens than the model has
                positions for, and inside ``jax.jit``.
            TypeError: for an argument that is not known, with the nearest name.
        """
        caller = f"{type(self).__name__}.generate()"
        prompt = one_prompt(caller, None, input_ids)
        model, _ = self.prepare(params, None, False)
        given = {"input_ids": prompt, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        for name, x in given.items():
            see(name, x)
            if x is not None and not has_values(x):
                raise InputError(
                    f"where masks go depends on the values of {name}, which are unknown inside jax.jit; call generate "
                    "of a masked model outside"
                )
        ids, mask, types = (None if x is None else np.asarray(x) for x in given.values())
        hooks = {
            "generation_config": generation_config,
            "prng_key": prng_key,
            "logits_processor": logits_processor,
            "stopping_criteria": stopping_criteria,
            "prefix_allowed_tokens_fn": prefix_allowed_tokens_fn,
            "streamer": streamer,
        }
        plan, inputs = plan_mask_predict(
            self.config,
            caller=caller,
            ids=ids,
            mask=mask,
            token_type_ids=types,
            kwargs=kwargs,
            hooks=hooks,
            rounded=True,
        )
        return FlaxGreedySearchOutput(sequences=mask_predict(model, plan, inputs))


def mask_predict(model: Any, plan: MaskPredict, given: MaskPredictInputs) -> Array:
    """(B, C + N): prompts, and the tokens that a masked model fills in.

    Args:
        model: with a head for masked language modelling.
        plan, given: what the call means, and what the model is given.

    Raises:
        InputError: if the model gives no numbers.
    """
    inputs = [None if x is None else x.astype(np.int32) for x in (given.ids, given.mask, given.token_type_ids)]
    tokens_BN = inputs[0][:, plan.first : plan.first + plan.new_tokens]
    certainty_BN = np.zeros(tokens_BN.shape, np.float32)
    # Of a pass only the number of masks differs, which is no part of the program.
    for count in plan.masked:
        tokens_BN, certainty_BN = one_pass(
            replace(plan, masked=()), model, inputs, tokens_BN, certainty_BN, np.int32(count)
        )
    check_certainty(np.asarray(certainty_BN))
    return jnp.concatenate([given.came.astype(np.int32), tokens_BN], axis=1)


@partial(jax.jit, static_argnums=0)
def one_pass(
    plan: MaskPredict, model: Any, inputs: list[Any], tokens_BN: Array, certainty_BN: Array, count: Array
) -> tuple[Array, Array]:
    """The new tokens and their probabilities after the least certain of them were filled in again.

    Args:
        plan: what the call means, whatever its passes.
        model: with its parameters.
        inputs: ids, mask and token types (B, S).
        tokens_BN, certainty_BN: before.
        count: how many to fill in.
    """
    ids_BS, mask_BS, types_BS = inputs
    rank_BN = jnp.argsort(jnp.argsort(certainty_BN, axis=1, stable=True), axis=1, stable=True)
    chosen_BN = rank_BN < count
    new_BN = jnp.where(chosen_BN, np.int32(plan.mask_token_id), tokens_BN)
    places_BN = jnp.broadcast_to(plan.first + jnp.arange(plan.new_tokens), new_BN.shape)
    output = model(
        lax.dynamic_update_slice_in_dim(ids_BS, new_BN, plan.first, axis=1),
        mask_BS,
        types_BS,
        masked_positions=places_BN,
        train=False,
        return_dict=True,
    )
    logits_BNV = output.logits.astype(jnp.float32).at[:, :, np.array(plan.forbidden)].set(-jnp.inf)
    probs_BNV = jax.nn.softmax(logits_BNV, axis=-1)
    found_BN = jnp.argmax(probs_BNV, axis=-1).astype(jnp.int32)
    return jnp.where(chosen_BN, found_BN, tokens_BN), jnp.where(chosen_BN, probs_BNV.max(-1), certainty_BN)
