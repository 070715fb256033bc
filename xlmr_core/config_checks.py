"""What the values of a configuration may be, and the messages about those that no model can be built from."""

from __future__ import annotations

import operator
from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from xlmr_core.errors import ConfigError
from xlmr_core.wording import nearest, shown

if TYPE_CHECKING:
    from xlmr_core.config import XLMRobertaConfig

__all__ = [
    "ACTIVATIONS",
    "MOST_KEYS",
    "MOST_LABELS",
    "POSITION_EMBEDDING_TYPES",
    "PROBLEM_TYPES",
    "check_labels",
    "check_together",
    "check_values",
    "label_map",
    "layers_from_the_first",
    "pruned_head_map",
]

ACTIVATIONS = ("gelu", "relu", "silu", "gelu_new", "swish", "gelu_python", "gelu_pytorch_tanh", "gelu_fast", "tanh")
POSITION_EMBEDDING_TYPES = ("absolute", "relative_key", "relative_key_query")
PROBLEM_TYPES = (None, "regression", "single_label_classification", "multi_label_classification")
# The least that makes sense of each size, and the most that is taken for one: of layers and labels a table is made, and
# the others are sizes of axes.
MOST_LABELS = 1_000_000
# Keys of a file: a few hundred are known to any library.
MOST_KEYS = 100_000
SIZES = {
    "vocab_size": (1, 2**31 - 1),
    "hidden_size": (1, 2**31 - 1),
    "num_hidden_layers": (0, 10_000),
    "num_attention_heads": (1, 2**31 - 1),
    "intermediate_size": (1, 2**31 - 1),
    "max_position_embeddings": (1, 2**31 - 1),
    "type_vocab_size": (1, 2**31 - 1),
}
PROBABILITIES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
TOKEN_IDS = ("bos_token_id", "sep_token_id", "decoder_start_token_id")


def check_values(config: XLMRobertaConfig) -> None:
    """Refuse values that are wrong by themselves.

    Raises:
        ConfigError: for the first of them.
    """
    _check_ranges(config)
    act, chunk = config.hidden_act, config.chunk_size_feed_forward
    named = config.architectures
    listed = named is None or (isinstance(named, list | tuple) and all(isinstance(name, str) for name in named))
    if isinstance(act, type):
        raise ConfigError(f"hidden_act must be a function, received the class {act.__name__}; pass an instance of it")
    _refuse(
        (
            callable(act) or act in ACTIVATIONS,
            f"hidden_act must be one of {', '.join(ACTIVATIONS)} or a callable, received {shown(act)}"
            f"{_near(act, ACTIVATIONS)}",
        ),
        (
            config.position_embedding_type in POSITION_EMBEDDING_TYPES,
            f"position_embedding_type must be one of {', '.join(POSITION_EMBEDDING_TYPES)}, received "
            f"{shown(config.position_embedding_type)}{_near(config.position_embedding_type, POSITION_EMBEDDING_TYPES)}",
        ),
        (
            config.problem_type in PROBLEM_TYPES,
            f"problem_type must be one of {', '.join(str(p) for p in PROBLEM_TYPES)}, received "
            f"{shown(config.problem_type)}"
            f"{_near(config.problem_type, PROBLEM_TYPES)}",
        ),
        (
            _is_number(config.layer_norm_eps) and config.layer_norm_eps > 0,
            f"layer_norm_eps must be positive, received {shown(config.layer_norm_eps)}",
        ),
        (
            _is_number(config.initializer_range) and config.initializer_range >= 0,
            f"initializer_range must not be negative, received {shown(config.initializer_range)}",
        ),
        (
            _is_integer(chunk) and chunk >= 0,
            f"chunk_size_feed_forward must be 0 (off) or a positive number of tokens, received {shown(chunk)}",
        ),
        (listed, f"architectures must be a list of names of classes, received {shown(named)}"),
    )


