"""The published data collators: encoded examples to a batch. Backends export them with tensors of their own as default.

Features are what calling a tokenizer gives for a text, with ``label`` or ``labels`` beside; lists, arrays or tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from xlmr_core.errors import InputError
from xlmr_core.tokenization.encoding import BatchEncoding, as_lists
from xlmr_core.training.masking import Vocabulary, Words, mask
from xlmr_core.training.task import IGNORED
from xlmr_core.wording import shown

__all__ = [
    "DataCollatorForLanguageModeling",
    "DataCollatorForMultipleChoice",
    "DataCollatorForSeq2Seq",
    "DataCollatorForTokenClassification",
    "DataCollatorForWholeWordMask",
    "DataCollatorWithPadding",
    "DefaultDataCollator",
    "collate",
]

LABELS = ("label", "labels", "label_ids")


def collate(features: Sequence[Any], return_tensors: str = "np") -> dict[str, Any]:
    """A batch of features that are of one shape already: what ``default_data_collator`` does.

    Args:
        features: dictionaries or objects; ``label`` and ``label_ids`` become ``labels``, texts and ``None`` are left
            out.
        return_tensors: ``np``, ``pt``, ``tf`` or ``jax``.

    Raises:
        InputError: for no features; a TokenizerError for rows of different lengths.
    """
    rows = [_mapping(feature) for feature in features]
    if not rows:
        raise InputError("expected features to make a batch of, received none")
    columns: dict[str, Any] = {}
    for name, value in rows[0].items():
        if value is not None and not isinstance(value, str):
            columns["labels" if name in LABELS else name] = _column([row[name] for row in rows])
    return dict(BatchEncoding(columns, tensor_type=return_tensors))


@dataclass
class DefaultDataCollator:
    """:func:`collate` as an object.

    Args:
        return_tensors: ``np``, ``pt``, ``tf`` or ``jax``.
    """

    return_tensors: str = "np"

    def __call__(self, features: Sequence[Any], return_tensors: str | None = None) -> dict[str, Any]:
        return collate(features, return_tensors or self.return_tensors)


class _Pads:
    """What those that pad have in common; each has its fields in the published order."""

    tokenizer: Any
    padding: bool | str
    max_length: int | None
    pad_to_multiple_of: int | None

    def _padded(self, features: Sequence[Mapping[str, Any]]) -> BatchEncoding:
        """A batch of lists."""
        if not features:
            raise InputError("expected features to make a batch of, received none")
        rows = [{name: _plain(value) for name, value in feature.items()} for feature in features]
        batch: BatchEncoding = self.tokenizer.pad(
            rows, padding=self.padding, max_length=self.max_length, pad_to_multiple_of=self.pad_to_multiple_of
        )
        return batch


@dataclass
class DataCollatorWithPadding(_Pads):
    """Pads what a tokenizer gave; ``label`` and ``label_ids`` become ``labels``.

    Args:
        tokenizer: pads.
        padding: True or ``longest``, ``max_length``, or False.
        max_length: for ``max_length``.
        pad_to_multiple_of: round the padded length up.
        return_tensors: ``np``, ``pt``, ``tf`` or ``jax``.
    """

    tokenizer: Any
    padding: bool | str = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    return_tensors: str = "np"

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> BatchEncoding:
        batch = self._padded(features)
        for name in LABELS:
            if name in batch and name != "labels":
                batch["labels"] = batch.pop(name)
        return batch.convert_to_tensors(self.return_tensors)


@dataclass
class DataCollatorForTokenClassification(_Pads):
    """Pads rows and their labels.

    Args:
        tokenizer, padding, max_length, pad_to_multiple_of, return_tensors: as of :class:`DataCollatorWithPadding`.
        label_pad_token_id: the label of padding, which does not count.
    """

    tokenizer: Any
    padding: bool | str = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    label_pad_token_id: int = IGNORED
    return_tensors: str = "np"

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> BatchEncoding:
        labels, rows = _labels_apart(features)
        batch = self._padded(rows)
        if labels is not None:
            width = len(batch["input_ids"][0])
            batch["labels"] = _filled(labels, width, self.label_pad_token_id, self.tokenizer.padding_side)
        return batch.convert_to_tensors(self.return_tensors)


@dataclass
class DataCollatorForSeq2Seq(_Pads):
    """Pads rows and the labels of another length, and lets the model make the decoder's inputs of them.

    Args:
        tokenizer, padding, max_length, pad_to_multiple_of, return_tensors: as of :class:`DataCollatorWithPadding`.
        model: with ``prepare_decoder_input_ids_from_labels``; without one there is no ``decoder_input_ids``.
        label_pad_token_id: the label of padding, which does not count.
    """

    tokenizer: Any
    model: Any = None
    padding: bool | str = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    label_pad_token_id: int = IGNORED
    return_tensors: str = "np"

    def __call__(self, features: Sequence[Mapping[str, Any]], return_tensors: str | None = None) -> BatchEncoding:
        labels, rows = _labels_apart(features)
        batch = self._padded(rows)
        if labels is not None:
            width = max(map(len, labels))
            if self.padding == "max_length" and self.max_length is not None:
                width = self.max_length
            multiple = self.pad_to_multiple_of or 1
            width = -(-width // multiple) * multiple if self.padding else width
            batch["labels"] = _filled(labels, width, self.label_pad_token_id, self.tokenizer.padding_side)
        batch.convert_to_tensors(return_tensors or self.return_tensors)
        if labels is not None and hasattr(self.model, "prepare_decoder_input_ids_from_labels"):
            batch["decoder_input_ids"] = self.model.prepare_decoder_input_ids_from_labels(labels=batch["labels"])
        return batch


@dataclass
class DataCollatorForMultipleChoice(_Pads):
    """Pads the choices of each example, lists of rows, to a batch (B, C, S).

    Args:
        tokenizer, padding, max_length, pad_to_multiple_of, return_tensors: as of :class:`DataCollatorWithPadding`.
    """

    tokenizer: Any
    padding: bool | str = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    return_tensors: str = "np"

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> BatchEncoding:
        if not features:
            raise InputError("expected features to make a batch of, received none")
        label = next((name for name in LABELS if name in features[0]), None)
        counts = {len(feature["input_ids"]) for feature in features}
        if len(counts) > 1:
            raise InputError(
                f"expected as many choices for each example, received {', '.join(map(str, sorted(counts)))}; put those "
                "of one number into a batch"
            )
        (count,) = counts
        names = [name for name in features[0] if name not in LABELS]
        rows = [{name: feature[name][choice] for name in names} for feature in features for choice in range(count)]
        batch = self._padded(rows)
        for name in names + (["attention_mask"] if "attention_mask" not in names else []):
            flat = batch[name]
            batch[name] = [flat[place : place + count] for place in range(0, len(flat), count)]
        if label is not None:
            batch["labels"] = [int(feature[label]) for feature in features]
        return batch.convert_to_tensors(self.return_tensors)


@dataclass
class DataCollatorForLanguageModeling:
    """Pads rows and hides tokens of them, other ones each time.

    Args:
        tokenizer: with a ``mask_token``.
        mlm: masked language modelling; False: the rows are their own labels, -100 on padding.
        whole_word_mask: hide whole words.
        mlm_probability: share of the tokens of a batch that are hidden, at least one.
        mask_replace_prob: of those, the share that becomes ``<mask>``.
        random_replace_prob: and the share that becomes another token; the others stay.
        pad_to_multiple_of: round the padded length up.
        return_tensors: ``np``, ``pt``, ``tf`` or ``jax``.
        seed: of what is hidden; by default the state of the framework's own random numbers decides.
    """

    tokenizer: Any
    mlm: bool = True
    whole_word_mask: bool = False
    mlm_probability: float | None = 0.15
    mask_replace_prob: float = 0.8
    random_replace_prob: float = 0.1
    pad_to_multiple_of: int | None = None
    return_tensors: str = "np"
    seed: int | None = None
    _calls: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.mlm:
            return
        if self.mlm_probability is None or not 0 < self.mlm_probability <= 1:
            raise InputError(f"expected mlm_probability above 0 and at most 1, received {self.mlm_probability!r}")
        shares = (self.mask_replace_prob, self.random_replace_prob)
        if min(shares) < 0 or sum(shares) > 1 + 1e-9:
            raise InputError(
                "expected mask_replace_prob and random_replace_prob to be shares that make at most 1 together, "
                f"received {shares[0]!r} and {shares[1]!r}"
            )
        self._vocabulary = Vocabulary.of(self.tokenizer)

    def __call__(self, features: Sequence[Any], return_tensors: str | None = None) -> BatchEncoding:
        if not features:
            raise InputError("expected features to make a batch of, received none")
        rows = [_mapping(one) if isinstance(one, Mapping) else {"input_ids": one} for one in features]
        rows = [{name: _plain(value) for name, value in row.items() if name not in LABELS} for row in rows]
        batch: BatchEncoding = self.tokenizer.pad(rows, pad_to_multiple_of=self.pad_to_multiple_of)
        special = batch.pop("special_tokens_mask", None)
        ids = np.array(batch["input_ids"], np.int64)
        if self.mlm:
            ids, labels = self.numpy_mask_tokens(ids, special)
        else:
            labels = np.where(ids == self.tokenizer.pad_token_id, IGNORED, ids)
        batch["input_ids"], batch["labels"] = ids.tolist(), labels.tolist()
        return batch.convert_to_tensors(return_tensors or self.return_tensors)

    def numpy_mask_tokens(self, inputs: Any, special_tokens_mask: Any = None) -> tuple[Any, Any]:
        """Ids with some hidden, and their labels, both int64 (B, S).

        Args:
            inputs: ids (B, S).
            special_tokens_mask: 1 where a token is never hidden (B, S), beside the special tokens.
        """
        assert self.mlm_probability is not None
        return mask(
            np.asarray(inputs, np.int64),
            self._vocabulary,
            self.mlm_probability,
            self._random(),
            self._words if self.whole_word_mask else None,
            (self.mask_replace_prob, self.random_replace_prob),
            None if special_tokens_mask is None else ~np.asarray(special_tokens_mask, bool),
        )

    @cached_property
    def _words(self) -> Words:
        return self._vocabulary.words(self.tokenizer)

    def _random(self) -> np.random.Generator:
        """Another one for each call: by the seed, or else by NumPy's global state."""
        self._calls += 1
        return np.random.default_rng(self._seeds())

    def _seeds(self) -> list[int]:
        return [int(np.random.randint(1 << 31))] if self.seed is None else [self.seed, self._calls]


