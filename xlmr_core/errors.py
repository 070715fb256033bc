"""The errors a user can cause, one class per place where they arise, and the warnings of what may be a mistake.

Every message says what was expected, what came, and what to do. All errors are ``ValueError``; the ones about files
are ``OSError`` as well, because that is what scripts written for the original libraries catch. All warnings are
``UserWarning``; ``warnings.simplefilter("ignore", LoadWarning)`` silences one kind of them, ``"error"`` makes it an
error.
"""

from __future__ import annotations

import sys
import warnings

from xlmr_core.wording import seen

__all__ = [
    "CheckpointError",
    "ConfigError",
    "ConfigWarning",
    "InputError",
    "JobError",
    "LoadWarning",
    "MismatchError",
    "MissingBackendError",
    "ModelNotFoundError",
    "NoTextError",
    "TokenizerError",
    "TooLongError",
    "TrainingError",
    "UploadError",
    "XLMRError",
    "warn_caller",
]


# Of a message: what is longer holds a name or a text of a file that nobody reads.
MOST_CHARACTERS = 4000


class XLMRError(ValueError):
    """Base class of every error that this library raises for a user's mistake."""

    # Whether the message has several lines, each from `seen`; otherwise what looks like one is a text of a file.
    has_lines = False

    def __str__(self) -> str:
        text = seen(super().__str__(), lines=self.has_lines)
        if len(text) <= MOST_CHARACTERS:
            return text
        return f"{text[: MOST_CHARACTERS - 1000]} ... {text[-900:]}"  # the remedy stands at the end


class ConfigError(XLMRError):
    """A configuration value that no model can be built from."""


class InputError(XLMRError):
    """Model inputs of a wrong shape, dtype, length or value range."""


class TooLongError(InputError):
    """A text, or several together, with more tokens than are read."""


class TokenizerError(XLMRError):
    """Text or tokenizer files that cannot be tokenized or read."""


class NoTextError(TokenizerError, TypeError):
    """Something else in the place of a text: a gap in the data, a number, an array."""


class CheckpointError(XLMRError, OSError):
    """A checkpoint file that is missing, truncated, tampered with, or does not fit the model."""


class MismatchError(CheckpointError, RuntimeError):
    """A parameter whose shape in the checkpoint is not the model's; a ``RuntimeError`` too, as PyTorch's is.

    The message has a line for each.
    """

    has_lines = True


class ModelNotFoundError(XLMRError, OSError):
    """A model name or folder that cannot be found (locally, built in, or on the hub)."""


class UploadError(XLMRError, OSError):
    """An upload to the hub that did not come about."""


class JobError(XLMRError, OSError):
    """A job over files that cannot begin, go on or end, or a row of it that cannot be read."""


class TrainingError(XLMRError, OSError):
    """A recipe, training data, or the folder of a run, with which training cannot begin, go on or end."""


class MissingBackendError(XLMRError, ImportError):
    """An optional package that the call needs and that is not installed."""


class LoadWarning(UserWarning):
    """Something about a load that is worth a look: weights that start fresh and have to be trained, or weights of the
    checkpoint that the model has no place for.

    It is one warning a load. ``from_pretrained(..., output_loading_info=True)`` gives the same as data.
    """


class ConfigWarning(UserWarning):
    """A key of a configuration that nothing reads, and that is probably a misspelling of one that is not given."""


def warn_caller(message: str, category: type[UserWarning]) -> None:
    """Warn at the line outside this library that asked for what is warned of."""
    depth, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("xlmr_"):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(seen(message), category, stacklevel=depth)
