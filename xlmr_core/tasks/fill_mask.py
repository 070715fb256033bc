"""Fill-mask: from texts with ``<mask>`` to the most likely tokens there.

The model gives logits at the masked positions only, so the vocabulary projection never runs anywhere else. An answer
has the shape and content of the published pipeline:

- one mask: a list of ``{"score", "token", "token_str", "sequence"}``, best first, ``sequence`` without special tokens;
- several masks: such a list for each mask, ``sequence`` with its special tokens and with the other masks still in it;
- a list of texts: a list of the above (a list of one text is answered like the text itself).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from xlmr_core.errors import InputError
from xlmr_core.tasks.options import TaskOptions, option
from xlmr_core.tasks.task import Arrays, Item, Task, check_texts, shown, visible

__all__ = ["Answer", "Candidate", "FillMask", "FillMaskOptions", "rank", "target_ids"]

logger = logging.getLogger("xlmr_core.tasks")

Ids: TypeAlias = NDArray[np.int64]
Logits: TypeAlias = NDArray[np.floating[Any]]


class Candidate(TypedDict):
    """A token for a mask: its probability, its id, the token as text, and the text with it in place."""

    score: float
    token: int
    token_str: str
    sequence: str


Answer: TypeAlias = list[Candidate] | list[list[Candidate]]
"""The candidates of a text with one mask, or a list of candidates for each of several masks."""


@dataclass(frozen=True)
class FillMaskOptions(TaskOptions):
    """What a call can choose.

    Attributes:
        top_k: candidates for each mask; with ``targets`` at most as many as there are targets.
        targets: a token or tokens to choose from. One that is no piece of the vocabulary is replaced by its first
            piece, with a warning.
        tokenizer_kwargs: further arguments of the tokenizer, e.g. ``{"truncation": True}``.
    """

    top_k: int = option(5, "candidates for each mask", least=1)
    targets: str | Sequence[str] | None = option(None, "a token to choose from, such as ▁water", several=True)
    tokenizer_kwargs: Mapping[str, Any] | None = option(None, "arguments of the tokenizer", python_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        reserved = {"return_tensors", "return_overflowing_tokens"} & set(self.tokenizer_kwargs or ())
        if reserved:
            raise InputError(
                f"tokenizer_kwargs cannot set {', '.join(sorted(reserved))}, fill-mask needs its own; leave it out"
            )


@dataclass(frozen=True)
class _Settled(FillMaskOptions):
    """The options of a call, with what its targets are."""

    target_ids: Ids | None = option(None, "ids of the targets", python_only=True)  # noqa: RUF009 (a field)


class FillMask(Task):
    """The task; see the module."""

    Options = FillMaskOptions
    wanted = ("logits",)
    fills: ClassVar[Mapping[str, int]] = {"masked_positions": -1}

    def __init__(self, tokenizer: Any, config: Any) -> None:
        super().__init__(tokenizer, config)
        if tokenizer.mask_token_id is None:
            raise InputError(
                "fill-mask needs a tokenizer with a mask token, received one without; set tokenizer.mask_token"
            )

    def prepare(self, options: FillMaskOptions) -> _Settled:
        """The options with the ids of their targets, looked up (and warned of) once a call."""
        ids = None if options.targets is None else target_ids(self.tokenizer, options.targets)
        return _Settled(**vars(options), target_ids=ids)

    def encode(self, inputs: Sequence[str], options: FillMaskOptions) -> list[Item]:
        """Tokenize texts and find their masks.

        Raises:
            InputError: naming the first text that is no text, has no mask, or is too long.
        """
        check_texts(inputs)
        if not inputs:
            return []
        arguments = {"return_attention_mask": True, "verbose": False, **(options.tokenizer_kwargs or {})}
        encoded = self.tokenizer(list(inputs), **arguments)
        items = []
        for index, (ids, attention) in enumerate(zip(encoded["input_ids"], encoded["attention_mask"], strict=True)):
            masks_P = np.flatnonzero(np.equal(ids, self.tokenizer.mask_token_id))
            self._check_masks(len(masks_P), inputs, index)
            self.check_length(len(ids), shown(inputs, index))
            row = {"input_ids": np.asarray(ids), "attention_mask": np.asarray(attention), "masked_positions": masks_P}
            items.append(Item(rows=[row]))
        return items

    def _check_masks(self, count: int, texts: Sequence[str], index: int) -> None:
        mask = self.tokenizer.mask_token
        if count == 0 and mask in texts[index]:
            where = shown(texts, index)
            raise InputError(
                f"expected a {mask} among the tokens that are kept, truncation cut it off; shorten {where}"
            )
        if count == 0:
            where = shown(texts, index)
            raise InputError(
                f"expected at least one {mask}, found none; put {mask} where a word is to be found in {where}"
            )

    def decode(self, item: Item, outputs: Sequence[Arrays], options: _Settled) -> Answer:
        """The candidates for each mask of a text, from the logits (P, V) at its masks."""
        (row,), (found,) = item.rows, outputs
        ids_S, masks_P = row["input_ids"], row["masked_positions"]
        single = len(masks_P) == 1
        answer: list[list[Candidate]] = []
        for position, logits_V in zip(masks_P, found["logits"][: len(masks_P)], strict=True):
            candidates: list[Candidate] = []
            for token, score in rank(logits_V, options.top_k, options.target_ids):
                filled = ids_S.copy()
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

    def gather(self, answers: list[Any], single: bool) -> Any:
        """As published, a list of one text is answered like the text itself."""
        return answers[0] if len(answers) == 1 else answers

    def text(self, answer: Any) -> str:
        """A score and a token a line; the token last, so that no script, wide or right-to-left, breaks the columns."""
        several = bool(answer) and isinstance(answer[0], list)
        lines = []
        for number, candidates in enumerate(answer if several else [answer], 1):
            if several:
                lines.append(f"  {self.tokenizer.mask_token} {number}")
            lines += [f"  {found['score']:.4f}  {visible(found['token_str'])}" for found in candidates]
        return "\n".join(lines)


def target_ids(tokenizer: Any, targets: str | Sequence[str]) -> Ids:
    """The ids of target tokens, each once, in the order of their first mention.

    A target that is no piece of the vocabulary is replaced by its first piece, and an empty one is skipped, each with a
    warning.

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
            f"expected at least one target with a token, received {targets!r}; "
            "leave targets out to choose from all tokens"
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
