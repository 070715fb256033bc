"""Converting checkpoints: every head to every format bit for bit, and the destination whole whatever happens."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core.small_models import FAMILIES, Arrays, arrays_of, change_config, config_of, save, with_tokenizer
from tests.core.tokenization_models import small_model, with_pieces
from xlmr_core.checkpoint import open_checkpoint
from xlmr_core.checkpoints.model_files import open_model
from xlmr_core.conversion import Conversion, convert, writable_formats
from xlmr_core.diagnosis import diagnose
from xlmr_core.errors import CheckpointError, ModelNotFoundError
from xlmr_core.heads import HEADS
from xlmr_core.tokenization import AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
FORMATS = writable_formats()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def values_in(path: Path, format: str | None = None) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """What a checkpoint holds of its model, by canonical name."""
    with open_model(path, format=format) as files:
        raws = {name: stream.read() for name, stream in files.streams().items()}
    return {name: (raw.dtype, raw.shape, bytes(raw.data)) for name, raw in raws.items()}


def without_token_types(arrays: Arrays) -> Arrays:
    """With a row of zeros for them, as published models have it: fairseq keeps no other in its place."""
    return {name: np.zeros_like(x) if "token_type" in name else x for name, x in arrays.items()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A masked language model with a tokenizer."""
    folder = tmp_path / "source"
    save(folder, config_of("base", "ForMaskedLM"), "ForMaskedLM")
    with_tokenizer(folder)
    return folder


# Values


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_head_comes_back_bit_for_bit(family: str, head: str, to: str, tmp_path: Path) -> None:
    config = config_of(family, head)
    arrays = arrays_of(config, head, pooler=False if to == "fairseq" else None)
    if to == "fairseq":
        arrays = without_token_types(arrays)
    save(tmp_path / "a", config, head, arrays)
    if to == "fairseq" and head not in ("Model", "ForMaskedLM", "ForSequenceClassification"):
        with pytest.raises(CheckpointError, match="^fairseq (cannot hold this model|has no place)"):
            convert(tmp_path / "a", tmp_path / "b", to)
        assert not (tmp_path / "b").exists()
        return
    done = convert(tmp_path / "a", tmp_path / "b", to, verify=True)
    assert (done.to_format, done.from_format) == (to, "safetensors")
    assert done.comparison is not None and done.comparison.equal
    assert done.comparison.identical == done.comparison.compared == done.tensors
    assert done.comparison.outputs
    convert(tmp_path / "b", tmp_path / "c", "safetensors")
    assert values_in(tmp_path / "c") == values_in(tmp_path / "a")
    assert (tmp_path / "c" / "config.json").read_bytes() == (tmp_path / "a" / "config.json").read_bytes()


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_kept(dtype: str, to: str, tmp_path: Path) -> None:
    config = config_of("base", "ForMaskedLM")
    save(tmp_path / "a", config, "ForMaskedLM", without_token_types(arrays_of(config, "ForMaskedLM")))
    convert(tmp_path / "a", tmp_path / "half", "safetensors", dtype=dtype)
    convert(tmp_path / "half", tmp_path / "b", to)
    assert values_in(tmp_path / "b", to) == values_in(tmp_path / "half")
    convert(tmp_path / "b", tmp_path / "c", "safetensors")
    assert values_in(tmp_path / "c") == values_in(tmp_path / "half")


@pytest.mark.parametrize("to", FORMATS)
def test_a_mixture_of_dtypes_is_kept(to: str, tmp_path: Path) -> None:
    config = config_of("base", "ForMaskedLM")
    arrays = without_token_types(arrays_of(config, "ForMaskedLM"))
    # Norms in float32, everything else in half precision.
    arrays = {name: x if "LayerNorm" in name else x.astype(np.float16) for name, x in arrays.items()}
    save(tmp_path / "a", config, "ForMaskedLM", arrays)
    convert(tmp_path / "a", tmp_path / "b", to)
    assert values_in(tmp_path / "b", to) == values_in(tmp_path / "a")
    assert {dtype for dtype, _, _ in values_in(tmp_path / "b", to).values()} == {"F16", "F32"}