def check_together(config: XLMRobertaConfig) -> None:
    """Refuse values that do not go together. A configuration that is set value by value may hold such for a while.

    Raises:
        ConfigError: for the first of them.
    """
    pad = config.pad_token_id
    _refuse(
        (
            config.hidden_size % config.num_attention_heads == 0,
            f"hidden_size ({config.hidden_size}) must be a multiple of num_attention_heads "
            f"({config.num_attention_heads}); change one of them",
        ),
        (
            _is_integer(pad) and 0 <= pad < config.vocab_size,
            f"pad_token_id must lie in the vocabulary of {config.vocab_size} ids, received {shown(pad)}",
        ),
        (
            _is_integer(pad) and config.max_position_embeddings > pad + 1,
            f"max_position_embeddings ({config.max_position_embeddings}) leaves no room for a token: positions start "
            "at pad_token_id + 1",
        ),
        (
            config.is_decoder or not config.add_cross_attention,
            "add_cross_attention=True needs is_decoder=True: only a decoder attends to an encoder's states",
        ),
    )
    for layer, heads in config.pruned_heads.items():
        legal = 0 <= layer < config.num_hidden_layers and all(0 <= head < config.num_attention_heads for head in heads)
        left = len(set(heads)) < config.num_attention_heads
        _refuse(
            (legal, f"pruned_heads names heads {heads} of layer {layer}, which this model does not have"),
            (left, f"pruned_heads leaves no attention head in layer {layer}"),
        )


def _refuse(*checks: tuple[bool, str]) -> None:
    for holds, message in checks:
        if not holds:
            raise ConfigError(message)


def _check_ranges(config: XLMRobertaConfig) -> None:
    """Each size, probability and token id by itself."""
    for key, (least, most) in SIZES.items():
        value = getattr(config, key)
        if not _is_integer(value) or not least <= value <= most:
            wanted = "a positive integer" if least else "0 or a positive integer"
            wanted = f"at most {most}" if _is_integer(value) and value > most else wanted
            raise ConfigError(f"{key} must be {wanted}, received {shown(value)}")
    for key in PROBABILITIES:
        value = getattr(config, key)
        if key == "classifier_dropout" and value is None:
            continue
        if not _is_number(value) or not 0 <= value <= 1:
            raise ConfigError(f"{key} must be a probability between 0 and 1, received {shown(value)}")
    for key in TOKEN_IDS:
        value = getattr(config, key)
        if value is not None and (not _is_integer(value) or value < 0):
            raise ConfigError(f"{key} must be a token's id, 0 or more, or None, received {shown(value)}")
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    if not all(end is None or (_is_integer(end) and end >= 0) for end in ends):
        raise ConfigError(
            f"eos_token_id must be a token's id, 0 or more, a list of such, or None, received "
            f"{shown(config.eos_token_id)}"
        )


def check_labels(id2label: Any, label2id: Any) -> None:
    """Refuse label maps that are no dictionaries."""
    for key, value in (("id2label", id2label), ("label2id", label2id)):
        if value is not None and not isinstance(value, Mapping):
            raise ConfigError(
                f"{key} must be a dictionary such as {_LABEL_EXAMPLES[key]}, received {shown(value)}; "
                "to give a number of labels only, set num_labels"
            )


_LABEL_EXAMPLES = {"id2label": '{0: "no", 1: "yes"}', "label2id": '{"no": 0, "yes": 1}'}


def label_map(pairs: Iterable[tuple[Any, Any]], key: str) -> dict[int, Any]:
    """Labels by their id: JSON has made strings of the ids. ``key`` is where the pairs come from."""
    labels = {}
    for index, label in pairs:
        try:
            number = int(index) if isinstance(index, str) else operator.index(index)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{key} must give each label an integer, such as {_LABEL_EXAMPLES[key]}; it has {shown(index)}"
            ) from error
        if not isinstance(label, Hashable):
            raise ConfigError(
                f"{key} must name each label by a word, such as {_LABEL_EXAMPLES[key]}; it has {shown(label)}"
            )
        labels[number] = label
    return labels


def pruned_head_map(value: Any) -> dict[int, list[int]]:
    """The pruned heads of each layer: JSON has made strings of the layers."""
    try:
        return {int(layer): sorted(map(operator.index, heads)) for layer, heads in dict(value or {}).items()}
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"pruned_heads must map layers to lists of heads, such as {{0: [2, 3]}}, received {shown(value)}"
        ) from error


def _near(value: Any, allowed: Iterable[Any]) -> str:
    """A question after the word that was probably meant."""
    near = nearest(value, [word for word in allowed if word is not None]) if isinstance(value, str) else ""
    return f"; did you mean {near!r}?" if near else ""


def layers_from_the_first(heads_by_layer: Mapping[int, Iterable[int]], num_layers: int) -> dict[int, list[int]]:
    """Heads by layer, where layers below zero, which count from the last, stand under their own numbers."""
    found: dict[int, set[int]] = {}
    for layer, heads in heads_by_layer.items():
        from_the_last = _is_integer(layer) and _is_integer(num_layers) and -num_layers <= layer < 0
        found.setdefault(layer + num_layers if from_the_last else layer, set()).update(heads)
    return {layer: sorted(heads) for layer, heads in found.items()}


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
