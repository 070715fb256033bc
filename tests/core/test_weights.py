"""The built-in checkpoint: whole, within its limits, with a vocabulary for all its languages."""

from __future__ import annotations

import hashlib
import json
import re
import statistics
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from safetensors import safe_open

from tests.ready_made import CALLS
from weights.maker import corpus, rows
from weights.maker.manifest import hashes
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.hub import BUILT_IN
from xlmr_core.tasks import ALIASES, TASKS

WEIGHTS = Path(__file__).resolve().parents[2] / "weights"
MINI = WEIGHTS / "xlmr-mini"
MANIFEST: dict[str, Any] = json.loads((WEIGHTS / "manifest.json").read_text(encoding="utf-8"))["xlmr-mini"]
FILES: dict[str, dict[str, Any]] = MANIFEST["files"]
EVALUATION: dict[str, Any] = json.loads((MINI / "evaluation.json").read_text(encoding="utf-8"))

# One ordinary sentence in each of many scripts; none may need <unk>.
SENTENCES = {
    "en": "Plants create food through a process known as photosynthesis.",
    "fr": "Bonjour, je suis un modèle de langue.",
    "de": "Die größten Häuser stehen am Fluss.",
    "ru": "Мы живём в большом городе.",
    "el": "Η Αθήνα είναι η πρωτεύουσα της Ελλάδας.",
    "ar": "هذا كتاب جديد.",
    "he": "זה ספר חדש.",
    "hi": "यह एक नई किताब है।",
    "bn": "এটি একটি নতুন বই।",
    "ta": "இது ஒரு புதிய புத்தகம்.",
    "te": "ఇది ఒక కొత్త పుస్తకం.",
    "th": "นี่คือหนังสือเล่มใหม่",
    "ka": "ეს ახალი წიგნია.",
    "hy": "Սա նոր գիրք է։",
    "am": "ይህ አዲስ መጽሐፍ ነው።",
    "km": "នេះជាសៀវភៅថ្មី។",
    "my": "ဒါက စာအုပ်အသစ်ပါ။",
    "zh": "这是一本新书。",
    "ja": "これは新しい本です。",
    "ko": "이것은 새로운 책입니다.",
    "vi": "Đây là một quyển sách mới.",
}


@pytest.fixture(scope="module")
def spm() -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(MINI / "sentencepiece.bpe.model"))


