"""Special and added tokens: the token type, and the attributes (``bos_token``, ``mask_token_id``, ...) of a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, overload

from xlmr_core.errors import TokenizerError
from xlmr_core.tokenization.checks import as_id, check_text
from xlmr_core.tokenization.encoding import as_lists

__all__ = ["DEFAULT_TOKENS", "AddedToken", "SpecialTokens"]

DEFAULT_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
"""XLM-R's special tokens, in the order in which every listing gives them."""

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")


@dataclass(frozen=True, init=False)
class AddedToken:
    """A token that is cut out of the text before the model sees it.

    Args:
        content: the token's text.
        single_word: match only where the neighbours are spaces.
        lstrip, rstrip: swallow the white space on that side.
        normalized: match in the normalized text (fast class only); by default True unless ``special``.
        special: belongs to the control tokens, dropped by ``skip_special_tokens=True``.
    """

    content: str
    single_word: bool
    lstrip: bool
    rstrip: bool
    normalized: bool
    special: bool

    def __init__(
        self,
        content: str,
        single_word: bool = False,
        lstrip: bool = False,
        rstrip: bool = False,
        normalized: bool | None = None,
        special: bool = False,
    ) -> None:
        if not isinstance(content, str):
            raise TokenizerError(
                f"expected the text of a token, received {type(content).__name__} {content!r}; pass a str"
            )
        check_text(content)
        set_field = object.__setattr__
        set_field(self, "content", content)
        set_field(self, "single_word", bool(single_word))
        set_field(self, "lstrip", bool(lstrip))
        set_field(self, "rstrip", bool(rstrip))
        set_field(self, "normalized", not special if normalized is None else bool(normalized))
        set_field(self, "special", bool(special))

    def __str__(self) -> str:
        return self.content

    @classmethod
    def of(cls, token: Any, special: bool | None = None) -> AddedToken:
        """From a str, an AddedToken (ours or the tokenizers library's) or its JSON form.

        Args:
            token: what a user or a file gave.
            special: overrides the token's own flag; for a str also the default of ``normalized``.
        """
        if isinstance(token, str):
            return cls(token, special=bool(special))
        if isinstance(token, Mapping):
            flags = {name: token[name] for name in _FLAGS if name in token}
            own = bool(token.get("special", False))
            return cls(token.get("content", ""), **flags, special=own if special is None else special)
        if hasattr(token, "content"):
            flags = {name: getattr(token, name) for name in _FLAGS}
            return cls(token.content, **flags, special=token.special if special is None else special)
        raise TokenizerError(f"expected a token (str or AddedToken), received {type(token).__name__} {token!r}")

    def to_json(self, with_special: bool = True) -> dict[str, Any]:
        """The form that ``tokenizer_config.json`` (with ``special``) and ``special_tokens_map.json`` (without) hold."""
        fields: dict[str, Any] = {
            "content": self.content,
            "lstrip": self.lstrip,
            "normalized": self.normalized,
            "rstrip": self.rstrip,
            "single_word": self.single_word,
        }
        return {**fields, "special": self.special} if with_special else fields

    @property
    def is_plain(self) -> bool:
        """Whether the text alone says everything (no stripping, not matched in normalized text)."""
        return not (self.single_word or self.lstrip or self.rstrip or self.normalized)


class _Token:
    """``tokenizer.mask_token``: a str or None; assignment takes a str, an AddedToken or None."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> _Token: ...
    @overload
    def __get__(self, instance: SpecialTokens, owner: type) -> str | None: ...
    def __get__(self, instance: SpecialTokens | None, owner: type) -> _Token | str | None:
        if instance is None:
            return self
        token = instance._special.get(self.name)
        return None if token is None else token.content

    def __set__(self, instance: SpecialTokens, value: Any) -> None:
        instance._set_special(self.name, value)


class _TokenId:
    """``tokenizer.mask_token_id``: the id of that token or None; assignment names the token by its id."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name.removesuffix("_id")

    @overload
    def __get__(self, instance: None, owner: type) -> _TokenId: ...
    @overload
    def __get__(self, instance: SpecialTokens, owner: type) -> int | None: ...
    def __get__(self, instance: SpecialTokens | None, owner: type) -> _TokenId | int | None:
        if instance is None:
            return self
        token = instance._special.get(self.name)
        return None if token is None else instance._token_id(token.content)

    def __set__(self, instance: SpecialTokens, value: int | None) -> None:
        instance._set_special(self.name, None if value is None else instance._id_token(value))


