"""What a call of ``generate`` means: its arguments taken apart, and the plan."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import ConfigError, InputError
from xlmr_core.generation import (
    ENCODER_DECODER_INPUTS,
    Generation,
    GenerationConfig,
    Hooks,
    Processor,
    Prompt,
    Request,
    arrange_prompt,
    decoder_prompt,
    plan_generation,
    read_request,
    start_ids,
)

ALL = list(range(60))
CONFIG = XLMRobertaConfig(vocab_size=60, max_position_embeddings=22, is_decoder=True)  # takes 20 tokens


def requested(
    defaults: GenerationConfig | None = None,
    *,
    config: XLMRobertaConfig = CONFIG,
    hooks: Hooks | None = None,
    passed: Any = None,
    **kwargs: Any,
) -> Request:
    return read_request(
        config,
        defaults or GenerationConfig.from_model_config(config),
        caller="Model.generate()",
        generation_config=passed,
        hooks=hooks,
        kwargs=kwargs,
    )


def prompted(length: int = 3, config: XLMRobertaConfig = CONFIG, **kwargs: Any) -> Prompt:
    return arrange_prompt(config, np.full((2, length), 5), **kwargs)


def planned(
    length: int = 3, *, config: XLMRobertaConfig = CONFIG, prompt: Prompt | None = None, **kwargs: Any
) -> Generation:
    prompt = prompt or prompted(length, config)
    return plan_generation(config, requested(config=config, **kwargs), prompt)


# ---- Arguments


def test_arguments_are_taken_apart() -> None:
    request = requested(input_ids="ids", attention_mask=None, num_beams=3, encoder_hidden_states="states")
    assert dict(request.inputs) == {"input_ids": "ids", "encoder_hidden_states": "states"}
    assert request.options.num_beams == 3
    assert request.said == {"num_beams"}


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("max_new_token", "max_new_tokens"), ("streamr", "streamer"), ("inputs_ids", "input_ids"), ("topk", "top_k")],
)
def test_an_unknown_argument_is_refused_with_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(
        TypeError, match=rf"Model.generate\(\) does not know the argument '{name}'; did you mean '{nearest}'"
    ):
        requested(**{name: 3})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"penalty_alpha": 0.6}, "penalty_alpha must be None or 0"),
        ({"dola_layers": "low"}, "dola_layers must be None"),
        ({"guidance_scale": 1.5}, "guidance_scale must be"),
        ({"force_words_ids": [[3]]}, "force_words_ids must be None"),
        ({"assistant_model": object()}, "assistant_model must be None"),
        ({"synced_gpus": True}, "synced_gpus must be None or False"),
        ({"cache_implementation": "offloaded"}, "cache_implementation must be one of None, 'dynamic', 'static'"),
        ({"position_ids": "x"}, "takes no position_ids.*position_numbering"),
        ({"inputs_embeds": "x"}, "takes no inputs_embeds.*input_ids"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        requested(**kwargs)


def test_values_that_ask_for_nothing_are_let_through() -> None:
    request = requested(
        penalty_alpha=0.0, guidance_scale=1.0, synced_gpus=False, position_ids=None, use_cache=None, num_beams=None
    )
    assert request.options.use_cache is True
    assert request.options.num_beams == 1


def test_an_option_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_beams must be a positive integer, received 'four'"):
        requested(num_beams="four")


def test_the_prompt_comes_once() -> None:
    assert read_request(CONFIG, GenerationConfig(), caller="g()", inputs="ids", kwargs={}).inputs == {
        "input_ids": "ids"
    }
    with pytest.raises(InputError, match="received the prompt twice"):
        read_request(CONFIG, GenerationConfig(), caller="g()", inputs="ids", kwargs={"input_ids": "ids"})


def test_a_mask_of_no_memory_is_refused() -> None:
    with pytest.raises(InputError, match=r"g\(\) received encoder_attention_mask without encoder_hidden_states"):
        read_request(CONFIG, GenerationConfig(), caller="g()", kwargs={"encoder_attention_mask": "mask"})
    memory = {"encoder_attention_mask": "mask", "encoder_hidden_states": "states"}
    assert read_request(CONFIG, GenerationConfig(), caller="g()", kwargs=memory).inputs == memory


def test_the_call_wins_over_what_is_passed_over_the_model() -> None:
    model = GenerationConfig(num_beams=2, length_penalty=0.5, top_k=7, eos_token_id=2)
    passed = GenerationConfig(num_beams=3, length_penalty=2.0)
    options = requested(model, passed=passed, length_penalty=3.0).options
    assert (options.num_beams, options.length_penalty, options.top_k, options.eos_token_id) == (3, 3.0, 7, 2)
    # What stands at its default in what is passed is the model's, as published, but on request.
    options = requested(model, passed=passed, use_model_defaults=False).options
    assert (options.num_beams, options.length_penalty, options.top_k, options.eos_token_id) == (3, 2.0, 50, 2)
    assert model.num_beams == 2 and passed.top_k == 50


def test_who_passes_no_temperature_takes_the_best() -> None:
    model = GenerationConfig(do_sample=True)
    assert requested(model, passed=GenerationConfig(temperature=0.0)).options.do_sample is False


def test_a_model_config_that_is_changed_later_counts() -> None:
    config = XLMRobertaConfig(vocab_size=60)
    defaults = GenerationConfig.from_model_config(config)
    config.decoder_start_token_id = 7
    assert requested(defaults, config=config).options.decoder_start_token_id == 7
    defaults = GenerationConfig()  # of a file
    assert requested(defaults, config=config).options.decoder_start_token_id is None


class Theirs:
    """Options of another library."""

    def to_dict(self) -> dict[str, Any]:
        return {"num_beams": 3, "_from_model_config": False, "their_own": 1}


def test_options_of_another_library_are_taken() -> None:
    assert requested(passed=Theirs()).options.num_beams == 3
    assert read_request(CONFIG, Theirs(), caller="g()", kwargs={}).options.num_beams == 3  # type: ignore[arg-type]


@pytest.mark.parametrize("passed", [{"num_beams": 3}, "config.json", 3, GenerationConfig])
def test_what_is_no_generation_config_is_refused(passed: Any) -> None:
    with pytest.raises(InputError, match="generation_config must be a GenerationConfig"):
        requested(passed=passed)


def test_hooks_are_checked() -> None:
    with pytest.raises(InputError, match=r"logits_processor must be a list of callables .* received a function"):
        Hooks.of(lambda ids, scores: scores, None, None, None)
    with pytest.raises(InputError, match="prefix_allowed_tokens_fn must be callable"):
        Hooks.of(None, None, [3], None)
    with pytest.raises(InputError, match=r"streamer must have put\(value\) and end\(\)"):
        Hooks.of(None, None, None, print)


def test_options_by_kwargs_of_a_backend() -> None:
    request = read_request(CONFIG, GenerationConfig(), caller="g()", kwargs={"seed": 3}, own=("seed",))
    assert request.more == {"seed": 3}
    with pytest.raises(TypeError, match="'seeds'; did you mean 'seed'"):
        read_request(CONFIG, GenerationConfig(), caller="g()", kwargs={"seeds": 3}, own=("seed",))


@pytest.mark.parametrize(
    ("word", "own", "message"),
    [
        ("seed", "generator", "'seed'; draws follow from 'generator' here, pass generator=torch.Generator"),
        ("prng_key", "seed", "'prng_key'; draws follow from 'seed' here, pass seed=5"),
        ("generator", "prng_key", "'generator'; draws follow from 'prng_key' here, pass prng_key=jax.random.key"),
        ("sed", "generator", "does not know the argument 'sed'"),
    ],
)
def test_what_draws_follow_from_has_a_word_in_each_backend(word: str, own: str, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        read_request(CONFIG, GenerationConfig(), caller="g()", kwargs={word: 5}, draws_from=own)


# ---- Lengths


@pytest.mark.parametrize(
    ("model", "passed", "call", "new_tokens"),
    [
        ({"max_new_tokens": 2}, {}, {"max_length": 9}, 6),
        ({"max_new_tokens": 2}, {"max_length": 9}, {}, 6),
        ({}, {"max_new_tokens": 2}, {"max_length": 9}, 6),
        ({"max_length": 9}, {"max_new_tokens": 2}, {}, 2),
        ({"max_length": 9}, {}, {"max_new_tokens": 2}, 2),
        ({"max_new_tokens": 2}, {"max_length": 9, "max_new_tokens": 4}, {}, 4),
        ({"max_new_tokens": 2}, {"num_beams": 2}, {}, 2),
        ({"max_new_tokens": 2}, {}, {"max_length": None}, 2),
        ({"max_new_tokens": 2}, {}, {"max_length": 9, "max_new_tokens": None}, 6),
    ],
)
def test_the_highest_who_says_a_length_counts(
    model: dict[str, Any], passed: dict[str, Any], call: dict[str, Any], new_tokens: int
) -> None:
    defaults = GenerationConfig(eos_token_id=2, pad_token_id=1, **model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        request = requested(defaults, passed=GenerationConfig(**passed), **call)
        assert plan_generation(CONFIG, request, prompted(3)).new_tokens == new_tokens


def test_the_least_length_too() -> None:
    defaults = GenerationConfig(eos_token_id=2, pad_token_id=1, min_new_tokens=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plan_generation(CONFIG, requested(defaults, min_length=8), prompted(3)).min_length == 8


@pytest.mark.parametrize(
    ("length", "kwargs", "new_tokens"),
    [
        (3, {"max_new_tokens": 4}, 4),
        (3, {"max_length": 9}, 6),
        (3, {}, 18),  # 20, but the model takes 20 tokens, and the last new one needs no position
        (1, {}, 20),
        (20, {}, 1),
        (20, {"max_new_tokens": 1}, 1),
        (3, {"max_new_tokens": 18}, 18),
    ],
)
def test_how_many_tokens(length: int, kwargs: dict[str, Any], new_tokens: int) -> None:
    plan = planned(length, **kwargs)
    assert (plan.prompt_length, plan.new_tokens) == (length, new_tokens)


@pytest.mark.parametrize(
    ("length", "kwargs", "message"),
    [
        (
            3,
            {"max_new_tokens": 19},
            "3 tokens and max_new_tokens=19 asks for 19 new ones, this model takes 20; ask for at most 18",
        ),
        (3, {"max_length": 30}, "max_length=30 asks for 27 new ones, this model takes 20; ask for at most 18"),
        (
            21,
            {"max_new_tokens": 4},
            "the prompt has 21 tokens, this model takes 20; pass truncation=True, max_length=17",
        ),
        (3, {"max_length": 3}, "the prompt has 3 tokens and max_length=3 counts them"),
    ],
)
def test_beyond_the_model_there_is_nothing(length: int, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        planned(length, **kwargs)


def test_padding_takes_no_room() -> None:
    ids = np.full((2, 40), 1)
    ids[0, -5:], ids[1, :3] = 5, 6
    prompt = arrange_prompt(CONFIG, ids)
    plan = planned(prompt=prompt, max_new_tokens=16)
    assert (plan.prompt_length, plan.max_length) == (5, 21)
    with pytest.raises(InputError, match="ask for at most 16"):
        planned(prompt=prompt, max_new_tokens=17)


def test_positions_from_zero_use_the_whole_table() -> None:
    assert planned(22, position_numbering="zero_based").new_tokens == 1
    with pytest.raises(InputError, match="takes 22"):
        planned(23, position_numbering="zero_based")


def test_the_models_own_length_counts_as_a_total() -> None:
    defaults = GenerationConfig(max_length=10, eos_token_id=2, pad_token_id=1)
    assert plan_generation(CONFIG, requested(defaults), prompted(3)).new_tokens == 7
    assert plan_generation(CONFIG, requested(defaults, max_new_tokens=2), prompted(3)).new_tokens == 2


def test_two_lengths_are_told() -> None:
    with pytest.warns(UserWarning, match="max_new_tokens=4 and max_length=9 were both passed; max_new_tokens counts"):
        assert planned(3, max_new_tokens=4, max_length=9).new_tokens == 4
    with pytest.warns(UserWarning, match="min_new_tokens counts"):
        assert planned(3, max_new_tokens=4, min_length=2, min_new_tokens=3).min_length == 6
    with pytest.warns(UserWarning, match="at least 5 new tokens were asked for and at most 4"):
        planned(3, max_new_tokens=4, min_new_tokens=5)


def test_the_least_length_counts_the_prompt_as_it_came() -> None:
    prompt = arrange_prompt(CONFIG, np.array([[1, 1, 5], [1, 6, 7]]), width=lambda longest: 8)
    plan = planned(prompt=prompt, min_length=5)
    assert (plan.prompt_length, plan.min_length) == (8, 10)  # 2 new ones


# ---- Ends and fillings


def test_ends() -> None:
    assert planned().eos_token_ids == (2,)
    assert planned(eos_token_id=[2, 7, 2]).eos_token_ids == (2, 7)
    assert planned(eos_token_id=None).eos_token_ids == ()
    assert planned(eos_token_id=[2, 7, 8], num_beams=4).candidates == 16
    assert planned(eos_token_id=2, num_beams=4).candidates == 8
    assert planned(eos_token_id=2, num_beams=4, num_beam_groups=2, diversity_penalty=1.0).candidates == 4


def test_without_padding_the_end_fills() -> None:
    defaults = GenerationConfig(eos_token_id=[7, 2])
    with pytest.warns(UserWarning, match=r"pad_token_id is not set.*eos_token_id \(7\)"):
        plan = plan_generation(CONFIG, requested(defaults), prompted())
    assert plan.pad_token_id == 7


# ---- What goes together


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_return_sequences": 2}, "num_return_sequences=2 needs different sequences"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences must be at most num_beams=2, received 3"),
        ({"num_beams": 4, "num_beam_groups": 3}, "num_beam_groups must divide num_beams=4, received 3"),
        ({"num_beams": 4, "num_beam_groups": 2}, "diverse beams need a diversity_penalty above 0"),
        (
            {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0, "do_sample": True},
            "num_beam_groups needs do_sample=False",
        ),
        ({"stop_strings": "."}, "stop_strings needs the tokenizer; pass tokenizer=tokenizer"),
        ({"stop_strings": ".", "tokenizer": "x"}, r"convert_ids_to_tokens\(ids\), received 'x'"),
        ({"pad_token_id": 60}, "pad_token_id must hold ids below 60.*received 60"),
        ({"suppress_tokens": [60]}, "suppress_tokens must hold ids below 60.*received 60"),
        ({"eos_token_id": 99}, "eos_token_id must hold ids below 60"),
        ({"bad_words_ids": [[3], [4, 61]]}, "bad_words_ids must hold ids below 60.*received 61"),
        ({"sequence_bias": {(3, 77): 1.0}}, "sequence_bias must hold ids below 60.*received 77"),
    ],
)
def test_what_does_not_go_together(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        planned(**kwargs)


class Pieces:
    """A tokenizer."""

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [str(token) for token in ids]


class Shown:
    """A streamer."""

    def put(self, value: Any) -> None: ...

    def end(self) -> None: ...


def test_a_streamer_sees_no_beams() -> None:
    with pytest.raises(InputError, match="a streamer needs num_beams=1"):
        planned(hooks=Hooks.of(None, None, None, Shown()), num_beams=2)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"temperature": 0.5, "top_p": 0.9}, "do_sample is False, so temperature, top_p do nothing here"),
        ({"length_penalty": 2.0}, "num_beams is 1, so length_penalty does nothing here"),
        ({"output_scores": True}, "return_dict_in_generate is False, so output_scores does nothing here"),
    ],
)
def test_options_that_do_nothing_are_told(kwargs: dict[str, Any], message: str) -> None:
    with pytest.warns(UserWarning, match=message):
        planned(**kwargs)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"suppress_tokens": ALL}, "suppress_tokens must leave a token.*received 60 tokens that might and none"),
        ({"suppress_tokens": ALL[:30], "begin_suppress_tokens": ALL[30:]}, "suppress_tokens and begin_suppress_tokens"),
        ({"suppress_tokens": [*ALL[:2], *ALL[3:]], "min_new_tokens": 1}, "min_new_tokens and suppress_tokens must"),
        ({"bad_words_ids": [[token] for token in ALL], "eos_token_id": None}, "bad_words_ids must leave"),
        ({"sequence_bias": {(token,): -float("inf") for token in ALL}}, "sequence_bias must leave"),
        ({"forced_eos_token_id": 2, "suppress_tokens": [2]}, "forced_eos_token_id and suppress_tokens.*1 token that"),
    ],
)
def test_options_that_leave_nothing(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        planned(max_new_tokens=3, **kwargs)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"suppress_tokens": ALL[:-1]},
        {"suppress_tokens": ALL[:30] * 2},
        {"bad_words_ids": [[token] for token in ALL]},  # an end is no bad word
        {"bad_words_ids": [[token, token] for token in ALL]},
        {"sequence_bias": {(token,): -9.0 for token in ALL}},
        {"forced_eos_token_id": [2, 3], "suppress_tokens": [2]},
        {"hooks": Hooks.of([lambda input_ids, scores: scores], None, None, None), "suppress_tokens": ALL},
        # What is forced comes behind what a prefix lets follow, and so behind what is suppressed.
        {
            "hooks": Hooks.of(None, None, lambda number, ids: [3], None),
            "forced_eos_token_id": 2,
            "suppress_tokens": [2],
        },
    ],
)
def test_options_that_leave_something(kwargs: dict[str, Any]) -> None:
    planned(max_new_tokens=3, **kwargs)


def test_what_is_at_its_default_is_not_told() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        planned(top_k=None, top_p=None, max_new_tokens=3)
        planned(temperature=1.0, early_stopping=False, output_scores=False, max_new_tokens=3)


# ---- The plan


def test_a_plan_is_a_key() -> None:
    bias = {"sequence_bias": {(3, 4): -1.0, (5,): 2.0}, "bad_words_ids": [[7], [8, 9]], "max_new_tokens": 4}
    assert planned(**bias) == planned(**bias)
    assert len({planned(**bias), planned(**bias), planned(max_new_tokens=5)}) == 2


@pytest.mark.parametrize(
    ("kwargs", "processors"),
    [
        ({}, []),
        ({"repetition_penalty": 1.3}, [("repetition_penalty", (1.3, 1, 3))]),
        ({"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_new_tokens": 0}, []),
        ({"no_repeat_ngram_size": 2}, [("no_repeat_ngram", (2, 1, 3))]),
        ({"encoder_repetition_penalty": 2.0}, [("encoder_repetition_penalty", (2.0, 1))]),
        ({"bad_words_ids": [[2], [7, 8]]}, [("bad_words", (((7, 8),),))]),  # an end is no bad word
        ({"bad_words_ids": [[2]]}, []),
        ({"sequence_bias": [[[3], 1]]}, [("sequence_bias", (((3,),), (1.0,)))]),
        ({"min_new_tokens": 2}, [("min_length", (5, (2,)))]),
        ({"min_new_tokens": 2, "eos_token_id": None}, []),
        ({"forced_bos_token_id": 9}, []),  # the prompt is longer than one token
        ({"forced_eos_token_id": 2}, [("forced_eos", (6, (2,)))]),
        ({"remove_invalid_values": True}, [("remove_invalid", ())]),
        ({"exponential_decay_length_penalty": (1, 1.5)}, [("exponential_decay_length", (4, 1.5, (2,)))]),
        (
            {"suppress_tokens": [4, 5], "begin_suppress_tokens": [6]},
            [("suppress", ((4, 5),)), ("begin_suppress", (3, (6,)))],
        ),
    ],
)
def test_processors(kwargs: dict[str, Any], processors: list[tuple[str, Any]]) -> None:
    plan = planned(3, max_new_tokens=4, **kwargs)
    assert plan.processors == tuple(Processor(*one) for one in processors)
    assert plan.warpers == ()


def test_a_forced_first_token_comes_after_one() -> None:
    plan = planned(1, max_new_tokens=4, forced_bos_token_id=9, begin_suppress_tokens=[6])
    assert plan.processors == (Processor("forced_bos", (1, 9)), Processor("begin_suppress", (2, (6,))))
    wide = arrange_prompt(CONFIG, np.array([[5], [5]]), width=lambda longest: 8)
    plan = planned(prompt=wide, max_new_tokens=4, forced_bos_token_id=9)
    assert plan.processors == (Processor("forced_bos", (8, 9)),)


@pytest.mark.parametrize(
    ("kwargs", "warpers"),
    [
        ({}, [("top_k", (50,))]),
        ({"top_k": 0}, []),
        ({"top_k": None, "temperature": 0.5}, [("temperature", (0.5,))]),
        (
            {"top_k": 0, "top_p": 0.9, "min_p": 0.1, "typical_p": 0.5},
            [("top_p", (0.9, 1)), ("min_p", (0.1, 1)), ("typical_p", (0.5, 1))],
        ),
        (
            {"top_k": 0, "epsilon_cutoff": 0.1, "eta_cutoff": 0.2},
            [("epsilon_cutoff", (0.1, 1)), ("eta_cutoff", (0.2, 1))],
        ),
        ({"top_k": 1, "top_p": 0.9, "num_beams": 3}, [("top_k", (2,)), ("top_p", (0.9, 2))]),
        ({"top_k": 1, "eos_token_id": [2, 3, 4], "num_beams": 3}, [("top_k", (4,))]),
    ],
)
def test_warpers(kwargs: dict[str, Any], warpers: list[tuple[str, Any]]) -> None:
    plan = planned(do_sample=True, renormalize_logits=True, **kwargs)
    assert plan.warpers == tuple(Processor(*one) for one in warpers)
    assert plan.all_processors[-1] == Processor("renormalize")


def test_rows_of_a_prompt() -> None:
    assert planned().rows_per_prompt == 1
    assert planned(do_sample=True, num_return_sequences=3).rows_per_prompt == 3
    assert planned(num_beams=4, num_return_sequences=3).rows_per_prompt == 4


def test_what_needs_the_host() -> None:
    def nothing(*args: Any) -> Any:
        return args[-1]

    assert not planned(max_new_tokens=3).needs_host
    assert planned(max_time=2.0).needs_host
    assert planned(stop_strings=".", tokenizer=Pieces()).needs_host
    for hooks in (
        Hooks.of([nothing], None, None, None),
        Hooks.of(None, [nothing], None, None),
        Hooks.of(None, None, nothing, None),
        Hooks.of(None, None, None, Shown()),
    ):
        assert planned(hooks=hooks).needs_host


def test_without_a_causal_mask_there_is_no_cache() -> None:
    assert planned().use_cache
    assert not planned(config=XLMRobertaConfig(vocab_size=60, max_position_embeddings=22)).use_cache
    assert not planned(use_cache=False).use_cache
    assert planned(cache_implementation="static").static_cache


def test_outputs_need_the_output() -> None:
    plan = planned(return_dict_in_generate=True, output_scores=True, output_logits=True)
    assert (plan.output_scores, plan.output_logits, plan.output_attentions, plan.return_dict) == (
        True,
        True,
        False,
        True,
    )


def test_programs_are_shared_by_lengths() -> None:
    assert planned(max_new_tokens=9).rounded() == planned(max_new_tokens=14).rounded()
    assert planned(max_new_tokens=9).rounded().new_tokens == 16
    exact = planned(max_new_tokens=9, forced_eos_token_id=2)
    assert exact.rounded() == exact
    patient = planned(max_new_tokens=9, num_beams=2, early_stopping="never")
    assert patient.rounded() == patient


# ---- First tokens


def test_without_a_prompt_it_begins_with_bos() -> None:
    assert start_ids(requested(), 3).tolist() == [[0], [0], [0]]
    with pytest.raises(InputError, match="received no prompt and knows no bos_token_id"):
        start_ids(requested(GenerationConfig()))
    with pytest.raises(InputError, match="bos_token_id must hold ids below 60.*received 61"):
        start_ids(requested(bos_token_id=61))
    # Where it is not needed, it does not matter.
    assert plan_generation(CONFIG, requested(bos_token_id=61), prompted()).prompt_length == 3


def seq2seq(**kwargs: Any) -> Request:
    return read_request(CONFIG, GenerationConfig(**kwargs), caller="g()", kwargs={}, takes=ENCODER_DECODER_INPUTS)


def test_a_decoder_begins_with_its_start_token() -> None:
    ids, mask = decoder_prompt(seq2seq(decoder_start_token_id=7), 2, None, None)
    assert (ids.tolist(), mask) == ([[7], [7]], None)
    ids, _ = decoder_prompt(seq2seq(decoder_start_token_id=[7, 8]), 2, None, None)
    assert ids.tolist() == [[7], [8]]
    given = np.array([[5, 6], [5, 7]])
    ids, mask = decoder_prompt(seq2seq(decoder_start_token_id=7), 2, given, np.array([[1, 1], [1, 0]]))
    assert ids.tolist() == [[7, 5, 6], [7, 5, 7]]
    assert mask is not None and mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    begins = np.array([[7, 6], [7, 7]])
    assert decoder_prompt(seq2seq(decoder_start_token_id=7), 2, begins, None)[0].tolist() == begins.tolist()


def test_a_start_token_that_is_not_set_is_refused() -> None:
    with pytest.raises(InputError, match="needs decoder_start_token_id.*tokenizer.cls_token_id"):
        decoder_prompt(seq2seq(bos_token_id=0), 2, None, None)
    with pytest.raises(InputError, match="decoder_start_token_id must hold ids below 60.*received 60"):
        decoder_prompt(seq2seq(decoder_start_token_id=[7, 60]), 2, None, None)
    with pytest.raises(InputError, match="has 2 ids for 3 texts"):
        decoder_prompt(seq2seq(decoder_start_token_id=[7, 8]), 3, None, None)
    with pytest.raises(InputError, match=r"decoder_input_ids must have the shape \(3, length\)"):
        decoder_prompt(seq2seq(decoder_start_token_id=7), 3, np.zeros((2, 1), int), None)
