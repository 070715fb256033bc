"""transformers' own pipelines that write beside ours, on freshly drawn models with the shared tokenizer.

Version 5 has no pipelines from text to text.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import pytest

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

import xlmr_torch  # noqa: E402

pytestmark = [
    pytest.mark.skipif(int(transformers.__version__.split(".")[0]) != 4, reason="version 4 is what is followed"),
    # What the original warns about is not ours to judge.
    pytest.mark.filterwarnings("ignore::Warning:transformers"),
    pytest.mark.filterwarnings("ignore:Both `max_new_tokens`"),
]

SEED = int(os.environ.get("XLMR_ORACLE_SEED", secrets.randbelow(10**6)))
GREEDY = {"do_sample": False, "max_new_tokens": 7}
BARE = {**GREEDY, "add_special_tokens": False}
TEXTS = ["The river", "Once upon a time there was a", "今天的"]


@pytest.fixture(scope="module")
def folders(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A decoder, and an encoder with one, of fresh numbers that are wide apart."""
    torch.manual_seed(SEED)
    known = shared / "fixtures" / "tasks" / "text_generation"
    config = xlmr_torch.XLMRobertaConfig.from_pretrained(known, initializer_range=1.0, eos_token_id=2)
    pair = xlmr_torch.EncoderDecoderConfig.from_encoder_decoder_configs(
        config, config, decoder_start_token_id=0, pad_token_id=1, eos_token_id=2
    )
    models = {"one": xlmr_torch.XLMRobertaForCausalLM(config), "pair": xlmr_torch.EncoderDecoderModel(pair)}
    made = {name: tmp_path_factory.mktemp(f"{name}-seed{SEED}") for name in models}
    for name, model in models.items():
        model.save_pretrained(made[name])
        xlmr_torch.AutoTokenizer.from_pretrained(known).save_pretrained(made[name])
    return made


def check(task: str, folder: Path, given: Any, how: dict[str, Any], **ours: Any) -> None:
    theirs = transformers.pipeline(task, model=folder, framework="pt", device="cpu")(given, **how)
    assert plain(xlmr_torch.pipeline(task, model=folder, **ours)(given, **how)) == plain(theirs)


def plain(answer: Any) -> Any:
    """An answer with lists in the place of tensors."""
    if isinstance(answer, list):
        return [plain(one) for one in answer]
    if isinstance(answer, dict):
        return {name: plain(value) for name, value in answer.items()}
    return answer.tolist() if isinstance(answer, torch.Tensor) else answer


@pytest.mark.parametrize(
    "how",
    [
        GREEDY,
        BARE,
        {**BARE, "return_full_text": False, "num_beams": 3, "num_return_sequences": 3},
        {**BARE, "num_beams": 4, "length_penalty": 0.5, "early_stopping": True, "return_tensors": True},
        {**BARE, "repetition_penalty": 1.7, "no_repeat_ngram_size": 2, "return_tensors": True},
        {**BARE, "prefix": "Once upon a time ", "min_new_tokens": 4, "suppress_tokens": [5, 6]},
        {**BARE, "max_new_tokens": 30, "handle_long_generation": "hole", "truncation": True},
        {**BARE, "skip_special_tokens": False, "clean_up_tokenization_spaces": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("given", [*TEXTS, TEXTS], ids=str)
def test_text_generation(folders: dict[str, Path], given: Any, how: dict[str, Any]) -> None:
    check("text-generation", folders["one"], given, how, position_numbering="zero_based")


@pytest.mark.parametrize("task", ["text2text-generation", "summarization", "translation", "translation_en_to_fr"])
@pytest.mark.parametrize(
    "how",
    [
        {"max_new_tokens": 7},
        {"max_new_tokens": 7, "num_beams": 1},
        {"max_new_tokens": 7, "num_return_sequences": 2, "return_tensors": True},
        {"max_new_tokens": 20, "repetition_penalty": 1.5, "encoder_no_repeat_ngram_size": 2},
        {"max_new_tokens": 7, "min_new_tokens": 5, "clean_up_tokenization_spaces": True, "truncation": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("given", [TEXTS[0], TEXTS[:1], TEXTS], ids=str)
def test_text_to_text(folders: dict[str, Path], task: str, given: Any, how: dict[str, Any]) -> None:
    check(task, folders["pair"], given, how)
