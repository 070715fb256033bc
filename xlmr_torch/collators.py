"""The published data collators, with tensors of PyTorch. What is hidden follows ``torch.manual_seed``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from xlmr_core.training import collators
from xlmr_torch.tensors import to_tensor

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


def default_data_collator(features: Sequence[Any], return_tensors: str = "pt") -> dict[str, Any]:
    """A batch of features of one shape; see :func:`xlmr_core.training.collators.collate`."""
    return collators.collate(features, return_tensors)


@dataclass
class DefaultDataCollator(collators.DefaultDataCollator):
    """:func:`default_data_collator` as an object."""

    return_tensors: str = "pt"


@dataclass
class DataCollatorWithPadding(collators.DataCollatorWithPadding):
    """See :class:`xlmr_core.training.collators.DataCollatorWithPadding`."""

    return_tensors: str = "pt"


@dataclass
class DataCollatorForTokenClassification(collators.DataCollatorForTokenClassification):
    """See :class:`xlmr_core.training.collators.DataCollatorForTokenClassification`."""

    return_tensors: str = "pt"


@dataclass
class DataCollatorForSeq2Seq(collators.DataCollatorForSeq2Seq):
    """See :class:`xlmr_core.training.collators.DataCollatorForSeq2Seq`."""

    return_tensors: str = "pt"


@dataclass
class DataCollatorForMultipleChoice(collators.DataCollatorForMultipleChoice):
    """See :class:`xlmr_core.training.collators.DataCollatorForMultipleChoice`."""

    return_tensors: str = "pt"


@dataclass
class DataCollatorForLanguageModeling(collators.DataCollatorForLanguageModeling):
    """See :class:`xlmr_core.training.collators.DataCollatorForLanguageModeling`."""

    return_tensors: str = "pt"

    def torch_mask_tokens(self, inputs: Any, special_tokens_mask: Any = None) -> tuple[Tensor, Tensor]:
        """Ids with some hidden, and their labels; as ``numpy_mask_tokens``."""
        fed, labels = self.numpy_mask_tokens(inputs, special_tokens_mask)
        return to_tensor(fed), to_tensor(labels)

    def _seeds(self) -> list[int]:
        """Workers of a ``DataLoader`` hide other tokens each."""
        if self.seed is None:
            return [int(torch.randint(1 << 62, ()))]
        worker = get_worker_info()
        return [*super()._seeds(), 0 if worker is None else worker.id]


@dataclass
class DataCollatorForWholeWordMask(DataCollatorForLanguageModeling):
    """As :class:`DataCollatorForLanguageModeling`, of whole words: tokens from one ``▁`` to the next."""

    whole_word_mask: bool = True
