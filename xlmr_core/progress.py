"""Progress on standard error through tqdm: how much is done, how fast, and how long it will still take."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Any

__all__ = ["ProgressBar", "silence_downloads", "stepping_aside"]

BYTES = "B"
# Seconds between two states of a bar that is wanted where no terminal is.
SELDOM = 5.0
# Read by the package that downloads.
NO_BARS_OF_DOWNLOADS = "HF_HUB_DISABLE_PROGRESS_BARS"


class ProgressBar:
    """Shows how much of a long piece of work is done. Use it in a ``with`` statement.

    Args:
        wanted: ``None`` shows it where standard error is a terminal.
        unit: what is counted.
        after: seconds that work takes before it counts as long.
    """

    def __init__(self, wanted: bool | None = None, unit: str = BYTES, after: float = 0) -> None:
        terminal = sys.stderr is not None and sys.stderr.isatty()
        self._wanted = terminal if wanted is None else wanted and sys.stderr is not None
        self._every = 0.1 if terminal else SELDOM
        self._unit = unit
        self._after = after
        self._what = ""
        self._bar: Any = None

    def __call__(self, what: str, done: int, total: int | None, before: int = 0, beside: str = "") -> None:
        """Tell it what is being done, how much of it is done, and how much there is, if that is known.

        What was done ``before`` it began is part of that, but says nothing about how fast it goes. What stands
        ``beside`` the bar is shown as it is.
        """
        if not self._wanted:
            return
        if what != self._what or done < self._bar.n:
            self.close()
            self._what, self._bar = what, self._started(what, total, before)
        if beside:
            self._bar.set_postfix_str(beside, refresh=False)
        self._bar.update(done - self._bar.n)

    def _started(self, what: str, total: int | None, before: int) -> Any:
        from tqdm import tqdm

        return tqdm(
            desc=what,
            total=total,
            initial=before,
            unit=self._unit,
            unit_scale=self._unit == BYTES,
            mininterval=self._every,
            delay=self._after,
            dynamic_ncols=True,
            file=sys.stderr,
        )

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
            self._what, self._bar = "", None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def silence_downloads() -> None:
    """Let the hub's package show no bars either."""
    os.environ.setdefault(NO_BARS_OF_DOWNLOADS, "1")


@contextlib.contextmanager
def stepping_aside() -> Iterator[None]:
    """Bars, ours and those of a download, are away while something else is written."""
    if "tqdm" not in sys.modules:
        yield
        return
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stderr):
        yield
