"""``generate`` in PyTorch: what the shared parity list (tests/parity/generation_cases.py) does not say."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

import xlmr_torch
from tests.torch.models import VOCABULARY, Case, assert_close, each_family, outputs_of
from xlmr_core.errors import ConfigError, InputError
from xlmr_core.generation import (
    OF_ENCODER,
    PROCESSORS,
    RENORMALIZE,
    WARPERS,
    GenerateBeamDecoderOnlyOutput,
    GenerateDecoderOnlyOutput,
    GenerationConfig,
    LogitsProcessor,
    Processor,
    StoppingCriteria,
    TextIteratorStreamer,
)
from xlmr_core.reference.processors import apply
from xlmr_torch.cache import StaticCache
from xlmr_torch.processors import FUNCTIONS, process

# Drawn models like to write padding.
NEW: dict[str, Any] = {"max_new_tokens": 6, "suppress_tokens": [1]}
BEAMS: dict[str, Any] = {**NEW, "num_beams": 3}


def writer(family: str = "XLMRoberta", **changes: Any) -> Any:
    return Case(family, "ForCausalLM").build(**{"use_cache": True, "eos_token_id": None, **changes})


def prompts(batch: int = 3, length: int = 5) -> Tensor:
    return torch.randint(4, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(1))


# ---- Processors

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "sequence_bias": (((3,), (4, 5), (6, 7, 8), (9,) * 9), (2.0, -1.5, 4.0, 1.0)),
    "encoder_repetition_penalty": (1.5, 1),
    "repetition_penalty": (1.5, 1, 4),
    "no_repeat_ngram": (2, 1, 4),
    "encoder_no_repeat_ngram": (2, 1),
    "bad_words": (((3,), (4, 5), (6, 7, 8), (9,) * 9),),
    "min_length": (8, (2, 3)),
    "forced_bos": (7, 5),
    "forced_eos": (7, (2, 4)),
    "remove_invalid": (),
    "exponential_decay_length": (5, 1.3, (2, 4)),
    "suppress": ((3, 5),),
    "begin_suppress": (7, (3, 5)),
    "temperature": (0.7,),
    "top_k": (3,),
    "top_p": (0.6, 1),
    "min_p": (0.2, 2),
    "typical_p": (0.5, 1),
    "epsilon_cutoff": (0.15, 1),
    "eta_cutoff": (0.3, 1),
    RENORMALIZE: (),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_processors_equal_the_reference(name: str) -> None:
    """Few tokens, so that words and groups are met; also where some scores are minus infinity, and at other lengths."""
    rng = np.random.default_rng(0)
    met = False
    for trial in range(30):
        length = (7, 7, 4, 9)[trial % 4]
        ids = rng.integers(1, 10, (3, 9))
        ids[0, :2] = 1
        if trial % 3 == 0:
            ids[:, :length][:, -2:] = [6, 7]
        encoder_ids = rng.integers(1, 10, (3, 5))
        scores = rng.normal(0, 2, (3, 11)).astype(np.float32)
        if trial % 2 and name != "exponential_decay_length":
            scores[:, 10] = -np.inf
        processor = Processor(name, ARGUMENTS[name])
        expected = apply(processor, ids, length, scores.astype(np.float64), encoder_ids)
        given = torch.from_numpy(scores)
        found = process((processor,), torch.from_numpy(ids), length, given, torch.from_numpy(encoder_ids))
        assert torch.equal(given, torch.from_numpy(scores)), "scores that came stay as they are"
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5)
        met |= not np.array_equal(expected, scores)
    assert met, "the case says nothing"


def test_every_processor_is_there() -> None:
    assert list(FUNCTIONS) == [*PROCESSORS, *WARPERS, RENORMALIZE] == list(ARGUMENTS)
    assert set(OF_ENCODER) <= set(FUNCTIONS)


# ---- Sampling


def test_the_same_seed_draws_the_same() -> None:
    model, ids = writer(), prompts()
    for options in ({**NEW, "do_sample": True}, {**BEAMS, "do_sample": True, "num_return_sequences": 2}):
        torch.manual_seed(3)
        first = model.generate(ids, **options)
        torch.manual_seed(3)
        assert torch.equal(model.generate(ids, **options), first)
        assert not torch.equal(model.generate(ids, **options), first)
        drawn = [model.generate(ids, generator=torch.Generator().manual_seed(5), **options) for _ in range(2)]
        assert torch.equal(*drawn) and not torch.equal(drawn[0], first)


@pytest.mark.parametrize(
    "options",
    [{"top_k": 0}, {"top_k": 5, "temperature": 0.5}, {"top_k": 0, "top_p": 0.7}, {"top_k": 20, "typical_p": 0.6}],
    ids=str,
)
def test_draws_have_the_right_distribution(options: dict[str, Any]) -> None:
    """Chi-squared of three thousand draws: below its mean and five deviations, and nothing else is drawn."""
    model, ids, draws = writer(), prompts(1), 3000
    torch.manual_seed(0)
    output = model.generate(
        ids,
        do_sample=True,
        max_new_tokens=1,
        num_return_sequences=draws,
        output_scores=True,
        return_dict_in_generate=True,
        **options,
    )
    expected = output.scores[0][0].softmax(-1) * draws
    counts = output.sequences[:, -1].bincount(minlength=VOCABULARY)
    assert counts[expected == 0].sum() == 0
    often = expected > 5
    chi = ((counts - expected)[often] ** 2 / expected[often]).sum()
    free = int(often.sum()) - 1
    assert chi < free + 5 * (2 * free) ** 0.5
    assert int(often.sum()) > 2


def test_beams_are_drawn_without_replacement() -> None:
    model, ids = writer(), prompts(1)
    torch.manual_seed(0)
    first = model.generate(ids, **{**BEAMS, "do_sample": True, "num_return_sequences": 3})
    assert len({tuple(row) for row in first.tolist()}) == 3


# ---- Prompts


@each_family
def test_rows_do_not_depend_on_their_padding(family: str) -> None:
    """Alone, padded on the left, and padded on the right, which comes back as it came."""
    model, ids = writer(family), prompts(2, 6)
    alone = model.generate(ids[:1, :3], **NEW)
    left, right = ids.clone(), ids.clone()
    left[0, :3], left[0, 3:] = 1, ids[0, :3]
    right[0, 3:] = 1
    for padded in (left, right):
        for options in ({}, {"attention_mask": (padded != 1).long()}):
            found = model.generate(padded, **NEW, **options)
            assert torch.equal(found[:, :6], padded)
            assert torch.equal(found[0, 6:], alone[0, 3:])
            assert torch.equal(found[1], model.generate(ids[1:], **NEW)[0])


def test_no_prompt_begins_with_bos() -> None:
    model = writer()
    assert torch.equal(model.generate(**NEW), model.generate(torch.tensor([[0]]), **NEW))
    states = torch.randn(2, 3, 16)
    crossing = writer(add_cross_attention=True)
    found = crossing.generate(encoder_hidden_states=states, **NEW)
    assert torch.equal(found, crossing.generate(torch.tensor([[0], [0]]), encoder_hidden_states=states, **NEW))


def test_a_prompt_may_begin_in_a_cache() -> None:
    model, ids = writer(), prompts()
    expected = model.generate(ids, **NEW)
    with torch.no_grad():
        for cache in (model(ids[:, :3]).past_key_values, StaticCache(model.config, 16)):
            assert torch.equal(model.generate(ids, past_key_values=cache, **NEW), expected)
        legacy = model(ids[:, :3]).past_key_values.to_legacy_cache()
        for options in (NEW, BEAMS):
            assert torch.equal(model.generate(ids, past_key_values=legacy, **options), model.generate(ids, **options))
        for wrong, message in (((), "has 0 layers, expected 2"), (legacy[:1], "has 1 layer, expected 2")):
            with pytest.raises(InputError, match=message):
                model.generate(ids, past_key_values=wrong, **NEW)
        with pytest.raises(InputError, match=r"hold less than the prompts, of 3 tokens, received a cache of 3;"):
            model.generate(ids[:, :3], past_key_values=legacy, **NEW)
        padded = torch.nn.functional.pad(ids, (0, 2), value=1)
        with pytest.raises(InputError, match="padded on the left"):
            model.generate(padded, past_key_values=cache, **NEW)


def test_rows_that_ended_are_filled() -> None:
    model, ids = writer(), prompts()
    free = model.generate(ids, **NEW)
    end = int(free[0, 7])
    found = model.generate(ids, eos_token_id=end, pad_token_id=1, **NEW)
    for row, expected in zip(found.tolist(), free.tolist(), strict=True):
        stop = expected.index(end, 5) + 1 if end in expected[5:] else len(expected)
        assert row == (expected[:stop] + [1] * len(row))[: len(row)]
    assert found.shape[1] <= free.shape[1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what fills them is no padding of the caller's
        assert torch.equal(model.generate(ids, eos_token_id=end, pad_token_id=1, use_cache=False, **NEW), found)


# ---- What a step computes


class Watched:
    """What a model's embeddings and head are given."""

    def __init__(self, model: Any) -> None:
        self.tokens: list[tuple[int, ...]] = []
        self.heads: list[tuple[int, ...]] = []
        self.model = model

    def __enter__(self) -> Watched:
        self.first = outputs_of(self.model.roberta.embeddings, lambda x: self.tokens.append(tuple(x.shape[:-1])))
        self.last = outputs_of(self.model.lm_head, lambda x: self.heads.append(tuple(x.shape[:-1])))
        self.first.__enter__()
        self.last.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.last.__exit__(*error)
        self.first.__exit__(*error)


