"""The command line: in this process with a stand-in for the backend, and in a process of its own where that matters."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.core.fake_task import ROW, TOKENIZER, FakeRunner
from xlmr_core import __version__, cli
from xlmr_core.cli import lines, run
from xlmr_core.errors import InputError
from xlmr_core.tasks import TASKS
from xlmr_core.tasks.fill_mask import FillMask
from xlmr_core.tasks.pipeline import Pipeline

ROOT = Path(__file__).resolve().parents[2]


class EchoPipeline:
    """Answers ``token i`` for i below top_k; refuses texts without a mask, all at once, as the real one does."""

    text = FillMask(SimpleNamespace(mask_token="<mask>", mask_token_id=1), None).text

    def __init__(self, task, **options):
        self.options = options
        self.calls = []

    def __call__(self, given):
        texts = [given] if isinstance(given, str) else given
        self.calls.append(texts)
        if any("<mask>" not in text for text in texts):
            raise InputError("expected at least one <mask>, found none")
        answers = [self.answer(text) for text in texts]
        return answers[0] if len(answers) == 1 else answers

    def answer(self, text):
        candidates = [
            {"score": 0.5**i, "token": i, "token_str": f"tökén{i}", "sequence": text.replace("<mask>", "x")}
            for i in range(1, self.options["top_k"] + 1)
        ]
        masks = text.count("<mask>")
        return candidates if masks == 1 else [candidates] * masks


@pytest.fixture
def made(monkeypatch):
    """The pipelines that the command made."""
    made = []

    def pipeline(task, **options):
        made.append(EchoPipeline(task, **options))
        return made[-1]

    monkeypatch.setattr(run, "load_backend", lambda name: SimpleNamespace(pipeline=pipeline))
    monkeypatch.setattr(run, "installed", lambda name: name == "pt")
    return made


@pytest.fixture
def stdin(monkeypatch, tmp_path):
    """Sets the bytes on standard input."""
    files = []

    def set_bytes(content):
        path = tmp_path / "stdin"
        path.write_bytes(content)
        files.append(path.open("rb"))
        monkeypatch.setattr(sys, "stdin", files[-1])

    yield set_bytes
    for file in files:
        file.close()


FILL = ("run", "--task", "fill-mask")


def test_texts_as_arguments(made, capsys):
    assert cli.main([*FILL, "--top-k", "2", "Bonjour <mask>.", "<mask> und <mask>"]) == 0
    assert capsys.readouterr().out == (
        "Bonjour <mask>.\n  0.5000  tökén1\n  0.2500  tökén2\n\n"
        "<mask> und <mask>\n  <mask> 1\n  0.5000  tökén1\n  0.2500  tökén2\n  <mask> 2\n  0.5000  tökén1\n  0.2500  "
        "tökén2\n\n"
    )


def test_lines_of_standard_input(made, stdin, capsys):
    stdin("\ufeffa <mask>\r\n\n   \nb <mask> é\nc <mask>".encode())
    assert cli.main([*FILL, "--format", "json", "--top-k", "1"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(answer["line"], answer["text"]) for answer in answers] == [
        (1, "a <mask>"),
        (4, "b <mask> é"),
        (5, "c <mask>"),
    ]
    assert answers[1]["answer"] == [{"score": 0.5, "token": 1, "token_str": "tökén1", "sequence": "b x é"}]


def test_json_is_readable_utf8(made, capsys):
    cli.main([*FILL, "--format", "json", "日本 <mask>"])
    assert '"text": "日本 <mask>"' in capsys.readouterr().out


def test_a_faulty_line_is_named_and_the_others_are_answered(made, stdin, capsys):
    stdin(b"a <mask>\nno blank\n\xff\xfe <mask>\nb <mask>\n")
    assert cli.main([*FILL, "--format", "json"]) == 2
    out, err = capsys.readouterr()
    assert [json.loads(line)["line"] for line in out.splitlines()] == [1, 4]
    assert err.splitlines() == [
        "xlmr: error: line 2: expected at least one <mask>, found none",
        "xlmr: error: line 3: expected UTF-8, received other bytes; convert the input",
    ]


@pytest.mark.parametrize(("size", "calls"), [("2", [2, 2, 1]), ("8", [5])])
def test_lines_run_in_batches(made, stdin, size, calls):
    stdin(b"<mask>\n" * 5)
    assert cli.main([*FILL, "--batch-size", size]) == 0
    assert [len(texts) for texts in made[0].calls] == calls


def test_no_input_no_output(made, stdin, capsys):
    stdin(b"\n\n")
    assert cli.main([*FILL]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((), {"model": "xlmr-mini", "device": None, "dtype": None, "top_k": 5, "batch_size": 8}),
        (("--device", "0"), {"device": 0}),
        (("--device=-1",), {"device": -1}),
        (("--device", "-1"), {"device": -1}),
        (("--device", "cuda:1"), {"device": "cuda:1"}),
        (("--top-k", "2", "--targets", "a", "--targets", "b"), {"top_k": 2, "targets": ["a", "b"]}),
        (
            ("--model", "FacebookAI/xlm-roberta-base", "--dtype", "bfloat16"),
            {"model": "FacebookAI/xlm-roberta-base", "dtype": "bfloat16"},
        ),
    ],
)
def test_arguments_reach_the_pipeline(made, arguments, options):
    assert cli.main([*FILL, *arguments, "<mask>"]) == 0
    assert options.items() <= made[0].options.items()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--task", "translate", "x"), "received 'translate'"),
        (("run", "x"), "required: --task"),
        ((*FILL, "--top-k", "0", "<mask>"), "expected an integer of at least 1, received '0'"),
        ((*FILL, "--batch-size", "many", "<mask>"), "expected an integer of at least 1, received 'many'"),
        ((*FILL, "--format", "xml", "<mask>"), "invalid choice: 'xml'"),
        ((*FILL, "--framework", "theano", "<mask>"), "invalid choice: 'theano'"),
        ((*FILL, "--letters", "a", "<mask>"), "unrecognized arguments: --letters"),
        (("run", "--top-k", "2", "x"), "required: --task"),
        (("run", "--task"), "argument --task: expected one argument"),
        (("inspect", "--task", "translate", "x"), "unrecognized arguments: --task"),
        (("fly",), "invalid choice: 'fly'"),
        ((), "required: COMMAND"),
    ],
)
def test_mistakes_end_with_status_2_and_no_traceback(made, capsys, arguments, message):
    try:
        status = cli.main(arguments)
    except SystemExit as exit:
        status = exit.code
    out, err = capsys.readouterr()
    assert status == 2
    assert message in err
    assert out == ""
    assert "Traceback" not in err


def test_without_a_framework_the_error_says_what_to_install(made, monkeypatch, capsys):
    monkeypatch.setattr(run, "installed", lambda name: False)
    assert cli.main([*FILL, "<mask>"]) == 2
    assert "none is installed; pip install one of 'xlmr[torch]', 'xlmr[tf]', 'xlmr[flax]'" in capsys.readouterr().err


@pytest.mark.parametrize("argument", ["--backend", "--framework"])
@pytest.mark.parametrize(
    ("name", "key"), [("torch", "pt"), ("pt", "pt"), ("tf", "tf"), ("flax", "jax"), ("jax", "jax"), (None, "pt")]
)
def test_a_backend_is_called_by_its_names(made, monkeypatch, argument, name, key):
    asked, door = [], run.load_backend
    monkeypatch.setattr(run, "load_backend", lambda name: asked.append(name) or door(name))
    assert cli.main([*FILL, *([argument, name] if name else []), "<mask>"]) == 0
    assert asked == [key]


@pytest.fixture
def counting(monkeypatch):
    """A task that is not there, by its row and a backend that is not there; the options that pipelines were
    made with.
    """
    options = []

    def pipeline(task, *, model, device, dtype, **given):
        options.append({"model": model, **given})
        return Pipeline(task, FakeRunner(), TOKENIZER, **given)

    monkeypatch.setitem(TASKS, ROW.name, ROW)
    monkeypatch.setattr(run, "load_backend", lambda name: SimpleNamespace(pipeline=pipeline))
    monkeypatch.setattr(run, "installed", lambda name: True)
    return options


COUNT = ("run", "--task", "letter-counting")
ALL = {"model": None, "letters": None, "shape": "number", "times": 1.0, "least": 0, "loud": False, "batch_size": 8}


def test_a_task_is_there_by_its_row(counting, stdin, capsys):
    stdin("banana\nwhy?\nä naan".encode())
    assert cli.main([*COUNT, "--letters", "a", "--letters", "n"]) == 2
    out, err = capsys.readouterr()
    assert out == "banana\n  a 3\n  n 2\n\nä naan\n  a 2\n  n 2\n\n"
    assert err == "xlmr: error: line 2: expected no question, received one; ask nothing\n"


@pytest.mark.parametrize("order", [1, -1])
def test_options_come_from_the_task(counting, capsys, order):
    given = [("--times", "2.5"), ("--least=1",), ("--shape", "strokes"), ("--loud",), ("--batch-size", "3")]
    flags = [flag for flags in [("--format", "json"), *given, COUNT[1:]][::order] for flag in flags]
    assert cli.main(["run", *flags, "banana"]) == 0
    assert counting == [{**ALL, "times": 2.5, "least": 1, "shape": "strokes", "loud": True, "batch_size": 3}]
    assert json.loads(capsys.readouterr().out) == {"line": 1, "text": "banana", "answer": {"a": 7}}


def test_without_options_those_of_the_task_hold(counting):
    assert cli.main([*COUNT, "--model", "m", "--", "--task", "fill-mask"]) == 0
    assert counting == [{**ALL, "model": "m"}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--times", "-1"), "--times: expected a number of at least 0, received '-1'"),
        (("--times", "many"), "expected a number of at least 0, received 'many'"),
        (("--least", "1.5"), "expected an integer of at least 0, received '1.5'"),
        (("--shape", "round"), "--shape: invalid choice: 'round'"),
        (("--memory", "x"), "unrecognized arguments: --memory"),
        (("--top-k", "3"), "unrecognized arguments: --top-k"),
    ],
)
def test_options_of_the_task_are_checked(counting, capsys, arguments, message):
    with pytest.raises(SystemExit):
        cli.main([*COUNT, *arguments, "x"])
    assert message in capsys.readouterr().err


def test_help_tells_of_the_task(counting, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    every = capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main([*COUNT, "--help"])
    own = capsys.readouterr().out
    for text in (every, own):
        assert ROW.summary in text and ROW.example in text and "--batch-size" in text
        assert max(map(len, text.splitlines())) <= 80
    assert "--shape" not in every and "--shape" in own
    assert "a letter to count; may be repeated\n" in own
    assert "100% how counts are told (default: number)" in own


@pytest.mark.parametrize("task", TASKS)
def test_the_options_of_every_task_can_be_arguments(task, capsys):
    with pytest.raises(SystemExit) as done:
        cli.main(["run", "--task", task, "--help"])
    assert done.value.code == 0
    assert f"options of {task}:" in capsys.readouterr().out


def test_ctrl_c_is_quiet(made, monkeypatch, capsys):
    def interrupt(task, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "load_backend", lambda name: SimpleNamespace(pipeline=interrupt))
    assert cli.main([*FILL, "<mask>"]) == 130
    assert capsys.readouterr().err == ""


def test_an_answer_does_not_wait_for_a_full_batch():
    def slow():
        for number in range(3):
            yield lines.Line(number, "x")
            time.sleep(4 * lines.PATIENCE_S)

    assert [len(batch) for batch in lines.batches(slow(), 100)] == [1, 1, 1]


def test_an_error_while_reading_arrives():
    def broken():
        yield lines.Line(1, "x")
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        list(lines.batches(broken(), 1))


def xlmr(*arguments, **options):
    command = [sys.executable, "-m", "xlmr_core", *arguments]
    return subprocess.run(command, capture_output=True, timeout=60, check=False, **options)


def test_version():
    done = xlmr("--version")
    assert (done.returncode, done.stdout) == (0, f"xlmr {__version__}\n".encode())


def test_help_shows_the_published_idiom():
    done = xlmr("run", "--help")
    assert done.returncode == 0
    assert b"| xlmr run --task fill-mask" in done.stdout


def test_nothing_heavy_is_imported_before_the_arguments_are_known():
    heavy = {"torch", "tensorflow", "jax", "sentencepiece", "tokenizers", "huggingface_hub"}
    code = (
        "import sys; from xlmr_core.cli import main\n"
        "try: main(['run', '--help'])\n"
        "except SystemExit: pass\n"
        f"print(*{heavy} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=True)
    assert done.stderr.strip() == b""


@pytest.fixture
def start(tmp_path):
    """Starts the command in a process of its own, with the stand-in for the backend."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, types\n"
        "from xlmr_core import cli\n"
        "from xlmr_core.cli import run\n"
        "from tests.core.test_cli import EchoPipeline\n"
        "run.load_backend = lambda name: types.SimpleNamespace(pipeline=EchoPipeline)\n"
        "run.installed = lambda name: True\n"
        "sys.exit(cli.main(['run', '--task', 'fill-mask', *sys.argv[1:]]))\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    with contextlib.ExitStack() as stack:

        def start(*arguments, **options):
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
            command = [sys.executable, str(script), *arguments]
            process = stack.enter_context(subprocess.Popen(command, env=env, **pipes))
            stack.callback(process.kill)
            return process

        yield start


def ask(process, line):
    """Write a line, and read the line that it is answered with while standard input is still open."""
    process.stdin.write(line)
    process.stdin.flush()
    return process.stdout.readline()


def test_a_reader_that_goes_away_is_no_traceback(start):
    process = start()
    assert ask(process, b"a <mask>\n") == b"a <mask>\n"
    process.stdout.close()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(b"b <mask>\n" * 20_000)
        process.stdin.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == b""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_ctrl_c_while_waiting_for_a_line_is_no_traceback(start):
    # A test run in the background of a shell ignores the signal, and its children would inherit that.
    process = start(preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    assert ask(process, b"a <mask>\n") == b"a <mask>\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert process.stderr.read() == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_one_line(start):
    with open("/dev/full", "wb") as full:
        process = start("a <mask>", stdout=full)
        assert process.wait(timeout=60) == 2
    assert process.stderr.read() == b"xlmr: error: [Errno 28] No space left on device\n"


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX file descriptors")
def test_a_closed_standard_output_is_one_line(start):
    process = start("a <mask>", stdout=None, preexec_fn=lambda: os.close(1))
    assert process.wait(timeout=60) == 2
    assert process.stderr.read().startswith(b"xlmr: error: expected a standard output")