def _special_token(name: str, value: Any) -> AddedToken:
    if not isinstance(value, str | Mapping) and not hasattr(value, "content"):
        raise TokenizerError(f"expected {name} to be a str or an AddedToken, received {type(value).__name__} {value!r}")
    return AddedToken.of(value, special=True)


class SpecialTokens:
    """The special-token attributes, shared by both tokenizer classes."""

    SPECIAL_TOKENS_ATTRIBUTES: ClassVar[list[str]] = [*DEFAULT_TOKENS, "additional_special_tokens"]

    bos_token, eos_token, unk_token, sep_token = _Token(), _Token(), _Token(), _Token()
    pad_token, cls_token, mask_token = _Token(), _Token(), _Token()
    bos_token_id, eos_token_id, unk_token_id, sep_token_id = _TokenId(), _TokenId(), _TokenId(), _TokenId()
    pad_token_id, cls_token_id, mask_token_id = _TokenId(), _TokenId(), _TokenId()
    pad_token_type_id: int = 0

    _special: dict[str, AddedToken]
    _additional: list[AddedToken]

    def _token_id(self, token: str) -> int | None:
        raise NotImplementedError

    def _id_token(self, index: int) -> str | None:
        raise NotImplementedError

    def add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        """Add tokens; see the tokenizer classes."""
        raise NotImplementedError

    def _set_special(self, name: str, value: Any) -> None:
        if value is None:
            self._special.pop(name, None)
        else:
            self._special[name] = _special_token(name, value)

    def __getattr__(self, name: str) -> Any:
        # Tokens with names of their own (`extra_special_tokens` of tokenizer_config.json), as `.image_token` and `.image_token_id`.
        special = self.__dict__.get("_special", {})
        if name in special:
            return special[name].content
        if name.removesuffix("_id") in special:
            return self._token_id(special[name.removesuffix("_id")].content)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    @property
    def additional_special_tokens(self) -> list[str]:
        """The special tokens beyond the seven named ones."""
        return [token.content for token in self._additional]

    @additional_special_tokens.setter
    def additional_special_tokens(self, value: Sequence[Any] | None) -> None:
        self._additional = [AddedToken.of(token, special=True) for token in value or []]

    @property
    def additional_special_tokens_ids(self) -> list[int | None]:
        """Ids of ``additional_special_tokens``."""
        return [self._token_id(token) for token in self.additional_special_tokens]

    @property
    def all_special_tokens_extended(self) -> list[AddedToken]:
        """Every special token once, with its flags."""
        found: dict[str, AddedToken] = {}
        for token in [*self._special.values(), *self._additional]:
            found.setdefault(token.content, token)
        return list(found.values())

    @property
    def all_special_tokens(self) -> list[str]:
        """Every special token once, in the order of the attributes."""
        return [token.content for token in self.all_special_tokens_extended]

    @property
    def all_special_ids(self) -> list[int | None]:
        """Ids of ``all_special_tokens``."""
        return [self._token_id(token) for token in self.all_special_tokens]

    @property
    def special_tokens_map(self) -> dict[str, str | list[str]]:
        """Attribute name to token text."""
        tokens: dict[str, str | list[str]] = {name: token.content for name, token in self._special.items()}
        return {**tokens, "additional_special_tokens": self.additional_special_tokens} if self._additional else tokens

    @property
    def special_tokens_map_extended(self) -> dict[str, AddedToken | list[AddedToken]]:
        """Attribute name to token with its flags."""
        tokens: dict[str, AddedToken | list[AddedToken]] = dict(self._special)
        return {**tokens, "additional_special_tokens": list(self._additional)} if self._additional else tokens

    def add_special_tokens(
        self, special_tokens_dict: Mapping[str, Any], replace_additional_special_tokens: bool = True
    ) -> int:
        """Set special tokens by attribute name and add those that are not in the vocabulary.

        Args:
            special_tokens_dict: e.g. ``{"pad_token": "[PAD]", "additional_special_tokens": ["<q>"]}``.
            replace_additional_special_tokens: replace the list of additional ones, or extend it.

        Returns:
            how many tokens the vocabulary grew by.

        Raises:
            TokenizerError: a key that is no special-token attribute, or a value that is no token.
        """
        if not isinstance(special_tokens_dict, Mapping):
            raise TokenizerError(
                f"expected a dict from attribute name to token, received {type(special_tokens_dict).__name__}; "
                'pass e.g. {"additional_special_tokens": ["<q>"]}'
            )
        # All is checked before anything changes.
        named: dict[str, AddedToken] = {}
        additional: list[AddedToken] | None = None
        to_add: list[AddedToken] = []
        for name, value in special_tokens_dict.items():
            if name not in (*self.SPECIAL_TOKENS_ATTRIBUTES, *self._special):
                raise TokenizerError(
                    f"expected a special-token attribute, received {name!r}; use one of {', '.join(self.SPECIAL_TOKENS_ATTRIBUTES)}"
                )
            if name != "additional_special_tokens":
                named[name] = _special_token(name, value)
                to_add.append(named[name])
                continue
            if not isinstance(value, list | tuple):
                raise TokenizerError(f"expected additional_special_tokens to be a list of tokens, received {value!r}")
            tokens = [AddedToken.of(token, special=True) for token in value]
            known = [] if replace_additional_special_tokens else self._additional
            additional = list({token.content: token for token in [*known, *tokens]}.values())
            to_add += tokens
        self._special |= named
        self._additional = self._additional if additional is None else additional
        return self.add_tokens(to_add, special_tokens=True)

    # -- special tokens around a text ----------------------------------------------------------------------------------

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """``<s> A </s>`` or ``<s> A </s></s> B </s>``."""
        cls, sep = [as_id(self.cls_token_id)], [as_id(self.sep_token_id)]
        if token_ids_1 is None:
            return cls + token_ids_0 + sep
        return cls + token_ids_0 + sep + sep + token_ids_1 + sep

    def get_special_tokens_mask(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """1 where a special token stands, or would stand once they are added; 0 elsewhere."""
        if already_has_special_tokens:
            if token_ids_1 is not None:
                raise TokenizerError(
                    "expected one list of ids that has its special tokens already, received a second one"
                )
            special = set(self.all_special_ids)
            return [int(index in special) for index in as_lists(token_ids_0)]
        mask = [1] + [0] * len(token_ids_0) + [1]
        return mask if token_ids_1 is None else mask + [1] + [0] * len(token_ids_1) + [1]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Zeros: XLM-R has one token type."""
        return [0] * (
            len(token_ids_0) + len(token_ids_1 or []) + self.num_special_tokens_to_add(token_ids_1 is not None)
        )

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many special tokens a text (2) or a pair (4) gets."""
        return 4 if pair else 2

    # -- as JSON -----------------------------------------------------------------------------------------------------

    def special_tokens_json(self) -> str:
        """The content of ``special_tokens_map.json``."""

        def form(token: AddedToken) -> Any:
            return token.content if token.is_plain else token.to_json(with_special=False)

        content: dict[str, Any] = {name: form(token) for name, token in self._special.items()}
        if self._additional:
            content["additional_special_tokens"] = [token.to_json(with_special=False) for token in self._additional]
        return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
