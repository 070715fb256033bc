"""Files written by the original libraries: every format gives the same bits, and fairseq archives the recorded
outputs.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.core.format_cases import Contents, contents_of, tensors_of
from tests.core.small_models import config_of
from xlmr_core.checkpoints.found import open_checkpoint, read_config
from xlmr_core.checkpoints.load_plan import plan_load
from xlmr_core.checkpoints.saving import save_checkpoint
from xlmr_core.config import XLMRobertaXLConfig
from xlmr_core.errors import CheckpointError
from xlmr_core.formats.fairseq_format import fairseq_dictionary
from xlmr_core.formats.h5_file import H5File
from xlmr_core.heads import head_of_class
from xlmr_core.reference import forward
from xlmr_core.tokenization.spm import SentencePieceModel

FORMATS = {
    "torch": ("pytorch_model.bin", 8),
    "tf": ("tf_model.h5", 8),
    "flax": ("flax_model.msgpack", 9),
}
# Names that some writers keep twice.
TWICE = {"lm_head.decoder.weight", "lm_head.decoder.bias", "roberta.embeddings.position_ids"}


def without_twice(contents: Contents) -> Contents:
    return {name: value for name, value in contents.items() if name not in TWICE}


@pytest.mark.parametrize("format", FORMATS)
def test_the_files_of_every_head_hold_the_same_bits(format: str, shared: Path) -> None:
    file, count = FORMATS[format]
    folders = sorted(
        path.parent for path in (shared / "fixtures").glob(f"hf*/*/{file}") if "by" not in path.parent.name
    )
    assert len(folders) >= count
    for folder in folders:
        assert without_twice(contents_of(folder, format)) == without_twice(contents_of(folder, "safetensors")), folder


@pytest.mark.parametrize(
    "folder",
    [
        "hf_sharded/ForMaskedLM_bin",
        "hf_sharded/ForMaskedLM_h5",
        "hf_sharded/ForMaskedLM_msgpack",
        "hf_sharded/ForMaskedLM_safetensors",
        "hf_variants/ForMaskedLM_bin_by_4.30",
        "hf_variants/ForMaskedLM_safetensors_by_flax",
        "hf_variants/ForMaskedLM_safetensors_by_tf",
    ],
)
def test_other_writers_and_shards_hold_the_same_bits(folder: str, shared: Path) -> None:
    small = contents_of(shared / "fixtures" / "hf_variants" / "ForMaskedLM_small")
    assert without_twice(contents_of(shared / "fixtures" / folder)) == small


def test_bfloat16_of_flax_is_that_of_pytorch(shared: Path) -> None:
    variants = shared / "fixtures" / "hf_variants"
    by_flax, full = contents_of(variants / "ForMaskedLM_bf16_by_flax"), contents_of(variants / "ForMaskedLM_small")
    assert {dtype for dtype, _, _ in by_flax.values()} == {"BF16"}
    for name, (_, shape, data) in by_flax.items():
        ours = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
        values = np.frombuffer(full[name][2], np.float32)
        assert shape == full[name][1]
        assert np.all(np.abs(ours.view(np.float32) - values) <= np.abs(values) * 2**-8), name


def test_flax_files_are_written_as_flax_writes_them(shared: Path, tmp_path: Path) -> None:
    for source in sorted((shared / "fixtures" / "hf").iterdir()):
        config = read_config(source)
        with open_checkpoint(source, "flax") as checkpoint:
            tensors = {name: checkpoint.stream(name) for name in checkpoint.names}
            head = head_of_class((config.architectures or [""])[0]).suffix
            (path,) = save_checkpoint(tmp_path / source.name, "flax", tensors, config, head)
        assert path.read_bytes() == (source / "flax_model.msgpack").read_bytes()


def test_tensorflow_files_have_the_structure_that_tensorflow_gives_them(shared: Path, tmp_path: Path) -> None:
    import h5py

    def structure(path: Path) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        with h5py.File(path) as file:
            found["layers"] = sorted(name for name in file.attrs["layer_names"] if "dropout" not in name)
            for layer in found["layers"]:
                # Instances beside others in a process are numbered.
                names = [name.replace("_2/", "/", 1) for name in file[layer].attrs["weight_names"]]
                found[layer] = sorted(names)
                assert all(name in file[layer] for name in file[layer].attrs["weight_names"])
        return found

    for source in sorted((shared / "fixtures" / "hf").iterdir()):
        config = read_config(source)
        with open_checkpoint(source, "tf") as checkpoint:
            tensors = {name: checkpoint.stream(name) for name in checkpoint.names}
            head = head_of_class((config.architectures or [""])[0]).suffix
            (path,) = save_checkpoint(tmp_path / source.name, "tf", tensors, config, head)
        assert structure(path) == structure(source / "tf_model.h5"), source


# fairseq


@pytest.mark.parametrize("archive", ["base_cfg", "base_args_inproj", "base_args_heads", "xl_cfg"])
def test_fairseq_archives_give_the_recorded_outputs(archive: str, shared: Path, tmp_path: Path) -> None:
    fairseq = shared / "fixtures" / "fairseq"
    config = read_config(fairseq / archive)
    assert isinstance(config, XLMRobertaXLConfig) == (archive == "xl_cfg")
    expected = dict(np.load(fairseq / ("xl_cfg" if archive == "xl_cfg" else "base_cfg") / "expected.npz"))
    ids, where = expected["input_ids"], expected["compare_mask"].astype(bool)

    def outputs(path: Path) -> tuple[np.ndarray, np.ndarray]:
        with open_checkpoint(path) as checkpoint:
            assert checkpoint.format == "fairseq"
            plan = plan_load(config, "ForMaskedLM", checkpoint)
            params = {name: checkpoint.tensor(stored).to_numpy() for name, stored in plan.sources.items()}
        output = forward(config, "ForMaskedLM", params, input_ids=ids, attention_mask=(ids != 1).astype(int))
        return output.hidden_states[-1], output.logits

    features, logits = outputs(fairseq / archive)
    assert np.abs(features - expected["features"])[where].max() < 1e-5
    assert np.abs(logits[:2] - expected["logits"])[where[:2]].max() < 1e-5
    # Written and read again, they are the same.
    with open_checkpoint(fairseq / archive) as checkpoint:
        plan = plan_load(config, "ForMaskedLM", checkpoint)
        tensors = {name: checkpoint.stream(stored) for name, stored in plan.sources.items()}
        save_checkpoint(tmp_path, "fairseq", tensors, config, "ForMaskedLM")
    assert read_config(tmp_path).to_dict() == {**config.to_dict(), "architectures": read_config(tmp_path).architectures}
    again = outputs(tmp_path)
    assert np.array_equal(again[0], features)
    assert np.array_equal(again[1], logits)


def test_a_classification_head_is_chosen_by_name(shared: Path) -> None:
    archive = shared / "fixtures" / "fairseq" / "base_args_heads"
    config = read_config(archive, part="mnli")
    assert (config.num_labels, config.architectures) == (3, ["XLMRobertaForSequenceClassification"])
    expected = np.load(archive / "expected.npz")
    ids = expected["input_ids"]
    with open_checkpoint(archive, part="mnli") as checkpoint:
        plan = plan_load(config, "ForSequenceClassification", checkpoint, ignore_mismatched_sizes=False)
        params = {name: checkpoint.tensor(stored).to_numpy() for name, stored in plan.sources.items()}
    output = forward(config, "ForSequenceClassification", params, input_ids=ids, attention_mask=(ids != 1).astype(int))
    assert np.abs(output.logits - expected["head_mnli"]).max() < 1e-5
    assert read_config(archive, part="other_head").num_labels == 2
    with pytest.raises(CheckpointError, match="has no part 'sst'; it has mnli, other_head"):
        open_checkpoint(archive, part="sst")
    with open_checkpoint(archive) as checkpoint:
        assert "classifier.out_proj.weight" not in checkpoint.names, "two heads, and none was asked for"


def test_the_dictionary_of_fairseq_is_that_of_the_pieces(shared: Path) -> None:
    fixtures = shared / "fixtures"
    data = (fixtures / "tokenizer" / "sentencepiece.bpe.model").read_bytes()
    pieces = SentencePieceModel.from_bytes(data).pieces
    recorded = (fixtures / "fairseq" / "base_cfg" / "dict.txt").read_text().splitlines()
    ours = fairseq_dictionary(pieces).decode().splitlines()
    assert [line.rpartition(" ")[0] for line in ours] == [line.rpartition(" ")[0] for line in recorded]


# sentence-transformers


def test_sentence_transformers_folders_hold_a_transformer(shared: Path, tmp_path: Path) -> None:
    source = shared / "fixtures" / "tasks" / "st_saved_by_6"
    (tmp_path / "0_Transformer").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(source / name, tmp_path / "0_Transformer" / name)
    modules = json.loads((source / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    assert contents_of(tmp_path) == contents_of(source)
    assert read_config(tmp_path) == read_config(source)
    for path in ("../elsewhere", "/etc", "a/b", None):
        modules[0]["path"] = path
        (tmp_path / "modules.json").write_text(json.dumps(modules))
        with pytest.raises(CheckpointError, match="modules.json names the folder"):
            open_checkpoint(tmp_path)
    for text in ("[]", "{", '{"a": 1}', '[{"type": "Pooling", "path": ""}]'):
        (tmp_path / "modules.json").write_text(text)
        with pytest.raises(CheckpointError, match="modules.json names no transformer"):
            open_checkpoint(tmp_path)


# Keras


LAYOUTS = json.loads((Path(__file__).parent / "recorded" / "keras_layouts.json").read_text())
CHANGES = {
    "untied": {"tie_word_embeddings": False},
    "cross": {"add_cross_attention": True},
    "relative": {"position_embedding_type": "relative_key"},
    "plain": {},
}


@pytest.mark.parametrize("model", LAYOUTS)
def test_weights_files_of_keras_have_the_layout_of_the_backend(model: str, tmp_path: Path) -> None:
    family, head, variant = model.split("-")
    config = config_of(family, head, **CHANGES[variant])
    (path,) = save_checkpoint(tmp_path, "keras", tensors_of(config, head, "keras"), config, head)
    assert sorted(H5File(path).tensors) == sorted(LAYOUTS[model])


# KerasHub


def test_a_preset_of_kerashub_gives_the_recorded_outputs() -> None:
    folder = Path(__file__).parent / "recorded" / "kerashub"
    config = read_config(folder)
    assert (config.max_position_embeddings, config.vocab_size, config.architectures) == (12, 20, ["XLMRobertaModel"])
    expected = np.load(folder / "expected.npz")
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.format == "kerashub"
        plan = plan_load(config, "Model", checkpoint, pooler=False)
        assert plan.report.message == ""
        params = {name: checkpoint.tensor(stored).to_numpy() for name, stored in plan.sources.items()}
    ids, mask = expected["input_ids"], expected["attention_mask"]
    states = forward(config, "Model", params, input_ids=ids, attention_mask=mask).hidden_states[-1]
    assert np.abs(states - expected["last_hidden_state"])[mask == 1].max() < 2e-6
