"""The tasks that ``pipeline`` and ``xlmr run`` can do, a row each.

A task is everything around the model, NumPy in and plain Python out (``task.py``). The pipeline stands once
(``pipeline.py``), and so does what ``pipeline()`` decides before anything is loaded (``choosing.py``). A backend runs
the model (``runner.py``).

To add a task: a row here and a module beside this one; then Python, the command line and all backends have it.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xlmr_core.arguments import suggestion
from xlmr_core.errors import XLMRError
from xlmr_core.hub import DEFAULT_MODEL

if TYPE_CHECKING:
    from xlmr_core.tasks.task import Task

__all__ = ["ALIASES", "TASKS", "Alias", "TaskRow", "auto_of", "default_model", "find_task", "models_for"]


@dataclass(frozen=True)
class TaskRow:
    """What is known of a task before its module is imported.

    Attributes:
        name: the published name.
        auto: the Auto class that loads its model.
        place: where its class is, ``module:Class``; the published class of its pipeline is called ``ClassPipeline``.
        summary: one line for the help text.
        example: a command line for the help text; it may have several lines.
        model: what runs where no model is named; empty where one has to be named.
        hub: names of models on the hub, for who names none.
        arguments: of the model's ``from_pretrained``, where the task does not need all of it.
    """

    name: str
    auto: str
    place: str
    summary: str
    example: str
    model: str = ""
    hub: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pipeline(self) -> str:
        """The published name of its pipeline's class, e.g. ``FillMaskPipeline``."""
        return self.place.rpartition(":")[2] + "Pipeline"

    def load(self) -> type[Task]:
        """The task's class; its module is imported now."""
        found: type[Task] = pkgutil.resolve_name(self.place)
        return found


TASKS: dict[str, TaskRow] = {
    row.name: row
    for row in (
        TaskRow(
            name="fill-mask",
            auto="AutoModelForMaskedLM",
            place="xlmr_core.tasks.fill_mask:FillMask",
            summary="the most likely tokens at each <mask> of a text",
            example='xlmr run --task fill-mask --top-k 3 "Bonjour, je suis un modèle <mask>."',
            model=DEFAULT_MODEL,
        ),
        TaskRow(
            name="text-classification",
            auto="AutoModelForSequenceClassification",
            place="xlmr_core.tasks.text_classification:TextClassification",
            summary="the label of a text, or of a pair of texts",
            example='xlmr run --task text-classification --model MODEL "Sehr gut!"',
            model="xlmr-mini-topic",
            hub=("cardiffnlp/twitter-xlm-roberta-base-sentiment", "papluca/xlm-roberta-base-language-detection"),
        ),
        TaskRow(
            name="token-classification",
            auto="AutoModelForTokenClassification",
            place="xlmr_core.tasks.token_classification:TokenClassification",
            summary="the names in a text, or what each of its words is",
            example=(
                'xlmr run --task token-classification --model MODEL \\\n  --aggregation-strategy spans "Ada in Oslo"'
            ),
            model="xlmr-mini-pos",
            hub=("Davlan/xlm-roberta-base-ner-hrl",),
        ),
        TaskRow(
            name="zero-shot-classification",
            auto="AutoModelForSequenceClassification",
            place="xlmr_core.tasks.zero_shot:ZeroShotClassification",
            summary="which of your own labels fit a text",
            example=(
                "xlmr run --task zero-shot-classification --model MODEL \\\n"
                '  --candidate-labels "sport, politics" "Das Spiel endet 2:1."'
            ),
            hub=("joeddav/xlm-roberta-large-xnli",),
        ),
        TaskRow(
            name="multiple-choice",
            auto="AutoModelForMultipleChoice",
            place="xlmr_core.tasks.multiple_choice:MultipleChoice",
            summary="which of several texts goes on from a prompt",
            example="xlmr run --task multiple-choice --model MODEL < choices.tsv",
        ),
        TaskRow(
            name="feature-extraction",
            auto="AutoModel",
            place="xlmr_core.tasks.feature_extraction:FeatureExtraction",
            summary="a vector for each token of a text",
            example='xlmr run --task feature-extraction --model MODEL "un texte"',
            hub=("FacebookAI/xlm-roberta-base",),
            arguments={"add_pooling_layer": False},
        ),
        TaskRow(
            name="sentence-embedding",
            auto="AutoModel",
            place="xlmr_core.tasks.sentence_embedding:SentenceEmbedding",
            summary="a vector for a text",
            example='xlmr run --task sentence-embedding --model MODEL \\\n  --prompt "query: " "un texte"',
            hub=("BAAI/bge-m3", "intfloat/multilingual-e5-base"),
            arguments={"add_pooling_layer": False},
        ),
        TaskRow(
            name="sentence-similarity",
            auto="AutoModel",
            place="xlmr_core.tasks.sentence_similarity:SentenceSimilarity",
            summary="how alike two texts are",
            example="xlmr run --task sentence-similarity --model MODEL < pairs.tsv",
            model="xlmr-mini-sentences",
            hub=("BAAI/bge-m3", "intfloat/multilingual-e5-base"),
            arguments={"add_pooling_layer": False},
        ),
        TaskRow(
            name="rerank",
            auto="AutoModelForSequenceClassification",
            place="xlmr_core.tasks.rerank:Rerank",
            summary="passages in the order in which they answer a query",
            example="xlmr run --task rerank --model MODEL < queries.tsv",
            hub=("BAAI/bge-reranker-v2-m3",),
        ),
        TaskRow(
            name="question-answering",
            auto="AutoModelForQuestionAnswering",
            place="xlmr_core.tasks.question_answering:QuestionAnswering",
            summary="the part of a text that answers a question",
            example="xlmr run --task question-answering --model MODEL < questions.tsv",
            hub=("deepset/xlm-roberta-base-squad2",),
        ),
        TaskRow(
            name="text-generation",
            auto="AutoModelForCausalLM",
            place="xlmr_core.tasks.text_generation:TextGeneration",
            summary="how a text goes on",
            example='xlmr run --task text-generation --model MODEL \\\n  --max-new-tokens 20 "Once upon a time"',
        ),
        TaskRow(
            name="text2text-generation",
            auto="AutoModelForSeq2SeqLM",
            place="xlmr_core.tasks.text2text_generation:Text2TextGeneration",
            summary="a text to another text",
            example='xlmr run --task text2text-generation --model MODEL "a text"',
        ),
        TaskRow(
            name="summarization",
            auto="AutoModelForSeq2SeqLM",
            place="xlmr_core.tasks.text2text_generation:Summarization",
            summary="what a text says, in fewer words",
            example="xlmr run --task summarization --model MODEL < texts.txt",
        ),
        TaskRow(
            name="translation",
            auto="AutoModelForSeq2SeqLM",
            place="xlmr_core.tasks.text2text_generation:Translation",
            summary="a text in another language",
            example='xlmr run --task translation --model MODEL "Where is the station?"',
        ),
    )
}


