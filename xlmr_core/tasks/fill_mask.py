"""Fill-mask: from texts with ``<mask>`` to the most likely tokens there.

The model gives logits at the masked positions only, so the vocabulary projection never runs anywhere else. An answer
has the shape and content of the published pipeline:

- one mask: a list of ``{"score", "token", "token_str", "sequence"}``, best first, ``sequence`` without special tokens;
- several masks: such a list for each mask, ``sequence`` with its special tokens and with the other masks still in it;
- a list of texts: a list of the above (a list of one text is answered like the text itself).

With ``multi_token_targets=True`` a target may have several pieces: the text is read with as many masks, the score is
the product of the probabilities of its pieces, each at its own mask, and ``token`` is the list of its ids.

With ``on_overflow="window"`` each mask of a text that is too long is answered from the part of it around that mask.
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
from xlmr_core.tasks.task import Arrays, Item, Task, check_texts, shown, softmax, top_places, visible
from xlmr_core.tasks.texts import encode_texts

__all__ = ["Answer", "Candidate", "FillMask", "FillMaskOptions", "rank", "target_ids", "target_pieces"]

logger = logging.getLogger("xlmr_core.tasks")

Ids: TypeAlias = NDArray[np.int64]
Logits: TypeAlias = NDArray[np.floating[Any]]


class Candidate(TypedDict):
    """A token for a mask: its probability, its id, the token as text, and the text with it in place.

    With ``multi_token_targets=True`` its ids.
    """

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
        multi_token_targets: score all pieces of a target, in place of its first.
        tokenizer_kwargs: further arguments of the tokenizer, e.g. ``{"truncation": True}``.
    """

    top_k: int = option(5, "candidates for each mask", least=1)
    targets: str | Sequence[str] | None = option(None, "a token to choose from, such as ▁water", several=True)
    multi_token_targets: bool = option(False, "score all pieces of a target, not its first")
    tokenizer_kwargs: Mapping[str, Any] | None = option(None, "arguments of the tokenizer", python_only=True)


@dataclass(frozen=True)
class _Settled(FillMaskOptions):
    """The options of a call, with what its targets are."""

    target_ids: Ids | None = option(None, "ids of the targets", python_only=True)  # noqa: RUF009 (a field)
    target_pieces: Sequence[Ids] = option((), "ids of each target", python_only=True)


