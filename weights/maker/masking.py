"""Masked language modelling: which tokens are hidden, and the batches they are drawn from. NumPy only, seeded by step."""

from __future__ import annotations

import numpy as np

from weights.maker.rows import UNK, Rows

SPECIAL = UNK  # ids up to here are `<s>`, `<pad>`, `</s>`, `<unk>`: never hidden, never drawn as a random token
IGNORED = -100


def mask(ids: np.ndarray, vocabulary: int, rate: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Hide a share of the ordinary tokens: 80 % become `<mask>`, 10 % a random token, 10 % stay (BERT's recipe).

    Args:
        ids: token ids, shape (B, S).
        vocabulary: number of tokens; the last one is `<mask>`.
        rate: share of the ordinary tokens to hide, at least one token.
        rng: the only source of chance.

    Returns:
        The ids to feed and the labels (-100 where nothing was hidden), both of shape (B, S), int64.
    """
    flat = ids.reshape(-1).copy()
    ordinary = np.flatnonzero(flat > SPECIAL)
    chosen = rng.choice(ordinary, size=max(1, round(rate * len(ordinary))), replace=False)
    labels = np.full_like(flat, IGNORED)
    labels[chosen] = flat[chosen]
    kind = rng.random(len(chosen))
    flat[chosen[kind < 0.8]] = vocabulary - 1
    drawn = chosen[kind >= 0.9]
    flat[drawn] = rng.integers(SPECIAL + 1, vocabulary - 1, size=len(drawn))
    return flat.reshape(ids.shape), labels.reshape(ids.shape)


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
