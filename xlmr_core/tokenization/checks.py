"""Checks of what a user passes: texts and ids."""

from __future__ import annotations

from typing import Any

from xlmr_core.errors import TokenizerError

__all__ = ["as_id", "check_text", "describe"]


def check_text(text: str) -> None:
    """Refuse a str that is no Unicode text.

    Raises:
        TokenizerError: it holds a lone surrogate.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"expected Unicode text, received a lone surrogate {text[error.start]!a} at character {error.start}; "
            "decode the bytes with errors='replace', or clean it with text.encode('utf-8', 'replace').decode()"
        ) from None


def as_id(index: Any) -> int:
    """A token id as an int.

    Raises:
        TokenizerError: no integer, or a negative one.
    """
    try:
        value = int(index)
    except (TypeError, ValueError, OverflowError) as error:
        raise TokenizerError(f"expected a token id, received {type(index).__name__} {index!r}") from error
    if value < 0:
        raise TokenizerError(
            f"expected token ids of at least 0, received {value}; replace the ignored labels (-100) with pad_token_id "
            "before decoding"
        )
    return value


def describe(value: Any) -> str:
    """Type and (shortened) value, for an error message."""
    shown = repr(value)
    return f"{type(value).__name__} {shown if len(shown) <= 60 else shown[:57] + '...'}"
