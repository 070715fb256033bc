"""XLM-R's tokenizers, usable alone: numpy, and sentencepiece or tokenizers (each imported when first needed)."""

from __future__ import annotations

from xlmr_core.tokenization.auto import AutoTokenizer
from xlmr_core.tokenization.base import PreTrainedTokenizerBase
from xlmr_core.tokenization.encoding import BatchEncoding, CharSpan, TokenSpan
from xlmr_core.tokenization.fast import XLMRobertaTokenizerFast, tokenizer_json_from_model
from xlmr_core.tokenization.lengths import PaddingStrategy, TruncationStrategy
from xlmr_core.tokenization.slow import XLMRobertaTokenizer
from xlmr_core.tokenization.special import AddedToken

__all__ = [
    "AddedToken",
    "AutoTokenizer",
    "BatchEncoding",
    "CharSpan",
    "PaddingStrategy",
    "PreTrainedTokenizerBase",
    "TokenSpan",
    "TruncationStrategy",
    "XLMRobertaTokenizer",
    "XLMRobertaTokenizerFast",
    "tokenizer_json_from_model",
]
