"""Load plans: every parameter gets its tensor, leftovers are silent, and what matters is said once or refused."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from xlmr_core.checkpoints.found import open_checkpoint
from xlmr_core.checkpoints.load_plan import LoadPlan, LoadWarning, plan_load
from xlmr_core.config import AutoConfig, XLMRobertaConfig, XLMRobertaXLConfig
from xlmr_core.errors import CheckpointError
from xlmr_core.formats.tensors import RawTensor
from xlmr_core.heads import HEADS, head_of_class
from xlmr_core.parameters import parameters

SMALL = {
    "vocab_size": 101,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 10,
    "type_vocab_size": 1,
    "num_labels": 3,
}
CONFIG = XLMRobertaConfig(**SMALL)
POOLER = ("roberta.pooler.dense.weight", "roberta.pooler.dense.bias")

Arrays = dict[str, np.ndarray]
Plan = Callable[..., LoadPlan]


def arrays_of(config: XLMRobertaConfig, head: str, pooler: bool | None = None) -> Arrays:
    """A checkpoint of that model, each tensor with values of its own; tied ones are left out, as writers do."""
    rng = np.random.default_rng(0)
    rows = parameters(config, head, pooler=pooler)
    return {
        name: rng.standard_normal(row.shape).astype(np.float32) for name, row in rows.items() if row.tied_to is None
    }


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Write arrays to a file and plan a load from it."""

    def make(arrays: Arrays, head: str, config: XLMRobertaConfig = CONFIG, **arguments: bool) -> LoadPlan:
        save_file(arrays, tmp_path / "model.safetensors", {"format": "pt"})
        with open_checkpoint(tmp_path) as checkpoint:
            return plan_load(config, head, checkpoint, **arguments)

    return make


@contextmanager
def one_warning(*parts: str) -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert [entry.category for entry in caught] == [LoadWarning]
    for part in parts:
        assert part in str(caught[0].message)
    assert caught[0].filename == __file__, "the warning points at the line that asked for the load"


# Without a word (the test run turns every warning into an error)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("config", [CONFIG, XLMRobertaXLConfig(**SMALL)], ids=["base", "xl"])
def test_an_own_checkpoint_loads_whole(head: str, config: XLMRobertaConfig, plan: Plan) -> None:
    arrays = arrays_of(config, head)
    done = plan(arrays, head, config)
    assert done.sources == {name: name for name in arrays}
    assert done.fresh == done.report.missing == done.report.unexpected == done.report.dropped == ()
    assert set(done.report.loaded) == set(arrays)
    tied = {"lm_head.decoder.weight", "lm_head.decoder.bias"} if "LM" in head else set()
    assert {row.name for row in done.report.tied} == tied


def test_every_recorded_checkpoint_loads_whole(shared: Path) -> None:
    folders = sorted({file.parent for file in (shared / "fixtures").glob("**/model*.safetensors")})
    loaded = 0
    for folder in folders:
        config = AutoConfig.from_pretrained(folder)
        assert config.architectures is not None
        with open_checkpoint(folder) as checkpoint:
            done = plan_load(config, head_of_class(config.architectures[0]).suffix, checkpoint)
            assert set(done.sources.values()) == set(checkpoint.names)
            assert done.report.message == ""
            loaded += 1
    assert loaded >= 40


@pytest.mark.parametrize(
    "change",
    [
        lambda name: name.removeprefix("roberta."),
        lambda name: name if name.startswith(("lm_head", "roberta.")) else f"roberta.{name}",
        lambda name: re.sub(r"(LayerNorm|layer_norm)\.weight$", r"\1.gamma", name),
        lambda name: re.sub(r"(LayerNorm|layer_norm)\.bias$", r"\1.beta", name),
        lambda name: re.sub(r"lm_head\.bias$", "lm_head.decoder.bias", name),
        lambda name: name.replace("roberta.embeddings.word_embeddings.weight", "lm_head.decoder.weight"),
    ],
    ids=[
        "prefix missing",
        "same",
        "gamma",
        "beta",
        "bias under the decoder's name",
        "embedding under the decoder's name",
    ],
)
def test_other_names_of_the_same_tensor(change: Callable[[str], str], plan: Plan) -> None:
    arrays = arrays_of(CONFIG, "ForMaskedLM")
    renamed = {change(name): array for name, array in arrays.items()}
    done = plan(renamed, "ForMaskedLM")
    assert done.sources == {name: change(name) for name in arrays}
    assert done.report.message == ""
    assert done.fresh == ()


