"""Jobs over files: no interruption repeats or loses a row, and what the command makes of one."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.core.fake_task import ROW, TOKENIZER, FakeRunner
from tests.core.jobs.small_jobs import QUESTION, Interrupted, Vectors, counting, interrupting, lines, start
from xlmr_core import cli
from xlmr_core.cli import run as run_command
from xlmr_core.errors import InputError, JobError
from xlmr_core.jobs import job as jobs
from xlmr_core.jobs.answering import answer_each
from xlmr_core.jobs.compiling import COMPILED_FROM, compiled
from xlmr_core.tasks.pipeline import TRUNCATED, Pipeline

ROOT = Path(__file__).resolve().parents[3]
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX locks and signals")


# Going on

ALL = [
    {"row": n, "text": "?", "error": QUESTION} if n == 6 else {"row": n, "text": "a" * n, "answer": {"a": n}}
    for n in range(1, 11)
]


def interrupt(**how):
    with pytest.raises(Interrupted):
        start("in.txt", "out.jsonl", interrupting(after=1), **how)
    assert sorted(os.listdir()) == ["in.txt", "out.jsonl.xlmr-job"]


def test_an_interrupted_job_goes_on(texts):
    interrupt()
    said, made = [], []
    outcome = start(
        "in.txt", "out.jsonl", lambda rows, examples: made.append((rows, list(examples))) or counting(), said
    )
    assert said == ["goes on after row 4, 4 rows are done", f"row 6: {QUESTION}"]
    assert made == [(6, ["aaaaa", "?", "aaaaaaa", "aaaaaaaa"])]
    assert (outcome.rows, outcome.failed) == (10, 1)
    assert lines("out.jsonl") == ALL and sorted(os.listdir()) == ["in.txt", "out.jsonl"]


@pytest.mark.parametrize("tail", [b'{"row": 5, "gi', b"\0" * 40, b'{"row": 2}\n', b"\n"])
def test_what_is_no_whole_row_of_a_journal_is_cut_off(texts, tail):
    interrupt()
    with open("out.jsonl.xlmr-job", "ab") as file:
        file.write(tail)
    start("in.txt", "out.jsonl")
    assert lines("out.jsonl") == ALL


def test_a_changed_input_is_refused(texts):
    interrupt()
    before = Path("in.txt").read_bytes()
    Path("in.txt").write_bytes(before.replace(b"aaaaa\n", b"aaaab\n", 1))
    with pytest.raises(JobError) as refused:
        start("in.txt", "out.jsonl")
    assert str(refused.value) == (
        "in.txt is not the file that out.jsonl.xlmr-job was begun with (4 rows are done); bring that one back to "
        "go on, or pass restart=True to answer all rows of this one"
    )
    Path("in.txt").write_bytes(before)
    start("in.txt", "out.jsonl")
    assert lines("out.jsonl") == ALL


def test_an_input_that_changes_while_it_is_read_is_refused(texts):
    def make(rows, examples):
        with open("in.txt", "a") as file:
            file.write("more\n")
        return counting()

    with pytest.raises(JobError, match="in.txt was changed while it was read; pass restart=True"):
        start("in.txt", "out.jsonl", make)
    assert os.listdir() == ["in.txt"]


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (
            {"settings": {"model": "b"}},
            "another model, 'a', received 'b' (4 rows are done); go on with that",
        ),
        ({"settings": {"model": "a", "top_k": 3}}, "was begun with another top_k, None, received 3"),
    ],
)
def test_a_job_with_other_settings_is_refused_or_begun_anew(texts, how, told):
    interrupt(settings={"model": "a"})
    with pytest.raises(JobError) as refused:
        start("in.txt", "out.jsonl", **how)
    assert told in str(refused.value)
    said = []
    start("in.txt", "out.jsonl", said=said, restart=True, **how)
    assert said == [f"row 6: {QUESTION}"] and lines("out.jsonl") == ALL


def test_an_output_that_is_there_is_not_replaced_by_itself(texts):
    Path("out.jsonl").write_text("mine")
    with pytest.raises(JobError, match=r"^out.jsonl is there already; pass force=True to replace it, or "):
        start("in.txt", "out.jsonl")
    assert Path("out.jsonl").read_text() == "mine" and sorted(os.listdir()) == ["in.txt", "out.jsonl"]
    start("in.txt", "out.jsonl", force=True)
    assert lines("out.jsonl") == ALL


def test_an_output_that_appears_meanwhile_is_not_replaced_either(texts):
    with pytest.raises(JobError, match="is there already"):
        start("in.txt", "out.jsonl", lambda *rows: Path("out.jsonl").write_text("mine") and counting())
    assert Path("out.jsonl").read_text() == "mine"
    start("in.txt", "out.jsonl", make=None, force=True)
    assert lines("out.jsonl") == ALL


@pytest.mark.parametrize(
    ("input", "output", "told"),
    [
        ("none.txt", "out.jsonl", "cannot read none.txt: No such file or directory; check the name"),
        (".", "out.jsonl", "expected an input that ends in .txt, .csv, "),
        ("in.xlsx", "out.jsonl", "expected an input that ends in .txt, .csv, "),
        ("in.txt", "out.jsonlines", "received 'out.jsonlines'; did you mean '.jsonl'?"),
        ("in.txt", "none/out.jsonl", "expected a folder to write to, received 'none', which is none; make it first"),
        ("in.txt", "folder.csv", "expected a file to write, received the folder 'folder.csv'; name a file in it"),
        ("in.csv", "in.csv", "expected another output than the input, received 'in.csv' twice; rename it"),
    ],
)
def test_files_that_cannot_be_had_are_refused(texts, input, output, told):
    Path("folder.csv").mkdir()
    Path("in.csv").write_text("text\na\n")
    before = sorted(os.listdir())
    with pytest.raises(JobError) as refused:
        start(input, output)
    assert told in str(refused.value)
    assert sorted(os.listdir()) == before


@POSIX
def test_a_pipe_is_no_input(here):
    os.mkfifo("in.txt")
    with pytest.raises(JobError, match="it is a named pipe and no file"):
        start("in.txt", "out.jsonl")


@pytest.mark.parametrize("content", [b"somebody's\n", b"{}\n"])
def test_another_file_in_the_place_of_the_journal_is_left_alone(texts, content):
    Path("out.jsonl.xlmr-job").write_bytes(content)
    with pytest.raises(JobError, match="expected the journal of a job in .*, received another file; move it away"):
        start("in.txt", "out.jsonl")
    assert Path("out.jsonl.xlmr-job").read_bytes() == content


def test_a_full_disk_keeps_what_is_done(texts, monkeypatch):
    real, written = os.write, []

    def write(handle, data):
        written.append(len(data))
        if len(written) == 3:
            real(handle, bytes(data)[:7])
            raise OSError(28, "No space left on device")
        return real(handle, data)

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(JobError) as refused:
        start("in.txt", "out.jsonl")
    assert str(refused.value) == (
        "cannot write to out.jsonl.xlmr-job: No space left on device; make room and run the same again, 4 rows are kept"
    )
    start("in.txt", "out.jsonl")
    assert lines("out.jsonl") == ALL


def test_a_full_disk_at_the_end_keeps_all(texts, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(JobError) as refused:
        patch.setattr(jobs, "settle", full)
        start("in.txt", "out.jsonl")
    assert str(refused.value) == (
        "cannot write out.jsonl: No space left on device; make room and run the same again, all 10 rows are answered "
        "and kept"
    )
    assert sorted(os.listdir()) == ["in.txt", "out.jsonl.xlmr-job"]
    start("in.txt", "out.jsonl", make=None)  # nothing is left to answer
    assert lines("out.jsonl") == ALL


# Killed at every step, one after the other; the next start finishes what was begun.
KILLED = """
import os, sys
from pathlib import Path
from tests.core.jobs import small_jobs as t
from xlmr_core.jobs import job as jobs
from xlmr_core.tasks import TASKS
from tests.core.killed import killed_at
TASKS[t.ROW.name] = t.ROW
jobs.WINDOW = 4
for name in sys.argv[1:]:
    output, journal, step = Path(name), Path(name + ".xlmr-job"), 1
    while killed_at(step, lambda: t.start("in.txt", output)):
        before = output.read_bytes() if output.exists() else None
        if before is None or journal.exists():
            t.start("in.txt", output)
        found = output.read_bytes()
        assert before in (None, found), step
        assert found.count(b"a" * 10) == 1 and found.count(b"row") in (1, 10), step
        assert sorted(os.listdir()) == ["in.txt", name], (step, os.listdir())
        output.unlink()
        step += 1
    os.rename(name, "../" + name)
    print(step)
