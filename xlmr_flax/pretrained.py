"""What every model can do besides computing: hold its parameters, load, save, resize, prune, count, choose its kernel."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import ConfigError, InputError
from xlmr_core.heads import OWN_HEAD, Head
from xlmr_core.outputs import ModelOutput
from xlmr_core.packing import check_packing_mode
from xlmr_core.parameters import Init, Parameter, Role, parameters
from xlmr_flax.functional import (
    StaticConfig,
    flatten,
    in_layout,
    path_of,
    paths,
    read_params,
    unflatten,
    with_params,
    write_params,
)
from xlmr_flax.kernels import check_attn_implementation
from xlmr_flax.placement import find_dtype

__all__ = ["PreTrainedModel"]


class PreTrainedModel(nnx.Module):
    """Base class of all models.

    Args:
        config: the model's configuration, kept as ``model.config``.
        input_shape: of the published signature; parameters do not depend on it.
        seed: of the random key that fresh parameters are drawn with.
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
    framework: ClassVar[str] = "flax"

    def __init__(
        self,
        config: XLMRobertaConfig,
        input_shape: tuple[int, ...] = (1, 1),
        seed: int = 0,
        dtype: Any = jnp.float32,
        _do_init: bool = True,
        gradient_checkpointing: bool = False,
    ) -> None:
        accepted = self.config_class.accepted_model_types
        if not isinstance(config, XLMRobertaConfig) or config.model_type not in accepted:
            raise ConfigError(
                f"{type(self).__name__} expects a {self.config_class.__name__}, received {type(config).__name__}"
                f" (model_type {getattr(config, 'model_type', None)!r}); build one with {self.config_class.__name__}.from_dict(...)"
            )
        config.validate()
        self._config = StaticConfig(config)
        self._training = False
        self._build(config)
        self._set_dtype(find_dtype(dtype))
        if gradient_checkpointing:
            self.gradient_checkpointing_enable()
        if _do_init:
            self.params = self.init_weights(jax.random.key(seed), input_shape)

    def _build(self, config: XLMRobertaConfig) -> None:
        """Make the layers."""
        raise NotImplementedError

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

    def parameter_table(self) -> dict[str, Parameter]:
        """The rows of the parameter table that this model has, by canonical name."""
        return parameters(self.config, self._task_head.suffix, pooler=self.base_model.pooler is not None)

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
        raise InputError(
            f"{type(self).__name__} has no vocabulary projection to replace; use a language modelling head"
        )

    @property
    def dtype(self) -> Any:
        """The dtype in which everything is computed."""
        return self.base_model._dtype

    def _set_dtype(self, dtype: Any) -> None:
        self.base_model._dtype = dtype

    def num_parameters(self, exclude_embeddings: bool = False) -> int:
        """Number of values, tied ones counted once."""
        leaves = flatten(read_params(self))
        return sum(
            value.size
            for path, value in leaves.items()
            if not (exclude_embeddings and path[-1] == "embedding" and "embeddings" in path)
        )

    def get_memory_footprint(self) -> int:
        """Bytes of parameters."""
        return sum(value.size * value.dtype.itemsize for value in jax.tree.leaves(read_params(self)))

    # ---- Parameters as a tree

    @property
    def params(self) -> dict[str, Any]:
        """The parameters as a plain nested dictionary in the published Flax layout. Setting it replaces their values.

        Raises:
            InputError: where they have no values (``_do_init=False``); when set, for a tree of other parameters or shapes.
        """
        params = read_params(self)
        self._refuse_abstract(params)
        return params

    def __setattr__(self, name: str, value: Any) -> None:
        # NNX would take a dictionary of arrays for an attribute that it has to know about, before any property gets it.
        if name == "params":
            write_params(self, value)
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

    @property
    def logical_axes(self) -> dict[str, Any]:
        """The names of every parameter's axes (``hidden``, ``ffn``, ``vocab``, ...), in a tree like ``params``, to derive shardings from."""
        rows = [row for row in self.parameter_table().values() if row.tied_to is None]
        return unflatten({path_of(row): row.dims[::-1] if row.role is Role.LINEAR_WEIGHT else row.dims for row in rows})

    def init_weights(
        self, rng: Array, input_shape: tuple[int, ...] = (1, 1), params: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Fresh parameters by the parameter table; the model itself stays as it is.

        Args:
            rng: a random key.
            input_shape: of the published signature.
            params: a tree whose parameters are kept; only those that it lacks are drawn.
        """
        given = {} if params is None else flatten(params)
        rows = self.parameter_table()
        drawn = {
            path: given[path] if path in given else self._fresh(rows[name], rng) for name, path in paths(rows).items()
        }
        return unflatten(drawn)

    def _fresh(self, row: Parameter, rng: Array, dtype: Any = jnp.float32) -> Array:
        if row.init not in (Init.NORMAL, Init.NORMAL_PADDED):
            return jnp.full(row.shape, 1.0 if row.init is Init.ONES else 0.0, dtype)
        # A key by name, so that a parameter's values depend on no other parameter.
        key = jax.random.fold_in(rng, zlib.crc32(row.name.encode()))
        values = jax.random.normal(key, row.shape, jnp.float32) * self.config.initializer_range
        if row.init is Init.NORMAL_PADDED:
            values = values.at[self.config.pad_token_id].set(0.0)
        return in_layout(row, values).astype(dtype)

    def to_bf16(self, params: Mapping[str, Any], mask: Any = None) -> dict[str, Any]:
        """The floating point parameters of a tree in bfloat16.

        Args:
            params: the tree.
            mask: a tree of the same form with ``True`` where a parameter is to be cast; default: everywhere.
        """
        return _cast(params, jnp.bfloat16, mask)

    def to_fp16(self, params: Mapping[str, Any], mask: Any = None) -> dict[str, Any]:
        """The floating point parameters of a tree in float16; ``mask`` as in :meth:`to_bf16`."""
        return _cast(params, jnp.float16, mask)

    def to_fp32(self, params: Mapping[str, Any], mask: Any = None) -> dict[str, Any]:
        """The floating point parameters of a tree in float32; ``mask`` as in :meth:`to_bf16`."""
        return _cast(params, jnp.float32, mask)

    # ---- Running

    def apply(
        self, variables: Mapping[str, Any], *args: Any, rngs: Mapping[str, Array] | None = None, **kwargs: Any
    ) -> Any:
        """A call as a pure function of the parameters, as Flax's linen modules have it.

        Args:
            variables: ``{"params": params}``.
            *args, **kwargs: as of a call.
            rngs: ``{"dropout": key}``.
        """
        if set(variables) != {"params"}:
            raise InputError(
                f"variables must be {{'params': params}}, received the keys {sorted(variables)}; wrap the tree of parameters"
            )
        key = None if rngs is None else rngs["dropout"]
        return self(*args, params=variables["params"], dropout_rng=key, **kwargs)

    def prepare(self, params: Any, dropout_rng: Any, train: bool | None) -> tuple[Any, Array | None]:
        """The model with the parameters of a call, and the random key of its dropout, ``None`` in evaluation."""
        if params is not None:
            model = with_params(self, params)
        else:
            model = self
            self._refuse_abstract(nnx.state(self.get_input_embeddings(), nnx.Param))
        if not (self._training if train is None else train):
            return model, None
        if dropout_rng is None:
            raise InputError(
                "train=True drops values at random and needs a key; pass dropout_rng=jax.random.key(...), or train=False"
            )
        if not isinstance(dropout_rng, Array):
            raise InputError(
                f"dropout_rng must be a random key, received {type(dropout_rng).__name__}; pass jax.random.key(...)"
            )
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

    def finish(self, output: ModelOutput[Array], return_dict: bool | None) -> ModelOutput[Array] | tuple[Any, ...]:
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
        """Compile one layer and loop over all, in place of compiling each: a shorter compilation, a copy of the layers at each call.

        Raises:
            InputError: for a model of which heads were pruned, whose layers differ.
        """
        if on and self.config.pruned_heads:
            raise InputError("layers with pruned heads differ from each other and cannot be scanned; leave it off")
        self.base_model.encoder.scan_layers = on
        return self

    # ---- Changing the shape

    def prune_heads(self, heads_to_prune: dict[int, list[int]]) -> None:
        """Remove attention heads for good: lists of heads by layer, by their original numbers."""
        self.base_model.prune_heads(heads_to_prune)

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
        *,
        rng: Array | None = None,
    ) -> nnx.Module:
        """Change the number of rows of the word embedding, and of the vocabulary projection and its bias.

        Rows that stay keep their values. New rows of the embedding start close around the mean of the old ones, or are drawn afresh with
        ``mean_resizing=False``; new biases start at 0.

        Args:
            new_num_tokens: rows wanted; ``None`` keeps the number (before rounding).
            pad_to_multiple_of: round the number of rows up to a multiple.
            mean_resizing: how new rows start.
            rng: the random key they are drawn with; default: the same one always.

        Returns:
            The word embedding.

        Raises:
            InputError: for a number that is not positive or cuts off the padding token, or a model without values.
        """
        self._refuse_abstract(read_params(self))
        embedding = self.get_input_embeddings().embedding
        old = embedding.shape[0]
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
            return self.get_input_embeddings()
        first, second = jax.random.split(jax.random.key(0) if rng is None else rng)
        self.get_input_embeddings().embedding = nnx.Param(self._resized(embedding[...], rows, mean_resizing, first))
        self.config.vocab_size = rows
        self._resize_projection(rows, mean_resizing, second)
        return self.get_input_embeddings()

    def _resize_projection(self, rows: int, mean_resizing: bool, rng: Array) -> None:
        """Resize what projects to the vocabulary; models with a projection override this."""

    def _resized(self, weight: Array, rows: int, mean_resizing: bool, rng: Array) -> Array:
        old, width = weight.shape
        if rows <= old:
            return weight[:rows]
        noise = jax.random.normal(rng, (rows - old, width), jnp.float32)
        if mean_resizing:
            # Not all alike, or no gradient could tell them apart; the spread is the published one (Hewitt 2021).
            wide = weight.astype(jnp.float32)
            new = noise * wide.std(0) * 1e-9**0.5 + wide.mean(0)
        else:
            new = noise * self.config.initializer_range
        return jnp.concatenate([weight, new.astype(weight.dtype)])

    # ---- Files

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], dtype: Any = jnp.float32, **kwargs: Any
    ) -> Any:
        """Load a checkpoint; see :func:`xlmr_flax.loading.from_pretrained` for the arguments."""
        from xlmr_flax.loading import from_pretrained

        return from_pretrained(cls, pretrained_model_name_or_path, dtype, **kwargs)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        params: Mapping[str, Any] | None = None,
        push_to_hub: bool = False,
        max_shard_size: int | str = "5GB",
        token: str | bool | None = None,
        safe_serialization: bool = True,
    ) -> None:
        """Save ``config.json`` and weights; an interruption leaves an older checkpoint in the folder whole.

        Args:
            save_directory: a folder; made if it is missing.
            params: a tree of parameters in place of the model's own.
            push_to_hub: must be false; this library does not upload.
            max_shard_size: size of a file at most, as a number of bytes or such as ``"5GB"``.
            token: of the published signature, about uploads.
            safe_serialization: write safetensors, with the names and the layout that PyTorch models read too; ``False`` writes
                ``flax_model.msgpack``, as the original library did by default.

        Raises:
            InputError: for a value that cannot be served, parameters of another model, or ones without values.
            ConfigError: for a config that cannot be written.
            CheckpointError: if the disk refuses.
        """
        from xlmr_flax.loading import save_pretrained

        if push_to_hub:
            raise InputError(
                "push_to_hub=True asks for an upload, which this library does not do; use huggingface_hub.upload_folder"
            )
        format = "safetensors" if safe_serialization else "flax"
        save_pretrained(self, Path(save_directory), params=params, format=format, max_shard_size=max_shard_size)


def _cast(params: Mapping[str, Any], dtype: Any, mask: Any) -> dict[str, Any]:
    leaves = flatten(params)
    chosen = dict.fromkeys(leaves, True) if mask is None else flatten(mask)
    if set(chosen) != set(leaves):
        raise InputError(
            f"mask must be a tree of the same {len(leaves)} parameters, received one of {len(chosen)}; make it from params"
        )
    return unflatten(
        {
            path: value.astype(dtype) if chosen[path] and jnp.issubdtype(value.dtype, jnp.floating) else value
            for path, value in leaves.items()
        }
    )
