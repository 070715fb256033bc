"""What the configurations of all models share: labels, dtype, unknown keys, reading and writing ``config.json``."""

from __future__ import annotations

import copy
import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, Self, TypeVar, overload

from xlmr_core.arguments import (
    ALIASES,
    HUB_ARGUMENTS,
    UNREAD,
    known_names,
    misspelt_keys,
    refuse_unknown,
    suggestion,
    without_published,
)
from xlmr_core.atomic_files import saving_to, write_atomically
from xlmr_core.bounded_files import read_json, why
from xlmr_core.config_checks import ACTIVATIONS, MOST_KEYS, MOST_LABELS, check_labels, label_map, pruned_head_map
from xlmr_core.errors import CheckpointError, ConfigError, ConfigWarning, warn_caller
from xlmr_core.hub import resolve
from xlmr_core.uploads import PushToHub, upload_after
from xlmr_core.wording import an, counted, shown

__all__ = ["SHARED_DEFAULTS", "PretrainedConfig", "check_name", "dtype_name", "read_config_json"]

# Keys every configuration has beside the model's own numbers. They are written to config.json only where they differ
# from these.
SHARED_DEFAULTS: dict[str, Any] = {
    "architectures": None,
    "dtype": None,
    "return_dict": True,
    "output_hidden_states": False,
    "output_attentions": False,
    "is_decoder": False,
    "add_cross_attention": False,
    "is_encoder_decoder": False,
    "tie_word_embeddings": True,
    "chunk_size_feed_forward": 0,
    "pruned_heads": {},
    "problem_type": None,
    "finetuning_task": None,
    "tokenizer_class": None,
    "sep_token_id": None,
    "decoder_start_token_id": None,
    "task_specific_params": None,
}

# The three names under which labels come.
LABELS = frozenset({"num_labels", "id2label", "label2id"})

ConfigT = TypeVar("ConfigT", bound="PretrainedConfig")


