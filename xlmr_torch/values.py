"""The values of a model: which parameters it has, how they start, which share a tensor."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from xlmr_core.checkpoints.load_plan import OLD_BUFFERS
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.heads import OWN_HEAD, Head
from xlmr_core.own_classes import Place, check_encoder, table_of
from xlmr_core.parameters import Init, Parameter, Role, parameters
from xlmr_core.quantization import Scheme
from xlmr_core.quantization.asked import refuse_cast, refuse_training
from xlmr_torch.widening import QuantizedLayer

__all__ = ["ModelValues", "first_float", "places", "put", "share", "tensor_at", "tensors_in"]


class ModelValues(nn.Module):
    """The part of a model that has to do with the values of its parameters."""

    config: XLMRobertaConfig
    base_model: Any
    base_model_prefix: ClassVar[str]
    _task_head: ClassVar[Head]
    quantization_scheme: Scheme | None
    dtype: Any
    get_input_embeddings: Any
    get_output_embeddings: Any

    def parameter_table(self) -> dict[str, Parameter]:
        """The rows of the parameter table that this model has, by canonical name (the keys of its state dict).

        What a user's code added stands behind them, what it took away is not there.

        Raises:
            InputError: for a class with layers of its own but no encoder as ``self.roberta``.
        """
        return table_of(self.published_rows(), places(self))

    def published_rows(self) -> dict[str, Parameter]:
        """The rows of the parameter table for a published model like this."""
        encoder = self.base_model
        check_encoder(type(self), "XLMRobertaModel", hasattr(encoder, "pooler") and self.base_model_prefix == "roberta")
        return parameters(
            self.config,
            self._task_head.suffix,
            pooler=encoder.pooler is not None,
            scheme=self.quantization_scheme,
        )

    # ---- How they start

    def post_init(self, names: Iterable[str] | None = None) -> None:
        """Tie what the config ties and draw fresh values; the end of every constructor.

        Models inside have drawn or loaded theirs, so what is in them stays as it is.
        """
        self.tie_weights()
        inside = tuple(self._models_inside())
        chosen = self.parameter_table() if names is None else names
        self.init_weights([name for name in chosen if not name.startswith(inside)])

    @torch.no_grad()
    def init_weights(self, names: Iterable[str] | None = None) -> None:
        """Draw fresh values, for all parameters or for some canonical names. What has no memory (on the meta device)
        stays so.

        Parameters of the table are drawn by it, those of a model inside by its own, and a user's layers by
        :meth:`_init_weights`.
        """
        rows = self.parameter_table()
        chosen = list(rows if names is None else names)
        for prefix, part in self._models_inside().items():
            of_part = [name for name in chosen if name.startswith(prefix)]
            if of_part and part is not self.base_model:
                part.init_weights([name.removeprefix(prefix) for name in of_part])
                chosen = [name for name in chosen if not name.startswith(prefix)]
        # Where a layer shares a tensor, it is drawn at the other end.
        sharing = {_layer_of(row.name) for row in rows.values() if row.tied_to in rows}
        for layer in dict.fromkeys(_layer_of(name) for name in chosen if rows[name].own):
            if layer not in sharing:
                self._init_weights(self.get_submodule(layer))
        for name in chosen:
            if rows[name].tied_to is None and rows[name].init is not Init.OWN and rows[name].role is not Role.BESIDE:
                self._draw(rows[name])

    def _draw(self, row: Parameter) -> None:
        parameter = self.get_parameter(row.name)
        if parameter.is_meta:
            return
        # A quantized weight is drawn as a whole, and then quantized.
        values = torch.empty(row.quantized.shape, device=parameter.device) if row.quantized else parameter
        if row.init in (Init.NORMAL, Init.NORMAL_PADDED):
            values.normal_(0.0, self.config.initializer_range)
            if row.init is Init.NORMAL_PADDED:
                values[self.config.pad_token_id] = 0
        else:
            values.fill_(1.0 if row.init is Init.ONES else 0.0)
        if row.quantized:
            self.get_submodule(_layer_of(row.name)).set_values(values)

    def _init_weights(self, module: nn.Module) -> None:
        """Draw the values of a module that a user's class added: the published rule. Override it for another one."""
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.normal_(0.0, self.config.initializer_range)
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.zero_()
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0
        elif isinstance(module, nn.LayerNorm) and module.elementwise_affine:
            module.weight.fill_(1.0)
            if module.bias is not None:
                module.bias.zero_()

    def _models_inside(self) -> dict[str, ModelValues]:
        """The models that are parts of this one, by the prefix of their names; the outer ones first."""
        parts = self.named_modules(remove_duplicate=False)
        return {f"{path}.": part for path, part in parts if path and isinstance(part, ModelValues)}

    # ---- What is shared

    def tie_weights(self) -> None:
        """Make tied parameters the same tensor again, as the parameter table says."""
        rows = self.parameter_table()
        for row in rows.values():
            if row.tied_to in rows and not row.own:
                share(self, row.name, row.tied_to)
        # A user's head on the vocabulary is found as published; the table knows none of it.
        output = self.get_output_embeddings() if self._task_head is OWN_HEAD else None
        if output is not None and self.config.tie_word_embeddings:
            output.weight = self.get_input_embeddings().weight

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As in any module; tied parameters stay tied with ``assign=True`` too.

        What a file of this model has or lacks is right: one name of a tied pair, and the buffers of older releases.
        With ``strict=False``, ``missing_keys`` of the answer has the name that is lacking.
        """
        rows = self.parameter_table()
        values = OrderedDict(state_dict)
        values._metadata = getattr(state_dict, "_metadata", None)  # type: ignore[attr-defined]
        for name in state_dict:
            if name not in rows and OLD_BUFFERS.match(name.removeprefix("roberta.")):
                del values[name]
        given_by_other = []
        for row in rows.values():
            if row.tied_to in rows:
                for one, other in ((row.name, row.tied_to), (row.tied_to, row.name)):
                    if one not in values and other in values:
                        values[one] = values[other]
                        given_by_other.append(one)
        with _sharing_kept(self):
            answer = super().load_state_dict(values, strict=strict, assign=assign)
        if not strict:  # strictly, what a file of this model lacks is no lack
            answer.missing_keys.extend(given_by_other)
        return answer

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self._refuse_cast(fn)  # before anything is changed
        # Where ``to``, ``to_empty`` and the like make new parameters, nn.Module makes one for each place.
        with _sharing_kept(self):
            return super()._apply(fn, recurse)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """As in any module.

        Raises:
            InputError: if a quantized model is to be trained as a whole; nothing is changed then.
        """
        scheme = self.quantization_scheme
        if requires_grad and scheme is not None:
            refuse_training(scheme.name)
        return super().requires_grad_(requires_grad)

    def _refuse_cast(self, fn: Any) -> None:
        """Refuse another dtype around quantized weights, which are not cast with the rest."""
        scheme = self.quantization_scheme
        if scheme is None:
            return
        tensor = first_float(self).new_empty(0, dtype=self.dtype)
        found = fn(tensor).dtype
        if found is not tensor.dtype:
            refuse_cast(scheme, tensor.dtype, found)


@contextmanager
def _sharing_kept(model: nn.Module) -> Iterator[None]:
    """Places that share a parameter before share one afterwards: the first place's."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    yield
    for first, *others in names.values():
        for name in others:
            share(model, name, first)


