"""``GenerationConfig``: the options of generation, in and out of ``generation_config.json``."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from xlmr_core.arguments import HUB_ARGUMENTS, misspelt_keys, refuse_unknown, without_published
from xlmr_core.atomic_files import saving_to, write_atomically
from xlmr_core.config_base import check_name, read_config_json
from xlmr_core.errors import CheckpointError, ConfigError, ConfigWarning, InputError, warn_caller
from xlmr_core.generation.options import OPTIONS, SAMPLING_ONLY, as_plain
from xlmr_core.hub import resolve
from xlmr_core.uploads import PushToHub, upload_after
from xlmr_core.wording import an, shown

__all__ = ["GENERATION_CONFIG_NAME", "GenerationConfig", "read_generation_config", "taken"]

GENERATION_CONFIG_NAME = "generation_config.json"


class GenerationConfig(PushToHub):
    """The options of generation under their published names; what each may be stands in ``options.py``.

    One is our own: ``position_numbering`` says how positions are counted: ``"model"`` (tokens that are not padding,
    from ``pad_token_id + 1``, as in every forward pass) or ``"zero_based"`` (as the original library's generation).

    Args:
        **kwargs: options; names that are not known are kept and written back.

    Raises:
        ConfigError: for a value that no generation can be made with.
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs = copy.deepcopy(kwargs)
        self._from_model_config = bool(kwargs.pop("_from_model_config", False))
        misspelt = misspelt_keys(kwargs, OPTIONS) if kwargs else {}
        if misspelt:
            keys, meant = ", ".join(map(repr, misspelt)), " and ".join(map(repr, dict.fromkeys(misspelt.values())))
            warn_caller(f"GenerationConfig reads no {keys} and keeps it as it is; did you mean {meant}?", ConfigWarning)
        self._set_aside = {}
        for name, option in OPTIONS.items():
            setattr(self, name, kwargs.pop(name, copy.deepcopy(option.default)))
        for name, value in kwargs.items():
            if hasattr(type(self), name) or name in vars(self) or not isinstance(name, str):
                self._set_aside[name] = value  # it has the name of a method
            else:
                setattr(self, name, value)
        self.validate()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, as_plain(value))

    # What every instance has; set by the constructor from the table, declared here for type checkers and readers.
    if TYPE_CHECKING:
        max_length: int | None
        max_new_tokens: int | None
        min_length: int | None
        min_new_tokens: int | None
        early_stopping: bool | Literal["never"]
        max_time: float | None
        stop_strings: str | list[str] | None
        do_sample: bool
        num_beams: int
        num_beam_groups: int
        use_cache: bool
        cache_implementation: str | None
        temperature: float | None
        top_k: int | None
        top_p: float | None
        min_p: float | None
        typical_p: float | None
        epsilon_cutoff: float | None
        eta_cutoff: float | None
        diversity_penalty: float
        repetition_penalty: float | None
        encoder_repetition_penalty: float | None
        length_penalty: float
        no_repeat_ngram_size: int | None
        encoder_no_repeat_ngram_size: int | None
        bad_words_ids: list[list[int]] | None
        renormalize_logits: bool
        forced_bos_token_id: int | None
        forced_eos_token_id: int | list[int] | None
        remove_invalid_values: bool
        exponential_decay_length_penalty: tuple[int, float] | None
        suppress_tokens: list[int] | None
        begin_suppress_tokens: list[int] | None
        sequence_bias: Any
        num_return_sequences: int
        output_attentions: bool
        output_hidden_states: bool
        output_scores: bool
        output_logits: bool | None
        return_dict_in_generate: bool
        pad_token_id: int | None
        bos_token_id: int | None
        eos_token_id: int | list[int] | None
        decoder_start_token_id: int | list[int] | None
        position_numbering: Literal["model", "zero_based"]
        _from_model_config: bool
        _set_aside: dict[str, Any]

        def __getattr__(self, name: str) -> Any: ...  # names that are not known are kept

    # ---- Checks

    def validate(self, strict: bool = False) -> None:
        """Refuse what no generation can be made with.

        Args:
            strict: also options of drawing where ``do_sample`` is off, which do nothing there.

        Raises:
            ConfigError: for the first such option, with what it may be.
        """
        for name, option in OPTIONS.items():
            words, test = option.kind
            value = getattr(self, name)
            if name in SAMPLING_ONLY and self.do_sample is False and not strict:
                continue
            if not test(value):
                raise ConfigError(f"{name} must be {words}, received {shown(value)}")

    # ---- In and out

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], **kwargs: Any) -> Any:
        """Make one of the content of a ``generation_config.json``.

        Args:
            config_dict: the content; unknown keys are kept.
            **kwargs: options that win over it. With ``return_unused_kwargs=True`` the answer is ``(config, unused)``.

        Raises:
            ConfigError: for what is no dictionary, or a value that no generation can be made with.
            TypeError: for arguments that name no option, unless ``return_unused_kwargs=True``.
        """
        if not isinstance(config_dict, Mapping):
            raise ConfigError(
                f"{cls.__name__}.from_dict() expects a dictionary, received {an(type(config_dict).__name__)}; read a "
                "file or a name with from_pretrained(...)"
            )
        return_unused = kwargs.pop("return_unused_kwargs", False)
        known = {*OPTIONS, *config_dict, "_from_model_config"}
        unused = {name: value for name, value in kwargs.items() if name not in known}
        if not return_unused:
            refuse_unknown(unused, known, cls.__name__)
        said = {name: value for name, value in kwargs.items() if name in known}
        config = cls(**{**config_dict, **said})
        return (config, unused) if return_unused else config

    @classmethod
    def from_model_config(cls, model_config: Any) -> Self:
        """The options that the configuration of a model says, of older releases or by its special tokens.

        Args:
            model_config: of a model; of an encoder and a decoder, the decoder's values count where it says none.
        """
        values = _said_by(getattr(model_config, "decoder", None)) | _said_by(model_config)
        config = cls(**values, _from_model_config=True)
        if any((config.output_attentions, config.output_hidden_states, config.output_scores, config.output_logits)):
            config.return_dict_in_generate = True
        return config

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name: str | os.PathLike[str],
        config_file_name: str | os.PathLike[str] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        revision: str = "main",
        **kwargs: Any,
    ) -> Any:
        """Read the options of a model that is named.

        Args:
            pretrained_model_name: a folder, a built-in model, or a name on the hub.
            config_file_name: the file in it; ``generation_config.json`` where none is named. A model without that file
                gives what its ``config.json`` says.
            cache_dir, force_download, local_files_only, token, revision: see :func:`xlmr_core.hub.resolve`.
            **kwargs: ``subfolder`` as there; everything else as in :meth:`from_dict`.

        Raises:
            ModelNotFoundError: if there is no such folder or name.
            CheckpointError: if there is no such file, or it holds no JSON object.
            ConfigError, TypeError: as in :meth:`from_dict`.
        """
        asked = {
            "cache_dir": cache_dir,
            "force_download": force_download,
            "local_files_only": local_files_only,
            "token": token,
            "revision": revision,
            **{name: kwargs.pop(name) for name in HUB_ARGUMENTS if name in kwargs},
        }
        kwargs = without_published(kwargs)
        check_name(pretrained_model_name, f"{cls.__name__}.from_pretrained()")
        wanted = GENERATION_CONFIG_NAME if config_file_name is None else os.fspath(config_file_name)
        folder = resolve(pretrained_model_name, patterns=tuple(dict.fromkeys((wanted, "config.json"))), **asked)
        if config_file_name is None and not (folder / wanted).is_file() and (folder / "config.json").is_file():
            from xlmr_core.config import AutoConfig

            return cls.from_dict(cls.from_model_config(AutoConfig.from_pretrained(folder)).to_dict(), **kwargs)
        return cls.from_dict(_read(folder / wanted), **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Every option as plain Python, ready for :meth:`from_dict`."""
        values = copy.deepcopy({**vars(self), **vars(self)["_set_aside"]})
        if "_set_aside" not in vars(self)["_set_aside"]:
            del values["_set_aside"]
        return values

    def to_diff_dict(self) -> dict[str, Any]:
        """The content of ``generation_config.json``: what differs from the defaults."""
        defaults = {name: option.default for name, option in OPTIONS.items()} | {"_from_model_config": False}
        return {
            name: value
            for name, value in self.to_dict().items()
            if name not in defaults or value != defaults[name] or type(value) is not type(defaults[name])
        }

    def to_json_string(self, use_diff: bool = True, ignore_metadata: bool = False) -> str:
        """The content of ``generation_config.json`` as text.

        Args:
            use_diff: leave out what is at its default.
            ignore_metadata: leave out what is no option: ``transformers_version``, ``_from_model_config``.

        Raises:
            ConfigError: if a value cannot be written.
        """
        values = self.to_diff_dict() if use_diff else self.to_dict()
        if ignore_metadata:
            values = {name: value for name, value in values.items() if name not in METADATA}
        if isinstance(values.get("sequence_bias"), Mapping):  # JSON has no tuples for keys
            values["sequence_bias"] = [[list(ids), bias] for ids, bias in values["sequence_bias"].items()]
        try:
            return json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        except TypeError as error:
            raise ConfigError(f"an option cannot be written as JSON: {error}; remove it or make it plain") from error

    def to_json_file(self, json_file_path: str | os.PathLike[str], use_diff: bool = True) -> None:
        """Write the options to a file, all or nothing.

        Raises:
            ConfigError: if a value cannot be written.
            CheckpointError: if the system refuses.
        """
        write_atomically(Path(json_file_path), self.to_json_string(use_diff).encode())

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        config_file_name: str | os.PathLike[str] | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Write ``generation_config.json`` into a folder, which is made if it is missing.

        Args:
            save_directory: the folder.
            config_file_name: another name for the file.
            push_to_hub: upload it afterwards.
            **kwargs: of the upload, as in :meth:`push_to_hub`.

        Raises:
            ConfigError: if a value cannot be written.
            CheckpointError: if ``save_directory`` is a file, or the system refuses.
            UploadError, MissingBackendError: if it cannot be uploaded.
            TypeError: for an argument that is not known.
        """
        self.validate()
        folder = Path(save_directory)
        name = GENERATION_CONFIG_NAME if config_file_name is None else os.fspath(config_file_name)
        with upload_after(self, folder, push_to_hub, kwargs, always=(name,)):
            text = self.to_json_string()
            if folder.is_file():
                raise CheckpointError(f"save_pretrained expects a folder, received the file {folder}; name a folder")
            with saving_to(folder, name):
                folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / name, text.encode())

    def update(self, **kwargs: Any) -> dict[str, Any]:
        """Set several options at once, checked together.

        Returns:
            The arguments that name no option.

        Raises:
            ConfigError: for a value that no generation can be made with.
        """
        known = {name: value for name, value in kwargs.items() if name in OPTIONS or name in vars(self)}
        for name, value in known.items():
            setattr(self, name, value)
        self.validate()
        return {name: value for name, value in kwargs.items() if name not in known}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GenerationConfig):
            return False
        one, two = (json.loads(config.to_json_string(False, True)) for config in (self, other))
        return bool(one == two)

    __hash__ = None  # type: ignore[assignment]  # mutable, as published scripts expect

    def __repr__(self) -> str:
        values = {name: value for name, value in self.to_diff_dict().items() if name != "sequence_bias"}
        if self.sequence_bias is not None:
            values["sequence_bias"] = repr(self.sequence_bias)
        return f"{type(self).__name__} {json.dumps(values, indent=2, default=str, ensure_ascii=False)}"


