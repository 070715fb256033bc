"""The published numbers of configurations, written out."""

from __future__ import annotations

from typing import Any

from xlmr_core.config import XLMRobertaConfig

# The documented defaults of the original library, literally.
BASE_DEFAULTS = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "position_embedding_type": "absolute",
    "use_cache": True,
    "classifier_dropout": None,
}
XL_DEFAULTS = {
    **BASE_DEFAULTS,
    "vocab_size": 250880,
    "hidden_size": 2560,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "intermediate_size": 10240,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-05,
}
SHARED_DEFAULTS = {
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
    "output_attentions": False,
    "output_hidden_states": False,
    "return_dict": True,
    "use_return_dict": True,
    "chunk_size_feed_forward": 0,
    "pruned_heads": {},
    "problem_type": None,
    "num_labels": 2,
    "id2label": {0: "LABEL_0", 1: "LABEL_1"},
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "architectures": None,
    "dtype": None,
    "torch_dtype": None,
    "name_or_path": "",
}
RELEASED = {"vocab_size": 250002, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-05}


def read(config: XLMRobertaConfig, keys: Any) -> dict[str, Any]:
    return {key: getattr(config, key) for key in keys}