class PretrainedConfig(PushToHub):
    """Base of the model configurations; the values of a model come with its own class."""

    model_type: str = ""
    # Published, and empty for a model that is one encoder: its parts, and other names of its values.
    base_config_key: ClassVar[str] = ""
    sub_configs: ClassVar[dict[str, Any]] = {}
    attribute_map: ClassVar[dict[str, str]] = {}
    has_no_defaults_at_init: ClassVar[bool] = False

    def __new__(cls, /, *args: Any, **kwargs: Any) -> Self:
        """Warn of keys that are probably misspelt: only here all that was given is seen together."""
        if args and isinstance(args[0], str | os.PathLike):
            raise ConfigError(
                f"{cls.__name__} expects numbers, received the name {str(args[0])!r}; to read what it names, use "
                f"{cls.__name__}.from_pretrained({str(args[0])!r})"
            )
        given = {*kwargs, *_positional_names(cls.__init__)[: len(args)]}
        misspelt = misspelt_keys(given, _argument_names(cls.__mro__)) if kwargs else {}
        if misspelt:
            keys, meant = ", ".join(map(repr, misspelt)), " and ".join(map(repr, dict.fromkeys(misspelt.values())))
            warn_caller(f"{cls.__name__} reads no {keys} and keeps it as it is; did you mean {meant}?", ConfigWarning)
        return super().__new__(cls)

    def __init__(self, /, **kwargs: Any) -> None:
        kwargs = copy.deepcopy(kwargs)  # the caller's own dictionaries stay as they are
        self.name_or_path = kwargs.pop("name_or_path", kwargs.pop("_name_or_path", ""))
        self._attn_implementation = kwargs.pop("attn_implementation", kwargs.pop("_attn_implementation", None))
        torch_dtype = kwargs.pop("torch_dtype", None)
        dtype = kwargs.pop("dtype", None)
        self.dtype = dtype_name(torch_dtype if dtype is None else dtype)
        for key, default in SHARED_DEFAULTS.items():
            if key != "dtype":
                setattr(self, key, kwargs.pop(key, copy.deepcopy(default)))
        self.pruned_heads = pruned_head_map(self.pruned_heads)
        self._set_labels(
            kwargs.pop("num_labels", kwargs.pop("_num_labels", None)),
            kwargs.pop("id2label", None),
            kwargs.pop("label2id", None),
        )
        self._set_aside = {}
        for key, value in kwargs.items():
            self._keep(key, value)

    def _set_labels(self, num_labels: Any, id2label: Any, label2id: Any) -> None:
        check_labels(id2label, label2id)
        if id2label is not None:
            id2label = label_map(id2label.items(), "id2label")
        elif label2id is not None and num_labels in (None, len(label2id)):
            id2label = label_map(((index, label) for label, index in label2id.items()), "label2id")
        if id2label is None:
            self.num_labels = 2 if num_labels is None else num_labels
            return
        if num_labels not in (None, len(id2label)):
            raise ConfigError(
                f"num_labels={num_labels} disagrees with id2label of {counted(len(id2label), 'label')}; pass one of "
                "them"
            )
        self.id2label = id2label
        self.label2id = dict(label2id) if label2id else _inverse(id2label)

    def __setattr__(self, name: str, value: Any) -> None:
        # A number computed with NumPy, such as labels.max() + 1, is kept as Python's, which can be written to a file.
        if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
            value = value.item()
        if name == "id2label" and isinstance(value, Mapping):
            self._name_labels(label_map(value.items(), name))
        else:
            super().__setattr__(name, value)

    def _name_labels(self, id2label: dict[int, Any]) -> None:
        """Set the labels by their ids, and the ids by their labels with them, where the two said the same before."""
        known = vars(self)
        same = known.get("label2id") == _inverse(known.get("id2label", {}))
        super().__setattr__("id2label", id2label)
        if same:
            self.label2id = _inverse(id2label)

    if not TYPE_CHECKING:  # for a type checker there is no other attribute

        def __getattr__(self, name: str) -> Any:
            """A published value that nothing here reads is there all the same, as where no file says another."""
            if name in UNREAD:
                return UNREAD[name]
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def _keep(self, key: str, value: Any) -> None:
        """Keep an unknown value: as an attribute, unless that would hide something of the class or of the instance."""
        if hasattr(type(self), key) or key in vars(self):
            self._set_aside[key] = value
        else:
            setattr(self, key, value)

    # What every instance has; set by the constructor from the table above, declared here for type checkers and readers.
    architectures: list[str] | None
    dtype: str | None
    return_dict: bool
    output_hidden_states: bool
    output_attentions: bool
    is_decoder: bool
    add_cross_attention: bool
    tie_word_embeddings: bool
    chunk_size_feed_forward: int
    pruned_heads: dict[int, list[int]]
    problem_type: str | None
    id2label: dict[int, str]
    label2id: dict[str, int]
    hidden_act: str | Callable[..., Any]  # set by the model's own class; the one value that may be no plain data
    _name_or_path: str  # under its published name, by which other libraries read it
    # How models built from this configuration attend, under its published name; None leaves it to them. No part of a
    # file.
    _attn_implementation: str | None
    # Unknown values that have the name of a method or the like: no attributes, but written back.
    _set_aside: dict[str, Any]

    # Derived values

    @property
    def num_labels(self) -> int:
        """Number of labels; setting it to another number renames the labels ``LABEL_0``, ``LABEL_1``, ..."""
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, num_labels: int) -> None:
        if isinstance(num_labels, bool) or not isinstance(num_labels, int) or num_labels < 1:
            raise ConfigError(f"num_labels must be a positive integer, received {shown(num_labels)}")
        if num_labels > MOST_LABELS:
            raise ConfigError(f"num_labels must be at most {MOST_LABELS}, received {shown(num_labels)}")
        if len(getattr(self, "id2label", {})) != num_labels:
            self.id2label = {index: f"LABEL_{index}" for index in range(num_labels)}
            self.label2id = _inverse(self.id2label)

    @property
    def use_return_dict(self) -> bool:
        """Whether models return an output object (and not a tuple) by default."""
        return bool(self.return_dict) and not getattr(self, "torchscript", False)

    @property
    def name_or_path(self) -> str:
        """What ``AutoConfig.from_pretrained``, or a model's ``from_pretrained``, was asked for."""
        return self._name_or_path

    @name_or_path.setter
    def name_or_path(self, value: Any) -> None:
        self._name_or_path = str(value or "")

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> Self:
        """The configuration of the part that reads text, which is all of it."""
        return self

    @property
    def torch_dtype(self) -> str | None:
        """The older name of ``dtype``."""
        return self.dtype

    @torch_dtype.setter
    def torch_dtype(self, dtype: Any) -> None:
        self.dtype = dtype_name(dtype)

    # Checks

    def validate(self) -> None:
        """Refuse values that no model can be built from. Models call it again, because attributes may have been set
        since.

        Raises:
            ConfigError: for the first such value.
        """
        check_labels(self.id2label, self.label2id)

    # Reading and writing

    @overload
    @classmethod
    def from_dict(
        cls: type[ConfigT], config_dict: Mapping[str, Any], *, return_unused_kwargs: Literal[True], **kwargs: Any
    ) -> tuple[ConfigT, dict[str, Any]]: ...

    @overload
    @classmethod
    def from_dict(cls: type[ConfigT], config_dict: Mapping[str, Any], **kwargs: Any) -> ConfigT: ...

    @classmethod
    def from_dict(cls: type[ConfigT], config_dict: Mapping[str, Any], **kwargs: Any) -> Any:
        """Build a configuration from the content of a ``config.json``.

        Args:
            config_dict: the content; unknown keys are kept.
            **kwargs: values that win over it. With ``return_unused_kwargs=True`` the answer is ``(config, unused)``,
                where ``unused`` are the arguments that name no value of the class or of ``config_dict``, and the dtype.

        Raises:
            ConfigError: for another architecture, or for values that no model can be built from.
            TypeError: for arguments that name no value, unless ``return_unused_kwargs=True``.
        """
        if not isinstance(config_dict, Mapping):
            raise ConfigError(
                f"{cls.__name__}.from_dict() expects a dictionary, received {an(type(config_dict).__name__)}; "
                "read a file or a name with from_pretrained(...)"
            )
        return_unused = kwargs.pop("return_unused_kwargs", False)
        known = cls._known_names() | _argument_names(cls.__mro__) | set(config_dict)
        unused = {key: value for key, value in kwargs.items() if key not in known}
        if not return_unused:
            refuse_unknown(unused, known, cls.__name__)
        config = cls(**_merged(config_dict, {key: value for key, value in kwargs.items() if key in known}))
        config.validate()
        if return_unused:
            # As published, the dtype comes back too: it is an argument of a model's from_pretrained as well.
            asked = [kwargs[key] for key in ("dtype", "torch_dtype") if kwargs.get(key) is not None]
            return config, {**unused, **({"dtype": asked[0]} if asked else {})}
        return config

    @classmethod
    def _known_names(cls) -> set[str]:
        """The names under which configurations of this class take values."""
        return known_names(cls())

    @classmethod
    def from_json_file(cls: type[ConfigT], json_file: str | os.PathLike[str], **overrides: Any) -> ConfigT:
        """Read a ``config.json``; ``overrides`` win over its values.

        Raises:
            CheckpointError: if the file is missing or is not a JSON object.
        """
        config: ConfigT = cls.from_dict(read_config_json(json_file), **overrides)
        return config

    @overload
    @classmethod
    def from_pretrained(
        cls: type[ConfigT],
        pretrained_model_name_or_path: str | os.PathLike[str],
        cache_dir: str | os.PathLike[str] | None = ...,
        force_download: bool = ...,
        local_files_only: bool = ...,
        token: str | bool | None = ...,
        revision: str = ...,
        *,
        return_unused_kwargs: Literal[True],
        **kwargs: Any,
    ) -> tuple[ConfigT, dict[str, Any]]: ...

    @overload
    @classmethod
    def from_pretrained(
        cls: type[ConfigT],
        pretrained_model_name_or_path: str | os.PathLike[str],
        cache_dir: str | os.PathLike[str] | None = ...,
        force_download: bool = ...,
        local_files_only: bool = ...,
        token: str | bool | None = ...,
        revision: str = ...,
        **kwargs: Any,
    ) -> ConfigT: ...

    @classmethod
    def from_pretrained(
        cls: type[ConfigT],
        pretrained_model_name_or_path: str | os.PathLike[str],
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        revision: str = "main",
        **kwargs: Any,
    ) -> Any:
        """Load the configuration of a folder, a ``config.json``, a built-in name or a name on the hub.

        Args:
            pretrained_model_name_or_path: what to load.
            cache_dir, force_download, local_files_only, token, revision: see :func:`xlmr_core.hub.resolve`.
            **kwargs: ``subfolder`` as there; everything else as in :meth:`from_dict`: values that win over those of the
                file, and ``return_unused_kwargs``.

        Raises:
            ModelNotFoundError: if there is no such folder or name.
            CheckpointError: if ``config.json`` is missing or is not a JSON object.
            ConfigError: for another architecture, or for values that no model can be built from.
            InputError: for a published argument whose value cannot be served.
            TypeError: for arguments that name no value, unless ``return_unused_kwargs=True``.
        """
        values, overrides = cls.get_config_dict(
            pretrained_model_name_or_path,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            revision=revision,
            **kwargs,
        )
        return cls.from_dict(values, **overrides)

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The content of a checkpoint's ``config.json``, and the keyword arguments that are not about finding it."""
        where = {key: kwargs.pop(key) for key in HUB_ARGUMENTS if key in kwargs}
        kwargs = without_published(kwargs)
        check_name(pretrained_model_name_or_path, f"{cls.__name__}.from_pretrained()")
        path = Path(pretrained_model_name_or_path)
        if not path.is_file():
            path = resolve(pretrained_model_name_or_path, patterns=("config.json",), **where) / "config.json"
        return read_config_json(path), kwargs

    def to_dict(self) -> dict[str, Any]:
        """Every value as plain Python, ready for ``from_dict``."""
        values = copy.deepcopy({**vars(self), **self._set_aside})
        if "_set_aside" not in self._set_aside:
            del values["_set_aside"]
        del values["_attn_implementation"]
        values["model_type"] = self.model_type
        values["dtype"] = dtype_name(self.dtype)
        return dict(sorted(values.items()))

    def to_diff_dict(self) -> dict[str, Any]:
        """The content of ``config.json``: the model's numbers, and what differs from the shared defaults."""
        values = self.to_dict()
        values.pop("_name_or_path")
        if self.id2label == {0: "LABEL_0", 1: "LABEL_1"} and self.label2id == {"LABEL_0": 0, "LABEL_1": 1}:
            del values["id2label"], values["label2id"]
        return {
            key: value for key, value in values.items() if key not in SHARED_DEFAULTS or value != SHARED_DEFAULTS[key]
        }

    def to_json_string(self, use_diff: bool = True) -> str:
        """The content of ``config.json`` as text.

        Raises:
            ConfigError: if a value cannot be written, such as a callable ``hidden_act``.
        """
        values = self.to_diff_dict() if use_diff else self.to_dict()
        if callable(values.get("hidden_act")):
            raise ConfigError(
                f"hidden_act is the callable {shown(values['hidden_act'])}, which config.json cannot hold; "
                f"set config.hidden_act to one of {', '.join(ACTIVATIONS)} before saving"
            )
        try:
            return json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        except TypeError as error:
            raise ConfigError(
                f"a config value cannot be written as JSON: {error}; remove it or make it plain"
            ) from error

    def to_json_file(self, json_file_path: str | os.PathLike[str], use_diff: bool = True) -> None:
        """Write ``config.json`` to a file, all or nothing.

        Args:
            json_file_path: the file.
            use_diff: leave out the shared values that are at their defaults.

        Raises:
            ConfigError: if a value cannot be written, such as a callable ``hidden_act``.
            CheckpointError: if the system refuses.
        """
        write_atomically(Path(json_file_path), self.to_json_string(use_diff).encode())

    def save_pretrained(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any) -> None:
        """Write ``config.json`` into a folder, which is made if it is missing.

        Args:
            save_directory: the folder.
            push_to_hub: upload it afterwards.
            **kwargs: of the upload, as in :meth:`push_to_hub`; ``repo_id`` is by default the folder's name.

        Raises:
            ConfigError: if a value cannot be written, such as a callable ``hidden_act``.
            CheckpointError: if ``save_directory`` is a file, or the system refuses.
            UploadError, MissingBackendError: if it cannot be uploaded.
            TypeError: for an argument that is not known.
        """
        folder = Path(save_directory)
        with upload_after(self, folder, push_to_hub, kwargs):
            text = self.to_json_string()
            if folder.is_file():
                raise CheckpointError(f"save_pretrained expects a folder, received the file {folder}; name a folder")
            with saving_to(folder, "config.json"):
                folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / "config.json", text.encode())

    def update(self, config_dict: Mapping[str, Any]) -> None:
        """Set several values at once, checked together."""
        for key, value in config_dict.items():
            there = getattr(type(self), key, None)
            if key in vars(self) or isinstance(there, str) or (isinstance(there, property) and there.fset):
                setattr(self, key, value)
            else:
                self._keep(key, value)
        self.validate()

    def update_from_string(self, update_str: str) -> None:
        """Set several values at once, from a text such as ``num_hidden_layers=2,hidden_act=relu,use_cache=false``.

        Raises:
            ConfigError: for a name that there is not, a value of another type than the one it replaces, or values that
                no model can be built from.
        """
        there = self.to_dict()
        values: dict[str, Any] = {}
        for pair in update_str.split(","):
            key, equals, text = (part.strip() for part in pair.partition("="))
            if not equals or key not in there:
                hint = suggestion(key, there) if equals else "write key=value, separated by commas"
                raise ConfigError(
                    f"update_from_string expects values of this configuration, received {shown(pair)}; {hint}"
                )
            values[key] = _read_as(there[key], text, key)
        self.update(values)

    @classmethod
    def register_for_auto_class(cls, auto_class: str | type = "AutoConfig") -> NoReturn:
        """Refused: no code is saved with a checkpoint, nor run from one; ``AutoConfig.register`` makes a class known.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"no code is saved with a checkpoint, received register_for_auto_class() of {cls.__name__}; where the "
            f"class is imported, call AutoConfig.register({cls.model_type!r}, {cls.__name__})"
        )

    def copy(self: ConfigT, **overrides: Any) -> ConfigT:
        """A copy with some values replaced; the original stays as it is.

        Raises:
            ConfigError: for values that no model can be built from.
            TypeError: for arguments that name no value.
        """
        overrides.setdefault("attn_implementation", self._attn_implementation)
        copied: ConfigT = type(self).from_dict(self.to_dict(), **overrides)
        return copied

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PretrainedConfig) or type(self) is not type(other):
            return False
        # Where a configuration came from is no part of it.
        return {**self.to_dict(), "_name_or_path": None} == {**other.to_dict(), "_name_or_path": None}

    def __iter__(self) -> Iterator[str]:
        """The names of the values, so that ``name in config`` says whether there is one."""
        return iter(self.to_dict())

    __hash__ = None  # type: ignore[assignment]  # mutable, as published scripts expect

    def __repr__(self) -> str:
        values = {key: repr(value) if callable(value) else value for key, value in self.to_diff_dict().items()}
        return f"{type(self).__name__} {json.dumps(values, indent=2, default=str, ensure_ascii=False)}"


def dtype_name(dtype: Any) -> str | None:
    """The plain name of a dtype: a framework's own object carries it as a name, or prints as ``torch.float16``."""
    if dtype is None:
        return None
    return str(getattr(dtype, "name", None) or getattr(dtype, "__name__", dtype)).removeprefix("torch.")


