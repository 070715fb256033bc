"""``xlmr serve``: answer requests over HTTP; what it does stands in ``xlmr_core/serving``."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from xlmr_core.backends import BACKENDS, first_installed
from xlmr_core.bounded_files import read_bytes
from xlmr_core.cli.kernels import keep_few_kernels
from xlmr_core.cli.options import add_options, read_options
from xlmr_core.cli.parser import MODEL, OneOf, UsageError, add_backend, add_progress, backend
from xlmr_core.cli.terminal import quietly, say
from xlmr_core.errors import MissingBackendError
from xlmr_core.placement import FLOAT_DTYPES

__all__ = ["DESCRIPTION", "SUMMARY", "USAGE", "add_arguments", "execute"]

SUMMARY = "answer requests over HTTP"
USAGE = "xlmr serve [NAME=]MODEL ... [options]"
DESCRIPTION = """\
Answer requests over HTTP, in the words of clients that are there already: OpenAI (/v1/embeddings),
Cohere and Jina (/v1/rerank, /v2/rerank), Text Embeddings Inference (/embed, /rerank, /predict and
others), and every task at /tasks/NAME. What a running server answers stands on its page /docs.

Requests of many clients fill one batch. SIGTERM and Ctrl-C end the server when what was accepted
is answered.

  xlmr serve BAAI/bge-m3 BAAI/bge-reranker-v2-m3
  xlmr serve small=./my-model --task sentence-embedding --port 9000
"""
# Where a key stands that nobody shall see in a list of processes.
KEY = "XLMR_API_KEY"
PACKAGES = ("starlette", "uvicorn", "prometheus_client")
DTYPES = (*FLOAT_DTYPES, "auto")


def add_arguments(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Declare the command's arguments, among them one for each limit."""
    from xlmr_core.serving.settings import Settings

    parser.add_argument("models", nargs="+", metavar="[NAME=]MODEL", help=f"{MODEL}, and how clients call it")
    parser.add_argument(
        "--task",
        action="append",
        default=[],
        metavar="[NAME=]TASK",
        help="what models are for, or one of them; may be repeated (default: what each says)",
    )
    add_backend(
        parser,
        type=backend(tuple(BACKENDS)),
        metavar="BACKEND",
        help=f"what runs the models: {', '.join(BACKENDS)} (default: the first of them that is installed)",
    )
    parser.add_argument("--device", help="cpu or -1, a GPU's number such as 0, or a name such as cuda:1 (default: cpu)")
    parser.add_argument(
        "--dtype",
        type=OneOf(DTYPES, lambda value: value.removeprefix("torch.")),
        metavar="DTYPE",
        help=f"{', '.join(DTYPES)}, which is the checkpoint's own (default: float32)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: %(default)s, this machine)")
    parser.add_argument("--port", type=_port, default=8080, metavar="N", help="0 for a free one (default: %(default)s)")
    parser.add_argument(
        "--api-key-file",
        metavar="FILE",
        help=f"a file with the key that clients have to send; the variable {KEY} says it as well",
    )
    parser.add_argument(
        "--access-log", action="store_true", help="a line for each request on standard error, without its texts"
    )
    add_progress(parser)
    add_options(parser, "limits", Settings)


def _port(value: str) -> int:
    if value.isdecimal() and int(value) < 65_536:
        return int(value)
    raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, received {value!r}")


def execute(arguments: argparse.Namespace) -> int:
    """Serve; 0 when a signal ended it and all was answered."""
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise MissingBackendError(
            f"{missing[0]} is needed to serve and is not installed; install it with: pip install 'xlmr[serve]'"
        )
    name = arguments.backend or first_installed()
    from xlmr_core.serving import Settings, load_model, serve

    keep_few_kernels()
    settings = Settings(**read_options(arguments, Settings))
    key = _key(arguments.api_key_file)
    named = _named(arguments.models)
    tasks = _tasks(arguments.task, list(named))
    device = arguments.device
    if device is not None and device.lstrip("-").isdecimal():
        device = int(device)
    with quietly(name):
        models = [
            load_model(source, tasks.get(own), name=own, backend=name, device=device, dtype=arguments.dtype)
            for own, source in named.items()
        ]
        for model in models:
            say("", f"{model.name}: {', '.join(model.tasks)}")
        if arguments.access_log:
            _log_access()
        serve(
            models,
            settings,
            host=arguments.host,
            port=arguments.port,
            api_key=key,
            ready=lambda url: say("", f"serves at {url}"),
        )
    return 0


def _named(words: Sequence[str]) -> dict[str, str]:
    """The models by their names."""
    from xlmr_core.serving.loading import name_of

    found: dict[str, str] = {}
    for word in words:
        name, equals, source = word.partition("=")
        if not equals or Path(word).exists():
            name, source = name_of(word), word
        if not name or not source or name in found:
            what = "two models of one name" if name in found else "half of it"
            raise UsageError(f"expected NAME=MODEL with names of their own, received {word!r}, {what}")
        found[name] = source
    return found


def _tasks(words: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """The tasks of models, by their names."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, task = word.rpartition("=")
        if equals and name not in names:
            raise UsageError(f"--task expects TASK, or NAME=TASK of {', '.join(names)}, received {word!r}")
        found |= {name: task} if equals else {one: task for one in names if one not in found}
    return found


def _key(file: str | None) -> str | None:
    """What clients have to send.

    Raises:
        UsageError: for a file without a key.
    """
    if file is None:
        return os.environ.get(KEY) or None
    try:
        key = read_bytes(Path(file)).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"expected a key in {file}, which cannot be read ({type(error).__name__})") from error
    if not key or any(letter.isspace() for letter in key):
        raise UsageError(f"expected a key in {file}, received {'none' if not key else 'several words'}")
    return key


def _log_access() -> None:
    access = logging.getLogger("xlmr_core.serving.access")
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    access.addHandler(handler)
    access.setLevel(logging.INFO)
    access.propagate = False
