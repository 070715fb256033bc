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

from weights.maker import corpus, masking, rows
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.tokenization import XLMRobertaTokenizerFast

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


@pytest.mark.parametrize("rate", [0.15, 0.5])
def test_masking_hides_ordinary_tokens_only(rate: float) -> None:
    ids = np.tile(np.array([0, *range(4, 44), 3, 2, 1, 1]), (50, 1))
    fed, labels = masking.mask(ids, 1000, rate, np.random.default_rng(0))
    hidden = labels != masking.IGNORED
    assert hidden.sum() == round(rate * 50 * 40)
    assert (labels[hidden] == ids[hidden]).all() and (ids[hidden] > rows.UNK).all()
    assert (fed[~hidden] == ids[~hidden]).all()
    share = (fed[hidden] == 999).mean()
    assert 0.72 < share < 0.88
    assert 0.05 < (fed[hidden] == ids[hidden]).mean() < 0.16


def _small_rows() -> rows.Rows:
    lengths = np.random.default_rng(1).integers(3, 40, size=300)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.arange(starts[-1], dtype=np.uint16)
    return rows.Rows(ids, starts, np.zeros(300, dtype=np.uint8), ["xx"])


@pytest.mark.parametrize("seed", range(5))
def test_whole_words_are_hidden_wholly(seed: int) -> None:
    tokens = np.arange(1000)
    about = rows.Words(begins=tokens < 500, letters=tokens >= 0, opens=tokens)
    rng = np.random.default_rng(seed)
    # Words of one, two and three tokens, with a row's end between them, and a long run that is none.
    words = [[int(rng.integers(10, 500)), *rng.integers(500, 999, size=length)] for length in [0, 1, 2] * 20]
    run = [10, *range(600, 600 + 2 * masking.LONGEST_WORD)]
    halves = [[0, *(token for word in half for token in word), 2] for half in (words[:30], [*words[30:], run])]
    ids = np.full((2, max(map(len, halves))), rows.PAD)
    for row, half in zip(ids, halves, strict=True):
        row[: len(half)] = half
    _, labels = masking.mask(ids, 1000, 0.3, rng, about)
    hidden = (labels != masking.IGNORED).reshape(-1)
    flat = ids.reshape(-1)
    assert not hidden[flat <= masking.SPECIAL].any() and (labels.reshape(-1)[hidden] == flat[hidden]).all()
    assert 0.3 <= hidden.sum() / (flat > masking.SPECIAL).sum() <= 0.3 + 3 / len(flat)
    place = {tuple(word): [] for word in words}
    for row, half in enumerate((words[:30], words[30:])):
        at = row * ids.shape[1] + 1
        for word in half:
            place[tuple(word)].append(hidden[at : at + len(word)])
            at += len(word)
    seen = [part for parts in place.values() for part in parts]
    assert all(part.all() or not part.any() for part in seen) and any(part.all() for part in seen if len(part) == 3)
    run_hidden = hidden[np.flatnonzero(flat == 600)[-1] - 1 :][: len(run)]
    assert len(run_hidden) == len(run) and not run_hidden.all()


def test_words_are_words_of_the_language() -> None:
    """Read off real tokens: punctuation is no word and ends one, a lone `▁` and a vowel sign belong to theirs."""
    tokenizer = XLMRobertaTokenizerFast.from_pretrained(MINI)
    about = rows.words_of(MINI / "sentencepiece.bpe.model")
    for text, expected in {
        "They build universities.": ["▁They", "▁build", "▁universities"],
        "l'eau, (it)": ["▁l", "eau", "it"],
        "no ( ... 2004!": ["▁no", "▁2004"],
        "की मॉडल": ["▁की", "▁मॉडल"],
    }.items():
        ids = np.array([tokenizer(text)["input_ids"]])
        pieces = tokenizer.convert_ids_to_tokens(ids[0].tolist())

        def hidden(rate: float, seed: int, ids: np.ndarray = ids) -> tuple[int, ...]:
            _, labels = masking.mask(ids, len(about.begins), rate, np.random.default_rng(seed), about)
            return tuple(np.flatnonzero(labels[0] != masking.IGNORED).tolist())

        found = sorted({hidden(0.01, seed) for seed in range(40)})
        assert ["".join(pieces[i] for i in word) for word in found] == expected
        assert hidden(1.0, 0) == tuple(i for word in found for i in word), "all words and nothing else"
    assert "ॉ" in pieces


