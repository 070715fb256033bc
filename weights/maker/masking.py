"""Masked language modelling: which tokens are hidden, and the batches they are drawn from. NumPy only, seeded
by step.
"""

from __future__ import annotations

import numpy as np

from weights.maker.rows import LONGEST, PAD, UNK, Rows, Words

SPECIAL = UNK  # ids up to here are `<s>`, `<pad>`, `</s>`, `<unk>`: never hidden, never drawn as a random token
IGNORED = -100
LONGEST_WORD = 6  # tokens; scripts without spaces have no words that could be seen


def mask(
    ids: np.ndarray, vocabulary: int, rate: float, rng: np.random.Generator, words: Words | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Hide a share of the ordinary tokens: 80 % become `<mask>`, 10 % a random token, 10 % stay (BERT's recipe).

    Args:
        ids: token ids, shape (B, S).
        vocabulary: number of tokens; the last one is `<mask>`.
        rate: share of the ordinary tokens to hide, at least one token.
        rng: the only source of chance.
        words: hide whole words and no punctuation, so that a single `<mask>` stands for a word, as where somebody types
            one; by default, and where there is no word, tokens are hidden whatever they are.

    Returns:
        The ids to feed and the labels (-100 where nothing was hidden), both of shape (B, S), int64.
    """
    flat = ids.reshape(-1).copy()
    ordinary = np.flatnonzero(flat > SPECIAL)
    chosen = np.zeros(0, dtype=np.int64) if words is None else _whole_words(flat, ordinary, rate, rng, words)
    if not len(chosen):
        chosen = rng.choice(ordinary, size=max(1, round(rate * len(ordinary))), replace=False)
    labels = np.full_like(flat, IGNORED)
    labels[chosen] = flat[chosen]
    kind = rng.random(len(chosen))
    flat[chosen[kind < 0.8]] = vocabulary - 1
    drawn = chosen[kind >= 0.9]
    flat[drawn] = rng.integers(SPECIAL + 1, vocabulary - 1, size=len(drawn))
    return flat.reshape(ids.shape), labels.reshape(ids.shape)


def _whole_words(
    flat: np.ndarray, ordinary: np.ndarray, rate: float, rng: np.random.Generator, words: Words
) -> np.ndarray:
    """Places of whole random words until they make up the share, if there are so many.

    The tokens of a run of more than `LONGEST_WORD` are hidden one by one: it is a script without spaces.
    """
    tokens = flat[ordinary]
    begins, letters = words.begins[tokens], words.letters[tokens]
    # A word goes on while letters follow each other without a gap and none begins a new one; punctuation ends it.
    punctuation_before = np.append(True, ~(begins | letters)[:-1])
    new = begins | ~letters | punctuation_before | (np.diff(ordinary, prepend=-2) != 1)
    word = np.cumsum(new) - 1
    single = np.bincount(word)[word] > LONGEST_WORD
    word = np.cumsum(new | single | np.append(False, single[:-1])) - 1
    sizes = np.bincount(word)
    order = rng.permutation(np.flatnonzero(np.bincount(word, letters)))
    reached = np.cumsum(sizes[order])
    hidden = order[: 1 + np.searchsorted(reached, rate * len(ordinary))]
    return ordinary[np.isin(word, hidden)]


def as_typed(fed: np.ndarray, labels: np.ndarray, mask_token: int, opens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a tokenizer makes of a typed `<mask>`: the text behind it starts anew, so its first token opens a word.

    `model <mask>.` is `▁model <mask> ▁ .` and not `▁model <mask> .`, so a model that never saw the lone `▁` cannot read
    the full stop.

    Args:
        fed: ids to feed, shape (B, S).
        labels: of the same shape.
        mask_token: the id of `<mask>`.
        opens: int (vocabulary,), what each token becomes behind `<mask>`: itself, the token with `▁` before it, or
            minus the id of the lone `▁` that is put before it.

    Returns:
        Both, of shape (B, S') with S' at most 512; ids are padded with `<pad>`, labels with -100.
    """
    behind = np.zeros(fed.shape, dtype=bool)
    behind[:, 1:] = (fed[:, :-1] == mask_token) & (fed[:, 1:] > SPECIAL) & (fed[:, 1:] != mask_token)
    behind &= labels == IGNORED  # what stands in place of a hidden token is no text
    joined = behind & (opens[fed] > 0)
    apart = behind & (opens[fed] < 0)
    fed = np.where(joined, opens[fed], fed)
    # Where each token goes: past all that is put in before it in its row.
    column = np.arange(fed.shape[1]) + np.cumsum(apart, axis=1)
    width = int(column[fed != PAD].max()) + 1
    wider = np.full((len(fed), width + 1), PAD, dtype=fed.dtype)
    wider_labels = np.full_like(wider, IGNORED)
    row, old = np.nonzero(fed != PAD)
    wider[row, column[row, old]] = fed[row, old]
    wider_labels[row, column[row, old]] = labels[row, old]
    row, old = np.nonzero(apart)
    wider[row, column[row, old] - 1] = -opens[fed[row, old]]
    return wider[:, : min(width, LONGEST)], wider_labels[:, : min(width, LONGEST)]


def batches(rows: Rows, tokens: int, seed: int, pool: int = 8192) -> list[np.ndarray]:
    """All rows in random order as batches (arrays of row numbers) of about `tokens` padded tokens.

    Rows are sorted by length within random pools, so that a batch holds many languages and hardly any padding.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(rows))
    lengths = rows.lengths
    found: list[np.ndarray] = []
    for begin in range(0, len(order), pool):
        block = order[begin : begin + pool]
        block = block[np.argsort(-lengths[block], kind="stable")]
        cut: list[np.ndarray] = []
        while len(block):
            size = max(1, tokens // int(lengths[block[0]]))
            cut.append(block[:size])
            block = block[size:]
        found += [cut[i] for i in rng.permutation(len(cut))]
    return found
