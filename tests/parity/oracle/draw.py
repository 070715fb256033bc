"""Freshly drawn models and inputs for the live oracle."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.parity.cases import Case
from xlmr_core.config import ACTIVATIONS

__all__ = ["draw_case"]


def draw_rows(rng: np.random.Generator, count: int) -> tuple[str, ...]:
    """Rows of every kind of padding; each has a token that is attended."""
    length = int(rng.integers(4, 13))
    rows = []
    for _ in range(count):
        kind = rng.choice(["full", "right", "left", "inside", "anything"])
        real = int(rng.integers(1, length))
        row = {
            "full": "t" * length,
            "right": "t" * real + "." * (length - real),
            "left": "." * (length - real) + "t" * real,
            "inside": "tt" + "." * (length - 3) + "t",
            "anything": "t" + "".join(rng.choice(list("ttt.xP"), length - 1)),
        }[str(kind)]
        rows.append(row)
    # A batch has a masked position somewhere, and somewhere a second attended token to predict.
    return ("t" * length, "tt" + "." * (length - 2), *rows)[:count]


def draw_case(seed: int, family: str, head: str, *, relative: bool, untied: bool) -> Case:
    """A model and a call.

    Args:
        seed: of everything that is drawn.
        family, head: the class.
        relative: whether relative positions may be drawn.
        untied: whether a decoder of its own weights may be drawn.
    """
    rng = np.random.default_rng(seed)
    heads, head_size = int(rng.integers(1, 5)), int(rng.integers(1, 7)) * 2
    config: dict[str, Any] = {
        "vocab_size": int(rng.integers(20, 80)),
        "hidden_size": heads * head_size,
        "num_hidden_layers": int(rng.integers(1, 4)),
        "num_attention_heads": heads,
        "intermediate_size": int(rng.integers(3, 50)),
        "hidden_act": str(rng.choice(ACTIVATIONS)),
        "max_position_embeddings": int(rng.integers(20, 40)),
        "type_vocab_size": int(rng.integers(1, 4)),
        "layer_norm_eps": float(rng.choice([1e-12, 1e-5, 1e-3])),
        "pad_token_id": int(rng.integers(0, 4)),
        "num_labels": 2 if head == "ForQuestionAnswering" else int(rng.integers(2, 6)),
        "use_cache": False,
    }
    extra = []
    if head in ("Model", "ForCausalLM") and rng.random() < 0.7:
        config["is_decoder"] = True
        if rng.random() < 0.5:
            config["add_cross_attention"] = True
            extra += ["encoder", "encoder_mask"]
    if relative and rng.random() < 0.4:
        config["position_embedding_type"] = str(rng.choice(["relative_key", "relative_key_query"]))
    if untied and head in ("ForMaskedLM", "ForCausalLM") and rng.random() < 0.3:
        config["tie_word_embeddings"] = False
    if rng.random() < 0.5:
        extra.append("token_types")
    if head != "ForMultipleChoice" and rng.random() < 0.3:
        extra.append("position_ids")
    if rng.random() < 0.2:
        extra.append("embeds")
    if head != "Model":
        extra.append("labels")
    rows = draw_rows(rng, 6 if head == "ForMultipleChoice" else 4)
    return Case(f"oracle-{seed}", head, rows, config, tuple(extra), family=family)