def test_a_dtype_rounds_every_parameter_and_the_config_says_so(tmp_path: Path, source: Path) -> None:
    done = convert(source, tmp_path / "b", "safetensors", dtype="bfloat16", verify=True)
    found, before = values_in(tmp_path / "b"), values_in(source)
    assert {dtype for dtype, _, _ in found.values()} == {"BF16"}
    name = "roberta.encoder.layer.0.output.dense.weight"
    bits = np.frombuffer(before[name][2], np.uint32)
    expected = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    assert found[name][2] == expected.tobytes()
    assert json.loads((tmp_path / "b" / "config.json").read_text())["dtype"] == "bfloat16"
    assert done.comparison is not None and done.comparison.equal
    assert (done.comparison.identical, done.comparison.values) == (0, ())
    assert 0 < done.comparison.largest < 0.01
    assert done.comparison.outputs[0].largest > 0


def test_overflow_is_an_error_that_names_the_tensor_and_leaves_nothing(tmp_path: Path) -> None:
    config = config_of("xl", "Model")
    arrays = arrays_of(config, "Model")
    arrays["encoder.layer.1.output.dense.bias"][3] = 1e5
    save(tmp_path / "a", config, "Model", arrays)
    with pytest.raises(
        CheckpointError, match=r"^encoder.layer.1.output.dense.bias holds 100000, which is infinite in float16"
    ):
        convert(tmp_path / "a", tmp_path / "b", "safetensors", dtype="float16")
    assert not (tmp_path / "b").exists()
    convert(tmp_path / "a", tmp_path / "b", "safetensors", dtype="float16", allow_overflow=True)
    with open_checkpoint(tmp_path / "b") as checkpoint:
        assert checkpoint.tensor("encoder.layer.1.output.dense.bias").to_numpy()[3] == np.inf


def test_an_untied_decoder_and_a_pooler_that_no_head_needs_are_kept(tmp_path: Path) -> None:
    config = config_of("base", "ForMaskedLM", tie_word_embeddings=False)
    save(tmp_path / "a", config, "ForMaskedLM", arrays_of(config, "ForMaskedLM", pooler=True))
    convert(tmp_path / "a", tmp_path / "b", "safetensors")
    found = values_in(tmp_path / "b")
    assert found == values_in(tmp_path / "a")
    assert {"lm_head.decoder.weight", "lm_head.decoder.bias", "roberta.pooler.dense.weight"} <= found.keys()


def test_what_is_missing_is_not_made_up_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    config = config_of("base", "ForTokenClassification")
    arrays = arrays_of(config, "ForTokenClassification")
    del arrays["classifier.bias"]
    arrays["lm_head.dense.weight"] = arrays["somebody.else"] = np.ones((2, 2), np.float32)
    save(tmp_path / "a", config, "ForTokenClassification", arrays)
    done = convert(tmp_path / "a", tmp_path / "b", "safetensors", verify=True)
    assert done.report.missing == ("classifier.bias",)
    assert done.report.unexpected == ("somebody.else",)
    assert [row.name for row in done.report.dropped] == ["lm_head.dense.weight"]
    assert done.comparison is not None and done.comparison.equal
    assert done.comparison.notes[-1] == "outputs are not compared, because parameters are missing"
    assert values_in(tmp_path / "b").keys() == arrays.keys() - {"lm_head.dense.weight", "somebody.else"}


def test_large_checkpoints_are_split(tmp_path: Path, source: Path) -> None:
    done = convert(source, tmp_path / "b", "safetensors", max_shard_size="10kB", verify=True)
    assert len(done.files) > 2
    assert done.comparison is not None and done.comparison.equal
    convert(tmp_path / "b", tmp_path / "c", "safetensors")
    assert values_in(tmp_path / "c") == values_in(source)


