"""The command line: in this process with a stand-in for the backend, and in a process of its own where that matters."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tests.core.fake_task import ROW, TOKENIZER, FakeRunner, LetterCounting
from xlmr_core import __main__, __version__, cli
from xlmr_core.checkpoints.load_plan import LoadWarning
from xlmr_core.cli import completion, lines, run
from xlmr_core.cli.kernels import LIMITS, keep_few_kernels
from xlmr_core.errors import InputError
from xlmr_core.hub import BUILT_IN
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

    truncated = ()
    plain = staticmethod(lambda answer: answer)

    def check_options(self):
        pass

    def __call__(self, given):
        texts = list(given)
        self.calls.append(texts)
        if any("<mask>" not in text for text in texts):
            raise InputError("expected at least one <mask>, found none")
        return iter([self.answer(text) for text in texts])

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
    monkeypatch.setattr("xlmr_core.backends.installed", lambda name: name == "torch")
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


def test_the_published_line_is_understood_as_it_is_printed(made, stdin):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^\$ (echo .*?--device 0)$", readme, re.M | re.S)
    echo, text, bar, xlmr, *words = shlex.split(line)
    assert (echo, bar, xlmr) == ("echo", "|", "xlmr")
    assert text == "Plants create <mask> through a process known as photosynthesis."
    stdin(text.encode() + b"\n")
    assert cli.main(words) == 0 and made[0].calls == [[text]]
    assert {"model": "FacebookAI/xlm-roberta-base", "device": 0}.items() <= made[0].options.items()


RUN = "; usage: xlmr run --task TASK [options] [TEXT ...]"
CONVERT = "; usage: xlmr convert SRC DST --to FORMAT [options]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("run", "--task", "paraphrase", "x"),
            f"expected a task of {', '.join(map(repr, TASKS))}, received 'paraphrase'; choose one of them",
        ),
        (("run", "x"), "xlmr run needs --task, one of " + ", ".join(TASKS) + RUN),
        (("run", "--top-k", "2", "x"), "xlmr run needs --task, one of " + ", ".join(TASKS) + RUN),
        (("run", "--task"), "--task: expected one argument"),
        ((*FILL, "--top-k", "0", "<mask>"), "--top-k: expected an integer of at least 1, received '0'"),
        ((*FILL, "--batch-size", "many", "<mask>"), "--batch-size: expected an integer of at least 1, received 'many'"),
        ((*FILL, "--format", "xml", "<mask>"), "--format: expected one of text, json, csv, received 'xml'"),
        (
            (*FILL, "--format", "jsno", "x"),
            "--format: expected one of text, json, csv, received 'jsno'; did you mean json?",
        ),
        (
            (*FILL, "--framework", "theano", "x"),
            "--framework: expected one of torch, tf, flax, onnx, received 'theano'",
        ),
        (
            (*FILL, "--dtype", "flot16", "x"),
            "--dtype: expected one of float32, float16, bfloat16, float64, auto, received 'flot16'; did you mean "
            "float16?",
        ),
        (
            (*FILL, "--letters", "a", "<mask>"),
            "xlmr run has no option --letters; a text that begins with - stands after --" + RUN,
        ),
        ((*FILL, "--topk=3", "x"), "xlmr run has no option --topk; did you mean --top-k?" + RUN[1:]),
        (
            ("convert", "a", "b", "--dytpe", "x"),
            "xlmr convert has no option --dytpe; did you mean --dtype?" + CONVERT[1:],
        ),
        (("convert", "--dytpe", "x"), "xlmr convert has no option --dytpe; did you mean --dtype?" + CONVERT[1:]),
        (("convert", "a"), "xlmr convert needs DST, --to" + CONVERT),
        (("convert", "a", "b", "--to", "ft"), "--to: expected one of safetensors, torch, tf, flax, fairseq, keras, "),
        (("inspect", "a", "b", "c"), "xlmr inspect has no use for b c; usage: xlmr inspect PATH [options]"),
        (("inspect", "--progres", "x"), "did you mean --progress? usage: xlmr inspect PATH [options]"),
        (
            ("fly",),
            "xlmr has no command 'fly'; expected one of run, train, serve, convert, quantize, export, inspect, verify, "
            "doctor; usage: xlmr",
        ),
        (("docter", "x"), "xlmr has no command 'docter'; did you mean doctor? usage: xlmr COMMAND [arguments]"),
        (("--verzion",), "xlmr has no option --verzion; did you mean --version? usage: xlmr COMMAND [arguments]"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(made, capsys, arguments, message):
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("xlmr: error: ") and message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("words", [(), ("help",), ("--help",), ("-h",)])
def test_xlmr_alone_lists_its_commands(words, capsys):
    assert cli.main(words) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for name, module in cli.COMMANDS.items():
        assert re.search(rf"^  {name} +{module.SUMMARY}$", out, re.MULTILINE)


@pytest.mark.parametrize("command", cli.COMMANDS)
@pytest.mark.parametrize("width", [80, 110])
def test_help_is_wrapped_to_the_terminal(command, width, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    assert cli.main(["help", command]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == f"usage: {cli.COMMANDS[command].USAGE}" and err == ""
    assert width - 15 < max(map(len, lines)) <= width
    for hidden in ("--framework", "--json", "jax", "pytorch"):
        assert hidden not in out


def test_a_file_where_a_text_is_expected(made, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.txt").write_text("<mask>")
    assert cli.main([*FILL, "texts.txt"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("xlmr: error: expected a text, received 'texts.txt', which is a file; ")
    assert err.endswith("xlmr run ... < texts.txt\n") and made == []
    (tmp_path / "more texts.txt").write_text("<mask>")
    assert cli.main([*FILL, "more texts.txt"]) == 2
    assert capsys.readouterr().err.endswith("xlmr run ... < 'more texts.txt'\n")
    assert cli.main([*FILL, "<mask> texts.txt", "<mask>.txt"]) == 0


@pytest.mark.parametrize("words", [("--json",), ("--format", "json"), ("--format=json",)])
def test_both_words_for_json(words, made, capsys):
    assert cli.main([*FILL, *words, "<mask>"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "<mask>"


class Loader(EchoPipeline):
    """Warns as a load does, by every way that libraries have."""

    def __call__(self, given):
        warnings.warn("classifier.weight is not in a/b and\n  starts fresh", LoadWarning, stacklevel=1)
        logging.getLogger("xlmr_core.tasks").warning("the target %r is left out", "x\x1b[31m")
        return super().__call__(given)


def test_warnings_are_sentences(made, capsys, monkeypatch):
    monkeypatch.setattr(run, "load_backend", lambda name: SimpleNamespace(pipeline=Loader))
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert cli.main([*FILL, "<mask>"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "xlmr: warning: classifier.weight is not in a/b and starts fresh",
        "xlmr: warning: the target 'x\\x1b[31m' is left out",
    ]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("files are there; pass force=True to replace them", "files are there; pass --force to replace them"),
        ("leave it out with pooler=False, or not", "leave it out with --no-pooler, or not"),
        ("name one: head='ForMaskedLM'", "name one: --head ForMaskedLM"),
        ("open one of them with part='a.b'", "open one of them with --part a.b"),
        ("load it with dtype='float32'", "load it with --dtype float32"),
        ("dtype must be float32, received 'int8'", "--dtype must be float32, received 'int8'"),
        ("dtype of the file is int8", "dtype of the file is int8"),
        ("set tie_word_embeddings=False to keep it", "set tie_word_embeddings=False to keep it"),
        ("or pass ignore_mismatched_sizes=True to start", "or in Python pass ignore_mismatched_sizes=True to start"),
        ("or in Python pass tokenizer_kwargs={}", "or in Python pass tokenizer_kwargs={}"),
        ("pass token=... if it is private", "log in with `hf auth login`, or set HF_TOKEN if it is private"),
    ],
)
def test_advice_is_in_the_words_of_the_command_line(said, shown):
    parser = cli.parser.Parser("convert", "", "")
    cli.convert.add_arguments(parser, ())
    assert parser.in_place(said) == shown


def test_advice_of_an_error_reaches_the_user_in_these_words(made, monkeypatch, capsys):
    def refuse(task, **options):
        raise InputError("device 'cuda:0' asks for a GPU, nobody sees one here; pass device='cpu'")

    monkeypatch.setattr(run, "load_backend", lambda name: SimpleNamespace(pipeline=refuse))
    assert cli.main([*FILL, "--device", "0", "<mask>"]) == 2
    assert capsys.readouterr().err == (
        "xlmr: error: --device 'cuda:0' asks for a GPU, nobody sees one here; pass --device cpu\n"
    )


def test_progress_of_a_run(made, stdin, capsys):
    stdin(b"<mask>\n" * 5)
    assert cli.main([*FILL, "--progress"]) == 0
    out, err = capsys.readouterr()
    assert out.count("<mask>\n") == 5
    assert err.startswith("\ranswering: ") and "answering: 5 lines [" in err
    stdin(b"<mask>\n")
    assert cli.main([*FILL]) == 0
    assert capsys.readouterr().err == ""


def test_without_a_framework_the_error_says_what_to_install(made, monkeypatch, capsys):
    monkeypatch.setattr("xlmr_core.backends.installed", lambda name: False)
    assert cli.main([*FILL, "<mask>"]) == 2
    assert "none is installed; pip install one of 'xlmr[torch]', 'xlmr[tf]', 'xlmr[flax]'" in capsys.readouterr().err


@pytest.mark.parametrize("argument", ["--backend", "--framework"])
@pytest.mark.parametrize(
    ("name", "key"),
    [
        *(("torch", "torch"), ("pt", "torch"), ("pytorch", "torch"), (None, "torch")),
        *(("tf", "tf"), ("tensorflow", "tf"), ("flax", "flax"), ("jax", "flax")),
    ],
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

    def pipeline(task, *, model, device, dtype, progress, **given):
        assert progress is False
        options.append({"model": model, **given})
        return Pipeline(task, FakeRunner(), TOKENIZER, **given)

    monkeypatch.setitem(TASKS, ROW.name, ROW)
    monkeypatch.setattr(run, "load_backend", lambda name: SimpleNamespace(pipeline=pipeline))
    monkeypatch.setattr("xlmr_core.backends.installed", lambda name: True)
    return options


COUNT = ("run", "--task", "letter-counting")
ALL = {"model": None, "letters": None, "shape": "number", "times": 1.0, "least": 0, "loud": False, "batch_size": 8}
ALL |= {"on_overflow": None, "batch_tokens": None}


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
        (("--shape", "round"), "--shape: expected one of number, strokes, received 'round'"),
        (("--memory", "x"), "xlmr run has no option --memory; "),
        (("--top-k", "3"), "xlmr run has no option --top-k; "),
    ],
)
def test_options_of_the_task_are_checked(counting, capsys, arguments, message):
    assert cli.main([*COUNT, *arguments, "x"]) == 2
    assert message in capsys.readouterr().err


def test_help_tells_of_the_task(counting, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["run", "--help"]) == 0
    every = capsys.readouterr().out
    assert cli.main([*COUNT, "--help"]) == 0
    own = capsys.readouterr().out
    for text in (every, own):
        assert ROW.summary in text and ROW.example in text and "--batch-size" in text
        assert max(map(len, text.splitlines())) <= 80
    assert "--shape" not in every and "--shape" in own
    assert "a letter to count; may be repeated\n" in own
    assert "100% how counts are told (default: number)" in own


@pytest.mark.parametrize("task", TASKS)
def test_the_options_of_every_task_can_be_arguments(task, capsys):
    assert cli.main(["run", "--task", task, "--help"]) == 0
    assert f"options of {task}:" in capsys.readouterr().out


def test_options_that_answer_nothing_are_refused_once(counting, stdin, capsys, monkeypatch):
    stdin(b"a\nb\n")
    monkeypatch.setattr(Pipeline, "check_options", lambda self: self._task.check_length(65, "everything"))
    assert cli.main([*COUNT]) == 2
    assert capsys.readouterr().err.count("expected at most 64 tokens") == 1


def test_what_was_cut_is_told_in_every_format(counting, stdin, capsys, monkeypatch):
    def cut_long(self, inputs, options):
        items = encode(self, inputs, options)
        return [replace(item, truncated=len(item.kept) > 3) for item in items]

    encode = LetterCounting.encode
    monkeypatch.setattr(LetterCounting, "encode", cut_long)
    told = {
        "text": "abracadabra\n  a 5\n  (the text was truncated)\n\na\n  a 1\n\n",
        "json": '{"line": 1, "text": "abracadabra", "truncated": true, "answer": {"a": 5}}\n'
        '{"line": 2, "text": "a", "answer": {"a": 1}}\n',
        "csv": "line,text,truncated,a\n1,abracadabra,true,5\n2,a,false,1\n",
    }
    for name, expected in told.items():
        stdin(b"abracadabra\na\n")
        assert cli.main([*COUNT, "--format", name]) == 0
        out, err = capsys.readouterr()
        assert out == expected
        assert err.startswith("xlmr: warning: 'abracadabra': truncated, as longer than the model takes; ")
    assert cli.main([*COUNT, "--on-overflow", "truncate", "abracadabra"]) == 0
    assert capsys.readouterr() == (told["text"].partition("\na\n")[0] + "\n", "")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("r", ["run"]),
        ("run --ta", ["--task"]),
        ("run --task te", ["text-classification", "text-generation", "text2text-generation"]),
        ("run --task fill-mask --targ", ["--targets"]),
        ("run --task fill-mask --backend f", ["flax"]),
        ("run --task zero-shot-classification --model j", ["joeddav/xlm-roberta-large-xnli", "jobs/"]),
        ("run --model xlmr", [*BUILT_IN]),
        ("inspect --form", ["--format"]),
    ],
)
def test_the_shell_completes_a_line(tmp_path, monkeypatch, line, told):
    argcomplete = pytest.importorskip("argcomplete")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs").mkdir()
    finder = argcomplete.CompletionFinder(
        completion.whole_parser(cli.COMMANDS, line.split()), always_complete_options="long"
    )
    start = line.rpartition(" ")[0]
    found = list(itertools.takewhile(bool, (finder.rl_complete(line, number) for number in itertools.count())))
    assert [one.removeprefix(start).strip() for one in found] == told


def test_the_command_knows_a_shell_that_asks(monkeypatch):
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    asked = []
    monkeypatch.setattr(completion, "complete", lambda commands: asked.append(commands) or sys.exit(0))
    with pytest.raises(SystemExit):
        cli.main([])
    assert asked == [cli.COMMANDS]


def test_ctrl_c_is_quiet(made, monkeypatch, capsys):
    def interrupt(task, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "load_backend", lambda name: SimpleNamespace(pipeline=interrupt))
    assert cli.main([*FILL, "<mask>"]) == 130
    assert capsys.readouterr().err == ""


def test_ctrl_c_while_it_is_imported_is_quiet(monkeypatch, capsys):
    class Interrupted(ModuleType):
        def __getattr__(self, name):
            raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["xlmr_core"], "cli", Interrupted("xlmr_core.cli"))
    assert __main__.main() == 130
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


def test_pytorch_keeps_few_kernels_unless_the_environment_says_how_many(monkeypatch):
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "7")
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "to be put back")
    del os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"]
    keep_few_kernels()
    assert [os.environ[name] for name in LIMITS] == ["7", "16"]
