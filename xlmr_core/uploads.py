"""Uploads to the Hugging Face hub: what ``push_to_hub`` of configurations, tokenizers and models does.

Through the optional package ``huggingface_hub``, which is imported only where something is uploaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xlmr_core.arguments import refuse_unknown, without_published
from xlmr_core.errors import MissingBackendError, UploadError

__all__ = ["UPLOAD_ARGUMENTS", "PushToHub", "upload_after"]

# Of an upload, with what holds where nothing is said.
UPLOAD_ARGUMENTS: dict[str, Any] = {
    "repo_id": None,
    "commit_message": None,
    "commit_description": None,
    "private": None,
    "token": None,
    "create_pr": False,
    "revision": None,
}
# Published arguments that ask for nothing here, and those of which only some values can be served.
UPLOAD_NOT_NEEDED = ("use_temp_dir", "max_shard_size", "safe_serialization", "save_jinja_files")
UPLOAD_ONLY = {
    "organization": ((None,), "it was dropped; pass repo_id='organisation/name'"),
    "repo_url": ((None,), "it was dropped; pass repo_id='organisation/name'"),
    "use_auth_token": ((None, False), "it was renamed; pass token="),
    "tags": ((None,), "write them into the README.md of the repository"),
}


class PushToHub:
    """What can be uploaded: it has a ``save_pretrained``."""

    def push_to_hub(
        self,
        repo_id: str,
        use_temp_dir: bool | None = None,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        max_shard_size: int | str = "5GB",
        create_pr: bool = False,
        safe_serialization: bool = True,
        revision: str | None = None,
        commit_description: str | None = None,
        tags: list[str] | None = None,
        **kwargs: Any,
    ) -> str:
        """Upload to the Hugging Face hub, as one commit of the files that ``save_pretrained`` writes.

        Needs ``huggingface_hub`` (``pip install 'xlmr[hub]'``) and a token with the right to write.

        Args:
            repo_id: ``organisation/name``, or a name in your own account; made if it is missing.
            use_temp_dir: of the published signature; the files are always written to a temporary folder.
            commit_message, commit_description: of the commit.
            private: whether a repository that is made is private; by default as its owner set it.
            token: access token; by default the one that ``hf auth login`` stored.
            max_shard_size, safe_serialization: as in ``save_pretrained`` of models.
            create_pr: open a pull request in place of writing to the branch.
            revision: the branch, made if it is missing; by default the main one.
            tags: must be ``None``.
            **kwargs: further arguments of ``save_pretrained``, such as ``params`` of Flax.

        Returns:
            The address of the commit.

        Raises:
            MissingBackendError: if ``huggingface_hub`` is not installed.
            UploadError: if the hub cannot be reached or refuses.
            InputError: for a value that cannot be served.
        """
        from tempfile import TemporaryDirectory

        kwargs = without_published({"tags": tags, **kwargs}, UPLOAD_ONLY)
        _hub_package(repo_id)
        saver: Any = self
        with TemporaryDirectory() as folder:
            saver.save_pretrained(
                folder, max_shard_size=max_shard_size, safe_serialization=safe_serialization, **kwargs
            )
            return _upload(
                sorted(Path(folder).iterdir()),
                repo_id=repo_id,
                commit_message=commit_message or f"Upload {type(self).__name__}",
                commit_description=commit_description,
                private=private,
                token=token,
                create_pr=create_pr,
                revision=revision,
            )


@contextmanager
def upload_after(
    saver: PushToHub,
    folder: Path,
    push_to_hub: bool,
    arguments: Mapping[str, Any],
    always: tuple[str, ...] = ("config.json",),
) -> Iterator[None]:
    """Upload the files that the block writes into a folder, if that is asked for.

    Args:
        saver: what is saved.
        folder: where.
        push_to_hub: whether to upload.
        arguments: of the upload, as in :meth:`PushToHub.push_to_hub`; ``repo_id`` is by default the folder's name.
        always: names of files that are uploaded also where the block found them as they should be.

    Raises:
        MissingBackendError, UploadError: as of :meth:`PushToHub.push_to_hub`.
        InputError: for a value that cannot be served.
        TypeError: for an argument that is not known.
    """
    import inspect  # not for reading

    save: Any = type(saver).save_pretrained  # type: ignore[attr-defined]
    known = (*UPLOAD_ARGUMENTS, *UPLOAD_ONLY, *UPLOAD_NOT_NEEDED)
    others = list(inspect.signature(save).parameters)[1:-1]
    refuse_unknown(arguments, known, f"{type(saver).__name__}.save_pretrained()", others)
    if not push_to_hub:
        yield
        return
    asked = {**UPLOAD_ARGUMENTS, **without_published(arguments, UPLOAD_ONLY, UPLOAD_NOT_NEEDED)}
    asked["repo_id"] = asked["repo_id"] or folder.absolute().name
    asked["commit_message"] = asked["commit_message"] or f"Upload {type(saver).__name__}"
    _hub_package(asked["repo_id"])
    before = _files(folder) if folder.is_dir() else {}
    yield
    written = [path for path, state in _files(folder).items() if before.get(path) != state or path.name in always]
    _upload(sorted(written), **asked)


def _files(folder: Path) -> dict[Path, tuple[int, int, int]]:
    """The files of a folder, each with what changes when it is written."""
    states = ((path, path.stat()) for path in folder.iterdir() if path.is_file())
    return {path: (state.st_ino, state.st_mtime_ns, state.st_size) for path, state in states}


def _hub_package(repo_id: str) -> Any:
    try:
        import huggingface_hub
        from huggingface_hub import constants
    except ImportError as error:
        raise MissingBackendError(
            f"an upload to {repo_id!r} needs huggingface_hub, which is not installed: pip install 'xlmr[hub]'"
        ) from error
    if constants.HF_HUB_OFFLINE:
        raise UploadError(f"{repo_id!r} cannot be uploaded: the hub is switched off (HF_HUB_OFFLINE); unset it")
    return huggingface_hub


def _upload(
    paths: list[Path],
    *,
    repo_id: str,
    commit_message: str,
    commit_description: str | None,
    private: bool | None,
    token: str | bool | None,
    create_pr: bool,
    revision: str | None,
) -> str:
    """Make the repository and the branch where they are missing, and one commit of the files."""
    package = _hub_package(repo_id)
    api = package.HfApi(token=token)
    try:
        made = api.create_repo(repo_id, exist_ok=True, **({} if private is None else {"private": private}))
        if revision is not None and not revision.startswith("refs/pr"):
            api.create_branch(made.repo_id, branch=revision, exist_ok=True)
        commit = api.create_commit(
            made.repo_id,
            [package.CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=str(path)) for path in paths],
            commit_message=commit_message,
            commit_description=commit_description,
            create_pr=create_pr,
            revision=revision,
        )
    except Exception as error:  # of many kinds: the hub's package passes on those of the libraries below it
        status = getattr(getattr(error, "response", None), "status_code", None)
        no_right = status in (401, 403) or "token" in type(error).__name__.lower()
        remedy = (
            "log in with 'hf auth login', or pass token=..., with the right to write there"
            if no_right
            else "check the name and the connection, and try again"
        )
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UploadError(f"{repo_id!r} was not uploaded to {api.endpoint}: {why}; {remedy}") from error
    return str(commit.commit_url)
