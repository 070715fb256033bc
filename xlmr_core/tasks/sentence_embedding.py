"""Sentence embedding: a vector for a text, a vector for each of its parts, and what bge-m3 gives beside it.

What makes a vector of the states of tokens (pooling, projections, length one), how long a text may be and what stands
before it, the model's folder says (``sentence_folder.py``); a call can say otherwise. A list of texts is answered by an
array (n, D), a text by (D,).

The states of many tokens are pooled where the model runs, by weights (``pooling_weights``): the first token, a mean and
the mean of a part are the same sum with other weights. Only the pooled vector comes back.

- With ``spans`` a text is answered by a vector for each of its parts (P, D), all from one pass, so that each knows of
  the whole text ("late chunking").
- With ``outputs`` a text is answered by a dictionary: ``dense``, the vector; of bge-m3 ``sparse``, the weight of each
  word piece by its id, and ``colbert``, a vector for each token behind ``<s>``; ``tokens``, the states themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from xlmr_core.errors import InputError, TooLongError
from xlmr_core.tasks.feature_extraction import joined
from xlmr_core.tasks.options import TaskOptions, option
from xlmr_core.tasks.runner import Runner
from xlmr_core.tasks.sentence_folder import (
    POOLINGS,
    FolderTask,
    Normalize,
    SentenceFolder,
    prompt_called,
)
from xlmr_core.tasks.task import Arrays, AtTheEnd, Item, check_texts, shown
from xlmr_core.tasks.texts import encode_texts, places_of, row_of
from xlmr_core.tasks.vectors import PRECISIONS, cut, normalized, quantized, ranges_of

__all__ = ["OUTPUTS", "SentenceEmbedding", "SentenceEmbeddingOptions", "Vectors", "pooling_weights"]

logger = logging.getLogger("xlmr_core.tasks")

Array: TypeAlias = NDArray[Any]

# What a text may be answered by, and which output of the runner that is made of; the vector is made of what is pooled.
OUTPUTS = {"dense": "", "sparse": "sparse_linear", "colbert": "colbert_linear", "tokens": "last_hidden_state"}
# The rows of a batch that weigh its states.
POOLING = "pooling"


class Vectors(TypedDict, total=False):
    """The answer to a text where ``outputs`` were asked for."""

    dense: Array
    sparse: dict[str, float]
    colbert: Array
    tokens: Array


@dataclass(frozen=True)
class SentenceEmbeddingOptions(TaskOptions):
    """What a call can choose.

    Attributes:
        prompt: what stands before each text; an empty one, too, takes the place of the model's default.
        prompt_name: the name of one of the model's prompts.
        normalize: whether vectors have length one; by default what the model's folder says.
        dimensions: numbers of a vector; it is cut, and has length one again if it had it before.
        precision: of the vectors: ``float32``, ``int8``, ``uint8``, ``binary`` or ``ubinary``.
        ranges: (2, D), the least and the largest numbers, which ``int8`` and ``uint8`` divide; by default those of the
            vectors of the call.
        pooling: in place of what the folder says: a name of ``POOLINGS``.
        max_length: tokens of a text at most, prompt and special tokens counted; by default what the folder says.
        spans: parts of a text, each as its first character and the one after its last; for several texts a list of
            parts for each.
        outputs: of ``OUTPUTS``, in place of an array.
    """

    prompt: str | None = option(None, "what stands before each text")
    prompt_name: str | None = option(None, "the name of one of the model's prompts")
    normalize: bool | None = option(None, "whether vectors have length one", python_only=True)
    dimensions: int | None = option(None, "numbers of a vector", least=1)
    precision: str = option("float32", "of the vectors", choices=PRECISIONS)
    ranges: Sequence[Any] | None = option(None, "the least and the largest numbers, for int8", python_only=True)
    pooling: str | None = option(None, "how the states of tokens become a vector", choices=tuple(POOLINGS))
    max_length: int | None = option(None, "tokens of a text at most", least=1)
    spans: Sequence[Any] | None = option(None, "parts of a text", python_only=True)
    outputs: str | Sequence[str] | None = option(None, f"what is given: {', '.join(OUTPUTS)}", several=True)

    def __post_init__(self) -> None:
        # Arrays cannot be compared with the default, as other options are.
        object.__setattr__(self, "ranges", None if self.ranges is None else np.asarray(self.ranges).tolist())
        super().__post_init__()


@dataclass(frozen=True)
class _Kept:
    """What decoding needs of a text: its windows, and whether the pooled rows are those of parts."""

    windows: Sequence[tuple[int, int]] | None
    parts: bool = False


class SentenceEmbedding(FolderTask):
    """The task; see the module."""

    Options: ClassVar[type[TaskOptions]] = SentenceEmbeddingOptions
    wanted = ("pooled",)
    fills: ClassVar[Mapping[str, int]] = {POOLING: 0}

    def __init__(self, tokenizer: Any, config: Any) -> None:
        super().__init__(tokenizer, config)
        self.told = False

    def set_up(self, runner: Runner, beside: SentenceFolder) -> None:
        """Take the folder; its heads stand on the token states."""
        super().set_up(runner, beside)
        for name, (weight, bias) in beside.heads.items():
            if weight.shape[1] != self.config.hidden_size:
                raise InputError(
                    f"{name} is made for states of {weight.shape[1]} numbers, received a model with "
                    f"{self.config.hidden_size}; take both from one model"
                )
            runner.add_projection(name, weight, bias)

    def prepare(self, options: SentenceEmbeddingOptions) -> SentenceEmbeddingOptions:
        """The options with what the folder says.

        Raises:
            InputError: for a prompt or an output that the model does not have, or options that exclude each other.
        """
        wanted = (options.outputs,) if isinstance(options.outputs, str) else options.outputs
        for name in wanted or ():
            if name not in OUTPUTS:
                raise InputError(f"outputs must be of {', '.join(OUTPUTS)}, received {name!r}; choose some of them")
            if OUTPUTS[name].endswith("_linear") and OUTPUTS[name] not in self.folder.heads:
                raise InputError(
                    f"{name} needs {OUTPUTS[name]}.pt or .safetensors beside the weights, received a model without; "
                    "take bge-m3, or leave it out"
                )
        if options.spans is not None and wanted:
            raise InputError("spans give vectors of parts, and outputs those of whole texts; leave one of them out")
        if not (self.told or self.folder.pooling or options.pooling or (wanted and "dense" not in wanted)):
            self.told = True
            logger.warning(
                "nothing beside the model says how vectors of tokens become one: their mean is taken; pooling= chooses"
            )
        limit = options.max_length or self.folder.max_seq_length or self.longest
        return replace(
            options,
            prompt=self._prompt(options),
            max_length=min(limit, self.config.max_tokens),
            outputs=None if wanted is None else tuple(wanted),
        )

    def _prompt(self, options: SentenceEmbeddingOptions) -> str:
        if options.prompt is not None:
            return options.prompt
        name = self.folder.default_prompt_name if options.prompt_name is None else options.prompt_name
        return prompt_called(name, self.folder.prompts)

    def _poolings(self, options: SentenceEmbeddingOptions) -> tuple[str, ...]:
        return (options.pooling,) if options.pooling else self.folder.pooling or ("mean",)

    @classmethod
    def put_off(cls, options: SentenceEmbeddingOptions) -> tuple[SentenceEmbeddingOptions, AtTheEnd | None]:
        """The ranges of all vectors' numbers are known when all are there."""
        precision = options.precision
        if precision not in ("int8", "uint8") or options.ranges is not None:
            return options, None

        def at_the_end(answers: Iterable[Array]) -> Callable[[Array], Array]:
            ranges = ranges_of(answers, precision)
            return lambda vector: quantized(vector, precision, ranges)

        return replace(options, precision="float32"), at_the_end

    def one_by_one(self, options: SentenceEmbeddingOptions) -> None:
        """Vectors that are not there together have no ranges of numbers together."""
        if self.put_off(options)[1] is not None:
            raise InputError(
                f"precision={options.precision!r} needs the ranges of all vectors' numbers, received texts one by one; "
                "pass a list, or ranges=, or write a .npy with `xlmr run --input --output`"
            )

    def outputs(self, options: SentenceEmbeddingOptions) -> Sequence[str]:
        """What is pooled, and what the asked-for outputs are made of."""
        wanted = options.outputs or ("dense",)
        found = [OUTPUTS[name] for name in wanted if name != "dense"]
        if "dense" in wanted:
            kinds = self._poolings(options)
            found += ["largest"] if "max" in kinds else []
            found += ["pooled"] if kinds != ("max",) else []
        return found

    def encode(self, inputs: Sequence[str], options: SentenceEmbeddingOptions) -> list[Item]:
        """Tokenize texts behind their prompt. As published, what is too long is cut, which is told.

        Raises:
            InputError: naming the first that is no text, or has a part that cannot be seen.
        """
        check_texts(inputs)
        prompt = options.prompt or ""
        texts = [prompt + text for text in inputs]
        if self.folder.lower_case:
            texts = [text.lower() for text in texts]
        where = [shown(inputs, index) for index in range(len(inputs))]
        if options.spans is not None:
            return self._encode_parts(inputs, texts, options, where)
        hidden = 0
        if prompt and not self.folder.include_prompt:
            # Its tokens and <s>, as published; what ends a text stands behind the prompt's too.
            hidden = len(self.tokenizer(prompt, verbose=False)["input_ids"]) - 1
        arguments = {"truncation": True, "max_length": options.max_length}
        pairs: list[tuple[str, str | None]] = [(text, None) for text in texts]
        items = encode_texts(self, pairs, arguments, options.on_overflow, where)
        return [self._weighed(item, options, hidden) for item in items]

    def encode_ids(self, ids: Sequence[int], options: SentenceEmbeddingOptions, where: str) -> Item:
        """A text that comes as ids of the model's own tokens; no prompt is put before them.

        Args:
            ids: with or without what begins and ends a text.
            options: of the call.
            where: what an error calls it.

        Raises:
            TooLongError: if it is too long and may not be cut.
            InputError: for an id that is none, and for options that need the text itself.
        """
        if options.spans is not None:
            raise InputError("spans count the characters of a text, received ids; pass the text, or leave spans out")
        wrong = [token for token in ids if not 0 <= token < self.config.vocab_size]
        if wrong or not len(ids):
            received = f"{wrong[0]} in {where}" if wrong else f"none in {where}"
            raise InputError(f"expected ids of tokens from 0 to {self.config.vocab_size - 1}, received {received}")
        first, last = self.tokenizer.build_inputs_with_special_tokens([])
        inner = list(ids)[int(ids[0] == first) :]
        inner = inner[: len(inner) - int(inner[-1:] == [last])]
        assert options.max_length is not None
        room = options.max_length - 2
        if len(inner) > room and options.on_overflow != "truncate":
            raise TooLongError(
                f"expected at most {options.max_length} tokens, received {len(inner) + 2}; shorten {where}, or pass "
                "on_overflow='truncate'"
            )
        row = row_of([first, *inner[:room], last])
        return self._weighed(Item([row], None, len(inner) > room), options, hidden=0)

    def _weighed(self, item: Item, options: SentenceEmbeddingOptions, hidden: int) -> Item:
        """A text with how much each of its states counts; the first ``hidden`` ones do not."""
        rows = [dict(row) for row in item.rows]
        if "dense" in (options.outputs or ("dense",)):
            for number, row in enumerate(rows):
                mask_S = row["attention_mask"].copy()
                mask_S[: hidden if number == 0 else 0] = 0
                row[POOLING] = pooling_weights(self._poolings(options), mask_S)
        return Item(rows, _Kept(item.kept), item.truncated)

    def _encode_parts(
        self, inputs: Sequence[str], texts: Sequence[str], options: SentenceEmbeddingOptions, where: Sequence[str]
    ) -> list[Item]:
        """A row for each text, whose states are weighed once for each of its parts."""
        spans = _spans_of_each(options.spans, inputs)
        encoded = self.tokenizer(
            list(texts), return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False
        )
        before = len(options.prompt or "")
        items = []
        for index, (text, ids) in enumerate(zip(texts, encoded["input_ids"], strict=True)):
            limit = options.max_length
            assert limit is not None
            if len(ids) > limit:
                raise TooLongError(
                    f"expected at most {limit} tokens, which is what is read in one pass, received {len(ids)}; shorten "
                    f"{where[index]}, or pass max_length="
                )
            start_S, end_S = places_of(encoded["offset_mapping"][index], text)
            real_S = np.asarray(encoded["special_tokens_mask"][index]) == 0
            weights = []
            for start, end in spans[index]:
                inside_S = real_S & (end_S > before + start) & (start_S < before + end)
                if not inside_S.any():
                    raise InputError(
                        f"expected parts with something in them, received {(start, end)} of {where[index]}, which has "
                        "no token there; leave it out"
                    )
                weights.append(inside_S / inside_S.sum())
            row = {**row_of(ids), POOLING: np.asarray(weights, np.float32).reshape(-1, len(ids))}
            items.append(Item([row] if weights else [], _Kept(None, parts=True)))
        return items

    def decode(self, item: Item, outputs: Sequence[Arrays], options: SentenceEmbeddingOptions) -> Any:
        """The vector of a text, those of its parts, or a dictionary of what was asked for."""
        kept: _Kept = item.kept
        if kept.parts:
            if not outputs:
                return np.zeros((0, self._size(options)), np.float32)
            count = len(item.rows[0][POOLING])
            pooled = outputs[0]["largest" if self._poolings(options) == ("max",) else "pooled"][:count]
            return self._finished(np.tile(pooled, len(self._poolings(options))), options)
        if options.outputs is None:
            return self._finished(self._pooled(item, outputs, options), options)
        made = {"sparse": self._sparse, "colbert": self._colbert, "tokens": self._tokens}
        return {
            name: (
                self._finished(self._pooled(item, outputs, options), options)
                if name == "dense"
                else made[name](item, outputs, options)
            )
            for name in options.outputs
        }

    def _size(self, options: SentenceEmbeddingOptions) -> int:
        """Numbers of a vector."""
        vector = np.zeros(self.config.hidden_size * len(self._poolings(options)), np.float32)
        for layer in self.folder.layers:
            vector = layer(vector)
        return min(len(vector), options.dimensions or len(vector))

    def _pooled(self, item: Item, outputs: Sequence[Arrays], options: SentenceEmbeddingOptions) -> Array:
        """The pooled vector; of several windows their mean by tokens, or the largest numbers."""
        counts = [row["input_ids"].size for row in item.rows]
        parts = []
        for place, kind in enumerate(self._poolings(options)):
            rows = [found["largest" if kind == "max" else "pooled"][place] for found in outputs]
            parts.append(np.max(rows, axis=0) if kind == "max" else np.average(rows, axis=0, weights=counts))
        return np.concatenate(parts).astype(np.float32)

    def _finished(self, vectors: Array, options: SentenceEmbeddingOptions) -> Array:
        """What follows the pooling, (..., D) to (..., D)."""
        has_length_one = False
        for layer in self.folder.layers:
            if isinstance(layer, Normalize) and options.normalize is False:
                continue
            vectors = layer(vectors)
            has_length_one = isinstance(layer, Normalize)
        if options.normalize and not has_length_one:
            vectors = normalized(vectors)
        if options.dimensions is not None:
            vectors = cut(vectors, options.dimensions)
            vectors = normalized(vectors) if has_length_one or options.normalize else vectors
        if options.precision.endswith("binary") or options.ranges is not None:
            return quantized(vectors, options.precision, options.ranges)
        return np.array(vectors, np.float32)

    def _by_token(self, item: Item, outputs: Sequence[Arrays], name: str) -> Array:
        """A runner's output for each token of a text, whose windows are joined."""
        parts = [found[name][: row["input_ids"].size] for row, found in zip(item.rows, outputs, strict=True)]
        return parts[0] if item.kept.windows is None else joined(parts, item.kept.windows)

    def _tokens(self, item: Item, outputs: Sequence[Arrays], options: SentenceEmbeddingOptions) -> Array:
        return np.array(self._by_token(item, outputs, OUTPUTS["tokens"]), np.float32)

    def _colbert(self, item: Item, outputs: Sequence[Arrays], options: SentenceEmbeddingOptions) -> Array:
        vectors = self._by_token(item, outputs, OUTPUTS["colbert"])[1:]
        return np.array(vectors if options.normalize is False else normalized(vectors), np.float32)

    def _sparse(self, item: Item, outputs: Sequence[Arrays], options: SentenceEmbeddingOptions) -> dict[str, float]:
        """The largest weight of each piece, by its id in decimal; as published, in the order in which they first stand
        in the text, without those that are zero and without the special ones but ``<mask>``.
        """
        left_out = {getattr(self.tokenizer, f"{name}_token_id") for name in ("cls", "eos", "pad", "unk")}
        weights: dict[str, float] = {}
        for row, found in zip(item.rows, outputs, strict=True):
            for token, weight in zip(row["input_ids"].tolist(), found[OUTPUTS["sparse"]][:, 0].tolist(), strict=False):
                if weight > weights.get(str(token), 0.0) and token not in left_out:
                    weights[str(token)] = weight
        return weights

    def gather(self, answers: list[Any], single: bool, options: SentenceEmbeddingOptions) -> Any:
        """One array of all vectors; a list, where a text has several or further outputs."""
        answers = self._with_few_bits(answers, options)
        if single:
            return answers[0]
        if options.spans is not None or options.outputs is not None:
            return answers
        return np.stack(answers) if answers else np.zeros((0, self._size(options)), np.float32)

    def _with_few_bits(self, answers: list[Any], options: SentenceEmbeddingOptions) -> list[Any]:
        """Where the ranges of numbers have to come from the vectors themselves, they come from all of the call."""
        if options.precision not in ("int8", "uint8") or options.ranges is not None or not answers:
            return answers
        if options.outputs is not None and "dense" not in options.outputs:
            return answers
        dense = [answer if options.outputs is None else answer["dense"] for answer in answers]
        counts = [len(vectors) if vectors.ndim == 2 else 1 for vectors in dense]
        rows = np.concatenate([np.atleast_2d(vectors) for vectors in dense])
        parts = np.split(quantized(rows, options.precision), np.cumsum(counts)[:-1])
        found = [part if one.ndim == 2 else part[0] for part, one in zip(parts, dense, strict=True)]
        if options.outputs is None:
            return found
        return [{**answer, "dense": vector} for answer, vector in zip(answers, found, strict=True)]

    def text(self, answer: Any) -> str:
        """The first numbers of each vector, and the heaviest pieces."""
        if isinstance(answer, dict):
            return "\n".join(self._told(name, value) for name, value in answer.items())
        return "\n".join(_numbers(vector) for vector in np.atleast_2d(answer))

    def _told(self, name: str, value: Any) -> str:
        if not isinstance(value, dict):
            return "\n".join(f"  {name:8}{_numbers(vector)}" for vector in np.atleast_2d(value))
        heaviest = sorted(value.items(), key=lambda pair: -pair[1])[:8]
        pieces = " ".join(f"{self.tokenizer.decode([int(token)])} {weight:.4f}" for token, weight in heaviest)
        return f"  {name:8}  {pieces}"

    def rows(self, answer: Any) -> list[dict[str, Any]]:
        """A row a text, or a part of one."""
        if isinstance(answer, dict):
            return [self.plain(answer)]
        return [{"vector": vector} for vector in np.atleast_2d(answer).tolist()]


