"""The errors a user can cause, one class per place where they arise.

Every message says what was expected, what came, and what to do. All of them are ``ValueError``; the ones about files
are ``OSError`` as well, because that is what scripts written for the original libraries catch.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "ConfigError",
    "InputError",
    "MismatchError",
    "MissingBackendError",
    "ModelNotFoundError",
    "TokenizerError",
    "XLMRError",
]


class XLMRError(ValueError):
    """Base class of every error that this library raises for a user's mistake."""


class ConfigError(XLMRError):
    """A configuration value that no model can be built from."""


class InputError(XLMRError):
    """Model inputs of a wrong shape, dtype, length or value range."""


class TokenizerError(XLMRError):
    """Text or tokenizer files that cannot be tokenized or read."""


class CheckpointError(XLMRError, OSError):
    """A checkpoint file that is missing, truncated, tampered with, or does not fit the model."""


class MismatchError(CheckpointError, RuntimeError):
    """A parameter whose shape in the checkpoint is not the model's; a ``RuntimeError`` too, as PyTorch's is."""


class ModelNotFoundError(XLMRError, OSError):
    """A model name or folder that cannot be found (locally, built in, or on the hub)."""


class MissingBackendError(XLMRError, ImportError):
    """An optional package that the call needs and that is not installed."""
