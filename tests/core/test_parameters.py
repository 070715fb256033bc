"""The parameter table against what other people's code wrote: recorded files and published totals."""

from __future__ import annotations

import json
import math
import re
import struct
from pathlib import Path
from typing import Any

import pytest

from xlmr_core.config import AutoConfig, XLMRobertaConfig, XLMRobertaXLConfig
from xlmr_core.heads import FAMILIES, HEADS, head_of_class
from xlmr_core.parameters import WORD_EMBEDDINGS, Init, Role, dim_sizes, num_parameters, parameters

# Counted in transformers 4.57.6 on the meta device, with two labels where there are labels.
PUBLISHED_TOTALS = {
    ("base", "Model"): 278_043_648,
    ("base", "ForMaskedLM"): 278_295_186,
    ("base", "ForCausalLM"): 278_295_186,
    ("base", "ForSequenceClassification"): 278_045_186,
    ("base", "ForMultipleChoice"): 278_044_417,
    ("base", "ForTokenClassification"): 277_454_594,
    ("base", "ForQuestionAnswering"): 277_454_594,
    ("large", "Model"): 559_890_432,
    ("large", "ForMaskedLM"): 560_142_482,
    ("large", "ForSequenceClassification"): 559_892_482,
    ("large", "ForMultipleChoice"): 559_891_457,
    ("large", "ForTokenClassification"): 558_842_882,
    ("xl", "Model"): 3_482_485_760,
    ("xl", "ForMaskedLM"): 3_482_741_760,
    ("xl", "ForCausalLM"): 3_482_741_760,
    ("xl", "ForSequenceClassification"): 3_482_490_882,
    ("xl", "ForMultipleChoice"): 3_482_488_321,
    ("xl", "ForTokenClassification"): 3_475_934_722,
    ("xl", "ForQuestionAnswering"): 3_475_934_722,
    ("xxl", "Model"): 10_712_735_744,
    ("xxl", "ForMaskedLM"): 10_712_994_816,
    ("xxl", "ForSequenceClassification"): 10_712_743_938,
    ("xxl", "ForQuestionAnswering"): 10_695_962_626,
}
SIZES = {
    "base": XLMRobertaConfig.base(),
    "large": XLMRobertaConfig.large(),
    "xl": XLMRobertaXLConfig.xl(),
    "xxl": XLMRobertaXLConfig.xxl(),
}
# Files whose names and layouts are not PyTorch's.
OTHER_LAYOUTS = {"ForMaskedLM_safetensors_by_tf", "ForMaskedLM_safetensors_by_flax"}


@pytest.mark.parametrize(("size", "head"), PUBLISHED_TOTALS, ids=lambda value: value)
def test_published_totals(size: str, head: str) -> None:
    assert num_parameters(SIZES[size], head) == PUBLISHED_TOTALS[size, head]


def test_totals_without_embeddings_and_with_an_own_decoder() -> None:
    config = XLMRobertaConfig.base()
    tables = (250002 + 514 + 1) * 768
    assert num_parameters(config, "ForMaskedLM", embeddings=False) == 278_295_186 - tables
    untied = XLMRobertaConfig.base(tie_word_embeddings=False)
    assert num_parameters(untied, "ForMaskedLM") == 278_295_186 + 250002 * 768
    assert num_parameters(config, "Model", pooler=False) == 278_043_648 - 768 * 768 - 768


