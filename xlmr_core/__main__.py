"""``python -m xlmr_core`` is the ``xlmr`` command."""

# PYTHON_ARGCOMPLETE_OK, a mark that argcomplete looks for (``cli/completion.py``)

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