# Of a file, and no option.
METADATA = ("_from_model_config", "transformers_version")


def read_generation_config(folder: str | os.PathLike[str], model_config: Any) -> GenerationConfig:
    """The options of a model that is loaded: those of its ``generation_config.json``, or of its configuration.

    Args:
        folder: with the files of the checkpoint.
        model_config: of the model.

    Raises:
        CheckpointError: if the file holds no JSON object.
        ConfigError: for a value that no generation can be made with.
    """
    path = Path(folder) / GENERATION_CONFIG_NAME
    if not path.is_file():
        return GenerationConfig.from_model_config(model_config)
    config: GenerationConfig = GenerationConfig.from_dict(_read(path))
    return config


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"expected the options of generation at {path}, found no such file; check the folder")
    return read_config_json(path)


def taken(passed: Any, what: str = "generation_config") -> GenerationConfig:
    """Options that somebody passes: ours as they are, those of another library by its ``to_dict()``.

    Args:
        passed: the options.
        what: what to call them in messages.

    Raises:
        InputError: for what is no ``GenerationConfig``.
        ConfigError: for a value that no generation can be made with.
    """
    if isinstance(passed, GenerationConfig):
        return passed
    has_values = not isinstance(passed, Mapping | type) and callable(getattr(passed, "to_dict", None))
    values = passed.to_dict() if has_values else None
    if not isinstance(values, Mapping):
        raise InputError(
            f"{what} must be a GenerationConfig, received {an(type(passed).__name__)}; make one with "
            "GenerationConfig(...)"
        )
    return GenerationConfig(**values)


def _said_by(model_config: Any) -> dict[str, Any]:
    """The options that the configuration of one model says."""
    if model_config is None:
        return {}
    values = model_config if isinstance(model_config, Mapping) else model_config.to_dict()
    found = {name: values[name] for name in OPTIONS if values.get(name) is not None}
    # A model's configuration has no other way to say that it has none of these.
    return {name: value for name, value in found.items() if value or not name.startswith("output_")}


def as_the_model_says(config: GenerationConfig, model_config: Any) -> GenerationConfig:
    """A copy, in which what is at its default is as the configuration of a model says, if the options came from there.

    Scripts set ``model.config.decoder_start_token_id`` after loading.
    """
    config = copy.deepcopy(config)
    if config._from_model_config:
        now = GenerationConfig.from_model_config(model_config)
        for name, option in OPTIONS.items():
            if getattr(config, name) == option.default:
                setattr(config, name, getattr(now, name))
    return config
