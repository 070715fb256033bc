"""Text classification: from texts, or pairs of texts, to the labels of a model and their scores.

What a call gives back is what the published pipeline gives, which depends on how it is called:

- a text: a list with its best label, ``[{"label", "score"}]``; with ``top_k`` its best labels, best first;
- a dictionary of ``text`` and ``text_pair``: the best label itself, with ``top_k`` a list;
- a list of either: a list of best labels, with ``top_k`` of lists;
- with ``top_k`` given to the constructor and not to the call, the answer to a text is in a list of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from xlmr_core.errors import InputError
from xlmr_core.tasks.options import option
from xlmr_core.tasks.task import Arrays, Item, Task, check_finite, softmax
from xlmr_core.tasks.task import shown as shown_text
from xlmr_core.tasks.texts import TokenizerOptions, encode_texts, tokenizer_arguments
from xlmr_core.wording import shown

__all__ = ["Label", "TextClassification", "TextClassificationOptions"]

Scores: TypeAlias = NDArray[np.floating[Any]]


class Label(TypedDict):
    """A label of the model and its score."""

    label: str
    score: float


def _sigmoid(logits: Scores) -> Scores:
    return np.exp(-np.logaddexp(0, -np.asarray(logits, np.float64)))


FUNCTIONS: Mapping[str, Callable[[Scores], Scores]] = {
    "softmax": softmax,
    "sigmoid": _sigmoid,
    "none": lambda logits: np.asarray(logits, np.float64),
}


@dataclass(frozen=True)
class TextClassificationOptions(TokenizerOptions):
    """What a call can choose.

    Attributes:
        top_k: how many labels, best first; None for all. Without it the best one.
        function_to_apply: what makes scores of logits: ``"softmax"``, ``"sigmoid"`` or ``"none"``, in any case; by
            default what the configuration's ``problem_type`` asks for: nothing for regression, softmax for one label of
            several, and else sigmoid.
        return_all_scores: the older word for all labels, in the order of the model.
    """

    top_k: int | str | None = option("", "labels of a text, best first", least=1, none="all", shell=1)
    function_to_apply: str | None = option(None, "what makes scores of logits", choices=tuple(FUNCTIONS))
    return_all_scores: bool | None = option(None, "all labels in the order of the model", python_only=True)

    def __post_init__(self) -> None:
        said = getattr(self.function_to_apply, "value", self.function_to_apply)  # also of the published enumeration
        object.__setattr__(self, "function_to_apply", said.lower() if isinstance(said, str) else said)
        super().__post_init__()


class TextClassification(Task):
    """The task; see the module."""

    Options = TextClassificationOptions
    wanted = ("logits",)
    single = (str, dict)
    columns: ClassVar[Sequence[str]] = ("text", "text_pair")
    optional_columns: ClassVar[Sequence[str]] = ("text_pair",)

    def read(self, *inputs: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
        """As published, a text without ``top_k`` in the same call is answered by a list."""
        text_pair = options.pop("text_pair", None)
        given, options = super().read(*inputs, **options)
        in_a_list = isinstance(given, str) and "top_k" not in options
        given = _with_pair(given, text_pair) if text_pair else given
        return ([given] if in_a_list else given), options

    def prepare(self, options: TextClassificationOptions) -> TextClassificationOptions:
        """The options with what the model's configuration says."""
        config = self.config
        if config.problem_type == "regression":
            usual = "none"
        elif config.problem_type == "multi_label_classification" or config.num_labels == 1:
            usual = "sigmoid"
        else:
            usual = "softmax"
        every = options.return_all_scores
        return replace(
            options,
            function_to_apply=options.function_to_apply or usual,
            return_all_scores=getattr(config, "return_all_scores", None) if every is None else every,
        )

    def encode(self, inputs: Sequence[Any], options: TextClassificationOptions) -> list[Item]:
        """Tokenize texts and pairs.

        Raises:
            InputError: naming the first that is neither, or is too long.
        """
        texts = [_text_and_pair(given, index) for index, given in enumerate(inputs)]
        first = [text for text, _ in texts]
        where = [shown_text(first, index) for index in range(len(texts))]
        return encode_texts(self, texts, tokenizer_arguments(options), options.on_overflow, where)

    def decode(self, item: Item, outputs: Sequence[Arrays], options: TextClassificationOptions) -> Any:
        """Labels and scores from the logits (K,) of a text, or from their mean over its windows."""
        logits_K = np.mean([found["logits"] for found in outputs], axis=0)
        check_finite(logits_K)
        assert options.function_to_apply is not None
        scores_K = FUNCTIONS[options.function_to_apply](logits_K).tolist()
        labels: list[Label] = [
            {"label": self.config.id2label[index], "score": score} for index, score in enumerate(scores_K)
        ]
        if options.top_k == "" and options.return_all_scores:
            return labels
        labels.sort(key=lambda label: -label["score"])
        if options.top_k == "":
            return labels[0]
        return labels if options.top_k is None else labels[: int(options.top_k)]

    def text(self, answer: Any) -> str:
        """A score and a label a line."""
        return "\n".join(f"  {row['score']:.4f}  {row['label']}" for row in self.rows(answer))


def _with_pair(given: Any, text_pair: str) -> Any:
    """A text, a list or a stream of texts, each with the same second text."""
    if isinstance(given, str):
        return {"text": given, "text_pair": text_pair}
    pairs = ({"text": text, "text_pair": text_pair} for text in given)
    return list(pairs) if isinstance(given, list | tuple) else pairs


def _text_and_pair(given: Any, index: int) -> tuple[str, str | None]:
    """A text and the second of its pair; as published, an empty second text is none."""
    if isinstance(given, str):
        return given, None
    if (
        isinstance(given, list | tuple)
        and len(given) == 1
        and isinstance(given[0], list | tuple)
        and len(given[0]) == 2
    ):
        given = dict(zip(("text", "text_pair"), given[0], strict=True))
    if isinstance(given, dict) and "text" in given and set(given) <= {"text", "text_pair"}:
        text, pair = given["text"], given.get("text_pair") or None
        if isinstance(text, str) and isinstance(pair, str | None):
            return text, pair
    raise InputError(
        f"expected a text, or a pair as {{'text': ..., 'text_pair': ...}}, received {shown(given, 100)} "
        f"at index {index}"
    )