def test_prompts_are_computed_once_and_only_last_logits() -> None:
    """Prompts once for all beams, packed where there is padding; then one token a row; the head at one place a row."""
    model, ids = writer(), prompts()
    with Watched(model) as watched:
        model.generate(ids, **{**BEAMS, "max_new_tokens": 4})
    assert watched.tokens == [(3, 5), (9, 1), (9, 1), (9, 1)]
    assert watched.heads == [(3, 1), (9, 1), (9, 1), (9, 1)]
    ids[0, :2] = 1
    with Watched(model) as watched:
        model.generate(ids, **{**NEW, "max_new_tokens": 2})
    assert watched.tokens == [(13,), (3, 1)]


def test_models_in_training() -> None:
    """Layers that are computed twice keep no cache, so each step computes the whole; the tokens are the same, and may
    be trained on.
    """
    model, ids = writer(), prompts()
    expected = model.generate(ids, **BEAMS)
    model.gradient_checkpointing_enable()
    model.train()
    for options in (BEAMS, NEW):
        found = model.generate(ids, **options)
    assert torch.equal(model.generate(ids, **BEAMS), expected)
    model(found, labels=found).loss.backward()


def test_a_loop_asks_the_model_for_its_inputs() -> None:
    """peft puts its own ``prepare_inputs_for_generation`` in the place of the model's."""
    model, ids, seen = writer(), prompts(), []
    expected, own = model.generate(ids, **NEW), model.prepare_inputs_for_generation

    def prepare(*args: Any, **kwargs: Any) -> dict[str, Any]:
        inputs = own(*args, **kwargs)
        seen.append(tuple(inputs["input_ids"].shape))
        return inputs

    model.prepare_inputs_for_generation = prepare
    assert torch.equal(model.generate(ids, **NEW), expected)
    assert seen == [(3, 5), *[(3, 1)] * 5]


