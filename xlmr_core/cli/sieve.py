"""Standard input to standard error, without what a framework tells of its start.

It runs as a program of its own (``terminal.quietly``), so that the last words of a process that crashes come through.
"""

from __future__ import annotations

import re
import sys

__all__ = ["STARTING"]

# How TensorFlow's C++ libraries log: a letter for the severity and the date, or the other way round. Of errors only
# those that say in other words that there is no GPU: no driver is installed, and a library is registered twice.
STARTING = re.compile(
    rb"^(WARNING: All log messages before absl::InitializeLog\(\)"
    rb"|[IW]\d{4} "
    rb"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IW] "
    rb"|To enable the following instructions: "
    rb"|.*\bfailed call to cuInit: .*\(303\)"
    rb"|.*\bUnable to register cu\w+ factory)"
)


def main() -> None:
    """Pass on line by line."""
    for line in sys.stdin.buffer:
        if not STARTING.match(line):
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()


if __name__ == "__main__":
    main()
