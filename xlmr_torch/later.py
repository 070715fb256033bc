"""Logits that are computed when somebody reads them.

A call with labels computes its loss from the labelled positions alone, and hands out an output that computes its
logits, those of every position, when they are asked for: by name, place, iteration, copying, or by another library
that walks over it. From then on it is the plain output, equal to the one that was computed at once.

What an output computes from are the states of the call and the weights of the head *as they were in the call*. An
optimizer changes weights, so a backward pass keeps what an output that somebody still holds then needs: the logits
themselves where they are few, else a copy of the weights that are trained. Logits are without a gradient then. Weights
that changed in any other way are an error. Version counters do not tell of every change (fused optimizers and
``tensor.data`` go past them), so that some values of each tensor are compared too.

:func:`may_wait` says when all this holds: a head of plain layers that nobody has hooked, wrapped or sharded, outside of
compilers, traces, transforms and modes. All other calls compute at once.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator, KeysView, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd import Variable, forward_ad
from torch.overrides import _get_current_function_mode_stack

from xlmr_core.errors import InputError
from xlmr_core.outputs import CausalLMOutputWithCrossAttentions, MaskedLMOutput, ModelOutput
from xlmr_torch.hooks import is_hooked
from xlmr_torch.inputs import has_values
from xlmr_torch.linear import is_plain

__all__ = ["LATER", "LogitsLater", "Source", "later", "may_wait"]

OutputT = TypeVar("OutputT", bound=ModelOutput[Any])

FIELD = "logits"
# Where modes are from that change no product: torch.set_default_device.
HARMLESS_MODES = ("torch.utils._device",)
# Values of a tensor that are compared to see whether it changed.
SAMPLES = 4096
# Up to how many positions for each hidden unit it is cheaper to keep logits than weights: a product reads the weights
# as a copy does, and multiplies some tens of rows in the time in which a copy is written.
POSITIONS_OF_A_UNIT = 1 / 8


# ---- When


def may_wait(head: nn.Module, states: Tensor) -> bool:
    """Whether logits may be computed after the call, with the answer that the call would have given.

    Args:
        head: the head, of any layers.
        states: what it will be given.
    """
    parts = list(head.modules())
    return (
        has_values(states)
        and all(type(part) is nn.LayerNorm or is_plain(part) for part in parts[1:])
        and not is_hooked(*parts)
        and not any(_is_managed(part) for part in parts)
        and all(_is_its_own(parameter) for parameter in head.parameters())
        and torch._C._len_torch_dispatch_stack() == 0
        and all(type(mode).__module__ in HARMLESS_MODES for mode in _get_current_function_mode_stack())
        and forward_ad._current_level < 0
        and torch.amp.is_autocast_available(states.device.type)
    )


def _is_managed(part: nn.Module) -> bool:
    """Whether somebody wrapped the call of a layer, or has its parameters in hand only while the model runs."""
    own = vars(part)
    return (
        "forward" in own
        or "_is_fsdp_managed_module" in own
        or "_is_replica" in own
        or part._compiled_call_impl is not None
    )


def _is_its_own(parameter: Tensor) -> bool:
    """Whether a parameter is an ordinary one, and not the placeholder of one that DeepSpeed gathers."""
    plain = type(parameter) is nn.Parameter and parameter.layout is torch.strided and has_values(parameter)
    return plain and not hasattr(parameter, "ds_id")


# ---- From what


class Watched:
    """A tensor, and how to tell whether it changed."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.mark, self.sample = _mark(tensor), _sample(tensor)

    def is_as_it_was(self) -> bool:
        return self.mark == _mark(self.tensor) and torch.equal(self.sample, _sample(self.tensor))


