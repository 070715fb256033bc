"""What vectors are made of and what is done with them: pooling, folders of sentence-transformers, heads, bits."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from xlmr_core.checkpoints.extra_heads import EXTRA_HEAD_FILES, extra_head_contents, read_extra_heads
from xlmr_core.conversion import convert
from xlmr_core.errors import CheckpointError, InputError
from xlmr_core.tasks.activations import ACTIVATIONS, activation_called
from xlmr_core.tasks.sentence_embedding import pooling_weights
from xlmr_core.tasks.sentence_folder import POOLINGS, Dense, Normalize, read_sentence_folder
from xlmr_core.tasks.vectors import SIMILARITIES, cut, normalized, pairwise, quantized, similarity
from xlmr_core.verification import compare

RANDOM = np.random.default_rng(16)
VECTORS = RANDOM.normal(size=(120, 12)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cls", [0, 1, 0, 0]),  # behind a prompt that does not count
        ("max", [0, 1, 1, 0]),
        ("mean", [0, 1 / 2, 1 / 2, 0]),
        ("mean_sqrt_len_tokens", [0, 2**-0.5, 2**-0.5, 0]),
        ("weightedmean", [0, 2 / 5, 3 / 5, 0]),
        ("lasttoken", [0, 0, 1, 0]),
    ],
)
def test_each_pooling_weighs_the_states(name, expected):
    mask_S = np.array([0, 1, 1, 0])
    np.testing.assert_allclose(pooling_weights([name], mask_S), [expected], rtol=1e-6)
    both = pooling_weights([name, "mean"], mask_S)
    assert both.shape == (2, 4) and both.dtype == np.float32
    assert np.isfinite(pooling_weights(list(POOLINGS), np.zeros(4))).all()


def test_bits_are_those_of_the_published_formulas():
    least, largest = VECTORS.min(0), VECTORS.max(0)
    steps = (largest - least) / 255
    expected = (VECTORS - least) / steps
    for precision, low in (("int8", -128), ("uint8", 0)):
        found = quantized(VECTORS, precision)
        assert found.dtype == precision
        # Where a number is nearly whole, one more rounding makes another number of it.
        assert np.abs(found - (np.floor(expected) + low)).max() <= 1
        assert np.mean(found == np.floor(expected) + low) > 0.99
    assert np.array_equal(quantized(VECTORS, "ubinary"), np.packbits(VECTORS > 0, axis=-1))
    assert np.array_equal(quantized(VECTORS, "binary").astype(int), np.packbits(VECTORS > 0, axis=-1).astype(int) - 128)
    outside = quantized(VECTORS * 3, "int8", np.stack([least, largest]))
    assert set(np.unique(outside)) <= set(range(-128, 128)) and outside.min() == -128 and outside.max() == 127
    same = np.ones((3, 4), np.float32)
    assert np.array_equal(quantized(same, "uint8"), np.zeros((3, 4)))
    assert quantized(VECTORS[:0], "int8").shape == (0, 12)
    with pytest.raises(InputError, match="received one; pass ranges"):
        quantized(VECTORS[:1], "int8")


def test_activations():
    numbers = [-40.0, -1.5, 0.0, 0.3, 40.0]
    by_hand = {
        "identity": lambda x: x,
        "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
        "softmax": lambda x: math.exp(x) / sum(map(math.exp, numbers)),
        "tanh": math.tanh,
        "relu": lambda x: max(x, 0.0),
        "logsigmoid": lambda x: -math.log1p(math.exp(-x)),
        "gelu": lambda x: x * math.erfc(-x / math.sqrt(2)) / 2,
        "silu": lambda x: x / (1 + math.exp(-x)),
        "softplus": lambda x: math.log1p(math.exp(x)),
    }
    assert set(by_hand) == set(ACTIVATIONS)
    for name, function in by_hand.items():
        found = activation_called(f"torch.nn.{name}")(np.array(numbers, np.float32))
        np.testing.assert_allclose(found, [function(x) for x in numbers], rtol=1e-6, err_msg=name)
    Softmax = type("Softmax", (), {"dim": 0})
    with pytest.raises(InputError, match="Softmax is served with dim=-1, received 0"):
        activation_called(Softmax())
    with pytest.raises(InputError, match="takes a NumPy array, .* has no attribute 'sigmoid'"):
        activation_called(lambda tensor: tensor.sigmoid())(VECTORS)


def test_similarities():
    a, b = VECTORS[:3].astype(np.float64), VECTORS[3:7].astype(np.float64)
    by_hand = {
        "cosine": lambda x, y: x @ y / np.sqrt((x @ x) * (y @ y)),
        "dot": lambda x, y: x @ y,
        "euclidean": lambda x, y: -np.sqrt(((x - y) ** 2).sum()),
        "manhattan": lambda x, y: -np.abs(x - y).sum(),
    }
    assert set(by_hand) == set(SIMILARITIES)
    for name, function in by_hand.items():
        np.testing.assert_allclose(similarity(a, b, name), [[function(x, y) for y in b] for x in a], rtol=1e-9)
        np.testing.assert_allclose(pairwise(a, b[:3], name), [function(x, y) for x, y in zip(a, b, strict=False)])
        assert similarity(a[:0], b, name).shape == (0, 4)
        assert similarity(a[0], b[0], name).shape == (1, 1)
    assert not normalized(np.zeros(3)).any()
    assert cut(a, None) is a and cut(a, 2).shape == (3, 2)
    with pytest.raises(InputError, match="at most 12 dimensions"):
        cut(a, 13)
    with pytest.raises(InputError, match="vectors of one size"):
        similarity(a, b[:, :3])


def folder(path: Path, modules: list[tuple[str, str, dict]], **files: dict) -> Path:
    """A folder of sentence-transformers without weights: modules by class, folder and config."""
    path.mkdir(exist_ok=True)
    listed = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for number, (kind, name, config) in enumerate(modules, 1):
        listed.append({"idx": number, "name": str(number), "path": name, "type": kind})
        (path / name).mkdir(exist_ok=True)
        (path / name / "config.json").write_text(json.dumps(config))
    (path / "modules.json").write_text(json.dumps(listed))
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


OLD, NEW = "sentence_transformers.models", "sentence_transformers.sentence_transformer.modules"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, ("cls",)),
        ({"pooling_mode_cls_token": True}, ("cls",)),
        ({"word_embedding_dimension": 16}, ("mean",)),  # as published, where none is named
        ({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}, ("max", "mean")),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, ("lasttoken",)),
        ({"pooling_mode": "weightedmean"}, ("weightedmean",)),
        ({"pooling_mode": ["mean", "cls"]}, ("mean", "cls")),
    ],
)
def test_poolings_of_every_version(config, expected, tmp_path):
    kind = f"{NEW}.pooling.Pooling" if "pooling_mode" in config else f"{OLD}.Pooling"
    found = read_sentence_folder(folder(tmp_path, [(kind, "1_Pooling", config)]))
    assert (found.pooling, found.include_prompt, found.layers) == (expected, True, ())


def test_a_folder_with_everything(tmp_path):
    weight = RANDOM.normal(size=(3, 16)).astype(np.float32)
    modules = [
        (f"{OLD}.Pooling", "1_Pooling", {"pooling_mode": "cls", "include_prompt": False}),
        (f"{OLD}.Dense", "2_Dense", {"activation_function": "torch.nn.modules.activation.Tanh"}),
        (f"{OLD}.Dropout", "3_Dropout", {}),
        (f"{OLD}.Normalize", "4_Normalize", {}),
    ]
    made = folder(
        tmp_path,
        modules,
        sentence_bert_config={"max_seq_length": 30, "do_lower_case": True},
        config_sentence_transformers={
            "prompts": {"q": "q: "},
            "default_prompt_name": "q",
            "similarity_fn_name": "dot",
            "activation_fn": "torch.nn.modules.activation.Tanh",
        },
    )
    save_file({"linear.weight": weight, "linear.bias": np.ones(3, np.float32)}, made / "2_Dense" / "model.safetensors")
    found = read_sentence_folder(made)
    assert (found.max_seq_length, found.lower_case, found.prompts) == (30, True, {"q": "q: "})
    assert (found.default_prompt_name, found.similarity, found.include_prompt) == ("q", "dot", False)
    assert found.activation == "torch.nn.modules.activation.Tanh"
    dense, normalize = found.layers
    assert isinstance(dense, Dense) and isinstance(normalize, Normalize)
    vector = RANDOM.normal(size=16).astype(np.float32)
    np.testing.assert_allclose(dense(vector), np.tanh(weight @ vector + 1), rtol=1e-5)
    assert abs(np.linalg.norm(normalize(dense(vector))) - 1) < 1e-6
    (tmp_path / "empty").mkdir()
    found = read_sentence_folder(tmp_path / "empty")
    assert (found.pooling, found.layers, found.max_seq_length, found.similarity) == ((), (), None, "cosine")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"modules.json": "[1]"}, "names no transformer"),
        ({"1_Pooling/config.json": "["}, "holds no object of JSON"),
        ({"1_Pooling/config.json": '{"pooling_mode": "median"}'}, "expected a pooling of cls, max, .*median"),
        (
            {"sentence_bert_config.json": '{"max_seq_length": "long"}'},
            "max_seq_length of .* at least 1, received 'long'",
        ),
        ({"config_sentence_transformers.json": '{"prompts": {"a": 5}}'}, "prompts of .* must be texts by name"),
    ],
)
def test_damaged_folders_are_refused_by_name(damage, message, tmp_path):
    made = folder(tmp_path, [(f"{OLD}.Pooling", "1_Pooling", {})])
    for name, content in damage.items():
        (made / name).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        read_sentence_folder(made)


def test_modules_that_are_not_served_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="'LSTM', which is not served; expected Pooling, Dense"):
        read_sentence_folder(folder(tmp_path, [(f"{OLD}.LSTM", "1_LSTM", {})]))
    made = folder(tmp_path, [(f"{OLD}.Pooling", "1_Pooling", {})])
    listed = json.loads((made / "modules.json").read_text())
    listed[1]["path"] = "../elsewhere"
    (made / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(CheckpointError, match="names the folder '../elsewhere'"):
        read_sentence_folder(made)


# ---- The further heads of bge-m3


@pytest.fixture
def bge(shared, tmp_path):
    copy = tmp_path / "bge"
    shutil.copytree(shared / "fixtures" / "tasks" / "bge_m3", copy, copy_function=shutil.copyfile)
    copy.chmod(0o755)
    return copy


def test_heads_are_the_same_in_both_formats(bge, tmp_path):
    heads = read_extra_heads(bge)
    assert {name: {key: one.shape for key, one in head.items()} for name, head in heads.items()} == {
        "sparse_linear": {"weight": (1, 16), "bias": (1,)},
        "colbert_linear": {"weight": (16, 16), "bias": (16,)},
    }
    contents = extra_head_contents(heads)
    assert set(contents) == set(EXTRA_HEAD_FILES)
    for suffix in (".pt", ".safetensors"):
        other = tmp_path / suffix[1:]
        other.mkdir()
        for name, content in contents.items():
            if name.endswith(suffix):
                (other / name).write_bytes(content)
        again = read_extra_heads(other)
        for head, tensors in heads.items():
            for name, tensor in tensors.items():
                assert again[head][name].read().data == tensor.read().data


def test_a_conversion_keeps_heads_and_a_comparison_sees_them(bge, tmp_path):
    before = {name: (bge / name).read_bytes() for name in ("sparse_linear.pt", "colbert_linear.pt")}
    done = convert(bge, tmp_path / "flax", "flax", verify=True)
    assert done.comparison is not None and done.comparison.equal and set(EXTRA_HEAD_FILES) <= set(done.copied)
    assert {name: (tmp_path / "flax" / name).read_bytes() for name in before} == before
    convert(bge, bge, "torch")  # in place: only what is new is written
    weight = np.zeros((1, 16), np.float32)
    save_file({"weight": weight, "bias": np.zeros(1, np.float32)}, tmp_path / "flax" / "sparse_linear.safetensors")
    found = compare(bge, tmp_path / "flax")
    assert not found.equal and next(row.name for row in found.values).startswith("sparse_linear.")
    for name in EXTRA_HEAD_FILES:
        (tmp_path / "flax" / name).unlink(missing_ok=True)
    assert len(compare(bge, tmp_path / "flax").only_a) == 4


def test_files_that_are_no_heads_are_refused(bge):
    save_file({"other": np.zeros((1, 16), np.float32)}, bge / "sparse_linear.safetensors")
    with pytest.raises(CheckpointError, match=r"expected the weight \(out, in\) and the bias.*received 'other'"):
        read_extra_heads(bge)
    (bge / "sparse_linear.safetensors").unlink()
    (bge / "sparse_linear.pt").chmod(0o644)
    (bge / "sparse_linear.pt").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(CheckpointError):
        read_extra_heads(bge)
