"""Where the tokens of a padded batch are, found by the graph itself: the nodes that pack and unpack.

What is packed ("kept") are the tokens that the mask shows, and where the padded path gives a meaning to others those as
well: a row without any token, which attends to all of its padding alike, and for heads that read it the first position
of each row. So there is no batch that has to be answered otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xlmr_core.onnx.graph import BOOL, FLOAT, INT64, Graph

__all__ = ["Packed", "pack"]

# Added to the score of a key that must not be seen: finite, as of the reference.
UNSEEN = float(np.finfo(np.float32).min)


@dataclass(frozen=True)
class Packed:
    """Names of values of a graph.

    Attributes:
        graph: what they are of.
        shape_2: B and S.
        places_1T: of each kept token, its place in the padded batch (row * S + column).
        slots_BS: of each place, a token that stands there; where none does, any.
        bias_B1S: what is added to the scores of each key.
        seen_BS: 1 where the mask shows a token, float32.
    """

    graph: Graph
    shape_2: str
    places_1T: str
    slots_BS: str
    bias_B1S: str
    seen_BS: str

    def pack(self, x_BS: str) -> str:
        """(B, S) to (1, T)."""
        g = self.graph
        return g("Gather", g("Reshape", x_BS, g.constant([-1])), self.places_1T, axis=0)

    def unpack(self, x_1TK: str, width: str) -> str:
        """(1, T, K) to (B, S, K), with zeros where nothing was kept; ``width`` is K as a tensor of one number."""
        g = self.graph
        flat_TK = g("Reshape", x_1TK, g("Concat", g.constant([-1]), width, axis=0))
        return self.put(flat_TK, self.places_1T, self.shape_2, width)

    def put(self, x_RK: str, places_1R: str, shape_2: str, width: str) -> str:
        """(R, K) to (B, X, K): rows at their places in a batch of that shape, and zeros."""
        g = self.graph
        count = g("ReduceProd", shape_2, keepdims=1)
        zeros = g("Expand", g.constant(0.0), g("Concat", count, width, axis=0))
        indices_R1 = g("Reshape", places_1R, g.constant([-1, 1]))
        flat = g("ScatterND", zeros, indices_R1, x_RK)
        return g("Reshape", flat, g("Concat", shape_2, width, axis=0))

    def to_heads(self, x_1TX: str, heads: int, size: int) -> str:
        """(1, T, N * H) to (N, B, S, H): what attention reads, with the values of any token at padding."""
        g = self.graph
        x_TNH = g("Reshape", x_1TX, g.constant([-1, heads, size]))
        return g("Gather", g("Transpose", x_TNH, perm=[1, 0, 2]), self.slots_BS, axis=1)

    def from_heads(self, x_NBSH: str, heads: int, size: int) -> str:
        """(N, B, S, H) to (1, T, N * H)."""
        g = self.graph
        x_NXH = g("Reshape", x_NBSH, g.constant([heads, -1, size]))
        places_T = g("Reshape", self.places_1T, g.constant([-1]))
        x_TNH = g("Transpose", g("Gather", x_NXH, places_T, axis=1), perm=[1, 0, 2])
        return g("Reshape", x_TNH, g.constant([1, -1, heads * size]))

    def first_tokens(self, x_1TD: str, width: int) -> str:
        """(1, T, D) to (B, D): position 0 of each row."""
        g = self.graph
        first_B = g("Gather", self.slots_BS, g.constant(0), axis=1)
        return g("Gather", g("Reshape", x_1TD, g.constant([-1, width])), first_B, axis=0)


def pack(g: Graph, mask_BS: str, keep_first: bool) -> Packed:
    """Find the tokens.

    Args:
        g: the graph.
        mask_BS: integers: 1 for a token; 0 for what is neither attended to nor asked for; -1 for what is not attended
            to but asked for.
        keep_first: whether position 0 of each row is asked for, masked or not.
    """
    seen_BS = g("Greater", mask_BS, g.constant(0))
    seen = g("Cast", seen_BS, to=FLOAT)
    none_B1 = g("Not", g("Cast", g("ReduceMax", seen, axes=[1], keepdims=1), to=BOOL))
    kept_BS = g("Or", g("Not", g("Equal", mask_BS, g.constant(0))), none_B1)
    shape_2 = g("Shape", mask_BS)
    if keep_first:
        columns = g("Range", g.constant(0), g("Gather", shape_2, g.constant(1), axis=0), g.constant(1))
        kept_BS = g("Or", kept_BS, g("Equal", columns, g.constant(0)))
    flat_X = g("Reshape", kept_BS, g.constant([-1]))
    counted_X = g("Sub", g("CumSum", g("Cast", flat_X, to=INT64), g.constant(0)), g.constant(1))
    slots_BS = g("Reshape", g("Max", counted_X, g.constant(0)), shape_2)
    bias_BS = g("Mul", g("Sub", g.constant(1.0), seen), g.constant(UNSEEN))
    return Packed(
        graph=g,
        shape_2=shape_2,
        places_1T=g("NonZero", flat_X),
        slots_BS=slots_BS,
        bias_B1S=g("Unsqueeze", bias_BS, g.constant([1])),
        seen_BS=seen,
    )
