"""The models of the hub that the README lists, a row each: what is known of their files, and how it is known."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.core.small_models import arrays_of, config_of, save, with_tokenizer

SENTENCE_TRANSFORMERS = {
    "modules.json": json.dumps(
        [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ]
    ),
    "sentence_bert_config.json": json.dumps({"max_seq_length": 30, "do_lower_case": False}),
    "1_Pooling/config.json": json.dumps({"word_embedding_dimension": 16, "pooling_mode_cls_token": True}),
}
NLI = {0: "contradiction", 1: "neutral", 2: "entailment"}
SENTIMENT = {0: "negative", 1: "neutral", 2: "positive"}
ENTITIES = dict(enumerate(("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")))


@dataclass(frozen=True)
class HubModel:
    """A row.

    Attributes:
        names: on the hub.
        head: of ``xlmr_core.heads.HEADS``.
        checked: ``recorded``, ``twin`` or ``card``; the README says what each word means.
        family: ``base`` or ``xl``.
        recorded: the folder of recordings, where there are some.
        config: values of its config.json that matter for loading.
        format: of its weights.
        leftovers: whether its file is as old as the buffer ``position_ids`` in it.
        files: further files of its folder, with what is in them.
    """

    names: tuple[str, ...]
    head: str
    checked: str
    family: str = "base"
    recorded: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    format: str = "safetensors"
    leftovers: bool = False
    files: dict[str, str] = field(default_factory=dict)


HUB_MODELS = (
    HubModel(
        ("FacebookAI/xlm-roberta-base", "FacebookAI/xlm-roberta-large"),
        "ForMaskedLM",
        "recorded",
        recorded="hf/ForMaskedLM",
    ),
    HubModel(
        ("facebook/xlm-roberta-xl", "facebook/xlm-roberta-xxl"),
        "ForMaskedLM",
        "recorded",
        family="xl",
        recorded="xl/ForMaskedLM",
    ),
    HubModel(
        ("BAAI/bge-m3",),
        "Model",
        "twin",
        config={"max_position_embeddings": 8194},
        format="torch",
        files={**SENTENCE_TRANSFORMERS, "sparse_linear.pt": "", "colbert_linear.pt": ""},
    ),
    HubModel(
        ("BAAI/bge-reranker-v2-m3", "BAAI/bge-reranker-base", "BAAI/bge-reranker-large"),
        "ForSequenceClassification",
        "twin",
        config={"max_position_embeddings": 8194, "num_labels": 1},
    ),
    HubModel(
        (
            *("intfloat/multilingual-e5-base", "intfloat/multilingual-e5-large"),
            "Snowflake/snowflake-arctic-embed-l-v2.0",
        ),
        "Model",
        "twin",
        config={"max_position_embeddings": 8194},
        files=SENTENCE_TRANSFORMERS,
    ),
    HubModel(
        ("joeddav/xlm-roberta-large-xnli",),
        "ForSequenceClassification",
        "twin",
        config={"id2label": NLI},
        format="torch",
        leftovers=True,
    ),
    HubModel(
        ("cardiffnlp/twitter-xlm-roberta-base-sentiment",),
        "ForSequenceClassification",
        "twin",
        config={"id2label": SENTIMENT},
        format="tf",
    ),
    HubModel(
        ("deepset/xlm-roberta-base-squad2",),
        "ForQuestionAnswering",
        "twin",
        format="torch",
        leftovers=True,
    ),
    HubModel(
        ("Davlan/xlm-roberta-base-ner-hrl",),
        "ForTokenClassification",
        "twin",
        config={"id2label": ENTITIES},
        format="torch",
        leftovers=True,
    ),
    HubModel(("papluca/xlm-roberta-base-language-detection",), "ForSequenceClassification", "card"),
    HubModel(("facebook/xlm-v-base",), "ForMaskedLM", "card"),
)


def make_twin(model: HubModel, folder: Path) -> None:
    """A small model with random values under the file names of the one on the hub."""
    config = config_of(model.family, model.head, **model.config)
    arrays = arrays_of(config, model.head)
    if model.leftovers:
        prefix = "" if model.head == "Model" else "roberta."
        rows = config.max_position_embeddings
        arrays[f"{prefix}embeddings.position_ids"] = np.arange(rows, dtype=np.int64)[None]
    save(folder, config, model.head, arrays, model.format)
    with_tokenizer(folder)
    for name, content in model.files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
