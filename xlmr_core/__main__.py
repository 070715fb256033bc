"""``python -m xlmr_core`` is the ``xlmr`` command."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> int:
    """The ``xlmr`` command; quiet about Ctrl-C from its first moment, while it is still being imported."""
    try:
        from xlmr_core import cli

        return cli.main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
