"""Output types, generic over the array type, the same in every backend.

An output is a dictionary that leaves out what was not computed, and that can also be read by attribute and by index::

    output.logits, output["logits"], output[0], output[:2], output.to_tuple()

It is a plain ``dict`` subclass because that is the one kind of object that every framework carries through unharmed
(``fit`` and ``predict`` of Keras, JAX pytrees, PyTorch's compiler, export and data-parallel wrappers).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar

__all__ = [
    "OUTPUT_TYPES",
    "BaseModelOutput",
    "BaseModelOutputWithPoolingAndCrossAttentions",
    "CausalLMOutputWithCrossAttentions",
    "MaskedLMOutput",
    "ModelOutput",
    "MultipleChoiceModelOutput",
    "QuestionAnsweringModelOutput",
    "Seq2SeqLMOutput",
    "SequenceClassifierOutput",
    "TokenClassifierOutput",
]

ArrayT = TypeVar("ArrayT")
# Beside the type of a field that is ``None`` unless the call asked for it. It is ``Any``: who asked needs no test
# for ``None`` to please a type checker.
MaybeNone: TypeAlias = Any


# Keys are texts. They are ``Any`` here for type checkers, which take the tuple that ``return_dict=False`` gives for an
# output: what it is taken apart into then is not text.
class ModelOutput(dict[Any, Any], Generic[ArrayT]):
    """Base of all outputs: fields in a fixed order, ``None`` fields left out.

    Args:
        *values: fields in the order of their declaration, or all of them by name in one mapping or one iterator of
            pairs (as PyTorch's data-parallel wrapper and TensorFlow rebuild a dictionary).
        **more: fields by name. A field that is ``None`` reads as ``None`` by attribute and does not count for indices,
            keys and ``to_tuple``.

    Raises:
        TypeError: for too many fields, an unknown one, or one that is given twice by place and by name.
    """

    fields: ClassVar[tuple[str, ...]] = ()

    def __init__(self, /, *values: Any, **more: Any) -> None:
        if len(values) == 1 and isinstance(values[0], Mapping | Iterator):
            given = {**dict(values[0]), **more}
        else:
            if len(values) > len(self.fields):
                raise TypeError(f"{type(self).__name__} has {len(self.fields)} fields, received {len(values)}")
            given = dict(zip(self.fields, values, strict=False))
            for name in given:
                if name in more:
                    raise TypeError(f"{type(self).__name__} received {name!r} twice, by its place and by its name")
            given.update(more)
        for name in given:
            if name not in self.fields:
                raise TypeError(f"{type(self).__name__} has the fields {', '.join(self.fields)}, received {name!r}")
        super().__init__({name: given[name] for name in self.fields if given.get(name) is not None})

    if not TYPE_CHECKING:  # a type checker that does not see it knows a misspelt field

        def __getattr__(self, name: str) -> Any:
            if name in type(self).fields:
                return self.get(name)
            raise AttributeError(f"{type(self).__name__} has the fields {', '.join(self.fields)}, not {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in self.fields:
            raise KeyError(f"{type(self).__name__} has the fields {', '.join(self.fields)}, not {name!r}")
        values = {**self, name: value}
        super().clear()
        super().update({field: values[field] for field in self.fields if values.get(field) is not None})

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return super().__getitem__(key)
        return self.to_tuple()[key]

    def update(self, *values: Any, **more: Any) -> None:
        """Set several fields; their order stays that of the declaration."""
        for name, value in dict(*values, **more).items():
            self[name] = value

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)

    def to_tuple(self) -> tuple[Any, ...]:
        """All computed fields, in the order of their declaration."""
        return tuple(self.values())

    def __repr__(self) -> str:
        """Its type, and the shape and dtype of each field: ``MaskedLMOutput(logits=(1, 5, 250002) float32)``."""
        return f"{type(self).__name__}({', '.join(f'{name}={_in_short(value)}' for name, value in self.items())})"


def _in_short(value: Any) -> str:
    """An array by its shape and dtype, several by what they have in common, anything else as it is."""
    if isinstance(value, list | tuple) and not hasattr(value, "shape"):
        parts = [_in_short(part) for part in value]
        alike = len(parts) > 1 and len(set(parts)) == 1
        return f"{len(parts)} x {parts[0]}" if alike else f"({', '.join(parts)})"
    if isinstance(value, Mapping) and not isinstance(value, ModelOutput):
        return f"{{{', '.join(f'{key!r}: {_in_short(part)}' for key, part in value.items())}}}"
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        return repr(value)
    try:
        shape = tuple(value.shape)
    except ValueError:  # TensorFlow, where not even the number of axes is known
        return str(value.shape)
    dtype = str(getattr(value.dtype, "name", value.dtype)).removeprefix("torch.")
    return f"{shape} {dtype}"


class BaseModelOutput(ModelOutput[ArrayT]):
    """The states of an encoder, as a decoder takes them.

    Attributes:
        last_hidden_state: (B, S, D), the last layer's output.
        hidden_states, attentions: as in the bare encoder.
    """

    fields = ("last_hidden_state", "hidden_states", "attentions")
    last_hidden_state: ArrayT
    hidden_states: tuple[ArrayT, ...] | MaybeNone
    attentions: tuple[ArrayT, ...] | MaybeNone


class BaseModelOutputWithPoolingAndCrossAttentions(ModelOutput[ArrayT]):
    """What the bare encoder returns.

    Attributes:
        last_hidden_state: (B, S, D), the last layer's output.
        pooler_output: (B, D), the first token's state through the pooler; absent without one.
        past_key_values: the decoder's cache.
        hidden_states: one (B, S, D) for the embeddings and one for each layer.
        attentions: one (B, N, S, S) a layer, after the softmax.
        cross_attentions: one (B, N, S, M) a layer.
    """

    fields = (
        "last_hidden_state",
        "pooler_output",
        "past_key_values",
        "hidden_states",
        "attentions",
        "cross_attentions",
    )
    last_hidden_state: ArrayT
    pooler_output: ArrayT | MaybeNone
    past_key_values: Any
    hidden_states: tuple[ArrayT, ...] | MaybeNone
    attentions: tuple[ArrayT, ...] | MaybeNone
    cross_attentions: tuple[ArrayT, ...] | MaybeNone


class MaskedLMOutput(ModelOutput[ArrayT]):
    """Masked language modelling.

    Attributes:
        loss: scalar cross-entropy over the labels that are not -100.
        logits: (B, S, V); (B, P, V) with ``masked_positions``; (number labelled, V) with ``sparse_prediction``.
        hidden_states, attentions: as in the bare encoder.
    """

    fields = ("loss", "logits", "hidden_states", "attentions")
    loss: ArrayT | MaybeNone
    logits: ArrayT
    hidden_states: tuple[ArrayT, ...] | MaybeNone
    attentions: tuple[ArrayT, ...] | MaybeNone


class CausalLMOutputWithCrossAttentions(ModelOutput[ArrayT]):
    """Left-to-right language modelling.

    Attributes:
        loss: scalar cross-entropy of each next token.
        logits: (B, S, V), or the last positions only with ``logits_to_keep``.
        past_key_values, hidden_states, attentions, cross_attentions: as in the bare encoder.
    """

    fields = ("loss", "logits", "past_key_values", "hidden_states", "attentions", "cross_attentions")
    loss: ArrayT | MaybeNone
    logits: ArrayT
    past_key_values: Any
    hidden_states: tuple[ArrayT, ...] | MaybeNone
    attentions: tuple[ArrayT, ...] | MaybeNone
    cross_attentions: tuple[ArrayT, ...] | MaybeNone


class Seq2SeqLMOutput(ModelOutput[ArrayT]):
    """Language modelling of a decoder that attends to an encoder's states.

    Attributes:
        loss: scalar cross-entropy over the labels that are not -100.
        logits: (B, T, V) of the decoder's tokens.
        past_key_values: the decoder's cache.
        decoder_hidden_states, decoder_attentions, cross_attentions: of the decoder, as in the bare model.
        encoder_last_hidden_state: (B, S, D), the states of the encoder, before a projection.
        encoder_hidden_states, encoder_attentions: of the encoder.
    """

    fields = (
        "loss",
        "logits",
        "past_key_values",
        "decoder_hidden_states",
        "decoder_attentions",
        "cross_attentions",
        "encoder_last_hidden_state",
        "encoder_hidden_states",
        "encoder_attentions",
    )
    loss: ArrayT | MaybeNone
    logits: ArrayT
    past_key_values: Any
    decoder_hidden_states: tuple[ArrayT, ...] | MaybeNone
    decoder_attentions: tuple[ArrayT, ...] | MaybeNone
    cross_attentions: tuple[ArrayT, ...] | MaybeNone
    encoder_last_hidden_state: ArrayT | MaybeNone
    encoder_hidden_states: tuple[ArrayT, ...] | MaybeNone
    encoder_attentions: tuple[ArrayT, ...] | MaybeNone


class SequenceClassifierOutput(ModelOutput[ArrayT]):
    """Classification or regression of a whole sequence.

    Attributes:
        loss: scalar.
        logits: (B, K), before softmax or sigmoid.
        hidden_states, attentions: as in the bare encoder.
    """

    fields = ("loss", "logits", "hidden_states", "attentions")
    loss: ArrayT | MaybeNone
    logits: ArrayT
    hidden_states: tuple[ArrayT, ...] | MaybeNone
    attentions: tuple[ArrayT, ...] | MaybeNone


class MultipleChoiceModelOutput(ModelOutput[ArrayT]):
    """Choice between several continuations.

    Attributes:
        loss: scalar.
        logits: (B, C), before the softmax over choices.
        hidden_states, attentions: of the B * C flattened sequences.
    """

    fields = ("loss", "logits", "hidden_states", "attentions")
    loss: ArrayT | MaybeNone
    logits: ArrayT
    hidden_states: tuple[ArrayT, ...] | MaybeNone
    attentions: tuple[ArrayT, ...] | MaybeNone


class TokenClassifierOutput(ModelOutput[ArrayT]):
    """Classification of every token.

    Attributes:
        loss: scalar over the labels that are not -100.
        logits: (B, S, K), before the softmax.
        hidden_states, attentions: as in the bare encoder.
    """

    fields = ("loss", "logits", "hidden_states", "attentions")
    loss: ArrayT | MaybeNone
    logits: ArrayT
    hidden_states: tuple[ArrayT, ...] | MaybeNone
    attentions: tuple[ArrayT, ...] | MaybeNone


class QuestionAnsweringModelOutput(ModelOutput[ArrayT]):
    """Extractive question answering.

    Attributes:
        loss: scalar, the mean of the start and the end loss.
        start_logits, end_logits: (B, S), before the softmax over positions.
        hidden_states, attentions: as in the bare encoder.
    """

    fields = ("loss", "start_logits", "end_logits", "hidden_states", "attentions")
    loss: ArrayT | MaybeNone
    start_logits: ArrayT
    end_logits: ArrayT
    hidden_states: tuple[ArrayT, ...] | MaybeNone
    attentions: tuple[ArrayT, ...] | MaybeNone


OUTPUT_TYPES: tuple[type[ModelOutput[Any]], ...] = (
    BaseModelOutput,
    BaseModelOutputWithPoolingAndCrossAttentions,
    MaskedLMOutput,
    CausalLMOutputWithCrossAttentions,
    SequenceClassifierOutput,
    MultipleChoiceModelOutput,
    TokenClassifierOutput,
    QuestionAnsweringModelOutput,
    Seq2SeqLMOutput,
)
