"""Sentences that say the same in several languages, of which `topic` alone has 701.

Some sources of `pretrain` are translations, whose lines stand in the same order in every language but for those that
one of them lacks, and the questions of XQuAD have an id. Lines of a language are aligned with the English ones: of all
ways that go forward in both, the one whose pairs are most alike (Gale and Church 1993). How alike two lines are is
told from vectors that a bag of pieces learned of `topic` and from the pieces that both have, names and numbers above
all, and measured by how alike either is to other lines.

Shapes: N lines of English, M of another language, V pieces of the vocabulary, F numbers of a vector.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from weights.maker import corpus, languages, pieces

FILE, VECTORS = "sentences-parallel.jsonl", "sentences-vectors.npz"
TRANSLATED = ("tico19", "oldi_seed", "opensource_guide")
MIDDLE = "en"
CHANCE = 1.5  # standard deviations by which a pair has to be more alike than lines are to others
LENGTHS = range(8, 401)  # characters of a line

Floats = NDArray[np.float32]


def write_parallel(data: Path, file: Path, vectors_VF: Floats) -> None:
    """Write rows that share an ``id`` across languages, all or nothing.

    Args:
        data: the folder of the data.
        file: for the rows.
        vectors_VF: of the pieces, by which lines are compared.
    """
    languages.write_rows(file, [*_questions(data), *_translations(data, vectors_VF)])


def _questions(data: Path) -> Iterator[dict[str, Any]]:
    for row in languages.rows_of(data / "qa" / "train.jsonl.gz"):
        if row["src"] == "xquad":
            yield {"id": f"xquad {row['id']}", "lang": row["lang"], "text": row["question"]}


def _translations(data: Path, vectors_VF: Floats) -> Iterator[dict[str, Any]]:
    sources = json.loads((data / "pretrain" / "manifest.json").read_text(encoding="utf-8"))["langs"]
    of_middle = _parts(data, MIDDLE, sources)
    for source, texts in of_middle.items():
        yield from ({"id": f"{source} {number}", "lang": MIDDLE, "text": text} for number, text in enumerate(texts))
    for language in sources:
        for source, texts in _parts(data, language, sources).items() if language != MIDDLE else ():
            if source in of_middle:
                pairs = aligned(likeness(of_middle[source], texts, vectors_VF))
                print(f"{source}: {len(pairs)} of {len(texts)} lines in {language} found in {MIDDLE}")
                for n, m in pairs:
                    if texts[m] != of_middle[source][n]:  # else nobody translated it
                        yield {"id": f"{source} {n}", "lang": language, "text": texts[m]}


def _parts(data: Path, language: str, sources: Any) -> dict[str, list[str]]:
    """The lines of a language by their source, of those that are translations."""
    places = [one for one in sources[language]["train"]["sources"] if one["source"] in TRANSLATED]
    lines = corpus.lines(data / "pretrain" / "train" / f"{language}.txt.xz") if places else []
    found: dict[str, list[str]] = {}
    for one in places:
        own = lines[one["first_line"] : one["end_line"]]
        found.setdefault(one["source"], []).extend(line for line in own if len(line) in LENGTHS)
    return found


def likeness(first: Sequence[str], second: Sequence[str], vectors_VF: Floats) -> Floats:
    """(N, M): by how many standard deviations two lines are more alike than either is to all others."""
    from sklearn.preprocessing import normalize

    ids = [languages.ids_of(side)[0] for side in (first, second)]
    size = len(vectors_VF)
    seen_V = np.bincount(np.concatenate([np.unique(row) for side in ids for row in side]), minlength=size)
    rare_V = np.log(1 + (len(first) + len(second)) / (1 + seen_V)).astype(np.float32)
    units = [normalize(pieces.sums(torch.from_numpy(vectors_VF), side).numpy()) for side in ids]
    near_NM = units[0] @ units[1].T + (_counts(ids[0], rare_V) @ _counts(ids[1], rare_V).T).toarray()
    found = np.zeros_like(near_NM)
    for axis in (0, 1):
        spread = np.maximum(near_NM.std(axis, keepdims=True), 1e-9)
        found += (near_NM - near_NM.mean(axis, keepdims=True)) / spread
    return found / np.sqrt(2, dtype=np.float32)


def _counts(rows: pieces.Ids, rare_V: Floats) -> Any:
    """(N, V): which pieces lines have, rare ones for more, each line of length one; sparse."""
    from scipy.sparse import csr_matrix
    from sklearn.preprocessing import normalize

    own = [np.unique(row) for row in rows]
    ends, columns = np.cumsum([0, *map(len, own)]), np.concatenate(own)
    return normalize(csr_matrix((rare_V[columns], columns, ends), shape=(len(rows), len(rare_V))))


def aligned(gain_NM: Floats) -> list[tuple[int, int]]:
    """Pairs of rows and columns, both rising, whose gains are the most together, each above ``CHANCE``."""
    gain_NM = gain_NM - CHANCE
    rows, columns = gain_NM.shape
    best_M, taken_NM = np.zeros(columns + 1), np.zeros((rows, columns), bool)
    held = np.zeros((rows + 1, columns + 1), np.float32)
    for row in range(rows):
        with_pair_M = best_M[:-1] + gain_NM[row]
        taken_NM[row] = with_pair_M > best_M[1:]
        best_M[1:] = np.maximum(with_pair_M, best_M[1:])
        best_M = np.maximum.accumulate(best_M)
        held[row + 1] = best_M
    pairs = []
    row, column = rows, columns
    while row and column:
        if held[row, column] == held[row, column - 1]:
            column -= 1
        else:
            row -= 1
            if taken_NM[row, column - 1]:
                column -= 1
                pairs.append((row, column))
    return pairs[::-1]
