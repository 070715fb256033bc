"""Published arguments that ask for nothing here, or for something that is not to be had.

The same for configurations, tokenizers and the models of every backend, which add their own to the two tables.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, TypeAlias

from xlmr_core.errors import InputError

__all__ = ["NOT_NEEDED", "ONLY", "UPLOAD_ARGUMENTS", "Served", "without_published"]

# By argument: the only values that can be served, and what to say to others.
Served: TypeAlias = Mapping[str, tuple[tuple[Any, ...], str]]

# Of from_pretrained: matters that do not arise: no code is fetched, and the hub's package does the rest. Any value will do.
NOT_NEEDED = (
    *("trust_remote_code", "code_revision", "resume_download", "mirror"),
    *("_fast_init", "_from_auto", "_from_pipeline", "_commit_hash"),
)
_SECRET = ("use_auth_token", "proxies")
ONLY: Served = {
    "use_auth_token": ((None, False), "it was renamed; pass token="),
    "proxies": ((None,), "set the HTTPS_PROXY environment variable"),
    "gguf_file": ((None,), "GGUF is not read; pass the checkpoint that it was made from"),
}

# Published arguments of save_pretrained that belong to an upload.
UPLOAD_ARGUMENTS = (
    *("repo_id", "use_temp_dir", "commit_message", "commit_description", "private", "token", "max_shard_size"),
    *("create_pr", "safe_serialization", "revision", "tags", "organization", "repo_url", "use_auth_token"),
)


def without_published(
    kwargs: Mapping[str, Any], only: Served = ONLY, not_needed: Container[str] = NOT_NEEDED
) -> dict[str, Any]:
    """The arguments without the published ones that ask for nothing.

    Args:
        kwargs: what was passed.
        only: arguments of which some values can be served; these are taken away too.
        not_needed: arguments about matters that do not arise: any value will do.

    Raises:
        InputError: for a published argument whose value asks for something that is not to be had here.
    """
    left = {}
    for key, value in kwargs.items():
        if key in only:
            served, remedy = only[key]
            if value not in served:
                received = f"a {type(value).__name__}" if key in _SECRET else repr(value)
                raise InputError(f"{key} must be {' or '.join(map(repr, served))}, received {received}: {remedy}")
        elif key not in not_needed:
            left[key] = value
    return left