@pytest.mark.parametrize("family", FAMILIES)
def test_fairseq_has_no_token_types_and_keeps_their_row_in_the_positions(family: str, tmp_path: Path) -> None:
    before = save(tmp_path / "a", config_of(family, "ForMaskedLM"), "ForMaskedLM")
    with_tokenizer(tmp_path / "a")
    done = convert(tmp_path / "a", tmp_path / "b", "fairseq", verify=True)
    assert done.comparison is not None and done.comparison.equal
    assert done.comparison.notes[0].startswith("the row of the only token type is compared together with the positions")
    names = ["roberta.embeddings.position_embeddings.weight", "roberta.embeddings.token_type_embeddings.weight"]
    with open_model(tmp_path / "b") as files:
        positions, types = (files.streams()[name].read().to_numpy() for name in names)
    assert np.array_equal(positions, before[names[0]] + before[names[1]])
    assert not types.any()
    # What fairseq itself wants beside the archive.
    lines = (tmp_path / "b" / "dict.txt").read_text().splitlines()
    assert len(lines) == 117
    assert lines[0].split(" ")[0] == "▁"


def test_fairseq_has_no_pooler_and_none_is_missed_below_a_head_that_does_not_read_it(tmp_path: Path) -> None:
    config = config_of("base", "ForMaskedLM")
    save(tmp_path / "a", config, "ForMaskedLM", arrays_of(config, "ForMaskedLM", pooler=True))
    done = convert(tmp_path / "a", tmp_path / "b", "fairseq", verify=True)
    assert [row.why for row in done.report.dropped] == ["this model has no pooler"] * 2
    assert done.comparison is not None and done.comparison.equal
    save(tmp_path / "c", config_of("base", "Model"), "Model")
    with pytest.raises(
        CheckpointError, match=r"no place for the pooler of XLMRobertaModel; leave it out with pooler=False"
    ):
        convert(tmp_path / "c", tmp_path / "d", "fairseq")
    done = convert(tmp_path / "c", tmp_path / "d", "fairseq", pooler=False, verify=True)
    assert done.comparison is not None and done.comparison.equal
    assert "pooler.dense.weight" not in values_in(tmp_path / "d")


# The head


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("architectures", [None, ["SomebodysOwnModel"]])
def test_the_parameters_say_the_head_where_the_config_does_not(
    head: str, architectures: list[str] | None, tmp_path: Path
) -> None:
    save(tmp_path, config_of("base", head), head)
    change_config(tmp_path, architectures=architectures)
    with open_model(tmp_path) as files:
        assert files.head == head


def test_several_heads_need_a_word(tmp_path: Path) -> None:
    config = config_of("base", "ForMaskedLM")
    save(
        tmp_path,
        config,
        "ForMaskedLM",
        arrays_of(config, "ForMaskedLM") | {"qa_outputs.weight": np.ones((2, 16), np.float32)},
    )
    change_config(tmp_path, architectures=None)
    with pytest.raises(
        CheckpointError, match=r"heads ForMaskedLM and ForQuestionAnswering, .* name one: head='ForMaskedLM'"
    ):
        open_model(tmp_path)
    with open_model(tmp_path, head="ForMaskedLM") as files:
        assert files.head == "ForMaskedLM"
    with pytest.raises(CheckpointError, match="^head must be one of Model, .*, received 'ForEverything'"):
        open_model(tmp_path, head="ForEverything")


def test_one_head_of_a_fairseq_archive_with_several(tmp_path: Path, shared: Path) -> None:
    archive = tmp_path / "archive"
    shutil.copytree(shared / "fixtures" / "fairseq" / "base_args_heads", archive)
    shutil.copy(shared / "fixtures" / "tokenizer" / "sentencepiece.bpe.model", archive)
    done = convert(archive, tmp_path / "b", "safetensors", part="mnli", verify=True)
    assert done.architecture == "XLMRobertaForSequenceClassification"
    assert done.report.missing == done.report.unexpected == ()
    assert done.comparison is not None and done.comparison.equal
    assert (done.comparison.sentences, done.comparison.tokens) == (37, ())
    with pytest.raises(CheckpointError, match="has no part 'snli'; it has mnli, other_head"):
        convert(archive, tmp_path / "c", "safetensors", part="snli")
    # Healthy but for the names of the labels, which an archive does not have.
    assert [finding.check for finding in diagnose(tmp_path / "b").findings] == ["labels"]


