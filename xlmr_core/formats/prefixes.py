"""Models that were saved as a part of something: what their names begin with, found by the one table that every encoder
has.

A Lightning module, a wrapper or a data-parallel model puts its own attributes in front:
``model.roberta.embeddings...``, ``encoder.model.embeddings...``, ``module.embeddings...``.
"""

from __future__ import annotations

from collections.abc import Iterable

from xlmr_core.errors import CheckpointError
from xlmr_core.formats.base import CANONICAL, Naming
from xlmr_core.formats.layouts import KEPT, Layout

__all__ = ["prefixed_naming", "prefixes_of"]

EVERY_ENCODER_HAS = "embeddings.word_embeddings.weight"
ENCODER = "roberta."


def prefixes_of(names: Iterable[str]) -> tuple[str, ...]:
    """What stands before the canonical names of each encoder in a file; nothing if it is the whole file's model."""
    found = [
        name.removesuffix(EVERY_ENCODER_HAS).removesuffix(ENCODER)
        for name in names
        if name == EVERY_ENCODER_HAS or name.endswith("." + EVERY_ENCODER_HAS)
    ]
    return tuple(dict.fromkeys(found))


def prefixed_naming(path: object, names: Iterable[str], part: str | None) -> Naming:
    """Canonical names after a beginning, which is cut off; names without it stay as they are.

    Args:
        path: the file, for messages.
        names: in it.
        part: the beginning, if there are several.

    Raises:
        CheckpointError: if there are several and none is asked for.
    """
    names = tuple(names)
    prefixes = prefixes_of(names)
    if part is None and ("" in prefixes or not prefixes):
        return CANONICAL
    if part is None and len(prefixes) > 1:
        raise CheckpointError(
            f"{path} holds several encoders, under {', '.join(prefixes)}: open one of them with part={prefixes[0]!r}"
        )
    prefix = prefixes[0] if part is None else part
    # A head stands beside ``roberta.``, and if the encoder has no such step, it is the bare one: what stands beside it
    # is the wrapper's own.
    bare = not any(name == prefix + ENCODER + EVERY_ENCODER_HAS for name in names)
    own = (prefix + "embeddings.", prefix + "encoder.", prefix + "pooler.") if bare else (prefix,)

    def decode(stored: str) -> Iterable[tuple[str, Layout]]:
        return ((stored.removeprefix(prefix) if stored.startswith(own) else stored, KEPT),)

    return Naming(decode)
