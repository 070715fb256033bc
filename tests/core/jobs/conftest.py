"""Where jobs run in these tests, and on what."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.fake_task import ROW
from xlmr_core.jobs import job as jobs
from xlmr_core.tasks import TASKS


@pytest.fixture(autouse=True)
def task(monkeypatch):
    monkeypatch.setitem(TASKS, ROW.name, ROW)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def texts(here, monkeypatch):
    """Ten rows in windows of four, one of them bad."""
    monkeypatch.setattr(jobs, "WINDOW", 4)
    Path("in.txt").write_text("".join(f"{'a' * number}\n" for number in range(1, 11)).replace("aaaaaa\n", "?\n", 1))
    return here
