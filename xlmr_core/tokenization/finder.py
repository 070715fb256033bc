"""Where added tokens stand in a text, and the text between them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from xlmr_core.tokenization.checks import check_text
from xlmr_core.tokenization.special import AddedToken

__all__ = ["AddedTokens", "Part", "TokenFinder"]

Part = tuple[str, int, int | None]
"""A piece of a text: its characters, where it starts, and the id if it is an added token."""

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


class AddedTokens:
    """The added tokens of a vocabulary, by id and by text."""

    def __init__(self, by_id: Mapping[int, AddedToken]) -> None:
        self.by_id = dict(sorted(by_id.items()))
        self._index()

    def put(self, tokens: Mapping[int, AddedToken]) -> None:
        """Add tokens, or give those that are there other flags."""
        self.by_id |= tokens
        self._index()

    def _index(self) -> None:
        self.by_text = {token.content: index for index, token in self.by_id.items()}
        self._finder = TokenFinder(self.by_text)

    def stand_in(self, text: str) -> bool:
        """Whether there is one in the text."""
        return any(self._finder.find(text))

    def split(self, text: str) -> list[Part]:
        """Cut the tokens out of a text; white space beside them is stripped where a token says so."""
        check_text(text)
        parts: list[Part] = []
        end = 0
        for start, found in self._finder.find(text):
            if start > end:
                parts.append((text[end:start], end, None))
            end = start + len(found)
            parts.append((found, start, self.by_text[found]))
        if end < len(text):
            parts.append((text[end:], end, None))
        for number, (_, _, index) in enumerate(parts):
            if index is not None:
                _strip_around(parts, number, self.by_id[index])
        return [part for part in parts if part[0]]


def _strip_around(parts: list[Part], number: int, token: AddedToken) -> None:
    content, start, _ = parts[number]
    left = parts[number - 1] if number and parts[number - 1][2] is None else None
    right = parts[number + 1] if number + 1 < len(parts) and parts[number + 1][2] is None else None
    # The neighbours as they were before the token took their white space say whether it is a word of its own.
    joins_left = token.single_word and left and left[0] and not left[0].endswith(" ")
    joins_right = token.single_word and right and right[0] and not right[0].startswith(" ")
    if token.rstrip and right:
        stripped = right[0].lstrip()
        right = parts[number + 1] = (stripped, right[1] + len(right[0]) - len(stripped), None)
    if token.lstrip and left:
        left = parts[number - 1] = (left[0].rstrip(), left[1], None)
    if joins_left and left:
        parts[number - 1], parts[number] = (left[0] + content, left[1], None), ("", start, None)
    elif joins_right and right:
        parts[number], parts[number + 1] = ("", start, None), (content + right[0], start, None)
