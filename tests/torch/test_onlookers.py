"""Tools that look into a model: hooks of others see the published shapes, hooks that gather or move parameters leave a
call packed, and no parameter is read but by calling its module.
"""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.fsdp import fully_shard
from torch.nn.modules.module import register_module_forward_hook

from tests.torch.models import Case, assert_close, each_case, each_family, gradients, loss_of, packed_calls
from xlmr_torch.runner import Runner

TOKENS = Case("XLMRoberta", "ForTokenClassification")


class Look:
    """A callable that is no function."""

    def __call__(self, *given: Any) -> None: ...


def of(package: str, name: str = "hook") -> Callable[..., None]:
    """A hook that a package might register."""

    def hook(*given: Any) -> None: ...

    hook.__module__, hook.__name__ = package, name
    return hook


def is_packed(model: Any, of: Any = None, **inputs: Any) -> bool:
    with packed_calls(of or model) as packed:
        model(**inputs)
    return packed == [True]


# ---- Whether a call is packed all the same


HOOKS: dict[str, Callable[[Any, Any], Any]] = {
    "forward": lambda part, hook: part.register_forward_hook(hook),
    "before": lambda part, hook: part.register_forward_pre_hook(hook),
    "gradient": lambda part, hook: part.register_full_backward_hook(hook),
    "before the gradient": lambda part, hook: part.register_full_backward_pre_hook(hook),
}
PLACES = ("roberta.embeddings.word_embeddings", "roberta.encoder", "roberta.encoder.layer.1.output.dense", "classifier")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", HOOKS)
@pytest.mark.filterwarnings("ignore:For backward hooks to be called:UserWarning")
def test_packing_steps_aside_for_as_long_as_others_look_on(kind: str, place: str) -> None:
    model, inputs = TOKENS.build().set_packing("always"), TOKENS.inputs("right")
    assert is_packed(model, **inputs) and is_packed(model, **inputs)
    handle = HOOKS[kind](model.get_submodule(place), of("somebody"))
    assert not is_packed(model, **inputs) and not is_packed(model, **inputs)
    handle.remove()
    assert is_packed(model, **inputs)


@pytest.mark.parametrize(
    ("hook", "packed"),
    [
        (of("torch.distributed.fsdp"), True),
        (of("accelerate.hooks"), True),
        (of("peft.peft_model"), True),
        (of("deepspeed.runtime.zero"), True),
        (functools.partial(of("peft.tuners")), True),
        (of("torchvision.models"), False),
        (Look(), False),
        (functools.partial(of("somebody")), False),
        (functools.partial(of("peft.tuners.lora.model", "_adapter_names_pre_forward_hook")), False),
    ],
)
def test_whose_hooks_leave_a_call_packed(hook: Any, packed: bool) -> None:
    model, inputs = TOKENS.build(), TOKENS.inputs("right")
    model.roberta.encoder.layer[0].register_forward_pre_hook(hook)
    assert is_packed(model, **inputs) == packed


def test_hooks_that_come_by_other_ways() -> None:
    model, inputs = TOKENS.build(), TOKENS.inputs("right")
    model.register_forward_hook(of("somebody"))
    assert is_packed(model, **inputs), "what the model itself is given, and returns, is as published"
    model.enable_input_require_grads()
    assert is_packed(model, **inputs)
    everywhere = register_module_forward_hook(of("somebody"))
    assert not is_packed(model, **inputs)
    everywhere.remove()
    looked_at = nn.Dropout()
    looked_at.register_forward_hook(Look())
    assert is_packed(model, **inputs) and is_packed(copy.deepcopy(model), **inputs)
    model.roberta.encoder.layer[1].output.dropout = looked_at  # no hook is registered from here on
    copied = copy.deepcopy(model), pickle.loads(pickle.dumps(TOKENS.build()))
    assert [is_packed(one, **inputs) for one in (model, *copied)] == [False, False, True]


