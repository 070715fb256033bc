"""Vectors and ranking: recorded calls of the published classes, one of each kind."""

from __future__ import annotations

import json
from functools import cache

import pytest

import xlmr_tf
from tests.recorded_calls import FEW_PUBLISHED, ask_published


@cache
def made(kind, folder, arguments):
    return getattr(xlmr_tf, kind)(folder, **json.loads(arguments))


@pytest.mark.parametrize(("name", "number"), FEW_PUBLISHED)
def test_recorded_call(name, number, shared):
    ask_published(made, shared / "fixtures" / "tasks" / name, number)
