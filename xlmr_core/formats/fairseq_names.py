"""The parameter names of fairseq as a table beside the canonical ones.

Archives of 2019 call the whole ``decoder`` and the norm of the embeddings ``emb_layer_norm``, later ones ``encoder``
and ``layernorm_embedding``; some hold query, key and value as one matrix. The norms of a layer have the same names in
the post-norm layers of base and large and in the pre-norm ones of XL, where they stand elsewhere
(https://github.com/facebookresearch/fairseq, ``fairseq/models/roberta/model.py``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from xlmr_core.formats.base import Naming
from xlmr_core.formats.layouts import KEPT, Layout, rows

__all__ = ["HEADS", "NO_TYPES", "TYPES", "WRITTEN_HEAD", "fairseq_naming"]

ENCODER = "encoder.sentence_encoder."
HEADS = "classification_heads."
# The name of the classification head in archives that are written here; fairseq's own default.
WRITTEN_HEAD = "sentence_classification_head"
# fairseq's encoder has no token types: reading adds a row of zeros, which stands under this name.
NO_TYPES = "token_type_embeddings, which fairseq has not"
TYPES = "embeddings.token_type_embeddings.weight"

# Stored and canonical, each a part of a name that ends before ``.weight`` or ``.bias``.
ENCODER_PARTS = {"embed_tokens": "embeddings.word_embeddings", "embed_positions": "embeddings.position_embeddings"}
LAYER_PARTS = {
    "self_attn.q_proj": "attention.self.query",
    "self_attn.k_proj": "attention.self.key",
    "self_attn.v_proj": "attention.self.value",
    "self_attn.out_proj": "attention.output.dense",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
}
# Where the norms stand: base and large, and XL.
ENCODER_NORMS = {False: {"layernorm_embedding": "embeddings.LayerNorm"}, True: {"layer_norm": "encoder.LayerNorm"}}
LAYER_NORMS = {
    False: {"self_attn_layer_norm": "attention.output.LayerNorm", "final_layer_norm": "output.LayerNorm"},
    True: {"self_attn_layer_norm": "attention.self_attn_layer_norm", "final_layer_norm": "LayerNorm"},
}
# Under ``encoder.`` and at the top.
HEAD_NAMES = {
    "lm_head.weight": "lm_head.decoder.weight",
    "lm_head.bias": "lm_head.bias",
    "lm_head.dense.weight": "lm_head.dense.weight",
    "lm_head.dense.bias": "lm_head.dense.bias",
    "lm_head.layer_norm.weight": "lm_head.layer_norm.weight",
    "lm_head.layer_norm.bias": "lm_head.layer_norm.bias",
}
COMPOUND = re.compile(r"layers\.(\d+)\.self_attn\.in_proj_(weight|bias)")
IN_LAYER = re.compile(r"layers\.(\d+)\.(.+)\.(weight|bias)")


def fairseq_naming(xl: bool, bare: bool, classification_head: str | None) -> Naming:
    """Names of the archive ``model.pt``.

    Args:
        xl: the norms stand where XL has them.
        bare: the canonical names of the encoder have no ``roberta.`` in front.
        classification_head: the one that is the model's ``classifier``; others keep their names.
    """
    prefix = "" if bare else "roberta."
    encoder = {**ENCODER_PARTS, **ENCODER_NORMS[xl]}
    layer = {**LAYER_PARTS, **LAYER_NORMS[xl]}
    encoder_back = {canonical: stored for stored, canonical in encoder.items()}
    layer_back = {canonical: stored for stored, canonical in layer.items()}
    heads_back = {canonical: stored for stored, canonical in HEAD_NAMES.items()}
    own_head = f"{HEADS}{classification_head}."

    def decode(stored: str) -> Iterable[tuple[str, Layout]]:
        if stored == NO_TYPES:
            return ((prefix + TYPES, KEPT),)
        if classification_head is not None and stored.startswith(own_head):
            return (("classifier." + stored.removeprefix(own_head), KEPT),)
        top, _, rest = stored.partition(".")
        if top not in ("encoder", "decoder"):
            return ((stored, KEPT),)
        if rest in HEAD_NAMES:
            return ((HEAD_NAMES[rest], KEPT),)
        inner = rest.removeprefix("sentence_encoder.").replace("emb_layer_norm.", "layernorm_embedding.")
        if inner == "version":
            return ()  # a mark of fairseq's own
        if match := COMPOUND.fullmatch(inner):
            names = (
                f"{prefix}encoder.layer.{match[1]}.attention.self.{part}.{match[2]}"
                for part in ("query", "key", "value")
            )
            return [(name, rows(part, 3)) for part, name in enumerate(names)]
        if (match := IN_LAYER.fullmatch(inner)) and match[2] in layer:
            return ((f"{prefix}encoder.layer.{match[1]}.{layer[match[2]]}.{match[3]}", KEPT),)
        part, _, variable = inner.rpartition(".")
        return ((f"{prefix}{encoder[part]}.{variable}" if part in encoder else stored, KEPT),)

    def encode(name: str) -> tuple[str, Layout]:
        if name in heads_back:
            return f"encoder.{heads_back[name]}", KEPT
        if name.startswith("classifier."):
            return own_head + name.removeprefix("classifier."), KEPT
        path, _, variable = name.removeprefix("roberta.").rpartition(".")
        if match := re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", path):
            return f"{ENCODER}layers.{match[1]}.{layer_back[match[2]]}.{variable}", KEPT
        return f"{ENCODER}{encoder_back[path]}.{variable}", KEPT

    return Naming(decode, encode)
