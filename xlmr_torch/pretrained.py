"""What every model can do besides computing: be built, say of what it consists, run as it is told, load and save."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar, overload

import torch
from torch import Tensor, nn

from xlmr_core.arguments import reworded_call
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.heads import OWN_HEAD, Head
from xlmr_core.outputs import ModelOutput
from xlmr_core.own_classes import constructor_arguments
from xlmr_core.packing import check_packing_mode
from xlmr_core.pretrained import check_config, refuse_projection
from xlmr_core.quantization import BitsAndBytes, Scheme
from xlmr_core.quantization.own import OwnScheme
from xlmr_core.uploads import PushToHub, upload_after
from xlmr_torch.hooks import Onlookers
from xlmr_torch.kernels import PACKED, check_attn_implementation, kernel_called
from xlmr_torch.loading import from_pretrained, save_pretrained
from xlmr_torch.published import PublishedNames
from xlmr_torch.resizing import ResizableModel
from xlmr_torch.values import ModelValues, first_float, tensors_in

__all__ = ["PreTrainedModel"]

OutputT = TypeVar("OutputT", bound=ModelOutput[Any])


class PreTrainedModel(PushToHub, ModelValues, ResizableModel, PublishedNames, nn.Module):
    """Base class of all models.

    A class of your own derives from a published one, or from ``XLMRobertaPreTrainedModel`` or
    ``XLMRobertaXLPreTrainedModel`` with an encoder as ``self.roberta``, and ends its constructor with
    ``self.post_init()``. What it adds is saved and loaded with the rest.

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
    _scheme: Scheme | None = None

    def __init__(self, config: XLMRobertaConfig) -> None:
        super().__init__()
        check_config(type(self), self.config_class, config)
        self.config = config
        self.name_or_path = config.name_or_path
        self.warnings_issued: dict[str, Any] = {}  # published; trainers write into it
        self._onlookers = Onlookers()

    # ---- The parts

    @property
    def base_model(self) -> Any:
        """The encoder below a head; the model itself if it is the encoder."""
        return getattr(self, self.base_model_prefix, self)

    @property
    def is_quantized(self) -> bool:
        """Whether the model computes with quantized weights."""
        return self.quantization_scheme is not None

    @property
    def quantization_scheme(self) -> Scheme | None:
        """How the weights are quantized, if they are; see ``quantized.py``."""
        scheme: Scheme | None = self.base_model._scheme
        return scheme

    def _take_scheme(self, scheme: Scheme) -> None:
        """Know how the weights are quantized."""
        self.base_model._scheme = scheme

    @property
    def is_loaded_in_4bit(self) -> bool:
        """Whether the weights are as bitsandbytes has them, in four bits."""
        scheme = self.quantization_scheme
        return isinstance(scheme, BitsAndBytes) and scheme.config.load_in_4bit

    @property
    def is_loaded_in_8bit(self) -> bool:
        """Whether the weights are as bitsandbytes has them, in eight bits."""
        scheme = self.quantization_scheme
        return isinstance(scheme, BitsAndBytes) and scheme.config.load_in_8bit

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
        refuse_projection(type(self))

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(tensors_in(self)).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the floating point parameters."""
        # Scales of quantized weights are none of them.
        return torch.float32 if isinstance(self.quantization_scheme, OwnScheme) else first_float(self).dtype

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

    # ---- Running

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model. An argument that it does not take is refused with the nearest that it takes."""
        if torch.compiler.is_compiling():  # a compiler reads on, and nobody there reads words
            return super().__call__(*args, **kwargs)
        try:
            return super().__call__(*args, **kwargs)
        except TypeError as error:
            better = reworded_call(self, type(self).forward, error, kwargs)
            if better is None:
                raise
            raise better from None

    def _returns_output(self, return_dict: bool | None) -> bool:
        """Whether a call returns an output object, as the call or the config says, and no tuple."""
        return bool(self.config.use_return_dict if return_dict is None else return_dict)

    def finish(self, output: OutputT, return_dict: bool | None) -> OutputT:
        """The output object, or its tuple if the call or the config says so."""
        answer: Any = output
        if not self._returns_output(return_dict):
            answer = output.to_tuple()
        elif torch.jit.is_tracing():  # a trace knows plain dictionaries alone
            answer = dict(output)
        return answer

    @property
    def attn_implementation(self) -> str:
        """Name of the attention kernel; the configuration keeps the name that was asked for."""
        return kernel_called(self.base_model.config._attn_implementation or "sdpa")

    def set_attn_implementation(self, name: str) -> Self:
        """Choose the attention kernel.

        Args:
            name: ``sdpa`` or ``eager``; ``flash_attention_2`` or ``flex_attention`` is the kernel of packed tokens
                wherever that is legal (as with ``set_packing("always")``), and ``sdpa`` where it is not.
        """
        self.config._attn_implementation = check_attn_implementation(name)
        self.base_model.config._attn_implementation = name
        if name in PACKED and self.packing == "auto":
            self.set_packing("always")
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
        """Let the embeddings' output require a gradient: so adapters train over frozen weights with checkpointing."""
        self._require_grads_hook = self.get_input_embeddings().register_forward_hook(_require_grad)

    def disable_input_require_grads(self) -> None:
        """Undo :meth:`enable_input_require_grads`."""
        self._require_grads_hook.remove()

    # ---- Files

    @classmethod
    def _constructor_arguments(cls) -> tuple[set[str], bool]:
        """What ``from_pretrained`` may hand on to the constructor."""
        return constructor_arguments(cls, PreTrainedModel)

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *model_args: Any,
        output_loading_info: Literal[True],
        **kwargs: Any,
    ) -> tuple[Self, dict[str, Any]]: ...

    @overload
    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *model_args: Any, **kwargs: Any
    ) -> Self: ...

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *model_args: Any, **kwargs: Any
    ) -> Any:
        """Load a checkpoint; see :func:`xlmr_torch.loading.from_pretrained` for the arguments."""
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
        **kwargs: Any,
    ) -> None:
        """Save ``config.json`` and safetensors; an interruption leaves an older checkpoint in the folder whole.

        Args:
            save_directory: a folder; made if it is missing.
            is_main_process: write only in the main process of a distributed run.
            state_dict: tensors by canonical name in place of the model's own (as collected from a sharded model).
            save_function: of the published signature; files are always written by the core.
            push_to_hub: upload the files afterwards.
            max_shard_size: size of a file at most, as a number of bytes or such as ``"5GB"``.
            safe_serialization: must be true; nothing here writes pickles.
            variant: must be ``None``.
            token: access token of an upload.
            save_peft_format: of the published signature, about adapters.
            **kwargs: of the upload, as in :meth:`push_to_hub`; ``repo_id`` is by default the folder's name.

        Raises:
            InputError: for a value that cannot be served, an incomplete ``state_dict``, or parameters on the meta
                device.
            ConfigError: for a config that cannot be written.
            CheckpointError: if the disk refuses.
            UploadError, MissingBackendError: if it cannot be uploaded.
        """
        if not safe_serialization:
            raise InputError(
                "safe_serialization=False would write a pickle, which can run code when it is read; leave it True"
            )
        if variant is not None:
            raise InputError(f"variant={variant!r} is not supported; save to a folder of its own")
        folder, upload = Path(save_directory), push_to_hub and is_main_process
        with upload_after(self, folder, upload, {"token": token, **kwargs}):
            if is_main_process:
                save_pretrained(self, folder, state_dict=state_dict, max_shard_size=max_shard_size)


def _require_grad(module: nn.Module, inputs: Any, output: Tensor) -> None:
    output.requires_grad_(True)
