"""What every model can do besides computing: load, save, resize, prune, tie, count, choose its kernel."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import ConfigError, InputError
from xlmr_core.heads import OWN_HEAD, Head
from xlmr_core.load_plan import OLD_BUFFERS
from xlmr_core.outputs import ModelOutput
from xlmr_core.packing import check_packing_mode
from xlmr_core.parameters import Init, Parameter, Role, own_parameter, parameters
from xlmr_core.quantization import Scheme
from xlmr_torch.kernels import check_attn_implementation

__all__ = ["PreTrainedModel", "drawing"]

_DRAWS: ContextVar[bool] = ContextVar("draws", default=True)


@contextmanager
def drawing(draws: bool) -> Iterator[None]:
    """Whether models built inside draw values. Where not, a load fills the table's parameters; what a user's class adds is drawn."""
    token = _DRAWS.set(draws)
    try:
        yield
    finally:
        _DRAWS.reset(token)


class PreTrainedModel(nn.Module):
    """Base class of all models.

    A class of your own derives from a published one, or from ``XLMRobertaPreTrainedModel`` or ``XLMRobertaXLPreTrainedModel`` with an
    encoder as ``self.roberta``, and ends its constructor with ``self.post_init()``. What it adds is saved and loaded with the rest.

    Args:
        config: the model's configuration, kept as ``model.config``.

    Raises:
        ConfigError: for the configuration of another family, or one that no model can be built from.
    """

    config_class: type[XLMRobertaConfig]
    _task_head: ClassVar[Head] = OWN_HEAD
    base_model_prefix: ClassVar[str] = "roberta"
    main_input_name: ClassVar[str] = "input_ids"
    supports_gradient_checkpointing: ClassVar[bool] = True
    _scheme: Scheme | None = None  # of the encoder; set by quantized.quantize
    _undrawn = False  # built by a load that had values for it

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__()
        accepted = self.config_class.accepted_model_types
        if not isinstance(config, XLMRobertaConfig) or config.model_type not in accepted:
            raise ConfigError(
                f"{type(self).__name__} expects a {self.config_class.__name__}, received {type(config).__name__}"
                f" (model_type {getattr(config, 'model_type', None)!r}); build one with {self.config_class.__name__}.from_dict(...)"
            )
        config.validate()
        self.config = config
        self.name_or_path = config.name_or_path

    # ---- The parts

    @property
    def base_model(self) -> Any:
        """The encoder below a head; the model itself if it is the encoder."""
        return getattr(self, self.base_model_prefix, self)

    def parameter_table(self) -> dict[str, Parameter]:
        """The rows of the parameter table that this model has, by canonical name (the keys of its state dict).

        What a user's code added stands behind them, what it took away is not there.

        Raises:
            InputError: for a class with layers of its own but no encoder as ``self.roberta``.
        """
        if not hasattr(self.base_model, "pooler") or self.base_model_prefix != "roberta":
            raise InputError(
                f"{type(self).__name__} has no encoder as self.roberta; set self.roberta = XLMRobertaModel(config) before post_init()"
            )
        known = parameters(
            self.config,
            self._task_head.suffix,
            pooler=self.base_model.pooler is not None,
            scheme=self.quantization_scheme,
        )
        here = dict(_stored_tensors(self))
        # A place of another size is the user's too; but not one that is tied, which gets the size of the other end.
        rows = {
            name: row
            for name, row in known.items()
            if name in here and (row.tied_to is not None or row.shape == here[name].shape)
        }
        first = {id(here[name]): name for name in reversed(rows)}
        for name, tensor in here.items():
            if name not in rows:
                shared = first.setdefault(id(tensor), name)
                rows[name] = replace(
                    own_parameter(name, tuple(tensor.shape)), tied_to=shared if shared != name else None
                )
        return rows

    @property
    def is_quantized(self) -> bool:
        """Whether the model computes with quantized weights."""
        return self.quantization_scheme is not None

    @property
    def quantization_scheme(self) -> Scheme | None:
        """How the weights are quantized, if they are; see ``quantized.py``."""
        scheme: Scheme | None = self.base_model._scheme
        return scheme

    def get_input_embeddings(self) -> nn.Module:
        """The word embedding."""
        return self.base_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the word embedding."""
        self.base_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module | None:
        """The vocabulary projection, if there is one."""
        return None

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the vocabulary projection.

        Raises:
            InputError: if the model has none.
        """
        raise InputError(
            f"{type(self).__name__} has no vocabulary projection to replace; use a language modelling head"
        )

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the floating point parameters."""
        return next(parameter.dtype for parameter in self.parameters() if parameter.is_floating_point())

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Number of values, tied ones counted once."""
        left_out = {
            id(module.weight) for module in self.modules() if hasattr(module, "num_embeddings") and exclude_embeddings
        }
        return sum(
            parameter.numel()
            for parameter in self.parameters()
            if id(parameter) not in left_out and (parameter.requires_grad or not only_trainable)
        )

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Bytes of parameters (and buffers)."""
        tensors: list[Tensor] = [*self.parameters(), *(self.buffers() if return_buffers else ())]
        return sum(tensor.nbytes for tensor in tensors)

    # ---- Values

    def post_init(self, names: Iterable[str] | None = None) -> None:
        """Tie what the config ties and draw fresh values; the end of every constructor. Nothing is drawn on the meta device.

        Models inside have drawn or loaded theirs, so what is in them stays as it is.
        """
        self.tie_weights()
        inside = self._models_inside()
        chosen = self.parameter_table() if names is None else names
        self.init_weights([name for name in chosen if not name.startswith(inside)])

    def _models_inside(self) -> tuple[str, ...]:
        """The prefixes of the models that are parts of this one."""
        parts = self.named_modules(remove_duplicate=False)
        return tuple(f"{path}." for path, part in parts if path and isinstance(part, PreTrainedModel))

    @torch.no_grad()
    def init_weights(self, names: Iterable[str] | None = None) -> None:
        """Draw fresh values by the parameter table, for all parameters or for some canonical names."""
        self._undrawn = not _DRAWS.get()
        rows = self.parameter_table()
        chosen = [rows[name] for name in (rows if names is None else names)]
        sharing = {row.name.rpartition(".")[0] for row in rows.values() if row.tied_to in rows}
        for module in dict.fromkeys(row.name.rpartition(".")[0] for row in chosen if row.init is Init.OWN):
            if module not in sharing:
                self._init_weights(self.get_submodule(module))
        if self._undrawn:
            return
        for row in chosen:
            name = row.name
            if row.role in (Role.OWN, Role.BESIDE) or row.tied_to is not None:
                continue
            parameter = self.get_parameter(name)
            if parameter.is_meta:
                continue
            # A quantized weight is drawn as a whole, and then quantized.
            values = torch.empty(row.quantized.shape, device=parameter.device) if row.quantized else parameter
            if row.init in (Init.NORMAL, Init.NORMAL_PADDED):
                values.normal_(0.0, self.config.initializer_range)
                if row.init is Init.NORMAL_PADDED:
                    values[self.config.pad_token_id] = 0
            else:
                values.fill_(1.0 if row.init is Init.ONES else 0.0)
            if row.quantized:
                self.get_submodule(name.removesuffix(".weight")).set_values(values)

    def _init_undrawn(self, missing: Iterable[str]) -> None:
        """Draw what a checkpoint lacks of the models inside that a load built; those of the encoder are this model's own."""
        missing = set(missing)
        for path, part in self.named_modules():
            if isinstance(part, PreTrainedModel) and part not in (self, self.base_model) and part._undrawn:
                part.init_weights([name for name in part.parameter_table() if f"{path}.{name}" in missing])

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

    def tie_weights(self) -> None:
        """Make tied parameters the same tensor again, as the parameter table says."""
        rows = self.parameter_table()
        for row in rows.values():
            if row.tied_to in rows and row.role is not Role.OWN:
                self._share(row.name, row.tied_to)
        # A user's head on the vocabulary is found as published; the table knows none of it.
        output = self.get_output_embeddings() if self._task_head is OWN_HEAD else None
        if output is not None and self.config.tie_word_embeddings:
            output.weight = self.get_input_embeddings().weight

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As in any module; tied parameters stay tied with ``assign=True`` too.

        What a file of this model has or lacks is right: one name of a tied pair, and the buffers of older releases.
        """
        rows = self.parameter_table()
        values = OrderedDict(state_dict)
        values._metadata = getattr(state_dict, "_metadata", None)  # type: ignore[attr-defined]
        for name in state_dict:
            if name not in rows and OLD_BUFFERS.match(name.removeprefix("roberta.")):
                del values[name]
        for row in rows.values():
            if row.tied_to in rows:
                for one, other in ((row.name, row.tied_to), (row.tied_to, row.name)):
                    if one not in values and other in values:
                        values[one] = values[other]
        with self._sharing_kept():
            return super().load_state_dict(values, strict=strict, assign=assign)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        # Where ``to``, ``to_empty`` and the like make new parameters, nn.Module makes one for each place.
        with self._sharing_kept():
            return super()._apply(fn, recurse)

    @contextmanager
    def _sharing_kept(self) -> Iterator[None]:
        """Places that share a parameter before share one afterwards: the first place's."""
        places: dict[int, list[str]] = {}
        for name, parameter in self.named_parameters(remove_duplicate=False):
            places.setdefault(id(parameter), []).append(name)
        yield
        for first, *others in places.values():
            for name in others:
                self._share(name, first)

    def _share(self, name: str, other: str) -> None:
        """Let the place of a key of the state dict hold the very tensor of another one."""
        (module, _, attribute), (source, _, there) = name.rpartition("."), other.rpartition(".")
        setattr(self.get_submodule(module), attribute, getattr(self.get_submodule(source), there))

    # ---- Running

    def finish(self, output: ModelOutput[Tensor], return_dict: bool | None) -> ModelOutput[Tensor] | tuple[Any, ...]:
        """The output object, or its tuple if the call or the config says so."""
        return output if (self.config.use_return_dict if return_dict is None else return_dict) else output.to_tuple()

    @property
    def attn_implementation(self) -> str:
        """Name of the attention kernel."""
        return str(self.base_model._attn_implementation)

    def set_attn_implementation(self, name: str) -> Self:
        """Choose the attention kernel: ``sdpa`` or ``eager``."""
        self.base_model._attn_implementation = check_attn_implementation(name)
        return self

    @property
    def packing(self) -> str:
        """When batches are packed: ``auto``, ``always`` or ``never``."""
        return str(self.base_model._packing)

    def set_packing(self, mode: str) -> Self:
        """Choose when batches are packed.

        Args:
            mode: ``auto`` where it pays, ``always`` wherever it promises the padded path's answer, ``never``.
        """
        self.base_model._packing = check_packing_mode(mode)
        return self

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any] | None = None) -> None:
        """Recompute each layer in the backward pass in place of keeping its activations.

        Args:
            gradient_checkpointing_kwargs: passed to ``torch.utils.checkpoint.checkpoint``.
        """
        encoder = self.base_model.encoder
        encoder.gradient_checkpointing = True
        encoder.gradient_checkpointing_kwargs = {"use_reentrant": False, **(gradient_checkpointing_kwargs or {})}

    def gradient_checkpointing_disable(self) -> None:
        """Keep activations again."""
        self.base_model.encoder.gradient_checkpointing = False

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether layers are recomputed in the backward pass."""
        return bool(self.base_model.encoder.gradient_checkpointing)

    def enable_input_require_grads(self) -> None:
        """Let the embeddings' output require a gradient, so that adapters can train over frozen weights with checkpointing."""
        self._require_grads_hook = self.get_input_embeddings().register_forward_hook(_require_grad)

    def disable_input_require_grads(self) -> None:
        """Undo :meth:`enable_input_require_grads`."""
        self._require_grads_hook.remove()

    # ---- Changing the shape

    def prune_heads(self, heads_to_prune: dict[int, list[int]]) -> None:
        """Remove attention heads for good: lists of heads by layer, by their original numbers."""
        self._refuse_quantized("prune_heads")
        self.base_model.prune_heads(heads_to_prune)

    @torch.no_grad()
    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """Change the number of rows of the word embedding, and of the vocabulary projection and its bias.

        Rows that stay keep their values. New rows of the embedding start close around the mean of the old ones, or are drawn afresh with
        ``mean_resizing=False``; new biases start at 0.

        Args:
            new_num_tokens: rows wanted; ``None`` keeps the number (before rounding).
            pad_to_multiple_of: round the number of rows up to a multiple.

        Returns:
            The word embedding.

        Raises:
            InputError: for a number that is not positive or cuts off the padding token; for a quantized model.
        """
        self._refuse_quantized("resize_token_embeddings")
        embeddings = self.get_input_embeddings()
        assert isinstance(embeddings, nn.Embedding)
        old = embeddings.num_embeddings
        rows = old if new_num_tokens is None else new_num_tokens
        if isinstance(rows, bool) or not isinstance(rows, int) or rows <= self.config.pad_token_id:
            raise InputError(
                f"new_num_tokens must be an integer above pad_token_id ({self.config.pad_token_id}), received {new_num_tokens!r}"
            )
        if pad_to_multiple_of is not None:
            if (
                isinstance(pad_to_multiple_of, bool)
                or not isinstance(pad_to_multiple_of, int)
                or pad_to_multiple_of < 1
            ):
                raise InputError(f"pad_to_multiple_of must be a positive integer, received {pad_to_multiple_of!r}")
            rows = -(-rows // pad_to_multiple_of) * pad_to_multiple_of
        if rows == old:
            return embeddings
        embeddings.weight = self._resized(embeddings.weight, rows, mean_resizing)
        embeddings.num_embeddings = rows
        self.config.vocab_size = rows
        self.base_model.config.vocab_size = rows
        decoder = self.get_output_embeddings()
        if isinstance(decoder, nn.Linear):
            if not self.config.tie_word_embeddings:
                decoder.weight = self._resized(decoder.weight, rows, mean_resizing)
            bias = decoder.bias
            resized = bias.new_zeros(rows)
            resized[: min(old, rows)] = bias[: min(old, rows)]
            self.set_output_bias(nn.Parameter(resized, requires_grad=bias.requires_grad))
            decoder.out_features = rows
        self.tie_weights()
        return embeddings

    def _refuse_quantized(self, what: str) -> None:
        if self.is_quantized:
            raise InputError(
                f"{what} changes weights, which a quantized model does not allow; change the original model, then quantize it"
            )

    def _resized(self, weight: Tensor, rows: int, mean_resizing: bool) -> nn.Parameter:
        old = weight.shape[0]
        resized = weight.new_empty((rows, *weight.shape[1:]))
        resized[: min(old, rows)] = weight[: min(old, rows)]
        if rows > old and mean_resizing:
            # Not all alike, or no gradient could tell them apart; the spread is the published one (Hewitt 2021).
            std, mean = torch.std_mean(weight.float(), dim=0, correction=0)
            resized[old:] = torch.randn(rows - old, *mean.shape, device=mean.device) * std * 1e-9**0.5 + mean
        elif rows > old:
            resized[old:].normal_(0.0, self.config.initializer_range)
        return nn.Parameter(resized, requires_grad=weight.requires_grad)

    def set_output_bias(self, bias: nn.Parameter) -> None:
        """Replace the bias of the vocabulary projection; models with one override this."""
        raise AssertionError(f"{type(self).__name__} has no vocabulary projection")

    # ---- Files

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *model_args: Any, **kwargs: Any
    ) -> Any:
        """Load a checkpoint; see :func:`xlmr_torch.loading.from_pretrained` for the arguments."""
        from xlmr_torch.loading import from_pretrained

        return from_pretrained(cls, pretrained_model_name_or_path, *model_args, **kwargs)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: Mapping[str, Tensor] | None = None,
        save_function: Any = None,
        push_to_hub: bool = False,
        max_shard_size: int | str = "5GB",
        safe_serialization: bool = True,
        variant: str | None = None,
        token: str | bool | None = None,
        save_peft_format: bool = True,
    ) -> None:
        """Save ``config.json`` and safetensors; an interruption leaves an older checkpoint in the folder whole.

        Args:
            save_directory: a folder; made if it is missing.
            is_main_process: write only in the main process of a distributed run.
            state_dict: tensors by canonical name in place of the model's own (as collected from a sharded model).
            save_function: of the published signature; files are always written by the core.
            push_to_hub: must be false; this library does not upload.
            max_shard_size: size of a file at most, as a number of bytes or such as ``"5GB"``.
            safe_serialization: must be true; nothing here writes pickles.
            variant: must be ``None``.
            token, save_peft_format: of the published signature, about uploads and adapters.

        Raises:
            InputError: for a value that cannot be served, an incomplete ``state_dict``, or parameters on the meta device.
            ConfigError: for a config that cannot be written.
            CheckpointError: if the disk refuses.
        """
        from xlmr_torch.loading import save_pretrained

        if not safe_serialization:
            raise InputError(
                "safe_serialization=False would write a pickle, which can run code when it is read; leave it True"
            )
        if push_to_hub:
            raise InputError(
                "push_to_hub=True asks for an upload, which this library does not do; use huggingface_hub.upload_folder"
            )
        if variant is not None:
            raise InputError(f"variant={variant!r} is not supported; save to a folder of its own")
        if is_main_process:
            save_pretrained(self, Path(save_directory), state_dict=state_dict, max_shard_size=max_shard_size)


def _stored_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and persistent buffers by the keys of the state dict, which itself may be costly to make (hooks that gather shards)."""
    for path, module in model.named_modules(remove_duplicate=False):
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None and name not in module._non_persistent_buffers_set:
                yield f"{path}.{name}" if path else name, tensor


def _require_grad(module: nn.Module, inputs: Any, output: Tensor) -> None:
    output.requires_grad_(True)
