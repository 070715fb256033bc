"""What our own schemes have in common: which weights they take, and what of them a user leaves out.

They take nearly all bytes and nearly all work: the word embedding, the projections of every layer and that to the
vocabulary. Position and type embeddings, norms, biases, poolers and the small projections of heads stay float32: under
one percent of both, and a head can start fresh and be trained.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from xlmr_core.errors import ConfigError
from xlmr_core.parameters import Parameter
from xlmr_core.quantization.base import Scheme, check_skip, is_in, refuse_shared_sides
from xlmr_core.wording import shown

__all__ = ["OwnScheme"]

# By bare name, without ``roberta.`` and the side of an encoder-decoder.
_TAKEN = re.compile(
    r"embeddings\.word_embeddings\.weight"
    r"|encoder\.layer\.\d+\..*(query|key|value|dense)\.weight"
    r"|lm_head\.decoder\.weight"
)
_SIDE = re.compile(r"(encoder\.(?=embeddings\.|encoder\.|pooler\.)|decoder\.(?=roberta\.|lm_head\.))?(roberta\.)?")


@dataclass(frozen=True)
class OwnScheme(Scheme):
    """A scheme of this library's own.

    Attributes:
        skip: modules whose weights stay as they are, by their whole name or steps of it: ``query`` of every layer,
            ``encoder.layer.0`` all of one.
    """

    by_rows: ClassVar[bool] = True
    version: ClassVar[int] = 1  # moves when older readers would misread it
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        skip: Any = self.skip
        if not isinstance(skip, list | tuple) or not all(isinstance(name, str) for name in skip):
            raise ConfigError(f"skip must be a list of names of modules, received {shown(skip)}")
        object.__setattr__(self, "skip", tuple(skip))

    def written(self) -> dict[str, Any]:
        said = {"quant_method": f"xlmr-{self.name}", "version": self.version}
        said |= {field.name: getattr(self, field.name) for field in fields(self) if field.name != "skip"}
        return said | ({"skip": list(self.skip)} if self.skip else {})

    def read(self, said: Any) -> Self:
        settings = dict(said) if isinstance(said, Mapping) else {}
        plain = {key: settings.pop(key, None) for key in ("quant_method", "version")}
        skip = settings.pop("skip", [])
        kinds = {field.name: type(getattr(self, field.name)) for field in fields(self) if field.name != "skip"}
        if (
            plain != {"quant_method": f"xlmr-{self.name}", "version": self.version}
            or {key: type(value) for key, value in settings.items()} != kinds
            or not (isinstance(skip, list) and all(isinstance(name, str) for name in skip))
        ):
            raise ConfigError(
                f"quantization_config must be {self.written()!r}, received {said!r}; "
                "the checkpoint needs another release of this library"
            )
        return type(self)(skip=tuple(skip), **settings)

    def takes(self, row: Parameter) -> bool:
        # What is tied follows the other end.
        name = row.tied_to or row.name
        return _TAKEN.fullmatch(_bare(name)) is not None and not any(is_in(name, skipped) for skipped in self.skip)

    def planned(self, rows: Mapping[str, Parameter]) -> Self:
        refuse_shared_sides(rows)
        # What is tied is skipped by its other end.
        names = [row.tied_to or row.name for row in rows.values()]
        check_skip(self.name, self.skip, [name for name in names if _TAKEN.fullmatch(_bare(name))])
        for row in rows.values():
            if self.takes(row):
                self.for_weight(row).stored(row)
        return self


def _bare(name: str) -> str:
    found = _SIDE.match(name)
    assert found is not None, "it matches nothing too"
    return name[found.end() :]
