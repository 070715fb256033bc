"""``TokenFinder``: where added tokens stand in a text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

__all__ = ["TokenFinder"]

_FEW = 64


class TokenFinder:
    """Finds tokens from left to right, at each place the longest.

    A regular expression jumps to where a token may start, and a look into the set of tokens decides. It is of whole
    tokens where they are few; thousands of alternatives would be tried one by one at each place, so there it is of
    first characters.
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        self._tokens = frozenset(tokens) - {""}
        few = len(self._tokens) <= _FEW
        starts = self._tokens if few else {token[0] for token in self._tokens}
        self._starts = re.compile("|".join(map(re.escape, sorted(starts))) or "(?!)")  # without tokens: nowhere
        lengths: dict[str, set[int]] = {}
        for token in self._tokens:
            lengths.setdefault(token[0], set()).add(len(token))
        self._longest_first = {first: sorted(found, reverse=True) for first, found in lengths.items()}

    def find(self, text: str) -> Iterator[tuple[int, str]]:
        """Where each token starts, and the token."""
        at = 0
        while match := self._starts.search(text, at):
            at = match.start()
            for length in self._longest_first[text[at]]:
                if (token := text[at : at + length]) in self._tokens:
                    yield at, token
                    at += length
                    break
            else:
                at += 1