def test_where_there_is_no_word_tokens_are_hidden() -> None:
    tokens = np.arange(100)
    about = rows.Words(begins=tokens < 0, letters=tokens < 0, opens=tokens)
    ids = np.array([[0, *range(10, 30), 2]])
    _, labels = masking.mask(ids, 100, 0.2, np.random.default_rng(0), about)
    assert (labels != masking.IGNORED).sum() == 4


def test_what_follows_a_mask_opens_a_word_as_when_it_is_typed() -> None:
    word, full_stop, opened, lone, mask = 10, 11, 12, 13, 99
    opens = np.arange(100)
    opens[full_stop] = -lone  # no piece of its own with the space
    opens[20] = opened
    ignored = masking.IGNORED
    fed = np.array(
        [[0, word, mask, full_stop, 2, 1], [0, mask, 20, mask, word, 2], [0, mask, mask, full_stop, full_stop, 2]]
    )
    labels = np.full_like(fed, ignored)
    labels[fed == mask] = 50
    labels[2, 3] = full_stop  # hidden, but left as it was
    wider, wider_labels = masking.as_typed(fed, labels, mask, opens)
    assert wider.tolist() == [
        [0, word, mask, lone, full_stop, 2],
        [0, mask, opened, mask, word, 2],
        [0, mask, mask, full_stop, full_stop, 2],
    ]
    assert wider_labels.tolist() == [
        [ignored, ignored, 50, ignored, ignored, ignored],
        [ignored, 50, ignored, 50, ignored, ignored],
        [ignored, 50, 50, full_stop, ignored, ignored],
    ]


def test_the_mask_of_the_maker_is_the_mask_of_the_tokenizer(spm: sentencepiece.SentencePieceProcessor) -> None:
    tokenizer = XLMRobertaTokenizerFast.from_pretrained(MINI)
    opens = rows.words_of(MINI / "sentencepiece.bpe.model").opens
    for whole, typed in {
        "a model.": "a <mask>.",
        "a (it) thing": "a (<mask>) thing",
        "the, it is.": "<mask>, it is.",
    }.items():
        expected = tokenizer(typed)["input_ids"]
        ids = np.array([tokenizer(whole)["input_ids"]])
        hidden = expected.index(tokenizer.mask_token_id)
        labels = np.full_like(ids, masking.IGNORED)
        labels[0, hidden] = ids[0, hidden]
        ids[0, hidden] = tokenizer.mask_token_id
        assert masking.as_typed(ids, labels, tokenizer.mask_token_id, opens)[0].tolist() == [expected]


def test_rows_stay_within_the_longest() -> None:
    full = np.full((1, rows.LONGEST), 10)
    full[0, ::3] = 99
    opens = np.full(100, -13)
    wider, labels = masking.as_typed(full, np.full_like(full, masking.IGNORED), 99, opens)
    assert wider.shape == labels.shape == (1, rows.LONGEST)


def test_batches_hold_every_row_once_with_little_padding() -> None:
    small = _small_rows()
    found = masking.batches(small, 256, seed=3, pool=300)
    assert sorted(np.concatenate(found)) == list(range(300))
    padded = sum(len(batch) * small.lengths[batch].max() for batch in found)
    assert padded < 1.15 * small.lengths.sum()
    assert [batch.tolist() for batch in found] == [batch.tolist() for batch in masking.batches(small, 256, 3, pool=300)]


def test_padded_rows_keep_their_ids() -> None:
    small = _small_rows()
    batch = small.padded(np.array([5, 9]))
    for line, row in zip(batch, (5, 9), strict=True):
        ids = small.ids[small.starts[row] : small.starts[row + 1]]
        assert (line[: len(ids)] == ids).all() and (line[len(ids) :] == rows.PAD).all()
