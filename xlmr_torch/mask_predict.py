"""``generate`` of a masked model: mask-predict, see :mod:`xlmr_core.generation.mask_predict`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.generation import (
    MaskPredict,
    MaskPredictInputs,
    check_certainty,
    ends_streamer,
    one_prompt,
    plan_mask_predict,
)
from xlmr_torch.generation import on_host

__all__ = ["MaskPredictMixin"]


class MaskPredictMixin(nn.Module):
    """The part of a masked model that fills in what follows a text."""

    config: XLMRobertaConfig
    get_input_embeddings: Any

    @ends_streamer
    def generate(
        self,
        inputs: Tensor | None = None,
        generation_config: Any = None,
        logits_processor: Any = None,
        stopping_criteria: Any = None,
        prefix_allowed_tokens_fn: Any = None,
        synced_gpus: bool | None = None,
        assistant_model: Any = None,
        streamer: Any = None,
        negative_prompt_ids: Any = None,
        negative_prompt_attention_mask: Any = None,
        use_model_defaults: bool | None = None,
        custom_generate: Any = None,
        *,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Fill in what follows texts: all new positions are masked, the model fills them, and in a few passes those of
        which it is least certain are masked and filled again (mask-predict, Ghazvininejad et al. 2019).

        A model that was trained to fill in words here and there does not write as one that was trained to continue
        texts does; ``can_generate()`` says so.

        Args:
            inputs, input_ids: integers (B, P), the prompts, padded on either side. What a prompt ends with, ``</s>``,
                the model sees after the new tokens.
            generation_config ... custom_generate: of the published signature, for models that continue texts; must be
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
            "stopping_criteria": stopping_criteria,
            "prefix_allowed_tokens_fn": prefix_allowed_tokens_fn,
            "synced_gpus": synced_gpus,
            "assistant_model": assistant_model,
            "streamer": streamer,
            "negative_prompt_ids": negative_prompt_ids,
            "negative_prompt_attention_mask": negative_prompt_attention_mask,
            "use_model_defaults": use_model_defaults,
            "custom_generate": custom_generate,
        }
        caller = f"{type(self).__name__}.generate()"
        ids = on_host("input_ids", one_prompt(caller, inputs, input_ids))
        plan, given = plan_mask_predict(
            self.config,
            caller=caller,
            ids=ids,
            mask=on_host("attention_mask", attention_mask),
            token_type_ids=on_host("token_type_ids", token_type_ids),
            kwargs=kwargs,
            hooks=hooks,
        )
        return mask_predict(self, plan, given)


@torch.no_grad()
def mask_predict(model: Any, plan: MaskPredict, given: MaskPredictInputs) -> Tensor:
    """(B, C + N): prompts, and the tokens that a masked model fills in.

    Args:
        model: with a head for masked language modelling.
        plan, given: what the call means, and what the model is given.

    Raises:
        InputError: if the model gives no numbers.
    """
    device = model.get_input_embeddings().weight.device
    came, ids_BS, mask_BS = (torch.as_tensor(x, device=device) for x in (given.came, given.ids, given.mask))
    types_BS = None if given.token_type_ids is None else torch.as_tensor(given.token_type_ids, device=device)
    new = slice(plan.first, plan.first + plan.new_tokens)
    forbidden = torch.tensor(plan.forbidden, device=device)
    tokens_BN = ids_BS[:, new].clone()
    certainty_BN = torch.zeros(tokens_BN.shape, device=device)
    for count in plan.masked:
        chosen_BC = certainty_BN.argsort(dim=1, stable=True)[:, :count]
        ids_BS[:, new] = tokens_BN.scatter(1, chosen_BC, plan.mask_token_id)
        output = model(ids_BS, mask_BS, types_BS, masked_positions=chosen_BC + plan.first)
        found_BCV = output.logits.float().index_fill(2, forbidden, float("-inf")).softmax(-1)
        best_BC = found_BCV.max(-1)
        tokens_BN = tokens_BN.scatter(1, chosen_BC, best_BC.indices)
        certainty_BN = certainty_BN.scatter(1, chosen_BC, best_BC.values)
    check_certainty(certainty_BN.cpu().numpy())
    return torch.cat([came, tokens_BN], 1)
