"""What a hub answers, or does not: waited for so long, and said in a sentence."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from xlmr_core.wording import seen, shown

__all__ = ["PATIENCE", "first_line", "is_left_alone", "within_patience"]

T = TypeVar("T")

# Seconds in which nothing comes. The hub's package asks again several times, which takes it longer.
PATIENCE = 30.0
# Of weights that are on their way, of which the hub's package may keep a large piece back until it is whole.
PATIENCE_OF_PIECES = 300.0
_LARGE = 1 << 20
# Bytes a second of a connection that sends.
_SLOWEST = 1 << 16
_NAME = "xlmr-hub"


class Silence(Exception):
    """A hub from which nothing came for so long."""


def first_line(error: BaseException) -> str:
    """What an error of whatever library says, in a few words."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shown(seen(lines[0]), 300, quoted=False).rstrip(".") if lines else type(error).__name__


def is_left_alone() -> bool:
    """Whether a question to the hub is still open that nobody waits for."""
    return any(thread.name == _NAME for thread in threading.enumerate())


def within_patience(ask: Callable[[], T], folder: Path | None = None, *, nbytes: int = 0) -> T:
    """What a question to the hub returns or raises.

    Args:
        ask: it, which runs in a thread that is left alone if it takes too long.
        folder: where files appear as they come; as long as they grow there is patience.
        nbytes: that are sent with it, for which there is patience too.

    Raises:
        Silence: if nothing came for ``PATIENCE``.
    """
    answers: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(ask())
        except BaseException as error:  # raised again where it was asked
            errors.append(error)

    thread = threading.Thread(target=run, name=_NAME, daemon=True)
    thread.start()
    last, since = _arrived(folder), time.monotonic()
    while thread.is_alive():
        thread.join(0.5 if time.monotonic() - since > 1 else 0.02)
        now = _arrived(folder)
        if now != last:
            last, since = now, time.monotonic()
        patience = (PATIENCE_OF_PIECES if now[1] >= _LARGE else PATIENCE) + nbytes / _SLOWEST
        if thread.is_alive() and time.monotonic() - since > patience:
            raise Silence(f"nothing came for {patience:.0f} s")
    if errors:
        raise errors[0]
    return answers[0]


def _arrived(folder: Path | None) -> tuple[int, int]:
    """The size of the files that are there, in kilobytes, and the bytes of the largest on its way."""
    if folder is None:
        return 0, 0
    sizes, largest = 0, 0
    try:
        for path in (folder / "blobs").iterdir():
            size = path.lstat().st_size
            sizes += 1 + (size >> 10)
            largest = max(largest, size if path.name.endswith(".incomplete") else 0)
    except OSError:
        pass
    return sizes, largest
