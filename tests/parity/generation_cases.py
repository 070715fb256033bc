"""What every backend has to generate: model x prompts x options, as data. The reference's loop is the judge.

Prompts are written as in ``cases.py``: ``t`` a token, ``.`` padding, masked, ``x`` a token that is masked. Weights are
those of the parity cases, drawn from the case's name. ``takes_turns`` has the cases that a backend which compiles each
of them runs by default; the others it runs in ``nox -s everything``.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.parity.cases import CROSS, DECODER, SMALL
from tests.parity.weights import draw_parameters
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.generation import GenerationConfig, arrange_prompt, plan_generation, plan_mask_predict, read_request
from xlmr_core.heads import FAMILIES
from xlmr_core.reference.generation import generate, mask_predict

__all__ = ["GENERATIONS", "MASKED", "Asked", "MadeGeneration", "expected_of", "made_of"]

Array = NDArray[Any]

FULL = ("tttttt", "tttttt")
LEFT = ("tttttttt", "....tttt", ".......t")
RIGHT = ("tttttttt", "ttttt...", "t.......")
INSIDE = ("tttttttt", "..tt.ttt", "..txtttt")
BEAMS: dict[str, Any] = {"num_beams": 3}
# So many that rows end early and others do not, see `test_ends_are_met`.
SEVERAL_ENDS: dict[str, Any] = {"eos_token_id": list(range(2, 30))}
ENCODER_LENGTH = 5


@dataclass(frozen=True)
class Asked:
    """A call of ``generate``.

    Attributes:
        name: in reports; seeds are made from it.
        rows: the prompts.
        options: of the call; without other ones, eight new tokens, none of them padding, which drawn models like.
        config: what differs from ``SMALL``.
        family: class prefix.
        head: a suffix of the table of heads.
        small: whether a backend that compiles runs it by default.
    """

    name: str
    rows: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=lambda: DECODER)
    family: str = "XLMRoberta"
    head: str = "ForCausalLM"
    small: bool = False

    @property
    def crosses(self) -> bool:
        """Whether the decoder attends to a memory."""
        return bool(self.config.get("add_cross_attention"))


@dataclass(frozen=True)
class MadeGeneration:
    """A call made concrete.

    Attributes:
        config: the model's configuration.
        params: all parameters by canonical name, float32.
        inputs: ``input_ids``, ``attention_mask``, and what a memory needs, by published name.
        options: of the call.
    """

    config: XLMRobertaConfig
    params: dict[str, Array]
    inputs: dict[str, Array]
    options: dict[str, Any]


_ASKED = (
    # Greedy
    Asked("greedy", FULL, small=True),
    Asked("greedy-left", LEFT),
    Asked("greedy-with-padding", LEFT, {"suppress_tokens": None}),
    Asked("greedy-right", RIGHT, small=True),
    Asked("greedy-inside", INSIDE),
    Asked("greedy-one-token", ("t",)),
    Asked("greedy-to-the-limit", ("t" * 30, "." * 20 + "t" * 10), {"max_length": 39}),
    Asked("greedy-xl", LEFT, family="XLMRobertaXL", small=True),
    Asked("greedy-ends", LEFT, {**SEVERAL_ENDS, "max_new_tokens": 12}, small=True),
    Asked("greedy-zero-based", LEFT, {"position_numbering": "zero_based"}),
    Asked("greedy-no-cache", LEFT, {"use_cache": False}),
    Asked("greedy-not-a-decoder", LEFT, config={}),
    Asked("greedy-token-types", LEFT, config={**DECODER, "type_vocab_size": 2}),
    Asked("greedy-pad-3", LEFT, config={**DECODER, "pad_token_id": 3}),
    # Memory, relative positions
    Asked("cross", LEFT, config=CROSS, small=True),
    Asked("cross-xl-beams", RIGHT, BEAMS, config=CROSS, family="XLMRobertaXL"),
    Asked("cross-relative", LEFT, config={**CROSS, "position_embedding_type": "relative_key"}),
    Asked("relative-key", LEFT, config={**DECODER, "position_embedding_type": "relative_key"}),
    Asked("relative-no-cache", FULL, {"use_cache": False}, {**DECODER, "position_embedding_type": "relative_key"}),
    Asked(
        "relative-key-query-beams",
        INSIDE,
        BEAMS,
        config={**DECODER, "position_embedding_type": "relative_key_query"},
        small=True,
    ),
    # Processors
    Asked("repetition", LEFT, {"repetition_penalty": 3.0, "encoder_repetition_penalty": 0.5}),
    Asked("ngrams", LEFT, {"no_repeat_ngram_size": 2, "encoder_no_repeat_ngram_size": 3, "max_new_tokens": 12}),
    Asked("least", LEFT, {**SEVERAL_ENDS, "min_new_tokens": 4, "forced_eos_token_id": 2}),
    Asked("least-length", LEFT, {**SEVERAL_ENDS, "min_length": 11, "max_length": 14}),
    Asked("suppressed", LEFT, {"suppress_tokens": list(range(20, 50)), "begin_suppress_tokens": [5, 6, 7]}),
    Asked("decay", LEFT, {**SEVERAL_ENDS, "exponential_decay_length_penalty": (2, 1.5), "remove_invalid_values": True}),
    Asked(
        "words",
        FULL,
        {
            "bad_words_ids": [[7], [8, 9], [10, 11, 12], *([token] for token in range(30, 45))],
            "sequence_bias": {(50,): 3.0, (50, 51): 9.0, (51, 52): 9.0},
        },
        small=True,
    ),
    Asked("first-forced", ("t", "t"), {"forced_bos_token_id": 9, "renormalize_logits": True}),
    # Beams
    Asked("beams", FULL, BEAMS, small=True),
    Asked("beams-left", LEFT, {**BEAMS, **SEVERAL_ENDS, "num_return_sequences": 2}, small=True),
    Asked("beams-short", LEFT, {**BEAMS, **SEVERAL_ENDS, "length_penalty": -1.0, "early_stopping": True}),
    Asked("beams-long", LEFT, {**BEAMS, **SEVERAL_ENDS, "length_penalty": 2.0, "early_stopping": "never"}),
    Asked("beams-no-cache", LEFT, {**BEAMS, "use_cache": False}),
    Asked("beams-xl", RIGHT, {"num_beams": 4, "num_return_sequences": 4}, family="XLMRobertaXL"),
    Asked("beams-processors", LEFT, {**BEAMS, "no_repeat_ngram_size": 2, "repetition_penalty": 1.5}),
    Asked("groups", LEFT, {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 2.0}, small=True),
    Asked(
        "groups-ends",
        LEFT,
        {
            **SEVERAL_ENDS,
            "num_beams": 6,
            "num_beam_groups": 3,
            "diversity_penalty": 0.5,
            "num_return_sequences": 3,
            "early_stopping": True,
        },
    ),
)
GENERATIONS: dict[str, Asked] = {asked.name: asked for asked in _ASKED}

MASKED: dict[str, Asked] = {
    asked.name: asked
    for asked in (
        Asked("masked", FULL, {"max_new_tokens": 6}, {}, head="ForMaskedLM", small=True),
        Asked("masked-left", LEFT, {"max_new_tokens": 7, "passes": 3}, {}, head="ForMaskedLM"),
        Asked("masked-right-xl", RIGHT, {"max_length": 15, "passes": 20}, {}, "XLMRobertaXL", "ForMaskedLM"),
        Asked("masked-once", INSIDE, {"passes": 1, "suppress_tokens": [5, 6]}, {}, head="ForMaskedLM"),
    )
}


def made_of(asked: Asked) -> MadeGeneration:
    """A call made concrete; always the same for the same name."""
    seed = zlib.crc32(asked.name.encode())
    rng = np.random.default_rng(seed)
    config = FAMILIES[asked.family](**{**SMALL, **asked.config})
    rows = np.array([list(row) for row in asked.rows])
    ids = rng.integers(4, config.vocab_size, rows.shape)
    ids[rows == "."] = config.pad_token_id
    inputs = {"input_ids": ids, "attention_mask": (rows == "t").astype(np.int64)}
    if config.type_vocab_size > 1:
        inputs["token_type_ids"] = rng.integers(0, config.type_vocab_size, rows.shape)
    if asked.crosses:
        shape = (len(rows), ENCODER_LENGTH, config.hidden_size)
        inputs["encoder_hidden_states"] = rng.standard_normal(shape).astype(np.float32)
        inputs["encoder_attention_mask"] = (np.arange(ENCODER_LENGTH) < rng.integers(2, 6, (len(rows), 1))).astype(int)
    lengths = {"max_new_tokens", "max_length"} & set(asked.options)
    defaults: dict[str, Any] = {"suppress_tokens": [config.pad_token_id]} if asked.head == "ForCausalLM" else {}
    defaults |= {} if lengths else {"max_new_tokens": 8}
    options = {**defaults, **asked.options}
    return MadeGeneration(config, draw_parameters(config, asked.head, seed), inputs, options)


@cache
def expected_of(asked_name: str) -> Any:
    """What the reference generates: an output with sequences, and of beams their scores."""
    asked = {**GENERATIONS, **MASKED}[asked_name]
    made = made_of(asked)
    ids, mask = made.inputs["input_ids"], made.inputs["attention_mask"]
    if asked.head == "ForMaskedLM":
        plan, given = plan_mask_predict(
            made.config, caller="generate()", ids=ids, mask=mask, kwargs=made.options, hooks={}
        )
        return {"sequences": mask_predict(made.config, made.params, plan, given)}
    request = read_request(
        made.config,
        GenerationConfig.from_model_config(made.config),
        caller="generate()",
        kwargs={**made.options, "return_dict_in_generate": True},
    )
    prompt = arrange_prompt(
        made.config,
        ids,
        mask,
        token_type_ids=made.inputs.get("token_type_ids"),
        position_numbering=request.options.position_numbering,
    )
    memory = {name: x for name, x in made.inputs.items() if name.startswith("encoder_")}
    return generate(made.config, made.params, plan_generation(made.config, request, prompt), prompt, **memory)
