"""The pages that use this backend run, on a shorter model; how is in ``tests/pages.py``."""

from __future__ import annotations

import pytest

pytest.importorskip("jax", reason="needs the extra flax: pip install 'xlmr[flax]'")

from tests.pages import one_layer_mini, pages, run_page


@pytest.mark.parametrize("page", pages("flax"))
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    one_layer_mini(tmp_path, monkeypatch)
    run_page(page, tmp_path, "flax")
