"""The one door to the terminal: what commands print, what they say on standard error, and what libraries say there.

Names and texts from files are shown with their control characters written out, so that no file speaks to the terminal.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from typing import TextIO

from xlmr_core.cli import sieve
from xlmr_core.progress import stepping_aside
from xlmr_core.wording import seen, seen_in_json

__all__ = ["print_json", "quietly", "say", "show", "speaking"]

# The backends whose frameworks tell of their start, and the variable with which a user says how much to hear of it.
TALKATIVE = ("tf",)
LOG_LEVEL, ERRORS_ONLY = "TF_CPP_MIN_LOG_LEVEL", "2"
# Whose log messages are shown.
PACKAGES = ("xlmr_core", "xlmr_torch", "xlmr_tf", "xlmr_flax")
# A narrower terminal breaks the lines itself.
LEAST_WIDTH = 40


def say(kind: str, text: str) -> None:
    """Say something on standard error, such as ``xlmr: error: ...``; ``kind`` may be empty. What stands in further
    lines is indented, as only what the command says begins at the left.
    """
    if sys.stderr is None:
        return
    words = seen(text, lines=True).replace("\n", "\n  ")
    with stepping_aside(), contextlib.suppress(OSError):  # nobody is there to be told
        print(f"xlmr: {kind + ': ' if kind else ''}{words}", file=sys.stderr, flush=True)


def show(text: str = "", indent: int = 0) -> None:
    """Print a line. On a terminal it is wrapped, and what follows its first row is indented."""
    text = seen(text)
    if text and sys.stdout.isatty():
        width = max(LEAST_WIDTH, shutil.get_terminal_size().columns)
        lead = len(text) - len(text.lstrip())
        rows = textwrap.wrap(
            text[lead:],
            width,
            initial_indent=" " * lead,
            subsequent_indent=" " * max(lead, indent),
            break_long_words=False,
            break_on_hyphens=False,
        )
        text = "\n".join(rows)
    print(text)


def print_json(text: str) -> None:
    """Print JSON, for programs or for people."""
    print(seen_in_json(text))


@contextlib.contextmanager
def speaking() -> Iterator[None]:
    """While a command runs: UTF-8 on both streams, and warnings and log messages as sentences of ``say``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")
    handler = _Handler()
    loggers = [logging.getLogger(name) for name in PACKAGES]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


@contextlib.contextmanager
def quietly(*backends: str) -> Iterator[None]:
    """While these backends run: nothing of their frameworks' start on standard error, unless the user set the level.

    The variable alone is not enough, as TensorFlow 2.21 writes before it looks: what comes through the descriptor goes
    through a sieve, and what Python says goes past it.
    """
    if not set(backends) & set(TALKATIVE) or LOG_LEVEL in os.environ or not _is_standard_error(sys.stderr):
        yield
        return
    os.environ[LOG_LEVEL] = ERRORS_ONLY
    own, kept = sys.stderr, os.dup(2)
    program = [sys.executable, "-I", sieve.__file__]
    sifting = subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=kept, start_new_session=True
    )
    assert sifting.stdin is not None
    own.flush()
    os.dup2(sifting.stdin.fileno(), 2)
    sifting.stdin.close()
    # Handlers that libraries make in the meantime keep it, so it is never closed.
    sys.stderr = open(kept, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    try:
        yield
    finally:
        sys.stderr.flush()
        sys.stderr = own
        os.dup2(kept, 2)
        with contextlib.suppress(subprocess.TimeoutExpired):  # a process that was left behind may hold the other end
            sifting.wait(timeout=5)
        del os.environ[LOG_LEVEL]


def _is_standard_error(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.fileno() == 2
    except (OSError, ValueError):
        return False


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    say("warning", " ".join(str(message).split()))


class _Handler(logging.Handler):
    """Log messages of this library as the command says things, each once however many lines it is true of."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = seen(record.getMessage())
        if text not in self._said:
            self._said.add(text)
            say(record.levelname.lower(), text)
