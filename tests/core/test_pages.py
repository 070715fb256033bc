"""What the README and the documents show is true: their blocks run, their links lead somewhere.

How a page is run, and what its blocks may be, stands in ``tests/pages.py``.
"""

from __future__ import annotations

import re
import subprocess

import pytest

from tests import pages
from tests.pages import ROOT, SHOWN, Block, backend_of, blocks, commands, compare, run_blocks

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", pages.pages("core"))
def test_the_blocks_of_a_page_run(page, tmp_path):
    pages.run_page(page, tmp_path)


@pytest.mark.parametrize("path", pages.folder_of_pages(), ids=lambda path: path.name)
def test_every_block_has_a_runner_or_is_shown_only(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n```") == 2 * len(re.findall(r"^```\w*$.*?^```$", text, flags=re.M | re.S))
    for block in blocks(text):
        assert block.kind in (*pages.RUN, *SHOWN), f"line {block.line}: {block.kind!r}"
    assert backend_of(text) in ("core", "torch", "tf", "flax")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in [*re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text), *re.findall(r'(?:src|href)="([^"#]+)"', text)]:
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_into_a_page_find_their_heading(page):
    for target, heading in re.findall(r"\]\(([^):]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
        text = (page.parent / target if target else page).read_text(encoding="utf-8")
        titles = re.findall(r"^#+ (.*)$", text, flags=re.M)
        assert heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_has_the_two_commands():
    for name in ("answer", "test"):
        assert f"<!-- command: {name} -->\n```sh\n" in README


def test_nothing_is_installed_from_an_index_that_does_not_have_it():
    for page in PAGES:
        for line in page.read_text(encoding="utf-8").splitlines():
            assert not re.search(r"pip install [^`]*(?<![./\w-])'?xlmr\b", line), f"{page.name}: {line}"


def test_the_ci_script_finds_both_commands():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    function = re.search(r"^readme_command\(\) \{.*?^\}", script, flags=re.MULTILINE | re.DOTALL).group()
    for name, fragment in (("answer", "xlmr run --task fill-mask"), ("test", ".venv/bin/nox")):
        bash = ["bash", "-c", f"{function}\nreadme_command {name}"]
        found = subprocess.run(bash, cwd=ROOT, capture_output=True, check=True, text=True).stdout
        assert found.startswith("python3 -m venv .venv")
        assert found.rstrip().endswith(fragment)


# ---- The mechanism itself

PAGE = """\
```python
word = "one"
print(word, 2)
```

```text
one ...
```

<!-- not run: needs a TPU -->
```python
from xlmr_tf import nothing
```

```console
$ xlmr --version
xlmr ...
$ echo '"a b"' | \\
    xlmr doctor nowhere
xlmr: error: ...nowhere...
```
"""


def test_blocks_are_read_with_their_outputs():
    python, tpu, console = blocks(PAGE)
    assert python == Block("python", 'word = "one"\nprint(word, 2)\n', 2, output="one ...\n")
    assert (tpu.spared, tpu.runs, console.line) == ("needs a TPU", False, 16)
    assert list(commands(console)) == [
        ("xlmr --version", "xlmr ...\n"),
        ("echo '\"a b\"' |      xlmr doctor nowhere", "xlmr: error: ...nowhere...\n"),
    ]


def test_a_page_runs_from_its_first_line_to_its_last(tmp_path):
    run_blocks(PAGE, ROOT / "page.md", tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        ("one ...", "two ..."),  # something else is shown
        ("```text\none ...\n```\n", ""),  # nothing is shown
        ("print(word, 2)", "1 / 0"),
        ("xlmr ...\n$", "xlmr, version ...\n$"),
        ("xlmr: error: ...nowhere...\n", ""),
        ("$ xlmr --version", "$ rm --version"),
    ],
)
def test_a_page_that_says_something_untrue_is_found(damage, tmp_path):
    damaged = PAGE.replace(*damage)
    assert damaged != PAGE
    with pytest.raises((AssertionError, ZeroDivisionError)):
        run_blocks(damaged, ROOT / "page.md", tmp_path)


def test_a_page_belongs_to_one_backend():
    assert backend_of(PAGE) == "core"
    assert backend_of("```python\nfrom xlmr_flax.packing import Packing\n```\n") == "flax"
    assert backend_of("```console\n$ echo a | xlmr run --task fill-mask\n```\n") == "torch"
    with pytest.raises(AssertionError, match="one backend"):
        backend_of("```python\nfrom xlmr_torch import pipeline\nfrom xlmr_tf import pipeline\n```\n")


def test_outputs_are_compared_but_for_dots_and_white_space():
    compare("a  1.25\n", "a ...\n", "here")
    with pytest.raises(AssertionError, match="here shows"):
        compare("a", "", "here")