# ---- Wrappers


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def sharded(model: Any) -> Any:
    mesh = torch.distributed.init_device_mesh("cpu", (1,))
    # The word embedding and the vocabulary projection that shares it belong to one group.
    encoder = () if hasattr(model, "lm_head") else (model.roberta,)
    for part in (*model.roberta.encoder.layer, *encoder, model):
        fully_shard(part, mesh=mesh)
    return model


def recomputed(model: Any) -> Any:
    layers = model.roberta.encoder.layer
    for number, layer in enumerate(layers):
        layers[number] = checkpoint_wrapper(layer)
    return model


def offloaded(model: Any) -> Any:
    """Every module holds its parameters only for as long as it runs, as accelerate's offloading has it."""

    def holds(part: nn.Module, values: dict[str, nn.Parameter]) -> Callable[..., None]:
        def hook(*given: Any) -> None:
            part._parameters.update(values)

        hook.__module__ = "accelerate.hooks"
        return hook

    for part in model.modules():
        own = {name: one for name, one in part._parameters.items() if one is not None}
        empty = {name: nn.Parameter(one.detach().to("meta")) for name, one in own.items()}
        if own:
            part._parameters.update(empty)
            part.register_forward_pre_hook(holds(part, own))
            part.register_forward_hook(holds(part, empty))
    return model


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "FSDP2": sharded,
    "DDP": torch.nn.parallel.DistributedDataParallel,
    "checkpointing": recomputed,
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("head", ["ForSequenceClassification", "ForMultipleChoice", "ForMaskedLM"])
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:FSDP2-wrapped module .* returned a view:UserWarning")
def test_wrappers_stay_packed(group: None, wrapper: str, head: str) -> None:
    case = Case("XLMRoberta", head)
    plain, inputs = case.build(), case.inputs("right")
    labels = case.labels(inputs)
    expected = gradients(plain, loss_of(case, plain(**inputs, **labels)))
    inner = case.build()
    model = WRAPPERS[wrapper](inner)
    with packed_calls(inner) as packed:
        loss = loss_of(case, model(**inputs, **labels))
    assert packed == [True]
    loss.backward()
    for (name, gradient), parameter in zip(expected.items(), inner.parameters(), strict=True):
        found = torch.zeros_like(gradient) if parameter.grad is None else parameter.grad
        assert_close(found.full_tensor() if hasattr(found, "full_tensor") else found, gradient, what=name)


@each_case
@pytest.mark.parametrize("mask", ["right", "left"])
def test_no_parameter_is_read_but_by_calling_its_module(case: Case, mask: str) -> None:
    model, inputs = case.build().set_packing("always"), case.inputs(mask)
    with torch.no_grad():
        expected, packed = model(**inputs), is_packed(model, **inputs)
        moved = offloaded(model)
        assert is_packed(moved, **inputs) == packed
        for name, value in moved(**inputs).items():
            assert_close(value, expected[name], what=name)
    assert moved.device.type == "meta" and Runner(moved).device.type == "cpu"


@each_family
def test_replicas_say_their_dtype_and_device(family: str) -> None:
    """As ``nn.DataParallel`` makes them: tensors, which are no parameters, in the places of the parameters."""
    model = Case(family, "ForSequenceClassification").build().to(torch.bfloat16)
    replica = copy.deepcopy(model)
    for part in replica.modules():
        for name, parameter in list(part._parameters.items()):
            del part._parameters[name]
            setattr(part, name, None if parameter is None else parameter * 1)
    assert not list(replica.parameters())
    assert replica.dtype is torch.bfloat16 and replica.device.type == "cpu"
    inputs = TOKENS.inputs("right")
    assert torch.equal(replica(**inputs).logits, model(**inputs).logits)


# ---- What hooks see


