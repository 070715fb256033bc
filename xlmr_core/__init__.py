"""The framework-neutral core of xlmr: configuration, tokenizers, parameter table, checkpoints, outputs and the
reference model.

Needs numpy, safetensors, sentencepiece and tokenizers; never imports torch, tensorflow or jax.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xlmr_core.config import AutoConfig, PretrainedConfig, XLMRobertaConfig, XLMRobertaXLConfig
from xlmr_core.errors import XLMRError
from xlmr_core.importing import import_when_used

if TYPE_CHECKING:
    from xlmr_core.pipelines import pipeline
    from xlmr_core.tokenization import AutoTokenizer, XLMRobertaTokenizer, XLMRobertaTokenizerFast

__all__ = [
    "AutoConfig",
    "AutoTokenizer",
    "PretrainedConfig",
    "XLMRError",
    "XLMRobertaConfig",
    "XLMRobertaTokenizer",
    "XLMRobertaTokenizerFast",
    "XLMRobertaXLConfig",
    "__version__",
    "pipeline",
]

__version__ = "0.1.0"

# Imported when first used: a configuration alone needs no tokenizer.
__getattr__ = import_when_used(
    globals(),
    {
        **dict.fromkeys(("AutoTokenizer", "XLMRobertaTokenizer", "XLMRobertaTokenizerFast"), "xlmr_core.tokenization"),
        "pipeline": "xlmr_core.pipelines",
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
