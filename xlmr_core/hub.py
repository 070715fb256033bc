"""From a model's name to a folder with its files: a local folder, a built-in model, or a name on the Hugging Face hub.

The hub is reached through the optional package ``huggingface_hub``, which is imported only when a name is neither of
the others.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from xlmr_core.atomic_files import finish_interrupted
from xlmr_core.errors import MissingBackendError, ModelNotFoundError
from xlmr_core.hub_answers import first_line, within_patience

__all__ = ["BUILT_IN", "DEFAULT_MODEL", "MODEL_FILES", "resolve"]

# The one that the others are made of, and all that are in the package; which task takes which is in `tasks`.
DEFAULT_MODEL = "xlmr-mini"
BUILT_IN = (
    DEFAULT_MODEL,
    "xlmr-mini-langid",
    "xlmr-mini-topic",
    "xlmr-mini-pos",
    "xlmr-mini-ner",
    "xlmr-mini-sentences",
)

# What a model consists of: other frameworks' weights, which a repository may hold as well, are left where they are.
MODEL_FILES = ("*.json", "*.safetensors", "*.model", "*.txt")

_HERE = Path(__file__).resolve().parent
# The wheel carries the built-in models as package data; a checkout keeps them where they are made.
_BUILT_IN_FOLDERS = (_HERE / "data", _HERE.parent / "weights")
_EXPECTED = f"a folder, a built-in model ({', '.join(BUILT_IN)}) or a name on the hub"
_HUB_NAME = re.compile(r"[A-Za-z0-9]([\w.-]*[\w])?(/[A-Za-z0-9]([\w.-]*[\w])?)?", re.ASCII)


def resolve(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    force_download: bool = False,
    subfolder: str = "",
    patterns: tuple[str, ...] | None = None,
) -> Path:
    """Return the folder that holds a model's files, fetching them from the hub where needed.

    Args:
        name_or_path: an existing folder (which wins over everything else), a name of ``BUILT_IN``, or a name on the hub
            such as ``xlm-roberta-base`` or ``organisation/model``.
        revision: branch, tag or commit on the hub.
        cache_dir: where downloads are kept.
        local_files_only: use what was downloaded before and never the network; the variable ``HF_HUB_OFFLINE=1`` does
            the same.
        token: access token for private models, or ``True`` for the one that ``huggingface-cli login`` stored.
        force_download: fetch again what is there already.
        subfolder: folder inside the model's folder.
        patterns: which files to fetch, as shell patterns; by default ``MODEL_FILES``.

    Raises:
        ModelNotFoundError: if there is no such model, or none that can be had without the network.
        CheckpointError: if a save to the folder was killed between its files and cannot be finished here.
        MissingBackendError: if the name can only be on the hub and ``huggingface_hub`` is not installed.
    """
    name = os.fspath(name_or_path)
    if not name:
        raise ModelNotFoundError(f"expected {_EXPECTED}, received an empty name")
    local = Path(name).expanduser()
    if local.is_dir():
        folder = _inside(local, subfolder)
        finish_interrupted(folder)
        return folder
    if local.is_file():
        raise ModelNotFoundError(
            f"expected a folder with a model, received the file {name}; pass its folder, {local.parent}"
        )
    if name in BUILT_IN:
        return _inside(_built_in_folder(name), subfolder)
    if not _may_be_hub_name(name):
        raise ModelNotFoundError(
            f"expected a folder with a model at {local.absolute()}, found nothing there; check the path. "
            f"(A name on the hub has the form 'organisation/model'; built in: {', '.join(BUILT_IN)})"
        )
    for built_in in BUILT_IN:
        if _one_edit_apart(name, built_in):
            raise ModelNotFoundError(f"expected {_EXPECTED}, received {name!r}; did you mean {built_in!r}?")
    wanted = MODEL_FILES if patterns is None else patterns
    if subfolder:
        wanted = tuple(f"{subfolder}/{pattern}" for pattern in wanted)
    folder = _fetch(name, revision, cache_dir, local_files_only, token, force_download, wanted)
    return _inside(folder, subfolder)


def _built_in_folder(name: str) -> Path:
    for folder in _BUILT_IN_FOLDERS:
        if (folder / name).is_dir():
            return folder / name
    raise ModelNotFoundError(
        f"the built-in model {name!r} is missing from this installation (looked in "
        f"{', '.join(str(f / name) for f in _BUILT_IN_FOLDERS)}); "
        "install the package again"
    )


def _inside(folder: Path, subfolder: str) -> Path:
    inside = folder / subfolder
    if not inside.is_dir():
        raise ModelNotFoundError(f"{folder} has no subfolder {subfolder!r}; check the name")
    return inside


def _may_be_hub_name(name: str) -> bool:
    return _HUB_NAME.fullmatch(name) is not None and ".." not in name and "--" not in name and len(name) <= 96


def _one_edit_apart(one: str, other: str) -> bool:
    """Whether one insertion, deletion, replacement, swap of neighbours or change of case and dashes turns one name into
    the other.
    """
    if one.lower().replace("_", "-") == other:
        return True
    if len(one) > len(other):
        one, other = other, one
    start = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
    if len(one) < len(other):
        return one[start:] == other[start + 1 :]
    swapped = one[:start] + one[start : start + 2][::-1] + one[start + 2 :]
    return one[start + 1 :] == other[start + 1 :] or swapped == other


def _fetch(
    name: str,
    revision: str | None,
    cache_dir: str | os.PathLike[str] | None,
    local_files_only: bool,
    token: str | bool | None,
    force_download: bool,
    patterns: Iterable[str],
) -> Path:
    looked_for = f"{name!r} is no folder here and no built-in model ({', '.join(BUILT_IN)})"
    try:
        from huggingface_hub import constants, errors, snapshot_download
    except ImportError as error:
        raise MissingBackendError(
            f"{looked_for}; names on the hub need huggingface_hub, which is not installed: pip install 'xlmr[hub]'"
        ) from error
    offline = local_files_only or bool(constants.HF_HUB_OFFLINE)
    patterns = list(patterns)
    at = f" at revision {revision!r}" if revision else ""
    try:
        folder = Path(
            within_patience(
                lambda: snapshot_download(
                    name,
                    revision=revision,
                    cache_dir=None if cache_dir is None else Path(cache_dir),
                    local_files_only=offline,
                    token=token,
                    force_download=force_download,
                    allow_patterns=patterns,
                ),
                Path(cache_dir or constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}",
            )
        )
    except errors.GatedRepoError as error:
        raise ModelNotFoundError(
            f"{name!r} on the hub wants an agreement; accept it on its page, pass token=..."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelNotFoundError(f"{name!r} on the hub has no revision {revision!r}; check the spelling") from error
    except errors.RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"{looked_for}, and the hub has none of that name{at}; check the spelling, or pass token=... if it is "
            "private"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        why = "the hub is switched off (local_files_only or HF_HUB_OFFLINE)" if offline else "the hub cannot be reached"
        raise ModelNotFoundError(
            f"{looked_for}, it was not (or not wholly) downloaded before{at}, and {why}; "
            "download it once with a connection, or pass the folder that holds it"
        ) from error
    except Exception as error:  # of many kinds: the hub's package passes on those of the libraries below it
        raise ModelNotFoundError(
            f"{looked_for}, and fetching it from the hub failed: {first_line(error)}; check the connection and try "
            "again, or pass the folder that holds it"
        ) from error
    files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    if not any(fnmatch(file, pattern) for file in files for pattern in patterns):
        remedy = "download it once with a connection" if offline else "check that it is a model"
        raise ModelNotFoundError(f"{name!r} on the hub has no {' or '.join(patterns)}{at}; {remedy}")
    return folder