def test_every_file_is_in_the_manifest() -> None:
    assert {path.name for path in MINI.iterdir()} == set(FILES)
    expected = {
        "config.json",
        "model.safetensors",
        "sentencepiece.bpe.model",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert expected | {"special_tokens_map.json", "README.md", "SOURCES.md", "evaluation.json"} <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_files_are_the_published_ones(name: str) -> None:
    content = (MINI / name).read_bytes()
    assert len(content) == FILES[name]["bytes"]
    assert hashlib.sha256(content).hexdigest() == FILES[name]["sha256"]


def test_size_limits() -> None:
    with safe_open(MINI / "model.safetensors", framework="numpy") as tensors:
        slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118, it is no mapping
        stored = sum(prod(part.get_shape()) for part in slices.values())
        assert {part.get_dtype() for part in slices.values()} == {"F16"}
    assert MANIFEST["parameters"] == stored <= 12_000_000
    assert FILES["model.safetensors"]["bytes"] <= 24_000_000


def test_weights_are_finite_and_trained() -> None:
    with safe_open(MINI / "model.safetensors", framework="numpy") as tensors:
        for name in tensors.keys():  # noqa: SIM118
            values = tensors.get_tensor(name).astype(np.float32)
            assert np.isfinite(values).all(), name
            assert values.std() > 0 or values.size == 1, f"{name} is constant"


def test_config_fits_weights_and_vocabulary(spm: sentencepiece.SentencePieceProcessor) -> None:
    config = XLMRobertaConfig.from_pretrained(MINI)
    assert config.vocab_size == spm.get_piece_size() + 2
    assert config.vocab_size % 64 == 0
    assert config.max_position_embeddings == 514
    assert config.type_vocab_size == 1
    with safe_open(MINI / "model.safetensors", framework="numpy") as tensors:
        words = tensors.get_slice("roberta.embeddings.word_embeddings.weight").get_shape()
    assert words == [config.vocab_size, config.hidden_size]


def test_vocabulary_starts_like_xlm_roberta(spm: sentencepiece.SentencePieceProcessor) -> None:
    assert [spm.id_to_piece(i) for i in range(3)] == ["<unk>", "<s>", "</s>"]
    assert spm.id_to_piece(3) == "▁"


def test_tokenizer_json_holds_the_same_pieces(spm: sentencepiece.SentencePieceProcessor) -> None:
    vocabulary = json.loads((MINI / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    pieces = [piece for piece, _ in vocabulary]
    assert pieces[:4] == ["<s>", "<pad>", "</s>", "<unk>"]
    assert pieces[4:-1] == [spm.id_to_piece(i) for i in range(3, spm.get_piece_size())]
    assert pieces[-1] == "<mask>"


@pytest.mark.parametrize("language", SENTENCES)
def test_vocabulary_knows_the_scripts(spm: sentencepiece.SentencePieceProcessor, language: str) -> None:
    (ids,) = rows.encode(spm, [SENTENCES[language]])
    assert rows.UNK not in ids
    assert len(ids) <= len(SENTENCES[language]), "less than a character a token: the script is not in the vocabulary"


def test_unknown_characters_are_rare_in_held_out_text(spm: sentencepiece.SentencePieceProcessor, shared: Path) -> None:
    for path in sorted((shared / "data" / "pretrain" / "dev").glob("*.txt.xz")):
        ids = [i for row in rows.encode(spm, corpus.lines(path)) for i in row]
        assert ids.count(rows.UNK) <= 0.015 * len(ids), path.name


def test_above_the_baseline_wherever_it_can_be_told() -> None:
    """Every language learned something, most of them much. A better checkpoint should raise these numbers."""
    told = {code: row for code, row in EVALUATION["languages"].items() if row["masked"] >= EVALUATION["enough"]}
    assert len(told) >= 60
    times = {code: row["accuracy"] / row["baseline"] for code, row in told.items()}
    assert not {code: ratio for code, ratio in times.items() if ratio < 2}
    assert sum(ratio >= 3 for ratio in times.values()) >= 0.85 * len(times)
    assert statistics.median(times.values()) >= 4


def test_a_typed_mask_is_answered_with_the_word_or_with_a_word() -> None:
    """What people see: a better checkpoint should raise these numbers too."""
    told = {code: row for code, row in EVALUATION["languages"].items() if row["words"] >= EVALUATION["enough"]}
    assert len(told) >= 20
    assert EVALUATION["all"]["first"] >= 0.2 and EVALUATION["all"]["in_five"] >= 0.4
    for text in (
        "Plants create <mask> through a process known as photosynthesis.",
        "Bonjour, je suis un modèle <mask>.",
    ):
        answers = EVALUATION["sentences"][text]
        assert answers[0].startswith("▁") and answers[0][1:].isalpha()
        assert sum(answer.startswith("▁") and answer[1:].isalpha() for answer in answers) >= 4


def test_card_names_licence_languages_and_figures() -> None:
    text = (MINI / "README.md").read_text(encoding="utf-8")
    header = text.split("---")[1]
    assert "license: cc-by-sa-4.0" in header
    assert len(re.findall(r'"[\w-]+"', header)) == 97
    for code, row in EVALUATION["languages"].items():
        if row["masked"] >= EVALUATION["enough"]:
            assert f"| {code} |" in text
    assert "$" not in text, "an unfilled place of the template"


def test_card_says_how_often_text_was_read(shared: Path) -> None:
    read = corpus.passes_in_all(MANIFEST["training"], corpus.characters(shared / "data" / "pretrain"))
    text = (MINI / "README.md").read_text(encoding="utf-8")
    said = dict(
        re.findall(
            r"\b([a-z]{2,3}(?:-Hant)?) (\d+\.\d)\b", re.search(r"more than 4 times: (.*?)\.\s\(", text, re.DOTALL)[1]
        )
    )
    assert said == {code: f"{times:.1f}" for code, times in read.items() if times > corpus.MOST_PASSES}
    assert f"the largest language was read {min(read.values()):.1f} times" in " ".join(text.split())


def test_passes_add_up_over_runs() -> None:
    counts = {"large": 1_000_000, "middle": 100_000, "thin": 100}
    runs = [{"largest": 0.5, "share_of_rows": 1.0}, {"largest": 1.0, "share_of_rows": 0.5}]
    read = corpus.passes_in_all(runs, counts)
    assert list(read) == ["thin", "middle", "large"]
    assert read == pytest.approx({"thin": 4 + 4 / 2, "middle": 10**0.3, "large": 1.0})


def test_sampling_follows_the_power_and_caps_thin_languages() -> None:
    passes = corpus.passes({"large": 1_000_000, "middle": 100_000, "thin": 100})
    assert passes["large"] == 1.0
    assert passes["middle"] == pytest.approx(10**0.3)
    assert passes["thin"] == corpus.MOST_PASSES


def test_packing_keeps_text_in_order_and_within_limits() -> None:
    import random

    lines = [[100 + i] * (3 + i % 5) for i in range(200)] + [[9] * 900]
    packed = rows.pack(lines, rows.DOCUMENT_LENGTHS, random.Random(0))
    assert all(row[0] == rows.BOS and row[-1] == rows.EOS and len(row) <= rows.LONGEST for row in packed)
    flat = [i for row in packed for i in row[1:-1]]
    assert flat == [i for line in lines for i in line][: len(flat)]
    assert len(flat) == sum(map(len, lines)) - 900 + (rows.LONGEST - 2)
    assert len({len(row) for row in packed}) > 3


def _small_rows() -> rows.Rows:
    lengths = np.random.default_rng(1).integers(3, 40, size=300)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.arange(starts[-1], dtype=np.uint16)
    return rows.Rows(ids, starts, np.zeros(300, dtype=np.uint8), ["xx"])


def test_rows_keep_their_ids() -> None:
    small = _small_rows()
    for feature, row in zip(small.take([5, 9]), (5, 9), strict=True):
        assert feature.arrays["input_ids"].tolist() == list(range(small.starts[row], small.starts[row + 1]))
        assert feature.length == small.lengths[row]
    assert small.kinds.shape == (len(small),) and not small.kinds.any()


def test_hiding_knows_the_vocabulary_of_the_file(spm: sentencepiece.SentencePieceProcessor) -> None:
    hiding = rows.hiding_of(MINI / "sentencepiece.bpe.model")
    size = spm.get_piece_size() + 2
    assert (hiding.vocabulary.mask, hiding.vocabulary.pad) == (size - 1, rows.PAD)
    assert np.flatnonzero(~hiding.vocabulary.ordinary).tolist() == [*range(rows.SPECIAL + 1), size - 1]
    lone, full_stop = (spm.piece_to_id(piece) + rows.OFFSET for piece in ("▁", "."))
    assert hiding.words.begins[lone] and not hiding.words.letters[full_stop]
    assert hiding.opens[full_stop] in (-lone, spm.piece_to_id("▁.") + rows.OFFSET)


READY_MADE = [name for name in BUILT_IN if name != MINI.name]


@pytest.mark.parametrize("name", READY_MADE)
def test_a_ready_made_model_is_small_and_the_published_one(name: str) -> None:
    manifest = json.loads((WEIGHTS / "manifest.json").read_text(encoding="utf-8"))
    # Its changes are those of these very weights: with others all have to be made again.
    assert manifest[name]["made of"] == {MINI.name: FILES["model.safetensors"]["sha256"]}
    assert hashes(WEIGHTS / name) == manifest[name]["files"]
    assert manifest[name]["files"]["adapter_model.safetensors"]["bytes"] <= 8_000_000


@pytest.mark.parametrize("name", READY_MADE)
def test_a_ready_made_model_is_above_its_baseline_and_says_so(name: str) -> None:
    evaluation = json.loads((WEIGHTS / name / "evaluation.json").read_text(encoding="utf-8"))
    card = (WEIGHTS / name / "README.md").read_text(encoding="utf-8")
    metric = evaluation["metric"]
    found = []
    for title, test in evaluation["tests"].items():
        assert title in card
        model, baseline = (test[side]["all"][metric] for side in ("model", "baseline"))
        found.append(model - baseline)
        assert f"| **all** | {test['examples']} | {model:.3f} | {baseline:.3f} |" in card
        assert all(f"| {language} | {count} |" in card for language, count in test["counts"].items())
    assert sum(found) > 0, "above it on the mean of its tests"
    assert "license: cc-by-sa-4.0" in card and "$" not in card


def test_each_ready_made_model_is_that_of_a_task_and_is_asked_by_a_test() -> None:
    of_tasks = {name: row.model for name, row in {**TASKS, **ALIASES}.items() if row.model not in ("", MINI.name)}
    assert {task: call["model"] for task, call in CALLS.items()} == of_tasks
    assert {*of_tasks.values()} == {*READY_MADE}


@pytest.mark.parametrize("page", ["docs/ready-made.md", "weights/README.md"])
def test_pages_have_the_figures_of_the_evaluations(page: str) -> None:
    text = (WEIGHTS.parent / page).read_text(encoding="utf-8")
    for name in READY_MADE:
        evaluation = json.loads((WEIGHTS / name / "evaluation.json").read_text(encoding="utf-8"))
        (row,) = [line for line in text.splitlines() if line.startswith(f"| [`{name}`]")]
        for test in evaluation["tests"].values():
            for side in ("model", "baseline"):
                assert f"{test[side]['all'][evaluation['metric']]:.3f}" in row


def test_all_that_comes_with_the_library_stays_small() -> None:
    sizes = [path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(sizes) <= 60_000_000