def check_name(name_or_path: object, caller: str) -> None:
    """Refuse what is no name, folder or file, where ``from_pretrained`` expects one.

    Args:
        name_or_path: what was passed.
        caller: what to call the place in the message.

    Raises:
        ConfigError: if it is a configuration or anything else.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        what = an(type(name_or_path).__name__)
        remedy = (
            "pass it as config=, or build a model of it with the class itself, or with from_config"
            if isinstance(name_or_path, PretrainedConfig)
            else "pass the folder or the name of a model"
        )
        raise ConfigError(f"{caller} expects a name or folder, received {what}; {remedy}")


@functools.cache
def _positional_names(constructor: Callable[..., None]) -> tuple[str, ...]:
    """The names of what the constructor of a class takes by position."""
    code = getattr(constructor, "__code__", None)
    return () if code is None else code.co_varnames[1 : code.co_argcount]


@functools.cache
def _argument_names(classes: tuple[type, ...]) -> frozenset[str]:
    """The names of what a configuration class, given with its bases, reads: the arguments of its constructors, and what
    all have.
    """
    names = {*SHARED_DEFAULTS, "id2label", "label2id", *ALIASES}
    for part in classes:
        code = getattr(vars(part).get("__init__"), "__code__", None)
        if code is not None:
            names.update(code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount])
    return frozenset(names)


def _inverse(id2label: Mapping[int, Any]) -> dict[Any, int]:
    """The ids of the labels, by their names."""
    return {label: index for index, label in id2label.items()}


def _read_as(old: Any, text: str, key: str) -> Any:
    """A text as a value of the type of the one that it replaces."""
    words = {**dict.fromkeys(("true", "1", "y", "yes"), True), **dict.fromkeys(("false", "0", "n", "no"), False)}
    try:
        if isinstance(old, bool):
            return words[text.lower()]
        if isinstance(old, int | float | str):
            return type(old)(text)
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"{key} must be {an(type(old).__name__)}, received {shown(text)}; it is {shown(old)} now"
        ) from error
    raise ConfigError(f"{key} is {shown(old)} and no number, word or truth value; set it as an attribute")


def _merged(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A file's values under those that were passed; of several names of labels and dtype only the winner's stay."""
    merged = dict(values)
    # None asks for nothing: scripts pass the labels that they may not have.
    overrides = {key: value for key, value in overrides.items() if value is not None or key not in LABELS}
    labels = merged.get("id2label")
    # A file's labels count for more than a number that older versions left beside them.
    if labels or not LABELS.isdisjoint(overrides):
        merged.pop("num_labels", None)
        merged.pop("_num_labels", None)
    same_size = isinstance(labels, Mapping) and overrides.get("num_labels") == len(labels)
    if "id2label" in overrides or "label2id" in overrides or ("num_labels" in overrides and not same_size):
        merged.pop("id2label", None)
        merged.pop("label2id", None)
    if "torch_dtype" in overrides:
        merged.pop("dtype", None)
    return {**merged, **overrides}


def read_config_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON object from ``path``.

    Raises:
        CheckpointError: if the file is missing, is not UTF-8 JSON, or is not an object.
    """
    try:
        values = read_json(path)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"expected a config.json at {path}, found none; check the folder, or save the config there"
        ) from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {why(error)}; check the file and its permissions") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON ({why(error)}); fetch or save it again") from error
    if not isinstance(values, dict):
        raise CheckpointError(
            f"{path} must hold a JSON object, it holds {type(values).__name__}; fetch or save it again"
        )
    if len(values) > MOST_KEYS:
        raise CheckpointError(
            f"expected at most {MOST_KEYS} keys in {path}, received {len(values)}; it is no configuration of a model"
        )
    return values
