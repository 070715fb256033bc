"""The recipes of Keras and Flax are those of PyTorch: so the suite need not take the first steps of each of them."""

from __future__ import annotations

from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NOUNS = {"tf": ("Keras", "xlmr_tf"), "flax": ("Flax", "xlmr_flax")}
# torchrun starts a script several times, and what comes after the training is done once.
IN_SEVERAL = ' or os.environ.get("RANK", "0") != "0":  # it was stopped, or the first process goes on alone\n'
ALONE = ":  # it was stopped, and the same call goes on\n"


@pytest.mark.parametrize("backend", NOUNS)
def test_recipes_differ_in_nouns_alone(backend: str) -> None:
    name, package = NOUNS[backend]
    expected = {}
    for path in (EXAMPLES / "torch").glob("*.py"):
        text = path.read_text(encoding="utf-8").replace("With PyTorch.", f"With {name}.").replace(IN_SEVERAL, ALONE)
        expected[path.name] = text.replace("examples/torch/", f"examples/{backend}/").replace("xlmr_torch", package)
    found = {path.name: path.read_text(encoding="utf-8") for path in (EXAMPLES / backend).glob("*.py")}
    assert found.keys() == expected.keys()
    for file, text in found.items():
        assert text == expected[file], file
