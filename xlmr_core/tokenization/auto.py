"""``AutoTokenizer``: the right tokenizer class for a folder or name, by what its files hold."""

from __future__ import annotations

import os
from typing import Any

from xlmr_core.tokenization import files
from xlmr_core.tokenization.fast import XLMRobertaTokenizerFast
from xlmr_core.tokenization.slow import XLMRobertaTokenizer

__all__ = ["AutoTokenizer"]


class AutoTokenizer:
    """Makes tokenizers; not to be instantiated."""

    def __init__(self) -> None:
        raise TypeError("AutoTokenizer has no instances; call AutoTokenizer.from_pretrained(folder_or_name)")

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *init_inputs: Any,
        use_fast: bool = True,
        **kwargs: Any,
    ) -> XLMRobertaTokenizer | XLMRobertaTokenizerFast:
        """Read a tokenizer from a folder, a built-in name or a hub name.

        Args:
            pretrained_model_name_or_path: a folder with ``tokenizer.json`` or ``sentencepiece.bpe.model``, or a name.
            use_fast: the tokenizers library (default) or sentencepiece.
            kwargs: override what the files say, or say where to look; see ``from_pretrained`` of the classes.

        Raises:
            ModelNotFoundError: no such folder or name.
            TokenizerError: files missing, damaged, or not XLM-R's.
        """
        chosen = XLMRobertaTokenizerFast if use_fast else XLMRobertaTokenizer
        found, settings = files.find_files(pretrained_model_name_or_path, kwargs)
        return chosen(*init_inputs, **files.init_arguments(found, settings, fast=use_fast))
