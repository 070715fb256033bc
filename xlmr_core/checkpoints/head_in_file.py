"""Which head a checkpoint has, as its configuration or its parameters say."""

from __future__ import annotations

from xlmr_core.config import EncoderDecoderConfig, ModelConfig
from xlmr_core.errors import CheckpointError, XLMRError
from xlmr_core.formats import Checkpoint
from xlmr_core.heads import ENCODER_DECODER, head_of_class

__all__ = ["has_pooler", "head_of", "is_known"]

# What betrays a head in a file: a parameter of its own, by name.
_HEAD_BY_PARAMETER = {
    "lm_head.dense.weight": "ForMaskedLM",
    "classifier.dense.weight": "ForSequenceClassification",
    "classifier.weight": "ForTokenClassification",
    "qa_outputs.weight": "ForQuestionAnswering",
}


def head_of(config: ModelConfig, checkpoint: Checkpoint) -> str:
    """The head of a checkpoint: what ``architectures`` of the config says, or else what the file's parameters betray.

    Raises:
        CheckpointError: if the file holds several heads.
    """
    if isinstance(config, EncoderDecoderConfig):
        return ENCODER_DECODER.suffix
    for architecture in config.architectures or ():
        if is_known(architecture):
            return head_of_class(architecture).suffix
        # of another library, or the user's own: the file itself says more
    found = [head for name, head in _HEAD_BY_PARAMETER.items() if name in checkpoint.names]
    if len(found) > 1:
        raise CheckpointError(
            f"{checkpoint.path} holds the heads {' and '.join(found)}, "
            "and no architectures in its config say which is meant; "
            f"name one: head={found[0]!r}"
        )
    if not found:
        return "Model"
    if found == ["ForMaskedLM"] and config.is_decoder:
        return "ForCausalLM"  # with the same parameters
    one_score = "classifier.weight" in checkpoint.names and checkpoint.info("classifier.weight").shape[0] == 1
    if found == ["ForTokenClassification"] and has_pooler(checkpoint) and one_score:
        return "ForMultipleChoice"
    return found[0]


def is_known(architecture: str) -> bool:
    """Whether a class is one of this library, in any of its frameworks."""
    try:
        return bool(head_of_class(architecture))
    except XLMRError:
        return False


def has_pooler(checkpoint: Checkpoint) -> bool:
    """Whether there is a pooler in a file."""
    starts = ("pooler.", "roberta.pooler.", "encoder.pooler.")
    return any(name.startswith(starts) for name in checkpoint.names)
