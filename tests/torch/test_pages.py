"""The pages that use this backend run; how is in ``tests/pages.py``."""

from __future__ import annotations

import pytest

from tests.pages import pages, run_page


# PyTorch's own compiler trips over its own deprecations when it is imported.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")
@pytest.mark.parametrize("page", pages("torch"))
def test_the_blocks_of_a_page_run(page, tmp_path):
    run_page(page, tmp_path, "torch")