@pytest.mark.parametrize(
    ("stored", "wanted"), [("Model", "Model"), ("ForMaskedLM", "Model"), ("Model", "ForTokenClassification")]
)
@pytest.mark.parametrize("prefixed", [True, False])
def test_encoder_and_head_models_exchange_their_encoder(stored: str, wanted: str, prefixed: bool, plan: Plan) -> None:
    arrays = arrays_of(CONFIG, stored, pooler=True)
    if prefixed:
        arrays = {
            name if name.startswith(("roberta.", "lm_head")) else f"roberta.{name}": array
            for name, array in arrays.items()
        }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LoadWarning)
        done = plan(arrays, wanted)
    body = {name for name in parameters(CONFIG, wanted) if "embeddings" in name or "encoder" in name}
    assert body <= set(done.sources)
    for name, source in done.sources.items():
        assert name.removeprefix("roberta.") == source.removeprefix("roberta.")
    assert done.report.unexpected == ()


def test_buffers_poolers_and_other_heads_are_dropped_in_silence(plan: Plan) -> None:
    arrays = arrays_of(CONFIG, "ForSequenceClassification")
    leftovers = {
        "roberta.embeddings.position_ids": np.arange(10)[None],
        "roberta.embeddings.token_type_ids": np.zeros((1, 10), np.int64),
        "roberta.pooler.dense.weight": np.zeros((8, 8), np.float32),
        "roberta.pooler.dense.bias": np.zeros(8, np.float32),
        "lm_head.bias": np.zeros(101, np.float32),
        "lm_head.dense.weight": np.zeros((8, 8), np.float32),
        "lm_head.decoder.weight": np.zeros((101, 8), np.float32),
        "qa_outputs.weight": np.zeros((2, 8), np.float32),
        "classifier.weight": np.zeros((3, 8), np.float32),
    }
    done = plan({**arrays, **leftovers}, "ForSequenceClassification")
    assert set(done.sources.values()) == set(arrays)
    assert {row.name for row in done.report.dropped} == set(leftovers)
    assert done.report.message == ""
    why = {row.name: row.why for row in done.report.dropped}
    assert why["roberta.embeddings.position_ids"] == "a buffer in old checkpoints"
    assert why["roberta.pooler.dense.bias"] == "this model has no pooler"
    assert why["qa_outputs.weight"] == "the head of another task"


def test_a_bare_encoder_drops_heads_and_reads_the_pooler_if_it_has_one(plan: Plan) -> None:
    arrays = arrays_of(CONFIG, "ForMaskedLM", pooler=True)
    with_pooler = plan(arrays, "Model")
    assert with_pooler.sources["pooler.dense.weight"] == POOLER[0]
    assert {row.why for row in with_pooler.report.dropped} == {"the head of another task"}
    without = plan(arrays, "Model", pooler=False)
    assert set(POOLER) <= {row.name for row in without.report.dropped}


def test_of_two_decoder_biases_the_decoders_wins_as_in_the_original(plan: Plan) -> None:
    arrays = arrays_of(CONFIG, "ForMaskedLM")
    both = {**arrays, "lm_head.decoder.bias": arrays["lm_head.bias"] + 1}
    done = plan(both, "ForMaskedLM")
    assert done.sources["lm_head.bias"] == "lm_head.decoder.bias"
    assert "lm_head.decoder.bias" not in done.sources
    assert [row.name for row in done.report.dropped] == ["lm_head.bias"]


def test_a_stored_copy_of_the_tied_decoder_is_not_read(plan: Plan) -> None:
    arrays = arrays_of(CONFIG, "ForMaskedLM")
    copied = {**arrays, "lm_head.decoder.weight": arrays["roberta.embeddings.word_embeddings.weight"].copy()}
    done = plan(copied, "ForMaskedLM")
    assert [row.name for row in done.report.dropped] == ["lm_head.decoder.weight"]
    assert "lm_head.decoder.weight" not in done.sources
    untied = plan(copied, "ForMaskedLM", CONFIG.copy(tie_word_embeddings=False))
    assert untied.sources["lm_head.decoder.weight"] == "lm_head.decoder.weight"
    assert untied.report.dropped == ()


