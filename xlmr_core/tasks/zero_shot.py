"""Zero-shot classification: which of a user's own labels fit a text, by a model of entailment.

Each label becomes a hypothesis ("This example is politics."), and the model says how much the text entails it. All
hypotheses of a text run together, those of several texts too, as far as ``batch_size`` texts go.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypedDict

import numpy as np

from xlmr_core.errors import InputError
from xlmr_core.tasks.options import TaskOptions, option
from xlmr_core.tasks.task import Arrays, Item, Task, check_texts, softmax
from xlmr_core.tasks.texts import encode_texts

__all__ = ["ZeroShotAnswer", "ZeroShotClassification", "ZeroShotClassificationOptions"]

logger = logging.getLogger("xlmr_core.tasks")


# What is said of a label, by language: those of XNLI, and some more. The first is the published default.
TEMPLATES = {
    "en": "This example is {}.",
    "ar": "هذا المثال هو {}.",
    "bg": "Този пример е {}.",
    "de": "Dieses Beispiel ist {}.",
    "el": "Αυτό το παράδειγμα είναι {}.",
    "es": "Este ejemplo es {}.",
    "fr": "Cet exemple est {}.",
    "hi": "यह उदाहरण {} है।",
    "it": "Questo esempio è {}.",
    "ja": "この例は{}です。",
    "ko": "이 예시는 {}입니다.",
    "nl": "Dit voorbeeld is {}.",
    "pl": "Ten przykład to {}.",
    "pt": "Este exemplo é {}.",
    "ru": "Этот пример — {}.",
    "sw": "Mfano huu ni {}.",
    "th": "ตัวอย่างนี้คือ {}",
    "tr": "Bu örnek {}.",
    "ur": "یہ مثال {} ہے۔",
    "vi": "Ví dụ này là {}.",
    "zh": "这个例子是{}。",
}


class ZeroShotAnswer(TypedDict):
    """A text and its labels, best first, with their scores."""

    sequence: str
    labels: list[str]
    scores: list[float]


@dataclass(frozen=True)
class ZeroShotClassificationOptions(TaskOptions):
    """What a call can choose.

    Attributes:
        candidate_labels: the labels; a text is split at commas.
        hypothesis_template: what is said of a label, ``{}`` in its place; by default that of ``language``.
        language: of the texts and labels, by its code; a sentence in their language helps.
        multi_label: each label is judged by itself; else their scores are 1 together.
        multi_class: the older word for ``multi_label``.
    """

    # The original takes these, and cuts texts and fills up rows all the same.
    not_needed: ClassVar[Sequence[str]] = ("truncation", "padding")

    candidate_labels: str | Iterable[str] | None = option(None, "the labels, with commas between them")
    hypothesis_template: str | None = option(None, "what is said of a label (default: as the language says it)")
    language: str = option("en", "of texts and labels", choices=tuple(TEMPLATES))
    multi_label: bool = option(False, "judge each label by itself")
    multi_class: bool | None = option(None, "the older word for multi_label", python_only=True)

    @staticmethod
    def renamed(said: Mapping[str, Any]) -> dict[str, Any]:
        """As published, the older word wins over the newer one beside it."""
        return {**said, "multi_label": said["multi_class"]} if "multi_class" in said else dict(said)


class ZeroShotClassification(Task):
    """The task; see the module."""

    Options = ZeroShotClassificationOptions
    wanted = ("logits",)
    together = True

    def __init__(self, tokenizer: Any, config: Any) -> None:
        super().__init__(tokenizer, config)
        named = [index for index, label in sorted(config.id2label.items()) if label.lower().startswith("entail")]
        if not named:
            logger.warning(
                "expected a label that begins with 'entail', the model has %s; its last label is taken for it",
                ", ".join(map(repr, config.id2label.values())),
            )
        self.entailment = named[0] if named else -1
        # As published, whatever that label is called.
        self.contradiction = -1 if self.entailment == 0 else 0

    def read(self, sequences: Any = None, *labels: Any, **options: Any) -> tuple[Any, dict[str, Any]]:
        """The labels may stand behind the texts."""
        if len(labels) > 1:
            raise InputError(f"expected texts and labels, received {1 + len(labels)} arguments; pass options by name")
        if labels and "candidate_labels" in options:
            raise InputError("expected labels once, received them twice; leave candidate_labels= out")
        if labels:
            options = {**options, "candidate_labels": labels[0]}
        if sequences is None or (isinstance(sequences, str | list | tuple) and not sequences):
            raise InputError(f"expected at least one text, received {sequences!r}; pass a text")
        return sequences, options

    def prepare(self, options: ZeroShotClassificationOptions) -> ZeroShotClassificationOptions:
        """The options with the labels as a list.

        Raises:
            InputError: if there are none, or the template has no place for them.
        """
        labels = options.candidate_labels
        if isinstance(labels, str):
            labels = [label.strip() for label in labels.split(",") if label.strip()]
        labels = list(labels) if isinstance(labels, Iterable) else []
        if not labels:
            received = options.candidate_labels
            raise InputError(f"expected at least one label, received {received!r}; pass candidate_labels=")
        check_texts(labels)
        template = TEMPLATES[options.language] if options.hypothesis_template is None else options.hypothesis_template
        try:
            says_nothing = template.format(labels[0]) == template
        except (LookupError, ValueError) as error:
            raise InputError(f"hypothesis_template must have one {{}} in it, received {template!r}: {error}") from error
        if says_nothing:
            raise InputError(f"hypothesis_template must have {{}} where the label goes, received {template!r}")
        return replace(options, candidate_labels=labels, hypothesis_template=template)

    def encode(self, inputs: Sequence[str], options: ZeroShotClassificationOptions) -> list[Item]:
        """Pair each text with each hypothesis. As published, a text that is too long is cut, a hypothesis never."""
        check_texts(inputs)
        assert options.hypothesis_template is not None
        hypotheses = [options.hypothesis_template.format(label) for label in options.candidate_labels or ()]
        pairs = [(text, hypothesis) for text in inputs for hypothesis in hypotheses]
        where = [f"the text {text[:60]!r}" for text, _ in pairs]
        encoded = encode_texts(self, pairs, {"truncation": "only_first"}, options.on_overflow, where)
        items = []
        for index, text in enumerate(inputs):
            own = encoded[index * len(hypotheses) : (index + 1) * len(hypotheses)]
            rows = [row for item in own for row in item.rows]
            kept = text, [len(item.rows) for item in own]
            items.append(Item(rows, kept, any(item.truncated for item in own)))
        return items

    def decode(self, item: Item, outputs: Sequence[Arrays], options: ZeroShotClassificationOptions) -> ZeroShotAnswer:
        """Labels and scores, best first, from the logits (K,) of each hypothesis, their mean where it has windows."""
        text, counts = item.kept
        ends = np.cumsum(counts)
        logits_LK = np.stack(
            [
                np.mean([found["logits"] for found in outputs[end - count : end]], axis=0)
                for end, count in zip(ends, counts, strict=True)
            ]
        )
        if options.multi_label or len(logits_LK) == 1:
            scores_L = softmax(logits_LK[:, [self.contradiction, self.entailment]])[:, 1]
        else:
            scores_L = softmax(logits_LK[:, self.entailment])
        best = np.argsort(scores_L, kind="stable")[::-1]
        labels = list(options.candidate_labels or ())
        return {
            "sequence": text,
            "labels": [labels[index] for index in best],
            "scores": scores_L[best].tolist(),
        }

    def text(self, answer: ZeroShotAnswer) -> str:
        """A score and a label a line."""
        return "\n".join(f"  {row['score']:.4f}  {row['label']}" for row in self.rows(answer))

    def rows(self, answer: Any) -> list[dict[str, Any]]:
        """A row a label."""
        return [
            {"label": label, "score": score} for label, score in zip(answer["labels"], answer["scores"], strict=True)
        ]
