"""The checks that every backend makes on a call's inputs, with one wording.

Shapes and dtypes are plain Python and always known. Values are checked where they are concrete and on the host: the backend computes the
extremes in its own way, in one pass, and hands them over as Python numbers. Under a compiler, an export or on an accelerator, values are the
caller's contract.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError

__all__ = [
    "IGNORE_INDEX",
    "MASKED_SCORE",
    "Extremes",
    "check_extremes",
    "check_input_shapes",
    "check_label_shape",
    "check_length",
]

# A label of this value is not counted (the convention of all published data collators).
IGNORE_INDEX = -100

# A masked position as start or end of an answer, where packing left it out: whoever takes the best position, or a softmax over all, must not
# get padding. A zero would be among the best of scores that are mostly negative; the published question-answering pipeline puts this number.
MASKED_SCORE = -10_000.0

Shape = Sequence[int]


@dataclass(frozen=True)
class Extremes:
    """Smallest and largest value of one input."""

    name: str
    low: float
    high: float


def check_input_shapes(
    config: XLMRobertaConfig,
    *,
    input_ids: Shape | None,
    inputs_embeds: Shape | None = None,
    attention_mask: Shape | None = None,
    token_type_ids: Shape | None = None,
    position_ids: Shape | None = None,
) -> tuple[int, int]:
    """Check the shapes of an encoder's inputs and return (batch, length).

    Raises:
        InputError: for both or neither of ``input_ids`` and ``inputs_embeds``, an empty batch or sequence, a sequence over the model's
            length, or an input whose shape does not fit the ids.
    """
    if (input_ids is None) == (inputs_embeds is None):
        came = "neither" if input_ids is None else "both"
        raise InputError(f"expected exactly one of input_ids and inputs_embeds, received {came}; pass one of them")
    if input_ids is not None:
        if len(input_ids) != 2:
            raise InputError(
                f"input_ids must have the shape (batch, length), received {tuple(input_ids)}; add or remove an axis"
            )
        batch, length = input_ids
    else:
        assert inputs_embeds is not None
        if len(inputs_embeds) != 3 or inputs_embeds[2] != config.hidden_size:
            raise InputError(
                f"inputs_embeds must have the shape (batch, length, {config.hidden_size}), received {tuple(inputs_embeds)}; "
                "its last axis is the model's hidden_size"
            )
        batch, length, _ = inputs_embeds
    if batch == 0 or length == 0:
        raise InputError(
            f"expected at least one sequence of at least one token, received the shape {(batch, length)}; skip empty batches"
        )
    if position_ids is None:
        check_length(config, length)
    if attention_mask is not None and tuple(attention_mask) not in ((batch, length), (batch, length, length)):
        raise InputError(
            f"attention_mask must have the shape {(batch, length)} or {(batch, length, length)} to fit the input, "
            f"received {tuple(attention_mask)}; pass the tokenizer's own mask"
        )
    if token_type_ids is not None and tuple(token_type_ids) not in ((batch, length), (1, length)):
        raise InputError(f"token_type_ids must have the shape {(batch, length)}, received {tuple(token_type_ids)}")
    if position_ids is not None and tuple(position_ids) not in ((batch, length), (1, length)):
        raise InputError(
            f"position_ids must have the shape {(batch, length)} or {(1, length)}, received {tuple(position_ids)}"
        )
    return batch, length


def check_length(config: XLMRobertaConfig, length: int) -> None:
    """Refuse a sequence for which the position table is too short."""
    if length > config.max_tokens:
        raise InputError(
            f"sequence has {length} tokens, this checkpoint takes {config.max_tokens} (max_position_embeddings "
            f"{config.max_position_embeddings}, of which the first {config.pad_token_id + 1} are reserved); "
            f"pass truncation=True, max_length={config.max_tokens} to the tokenizer, or split the text"
        )


def check_label_shape(name: str, labels: Shape, *allowed: Shape) -> None:
    """Refuse labels that fit none of the ``allowed`` shapes."""
    # Compared one by one and not as a set: under an export sizes are symbols, which have no hash.
    if not any(tuple(labels) == tuple(shape) for shape in allowed):
        expected = " or ".join(dict.fromkeys(str(tuple(shape)) for shape in allowed))
        raise InputError(f"{name} must have the shape {expected}, received {tuple(labels)}")


def check_extremes(config: XLMRobertaConfig, found: Sequence[Extremes], labels: int | None = None) -> None:
    """Refuse values out of range.

    Args:
        config: says the sizes of the tables.
        found: the extremes of ``input_ids``, ``token_type_ids``, ``position_ids``, the two masks and ``labels``, as far as present.
            The extremes of ``labels`` leave ignored ones out.
        labels: number of classes the labels choose from.

    Raises:
        InputError: naming the input, its range and the value.
    """
    tables: dict[str, tuple[float, float, str]] = {
        "input_ids": (
            0,
            config.vocab_size - 1,
            "the vocabulary (vocab_size); the tokenizer does not belong to this checkpoint",
        ),
        "token_type_ids": (0, config.type_vocab_size - 1, "type_vocab_size; leave token_type_ids out, or use zeros"),
        "position_ids": (0, config.max_position_embeddings - 1, "max_position_embeddings; shorten the input"),
        "attention_mask": (0, 1, "a mask, in which 1 means attend and 0 means ignore"),
        "encoder_attention_mask": (0, 1, "a mask, in which 1 means attend and 0 means ignore"),
    }
    if labels is not None:
        tables["labels"] = (
            0,
            labels - 1,
            f"the number of classes, or {IGNORE_INDEX} to ignore; check num_labels and the labels' ids",
        )
    for extreme in found:
        low, high, meaning = tables[extreme.name]
        if extreme.low < low or extreme.high > high:
            worst = extreme.low if extreme.low < low else extreme.high
            shown = int(worst) if float(worst).is_integer() else worst
            raise InputError(
                f"{extreme.name} must lie between {int(low)} and {int(high)}, received {shown}; the range is given by {meaning}"
            )
