"""The checks of what only heads take: labels, answers, choices, and where logits are computed. One wording for every
backend.

What was not passed (``None``) is in order, unless its absence is the mistake.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xlmr_core.checks import (
    IGNORE_INDEX,
    Kind,
    Seen,
    check_integers,
    check_numbers,
    check_range,
    check_shape,
    check_source,
    place_of,
)
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import ConfigError, InputError
from xlmr_core.losses import Problem, sequence_problem

__all__ = [
    "check_class_labels",
    "check_kept_columns",
    "check_masked_positions",
    "check_num_labels_of_answers",
    "check_sample_weight",
    "check_sequence_labels",
    "check_shape_of_choices",
    "check_span",
    "check_where_logits_are_computed",
    "columns_of_sequence_labels",
    "refuse_gaps",
    "refuse_tied_projection",
]

Shape = Sequence[int]


# ---- Labels


def check_class_labels(labels: Seen | None, classes: int, *shapes: Shape, otherwise: str = "") -> None:
    """Refuse labels that are not integers in [0, classes) or -100, or of another shape than those given.

    Args:
        labels: what came.
        classes: how many there are.
        shapes: those that they may have.
        otherwise: what else the labels may mean to this model, and how to say so.
    """
    if labels is None:
        return
    is_one_each = len(labels.shape) == 1 < min(map(len, shapes))
    check_shape(labels.name, labels.shape, *shapes, cure="pass one for every token" if is_one_each else "")
    if labels.kind is not Kind.INTEGER:
        refuse_gaps(labels)
        raise InputError(
            f"{labels.name} must hold integers here, received {labels.dtype_name}; "
            f"convert them to integers (int64){' with config.label2id' if labels.kind is Kind.TEXT else ''}"
            f"{otherwise and ', or '}{otherwise}"
        )
    if labels.values is not None:
        values = labels.values()
        meaning = f"the number of classes, or {IGNORE_INDEX} to ignore; check num_labels and the labels' ids"
        check_range(labels.name, np.where(values == IGNORE_INDEX, 0, values), 0, classes - 1, meaning)


def refuse_gaps(labels: Seen) -> None:
    """Refuse labels some of which are no numbers: what a table reads from a column with a gap."""
    if labels.kind is Kind.FLOATING and labels.values is not None:
        gaps = ~np.isfinite(labels.values())
        if gaps.any():
            raise InputError(
                f"{labels.name} must be numbers, received {labels.values()[gaps][0].item()}{place_of(gaps)}, as a "
                "column with a gap gives it; leave such rows out, or fill the gap"
            )


# What labels of a shape that does not fit are likely to be, by what they mean to the model as it is: one number each
# for every text, or one for every class of every text.
_ONE, _SEVERAL = "one a text", "one a text and class"
_ADVICE = {
    (Problem.SINGLE_LABEL, _SEVERAL): (
        "for several classes a text set config.problem_type = 'multi_label_classification'"
    ),
    (Problem.MULTI_LABEL, _ONE): (
        "for one class a text pass integers (int64) and problem_type 'single_label_classification' or None; for one "
        "number a text set num_labels=1"
    ),
    (Problem.REGRESSION, _ONE): (
        "for one number a text set num_labels=1; for one class a text set "
        "config.problem_type = 'single_label_classification'"
    ),
}


def _is_one_a_text(problem: Problem, classes: int) -> bool:
    return problem is Problem.SINGLE_LABEL or (problem is Problem.REGRESSION and classes == 1)


def columns_of_sequence_labels(config: XLMRobertaConfig, labels: Seen | None, classes: int) -> int:
    """How many columns labels of two axes have, for a graph that does not know it of the labels that came."""
    is_integers = labels is not None and labels.kind is Kind.INTEGER
    return 1 if _is_one_a_text(sequence_problem(config, labels_are_integers=is_integers), classes) else classes


def check_sequence_labels(config: XLMRobertaConfig, labels: Seen | None, batch: int, classes: int) -> None:
    """Refuse labels that do not fit the problem which config and labels mean to a sequence classifier.

    Args:
        config: has the ``problem_type``.
        labels: integers (B,) or (B, 1) for one class; (B, K) of 0 to 1 for several classes; (B, K) for regression, of
            one number also (B,).
        batch: B.
        classes: K.
    """
    if labels is None:
        return
    problem = sequence_problem(config, labels_are_integers=labels.kind is Kind.INTEGER)
    one, several = [(batch,), (batch, 1)], [(batch, classes)]
    is_one = _is_one_a_text(problem, classes)
    looks = _SEVERAL if is_one else _ONE
    fits = any(tuple(labels.shape) == tuple(shape) for shape in (several if is_one else one))
    check_shape(
        labels.name, labels.shape, *(one if is_one else several), cure=_ADVICE.get((problem, looks), "") if fits else ""
    )
    if problem is Problem.SINGLE_LABEL:
        otherwise = "set config.problem_type = 'regression' and num_labels=1 for one number a text"
        check_class_labels(labels, classes, *one, otherwise=otherwise)
        return
    check_numbers(labels, "convert them to numbers (config.label2id)")
    refuse_gaps(labels)
    if problem is Problem.MULTI_LABEL and labels.values is not None:
        values = labels.values()
        outside = (values < 0) | (values > 1)
        if outside.any():
            raise InputError(
                f"{labels.name} must lie between 0 and 1, received {values[outside][0].item()}{place_of(outside)}; "
                "each says whether a class applies"
            )


def check_span(start: Seen | None, end: Seen | None, batch: int) -> None:
    """Refuse answers of which the start or the end is missing, or not one integer a row."""
    if (start is None) != (end is None):
        raise InputError(
            "expected start_positions and end_positions together, received one of them; pass both or neither"
        )
    for positions in (start, end):
        if positions is not None:
            check_shape(positions.name, positions.shape, (batch,), (batch, 1))
            check_integers(positions)


def check_sample_weight(weights: Seen | None, labelled: bool, batch: int, *each: int) -> None:
    """Refuse factors of losses that are no numbers, or neither one a row nor one for each label.

    Args:
        weights: the factors.
        labelled: whether there are labels.
        batch: B.
        *each: further sizes of the labels that may weigh differently.
    """
    if weights is None:
        return
    if not labelled:
        raise InputError(f"{weights.name} weighs the losses of labels, expected labels, received none; pass both")
    check_numbers(weights, "convert them")
    check_shape(weights.name, weights.shape, (batch,), (batch, 1), *([(batch, *each)] if each else []))


def check_num_labels_of_answers(config: XLMRobertaConfig) -> None:
    """Refuse a config that does not have two scores a token, of the start and of the end of an answer."""
    if config.num_labels != 2:
        raise ConfigError(f"question answering needs num_labels=2 (start and end), received {config.num_labels}")


# ---- Choices


def check_shape_of_choices(
    *, input_ids: Seen | None, inputs_embeds: Seen | None, others: Sequence[Seen | None]
) -> tuple[int, int]:
    """(batch, choices) of the inputs of multiple choice.

    Args:
        input_ids: (B, C, S).
        inputs_embeds: (B, C, S, D) in their place.
        others: masks, token types and positions (B, C, S).
    """
    source = check_source(input_ids, inputs_embeds)
    shape = tuple(source.shape)
    if 0 in shape[:3]:
        raise InputError(
            f"expected at least one example, choice and token, received the shape {shape}; skip empty batches"
        )
    if len(shape) != (4 if input_ids is None else 3):
        last = ", hidden" if input_ids is None else ""
        raise InputError(f"{source.name} must have the shape (batch, choices, length{last}), received {shape}")
    for other in others:
        if other is not None and tuple(other.shape[:3]) != shape[:3]:
            check_shape(other.name, other.shape, shape[:3])
    return shape[0], shape[1]


# ---- Where logits over the vocabulary are computed


def check_where_logits_are_computed(
    *, labelled: bool, masked_positions: bool, sparse_prediction: bool, values_are_known: bool = True
) -> None:
    """Refuse arguments of masked language modelling that contradict each other.

    Args:
        labelled, masked_positions: whether these were passed.
        sparse_prediction: whether it was asked for.
        values_are_known: whether the labels' values decide the number of logits here.
    """
    if not sparse_prediction:
        return
    if not labelled:
        raise InputError(
            "sparse_prediction=True computes logits at labelled positions and needs labels; "
            "pass labels, or masked_positions"
        )
    if masked_positions:
        raise InputError(
            "sparse_prediction and masked_positions both choose where logits are computed; pass one of them"
        )
    if not values_are_known:
        raise InputError(
            "sparse_prediction=True gives logits of a size that the labels' values decide, received labels whose "
            "values cannot be read here (compiled, or on an accelerator); pass masked_positions"
        )


def check_masked_positions(positions: Seen | None, batch: int, length: int) -> None:
    """Refuse positions (B, P) outside the sequence; -1 is none."""
    if positions is None:
        return
    shape = tuple(positions.shape)
    if len(shape) != 2 or shape[0] != batch or shape[1] == 0:
        raise InputError(f"masked_positions must have the shape ({batch}, P) with P at least 1, received {shape}")
    check_integers(positions)
    if positions.values is not None:
        values = positions.values()
        low, high = values.min().item(), values.max().item()
        if low < -1 or high >= length:
            worst = low if low < -1 else high
            raise InputError(
                f"masked_positions must lie between -1 (none) and {length - 1} (the last token), received {worst}"
                f"{place_of(values == worst)}"
            )


def check_kept_columns(logits_to_keep: int | Seen, length: int, *, labelled: bool) -> None:
    """Refuse a negative number of columns, and columns outside the sequence.

    Args:
        logits_to_keep: the last so many columns, 0 for all; or columns (n,), negative ones from the end.
        length: of the sequence.
        labelled: whether there are labels, which need every column.
    """
    if labelled and logits_to_keep != 0:
        raise InputError("labels need the logits of every position; leave logits_to_keep out")
    if isinstance(logits_to_keep, int):
        if logits_to_keep < 0:
            raise InputError(f"logits_to_keep must not be negative, received {logits_to_keep}; 0 keeps all")
        return
    if len(logits_to_keep.shape) != 1 or logits_to_keep.kind is not Kind.INTEGER:
        raise InputError(
            f"logits_to_keep must be a number or integers (n,), received {logits_to_keep.dtype_name} "
            f"of {tuple(logits_to_keep.shape)}"
        )
    if logits_to_keep.values is not None:
        values = logits_to_keep.values()
        if ((values < -length) | (values >= length)).any():
            raise InputError(f"logits_to_keep must name columns below {length}, received {values.tolist()}")


def refuse_tied_projection() -> None:
    """Refuse to replace a vocabulary projection that is the word embedding."""
    raise InputError(
        "the vocabulary projection is tied to the word embedding; "
        "use set_input_embeddings, or tie_word_embeddings=False"
    )
