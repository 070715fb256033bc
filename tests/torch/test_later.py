"""Logits that are computed when somebody reads them: never when nobody does, as the eager call has them when somebody
does, and an error where they would be others.
"""

from __future__ import annotations

import copy
import functools
import gc
import io
import pickle
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from tests.torch.models import Case, assert_close, gradients
from xlmr_core.errors import InputError
from xlmr_core.outputs import MaskedLMOutput
from xlmr_torch import later as later_file
from xlmr_torch import lm_heads
from xlmr_torch.inference import optimize_for_inference
from xlmr_torch.later import LATER, LogitsLater

CASES = [Case(family, head) for family in ("XLMRoberta", "XLMRobertaXL") for head in ("ForMaskedLM", "ForCausalLM")]
each = pytest.mark.parametrize("case", CASES, ids=str)
MASKED = CASES[0]


def inputs(case: Case = MASKED, mask: str = "right") -> dict[str, Tensor]:
    """A batch with four labels."""
    given = case.inputs(mask)
    labels_BS = torch.full_like(given["input_ids"], -100)
    labels_BS[0, 1], labels_BS[0, 4], labels_BS[1, 2], labels_BS[3, 1] = 7, 3, 40, 11
    return {**given, "labels": labels_BS.masked_fill(given["attention_mask"] == 0, -100)}


def at_once(model: Any, **given: Any) -> Any:
    """The output with logits that were computed in the call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lm_heads, "may_wait", lambda head, states: False)
        return model(**given)


def waits(output: Any) -> bool:
    """Whether the logits were not computed yet."""
    return isinstance(output, LogitsLater) and not dict.__contains__(output, "logits")


@pytest.fixture(params=["weights", "logits"])
def kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a backward pass keeps."""
    monkeypatch.setattr(later_file, "POSITIONS_OF_A_UNIT", {"weights": 0, "logits": 1e9}[request.param])
    return str(request.param)


# ---- Nobody reads