# ---- Compiled


@pytest.mark.parametrize("crossing", [False, True], ids=["alone", "memory"])
def test_nothing_is_compiled_while_lengths_grow(crossing: bool) -> None:
    """One graph for prompts, one for single tokens, whatever the lengths, and whatever the kind of the cache; a batch
    of one row has its own.
    """
    model = writer(max_position_embeddings=200, add_cross_attention=crossing)
    fast, counter = copy.deepcopy(model), CompileCounter()
    fast = xlmr_torch.optimize_for_inference(fast, compile=False)
    fast.base_model.encoder.compile(backend=counter, dynamic=True, isolate_recompiles=True)
    states = torch.randn(3, 4, 16) if crossing else None
    static = {"cache_implementation": "static"}
    for length, new, more in ((5, 80, {}), (9, 9, static), (3, 9, {}), (4, 20, static)):
        ids = prompts(3, length)
        ids[1, :2] = 1
        options = {**NEW, "max_new_tokens": new, "encoder_hidden_states": states, **more}
        assert torch.equal(fast.generate(ids, **options), model.generate(ids, **options))
    assert counter.frame_count == 2
    options = {**BEAMS, "encoder_hidden_states": states}
    assert torch.equal(fast.generate(ids, **options), model.generate(ids, **options))
    assert counter.frame_count <= 3


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_narrow_models_generate(dtype: str) -> None:
    """With a cache as without one."""
    model, ids = xlmr_torch.optimize_for_inference(writer(), dtype, compile=False), prompts()
    ids[0, :2] = 1
    for options in (NEW, BEAMS):
        expected = model.generate(ids, use_cache=False, **options)
        assert torch.equal(model.generate(ids, **options), expected)


