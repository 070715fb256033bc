"""What every model can do besides computing: be built, say of what it consists, run as it is told, load and save."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar, overload

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from xlmr_core.arguments import reworded_call
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.heads import OWN_HEAD, Head
from xlmr_core.outputs import ModelOutput
from xlmr_core.own_classes import constructor_arguments
from xlmr_core.packing import check_packing_mode
from xlmr_core.pretrained import check_config, refuse_projection
from xlmr_core.quantization import BitsAndBytes, Scheme
from xlmr_core.quantization.asked import refuse_cast
from xlmr_core.uploads import PushToHub, upload_after
from xlmr_flax.functional import StaticConfig, flatten, read_params, unflatten, with_params, write_params
from xlmr_flax.inputs import check_key
from xlmr_flax.kernels import check_attn_implementation
from xlmr_flax.linear import is_loading
from xlmr_flax.loading import from_pretrained, save_pretrained
from xlmr_flax.placement import find_dtype
from xlmr_flax.published import PublishedNames
from xlmr_flax.resizing import ResizableModel
from xlmr_flax.values import ModelValues
from xlmr_flax.widening import Codes, QuantizedLayer

__all__ = ["PreTrainedModel"]

OutputT = TypeVar("OutputT", bound=ModelOutput[Any])


class PreTrainedModel(PushToHub, ModelValues, ResizableModel, PublishedNames, nnx.Module):
    """Base class of all models.

    A class of your own derives from a published one, or from ``FlaxXLMRobertaPreTrainedModel`` or
    ``FlaxXLMRobertaXLPreTrainedModel`` with an encoder as ``self.roberta``, and makes its layers in its constructor.
    What it adds is saved and loaded with the rest.

    Args:
        config: the model's configuration, kept as ``model.config``.
        input_shape: of the published signature, kept as ``model.input_shape``; parameters do not depend on it.
        seed: of the random key that fresh parameters are drawn with, ``model.key``.
        dtype: in which everything is computed; parameters are float32 whatever it is.
        _do_init: ``False`` leaves the parameters without values, to be kept outside and passed as ``params=``.
        gradient_checkpointing: recompute each layer in the backward pass.

    Raises:
        ConfigError: for the configuration of another family, or one that no model can be built from.
    """

    config_class: ClassVar[type[XLMRobertaConfig]]
    _task_head: ClassVar[Head] = OWN_HEAD
    base_model_prefix: ClassVar[str] = "roberta"
    main_input_name: ClassVar[str] = "input_ids"
    _scheme: Scheme | None = None

    def __init__(
        self,
        config: XLMRobertaConfig,
        input_shape: tuple[int, ...] = (1, 1),
        seed: int = 0,
        dtype: Any = jnp.float32,
        _do_init: bool = True,
        gradient_checkpointing: bool = False,
    ) -> None:
        check_config(type(self), self.config_class, config)
        self._config = StaticConfig(config, seed, input_shape)
        self._training = False
        self._build(config)
        self._set_dtype(find_dtype(dtype))
        if gradient_checkpointing:
            self.gradient_checkpointing_enable()
        # A class of a user's own has no encoder yet, and that draws its own values.
        if _do_init and not is_loading() and self._has_encoder():
            self.params = self.init_weights(self.key, input_shape)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let every class refuse an argument that a call does not take with the nearest that it takes."""
        super().__init_subclass__(**kwargs)
        if "__call__" in vars(cls):
            cls.__call__ = _worded(vars(cls)["__call__"])  # type: ignore[method-assign]

    def _build(self, config: XLMRobertaConfig) -> None:
        """Make the layers. A user's class makes its own here or in its constructor."""

    # ---- The parts

    @property
    def config(self) -> XLMRobertaConfig:
        """The model's configuration."""
        return self._config.config

    @property
    def name_or_path(self) -> str:
        """Where the model came from."""
        return str(self.config.name_or_path)

    @property
    def base_model(self) -> Any:
        """The encoder below a head; the model itself if it is the encoder."""
        return getattr(self, self.base_model_prefix, self)

    @property
    def is_quantized(self) -> bool:
        """Whether the model computes with quantized weights."""
        return self.quantization_scheme is not None

    @property
    def quantization_scheme(self) -> Scheme | None:  # type: ignore[override]
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

    def get_input_embeddings(self) -> nnx.Module:
        """The word embedding."""
        return self.base_model.get_input_embeddings()

    def set_input_embeddings(self, value: nnx.Module) -> None:
        """Replace the word embedding."""
        self.base_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nnx.Module | None:
        """The vocabulary projection, if there is one of its own."""
        return None

    def set_output_embeddings(self, new_embeddings: nnx.Module) -> None:
        """Replace the vocabulary projection.

        Raises:
            InputError: if the model has none.
        """
        refuse_projection(type(self))

    @property
    def dtype(self) -> Any:
        """The dtype in which everything is computed."""
        return self.base_model._dtype

    def _set_dtype(self, dtype: Any) -> None:
        self.base_model._dtype = dtype

    def num_parameters(self, exclude_embeddings: bool = False) -> int:
        """Number of values, tied ones counted once; of quantized weights those of the tensors they are stored in."""
        leaves = flatten(read_params(self)) | flatten(self.codes)
        return sum(
            value.size
            for path, value in leaves.items()
            if not (exclude_embeddings and "embeddings" in path and path[-2].endswith("_embeddings"))
        )

    def get_memory_footprint(self) -> int:
        """Bytes of parameters, and of the tensors of quantized weights."""
        leaves = jax.tree.leaves((read_params(self), self.codes))
        return sum(value.size * value.dtype.itemsize for value in leaves)

    # ---- Parameters as a tree

    @property
    def params(self) -> dict[str, Any]:
        """The parameters as a plain nested dictionary in the published Flax layout. Setting it replaces their values.

        Raises:
            InputError: where they have no values (``_do_init=False``); when set, for a tree of other parameters or
                shapes.
        """
        params = read_params(self)
        self._refuse_abstract(params)
        return params

    @property
    def codes(self) -> dict[str, Any]:
        """The tensors of quantized weights as a plain nested dictionary, empty if there are none. Setting it replaces
        their values. No optimizer is to see them.

        Raises:
            InputError: when set, for a tree of other tensors or shapes.
        """
        return read_params(self, Codes)

    def __setattr__(self, name: str, value: Any) -> None:
        # NNX would take a dictionary of arrays for an attribute that it has to know about, before any property gets it.
        if name == "params":
            write_params(self, value)
        elif name == "codes":
            write_params(self, value, Codes)
        else:
            super().__setattr__(name, value)

    @property
    def params_shape_tree(self) -> dict[str, Any]:
        """Shapes and dtypes of the parameters, in a tree like ``params``."""
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), read_params(self))

    @property
    def required_params(self) -> set[tuple[str, ...]]:
        """The paths of all parameters."""
        return set(flatten(read_params(self)))

    def to_bf16(self, params: Mapping[str, Any], mask: Any = None) -> dict[str, Any]:
        """The floating point parameters of a tree in bfloat16.

        Args:
            params: the tree.
            mask: a tree of the same form with ``True`` where a parameter is to be cast; default: everywhere.

        Raises:
            InputError: for the parameters of a quantized model, if they are of another dtype: they are not cast.
        """
        return self._cast(params, jnp.bfloat16, mask)

    def to_fp16(self, params: Mapping[str, Any], mask: Any = None) -> dict[str, Any]:
        """The floating point parameters of a tree in float16; ``mask`` as in :meth:`to_bf16`."""
        return self._cast(params, jnp.float16, mask)

    def to_fp32(self, params: Mapping[str, Any], mask: Any = None) -> dict[str, Any]:
        """The floating point parameters of a tree in float32; ``mask`` as in :meth:`to_bf16`."""
        return self._cast(params, jnp.float32, mask)

    def _cast(self, params: Mapping[str, Any], dtype: Any, mask: Any) -> dict[str, Any]:
        if self.quantization_scheme is not None:
            for value in jax.tree.leaves(params):
                if value.dtype != dtype:
                    refuse_cast(self.quantization_scheme, value.dtype, jnp.dtype(dtype))
        return _cast(params, dtype, mask)

    # ---- Running

    def apply(
        self, variables: Mapping[str, Any], *args: Any, rngs: Mapping[str, Array] | None = None, **kwargs: Any
    ) -> Any:
        """A call as a pure function of the parameters, as Flax's linen modules have it.

        Args:
            variables: ``{"params": params}``, and for a quantized model ``"codes"`` beside them, by default its own.
            *args, **kwargs: as of a call.
            rngs: ``{"dropout": key}``.
        """
        if set(variables) not in ({"params"}, {"params", "codes"}):
            raise InputError(
                f"variables must be {{'params': params}}, of a quantized model with 'codes' beside them, received the "
                f"keys {sorted(variables)}; wrap the tree of parameters"
            )
        model = with_params(self, variables["codes"], Codes) if "codes" in variables else self
        key = None if rngs is None else rngs["dropout"]
        return model(*args, params=variables["params"], dropout_rng=key, **kwargs)

    def prepare(self, params: Any, dropout_rng: Any, train: bool | None) -> tuple[Any, Array | None]:
        """The model with the parameters of a call, and the random key of its dropout, ``None`` in evaluation."""
        if params is not None:
            model = with_params(self, params)
        else:
            model = self
            embeddings = self.get_input_embeddings()
            if isinstance(embeddings, QuantizedLayer):  # codes are there even if no parameter is
                embeddings = getattr(self.base_model, "embeddings", self)
            self._refuse_abstract(nnx.state(embeddings, nnx.Param))
        if not (self._training if train is None else train):
            return model, None
        if dropout_rng is None:
            raise InputError(
                "train=True drops values at random and needs a key; "
                "pass dropout_rng=jax.random.key(...), or train=False"
            )
        check_key("dropout_rng", dropout_rng)
        return model, dropout_rng

    def _refuse_abstract(self, params: Any) -> None:
        if any(isinstance(value, jax.ShapeDtypeStruct) for value in jax.tree.leaves(params)):
            raise InputError(
                f"{type(self).__name__} holds no parameters, it was built with _do_init=False; "
                "make some with init_weights(rng) and pass them to each call as params="
            )

    def train(self, mode: bool = True, **attributes: Any) -> None:
        """Let dropout act in calls that do not say ``train=``; they have to bring a ``dropout_rng``."""
        self._training = mode
        super().train(**attributes)

    def eval(self, **attributes: Any) -> None:
        """Let dropout rest in calls that do not say ``train=``."""
        self._training = False
        super().eval(**attributes)

    def finish(self, output: OutputT, return_dict: bool | None) -> OutputT:
        """The output object, or its tuple if the call or the config says so."""
        named = self.config.use_return_dict if return_dict is None else return_dict
        answer: Any = output if named else output.to_tuple()
        return answer

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

    def gradient_checkpointing_enable(self, policy: Any = None) -> None:
        """Recompute each layer in the backward pass in place of keeping its activations.

        Args:
            policy: what is kept all the same, one of ``jax.checkpoint_policies``.
        """
        encoder = self.base_model.encoder
        encoder.gradient_checkpointing = True
        encoder.gradient_checkpointing_policy = policy

    def enable_gradient_checkpointing(self) -> None:
        """The published name of :meth:`gradient_checkpointing_enable`."""
        self.gradient_checkpointing_enable()

    def gradient_checkpointing_disable(self) -> None:
        """Keep activations again."""
        self.base_model.encoder.gradient_checkpointing = False

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether layers are recomputed in the backward pass."""
        return bool(self.base_model.encoder.gradient_checkpointing)

    def set_scan_layers(self, on: bool) -> Self:
        """Compile one layer and loop over all, in place of compiling each: a shorter compilation, a copy of the layers
        at each call.

        Raises:
            InputError: for a model of which heads were pruned, whose layers differ.
        """
        if on and self.config.pruned_heads:
            raise InputError("layers with pruned heads differ from each other and cannot be scanned; leave it off")
        self.base_model.encoder.scan_layers = on
        return self

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
        *args: Any,
        output_loading_info: Literal[True],
        **kwargs: Any,
    ) -> tuple[Self, dict[str, Any]]: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *args: Any,
        _do_init: Literal[False],
        **kwargs: Any,
    ) -> tuple[Self, dict[str, Any]]: ...

    @overload
    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> Self: ...

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], dtype: Any = jnp.float32, **kwargs: Any
    ) -> Any:
        """Load a checkpoint; see :func:`xlmr_flax.loading.from_pretrained` for the arguments."""
        return from_pretrained(cls, pretrained_model_name_or_path, dtype, **kwargs)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        params: Mapping[str, Any] | None = None,
        push_to_hub: bool = False,
        max_shard_size: int | str = "5GB",
        token: str | bool | None = None,
        safe_serialization: bool = True,
        **kwargs: Any,
    ) -> None:
        """Save ``config.json`` and weights; an interruption leaves an older checkpoint in the folder whole.

        Args:
            save_directory: a folder; made if it is missing.
            params: a tree of parameters in place of the model's own; quantized weights are the model's in any case.
            push_to_hub: upload the files afterwards.
            max_shard_size: size of a file at most, as a number of bytes or such as ``"5GB"``.
            token: access token of an upload.
            safe_serialization: write safetensors, with the names and the layout that PyTorch models read too; ``False``
                writes ``flax_model.msgpack``, as the original library did by default; not of quantized models.
            **kwargs: of the upload, as in :meth:`push_to_hub`; ``repo_id`` is by default the folder's name.

        Raises:
            InputError: for a value that cannot be served, parameters of another model, or ones without values.
            ConfigError: for a config that cannot be written.
            CheckpointError: if the disk refuses.
            UploadError, MissingBackendError: if it cannot be uploaded.
        """
        format = "safetensors" if safe_serialization else "flax"
        folder = Path(save_directory)
        with upload_after(self, folder, push_to_hub, {"token": token, **kwargs}):
            save_pretrained(self, folder, params=params, format=format, max_shard_size=max_shard_size)


def _worded(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def called(self: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        try:
            return call(self, *args, **kwargs)
        except TypeError as error:
            better = reworded_call(self, type(self).__call__, error, kwargs)
            if better is None:
                raise
            raise better from None

    return called


def _cast(params: Mapping[str, Any], dtype: Any, mask: Any) -> dict[str, Any]:
    leaves = flatten(params)
    chosen = dict.fromkeys(leaves, True) if mask is None else flatten(mask)
    if set(chosen) != set(leaves):
        raise InputError(
            f"mask must be a tree of the same {len(leaves)} parameters, received one of {len(chosen)}; "
            "make it from params"
        )
    return unflatten(
        {
            path: value.astype(dtype) if chosen[path] and jnp.issubdtype(value.dtype, jnp.floating) else value
            for path, value in leaves.items()
        }
    )
