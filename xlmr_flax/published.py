"""Published names of a Flax model that other code asks for, beside those that have a file of their own.

docs/flax.md lists all published names, and says of each that is not there why.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
from jax import Array

from xlmr_core.config import XLMRobertaConfig

__all__ = ["LinenModule", "PublishedNames"]


class PublishedNames:
    """The part of a model that answers to published names."""

    framework: ClassVar[str] = "flax"
    _config: Any

    @classmethod
    def can_generate(cls) -> bool:
        """Whether there is a ``generate`` that continues texts: no, but see ``generation.py``."""
        return False

    @property
    def key(self) -> Array:
        """The random key of the model's seed."""
        return jax.random.PRNGKey(self._config.seed)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of inputs that the constructor was given."""
        return self._config.input_shape

    @property
    def module(self) -> LinenModule:
        """The model as the pure functions ``init`` and ``apply`` of a linen module."""
        return LinenModule(self)


class LinenModule:
    """What ``model.module`` of a published class can be asked: parameters go in with each call.

    Args:
        model: whose functions they are; it stays as it is.
    """

    def __init__(self, model: Any) -> None:
        self._model = model

    @property
    def config(self) -> XLMRobertaConfig:
        """The model's configuration."""
        return self._model.config

    @property
    def dtype(self) -> Any:
        """The dtype in which everything is computed."""
        return self._model.dtype

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """``{"params": fresh parameters}``.

        Args:
            rngs: a random key, or keys by name with ``params`` among them.
            *args, **kwargs: inputs, on which parameters do not depend.
        """
        return {"params": self._model.init_weights(rngs["params"] if isinstance(rngs, Mapping) else rngs)}

    def apply(
        self,
        variables: Mapping[str, Any],
        *args: Any,
        deterministic: bool = True,
        rngs: Mapping[str, Array] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The answer to inputs.

        Args:
            variables: ``{"params": params}``.
            *args: ``input_ids``, ``attention_mask``, ``token_type_ids``, ``position_ids``, ``head_mask``.
            deterministic: whether dropout rests.
            rngs: ``{"dropout": key}``, for when it does not.
            **kwargs: as of a call of the model.
        """
        return self._model.apply(
            variables, *args, rngs=None if deterministic else rngs, train=not deterministic, **kwargs
        )