# ---- Hooks


class Prefers(LogitsProcessor):
    """Likes one token, and keeps what it was given."""

    def __init__(self, token: int) -> None:
        self.token = token
        self.seen: list[tuple[list[list[int]], tuple[int, ...]]] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.seen.append((input_ids.tolist(), tuple(scores.shape)))
        scores = scores.clone()
        scores[:, self.token] = 1e4
        return scores


class Stops(StoppingCriteria):
    """After so many tokens, in rows that begin with one."""

    def __init__(self, first: int, length: int) -> None:
        self.first, self.length = first, length

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        assert scores.shape[1] == VOCABULARY
        return (input_ids[:, 0] == self.first) & (input_ids.shape[1] >= self.length)


def test_processors_and_criteria_of_users() -> None:
    model, ids = writer(), prompts()
    ids[0, 3:] = 1  # comes back as it came
    prefers = Prefers(7)
    found = model.generate(ids, logits_processor=[prefers], **NEW)
    assert (found[:, 5:] == 7).all()
    assert [len(rows[0]) for rows, _ in prefers.seen] == [5, 6, 7, 8, 9, 10]
    assert prefers.seen[1][0] == [[*row, 7] for row in ids.tolist()] and prefers.seen[0][1] == (3, VOCABULARY)

    free = model.generate(ids, **NEW)
    found = model.generate(ids, stopping_criteria=[Stops(int(ids[1, 0]), 7)], pad_token_id=1, **NEW)
    assert torch.equal(found[[0, 2]], free[[0, 2]])
    assert torch.equal(found[1, :7], free[1, :7]) and (found[1, 7:] == 1).all()
    everywhere = [lambda input_ids, scores: input_ids.shape[1] >= 8]
    assert torch.equal(model.generate(ids, stopping_criteria=everywhere, **NEW), free[:, :8])
    beams = model.generate(ids, stopping_criteria=everywhere, **BEAMS)
    assert torch.equal(beams, model.generate(ids, **{**BEAMS, "max_new_tokens": 3}))


def test_only_allowed_tokens_follow() -> None:
    model, ids = writer(), prompts()
    allowed = {0: [5, 6], 1: [7], 2: [8, 9, 10]}
    for options in (NEW, BEAMS):
        found = model.generate(ids, prefix_allowed_tokens_fn=lambda number, row: allowed[number], **options)
        for number, row in enumerate(found[:, 5:].tolist()):
            assert set(row) <= set(allowed[number])