@dataclass
class DataCollatorForWholeWordMask(DataCollatorForLanguageModeling):
    """As :class:`DataCollatorForLanguageModeling`, of whole words: tokens from one ``▁`` to the next."""

    whole_word_mask: bool = True


def _mapping(feature: Any) -> dict[str, Any]:
    return dict(feature) if isinstance(feature, Mapping) else dict(vars(feature))


def _plain(value: Any) -> Any:
    """Lists in the place of arrays and tensors."""
    return as_lists(value) if hasattr(value, "tolist") or hasattr(value, "numpy") else value


def _column(values: list[Any]) -> Any:
    """One array of values of one shape; numbers of floating point are float32."""
    if hasattr(values[0], "shape"):
        return np.stack([np.asarray(_plain(value)) for value in values])
    return np.array(values, np.float32) if isinstance(values[0], float) else values


def _labels_apart(
    features: Sequence[Mapping[str, Any]],
) -> tuple[list[list[Any]] | None, list[dict[str, Any]]]:
    """The labels, if there are some, and the features without them."""
    if not features:
        raise InputError("expected features to make a batch of, received none")
    name = next((name for name in LABELS if features[0].get(name) is not None), None)
    rows = [{own: value for own, value in feature.items() if own not in LABELS} for feature in features]
    if name is None:
        return None, rows
    labels = [_plain(feature[name]) for feature in features]
    for row in labels:
        if not isinstance(row, list | tuple):
            raise InputError(f"expected a label for each token, received {shown(row, 60)}; pass a list of them")
    return [list(row) for row in labels], rows


def _filled(rows: Sequence[list[Any]], width: int, fill: int, side: str) -> list[list[Any]]:
    """Rows of one length."""
    return [
        [*row, *[fill] * (width - len(row))] if side == "right" else [*[fill] * (width - len(row)), *row]
        for row in rows
    ]
