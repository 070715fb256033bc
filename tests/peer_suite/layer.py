"""The shared test files of transformers, opened from the unpacked archives of ``nox -s peer-suite``.

The files come without their neighbours: mixins for generation, files for each model, a sample text. What they import
of those is given here in our own words, and nothing of theirs is copied into the project. The names that stand for
models, configurations and tokenizers are then set to ours by the file of each framework beside this one.
"""

from __future__ import annotations

import importlib
import os
import pickle
import random
import re
import sys
import unittest
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import transformers
import transformers.utils

__all__ = ["ARCHIVES", "OurCase", "Tester", "give_mappings", "heads_of", "in_this_process", "open_tests"]

# Where the archives of transformers and of sentencepiece lie unpacked.
ARCHIVES = Path(os.environ["XLMR_PEER_SUITE"])
HERE = Path(__file__).parent
PACKAGE = "peer_tests"

HEADS = (
    *("Model", "ForMaskedLM", "ForCausalLM", "ForSequenceClassification", "ForTokenClassification"),
    *("ForMultipleChoice", "ForQuestionAnswering"),
)
SIZES: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
}
# Settings that every configuration takes, each with a value that is nobody's default. Without dtype, which is compared
# with a dtype of PyTorch: ours know no framework and keep its name.
COMMON_SETTINGS: dict[str, Any] = {
    "return_dict": False,
    "output_hidden_states": True,
    "output_attentions": True,
    "tie_word_embeddings": False,
    "chunk_size_feed_forward": 5,
    "architectures": ["XLMRobertaModel"],
    "finetuning_task": "sentiment",
    "id2label": {0: "bad", 1: "good"},
    "label2id": {"bad": 0, "good": 1},
    "bos_token_id": 6,
    "pad_token_id": 7,
    "eos_token_id": 8,
    "sep_token_id": 9,
    "problem_type": "regression",
}


def open_tests(name: str) -> ModuleType:
    """A shared test file such as ``test_modeling_common``, imported; of the version that is installed."""
    folder = ARCHIVES / f"transformers-{transformers.__version__}" / "tests"
    assert (folder / f"{name}.py").is_file(), f"no {name}.py in {folder}; run: nox -s peer-suite"
    _module(PACKAGE, __path__=[str(folder)])
    _module(f"{PACKAGE}.generation", __path__=[])
    _module(f"{PACKAGE}.generation.test_utils", GenerationTesterMixin=type("GenerationTesterMixin", (), {}))
    _module(f"{PACKAGE}.utils", __path__=[])
    _module(f"{PACKAGE}.utils.test_configuration_utils", config_common_kwargs=COMMON_SETTINGS)
    # It would look for the sources of transformers beside the tests.
    transformers.utils.direct_transformers_import = lambda folder: transformers
    module = importlib.import_module(f"{PACKAGE}.{name}")
    if hasattr(module, "get_tests_dir"):
        module.get_tests_dir = lambda: str(HERE)  # for fixtures/sample_text.txt
    return module


def in_this_process(
    test_case: unittest.TestCase, target_func: Any, inputs: Any = None, timeout: float | None = None
) -> None:
    """Run what the files would run in a process of its own, where their modules could not be imported again."""
    answers: list[Any] = []
    questions = SimpleNamespace(get=lambda timeout: pickle.loads(pickle.dumps(inputs)))
    target_func(
        questions, SimpleNamespace(put=lambda answer, timeout: answers.append(answer), join=lambda: None), timeout
    )
    test_case.assertIsNone(answers[0]["error"], answers[0]["error"])


def _module(name: str, **content: Any) -> None:
    module = sys.modules.setdefault(name, ModuleType(name))
    vars(module).update(content)


class Tester:
    """What the shared files ask about models: a small configuration and inputs for it."""

    batch_size, seq_length, num_choices = 3, 7, 4
    hidden_size, num_hidden_layers, num_attention_heads = 32, 2, 4
    is_training = True

    def __init__(self, config_class: type[Any], ids: Any, mask: Any) -> None:
        self.config_class, self.ids, self.mask = config_class, ids, mask
        self.rng = random.Random(0)

    def get_config(self) -> Any:
        return self.config_class(**SIZES)

    def prepare_config_and_inputs_for_common(self) -> tuple[Any, dict[str, Any]]:
        shape = (self.batch_size, self.seq_length)
        inputs = {
            "input_ids": self.ids(shape, SIZES["vocab_size"], rng=self.rng),
            "token_type_ids": self.ids(shape, SIZES["type_vocab_size"], rng=self.rng),
            "attention_mask": self.mask(shape, rng=self.rng),
        }
        return self.get_config(), inputs


class OurCase(unittest.TestCase):
    """Cases of a test fail together, so that a test is a row of the table; and the words of an error are our own."""

    def subTest(self, *arguments: Any, **parameters: Any) -> Any:
        return nullcontext()

    def assertRaisesRegex(self, kind: Any, words: Any, *arguments: Any, **parameters: Any) -> Any:
        return self.assertRaises(kind, *arguments, **parameters)

    def assertLogs(self, logger: Any = None, level: Any = None) -> Any:
        return super().assertLogs("xlmr_core" if logger == "transformers" else logger, level)


def heads_of(package: ModuleType, prefix: str) -> tuple[type[Any], ...]:
    """The classes of a family, such as those that begin with ``TFXLMRoberta``."""
    return tuple(getattr(package, prefix + head) for head in HEADS)


def give_mappings(module: ModuleType, package: ModuleType, families: dict[type[Any], str]) -> None:
    """Set every mapping of a test file, such as ``MODEL_FOR_MASKED_LM_MAPPING``, to ours: configuration to class."""
    ours = {"MODEL_MAPPING": "Model"}
    ours |= {f"MODEL_{re.sub('(?<=[a-z])(?=[A-Z])', '_', head).upper()}_MAPPING": head for head in HEADS[1:]}
    for name in [name for name in vars(module) if name.endswith("_MAPPING")]:
        head = ours.get(name.removeprefix("TF_").removeprefix("FLAX_"))
        named = {} if head is None else {config: prefix + head for config, prefix in families.items()}
        setattr(module, name, {config: getattr(package, of_config) for config, of_config in named.items()})
