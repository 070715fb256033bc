"""Fill-mask: from texts with ``<mask>`` to the most likely tokens there.

The model runs in between and is the backend's: :class:`FillMask` hands it NumPy arrays and gets logits at the masked positions back, so the
vocabulary projection never runs anywhere else. What comes out has the shape and content of the published pipeline:

- one mask: a list of ``{"score", "token", "token_str", "sequence"}``, best first, ``sequence`` without special tokens;
- several masks: such a list for each mask, ``sequence`` with its special tokens and with the other masks still in it;
- a list of texts: a list of the above (a list of one text is answered like the text itself);
- a generator, a data set or another iterable of texts: an iterator of the above, which reads ``batch_size`` texts at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlmr_core.errors import InputError
from xlmr_core.hub import without_published
from xlmr_core.tasks import NOT_NEEDED, ONLY

__all__ = ["Answer", "FillMask", "FillMaskOptions", "Forward", "Row", "rank", "target_ids"]

logger = logging.getLogger("xlmr_core.tasks")

Ids = NDArray[np.int64]
Logits = NDArray[np.floating[Any]]

Forward = Callable[[Ids, Ids, Ids], Logits]
"""``(input_ids (B, S), attention_mask (B, S), masked_positions (B, P) padded with -1) -> logits (B, P, V)``."""

Answer = list[dict[str, Any]] | list[list[dict[str, Any]]]
"""The candidates of a text with one mask, or a list of candidates for each of several masks."""


@dataclass(frozen=True)
class FillMaskOptions:
    """What a call can choose; each field can be given when the pipeline is made and again in a call.

    Attributes:
        top_k: candidates for each mask; with ``targets`` at most as many as there are targets.
        targets: a token or tokens to choose from. One that is no piece of the vocabulary is replaced by its first piece, with a warning.
        tokenizer_kwargs: further arguments of the tokenizer, e.g. ``{"truncation": True}``.
        batch_size: texts that go through the model together; texts of similar length share a batch.
    """

    top_k: int = 5
    targets: str | Sequence[str] | None = None
    tokenizer_kwargs: Mapping[str, Any] | None = None
    batch_size: int = 1

    def __post_init__(self) -> None:
        for name in ("top_k", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise InputError(f"{name} must be an integer of at least 1, received {value!r}")
        reserved = {"return_tensors", "return_overflowing_tokens"} & set(self.tokenizer_kwargs or ())
        if reserved:
            raise InputError(
                f"tokenizer_kwargs cannot set {', '.join(sorted(reserved))}, fill-mask needs its own; leave it out"
            )

    def updated(self, changes: Mapping[str, Any]) -> FillMaskOptions:
        """These options with some of them replaced; ``None`` leaves an option as it is."""
        changes = without_published(changes, ONLY, NOT_NEEDED)
        known = [field.name for field in fields(self)]
        unknown = sorted(set(changes) - set(known))
        if unknown:
            raise InputError(
                f"fill-mask takes the options {', '.join(known)}, received {', '.join(unknown)}; check the spelling"
            )
        return replace(self, **{name: value for name, value in changes.items() if value is not None})


@dataclass(frozen=True)
class Row:
    """One encoded text: ``ids`` (S,), ``attention`` (S,) and the positions of its masks (P,), of which there is at least one."""

    ids: Ids
    attention: Ids
    masks: Ids


class FillMask:
    """The task without the model.

    Args:
        tokenizer: an XLM-R tokenizer.
        max_tokens: the longest row the model takes (``config.max_tokens``).
        options: what calls use by default.
    """

    def __init__(self, tokenizer: Any, max_tokens: int, options: FillMaskOptions) -> None:
        if tokenizer.mask_token_id is None:
            raise InputError(
                "fill-mask needs a tokenizer with a mask token, received one without; set tokenizer.mask_token"
            )
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.options = options

    def __call__(self, inputs: str | Iterable[str], forward: Forward, **changes: Any) -> Any:
        """Answer a text, a list of texts or a stream of them.

        Args:
            inputs: texts with at least one mask token each.
            forward: runs the model.
            **changes: options of this call, see :class:`FillMaskOptions`.

        Returns:
            An :data:`Answer` for a text or a list of one text, a list of them for a list, an iterator for any other iterable.

        Raises:
            InputError: for an option that does not exist or makes no sense, a text without a mask, or one that is too long.
        """
        options = self.options.updated(changes)
        targets = None if options.targets is None else target_ids(self.tokenizer, options.targets)
        if isinstance(inputs, str | list | tuple):
            answers = self._answers([inputs] if isinstance(inputs, str) else inputs, forward, options, targets)
            return answers[0] if len(answers) == 1 else answers
        if isinstance(inputs, Mapping | bytes) or not (hasattr(inputs, "__iter__") or hasattr(inputs, "__getitem__")):
            raise InputError(
                f"expected a text, a list of texts or an iterable of them, received {type(inputs).__name__}; pass the texts"
            )
        # A data set may have numbered items and a length, and no __iter__.
        data: Any = inputs
        by_number = not hasattr(data, "__iter__") and hasattr(data, "__len__")
        stream = (data[number] for number in range(len(data))) if by_number else iter(data)
        return self._stream(stream, forward, options, targets)

    def _stream(
        self, texts: Iterator[str], forward: Forward, options: FillMaskOptions, targets: Ids | None
    ) -> Iterator[Answer]:
        while batch := list(islice(texts, options.batch_size)):
            yield from self._answers(batch, forward, options, targets)

    def _answers(
        self, texts: Sequence[str], forward: Forward, options: FillMaskOptions, targets: Ids | None
    ) -> list[Answer]:
        rows = self.encode(texts, options.tokenizer_kwargs or {})
        answers: list[Answer] = [[] for _ in rows]
        for batch in _batches(rows, options.batch_size):
            ids_BS, attention_BS, masks_BP = _collate([rows[index] for index in batch], self.tokenizer.pad_token_id)
            logits_BPV = forward(ids_BS, attention_BS, masks_BP)
            for index, logits_PV in zip(batch, logits_BPV, strict=True):
                row = rows[index]
                answers[index] = self.decode(row, logits_PV[: len(row.masks)], options.top_k, targets)
        return answers

    def encode(self, texts: Sequence[str], tokenizer_kwargs: Mapping[str, Any]) -> list[Row]:
        """Tokenize texts and find their masks.

        Raises:
            InputError: naming the first text that is no text, has no mask, or is too long.
        """
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"expected texts, received {type(text).__name__} {text!r} at index {index}")
        if not texts:
            return []
        encoded = self.tokenizer(list(texts), **{"return_attention_mask": True, "verbose": False, **tokenizer_kwargs})
        rows = []
        for index, (ids, attention) in enumerate(zip(encoded["input_ids"], encoded["attention_mask"], strict=True)):
            row = Row(
                np.asarray(ids, np.int64), np.asarray(attention, np.int64), np.flatnonzero(np.equal(ids, self.mask_id))
            )
            self._check(row, _shown(texts, index), self.tokenizer.mask_token in texts[index])
            rows.append(row)
        return rows

    @property
    def mask_id(self) -> int:
        """The id of the mask token."""
        return int(self.tokenizer.mask_token_id)

    def _check(self, row: Row, shown: str, has_mask: bool) -> None:
        mask = self.tokenizer.mask_token
        if len(row.masks) == 0 and has_mask:
            raise InputError(
                f"expected a {mask} among the tokens that are kept, truncation cut it off; shorten {shown}"
            )
        if len(row.masks) == 0:
            raise InputError(
                f"expected at least one {mask}, found none; put {mask} where a word is to be found in {shown}"
            )
        if len(row.ids) > self.max_tokens:
            raise InputError(
                f"expected at most {self.max_tokens} tokens, which is what this checkpoint takes, received {len(row.ids)}; "
                f"shorten {shown}, or in Python pass tokenizer_kwargs={{'truncation': True, 'max_length': {self.max_tokens}}}"
            )

    def decode(self, row: Row, logits_PV: Logits, top_k: int, targets: Ids | None) -> Answer:
        """Turn the logits of one text's masks into its answer.

        Args:
            row: the encoded text.
            logits_PV: one row for each of its masks.
            top_k: how many candidates to give.
            targets: the ids to choose from, or None for the whole vocabulary.
        """
        single = len(row.masks) == 1
        answer = []
        for position, logits_V in zip(row.masks, logits_PV, strict=True):
            candidates = []
            for token, score in rank(logits_V, top_k, targets):
                filled = row.ids.copy()
                filled[position] = token
                filled = filled[filled != self.tokenizer.pad_token_id]
                candidates.append(
                    {
                        "score": score,
                        "token": token,
                        "token_str": self.tokenizer.decode([token]),
                        "sequence": self.tokenizer.decode(filled.tolist(), skip_special_tokens=single),
                    }
                )
            answer.append(candidates)
        return answer[0] if single else answer


def target_ids(tokenizer: Any, targets: str | Sequence[str]) -> Ids:
    """The ids of target tokens, each once, in the order of their first mention.

    A target that is no piece of the vocabulary is replaced by its first piece, and an empty one is skipped, each with a warning.

    Raises:
        InputError: if no target is left.
    """
    chosen: dict[int, None] = {}
    for target in [targets] if isinstance(targets, str) else targets:
        if not isinstance(target, str):
            raise InputError(f"targets must be tokens or words, received {type(target).__name__} {target!r}")
        token = tokenizer.convert_tokens_to_ids(target)
        if token == tokenizer.unk_token_id and target != tokenizer.unk_token:
            pieces = tokenizer(target, add_special_tokens=False)["input_ids"]
            if not pieces:
                logger.warning("the target %r has no tokens; it is left out", target)
                continue
            token = pieces[0]
            piece = tokenizer.convert_ids_to_tokens(token)
            logger.warning(
                "the target %r is no piece of the vocabulary; its first piece %r takes its place", target, piece
            )
        chosen[int(token)] = None
    if not chosen:
        raise InputError(
            f"expected at least one target with a token, received {targets!r}; leave targets out to choose from all tokens"
        )
    return np.fromiter(chosen, np.int64)


def rank(logits_V: Logits, top_k: int, targets: Ids | None = None) -> Iterator[tuple[int, float]]:
    """The best tokens and their probabilities, best first, equal ones by id.

    Probabilities are over the whole vocabulary, also with ``targets``.

    Args:
        logits_V: logits of one position.
        top_k: how many; with ``targets`` at most as many as there are.
        targets: ids to choose from.

    Raises:
        InputError: if ``top_k`` exceeds the vocabulary, or for logits that are not finite.
    """
    size = len(logits_V)
    if targets is None and top_k > size:
        raise InputError(f"top_k must be at most {size}, the size of the vocabulary, received {top_k}")
    highest = np.float32(np.max(logits_V))
    if not np.isfinite(highest):
        raise InputError(
            f"expected finite logits, the model gave {highest}; check the checkpoint, or load it with dtype='float32'"
        )
    # float32 as the published pipeline; the sum is taken in float64, for 250 002 addends.
    scaled_V = np.exp(np.asarray(logits_V, np.float32) - highest)
    total = np.sum(scaled_V, dtype=np.float64)
    scores = scaled_V if targets is None else scaled_V[targets]
    places = np.arange(len(scores))
    if top_k < len(scores):
        # All that tie with the last place stay in, so that ties are decided by id and not by the partition.
        places = np.flatnonzero(scores >= np.partition(scores, len(scores) - top_k)[len(scores) - top_k])
    ids, scores = places if targets is None else targets[places], scores[places] / total
    best = np.lexsort((ids, -scores))[:top_k]
    return zip(ids[best].tolist(), scores[best].tolist(), strict=True)


def _shown(texts: Sequence[str], index: int) -> str:
    text = texts[index]
    excerpt = text if len(text) <= 60 else text[:57] + "..."
    return f"the text {excerpt!r}" + (f" (index {index})" if len(texts) > 1 else "")


def _batches(rows: Sequence[Row], size: int) -> Iterator[list[int]]:
    """Indices of rows that run together: the longest first, so that memory is at its peak at once, similar lengths side by side."""
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index].ids))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _collate(rows: Sequence[Row], pad_id: int) -> tuple[Ids, Ids, Ids]:
    """Rows of different lengths as ids (B, S), attention (B, S) and masked positions (B, P), padded on the right."""

    def stack(arrays: Sequence[Ids], fill: int) -> Ids:
        stacked = np.full((len(arrays), max(map(len, arrays))), fill, np.int64)
        for index, array in enumerate(arrays):
            stacked[index, : len(array)] = array
        return stacked

    ids_BS = stack([row.ids for row in rows], pad_id)
    return ids_BS, stack([row.attention for row in rows], 0), stack([row.masks for row in rows], -1)
