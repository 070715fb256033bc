"""Where a checkpoint is: the file that decides, and its format. Found once, it walks on as an object."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xlmr_core.adapters import ADAPTER_CONFIG, base_of, read_adapter_config
from xlmr_core.atomic_files import finish_interrupted
from xlmr_core.bounded_files import is_there
from xlmr_core.checkpoints.adapted import adapted, adapted_values
from xlmr_core.checkpoints.reading import holds_model, open_file
from xlmr_core.config import EncoderDecoderConfig, ModelConfig, config_class_of, read_config_json
from xlmr_core.errors import CheckpointError, InputError, ModelNotFoundError
from xlmr_core.formats import FORMATS, Checkpoint, Format
from xlmr_core.formats.base import damaged
from xlmr_core.formats.finding import transformer_folder
from xlmr_core.formats.peft_format import OLDER, PEFT
from xlmr_core.hub import BUILT_IN, resolve
from xlmr_core.wording import shown

__all__ = [
    "Found",
    "fetch",
    "fetch_files",
    "find",
    "format_asked_for",
    "format_of",
    "open_checkpoint",
    "read_config",
    "read_config_values",
]

# Of a model on the hub, beside its weights; sentence-transformers keep them one folder down.
CONFIG_FILES = (
    *("config.json", "generation_config.json", "modules.json", "0_Transformer/config.json"),
    *(ADAPTER_CONFIG, OLDER),
)
# The formats of which files are fetched from the hub first, together: an adapter says itself where its base is.
FIRST = 2
# How names of files with weights end, whoever wrote them.
FILE_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".keras", ".msgpack")
# One of several files of a model, which only their index makes whole.
SHARD = re.compile(r"-\d+-of-\d+\.")
# Of a folder with more of them none is looked into.
MOST_FILES = 16
# Where a folder keeps the files of a training: Lightning's; and its graphs.
INNER_FOLDER, GRAPHS = "checkpoints", "onnx"

# Weights that no format here reads, by file name, what they are, and what to do.
OTHER_FORMATS = (
    ("*.onnx", "an ONNX graph", "convert it in the library that wrote it"),
    ("*.gguf", "GGUF weights", "pass the checkpoint that they were made from"),
    ("*.npz", "NumPy arrays", "convert them in the library that wrote them"),
    ("*.ckpt.*", "a TensorFlow checkpoint", "load it in TensorFlow and save_pretrained"),
    ("zero_to_fp32.py", "a DeepSpeed checkpoint", "run that program, and load the file that it writes"),
    (
        "*.distcp",
        "a distributed PyTorch checkpoint",
        "torch.distributed.checkpoint.format_utils.dcp_to_torch_save makes a file of it",
    ),
    ("_CHECKPOINT_METADATA", "an Orbax checkpoint", "restore it in Orbax and save_pretrained"),
)


@dataclass(frozen=True)
class Found:
    """The weights of a model on disk.

    Attributes:
        path: the file, or the index of several, that decides.
        format: its format.
        name: what the user called it, if it was asked for by a name.
        part: which of several models in the file is meant; see :func:`open_checkpoint`.
        base: of an adapter, the weights that it changes.
    """

    path: Path
    format: Format
    name: str = ""
    part: str | None = None
    base: Found | None = None

    @property
    def folder(self) -> Path:
        """Where the weights are, and beside them the config and the tokenizer; above a folder of a training's files or
        of graphs.
        """
        folder = self.path.parent
        is_inner = folder.name in (INNER_FOLDER, GRAPHS) and not (folder / "config.json").is_file()
        return folder.parent if is_inner else folder

    def beside(self, name: str) -> Path:
        """The folder with a file of that name: where the weights are, or else, of an adapter, where its base's are."""
        return self.folder if self.base is None or is_there(self.folder / name) else self.base.folder

    def open(self, part: str | None = None) -> Checkpoint:
        """The checkpoint; see :func:`open_checkpoint`. Without ``part`` its own."""
        wanted = self.part if part is None else part
        if self.base is None:
            return self._open(wanted)
        adapter, config = self._open(None), read_adapter_config(self.path.parent)
        return adapted(adapter, config, self.base.open(wanted), self.base.config(wanted))

    def _open(self, wanted: str | None) -> Checkpoint:
        """The tensors of the file itself."""
        found = self
        while True:
            state = _state(found.path)
            try:
                return open_file(found.path, found.format, wanted)
            except CheckpointError:
                # A save may have replaced what was found before it could be opened.
                row = found.format
                now = row.find(found.path.parent) if _state(found.path) != state or state is None else None
                if now is None or (now == found.path and _state(now) is None):
                    raise
                found = replace(found, path=now)

    def config_values(self, part: str | None = None) -> dict[str, Any]:
        """The content of its ``config.json``, or what the weights say where that does not name an architecture.

        Raises:
            CheckpointError, ModelNotFoundError: if neither says what the configuration is.
        """
        return _config_values(self.folder, self, self.part if part is None else part)

    def config(self, part: str | None = None) -> ModelConfig:
        """The configuration; see :func:`read_config`."""
        values = self.config_values(part)
        config: ModelConfig = config_class_of(values).from_dict(values)
        return config


