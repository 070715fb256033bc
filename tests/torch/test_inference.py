"""``optimize_for_inference``: the same answers, by other kernels, in one graph."""

from __future__ import annotations

import collections
import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.choice import EVERYTHING
from tests.torch.models import GRAPHS, Case, assert_close, each_case, each_family, packed_calls
from tests.torch.test_compile import Counter, fresh_compiler, natural_masks
from xlmr_core.errors import InputError
from xlmr_torch import AutoModelForMaskedLM, AutoTokenizer, onednn, optimize_for_inference
from xlmr_torch.inference import ONEDNN, BFloat16Embedding, FusedLinear, Int8Head

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")
__all__ = ["fresh_compiler"]

# Largest difference, relative to the largest value: the layers are tiny, so a rounding weighs more than in a real
# model.
TOLERANCES = {None: 1e-5, "float32": 1e-5, torch.float32: 1e-5, "bfloat16": 5e-2, torch.bfloat16: 5e-2, "int8": 1e-1}


class Adapter(torch.nn.Module):
    """What stands in a layer's place while it is fine-tuned."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer, self.weight = layer, layer.weight


def adapted(path: str) -> Any:
    model = Case("XLMRoberta", "ForMaskedLM").build()
    model.set_submodule(path, Adapter(model.get_submodule(path)))
    return model


each_mask = pytest.mark.parametrize("mask", ["right", "left", "inside", "none"])


def inputs_of(case: Case, mask: str) -> dict[str, Tensor]:
    if mask != "none":
        return case.inputs(mask)
    inputs = case.inputs(torch.ones(4, 6).long())
    del inputs["attention_mask"]
    return inputs


@each_case
@each_mask
@pytest.mark.parametrize("dtype", [None, "bfloat16", "int8"])
def test_the_same_answers(case: Case, mask: str, dtype: Any) -> None:
    model, inputs = case.build(), inputs_of(case, mask)
    with torch.no_grad():
        expected = model(**inputs)
        actual = optimize_for_inference(model, dtype, compile=False)(**inputs)
    assert list(actual) == list(expected)
    for name, value in expected.items():
        assert actual[name].dtype is torch.float32
        assert_close(actual[name], value, tolerance=TOLERANCES[dtype], what=name)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_dtypes_by_name_and_by_value(dtype: Any) -> None:
    case = Case("XLMRoberta", "ForMaskedLM")
    model = optimize_for_inference(case.build(), dtype, compile=False)
    matrix = model.roberta.encoder.layer[0].output.dense.weight
    wanted = {"None": torch.float32}.get(str(dtype)) or getattr(torch, str(dtype).removeprefix("torch."))
    assert matrix.dtype is wanted
    assert model.roberta.encoder.layer[0].attention.output.dense.bias.dtype is (
        torch.float32 if wanted is torch.int8 else wanted
    )
    # What the sums and norms are computed with stays in float32.
    assert {p.dtype for name, p in model.named_parameters() if "orm" in name} == {torch.float32}
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert model.packing == "always"


def test_a_half_model_stays_what_it_is() -> None:
    case = Case("XLMRoberta", "ForMaskedLM")
    model = case.build().bfloat16()
    expected = copy.deepcopy(model)(**case.inputs()).logits
    model = optimize_for_inference(model, compile=False)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        assert_close(model(**case.inputs()).logits, expected, tolerance=5e-2)


@each_family
def test_bfloat16_shares_the_table_with_the_head(family: str) -> None:
    model = optimize_for_inference(Case(family, "ForMaskedLM").build(), "bfloat16", compile=False)
    table = model.get_input_embeddings()
    assert isinstance(table, BFloat16Embedding) and isinstance(model.get_output_embeddings(), FusedLinear)
    assert model.get_output_embeddings().weight is table.weight
    assert model.lm_head.bias is model.get_output_embeddings().bias


@pytest.mark.parametrize("tie", [True, False])
@each_family
def test_an_int8_head_multiplies_in_int8_and_is_saved_as_it_is_without(family: str, tie: bool, tmp_path: Any) -> None:
    case = Case(family, "ForMaskedLM")
    model, inputs = case.build(tie_word_embeddings=tie), case.inputs()
    with torch.no_grad():
        expected = model(**inputs).logits
        plain = optimize_for_inference(copy.deepcopy(model), "bfloat16", compile=False)
        fast = optimize_for_inference(model, "bfloat16", head="int8", compile=False)
        actual, other = fast(**inputs).logits, plain(**inputs).logits
    assert isinstance(fast.get_output_embeddings(), Int8Head)
    assert (fast.get_output_embeddings().weight is fast.get_input_embeddings().weight) is tie
    assert actual.dtype is torch.float32
    assert not torch.equal(actual, other), "it is another product"
    assert_close(actual, expected, tolerance=TOLERANCES["int8"])
    assert fast.state_dict().keys() == plain.state_dict().keys()
    fast.save_pretrained(tmp_path)
    with torch.no_grad():
        loaded = case.model_class.from_pretrained(tmp_path)(**inputs).logits
    assert_close(loaded, expected, tolerance=TOLERANCES["bfloat16"])


@pytest.mark.parametrize(
    ("head", "dtype", "case", "message"),
    [
        ("int4", "bfloat16", "ForMaskedLM", r"head must be .*'int8', received 'int4'"),
        ("int8", None, "ForMaskedLM", r"goes with dtype='bfloat16', received dtype=None"),
        ("int8", "int8", "ForMaskedLM", r"the head is int8 already"),
        ("int8", "bfloat16", "ForSequenceClassification", r"ForSequenceClassification has none; leave head out"),
    ],
)
def test_an_int8_head_that_does_not_fit_is_refused(head: str, dtype: Any, case: str, message: str) -> None:
    model = Case("XLMRoberta", case).build()
    with pytest.raises(InputError, match=message):
        optimize_for_inference(model, dtype, head=head)
    assert model.dtype is torch.float32


@pytest.mark.parametrize("change", ["half", "bfloat16", "double"])
@each_family
def test_changing_the_dtype_of_a_bfloat16_model_is_refused(family: str, change: str) -> None:
    model = optimize_for_inference(Case(family, "ForMaskedLM").build(), "bfloat16", compile=False)
    before = {name: value.dtype for name, value in model.named_parameters()}
    with pytest.raises(InputError, match="float32 around"):
        getattr(model, change)()
    assert {name: value.dtype for name, value in model.to("cpu").named_parameters()} == before
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("tie", [True, False])
def test_an_untied_head_keeps_its_values(tie: bool) -> None:
    case = Case("XLMRoberta", "ForMaskedLM")
    model, inputs = case.build(tie_word_embeddings=tie), case.inputs()
    with torch.no_grad():
        expected = model(**inputs).logits
        actual = optimize_for_inference(model, "bfloat16", compile=False)(**inputs).logits
    assert_close(actual, expected, tolerance=5e-2)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu", "silu", "tanh", "gelu_fast"])
def test_each_activation(activation: str) -> None:
    case = Case("XLMRoberta", "Model")
    model, inputs = case.build(hidden_act=activation), case.inputs()
    with torch.no_grad():
        expected = model(**inputs)
        optimize_for_inference(model, compile=False)
        assert_close(model(**inputs).last_hidden_state, expected.last_hidden_state)
    fused = model.encoder.layer[0].intermediate.dense.activation
    assert fused == (activation if activation in ONEDNN else "none")


def test_a_function_as_activation() -> None:
    case = Case("XLMRoberta", "Model")
    model, inputs = case.build(hidden_act=torch.sin), case.inputs()
    with torch.no_grad():
        expected = model(**inputs).last_hidden_state
        assert_close(optimize_for_inference(model, compile=False)(**inputs).last_hidden_state, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(1, 5), (7, 5), (2, 3, 5)])
@pytest.mark.parametrize("activation", ONEDNN)
def test_the_fused_operator(activation: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(5, 4).to(dtype).requires_grad_(False)
    x = torch.randn(shape, dtype=dtype)
    product = layer(x).double()
    functions = {
        "none": lambda x: x,
        "gelu": torch.nn.functional.gelu,
        "gelu_new": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
        "relu": torch.relu,
        "silu": torch.nn.functional.silu,
    }
    actual = FusedLinear(layer, activation=activation)(x)
    assert actual.dtype is dtype
    tolerance = {torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float64: 1e-12}[dtype]
    assert_close(actual.double(), functions[activation](product), tolerance=tolerance)
    arguments = (x, layer.weight, layer.bias, activation)
    torch.library.opcheck(torch.ops.xlmr.fused_linear.default, arguments)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [None, "bfloat16", "int8"])
@pytest.mark.parametrize("case", [case for case in GRAPHS if case.head in ("Model", "ForMaskedLM")], ids=str)
def test_one_graph_for_a_stream_of_batches(case: Case, dtype: Any) -> None:
    """Batches of any size, with padding and without, a single text included."""
    model, counter = case.build(num_hidden_layers=1), Counter()
    plain = optimize_for_inference(copy.deepcopy(model), dtype, compile=False)
    fast = optimize_for_inference(model, dtype, backend=counter)
    masks = [*natural_masks(100 if EVERYTHING else 12), torch.ones(3, 7).long(), torch.ones(1, 5).long()]
    with torch.no_grad(), packed_calls(fast) as packed:
        for mask in masks:
            inputs = case.inputs(mask)
            actual = fast(**inputs)
            for name, value in plain(**inputs).items():
                # A last digit that differs can be another step of int8.
                assert_close(actual[name], value, what=name, tolerance=0.1 if dtype == "int8" else 1e-5)
    assert packed == [True] * len(masks)
    assert counter.graphs == 1


@pytest.mark.slow
def test_a_first_batch_as_long_as_a_state_is_wide() -> None:
    """What is equal in the first call is not taken to be equal always: 4 x 4 tokens, 16 hidden units; one row of two
    tokens.
    """
    for first in (torch.ones(4, 4), torch.ones(1, 2)):
        torch._dynamo.reset()
        counter = Counter()
        case = Case("XLMRoberta", "Model")
        fast = optimize_for_inference(case.build(num_hidden_layers=1), backend=counter)
        with torch.no_grad():
            for mask in (first, torch.ones(4, 5), torch.ones(3, 7), torch.ones(1, 3)):
                fast(**case.inputs(mask.long()))
        assert counter.graphs == 1


@pytest.mark.slow
def test_many_models_in_one_process() -> None:
    """The compiler's limit of recompilations is each model's own."""
    case = Case("XLMRoberta", "Model")
    for width in range(20, 31):
        counter = Counter()
        model = case.build(num_hidden_layers=1, intermediate_size=width)
        fast = optimize_for_inference(copy.deepcopy(model), backend=counter)
        inputs = case.inputs()
        with torch.no_grad():
            assert_close(fast(**inputs).last_hidden_state, model(**inputs).last_hidden_state)
        assert counter.graphs == 1


@pytest.mark.slow
def test_back_in_training_mode_dropout_drops() -> None:
    case = Case("XLMRoberta", "Model")
    model = case.build(num_hidden_layers=1, attention_probs_dropout_prob=0.5)
    fast = optimize_for_inference(model, backend="eager").train()
    with torch.no_grad():
        one, other = (fast(**case.inputs()).last_hidden_state for _ in range(2))
    assert not torch.allclose(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [None, "bfloat16", "int8"])
def test_by_the_real_compiler_on_the_built_in_checkpoint(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from xlmr_torch.compiling import RepeatedOnce

    rounded: list[int] = []
    run = RepeatedOnce.__call__

    def counted(self: RepeatedOnce, graph: torch.fx.Graph) -> None:
        run(self, graph)
        rounded.append(len(graph.find_nodes(op="call_function", target=torch.ops.aten.round.default)))

    monkeypatch.setattr(RepeatedOnce, "__call__", counted)
    model, tokenizer = AutoModelForMaskedLM.from_pretrained("xlmr-mini"), AutoTokenizer.from_pretrained("xlmr-mini")
    batch = tokenizer(["Plants create <mask> through a process.", "Bonjour"], return_tensors="pt", padding=True)
    kept = batch["attention_mask"].bool()
    # A graph that comes from the cache has gone through no pass.
    with torch.inference_mode(), torch._inductor.config.patch(fx_graph_cache=False):
        expected = model(**batch).logits[kept]
        fast = optimize_for_inference(model, dtype)
        for _ in range(2):
            actual = fast(**batch).logits[kept]
    mean = (actual - expected).abs().mean() / expected.std()
    assert mean < {None: 1e-5, "bfloat16": 0.03, "int8": 0.1}[dtype]
    # Once for queries, keys and values together, and for each of the three other projections of a layer.
    assert rounded == [4 * model.config.num_hidden_layers if dtype == "int8" else 0]


def test_what_is_repeated_in_a_graph_is_computed_once() -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    from xlmr_torch.compiling import RepeatedOnce

    def work(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (x + 1).round() * 2, (x + 1).round() * 3, torch.rand_like(x), torch.rand_like(x), x.add_(1), x.add_(1)

    graph = make_fx(work)(torch.ones(3)).graph
    RepeatedOnce()(graph)
    graph.lint()
    counts = collections.Counter(str(node.target) for node in graph.nodes if node.op == "call_function")
    assert counts == {
        "aten.add.Tensor": 1,
        "aten.round.default": 1,
        "aten.mul.Tensor": 2,
        "aten.rand_like.default": 2,
        "aten.add_.Tensor": 2,
    }


@pytest.mark.parametrize(
    ("make", "dtype", "message"),
    [
        (lambda: torch.nn.Linear(2, 2), None, r"expected a model of xlmr_torch, received Linear"),
        (lambda: Case("XLMRoberta", "Model").build(), "int3", r"dtype must be one of 'float32', .*, received 'int3'"),
        (lambda: Case("XLMRoberta", "Model").build(), torch.float16, r"received .float16."),
        (lambda: Case("XLMRoberta", "Model").build().bfloat16(), "int8", r"needs a model in float32, received"),
        (
            lambda: optimize_for_inference(Case("XLMRoberta", "Model").build(), "int8", compile=False),
            "bfloat16",
            r"received one with int8 weights; leave dtype out",
        ),
        *(
            (
                lambda: optimize_for_inference(Case("XLMRoberta", "Model").build(), compile=False),
                dtype,
                r"load it again",
            )
            for dtype in (None, "bfloat16", "int8")
        ),
        (lambda: adapted("roberta.embeddings.word_embeddings"), "bfloat16", r"received Adapter; merge adapters first"),
        (lambda: adapted("roberta.encoder.layer.0.output.dense"), "int8", r"received Adapter; merge adapters first"),
    ],
)
def test_what_cannot_be_optimized_is_refused_and_unchanged(make: Any, dtype: Any, message: str) -> None:
    model = make()
    model.train()
    before = [(name, p.dtype, p.requires_grad) for name, p in model.named_parameters()]
    with pytest.raises(InputError, match=message):
        optimize_for_inference(model, dtype)
    assert [(name, p.dtype, p.requires_grad) for name, p in model.named_parameters()] == before
    assert model.training


@pytest.mark.parametrize("dtype", [None, "bfloat16", "int8"])
def test_gradients_are_refused_not_lost(dtype: Any) -> None:
    case = Case("XLMRoberta", "Model")
    model = optimize_for_inference(case.build(), dtype, compile=False)
    vectors = torch.randn(2, 3, 16, requires_grad=True)
    with pytest.raises(InputError, match=r"gradients do not flow .* torch.no_grad\(\)"):
        model(inputs_embeds=vectors)
    with torch.no_grad():
        assert not model(inputs_embeds=vectors).last_hidden_state.requires_grad


@pytest.mark.parametrize(("dtype", "cast"), [(None, "bfloat16"), (None, "float"), ("bfloat16", "float")])
def test_a_cast_afterwards_computes_in_what_it_was_cast_to(dtype: Any, cast: str) -> None:
    case = Case("XLMRoberta", "ForMaskedLM")
    model, inputs = case.build(), case.inputs()
    with torch.no_grad():
        expected = model(**inputs).logits
        actual = getattr(optimize_for_inference(model, dtype, compile=False), cast)()(**inputs).logits
    assert_close(actual.float(), expected, tolerance=5e-2)


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_without_onednn(monkeypatch: pytest.MonkeyPatch, dtype: Any) -> None:
    """Older processors have no bfloat16 in oneDNN: the same numbers, slower."""
    monkeypatch.setattr(onednn, "DTYPES", ())
    case = Case("XLMRoberta", "ForMaskedLM")
    model, inputs = case.build(), case.inputs()
    with torch.no_grad():
        expected = model(**inputs).logits
        actual = optimize_for_inference(model, dtype, compile=False)(**inputs).logits
    assert_close(actual, expected, tolerance=TOLERANCES[dtype])


def test_a_model_that_never_packs_still_does_not() -> None:
    model = Case("XLMRoberta", "Model").build().set_packing("never")
    assert optimize_for_inference(model, compile=False).packing == "never"


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_saved_and_loaded_it_is_an_ordinary_model(dtype: Any, tmp_path: Any) -> None:
    case = Case("XLMRoberta", "ForMaskedLM")
    model, inputs = optimize_for_inference(case.build(), dtype, compile=False), case.inputs()
    model.save_pretrained(tmp_path)
    loaded = case.model_class.from_pretrained(tmp_path)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    with torch.no_grad():
        assert_close(loaded(**inputs).logits, model(**inputs).logits, tolerance=TOLERANCES[dtype])


GPU = torch.cuda.is_available()


@pytest.mark.skipif(not GPU, reason="needs a CUDA GPU: whole models packed and padded there")
@each_case
@pytest.mark.parametrize("mask", ["right", "left", "inside"])
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_on_a_gpu(case: Case, mask: str, dtype: Any) -> None:
    model, inputs = case.build(hidden_size=64, intermediate_size=64), case.inputs(mask)
    with torch.no_grad():
        expected = model.set_packing("never")(**inputs)
        there = {name: x.cuda() for name, x in inputs.items()}
        model = optimize_for_inference(model.set_packing("always").cuda(), dtype)
        actual = model(**there)
    kept = inputs["attention_mask"].bool()
    for name, value in expected.items():
        tokenwise = value.shape[: kept.dim()] == kept.shape
        found = actual[name].cpu()
        assert_close(
            found[kept] if tokenwise else found, value[kept] if tokenwise else value, tolerance=10 * TOLERANCES[dtype]
        )
