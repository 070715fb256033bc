"""``AutoTokenizer``: the right tokenizer class for a folder or name, by what its files hold."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from xlmr_core.arguments import HUB_ARGUMENTS
from xlmr_core.config import CONFIG_CLASSES, XLMRobertaConfig, XLMRobertaXLConfig
from xlmr_core.errors import CheckpointError, ModelNotFoundError, TokenizerError
from xlmr_core.tokenization import files
from xlmr_core.tokenization.base import PreTrainedTokenizerBase
from xlmr_core.tokenization.fast import XLMRobertaTokenizerFast
from xlmr_core.tokenization.slow import XLMRobertaTokenizer

__all__ = ["AutoTokenizer"]


# Tokenizers of users, by the configuration's class: one for use_fast=False, one for use_fast=True.
REGISTERED: dict[type, dict[bool, type[Any]]] = {}


class AutoTokenizer:
    """Makes tokenizers; not to be instantiated."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
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
            use_fast: the tokenizers library (default) or sentencepiece; of what is registered for the checkpoint's
                configuration, the one that there is.
            kwargs: override what the files say, or say where to look; see ``from_pretrained`` of the classes.

        Raises:
            ModelNotFoundError: no such folder or name.
            TokenizerError: files missing, damaged, or not XLM-R's.
        """
        classes: dict[bool, type[Any]] = {False: XLMRobertaTokenizer, True: XLMRobertaTokenizerFast}
        kind = _config_class(pretrained_model_name_or_path, kwargs) if REGISTERED else None
        if kind is not None:
            own = REGISTERED.get(kind, {})
            use_fast = use_fast if use_fast in own or not own else not use_fast
            classes |= own
        found, settings = files.find_files(pretrained_model_name_or_path, kwargs)
        tokenizer: XLMRobertaTokenizer | XLMRobertaTokenizerFast = files.build(
            classes[use_fast], init_inputs, found, settings, fast=use_fast
        )
        return tokenizer

    @staticmethod
    def register(
        config_class: type[XLMRobertaConfig],
        tokenizer_class: type | None = None,
        slow_tokenizer_class: type | None = None,
        fast_tokenizer_class: type | None = None,
        exist_ok: bool = False,
    ) -> None:
        """Use tokenizers of your own for checkpoints of a configuration of your own.

        Args:
            config_class: made known by ``AutoConfig.register``.
            tokenizer_class: derived from either of the two below; the name of version 5.
            slow_tokenizer_class: derived from ``XLMRobertaTokenizer``.
            fast_tokenizer_class: derived from ``XLMRobertaTokenizerFast``.
            exist_ok: let them take the place of others.

        Raises:
            TokenizerError: for classes of another kind, none at all, or a configuration that has some.
        """
        if tokenizer_class is not None and fast_tokenizer_class is None and _is_fast(slow_tokenizer_class):
            # By position as in version 4: the slow one, then the fast one.
            slow_tokenizer_class, fast_tokenizer_class = None, slow_tokenizer_class
        classes: dict[bool, type] = {}
        for received, fast in ((tokenizer_class, None), (slow_tokenizer_class, False), (fast_tokenizer_class, True)):
            if received is None:
                continue
            known = isinstance(received, type) and issubclass(received, PreTrainedTokenizerBase)
            is_fast = _is_fast(received)
            if not known or fast not in (None, is_fast):
                wanted = "XLMRobertaTokenizerFast" if fast else "XLMRobertaTokenizer"
                raise TokenizerError(
                    f"AutoTokenizer.register expects a class derived from {wanted}, received "
                    f"{getattr(received, '__name__', repr(received))}; pass a class of that kind"
                )
            classes[is_fast] = received
        if not classes:
            raise TokenizerError("AutoTokenizer.register expects a class of tokenizers, received none; pass one")
        taken = [one for fast, one in REGISTERED.get(config_class, {}).items() if fast in classes]
        if not exist_ok and (taken or config_class in (XLMRobertaConfig, XLMRobertaXLConfig)):
            raise TokenizerError(
                f"AutoTokenizer has tokenizers for {config_class.__name__}; register a configuration of your own, or "
                "pass exist_ok=True"
            )
        REGISTERED.setdefault(config_class, {}).update(classes)


def _is_fast(tokenizer_class: object) -> bool:
    return isinstance(tokenizer_class, type) and issubclass(tokenizer_class, XLMRobertaTokenizerFast)


def _config_class(name_or_path: str | os.PathLike[str], arguments: dict[str, Any]) -> type | None:
    """The class of a checkpoint's configuration, if it has one."""
    config = arguments.get("config")
    if isinstance(config, XLMRobertaConfig):
        return type(config)
    if Path(name_or_path).is_file():
        return None
    where = {name: arguments[name] for name in HUB_ARGUMENTS if name in arguments}
    with suppress(CheckpointError, ModelNotFoundError):  # a tokenizer without a model
        values, _ = XLMRobertaConfig.get_config_dict(name_or_path, **where)
        return CONFIG_CLASSES.get(str(values.get("model_type")))
    return None
