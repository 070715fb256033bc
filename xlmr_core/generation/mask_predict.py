"""Mask-predict: how a masked model generates (Ghazvininejad et al. 2019).

All new positions are masked; the model fills them, and in a few passes the least certain are masked and filled again,
most certain first. It is no left-to-right generation: the number of new tokens is fixed, every new token sees all
others, and no token ends the text early.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlmr_core.arguments import refuse_unknown
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.generation.options import OPTIONS, TOKEN, TOKEN_LIST
from xlmr_core.generation.prompt import arrange_prompt, bucket, check_prompt, infer_mask
from xlmr_core.generation.request import check_tokens
from xlmr_core.positions import max_tokens
from xlmr_core.wording import counted, shown

__all__ = [
    *("MASK_PREDICT_OPTIONS", "MaskPredict", "MaskPredictInputs", "check_certainty", "least_certain"),
    "plan_mask_predict",
]

# Options of this way to generate, with their defaults.
MASK_PREDICT_OPTIONS: dict[str, Any] = {
    "max_new_tokens": None,
    "max_length": None,
    "passes": 10,
    "mask_token_id": None,
    "suppress_tokens": None,
}
_NEW_TOKENS = 20


@dataclass(frozen=True)
class MaskPredict:
    """Everything a call of ``generate`` of a masked model means; plain and hashable.

    Attributes:
        first: column of the first new token; they are the columns ``first`` to ``first + new_tokens``.
        new_tokens: N.
        masked: how many of the new tokens are masked before each pass, beginning with all: N * (T - t) / T before pass
            t of T.
        mask_token_id: the id that asks for a token.
        forbidden: ids that are never filled in: special tokens, and ``suppress_tokens``.
    """

    first: int
    new_tokens: int
    masked: tuple[int, ...]
    mask_token_id: int
    forbidden: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class MaskPredictInputs:
    """What the model is given.

    Attributes:
        came: (B, C) the prompt as it came; what comes back is this and then the new tokens.
        ids: (B, S): padding, the prompt without its end token, N times the mask, and the end token.
        mask: (B, S) of 0 and 1.
        token_type_ids: (B, S) or ``None``.
    """

    came: NDArray[np.int64]
    ids: NDArray[np.int64]
    mask: NDArray[np.int64]
    token_type_ids: NDArray[np.int64] | None


def plan_mask_predict(
    config: XLMRobertaConfig,
    *,
    caller: str,
    ids: NDArray[Any],
    mask: NDArray[Any] | None = None,
    token_type_ids: NDArray[Any] | None = None,
    kwargs: Mapping[str, Any],
    hooks: Mapping[str, Any],
    rounded: bool = False,
) -> tuple[MaskPredict, MaskPredictInputs]:
    """Decide what a call of ``generate`` of a masked model means.

    A prompt that ends in the end token, as a tokenizer makes it, is continued before that token: the model sees
    ``<s> prompt <mask> <mask> </s>``.

    Args:
        config: of the model.
        caller: what to call the place in messages.
        ids, mask, token_type_ids: (B, C) of the prompt.
        kwargs: options: those of ``MASK_PREDICT_OPTIONS``.
        hooks: other arguments of ``generate`` by name, such as ``streamer``; all must be ``None``.
        rounded: round the prompt's width up (see ``bucket``), for programs that are compiled.

    Raises:
        InputError: for an option of decoders, by its name, one that makes no sense, or more tokens than the model has
            positions for.
        TypeError: for an argument that is not known.
    """
    values = _options(caller, kwargs, hooks)
    for name, (words, test) in {"mask_token_id": TOKEN, "suppress_tokens": TOKEN_LIST}.items():
        if not test(values[name]):
            raise InputError(f"{name} must be {words}, received {shown(values[name])}")
        check_tokens(name, [values[name]], config.vocab_size)
    check_prompt(config, ids, mask, token_type_ids)
    passes, came = values["passes"], np.asarray(ids, dtype=np.int64)
    if isinstance(passes, bool) or not isinstance(passes, int) or passes < 1:
        raise InputError(f"passes must be a positive integer, received {shown(passes)}")
    ends = _ids(config.eos_token_id)
    end = ends[0] if ends else config.pad_token_id
    body, body_mask, ended_B = _without_end(came, mask, ends, config)

    def width(longest: int) -> int:
        """Rounded up as far as there is room, behind which the new tokens and the end come."""
        new_tokens = _new_tokens(config, values, longest, came.shape[1])
        return bucket(longest, max_tokens(config) - new_tokens - 1) if rounded else longest

    prompt = arrange_prompt(config, body, body_mask, token_type_ids=token_type_ids, width=width)
    new_tokens = _new_tokens(config, values, prompt.longest, came.shape[1])
    mask_id = values["mask_token_id"]
    if mask_id is None:
        mask_id = mask_token(config)
    batch = len(came)
    last_B1 = np.where(ended_B, end, config.pad_token_id)[:, None]
    new_BN = np.full((batch, new_tokens), mask_id)
    types = prompt.token_type_ids
    inputs = MaskPredictInputs(
        came=came,
        ids=np.concatenate([prompt.ids, new_BN, last_B1], axis=1),
        mask=np.concatenate([prompt.mask, np.ones_like(new_BN), ended_B[:, None].astype(np.int64)], axis=1),
        token_type_ids=None
        if types is None
        else np.concatenate([types, np.repeat(types[:, -1:], new_tokens + 1, axis=1)], axis=1),
    )
    special = {config.pad_token_id, mask_id, *_ids(config.bos_token_id), *ends, *(values["suppress_tokens"] or ())}
    if sum(0 <= token < config.vocab_size for token in special) == config.vocab_size:
        raise InputError(
            "suppress_tokens must leave a token that may be filled in, received all but special ones; forbid fewer"
        )
    plan = MaskPredict(
        first=prompt.width,
        new_tokens=new_tokens,
        masked=masked_before_each_pass(new_tokens, passes),
        mask_token_id=mask_id,
        forbidden=tuple(sorted(special)),
    )
    return plan, inputs


# By ``model_type``: where the published vocabularies have the mask. Those of XL go on after it.
MASKS = {"xlm-roberta": 250_001, "xlm-roberta-xl": 250_001, "roberta": 50_264, "camembert": 32_004}


def mask_token(config: XLMRobertaConfig) -> int:
    """The id of the mask: of the configuration, of the published vocabulary, or the last of a smaller one, where the
    tokenizers of the family put it.
    """
    said = getattr(config, "mask_token_id", None)
    return (
        said if isinstance(said, int) else min(MASKS.get(config.model_type, config.vocab_size), config.vocab_size - 1)
    )


def masked_before_each_pass(new_tokens: int, passes: int) -> tuple[int, ...]:
    """N * (T - t) / T, rounded down, for t = 0 to T - 1; passes that would mask nothing are left out."""
    counts = (new_tokens * (passes - number) // passes for number in range(passes))
    return tuple(count for count in counts if count > 0)


def least_certain(probabilities_BN: NDArray[Any], count: int) -> NDArray[np.bool_]:
    """(B, N): the ``count`` new tokens of each row with the smallest probability; of equal ones the first.

    Args:
        probabilities_BN: of the tokens that stand there, each as of the pass that filled it in.
        count: how many.
    """
    order = np.argsort(probabilities_BN, axis=1, kind="stable")
    chosen = np.zeros(probabilities_BN.shape, dtype=bool)
    np.put_along_axis(chosen, order[:, :count], True, axis=1)
    return chosen


def check_certainty(certainty_BN: NDArray[Any]) -> None:
    """Refuse new tokens whose probability is no number, because a score of their pass was none.

    Raises:
        InputError: for such a token.
    """
    if not np.isfinite(certainty_BN).all():
        raise InputError(
            "expected scores of the new tokens, the model gave some that are no numbers; check its weights, or load it "
            "with dtype='float32'"
        )


def _options(caller: str, kwargs: Mapping[str, Any], hooks: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in {**hooks, **kwargs}.items():
        if name in MASK_PREDICT_OPTIONS or value is None:
            continue
        if name in OPTIONS and value == OPTIONS[name].default:
            continue  # it asks for nothing
        if name in OPTIONS or name in hooks:
            raise InputError(
                f"{caller} fills in masks (mask-predict) and has no {name}, which is an option of decoders; pass "
                f"{', '.join(MASK_PREDICT_OPTIONS)}, or generate with a model for causal language modelling"
            )
    known = {name: value for name, value in kwargs.items() if name not in OPTIONS or name in MASK_PREDICT_OPTIONS}
    refuse_unknown(known, MASK_PREDICT_OPTIONS, caller, OPTIONS)
    return {**MASK_PREDICT_OPTIONS, **{name: value for name, value in known.items() if value is not None}}


def _without_end(
    ids: NDArray[np.int64], mask: NDArray[Any] | None, ends: Iterable[int], config: XLMRobertaConfig
) -> tuple[NDArray[np.int64], NDArray[Any] | None, NDArray[np.bool_]]:
    """The prompts with their last token masked where it is an end token, and where that is."""
    there = infer_mask(config, ids) == 1 if mask is None else np.asarray(mask) == 1
    last_B = np.where(there, np.arange(ids.shape[1]), -1).max(axis=1)
    rows = np.arange(len(ids))
    # A prompt that is only an end token stays as it is.
    ended_B = np.isin(ids[rows, last_B], list(ends)) & (there.sum(axis=1) > 1)
    body, body_mask = ids.copy(), there.astype(np.int64)
    body[rows[ended_B], last_B[ended_B]] = config.pad_token_id
    body_mask[rows[ended_B], last_B[ended_B]] = 0
    return body, body_mask, ended_B


def _new_tokens(config: XLMRobertaConfig, values: Mapping[str, Any], longest: int, came: int) -> int:
    room = max_tokens(config) - longest - 1
    asked = values["max_new_tokens"]
    if asked is None and values["max_length"] is not None:
        asked = values["max_length"] - came
    if asked is None:
        asked = min(_NEW_TOKENS, room)
    if isinstance(asked, bool) or not isinstance(asked, int) or asked < 1:
        raise InputError(
            f"expected room for at least one new token, received max_new_tokens={shown(values['max_new_tokens'])}, "
            f"max_length={shown(values['max_length'])} for a prompt of {counted(came, 'token')}"
        )
    if asked > room:
        raise InputError(
            f"the longest prompt has {counted(longest, 'token')} and {counted(asked, 'new one')} are asked for, this "
            f"model takes {max_tokens(config)}; ask for at most {room}, or shorten the prompt"
        )
    return asked


def _ids(token: int | list[int] | None) -> tuple[int, ...]:
    return () if token is None else (token,) if isinstance(token, int) else tuple(token)
