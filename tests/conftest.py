"""What all tests share: where the recorded fixtures and the data are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recorded fixtures and data: ``$XLMR_SHARED``, by default ``../shared`` beside the checkout."""
    folder = Path(os.environ.get("XLMR_SHARED", ROOT.parent / "shared"))
    if not (folder / "fixtures").is_dir():
        pytest.skip(f"no shared fixtures at {folder}; set XLMR_SHARED to the folder that holds fixtures/ and data/")
    return folder