@dataclass(frozen=True)
class _Asked:
    """A mask that a row answers, or several in place of one.

    Attributes:
        row: the number of the row.
        number: of the mask in the text.
        ids_S: of the whole text, its masks in it.
        places_T: where in them.
        first: which mask of the row is the first of them.
    """

    row: int
    number: int
    ids_S: Ids
    places_T: Ids
    first: int


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
        if options.targets is None and options.multi_token_targets:
            raise InputError("multi_token_targets needs targets to choose from, received none; pass targets=")
        if options.targets is None:
            return _Settled(**vars(options))
        if options.multi_token_targets:
            return _Settled(**vars(options), target_pieces=target_pieces(self.tokenizer, options.targets))
        return _Settled(**vars(options), target_ids=target_ids(self.tokenizer, options.targets))

    def encode(self, inputs: Sequence[str], options: _Settled) -> list[Item]:
        """Tokenize texts and find their masks.

        Raises:
            InputError: naming the first text that is no text, has no mask, or is too long.
        """
        check_texts(inputs)
        where = [shown(inputs, index) for index in range(len(inputs))]
        texts: list[tuple[str, str | None]] = [(text, None) for text in inputs]
        arguments = dict(options.tokenizer_kwargs or {})
        # A text in windows is cut below, where its masks are known.
        windows = options.on_overflow == "window"
        longest = int(arguments.pop("max_length", None) or self.longest) if windows else None
        items = encode_texts(self, texts, arguments, None if windows else options.on_overflow, where, whole=windows)
        counts = sorted({len(pieces_T) for pieces_T in options.target_pieces})
        return [
            self._with_masks(item, inputs, index, where[index], counts, longest) for index, item in enumerate(items)
        ]

    def _with_masks(
        self, item: Item, texts: Sequence[str], index: int, where: str, counts: Sequence[int], longest: int | None
    ) -> Item:
        """The item of a text, with its masks; in rows of their own where they need other tokens around them.

        Args:
            item: as it was tokenized.
            texts: of the call.
            index: of the text among them.
            where: what an error calls it.
            counts: of pieces, each of which takes so many masks in place of one; none for one piece.
            longest: tokens of a row at most, around a mask; None where texts are not read so.
        """
        (row,) = item.rows
        masks = np.flatnonzero(row["input_ids"] == self.tokenizer.mask_token_id)
        self._check_masks(len(masks), texts, index)
        if not counts and (longest is None or row["input_ids"].size <= longest):
            row["masked_positions"] = masks
            asked = [_Asked(0, number, row["input_ids"], masks[[number]], number) for number in range(len(masks))]
            return Item([row], asked, item.truncated)
        rows: list[Arrays] = []
        asked = []
        for number, position in enumerate(masks.tolist()):
            for count in counts or [1]:
                more = {
                    name: np.concatenate([row[name][:position], np.full(count, fill), row[name][position + 1 :]])
                    for name, fill in (("input_ids", self.tokenizer.mask_token_id), ("attention_mask", 1))
                }
                ids_S, places_T = more["input_ids"], np.arange(position, position + count)
                kept = self._around(ids_S, places_T, longest or ids_S.size)
                more = {name: array[kept] for name, array in more.items()}
                self.check_length(int(more["attention_mask"].sum()), where)
                more["masked_positions"] = np.flatnonzero(more["input_ids"] == self.tokenizer.mask_token_id)
                first = int(np.searchsorted(kept[more["masked_positions"]], position))
                asked.append(_Asked(len(rows), number, ids_S, places_T, first))
                rows.append(more)
        return Item(rows, asked, item.truncated)

    def _around(self, ids_S: Ids, places_T: Ids, longest: int) -> Ids:
        """Which tokens of a text stay: those around some places, between the special ones at its ends."""
        special = {self.tokenizer.bos_token_id, self.tokenizer.eos_token_id}
        head, end = int(ids_S[0] in special), len(ids_S) - int(ids_S[-1] in special)
        room = min(longest - head - (len(ids_S) - end), end - head)
        start = int(np.clip(places_T[0] - (room - len(places_T)) // 2, head, end - room))
        return np.concatenate([np.arange(head), np.arange(start, start + room), np.arange(end, len(ids_S))])

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
        """The candidates for each mask of a text, from the logits (P, V) at the masks of its rows."""
        single = item.kept[-1].number == 0
        answer: list[list[Any]] = [[] for _ in range(1 + item.kept[-1].number)]
        for asked in item.kept:
            logits_TV = outputs[asked.row]["logits"][asked.first : asked.first + len(asked.places_T)]
            for pieces_T, score in _scored(logits_TV, options):
                filled = asked.ids_S.copy()
                filled[asked.places_T] = pieces_T
                filled = filled[filled != self.tokenizer.pad_token_id]
                answer[asked.number].append(
                    {
                        "score": score,
                        "token": pieces_T.tolist() if options.target_pieces else int(pieces_T[0]),
                        "token_str": self.tokenizer.decode(pieces_T.tolist()),
                        "sequence": self.tokenizer.decode(filled.tolist(), skip_special_tokens=single),
                    }
                )
        if options.target_pieces:
            answer = [sorted(found, key=lambda one: -one["score"])[: options.top_k] for found in answer]
        return answer[0] if single else answer

    def gather(self, answers: list[Any], single: bool, options: Any) -> Any:
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


def _scored(logits_TV: Logits, options: _Settled) -> Iterator[tuple[Ids, float]]:
    """What may stand at masks that follow each other, with its score."""
    if not options.target_pieces:
        for token, score in rank(logits_TV[0], options.top_k, options.target_ids):
            yield np.array([token]), score
        return
    chances_TV = softmax(logits_TV)
    for pieces_T in options.target_pieces:
        if len(pieces_T) == len(chances_TV):
            yield pieces_T, float(np.prod(chances_TV[np.arange(len(pieces_T)), pieces_T]))


def target_pieces(tokenizer: Any, targets: str | Sequence[str]) -> list[Ids]:
    """The ids of the pieces of each target, each target once. One without any is skipped, with a warning.

    Raises:
        InputError: if no target is left.
    """
    chosen = dict.fromkeys(tuple(pieces) for _, pieces, _ in _pieces_of(tokenizer, targets))
    if not chosen:
        raise InputError(f"expected at least one target with a token, received {targets!r}")
    return [np.array(pieces, np.int64) for pieces in chosen]


def target_ids(tokenizer: Any, targets: str | Sequence[str]) -> Ids:
    """The ids of target tokens, each once, in the order of their first mention.

    A target that is no piece of the vocabulary is replaced by its first piece, and an empty one is skipped, each with a
    warning.

    Raises:
        InputError: if no target is left.
    """
    chosen: dict[int, None] = {}
    for target, pieces, is_piece in _pieces_of(tokenizer, targets):
        if not is_piece:
            piece = tokenizer.convert_ids_to_tokens(pieces[0])
            logger.warning(
                "the target %r is no piece of the vocabulary; its first piece %r takes its place", target, piece
            )
        chosen[pieces[0]] = None
    if not chosen:
        raise InputError(
            f"expected at least one target with a token, received {targets!r}; "
            "leave targets out to choose from all tokens"
        )
    return np.fromiter(chosen, np.int64)


def _pieces_of(tokenizer: Any, targets: str | Sequence[str]) -> Iterator[tuple[str, list[int], bool]]:
    """Each target that has tokens, with their ids, and whether it is a piece of the vocabulary itself."""
    for target in [targets] if isinstance(targets, str) else targets:
        if not isinstance(target, str):
            raise InputError(f"targets must be tokens or words, received {type(target).__name__} {target!r}")
        token = tokenizer.convert_tokens_to_ids(target)
        is_piece = token != tokenizer.unk_token_id or target == tokenizer.unk_token
        pieces = [token] if is_piece else tokenizer(target, add_special_tokens=False)["input_ids"]
        if pieces:
            yield target, list(map(int, pieces)), is_piece
        else:
            logger.warning("the target %r has no tokens; it is left out", target)


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
    places = top_places(scores, top_k)
    ids, scores = places if targets is None else targets[places], scores[places] / total
    best = np.lexsort((ids, -scores))[:top_k]
    return zip(ids[best].tolist(), scores[best].tolist(), strict=True)
