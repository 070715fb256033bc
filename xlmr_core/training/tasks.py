"""The tasks that can be trained, a row each."""

from __future__ import annotations

from xlmr_core.training.lines import CausalLanguageModeling, MaskedLanguageModeling
from xlmr_core.training.pairs import Rerank, SentenceEmbedding
from xlmr_core.training.task import TrainingTask
from xlmr_core.training.texts import MultipleChoice, TextClassification
from xlmr_core.training.tokens import QuestionAnswering, TokenClassification

__all__ = ["TRAINING"]

TRAINING: dict[str, type[TrainingTask]] = {
    task.name: task
    for task in (
        MaskedLanguageModeling,
        CausalLanguageModeling,
        TextClassification,
        TokenClassification,
        QuestionAnswering,
        MultipleChoice,
        SentenceEmbedding,
        Rerank,
    )
}
