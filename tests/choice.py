"""What the default suite leaves to ``nox -s everything``. This is the one place that decides it; DEVELOP.md says when
to run that session.

The tests of the backends are a product: cases x families x modes x dtypes. Most of it says a thing twice. The default
suite takes

- each head once in every compiled or exported form, the families in turn (``in_turn``): above the encoder the families
  are one code, and each family's encoder is compiled by half of the heads;
- TensorFlow's graphs of free sizes for each parity case in one family, without the cases of a setting that no graph
  sees (activations, epsilons, pruned heads): what a graph changes is the same in both families;
- each parity case in one half precision, the families in turn, in PyTorch and in one of the two other backends: every
  case is in both, every mode has both;
- TensorFlow and Flax eagerly in float64, where a wrong formula shows most, each parity case in one family, and packed
  in float32 in the other; padded in float32 they make the recorded calls and train. In PyTorch both families make each
  case in all ways;
- gradients in one mode a case, the modes in turn, and golden gradients in the next one, in Keras and Flax in one family
  a case; fully masked rows in every mode; in a graph those that flow through packing, gathering and a memory;
- layers computed again in the backward pass in a graph for one family, eagerly for the other, in TensorFlow with
  dropout;
- a dozen mistakes a backend: that all of them are noticed is tested with the reference, which makes them as a backend
  does;
- of the golden outputs those of the reference: a backend's own would follow, as it equals the reference on the same
  inputs;
- of the tasks that are trained one of each kind of loss; of the recipes of Keras and Flax, which differ from PyTorch's
  in nouns, one each (`noxfile.py`);
- where ways to do a thing are a product (head, packing, weights of labels; mesh, family), enough of them that each two
  choices meet, or each choice is made once; two processes with labels of tokens, or with divided parameters.

Of the benchmarks' questions the suite asks those about PyTorch. ``nox -s everything`` takes all of it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

__all__ = ["EVERYTHING", "chosen", "in_turn"]

EVERYTHING = os.environ.get("XLMR_EVERYTHING") == "1"
T = TypeVar("T")


def chosen(every: Sequence[T], some: Sequence[T]) -> list[T]:
    """What is run: all, or by default the chosen ones."""
    assert all(one in every for one in some), "chosen from what there is"
    return list(every if EVERYTHING else some)


def in_turn(families: Sequence[str], heads: Sequence[str]) -> list[tuple[str, str]]:
    """Each head once: the first of the first family, the second of the second, and so on."""
    return [(families[number % len(families)], head) for number, head in enumerate(heads)]
