"""How ready-made models are kept, and what they are compared with: adapters, bags of pieces, usual tags."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from weights.maker import bags, delta
from weights.maker.ready import READY, recipe_of
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


def test_embeddings_are_shared() -> None:
    with pytest.raises(ValueError, match=r"word_embeddings.weight was trained.*freeze_embeddings"):
        delta.adapter_of(BEFORE, trained(**{WORDS: BEFORE[WORDS] + 1}), rank=2)


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
    languages = [row["language"] for row in test]
    run = SimpleNamespace(batches=SimpleNamespace(features=SimpleNamespace(examples=train)))
    features = SimpleNamespace(examples=test, language_of=lambda number: languages[number])
    task = SimpleNamespace(name="token-classification", problem="", labels=("DET", "NOUN", "VERB"), metric="f1")
    found = bags.tag_of_word(run, SimpleNamespace(features=features, task=task))
    # `Katze` is nowhere, and most words are verbs.
    assert found.languages["de"]["accuracy"] == 0.5 and found.languages["fr"]["accuracy"] == 1.0


@pytest.mark.parametrize("name", READY)
def test_every_model_has_its_recipe_and_its_comparison(name: str) -> None:
    recipe = recipe_of(READY[name], Path("data"), Path("work"))
    assert recipe.freeze_embeddings and recipe.train and recipe.test and READY[name].baseline in bags.BASELINES
