"""The pages run: README and docs, block after block as a reader would, and what a page shows is what comes out.

| fence | what happens |
| --- | --- |
| ``python`` | runs, in one namespace a page; a ``text`` block right behind it is what it prints |
| ``console`` | each ``$ xlmr ...`` or ``$ echo TEXT | xlmr ...`` runs in this process; below it stands what it prints |
| ``sh``, ``json``, ``diff``, ``text`` | is shown only |

``...`` in an output stands for anything, and white space for white space; where a line is a Python literal, ``...`` is
one value in it, and keys and lengths are compared. A block that prints shows it. A line ``<!-- not run: REASON -->``
above a block spares it.

A block runs in the tests of the backend that it imports or that ``xlmr run`` asks for (PyTorch where it says none). One
that names none goes with the block before it, those before the first that does with that one; a page without any runs
in the tests of the core. Nothing has to be listed.

A model of the hub is represented by a tiny checkpoint with its head (``STAND_INS``).
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import io
import json
import os
import re
import shlex
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from xlmr_core import hub
from xlmr_core.backends import find_backend
from xlmr_core.checkpoints.load_plan import LoadWarning
from xlmr_core.cli import main

__all__ = [
    *("STAND_INS", "Block", "backends_of", "blocks", "blocks_of", "folder_of_pages", "one_layer_mini", "pages"),
    "run_page",
]

ROOT = Path(__file__).resolve().parent.parent
# Models of the hub that pages name, and the folder of fixtures/tasks that answers in their place.
STAND_INS = {
    "FacebookAI/xlm-roberta-base": "fill_mask",
    "cardiffnlp/twitter-xlm-roberta-base-sentiment": "text_classification",
    "papluca/xlm-roberta-base-language-detection": "text_classification",
    "joeddav/xlm-roberta-large-xnli": "zero_shot_entail2",
    "Davlan/xlm-roberta-base-ner-hrl": "token_classification",
    "deepset/xlm-roberta-base-squad2": "question_answering",
    "BAAI/bge-m3": "bge_m3",
    "BAAI/bge-reranker-v2-m3": "cross_encoder",
    "intfloat/multilingual-e5-base": "st_mean",
    "you/your-multiple-choice-model": "multiple_choice",
    "you/your-decoder": "text_generation",
}
RUN = ("python", "console")
SHOWN = ("sh", "json", "diff", "text")
FENCE = re.compile(r"^(?:<!-- not run: (?P<why>[^\n]+) -->\n)?```(?P<kind>[^\n]*)\n(?P<text>.*?)^```$", re.M | re.S)
COMMAND = re.compile(r"^\$ (?P<command>(?:[^\n]*\\\n)*[^\n]*)\n?(?P<output>(?:(?!\$ )[^\n]*\n)*)", re.M)
IMPORT = re.compile(r"\bfrom xlmr_(torch|tf|flax)\b")
ASKED = re.compile(r"--backend[ =](\w+)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        kind: the word behind its fence.
        text: what stands in it.
        line: the number of its first line in the page.
        spared: why it is not run; empty if it is.
        output: what the page shows of what it prints.
    """

    kind: str
    text: str
    line: int
    spared: str = ""
    output: str = ""

    @property
    def runs(self) -> bool:
        return self.kind in RUN and not self.spared


def blocks(page: str) -> list[Block]:
    """The blocks of a page; the output of one is a part of it."""
    found: list[Block] = []
    end = 0
    for match in FENCE.finditer(page):
        line = page.count("\n", 0, match.start("text")) + 1
        block = Block(match["kind"], match["text"], line, match["why"] or "")
        follows = found and not page[end : match.start()].strip()
        if block.kind == "text" and follows and found[-1].kind == "python":
            found[-1] = Block(found[-1].kind, found[-1].text, found[-1].line, found[-1].spared, block.text)
        else:
            found.append(block)
        end = match.end()
    return found


def backends_of(page: str) -> list[str]:
    """Whose tests run blocks of a page: of ``torch``, ``tf``, ``flax``, or else ``core`` alone."""
    running = [block for block in blocks(page) if block.runs]
    return list(dict.fromkeys(filter(None, map(_named, running)))) or ["core"]


def blocks_of(page: str, backend: str) -> list[Block]:
    """The blocks of a page that the tests of a backend run."""
    current, found = backends_of(page)[0], []
    for block in blocks(page):
        if block.runs:
            current = _named(block) or current
            found += [block] if current == backend else []
    return found


def _named(block: Block) -> str:
    """The backend that a block names; empty if it names none."""
    if block.kind == "python":
        named = set(IMPORT.findall(block.text))
    else:
        runs = [ASKED.search(command) for command, _ in commands(block) if re.search(r"\bxlmr run\b", command)]
        found = {find_backend(asked[1] if asked else "torch") for asked in runs}
        named = {"core" if name == "onnx" else name for name in found}  # which needs no framework
    assert len(named) <= 1, f"line {block.line}: expected a block to use one backend, received {sorted(named)}"
    return named.pop() if named else ""


def folder_of_pages() -> list[Path]:
    """Every page that a reader is sent to."""
    return [ROOT / "README.md", ROOT / "DEVELOP.md", *sorted((ROOT / "docs").rglob("*.md"))]