@each_case
@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
def test_what_a_layer_is_given_has_the_texts_on_its_first_axis(case: Case) -> None:
    """So that the gradient of each text can be told: those of all texts add up to the gradient."""
    model, inputs = case.build(), case.inputs("right")
    texts = inputs["input_ids"].flatten(0, -2).shape[0]
    ids = inputs.pop("input_ids")
    inputs["inputs_embeds"] = model.get_input_embeddings()(ids).detach()
    inputs["position_ids"] = (
        case.grouped(torch.arange(2, 8).expand(4, -1)) if ids.dim() == 3 else torch.arange(2, 8)[None]
    )
    given: dict[str, Tensor] = {}
    left: dict[str, Tensor] = {}
    for name, part in model.named_modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            part.register_forward_hook(lambda part, x, y, name=name: given.update({name: x[0]}))
            part.register_full_backward_hook(lambda part, x, y, name=name: left.update({name: y[0]}))
    loss_of(case, model(**inputs, **case.labels({**inputs, "input_ids": ids}))).backward()
    assert set(given) >= {f"{model.base_model_prefix}." * (case.head != "Model") + "embeddings.token_type_embeddings"}
    assert set(left) == set(given)
    for name, x in given.items():
        assert x.shape[0] == left[name].shape[0] == texts, name
        part = model.get_submodule(name)
        if isinstance(part, nn.Linear):
            y = left[name].flatten(1, -2) if x.dim() > 2 else left[name][:, None]
            by_text = torch.einsum("bso,bsi->boi", y, x.reshape(texts, -1, x.shape[-1]))
            assert_close(by_text.sum(0), part.weight.grad, tolerance=1e-4, what=name)


@each_family
def test_the_encoder_below_a_head_can_be_read_as_the_published_one(family: str) -> None:
    case = Case(family, "ForSequenceClassification")
    model, inputs = case.build(), case.inputs("right")
    seen: dict[str, Any] = {}
    for name in ("roberta", "roberta.encoder", "roberta.encoder.layer.1"):
        model.get_submodule(name).register_forward_hook(lambda part, x, y, name=name: seen.update({name: y}))
    expected = model.roberta(**inputs).last_hidden_state
    model(**inputs)
    shape = (4, 6, model.config.hidden_size)
    assert seen["roberta"][0].shape == seen["roberta.encoder"].last_hidden_state.shape == shape
    assert_close(seen["roberta"].last_hidden_state, expected)
    (layer,) = seen["roberta.encoder.layer.1"]  # tensors alone, as captum wants them
    assert layer.shape == shape


# ---- Files and traces of other libraries


@each_family
def test_safetensors_own_loader_takes_a_tied_model(family: str, tmp_path: Path) -> None:
    case = Case(family, "ForMaskedLM")
    model, other = case.build(seed=1), case.build(seed=2)
    safetensors.torch.save_model(model, str(tmp_path / "model.safetensors"))
    missing, unexpected = safetensors.torch.load_model(other, tmp_path / "model.safetensors")
    assert not missing and not unexpected
    assert torch.equal(model(**case.inputs()).logits, other(**case.inputs()).logits)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("assign", [True, False])
def test_missing_keys_say_what_the_given_dict_lacks(strict: bool, assign: bool) -> None:
    case = Case("XLMRoberta", "ForMaskedLM")
    model, other = case.build(seed=1), case.build(seed=2)
    state = model.state_dict()
    assert not other.load_state_dict(state, strict=strict, assign=assign).missing_keys
    lacking = ["lm_head.decoder.weight", "lm_head.decoder.bias"]
    kept = {name: x for name, x in state.items() if name not in lacking}
    answer = other.load_state_dict(kept, strict=strict, assign=assign)
    assert sorted(answer.missing_keys) == ([] if strict else sorted(lacking)) and not answer.unexpected_keys
    assert other.lm_head.decoder.weight is other.roberta.embeddings.word_embeddings.weight


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated:DeprecationWarning")
@pytest.mark.parametrize("head", ["Model", "ForTokenClassification"])
def test_traces_have_named_outputs(head: str) -> None:
    case = Case("XLMRoberta", head)
    model, inputs = case.build(), case.inputs("right")
    traced = torch.jit.trace(model, example_kwarg_inputs=inputs, strict=False)
    other = case.inputs("inside")
    expected = model.set_packing("never")(**other)
    found = traced(**other)
    assert type(found) is dict and list(found) == list(expected)
    for name in expected:
        assert_close(found[name], expected[name], what=name)
