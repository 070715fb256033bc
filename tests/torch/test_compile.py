"""``torch.compile`` without a graph break and ``torch.export`` with symbolic sizes, padded and packed, for
every head.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.choice import EVERYTHING, chosen
from tests.torch.models import (
    CASES,
    GRAPHS,
    TOKENWISE,
    Case,
    assert_close,
    each_case,
    each_family,
    each_graph,
    gradients,
    loss_of,
)

pytestmark = [
    pytest.mark.slow,
    # PyTorch's own compiler trips over its own deprecations; ours would be reported by every other test.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning:torch.*"),
]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(model: Any, backend: Any = "eager", **how: Any) -> Any:
    return torch.compile(model, backend=backend, fullgraph=True, **how)


class Counter:
    """A backend that counts the graphs it is given and runs them as they are."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        self.graphs += 1
        return graph.forward


# One layer, because a compiler's time goes by the layers and they are all the same.
LAYERS = {"num_hidden_layers": 1}


@each_graph
def test_one_padded_graph_for_all_masks_and_sizes(case: Case) -> None:
    """A model that packs by itself compiles as a padded one: the compiler knows no values. Other content compiles
    nothing anew.
    """
    model, counter = case.build(**LAYERS), Counter()
    fast = compiled(model, counter, dynamic=True)
    # All sizes of the first call differ: what is equal there, the compiler takes to be equal always.
    masks = [torch.ones(6, 9).long(), "right", "left", "inside", torch.ones(8, 22).long()]
    for mask in masks:
        inputs = case.inputs(mask)
        labels = case.labels(inputs)
        with torch.no_grad():
            actual = fast(**inputs, **labels)
            model.set_packing("never")
            expected = model(**inputs, **labels)
            model.set_packing("auto")
        assert isinstance(expected, type(actual)) and list(actual) == list(expected)
        for name in expected:
            assert_close(actual[name], expected[name], what=name)
    assert counter.graphs == 1


def natural_masks(count: int, seed: int = 0) -> Iterator[Tensor]:
    """Masks of an even number of texts of any lengths, at least four, because a compiler takes a batch of one for
    special.
    """
    generator = torch.Generator().manual_seed(seed)
    yield (torch.arange(9) < torch.tensor([9, 3, 5, 2, 9, 4])[:, None]).long()
    for _ in range(count - 1):
        rows = 2 * int(torch.randint(2, 7, (), generator=generator))
        longest = int(torch.randint(2, 23, (), generator=generator))
        lengths = torch.randint(1, longest + 1, (rows,), generator=generator)
        yield (torch.arange(longest) < lengths[:, None]).long()


@each_graph
def test_one_packed_graph_for_a_stream_of_batches(case: Case) -> None:
    model, counter = case.build(**LAYERS), Counter()
    padded = copy.deepcopy(model).set_packing("never")
    fast = compiled(model.set_packing("always"), counter, dynamic=True)
    # What is compiled anew is so within the first few; `nox -s everything` sees to the rest.
    for mask in natural_masks(100 if EVERYTHING else 12):
        inputs = case.inputs(mask)
        with torch.no_grad():
            actual, expected = fast(**inputs), padded(**inputs)
        for name, value in expected.items():
            if name in TOKENWISE and value.shape[:2] == mask.shape:
                value = value * mask.view(*mask.shape, *[1] * (value.dim() - 2))
                actual[name] = actual[name] * mask.view(*mask.shape, *[1] * (value.dim() - 2))
            assert_close(actual[name], value, what=name)
    assert counter.graphs == 1


PACKED_TRAINING = ("ForMaskedLM", "ForSequenceClassification", "ForTokenClassification")


TRAINED = [case for case in GRAPHS if case.head in PACKED_TRAINING]
TRAINED_IN = [(case, mode) for case in TRAINED for mode in ("always", "never")]


