"""How ready-made models are kept, and what they are compared with: adapters, bags of pieces, usual tags."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from weights.maker import bags, delta, languages, pieces
from weights.maker.ready import READY, recipe_of
from xlmr_core import hub
from xlmr_core.training.task import Feature

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


def test_vectors_are_added_along_the_directions_that_texts_use_least(tmp_path: Path) -> None:
    vectors, counts = np.zeros((32000, 2), np.float32), np.zeros(32000, np.int64)
    vectors[100], counts[50:150] = (1, 2), 1
    pieces.write_start(vectors, counts, tmp_path / "start")
    pieces.write_start(np.roll(vectors, 1, axis=0), counts, tmp_path / "start")  # of another maker: the first stays
    assert [path.name for path in tmp_path.iterdir()] == ["start"]
    before, after = (delta.values_of(folder) for folder in (hub.resolve("xlmr-mini"), tmp_path / "start"))
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {pieces.WORDS} and (tmp_path / "start" / "tokenizer.json").is_file()
    words, added = before[pieces.WORDS], after[pieces.WORDS] - before[pieces.WORDS]
    assert {*np.flatnonzero(added.any(axis=1))} == {100}
    # One of a hundred pieces is changed, so that on the average the lengths are in this ratio.
    length = np.sqrt((words[50:150] ** 2).sum(axis=1).mean())
    assert np.linalg.norm(added[100]) == pytest.approx(10 * pieces.SHARE * length, rel=1e-3)
    along = (words[50:150] - words[50:150].mean(axis=0)) @ (added[100] / np.linalg.norm(added[100]))
    assert along.var() < np.quantile(words[50:150].var(axis=0), 0.2)


def test_doubtful_lines_are_chosen_by_their_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)

    def lines(path: Path) -> list[str]:
        # The last tenth stands in both languages, and by nothing can be told.
        own = [f"{path.name[:2]} word{random.integers(9)} {number}" for number in range(90)]
        return [*own, *(f"both {number}" for number in range(10))]

    monkeypatch.setattr(languages.corpus, "lines", lines)
    known = [{"label": language, "lang": language} for language in ("de", "en")]
    monkeypatch.setattr(languages, "rows_of", lambda path: known)
    monkeypatch.setattr(languages, "MORE_LANGUAGES", ())
    both = languages.ids_of(["both"])[0][0][0]
    monkeypatch.setattr(pieces, "logits_of", lambda bag, rows: np.array([[0.0, 9 * (both not in row)] for row in rows]))
    for name, number in {"UNSURE": 6, "OTHERS": 4, "LEAST": 3}.items():
        monkeypatch.setattr(languages, name, number)
    languages.prepare(tmp_path, tmp_path, tmp_path / "start")
    rows = [json.loads(line) for line in (tmp_path / languages.LINES_FILE).read_text().splitlines()]
    assert 10 <= len(rows) <= 16 and {row["label"] for row in rows} == {"de", "en"}
    doubtful = [row for row in rows if row["text"].startswith("both")]
    assert len(doubtful) >= 4 and {row["label"] for row in doubtful} == {"de", "en"}
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
