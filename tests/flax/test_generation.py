"""Generation of the Flax backend: what it compiles, what runs between steps, what is drawn. Which tokens come, parity
tests say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="needs the extra flax: pip install 'xlmr[flax]'")

import jax.numpy as jnp  # noqa: E402
from flax import jax_utils  # noqa: E402

from tests.flax import models  # noqa: E402
from xlmr_core.errors import InputError  # noqa: E402
from xlmr_core.generation import (  # noqa: E402
    BaseStreamer,
    GenerationConfig,
    Processor,
    arrange_prompt,
    plan_generation,
    read_request,
)
from xlmr_core.reference import processors as judges  # noqa: E402
from xlmr_core.reference.generation import generate as judge  # noqa: E402
from xlmr_flax import decoding, functional  # noqa: E402
from xlmr_flax.functional import to_canonical  # noqa: E402
from xlmr_flax.generation import FlaxBeamSearchOutput, FlaxGreedySearchOutput, FlaxSampleOutput  # noqa: E402
from xlmr_flax.processors import FUNCTIONS, process  # noqa: E402

IDS = np.random.default_rng(0).integers(4, 61, (2, 6))
IDS[1, :3] = 1
NEW = 5
ENDS = list(range(2, 20))
MODEL: list[Any] = []


def model() -> Any:
    if not MODEL:
        MODEL.append(models.model("ForCausalLM", is_decoder=True, num_hidden_layers=1))
    return MODEL[0]


def generated(**options: Any) -> Any:
    return model().generate(IDS, **{"max_new_tokens": NEW, "eos_token_id": ENDS, **options})


def expected(key: Any = None, **options: Any) -> Any:
    """The reference's, with the noise that a key gives."""
    options = {"max_new_tokens": NEW, "eos_token_id": ENDS, **options}
    defaults = GenerationConfig.from_model_config(model().config)
    request = read_request(model().config, defaults, caller="generate()", inputs=IDS, kwargs=options)
    prompt = arrange_prompt(model().config, IDS)
    rows = model().parameter_table()
    params = {name: np.asarray(x, np.float64) for name, x in to_canonical(rows, model().params).items()}
    params |= {name: params[row.tied_to] for name, row in rows.items() if row.tied_to is not None}

    def noise(step: int, shape: tuple[int, ...]) -> Any:
        return np.asarray(jax.random.gumbel(jax.random.fold_in(key, step), shape), np.float64)

    return judge(model().config, params, plan_generation(model().config, request, prompt), prompt, noise=noise)


def test_lengths_that_grow_compile_nothing() -> None:
    def programs() -> int:
        return decoding.search._cache_size() + functional._compiled._cache_size()

    asked = model()
    for count, length in enumerate(range(9, 17)):
        ids = np.random.default_rng(length).integers(4, 61, (2, length))
        asked.generate(ids, max_new_tokens=1 + count)
        if not count:
            before = programs()
    assert programs() == before


OPTIONS: list[dict[str, Any]] = [
    {"repetition_penalty": 1.3, "min_new_tokens": 2},
    {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0, "num_return_sequences": 3},
]