@pytest.mark.parametrize(("case", "mode"), chosen(TRAINED_IN, TRAINED_IN[::2] + TRAINED_IN[1:2]), ids=str)
def test_compiled_training_steps(case: Case, mode: str) -> None:
    model = case.build(**LAYERS).set_packing(mode).train()
    fast = compiled(model, "aot_eager", dynamic=True)
    for mask in natural_masks(3):
        inputs = case.inputs(mask)
        labels = case.labels(inputs)
        expected_loss = loss_of(case, model(**inputs, **labels))
        expected = gradients(model, expected_loss)
        loss = loss_of(case, fast(**inputs, **labels))
        assert_close(loss, expected_loss)
        actual = gradients(model, loss)
        for name in expected:
            assert_close(actual[name], expected[name], what=name)


def test_attention_dropout_trains_on_the_padded_path() -> None:
    """There is no fused kernel with dropout that a compiler could see as one operator."""
    case = Case("XLMRoberta", "ForTokenClassification")
    model = case.build(**LAYERS, attention_probs_dropout_prob=0.5).set_packing("always").train()
    inputs = case.inputs("right")
    assert bool(compiled(model)(**inputs).logits[inputs["attention_mask"] == 0].any())


@pytest.mark.parametrize(
    ("head", "mask", "others", "message"),
    [
        ("ForTokenClassification", [[1, 1, 1], [0, 0, 0]], {}, "a row without any token"),
        ("ForSequenceClassification", [[1, 1, 1], [0, 1, 1]], {}, "a row whose first position is masked"),
        ("ForMaskedLM", [[1, 1, 1], [1, 1, 0]], {"labels": [[0, 1, 0], [0, 1, 2]]}, "a label"),
        ("ForMaskedLM", [[1, 1, 1], [1, 1, 0]], {"masked_positions": [[0, 1], [-1, 2]]}, "a label, or a position"),
    ],
)
def test_a_packed_graph_refuses_what_it_would_answer_otherwise(
    head: str, mask: list[list[int]], others: dict[str, list[list[int]]], message: str
) -> None:
    case = Case("XLMRoberta", head)
    fast = compiled(case.build(**LAYERS).set_packing("always"))
    inputs = {**case.inputs(torch.tensor(mask)), **{name: torch.tensor(values) for name, values in others.items()}}
    with pytest.raises(RuntimeError, match=f"a compiled model with packing='always' cannot take {message}"):
        fast(**inputs)


@each_family
@pytest.mark.parametrize("labels", [True, False])
def test_masked_positions(family: str, labels: bool) -> None:
    case = Case(family, "ForMaskedLM")
    model, inputs, counter = case.build(**LAYERS).set_packing("never"), case.inputs("right"), Counter()
    fast = compiled(model, counter)
    for positions in ([[5, 0], [2, -1], [0, -1], [-1, -1]], [[1, 0], [2, 1], [0, 3], [4, -1]]):
        arguments = {**inputs, "masked_positions": torch.tensor(positions)}
        if labels:
            arguments.update(case.labels(inputs))
        with torch.no_grad():
            expected, actual = model(**arguments), fast(**arguments)
        assert_close(actual.logits, expected.logits)
        assert not labels or torch.allclose(actual.loss, expected.loss, equal_nan=True)
    assert counter.graphs == 1


@each_family
@pytest.mark.parametrize("keep", [1, torch.tensor([0, -1])])
def test_logits_to_keep(family: str, keep: Any) -> None:
    case = Case(family, "ForCausalLM")
    model, inputs = case.build(**LAYERS).set_packing("never"), case.inputs("left")
    with torch.no_grad():
        assert_close(compiled(model)(**inputs, logits_to_keep=keep).logits, model(**inputs, logits_to_keep=keep).logits)


@pytest.mark.parametrize("family", ["XLMRoberta"])
@pytest.mark.parametrize(
    "arguments",
    [
        {"output_hidden_states": True},
        {"output_attentions": True},
        {"return_dict": False},
        {"head_mask": torch.tensor([1.0, 0.0])},
    ],
)
def test_other_arguments(family: str, arguments: dict[str, Any]) -> None:
    case = Case(family, "Model")
    model, inputs = case.build(**LAYERS).set_packing("never"), case.inputs("right")
    with torch.no_grad():
        expected, actual = model(**inputs, **arguments), compiled(model)(**inputs, **arguments)
    flat = torch.utils._pytree.tree_leaves
    for x, y in zip(flat(actual), flat(expected), strict=True):
        assert_close(x, y)