def recorded_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes from the headers, read here by hand, without the code under test."""
    shapes = {}
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
        shapes.update({name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"})
    return shapes


def test_every_recorded_checkpoint_has_the_names_and_shapes_of_the_table(shared: Path) -> None:
    seen = set()
    for folder in sorted({file.parent for file in (shared / "fixtures").glob("**/model*.safetensors")}):
        if folder.name in OTHER_LAYOUTS:
            continue
        config = AutoConfig.from_pretrained(folder)
        assert config.architectures is not None
        head = head_of_class(config.architectures[0]).suffix
        rows = parameters(config, head)
        recorded = recorded_shapes(folder)
        # Only one of several names for shared values is written.
        tied = {name for name, row in rows.items() if row.tied_to is not None}
        assert {name: row.shape for name, row in rows.items() if name not in tied} == recorded, folder
        assert not tied & set(recorded), folder
        seen.add((type(config).__name__, head, config.position_embedding_type, config.tie_word_embeddings))
    assert len(seen) >= 15
    assert {head for _, head, _, _ in seen} == set(HEADS)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", HEADS)
def test_rows_are_whole(family: str, head: str) -> None:
    config = FAMILIES[family](
        vocab_size=11,
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=20,
        max_position_embeddings=9,
        num_labels=5,
        is_decoder=True,
        add_cross_attention=True,
        position_embedding_type="relative_key",
    )
    rows = parameters(config, head)
    prefix = "" if head == "Model" else "roberta."
    own = ("lm_head.", "classifier.", "qa_outputs.")
    for name, row in rows.items():
        assert name == row.name
        assert "{" not in name
        assert name.startswith((*own, prefix + "e", prefix + "pooler.")), name
        assert len(row.shape) == len(row.dims) == (2 if row.role in (Role.EMBEDDING, Role.LINEAR_WEIGHT) else 1)
        assert row.tied_to is None or rows[row.tied_to].shape == row.shape, "ties join equals"
        expected = {
            Role.NORM_SCALE: {Init.ONES},
            Role.NORM_BIAS: {Init.ZEROS},
            Role.LINEAR_BIAS: {Init.ZEROS},
            Role.LINEAR_WEIGHT: {Init.NORMAL},
            Role.EMBEDDING: {Init.NORMAL, Init.NORMAL_PADDED},
        }
        assert row.init in expected[row.role], name
        assert ("norm" in name.lower()) == (row.role in (Role.NORM_SCALE, Role.NORM_BIAS)), name
    padded = {name for name, row in rows.items() if row.init is Init.NORMAL_PADDED}
    assert padded == {f"{prefix}embeddings.word_embeddings.weight", f"{prefix}embeddings.position_embeddings.weight"}
    assert any("crossattention" in name for name in rows)
    assert f"{prefix}encoder.layer.1.attention.self.distance_embedding.weight" in rows
    assert not any("crossattention.self.distance_embedding" in name for name in rows), "as in the original"


@pytest.mark.parametrize("head", HEADS)
def test_poolers_where_published_and_where_asked_for(head: str) -> None:
    config = XLMRobertaConfig(num_hidden_layers=1)

    def has_pooler(**arguments: Any) -> bool:
        return any("pooler.dense" in name for name in parameters(config, head, **arguments))

    assert has_pooler() == (head in {"Model", "ForMultipleChoice"})
    assert has_pooler(pooler=True)
    assert not has_pooler(pooler=False)


def test_ties_follow_the_config() -> None:
    tied = parameters(XLMRobertaConfig(), "ForMaskedLM")
    untied = parameters(XLMRobertaConfig(tie_word_embeddings=False), "ForCausalLM")
    assert tied["lm_head.decoder.weight"].tied_to == WORD_EMBEDDINGS
    assert untied["lm_head.decoder.weight"].tied_to is None
    for rows in (tied, untied):
        assert rows["lm_head.decoder.bias"].tied_to == "lm_head.bias", "the bias is one in every version"
        assert rows["lm_head.bias"].tied_to is None


def test_pruned_heads_shrink_self_attention_of_their_layer_only() -> None:
    config = XLMRobertaConfig(
        hidden_size=12,
        num_attention_heads=3,
        num_hidden_layers=2,
        intermediate_size=20,
        is_decoder=True,
        add_cross_attention=True,
        pruned_heads={1: [0, 2]},
    )
    rows = parameters(config, "Model")
    shapes = {name.removeprefix("encoder.layer."): row.shape for name, row in rows.items()}
    assert {shapes[f"1.attention.self.{part}.weight"] for part in ("query", "key", "value")} == {(4, 12)}
    assert {shapes[f"1.attention.self.{part}.bias"] for part in ("query", "key", "value")} == {(4,)}
    assert (shapes["1.attention.output.dense.weight"], shapes["1.attention.output.dense.bias"]) == ((12, 4), (12,))
    assert shapes["0.attention.self.query.weight"] == (12, 12)
    assert shapes["1.crossattention.self.query.weight"] == (12, 12)
    assert shapes["1.intermediate.dense.weight"] == (20, 12)
    assert (
        num_parameters(config, "Model")
        == num_parameters(config.copy(pruned_heads={}), "Model") - 3 * (8 * 12 + 8) - 12 * 8
    )
    assert dim_sizes(config, 1)["attention"] == 4
    assert dim_sizes(config)["attention"] == 12


def test_order_is_that_of_the_published_state_dict() -> None:
    names = list(parameters(XLMRobertaConfig(num_hidden_layers=11), "ForMultipleChoice"))
    layers = [int(match[1]) for name in names if (match := re.search(r"layer\.(\d+)\.", name))]
    assert layers == sorted(layers), "layer 2 comes before layer 10"
    assert names[0] == "roberta.embeddings.word_embeddings.weight"
    assert names[-4:] == [
        "roberta.pooler.dense.weight",
        "roberta.pooler.dense.bias",
        "classifier.weight",
        "classifier.bias",
    ]


def test_building_the_table_of_the_largest_model_allocates_nothing() -> None:
    rows = parameters(XLMRobertaXLConfig.xxl(), "ForMaskedLM")
    assert sum(math.prod(row.shape) for row in rows.values() if row.tied_to is None) == 10_712_994_816
