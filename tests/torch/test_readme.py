"""What the README and the documents show is true: their Python runs, their links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import warnings
from pathlib import Path

import pytest

from xlmr_core.checkpoints.load_plan import LoadWarning

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN = README + "".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in ("speed.md", "torch.md"))
BLOCKS = re.findall(r"^```python\n(.*?)^```", SHOWN, flags=re.MULTILINE | re.DOTALL)


# PyTorch's own compiler trips over its own deprecations when it is imported.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")
@pytest.mark.parametrize("block", BLOCKS)
def test_python_on_the_pages_runs(block):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LoadWarning)  # a head that starts fresh says so, as it should
        exec(compile(block, "README.md", "exec"), {})


def test_the_readme_has_python_and_commands_to_check():
    assert len(BLOCKS) >= 7
    for name in ("answer", "test"):
        assert f"<!-- command: {name} -->\n```sh\n" in README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_ci_script_finds_both_commands():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    function = re.search(r"^readme_command\(\) \{.*?^\}", script, flags=re.MULTILINE | re.DOTALL).group()
    for name, fragment in (("answer", "xlmr run --task fill-mask"), ("test", ".venv/bin/nox")):
        bash = ["bash", "-c", f"{function}\nreadme_command {name}"]
        found = subprocess.run(bash, cwd=ROOT, capture_output=True, check=True, text=True).stdout
        assert found.startswith("python3 -m venv .venv")
        assert found.rstrip().endswith(fragment)