# ---- Tensors by the keys of the state dict


def places(model: nn.Module) -> dict[str, Place]:
    """Every place of a parameter or a persistent buffer.

    (The state dict itself may be costly to make: hooks gather shards.)
    """
    found = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None and name not in module._non_persistent_buffers_set:
                name = _stored_names(module).get(name, name)
                found[f"{path}.{name}" if path else name] = Place(tuple(tensor.shape), id(tensor))
    return found


def tensors_in(module: nn.Module) -> Iterator[Tensor]:
    """The parameters of a module; a replica that ``nn.DataParallel`` made has none, but tensors in their places."""
    empty = True
    for parameter in module.parameters():
        empty = False
        yield parameter
    if empty:
        for part in module.modules():
            yield from (value for value in vars(part).values() if isinstance(value, Tensor))


def first_float(module: nn.Module) -> Tensor:
    """The first floating point parameter."""
    return next(tensor for tensor in tensors_in(module) if tensor.is_floating_point())


def tensor_at(model: nn.Module, name: str) -> Tensor:
    """The tensor of a name."""
    found: Tensor = getattr(*_place_of(model, name))
    return found


def put(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Put another tensor into the place of a name; a parameter that a class has frozen stays frozen."""
    layer, attribute = _place_of(model, name)
    if attribute in layer._buffers:
        layer._buffers[attribute] = tensor
    else:
        wants = getattr(layer, attribute).requires_grad
        setattr(layer, attribute, nn.Parameter(tensor, requires_grad=wants and tensor.is_floating_point()))


def share(model: nn.Module, name: str, other: str) -> None:
    """Let the place of a name hold the very tensor of another one."""
    setattr(*_place_of(model, name), tensor_at(model, other))


def _place_of(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The layer and the attribute of a name, which for a tensor of a quantized weight is another."""
    layer, rest = model, name
    while "." in rest and rest.partition(".")[0] in layer._modules:
        step, _, rest = rest.partition(".")
        layer = layer.get_submodule(step)
    attributes = {stored: attribute for attribute, stored in _stored_names(layer).items()}
    return layer, attributes.get(rest, rest)


def _stored_names(layer: nn.Module) -> dict[str, str]:
    """What files call the attributes of a layer, where that is not their names."""
    return layer.stored_names if isinstance(layer, QuantizedLayer) else {}


def _layer_of(name: str) -> str:
    return name.rpartition(".")[0]