@dataclass(frozen=True)
class Alias:
    """Another name of a task.

    Attributes:
        task: a name of ``TASKS``.
        hub: names of models on the hub, for who names none.
        model: what runs where no model is named; empty where one has to be named.
    """

    task: str
    hub: tuple[str, ...]
    model: str = ""


ALIASES: dict[str, Alias] = {
    "sentiment-analysis": Alias("text-classification", ("cardiffnlp/twitter-xlm-roberta-base-sentiment",)),
    "language-identification": Alias(
        "text-classification", ("papluca/xlm-roberta-base-language-detection",), "xlmr-mini-langid"
    ),
    "ner": Alias("token-classification", ("Davlan/xlm-roberta-base-ner-hrl",), "xlmr-mini-ner"),
}


# The published names of translation between two languages, which are the model's.
TRANSLATION_BETWEEN = r"translation_\w+_to_\w+"


def find_task(name: str | TaskRow) -> TaskRow:
    """The row of a name, of another name of ``ALIASES``, or of ``translation_en_to_fr`` and the like; a row is its own.

    Raises:
        XLMRError: for a name that is none of them.
    """
    if isinstance(name, TaskRow):
        return name
    name = ALIASES[name].task if name in ALIASES else name
    if re.fullmatch(TRANSLATION_BETWEEN, name):
        return TASKS["translation"]
    if name not in TASKS:
        meant = suggestion(name, [*TASKS, *ALIASES], otherwise="choose one of them")
        raise XLMRError(f"expected a task of {', '.join(map(repr, TASKS))}, received {name!r}; {meant}")
    return TASKS[name]


def default_model(name: str | TaskRow) -> str:
    """What runs where no model is named, for a task by one of its names; empty where one has to be named."""
    return ALIASES[name].model if isinstance(name, str) and name in ALIASES else find_task(name).model


def models_for(name: str) -> tuple[str, ...]:
    """Models on the hub for a task, by one of its names."""
    return ALIASES[name].hub if name in ALIASES else find_task(name).hub


def auto_of(model: object) -> str:
    """The Auto class for models with this head; empty for what is no model, or has a head of the user's own."""
    return str(getattr(getattr(model, "_task_head", None), "auto", ""))