def pages(backend: str) -> list[str]:
    """The pages that the tests of a backend run, by their path in the checkout."""
    texts = {path: path.read_text(encoding="utf-8") for path in folder_of_pages()}
    return [path.relative_to(ROOT).as_posix() for path, text in texts.items() if blocks_of(text, backend)]


def run_page(path: str, folder: Path, backend: str) -> None:
    """Run a backend's blocks of a page in a folder, which becomes the working directory meanwhile.

    Raises:
        AssertionError: where something else is printed than the page shows.
    """
    with stand_ins():
        run_blocks(blocks_of((ROOT / path).read_text(encoding="utf-8"), backend), ROOT / path, folder)


@contextlib.contextmanager
def stand_ins() -> Iterator[None]:
    """Meanwhile the models of ``STAND_INS`` are there by their names."""
    shared, fetch = Path(os.environ.get("XLMR_SHARED", ROOT.parent / "shared")), hub._fetch

    def fetch_here(name: str, *how: Any) -> Path:
        folder = shared / "fixtures" / "tasks" / STAND_INS.get(name, "none")
        if name in STAND_INS and not folder.is_dir():
            pytest.skip(f"no shared fixtures at {shared}")
        return folder if name in STAND_INS else fetch(name, *how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub, "_fetch", fetch_here)
        yield


def one_layer_mini(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``xlmr-mini`` be its first layer alone, in a folder beside the page's own.

    Each further layer is the same graph once more, which a page that compiles a step five times waits for five times.
    """
    source, copy = hub.resolve("xlmr-mini"), folder / "built-in" / "xlmr-mini"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("*.md", "evaluation.json"))
    tensors = load_file(copy / "model.safetensors")
    first = {name: tensor for name, tensor in tensors.items() if not re.search(r"\.layer\.[1-9]", name)}
    save_file(first, copy / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    (copy / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}), encoding="utf-8")
    monkeypatch.setattr(hub, "_BUILT_IN_FOLDERS", (copy.parent,))


def run_blocks(running: Sequence[Block], path: Path, folder: Path) -> None:
    """Run blocks of a page, one after the other."""
    names: dict[str, object] = {"__name__": "__main__"}
    with contextlib.chdir(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore", LoadWarning)  # a head that starts fresh says so, as it should
        for block in running:
            where = f"{path}:{block.line}"
            if block.kind == "python":
                compare(_python(block, path, names), block.output, where)
            else:
                for command, output in commands(block):
                    compare(console(command, folder), output, f"{where}: {command}")


def _python(block: Block, path: Path, names: dict[str, object]) -> str:
    # At its own place in the page, so that a traceback shows the page's line.
    code = compile("\n" * (block.line - 1) + block.text, str(path), "exec")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, names)
    return printed.getvalue()


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with what is shown below it."""
    assert block.text.startswith("$ "), f"line {block.line}: expected a console block to begin with a command"
    for match in COMMAND.finditer(block.text):
        yield match["command"].replace("\\\n", " "), match["output"]


def console(command: str, folder: Path) -> str:
    """Run ``xlmr ...``, or ``echo TEXT | xlmr ...``, in this process; what it prints, errors too."""
    words = shlex.split(command)
    given = b""
    if "|" in words:
        bar = words.index("|")
        first, words = words[:bar], words[bar + 1 :]
        assert first[0] == "echo", f"expected echo before a bar, received {command!r}"
        given = " ".join(first[1:]).encode() + b"\n"
    assert words[0] == "xlmr", f"expected a command of xlmr, received {command!r}"
    source = folder / ".stdin"
    source.write_bytes(given)
    before = sys.stdin
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="")
    with source.open(encoding="utf-8") as sys.stdin, contextlib.redirect_stdout(printed):
        try:
            with contextlib.redirect_stderr(printed):
                main(words[1:])
        except SystemExit:  # of argparse, after --help and --version
            pass
        finally:
            sys.stdin = before
            os.remove(source)
    printed.flush()
    return printed.buffer.getvalue().decode("utf-8")  # type: ignore[attr-defined]


def compare(printed: str, shown: str, where: str) -> None:
    """What was printed is what is shown.

    Raises:
        AssertionError: naming the place, and both.
    """
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    same = doctest.OutputChecker().check_output(shown, printed, flags)
    values, found = literals(shown), literals(printed)
    if "..." in shown and values is not None and shown.strip() != "...":
        same = found is not None and same_shape(values, found)
    assert same if shown.strip() else not printed.strip(), f"{where} shows\n{shown}\nand prints\n{printed}"


def literals(text: str) -> list[Any] | None:
    """What each line stands for, if all of them are Python literals as a program prints them, not indented."""
    if any(line[:1].isspace() for line in text.splitlines()):
        return None
    try:
        return [ast.literal_eval(line) for line in text.splitlines()]
    except (ValueError, SyntaxError):
        return None


def same_shape(shown: Any, printed: Any) -> bool:
    """Whether keys, lengths and types agree, and values too; ``...`` is any value that holds no others."""
    if shown is ...:
        return not isinstance(printed, dict | list | tuple)
    if isinstance(shown, dict | list | tuple):
        if type(shown) is not type(printed) or len(shown) != len(printed):
            return False
        if isinstance(shown, dict):
            return list(shown) == list(printed) and same_shape([*shown.values()], [*printed.values()])
        return all(map(same_shape, shown, printed))
    return bool(shown == printed)
