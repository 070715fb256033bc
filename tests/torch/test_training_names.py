"""The published names around training: collators with tensors, schedules on an optimizer, and what is not here."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch.utils.data import DataLoader

import xlmr_torch
from xlmr_core.errors import InputError

COLLATORS = [name for name in xlmr_torch.__all__ if "DataCollator" in name or name == "default_data_collator"]
SCHEDULES = [name for name in xlmr_torch.__all__ if name.startswith("get_")]


@pytest.fixture(scope="module")
def tokenizer():
    return xlmr_torch.AutoTokenizer.from_pretrained("xlmr-mini")


def optimizer_of(rate: float = 10.0) -> torch.optim.Optimizer:
    return torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))], lr=rate)


def rates(scheduler, count: int = 10) -> list[float]:
    found = []
    for _ in range(count):
        found.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return found


def test_all_published_collators_are_here() -> None:
    assert len(COLLATORS) == 8 and len(SCHEDULES) == 8


@pytest.mark.parametrize("name", [name for name in COLLATORS if "efault" not in name])
def test_a_collator_gives_tensors(tokenizer, name: str) -> None:
    rows = [dict(tokenizer(text)) for text in ("eins", "zwei und drei")]
    if name == "DataCollatorForMultipleChoice":
        rows = [{key: [value, value] for key, value in row.items()} for row in rows]
    batch = getattr(xlmr_torch, name)(tokenizer)(rows)
    assert all(isinstance(value, torch.Tensor) and value.dtype == torch.int64 for value in batch.values())
    assert getattr(xlmr_torch, name)(tokenizer, return_tensors="np")(rows)["input_ids"].dtype == "int64"


def test_features_of_one_shape_are_stacked() -> None:
    features = [{"x": torch.tensor([1, 2]), "label": 1}, {"x": torch.tensor([3, 4]), "label": 0}]
    for collate in (xlmr_torch.default_data_collator, xlmr_torch.DefaultDataCollator()):
        batch = collate(features)
        assert batch["x"].tolist() == [[1, 2], [3, 4]] and batch["labels"].dtype == torch.int64
    floats = [{**feature, "label": float(feature["label"])} for feature in features]
    assert xlmr_torch.default_data_collator(floats)["labels"].dtype == torch.float32


def test_what_is_hidden_follows_the_seed_of_torch(tokenizer) -> None:
    rows = [dict(tokenizer("eins zwei drei vier fünf sechs"))] * 8
    collator = xlmr_torch.DataCollatorForLanguageModeling(tokenizer)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(collator(rows)["labels"])
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    fed, labels = collator.torch_mask_tokens(torch.tensor([rows[0]["input_ids"]]))
    assert fed.shape == labels.shape and fed.dtype == torch.int64


@pytest.mark.parametrize("seed", [None, 7])
def test_workers_of_a_loader_hide_other_tokens(tokenizer, seed: int | None) -> None:
    rows = [dict(tokenizer("eins zwei drei vier fünf sechs sieben acht neun zehn"))] * 16
    collator = xlmr_torch.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.4, seed=seed)
    batches = list(DataLoader(rows, batch_size=8, collate_fn=collator, num_workers=2))
    assert not torch.equal(batches[0]["labels"], batches[1]["labels"])


def test_labels_of_another_text_make_the_decoders_inputs(tokenizer) -> None:
    from tests.torch.models import Case

    encoder, decoder = Case("XLMRoberta", "Model").config(), Case("XLMRoberta", "ForCausalLM").config(is_decoder=True)
    config = xlmr_torch.EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id = 0, 1
    model = xlmr_torch.EncoderDecoderModel(config=config)
    rows = [{**tokenizer("eins"), "labels": [5, 6, 2]}, {**tokenizer("zwei"), "labels": [7, 2]}]
    batch = xlmr_torch.DataCollatorForSeq2Seq(tokenizer, model)(rows)
    assert batch["labels"].tolist() == [[5, 6, 2], [7, 2, -100]]
    assert batch["decoder_input_ids"].tolist() == [[0, 5, 6], [0, 7, 2]]


# ---- Schedules


@pytest.mark.parametrize(
    ("name", "arguments", "options", "expected"),
    [
        ("linear", (2, 10), {}, [0.0, 5.0, 10.0, 8.75, 7.5, 6.25, 5.0, 3.75, 2.5, 1.25]),
        ("cosine", (2, 10), {}, [0.0, 5.0, 10.0, 9.61, 8.53, 6.91, 5.0, 3.08, 1.46, 0.38]),
        ("constant", (), {}, [10.0] * 10),
        ("constant_with_warmup", (4,), {}, [0.0, 2.5, 5.0, 7.5, *[10.0] * 6]),
        ("cosine_with_restarts", (2, 10), {"num_cycles": 2}, [0.0, 5.0, 10.0, 8.53, 5.0, 1.46, 10.0, 8.53, 5.0, 1.46]),
        ("polynomial", (2, 10), {"power": 2.0}, [0.0, 5.0, 10.0, 7.656, 5.625, 3.906, 2.5, 1.406, 0.625, 0.156]),
        ("inverse_sqrt", (2,), {}, [0.0, 5.0, 10.0, 8.165, 7.071, 6.325, 5.774, 5.345, 5.0, 4.714]),
    ],
)
def test_a_schedule_has_the_published_rates(name: str, arguments: tuple, options: dict, expected: list) -> None:
    published = {
        "linear": "get_linear_schedule_with_warmup",
        "cosine": "get_cosine_schedule_with_warmup",
        "constant": "get_constant_schedule",
        "constant_with_warmup": "get_constant_schedule_with_warmup",
        "cosine_with_restarts": "get_cosine_with_hard_restarts_schedule_with_warmup",
        "polynomial": "get_polynomial_decay_schedule_with_warmup",
        "inverse_sqrt": "get_inverse_sqrt_schedule",
    }
    scheduler = getattr(xlmr_torch, published[name])(optimizer_of(), *arguments, **options)
    assert rates(scheduler) == pytest.approx(expected, abs=0.01)
    by_name = xlmr_torch.get_scheduler(name, optimizer_of(), *arguments, scheduler_specific_kwargs=options)
    assert rates(by_name) == pytest.approx(expected, abs=0.01)


def test_a_schedule_can_be_kept_and_goes_on() -> None:
    scheduler = xlmr_torch.get_linear_schedule_with_warmup(optimizer_of(), 2, 10)
    whole = rates(scheduler)
    first = xlmr_torch.get_linear_schedule_with_warmup(optimizer_of(), 2, 10)
    rates(first, 4)
    again = xlmr_torch.get_linear_schedule_with_warmup(optimizer_of(), 2, 10)
    again.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    assert rates(again, 6) == pytest.approx(whole[4:])


def test_a_schedule_says_what_it_needs() -> None:
    with pytest.raises(InputError, match="did you mean 'linear'"):
        xlmr_torch.get_scheduler("linea", optimizer_of())
    with pytest.raises(InputError, match="expected num_warmup_steps, which the schedule 'cosine' needs"):
        xlmr_torch.get_scheduler("cosine", optimizer_of(), num_training_steps=3)
    with pytest.raises(InputError, match="expected num_training_steps"):
        xlmr_torch.get_scheduler("cosine", optimizer_of(), 3)
    with pytest.raises(InputError, match="expected lr_end below the rate of the optimizer"):
        xlmr_torch.get_polynomial_decay_schedule_with_warmup(optimizer_of(1e-8), 1, 2)
    plateau = xlmr_torch.get_scheduler(
        "reduce_lr_on_plateau", optimizer_of(), scheduler_specific_kwargs={"patience": 3}
    )
    assert plateau.patience == 3


# ---- What is not here


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Trainer", "from transformers import Trainer"),
        ("TrainingArguments", "from transformers import TrainingArguments"),
        ("Seq2SeqTrainer", "xlmr_torch.training.train in Python (docs/torch-training.md)"),
        ("LoraConfig", "from peft import LoraConfig"),
        ("AutoModelForMaskLM", "did you mean 'AutoModelForMaskedLM'"),
        ("DataColatorWithPadding", "did you mean 'DataCollatorWithPadding'"),
        ("TFXLMRobertaModel", "from xlmr_tf import TFXLMRobertaModel"),
        ("AdamW", "torch.optim.AdamW"),
        ("set_seed", "torch.manual_seed"),
    ],
)
def test_a_name_that_is_not_here_says_where_to_go(name: str, told: str) -> None:
    with pytest.raises(ImportError) as caught:
        exec(f"from xlmr_torch import {name}", {})
    assert told in str(caught.value) and caught.value.name == name
    with pytest.raises(AttributeError) as missing:
        getattr(xlmr_torch, name)
    assert told in str(missing.value)
    assert not hasattr(xlmr_torch, name) and getattr(xlmr_torch, name, None) is None


def test_modules_and_unknown_names_are_what_they_were() -> None:
    exec("from xlmr_torch import heads, collators", {})
    with pytest.raises(ImportError, match="cannot import name 'Qwertyuiop'"):
        exec("from xlmr_torch import Qwertyuiop", {})
    with pytest.raises(AttributeError, match=r"has no attribute '__wrapped__'$"):
        _ = xlmr_torch.__wrapped__
