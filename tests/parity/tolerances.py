"""Every tolerance of the parity tests, each with its reason.

An output passes if ``max |actual - expected| <= absolute * max(1, rms(expected))``: absolute for hidden states, whose
scale is 1, and growing with the output where it is larger (logits). Half precision is judged by the relative L2 error
instead, and by the argmax where it is clear.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "BFLOAT16",
    "FLOAT16",
    "FLOAT32",
    "FLOAT64",
    "GOLDEN",
    "GRADIENT",
    "HALF",
    "ORACLE",
    "RECORDED",
    "Gradient",
    "Half",
]

# A backend in float32 on a CPU against the float64 reference: the promise to users, twelve layers of base size
# included. Float32 has a unit roundoff of 6e-8; sums over 768 to 3072 products and a dozen residual additions cost some
# tens of them, kernels differ in order.
FLOAT32 = 2e-5

# A backend in float64, where it can: nothing but the order of sums differs from the reference, so this is the sharpest
# test of the formulas.
FLOAT64 = 1e-9

# Outputs that other people's code computed in float32 on tiny models (two layers of width 32), against the reference:
# their rounding alone.
RECORDED = 1e-5

# Golden files: the original computed in float64, stored as float32; half a unit in the last place of values up to ten,
# with room.
GOLDEN = 1e-6


# The original in float64 beside ours in float64: the order of sums, and the original's loss, parts of which it computes
# in float32.
ORACLE = 1e-6


@dataclass(frozen=True)
class Half:
    """How a half precision output is judged.

    Attributes:
        relative_l2: largest |actual - expected| / |expected|, Euclidean norms over the whole output.
        loss: largest relative error of the loss, an average of logits' errors.
        margin: where the two largest expected logits are further apart than this many rms of the logits, the argmax
            must be the same.
    """

    relative_l2: float
    loss: float
    margin: float


# Unit roundoff 4.9e-4: weights and every intermediate result are rounded, and errors add up like a random walk over two
# layers. Measured over all cases: median 7e-4, largest 4.5e-3 (a single logit near zero).
FLOAT16 = Half(relative_l2=6e-3, loss=4e-3, margin=0.05)
# Unit roundoff 3.9e-3, otherwise the same. Measured: median 6e-3, largest 3.1e-2; a squared error doubles that of its
# one logit (2.3e-2).
BFLOAT16 = Half(relative_l2=4e-2, loss=3e-2, margin=0.3)
HALF = {"float16": FLOAT16, "bfloat16": BFLOAT16}


@dataclass(frozen=True)
class Gradient:
    """How a gradient g is judged, along random directions d of normal entries:
    ``|g.d - finite difference| <= relative |g| + floor |G|``.

    Attributes:
        relative: to the norm of this parameter's gradient, which is the standard deviation of g.d.
        floor: to the norm of the whole gradient; some parameters have a gradient of exactly zero (a key's bias), of
            which rounding is left.
        step: of the central difference; its own error is of the order of the square, in float64.
    """

    relative: float
    floor: float
    step: float


GRADIENT = Gradient(relative=1e-4, floor=1e-6, step=1e-5)
