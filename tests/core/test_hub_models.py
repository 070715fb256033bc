"""The README's table of models: it says what is known, and a twin of each model that it says is loaded does load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.core.hub_models import HUB_MODELS, HubModel, make_twin
from tests.pages import ROOT
from xlmr_core.config import AutoConfig
from xlmr_core.heads import model_class_name
from xlmr_core.inspection import inspect_model
from xlmr_core.tokenization import AutoTokenizer

README = (ROOT / "README.md").read_text(encoding="utf-8")
TWINS = [model for model in HUB_MODELS if model.checked == "twin"]


def test_the_table_of_the_readme_has_these_rows_and_no_others() -> None:
    rows = re.findall(r"^\| (`[\w.-]+/[^|]+) \| `(\w+)` \| [^|]* \| (\w+) \|$", README, flags=re.M)
    listed = [(re.findall(r"`([^`]+)`", names), head, checked) for names, head, checked in rows]
    expected = [
        (list(model.names), ("XLMRobertaXL" if model.family == "xl" else "XLMRoberta") + model.head, model.checked)
        for model in HUB_MODELS
    ]
    assert listed == expected


@pytest.mark.parametrize("model", TWINS, ids=lambda model: model.names[0])
def test_a_twin_loads_whole(model: HubModel, tmp_path: Path) -> None:
    make_twin(model, tmp_path)
    found = inspect_model(tmp_path)
    assert found.architecture == model_class_name(AutoConfig.from_pretrained(tmp_path), model.head)
    assert (found.missing, found.unexpected, found.mismatched, found.problem) == ((), (), (), "")
    assert found.format == model.format
    assert AutoTokenizer.from_pretrained(tmp_path)("a")["input_ids"]


@pytest.mark.parametrize("model", [model for model in HUB_MODELS if model.recorded], ids=lambda model: model.names[0])
def test_what_is_recorded_has_recordings(model: HubModel, shared: Path) -> None:
    folder = shared / "fixtures" / model.recorded
    assert (folder / "expected.npz").exists()
    assert inspect_model(folder).head == model.head