class Words:
    """A tokenizer whose tokens are letters."""

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [chr(97 + token) for token in ids]

    def decode(self, ids: list[int], **kwargs: Any) -> str:
        return " ".join(self.convert_ids_to_tokens(ids))


def test_texts_and_time_end_rows() -> None:
    model, ids, words = writer(), prompts(), Words()
    free = model.generate(ids, **NEW)
    stop = "".join(words.convert_ids_to_tokens(free[0, 6:8].tolist()))
    found = model.generate(ids, stop_strings=[stop], tokenizer=words, pad_token_id=1, **NEW)
    assert torch.equal(found[0, :8], free[0, :8]) and (found[0, 8:] == 1).all()
    assert model.generate(ids, max_time=1e-9, **NEW).shape == (3, 6)
    assert torch.equal(model.generate(ids, max_time=600.0, **NEW), free)


class Kept:
    """A streamer that keeps what it is given."""

    def __init__(self) -> None:
        self.given: list[list[Any]] = []
        self.ended = False

    def put(self, value: Tensor) -> None:
        assert value.device.type == "cpu" and not self.ended
        self.given.append(value.tolist())

    def end(self) -> None:
        self.ended = True


def test_streamers() -> None:
    model, ids, kept = writer(), prompts(), Kept()
    found = model.generate(ids, streamer=kept, **NEW)
    assert kept.ended and kept.given == [ids.tolist(), *found[:, 5:].T.tolist()]
    texts = TextIteratorStreamer(Words(), skip_prompt=True)
    found = model.generate(ids[:1], streamer=texts, **NEW)
    assert "".join(texts) == Words().decode(found[0, 5:].tolist())


# ---- Outputs


@pytest.mark.parametrize("crossing", [False, True], ids=["alone", "memory"])
@pytest.mark.parametrize("beams", [1, 3])
def test_everything_comes_back(beams: int, crossing: bool) -> None:
    model, ids = writer(add_cross_attention=crossing), prompts()
    memory = {"encoder_hidden_states": torch.randn(3, 4, 16)} if crossing else {}
    options = {**NEW, "num_beams": beams, **memory}
    asked = dict.fromkeys(("output_scores", "output_logits", "output_attentions", "output_hidden_states"), True)
    output = model.generate(ids, return_dict_in_generate=True, **asked, **options)
    assert isinstance(output, GenerateDecoderOnlyOutput if beams == 1 else GenerateBeamDecoderOnlyOutput)
    assert torch.equal(output.sequences, model.generate(ids, **options))
    rows = 3 * beams
    assert [tuple(x.shape) for x in output.scores] == [tuple(x.shape) for x in output.logits] == [(rows, 41)] * 6
    assert (output.scores[0][:, 1] == -torch.inf).all() and output.logits[0].isfinite().all()
    assert [tuple(x[1].shape) for x in output.attentions] == [
        (rows, 2, 5, 5),
        *((rows, 2, 1, past) for past in range(6, 11)),
    ]
    assert [tuple(x[2].shape) for x in output.hidden_states] == [(rows, 5, 16), *[(rows, 1, 16)] * 5]
    assert output.past_key_values.get_seq_length() == 10
    plain = model.generate(ids, return_dict_in_generate=True, **options)
    assert list(plain) == [
        "sequences",
        *(["sequences_scores", "beam_indices"] if beams > 1 else []),
        "past_key_values",
    ]


def test_transition_scores() -> None:
    model, ids = writer(), prompts()
    asked = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    output = model.generate(ids, **NEW, **asked)
    found = model.compute_transition_scores(output.sequences, output.scores, normalize_logits=True)
    picked = [
        step.log_softmax(-1).gather(1, output.sequences[:, 5 + number, None])[:, 0]
        for number, step in enumerate(output.scores)
    ]
    assert_close(found, torch.stack(picked, 1))
    for penalty in (1.0, 2.0):
        beams = {**BEAMS, "num_return_sequences": 2, "length_penalty": penalty}
        output = model.generate(ids, **beams, **asked)
        found = model.compute_transition_scores(output.sequences, output.scores, output.beam_indices)
        assert_close(found.sum(1) / 6**penalty, output.sequences_scores)