"""
ENV = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}


@POSIX
def test_a_kill_at_any_step_neither_repeats_nor_loses_a_row(texts):
    command = [sys.executable, "-c", KILLED, "out.jsonl", "out.csv"]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert all(int(steps) > 15 for steps in done.stdout.split())
    assert lines("../out.jsonl") == ALL and Path("../out.csv").read_text().count("\n") == 11


SLOW = """
import sys, time
from tests.core.jobs import small_jobs as t
from xlmr_core.jobs import job as jobs
from xlmr_core.tasks import TASKS
TASKS[t.ROW.name] = t.ROW
jobs.WINDOW = 1
class Slow(t.interrupting(after=-1)):
    def __call__(self, texts):
        time.sleep(0.05 if self.answered < 3 else 60)
        return super().__call__(texts)
t.start("in.txt", "out.jsonl", Slow)
"""


@POSIX
def test_a_job_is_killed_while_another_waits_for_it(texts):
    with subprocess.Popen([sys.executable, "-c", SLOW], env=ENV) as process:
        journal = Path("out.jsonl.xlmr-job")
        while not journal.exists() or journal.read_bytes().count(b"\n") < 4:
            assert process.poll() is None
            time.sleep(0.01)
        with pytest.raises(JobError) as refused:
            start("in.txt", "out.jsonl")
        assert str(refused.value) == (
            "expected to be the only one at this job, another process has out.jsonl.xlmr-job; wait for it, or give "
            "another output"
        )
        process.send_signal(signal.SIGKILL)
    said = []
    start("in.txt", "out.jsonl", said=said)
    assert said[0] == "goes on after row 3, 3 rows are done"
    assert lines("out.jsonl") == ALL


# Answering


def test_bad_rows_are_found_by_halves():
    calls = []

    class Upper:
        truncated = (0,)

        def __call__(self, texts):
            texts = list(texts)
            calls.append(len(texts))
            if "?" in texts:
                raise InputError("no")
            return [text.upper() for text in texts]

    given = ["?" if number == 77 else "x" for number in range(256)]
    given[3] = JobError("bad")
    found = list(answer_each(Upper(), given))
    assert [answer for answer, _ in found].count("X") == 254
    assert str(found[3][0]) == "bad" and str(found[77][0]) == "no"
    assert found[0] == ("X", True) and found[1] == ("X", False) and found[77][1] is False
    assert len(calls) < 20 and calls[0] == 255


def test_windows_are_bounded_by_characters(monkeypatch):
    monkeypatch.setattr(jobs, "WINDOW", 3)
    monkeypatch.setattr(jobs, "WINDOW_CHARACTERS", 10)
    rows = [jobs.Row(n, {"text": "x" * size}, {}, "") for n, size in enumerate([1, 1, 1, 20, 5, 5, 1])]
    assert [len(window) for window in jobs._windows(iter(rows))] == [3, 1, 2, 1]


# Compiling


@pytest.mark.parametrize(
    ("wanted", "rows", "device", "expected"),
    [
        (None, COMPILED_FROM, "cpu", []),
        (None, COMPILED_FROM + 1, "cpu", [{}]),
        (None, COMPILED_FROM + 1, "cuda:0", []),
        (False, COMPILED_FROM + 1, "cpu", []),
        (True, 1, "cpu", [{"compile": True}]),
        (True, 1, "cuda:0", [{"compile": True}]),
    ],
)
def test_long_jobs_are_compiled_and_say_so(wanted, rows, device, expected):
    calls, said = [], []
    pipeline = Vectors()
    pipeline.model, pipeline.device = object(), device

    def optimize(model, **how):
        assert model is pipeline.model
        calls.append(how)

    found = compiled(lambda: pipeline, optimize, wanted, rows, ["?", "a"], lambda kind, text: said.append(text))
    assert found is pipeline and calls == expected
    words = f"compiles the model for {rows} rows, up to a minute; pass compile=False to leave that out"
    assert said == ([words] if calls == [{}] else [])


def test_a_compiler_that_fails_does_not_end_a_job():
    made, said = [], []

    def load():
        made.append(Vectors())
        made[-1].model = object()
        return made[-1]

    def fail(model, **how):
        raise RuntimeError("no C++ compiler")

    found = compiled(load, fail, None, 9999, [], lambda kind, text: said.append((kind, text)))
    assert found is made[1]
    assert said[1] == ("warning", "goes on without compiling the model, which failed: RuntimeError: no C++ compiler")
    with pytest.raises(JobError, match="cannot compile the model: RuntimeError: no C.. compiler; leave compile=True"):
        compiled(load, fail, True, 1, [], print)
    with pytest.raises(JobError, match="only models of PyTorch are compiled"):
        compiled(load, None, True, 1, [], print)


# The command


@pytest.fixture
def command(texts, monkeypatch):
    """The command line with the task and a backend that is not there; the pipelines that it made."""
    made = []

    def pipeline(task, *, model, device, dtype, progress, **given):
        made.append(given)
        return Pipeline(task, FakeRunner(), TOKENIZER, **given)

    monkeypatch.setattr(run_command, "load_backend", lambda name: SimpleNamespace(pipeline=pipeline))
    monkeypatch.setattr("xlmr_core.backends.installed", lambda name: True)
    return made


COUNT = ("run", "--task", ROW.name, "--model", "m")


def test_the_command_runs_a_job(command, capsys):
    assert cli.main([*COUNT, "--input", "in.txt", "--output", "out.jsonl"]) == 2
    assert lines("out.jsonl") == ALL
    assert capsys.readouterr() == (
        "",
        f"xlmr: error: row 6: {QUESTION}\nxlmr: 10 rows, 1 without an answer, in out.jsonl\n",
    )
    assert command[0]["batch_tokens"] == 4096 and command[0]["batch_size"] is None
    assert cli.main([*COUNT, "--input", "in.txt", "--output", "out.jsonl"]) == 2
    assert "out.jsonl is there already; pass --force to replace it" in capsys.readouterr().err
    Path("in.csv").write_text("body,id\na,1\n")
    words = ["--input", "in.csv", "--output", "out.csv", "--column", "body", "--keep", "id", "--batch-size", "2"]
    assert cli.main([*COUNT, *words]) == 0
    assert Path("out.csv").read_text() == "row,text,id,truncated,a,error\n1,a,1,false,1,\n"
    assert command[1]["batch_tokens"] is None and command[1]["batch_size"] == 2


def test_the_command_goes_on_with_the_same_settings_only(command, capsys, monkeypatch):
    words = [*COUNT, "--input", "in.txt", "--output", "out.jsonl", "--least", "1"]
    backend = SimpleNamespace(pipeline=lambda task, **how: interrupting(after=1)())
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(run_command, "load_backend", lambda name: backend)
        cli.main(words)
    for other, told in [
        (("--least", "2"), "was begun with another least, 1, received 2"),
        (("--model", "n"), "was begun with another model, 'm', received 'n'"),
    ]:
        assert cli.main([*words, *other]) == 2
        err = capsys.readouterr().err
        assert told in err and "pass --restart to begin anew" in err
    # Which rows run together, and what is shown, makes no other job.
    assert cli.main([*words, "--batch-size", "3", "--progress"]) == 2
    err = capsys.readouterr().err
    assert "goes on after row 4, 4 rows are done" in err and "| 10/10 [" in err
    assert lines("out.jsonl") == ALL


def test_a_model_that_was_trained_on_is_another(command, capsys, monkeypatch):
    Path("folder").mkdir()
    Path("folder/model.bin").write_text("old")
    words = [*COUNT[:-1], "folder", "--input", "in.txt", "--output", "out.jsonl"]
    backend = SimpleNamespace(pipeline=lambda task, **how: interrupting(after=1)())
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(run_command, "load_backend", lambda name: backend)
        cli.main(words)
    Path("folder/model.bin").write_text("newer")
    assert cli.main(words) == 2
    assert "was begun with another content of the model's folder" in capsys.readouterr().err
    assert cli.main([*words, "--restart"]) == 2
    assert lines("out.jsonl") == ALL


def backend_of(monkeypatch, kind, **others):
    backend = SimpleNamespace(pipeline=lambda task, **how: kind(), **others)
    monkeypatch.setattr(run_command, "load_backend", lambda name: backend)


def test_that_texts_are_cut_is_said_once(command, capsys, monkeypatch):
    class Cutting(Vectors):
        truncated = (1,)

        def check_options(self):
            pass

        def __call__(self, texts):
            logging.getLogger("xlmr_core.tasks").warning(TRUNCATED, "'aa'", " and 3 others")
            return super().__call__(texts)

    backend_of(monkeypatch, Cutting)
    assert cli.main([*COUNT, "--input", "in.txt", "--output", "out.jsonl"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "xlmr: warning: 'aa': truncated, as longer than the model takes; --on-overflow says what happens to such texts",
        f"xlmr: error: row 6: {QUESTION}",
        "xlmr: 10 rows, 1 without an answer, 3 truncated, in out.jsonl",
    ]


def test_options_are_looked_at_before_the_model_is_compiled(command, capsys, monkeypatch):
    class Refusing(Vectors):
        model = None

        def check_options(self):
            raise InputError("expected labels, received none; pass some")

    backend_of(monkeypatch, Refusing, optimize_for_inference=lambda model, **how: None)
    assert cli.main([*COUNT, "--input", "in.txt", "--output", "out.jsonl", "--compile"]) == 2
    assert capsys.readouterr().err == "xlmr: error: expected labels, received none; pass some\n"
    assert os.listdir() == ["in.txt"]


def test_ctrl_c_says_how_to_go_on(command, capsys, monkeypatch):
    class Stopped(interrupting(after=-1)):
        def __call__(self, texts):
            raise KeyboardInterrupt

    backend_of(monkeypatch, Stopped)
    assert cli.main([*COUNT, "--input", "in.txt", "--output", "out.jsonl"]) == 130
    assert capsys.readouterr().err == "xlmr: interrupted; the same command goes on\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--input", "in.txt"), "expected --input and --output, received one of them; give --output too"),
        (("--output", "o.csv"), "expected --input and --output, received one of them; give --input too"),
        (("--input", "in.txt", "--output", "o.csv", "x"), "expected texts or --input, received both ('x')"),
        (
            ("--input", "in.txt", "--output", "o.csv", "--json"),
            "expected the format in the ending of --output, ",
        ),
        (("--restart", "x"), "--restart is for jobs over files, received no --input; give --input and --output"),
        (("--column", "a", "x"), "--column is for jobs over files"),
        (("--no-compile", "x"), "--no-compile is for jobs over files"),
        (("--input", "in.csv", "--output", "o.csv"), "say which it is: pass --column"),
        (("--input", "in.txt", "--output", "o.csv", "--compile"), "leave --compile out"),
        (("in.csv",), "xlmr run ... --input in.csv --output answers.jsonl"),
    ],
)
def test_a_mistake_is_one_sentence(command, capsys, words, told):
    Path("in.csv").write_text("id,body\n1,a\n")
    assert cli.main([*COUNT, *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and told in err


def test_a_task_has_an_argument_for_each_of_its_columns(capsys):
    assert cli.main(["run", "--task", "question-answering", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--question-column NAME" in out and "--context-column NAME" in out and "--keep NAME" in out