def _state(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is replaced; ``None`` where there is none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns, state.st_size


def find(path: str | os.PathLike[str], format: str | None = None, **where: Any) -> Found:
    """Look for a checkpoint. A file is known by its content, whatever its name. The base of an adapter is looked for
    with it, and fetched where it has to be.

    Args:
        path: a folder, a file of weights, or an index. Of a folder without a published name, the only file that holds
            a model.
        format: the word for the only format to look for; by default the first of ``FORMATS`` that is there.
        **where: of an adapter, how to fetch its base: as for :func:`xlmr_core.hub.resolve`.

    Raises:
        CheckpointError: if there are no such weights.
        ModelNotFoundError: if there is no such base.
    """
    path = Path(path)
    found = _find(path, format)
    return found if found.format is not PEFT else replace(found, base=_find_base(found, where))


def _find_base(found: Found, where: Mapping[str, Any]) -> Found:
    """The weights that an adapter changes."""
    folder = found.path.parent
    place, revision = base_of(folder), read_adapter_config(folder).revision
    # Of these the one is of the adapter's own repository.
    own: dict[str, Any] = {key: value for key, value in where.items() if key not in ("revision", "subfolder")}
    own |= {} if revision is None else {"revision": revision}
    try:
        base = fetch_files(place, **own)
    except ModelNotFoundError as error:
        raise ModelNotFoundError(
            f"{found.path} is an adapter of {shown(place)}, which is needed with it: {error}; or correct "
            f"base_model_name_or_path in {ADAPTER_CONFIG}"
        ) from error
    whole = [name for name in FORMATS if name != PEFT.name]
    if base.is_dir() and PEFT.find(base) is not None:
        named = next((name for name in whole if FORMATS[name].find(base) is not None), None)
        if named is None:
            raise CheckpointError(
                f"{found.path} changes {shown(place)}, which is an adapter itself; write that as a whole model (xlmr "
                f"convert), and its folder into base_model_name_or_path of {ADAPTER_CONFIG}"
            )
        return replace(_find(base, named), name=place)
    return replace(_find(base, None), name=place)


def _find(path: Path, format: str | None) -> Found:
    finish_interrupted(path if path.is_dir() else path.parent)
    formats = tuple(FORMATS.values()) if format is None else (format_of(format),)
    if path.is_dir():
        path = transformer_folder(path)
        for row in formats:
            found = row.find(path)
            if found is not None:
                return Found(found, row)
        return _by_content(path, formats)
    for row in formats:
        if row.index and path.name.endswith(row.index):
            return Found(path, row)
    for row in formats:
        with damaged(path, row):
            if row.recognises(path):
                return Found(path, row)
    if format is not None:
        return Found(path, formats[0])  # which says what is wrong with it
    kinds = ", ".join(row.title for row in formats if not row.is_part)
    raise CheckpointError(f"{path} is none of: {kinds}; pass a file of weights, or fetch it again if it should be one")


def _by_content(folder: Path, formats: tuple[Format, ...]) -> Found:
    """The only file of a folder that holds a model, under whatever name."""
    files = [
        path
        for where in (folder, folder / INNER_FOLDER)
        for path in sorted(where.glob("*"))
        if path.suffix in FILE_SUFFIXES and path.is_file()
    ]
    shards = [path.name for path in files if SHARD.search(path.name)]
    if shards:
        raise CheckpointError(
            f"{folder} has {', '.join(shards[:3])}, which are parts of a model, and no index of them; fetch it (it "
            "ends with .index.json), or save the model again"
        )
    if len(files) == 1 and len(formats) > 1:
        return find(files[0])
    known = [Found(path, row) for path in files[:MOST_FILES] if (row := _format_of_file(path, formats)) is not None]
    found = [one for one in known if len(files) == 1 or _holds_model(one)]
    if len(found) == 1 and len(files) <= MOST_FILES:
        return found[0]
    raise CheckpointError(_nothing_in(folder, formats, [str(path.relative_to(folder)) for path in files]))


def _format_of_file(path: Path, formats: tuple[Format, ...]) -> Format | None:
    with contextlib.suppress(CheckpointError):  # a damaged file: who passes its path is told so
        for row in formats:
            with damaged(path, row):
                if row.recognises(path):
                    return row
    return None


def _holds_model(found: Found) -> bool:
    with contextlib.suppress(CheckpointError):
        return holds_model(found.path, found.format)
    return False


def open_checkpoint(path: str | os.PathLike[str], format: str | None = None, *, part: str | None = None) -> Checkpoint:
    """Open a checkpoint: a folder, a file of weights, or the index of several.

    Args:
        path: what to open.
        format: the word for the only format to look for; by default the first of ``FORMATS`` that is there.
        part: of a file that holds several models or heads, the one to read: the name of a classification head of a
            fairseq archive, or what the names of a model begin with, such as ``student.``.

    Raises:
        CheckpointError: if there is none, or if a file is missing, truncated, or tampered with.
    """
    return find(path, format).open(part)


def read_config(path: str | os.PathLike[str], format: str | None = None, *, part: str | None = None) -> ModelConfig:
    """The configuration of a checkpoint: its ``config.json``, or what its weights say where there is none.

    Args:
        path: a folder, or a file of weights, beside which ``config.json`` is looked for.
        format, part: as for :func:`open_checkpoint`.

    Raises:
        CheckpointError: if there is no checkpoint, or nothing says what the configuration is.
        ConfigError: for another architecture, or for values that no model can be built from.
    """
    values = read_config_values(path, format, part=part)
    config: ModelConfig = config_class_of(values).from_dict(values)
    return config


def read_config_values(
    path: str | os.PathLike[str], format: str | None = None, *, part: str | None = None
) -> dict[str, Any]:
    """What :func:`read_config` makes a configuration of; arguments and errors as there."""
    path = Path(path)
    folder = transformer_folder(path) if path.is_dir() else path.parent
    found = None
    with contextlib.suppress(CheckpointError):  # a configuration without weights
        found = find(path, format)
    return _config_values(folder, found, part)


def _config_values(folder: Path, found: Found | None, part: str | None) -> dict[str, Any]:
    if found is not None and found.base is not None:
        return _adapted_config_values(found, part)
    there = is_there(folder / "config.json")
    values = read_config_json(folder / "config.json") if there else {}
    if not {"model_type", "architectures"} & set(values) and found is not None and found.format.config is not None:
        with found.open(part) as checkpoint, damaged(found.path, found.format):
            return found.format.config(found.path, checkpoint).to_dict()
    # If it is missing, reading it says so.
    values = values if there else read_config_json(folder / "config.json")
    side = None if part is None else values.get(part.removesuffix("."))
    # Of an encoder-decoder a side can be asked for, which has a configuration of its own in there.
    return side if values.get("model_type") == EncoderDecoderConfig.model_type and isinstance(side, dict) else values


def _adapted_config_values(found: Found, part: str | None) -> dict[str, Any]:
    """What stands beside an adapter, or else what its base has, for the weights of the sum, which are not quantized."""
    assert found.base is not None
    own = found.folder / "config.json"
    values = read_config_json(own) if is_there(own) else {}
    if {"model_type", "architectures"} & set(values):
        return {key: value for key, value in values.items() if key != "quantization_config"}
    values = found.base.config_values(part)
    with found._open(None) as adapter:
        return adapted_values(values, read_adapter_config(found.path.parent), adapter)


# ---- By name


def format_asked_for(
    *, from_pt: bool = False, from_tf: bool = False, from_flax: bool = False, use_safetensors: bool | None = None
) -> str | None:
    """The format that the published arguments of ``from_pretrained`` ask for; ``None`` if the first that is there will
    do.

    Raises:
        InputError: if they ask for several.
    """
    if from_pt + from_tf + from_flax > 1:
        raise InputError(f"from_pt={from_pt}, from_tf={from_tf} and from_flax={from_flax} exclude each other; pass one")
    if use_safetensors:
        return "safetensors"  # whose names tell by themselves which framework wrote them
    if from_tf or from_flax:
        return "tf" if from_tf else "flax"
    return None if use_safetensors is None else "torch"


def fetch(name_or_path: str | os.PathLike[str] | Found, format: str | None = None, **where: Any) -> Found:
    """Find the checkpoint that a name means; of a repository on the hub only one format is fetched.

    Args:
        name_or_path: a folder, a file of weights, a built-in name or a name on the hub; or what was found already.
        format: the only one to look for; by default the first of ``FORMATS`` that is there.
        **where: as for :func:`xlmr_core.hub.resolve`.

    Raises:
        ModelNotFoundError: if there is no such model.
        CheckpointError: if it has no such weights.
    """
    if isinstance(name_or_path, Found):
        return name_or_path
    found = find(fetch_files(name_or_path, format, **where), format, **where)
    return replace(found, name=os.fspath(name_or_path))


def fetch_files(
    name_or_path: str | os.PathLike[str],
    format: str | None = None,
    *,
    patterns: tuple[str, ...] | None = None,
    **where: Any,
) -> Path:
    """The folder or file of weights that a name means, with its configuration; of a repository on the hub, only one
    format is fetched.

    Args:
        name_or_path: a folder, a file of weights, a built-in name or a name on the hub.
        format: the only one to fetch; by default the first of ``FORMATS`` that the repository has.
        patterns: what to fetch first, the first format's weights among it; by default these and the configuration.
        **where: as for :func:`xlmr_core.hub.resolve`.

    Raises:
        ModelNotFoundError: if there is no such model.
    """
    local = Path(name_or_path).expanduser()
    if local.is_file():
        return local
    rows = [row for row in FORMATS.values() if row.single] if format is None else [format_of(format)]
    first = [name for row in rows[:FIRST] for name in row.files]
    folder = resolve(name_or_path, patterns=patterns or (*CONFIG_FILES, *first), **where)
    is_here = local.is_dir() or os.fspath(name_or_path) in BUILT_IN
    if is_here or any(row.find(folder) is not None for row in rows[:FIRST]):
        return folder
    for row in rows[FIRST:]:
        found = row.find(folder)
        if found is not None and found.name != row.index:
            break
        # An index alone says nothing of its shards: it may have come with small files of the same repository.
        with contextlib.suppress(ModelNotFoundError):  # it has no such files
            resolve(name_or_path, patterns=row.files, **where)
            break
    return folder


def format_of(name: str) -> Format:
    """The format that a word of ``FORMATS`` means."""
    if name not in FORMATS:
        raise CheckpointError(f"format must be one of {', '.join(FORMATS)}, received {shown(name)}")
    return FORMATS[name]


def _nothing_in(folder: Path, formats: tuple[Format, ...], weights: list[str]) -> str:
    singles = list(dict.fromkeys(row.single for row in formats if row.single and not row.is_part))
    expected = (
        f"expected {' or '.join(singles)} in {folder}" if singles else f"expected one {formats[0].title} in {folder}"
    )
    elsewhere = [found.name for row in FORMATS.values() if (found := row.find(folder)) is not None]
    if elsewhere:
        return f"{expected}, found {', '.join(elsewhere)}; ask for that format, or for none"
    if weights:
        shown = ", ".join(weights[:3]) + (f" and {len(weights) - 3} more" if len(weights) > 3 else "")
        return f"{expected}, found {shown}; pass the path of the file itself"
    files = sorted(file.name for file in folder.iterdir())
    other = [(what, fnmatch.filter(files, pattern), remedy) for pattern, what, remedy in OTHER_FORMATS]
    kinds = [f"{what} ({', '.join(held[:3])})" for what, held, _ in other if held]
    if kinds:
        remedy = next(remedy for _, held, remedy in other if held)
        return f"{expected}, found {' and '.join(kinds)}, which is not read; {remedy}"
    return f"{expected}, found no weights; check the folder"