def test_a_file_with_an_encoder_under_both_names_gives_the_models_own(plan: Plan) -> None:
    arrays = arrays_of(CONFIG, "ForTokenClassification")
    name = "roberta.encoder.layer.0.output.dense.bias"
    for both in ({**arrays, name[8:]: arrays[name]}, {name[8:]: arrays[name], **arrays}):
        with one_warning(name[8:], "no place in XLMRobertaForTokenClassification"):
            assert plan(both, "ForTokenClassification").sources[name] == name


# One warning


FRESH = [
    ("Model", "ForSequenceClassification", ["classifier.dense.weight", "classifier.out_proj.bias"]),
    ("Model", "ForMaskedLM", ["lm_head.bias", "lm_head.dense.weight", "lm_head.layer_norm.weight"]),
    ("ForMaskedLM", "Model", ["pooler.dense.weight", "pooler.dense.bias"]),
    ("ForMaskedLM", "ForMultipleChoice", ["roberta.pooler.dense.weight", "classifier.weight"]),
    ("ForMaskedLM", "ForQuestionAnswering", ["qa_outputs.weight", "qa_outputs.bias"]),
    ("ForTokenClassification", "ForSequenceClassification", ["classifier.dense.weight"]),
]


@pytest.mark.parametrize(("stored", "wanted", "fresh"), FRESH)
def test_a_fresh_head_is_one_warning_that_names_it(stored: str, wanted: str, fresh: list[str], plan: Plan) -> None:
    with one_warning(f"XLMRoberta{wanted}: ", *fresh, "are not in", "model.safetensors", "train the model before use"):
        done = plan(arrays_of(CONFIG, stored), wanted)
    own = {name for name in parameters(CONFIG, wanted) if name not in done.sources and "decoder" not in name}
    assert set(done.fresh) == set(done.report.missing) == own
    assert set(fresh) <= own


def test_the_decoder_of_an_untied_model_starts_fresh_from_a_tied_checkpoint(plan: Plan) -> None:
    with one_warning("lm_head.decoder.weight is not in"):
        done = plan(arrays_of(CONFIG, "ForMaskedLM"), "ForMaskedLM", CONFIG.copy(tie_word_embeddings=False))
    assert done.fresh == ("lm_head.decoder.weight",)


def test_cross_attention_starts_fresh_from_an_encoder(plan: Plan) -> None:
    decoder = CONFIG.copy(is_decoder=True, add_cross_attention=True)
    with one_warning("roberta.encoder.layer.0.crossattention.self.query.weight", "more are not in"):
        done = plan(arrays_of(CONFIG, "ForCausalLM"), "ForCausalLM", decoder)
    assert len(done.fresh) == 20
    assert all("crossattention" in name for name in done.fresh)


def test_weights_without_a_place_are_named(plan: Plan) -> None:
    deeper = arrays_of(CONFIG.copy(num_hidden_layers=3), "ForMaskedLM")
    with one_warning(
        "roberta.encoder.layer.2.attention.self.query.weight",
        "have no place in XLMRobertaForMaskedLM: they are not used",
    ):
        done = plan(deeper, "ForMaskedLM")
    assert len(done.report.unexpected) == 16
    with one_warning("crossattention"):
        plan(arrays_of(CONFIG.copy(is_decoder=True, add_cross_attention=True), "ForCausalLM"), "ForCausalLM")
    with one_warning("adapter.up is in"):
        assert plan({**arrays_of(CONFIG, "Model"), "adapter.up": np.zeros(1)}, "Model").report.unexpected == (
            "adapter.up",
        )


