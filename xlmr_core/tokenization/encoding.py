"""``BatchEncoding``: what calling a tokenizer returns."""

from __future__ import annotations

import logging
from collections import UserDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from xlmr_core.errors import TokenizerError
from xlmr_core.tokenization.checks import describe

__all__ = ["Aligned", "BatchEncoding", "CharSpan", "TokenSpan", "as_lists", "framework_of"]

logger = logging.getLogger("xlmr_core.tokenization")


class CharSpan(NamedTuple):
    """A half-open range of characters in the user's string."""

    start: int
    end: int


class TokenSpan(NamedTuple):
    """A half-open range of tokens."""

    start: int
    end: int


class Aligned(NamedTuple):
    """What the sentencepiece class tells of a row: token by token, padding included."""

    tokens: list[str]
    word_ids: list[int | None]
    sequence_ids: list[int | None]


class BatchEncoding(UserDict[str, Any]):
    """A dict of model inputs that also gives its keys as attributes, and aligns tokens with words and characters.

    Args:
        data: model inputs by name.
        encoding: the tokenizers library's encodings, one a row (fast class only); the alignment helpers read them.
        tensor_type: 'np', 'pt', 'tf' or 'jax' to convert the values.
        prepend_batch_axis: add a leading axis of one while converting.
        n_sequences: 1 for texts, 2 for pairs.
    """

    def __init__(
        self,
        data: dict[str, Any] | None = None,
        encoding: Any = None,
        tensor_type: str | None = None,
        prepend_batch_axis: bool = False,
        n_sequences: int | None = None,
    ) -> None:
        # Not super().__init__(data): that would copy the dict key by key on every call.
        self.data = dict(data or {})
        if encoding is not None and not isinstance(encoding, list | tuple):
            encoding = [encoding]
        self._encodings: list[Any] | None = None if encoding is None else list(encoding)
        self._aligned: Callable[[int], Aligned] | None = None
        self._n_sequences = n_sequences
        if n_sequences is None and self._encodings:
            self._n_sequences = self._encodings[0].n_sequences
        self.convert_to_tensors(tensor_type, prepend_batch_axis)

    @property
    def n_sequences(self) -> int | None:
        """1 for a text, 2 for a pair, None where unknown."""
        return self._n_sequences

    @property
    def is_fast(self) -> bool:
        """Whether the fast class made it, so that the alignment helpers work."""
        return self._encodings is not None

    @property
    def encodings(self) -> list[Any] | None:
        """The tokenizers library's encodings, one a row; None from the sentencepiece class."""
        return self._encodings

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, str):
            return self.data[item]
        if isinstance(item, slice):
            return {key: value[item] for key, value in self.data.items()}
        if isinstance(item, int) and self._encodings is not None:
            return self._encodings[item]
        raise KeyError(
            f"expected a key of {sorted(self.data)} or a slice, received {item!r}; rows by number exist for the fast "
            "class only"
        )

    def __getattr__(self, name: str) -> Any:
        if name != "data" and name in self.__dict__.get("data", {}):
            return self.data[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    # -- alignment -----------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        # The alignment holds the tokenizer and the texts, which a worker process should not be sent with each batch.
        return {**self.__dict__, "_aligned": None}

    def _row(self, row: int, what: str) -> Any:
        """A row of the tokenizers library's, or of the sentencepiece class what it can tell of one."""
        if self._aligned is not None and what in Aligned._fields:
            return self._aligned(row)
        if self._encodings is None:
            raise TokenizerError(
                f"{what}() is not available from the sentencepiece class"
                + (" after copying or pickling" if what in Aligned._fields else "")
                + "; use XLMRobertaTokenizerFast"
            )
        if not -len(self._encodings) <= row < len(self._encodings):
            raise TokenizerError(f"expected a row below {len(self._encodings)}, received {row}")
        return self._encodings[row]

    def tokens(self, batch_index: int = 0) -> list[str]:
        """The tokens of a row, as the model sees them."""
        return list(self._row(batch_index, "tokens").tokens)

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token 0 (text), 1 (pair) or None (special token)."""
        return list(self._row(batch_index, "sequence_ids").sequence_ids)

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token the number of its word, or None (special token)."""
        return list(self._row(batch_index, "word_ids").word_ids)

    def words(self, batch_index: int = 0) -> list[int | None]:
        """The older name of ``word_ids``."""
        return self.word_ids(batch_index)

    def token_to_sequence(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """Which text (0 or 1) a token comes from: ``(token)`` for a single row or ``(row, token)``."""
        encoding, token = self._token(batch_or_token_index, token_index, "token_to_sequence")
        return encoding.token_to_sequence(token)  # type: ignore[no-any-return]

    def token_to_word(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """The word of a token, or None: ``(token)`` or ``(row, token)``."""
        encoding, token = self._token(batch_or_token_index, token_index, "token_to_word")
        return encoding.token_to_word(token)  # type: ignore[no-any-return]

    def token_to_chars(self, batch_or_token_index: int, token_index: int | None = None) -> CharSpan | None:
        """Where in its text a token stands, or None for a special token: ``(token)`` or ``(row, token)``."""
        encoding, token = self._token(batch_or_token_index, token_index, "token_to_chars")
        span = encoding.token_to_chars(token)
        return None if span is None else CharSpan(*span)

    def word_to_tokens(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> TokenSpan | None:
        """The tokens of a word, or None: ``(word)`` or ``(row, word)``."""
        row, word = _row_and_index(batch_or_word_index, word_index)
        span = _unsigned(self._row(row, "word_to_tokens").word_to_tokens, word, sequence_index)
        return None if span is None else TokenSpan(*span)

    def word_to_chars(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> CharSpan | None:
        """Where in its text a word stands, or None: ``(word)`` or ``(row, word)``."""
        row, word = _row_and_index(batch_or_word_index, word_index)
        span = _unsigned(self._row(row, "word_to_chars").word_to_chars, word, sequence_index)
        return None if span is None else CharSpan(*span)

    def char_to_token(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """The token that covers a character, or None: ``(char)`` or ``(row, char)``."""
        row, char = _row_and_index(batch_or_char_index, char_index)
        token: int | None = _unsigned(self._row(row, "char_to_token").char_to_token, char, sequence_index)
        return token

    def char_to_word(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """The word that covers a character, or None: ``(char)`` or ``(row, char)``."""
        row, char = _row_and_index(batch_or_char_index, char_index)
        word: int | None = _unsigned(self._row(row, "char_to_word").char_to_word, char, sequence_index)
        return word

    def _token(self, first: int, second: int | None, what: str) -> tuple[Any, int]:
        row, token = _row_and_index(first, second)
        encoding = self._row(row, what)
        size = len(encoding.ids)
        if not -size <= token < size:
            raise TokenizerError(f"expected a token index below {size}, received {token}")
        return encoding, token % size

    # -- tensors -------------------------------------------------------------------------------------------------------

    def convert_to_tensors(self, tensor_type: str | None = None, prepend_batch_axis: bool = False) -> BatchEncoding:
        """Turn every value into an array of the named framework, in place.

        Arrays keep their dtype. Python's numbers get that of the framework: integers int64 ('np', 'pt') or int32,
        floats float64 ('np') or float32.

        Args:
            tensor_type: 'np', 'pt', 'tf' or 'jax'; None does nothing.
            prepend_batch_axis: add a leading axis of one.

        Raises:
            TokenizerError: rows of different lengths, text where the framework has none, or an unknown name.
            MissingBackendError: the framework is not installed.
        """
        if tensor_type is None:
            return self
        name = str(getattr(tensor_type, "value", tensor_type))
        if name not in ("np", "pt", "tf", "jax"):
            near = next((short for short, long in _LONG_NAMES.items() if name.lower() in long), None)
            raise TokenizerError(
                f"expected return_tensors 'np', 'pt', 'tf' or 'jax', received {tensor_type!r}"
                + (f"; did you mean {near!r}?" if near else "")
            )
        for key, value in self.data.items():
            array = _rectangular(key, [value] if prepend_batch_axis else value, name)
            if array is not None:
                self.data[key] = _to_framework(name, array)
        return self

    def to(self, device: Any, *, non_blocking: bool = False) -> BatchEncoding:
        """Move every value that can move (torch tensors) to a device, in place; the rest stays.

        A dtype is logged and does nothing: code that casts whatever a model is given would cast the ids.
        """
        if not isinstance(device, str | int) and type(device).__name__ != "device":
            logger.warning(
                "expected a device to move a BatchEncoding to, received %s; nothing is moved or cast", device
            )
            return self
        self.data = {
            key: value.to(device, non_blocking=non_blocking) if hasattr(value, "to") else value
            for key, value in self.data.items()
        }
        return self


_LONG_NAMES = {
    "np": ("numpy",),
    "pt": ("torch", "pytorch"),
    "tf": ("tensorflow", "keras"),
    "jax": ("flax", "jnp", "nnx"),
}


def _row_and_index(first: int, second: int | None) -> tuple[int, int]:
    return (0, first) if second is None else (first, second)


def _unsigned(function: Any, index: int, sequence_index: int) -> Any:
    if index < 0 or sequence_index not in (0, 1):
        raise TokenizerError(
            f"expected a position of at least 0 and a sequence index 0 or 1, received {index} and {sequence_index}"
        )
    return function(index, sequence_index)


def _rectangular(key: str, value: Any, framework: str) -> np.ndarray[Any, Any] | None:
    """The value as an array of the dtype that it is to have, or None where it is a tensor of the framework already."""
    if hasattr(value, "shape") and not isinstance(value, np.ndarray) and framework_of(value) == framework:
        return None
    if isinstance(value, list) and not value:
        return np.zeros((0, 0), dtype=np.int32 if framework == "tf" else np.int64)
    leaf = _first_leaf(value)
    try:
        try:
            array = np.asarray(value)
        except (TypeError, RuntimeError):
            # Tensors that NumPy cannot read: bfloat16, of another device, or with a gradient.
            leaf, array = 0.0, np.asarray(as_lists(value))
    except (ValueError, OverflowError) as error:
        raise _refused(key, value, leaf) from error
    # NumPy and TensorFlow have arrays of text.
    if array.dtype == object or (array.dtype.kind in "US" and framework in ("pt", "jax")):
        raise _refused(key, value, leaf)
    if array.size == 0:
        array = array.astype(np.int64)
    of_python = leaf is None or (isinstance(leaf, int | float) and not isinstance(leaf, np.generic))
    return _as_of_python(array, framework) if of_python else array


def _as_of_python(array: np.ndarray[Any, Any], framework: str) -> np.ndarray[Any, Any]:
    """The array in the dtype that the framework gives Python's numbers (JAX's depends on its settings)."""
    if array.dtype == np.float64 and framework in ("pt", "tf"):
        return array.astype(np.float32)
    if array.dtype == np.int64 and framework == "tf":
        small = array.astype(np.int32)
        return small if (small == array).all() else array
    return array


def _refused(key: str, value: Any, leaf: Any) -> TokenizerError:
    if isinstance(leaf, np.ndarray) and leaf.size:
        leaf = leaf.flat[0]
    if isinstance(leaf, str | bytes):
        return TokenizerError(
            f"expected numbers to make a tensor of {key!r}, received text {describe(leaf)}; remove this column before "
            "padding or converting"
        )
    return TokenizerError(
        f"expected rows of one length to make a tensor of {key!r}, received {_uneven(value)}; pass padding=True and "
        "truncation=True" + (" and drop return_overflowing_tokens" if key == "overflowing_tokens" else "")
    )


def _uneven(value: Any) -> str:
    """Which rows do not fit together."""
    rows = value if isinstance(value, list | tuple) else []
    missing = [number for number, row in enumerate(rows) if row is None]
    lengths = [len(row) if hasattr(row, "__len__") else 0 for row in rows]
    odd = [number for number, length in enumerate(lengths) if length != lengths[0]]
    if missing:
        return f"None in row {missing[0]}"
    if odd:
        return f"rows of different lengths: {lengths[0]} in row 0 and {lengths[odd[0]]} in row {odd[0]}"
    return "rows of different lengths or missing values"


def _to_framework(name: str, array: np.ndarray[Any, Any]) -> Any:
    if name == "np":
        return array
    from xlmr_core.backends import to_tensor

    return to_tensor(name, array)


# -- arrays and lists --------------------------------------------------------------------------------------------------

# By the package that an array's type is from.
_FRAMEWORKS = {"numpy": "np", "torch": "pt", "tensorflow": "tf", "jax": "jax", "jaxlib": "jax"}


def _first_leaf(value: Any) -> Any:
    """The first item of nested lists that is no list (None where there is none)."""
    while isinstance(value, list | tuple):
        value = next((item for item in value if not isinstance(item, list | tuple) or item), None)
    return value


def framework_of(value: Any) -> str | None:
    """The framework ('np', 'pt', 'tf', 'jax') of an array or of the first one in nested lists.

    None for Python's and NumPy's numbers.
    """
    leaf = _first_leaf(value)
    if isinstance(leaf, np.generic):
        return None
    packages = (base.__module__.partition(".")[0] for base in type(leaf).__mro__)
    return next((_FRAMEWORKS[package] for package in packages if package in _FRAMEWORKS), None)


def as_lists(value: Any) -> Any:
    """Arrays and tensors as plain lists; anything else as it is, lists of tensors included."""
    if hasattr(value, "numpy") and not isinstance(value, np.ndarray) and not hasattr(value, "tolist"):
        value = value.numpy()
    if hasattr(value, "tolist"):
        return value.tolist()
    if (
        isinstance(value, list | tuple)
        and value
        and (hasattr(value[0], "tolist") or hasattr(value[0], "numpy") or isinstance(value[0], list | tuple))
    ):
        return [as_lists(item) for item in value]
    return list(value) if isinstance(value, tuple) else value
