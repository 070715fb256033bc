"""Tasks that write, in PyTorch: draws, batches, and text to text on an encoder-decoder."""

from __future__ import annotations

import pytest
import torch

from tests.writing import check_draws
from xlmr_torch import (
    AutoTokenizer,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    TextGenerationPipeline,
    XLMRobertaConfig,
    pipeline,
)

TEXTS = ["The river", "Once upon a time there was a", "今天的"]


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "fixtures" / "tasks" / "text_generation"


@pytest.fixture(scope="module")
def write(folder):
    return pipeline("text-generation", model=folder)


def test_draws(write):
    assert type(write) is TextGenerationPipeline
    check_draws(write)


@pytest.mark.parametrize("how", [{}, {"num_beams": 3}, {"position_numbering": "zero_based"}, {"use_cache": False}])
def test_a_batch_gives_what_the_texts_give_alone(write, how):
    how = {"do_sample": False, "max_new_tokens": 6, **how}
    assert write(TEXTS, **how) == [write(text, **how) for text in TEXTS] == list(write(iter(TEXTS), **how))


def test_half_precision(folder):
    narrow = pipeline("text-generation", model=folder, dtype="bfloat16", device="cpu")
    (answer,) = narrow("The river", do_sample=False, max_new_tokens=4, return_full_text=False)
    assert narrow.model.dtype == torch.bfloat16 and answer["generated_text"]


@pytest.fixture(scope="module")
def pair(folder, tmp_path_factory):
    torch.manual_seed(0)
    part = XLMRobertaConfig.from_pretrained(folder, initializer_range=1.0)
    config = EncoderDecoderConfig.from_encoder_decoder_configs(part, part, decoder_start_token_id=0)
    place = tmp_path_factory.mktemp("pair")
    EncoderDecoderModel(config).save_pretrained(place)
    AutoTokenizer.from_pretrained(folder).save_pretrained(place)
    return place


@pytest.mark.parametrize(
    ("task", "key"),
    [("text2text-generation", "generated"), ("summarization", "summary"), ("translation_x_to_y", "translation")],
)
def test_text_to_text(pair, task, key):
    ask = pipeline(task, model=pair, max_new_tokens=5)
    (answer,) = ask("The river")
    ids = ask("The river", return_tensors=True)[0][f"{key}_token_ids"]
    assert isinstance(ids, torch.Tensor) and ids[0] == 0
    assert answer == {f"{key}_text": ask.tokenizer.decode(ids, skip_special_tokens=True)}
    alone = [ask(text)[0] for text in TEXTS]
    assert ask(TEXTS) == alone and [one for (one,) in ask(iter(TEXTS))] == alone
    by_hand = ask.model.generate(**ask.tokenizer("The river", return_tensors="pt"), num_beams=4, max_new_tokens=5)
    assert by_hand[0].tolist() == ids.tolist()


def test_the_task_of_an_encoder_decoder_is_known(pair):
    model = EncoderDecoderModel.from_pretrained(pair)
    assert pipeline(model=model).task == "text2text-generation"
