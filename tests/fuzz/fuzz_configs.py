"""Configurations of misspelt keys and values of wrong types: part of ``nox -s fuzz``.

A configuration is drawn, then some of its keys are misspelt, and some values become others: text for numbers, lists,
nothing. What comes of it is a configuration, which a file keeps as it is, or a ``ConfigError`` that names a key; a key
that is misspelt is kept, with a warning that names the right one where that is not given.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from xlmr_core.config import XLMRobertaConfig, XLMRobertaXLConfig
from xlmr_core.errors import ConfigError, ConfigWarning

# By key: values of which any model can be built.
RIGHT: dict[str, tuple[Any, ...]] = {
    "vocab_size": (99, 250002),
    "hidden_size": (24, 48),
    "num_hidden_layers": (0, 3),
    "num_attention_heads": (2, 4),
    "intermediate_size": (32, 64),
    "hidden_act": ("gelu", "relu"),
    "hidden_dropout_prob": (0, 0.1, 1.0),
    "max_position_embeddings": (40, 514),
    "type_vocab_size": (1, 2),
    "layer_norm_eps": (1e-5, 1e-12),
    "bos_token_id": (0, None),
    "eos_token_id": (2, [2, 5], None),
    "classifier_dropout": (None, 0.2),
    "problem_type": (None, "regression"),
    "id2label": ({"0": "no", "1": "yes"}, {0: "a", 1: "b", 2: "c"}),
    "torch_dtype": ("float16", None),
    "pruned_heads": ({}, {"0": [1]}),
    "output_attentions": (True, False),
    "tie_word_embeddings": (True, False),
    "transformers_version": ("4.2", None),
    "max_length": (20, 5),
    "my_own_key": ([1, {"a": None}], "ü"),
}
WRONG = ("x", "", -1, 1.5, True, None, [], [1], {}, {"a": "b"}, float("nan"), 2**70, [[0]])
LONG = tuple(key for key in RIGHT if len(key) > 8 and key not in ("transformers_version", "max_length", "my_own_key"))
LETTERS = "abcdefghijklmnopqrstuvwxyz_"


def misspelt(key: str, rng: np.random.Generator) -> str:
    """A word one letter away."""
    place, letter = int(rng.integers(1, len(key))), LETTERS[rng.integers(len(LETTERS))]
    swapped = key[: place - 1] + key[place] + key[place - 1] + key[place + 1 :]
    return (key[:place] + key[place + 1 :], key[:place] + letter + key[place:], swapped)[rng.integers(3)]


def check(seed: int) -> bool:
    """Draw a configuration and look at what comes of it; whether there is one.

    Raises:
        AssertionError: if it is not what the head of this file says.
    """
    rng = np.random.default_rng(seed)
    kind = (XLMRobertaConfig, XLMRobertaXLConfig)[rng.integers(2)]
    values = {key: of[rng.integers(len(of))] for key, of in RIGHT.items() if rng.random() < 0.5}
    typos = {}
    if rng.random() < 0.5:
        meant = LONG[rng.integers(len(LONG))]
        typo = misspelt(meant, rng)
        if typo not in RIGHT:
            typos = {typo: meant}
            values[typo] = values.pop(meant, 1) if rng.random() < 0.7 else 1
    wrong = [key for key in values if key in RIGHT and rng.random() < 0.05]
    for key in wrong:
        values[key] = WRONG[rng.integers(len(WRONG))]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            config = kind.from_dict(values)
        except ConfigError as error:
            # Right values by themselves may contradict each other: heads that were pruned, a number of labels.
            assert wrong or any(key in str(error) for key in values), (seed, values, error)
            return False
    said = [str(entry.message) for entry in caught if entry.category is ConfigWarning]
    missing = {typo: meant for typo, meant in typos.items() if meant not in values}
    assert len(said) == len(caught) == bool(missing), (seed, values, said)
    assert all(repr(typo) in said[0] and repr(meant) in said[0] for typo, meant in missing.items()), (seed, said)
    assert all(config.to_dict()[typo] == values[typo] for typo in typos), (seed, values)
    try:
        text = config.to_json_string()
    except ConfigError:
        assert wrong, (seed, values)
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the misspelt key is there still
        again = kind.from_dict(json.loads(text))
    # What is no number at all is not equal to itself.
    assert again.to_json_string() == text, (seed, values)
    assert config.copy().to_json_string() == text, (seed, values)
    return True


def attempt(seed: int, folder: Path) -> None:
    """As the harness asks for it."""
    if not check(seed):
        raise ConfigError("refused, as it should be")


KINDS = {"configs of wrong values": attempt}
