"""The table of heads: one row a task, the same for base and XL and for every backend.

To add a head: a row here, and what "How do I add a head?" of DEVELOP.md says.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from xlmr_core.config import EncoderDecoderConfig, ModelConfig, XLMRobertaConfig, XLMRobertaXLConfig
from xlmr_core.errors import XLMRError
from xlmr_core.outputs import (
    BaseModelOutputWithPoolingAndCrossAttentions,
    CausalLMOutputWithCrossAttentions,
    MaskedLMOutput,
    ModelOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    Seq2SeqLMOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)

__all__ = [
    "ENCODER_DECODER",
    "FAMILIES",
    "HEADS",
    "OWN_HEAD",
    "Head",
    "LossKind",
    "head_called",
    "head_of_class",
    "model_class_name",
]


class LossKind(Enum):
    """What ``labels`` mean to a head; ``losses.py`` has the details."""

    NONE = "none"
    TOKENS = "tokens"  # an id per token, -100 ignored
    NEXT_TOKENS = "next tokens"  # as TOKENS, each position predicting its successor
    SEQUENCE = "sequence"  # a class, several classes or numbers per sequence
    CHOICE = "choice"  # the index of the right choice
    SPAN = "span"  # start_positions and end_positions


@dataclass(frozen=True)
class Head:
    """A task head.

    Attributes:
        suffix: end of the class name; ``XLMRoberta`` + suffix and ``XLMRobertaXL`` + suffix are the classes.
        auto: name of the Auto class that builds it.
        output: what its forward returns.
        loss: what its labels mean.
        pooler: whether the encoder below it has a pooler.
        labels: input names that carry labels.
        reads_first_token: whether the answer depends on the state of position 0 alone.
    """

    suffix: str
    auto: str
    output: type[ModelOutput[Any]]
    loss: LossKind
    pooler: bool = False
    labels: tuple[str, ...] = ("labels",)
    reads_first_token: bool = False


_ROWS = (
    Head("Model", "AutoModel", BaseModelOutputWithPoolingAndCrossAttentions, LossKind.NONE, pooler=True, labels=()),
    Head("ForMaskedLM", "AutoModelForMaskedLM", MaskedLMOutput, LossKind.TOKENS),
    Head("ForCausalLM", "AutoModelForCausalLM", CausalLMOutputWithCrossAttentions, LossKind.NEXT_TOKENS),
    Head(
        "ForSequenceClassification",
        "AutoModelForSequenceClassification",
        SequenceClassifierOutput,
        LossKind.SEQUENCE,
        reads_first_token=True,
    ),
    Head(
        "ForMultipleChoice",
        "AutoModelForMultipleChoice",
        MultipleChoiceModelOutput,
        LossKind.CHOICE,
        pooler=True,
        reads_first_token=True,
    ),
    Head("ForTokenClassification", "AutoModelForTokenClassification", TokenClassifierOutput, LossKind.TOKENS),
    Head(
        "ForQuestionAnswering",
        "AutoModelForQuestionAnswering",
        QuestionAnsweringModelOutput,
        LossKind.SPAN,
        labels=("start_positions", "end_positions"),
    ),
)

HEADS: dict[str, Head] = {head.suffix: head for head in _ROWS}

# Of the one model that is no head on an encoder but consists of two models: its name has no family in front.
ENCODER_DECODER = Head("EncoderDecoderModel", "AutoModelForSeq2SeqLM", Seq2SeqLMOutput, LossKind.TOKENS)

# Of a user's class, which puts layers of its own on an encoder; there is nothing to load or to choose by this name.
OWN_HEAD = Head("PreTrainedModel", "", ModelOutput, LossKind.NONE)

# A family is a variant of the graph: its class prefix and its configuration.
FAMILIES: dict[str, type[XLMRobertaConfig]] = {"XLMRoberta": XLMRobertaConfig, "XLMRobertaXL": XLMRobertaXLConfig}


def head_called(suffix: str) -> Head:
    """The head of a suffix: of ``HEADS``, or that of an encoder-decoder."""
    return ENCODER_DECODER if suffix == ENCODER_DECODER.suffix else HEADS[suffix]


def model_class_name(config: ModelConfig, head: str) -> str:
    """The published class name, e.g. ``XLMRobertaXLForMaskedLM`` for an XL config and the head ``ForMaskedLM``."""
    if isinstance(config, EncoderDecoderConfig):
        return ENCODER_DECODER.suffix
    prefix = "XLMRobertaXL" if isinstance(config, XLMRobertaXLConfig) else "XLMRoberta"
    return prefix + HEADS[head].suffix


def head_of_class(name: str) -> Head:
    """The head that a published class name means: ``TFXLMRobertaForMaskedLM``, ``RobertaForMaskedLM``,
    ``CamembertModel``, ...

    Raises:
        XLMRError: for a name that is no head of this family.
    """
    rest = name.removeprefix("TF").removeprefix("Flax")
    if rest == ENCODER_DECODER.suffix:
        return ENCODER_DECODER
    for prefix in ("XLMRobertaXL", "XLMRoberta", "Roberta", "Camembert"):
        if rest.startswith(prefix) and rest.removeprefix(prefix) in HEADS:
            return HEADS[rest.removeprefix(prefix)]
    raise XLMRError(
        f"expected a class such as {', '.join('XLMRoberta' + suffix for suffix in HEADS)}, received {name!r}"
    )
