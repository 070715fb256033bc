"""The judges of the processors, on numbers that can be counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xlmr_core.generation.processors import OF_ENCODER, PROCESSORS, RENORMALIZE, WARPERS, Processor
from xlmr_core.reference.processors import REFERENCE_PROCESSORS, apply

NEVER = -np.inf
MOST = float(np.finfo(np.float32).max)


def test_every_processor_has_a_judge() -> None:
    assert list(REFERENCE_PROCESSORS) == [*PROCESSORS, *WARPERS, RENORMALIZE]
    assert set(OF_ENCODER) <= set(PROCESSORS)


def applied(name: str, *arguments: Any, ids: list[int], scores: list[float], encoder: list[int] | None = None) -> Any:
    """Scores of one row; a buffer has rubbish after the tokens that are there."""
    buffer = np.array([[*ids, 1, 2, 3]])
    encoder_ids = None if encoder is None else np.array([encoder])
    given = np.array([scores], dtype=np.float64)
    found = apply(Processor(name, arguments), buffer, len(ids), given, encoder_ids)
    np.testing.assert_array_equal(given, [scores])  # what came stays as it is
    return found[0].tolist()


@pytest.mark.parametrize(
    ("name", "arguments", "ids", "encoder", "scores", "expected"),
    [
        ("repetition_penalty", (2.0, 1, 2), [0, 3], None, [4, 4, 4, -4], [2, 4, 4, -8]),
        # Padding of the prompt is no text; what is generated is.
        ("repetition_penalty", (2.0, 1, 2), [1, 3], None, [4, 4, 4, 4], [4, 4, 4, 2]),
        ("repetition_penalty", (2.0, 1, 1), [3, 1], None, [4, 4, 4, 4], [4, 2, 4, 2]),
        ("encoder_repetition_penalty", (2.0, 1), [0], [1, 2, 3], [4, 4, 4, -4], [4, 4, 8, -2]),
        ("no_repeat_ngram", (1, 1, 0), [2], None, [0, 0, 0, 0], [0, 0, NEVER, 0]),
        ("no_repeat_ngram", (2, 1, 0), [2, 3, 2], None, [0, 0, 0, 0], [0, 0, 0, NEVER]),
        ("no_repeat_ngram", (3, 1, 0), [2, 3, 0, 2, 3], None, [0, 0, 0, 0], [NEVER, 0, 0, 0]),
        ("no_repeat_ngram", (3, 1, 0), [2], None, [0, 0, 0, 0], [0, 0, 0, 0]),
        ("no_repeat_ngram", (2, 1, 3), [1, 3, 1, 3], None, [0, 0, 0, 0], [0, 0, 0, 0]),
        ("no_repeat_ngram", (2, 1, 0), [1, 3, 1, 3], None, [0, 0, 0, 0], [0, NEVER, 0, 0]),
        ("encoder_no_repeat_ngram", (2, 1), [0, 2], [2, 3, 2, 0, 2, 1], [0, 0, 0, 0], [NEVER, 0, 0, NEVER]),
        ("sequence_bias", (((3,), (2, 0)), (1.5, -2.0)), [1, 2], None, [0, 0, 0, 0], [-2, 0, 0, 1.5]),
        ("sequence_bias", (((2, 0),), (-2.0,)), [2, 3], None, [0, 0, 0, 0], [0, 0, 0, 0]),
        ("sequence_bias", (((3,), (3,)), (1.0, 1.0)), [2], None, [0, 0, 0, 0], [0, 0, 0, 2]),
        ("bad_words", (((3,), (2, 0), (1, 2, 1)),), [1, 2], None, [0, 0, 0, 0], [NEVER, NEVER, 0, NEVER]),
        ("bad_words", (((2, 0, 1),),), [0], None, [0, 0, 0, 0], [0, 0, 0, 0]),
        ("bad_words", (((0, 1),),), [0], None, [0, 0, 0, 0], [0, NEVER, 0, 0]),  # also after a prompt of one token
        ("min_length", (3, (2, 3)), [0, 0], None, [0, 0, 0, 0], [0, 0, NEVER, NEVER]),
        ("min_length", (2, (2, 3)), [0, 0], None, [0, 0, 0, 0], [0, 0, 0, 0]),
        ("forced_bos", (1, 3), [0], None, [5, 5, 5, 5], [NEVER, NEVER, NEVER, 0]),
        ("forced_bos", (1, 3), [0, 0], None, [5, 5, 5, 5], [5, 5, 5, 5]),
        ("forced_eos", (2, (1, 3)), [0, 0], None, [5, 5, 5, 5], [NEVER, 0, NEVER, 0]),
        ("forced_eos", (2, (1, 3)), [0], None, [5, 5, 5, 5], [5, 5, 5, 5]),
        (
            "remove_invalid",
            (),
            [0],
            None,
            [np.nan, np.inf, NEVER, 1],
            [0, MOST, -MOST, 1],
        ),
        ("exponential_decay_length", (1, 2.0, (0, 3)), [0, 0, 0], None, [2, 2, 2, -2], [8, 2, 2, 4]),
        ("exponential_decay_length", (1, 2.0, (0, 3)), [0], None, [2, 2, 2, -2], [2, 2, 2, -2]),
        ("suppress", ((0, 2),), [0], None, [5, 5, 5, 5], [NEVER, 5, NEVER, 5]),
        ("begin_suppress", (1, (0, 2)), [0], None, [5, 5, 5, 5], [NEVER, 5, NEVER, 5]),
        ("begin_suppress", (1, (0, 2)), [0, 0], None, [5, 5, 5, 5], [5, 5, 5, 5]),
        ("temperature", (0.5,), [0], None, [1, -2, 0, NEVER], [2, -4, 0, NEVER]),
        ("top_k", (2,), [0], None, [3, 1, 2, 0], [3, NEVER, 2, NEVER]),
        ("top_k", (2,), [0], None, [3, 2, 2, 0], [3, 2, 2, NEVER]),  # as good as the second
        ("top_k", (9,), [0], None, [3, 1, 2, 0], [3, 1, 2, 0]),
    ],
)
def test_scores(
    name: str, arguments: Any, ids: list[int], encoder: list[int] | None, scores: list[float], expected: list[float]
) -> None:
    assert applied(name, *arguments, ids=ids, scores=scores, encoder=encoder) == expected


PROBABILITIES = [0.1, 0.4, 0.3, 0.2]


@pytest.mark.parametrize(
    ("name", "arguments", "kept"),
    [
        ("top_p", (0.35, 1), [1]),
        ("top_p", (0.45, 1), [1, 2]),
        ("top_p", (0.85, 1), [1, 2, 3]),
        ("top_p", (0.0, 1), [1]),
        ("top_p", (0.0, 2), [1, 2]),
        ("min_p", (0.6, 1), [1, 2]),
        ("min_p", (0.4, 1), [1, 2, 3]),
        ("min_p", (1.0, 3), [1, 2, 3]),
        # The entropy is 1.28; the surprises are 2.30, 0.92, 1.20, 1.61: token 2 is the most typical, then 3, then 1.
        ("typical_p", (0.25, 1), [2]),
        ("typical_p", (0.45, 1), [2, 3]),
        ("typical_p", (0.85, 1), [1, 2, 3]),
        ("typical_p", (0.05, 2), [2, 3]),
        ("epsilon_cutoff", (0.25, 1), [1, 2]),
        ("epsilon_cutoff", (0.9, 1), [1]),
        ("epsilon_cutoff", (0.9, 2), [1, 2]),
        # sqrt(0.3) * exp(-1.28) is 0.152; of 0.04 it is 0.056, and 0.04 is less.
        ("eta_cutoff", (0.3, 1), [1, 2, 3]),
        ("eta_cutoff", (0.04, 1), [0, 1, 2, 3]),
        ("eta_cutoff", (0.9, 1), [1, 2]),
    ],
)
def test_what_may_be_drawn(name: str, arguments: Any, kept: list[int]) -> None:
    scores = np.log(PROBABILITIES).tolist()
    found = applied(name, *arguments, ids=[0], scores=scores)
    assert [token for token, score in enumerate(found) if np.isfinite(score)] == kept
    assert [found[token] for token in kept] == [scores[token] for token in kept]


def test_what_is_forbidden_before_stays_forbidden() -> None:
    scores = [NEVER, *np.log([0.5, 0.3, 0.2]).tolist()]
    for name in WARPERS:
        arguments = (0.9,) if name == "temperature" else (3,) if name == "top_k" else (0.5, 1)
        found = applied(name, *arguments, ids=[0], scores=scores)
        assert found[0] == NEVER and not np.isnan(found).any(), name


def test_renormalized_scores_are_probabilities() -> None:
    found = applied("renormalize", ids=[0], scores=[3, NEVER, 1, 0])
    np.testing.assert_allclose(np.exp(found).sum(), 1)