@pytest.mark.parametrize("vocabulary", [7, 101, 1000])
def test_a_tied_decoder_that_differs_from_the_embedding_is_named(vocabulary: int, plan: Plan) -> None:
    config = CONFIG.copy(vocab_size=vocabulary)
    arrays = arrays_of(config, "ForMaskedLM")
    other = arrays["roberta.embeddings.word_embeddings.weight"] + np.float32(0.5)
    with one_warning(
        "lm_head.decoder.weight",
        "differs from roberta.embeddings.word_embeddings.weight",
        "set tie_word_embeddings=False",
    ):
        done = plan({**arrays, "lm_head.decoder.weight": other}, "ForMaskedLM", config)
    assert "lm_head.decoder.weight" not in done.sources


# Refusals


@pytest.mark.parametrize("head", ["Model", "ForMaskedLM", "ForQuestionAnswering"])
def test_a_missing_encoder_weight_is_refused_with_the_nearest_name(head: str, plan: Plan) -> None:
    arrays = arrays_of(CONFIG, head)
    name = next(name for name in arrays if name.endswith("layer.1.intermediate.dense.weight"))
    misspelt = name.replace("intermediate", "intermediat")
    arrays[misspelt] = arrays.pop(name)
    with pytest.raises(CheckpointError) as caught:
        plan(arrays, head)
    for part in (name, "(12, 8)", "model.safetensors", f"nearest unused name there is '{misspelt}'"):
        assert part in str(caught.value)
    assert "missing of" not in str(caught.value)


def test_many_missing_encoder_weights_are_counted(plan: Plan) -> None:
    with pytest.raises(
        CheckpointError,
        match=r"layer\.2\.attention\.self\.query\.weight of shape \(8, 8\).*the first of 16 missing of 53",
    ):
        plan(arrays_of(CONFIG, "ForMaskedLM"), "ForMaskedLM", CONFIG.copy(num_hidden_layers=3))
    with pytest.raises(
        CheckpointError, match="the first of 37 missing of 37; the nearest unused name there is 'bert.x'"
    ):
        plan({"bert.x": np.zeros(1)}, "ForMaskedLM")
    with pytest.raises(CheckpointError, match="distance_embedding"):
        plan(arrays_of(CONFIG, "Model"), "Model", CONFIG.copy(position_embedding_type="relative_key"))
    with pytest.raises(CheckpointError, match=r"embeddings.LayerNorm.weight"):
        plan(arrays_of(XLMRobertaXLConfig(**SMALL), "Model"), "Model")


MISMATCHES = [
    ({"vocab_size": 99}, "embeddings.word_embeddings.weight", (99, 8), (101, 8), "vocab_size"),
    (
        {"max_position_embeddings": 12},
        "embeddings.position_embeddings.weight",
        (12, 8),
        (10, 8),
        "max_position_embeddings",
    ),
    ({"type_vocab_size": 2}, "embeddings.token_type_embeddings.weight", (2, 8), (1, 8), "type_vocab_size"),
    ({"intermediate_size": 16}, "encoder.layer.0.intermediate.dense.weight", (16, 8), (12, 8), "intermediate_size"),
    (
        {"hidden_size": 16},
        "encoder.layer.0.attention.self.query.weight",
        (16, 16),
        (8, 8),
        "num_attention_heads and pruned_heads, hidden_size",
    ),
    (
        {"pruned_heads": {1: [0]}},
        "encoder.layer.1.attention.self.query.weight",
        (4, 8),
        (8, 8),
        "num_attention_heads and pruned_heads",
    ),
    ({"num_labels": 5}, "classifier.weight", (5, 8), (3, 8), "num_labels"),
]


@pytest.mark.parametrize(("change", "name", "expected", "received", "field"), MISMATCHES, ids=lambda value: str(value))
def test_a_wrong_shape_is_refused_with_the_field_that_implies_it(
    change: dict[str, Any], name: str, expected: tuple[int, ...], received: tuple[int, ...], field: str, plan: Plan
) -> None:
    arrays = arrays_of(CONFIG, "ForTokenClassification")
    config = CONFIG.copy(**change)
    with pytest.raises(CheckpointError) as caught:
        plan(arrays, "ForTokenClassification", config)
    line = next(line for line in str(caught.value).splitlines() if re.match(rf"(roberta\.)?{re.escape(name)} ", line))
    assert f"must have the shape {expected}, received {received} from" in line
    assert f"model.safetensors; the size follows from the config's {field};" in line
    assert "ignore_mismatched_sizes=True" in line
    with one_warning(f"{name} has the shape {received}", f"not {expected}", "train the model before use"):
        done = plan(arrays, "ForTokenClassification", config, ignore_mismatched_sizes=True)
    assert any(row.name.endswith(name) and row[1:] == (expected, received) for row in done.report.mismatched)
    assert set(done.fresh) == {row.name for row in done.report.mismatched}
    assert not set(done.fresh) & set(done.sources)
    assert set(done.sources) | set(done.fresh) == set(arrays)
    assert done.report.unexpected == ()