def test_a_preset_of_kerashub_gets_a_config_and_a_tokenizer_that_others_read(tmp_path: Path) -> None:
    preset = tmp_path / "preset"
    shutil.copytree(ROOT / "tests" / "core" / "recorded" / "kerashub", preset)
    (preset / "assets" / "tokenizer").mkdir(parents=True)
    (preset / "assets" / "tokenizer" / "vocabulary.spm").write_bytes(small_model())
    (preset / "tokenizer.json").write_text('{"class_name": "XLMRobertaTokenizer"}')  # KerasHub's, of another kind
    done = convert(preset, tmp_path / "b", "safetensors", verify=True)
    assert done.comparison is not None and done.comparison.equal
    assert set(done.copied) == {"config.json", "sentencepiece.bpe.model", "tokenizer_config.json"}
    assert json.loads((tmp_path / "b" / "config.json").read_text())["architectures"] == ["XLMRobertaModel"]
    assert AutoTokenizer.from_pretrained(tmp_path / "b").model_max_length == 10


# Small files


def test_tokenizer_and_config_come_along_and_other_files_do_not(tmp_path: Path, source: Path) -> None:
    (source / "generation_config.json").write_text("{}")
    (source / "notes.txt").write_text("mine")
    done = convert(source, tmp_path / "b", "safetensors")
    small = {"config.json", "sentencepiece.bpe.model", "tokenizer_config.json", "generation_config.json"}
    assert set(done.copied) == small
    copied = contents(tmp_path / "b")
    assert copied.keys() == {*small, "model.safetensors"}
    assert all(copied[name] == contents(source)[name] for name in small)