@pytest.mark.parametrize("options", OPTIONS, ids=["rows", "beams"])
def test_steps_from_python_and_callers_programs_give_the_same(options: dict[str, Any]) -> None:
    whole = generated(**options)
    found = generated(
        **options, return_dict_in_generate=True, output_scores=True, output_logits=True, eos_token_id=ENDS
    )
    judged = expected(**options, return_dict_in_generate=True)
    np.testing.assert_array_equal(found.sequences, judged.sequences)
    np.testing.assert_array_equal(whole.sequences[:, : found.sequences.shape[1]], found.sequences)
    assert whole.sequences.shape[1] == IDS.shape[1] + NEW
    for name in ("scores", "logits"):
        np.testing.assert_allclose(np.stack(found[name]), np.stack(judged[name]), atol=2e-5)
    steps = decoding.advance._cache_size()
    np.testing.assert_array_equal(generated(**options, trace=False).sequences, whole.sequences)
    assert decoding.advance._cache_size() <= steps + 1  # with other outputs, but once for all steps

    def call(params: Any, ids: Any) -> Any:
        # The answer is an output, which goes through.
        return model().generate(ids, params=params, max_new_tokens=NEW, eos_token_id=ENDS, **options)

    inside = jax.jit(call)(model().params, IDS)
    np.testing.assert_array_equal(inside.sequences, whole.sequences)
    beams = found.get("beam_indices")
    transitions = model().compute_transition_scores(found.sequences, found.scores, beams)
    if "num_beams" in options:
        assert isinstance(whole, FlaxBeamSearchOutput)
        np.testing.assert_allclose(inside.scores, judged.sequences_scores, atol=2e-5)
        assert transitions.shape == beams.shape
    else:
        assert isinstance(whole, FlaxGreedySearchOutput)
        places = np.asarray(found.sequences)[:, IDS.shape[1] :]
        np.testing.assert_allclose(transitions[0, 0], found.scores[0][0, places[0, 0]])


def test_devices_generate_each_for_itself() -> None:
    devices = jax.local_devices()[:2]
    call = jax.pmap(
        lambda params, ids: model().generate(ids, params=params, max_new_tokens=NEW).sequences, devices=devices
    )
    found = call(jax_utils.replicate(model().params, devices), IDS[:, None])
    np.testing.assert_array_equal(found[:, 0], model().generate(IDS, max_new_tokens=NEW).sequences)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.7, "top_k": 30, "num_return_sequences": 2, "position_numbering": "zero_based"},
        {"num_beams": 2, "top_p": 0.9, "typical_p": 0.95},
    ],
    ids=["rows", "beams"],
)
def test_draws_are_those_of_the_key(options: dict[str, Any]) -> None:
    key = jax.random.key(7)
    found = generated(**options, do_sample=True, prng_key=key, return_dict_in_generate=True)
    judged = expected(key, **options, do_sample=True, return_dict_in_generate=True)
    np.testing.assert_array_equal(found.sequences, judged.sequences)
    other = generated(**options, do_sample=True, prng_key=jax.random.key(8), return_dict_in_generate=True)
    assert not np.array_equal(found.sequences[:, :7], other.sequences[:, :7]) or found.keys() != other.keys()


def test_draws_have_the_distribution_of_the_scores() -> None:
    draws = 20_000
    drawn = model().generate(
        IDS[:1], do_sample=True, top_k=8, num_return_sequences=draws, max_new_tokens=1, prng_key=jax.random.key(1)
    )
    assert isinstance(drawn, FlaxSampleOutput)
    logits = np.asarray(model()(IDS[:1], logits_to_keep=1).logits[0, 0], np.float64)
    chances = np.where(logits >= np.sort(logits)[-8], np.exp(logits - logits.max()), 0)
    chances /= chances.sum()
    counts = np.bincount(np.asarray(drawn.sequences[:, -1]), minlength=61)
    assert counts[chances == 0].sum() == 0
    likely = chances > 0
    square = ((counts - draws * chances)[likely] ** 2 / (draws * chances[likely])).sum()
    assert square < 24.3  # once in a thousand with 7 degrees of freedom


class Heard(BaseStreamer):
    def __init__(self) -> None:
        self.heard: list[Any] = []

    def put(self, value: Any) -> None:
        self.heard.append(np.asarray(value).tolist())

    def end(self) -> None:
        self.heard.append("end")


