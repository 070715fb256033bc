"""What a quantization scheme is: the frame that each of them fills in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, TypeAlias

from xlmr_core.errors import ConfigError
from xlmr_core.parameters import Parameter, Quantized, Role

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xlmr_core.checkpoints.load_plan import TensorFile

__all__ = ["Parts", "Scheme", "Stored", "check_skip", "is_in", "refuse_shared_sides"]

Array: TypeAlias = "NDArray[Any]"
# The tensors of a quantized weight, by suffix.
Parts: TypeAlias = Mapping[str, Array]


class Stored(NamedTuple):
    """One of the tensors in which a quantized weight is stored.

    Attributes:
        suffix: what follows the name of the weight in its name; empty for the tensor that has just that name.
        dtype: tag of its dtype, which does not follow the model's.
        shape: its sizes, which may be others than those of the weight.
        dims: what its axes stand for, symbols of the weight's row (``Parameter.dims``) or words of the scheme's own.
    """

    suffix: str
    dtype: str
    shape: tuple[int, ...]
    dims: tuple[str, ...]


class Scheme(ABC):
    """A way to store weights in fewer bits: a frozen dataclass whose fields are its settings, if it has any.

    ``name`` is what users call it. ``encode`` and ``decode`` specify its arithmetic: a backend's own gives the same
    bits.
    """

    name: ClassVar[str]
    by_rows: ClassVar[bool] = False  # whether each row of a weight is stored by itself, as a row of each of its tensors

    @abstractmethod
    def written(self) -> dict[str, Any]:
        """The value of ``quantization_config`` in config.json, with its ``quant_method``."""

    def read(self, said: Any) -> Self:
        """The scheme with the settings of a ``quantization_config`` of its method.

        Raises:
            ConfigError: for a version or a value that it does not know.
        """
        if said != self.written():
            raise ConfigError(
                f"quantization_config must be {self.written()!r}, received {said!r}; "
                "the checkpoint needs another release of this library"
            )
        return self

    def in_file(self, file: TensorFile) -> Self:
        """The scheme as the tensors of a file have it, where the config does not say all.

        Such as which weights were left as they were, or the length of a text beside one.
        """
        return self

    def planned(self, rows: Mapping[str, Parameter]) -> Self:
        """The scheme with which the weights of a model are about to be stored.

        Args:
            rows: of the model as it is, by name.

        Raises:
            ConfigError: if its settings and the model do not fit.
        """
        return self

    def for_weight(self, row: Parameter) -> Scheme:
        """The scheme by which one of the weights is stored, where that is not the same for all."""
        return self

    def of_dtype(self, tag: str) -> Self:
        """The scheme for weights of that dtype, where it makes a difference what they were."""
        return self

    def of_side(self, side: str) -> Self:
        """The scheme of the encoder, or of the decoder, of an encoder-decoder: names begin inside of it."""
        return self

    def part_name(self, weight: str, suffix: str) -> str:
        """The name of one of a weight's tensors."""
        return weight + suffix

    @abstractmethod
    def takes(self, row: Parameter) -> bool:
        """Whether a parameter is one of the weights that it quantizes."""

    @abstractmethod
    def stored(self, row: Parameter) -> tuple[Stored, ...]:
        """The tensors of a weight, that under the weight's own name first."""

    @abstractmethod
    def encode(self, weight: Array) -> dict[str, Array]:
        """The tensors of a floating point weight, by suffix."""

    @abstractmethod
    def decode(self, parts: Parts, shape: tuple[int, ...]) -> Array:
        """The float32 weight of that shape that its tensors, by suffix, stand for."""

    def rows(self, row: Parameter) -> tuple[Parameter, ...]:
        """What the parameter table has in place of a row: itself, or the tensors that the weight is stored in."""
        if not self.takes(row):
            return (row,)
        scheme = self.for_weight(row)
        rows = tuple(
            replace(
                row,
                name=self.part_name(row.name, stored.suffix),
                shape=stored.shape,
                dims=stored.dims,
                role=Role.BESIDE if stored.suffix else row.role,
                tied_to=None if row.tied_to is None else self.part_name(row.tied_to, stored.suffix),
                dtype=stored.dtype,
                quantized=Quantized(scheme, row.name, stored.suffix, row.shape),
            )
            for stored in scheme.stored(row)
        )
        assert rows[0].name == row.name, "the tensor under the weight's own name comes first"
        return rows


def is_in(name: str, module: str) -> bool:
    """Whether a weight belongs to a module of that name, or of a name with these steps in it."""
    return f".{_plain(module)}." in f".{_plain(name)}."


def check_skip(scheme: str, skip: Sequence[str], weights: Sequence[str]) -> None:
    """Refuse a name of a module to skip in which no weight is that a scheme takes.

    Args:
        scheme: its name.
        skip: the names.
        weights: those that it would take, by name.

    Raises:
        ConfigError: for such a name.
    """
    for skipped in skip:
        if not any(is_in(name, skipped) for name in weights):
            raise ConfigError(
                f"skip must name modules with weights that {scheme} takes, such as "
                f"{_plain(weights[-1]).removesuffix('.weight')!r} or 'query', received {skipped!r}"
            )


def _plain(name: str) -> str:
    return name.replace("roberta.", "")


def refuse_shared_sides(rows: Mapping[str, Parameter]) -> None:
    """Refuse an encoder-decoder whose sides share their weights.

    Raises:
        ConfigError: if they do.
    """
    if any(row.name.startswith("encoder.") and (row.tied_to or "").startswith("decoder.") for row in rows.values()):
        raise ConfigError(
            "an encoder-decoder is quantized with weights of its own on each side, received one with "
            "tie_encoder_decoder=True; save it without, and quantize that"
        )
