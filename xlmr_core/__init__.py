"""The framework-neutral core of xlmr: configuration, tokenizers, parameter table, checkpoints, outputs and the
reference model.

Needs numpy, safetensors, sentencepiece and tokenizers; never imports torch, tensorflow or jax.
"""

from __future__ import annotations

from xlmr_core.config import AutoConfig, XLMRobertaConfig, XLMRobertaXLConfig
from xlmr_core.errors import XLMRError

__all__ = ["AutoConfig", "XLMRError", "XLMRobertaConfig", "XLMRobertaXLConfig", "__version__"]

__version__ = "0.1.0"
