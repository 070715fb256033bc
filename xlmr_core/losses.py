"""Which loss a call means. The core decides; the backends compute.

==================  =============================================================================================
labels              loss
==================  =============================================================================================
tokens              cross-entropy over labels that are not -100, mean; XL's token classification leaves out labels
                    at positions that a 2-D ``attention_mask`` hides, as published, base and large count them
next tokens         the same, position i against the label of i + 1
choice              cross-entropy over choices, mean
span                mean of the start's and the end's cross-entropy over positions; positions are clamped to
                    [0, S], and S (outside the sequence) is ignored
sequence            by ``config.problem_type``, or if that is ``None``: one label means regression (mean squared
                    error), integer labels mean one class (cross-entropy), others several (binary cross-entropy)
==================  =============================================================================================

Everything is averaged and in float32 whatever the model's dtype. With no label to count, a token loss is NaN (0 / 0),
as published.
"""

from __future__ import annotations

from enum import Enum

from xlmr_core.config import XLMRobertaConfig

__all__ = ["Problem", "sequence_problem"]


class Problem(Enum):
    """The three problems of a sequence classifier, by their published names."""

    REGRESSION = "regression"
    SINGLE_LABEL = "single_label_classification"
    MULTI_LABEL = "multi_label_classification"


def sequence_problem(config: XLMRobertaConfig, *, labels_are_integers: bool) -> Problem:
    """The problem that labels of this kind mean to a sequence classifier. The config is not changed."""
    if config.problem_type is not None:
        return Problem(config.problem_type)
    if config.num_labels == 1:
        return Problem.REGRESSION
    return Problem.SINGLE_LABEL if labels_are_integers else Problem.MULTI_LABEL
