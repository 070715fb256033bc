"""A tokenizer's files: finding and reading those of every version of the original library, and writing ours."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from xlmr_core.adapters import ADAPTER_CONFIG, base_of
from xlmr_core.arguments import HUB_ARGUMENTS, NOT_NEEDED, ONLY, without_published
from xlmr_core.atomic_files import saving_to, write_all_atomically
from xlmr_core.bounded_files import is_there, refusing
from xlmr_core.errors import TokenizerError
from xlmr_core.hub import resolve
from xlmr_core.tokenization.checks import check_text, describe
from xlmr_core.tokenization.dictionary import DICTIONARY_FILE
from xlmr_core.tokenization.json_file import check_added, read_added_tokens, read_json
from xlmr_core.tokenization.special import DEFAULT_TOKENS, AddedToken

__all__ = ["ADDED_FILE", "CONFIG_FILE", "SPECIAL_FILE", "TOKENIZER_FILE", "VOCAB_FILE", "TokenizerFiles", "find_files"]

VOCAB_FILE = "sentencepiece.bpe.model"
TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
SPECIAL_FILE = "special_tokens_map.json"
ADDED_FILE = "added_tokens.json"
NO_VOCABULARY = "expected a vocabulary, received none; pass vocab_file= (.model) or tokenizer_file= (tokenizer.json)"
_IDS = 2**31  # more than any embedding has rows
_SOMETIMES_WRITTEN = (VOCAB_FILE, TOKENIZER_FILE, ADDED_FILE)

# Published arguments that choose a class elsewhere.
_TOKENIZER_NOT_NEEDED = (*NOT_NEEDED, "config", "tokenizer_type")
# What some versions write about the files themselves: written anew by us, or wrong once the files moved.
_BOOKKEEPING = (
    "tokenizer_class",
    "added_tokens_decoder",
    "name_or_path",
    "tokenizer_file",
    "vocab_file",
    "special_tokens_map_file",
    "tokenizer_object",
    "vocab",
)
# A tokenizer class in tokenizer_config.json that says nothing against XLM-R's ids.
_NEUTRAL_CLASSES = ("PreTrainedTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend", "SentencePieceBackend")


T = TypeVar("T")


@dataclass(frozen=True)
class TokenizerFiles:
    """The files of one folder: paths of the two that hold a vocabulary, contents of the others."""

    folder: str
    vocab_file: Path | None = None
    tokenizer_file: Path | None = None
    config: dict[str, Any] = field(default_factory=dict)
    special_tokens: dict[str, Any] = field(default_factory=dict)
    added_tokens: dict[str, int] = field(default_factory=dict)


def find_files(
    name_or_path: str | os.PathLike[str], arguments: Mapping[str, Any]
) -> tuple[TokenizerFiles, dict[str, Any]]:
    """A tokenizer's files, and the arguments of ``from_pretrained`` that do not say where to look for them.

    Raises:
        ModelNotFoundError: no such folder or name.
        TokenizerError: a folder without a vocabulary, or a damaged JSON file.
        InputError: a published argument whose value cannot be served.
    """
    where = {name: arguments[name] for name in HUB_ARGUMENTS if name in arguments}
    settings = without_published(arguments, ONLY, (*_TOKENIZER_NOT_NEEDED, *HUB_ARGUMENTS))
    path = Path(name_or_path)
    if path.is_file():
        kind = "tokenizer_file" if path.suffix == ".json" else "vocab_file"
        return TokenizerFiles(str(path), **{kind: path}), settings  # type: ignore[arg-type]
    wanted = (VOCAB_FILE, TOKENIZER_FILE, CONFIG_FILE, SPECIAL_FILE, ADDED_FILE, DICTIONARY_FILE, "config.json")
    patterns = (*wanted, "modules.json", *(f"0_Transformer/{name}" for name in wanted))
    folder = resolve(name_or_path, **where, patterns=patterns)
    if not any((folder / name).is_file() for name in (VOCAB_FILE, TOKENIZER_FILE)):
        # Imported now: few tokenizers are in a folder of sentence-transformers below the model's.
        from xlmr_core.formats.finding import transformer_folder

        folder = transformer_folder(folder)
    vocab_file, tokenizer_file = folder / VOCAB_FILE, folder / TOKENIZER_FILE
    if not (vocab_file.is_file() or tokenizer_file.is_file()) and is_there(folder / ADAPTER_CONFIG):
        # The base of an adapter is no adapter itself, so that this comes to an end.
        base, of_adapter = base_of(folder), ("revision", "subfolder")
        if Path(base) != folder:
            return find_files(base, {name: value for name, value in arguments.items() if name not in of_adapter})
    if not vocab_file.is_file() and not tokenizer_file.is_file():
        found = ", ".join(sorted(item.name for item in folder.iterdir())[:12]) or "nothing"
        raise TokenizerError(
            f"expected {TOKENIZER_FILE} or {VOCAB_FILE} in {folder}, found {found}; copy one of them there"
        )
    contents = TokenizerFiles(
        str(name_or_path),
        vocab_file if vocab_file.is_file() else None,
        tokenizer_file if tokenizer_file.is_file() else None,
        _read_json(folder / CONFIG_FILE),
        _read_json(folder / SPECIAL_FILE),
        _read_json(folder / ADDED_FILE),
    )
    return contents, settings


def init_arguments(files: TokenizerFiles, overrides: Mapping[str, Any], *, fast: bool) -> dict[str, Any]:
    """The constructor's arguments: the files' content, overridden by the caller's.

    Raises:
        TokenizerError: the class cannot be built from these files.
    """
    overrides = dict(overrides)
    use_json = fast and files.tokenizer_file is not None and not overrides.pop("from_slow", False)
    overrides.pop("from_slow", None)
    if not use_json:
        _check_class(files)
    arguments: dict[str, Any] = {key: value for key, value in files.config.items() if key not in _BOOKKEEPING}
    arguments["name_or_path"] = files.folder
    arguments["vocab_file"] = files.vocab_file
    if use_json or files.vocab_file is None:
        arguments["tokenizer_file"] = files.tokenizer_file
    added = _added_tokens(files)
    if added:
        arguments["added_tokens_decoder"] = added
    arguments.update(overrides)
    # The map counts in folders of version 3 only: later ones list all tokens in the config, and what is missing there
    # is not in the tokenizer.
    if not files.config.get("added_tokens_decoder"):
        arguments |= _mapped_tokens(files, overrides)
    flags = {token.content: token for token in added.values()}
    for name in DEFAULT_TOKENS:
        value = arguments.get(name)
        if isinstance(value, str) and value in flags:
            arguments[name] = flags[value]
        elif isinstance(value, Mapping):
            arguments[name] = AddedToken.of(value, special=True)
    mask_token = arguments.get("mask_token", DEFAULT_TOKENS["mask_token"])
    if not use_json and isinstance(mask_token, str):
        # Through from_pretrained the fast class gets the slow one's token; its constructor alone matches it in the
        # normalized text.
        arguments["mask_token"] = AddedToken(mask_token, lstrip=True, special=True)
    return arguments


def build(
    kind: type[T], inputs: tuple[Any, ...], files: TokenizerFiles, overrides: Mapping[str, Any], *, fast: bool
) -> T:
    """A tokenizer of a class from its files; arguments as of :func:`init_arguments`.

    Raises:
        TokenizerError: the files do not hold one.
    """
    with refusing(
        TokenizerError,
        f"expected a tokenizer in {files.folder}, received files that make none ({{why}}); correct {CONFIG_FILE} and "
        "the other settings there, or copy the files again",
    ):
        return kind(*inputs, **init_arguments(files, overrides, fast=fast))


def _mapped_tokens(files: TokenizerFiles, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What special_tokens_map.json says, where the caller did not say otherwise."""
    mapped = {
        name: token
        for name, token in files.special_tokens.items()
        if name in (*DEFAULT_TOKENS, "additional_special_tokens") and not overrides.get(name)
    }
    if mapped.get("additional_special_tokens"):
        listed = [*(files.config.get("additional_special_tokens") or []), *mapped["additional_special_tokens"]]
        mapped["additional_special_tokens"] = list({str(AddedToken.of(token)): token for token in listed}.values())
    return mapped


