"""A call of an encoder on its way through a backend: read, planned, run.

``read`` (``inputs.py`` of a backend) checks what came and gives a :class:`Call`; it looks at no value that a compiler
could not know. ``plan`` (``plan.py``) decides how it runs: packed or padded, which masks, which memory. ``run``
(``encoder.py``) computes, with tensors only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Call"]

Array = TypeVar("Array")


@dataclass(frozen=True)
class Call(Generic[Array]):
    """The checked inputs of one call, and which outputs it asks for.

    Attributes:
        input_ids: integers (B, S), or ``None`` if there are embeddings in their place.
        inputs_embeds: floats (B, S, D).
        attention_mask: (B, S) or (B, S, S) of 0 and 1.
        token_type_ids: integers (B, S) or (1, S).
        position_ids: integers (B, S) or (1, S).
        head_mask: (N,) or (layers, N).
        memory_BMD: the states that cross-attention attends to.
        memory_mask_BM: of 0 and 1.
        output_attentions: whether probabilities are wanted.
        output_hidden_states: whether the states after each layer are wanted.
    """

    input_ids: Array | None = None
    inputs_embeds: Array | None = None
    attention_mask: Array | None = None
    token_type_ids: Array | None = None
    position_ids: Array | None = None
    head_mask: Array | None = None
    memory_BMD: Array | None = None
    memory_mask_BM: Array | None = None
    output_attentions: bool = False
    output_hidden_states: bool = False

    @property
    def source(self) -> Array:
        """The ids, or the embeddings in their place."""
        source = self.inputs_embeds if self.input_ids is None else self.input_ids
        assert source is not None
        return source
