"""The cases every backend has to pass: config x head x inputs, as data.

Rows of a batch are written token by token:

    t   a token, attended
    .   padding, masked
    x   a token, masked
    P   padding, attended

``extra`` names further inputs; ``inputs.py`` has one function for each. ``packs`` says whether a packed path promises
the answer (see design: it does not where the padded path defines the answer differently); only then may masked
positions come back as zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CASES", "DROPOUT", "EMPTY", "FAMILIES", "GRADIENTS", "TURNS", "Case"]

FULL = ("tttttttttt", "tttttttttt")
RIGHT = ("tttttttttt", "tttttt....", "t.........")
CHOICES = ("tttttttttt", "tttttt....", "ttttttttt.", "tttt......", "ttttttttt.", "tttttttttt")
MIXED = ("tttttttttt", "tttttt....", "....tttttt", "ttt..ttt.t", "txtttPxtt.")
MIXED_CHOICES = (*MIXED, "tttt......")
INSIDE = ("tttttttttt", "ttt..ttt.t", "txtttPxtt.")
PADDED = ("tttttttttt", "tttttt....", "....tttttt", "ttt..ttt.t")
EMPTY = ("tttttttttt", "xxxxxxxxxx", "..........", "tttttt....")

FAMILIES = ("XLMRoberta", "XLMRobertaXL")

# Small enough to be fast; three heads of eight, so that a wrong transposition has nowhere to hide.
SMALL: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 40,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "num_labels": 3,
}
DECODER: dict[str, Any] = {"is_decoder": True}
CROSS: dict[str, Any] = {"is_decoder": True, "add_cross_attention": True}


@dataclass(frozen=True)
class Case:
    """A case.

    Attributes:
        name: its name in reports; seeds are made from it.
        head: a suffix of the table of heads.
        rows: the batch, see above; for multiple choice, three rows a question.
        config: what differs from ``SMALL``.
        extra: further inputs.
        packs: whether a packed path promises the answer.
        family: class prefix.
        original: whether transformers 4.57.6 can make the call, so that golden files hold it.
    """

    name: str
    head: str
    rows: tuple[str, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    packs: bool = True
    family: str = "XLMRoberta"
    original: bool = True


# For each family. ``labels`` are at attended tokens, ``labels_anywhere`` also at masked ones.
BOTH = (
    Case("Model-right", "Model", RIGHT),
    Case("Model-left-and-inside", "Model", MIXED, packs=False),  # the pooler reads position 0, which is masked
    Case("MaskedLM-right", "ForMaskedLM", RIGHT, extra=("labels",)),
    Case("MaskedLM-left-and-inside", "ForMaskedLM", MIXED, extra=("labels",)),
    Case("MaskedLM-label-at-masked", "ForMaskedLM", MIXED, extra=("labels_anywhere",), packs=False),
    Case("MaskedLM-no-label", "ForMaskedLM", RIGHT, extra=("labels_ignored",)),
    Case("MaskedLM-untied", "ForMaskedLM", RIGHT, {"tie_word_embeddings": False}, extra=("labels",)),
    Case("CausalLM-right", "ForCausalLM", RIGHT, DECODER, extra=("labels",)),
    Case("CausalLM-left-and-inside", "ForCausalLM", MIXED, DECODER, extra=("labels",)),
    Case("CausalLM-label-at-masked", "ForCausalLM", MIXED, DECODER, extra=("labels_anywhere",), packs=False),
    Case("CausalLM-not-a-decoder", "ForCausalLM", RIGHT, extra=("labels",)),
    Case("CausalLM-untied", "ForCausalLM", RIGHT, {**DECODER, "tie_word_embeddings": False}, extra=("labels",)),
    Case("SequenceClassification-right", "ForSequenceClassification", RIGHT, extra=("labels",)),
    Case("SequenceClassification-left", "ForSequenceClassification", MIXED, extra=("labels",), packs=False),
    Case("MultipleChoice-right", "ForMultipleChoice", CHOICES, extra=("labels",)),
    Case("MultipleChoice-left", "ForMultipleChoice", MIXED_CHOICES, extra=("labels",), packs=False),
    Case("TokenClassification-right", "ForTokenClassification", RIGHT, extra=("labels",)),
    Case("TokenClassification-inside", "ForTokenClassification", MIXED, extra=("labels",)),
    Case("QuestionAnswering-no-answer", "ForQuestionAnswering", MIXED, {"num_labels": 2}),
    # The loss is a softmax over all positions, masked ones too.
    Case("QuestionAnswering-answer", "ForQuestionAnswering", MIXED, {"num_labels": 2}, extra=("labels",), packs=False),
    Case("QuestionAnswering-outside", "ForQuestionAnswering", FULL, {"num_labels": 2}, extra=("labels_outside",)),
    # Inputs
    Case("padded", "ForMaskedLM", PADDED, extra=("labels",)),
    Case("full", "Model", FULL),
    Case("no-mask", "Model", MIXED, extra=("no_mask",)),
    Case("decoder-no-mask", "Model", MIXED, DECODER, extra=("no_mask",)),
    Case("one-token", "Model", ("t", "t")),
    Case("one-row", "ForMaskedLM", ("tttttt....",), extra=("labels",)),
    Case("longest", "ForMaskedLM", ("t" * 38, "t" * 30 + "." * 8), extra=("labels",)),
    Case("masked-rows", "Model", EMPTY, packs=False),
    Case("masked-rows-loss", "ForSequenceClassification", EMPTY, extra=("labels",), packs=False),
    Case("masked-rows-decoder", "ForCausalLM", EMPTY, DECODER, packs=False),
    Case("position-ids", "ForMaskedLM", INSIDE, extra=("position_ids", "labels")),
    Case("position-ids-shared", "Model", RIGHT, extra=("position_ids_shared",)),
    Case("embeds", "ForMaskedLM", INSIDE, extra=("embeds", "labels")),
    Case("embeds-no-mask", "Model", FULL, extra=("embeds", "no_mask")),
    Case("embeds-choices", "ForMultipleChoice", CHOICES, extra=("embeds", "labels")),
    Case("mask-3d", "Model", RIGHT, extra=("mask_3d",), packs=False),
    Case("mask-3d-decoder", "ForCausalLM", RIGHT, DECODER, extra=("mask_3d",), packs=False),
    Case("head-mask", "Model", RIGHT, extra=("head_mask",), packs=False),
    Case("head-mask-by-layer", "ForMaskedLM", MIXED, extra=("head_mask_by_layer", "labels"), packs=False),
    Case("token-types-pad-3", "ForMaskedLM", MIXED, {"type_vocab_size": 2, "pad_token_id": 3}, extra=("token_types",)),
    Case("token-types-left-out", "Model", RIGHT, {"type_vocab_size": 2}),
    Case("token-types-choices", "ForMultipleChoice", CHOICES, {"type_vocab_size": 3}, extra=("token_types", "labels")),
    Case("pad-0", "ForMaskedLM", MIXED, {"pad_token_id": 0, "bos_token_id": 1}, extra=("labels",)),
    # Relative positions: by index, so that a packed path would have to know what was between two tokens
    Case("relative-key", "ForMaskedLM", MIXED, {"position_embedding_type": "relative_key"}, ("labels",), packs=False),
    Case("relative-key-query", "ForMaskedLM", MIXED, {"position_embedding_type": "relative_key_query"}, packs=False),
    Case(
        "relative-decoder",
        "ForCausalLM",
        MIXED,
        {**DECODER, "position_embedding_type": "relative_key_query", "use_cache": False},
        packs=False,
    ),
    Case(
        "relative-labels",
        "ForMaskedLM",
        PADDED,
        {"position_embedding_type": "relative_key_query"},
        ("labels",),
        packs=False,
    ),
    Case("relative-masked-rows", "Model", EMPTY, {"position_embedding_type": "relative_key"}, packs=False),
    # Cross-attention
    Case("cross", "ForCausalLM", RIGHT, CROSS, extra=("encoder", "labels"), packs=False),
    Case("cross-masked", "ForCausalLM", MIXED, CROSS, extra=("encoder", "encoder_mask"), packs=False),
    Case(
        "cross-head-mask", "Model", RIGHT, CROSS, extra=("encoder", "encoder_mask", "head_mask_by_layer"), packs=False
    ),
    Case("cross-labels", "ForCausalLM", PADDED, CROSS, extra=("encoder", "encoder_mask", "labels"), packs=False),
    Case("cross-left-out", "ForCausalLM", RIGHT, CROSS, extra=("labels",)),
    Case(
        "cross-relative",
        "Model",
        RIGHT,
        {**CROSS, "position_embedding_type": "relative_key", "use_cache": False},
        extra=("encoder", "encoder_mask"),
        packs=False,
    ),
    # Configuration
    Case("epsilon-large", "ForMaskedLM", RIGHT, {"layer_norm_eps": 0.1}),
    Case("epsilon-small", "ForMaskedLM", RIGHT, {"layer_norm_eps": 1e-12}),
    Case("one-head-one-layer", "Model", RIGHT, {"num_attention_heads": 1, "num_hidden_layers": 1}),
    Case("chunked-feed-forward", "Model", RIGHT, {"chunk_size_feed_forward": 5}),
    # Published scripts prune a loaded model; a config that says so from the start is ours.
    Case("pruned", "ForMaskedLM", MIXED, {"pruned_heads": {0: [1], 1: [0, 2]}}, extra=("labels",), original=False),
    # New arguments of ours
    Case("masked-positions", "ForMaskedLM", RIGHT, extra=("masked_positions",), original=False),
    Case(
        "masked-positions-labels-right",
        "ForMaskedLM",
        RIGHT,
        extra=("masked_positions", "labels_at_positions"),
        original=False,
    ),
    Case(
        "masked-positions-labels",
        "ForMaskedLM",
        INSIDE,
        extra=("masked_positions", "labels_at_positions"),
        original=False,
    ),
    Case("masked-positions-all-labels", "ForMaskedLM", INSIDE, extra=("masked_positions", "labels"), original=False),
    Case("sparse-prediction", "ForMaskedLM", MIXED, extra=("labels", "sparse"), original=False),
    Case(
        "sparse-prediction-untied",
        "ForMaskedLM",
        RIGHT,
        {"tie_word_embeddings": False},
        ("labels", "sparse"),
        original=False,
    ),
    Case(
        "sparse-prediction-at-masked",
        "ForMaskedLM",
        MIXED,
        extra=("labels_anywhere", "sparse"),
        packs=False,
        original=False,
    ),
    Case("keep-last-logit", "ForCausalLM", ("tttttttttt", "....tttttt"), DECODER, ("keep_1",), original=False),
    Case("keep-three-logits", "ForCausalLM", FULL, DECODER, ("keep_3",), original=False),
    # Problems of a sequence classifier
    Case("regression-of-one", "ForSequenceClassification", RIGHT, {"num_labels": 1}, ("float_labels",)),
    Case("regression-of-one-column", "ForSequenceClassification", RIGHT, {"num_labels": 1}, ("float_column",)),
    Case("regression", "ForSequenceClassification", RIGHT, {"problem_type": "regression"}, ("float_rows",)),
    Case(
        "multi-label",
        "ForSequenceClassification",
        RIGHT,
        {"problem_type": "multi_label_classification"},
        ("binary_rows",),
    ),
    Case("multi-label-by-dtype", "ForSequenceClassification", RIGHT, {}, ("binary_rows",)),
    Case(
        "single-label", "ForSequenceClassification", RIGHT, {"problem_type": "single_label_classification"}, ("labels",)
    ),
)

ACTIVATIONS = ("gelu", "relu", "silu", "gelu_new", "swish", "gelu_python", "gelu_pytorch_tanh", "gelu_fast", "tanh")


def _for_family(case: Case, family: str) -> Case:
    return Case(**{**vars(case), "name": f"{family}-{case.name}", "family": family})


CASES: dict[str, Case] = {
    case.name: case
    for case in (
        *(_for_family(case, family) for family in FAMILIES for case in BOTH),
        # XL counts no label at a masked position, base and large do.
        Case("XLMRoberta-label-at-masked", "ForTokenClassification", MIXED, extra=("labels_anywhere",), packs=False),
        Case(
            "XLMRobertaXL-label-at-masked",
            "ForTokenClassification",
            MIXED,
            extra=("labels_anywhere",),
            family="XLMRobertaXL",
        ),
        *(Case(f"activation-{name}", "ForMaskedLM", RIGHT, {"hidden_act": name}) for name in ACTIVATIONS),
    )
}

# What takes turns (modes, dtypes) goes by these numbers: a case of one family is one further than the same of the
# other.
TURNS: dict[str, int] = {
    case.name: number % len(BOTH) + FAMILIES.index(case.family) for number, case in enumerate(CASES.values())
}

# Gradients: every head, every way to reach a parameter. A padding id that is attended to is left out here: the
# published models give the padding rows no gradient, which no finite difference can know. So are fully masked rows,
# through whose scores a gradient flows although float arithmetic swallows the scores. Golden files hold both.
GRADIENTS: tuple[str, ...] = tuple(
    f"{family}-{name}"
    for family in FAMILIES
    for name in (
        "MaskedLM-right",
        "MaskedLM-untied",
        "CausalLM-right",
        "SequenceClassification-right",
        "MultipleChoice-right",
        "TokenClassification-right",
        "QuestionAnswering-outside",
        "longest",
        "token-types-choices",
        "cross-labels",
        "masked-positions-labels-right",
        "sparse-prediction-untied",
        "relative-labels",
        "padded",
        "multi-label",
        "regression",
    )
)

# Dropout: configurations of which each has one place that drops, and a head that passes it.
NO_DROPOUT: dict[str, Any] = {
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "classifier_dropout": 0.0,
}
DROPOUT: dict[str, tuple[str, dict[str, Any]]] = {
    "hidden": ("MaskedLM-right", {**NO_DROPOUT, "hidden_dropout_prob": 0.5}),
    "attention": ("MaskedLM-right", {**NO_DROPOUT, "attention_probs_dropout_prob": 0.5}),
    "attention-decoder": ("CausalLM-right", {**NO_DROPOUT, "attention_probs_dropout_prob": 0.5}),
    "sequence-classifier": ("SequenceClassification-right", {**NO_DROPOUT, "classifier_dropout": 0.5}),
    "token-classifier": ("TokenClassification-right", {**NO_DROPOUT, "classifier_dropout": 0.5}),
    "choice-without-classifier-dropout": (
        "MultipleChoice-right",
        {"hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.0},
    ),
}