def _check_class(files: TokenizerFiles) -> None:
    """A sentencepiece model does not say how its pieces are numbered, so a class of another model does."""
    if files.vocab_file is None:
        return
    name = files.config.get("tokenizer_class")
    if isinstance(name, str) and not name.startswith("XLMRoberta") and name not in _NEUTRAL_CLASSES:
        raise TokenizerError(
            f"expected an XLM-R tokenizer in {files.folder}, but its {CONFIG_FILE} names {name}, which numbers the "
            "pieces differently; use that library, or correct tokenizer_class if the vocabulary is XLM-R's"
        )


def tokens_by_id(listed: Mapping[Any, Any]) -> dict[int, AddedToken]:
    """``added_tokens_decoder`` as it is given: ids may be texts, tokens their JSON form.

    Raises:
        TokenizerError: an id that is none, or something that is no token.
    """
    check_added(len(listed), "added_tokens_decoder")
    return {_added_id(index): AddedToken.of(token) for index, token in listed.items()}


def _added_id(index: Any) -> int:
    try:
        value = int(index)
    except (OverflowError, TypeError, ValueError):
        value = -1
    if not 0 <= value < _IDS:
        raise TokenizerError(
            f"expected ids from 0 to {_IDS - 1} for added tokens, received {describe(index)}; correct "
            "added_tokens_decoder"
        )
    return value


