"""What models can be asked beside their tasks, by who wants to look at them: the tokens of a text, and how they attend
to each other.

A view is asked as a task is, at ``/tasks/NAME``, and is none: pipelines and ``xlmr run`` do not know it.
"""

from __future__ import annotations

import base64
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from xlmr_core.config import EncoderDecoderConfig
from xlmr_core.errors import InputError, TooLongError
from xlmr_core.tasks import TaskRow
from xlmr_core.tasks.options import TaskOptions, option
from xlmr_core.tasks.runner import Runner
from xlmr_core.tasks.task import Arrays, Item, Task, check_texts, shown
from xlmr_core.tasks.texts import encode_texts

__all__ = ["VIEWS", "views_of"]

# Numbers of the answer to a request at most: 16 MiB of float32.
MOST_NUMBERS = 1 << 22


class View(Task):
    """The base of what is only looked at; its answers are no lines of ``xlmr run``."""

    summary: ClassVar[str]
    """A line for a list of views."""
    left_out: ClassVar[Sequence[str]] = ()
    """Options of all tasks that mean nothing here."""

    @classmethod
    @abstractmethod
    def fits(cls, runner: Runner) -> bool:
        """Whether a model can be looked at in this way."""

    def text(self, answer: Any) -> str:
        """As Python writes it."""
        return str(answer)


@dataclass(frozen=True)
class TokensOptions(TaskOptions):
    """What a call can choose.

    Attributes:
        add_special_tokens: with ``<s>`` and ``</s>``.
    """

    add_special_tokens: bool = option(True, "with <s> and </s>")


class Tokens(View):
    """The tokens of a text: of each its id, the piece of the vocabulary, and the characters that it stands for.

    A text is answered by a list of ``{"id", "piece", "text", "start", "end", "special"}``, where ``start`` and ``end``
    of special tokens are ``None``; a list of texts by a list of those. The model does not run.
    """

    Options = TokensOptions
    wanted = ()
    summary = "the tokens of a text: their pieces, their ids and where they stand"
    left_out = ("on_overflow",)

    @classmethod
    def fits(cls, runner: Runner) -> bool:
        """Every model has tokens."""
        return True

    def encode(self, inputs: Sequence[str], options: TokensOptions) -> list[Item]:
        """An item without rows for each text."""
        check_texts(inputs)
        if not inputs:
            return []
        encoded = self.tokenizer(
            list(inputs),
            add_special_tokens=options.add_special_tokens,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            verbose=False,
        )
        columns = (encoded["input_ids"], encoded["offset_mapping"], encoded["special_tokens_mask"])
        return [Item([], kept) for kept in zip(inputs, *columns, strict=True)]

    def decode(self, item: Item, outputs: Sequence[Arrays], options: TokensOptions) -> Any:
        """The tokens of a text."""
        text, ids, offsets, special = item.kept
        pieces = self.tokenizer.convert_ids_to_tokens(list(map(int, ids)))
        return [self._token(text, *one) for one in zip(ids, pieces, offsets, special, strict=True)]

    def _token(self, text: str, token: int, piece: str, place: Sequence[int], special: int) -> dict[str, Any]:
        start, end = (None, None) if special else map(int, place)
        own = "" if special else text[start:end]
        return {"id": int(token), "piece": piece, "text": own, "start": start, "end": end, "special": bool(special)}


@dataclass(frozen=True)
class AttentionOptions(TaskOptions):
    """What a call can choose.

    Attributes:
        layer: one layer, counted from 0; by default all.
        encoding_format: ``float``, nested lists (layers, heads, S, S) with six digits; or ``base64``, the same numbers
            one after the other as bytes, float32 and little endian.
    """

    layer: int | None = option(None, "one layer, counted from 0", least=0)
    encoding_format: str = option("float", "how numbers are sent", choices=("float", "base64"))


class Attention(View):
    """How the tokens of a text attend to each other: from each (row) to each (column), a layer and a head at a time.

    A text is answered by ``{"tokens", "layers", "heads", "attention"}``: the pieces (S), the numbers of the layers, how
    many heads each has, and the probabilities; a list of texts by a list of those.
    """

    Options = AttentionOptions
    wanted = ()
    summary = "how the tokens of a text attend to each other, by layer and head"

    @classmethod
    def fits(cls, runner: Runner) -> bool:
        """Graphs give no attention, and a pair of models has several kinds."""
        return runner.framework != "onnx" and not isinstance(runner.config, EncoderDecoderConfig)

    def prepare(self, options: AttentionOptions) -> AttentionOptions:
        """The options.

        Raises:
            InputError: for a layer that the model does not have, and for a text in windows.
        """
        count = self.config.num_hidden_layers
        if options.layer is not None and options.layer >= count:
            raise InputError(f"expected a layer from 0 to {count - 1}, received {options.layer}")
        if options.on_overflow == "window":
            raise InputError("expected a text to be read at once, received 'window'; pass on_overflow='truncate'")
        return options

    def encode(self, inputs: Sequence[str], options: AttentionOptions) -> list[Item]:
        """A row for each text.

        Raises:
            InputError: for what is no text, and for texts whose answer would be too large.
        """
        check_texts(inputs)
        where = [shown(inputs, index) for index in range(len(inputs))]
        items = encode_texts(self, [(text, None) for text in inputs], {}, options.on_overflow, where)
        lengths = [item.rows[0]["input_ids"].size for item in items]
        layers = self.config.num_hidden_layers if options.layer is None else 1
        most = MOST_NUMBERS // (layers * self.config.num_attention_heads)
        if sum(length**2 for length in lengths) > most:
            raise TooLongError(
                f"expected at most {int(most**0.5)} tokens where attention is shown, of {layers} layers at once, "
                f"received {sum(lengths)}; shorten the text, or ask for one layer"
            )
        return items

    def run(self, runner: Runner, arrays: Arrays, options: AttentionOptions) -> Arrays:
        """The probabilities (B, N, S, S) of the layers, by their numbers."""
        found = runner.attentions(arrays)
        return {str(layer): found[layer] for layer in self._layers(options)}

    def _layers(self, options: AttentionOptions) -> Sequence[int]:
        return range(self.config.num_hidden_layers) if options.layer is None else (options.layer,)

    def decode(self, item: Item, outputs: Sequence[Arrays], options: AttentionOptions) -> Any:
        """The pieces of a text, and the probabilities."""
        ids = item.rows[0]["input_ids"]
        layers = self._layers(options)
        found = [np.asarray(outputs[0][str(layer)][:, : ids.size, : ids.size], np.float32) for layer in layers]
        if options.encoding_format == "base64":
            content = b"".join(layer_NSS.astype("<f4").tobytes() for layer_NSS in found)
            attention: Any = base64.b64encode(content).decode("ascii")
        else:
            attention = [np.round(layer_NSS.astype(np.float64), 6).tolist() for layer_NSS in found]
        return {
            "tokens": self.tokenizer.convert_ids_to_tokens(ids.tolist()),
            "layers": list(layers),
            "heads": [len(layer_NSS) for layer_NSS in found],
            "attention": attention,
        }


_KINDS: Mapping[str, type[View]] = {"tokens": Tokens, "attention": Attention}

VIEWS: Mapping[str, TaskRow] = {
    name: TaskRow(name, auto="", place=f"{__name__}:{kind.__name__}", summary=kind.summary, example="")
    for name, kind in _KINDS.items()
}


def views_of(runner: Runner, tokenizer: Any) -> dict[str, Task]:
    """The views that fit a model, by their names."""
    return {name: kind(tokenizer, runner.config) for name, kind in _KINDS.items() if kind.fits(runner)}