def _numbers(vector: Array) -> str:
    number = "{:8.4f}" if vector.dtype.kind == "f" else "{:5d}"
    return "  " + " ".join(number.format(value) for value in vector[:8])


def pooling_weights(poolings: Sequence[str], mask_S: NDArray[np.int64]) -> NDArray[np.float32]:
    """How much the state of each token counts: (P, S), a row a pooling of ``POOLINGS``.

    Args:
        poolings: their names; of ``max`` the row says which states count.
        mask_S: 1 where a token counts.
    """
    mask = np.asarray(mask_S, np.float64)
    count = max(mask.sum(), 1e-9)
    place = np.arange(1, len(mask) + 1)
    first = int(np.argmax(mask > 0))
    made: Mapping[str, Any] = {
        # As published, the first that counts: behind a prompt whose tokens do not.
        "cls": lambda: (place == first + 1).astype(np.float64),
        "max": lambda: mask,
        "mean": lambda: mask / count,
        "mean_sqrt_len_tokens": lambda: mask / np.sqrt(count),
        "weightedmean": lambda: mask * place / max((mask * place).sum(), 1e-9),
        "lasttoken": lambda: (place == np.max(place * (mask > 0), initial=1)).astype(np.float64),
    }
    return np.stack([made[name]() for name in poolings]).astype(np.float32)


def _spans_of_each(spans: Any, inputs: Sequence[str]) -> list[list[tuple[int, int]]]:
    """The parts of each text.

    Raises:
        InputError: for anything but pairs of places in the text, or another number of lists than texts.
    """
    spans = list(spans)
    of_one = len(inputs) == 1 and all(np.ndim(span) == 1 and np.size(span) == 2 for span in spans)
    each = [spans] if of_one else spans
    if len(each) != len(inputs):
        raise InputError(
            f"expected a list of spans for each text, received {len(each)} for {len(inputs)} texts; pass one of each"
        )
    found = []
    for index, (text, parts) in enumerate(zip(inputs, each, strict=True)):
        pairs = []
        for part in parts:
            try:
                start, end = (int(place) for place in part)
            except (TypeError, ValueError):
                start, end = -1, -1
            if not 0 <= start < end <= len(text):
                raise InputError(
                    f"expected spans as (first character, one after the last) of {shown(inputs, index)}, which has "
                    f"{len(text)} characters, received {part!r}"
                )
            pairs.append((start, end))
        found.append(pairs)
    return found
