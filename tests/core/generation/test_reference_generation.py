"""The loops of the reference, on models so small that every continuation can be looked at."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.core.small_models import arrays_of
from xlmr_core import reference
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.generation import (
    GenerationConfig,
    Hooks,
    MaxLengthCriteria,
    arrange_prompt,
    plan_generation,
    plan_mask_predict,
    read_request,
)
from xlmr_core.reference.generation import generate, mask_predict
from xlmr_core.reference.mathematics import log_softmax, softmax

CONFIG = XLMRobertaConfig(
    vocab_size=9,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=8,
    max_position_embeddings=20,
    type_vocab_size=1,
    is_decoder=True,
)
PARAMS = arrays_of(CONFIG, "ForCausalLM", seed=6)  # which does not say one token for ever
PROMPTS = np.array([[0, 5, 6], [1, 0, 7]])


def called(ids: Any = PROMPTS, hooks: Hooks | None = None, noise: Any = None, mask: Any = None, **options: Any) -> Any:
    width = options.pop("width", None)
    request = read_request(
        CONFIG,
        GenerationConfig(pad_token_id=1, bos_token_id=0),
        caller="generate()",
        hooks=hooks,
        kwargs={"max_new_tokens": 4, **options},
    )
    numbering = request.options.position_numbering
    prompt = arrange_prompt(CONFIG, np.asarray(ids), mask, position_numbering=numbering, width=width)
    plan = plan_generation(CONFIG, request, prompt)
    return generate(CONFIG, PARAMS, plan, prompt, hooks=request.hooks, noise=noise)


def log_probability(row: NDArray[Any], prompt: int) -> float:
    """Of the new tokens of a row without padding, from one forward pass."""
    logits = reference.forward(CONFIG, "ForCausalLM", PARAMS, input_ids=row[None]).logits[0]
    steps = log_softmax(logits[prompt - 1 : -1])
    return float(steps[np.arange(len(steps)), row[prompt:]].sum())


# ---- Token by token


def test_greedy_takes_the_best_of_a_forward_pass() -> None:
    row = PROMPTS[:1]
    for _ in range(4):
        best = reference.forward(CONFIG, "ForCausalLM", PARAMS, input_ids=row).logits[:, -1].argmax(axis=-1)
        row = np.concatenate([row, best[:, None]], axis=1)
    np.testing.assert_array_equal(called(PROMPTS[:1]).sequences, row)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"position_numbering": "zero_based"}])
def test_padding_on_any_side_changes_nothing(options: dict[str, Any]) -> None:
    alone = [called([row[row != 1]], **options).sequences[0, (row != 1).sum() :] for row in PROMPTS]
    right = np.array([[0, 5, 6, 1, 1], [0, 7, 1, 1, 1]])
    wide = {**options, "width": lambda longest: 8}
    for ids, more in ((PROMPTS, options), (right, options), (PROMPTS, wide)):
        together = called(ids, **more).sequences
        np.testing.assert_array_equal(together[:, : ids.shape[1]], ids)
        np.testing.assert_array_equal(together[:, ids.shape[1] :], alone)


def test_rows_that_ended_are_filled() -> None:
    free = called().sequences[:, 3:]
    end = int(free[0, 1])
    output = called(eos_token_id=[end])
    for before, after in zip(free, output.sequences[:, 3:], strict=True):
        length = list(before).index(end) + 1 if end in before else 4
        assert after[:length].tolist() == before[:length].tolist()
        assert set(after[length:]) <= {1}
    assert called(PROMPTS[:1], eos_token_id=[end]).sequences.shape[1] <= 5  # no step more than needed


def test_scores_and_logits_of_every_step() -> None:
    output = called(suppress_tokens=[3], output_scores=True, return_dict_in_generate=True)
    assert len(output.scores) == len(output.logits) == 4
    assert all(np.isneginf(step[:, 3]).all() for step in output.scores)
    assert all(np.isfinite(step).all() for step in output.logits)


def test_draws_have_the_distribution_of_the_scores() -> None:
    rng = np.random.default_rng(0)
    rows = 4000
    first = reference.forward(CONFIG, "ForCausalLM", PARAMS, input_ids=PROMPTS[:1]).logits[0, -1]
    wanted = softmax(first / 0.8)
    wanted[np.argsort(wanted)[:-5]] = 0
    wanted /= wanted.sum()
    output = called(
        PROMPTS[:1],
        noise=lambda step, shape: rng.gumbel(size=shape),
        do_sample=True,
        temperature=0.8,
        top_k=5,
        max_new_tokens=1,
        num_return_sequences=rows,
    )
    counts = np.bincount(output.sequences[:, -1], minlength=9)
    assert counts[wanted == 0].sum() == 0
    # Within five standard deviations.
    assert (np.abs(counts - rows * wanted) < 5 * np.sqrt(rows * wanted) + 1e-9).all()


# ---- Beams


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 3.0])
def test_as_many_beams_as_continuations_find_the_best(length_penalty: float) -> None:
    """With a beam for each pair of tokens, beam search of three steps is exhaustive."""
    output = called(PROMPTS[:1], num_beams=81, num_return_sequences=5, max_new_tokens=3, length_penalty=length_penalty)
    every = [np.array([*PROMPTS[0], *new]) for new in itertools.product(range(9), repeat=3)]
    scores = np.array([log_probability(row, 3) / 3**length_penalty for row in every])
    best = np.argsort(-scores)[:5]
    np.testing.assert_array_equal(output.sequences, [every[number] for number in best])
    np.testing.assert_allclose(output.sequences_scores, scores[best])


def test_a_beam_that_ends_is_scored_by_its_length() -> None:
    """All texts that end with 4 in at most three tokens, or are cut there."""
    output = called(
        PROMPTS[:1], num_beams=81, num_return_sequences=6, max_new_tokens=3, eos_token_id=4, length_penalty=2
    )
    every = [
        new
        for length in (1, 2, 3)
        for new in itertools.product(range(9), repeat=length)
        if 4 not in new[:-1] and (length == 3 or new[-1] == 4)
    ]
    scores = np.array([log_probability(np.array([*PROMPTS[0], *new]), 3) / len(new) ** 2 for new in every])
    best = np.argsort(-scores)[:6]
    padded = [[*PROMPTS[0], *every[number], *[1] * (3 - len(every[number]))] for number in best]
    np.testing.assert_array_equal(output.sequences, padded)
    np.testing.assert_allclose(output.sequences_scores, scores[best])


def test_where_each_token_of_a_beam_came_from() -> None:
    output = called(num_beams=4, num_return_sequences=2, return_dict_in_generate=True)
    scores = np.stack(output.scores)
    for row, beams, total in zip(output.sequences, output.beam_indices, output.sequences_scores, strict=True):
        steps = [scores[step, beam, row[3 + step]] for step, beam in enumerate(beams) if beam >= 0]
        np.testing.assert_allclose(sum(steps) / len(steps), total)
    assert (output.beam_indices[:2] < 4).all() and (output.beam_indices[2:] >= 4).all()


def test_early_stopping_ends_earlier() -> None:
    options = {"num_beams": 2, "eos_token_id": 4, "max_new_tokens": 12, "no_repeat_ngram_size": 2}
    steps = [len(called(PROMPTS[:1], early_stopping=early, **options).scores) for early in (True, False, "never")]
    assert steps == [2, 4, 11]


def test_drawn_beams_are_different_and_follow_the_noise() -> None:
    def draws(seed: int) -> Any:
        rng = np.random.default_rng(seed)
        noise = lambda step, shape: rng.gumbel(size=shape)  # noqa: E731
        return called(noise=noise, do_sample=True, num_beams=3, num_return_sequences=3, top_k=0).sequences.tolist()

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)
    assert len({tuple(row) for row in draws(1)[:3]}) == 3


# ---- Groups


def test_one_group_has_the_beams_of_no_group() -> None:
    alone = called(num_beams=2, num_return_sequences=2)
    # A group never hears of those after it.
    both = called(num_beams=4, num_beam_groups=2, diversity_penalty=100.0, num_return_sequences=4)
    found = {tuple(row) for row in both.sequences[:4]}
    assert {tuple(row) for row in alone.sequences[:2]} <= found


def test_groups_take_other_tokens() -> None:
    options = {"num_beams": 3, "num_beam_groups": 3, "num_return_sequences": 3, "max_new_tokens": 1}
    alike = called(PROMPTS[:1], diversity_penalty=1e-9, **options).sequences[:, -1]
    apart = called(PROMPTS[:1], diversity_penalty=1000.0, **options)
    assert len(set(alike)) == 1
    assert len(set(apart.sequences[:, -1])) == 3
    # The last group's step: the first group's and the second's tokens have lost the penalty once each.
    first = log_softmax(apart.logits[0][:1])[0]
    taken = np.argsort(-first)[:2]
    lost = first - apart.scores[0][2]
    np.testing.assert_allclose(lost[taken], 1000.0)
    np.testing.assert_allclose(np.delete(lost, taken), 0.0)


# ---- Hooks


def test_processors_and_criteria_see_rows_as_they_come_back() -> None:
    seen: list[Any] = []

    def forbid(input_ids: Any, scores: Any) -> Any:
        seen.append(input_ids.tolist())
        scores = scores.copy()
        scores[:, :7] = -np.inf
        return scores

    right = np.array([[0, 5, 6, 1], [0, 7, 1, 1]])
    hooks = Hooks.of([forbid], [MaxLengthCriteria(6)], None, None)
    output = called(right, hooks)
    assert output.sequences.shape == (2, 6)
    assert set(output.sequences[:, 4:].ravel()) <= {7, 8}
    assert seen == [output.sequences[:, :4].tolist(), output.sequences[:, :5].tolist()]


@pytest.mark.parametrize("beams", [1, 3])
def test_a_prefix_says_what_follows(beams: int) -> None:
    output = called(hooks=Hooks.of(None, None, lambda prompt, ids: [3 + prompt, 8], None), num_beams=beams)
    assert set(output.sequences[0, 3:]) <= {3, 8}
    assert set(output.sequences[1, 3:]) <= {4, 8}


@pytest.mark.parametrize("beams", [1, 3])
def test_what_is_forced_comes_whatever_the_prefix_says(beams: int) -> None:
    hooks = Hooks.of(None, None, lambda prompt, ids: [3, 8], None)
    output = called(hooks=hooks, num_beams=beams, forced_eos_token_id=7)
    assert set(output.sequences[:, 3:6].ravel()) <= {3, 8}
    assert output.sequences[:, 6].tolist() == [7, 7]
    begun = called([[5]], hooks, num_beams=beams, forced_bos_token_id=4)
    assert begun.sequences[0, 1] == 4


class Letters:
    """A tokenizer."""

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return ["abcdefghi"[token] for token in ids]


def test_a_text_ends_a_row() -> None:
    free = called(PROMPTS[:1], max_new_tokens=8).sequences[0].tolist()
    assert free[3:7] == [4, 5, 4, 4]
    output = called(PROMPTS[:1], max_new_tokens=8, stop_strings=["xyz", "ee"], tokenizer=Letters())
    assert output.sequences[0].tolist() == free[:7]
    beams = called(PROMPTS[:1], num_beams=3, max_new_tokens=8, stop_strings="ee", tokenizer=Letters())
    text = "".join(Letters().convert_ids_to_tokens(beams.sequences[0].tolist()))
    assert text.endswith("ee") or "ee" not in text


# ---- Masked models


def test_mask_predict_fills_the_least_certain_again() -> None:
    config = CONFIG.copy(is_decoder=False)
    params = arrays_of(config, "ForMaskedLM", seed=5)
    ids = np.array([[0, 5, 6, 2], [0, 7, 2, 1]])
    once, given = plan_mask_predict(config, caller="g()", ids=ids, kwargs={"max_new_tokens": 4, "passes": 1}, hooks={})
    first = mask_predict(config, params, once, given)
    # One pass is the best of each position, without special tokens.
    logits = reference.forward(config, "ForMaskedLM", params, input_ids=given.ids, attention_mask=given.mask).logits[
        :, 3:7
    ]
    logits[..., [0, 1, 2, 8]] = -np.inf
    np.testing.assert_array_equal(first, np.concatenate([ids, logits.argmax(axis=-1)], axis=1))
    # In the second, the two most certain of the first stay.
    twice, given = plan_mask_predict(config, caller="g()", ids=ids, kwargs={"max_new_tokens": 4, "passes": 2}, hooks={})
    second = mask_predict(config, params, twice, given)
    certain = np.argsort(-softmax(logits).max(axis=-1), axis=1)[:, :2] + 4
    np.testing.assert_array_equal(
        np.take_along_axis(second, certain, axis=1), np.take_along_axis(first, certain, axis=1)
    )
    np.testing.assert_array_equal(second[:, :4], ids)
