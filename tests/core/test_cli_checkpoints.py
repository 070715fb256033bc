"""``xlmr convert``, ``inspect``, ``verify`` and ``doctor`` as they are typed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.core.small_models import arrays_of, change_config, config_of, save, with_tokenizer
from xlmr_core import cli
from xlmr_core.checkpoints.casting import TAG_OF_FLOAT
from xlmr_core.checkpoints.load_plan import LoadReport
from xlmr_core.cli import convert, terminal, verify, words
from xlmr_core.conversion import writable_formats
from xlmr_core.errors import CheckpointError, LoadWarning, MismatchError, warn_caller
from xlmr_core.probe import REFERENCE
from xlmr_core.progress import ProgressBar

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    save(folder, config_of("base", "ForMaskedLM"), "ForMaskedLM")
    with_tokenizer(folder)
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[str], list[str]]:
    """Exit status, and the lines of both streams."""
    status = cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return status, out.splitlines(), err.splitlines()


def test_the_words_of_the_commands_are_those_of_the_core() -> None:
    assert writable_formats() == convert.WRITTEN_FORMATS
    assert set(convert.WRITTEN_DTYPES) == set(TAG_OF_FLOAT)
    assert verify.REFERENCE == REFERENCE


@pytest.mark.parametrize("command", ["convert", "quantize", "inspect", "verify", "doctor"])
def test_nothing_heavy_is_imported_before_the_arguments_are_known(command: str) -> None:
    heavy = {"torch", "tensorflow", "jax", "sentencepiece", "tokenizers", "huggingface_hub", "h5py"}
    code = (
        "import sys; from xlmr_core.cli import main\n"
        f"try: main([{command!r}, '--help'])\n"
        "except SystemExit: pass\n"
        f"print(*{heavy} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60, check=True)
    assert done.stderr.strip() == b""
    assert b"xlmr " + command.encode() in done.stdout


# convert


def test_convert(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "convert", source, tmp_path / "b", "--to", "torch", "--verify")
    assert (status, err) == (0, [])
    assert out[0] == f"XLMRobertaForMaskedLM from {source}/model.safetensors (safetensors) to {tmp_path}/b (torch)"
    assert "wrote    pytorch_model.bin" in out
    assert "copied   config.json, sentencepiece.bpe.model, tokenizer_config.json" in out
    assert any(line.endswith("the largest difference is 0") for line in out)
    assert out[-1] == "equal"


def test_convert_takes_all_its_options(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("convert", source, tmp_path / "b", "--to", "safetensors")
    options = (
        "--dtype",
        "float16",
        "--max-shard-size",
        "10kB",
        "--head",
        "ForMaskedLM",
        "--no-progress",
        "--allow-overflow",
    )
    assert run(capsys, *arguments, *options)[0] == 0
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, [])
    assert len(err) == 1
    assert err[0].startswith(f"xlmr: error: {tmp_path}/b holds model.safetensors.index.json, config.json already; ")
    assert run(capsys, *arguments, "--force")[0] == 0
    assert (tmp_path / "b" / "model.safetensors").exists()


def test_convert_shows_progress_where_it_is_wanted(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, err = run(capsys, "convert", source, tmp_path / "b", "--to", "safetensors", "--progress")
    assert err[-1].startswith("converting: 100%")
    assert "B/s" in err[-1]


def test_convert_as_json(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "convert", source, tmp_path / "b", "--to", "pt", "--verify", "--json")
    found = json.loads("\n".join(out))
    assert (status, found["to_format"], found["files"]) == (0, "torch", [str(tmp_path / "b" / "pytorch_model.bin")])
    assert found["comparison"]["compared"] == found["tensors"]


def test_convert_says_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_of("base", "ForMaskedLM")
    arrays = arrays_of(config, "ForMaskedLM")
    del arrays["lm_head.dense.bias"]
    save(tmp_path / "a", config, "ForMaskedLM", {**arrays, "mine": np.ones(2, np.float32)})
    status, _, err = run(capsys, "convert", tmp_path / "a", tmp_path / "b", "--to", "safetensors")
    assert status == 0
    assert err == [
        "xlmr: lm_head.dense.bias is not in the source, and not in the result either",
        "xlmr: mine has no place in XLMRobertaForMaskedLM and was left out",
    ]


def test_convert_knows_the_built_in_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "convert", "xlmr-mini", tmp_path / "b", "--to", "safetensors")[0] == 0
    assert run(capsys, "verify", "xlmr-mini", tmp_path / "b")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("convert", "no/such/model", "x", "--to", "torch"), "expected a folder with a model at"),
        (("inspect", "xlmr-mino"), "did you mean 'xlmr-mini'?"),
        (("verify", "xlmr-mini", "/no/such/model"), "expected a folder with a model at"),
        (("doctor", ""), "received an empty name"),
        (("inspect", "README.md"), "README.md is none of: "),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if arguments[1] == "README.md":
        arguments = ("inspect", str(ROOT / "README.md"))
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, [])
    assert len(err) == 1
    assert err[0].startswith("xlmr: error: ")
    assert words in err[0]


# inspect


def test_inspect(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "inspect", source)
    assert (status, err) == (0, [])
    rows = {line[:15].strip(): line[15:] for line in out[1:]}
    assert rows["architecture"] == "XLMRobertaForMaskedLM (xlm-roberta)"
    assert "hidden_size 16" in rows["sizes"]
    assert "16 bytes a parameter" in rows["to train"]
    assert "lm_head.decoder.weight = roberta.embeddings.word_embeddings.weight" in {line[15:] for line in out}


def test_inspect_as_json(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "inspect", source, "--json")
    found = json.loads("\n".join(out))
    assert status == 0
    assert found["format"] == "safetensors"
    assert found["dtypes"][0]["dtype"] == "F32"
    assert found["memory"]["train_mixed"] == 16 * found["num_parameters"]


def test_inspect_of_what_cannot_be_loaded(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_config(source, num_hidden_layers=3)
    status, out, _ = run(capsys, "inspect", source)
    assert status == 1
    assert any(line.startswith("  problem      expected the encoder weight") for line in out)


# verify


def test_verify(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "verify", source, source)
    assert (status, err, out[-1]) == (0, [], "equal")
    config = config_of("base", "ForMaskedLM")
    save(tmp_path / "b", config, "ForMaskedLM", arrays_of(config, "ForMaskedLM", seed=1))
    status, out, _ = run(capsys, "verify", source, tmp_path / "b")
    assert (status, out[-1]) == (1, "different")
    assert any(line.startswith("of other values (") for line in out)
    assert any(line.strip().startswith("... and ") for line in out)
    status, out, _ = run(capsys, "verify", source, tmp_path / "b", "--json")
    found = json.loads("\n".join(out))
    assert (status, found["equal"], found["only_a"]) == (1, False, [])


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("mxnet", "expected one of reference, torch, tf, flax, onnx, received 'mxnet'"),
        ("torch,flx", "expected one of reference, torch, tf, flax, onnx, received 'flx'; did you mean flax?"),
        ("torch,tf,flax", "expected one name or two with a comma between, received 'torch,tf,flax'"),
        ("", "expected one of reference, torch, tf, flax, onnx, received ''"),
    ],
)
def test_verify_wants_one_or_two_backends(
    backend: str, words: str, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, "verify", source, source, "--backend", backend)
    assert (status, out, err) == (2, [], [f"xlmr: error: --backend: {words}"])


def test_verify_with_a_backend(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    for option, names in (("--backend", "reference,torch"), ("--framework", "reference, pt")):
        status, out, _ = run(capsys, "verify", source, source, option, names)
        assert status == 0
        assert any("(reference and torch)" in line for line in out)


# doctor


def test_doctor(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "doctor", source)
    assert (status, out[-1]) == (0, "healthy; 13 checks")
    change_config(source, is_decoder=True, layer_norm_eps=1e-12)
    (source / "sentencepiece.bpe.model").unlink()
    status, out, _ = run(capsys, "doctor", source)
    assert (status, out[-1]) == (1, "1 fault; 13 checks")
    assert out[1].startswith("  FAULT   head: XLMRobertaForMaskedLM with is_decoder=true")
    assert out[2] == "          remedy: set is_decoder to false"
    assert out[3].startswith("  advice  config: layer_norm_eps is 1e-12")
    for option in (("--json",), ("--format", "json")):
        status, out, _ = run(capsys, "doctor", source, *option)
        found = json.loads("\n".join(out))
        assert (status, found["healthy"], len(found["findings"])) == (1, False, 3)
    status, out, _ = run(capsys, "doctor", ROOT / "docs")
    assert (status, out[-1]) == (1, "1 fault; 1 check")


def test_doctor_shows_progress_where_it_is_wanted(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "doctor", source, "--progress")
    assert status == 0
    assert err[-1].startswith("reading: 100%")
    assert run(capsys, "doctor", source)[2] == []


# Words


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1_234_567, "1.23 MB"),
        (4e9, "4 GB"),
        (9996e8, "1 TB"),
        (999_600, "1 MB"),
    ],
)
def test_bytes(nbytes: float, text: str) -> None:
    assert words.nbytes_text(nbytes) == text


# Terminal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal_and_elsewhere_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, wanted, shown in (
        (Terminal(), None, True),
        (Terminal(), False, False),
        (io.StringIO(), None, False),
        (io.StringIO(), True, True),
    ):
        monkeypatch.setattr(sys, "stderr", stream)
        with ProgressBar(wanted) as progress:
            progress("converting", 500, 1000)
            progress("converting", 1000, 1000)
            progress("comparing", 1000, 1000)
            terminal.say("warning", "mind the step")
            progress("comparing", 400, 1000)  # another round of the same
        text = stream.getvalue()
        assert ("converting: 100%" in text, "comparing: 100%" in text, "comparing:  40%" in text) == (shown,) * 3
        assert ("\rxlmr: " if shown else "xlmr: ") + "warning: mind the step\n" in text
    monkeypatch.setattr(sys, "stderr", None)
    with ProgressBar(True) as progress:
        progress("converting", 500, 1000)
    terminal.say("error", "nobody hears it")


@pytest.mark.parametrize(("stream", "is_wrapped"), [(io.StringIO(), False), (Terminal(), True)])
def test_lines_are_wrapped_on_a_terminal_only(
    stream: io.StringIO, is_wrapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys, "stdout", stream)
    terminal.show("  sizes        " + "number, " * 10, 15)
    first, *rest = stream.getvalue().splitlines()
    assert first.startswith("  sizes        number,")
    assert all(row.startswith(" " * 15 + "number,") for row in rest)
    assert bool(rest) is is_wrapped and (max(map(len, (first, *rest))) <= 40) is is_wrapped


STARTS = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795911085.608387   22872 cudart_stub.cc:31] Could not find cuda drivers on your machine.
2026-11-28 10:00:00.123456: I tensorflow/core/platform/cpu_feature_guard.cc:210] This TensorFlow binary is optimized.
To enable the following instructions: AVX2, in other operations, rebuild TensorFlow with the appropriate flags.
E0000 00:00:1795911173.168933   22872 cuda_platform.cc:52] failed call to cuInit: INTERNAL: UNKNOWN ERROR (303)
"""
ERRORS = """\
E0000 00:00:1795911173.168933   22872 allocator.cc:52] out of memory
Traceback (most recent call last):
Fatal Python error: Aborted
"""


