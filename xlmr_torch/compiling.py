"""What the compiler of ``optimize_for_inference`` is asked beyond its defaults.

Queries, keys and values are projections of the same states, each by a layer of its own that rounds or casts the states
first. Inductor removes repeated operations from graphs that train, and leaves them in graphs that only answer
(PyTorch 2.13), so that an int8 encoder would round everything three times, a third of its time.
"""

from __future__ import annotations

from typing import Any

from torch import Tag
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch._ops import OpOverload
from torch.fx import Graph, Node

__all__ = ["RepeatedOnce", "options"]


class RepeatedOnce(CustomGraphPass):
    """Computes once what a graph computes several times from the same values.

    The graph is one that Inductor is about to lower: nothing in it changes a value that something else reads.
    """

    def __call__(self, graph: Graph) -> None:
        first: dict[tuple[Any, ...], Node] = {}
        for node in list(graph.nodes):
            if not _is_function_of_its_inputs(node):
                continue
            # A node's name is its own in the graph, and what it stands for.
            key = (node.target, repr(node.args), repr(sorted(node.kwargs.items())))
            earlier = first.setdefault(key, node)
            if earlier is not node:
                node.replace_all_uses_with(earlier)
                graph.erase_node(node)

    def uuid(self) -> bytes:
        """What PyTorch's cache of compiled graphs knows this pass by: its source."""
        return get_hash_for_files((__file__,))


def _is_function_of_its_inputs(node: Node) -> bool:
    """Whether the same inputs give the same value and nothing else happens."""
    return (
        node.op == "call_function"
        and isinstance(node.target, OpOverload)
        and not node.target._schema.is_mutable
        and Tag.nondeterministic_seeded not in node.target.tags
        and not node.is_impure()
    )


def options(rounds: bool) -> dict[str, Any]:
    """Options of Inductor.

    Args:
        rounds: whether activations are rounded. A gelu is then computed twice, where its extremes are sought and where
            it is rounded, unless Inductor keeps the outcome of so few operations: a twentieth of an encoder's time.
    """
    kept: dict[str, Any] = {"post_grad_custom_pre_pass": RepeatedOnce()}
    return kept | {"realize_opcount_threshold": 8} if rounds else kept