@each
@pytest.mark.parametrize("mode", ["always", "never"])
def test_a_loss_alone_projects_the_labelled_positions_alone(case: Case, mode: str) -> None:
    model, given = case.build().set_packing(mode).train(), inputs(case)
    rows: list[int] = []
    project = F.linear

    def counted(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if weight is model.lm_head.decoder.weight:
            rows.append(x.numel() // x.shape[-1])
        return project(x, weight, bias)

    expected = at_once(model, **given)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "linear", counted)
        output = model(**given)
        loss = output.loss
        assert output["loss"] is output[0] is output.get("loss") is loss and output.hidden_states is None
        assert list(output) == list(output.keys()) == ["loss", "logits"] and len(output) == 2 and output
        assert "logits" in output and "loss" in output and "attentions" not in output
        assert output.get("attentions", 5) == 5 and output[:1] == (loss,) and output[-2] is loss
        assert isinstance(output, dict | Mapping) and isinstance(output, type(expected))
        assert repr(output) == f"{type(expected).__name__}(loss=() float32, logits='computed when read')"
        output.loss = loss * 2
        output["hidden_states"] = (loss,)
        output.update(loss=loss)
        assert list(output) == ["loss", "logits", "hidden_states"] and waits(output)
        del output
        found = gradients(model, loss)
    assert rows == [3 if case.head == "ForCausalLM" else 4] or rows == [4]
    assert_close(loss, expected.loss)
    for name, gradient in gradients(model, expected.loss).items():
        assert_close(found[name], gradient, what=name)


def test_an_output_that_nobody_holds_is_freed_at_once_and_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MASKED.build()
    monkeypatch.setattr(later_file.Source, "keep", lambda self: pytest.fail("nobody holds it"))
    gc.disable()
    try:
        output = model(**inputs())
        reference, loss = weakref.ref(output), output.loss
        del output
        assert reference() is None
    finally:
        gc.enable()
    loss.backward()


# ---- Somebody reads

READS: dict[str, Callable[[Any], Any]] = {
    "attribute": lambda output: output.logits,
    "key": lambda output: output["logits"],
    "get": lambda output: output.get("logits"),
    "index": lambda output: output[1],
    "last": lambda output: output[-1],
    "slice": lambda output: output[:2][1],
    "taken apart": lambda output: [*output.values()][1],
    "items": lambda output: dict(output.items())["logits"],
    "tuple": lambda output: output.to_tuple()[1],
    "dict": lambda output: dict(output)["logits"],
    "unpacked": lambda output: {**output}["logits"],
    "arguments": lambda output: (lambda **fields: fields["logits"])(**output),
    "union": lambda output: (output | {})["logits"],
    "union from the right": lambda output: ({} | output)["logits"],
    "copy": lambda output: copy.copy(output).logits,
    "copy of a dict": lambda output: output.copy()["logits"],
    "update": lambda output: (fields := {}, fields.update(output))[0]["logits"],
    "by its type": lambda output: type(output)({name: output[name] for name in output}).logits,
    "pairs of its type": lambda output: type(output)((name, output[name]) for name in output).logits,
    "pytree": lambda output: pytree.tree_leaves(output)[1],
    "map": lambda output: pytree.tree_map(lambda x: x, output).logits,
    "pop": lambda output: output.pop("logits"),
    "reversed": lambda output: output[next(reversed(output))],
    "default": lambda output: output.setdefault("logits", None),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_every_way_of_reading_gives_the_logits_with_their_gradient(read: Callable[[Any], Any]) -> None:
    model, given = MASKED.build(), inputs()
    output, expected = model(**given), at_once(model, **given)
    assert waits(output)
    logits = read(output)
    assert type(output) is MaskedLMOutput and not hasattr(output, "_source")
    assert torch.equal(logits, expected.logits)
    weights = torch.linspace(-1, 1, logits.numel()).view_as(logits)
    found = gradients(model, output.loss + (logits * weights).sum())
    for name, gradient in gradients(model, expected.loss + (expected.logits * weights).sum()).items():
        assert_close(found[name], gradient, what=name)


@each
@pytest.mark.parametrize("mask", ["right", "left", "inside"])
@pytest.mark.parametrize("mode", ["always", "never"])
def test_the_logits_are_those_of_the_eager_call(case: Case, mask: str, mode: str) -> None:
    model, given = case.build().set_packing(mode), inputs(case, mask)
    asked = {"output_hidden_states": True, "output_attentions": mode == "never"}
    output, expected = model(**given, **asked), at_once(model, **given, **asked)
    assert waits(output) and list(output) == list(expected)
    assert torch.equal(output.hidden_states[-1], expected.hidden_states[-1]) and waits(output)
    assert all(map(torch.equal, pytree.tree_leaves(output)[1:], pytree.tree_leaves(expected)[1:]))
    assert output.logits is output[1] is output["logits"]
    assert output == output and output != {}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@torch.no_grad()
def test_copies_are_plain(copied: Callable[[Any], Any]) -> None:
    model, given = MASKED.build(), inputs()
    found = copied(model(**given))
    assert type(found) is MaskedLMOutput and torch.equal(found.logits, model(**given).logits)


def test_a_file() -> None:
    model, file = MASKED.build(), io.BytesIO()
    with torch.inference_mode():
        torch.save(model(**inputs()), file)
        file.seek(0)
        assert torch.equal(torch.load(file, weights_only=False).logits, model(**inputs()).logits)


def test_logits_of_ones_own() -> None:
    output, mine = MASKED.build()(**inputs()), torch.zeros(1)
    output.logits = mine
    assert type(output) is MaskedLMOutput and output[1] is mine and list(output) == ["loss", "logits"]
    output = MASKED.build()(**inputs())
    del output["logits"]
    assert list(output) == ["loss"]
    with pytest.raises(KeyError, match="not 'lost'"):
        MASKED.build()(**inputs())["lost"] = 1
    with pytest.raises(IndexError):
        MASKED.build()(**inputs())[2]


SURROUNDINGS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "gradients": nullcontext,
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.mark.parametrize("then", SURROUNDINGS.values(), ids=SURROUNDINGS)
@pytest.mark.parametrize("now", SURROUNDINGS.values(), ids=SURROUNDINGS)
def test_they_are_computed_as_the_call_would_have(
    then: Callable[[], AbstractContextManager[object]], now: Callable[[], AbstractContextManager[object]]
) -> None:
    model, given = MASKED.build(), inputs()
    with then():
        output, expected = model(**given), at_once(model, **given).logits
    assert waits(output)
    with now():
        found = output.logits
    assert torch.equal(found, expected) and found.dtype is expected.dtype
    assert found.requires_grad == expected.requires_grad and found.is_inference() == expected.is_inference()


# ---- Steps of an optimizer

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "AdamW": functools.partial(torch.optim.AdamW, lr=1e-2),
    "fused": functools.partial(torch.optim.AdamW, lr=1e-2, fused=True),
    "SGD": functools.partial(torch.optim.SGD, lr=1e-2),
}


def step_by_data(model: Any) -> None:
    """As optimizers outside of PyTorch do, behind the back of version counters."""
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.data.sub_(parameter.grad)


def stepped(model: Any, by: str) -> None:
    if by == "data":
        step_by_data(model)
    else:
        OPTIMIZERS[by](model.parameters()).step()


@each
@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("by", [*OPTIMIZERS, "data"])
def test_reading_after_the_step_gives_what_the_weights_were(case: Case, by: str) -> None:
    model, given = case.build(), inputs(case)
    outputs, expected = model(**given), at_once(model, **given).logits.detach()
    (outputs.loss / 2).backward()
    assert waits(outputs)
    stepped(model, by)
    model.zero_grad()
    assert torch.equal(outputs.logits, expected) and not outputs.logits.requires_grad
    assert not torch.equal(model(**given).logits, expected)


@pytest.mark.usefixtures("kept")
def test_reading_between_backward_and_step_has_the_gradient() -> None:
    model, given = MASKED.build(), inputs()
    outputs, expected = model(**given), at_once(model, **given)
    outputs.loss.backward(retain_graph=True)
    outputs.logits.sum().backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    for name, gradient in gradients(model, expected.loss + expected.logits.sum()).items():
        assert_close(found[name], gradient, what=name)


@pytest.mark.usefixtures("kept")
def test_what_was_kept_tells_of_a_change_of_a_single_value() -> None:
    model, given = MASKED.build(), inputs()
    output, expected = model(**given), at_once(model, **given).logits.detach()
    output.loss.backward()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(later_file.Watched, "is_as_it_was", lambda self: True)
        model.lm_head.dense.weight.data[3, 5] += 1
        assert torch.equal(output.logits, expected)


def test_a_loop_that_holds_outputs_copies_weights_once_for_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(later_file, "POSITIONS_OF_A_UNIT", 0)
    model, given = MASKED.build(), inputs()
    outputs, expected = [], []
    for _ in range(3):
        accumulated = [model(**given), model(**given)]
        for output in accumulated:
            output.loss.backward()
        expected += [at_once(model, **given).logits.detach()] * 2
        stepped(model, "fused")
        outputs += accumulated
    copies = [output._source.kept for output in outputs]
    assert len({id(one) for one in copies}) == 3 and copies[0] is copies[1]
    assert all(torch.equal(output.logits, logits) for output, logits in zip(outputs, expected, strict=True))


def test_only_what_is_trained_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(later_file, "POSITIONS_OF_A_UNIT", 0)
    model, given = MASKED.build(), inputs()
    model.lm_head.requires_grad_(False)
    output, expected = model(**given), at_once(model, **given).logits
    output.loss.backward()
    stepped(model, "AdamW")
    assert output._source.kept is None, "a frozen head needs no copy"
    assert torch.equal(output.logits, expected)
    model.lm_head.bias.requires_grad_(True)
    for frozen_moved in (False, True):
        output, expected = model(**given), at_once(model, **given).logits
        output.loss.backward()
        stepped(model, "AdamW")
        same = [a is b for a, b in zip(output._source.kept.values, output._source.parameters, strict=True)]
        assert same.count(False) == 1
        if frozen_moved:
            with torch.no_grad():
                model.lm_head.dense.weight.add_(1)
            with pytest.raises(InputError, match="changed since the call"):
                output.logits  # noqa: B018
        else:
            assert torch.equal(output.logits, expected)


@pytest.mark.usefixtures("kept")
def test_an_optimizer_that_steps_inside_backward() -> None:
    model, given = MASKED.build(), inputs()

    def step(parameter: Tensor) -> None:
        parameter.data.sub_(parameter.grad)

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(step)
    output, expected = model(**given), at_once(model, **given).logits.detach()
    output.loss.backward()
    assert torch.equal(output.logits, expected)


# ---- Other changes

CHANGES: dict[str, Callable[[Any], Any]] = {
    "in place": lambda model: model.lm_head.decoder.weight.add_(1),
    "by data": lambda model: model.lm_head.dense.bias.data.add_(1),
    "other data": lambda model: setattr(model.lm_head.bias, "data", torch.ones_like(model.lm_head.bias)),
    "averaged weights": lambda model: [p.data.mul_(0.99) for p in model.parameters()],
    "a state dict": lambda model: model.load_state_dict(MASKED.build(seed=1).state_dict()),
    "another dtype": lambda model: model.half(),
    "a step without backward": lambda model: (
        [setattr(p, "grad", torch.ones_like(p)) for p in model.parameters()],
        stepped(model, "fused"),
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("grad", [True, False])
def test_weights_that_changed_otherwise_are_refused(change: Callable[[Any], Any], grad: bool) -> None:
    model = MASKED.build()
    with torch.set_grad_enabled(grad):
        output = model(**inputs())
    with torch.no_grad():
        change(model)
    for read in (READS["attribute"], READS["items"], READS["dict"], READS["pytree"], lambda x: hasattr(x, "logits")):
        with pytest.raises(InputError, match="read output.logits before they change"):
            read(output)
    assert output.loss.isfinite() and list(output) == ["loss", "logits"] and "when read" in repr(output)


def test_states_that_changed_are_refused() -> None:
    model, given = MASKED.build().set_packing("never"), inputs()
    with torch.no_grad():
        output = model(**given, output_hidden_states=True)
        output.hidden_states[-1].zero_()
    with pytest.raises(InputError, match="or the states"):
        output.logits  # noqa: B018


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_head_that_changed_is_refused(dtype: str) -> None:
    model = MASKED.build()
    with torch.no_grad():
        output = model(**inputs())
        optimize_for_inference(model, dtype=dtype, compile=False)
        with pytest.raises(InputError, match="its layers"):
            output.logits  # noqa: B018


REPLACED: dict[str, Callable[[Any], Any]] = {
    "assigned": lambda model: model.load_state_dict(MASKED.build(seed=1).state_dict(), assign=True),
    "resized": lambda model: model.resize_token_embeddings(50),
    "another head": lambda model: setattr(model, "lm_head", MASKED.build(seed=1).lm_head),
}


@pytest.mark.parametrize("replace", REPLACED.values(), ids=REPLACED)
def test_weights_that_others_replaced_are_still_there(replace: Callable[[Any], Any]) -> None:
    model, given = MASKED.build(), inputs()
    output, expected = model(**given), at_once(model, **given).logits
    replace(model)
    assert torch.equal(output.logits, expected)


def test_values_that_are_no_number_equal_themselves() -> None:
    model = MASKED.build().set_packing("never")
    with torch.no_grad():
        model.lm_head.bias.fill_(float("nan"))
    assert model(**inputs()).logits.isnan().all()


def test_a_call_with_other_parameters() -> None:
    model, other, given = MASKED.build(), MASKED.build(seed=1), inputs()
    for values in (dict(other.named_parameters()), {k: v.detach() for k, v in other.named_parameters()}):
        output = torch.func.functional_call(model, values, (), given)
        assert torch.equal(output.logits, other(**given).logits)


# ---- Where they are computed at once


class Own(nn.Module):
    """Somebody's head."""

    def __init__(self, decoder: nn.Linear) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, features: Tensor) -> Tensor:
        return F.dropout(self.decoder(features), 0.0)


def hooked(model: Any) -> None:
    model.lm_head.layer_norm.register_forward_hook(lambda *given: None)


def wrapped(model: Any) -> None:
    model.lm_head.forward = model.lm_head.forward


def adapted(model: Any) -> None:
    model.lm_head.dense = nn.Sequential(model.lm_head.dense, nn.Dropout(0.0))


def shard(model: Any) -> None:
    fully_shard(model, mesh=torch.distributed.init_device_mesh("cpu", (1,)))


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("group")
@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module.*returned a view tensor:UserWarning")
@pytest.mark.parametrize(
    "change",
    [hooked, wrapped, adapted, shard, lambda model: setattr(model, "lm_head", Own(model.lm_head.decoder))],
    ids=["hooked", "wrapped", "adapted", "sharded", "somebody's"],
)
def test_heads_that_compute_at_once(change: Callable[[Any], Any]) -> None:
    model = MASKED.build()
    assert waits(model(**inputs()))
    expected = at_once(model, **inputs())
    change(model)
    output = model(**inputs())
    assert type(output) is MaskedLMOutput
    if not isinstance(model.lm_head, Own):
        kept = inputs()["attention_mask"] == 1
        assert_close(output.logits[kept], expected.logits[kept])
        assert_close(output.loss, expected.loss)


def test_calls_that_compute_at_once() -> None:
    model, given = MASKED.build(), inputs()
    assert isinstance(model(**given, return_dict=False), tuple)
    assert type(model(**MASKED.inputs())) is MaskedLMOutput
    with FlopCounterMode(display=False):
        assert type(model(**given)) is MaskedLMOutput
    for dense in (given["input_ids"], MASKED.labels(given)["labels"].clamp(min=0)):  # there is nothing to be saved
        ones = torch.ones_like(given["input_ids"])
        assert type(model(given["input_ids"], ones, labels=dense)) is MaskedLMOutput
    calls: list[Any] = []

    def loss(values: dict[str, Tensor]) -> Tensor:
        calls.append(torch.func.functional_call(model, values, (), given))
        return calls[-1].loss

    found = torch.func.grad(loss)({name: value.detach() for name, value in model.named_parameters()})
    assert [type(call) for call in calls] == [MaskedLMOutput]
    expected = gradients(model, model(**given).loss)
    for name, gradient in found.items():
        assert_close(gradient, expected[name], what=name)


def test_device_contexts_do_not_matter() -> None:
    with torch.device("cpu"):
        assert waits(MASKED.build()(**inputs()))


# ---- Wrappers


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("walks", [False, True])
def test_data_parallel_processes(walks: bool) -> None:
    model, given = MASKED.build(), inputs()
    expected = gradients(model, model(**given).loss)
    parallel = DistributedDataParallel(model, find_unused_parameters=walks)
    output = parallel(**given)
    assert waits(output) != walks, "it looks for tensors in the output only to find unused parameters"
    found = gradients(model, output.loss)
    for name, gradient in expected.items():
        assert_close(found[name], gradient, what=name)
    logits = at_once(model, **given).logits
    stepped(model, "AdamW")
    assert torch.equal(output.logits, logits)


def test_graphs_have_all_logits() -> None:
    model, given = MASKED.build().set_packing("never"), inputs()
    expected = at_once(model, **given)
    found = torch.compile(model, backend="eager", fullgraph=True)(**given)
    assert type(found) is MaskedLMOutput and list(found) == ["loss", "logits"]
    assert_close(found.logits, expected.logits)


def test_hooks_on_the_model_see_an_output() -> None:
    model, seen = MASKED.build(), []
    model.register_forward_hook(lambda module, args, output: seen.append(output.logits.shape))
    assert not waits(model(**inputs())) and seen == [(4, 6, 41)]


@pytest.mark.parametrize("reentrant", [True, False])
def test_recomputed_layers_and_calls(reentrant: bool) -> None:
    model, given = MASKED.build().train(), inputs()
    expected = gradients(model, at_once(model, **given).loss)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    output = model(**given)
    assert waits(output)
    for name, gradient in gradients(model, output.loss).items():
        assert_close(gradient, expected[name], what=name)
    if not reentrant:
        model.gradient_checkpointing_disable()
        output = checkpoint(lambda: model(**given), use_reentrant=False)
        for name, gradient in gradients(model, output.loss + output.logits.sum() * 0).items():
            assert_close(gradient, expected[name], what=name)


def test_each_output_has_its_twin() -> None:
    assert all(issubclass(twin, plain) and twin._plain is plain for plain, twin in LATER.items())
