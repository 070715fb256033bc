"""The live oracle needs transformers, which no other test may need: it runs only when its folder is named."""

from __future__ import annotations

collect_ignore = ["oracle"]


def pytest_report_header() -> str:
    return "tests/parity/oracle: live comparison with transformers, only in nox -s oracle-4 and nox -s oracle-5"
