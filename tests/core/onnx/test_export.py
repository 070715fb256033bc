"""What ``xlmr export`` writes: the folder, what other commands say of it, and what is refused."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from tests.core.small_models import arrays_of, change_config, config_of, save, with_tokenizer
from xlmr_core.cli import main
from xlmr_core.conversion import convert
from xlmr_core.diagnosis import diagnose
from xlmr_core.errors import CheckpointError, InputError
from xlmr_core.inspection import inspect_model
from xlmr_core.onnx import OnnxModel, export, exporting, readers
from xlmr_core.tokenization import AutoTokenizer
from xlmr_core.verification import compare


def made(folder: Path, head: str = "ForTokenClassification", family: str = "base", **changes: Any) -> Path:
    save(folder, config_of(family, head, **changes), head)
    with_tokenizer(folder)
    return folder


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


SMALL = {"config.json", "sentencepiece.bpe.model", "tokenizer_config.json"}


def test_the_folder_is_as_on_the_hub(tmp_path: Path) -> None:
    source, target = made(tmp_path / "a"), tmp_path / "b" / "c"
    done = export(source, target)
    assert files_in(target) == {*SMALL, "onnx/model.onnx"}
    assert done.inputs == ("input_ids", "attention_mask", "token_type_ids") and done.outputs == ("logits",)
    assert (done.optional, done.task, done.quantized) == (("token_type_ids",), "token-classification", 0)
    again = export(source, target, scheme="int8")
    assert files_in(target) == {*SMALL, "onnx/model.onnx", "onnx/model_quantized.onnx"}
    assert again.quantized > 0 and again.nbytes < done.nbytes
    assert OnnxModel.from_pretrained(target).session.get_modelmeta().producer_name == "xlmr"


def test_a_folder_may_hold_both(tmp_path: Path) -> None:
    source = made(tmp_path / "a")
    export(source, source)
    export(source, source, scheme="int8")
    assert {"onnx/model.onnx", "onnx/model_quantized.onnx", "model.safetensors"} < files_in(source)
    assert diagnose(source).healthy, diagnose(source).findings
    save(source, config_of("base", "ForTokenClassification"), "ForTokenClassification", arrays_of(
        config_of("base", "ForTokenClassification"), "ForTokenClassification", seed=1
    ))  # fmt: skip
    assert "model.onnx and model.safetensors hold different weights" in str(diagnose(source).findings)


@pytest.mark.parametrize("family", ["base", "xl"])
@pytest.mark.parametrize("head", ["Model", "ForMaskedLM", "ForQuestionAnswering"])
def test_other_commands_know_it(family: str, head: str, tmp_path: Path) -> None:
    source, target = made(tmp_path / "a", head, family, tie_word_embeddings=False), tmp_path / "b"
    export(source, target)
    for backends in (("reference", "reference"), ("reference", "onnx"), ("onnx", "onnx")):
        found = compare(source, target, backends=backends)
        assert found.equal and found.outputs and found.identical == found.compared > 20, found
    seen = inspect_model(target)
    assert (seen.format, seen.head, seen.problem, seen.missing) == ("onnx", head, "", ())
    assert diagnose(target).healthy, diagnose(target).findings
    back = convert(target, tmp_path / "c", "safetensors")
    assert compare(source, back.destination).equal


def test_bytes_are_known_as_such(tmp_path: Path) -> None:
    source, target = made(tmp_path / "a", "ForMaskedLM"), tmp_path / "b"
    export(source, target, scheme="int8")
    share = inspect_model(target).quantized
    assert share is not None and (share.scheme, share.weights) == ("int8", 13)
    assert diagnose(target).healthy, diagnose(target).findings
    stored = convert(source, tmp_path / "c", "safetensors", scheme="int8").destination
    assert compare(stored, target).equal, "the bytes are those of our own scheme"
    assert export(stored, tmp_path / "d").files[0].read_bytes() == (target / "onnx/model_quantized.onnx").read_bytes()


def refused(message: str, error: type[Exception] = CheckpointError) -> Any:
    return pytest.raises(error, match=message)


def test_what_no_graph_is_made_of(tmp_path: Path) -> None:
    decoder = made(tmp_path / "decoder", "ForCausalLM")
    with refused("expected an encoder to make a graph of, received XLMRobertaForCausalLM, which writes texts"):
        export(decoder, tmp_path / "x")
    bare = made(tmp_path / "bare", "Model", hidden_size=32, intermediate_size=32)
    with refused("lacks classifier.dense.weight.*train the head, or export for a task that the checkpoint can do"):
        export(bare, tmp_path / "x", task="text-classification")
    with refused("expected an encoder to make a graph of"):
        export(bare, tmp_path / "x", task="text-generation")
    eight = convert(bare, tmp_path / "eight", "safetensors", scheme="int8").destination
    with refused("has int8 weights already, which are exported as they are; leave the scheme out"):
        export(eight, tmp_path / "x", scheme="int8")
    with refused("a graph holds weights as int8, received nf4"):
        export(bare, tmp_path / "x", scheme="nf4")
    assert not (tmp_path / "x").exists()


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    source, target = made(tmp_path / "a"), tmp_path / "b"
    (tmp_path / "file").write_text("text")
    with refused("expected a folder to write to, received the file"):
        export(source, tmp_path / "file")
    export(source, target)
    before = {name: (target / name).read_bytes() for name in files_in(target)}
    with refused("holds onnx/model.onnx already; choose another folder, or pass force=True"):
        export(source, target)
    other = made(tmp_path / "other", "ForQuestionAnswering")
    with refused("of a model with another config.json; remove it"):
        export(other, target, scheme="int8", force=True)
    with refused("holds model.safetensors, which would be read with the new weights"):
        export(source, other)
    (target / "onnx" / "model.onnx_data").write_bytes(b"large")
    with refused("holds onnx/model.onnx_data already; remove it"):
        export(source, target, force=True)
    (target / "onnx" / "model.onnx_data").unlink()
    assert {name: (target / name).read_bytes() for name in files_in(target)} == before
    export(other, target, force=True)
    assert OnnxModel.from_pretrained(target).outputs == ("start_logits", "end_logits")


def _bare(folder: Path) -> Path:
    return made(folder, "Model")


def _decoder(folder: Path) -> Path:
    return made(folder, "ForCausalLM")


def _int4(folder: Path) -> Path:
    source = made(folder / "plain", hidden_size=32, intermediate_size=32)
    return convert(source, folder / "four", "safetensors", scheme="int4").destination


def _odd(folder: Path) -> Path:
    change_config(made(folder), hidden_act="no_such")
    return folder


def _other(folder: Path) -> Path:
    made(folder.parent / "target", "ForQuestionAnswering", hidden_size=8)
    return made(folder)


def _missing(folder: Path) -> Path:
    return folder


@pytest.mark.parametrize(
    ("make", "arguments", "said"),
    [
        (_bare, ["--task", "text-classification"], "lacks classifier."),
        (_bare, ["--task", "text-generation"], "expected an encoder to make a graph of"),
        (_decoder, [], "expected an encoder to make a graph of, received XLMRobertaForCausalLM"),
        (_int4, [], "has int4 weights already, of which no operator of ONNX Runtime takes"),
        (_odd, [], "hidden_act"),
        (_other, ["--force"], "holds model.safetensors, which would be read with the new weights"),
        (_missing, [], "source"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(
    make: Any, arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make(tmp_path / "source")
    before = {name: (tmp_path / name).read_bytes() for name in files_in(tmp_path)}
    assert main(["export", str(source), str(tmp_path / "target"), "--no-progress", *arguments]) == 2
    told = capsys.readouterr()
    assert told.out == "" and len(told.err.splitlines()) == 1 and said in told.err, told.err
    assert {name: (tmp_path / name).read_bytes() for name in files_in(tmp_path)} == before
    assert (tmp_path / "target").exists() == (make is _other)


def test_a_limit_on_files_leaves_what_was_there(tmp_path: Path) -> None:
    source, target = made(tmp_path / "a", "ForMaskedLM"), tmp_path / "b"
    export(source, target)
    before = {name: (target / name).read_bytes() for name in files_in(target)}
    code = f"""
