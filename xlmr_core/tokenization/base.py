"""What both tokenizer classes share: construction, vocabulary, decoding and files (calling is in ``calling``)."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

from xlmr_core.config_checks import refuse_unknown
from xlmr_core.errors import TokenizerError
from xlmr_core.hub import UPLOAD_ARGUMENTS
from xlmr_core.tokenization import files
from xlmr_core.tokenization.calling import Calling
from xlmr_core.tokenization.checks import as_id
from xlmr_core.tokenization.encoding import as_lists
from xlmr_core.tokenization.lengths import NO_LIMIT, check_side
from xlmr_core.tokenization.special import AddedToken

__all__ = ["PreTrainedTokenizerBase"]

_CLEAN_UP = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"),
    (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip


class PreTrainedTokenizerBase(Calling):
    """The common surface of ``XLMRobertaTokenizer`` and ``XLMRobertaTokenizerFast``.

    Args:
        model_max_length: the longest row the model takes, special tokens included; a longer one is reported once.
        padding_side, truncation_side: 'right' or 'left'; by default the class's own, 'right'.
        model_input_names: which inputs a call returns by default; by default the class's own.
        clean_up_tokenization_spaces: default of ``decode``.
        split_special_tokens: treat special tokens in a text as ordinary text.
        bos_token ... mask_token, additional_special_tokens, extra_special_tokens: the special tokens.
        added_tokens_decoder: id to token, as ``tokenizer_config.json`` holds it.
        chat_template: kept and saved; nothing here uses it.
        kwargs: kept, and written again by ``save_pretrained``.
    """

    vocab_files_names: ClassVar[dict[str, str]]
    pretrained_vocab_files_map: ClassVar[dict[str, dict[str, str]]] = {}
    slow_tokenizer_class: ClassVar[type[PreTrainedTokenizerBase] | None] = None
    is_fast: ClassVar[bool]

    def __init__(
        self,
        *,
        special: Mapping[str, Any],
        model_max_length: int | None = None,
        padding_side: str | None = None,
        truncation_side: str | None = None,
        model_input_names: Sequence[str] | None = None,
        clean_up_tokenization_spaces: bool | None = False,
        split_special_tokens: bool = False,
        additional_special_tokens: Sequence[Any] | None = None,
        extra_special_tokens: Mapping[str, Any] | Sequence[Any] | None = None,
        name_or_path: str = "",
        chat_template: Any = None,
        **kwargs: Any,
    ) -> None:
        self._special = {}
        self._additional = []
        self.init_inputs: tuple[Any, ...] = ()
        self.init_kwargs = dict(kwargs)
        self.name_or_path = name_or_path
        self.model_max_length = NO_LIMIT if model_max_length is None else int(model_max_length)
        self.padding_side = self.padding_side if padding_side is None else padding_side
        self.truncation_side = self.truncation_side if truncation_side is None else truncation_side
        check_side("padding_side", self.padding_side)
        check_side("truncation_side", self.truncation_side)
        self.model_input_names = list(self.model_input_names if model_input_names is None else model_input_names)
        self.clean_up_tokenization_spaces = bool(clean_up_tokenization_spaces)
        self.split_special_tokens = split_special_tokens
        self.verbose = bool(kwargs.get("verbose", True))
        self.deprecation_warnings: dict[str, bool] = {}  # which warnings were given
        self.chat_template = chat_template
        for name, token in special.items():
            self._set_special(name, token)
        if isinstance(extra_special_tokens, Mapping):
            for name, token in extra_special_tokens.items():
                self._set_special(name, token)
            self._own_names = list(extra_special_tokens)
        else:
            # A list is how newer files spell additional_special_tokens.
            additional_special_tokens = [*(additional_special_tokens or []), *(extra_special_tokens or [])]
            self._own_names = []
        self.additional_special_tokens = list(additional_special_tokens or [])

    # -- what a subclass provides --------------------------------------------------------------------------------------

    @abstractmethod
    def _decode(self, ids: list[int], skip_special_tokens: bool, spaces_between_special_tokens: bool) -> str: ...

    @abstractmethod
    def _add_tokens(self, tokens: list[AddedToken]) -> int: ...

    def _keeps_its_flags(self, token: str) -> bool:
        """Whether a token is added already and stays as it is where a str names it again (so in the sentencepiece class)."""
        return False

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of ids without added tokens (``<mask>`` is not an added one)."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def get_vocab(self) -> dict[str, int]:
        """Token to id, added tokens included."""

    @property
    @abstractmethod
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Id to token, of every token that is cut out of the text before the model (special tokens too), by id."""

    @abstractmethod
    def tokenize(self, text: str, **kwargs: Any) -> list[str]:
        """Split a text into tokens."""

    @abstractmethod
    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Join tokens into a text."""

    # -- vocabulary ----------------------------------------------------------------------------------------------------

    @property
    def extra_special_tokens(self) -> dict[str, str]:
        """The special tokens with names of their own: attribute name to token text."""
        return {name: self._special[name].content for name in self._own_names if name in self._special}

    @property
    def vocab(self) -> dict[str, int]:
        """Same as ``get_vocab()``."""
        return self.get_vocab()

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        """Token to id, of the tokens in ``added_tokens_decoder``."""
        return {token.content: index for index, token in self.added_tokens_decoder.items()}

    def get_added_vocab(self) -> dict[str, int]:
        """Token to id, of the tokens in ``added_tokens_decoder``."""
        return self.added_tokens_encoder

    def add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        """Add tokens that are never split.

        Args:
            new_tokens: a str, an AddedToken, or a list of them.
            special_tokens: they are control tokens (dropped by ``skip_special_tokens=True``).

        Returns:
            how many of them are new to the vocabulary (then ``model.resize_token_embeddings(len(tokenizer))``).

        Raises:
            TokenizerError: something that is no token.
        """
        if isinstance(new_tokens, str | Mapping) or hasattr(new_tokens, "content"):
            new_tokens = [new_tokens]
        if not isinstance(new_tokens, Iterable):
            raise TokenizerError(
                f"expected a token or a list of tokens, received {type(new_tokens).__name__} {new_tokens!r}"
            )
        known_special = set(self.all_special_tokens)
        tokens = []
        for token in new_tokens:
            if isinstance(token, str) and self._keeps_its_flags(token):
                continue
            # A str that names a special token keeps being one.
            marked = special_tokens or (isinstance(token, str) and token in known_special)
            added = AddedToken.of(token, special=True if marked else None)
            if added.content:
                tokens.append(added)
        count = self._add_tokens(tokens)
        for added in tokens:
            if added.special and added.content not in known_special:
                self._additional.append(added)
                known_special.add(added.content)
        return count

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """The id of a token, or the ids of a list; an unknown token has the id of ``unk_token``."""
        if tokens is None:
            return None
        if isinstance(tokens, str):
            return self._token_id(tokens)
        return [self._token_id(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The token of an id, or the tokens of a list (None for an id outside the vocabulary in the fast class)."""
        ids = as_lists(ids)
        if not isinstance(ids, list):
            return self._id_token(as_id(ids))
        skipped = set(self.all_special_ids) if skip_special_tokens else set()
        return [self._id_token(as_id(index)) for index in ids if index not in skipped]

    @property
    def max_len_single_sentence(self) -> int:
        """Room for a text's own tokens."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=False)

    @property
    def max_len_sentences_pair(self) -> int:
        """Room for a pair's own tokens."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=True)

    # -- decoding ------------------------------------------------------------------------------------------------------

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        *,
        spaces_between_special_tokens: bool = True,
        use_source_tokenizer: bool = False,
        **kwargs: Any,
    ) -> str:
        """The text of ids.

        Args:
            token_ids: an id, a list of ids, or an array or tensor of shape (S,).
            skip_special_tokens: leave the special tokens out.
            clean_up_tokenization_spaces: drop the spaces before punctuation and English contractions.
            spaces_between_special_tokens: sentencepiece class only: set added tokens apart with spaces.
            use_source_tokenizer: without effect: there is one vocabulary.
            kwargs: anything else does nothing and is logged.

        Raises:
            TokenizerError: ids that are no integers, or (sentencepiece class) outside the vocabulary.
        """
        ids = as_lists(token_ids)
        ids = [as_id(index) for index in (ids if isinstance(ids, list) else [ids])]
        if kwargs:
            self._warn_of_unknown(kwargs)
        text = self._decode(ids, skip_special_tokens, spaces_between_special_tokens)
        clean = (
            self.clean_up_tokenization_spaces if clean_up_tokenization_spaces is None else clean_up_tokenization_spaces
        )
        return self.clean_up_tokenization(text) if clean else text

    def batch_decode(
        self,
        sequences: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """The texts of several rows of ids; arguments as of ``decode``."""
        return [
            self.decode(row, skip_special_tokens, clean_up_tokenization_spaces, **kwargs) for row in as_lists(sequences)
        ]

    @staticmethod
    def clean_up_tokenization(out_string: str) -> str:
        """Drop the spaces before punctuation and English contractions."""
        for spaced, tight in _CLEAN_UP:
            out_string = out_string.replace(spaced, tight)
        return out_string

    # -- files ---------------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *init_inputs: Any,
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        revision: str | None = "main",
        trust_remote_code: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Read a tokenizer from a folder, a built-in name or a hub name.

        Args:
            pretrained_model_name_or_path: the folder or name, or a single ``.model`` or ``tokenizer.json`` file.
            cache_dir, force_download, local_files_only, token, revision: for names on the hub, see ``xlmr_core.hub.resolve``.
            trust_remote_code: does nothing; no code is ever fetched.
            kwargs: override what the files say; ``subfolder`` says where to look.

        Raises:
            ModelNotFoundError: no such folder or name.
            TokenizerError: files missing, damaged, or not XLM-R's.
            InputError: a published argument whose value cannot be served, such as ``use_auth_token``.
        """
        kwargs |= {
            "cache_dir": cache_dir,
            "force_download": force_download,
            "local_files_only": local_files_only,
            "token": token,
            "revision": revision,
        }
        found, settings = files.find_files(pretrained_model_name_or_path, kwargs)
        return cls(*init_inputs, **files.init_arguments(found, settings, fast=cls.is_fast))

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        legacy_format: bool | None = None,
        filename_prefix: str | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> tuple[str, ...]:
        """Write the tokenizer's files into a folder: all are complete before the first takes its place.

        Files of an earlier save that this one does not write (``tokenizer.json``, the sentencepiece model, ``added_tokens.json``) are
        removed, because the next load would mix them with the new ones.

        Args:
            save_directory: made if it does not exist.
            legacy_format: fast class only: True without ``tokenizer.json``, False without the sentencepiece model.
            filename_prefix: put before each file name, with a dash.
            push_to_hub: refused; upload the folder with huggingface_hub.
            kwargs: published arguments of an upload, without effect.

        Returns:
            the paths written.

        Raises:
            TokenizerError: a folder that cannot be written as asked for.
            TypeError: an argument that nobody knows.
        """
        refuse_unknown(kwargs, UPLOAD_ARGUMENTS, f"{type(self).__name__}.save_pretrained()")
        if push_to_hub:
            raise TokenizerError(
                "expected a local folder, received push_to_hub=True; upload the folder with huggingface_hub"
            )
        return files.save(self, save_directory, legacy_format, filename_prefix)

    def __repr__(self) -> str:
        limit = "none" if self.model_max_length >= NO_LIMIT else self.model_max_length
        return (
            f"{type(self).__name__}(name_or_path={self.name_or_path!r}, vocab_size={self.vocab_size}, model_max_length={limit}, "
            f"is_fast={self.is_fast}, padding_side={self.padding_side!r}, truncation_side={self.truncation_side!r}, "
            f"special_tokens={self.special_tokens_map}, added={len(self) - self.vocab_size})"
        )