@pytest.mark.parametrize("layout", ["flat", "nested"])
def test_a_sentence_encoder_stays_one(layout: str, tmp_path: Path, source: Path) -> None:
    root = tmp_path / "encoder"
    inner = root if layout == "flat" else root / "0_Transformer"
    shutil.copytree(source, inner)
    (root / "1_Pooling").mkdir()
    (root / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    path = "" if layout == "flat" else "0_Transformer"
    modules = [
        {"idx": 0, "path": path, "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "path": "1_Pooling", "type": "Pooling"},
    ]
    (root / "modules.json").write_text(json.dumps(modules))
    (inner / "sentence_bert_config.json").write_text('{"max_seq_length": 32}')
    convert(root, tmp_path / "b", "safetensors")
    found = contents(tmp_path / "b")
    assert found["1_Pooling/config.json"] == b'{"pooling_mode_mean_tokens": true}'
    assert found["sentence_bert_config.json"] == b'{"max_seq_length": 32}'
    assert json.loads(found["modules.json"]) == [{**modules[0], "path": ""}, modules[1]]


@pytest.mark.parametrize("path", ["../elsewhere", "/etc", "a/b"])
def test_a_list_of_modules_cannot_reach_outside(path: str, tmp_path: Path, source: Path) -> None:
    transformer = {"path": "", "type": "sentence_transformers.models.Transformer"}
    (source / "modules.json").write_text(json.dumps([transformer, {"path": path, "type": "Pooling"}]))
    with pytest.raises(CheckpointError, match="names the folder .*; expected a name in the same folder"):
        convert(source, tmp_path / "b", "safetensors")


# The destination


def test_nothing_is_replaced_without_force(tmp_path: Path, source: Path) -> None:
    other = tmp_path / "other"
    save(
        other,
        config_of("base", "ForMaskedLM"),
        "ForMaskedLM",
        arrays_of(config_of("base", "ForMaskedLM"), "ForMaskedLM", 1),
    )
    before = contents(other)
    with pytest.raises(CheckpointError, match="holds model.safetensors already; .*force=True to replace it"):
        convert(source, other, "safetensors")
    assert contents(other) == before
    convert(source, other, "safetensors", force=True)
    assert values_in(other) == values_in(source)


def test_a_folder_with_other_things_is_left_as_it_is(tmp_path: Path, source: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "README.md").write_text("mine")
    convert(source, tmp_path / "b", "safetensors")
    assert (tmp_path / "b" / "README.md").read_text() == "mine"


@pytest.mark.parametrize("stranger", ["tokenizer.json", "modules.json"])
def test_what_would_make_a_mixture_is_refused_even_with_force(stranger: str, tmp_path: Path, source: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / stranger).write_text("{}")
    with pytest.raises(CheckpointError, match=f"holds {stranger}, which would be read with the new weights"):
        convert(source, tmp_path / "b", "safetensors", force=True)
    assert contents(tmp_path / "b") == {stranger: b"{}"}


def test_what_an_earlier_conversion_made_of_a_vocabulary_is_made_anew(tmp_path: Path, source: Path) -> None:
    (source / "tokenizer_config.json").unlink()
    convert(source, tmp_path / "a", "fairseq")
    convert(tmp_path / "a", tmp_path / "b", "safetensors")
    shutil.copy(tmp_path / "a" / "dict.txt", tmp_path / "b")  # as earlier releases left it there
    made = contents(tmp_path / "b")
    assert {"dict.txt", "tokenizer_config.json"} <= set(made)
    with pytest.raises(CheckpointError, match=r"holds model.safetensors.* already; .*force=True to replace"):
        convert(source, tmp_path / "b", "safetensors")
    convert(source, tmp_path / "b", "safetensors", force=True)
    again = contents(tmp_path / "b")
    assert all(again[name] == made[name] for name in ("dict.txt", "tokenizer_config.json"))
    # Of another vocabulary they would be wrong.
    (source / "sentencepiece.bpe.model").write_bytes(with_pieces(small_model(), 123))
    convert(source, tmp_path / "b", "safetensors", force=True)
    assert contents(tmp_path / "b")["dict.txt"].count(b"\n") == 120 > made["dict.txt"].count(b"\n") == 117


def test_weights_of_another_format_are_refused_even_with_force(tmp_path: Path, source: Path) -> None:
    convert(source, tmp_path / "b", "safetensors")
    before = contents(tmp_path / "b")
    with pytest.raises(CheckpointError, match="holds model.safetensors, which would be read with the new weights"):
        convert(source, tmp_path / "b", "torch", force=True)
    assert contents(tmp_path / "b") == before


def test_another_format_goes_into_the_source_itself_and_nothing_else_does(source: Path) -> None:
    before = contents(source)
    convert(source, source, "torch", verify=True)
    after = contents(source)
    assert after.items() >= before.items()
    assert after.keys() - before.keys() == {"pytorch_model.bin"}
    with pytest.raises(CheckpointError, match="is the source itself, and model.safetensors would be overwritten"):
        convert(source, source, "safetensors", force=True)
    with pytest.raises(CheckpointError, match="is the source itself, and config.json would be overwritten"):
        convert(source, source, "torch", dtype="float16", force=True)
    assert contents(source) == after


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"to": "onnx"}, CheckpointError, "expected a format of safetensors, .*, received 'onnx'"),
        ({"dtype": "int8"}, CheckpointError, "dtype must be one of float32, .*, received 'int8'"),
        ({"max_shard_size": "much"}, CheckpointError, "max_shard_size must be .*, received 'much'"),
        ({"source": "no/such/folder"}, ModelNotFoundError, "no/such/folder"),
        ({"destination": "file"}, CheckpointError, "expected a folder to write to, received the file"),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(
    arguments: dict[str, Any], error: type, message: str, tmp_path: Path, source: Path
) -> None:
    (tmp_path / "file").write_text("")
    values = {"source": source, "to": "safetensors", **arguments}
    destination = tmp_path / str(values.pop("destination", "b"))
    with pytest.raises(error, match=message) as caught:
        convert(values.pop("source"), destination, **values)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "b").exists()


