"""Checks of what a user passes: texts and ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from xlmr_core.errors import NoTextError, TokenizerError
from xlmr_core.wording import shown

__all__ = ["as_id", "check_text", "describe", "no_text"]


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
        raise TokenizerError(f"expected a token id, received {describe(index)}") from error
    if value < 0:
        raise TokenizerError(
            f"expected token ids of at least 0, received {value}; replace the ignored labels (-100) with pad_token_id "
            "before decoding"
        )
    return value


def no_text(value: Any, words: bool, row: int | None = None, wanted: str = "a text (str)") -> TokenizerError:
    """The error for something that stands in the place of a text.

    Args:
        value: what stands there.
        words: a list of words was wanted.
        row: which row of a batch it is; None: there is one text only.
        wanted: what was wanted where no words were.
    """
    wanted = "a list of words (is_split_into_words=True)" if words else wanted
    where = "" if row is None else f" in row {row}"
    return NoTextError(f"expected {wanted}, received {describe(value)}{where}; {_remedy(value, words, row)}")


def _remedy(value: Any, words: bool, row: int | None) -> str:
    gap = value is None or type(value).__name__ == "NAType" or (isinstance(value, float) and value != value)
    if gap and not words:
        return "it is a gap in the data: fill it (in pandas: column.fillna('')) or leave the row out"
    if hasattr(value, "tolist"):  # NumPy, pandas, tensors
        return "pass a list, as .tolist() makes it" if row is None else "make it a str"
    if hasattr(value, "numpy"):  # TensorFlow's
        return "pass a list of str, as [text.decode() for text in tensor.numpy()] makes it"
    if isinstance(value, bytes):
        return "decode it, as in text.decode()"
    if isinstance(value, str) and words:
        return "split it, as in text.split(), or leave is_split_into_words out"
    if isinstance(value, Iterable) and not isinstance(value, str | Mapping) and row is None:
        return "pass a list, as list(...) makes it"
    if words and isinstance(value, list | tuple):
        number = next(number for number, word in enumerate(value) if not isinstance(word, str))
        return f"word {number} is {describe(value[number])}"
    return "check the items of the batch"


def describe(value: Any) -> str:
    """Type and (shortened) value, for an error message."""
    if getattr(value, "shape", None) and hasattr(value, "dtype"):
        return f"{type(value).__name__} of shape {tuple(value.shape)} and dtype {value.dtype}"
    return f"{type(value).__name__} {shown(value, 60)}"
