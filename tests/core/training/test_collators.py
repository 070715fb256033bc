"""The published collators, in NumPy; each backend's tests have its tensors."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from xlmr_core.errors import InputError, TokenizerError
from xlmr_core.tokenization import XLMRobertaTokenizerFast
from xlmr_core.training import collators
from xlmr_core.training.task import IGNORED

MINI = Path(__file__).resolve().parents[3] / "weights" / "xlmr-mini"
TEXTS = ["eins", "zwei und drei, nicht mehr"]


@pytest.fixture(scope="module")
def tokenizer():
    return XLMRobertaTokenizerFast.from_pretrained(MINI)


def encoded(tokenizer, **columns) -> list[dict]:
    rows = [dict(tokenizer(text)) for text in TEXTS]
    return [{**row, **{name: values[n] for name, values in columns.items()}} for n, row in enumerate(rows)]


@pytest.mark.parametrize("name", ["label", "label_ids", "labels"])
def test_padding_calls_labels_labels(tokenizer, name: str) -> None:
    batch = collators.DataCollatorWithPadding(tokenizer)(encoded(tokenizer, **{name: [1, 0]}))
    expected = tokenizer(TEXTS, padding=True, return_tensors="np")
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    assert np.array_equal(batch["input_ids"], expected["input_ids"]) and batch["labels"].tolist() == [1, 0]


def test_padding_goes_to_a_length_or_a_multiple(tokenizer) -> None:
    rows = encoded(tokenizer)
    assert collators.DataCollatorWithPadding(tokenizer, "max_length", 24)(rows)["input_ids"].shape == (2, 24)
    assert collators.DataCollatorWithPadding(tokenizer, pad_to_multiple_of=16)(rows)["input_ids"].shape == (2, 16)
    assert rows == encoded(tokenizer), "what was given stays as it was"


@pytest.mark.parametrize("side", ["right", "left"])
def test_labels_of_tokens_are_padded_with_what_does_not_count(tokenizer, side: str) -> None:
    tokenizer = pickle.loads(pickle.dumps(tokenizer))
    tokenizer.padding_side = side
    rows = [{**row, "labels": np.arange(len(row["input_ids"]))} for row in encoded(tokenizer)]
    batch = collators.DataCollatorForTokenClassification(tokenizer)(rows)
    assert ((batch["labels"] == IGNORED) == (batch["attention_mask"] == 0)).all()
    assert batch["labels"][1].tolist() == list(range(batch["labels"].shape[1]))
    with pytest.raises(InputError, match="a label for each token"):
        collators.DataCollatorForTokenClassification(tokenizer)(encoded(tokenizer, labels=[1, 0]))


def test_labels_of_another_text_have_a_length_of_their_own(tokenizer) -> None:
    rows = encoded(tokenizer, labels=[[5, 6, 2], [5, 2]])

    class Model:
        def prepare_decoder_input_ids_from_labels(self, labels):
            return np.where(labels == IGNORED, 1, labels)

    batch = collators.DataCollatorForSeq2Seq(tokenizer, Model())(rows)
    assert batch["labels"].tolist() == [[5, 6, 2], [5, 2, IGNORED]]
    assert batch["decoder_input_ids"].tolist() == [[5, 6, 2], [5, 2, 1]]
    assert "decoder_input_ids" not in collators.DataCollatorForSeq2Seq(tokenizer)(rows)
    wide = collators.DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=8)(rows)
    assert wide["labels"].shape == (2, 8)


def test_choices_get_an_axis(tokenizer) -> None:
    rows = []
    for label in (0, 1):
        own = tokenizer(["frage"] * 2, ["ja", "nein, auf keinen Fall"])
        rows.append({**own, "label": label})
    batch = collators.DataCollatorForMultipleChoice(tokenizer)(rows)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 2, len(rows[0]["input_ids"][1]))
    assert batch["labels"].tolist() == [0, 1] and batch["input_ids"][1, 1].tolist() == rows[1]["input_ids"][1]
    short = {name: value[:1] if name != "label" else value for name, value in rows[0].items()}
    with pytest.raises(InputError, match="as many choices for each example, received 1, 2"):
        collators.DataCollatorForMultipleChoice(tokenizer)([rows[0], short])


def test_tokens_are_hidden_anew_in_each_call_and_again_by_the_seed(tokenizer) -> None:
    rows = encoded(tokenizer) * 20
    collator = collators.DataCollatorForLanguageModeling(tokenizer, seed=5)
    one, two = collator(rows), collator(rows)
    again = collators.DataCollatorForLanguageModeling(tokenizer, seed=5)(rows)
    assert not np.array_equal(one["labels"], two["labels"]) and np.array_equal(one["labels"], again["labels"])
    np.random.seed(3)
    first = collators.DataCollatorForLanguageModeling(tokenizer)(rows)
    np.random.seed(3)
    assert np.array_equal(first["input_ids"], collators.DataCollatorForLanguageModeling(tokenizer)(rows)["input_ids"])


def test_language_modeling_hides_what_it_is_told(tokenizer) -> None:
    rows = encoded(tokenizer) * 20
    hidden = collators.DataCollatorForLanguageModeling(
        tokenizer, mlm_probability=0.5, mask_replace_prob=1.0, random_replace_prob=0.0, pad_to_multiple_of=8
    )(rows)
    where = hidden["labels"] != IGNORED
    assert (hidden["input_ids"][where] == tokenizer.mask_token_id).all()
    ordinary = sum(len(row["input_ids"]) - 2 for row in rows)
    assert where.sum() == round(0.5 * ordinary) and hidden["input_ids"].shape[1] % 8 == 0
    protected = [{**row, "special_tokens_mask": [1] * len(row["input_ids"])} for row in rows]
    protected[0]["special_tokens_mask"] = [0] * len(rows[0]["input_ids"])
    batch = collators.DataCollatorForLanguageModeling(tokenizer, mlm_probability=1.0)(protected)
    assert (batch["labels"][1:] == IGNORED).all() and (batch["labels"][0] != IGNORED).any()
    assert "special_tokens_mask" not in batch


def test_without_masks_rows_are_their_own_labels(tokenizer) -> None:
    batch = collators.DataCollatorForLanguageModeling(tokenizer, mlm=False)(
        [row["input_ids"] for row in encoded(tokenizer)]
    )
    assert (batch["labels"] == np.where(batch["attention_mask"] == 1, batch["input_ids"], IGNORED)).all()


def test_whole_words_are_hidden(tokenizer) -> None:
    text = "Universität geöffnet"
    rows = [dict(tokenizer(text))] * 30
    labels = collators.DataCollatorForWholeWordMask(tokenizer, mlm_probability=0.3, seed=0)(rows)["labels"]
    sizes = [len(tokenizer.tokenize(word)) for word in text.split()]
    for row in labels[:, 1:-1] != IGNORED:
        for part in np.split(row, [sizes[0]]):
            assert part.all() or not part.any()
    assert 0 < (labels != IGNORED).mean() < 0.9


def test_features_of_one_shape_are_stacked() -> None:
    features = [
        {"x": [1, 2], "label": 0.5, "text": "a", "none": None},
        {"x": [3, 4], "label": 1, "text": "b", "none": None},
    ]
    batch = collators.collate(features)
    assert set(batch) == {"x", "labels"} and batch["x"].tolist() == [[1, 2], [3, 4]]
    assert batch["labels"].dtype == np.float32 and collators.DefaultDataCollator()(features)["x"].shape == (2, 2)
    with pytest.raises(TokenizerError):
        collators.collate([{"x": [1, 2]}, {"x": [3]}])


@pytest.mark.parametrize("name", collators.__all__)
def test_nothing_to_make_a_batch_of_is_refused(tokenizer, name: str) -> None:
    if name == "collate":
        collator = collators.collate
    else:
        collator = getattr(collators, name)(*([] if name == "DefaultDataCollator" else [tokenizer]))
    with pytest.raises(InputError, match="expected features"):
        collator([])


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"mlm_probability": 0.0}, "mlm_probability above 0"),
        ({"mlm_probability": None}, "mlm_probability above 0"),
        ({"mask_replace_prob": 0.8, "random_replace_prob": 0.3}, "at most 1 together"),
    ],
)
def test_shares_that_cannot_be_are_refused(tokenizer, values: dict, told: str) -> None:
    with pytest.raises(InputError, match=told):
        collators.DataCollatorForLanguageModeling(tokenizer, **values)


def test_a_collator_goes_to_another_process(tokenizer) -> None:
    collator = pickle.loads(pickle.dumps(collators.DataCollatorForWholeWordMask(tokenizer, seed=1)))
    assert collator(encoded(tokenizer))["labels"].shape == (2, len(encoded(tokenizer)[1]["input_ids"]))
