"""How ready-made models are kept, and what they are compared with: adapters, bags of pieces, usual tags."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from weights.maker import bags, channels, delta, languages, pieces
from weights.maker.ready import READY, recipe_of
from xlmr_core import hub
from xlmr_core.training.task import Feature
from xlmr_torch import XLMRobertaForSequenceClassification, XLMRobertaModel

QUERY = "roberta.encoder.layer.0.attention.self.query"
NORM = "roberta.encoder.layer.0.output.LayerNorm"
WORDS = "roberta.embeddings.word_embeddings.weight"


def values(seed: int, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


BEFORE = values(0, **{f"{QUERY}.weight": (8, 6), f"{QUERY}.bias": (8,), f"{NORM}.weight": (8,), WORDS: (9, 6)})
BEFORE["lm_head.bias"] = np.zeros(9, np.float32)


def trained(**changes: np.ndarray) -> dict[str, np.ndarray]:
    kept = {name: value for name, value in BEFORE.items() if not name.startswith("lm_head")}
    return {**kept, "classifier.dense.weight": np.ones((6, 6), np.float32), **changes}


def test_a_difference_of_low_rank_is_kept_whole() -> None:
    random = np.random.default_rng(1)
    difference = (random.standard_normal((8, 2)) @ random.standard_normal((2, 6))).astype(np.float32)
    moved = {f"{QUERY}.weight": BEFORE[f"{QUERY}.weight"] + difference, f"{QUERY}.bias": np.ones(8, np.float32)}
    after = trained(**moved)
    adapter = delta.adapter_of(BEFORE, after, rank=2)
    prefix = f"base_model.model.{QUERY}"
    assert set(adapter.tensors) == {
        *(f"{prefix}.{name}" for name in ("lora_A.weight", "lora_B.weight", "base_layer.bias")),
        f"base_model.model.{NORM}.weight",
        "base_model.model.classifier.dense.weight",
    }
    thin, wide = (adapter.tensors[f"{prefix}.lora_{side}.weight"].astype(np.float32) for side in "BA")
    assert thin.shape == (8, 2) and wide.shape == (2, 6)
    np.testing.assert_allclose(thin @ wide, difference, atol=0.02)
    assert adapter.heads == ("classifier",) and adapter.lost < 1e-3
    config = delta.config_of(adapter, "xlmr-mini", "SEQ_CLS")
    assert (config["r"], config["lora_alpha"], config["modules_to_save"]) == (2, 2, ["classifier", "LayerNorm"])


def test_what_is_cut_off_is_told() -> None:
    after = trained(**{f"{QUERY}.weight": BEFORE[f"{QUERY}.weight"] + np.eye(8, 6, dtype=np.float32)})
    assert delta.adapter_of(BEFORE, after, rank=3).lost == pytest.approx(0.5**0.5, abs=1e-3)
    assert delta.adapter_of(BEFORE, after, rank=6).lost < 1e-3


def test_an_encoder_alone_has_shorter_names() -> None:
    after = {name.removeprefix("roberta."): value for name, value in trained().items() if name.startswith("roberta.")}
    adapter = delta.adapter_of(BEFORE, after, rank=2)
    assert not adapter.heads and set(adapter.tensors) == {"base_model.model.encoder.layer.0.output.LayerNorm.weight"}


def test_what_is_added_to_the_embeddings_has_a_low_rank() -> None:
    random = np.random.default_rng(1)
    added = (random.standard_normal((9, 2)) @ random.standard_normal((2, 6))).astype(np.float32)
    adapter = delta.adapter_of(BEFORE, trained(**{WORDS: BEFORE[WORDS] + added}), rank=4)
    prefix = "base_model.model.roberta.embeddings.word_embeddings.lora_embedding"
    rows, columns = (adapter.tensors[f"{prefix}_{side}"].astype(np.float32) for side in "AB")
    assert rows.shape == (2, 9) and columns.shape == (6, 2) and adapter.lost == 0
    np.testing.assert_allclose((columns @ rows).T, added, atol=0.02)
    config = delta.config_of(adapter, "xlmr-mini", "SEQ_CLS")
    assert config["r"] == 4 and config["rank_pattern"] == config["alpha_pattern"] == {"word_embeddings": 2}


def test_embeddings_are_shared() -> None:
    added = np.random.default_rng(1).standard_normal((9, 6)).astype(np.float32)
    with pytest.raises(ValueError, match=r"word_embeddings.weight was trained.*freeze_embeddings"):
        delta.adapter_of(BEFORE, trained(**{WORDS: BEFORE[WORDS] + added}), rank=2)


@pytest.mark.parametrize("width", [0, 4])
def test_a_bag_learns_which_pieces_tell_a_label(width: int) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 90)
    rows = [np.append(random.integers(10, 13, random.integers(1, 4)), 4 + label) for label in labels]
    bag = pieces.bag_of(rows, labels, 30, 3, width, epochs=300)
    assert (pieces.logits_of(bag, rows).argmax(axis=1) == labels).mean() > 0.95
    assert not bag.vectors[:4].any(), "of a piece that no text has nothing is learned"


def test_a_text_is_the_sum_of_its_pieces_whatever_their_order() -> None:
    vectors = torch.from_numpy(values(0, vectors=(9, 2))["vectors"])
    found = pieces.sums(vectors, [np.array([4, 5, 5, 6]), np.array([7])])
    torch.testing.assert_close(found, torch.stack([(vectors[4] + 2 * vectors[5] + vectors[6]) / 2, vectors[7]]))
    torch.testing.assert_close(pieces.sums(vectors, [np.array([5, 6, 4, 5])])[0], found[0])


def test_the_rate_falls_over_all_steps_and_each_row_is_read_as_often() -> None:
    shares, numbers = zip(*pieces.batches(10, 4, 2, seed=0), strict=True)
    assert shares == pytest.approx([1 - step / 6 for step in range(6)])
    assert sorted(np.concatenate(numbers).tolist()) == sorted([*range(10)] * 2)


def start_with(vectors: np.ndarray, counts: np.ndarray, folder: Path) -> dict[str, np.ndarray]:
    channels.write_start(vectors, counts, folder)
    return delta.values_of(folder)


def test_vectors_reach_the_last_layer_in_channels_of_their_own(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    vectors, counts = np.zeros((32000, 3), np.float32), np.zeros(32000, np.int64)
    counts[50:150] = random.integers(1, 9, 100)
    vectors[50:150] = random.standard_normal((100, 3))
    after = start_with(vectors, counts, tmp_path / "start")
    assert [path.name for path in tmp_path.iterdir()] == ["start"] and (tmp_path / "start" / "tokenizer.json").is_file()
    model = XLMRobertaModel.from_pretrained(tmp_path / "start", add_pooling_layer=False).eval()
    ids = torch.from_numpy(random.integers(50, 150, (4, 20)))
    with torch.no_grad():
        states = model(input_ids=ids).last_hidden_state.flatten(0, 1)
    before = delta.values_of(hub.resolve("xlmr-mini"))
    own = np.flatnonzero((before[WORDS] != after[WORDS])[200:].any(axis=0))
    assert len(own) == 3
    # A norm moves the channels of a token together; what tells one from another stays.
    found = states[:, own] - states[:, own].mean(dim=1, keepdim=True)
    expected = torch.from_numpy(vectors[ids.flatten()])
    expected = expected - expected.mean(dim=1, keepdim=True)
    alike = torch.nn.functional.cosine_similarity(found, expected)
    assert alike.median() > 0.95
    others = np.setdiff1d(np.arange(states.shape[1]), own)
    assert states[:, own].std() == pytest.approx(float(states[:, others].std()), rel=0.3)


def test_a_classifier_starts_with_what_the_channels_tell(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    counts, labels = np.zeros(32000, np.int64), random.integers(0, 3, 120)
    counts[50:150] = 1
    vectors = values(0, vectors=(32000, 3))["vectors"]
    vectors[50:150] = random.standard_normal((100, 3)) / 9
    vectors[50:53] += 3 * np.eye(3)  # a piece of each label, in texts of others
    rows = [np.append(random.integers(53, 150, random.integers(2, 9)), 50 + label) for label in labels]
    channels.write_start(vectors, counts, tmp_path / "start", channels.Labelled(rows, labels, 3))
    model = XLMRobertaForSequenceClassification.from_pretrained(tmp_path / "start", num_labels=3).eval()
    ids = [torch.tensor([0, *row, 2]) for row in rows]
    with torch.no_grad():
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=1)
        told = model(input_ids=padded, attention_mask=(padded != 1).long()).logits.argmax(dim=1)
    assert (told.numpy() == labels).mean() > 0.9
    # The head knows nothing else yet: its other units say nothing.
    assert not model.classifier.out_proj.weight[:, 3:].any() and model.classifier.dense.weight[3:].any()


def test_channels_are_an_adapter_of_low_rank(tmp_path: Path) -> None:
    vectors, counts = values(0, vectors=(32000, 3))["vectors"], np.ones(32000, np.int64)
    after = start_with(vectors, counts, tmp_path / "start")
    again = start_with(np.roll(vectors, 1, axis=0), counts, tmp_path / "start")  # of another maker: the first stays
    assert all(np.array_equal(after[name], again[name]) for name in after)
    adapter = delta.adapter_of(delta.values_of(hub.resolve("xlmr-mini")), after, rank=3)
    assert adapter.lost < 1e-3 and adapter.words == 3 and not adapter.heads


def test_lines_for_the_encoder_have_the_shares_of_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"de": 90, "en": 90, "az": 40}

    def lines(path: Path) -> list[str]:
        language = path.name[:2]
        return [f"{language} word{number} {'long ' * number}"[:400] for number in range(counts[language])]

    monkeypatch.setattr(languages.corpus, "lines", lines)
    known = [{"label": label, "lang": label} for label in ["de"] * 3 + ["en"] * 9]
    monkeypatch.setattr(languages, "rows_of", lambda path: known)
    for name, value in {"MORE_LANGUAGES": ("az",), "TIMES": 7, "OF_MORE": 11}.items():
        monkeypatch.setattr(languages, name, value)
    of_bag: list[int] = []
    bag_of = pieces.bag_of
    monkeypatch.setattr(pieces, "bag_of", lambda rows, *rest: (of_bag.append(len(rows)), bag_of(rows, *rest))[1])
    languages.prepare(tmp_path, tmp_path, tmp_path / "start")
    rows = [json.loads(line) for line in (tmp_path / languages.LINES_FILE).read_text().splitlines()]
    # Seven for each row of the data, but no more than half of the lines; eleven of the language that it lacks.
    assert Counter(row["label"] for row in rows) == {"de": 21, "en": 45, "az": 11}
    assert of_bag == [sum(counts.values()) - len(rows)], "what the encoder reads the bag did not"
    assert max(len(row["text"]) for row in rows) == languages.LONGEST
    assert (tmp_path / languages.OTHERS_FILE).read_text() == ""
    assert (tmp_path / "start" / "model.safetensors").is_file()


def test_pieces_are_counted_without_order_and_by_side() -> None:
    rows = [[0, 5, 7, 5, 2], [0, 5, 2, 2, 7, 2]]
    found = bags.counts([Feature({"input_ids": np.array(row)}) for row in rows], 10).toarray()
    assert {*np.flatnonzero(found[0])} == {5, 7} and found[0, 5] == pytest.approx(2 * found[0, 7])
    assert {*np.flatnonzero(found[1])} == {5, 17}
    np.testing.assert_allclose((found**2).sum(axis=1), 1, rtol=1e-6)


def test_a_word_has_its_usual_tag() -> None:
    def examples(*rows: tuple[str, list[str], list[str]]) -> list[dict[str, object]]:
        return [{"language": language, "tokens": tokens, "tags": tags} for language, tokens, tags in rows]

    train = examples(("de", ["die", "Rose"], ["DET", "NOUN"]), ("en", ["die", "die"], ["VERB", "VERB"]))
    test = examples(("de", ["die", "Katze"], ["DET", "NOUN"]), ("fr", ["die"], ["VERB"]))
    spoken = [row["language"] for row in test]
    run = SimpleNamespace(batches=SimpleNamespace(features=SimpleNamespace(examples=train)))
    features = SimpleNamespace(examples=test, language_of=lambda number: spoken[number])
    task = SimpleNamespace(name="token-classification", problem="", labels=("DET", "NOUN", "VERB"), metric="f1")
    found = bags.tag_of_word(run)(SimpleNamespace(features=features, task=task))
    # `Katze` is nowhere, and most words are verbs.
    assert found.languages["de"]["accuracy"] == 0.5 and found.languages["fr"]["accuracy"] == 1.0


@pytest.mark.parametrize("name", READY)
def test_every_model_has_its_recipe_and_its_comparison(name: str) -> None:
    ready = READY[name]
    recipe = recipe_of(ready, Path("data"), Path("work"))
    assert recipe.freeze_embeddings and recipe.train and recipe.test and ready.baseline in bags.BASELINES
    assert recipe.model == (f"work/{ready.start}" if ready.start else "xlmr-mini")