def test_progress_counts_every_byte_once(tmp_path: Path, source: Path) -> None:
    told: list[tuple[str, int, int]] = []
    done = convert(source, tmp_path / "b", "safetensors", verify=True, progress=lambda *state: told.append(state))
    assert list(dict.fromkeys(what for what, _, _ in told)) == ["converting", "comparing", "running"]
    for what in ("converting", "comparing"):
        counts = [count for name, count, _ in told if name == what]
        assert counts == sorted(counts)
        assert counts[-1] == done.nbytes
        assert {total for name, _, total in told if name == what} == {done.nbytes}


# Interruptions

# Kills itself with the given signal once so many bytes were converted; 0 is before the first, -1 is while the files
# take their place.
KILL = r"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from xlmr_core.conversion import convert
at = float(sys.argv[5])

def watch(what, done, total):
    if 0 <= at <= done / total:
        os.kill(os.getpid(), signal.SIGKILL)

renames = 0
def step(event, arguments):
    global renames
    if event == "os.rename":
        renames += 1
        if renames == -at:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(step)
convert(sys.argv[2], sys.argv[3], sys.argv[4], force=True, dtype="float16", progress=watch)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills processes")
@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("at", ["0", "0.5", "1", "-1", "-2"])
def test_a_kill_leaves_the_old_destination(at: str, to: str, tmp_path: Path, source: Path) -> None:
    old = tmp_path / "old"
    convert(source, old, to)
    before = contents(old)
    values = values_in(old, to)
    command = [sys.executable, "-c", KILL, str(ROOT), str(source), str(old), to, at]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    left = {name: content for name, content in contents(old).items() if not name.endswith(".tmp")}
    if at == "-2":  # between config.json and the weights: the values are still the old ones
        assert left.keys() == before.keys()
    else:
        assert left == before
    assert values_in(old, to) == values
    # And it works the next time.
    convert(source, old, to, force=True, dtype="float16")
    assert {dtype for dtype, _, _ in values_in(old, to).values()} == {"F16"}


# A file-size limit of the process is a disk that fills up: the write itself fails.
FULL = r"""
import resource, sys
sys.path.insert(0, sys.argv[1])
from xlmr_core.conversion import convert
from xlmr_core.errors import CheckpointError
limit = int(sys.argv[5])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    convert(sys.argv[2], sys.argv[3], sys.argv[4], force=True, dtype="float32")
except CheckpointError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the file size with setrlimit")
@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("limit", [300, 20_000])
def test_a_full_disk_leaves_the_old_destination(limit: int, to: str, tmp_path: Path, source: Path) -> None:
    old = tmp_path / "old"
    convert(source, old, to, dtype="float16")
    before = contents(old)
    command = [sys.executable, "-c", FULL, str(ROOT), str(source), str(old), to, str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"to {old}: " in done.stdout
    assert "make room" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert contents(old) == before


def test_a_new_folder_that_could_not_be_filled_goes_again(tmp_path: Path, source: Path) -> None:
    def stop(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "x" / "y", "safetensors", progress=stop)
    assert not (tmp_path / "x").exists()


def test_the_result_says_what_was_done(tmp_path: Path, source: Path) -> None:
    done = convert(source, tmp_path / "b", "safetensors")
    assert isinstance(done, Conversion)
    assert done.architecture == "XLMRobertaForMaskedLM"
    assert done.source == str(source / "model.safetensors")
    assert done.files == (tmp_path / "b" / "model.safetensors",)
    assert done.nbytes == sum(len(data) for _, _, data in values_in(source).values())
    assert done.seconds > 0
    assert done.comparison is None
