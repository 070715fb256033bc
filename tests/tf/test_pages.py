"""The pages that use this backend run, on a shorter model; how is in ``tests/pages.py``."""

from __future__ import annotations

import pytest

pytest.importorskip("tensorflow", reason="needs the extra tf: pip install 'xlmr[tf]'")

from tests.pages import one_layer_mini, pages, run_page


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated:UserWarning")
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")  # the default of fit, also for datasets
@pytest.mark.parametrize("page", pages("tf"))
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    one_layer_mini(tmp_path, monkeypatch)
    run_page(page, tmp_path, "tf")
