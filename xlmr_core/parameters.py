"""The parameter table: which parameters a (config, head) has, with canonical name, shape, role and initial value.

The canonical name is the published PyTorch name, the canonical layout PyTorch's (out, in). How a role is stored
elsewhere is a property of the checkpoint format (``formats/``), not of the row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

from xlmr_core.config import EncoderDecoderConfig, ModelConfig, XLMRobertaConfig, XLMRobertaXLConfig
from xlmr_core.heads import HEADS, OWN_HEAD

if TYPE_CHECKING:
    from xlmr_core.quantization import Scheme

__all__ = [
    "Init",
    "Parameter",
    "ParamSpec",
    "Quantized",
    "Role",
    "dim_sizes",
    "num_parameters",
    "parameters",
    "parts_of",
    "stored_names",
    "with_both_sides",
]


class Role(Enum):
    """What a parameter is, hence how formats lay it out."""

    EMBEDDING = "embedding"  # (rows, width)
    LINEAR_WEIGHT = "linear weight"  # (out, in)
    LINEAR_BIAS = "linear bias"  # (out,)
    NORM_SCALE = "norm scale"  # (width,)
    NORM_BIAS = "norm bias"  # (width,)
    BESIDE = "beside a quantized weight"  # such as its scales; the scheme says what
    OWN = "own"  # a user's, of no ordinary layer; no row of the table is


class Init(Enum):
    """How a fresh parameter starts."""

    NORMAL = "normal"  # mean 0, standard deviation config.initializer_range
    NORMAL_PADDED = "normal, padding row zero"  # the row of pad_token_id starts at 0
    ZEROS = "zeros"
    ONES = "ones"
    OWN = "own"  # as the user's code made it


T = TypeVar("T")
When: TypeAlias = Callable[[XLMRobertaConfig], bool]


def _always(config: XLMRobertaConfig) -> bool:
    return True


def _is_xl(config: XLMRobertaConfig) -> bool:
    return isinstance(config, XLMRobertaXLConfig)


def _is_base(config: XLMRobertaConfig) -> bool:
    return not _is_xl(config)


def _is_relative(config: XLMRobertaConfig) -> bool:
    return config.position_embedding_type != "absolute"


def _has_cross_attention(config: XLMRobertaConfig) -> bool:
    return config.add_cross_attention


def _both(first: When, second: When) -> When:
    return lambda config: first(config) and second(config)


@dataclass(frozen=True)
class ParamSpec:
    """A row of the table.

    Attributes:
        name: canonical name; ``{layer}`` stands for the number of the layer.
        dims: symbols of the shape, resolved by :func:`dim_sizes`; also the logical axes for sharding.
        role: what it is.
        init: how it starts.
        tied_to: canonical name of the parameter it shares its values with, if the config ties them.
        when: whether a config has it.
    """

    name: str
    dims: tuple[str, ...]
    role: Role
    init: Init
    tied_to: str | None = None
    when: When = _always


class Quantized(NamedTuple):
    """Which weight a tensor is a part of, and how that is quantized.

    Attributes:
        scheme: what it is stored by.
        weight: its canonical name.
        suffix: of the tensor, behind the name of the weight; empty for the one that has just that name.
        shape: sizes of the weight, which none of its tensors need have.
    """

    scheme: Scheme
    weight: str
    suffix: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Parameter:
    """A row resolved for one config: see :class:`ParamSpec`; ``shape`` is concrete, as the tensor is stored.

    Attributes:
        dtype: tag of a dtype that does not follow the model's.
        quantized: of the tensors of a quantized weight. Each of them has the ``init`` of the weight, which is drawn as
            a whole.
        own: whether a user's class added it, see :mod:`xlmr_core.own_classes`; no row of the table is.
    """

    name: str
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    role: Role
    init: Init
    tied_to: str | None = None
    dtype: str | None = None
    quantized: Quantized | None = None
    own: bool = False


def _linear(name: str, out: str, into: str, when: When = _always) -> tuple[ParamSpec, ...]:
    return (
        ParamSpec(f"{name}.weight", (out, into), Role.LINEAR_WEIGHT, Init.NORMAL, when=when),
        ParamSpec(f"{name}.bias", (out,), Role.LINEAR_BIAS, Init.ZEROS, when=when),
    )


def _norm(name: str, when: When = _always) -> tuple[ParamSpec, ...]:
    return (
        ParamSpec(f"{name}.weight", ("hidden",), Role.NORM_SCALE, Init.ONES, when=when),
        ParamSpec(f"{name}.bias", ("hidden",), Role.NORM_BIAS, Init.ZEROS, when=when),
    )


def _embedding(
    name: str, rows: str, width: str = "hidden", init: Init = Init.NORMAL, when: When = _always
) -> tuple[ParamSpec, ...]:
    return (ParamSpec(f"{name}.weight", (rows, width), Role.EMBEDDING, init, when=when),)


def _attention(name: str, when: When = _always) -> tuple[ParamSpec, ...]:
    return (
        *_norm(f"{name}.self_attn_layer_norm", _both(when, _is_xl)),
        *_linear(f"{name}.self.query", "attention", "hidden", when),
        *_linear(f"{name}.self.key", "attention", "hidden", when),
        *_linear(f"{name}.self.value", "attention", "hidden", when),
        *(
            _embedding(f"{name}.self.distance_embedding", "distances", "head_size", when=_both(when, _is_relative))
            if name == "attention"
            else ()
        ),
        *_linear(f"{name}.output.dense", "hidden", "attention", when),
        *_norm(f"{name}.output.LayerNorm", _both(when, _is_base)),
    )


EMBEDDINGS = (
    *_embedding("embeddings.word_embeddings", "vocab", init=Init.NORMAL_PADDED),
    *_embedding("embeddings.position_embeddings", "positions", init=Init.NORMAL_PADDED),
    *_embedding("embeddings.token_type_embeddings", "types"),
    *_norm("embeddings.LayerNorm", _is_base),
)
LAYER = (
    *_attention("attention"),
    *_attention("crossattention", _has_cross_attention),
    *_linear("intermediate.dense", "ffn", "hidden"),
    *_linear("output.dense", "hidden", "ffn"),
    *_norm("output.LayerNorm", _is_base),
    *_norm("LayerNorm", _is_xl),
)
ENCODER_END = _norm("encoder.LayerNorm", _is_xl)
POOLER = _linear("pooler.dense", "hidden", "hidden")

WORD_EMBEDDINGS = "roberta.embeddings.word_embeddings.weight"
_LM_HEAD = (
    ParamSpec("lm_head.bias", ("vocab",), Role.LINEAR_BIAS, Init.ZEROS),
    *_linear("lm_head.dense", "hidden", "hidden"),
    *_norm("lm_head.layer_norm"),
    ParamSpec("lm_head.decoder.weight", ("vocab", "hidden"), Role.LINEAR_WEIGHT, Init.NORMAL, tied_to=WORD_EMBEDDINGS),
    ParamSpec("lm_head.decoder.bias", ("vocab",), Role.LINEAR_BIAS, Init.ZEROS, tied_to="lm_head.bias"),
)

# By head suffix, in the order of the published state dict.
HEAD_PARAMETERS: dict[str, tuple[ParamSpec, ...]] = {
    "Model": (),
    OWN_HEAD.suffix: (),
    "ForMaskedLM": _LM_HEAD,
    "ForCausalLM": _LM_HEAD,
    "ForSequenceClassification": (
        *_linear("classifier.dense", "hidden", "hidden"),
        *_linear("classifier.out_proj", "labels", "hidden"),
    ),
    "ForMultipleChoice": _linear("classifier", "one", "hidden"),
    "ForTokenClassification": _linear("classifier", "labels", "hidden"),
    "ForQuestionAnswering": _linear("qa_outputs", "labels", "hidden"),
}
# The first steps of their names: what stands on an encoder.
HEAD_PARTS = tuple(dict.fromkeys(row.name.partition(".")[0] for rows in HEAD_PARAMETERS.values() for row in rows))


def dim_sizes(config: XLMRobertaConfig, layer: int | None = None) -> dict[str, int]:
    """The size of every dim symbol. ``attention`` depends on the layer where heads were pruned."""
    heads = config.num_attention_heads if layer is None else config.heads_in_layer(layer)
    return {
        "vocab": config.vocab_size,
        "hidden": config.hidden_size,
        "ffn": config.intermediate_size,
        "positions": config.max_position_embeddings,
        "types": config.type_vocab_size,
        "labels": config.num_labels,
        "attention": heads * config.head_size,
        "head_size": config.head_size,
        "distances": 2 * config.max_position_embeddings - 1,
        "one": 1,
    }


def parameters(
    config: ModelConfig, head: str, *, pooler: bool | None = None, scheme: Scheme | None = None
) -> dict[str, Parameter]:
    """All parameters of a model, by canonical name, in the order of the published state dict.

    Args:
        config: the model's configuration.
        head: a suffix of ``HEADS``, or with ``pooler`` that of ``OWN_HEAD``. The bare ``Model`` has names without the
            ``roberta.`` prefix, as published. Of an encoder-decoder, which has no other, any.
        pooler: overrides whether there is a pooler (``add_pooling_layer``).
        scheme: of a quantized model, in which some weights are stored otherwise and in several tensors, see
            ``quantization``.
    """
    if isinstance(config, EncoderDecoderConfig):
        both = _of_both(config, pooler).values()
        return {part.name: part for row in both for part in ((row,) if scheme is None else scheme.rows(row))}
    has_pooler = HEADS[head].pooler if pooler is None else pooler
    prefix = "" if head == "Model" else "roberta."
    rows: dict[str, Parameter] = {}

    def add(specs: tuple[ParamSpec, ...], before: str, layer: int | None = None) -> None:
        sizes = dim_sizes(config, layer)
        for spec in specs:
            if spec.when(config):
                tied_to = spec.tied_to
                if tied_to == WORD_EMBEDDINGS and not config.tie_word_embeddings:
                    tied_to = None
                # Pruning removes heads of self-attention; cross-attention keeps all of its own.
                dims = sizes if not spec.name.startswith("crossattention") else dim_sizes(config)
                name, shape = before + spec.name, tuple(dims[dim] for dim in spec.dims)
                row = Parameter(name, shape, spec.dims, spec.role, spec.init, tied_to)
                rows.update((part.name, part) for part in ((row,) if scheme is None else scheme.rows(row)))

    add(EMBEDDINGS, prefix)
    for layer in range(config.num_hidden_layers):
        add(LAYER, f"{prefix}encoder.layer.{layer}.", layer)
    add(ENCODER_END, prefix)
    if has_pooler:
        add(POOLER, prefix)
    add(HEAD_PARAMETERS[head], "")
    return rows


# What leads from the encoder's states to the decoder's width.
PROJECTION = "enc_to_dec_proj"


def _of_both(config: EncoderDecoderConfig, pooler: bool | None) -> dict[str, Parameter]:
    """The rows of an encoder-decoder: the bare encoder's, the causal language model's, and a projection between two
    widths.
    """
    encoder = {f"encoder.{name}": row for name, row in parameters(config.encoder, "Model", pooler=pooler).items()}
    decoder = {f"decoder.{name}": row for name, row in parameters(config.decoder, "ForCausalLM").items()}
    for name, row in encoder.items():
        other = f"decoder.roberta.{row.name}"
        tied_to = other if config.tie_encoder_decoder and other in decoder else None
        encoder[name] = replace(row, name=name, tied_to=tied_to)
    for name, row in decoder.items():
        decoder[name] = replace(row, name=name, tied_to=row.tied_to and f"decoder.{row.tied_to}")
    rows = encoder | decoder
    if config.has_projection:
        width, source = config.decoder.hidden_size, config.encoder.hidden_size
        weight, bias = _linear(PROJECTION, "hidden", "hidden")
        rows[weight.name] = Parameter(weight.name, (width, source), weight.dims, weight.role, weight.init)
        rows[bias.name] = Parameter(bias.name, (width,), bias.dims, bias.role, bias.init)
    return rows


def with_both_sides(tensors: Mapping[str, T], config: ModelConfig) -> dict[str, T]:
    """Tensors by canonical name, what an encoder shares with a decoder under both names: only classes of PyTorch share
    it again.
    """
    if not isinstance(config, EncoderDecoderConfig):
        return dict(tensors)
    sides = _of_both(config, None).values()
    across = {row.name: row.tied_to for row in sides if row.tied_to is not None and row.name.startswith("encoder.")}
    return {**{name: tensors[target] for name, target in across.items() if target in tensors}, **tensors}


def parts_of(weight: str, rows: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """The tensors in which a quantized weight is stored, by what follows its name in theirs."""
    return {row.quantized.suffix: row for row in rows.values() if row.quantized and row.quantized.weight == weight}


def num_parameters(config: ModelConfig, head: str, *, pooler: bool | None = None, embeddings: bool = True) -> int:
    """Number of values in a model, tied ones counted once; ``embeddings=False`` leaves the embedding tables out."""
    total = 0
    for row in parameters(config, head, pooler=pooler).values():
        if row.tied_to is None and (embeddings or row.role is not Role.EMBEDDING):
            size = 1
            for dim in row.shape:
                size *= dim
            total += size
    return total


def stored_names(rows: Mapping[str, Parameter]) -> list[str]:
    """The parameters that a checkpoint stores: tied ones once.

    An untied decoder's bias is the exception and stands under both of its names: transformers 5 reads only the one, 4
    reads either.
    """

    def is_untied_bias(name: str) -> bool:
        weight = rows.get(f"{name.removesuffix('bias')}weight")
        return name.endswith("lm_head.decoder.bias") and weight is not None and weight.tied_to is None

    return [name for name, row in rows.items() if row.tied_to is None or is_untied_bias(name)]
