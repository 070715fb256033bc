"""``python -m xlmr_core`` is the ``xlmr`` command."""

from __future__ import annotations

import sys

from xlmr_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
