"""Masking: what may be hidden, how much of it, whole words, and the text behind a mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xlmr_core.errors import InputError
from xlmr_core.tokenization import XLMRobertaTokenizer, XLMRobertaTokenizerFast
from xlmr_core.training.masking import LONGEST_WORD, Vocabulary, Words, as_typed, mask
from xlmr_core.training.task import IGNORED

MINI = Path(__file__).resolve().parents[3] / "weights" / "xlmr-mini"
PAD, SPECIAL, SIZE = 1, 3, 1000
TOKENIZERS = {"fast": XLMRobertaTokenizerFast, "slow": XLMRobertaTokenizer}


def small_vocabulary(size: int = SIZE) -> Vocabulary:
    """As XLM-R's: four special tokens at the beginning, and ``<mask>`` at the end."""
    numbers = np.arange(size)
    return Vocabulary(mask=size - 1, pad=PAD, ordinary=(numbers > SPECIAL) & (numbers < size - 1))


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param].from_pretrained(MINI)


@pytest.mark.parametrize("rate", [0.15, 0.5])
def test_ordinary_tokens_alone_are_hidden(rate: float) -> None:
    ids = np.tile(np.array([0, *range(4, 44), 3, 2, 1, 1]), (50, 1))
    before = ids.copy()
    fed, labels = mask(ids, small_vocabulary(), rate, np.random.default_rng(0))
    hidden = labels != IGNORED
    assert (ids == before).all() and fed.dtype == labels.dtype == np.int64
    assert hidden.sum() == round(rate * 50 * 40)
    assert (labels[hidden] == ids[hidden]).all() and (ids[hidden] > SPECIAL).all()
    assert (fed[~hidden] == ids[~hidden]).all()
    assert 0.72 < (fed[hidden] == SIZE - 1).mean() < 0.88
    assert 0.05 < (fed[hidden] == ids[hidden]).mean() < 0.16
    others = fed[hidden][(fed[hidden] != SIZE - 1) & (fed[hidden] != ids[hidden])]
    assert others.min() > SPECIAL and others.max() > 500


def test_masks_are_drawn_anew_and_again_by_the_seed() -> None:
    ids = np.arange(4, 204).reshape(2, 100)

    def hidden(seed: int) -> list[int]:
        return np.flatnonzero(mask(ids, small_vocabulary(), 0.15, np.random.default_rng(seed))[1] != IGNORED).tolist()

    assert hidden(1) == hidden(1) != hidden(2)


def test_shares_and_places_can_be_given() -> None:
    ids = np.arange(4, 104).reshape(1, 100)
    allowed = np.zeros_like(ids, dtype=bool)
    allowed[:, 20:40] = True
    fed, labels = mask(ids, small_vocabulary(), 1.0, np.random.default_rng(0), shares=(1.0, 0.0), allowed=allowed)
    assert ((labels != IGNORED) == allowed).all() and (fed[allowed] == SIZE - 1).all()
    fed, labels = mask(ids, small_vocabulary(), 1.0, np.random.default_rng(0), shares=(0.0, 0.0))
    assert (labels == ids).all() and (fed == ids).all()


def test_a_batch_without_ordinary_tokens_is_left_alone() -> None:
    for words in (None, Words(np.ones(SIZE, bool), np.ones(SIZE, bool))):
        fed, labels = mask(np.array([[0, 2, 1]]), small_vocabulary(), 0.15, np.random.default_rng(0), words)
        assert fed.tolist() == [[0, 2, 1]] and (labels == IGNORED).all()


@pytest.mark.parametrize("seed", range(5))
def test_whole_words_are_hidden_wholly(seed: int) -> None:
    tokens = np.arange(SIZE)
    about = Words(begins=tokens < 500, letters=tokens >= 0)
    rng = np.random.default_rng(seed)
    # Words of one, two and three tokens, with a row's end between them, and a long run that is none.
    words = [[int(rng.integers(10, 500)), *rng.integers(500, 999, size=length)] for length in [0, 1, 2] * 20]
    run = [10, *range(600, 600 + 2 * LONGEST_WORD)]
    halves = [[0, *(token for word in half for token in word), 2] for half in (words[:30], [*words[30:], run])]
    ids = np.full((2, max(map(len, halves))), PAD)
    for row, half in zip(ids, halves, strict=True):
        row[: len(half)] = half
    _, labels = mask(ids, small_vocabulary(), 0.3, rng, about)
    hidden = (labels != IGNORED).reshape(-1)
    flat = ids.reshape(-1)
    assert not hidden[flat <= SPECIAL].any() and (labels.reshape(-1)[hidden] == flat[hidden]).all()
    assert 0.3 <= hidden.sum() / (flat > SPECIAL).sum() <= 0.3 + 3 / len(flat)
    seen = []
    for row, half in enumerate((words[:30], words[30:])):
        at = row * ids.shape[1] + 1
        for word in half:
            seen.append(hidden[at : at + len(word)])
            at += len(word)
    assert all(part.all() or not part.any() for part in seen) and any(part.all() for part in seen if len(part) == 3)
    run_hidden = hidden[np.flatnonzero(flat == 600)[-1] - 1 :][: len(run)]
    assert len(run_hidden) == len(run) and not run_hidden.all()


