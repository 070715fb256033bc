"""Losses of sentence embeddings against their formulas, parts of batches, and what is trained at which rate."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.small_runs import small_recipe
from xlmr_core.config import XLMRobertaXLConfig
from xlmr_core.training.depths import depth_of
from xlmr_core.training.parts import parts
from xlmr_torch import XLMRobertaXLForSequenceClassification
from xlmr_torch.contrastive import cosent, embedding_loss, in_batch_negatives, pooled
from xlmr_torch.optimizers import optimizer_of


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / a.norm() / b.norm())


def vectors(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def one_way(rows: list[Tensor], columns: list[Tensor], group: list[int], temperature: float) -> float:
    """Mean cross-entropy of each row against the columns, of which those of its own group do not count."""
    found = []
    for i, row in enumerate(rows):
        scores = [
            math.exp(cosine(row, column) / temperature)
            for j, column in enumerate(columns)
            if j == i or j >= len(group) or group[j] != group[i]
        ]
        found.append(-math.log(math.exp(cosine(row, columns[i]) / temperature) / sum(scores)))
    return sum(found) / len(found)


@pytest.mark.parametrize("negatives", [0, 4])
@pytest.mark.parametrize("group", [[1, 2, 3, 4], [1, 2, 1, 3]])
def test_in_batch_negatives(group: list[int], negatives: int) -> None:
    first, others = vectors(4, 6), vectors(4 + negatives, 6, seed=1)
    loss = in_batch_negatives(first, others, torch.tensor(group), 0.3)
    there = one_way(list(first), list(others), group, 0.3)
    back = one_way(list(others[:4]), list(first), group, 0.3)
    assert float(loss) == pytest.approx((there + back) / 2, rel=1e-5)


def test_texts_that_belong_to_a_query_are_no_negatives_of_it() -> None:
    # Of the pairs (a, p), (a, q), (b, r), (r, s), with the hard negatives t, p, u, s.
    texts = ["a", "a", "b", "r", "p", "q", "r", "s", "t", "p", "u", "s"]
    count = 4
    own = [{texts[i], *(texts[4 + j] for j in range(count) if texts[j] == texts[i])} for i in range(count)]
    all_of = vectors(12, 6)
    for place, text in enumerate(texts):  # the same text has the same vector
        all_of[place] = all_of[texts.index(text)]
    first, others = all_of[:4], all_of[4:]
    there = back = 0.0
    for i in range(count):
        right = math.exp(cosine(first[i], others[i]) / 0.3)
        columns = [j for j in range(8) if j == i or texts[4 + j] not in own[i]]
        there -= math.log(right / sum(math.exp(cosine(first[i], others[j]) / 0.3) for j in columns))
        rows = [j for j in range(4) if j == i or texts[4 + i] not in own[j]]
        back -= math.log(right / sum(math.exp(cosine(first[j], others[i]) / 0.3) for j in rows))
    numbers = torch.tensor([sorted(set(texts)).index(text) for text in texts])
    loss = in_batch_negatives(first, others, torch.arange(4), 0.3, numbers)
    assert float(loss) == pytest.approx((there + back) / 8, rel=1e-5)


def test_scores_order_cosines() -> None:
    first, second = vectors(4, 6), vectors(4, 6, seed=1)
    scores = [0.5, 3.0, 3.0, 1.0]
    cosines = [cosine(a, b) for a, b in zip(first, second, strict=True)]
    wrong = [math.exp((cosines[j] - cosines[i]) / 0.3) for i in range(4) for j in range(4) if scores[i] > scores[j]]
    loss = cosent(first, second, torch.tensor(scores), 0.3)
    assert float(loss) == pytest.approx(math.log(1 + sum(wrong)), rel=1e-5)
    assert float(cosent(first, second, torch.ones(4), 0.3)) == 0.0


def test_the_loss_is_taken_of_each_width() -> None:
    both, group = vectors(8, 6), torch.arange(4)
    found = embedding_loss(both, {"group": group}, 0.3, [2, 4])
    each = [in_batch_negatives(both[:4, :n], both[4:, :n], group, 0.3) for n in (2, 4, 6)]
    assert float(found) == pytest.approx(float(sum(each)) / 3, rel=1e-6)


def test_pooling() -> None:
    states = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [9.0, 9.0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert pooled(states, mask, "mean").tolist() == [[2.0, 4.0]]
    assert pooled(states.bfloat16(), mask, "cls").tolist() == [[1.0, 2.0]]


def task(name: str = "text-classification") -> Any:
    return SimpleNamespace(name=name, counted=lambda batch: int((batch["labels"] != -100).sum()))


@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_parts_of_all_processes_are_the_batch(of: int) -> None:
    labels = np.array([[1, -100], [-100, -100], [2, 3], [-100, 4], [5, 6]])
    batch = {"input_ids": np.arange(10).reshape(5, 2), "labels": labels}
    found = [one for rank in range(of) for one in parts(batch, task(), rank, 1, of)]
    assert len(found) == of and sum(share for _, share in found) == pytest.approx(1)
    counted = [part["input_ids"][:, 0] for part, share in found if share]
    rows = set(np.concatenate(counted).tolist())
    assert rows - {2} == {0, 4, 6, 8} and sum(map(len, counted)) == len(rows), "a row without labels may be left out"
    for part, share in found:
        own = (part["labels"] != -100).sum()
        assert own and share in (own / 6, 0.0)


def test_a_batch_without_labels_has_no_parts() -> None:
    batch = {"input_ids": np.zeros((3, 2), np.int64), "labels": np.full((3, 2), -100)}
    assert [*parts(batch, task(), 0, 2, 2)] == []


def test_pairs_of_a_batch_stay_together() -> None:
    batch = {"input_ids": np.arange(6)[:, None], "group": np.array([7, 8, 9])}
    found = [one for rank in range(4) for one in parts(batch, task("sentence-embedding"), rank, 1, 4)]
    assert [part["input_ids"][:, 0].tolist() for part, _ in found] == [[0, 3], [1, 4], [2, 5], [0, 3]]
    assert [part["group"].tolist() for part, _ in found] == [[7], [8], [9], [7]]
    assert {share for _, share in found} == {0.25}


def test_depths_and_decay_of_an_xl_model(tmp_path: Any) -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 8}
    model = XLMRobertaXLForSequenceClassification(XLMRobertaXLConfig(vocab_size=20, **sizes))
    recipe = small_recipe(tmp_path, layer_decay=0.5, weight_decay=0.1)
    optimizer = optimizer_of(model, recipe, 3)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        names[id(parameter)]: (group["share"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert found.keys() == set(names.values())
    assert found["roberta.embeddings.word_embeddings.weight"] == (0.0625, 0.1)
    assert found["roberta.encoder.layer.0.attention.self.query.weight"] == (0.125, 0.1)
    assert found["roberta.encoder.layer.0.attention.self.query.bias"] == (0.125, 0.0)
    assert found["roberta.encoder.layer.2.attention.self_attn_layer_norm.weight"] == (0.5, 0.0)
    assert found["roberta.encoder.LayerNorm.weight"] == (0.5, 0.0)
    assert found["classifier.out_proj.weight"] == (1.0, 0.1)
    assert found["classifier.out_proj.bias"] == (1.0, 0.0)


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("embeddings.LayerNorm.weight", 0),
        ("encoder.layer.11.output.dense.bias", 12),
        ("base_model.model.roberta.encoder.layer.3.attention.self.query.lora_A.default.weight", 4),
        ("base_model.model.classifier.modules_to_save.default.dense.weight", 13),
        ("module.roberta.pooler.dense.weight", 13),
        ("lm_head.layer_norm.bias", 13),
    ],
)
def test_depths_by_name(name: str, depth: int) -> None:
    assert depth_of(name, 12) == depth


def test_a_frozen_parameter_is_in_no_group(tmp_path: Any) -> None:
    model = nn.ModuleDict({"encoder": nn.Linear(2, 2), "classifier": nn.Linear(2, 2)})
    model["encoder"].requires_grad_(False)
    held = [p for group in optimizer_of(model, small_recipe(tmp_path), 1).param_groups for p in group["params"]]
    assert {id(parameter) for parameter in held} == {id(parameter) for parameter in model["classifier"].parameters()}