def test_the_start_of_a_framework_is_not_told_and_errors_are() -> None:
    code = (
        "import os, sys; from xlmr_core.cli.terminal import quietly\n"
        "with quietly('torch', 'tf'):\n"
        "    os.write(2, sys.argv[1].encode()); print('python', os.environ['TF_CPP_MIN_LOG_LEVEL'], file=sys.stderr)\n"
        "    if sys.argv[2:]: os.abort()\n"
        "os.write(2, b'I0000 after'); print('TF_CPP_MIN_LOG_LEVEL' in os.environ)"
    )
    env = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}

    def told(*arguments: str, **more: str) -> tuple[str, str]:
        command = [sys.executable, "-c", code, STARTS + ERRORS, *arguments]
        done = subprocess.run(command, cwd=ROOT, env={**env, **more}, capture_output=True, text=True, check=False)
        return done.stdout, done.stderr.replace("python 2\n", "").replace("python 0\n", "")

    assert told() == ("False\n", f"{ERRORS}I0000 after")
    assert told("abort") == ("", ERRORS)
    assert told(TF_CPP_MIN_LOG_LEVEL="0") == ("True\n", f"{STARTS}{ERRORS}I0000 after")


def test_nothing_of_a_file_speaks_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_of("base", "Model")
    name = "a\x1b[31mred\x1b]0;title\x07\nequal\u202e"
    save(tmp_path, config, "Model", {**arrays_of(config, "Model"), name: np.ones(2, np.float32)})
    for arguments in (
        ("inspect", tmp_path),
        ("doctor", tmp_path),
        ("verify", tmp_path, tmp_path),
        ("convert", tmp_path, tmp_path / "b", "--to", "safetensors"),
    ):
        _, out, err = run(capsys, *arguments)
        text = "\n".join((*out, *err))
        assert "a\\x1b[31mred\\x1b]0;title\\x07" in text and "\\u202e" in text
        assert not set("\x1b\x07\u202e") & set(text)
        assert "equal\\u202e" not in (*out, *err)