@each_family
@pytest.mark.parametrize(
    "config", [{"position_embedding_type": "relative_key_query"}, {"is_decoder": True, "add_cross_attention": True}]
)
def test_other_graphs(family: str, config: dict[str, Any]) -> None:
    case = Case(family, "ForCausalLM")
    model, inputs = case.build(**config, **LAYERS), case.inputs("right")
    if "add_cross_attention" in config:
        inputs["encoder_hidden_states"] = torch.randn(4, 3, 16)
    with torch.no_grad():
        assert_close(compiled(model)(**inputs).logits, model.set_packing("never")(**inputs).logits)


def test_autocast() -> None:
    case = Case("XLMRoberta", "ForMaskedLM")
    model, inputs = case.build(**LAYERS).set_packing("never"), case.inputs("right")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert_close(compiled(model)(**inputs).logits, model(**inputs).logits, tolerance=1e-2)


def test_compile_in_place() -> None:
    case = Case("XLMRoberta", "ForTokenClassification")
    model, inputs = case.build(**LAYERS).set_packing("never"), case.inputs("right")
    expected = model(**inputs).logits
    names = list(model.state_dict())
    model.compile(backend="eager", fullgraph=True)
    assert_close(model(**inputs).logits, expected)
    assert list(model.state_dict()) == names


# ---- Export

OTHER_SIZES = ((2, 3), (6, 12), (8, 22))


@each_graph
def test_export_with_symbolic_batch_and_length(case: Case) -> None:
    model, inputs = case.build(**LAYERS), case.inputs("right")
    batch, length = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("length", min=2, max=22)
    axes = {0: batch, 2: length} if case.head == "ForMultipleChoice" else {0: batch, 1: length}
    program = torch.export.export(model, (), inputs, dynamic_shapes=dict.fromkeys(inputs, axes)).module()
    model.set_packing("never")
    others = [
        case.inputs(torch.ones(rows, columns).long().index_fill(1, torch.tensor([columns - 1]), 0))
        for rows, columns in OTHER_SIZES
    ]
    for arguments in (inputs, case.inputs("left"), *others):
        with torch.no_grad():
            expected, actual = model(**arguments), program(**arguments)
        assert list(actual) == list(expected)
        for name in expected:
            assert_close(actual[name], expected[name], what=name)


@pytest.mark.parametrize("case", [case for case in CASES if case.head == "ForMaskedLM"], ids=str)
def test_export_of_masked_positions_survives_a_file(case: Case, tmp_path: Any) -> None:
    model, inputs = case.build(**LAYERS).set_packing("never"), case.inputs("right")
    inputs["masked_positions"] = torch.tensor([[5, 0], [2, -1], [0, -1], [-1, -1]])
    program = torch.export.export(model, (), inputs)
    torch.export.save(program, tmp_path / "model.pt2")
    inputs["masked_positions"] = torch.tensor([[1, 0], [2, 1], [0, -1], [3, -1]])
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    assert_close(loaded(**inputs).logits, model(**inputs).logits)


@each_case
def test_fake_tensors(case: Case) -> None:
    """Memory planners run models on tensors without values."""
    model, inputs = case.build(**LAYERS), case.inputs("right")
    inputs.update(case.labels(inputs))
    if case.head == "ForMaskedLM":
        inputs["masked_positions"] = torch.tensor([[5, 0], [2, -1], [0, -1], [3, -1]])
    expected = model(**inputs)
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = {name: mode.from_tensor(x) for name, x in inputs.items()}
        output = model(**fake)
    assert {name: x.shape for name, x in output.items()} == {name: x.shape for name, x in expected.items()}
