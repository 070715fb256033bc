"""Special and added tokens: the token type, and the tokens that a tokenizer knows by names such as ``mask_token``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, overload

from xlmr_core.errors import TokenizerError
from xlmr_core.tokenization.checks import check_text, describe
from xlmr_core.wording import shown

__all__ = ["DEFAULT_TOKENS", "AddedToken", "SpecialTokens", "TokenId", "TokenText"]

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


@dataclass(frozen=True, eq=False)
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
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool | None = None
    special: bool = False

    def __post_init__(self) -> None:
        content = self.content
        if not isinstance(content, str):
            raise TokenizerError(f"expected the text of a token, received {describe(content)}; pass a str")
        check_text(content)
        normalized = not self.special if self.normalized is None else self.normalized
        flags = {**{name: getattr(self, name) for name in _FLAGS}, "normalized": normalized, "special": self.special}
        for name, value in flags.items():
            object.__setattr__(self, name, bool(value))

    def __str__(self) -> str:
        return self.content

    def __eq__(self, other: object) -> bool:
        """Equal to any token of the same text and flags, one of the tokenizers library too."""
        names = ("content", *_FLAGS, "special")
        return all(getattr(self, name) == getattr(other, name, other) for name in names)

    def __hash__(self) -> int:
        return hash(self.content)

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
        raise TokenizerError(f"expected a token (str or AddedToken), received {describe(token)}")

    def to_json(self, with_special: bool = True) -> dict[str, Any]:
        """The form that ``tokenizer_config.json`` (with ``special``) and ``special_tokens_map.json`` (without) hold."""
        return {name: value for name, value in vars(self).items() if with_special or name != "special"}

    @property
    def is_plain(self) -> bool:
        """Whether the text alone says everything (no stripping, not matched in normalized text)."""
        return not (self.single_word or self.lstrip or self.rstrip or self.normalized)


class SpecialTokens:
    """The special tokens of a tokenizer: those with a name, and additional ones without.

    Args:
        named: attribute name to token (str, AddedToken, its JSON form); None: there is no such token.
        additional: tokens without a name.
        extra: more tokens with names of their own, or, as newer files spell it, more of ``additional``.
        own: more tokens with names of their own.
    """

    def __init__(
        self, named: Mapping[str, Any], additional: Iterable[Any] | None, extra: Any, own: Mapping[str, Any]
    ) -> None:
        own = {**extra, **own} if isinstance(extra, Mapping) else own
        listed = [] if isinstance(extra, Mapping) else extra or []
        self.named: dict[str, AddedToken] = {}
        for name, token in [*named.items(), *own.items()]:
            self.set(name, token)
        self.own_names = list(own)
        self.set_additional([*(additional or []), *listed])

    def set(self, name: str, token: Any) -> None:
        """Give a name to another token, or with None to no token."""
        if token is None:
            self.named.pop(name, None)
        else:
            self.named[name] = _named_token(name, token)

    def set_additional(self, tokens: Iterable[Any] | None) -> None:
        """Replace the tokens that have no name."""
        self.additional = [AddedToken.of(token, special=True) for token in tokens or []]

    def update(self, tokens: Any, replace_additional: bool, attributes: Sequence[str]) -> list[AddedToken]:
        """Set tokens by attribute name; nothing changes where one of them is refused.

        Args:
            tokens: attribute name to token, ``additional_special_tokens`` to a list of them.
            replace_additional: replace the tokens without a name, or add to them.
            attributes: the names that there are beside those with a token.

        Returns:
            the tokens that were given.

        Raises:
            TokenizerError: a key that is no special-token attribute, or a value that is no token.
        """
        if not isinstance(tokens, Mapping):
            raise TokenizerError(
                f"expected a dict from attribute name to token, received {type(tokens).__name__}; "
                'pass e.g. {"additional_special_tokens": ["<q>"]}'
            )
        named: dict[str, AddedToken] = {}
        additional = self.additional
        given: list[AddedToken] = []
        for name, value in tokens.items():
            if name == "extra_special_tokens":  # version 5's name of them
                name = "additional_special_tokens"
            if name not in (*attributes, *self.named):
                raise TokenizerError(
                    f"expected a special-token attribute, received {shown(name)}; use one of {', '.join(attributes)}"
                )
            if name != "additional_special_tokens":
                named[name] = _named_token(name, value)
                given.append(named[name])
                continue
            if not isinstance(value, list | tuple):
                raise TokenizerError(
                    f"expected additional_special_tokens to be a list of tokens, received {shown(value)}"
                )
            listed = [AddedToken.of(token, special=True) for token in value]
            known = [] if replace_additional else self.additional
            additional = list({token.content: token for token in [*known, *listed]}.values())
            given += listed
        self.named |= named
        self.additional = additional
        return given

    def all(self) -> list[AddedToken]:
        """Every token once, in the order of the attributes."""
        found: dict[str, AddedToken] = {}
        for token in [*self.named.values(), *self.additional]:
            found.setdefault(token.content, token)
        return list(found.values())

    def to_json(self) -> str:
        """The content of ``special_tokens_map.json``."""

        def form(token: AddedToken) -> Any:
            return token.content if token.is_plain else token.to_json(with_special=False)

        content: dict[str, Any] = {name: form(token) for name, token in self.named.items()}
        if self.additional:
            content["additional_special_tokens"] = [token.to_json(with_special=False) for token in self.additional]
        return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _named_token(name: str, value: Any) -> AddedToken:
    if not isinstance(value, str | Mapping) and not hasattr(value, "content"):
        raise TokenizerError(f"expected {name} to be a str or an AddedToken, received {describe(value)}")
    return AddedToken.of(value, special=True)


class TokenText:
    """``tokenizer.mask_token``: a str or None; assignment takes a str, an AddedToken or None."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, tokenizer: None, owner: type) -> Self: ...
    @overload
    def __get__(self, tokenizer: object, owner: type) -> str | None: ...
    def __get__(self, tokenizer: Any, owner: type) -> Self | str | None:
        if tokenizer is None:
            return self
        token = tokenizer._special.named.get(self.name)
        return None if token is None else token.content

    def __set__(self, tokenizer: Any, value: Any) -> None:
        tokenizer._special.set(self.name, value)


class TokenId:
    """``tokenizer.mask_token_id``: the id of that token or None; assignment names the token by its id."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name.removesuffix("_id")

    @overload
    def __get__(self, tokenizer: None, owner: type) -> Self: ...
    @overload
    def __get__(self, tokenizer: object, owner: type) -> int | None: ...
    def __get__(self, tokenizer: Any, owner: type) -> Self | int | None:
        if tokenizer is None:
            return self
        token = tokenizer._special.named.get(self.name)
        return None if token is None else tokenizer._token_id(token.content)

    def __set__(self, tokenizer: Any, value: int | None) -> None:
        tokenizer._special.set(self.name, None if value is None else tokenizer._id_token(value))