def test_json_says_commands_to_a_terminal_in_its_own_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_of("base", "Model")
    name = "a\x9b31mred\u202e\x7f\x1b"
    save(tmp_path, config, "Model", {**arrays_of(config, "Model"), name: np.ones(2, np.float32)})
    _, out, _ = run(capsys, "inspect", tmp_path, "--format", "json")
    assert json.loads("\n".join(out))["unexpected"] == [name]
    assert not set(name) - set("a31mred") & set("\n".join(out))


def test_no_error_of_a_file_makes_a_line_of_its_own(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "model.safetensors").unlink()
    index = {"weight_map": {"a": "x\x1b[31m\nxlmr: error: forged.safetensors"}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    status, out, err = run(capsys, "inspect", source)
    assert (status, out, len(err)) == (2, [], 1)
    assert "\x1b" not in err[0]
    status, _, err = run(capsys, "inspect", "no\n\x9bsuch")
    assert (status, len(err)) == (2, 1)


def test_errors_and_warnings_in_python_write_commands_out() -> None:
    assert str(CheckpointError("a\x1b[31m\nforged\u202e")) == "a\\x1b[31m\\nforged\\u202e"
    assert str(MismatchError("one\ntwo\x1b")) == "one\ntwo\\x1b"
    with pytest.warns(LoadWarning, match=r"^a\\x07\\nb$"):
        warn_caller("a\x07\nb", LoadWarning)
    assert str(LoadReport("f", "m", unexpected=("a\nb\x1b",))).splitlines()[-1] == "  unexpected  a\\nb\\x1b"


@pytest.mark.skipif(not Path("/dev/full").exists() or os.name == "nt", reason="writes to a full device")
def test_output_that_cannot_be_written_is_an_error(source: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "xlmr_core", "inspect", str(source)],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 2
