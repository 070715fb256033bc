"""``generate`` in Keras: what the shared parity list (tests/parity/generation_cases.py) does not say.

The functions that XLA gets run uncompiled here, which is the same arithmetic; ``compiled`` tests compile them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")

from tests.tf.models import VOCABULARY, Case, assert_close  # noqa: E402
from xlmr_core.errors import ConfigError, InputError  # noqa: E402
from xlmr_core.generation import (  # noqa: E402
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
from xlmr_core.reference.processors import apply  # noqa: E402
from xlmr_tf.processors import FUNCTIONS, process  # noqa: E402

# Drawn models like to write padding.
N = 4
NEW: dict[str, Any] = {"max_new_tokens": N, "suppress_tokens": [1]}
BEAMS: dict[str, Any] = {**NEW, "num_beams": 3}


@pytest.fixture
def compiled():
    """For tests that are about programs."""


@pytest.fixture(autouse=True)
def uncompiled(request):
    tf.config.run_functions_eagerly("compiled" not in request.fixturenames)
    yield
    tf.config.run_functions_eagerly(False)


def writer(family="XLMRoberta", **changes):
    kind = {"use_cache": True, "eos_token_id": None, "num_hidden_layers": 1, "is_decoder": True}
    return Case(family, "ForCausalLM").build(**{**kind, **changes})


@pytest.fixture(scope="module")
def model():
    return writer()


def prompts(batch=3, length=5):
    return tf.constant(np.random.default_rng(1).integers(4, VOCABULARY, (batch, length)))


def same(found, expected):
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected), strict=True)


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


def trials():
    """Few tokens, so that words and groups are met; also where some scores are minus infinity, and at other lengths."""
    rng = np.random.default_rng(0)
    for trial in range(16):
        length = (7, 7, 4, 9)[trial % 4]
        ids = rng.integers(1, 10, (3, 9))
        ids[0, :2] = 1
        if trial % 3 == 0:
            ids[:, :length][:, -2:] = [6, 7]
        scores = rng.normal(0, 2, (3, 11)).astype(np.float32)
        if trial % 2:
            scores[:, 10] = -np.inf
        yield ids, length, scores, rng.integers(1, 10, (3, 5))


@pytest.mark.parametrize("name", ARGUMENTS)
def test_processors_equal_the_reference(name):
    met, processor = False, Processor(name, ARGUMENTS[name])
    for ids, length, scores, encoder_ids in trials():
        expected = apply(processor, ids, length, scores.astype(np.float64), encoder_ids)
        given = map(tf.constant, (ids, length, scores, encoder_ids))
        np.testing.assert_allclose(process((processor,), *given), expected, rtol=1e-5, atol=1e-5)
        met |= not np.array_equal(expected, scores)
    assert met, "the case says nothing"


def test_xla_takes_every_processor(compiled):
    assert list(FUNCTIONS) == [*PROCESSORS, *WARPERS, RENORMALIZE] == list(ARGUMENTS)
    assert set(OF_ENCODER) <= set(FUNCTIONS)
    processors = [Processor(name, arguments) for name, arguments in ARGUMENTS.items()]

    @tf.function(jit_compile=True)
    def each(*given):
        return [process((one,), *given) for one in processors]

    for ids, length, scores, encoder_ids in trials():
        found = each(*map(tf.constant, (ids, length, scores, encoder_ids)))
        for one, actual in zip(processors, found, strict=True):
            expected = apply(one, ids, length, scores.astype(np.float64), encoder_ids)
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5, err_msg=one.name)
    assert each.experimental_get_tracing_count() == 1


# ---- Programs


def test_a_program_of_beams_says_the_same(compiled, model):
    """As the functions uncompiled, which tests/parity compares with the reference; one for prompts of a bucket."""
    groups = {**NEW, "num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 2.0, "num_return_sequences": 3}
    options = {**groups, "eos_token_id": [*range(2, 20)], "no_repeat_ngram_size": 2, "return_dict_in_generate": True}
    before = model.generation_programs.traced
    for length, new in ((3, 4), (6, 7)):
        ids = prompts(2, length).numpy()
        ids[1, :2] = 1
        found = model.generate(ids, **{**options, "max_new_tokens": new})
        assert model.generation_programs.traced == before + 1
        tf.config.run_functions_eagerly(True)
        expected = model.generate(ids, **{**options, "max_new_tokens": new})
        tf.config.run_functions_eagerly(False)
        same(found.sequences, expected.sequences)
        same(found.beam_indices, expected.beam_indices)
        assert_close(found.sequences_scores, expected.sequences_scores)


def test_nothing_is_compiled_while_lengths_grow(compiled):
    """One program for prompts and answers of any length within a bucket, and for a memory of any length; the cache that
    comes back has the columns of the tokens, without what is rounded up. Where Python sees each step there are three
    programs, of the prompt, of a step of the model, and of what takes a token; the tokens are the same.
    """
    model = writer(max_position_embeddings=60, add_cross_attention=True)
    for number, (length, new, reach) in enumerate(((5, 3, 3), (7, 7, 6))):
        ids, mask = prompts(2, length).numpy(), np.ones((2, length + new), np.int64)
        ids[1, :2], mask[1, :2] = 1, 0
        memory, kept = {"encoder_hidden_states": tf.random.normal((2, reach, 16))}, Kept()
        asked = {"max_new_tokens": new, **memory}
        output = model.generate(ids, return_dict_in_generate=True, **asked)
        assert model.generation_programs.traced == (4 if number else 1)
        past = output.past_key_values
        last = model(output.sequences[:, -1:], attention_mask=mask, past_key_values=past, **memory).logits
        assert_close(last, model(output.sequences, attention_mask=mask, **memory).logits[:, -1:])
        same(output.sequences, model.generate(ids, streamer=kept, **asked))
        assert np.array_equal(np.stack(kept.given[1:], 1), output.sequences[:, length:])
        assert model.generation_programs.traced == 4
        tf.config.run_functions_eagerly(True)
        same(output.sequences, model.generate(ids, **asked))
        tf.config.run_functions_eagerly(False)


def test_other_values_and_other_variables(compiled):
    """A program sees values that change; variables that take the place of others need a new one."""
    model, ids = writer(), prompts(1)
    first = model.generate(ids, **NEW)
    model.get_parameter("lm_head.bias").assign(np.eye(VOCABULARY)[7] * 1e3)
    assert (model.generate(ids, **NEW)[:, 5:] == 7).numpy().all() and not (first[:, 5:] == 7).numpy().all()
    assert model.generation_programs.traced == 1
    kept = model.generation_programs.get(model, "any plan", "prefill")
    assert model.generation_programs.get(model, "any plan", "prefill") is kept
    model.resize_token_embeddings(VOCABULARY + 2)
    assert model.generation_programs.traced == 1
    assert model.generation_programs.get(model, "any plan", "prefill") is not kept
    assert model.generation_programs.traced == 0


@pytest.mark.parametrize("tied", [True, False])
def test_one_row_under_xla(compiled, tied):
    """Its product with the vocabulary is kept apart from the bias; logits and gradients are those of any row."""
    head = writer(tie_word_embeddings=tied).lm_head
    head.bias.assign(np.linspace(-1, 1, VOCABULARY, dtype="float32"))
    x = tf.random.stateless_normal((2, 16), (0, 1))

    def answers(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            logits = head(x)
            loss = tf.reduce_sum(logits * tf.range(VOCABULARY, dtype=tf.float32))
        return logits, *tape.gradient(loss, [x, head.bias])

    logits, gradient, _ = answers(x)
    found = tf.function(answers, jit_compile=True)(x[:1])
    assert_close(found[0], logits[:1])
    assert_close(found[1], gradient[:1], tolerance=1e-4)
    np.testing.assert_array_equal(found[2], np.arange(VOCABULARY))
    text = tf.function(head, jit_compile=True).experimental_get_compiler_ir(x[:1])(stage="hlo")
    assert "opt-barrier" in text


def test_inside_a_function(compiled, model):
    """As published: ``tf.function(model.generate, jit_compile=True)``."""
    ids = prompts(2, 6).numpy()
    ids[0, :2] = 1
    found = tf.function(lambda x: model.generate(x, **NEW), jit_compile=True)(tf.constant(ids))
    tf.config.run_functions_eagerly(True)
    same(found, model.generate(ids, **NEW))
    tf.config.run_functions_eagerly(False)
    with pytest.raises(InputError, match="has no steps that Python sees"):
        tf.function(lambda x: model.generate(x, streamer=Kept(), **NEW))(tf.constant(ids))
    with pytest.raises(InputError, match="needs input_ids of a known shape"):
        signature = [tf.TensorSpec((None, None), tf.int64)]
        tf.function(lambda x: model.generate(x, **NEW), input_signature=signature)(tf.constant(ids))


# ---- Sampling


def test_the_same_seed_draws_the_same(model):
    ids, few = prompts(), {"do_sample": True, "max_new_tokens": 2, "num_return_sequences": 2}
    for options in ({**NEW, **few}, {**BEAMS, **few}):
        first = model.generate(ids, seed=3, **options)
        same(model.generate(ids, seed=3, **options), first)
        same(model.generate(ids, seed=[3, 3], **options), first)
        assert not np.array_equal(model.generate(ids, seed=4, **options), first)
        tf.random.set_seed(1)
        one, other = model.generate(ids, **options), model.generate(ids, **options)
        assert not np.array_equal(one, other)
        tf.random.set_seed(1)
        same(model.generate(ids, **options), one)


@pytest.mark.parametrize(
    "options",
    [{"top_k": 0}, {"top_k": 5, "temperature": 0.5}, {"top_k": 0, "top_p": 0.7}, {"top_k": 20, "typical_p": 0.6}],
    ids=str,
)
def test_draws_have_the_right_distribution(model, options):
    """Chi-squared of three thousand draws: below its mean and five deviations, and nothing else is drawn."""
    draws = 3000
    asked = {"do_sample": True, "max_new_tokens": 1, "num_return_sequences": draws, "output_scores": True}
    output = model.generate(prompts(1), seed=0, return_dict_in_generate=True, **asked, **options)
    expected = tf.nn.softmax(output.scores[0][0]).numpy() * draws
    counts = np.bincount(output.sequences.numpy()[:, -1], minlength=VOCABULARY)
    assert counts[expected == 0].sum() == 0
    often = expected > 5
    chi = ((counts - expected)[often] ** 2 / expected[often]).sum()
    free = int(often.sum()) - 1
    assert chi < free + 5 * (2 * free) ** 0.5
    assert int(often.sum()) > 2


def test_beams_are_drawn_without_replacement(model):
    first = model.generate(prompts(1), seed=0, **{**BEAMS, "do_sample": True, "num_return_sequences": 3})
    assert len({tuple(row) for row in first.numpy().tolist()}) == 3


# ---- Prompts


def test_rows_do_not_depend_on_their_padding(model):
    """Alone, padded on the left, and padded on the right, which comes back as it came."""
    ids = prompts(2, 6).numpy()
    alone, whole = model.generate(ids[:1, :3], **NEW), model.generate(ids[1:], **NEW)
    left, right = ids.copy(), ids.copy()
    left[0, :3], left[0, 3:] = 1, ids[0, :3]
    right[0, 3:] = 1
    for padded in (left, right):
        for options in ({}, {"attention_mask": (padded != 1).astype(np.int32)}):
            found = model.generate(padded, **NEW, **options)
            same(found[:, :6], padded)
            same(found[0, 6:], alone[0, 3:])
            same(found[1], whole[0])


def test_no_prompt_begins_with_bos(model):
    same(model.generate(**NEW), model.generate(np.array([[0]], np.int32), **NEW))
    states = tf.random.normal((2, 3, 16))
    crossing = writer(add_cross_attention=True)
    found = crossing.generate(encoder_hidden_states=states, **NEW)
    same(found, crossing.generate(np.array([[0], [0]], np.int32), encoder_hidden_states=states, **NEW))


def test_rows_that_ended_are_filled(model):
    ids = prompts()
    free = model.generate(ids, **NEW).numpy()
    end = int(free[0, 7])
    found = model.generate(ids, eos_token_id=end, pad_token_id=1, **NEW).numpy()
    for row, expected in zip(found.tolist(), free.tolist(), strict=True):
        stop = expected.index(end, 5) + 1 if end in expected[5:] else len(expected)
        assert row == (expected[:stop] + [1] * len(row))[: len(row)]
    assert found.shape[1] <= free.shape[1]


# ---- What the host sees


class Prefers(LogitsProcessor):
    """Likes one token, and keeps what it was given."""

    def __init__(self, token):
        self.token, self.seen = token, []

    def __call__(self, input_ids, scores):
        self.seen.append((input_ids.numpy().tolist(), tuple(scores.shape)))
        return scores + tf.one_hot(self.token, scores.shape[1]) * 1e4


class Stops(StoppingCriteria):
    """After so many tokens, in rows that begin with one."""

    def __init__(self, first, length):
        self.first, self.length = first, length

    def __call__(self, input_ids, scores, **kwargs):
        assert scores.shape[1] == VOCABULARY
        return (input_ids[:, 0] == self.first) & (input_ids.shape[1] >= self.length)


def test_processors_and_criteria_of_users(model):
    ids = prompts().numpy()
    ids[0, 3:] = 1  # comes back as it came
    prefers = Prefers(7)
    found = model.generate(ids, logits_processor=[prefers], **NEW)
    assert (found.numpy()[:, 5:] == 7).all()
    assert [len(rows[0]) for rows, _ in prefers.seen] == [5, 6, 7, 8]
    assert prefers.seen[1][0] == [[*row, 7] for row in ids.tolist()] and prefers.seen[0][1] == (3, VOCABULARY)
    free = model.generate(ids, **NEW).numpy()
    found = model.generate(ids, stopping_criteria=[Stops(int(ids[1, 0]), 7)], pad_token_id=1, **NEW).numpy()
    same(found[[0, 2]], free[[0, 2]])
    same(found[1, :7], free[1, :7])
    assert (found[1, 7:] == 1).all()
    everywhere = [lambda input_ids, scores: input_ids.shape[1] >= 7]
    same(model.generate(ids, stopping_criteria=everywhere, **NEW), free[:, :7])
    beams = model.generate(ids, stopping_criteria=everywhere, **BEAMS)
    same(beams, model.generate(ids, **{**BEAMS, "max_new_tokens": 2}))


def test_only_allowed_tokens_follow(model):
    allowed = {0: [5, 6], 1: [7], 2: [8, 9, 10]}
    for options in (NEW, BEAMS):
        found = model.generate(prompts(), prefix_allowed_tokens_fn=lambda number, row: allowed[number], **options)
        for number, row in enumerate(found.numpy()[:, 5:].tolist()):
            assert set(row) <= set(allowed[number])


class Words:
    """A tokenizer whose tokens are letters."""

    def convert_ids_to_tokens(self, ids):
        return [chr(97 + token) for token in ids]

    def decode(self, ids, **kwargs):
        return " ".join(self.convert_ids_to_tokens(ids))


def test_texts_and_time_end_rows(model):
    ids, words = prompts(), Words()
    free = model.generate(ids, **NEW).numpy()
    stop = "".join(words.convert_ids_to_tokens(free[0, 6:8].tolist()))
    found = model.generate(ids, stop_strings=[stop], tokenizer=words, pad_token_id=1, **NEW).numpy()
    same(found[0, :8], free[0, :8])
    assert (found[0, 8:] == 1).all()
    assert model.generate(ids, max_time=1e-9, **NEW).shape == (3, 6)
    same(model.generate(ids, max_time=600.0, **NEW), free)


class Kept:
    """A streamer that keeps what it is given."""

    def __init__(self):
        self.given, self.ended = [], False

    def put(self, value):
        assert not self.ended
        self.given.append(np.asarray(value))

    def end(self):
        self.ended = True


def test_streamers(model):
    ids, kept = prompts(), Kept()
    found = model.generate(ids, streamer=kept, **NEW)
    assert kept.ended
    same(kept.given[0], ids)
    assert np.array_equal(np.stack(kept.given[1:], 1), found[:, 5:])
    texts = TextIteratorStreamer(Words(), skip_prompt=True)
    found = model.generate(ids[:1], streamer=texts, **NEW)
    assert "".join(texts) == Words().decode(found[0, 5:].numpy().tolist())


# ---- Outputs


@pytest.mark.parametrize(("beams", "crossing"), [(1, True), (3, False)])
def test_everything_comes_back(beams, crossing):
    model, ids = writer(add_cross_attention=crossing), prompts()
    memory = {"encoder_hidden_states": tf.random.normal((3, 4, 16))} if crossing else {}
    options = {**NEW, "num_beams": beams, **memory}
    asked = dict.fromkeys(("output_scores", "output_logits", "output_attentions", "output_hidden_states"), True)
    output = model.generate(ids, return_dict_in_generate=True, **asked, **options)
    assert isinstance(output, GenerateDecoderOnlyOutput if beams == 1 else GenerateBeamDecoderOnlyOutput)
    same(output.sequences, model.generate(ids, **options))
    rows = 3 * beams
    assert [tuple(x.shape) for x in output.scores] == [tuple(x.shape) for x in output.logits] == [(rows, 41)] * N
    assert (output.scores[0].numpy()[:, 1] == -np.inf).all() and np.isfinite(output.logits[0]).all()
    shapes = [(rows, 2, 5, 5), *((rows, 2, 1, past) for past in (6, 7, 8))]
    assert [tuple(x[0].shape) for x in output.attentions] == shapes
    assert [tuple(x[1].shape) for x in output.hidden_states] == [(rows, 5, 16), *[(rows, 1, 16)] * 3]
    assert output.past_key_values[0][0].shape == (rows, 2, 8, 8)
    plain = model.generate(ids, return_dict_in_generate=True, **options)
    assert list(plain) == [
        "sequences",
        *(["sequences_scores", "beam_indices"] if beams > 1 else []),
        "past_key_values",
    ]


def test_transition_scores(model):
    ids = prompts()
    asked = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    output = model.generate(ids, **NEW, **asked)
    found = model.compute_transition_scores(output.sequences, output.scores, normalize_logits=True)
    picked = [
        tf.gather(tf.nn.log_softmax(step), output.sequences[:, 5 + number], batch_dims=1)
        for number, step in enumerate(output.scores)
    ]
    assert_close(found, tf.stack(picked, 1))
    for penalty in (1.0, 2.0):
        beams = {**BEAMS, "num_return_sequences": 2, "length_penalty": penalty}
        output = model.generate(ids, **beams, **asked)
        found = model.compute_transition_scores(output.sequences, output.scores, output.beam_indices)
        assert_close(tf.reduce_sum(found, 1) / N**penalty, output.sequences_scores)


def test_a_loop_of_ones_own(model):
    """As published: ``prepare_inputs_for_generation`` and ``_reorder_cache``."""
    ids, expected = prompts(), model.generate(prompts(), **NEW)
    past, tokens = None, ids
    for _ in range(N):
        output = model(**model.prepare_inputs_for_generation(tokens, past), use_cache=True)
        logits = output.logits[:, -1] - tf.one_hot(1, VOCABULARY) * 1e9
        tokens, past = tf.concat([tokens, tf.argmax(logits, -1)[:, None]], 1), output.past_key_values
    same(tokens, expected)
    rows = model._reorder_cache(past, tf.constant([2, 0, 0]))
    same(rows[0][1], tf.gather(past[0][1], [2, 0, 0]))


# ---- Options


def test_options_of_the_model_and_of_its_files(tmp_path: Path):
    model, ids = writer(), prompts()
    assert model.generation_config.eos_token_id is None and model.generation_config.bos_token_id == 0
    expected = model.generate(ids, **BEAMS)
    model.generation_config.update(**BEAMS)
    same(model.generate(ids), expected)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert loaded.generation_config == model.generation_config
    same(loaded.generate(ids), expected)
    own = GenerationConfig(**NEW, eos_token_id=None)
    same(writer().generate(ids, own), writer().generate(ids, **NEW))
    (tmp_path / "generation_config.json").unlink()
    assert type(model).from_pretrained(tmp_path).generation_config.max_new_tokens is None


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"max_new_token": 3}, TypeError, "did you mean 'max_new_tokens'"),
        ({"max_new_tokens": 30}, InputError, "ask for at most 18"),
        ({"num_beams": 0}, ConfigError, "num_beams must be a positive integer"),
        ({"assistant_model": 1}, InputError, "assistant_model"),
        ({"inputs_embeds": np.zeros((1, 2, 16))}, InputError, "inputs_embeds"),
        ({"past_key_values": 1}, InputError, "past_key_values.*pass the whole prompt"),
        ({"logits_processor": 3}, InputError, "logits_processor must be a list of callables"),
        ({"seed": 1.5, "do_sample": True}, InputError, "seed must be an integer, or two of them, received 1.5"),
        ({"attention_mask": np.ones((3, 4))}, InputError, "attention_mask must have the shape"),
        ({"encoder_hidden_states": np.zeros((3, 2, 16), np.float32)}, InputError, "a decoder with cross-attention"),
        ({"attention_mask": [[1] * 5] * 3}, InputError, "attention_mask must be a tf.Tensor, received"),
    ],
)
def test_refused(model, options, kind, message):
    with pytest.raises(kind, match=message):
        model.generate(prompts(), **options)


@pytest.mark.parametrize(("shape", "of_mask"), [((3, 4, 15), (3, 4)), ((3, 4, 16), (3, 5))])
def test_a_memory_that_does_not_fit(compiled, shape, of_mask):
    crossing = writer(add_cross_attention=True)
    states, mask = np.zeros(shape, np.float32), np.ones(of_mask, np.int32)
    with pytest.raises(InputError, match=r"shape \(3, (source length, 16|4)\), received \(3, (4, 15|5)\)"):
        crossing.generate(prompts(), encoder_hidden_states=states, encoder_attention_mask=mask, **NEW)


def test_a_list_is_no_tensor(model):
    with pytest.raises(InputError, match="input_ids must be a tf.Tensor, received"):
        model.generate([[0, 5, 6]])


def test_the_longest_texts(model):
    """The last new token needs no position."""
    ids = prompts(2, 22)
    assert model.generate(ids, **{**NEW, "max_new_tokens": 1}).shape == (2, 23)
    assert model.generate(ids[:, :20], max_length=23, suppress_tokens=[1]).shape == (2, 23)
    with pytest.raises(InputError, match="takes 22"):
        model.generate(tf.concat([ids, ids[:, :1]], 1))


# ---- Masked models


def test_masked_models_fill_in(compiled, model):
    masked, ids = Case("XLMRoberta", "ForMaskedLM").build(num_hidden_layers=1), prompts()
    assert not masked.can_generate() and model.can_generate()
    found = masked.generate(ids, max_new_tokens=6)
    assert found.shape == (3, 11) and found.dtype == ids.dtype
    same(found[:, :5], ids)
    assert not np.isin(found.numpy()[:, 5:], [0, 1, 2, VOCABULARY - 1]).any()
    same(found, masked.generate(input_ids=ids, max_new_tokens=6))
    masked.generate(ids[:, :3], max_new_tokens=6, passes=4)
    assert masked._pass.traced == 1  # whatever the passes, and the prompts
    for wrong, message in (
        ({"num_beams": 3}, "num_beams, which is an option of decoders"),
        ({"streamer": Kept()}, "streamer, which is an option of decoders"),
        ({"input_ids": ids}, "received both"),
    ):
        with pytest.raises(InputError, match=message):
            masked.generate(ids, **wrong)
    with pytest.raises(InputError, match="received neither"):
        masked.generate()
    with pytest.raises(TypeError, match="did you mean 'passes'"):
        masked.generate(ids, pases=3)


def test_other_heads_do_not_generate():
    model = Case("XLMRoberta", "ForTokenClassification").build(num_hidden_layers=1)
    assert not model.can_generate() and not hasattr(model, "generate")
