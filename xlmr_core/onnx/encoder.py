"""The encoder as nodes of ONNX: what ``reference/encoder.py`` means, on packed tokens.

Projections, norms and the feed-forward layer run on (1, T, D) kept tokens; attention sees the padded batch. The leading
axis of 1 is for other people's tools: of products of two axes ONNX Runtime makes ``Gemm``, which its quantizers pass
over without a word.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from xlmr_core.config import XLMRobertaConfig, XLMRobertaXLConfig
from xlmr_core.onnx.four_bit import Codes
from xlmr_core.onnx.graph import FLOAT, INT64, Graph
from xlmr_core.onnx.packed import Packed, pack

__all__ = ["ACTIVATIONS", "Encoder", "gelu"]


def gelu(g: Graph, x: str) -> str:
    """Exact GELU, in the order of steps that ONNX Runtime makes one of."""
    erf = g("Erf", g("Div", x, g.constant(math.sqrt(2.0))))
    return g("Mul", g("Mul", x, g("Add", erf, g.constant(1.0))), g.constant(0.5))


def gelu_tanh(g: Graph, x: str) -> str:
    """The tanh approximation of GELU."""
    cubed = g("Mul", g("Pow", x, g.constant(3.0)), g.constant(0.044715))
    inner = g("Mul", g("Add", x, cubed), g.constant(math.sqrt(2.0 / math.pi)))
    return g("Mul", g("Mul", x, g.constant(0.5)), g("Add", g("Tanh", inner), g.constant(1.0)))


def silu(g: Graph, x: str) -> str:
    """x times its sigmoid."""
    return g("Mul", x, g("Sigmoid", x))


# By the published names of ``hidden_act``, as of the reference.
ACTIVATIONS: Mapping[str, Callable[[Graph, str], str]] = {
    **dict.fromkeys(("gelu", "gelu_python"), gelu),
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_pytorch_tanh"), gelu_tanh),
    **dict.fromkeys(("silu", "swish"), silu),
    "relu": lambda g, x: g("Relu", x),
    "tanh": lambda g, x: g("Tanh", x),
}


@dataclass
class Encoder:
    """Builds an encoder, and the layers that heads are made of.

    Attributes:
        graph: what it is built on.
        config: the model's.
        prefix: of the names of its parameters.
        scales: of the weights that are stored in bytes, the name of their scales.
        codes: the weights of four bits.
    """

    graph: Graph
    config: XLMRobertaConfig
    prefix: str
    scales: Mapping[str, str] = field(default_factory=dict)
    codes: Mapping[str, Codes] = field(default_factory=dict)
    _rounded: dict[str, list[str]] = field(default_factory=dict)

    # Layers without structure

    def linear(self, name: str, x: str) -> str:
        """x W + b, with the weight as (in, out)."""
        g, weight = self.graph, f"{name}.weight"
        bias = g.parameter(f"{name}.bias")
        if weight in self.codes:
            return g("Add", self.codes[weight].product(g, x), bias)
        if weight in self.scales:
            return g("Add", self.product(x, g.parameter(weight), self.scales[weight]), bias)
        return g("Add", g("MatMul", x, g.parameter(weight)), bias)

    def product(self, x: str, weight: str, scales: str) -> str:
        """x times a weight (in, out) of bytes, with a scale a column: x is rounded to bytes for the time of the call.

        Rounded once, whatever is multiplied by it.
        """
        g = self.graph
        if x not in self._rounded:
            self._rounded[x] = g.node("DynamicQuantizeLinear", x, count=3)
        rounded, scale, zero = self._rounded[x]
        counted = g("Cast", g("MatMulInteger", rounded, weight, zero), to=FLOAT)
        return g("Mul", counted, g("Mul", scale, g.parameter(scales)))

    def layer_norm(self, name: str, x: str) -> str:
        """Layer normalization over the last axis."""
        g = self.graph
        scale, bias = g.parameter(f"{name}.weight"), g.parameter(f"{name}.bias")
        return g("LayerNormalization", x, scale, bias, axis=-1, epsilon=float(self.config.layer_norm_eps))

    def rows(self, name: str, indices: str) -> str:
        """Rows of an embedding table."""
        g, weight = self.graph, f"{name}.weight"
        if weight in self.codes:
            return self.codes[weight].rows(g, indices)
        found = g("Gather", g.parameter(weight), indices, axis=0)
        if weight not in self.scales:
            return found
        scale = g("Gather", g.parameter(self.scales[weight]), indices, axis=0)
        return g("Mul", g("Cast", found, to=FLOAT), g("Unsqueeze", scale, g.constant([-1])))

    # The encoder

    def __call__(self, ids_BS: str, mask_BS: str, types: str, keep_first: bool) -> tuple[str, Packed]:
        """The states of the kept tokens (1, T, D), and where these are.

        Args:
            ids_BS, mask_BS: as of :func:`pack`.
            types: token types of any shape that spreads to (B, S).
            keep_first: as of :func:`pack`.
        """
        packed = pack(self.graph, mask_BS, keep_first)
        x_1TD = self.embed(packed, ids_BS, types)
        for layer in range(self.config.num_hidden_layers):
            name = f"{self.prefix}encoder.layer.{layer}"
            x_1TD = self.attention_block(packed, f"{name}.attention", self.config.heads_in_layer(layer), x_1TD)
            x_1TD = self.feed_forward_block(name, x_1TD)
        if self.is_xl:
            x_1TD = self.layer_norm(f"{self.prefix}encoder.LayerNorm", x_1TD)
        return x_1TD, packed

    @property
    def is_xl(self) -> bool:
        """Whether norms come before what they are for."""
        return isinstance(self.config, XLMRobertaXLConfig)

    def embed(self, packed: Packed, ids_BS: str, types: str) -> str:
        """Words, positions and token types, added; base and large normalize the sum, XL does not."""
        g, name = self.graph, f"{self.prefix}embeddings"
        if self.config.type_vocab_size == 1:
            types = g("Sub", types, types)  # taken and ignored
        types_1T = packed.pack(g("Expand", types, packed.shape_2))
        x_1TD = self.rows(f"{name}.word_embeddings", packed.pack(ids_BS))
        x_1TD = g("Add", x_1TD, self.rows(f"{name}.token_type_embeddings", types_1T))
        if self.config.position_embedding_type == "absolute":
            x_1TD = g("Add", x_1TD, self.rows(f"{name}.position_embeddings", packed.pack(self.positions(ids_BS))))
        return x_1TD if self.is_xl else self.layer_norm(f"{name}.LayerNorm", x_1TD)

    def positions(self, ids_BS: str) -> str:
        """Positions that count the tokens which are not padding; padding keeps its id."""
        g, pad = self.graph, self.graph.constant(self.config.pad_token_id)
        is_token = g("Cast", g("Not", g("Equal", ids_BS, pad)), to=INT64)
        return g("Add", g("Mul", g("CumSum", is_token, g.constant(1)), is_token), pad)

    def attention_block(self, packed: Packed, name: str, heads: int, x_1TD: str) -> str:
        """Attention with its projection, residual and norm: before it in XL, after it in base and large."""
        g = self.graph
        y_1TD = self.layer_norm(f"{name}.self_attn_layer_norm", x_1TD) if self.is_xl else x_1TD
        context_1TX = self.attend(packed, f"{name}.self", heads, y_1TD)
        x_1TD = g("Add", x_1TD, self.linear(f"{name}.output.dense", context_1TX))
        return x_1TD if self.is_xl else self.layer_norm(f"{name}.output.LayerNorm", x_1TD)

    def attend(self, packed: Packed, name: str, heads: int, x_1TD: str) -> str:
        """Scaled dot-product attention up to, and without, the output projection."""
        g, size = self.graph, self.config.head_size
        q_NBSH, k_NBSH, v_NBSH = (
            packed.to_heads(self.linear(f"{name}.{part}", x_1TD), heads, size) for part in ("query", "key", "value")
        )
        scores = g("MatMul", q_NBSH, g("Transpose", k_NBSH, perm=[0, 1, 3, 2]))
        if self.config.position_embedding_type != "absolute":
            scores = g("Add", scores, self.relative_scores(packed, name, q_NBSH, k_NBSH))
        scores = g("Mul", scores, g.constant(1.0 / math.sqrt(size)))
        probabilities_NBSS = g("Softmax", g("Add", scores, packed.bias_B1S), axis=-1)
        return packed.from_heads(g("MatMul", probabilities_NBSS, v_NBSH), heads, size)

    def relative_scores(self, packed: Packed, name: str, q_NBSH: str, k_NBSH: str) -> str:
        """What relative positions add to the scores: by distance of the indices, whatever is padding between them."""
        g = self.graph
        length = g("Gather", packed.shape_2, g.constant(1), axis=0)
        index_S = g("Range", g.constant(0), length, g.constant(1))
        distance_SS = g("Sub", g("Unsqueeze", index_S, g.constant([1])), g("Unsqueeze", index_S, g.constant([0])))
        moved = g("Add", distance_SS, g.constant(self.config.max_position_embeddings - 1))
        distance_SSH = self.rows(f"{name}.distance_embedding", moved)
        scores = g("Einsum", q_NBSH, distance_SSH, equation="nbqh,qkh->nbqk")
        if self.config.position_embedding_type == "relative_key_query":
            scores = g("Add", scores, g("Einsum", k_NBSH, distance_SSH, equation="nbkh,qkh->nbqk"))
        return scores

    def feed_forward_block(self, name: str, x_1TD: str) -> str:
        """The feed-forward layer with residual and norm: before it in XL, after it in base and large."""
        g = self.graph
        y_1TD = self.layer_norm(f"{name}.LayerNorm", x_1TD) if self.is_xl else x_1TD
        y_1TF = ACTIVATIONS[str(self.config.hidden_act)](g, self.linear(f"{name}.intermediate.dense", y_1TD))
        x_1TD = g("Add", x_1TD, self.linear(f"{name}.output.dense", y_1TF))
        return x_1TD if self.is_xl else self.layer_norm(f"{name}.output.LayerNorm", x_1TD)

    def width(self, size: int) -> str:
        """A size as a tensor of one number."""
        return self.graph.constant(np.array([size], np.int64))