def test_a_wrong_number_of_axes_is_refused(plan: Plan) -> None:
    arrays = arrays_of(CONFIG, "ForTokenClassification")
    arrays["classifier.bias"] = arrays["classifier.bias"][None]
    with pytest.raises(CheckpointError, match=r"classifier.bias must have the shape \(3,\), received \(1, 3\)"):
        plan(arrays, "ForTokenClassification")


def test_a_mismatch_names_the_name_in_the_file(plan: Plan) -> None:
    arrays = {name.removeprefix("roberta."): array for name, array in arrays_of(CONFIG, "ForMaskedLM").items()}
    with pytest.raises(
        CheckpointError, match=r"roberta\.embeddings\.word_embeddings\.weight \(stored as embeddings\.word"
    ):
        plan(arrays, "ForMaskedLM", CONFIG.copy(vocab_size=5))


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.bool_])
def test_weights_that_are_not_floating_point_are_refused(dtype: type, plan: Plan) -> None:
    arrays = arrays_of(CONFIG, "Model")
    arrays["encoder.layer.0.output.dense.weight"] = arrays["encoder.layer.0.output.dense.weight"].astype(dtype)
    with pytest.raises(
        CheckpointError, match=r"layer\.0\.output\.dense\.weight in .*model\.safetensors has the dtype .*quantized"
    ):
        plan(arrays, "Model")


# Tensors in memory, and the report


class InMemory:
    """The least that a plan needs."""

    path = "the dictionary passed"

    def __init__(self, arrays: Arrays) -> None:
        self.tensors = {name: RawTensor.from_numpy(array) for name, array in arrays.items()}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.tensors)

    def info(self, name: str) -> RawTensor:
        return self.tensors[name]

    tensor = info


def test_tensors_in_memory_are_planned_and_refused_alike() -> None:
    arrays = arrays_of(CONFIG, "ForMaskedLM")
    assert plan_load(CONFIG, "ForMaskedLM", InMemory(arrays)).fresh == ()
    with pytest.raises(
        CheckpointError, match="from the dictionary passed; the size follows from the config's vocab_size"
    ):
        plan_load(CONFIG.copy(vocab_size=5), "ForMaskedLM", InMemory(arrays))
    del arrays["roberta.embeddings.LayerNorm.bias"]
    with pytest.raises(
        CheckpointError,
        match="expected the encoder weight roberta.embeddings.LayerNorm.bias .* in the dictionary passed",
    ):
        plan_load(CONFIG, "ForMaskedLM", InMemory(arrays))


def test_the_report_reads_as_a_table(plan: Plan) -> None:
    arrays = arrays_of(CONFIG, "ForMaskedLM")
    arrays["roberta.embeddings.position_ids"] = np.arange(10)[None]
    arrays["adapter.up"] = np.zeros(1, np.float32)
    with one_warning():
        report = plan(arrays, "ForTokenClassification").report
    lines = str(report).splitlines()
    assert lines[0].startswith("XLMRobertaForTokenClassification from ")
    assert lines[1:5] == [
        "  loaded      37",
        "  missing     classifier.weight",
        "  missing     classifier.bias",
        "  unexpected  adapter.up",
    ]
    assert "  dropped     roberta.embeddings.position_ids: a buffer in old checkpoints" in lines
    assert "  dropped     lm_head.bias: the head of another task" in lines
    with one_warning():
        tied = str(plan(arrays, "ForMaskedLM").report)
    assert "  tied        lm_head.decoder.bias = lm_head.bias" in tied
