"""The table of what fails (``failures.toml``), held to the letter: a failure without a row, a row whose test passes, is
skipped or is not there, and a reason of no known kind each make the run red.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

TABLE = Path(__file__).with_name("failures.toml")
ROWS = pytest.StashKey[dict[str, str]]()


def read_table() -> tuple[tuple[str, ...], dict[str, dict[str, str]]]:
    """The kinds of reasons, and for each file of tests its rows: a test to its reason."""
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    return tuple(table.pop("kinds")), table


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kinds, table = read_table()
    for name, rows in table.items():
        for test, reason in rows.items():
            if not reason.startswith(tuple(f"{kind}: " for kind in kinds)):
                raise pytest.UsageError(f"{TABLE.name}: [{name}] {test}: a reason begins with one of {kinds}")
    config.stash[ROWS] = {}
    for item in items:
        rows = table.get(item.path.stem.removeprefix("test_"), {})
        if item.name in rows:
            config.stash[ROWS][item.nodeid] = rows[item.name]
            item.add_marker(pytest.mark.xfail(reason=rows[item.name], strict=True))
    if config.option.keyword or any("::" in argument for argument in config.args):
        return  # some tests only
    names = {item.name for item in items}
    for name in {item.path.stem.removeprefix("test_") for item in items} & table.keys():
        if unknown := sorted(table[name].keys() - names):
            raise pytest.UsageError(f"{TABLE.name}: [{name}] has rows of tests that are not there: {unknown}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    report = yield
    if item.nodeid in item.config.stash[ROWS] and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, but {TABLE.name} has a row for it: {item.config.stash[ROWS][item.nodeid]}"
    return report