def test_what_runs_between_steps() -> None:
    """As published for Flax a processor may ask for ``cur_len``; what it gives decides."""
    streamer, seen = Heard(), []

    def only_even(input_ids: Any, scores: Any, cur_len: int) -> Any:
        seen.append((input_ids.shape, cur_len))
        return jnp.where(np.arange(scores.shape[1]) % 2 == 0, scores, -jnp.inf)

    asked = {"eos_token_id": None, "streamer": streamer}
    found = np.asarray(generated(**asked, logits_processor=[only_even]).sequences)
    assert (found[:, 6:] % 2 == 0).all()
    assert seen == [((2, 6 + step), 6 + step) for step in range(NEW)]
    assert streamer.heard == [IDS.tolist(), *found[:, 6:].T.tolist(), "end"]

    stops = [lambda input_ids, scores: (input_ids[:, -1] == found[0, 8]) & (input_ids.shape[1] == 9)]
    ended = np.asarray(generated(eos_token_id=None, logits_processor=[only_even], stopping_criteria=stops).sequences)
    np.testing.assert_array_equal(ended[0, :9], found[0, :9])
    assert (ended[0, 9:] == 1).all()
    first = [lambda input_ids, scores: np.array(True)]
    assert (np.asarray(generated(eos_token_id=None, stopping_criteria=first).sequences)[:, 7:] == 1).all()
    allowed = generated(eos_token_id=None, prefix_allowed_tokens_fn=lambda number, ids: [20 + number]).sequences
    assert np.asarray(allowed)[:, 6:].tolist() == [[20] * NEW, [21] * NEW]
    # Criteria end beams, too: here with their first token.
    beams = generated(eos_token_id=None, num_beams=2, stopping_criteria=first, return_dict_in_generate=True)
    assert beams.sequences.shape == (2, 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"streamer": Heard()}, "nothing can run between steps"),
        ({"max_time": 1.0}, "nothing can run between steps"),
        ({"output_scores": True, "return_dict_in_generate": True}, "nothing can run between steps"),
        ({"past_key_values": 1}, "takes no past_key_values.*pass the whole prompt"),
    ],
)
def test_what_is_refused_in_callers_programs(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        jax.eval_shape(lambda ids: model().generate(ids, **options).sequences, IDS)


def test_arguments() -> None:
    with pytest.raises(TypeError, match=r"does not know the argument 'max_new_token'; did you mean 'max_new_tokens'"):
        model().generate(IDS, max_new_token=3)
    with pytest.raises(InputError, match="input_ids must be an array of JAX or NumPy, received list"):
        model().generate(IDS.tolist())
    with pytest.raises(InputError, match="this model takes 78"):
        model().generate(IDS, max_new_tokens=90)
    assert model().can_generate() and not models.model("ForMaskedLM").can_generate()


def test_options_are_read_and_written_with_a_model(tmp_path: Path) -> None:
    asked = models.model("ForCausalLM", is_decoder=True, num_hidden_layers=1, eos_token_id=7)
    assert asked.generation_config.eos_token_id == 7
    asked.generation_config.max_new_tokens = 3
    asked.save_pretrained(tmp_path)
    again = type(asked).from_pretrained(tmp_path)
    assert again.generation_config.max_new_tokens == 3
    # They are no part of any program.
    model()(IDS[:1])
    before = functional._compiled._cache_size()
    model().generation_config = GenerationConfig.from_model_config(model().config)
    model()(IDS[:1])
    assert functional._compiled._cache_size() == before


def test_a_loop_of_ones_own_as_published() -> None:
    """``prepare_inputs_for_generation`` and ``update_inputs_for_generation`` around calls of the model."""
    mask = (IDS != 1).astype(int)
    found, given = IDS, model().prepare_inputs_for_generation(IDS, 6 + NEW, mask)
    ids = IDS
    for _ in range(NEW):
        output = model()(ids, **given)
        ids = np.asarray(output.logits[:, -1].argmax(-1))[:, None]
        found, given = np.concatenate([found, ids], 1), model().update_inputs_for_generation(output, given)
    np.testing.assert_array_equal(found, generated(eos_token_id=None).sequences)


def test_a_masked_model_fills_in() -> None:
    masked = models.model("ForMaskedLM", num_hidden_layers=1)
    found = masked.generate(IDS, max_new_tokens=4, passes=3)
    assert isinstance(found, FlaxGreedySearchOutput) and found.sequences.shape == (2, 10)
    with pytest.raises(InputError, match="has no num_beams, which is an option of decoders"):
        masked.generate(IDS, num_beams=2)
    with pytest.raises(InputError, match=r"unknown inside jax.jit"):
        jax.eval_shape(lambda ids: masked.generate(ids).sequences, IDS)


ASKED: list[tuple[str, tuple[Any, ...]]] = [
    ("sequence_bias", (((3,), (4, 5), (6, 2, 3), (2,)), (1.5, -2.0, 3.0, 0.5))),
    ("encoder_repetition_penalty", (1.7, 1)),
    ("repetition_penalty", (1.7, 1, 5)),
    ("no_repeat_ngram", (1, 1, 5)),
    ("no_repeat_ngram", (3, 1, 5)),
    ("encoder_no_repeat_ngram", (2, 1)),
    ("bad_words", (((3,), (4, 5), (1, 6, 2)),)),
    ("min_length", (9, (2, 3))),
    ("forced_bos", (8, 4)),
    ("forced_eos", (8, (2, 5))),
    ("remove_invalid", ()),
    ("exponential_decay_length", (6, 1.3, (2, 3))),
    ("suppress", ((3, 19),)),
    ("begin_suppress", (8, (3,))),
    ("temperature", (0.7,)),
    ("top_k", (5,)),
    ("top_p", (0.6, 1)),
    ("top_p", (0.001, 3)),
    ("min_p", (0.99, 4)),
    ("typical_p", (0.5, 1)),
    ("typical_p", (0.01, 3)),
    ("epsilon_cutoff", (0.9, 3)),
    ("eta_cutoff", (0.1, 2)),
    ("renormalize", ()),
]


@pytest.mark.parametrize("key", [5, np.zeros(2, np.float32), jnp.int32(3)])
def test_what_is_no_random_key(key: Any) -> None:
    with pytest.raises(InputError, match=r"prng_key must be a random key, received .*; pass jax\.random\.key"):
        model().generate(IDS, do_sample=True, prng_key=key)


def test_a_masked_model_refuses_what_runs_between_steps() -> None:
    masked = models.model("ForMaskedLM", num_hidden_layers=1)
    for name in ("streamer", "stopping_criteria", "prefix_allowed_tokens_fn"):
        with pytest.raises(InputError, match=f"has no {name}, which is an option of decoders"):
            masked.generate(IDS, **{name: object()})
    with pytest.raises(InputError, match="expected the prompt .* received neither"):
        masked.generate()


def test_processors_equal_the_reference() -> None:
    """All of them in one program, of scores with equal ones and with infinities among them."""
    assert {name for name, _ in ASKED} == set(FUNCTIONS) == set(judges.REFERENCE_PROCESSORS)
    rng = np.random.default_rng(0)
    ids, encoder_ids = rng.integers(1, 8, (6, 12)), rng.integers(1, 9, (6, 7))
    ids[:2, :3] = 1
    scores = (rng.normal(size=(6, 20)) * 2).astype(np.float32)
    scores[2:4] = np.round(scores[2:4])
    scores[4:, rng.permutation(20)[:8]] = -np.inf
    wanted = [Processor(name, arguments) for name, arguments in ASKED]

    @jax.jit
    def every(length: Any) -> list[Any]:
        return [
            process([one], jnp.asarray(ids), length, jnp.asarray(scores), jnp.asarray(encoder_ids)) for one in wanted
        ]

    for length in (8, 12):
        for one, found in zip(wanted, every(length), strict=True):
            with np.errstate(invalid="ignore"):
                judged = judges.apply(one, ids, length, scores.astype(np.float64), encoder_ids)
            np.testing.assert_allclose(found, judged.astype(np.float32), rtol=1e-5, atol=1e-5, err_msg=str(one))
