"""The checks of a model's inputs, once for every backend and with one wording.

A backend describes each input as :class:`Seen`: its shape and dtype, which are always known, and its values, where they
can be read for nothing (on the host, outside compilers). The core decides. Under a compiler, an export or on an
accelerator, values are the caller's contract. What was not passed (``None``) is in order. ``head_checks.py`` has the
checks of what only heads take.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from xlmr_core.arguments import suggestion
from xlmr_core.cache import SeenCache, check_cache, check_mask_of_cache
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.wording import an, counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "IGNORE_INDEX",
    "MASKED_SCORE",
    "Kind",
    "Seen",
    "check_choice",
    "check_encoder_inputs",
    "check_floats",
    "check_head_mask",
    "check_integers",
    "check_length",
    "check_mask",
    "check_memory",
    "check_numbers",
    "check_range",
    "check_shape",
    "check_source",
    "place_of",
    "refuse_cache",
    "refuse_layout",
    "refuse_objects",
    "refuse_type",
    "see_array",
    "warn_of_attended_padding",
]

# A label of this value is not counted (the convention of all published data collators).
IGNORE_INDEX = -100

# A masked position as start or end of an answer, where packing left it out: whoever takes the best position, or a
# softmax over all, must not get padding. A zero would be among the best of scores that are mostly negative; the
# published question-answering pipeline puts this number.
MASKED_SCORE = -10_000.0

Shape = Sequence[int]


class Kind(Enum):
    """What an input holds."""

    INTEGER = "integers"
    FLOATING = "floating point numbers"
    BOOLEAN = "truth values"
    TEXT = "texts"
    COMPLEX = "complex numbers"
    OTHER = "something else"


@dataclass(frozen=True)
class Seen:
    """What a backend sees of an input without computing.

    Attributes:
        name: of the argument.
        shape: its sizes; one that a graph does not know equals every size.
        kind: what it holds.
        dtype: the framework's own, for messages.
        values: gives them as a NumPy array; ``None`` where reading them is impossible or makes a device wait.
    """

    name: str
    shape: Shape
    kind: Kind
    dtype: Any
    values: Callable[[], NDArray[Any]] | None = None

    @property
    def dtype_name(self) -> str:
        """The dtype in words."""
        return str(getattr(self.dtype, "name", self.dtype))


def see_array(name: str, x: NDArray[Any] | None) -> Seen | None:
    """What the checks look at of a NumPy array, which always has its values."""
    if x is None:
        return None
    kind = _KIND_OF_LETTER.get(x.dtype.kind, Kind.OTHER)
    return Seen(name, x.shape, kind, x.dtype, lambda: x)


# By the letter that NumPy has for it.
_KIND_OF_LETTER = {
    "i": Kind.INTEGER,
    "u": Kind.INTEGER,
    "f": Kind.FLOATING,
    "b": Kind.BOOLEAN,
    "c": Kind.COMPLEX,
    **dict.fromkeys("UST", Kind.TEXT),
}


# ---- One input


# What a tokenizer gives; other inputs come from elsewhere.
_FROM_TOKENIZER = ("input_ids", "attention_mask", "token_type_ids")


def refuse_type(name: str, value: object, wanted: str, *, of_tokenizer: str, conversion: str) -> None:
    """Refuse what is no tensor.

    Args:
        name: of the input.
        value: what came.
        wanted: what to call a tensor of the framework, with its article.
        of_tokenizer: the argument that makes a tokenizer return tensors.
        conversion: what makes a tensor of numbers.

    Raises:
        InputError: always; naming what came, what was wanted and how to get it.
    """
    rows = value if isinstance(value, list | tuple) else ()
    if isinstance(value, Mapping) or hasattr(value, "input_ids"):
        cure = "pass its entries by name, model(**inputs)"
    elif isinstance(value, str) or any(isinstance(row, str) for row in rows):
        of_text = f"texts go through the tokenizer first, with {of_tokenizer}"
        cure = of_text if name in _FROM_TOKENIZER else f"pass numbers (of labels: config.label2id), {conversion}"
    elif len({len(row) for row in rows if isinstance(row, list | tuple)}) > 1:
        cure = "its rows have different lengths; let the tokenizer fill them up (padding=True)"
    elif name in _FROM_TOKENIZER:
        cure = f"pass {of_tokenizer} to the tokenizer, or {conversion}"
    else:
        cure = f"pass {conversion}"
    raise InputError(f"{name} must be {wanted}, received {type(value).__name__}; {cure}")


def refuse_layout(name: str, layout: str, conversion: str) -> None:
    """Refuse a tensor whose values do not lie in one block.

    Args:
        name: of the input.
        layout: what it is: sparse, ragged, nested.
        conversion: what makes an ordinary tensor of it.

    Raises:
        InputError: always.
    """
    raise InputError(f"{name} must be an ordinary (dense) tensor, received {an(layout)} one; pass {conversion}")


def refuse_objects(name: str) -> None:
    """Refuse an array of Python objects.

    Raises:
        InputError: always.
    """
    raise InputError(
        f"{name} must hold numbers, received object; its rows may have different lengths, let the tokenizer fill them "
        "up (padding=True)"
    )


def check_choice(name: str, value: Any, allowed: Collection[str]) -> str:
    """Return a word if it is one of those allowed, else say which there are."""
    if not isinstance(value, str) or value not in allowed:
        near = suggestion(value, allowed, "") if isinstance(value, str) else ""
        raise InputError(
            f"{name} must be one of {', '.join(map(repr, allowed))}, received {value!r}{near and '; '}{near}"
        )
    return value


def check_shape(name: str, shape: Shape, *allowed: Shape, cure: str = "") -> None:
    """Refuse a shape that is none of those allowed."""
    # Compared one by one and not as a set: under an export sizes are symbols, which have no hash.
    if not any(tuple(shape) == tuple(one) for one in allowed):
        expected = " or ".join(dict.fromkeys(str(tuple(one)) for one in allowed))
        raise InputError(f"{name} must have the shape {expected}, received {tuple(shape)}{cure and '; '}{cure}")


def check_integers(seen: Seen | None, cure: str = "convert them to integers (int64)") -> None:
    """Refuse anything but integers."""
    if seen is not None and seen.kind is not Kind.INTEGER:
        if seen.kind is Kind.TEXT:
            cure = "texts go through the tokenizer first"
        elif seen.dtype_name == "object":
            cure = "it may have rows of different lengths; let the tokenizer fill them up (padding=True)"
        raise InputError(f"{seen.name} must hold integers, received {seen.dtype_name}; {cure}")


def check_numbers(seen: Seen, cure: str) -> None:
    """Refuse complex numbers, texts, and what holds no numbers."""
    if seen.kind in (Kind.COMPLEX, Kind.TEXT, Kind.OTHER):
        raise InputError(f"{seen.name} must hold numbers, received {seen.dtype_name}; {cure}")


def check_floats(seen: Seen, cure: str) -> None:
    """Refuse anything but floating point numbers."""
    if seen.kind is not Kind.FLOATING:
        raise InputError(f"{seen.name} must hold floating point numbers, received {seen.dtype_name}; {cure}")


def check_range(name: str, values: NDArray[Any], low: int, high: int, meaning: str) -> None:
    """Refuse values out of a range.

    Args:
        name: of the input.
        values: all of them; none at all is in order.
        low, high: the smallest and the largest that are allowed.
        meaning: what gives the range, and what to do.
    """
    if values.size == 0:
        return
    smallest, largest = values.min().item(), values.max().item()
    if smallest < low or largest > high:
        worst = smallest if smallest < low else largest
        shown = int(worst) if float(worst).is_integer() else worst
        where = place_of(values == worst)
        raise InputError(
            f"{name} must lie between {low} and {high}, received {shown}{where}; the range is given by {meaning}"
        )


def place_of(found: NDArray[Any]) -> str:
    """Where the first true value stands, in words: the row, and the position in it."""
    first = [int(indices[0]) for indices in found.nonzero() if indices.size]
    words = ("row", "position") if len(first) < 3 else ("row", *["index"] * (len(first) - 2), "position")
    return " in " + ", ".join(f"{word} {index}" for word, index in zip(words, first, strict=False)) if first else ""


def check_mask(mask: Seen | None) -> None:
    """Refuse a mask that holds anything but 0 and 1."""
    if mask is None or mask.kind is Kind.BOOLEAN:
        return
    if mask.kind not in (Kind.INTEGER, Kind.FLOATING):
        raise InputError(f"{mask.name} must hold 0 and 1, received {mask.dtype_name}; pass the tokenizer's own mask")
    if mask.values is None:
        return
    values = mask.values()
    check_range(mask.name, values, 0, 1, "a mask, in which 1 means attend and 0 means ignore")
    if mask.kind is Kind.FLOATING:
        between = (values != 0) & (values != 1)
        if between.any():
            raise InputError(
                f"{mask.name} must hold 0 and 1 only, received {values[between][0].item()}{place_of(between)}; "
                "round it, or scale the scores elsewhere"
            )


def check_length(config: XLMRobertaConfig, length: int) -> None:
    """Refuse a sequence for which the position table is too short."""
    if length > config.max_tokens:
        raise InputError(
            f"sequence has {counted(int(length), 'token')}, this checkpoint takes {config.max_tokens} "
            f"(max_position_embeddings {config.max_position_embeddings}, of which the first {config.pad_token_id + 1} "
            "are reserved); "
            f"pass truncation=True, max_length={config.max_tokens} to the tokenizer, or split the text"
        )


# ---- A call of the encoder


def check_encoder_inputs(
    config: XLMRobertaConfig,
    *,
    input_ids: Seen | None,
    inputs_embeds: Seen | None = None,
    attention_mask: Seen | None = None,
    token_type_ids: Seen | None = None,
    position_ids: Seen | None = None,
    past: SeenCache | None = None,
) -> tuple[int, int]:
    """Check the inputs of an encoder and return (batch, length); with a cache (``past``), those of the new tokens.

    Raises:
        InputError: for both or neither of ``input_ids`` and ``inputs_embeds``, an empty batch or sequence, a sequence
            over the model's length, an input whose shape does not fit, ids that are not integers or lie outside their
            table, a mask of other than 0 and 1.
    """
    for source in (input_ids, inputs_embeds):
        if source is not None and 0 in tuple(source.shape):
            refuse_empty(source.shape)
    for ids in (input_ids, token_type_ids, position_ids):
        check_integers(ids, "pass the tokenizer's output, or inputs_embeds for vectors")
    if inputs_embeds is not None:
        check_floats(inputs_embeds, "pass ids as input_ids")
    batch, length = _batch_and_length(config, input_ids, inputs_embeds)
    if past is not None:
        check_cache(config, past, batch, length, has_positions=position_ids is not None)
        check_mask_of_cache(attention_mask, past, batch, length)
    elif position_ids is None:
        check_length(config, length)
    if config.position_embedding_type != "absolute" and length > config.max_position_embeddings:
        raise InputError(
            f"sequence has {length} tokens, relative positions reach {config.max_position_embeddings}; shorten it"
        )
    shapes = ((batch, length), (batch, length, length))
    if past is None and attention_mask is not None and tuple(attention_mask.shape) not in shapes:
        raise InputError(
            f"attention_mask must have the shape {(batch, length)} or {(batch, length, length)} to fit the input, "
            f"received {tuple(attention_mask.shape)}; pass the tokenizer's own mask"
        )
    for ids in (token_type_ids, position_ids):
        if ids is not None:
            check_shape(ids.name, ids.shape, (batch, length), (1, length))
    for ids, size, meaning in (
        (
            input_ids,
            config.vocab_size,
            "the vocabulary (vocab_size); the tokenizer does not belong to this checkpoint",
        ),
        (token_type_ids, config.type_vocab_size, "type_vocab_size; leave token_type_ids out, or use zeros"),
        (position_ids, config.max_position_embeddings, "max_position_embeddings; shorten the input"),
    ):
        if ids is not None and ids.values is not None:
            check_range(ids.name, ids.values(), 0, size - 1, meaning)
    check_mask(attention_mask)
    return batch, length


def _batch_and_length(config: XLMRobertaConfig, ids: Seen | None, embeds: Seen | None) -> tuple[int, int]:
    """(batch, length) of ids, or of the embeddings in their place."""
    check_source(ids, embeds)
    if ids is not None:
        if len(ids.shape) != 2:
            raise InputError(
                f"input_ids must have the shape (batch, length), received {tuple(ids.shape)}; add or remove an axis"
            )
        batch, length = ids.shape
    else:
        assert embeds is not None
        if len(embeds.shape) != 3 or embeds.shape[2] != config.hidden_size:
            raise InputError(
                f"inputs_embeds must have the shape (batch, length, {config.hidden_size}), "
                f"received {tuple(embeds.shape)}; its last axis is the model's hidden_size"
            )
        batch, length, _ = embeds.shape
    return batch, length


def refuse_empty(shape: Shape) -> None:
    """Refuse an input without a token.

    Raises:
        InputError: always.
    """
    raise InputError(
        f"expected at least one sequence of at least one token, received the shape {tuple(shape)}; skip empty batches"
    )


def check_source(ids: Seen | None, embeds: Seen | None) -> Seen:
    """The one of ids and embeddings that came; both and neither are refused."""
    source = embeds if ids is None else ids
    if source is None or (ids is not None and embeds is not None):
        received = "neither" if source is None else "both"
        raise InputError(f"expected exactly one of input_ids and inputs_embeds, received {received}; pass one of them")
    return source


def check_head_mask(config: XLMRobertaConfig, head_mask: Seen | None) -> None:
    """Refuse a head mask that is neither one number a head nor one a layer and head."""
    if head_mask is None:
        return
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    check_shape(head_mask.name, head_mask.shape, (heads,), (layers, heads))
    check_numbers(head_mask, "pass 1 for a head that takes part and 0 for one that does not")


def check_memory(
    config: XLMRobertaConfig, batch: int, states: Seen | None, mask: Seen | None, *, has_cross_attention: bool
) -> None:
    """Check the states of another encoder that a decoder attends to.

    Args:
        config: says the width.
        batch: number of sequences of the call.
        states: (B, M, D).
        mask: (B, M) of 0 and 1.
        has_cross_attention: whether the model was built with it.
    """
    if states is None:
        return
    if not has_cross_attention:
        raise InputError(
            "encoder_hidden_states needs a decoder with cross-attention, which a model has from its building on: "
            "build or load it with is_decoder=True, add_cross_attention=True"
        )
    shape = tuple(states.shape)
    if len(shape) != 3 or 0 in shape or (shape[0], shape[2]) != (batch, config.hidden_size):
        raise InputError(
            f"encoder_hidden_states must have the shape ({batch}, source length, {config.hidden_size}), received "
            f"{shape}"
        )
    check_floats(states, "pass the last hidden states of an encoder")
    if mask is not None:
        check_shape(mask.name, mask.shape, shape[:2])
    check_mask(mask)


def refuse_cache(**given: object) -> None:
    """Refuse the published arguments of a decoder's cache where nothing can go on from one."""
    for name, value in given.items():
        if value is not None:
            raise InputError(
                f"{name} is for a causal language model or its bare decoder, expected None; pass the whole sequence"
            )


def warn_of_attended_padding(config: XLMRobertaConfig, input_ids: Seen) -> None:
    """Say that padding is attended to because no mask came with it."""
    if input_ids.values is not None and bool((input_ids.values()[:, [0, -1]] == config.pad_token_id).any()):
        warnings.warn(
            "input_ids holds padding and no attention_mask was passed, so padding is attended to; "
            "pass the tokenizer's attention_mask",
            UserWarning,
            stacklevel=3,
        )