def test_words_are_words_of_the_language(tokenizer) -> None:
    """Read off real tokens: punctuation is no word and ends one, a lone `▁` and a vowel sign belong to theirs."""
    vocabulary = Vocabulary.of(tokenizer)
    about = vocabulary.words(tokenizer)
    for text, expected in {
        "They build universities.": ["▁They", "▁build", "▁universities"],
        "l'eau, (it)": ["▁l", "eau", "it"],
        "no ( ... 2004!": ["▁no", "▁2004"],
        "की मॉडल": ["▁की", "▁मॉडल"],
    }.items():
        ids = np.array([tokenizer(text)["input_ids"]])
        pieces = tokenizer.convert_ids_to_tokens(ids[0].tolist())

        def hidden(rate: float, seed: int, ids: np.ndarray = ids) -> tuple[int, ...]:
            _, labels = mask(ids, vocabulary, rate, np.random.default_rng(seed), about)
            return tuple(np.flatnonzero(labels[0] != IGNORED).tolist())

        found = sorted({hidden(0.01, seed) for seed in range(40)})
        assert ["".join(pieces[i] for i in word) for word in found] == expected
        assert hidden(1.0, 0) == tuple(i for word in found for i in word), "all words and nothing else"
    assert "ॉ" in pieces


def test_where_there_is_no_word_tokens_are_hidden() -> None:
    nothing = np.zeros(100, bool)
    ids = np.array([[0, *range(10, 30), 2]])
    _, labels = mask(ids, small_vocabulary(100), 0.2, np.random.default_rng(0), Words(nothing, nothing))
    assert (labels != IGNORED).sum() == 4


def test_what_follows_a_mask_opens_a_word_as_when_it_is_typed() -> None:
    word, full_stop, opened, lone, hole = 10, 11, 12, 13, 99
    opens = np.arange(100)
    opens[full_stop] = -lone  # no piece of its own with the space
    opens[20] = opened
    fed = np.array(
        [[0, word, hole, full_stop, 2, 1], [0, hole, 20, hole, word, 2], [0, hole, hole, full_stop, full_stop, 2]]
    )
    labels = np.full_like(fed, IGNORED)
    labels[fed == hole] = 50
    labels[2, 3] = full_stop  # hidden, but left as it was
    wider, wider_labels = as_typed(fed, labels, small_vocabulary(100), opens, 512)
    assert wider.tolist() == [
        [0, word, hole, lone, full_stop, 2],
        [0, hole, opened, hole, word, 2],
        [0, hole, hole, full_stop, full_stop, 2],
    ]
    assert wider_labels.tolist() == [
        [IGNORED, IGNORED, 50, IGNORED, IGNORED, IGNORED],
        [IGNORED, 50, IGNORED, 50, IGNORED, IGNORED],
        [IGNORED, 50, 50, full_stop, IGNORED, IGNORED],
    ]


def test_the_mask_here_is_the_mask_of_the_tokenizer(tokenizer) -> None:
    vocabulary = Vocabulary.of(tokenizer)
    opens = vocabulary.openings(tokenizer)
    for whole, typed in {
        "a model.": "a <mask>.",
        "a (it) thing": "a (<mask>) thing",
        "the, it is.": "<mask>, it is.",
    }.items():
        expected = tokenizer(typed)["input_ids"]
        ids = np.array([tokenizer(whole)["input_ids"]])
        hidden = expected.index(tokenizer.mask_token_id)
        labels = np.full_like(ids, IGNORED)
        labels[0, hidden] = ids[0, hidden]
        ids[0, hidden] = tokenizer.mask_token_id
        assert as_typed(ids, labels, vocabulary, opens, 512)[0].tolist() == [expected]


def test_rows_stay_within_the_longest() -> None:
    full = np.full((1, 512), 10)
    full[0, ::3] = 99
    wider, labels = as_typed(full, np.full_like(full, IGNORED), small_vocabulary(100), np.full(100, -13), 512)
    assert wider.shape == labels.shape == (1, 512)


def test_a_row_that_is_cut_ends_as_it_did() -> None:
    vocabulary = small_vocabulary(100)
    rows = np.array([[0, 10, 99, 11, 99, 12, 2], [0, 10, 11, 12, 13, 2, 1], [0, 10, 99, 11, 10, 10, 99]])
    labels = np.full_like(rows, IGNORED)
    labels[0, 4], labels[1, 4] = 20, 21
    wider, found = as_typed(rows, labels, vocabulary, np.where(np.arange(100) > 0, -13, 0), 6)
    assert wider[0].tolist() == [0, 10, 99, 13, 11, 2] and wider[1].tolist() == [0, 10, 11, 12, 13, 2]
    assert wider[2].tolist() == [0, 10, 99, 13, 11, 10], "a <mask> that is cut off is no end"
    assert (found[0] == IGNORED).all() and found[1].tolist() == [*[IGNORED] * 4, 21, IGNORED]


def test_a_rate_of_0_hides_nothing() -> None:
    ids = np.arange(4, 104).reshape(2, 50)
    fed, labels = mask(ids, small_vocabulary(), 0.0, np.random.default_rng(0))
    assert (fed == ids).all() and (labels == IGNORED).all()


def test_a_tokenizer_without_a_mask_is_refused() -> None:
    tokenizer = XLMRobertaTokenizerFast.from_pretrained(MINI)
    tokenizer.mask_token = None
    with pytest.raises(InputError, match="mask_token"):
        Vocabulary.of(tokenizer)
