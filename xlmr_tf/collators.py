"""The published data collators, with tensors of TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xlmr_core.training import collators

__all__ = [
    "DataCollatorForLanguageModeling",
    "DataCollatorForMultipleChoice",
    "DataCollatorForSeq2Seq",
    "DataCollatorForTokenClassification",
    "DataCollatorForWholeWordMask",
    "DataCollatorWithPadding",
    "DefaultDataCollator",
    "default_data_collator",
]


def default_data_collator(features: Sequence[Any], return_tensors: str = "tf") -> dict[str, Any]:
    """A batch of features of one shape; see :func:`xlmr_core.training.collators.collate`."""
    return collators.collate(features, return_tensors)


@dataclass
class DefaultDataCollator(collators.DefaultDataCollator):
    """:func:`default_data_collator` as an object."""

    return_tensors: str = "tf"


@dataclass
class DataCollatorWithPadding(collators.DataCollatorWithPadding):
    """See :class:`xlmr_core.training.collators.DataCollatorWithPadding`."""

    return_tensors: str = "tf"


@dataclass
class DataCollatorForTokenClassification(collators.DataCollatorForTokenClassification):
    """See :class:`xlmr_core.training.collators.DataCollatorForTokenClassification`."""

    return_tensors: str = "tf"


@dataclass
class DataCollatorForSeq2Seq(collators.DataCollatorForSeq2Seq):
    """See :class:`xlmr_core.training.collators.DataCollatorForSeq2Seq`."""

    return_tensors: str = "tf"


@dataclass
class DataCollatorForMultipleChoice(collators.DataCollatorForMultipleChoice):
    """See :class:`xlmr_core.training.collators.DataCollatorForMultipleChoice`."""

    return_tensors: str = "tf"


@dataclass
class DataCollatorForLanguageModeling(collators.DataCollatorForLanguageModeling):
    """See :class:`xlmr_core.training.collators.DataCollatorForLanguageModeling`."""

    return_tensors: str = "tf"


@dataclass
class DataCollatorForWholeWordMask(DataCollatorForLanguageModeling):
    """As :class:`DataCollatorForLanguageModeling`, of whole words: tokens from one ``▁`` to the next."""

    whole_word_mask: bool = True