def _mark(tensor: Tensor) -> tuple[Any, ...]:
    version = None if tensor.is_inference() else tensor._version
    return version, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _sample(tensor: Tensor) -> Tensor:
    """Some values of a tensor as bytes, in which NaN equals itself."""
    flat = tensor.detach().flatten()
    return flat[:: max(1, flat.numel() // SAMPLES)].clone().view(torch.uint8)


class Weights:
    """The parameters of a head as they are now: copies of those that are trained."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.watched = [Watched(tensor) for tensor in parameters]
        self.values = [tensor.detach().clone() if tensor.requires_grad else tensor for tensor in parameters]

    def are_still(self, parameters: list[nn.Parameter]) -> bool:
        """Whether parameters have these values."""
        same = [id(watched.tensor) for watched in self.watched] == [id(tensor) for tensor in parameters]
        return same and all(watched.is_as_it_was() for watched in self.watched)

    def are_whole(self, watched: list[Watched]) -> bool:
        """Whether what was not copied is as it was."""
        pairs = zip(self.values, watched, strict=True)
        return all(value is not each.tensor or each.is_as_it_was() for value, each in pairs)


# The copy that was made last of each head's weights, while somebody has it: outputs of the same weights share it.
_copies: weakref.WeakKeyDictionary[nn.Module, weakref.ref[Weights]] = weakref.WeakKeyDictionary()


def _weights(head: nn.Module, parameters: list[nn.Parameter]) -> Weights:
    reference = _copies.get(head)
    found = None if reference is None else reference()
    if found is None or not found.are_still(parameters):
        found = Weights(parameters)
        _copies[head] = weakref.ref(found)
    return found


@dataclass(frozen=True)
class Surroundings:
    """How PyTorch was told to compute in a call."""

    device: str
    grad: bool
    inference: bool
    autocast: bool
    autocast_dtype: torch.dtype

    @classmethod
    def now(cls, device: str) -> Surroundings:
        return cls(
            device,
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled(device),
            torch.get_autocast_dtype(device),
        )

    @contextmanager
    def again(self) -> Iterator[None]:
        with (
            torch.inference_mode(self.inference),
            torch.set_grad_enabled(self.grad),
            torch.autocast(self.device, self.autocast_dtype, enabled=self.autocast),
        ):
            yield


def _layers(head: nn.Module) -> list[type[nn.Module]]:
    return [type(part) for part in head.modules()]


class Source:
    """What logits are computed from.

    Args:
        head: (..., D) to (..., V), one that :func:`may_wait`.
        states: (..., D), (T, D) where the batch is packed.
        unpack: from the head's answer to the logits of the output.
    """

    def __init__(self, head: nn.Module, states: Tensor, unpack: Callable[[Tensor], Tensor]) -> None:
        self.head, self.states, self.unpack = head, states, unpack
        self.parameters = list(head.parameters())
        self.layers = _layers(head)
        self.watched_states = Watched(states)
        self.watched = [Watched(tensor) for tensor in self.parameters]
        self.surroundings = Surroundings.now(states.device.type)
        self.kept: Tensor | Weights | None = None

    def logits(self) -> Tensor:
        """The logits of the call: with their gradient, or without one where an optimizer has made its step since.

        Raises:
            InputError: if what they are computed from changed in another way.
        """
        is_there = self.watched_states.is_as_it_was() and self.layers == _layers(self.head)
        if is_there and all(watched.is_as_it_was() for watched in self.watched) and self._are_as_kept():
            return self._compute(self.parameters)
        if isinstance(self.kept, Tensor):
            return self.kept
        if self.kept is not None and is_there and self.kept.are_whole(self.watched):
            return self._compute(self.kept.values, grad=False)
        raise InputError(
            "the logits of this output are computed when they are read, and what they are computed from has changed "
            "since the call: the weights of the head, its layers, or the states; read output.logits before they change "
            "(an optimizer's step after backward is no change, if the output existed when backward ran)"
        )

    def _are_as_kept(self) -> bool:
        """Whether no weight changed since something was kept, to the last value."""
        if isinstance(self.kept, Tensor):
            return torch.equal(self.kept, self._compute(self.parameters, grad=False))
        return self.kept is None or all(map(torch.equal, self.kept.values, self.parameters))

    def keep(self) -> None:
        """Keep what is needed to compute the logits after an optimizer's step."""
        is_trained = any(tensor.requires_grad for tensor in self.parameters)
        is_new = self.watched_states.is_as_it_was() and all(watched.is_as_it_was() for watched in self.watched)
        if self.kept is not None or not is_trained or not is_new:
            return
        hidden = self.states.shape[-1]
        if self.states.numel() // hidden <= hidden * POSITIONS_OF_A_UNIT:
            self.kept = self._compute(self.parameters, grad=False)
        else:
            self.kept = _weights(self.head, self.parameters)

    def steps_inside_backward(self) -> bool:
        """Whether weights may change before a backward pass has ended."""
        return any(tensor._post_accumulate_grad_hooks for tensor in self.parameters)

    def _compute(self, values: Sequence[Tensor], grad: bool = True) -> Tensor:
        """Compute by the head, with these values as its parameters."""
        head, now = self.head, list(self.head.parameters())
        if [id(tensor) for tensor in now] != [id(value) for value in values]:
            # A twin, because another thread may be using the head itself.
            head = copy.deepcopy(head, {id(tensor): value for tensor, value in zip(now, values, strict=True)})
        with self.surroundings.again():
            logits = self.unpack(head(self.states))
        return logits if grad else logits.detach()


# ---- The output


class LogitsLater(ModelOutput[Tensor]):
    """An output whose logits nobody has read yet. Whoever reads them makes it one of the plain type.

    Its length, its names and its other fields are to be had without.
    """

    _plain: ClassVar[type[ModelOutput[Any]]]
    _source: Source

    def __new__(cls, /, *values: Any, **more: Any) -> Any:
        # Libraries build an output like the one that they have read: a plain one.
        return cls._plain(*values, **more)

    def __len__(self) -> int:
        return super().__len__() + 1

    def __contains__(self, key: object) -> bool:
        return key == FIELD or super().__contains__(key)

    def __iter__(self) -> Iterator[str]:
        # It also tells Python that a copy has to ask for each field.
        return iter([name for name in self.fields if name in self])

    def keys(self) -> Any:
        return KeysView(self)

    def __getitem__(self, key: Any) -> Any:
        if key == FIELD:
            return _read(self)[key]
        if isinstance(key, str):
            return super().__getitem__(key)
        names = tuple(self)[key]
        return tuple(self[name] for name in names) if isinstance(key, slice) else self[names]

    def get(self, key: Any, default: Any = None) -> Any:
        return self[FIELD] if key == FIELD else super().get(key, default)

    def __setitem__(self, name: str, value: Any) -> None:
        if name == FIELD:
            _become_plain(self)
            self[name] = value
            return
        fields = self._plain(dict(dict.items(self)))
        fields[name] = value
        dict.clear(self)
        dict.update(self, fields)

    def __repr__(self) -> str:
        return repr(self._plain({**dict(dict.items(self)), FIELD: "computed when read"}))


def _after_reading(name: str) -> Callable[..., Any]:
    def method(self: LogitsLater, *args: Any, **kwargs: Any) -> Any:
        return getattr(_read(self), name)(*args, **kwargs)

    return method


for _name in (
    *("items", "values", "to_tuple", "copy", "pop", "popitem", "setdefault", "clear"),
    *("__reduce__", "__eq__", "__ne__", "__or__", "__ror__", "__ior__", "__reversed__", "__delitem__"),
):
    setattr(LogitsLater, _name, _after_reading(_name))


def _read(output: LogitsLater) -> Any:
    """Compute the logits; the output, which is a plain one now."""
    source = vars(output).get("_source")
    if source is not None:  # else another thread was faster
        logits = source.logits()
        _become_plain(output)
        output[FIELD] = logits
    return output


def _become_plain(output: LogitsLater) -> None:
    vars(output).pop("_source", None)
    object.__setattr__(output, "__class__", output._plain)


class _MaskedLMOutput(LogitsLater, MaskedLMOutput[Tensor]):
    _plain = MaskedLMOutput


class _CausalLMOutput(LogitsLater, CausalLMOutputWithCrossAttentions[Tensor]):
    _plain = CausalLMOutputWithCrossAttentions


# Of each output the one whose logits come later.
LATER: dict[type[ModelOutput[Any]], type[LogitsLater]] = {
    MaskedLMOutput: _MaskedLMOutput,
    CausalLMOutputWithCrossAttentions: _CausalLMOutput,
}


def later(output: OutputT, source: Source) -> OutputT:
    """The same output, whose logits are computed when they are read.

    Args:
        output: without logits, with a loss.
        source: what to compute them from.
    """
    kind = LATER[type(output)]
    waiting: Any = dict.__new__(kind)
    dict.update(waiting, output)
    vars(waiting)["_source"] = source
    node = output["loss"].grad_fn
    if node is not None:
        node.register_prehook(_keeping(weakref.ref(waiting)))
    return waiting


def _keeping(output: weakref.ref[Any]) -> Callable[[Any], None]:
    """Let a backward pass keep what an output needs that somebody still holds."""

    def source() -> Source | None:
        held = output()
        return None if held is None else vars(held).get("_source")

    def keep() -> None:
        waiting = source()
        if waiting is not None:
            waiting.keep()

    def before(gradients: Any) -> None:
        if torch.compiler.is_compiling():  # a compiled backward pass cannot keep anything
            return
        waiting = source()
        if waiting is not None and waiting.steps_inside_backward():
            waiting.keep()
        elif waiting is not None:  # at the end, when the activations have gone
            Variable._execution_engine.queue_callback(keep)

    return before