def _added_tokens(files: TokenizerFiles) -> dict[int, AddedToken]:
    """Id to token, from the first place that lists them: config (4.34 and later), tokenizer.json, added_tokens.json."""
    with refusing(
        TokenizerError,
        f"expected lists of added tokens in the files of {files.folder}, received something else: {{why}}; copy the "
        "files again",
    ):
        listed = files.config.get("added_tokens_decoder")
        if listed:
            return tokens_by_id(listed)
        tokens: dict[int, AddedToken] = {}
        if files.tokenizer_file is not None:
            tokens.update(
                (_added_id(item["id"]), AddedToken.of(item)) for item in read_added_tokens(files.tokenizer_file)
            )
        special = {str(AddedToken.of(token)) for name, token in files.special_tokens.items() if name in DEFAULT_TOKENS}
        special |= {str(AddedToken.of(token)) for token in files.special_tokens.get("additional_special_tokens", [])}
        check_added(len(files.added_tokens), ADDED_FILE)
        for content, index in files.added_tokens.items():
            # <mask> has flags of its own, which this oldest format did not keep.
            if content != DEFAULT_TOKENS["mask_token"]:
                tokens.setdefault(_added_id(index), AddedToken(content, special=content in special))
        return tokens


def _read_json(path: Path) -> dict[str, Any]:
    if not is_there(path):
        return {}
    content = read_json(path)
    if not isinstance(content, dict):
        raise TokenizerError(f"expected a JSON object in {path}, received {type(content).__name__}")
    return content


def make_folder(directory: str | os.PathLike[str]) -> Path:
    """The folder to save into, made if it does not exist.

    Raises:
        TokenizerError: if it is a file.
        CheckpointError: if the system refuses.
    """
    folder = Path(directory)
    if folder.is_file():
        raise TokenizerError(f"expected a folder to save into, received the file {folder}; pass a folder")
    with saving_to(folder, "a tokenizer"):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def replace_files(folder: Path, contents: Mapping[str, str | bytes], prefix: str | None) -> tuple[str, ...]:
    """Write every file of a tokenizer, and remove those of an earlier save that would be read with them: all or none;
    returns their paths.
    """
    old = [name for name in _SOMETIMES_WRITTEN if name not in contents]
    return write_files(folder, contents, prefix, remove=old)


def write_files(
    folder: Path, contents: Mapping[str, str | bytes], prefix: str | None, remove: Iterable[str] = ()
) -> tuple[str, ...]:
    """Write files by name and remove others, all or none; returns the paths of those that are there then.

    Raises:
        CheckpointError: if the system refuses; what was there before is then intact.
    """
    written = {
        _named(name, prefix): content.encode() if isinstance(content, str) else content
        for name, content in contents.items()
    }
    write_all_atomically(folder, written, [_named(name, prefix) for name in remove])
    return tuple(str(folder / name) for name in written)


def _named(name: str, prefix: str | None) -> str:
    return f"{prefix}-{name}" if prefix else name


def dump(content: Mapping[str, Any]) -> str:
    """A JSON file's text.

    Raises:
        TokenizerError: a value that JSON does not know.
    """
    try:
        text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        check_text(text)
        return text
    except (RecursionError, TypeError) as error:
        raise TokenizerError(f"expected settings that JSON can hold, received one that it cannot: {error}") from error
