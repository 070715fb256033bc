"""What the README and the documents show is true: their blocks run, their links lead somewhere.

How a page is run, and what its blocks may be, stands in ``tests/pages.py``.
"""

from __future__ import annotations

import re
import subprocess

import pytest

from tests import pages
from tests.pages import ROOT, SHOWN, STAND_INS, Block, backends_of, blocks, blocks_of, commands, compare, run_blocks
from xlmr_core.tasks import ALIASES, TASKS

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", pages.pages("core"))
def test_the_blocks_of_a_page_run(page, tmp_path):
    pages.run_page(page, tmp_path, "core")


@pytest.mark.parametrize("path", pages.folder_of_pages(), ids=lambda path: path.name)
def test_every_block_has_a_runner_or_is_shown_only(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n```") == 2 * len(re.findall(r"^```\w*$.*?^```$", text, flags=re.M | re.S))
    for block in blocks(text):
        assert block.kind in (*pages.RUN, *SHOWN), f"line {block.line}: {block.kind!r}"
    assert set(backends_of(text)) <= {"core", "torch", "tf", "flax"}


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
        assert fragment in found


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
    run_blocks(blocks_of(PAGE, "core"), ROOT / "page.md", tmp_path)


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
        run_blocks(blocks_of(damaged, "core"), ROOT / "page.md", tmp_path)


THREE = """\
```python
word = "before any"
```

```python
from xlmr_tf import pipeline
```

```console
$ xlmr run --task fill-mask --backend jax TEXT
$ xlmr run --backend flax \\
    --task fill-mask
```

```console
$ echo a | xlmr run --task fill-mask
$ xlmr inspect a
```

```python
word = "after it"
```
"""


def test_a_block_belongs_to_a_backend():
    assert backends_of(PAGE) == ["core"] and blocks_of(PAGE, "core") == [block for block in blocks(PAGE) if block.runs]
    assert backends_of(THREE) == ["tf", "flax", "torch"]
    lines = {
        backend: [block.line for block in blocks_of(THREE, backend)] for backend in ("tf", "flax", "torch", "core")
    }
    assert lines == {"tf": [2, 6], "flax": [10], "torch": [16, 21], "core": []}
    for text in (
        "```python\nfrom xlmr_torch import pipeline\nfrom xlmr_tf import pipeline\n```\n",
        "```console\n$ xlmr run a --backend tf\n$ xlmr run a\n```\n",
    ):
        with pytest.raises(AssertionError, match="one backend"):
            backends_of(text)


def test_outputs_are_compared_but_for_dots_and_white_space():
    compare("a  1.25\n", "a ...\n", "here")
    with pytest.raises(AssertionError, match="here shows"):
        compare("a", "", "here")


def test_values_of_a_literal_may_be_left_out_and_its_shape_not():
    shown = "[{'label': ..., 'score': 0.5}, (...,)]\n3\n"
    compare("[{'label': 'x', 'score': 0.5}, (1,)]\n3\n", shown, "here")
    for printed in (
        "[{'label': 'x', 'score': 0.5}, (1, 2)]\n3\n",
        "[{'label': ['x'], 'score': 0.5}, (1,)]\n3\n",
        "[{'label': 'x', 'points': 0.5}, (1,)]\n3\n",
        "[{'label': 'x', 'score': 0.7}, (1,)]\n3\n",
        "[{'label': 'x', 'score': 0.5}, (1,), {'label': 'x', 'score': 0.5}, (1,)]\n3\n",
        "[{'label': 'x', 'score': 0.5}, [1]]\n3\n",
    ):
        with pytest.raises(AssertionError, match="here shows"):
            compare(printed, shown, "here")


def test_every_model_that_is_recommended_has_a_stand_in():
    recommended = {name for row in (*TASKS.values(), *ALIASES.values()) for name in row.hub}
    assert recommended <= set(STAND_INS)
