"""How ready-made models are kept, and what they are compared with: adapters, bags of pieces, usual tags."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from weights.maker import bags, channels, delta, languages, parallel, pieces
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


def test_a_head_begins_with_looking_for_the_same_piece(tmp_path: Path) -> None:
    vectors = values(0, vectors=(32000, 16))["vectors"]
    channels.write_start(vectors, np.ones(32000, np.int64), tmp_path / "start", matching=True)
    model = XLMRobertaModel.from_pretrained(
        tmp_path / "start", add_pooling_layer=False, attn_implementation="eager"
    ).eval()
    text = torch.tensor([[0, 500, 600, 2, 2, 700, 800, 600, 900, 2]])
    with torch.no_grad():
        found = model(input_ids=text, output_attentions=True).attentions
    looks = torch.stack([layer[0, :, 2, 7] for layer in found])  # from a word of the question to that of the text
    assert (looks[: channels.MATCHING].max(dim=1).values > 0.4).all() and looks[channels.MATCHING :].max() < 0.4


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


def test_lines_are_aligned_in_their_order() -> None:
    gain = np.full((6, 5), -1.0, np.float32)
    right = [(0, 0), (2, 1), (3, 3), (5, 4)]
    for place in right:
        gain[place] = 5
    gain[4, 0] = 9  # not in the order of all others
    gain[1, 2] = parallel.CHANCE / 2
    assert parallel.aligned(gain) == right
    assert parallel.aligned(np.full((2, 3), -1.0, np.float32)) == []


def test_translations_are_found_in_lines_of_the_same_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["Ada Lovelace", "Berlin 1871", "Kilimanjaro", "COVID-19", "Mozart 1756", "Titanic", "Everest 8848"]
    lines = {
        "en": ["not a translation", *(f"This sentence is about {name}." for name in names), "GitHub has a guide."],
        "de": ["", *(f"Dieser Satz handelt von {name}." for name in names[1:]), "GitHub has a guide."],
    }
    places = {"train": {"sources": [{"source": "tico19", "first_line": 1, "end_line": 9}]}}
    places["train"]["sources"].append({"source": "common_voice", "first_line": 0, "end_line": 1})
    monkeypatch.setattr(parallel.corpus, "lines", lambda path: lines[path.name[:2]])
    question = {"id": "7", "lang": "de", "question": "Wo?", "src": "xquad"}
    monkeypatch.setattr(languages, "rows_of", lambda path: [question, {**question, "src": "drcd"}])
    (tmp_path / "pretrain").mkdir()
    (tmp_path / "pretrain" / "manifest.json").write_text(json.dumps({"langs": {"de": places, "en": places}}))
    parallel.write_parallel(tmp_path, tmp_path / "rows", np.zeros((32000, 2), np.float32))
    rows = [json.loads(line) for line in (tmp_path / "rows").read_text(encoding="utf-8").splitlines()]
    assert rows[0] == {"id": "xquad 7", "lang": "de", "text": "Wo?"} and len(rows) == 1 + 8 + 6
    english = {row["id"]: row["text"] for row in rows if row["lang"] == "en"}
    german = [row for row in rows[1:] if row["lang"] == "de"]
    # What was not translated is no translation.
    assert [row["text"].rpartition(" von ")[2] for row in german] == [f"{name}." for name in names[1:]]
    assert all(english[row["id"]].endswith(row["text"].rpartition(" von ")[2]) for row in german)


def test_translations_get_vectors_that_are_alike(tmp_path: Path) -> None:
    words = {"en": ["sun", "rain", "snow", "wind", "stone"], "de": ["Sonne", "Regen", "Schnee", "Wind", "Stein"]}
    rows = [{"id": str(n), "lang": code, "text": text[n % 5]} for n in range(400) for code, text in words.items()]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({**row, "id": str(n // 2 % 5)}) + "\n" for n, row in enumerate(rows)))
    recipe = recipe_of(READY["sentences"], tmp_path, tmp_path).replace(train=[file], test=())
    vectors, counts = pieces.of_parallel(recipe, 8, steps=60)
    pieces.write_vectors(tmp_path / "kept.npz", vectors, counts)
    again, _ = pieces.read_vectors(tmp_path / "kept.npz")
    units = torch.nn.functional.normalize(
        torch.stack([pieces.sums(torch.from_numpy(again), languages.ids_of(own)[0]) for own in words.values()]), dim=-1
    )
    assert (units[0] @ units[1].T).argmax(dim=1).tolist() == [0, 1, 2, 3, 4]
    assert counts.sum() > 0 and not vectors[counts == 0].any()


def test_the_words_around_which_those_of_the_question_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    def feature(question: list[int], context: list[int], start: int = 0, end: int = 0) -> Feature:
        ids = np.array([0, *question, 2, 2, *context, 2])
        return Feature({"input_ids": ids, "start_positions": np.array(start), "end_positions": np.array(end)})

    context = [*range(300, 330), 100, 101, 7, 8, 102, *range(330, 350)]
    rows = [feature([100, 101, 102], context, 5, 6), feature([5], [9, 5, 9], 4, 5), *[feature([5], [9])] * 7]
    seen: list[dict[str, np.ndarray]] = []

    class Judging:
        def __init__(self, *given: object) -> None: ...

        def measured(self, test: object, predict: Any) -> None:
            seen.append(predict({"input_ids": np.stack([row.arrays["input_ids"] for row in rows[:1]])}))

    monkeypatch.setattr(bags, "Judge", Judging)
    monkeypatch.setattr(bags, "_all", lambda features: rows)
    bags.words_of_question(SimpleNamespace(batches=SimpleNamespace(features=()), recipe=None, task=None))(None)
    (sides,) = seen
    first = 1 + 3 + 2 + 32
    assert [int(side.argmax()) for side in sides.values()] == [first, first + 1]


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