import resource, sys
from xlmr_core.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sys.exit(main(["export", {str(source)!r}, {str(target)!r}, "--force", "--no-progress"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "make room or choose another folder (what was there before is intact)" in done.stderr
    assert {name: (target / name).read_bytes() for name in files_in(target)} == before


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = exporting.write_model

    def fill(model: Any, file: BinaryIO, *rest: Any) -> None:
        write(model, file, *rest)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(exporting, "write_model", fill)
    with refused("No space left on device; make room or choose another folder"):
        export(made(tmp_path / "a"), tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_what_fits_into_no_message_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "LARGEST_MESSAGE", 1000)
    source, target = made(tmp_path / "a"), tmp_path / "b"
    assert [path.name for path in export(source, target).files] == ["model.onnx", "model.onnx_data"]
    assert compare(source, target, backends=("reference", "onnx")).equal
    (target / "onnx" / "model.onnx_data").unlink()
    with refused("names the file 'model.onnx_data' for its values, expected one in its own folder"):
        inspect_model(target)
    with refused("ONNX Runtime cannot load"):
        OnnxModel.from_pretrained(target)


@pytest.mark.parametrize("cut", [3, 40, 2000, -1])
def test_a_damaged_graph_is_refused(cut: int, tmp_path: Path) -> None:
    target = tmp_path / "b"
    path = export(made(tmp_path / "a"), target).files[0]
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CheckpointError):
        OnnxModel.from_pretrained(target)
    with pytest.raises(CheckpointError):
        inspect_model(target)


def test_graphs_of_others_are_no_checkpoints_but_run(tmp_path: Path) -> None:
    source, target = made(tmp_path / "a", "ForQuestionAnswering"), tmp_path / "b"
    path = export(source, target).files[0]
    content = path.read_bytes()
    # Another producer, and no word of the head.
    path.write_bytes(content.replace(b"\x12\x04xlmr", b"\x12\x04them", 1).replace(b"\x04head", b"\x04else", 1))
    with refused("an ONNX graph|found no weights|expected"):
        inspect_model(target)
    given = {"input_ids": np.array([[0, 5, 2]]), "attention_mask": np.ones((1, 3), np.int64)}
    found = OnnxModel.from_pretrained(target)
    expected = OnnxModel.from_pretrained(source)
    for name in ("start_logits", "end_logits"):
        np.testing.assert_allclose(found(**given)[name], expected(**given)[name], atol=1e-6)


def test_settings_that_are_not_to_be_had(tmp_path: Path) -> None:
    source = made(tmp_path / "a")
    with refused("dtype must be float32 or int8, received 'float16'", InputError):
        OnnxModel.from_pretrained(source, dtype="float16")
    with refused("expected onnx/model_quantized.onnx in .* xlmr export"):
        OnnxModel.from_pretrained(source, dtype="int8")
    with refused("expected the graph other.onnx in .*, found none"):
        OnnxModel.from_pretrained(source, file_name="other.onnx")
    with refused("device 'cuda' asks for a GPU", InputError):
        OnnxModel.from_pretrained(source, device="cuda")
    model = OnnxModel.from_pretrained(source)
    with refused("a graph is not saved again", InputError):
        model.save_pretrained(tmp_path / "x")
    with refused("expected a graph with the output nothing, received one with logits", InputError):
        model.run({"input_ids": np.array([[0, 5, 2]])}, ["nothing"])
    with refused("sequence has 40 tokens", InputError):
        model.run({"input_ids": np.full((1, 40), 5)})


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = made(tmp_path / "a"), tmp_path / "b"
    assert main(["export", str(source), str(target), "--format", "onnx", "--scheme", "int8", "--no-progress"]) == 0
    told = capsys.readouterr().out
    assert "wrote    onnx/model_quantized.onnx" in told and "token_type_ids (may be left out)" in told
    assert main(["export", str(source), str(target), "--json", "--no-progress"]) == 0
    assert json.loads(capsys.readouterr().out)["outputs"] == ["logits"]
    assert main(["export", str(source), str(target), "--no-progress"]) == 2
    assert "pass --force to replace it" in capsys.readouterr().err
    assert main(["verify", str(source), str(target), "--backend", "reference,onnx", "--no-progress"]) == 0
    change_config(source, hidden_act="no_such")
    assert main(["export", str(source), str(tmp_path / "c"), "--no-progress"]) == 2


def test_files_for_transformers_js(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = made(tmp_path / "a"), tmp_path / "b"
    done = export(source, target, reader="transformers.js")
    assert "tokenizer.json" in done.copied and files_in(target) == {*SMALL, "onnx/model.onnx", "tokenizer.json"}
    settings = json.loads((target / "tokenizer_config.json").read_text())
    assert (settings["mask_token"], settings["pad_token"], settings["model_max_length"]) == ("<mask>", "<pad>", 32)
    # What says enough stays as it is, and the small file of another precision is the same.
    assert export(target, tmp_path / "again", reader="transformers.js")
    for name in (*SMALL, "tokenizer.json"):
        assert (tmp_path / "again" / name).read_bytes() == (target / name).read_bytes(), name
    for module in (exporting, readers):
        monkeypatch.setattr(module, "LARGEST_MESSAGE", 1000)
    large = export(source, tmp_path / "large", reader="transformers.js").destination
    said = json.loads((large / "config.json").read_text())["transformers.js_config"]
    assert said == {"use_external_data_format": {"model.onnx": True}}
    assert compare(source, large, backends=("reference", "onnx")).equal
    assert AutoTokenizer.from_pretrained(target)("a text") == AutoTokenizer.from_pretrained(source)("a text")
    with refused("reader must be transformers.js, received 'another'", InputError):
        export(source, tmp_path / "c", reader="another")
    (source / "sentencepiece.bpe.model").unlink()
    with refused("expected a tokenizer for transformers.js beside .*, found none"):
        export(source, tmp_path / "c", reader="transformers.js")