# ---- Options


def test_options_of_the_model_and_of_its_files(tmp_path: Path) -> None:
    model, ids = writer(), prompts()
    assert model.generation_config.eos_token_id is None and model.generation_config.bos_token_id == 0
    expected = model.generate(ids, **BEAMS)
    model.generation_config.update(**BEAMS)
    assert torch.equal(model.generate(ids), expected)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert loaded.generation_config == model.generation_config
    assert torch.equal(loaded.generate(ids), expected)
    assert torch.equal(loaded.generate(ids, num_beams=1), writer().generate(ids, **NEW))
    own = GenerationConfig(**NEW, eos_token_id=None)
    assert torch.equal(writer().generate(ids, own), writer().generate(ids, **NEW))
    (tmp_path / "generation_config.json").unlink()
    assert type(model).from_pretrained(tmp_path).generation_config.max_new_tokens is None
    masked = Case("XLMRoberta", "ForMaskedLM").build()
    masked.save_pretrained(tmp_path / "masked")
    assert not (tmp_path / "masked" / "generation_config.json").exists()


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"max_new_token": 3}, TypeError, "did you mean 'max_new_tokens'"),
        ({"max_new_tokens": 30}, InputError, "ask for at most 18"),
        ({"num_beams": 0}, ConfigError, "num_beams must be a positive integer"),
        ({"assistant_model": 1}, InputError, "assistant_model"),
        ({"generator": 5}, InputError, r"generator must be a torch\.Generator, received an int; make one by"),
        ({"inputs_embeds": torch.zeros(1, 2, 16)}, InputError, "inputs_embeds"),
        ({"logits_processor": 3}, InputError, "logits_processor must be a list of callables"),
        ({"attention_mask": torch.ones(3, 4)}, InputError, "attention_mask must have the shape"),
        ({"encoder_hidden_states": torch.zeros(3, 2, 16)}, InputError, "needs a decoder with cross-attention"),
    ],
)
def test_refused(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        writer().generate(prompts(), **options)
    with pytest.raises(InputError, match=r"must be a torch\.Tensor, received list"):
        writer().generate([[1, 2]])


def test_the_longest_texts() -> None:
    """The last new token needs no position."""
    model, ids = writer(), prompts(2, 22)
    assert model.generate(ids, **{**NEW, "max_new_tokens": 1}).shape == (2, 23)
    assert model.generate(ids[:, :1], max_length=23, suppress_tokens=[1]).shape == (2, 23)
    with pytest.raises(InputError, match="takes 22"):
        model.generate(torch.cat([ids, ids[:, :1]], 1))


# ---- Masked models


@each_family
def test_masked_models_fill_in(family: str) -> None:
    model, ids = Case(family, "ForMaskedLM").build(), prompts()
    assert not model.can_generate() and writer().can_generate()
    found = model.generate(ids, max_new_tokens=6)
    assert found.shape == (3, 11) and torch.equal(found[:, :5], ids)
    assert not torch.isin(found[:, 5:], torch.tensor([0, 1, 2, VOCABULARY - 1])).any()
    assert torch.equal(found, model.generate(input_ids=ids, max_new_tokens=6))
    for wrong, message in (
        ({"num_beams": 3}, "num_beams, which is an option of decoders"),
        ({"streamer": Kept()}, "streamer, which is an option of decoders"),
        ({"input_ids": ids}, "received both"),
    ):
        with pytest.raises(InputError, match=message):
            model.generate(ids, **wrong)
    with pytest.raises(InputError, match="received neither"):
        model.generate()
    with pytest.raises(TypeError, match="did you mean 'passes'"):
        model.generate(ids, pases=3)


def test_other_heads_do_not_generate() -> None:
    model = Case("XLMRoberta", "ForTokenClassification").build()
    assert not model.can_generate() and not hasattr(model, "generate")
    assert isinstance(model, nn.Module)
