"""What every model can do besides computing: load, save, resize, prune, count, choose its kernel. How Keras trains it is in ``training.py``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import ConfigError, InputError
from xlmr_core.heads import OWN_HEAD, Head
from xlmr_core.outputs import ModelOutput
from xlmr_core.packing import check_packing_mode
from xlmr_core.parameters import Init, Parameter, Role, parameters
from xlmr_tf.kernels import check_attn_implementation
from xlmr_tf.linear import is_loading, replace_values
from xlmr_tf.placement import find_dtype
from xlmr_tf.serving import ExportedByKeras
from xlmr_tf.training import TrainedByKeras

__all__ = ["PreTrainedModel"]

# The variables of layers that a model is made of.
VARIABLES = ("_kernel", "_embeddings", "bias", "gamma", "beta")
# Published names of sublayers that Keras keeps for itself, and the attribute's name here.
ATTRIBUTES = {"output": "output_"}
# What Keras calls a parameter, by its role.
ATTRIBUTE_OF_ROLE = {
    Role.EMBEDDING: "embeddings",
    Role.LINEAR_WEIGHT: "kernel",
    Role.LINEAR_BIAS: "bias",
    Role.NORM_SCALE: "gamma",
    Role.NORM_BIAS: "beta",
}


class PreTrainedModel(TrainedByKeras, ExportedByKeras, keras.Model):
    """Base class of all models.

    A class of your own derives from a published one, or from ``TFXLMRobertaPreTrainedModel`` or ``TFXLMRobertaXLPreTrainedModel`` with an
    encoder as ``self.roberta``. ``from_pretrained`` fills the encoder; what the class adds is saved by ``save_weights``.

    Args:
        config: the model's configuration, kept as ``model.config``.
        dtype: the dtype policy, such as ``mixed_bfloat16``; by default Keras's global one.
        **kwargs: ``name`` and ``trainable``, as of every Keras model.

    Raises:
        ConfigError: for the configuration of another family, or one that no model can be built from.
    """

    config_class: type[XLMRobertaConfig]
    _task_head: ClassVar[Head] = OWN_HEAD
    base_model_prefix: ClassVar[str] = "roberta"
    main_input_name: ClassVar[str] = "input_ids"
    supports_gradient_checkpointing: ClassVar[bool] = True

    def __init__(self, config: XLMRobertaConfig, *, dtype: Any = None, **kwargs: Any) -> None:
        accepted = self.config_class.accepted_model_types
        if not isinstance(config, XLMRobertaConfig) or config.model_type not in accepted:
            raise ConfigError(
                f"{type(self).__name__} expects a {self.config_class.__name__}, received {type(config).__name__}"
                f" (model_type {getattr(config, 'model_type', None)!r}); build one with {self.config_class.__name__}.from_dict(...)"
            )
        config.validate()
        # Labels and embeddings that come in as floats are not to be rounded; the layers inside cast for themselves.
        super().__init__(dtype=dtype, autocast=False, **kwargs)
        self.config = config
        self.name_or_path = config.name_or_path
        self._allow_non_tensor_positional_args = True
        self.built = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let Keras find every class again when it reads a file that names it."""
        super().__init_subclass__(**kwargs)
        keras.saving.register_keras_serializable(package=cls.__module__.partition(".")[0])(cls)

    # ---- The parts

    @property
    def base_model(self) -> Any:
        """The encoder below a head; the model itself if it is the encoder."""
        return getattr(self, self.base_model_prefix, self)

    def __dir__(self) -> list[str]:
        """All names but ``base_model``: Keras walks them to read a file, and an encoder that holds itself has no end."""
        return [name for name in super().__dir__() if name != "base_model"]

    def parameter_table(self) -> dict[str, Parameter]:
        """The rows of the parameter table that this model has, by canonical name."""
        return parameters(self.config, self._task_head.suffix, pooler=self.base_model.pooler is not None)

    def get_parameter(self, name: str) -> keras.Variable:
        """The variable of a canonical name. A linear weight lies transposed in it, (in, out)."""
        layer, attribute = self._place_of(name)
        # With adapters these two are sums, and the variables have an underscore.
        return getattr(layer, f"_{attribute}" if attribute in ("kernel", "embeddings") else attribute)

    def get_values(self, name: str) -> NDArray[Any]:
        """The values of a canonical name in their canonical layout, with adapters added; a copy."""
        layer, attribute = self._place_of(name)
        values = tf.convert_to_tensor(getattr(layer, attribute)).numpy()
        return np.ascontiguousarray(values.T) if attribute == "kernel" else values

    def _place_of(self, name: str) -> tuple[Any, str]:
        """The layer that has a parameter, and its name there."""
        rows = self.parameter_table()
        row = rows[rows[name].tied_to or name]
        path, _, _ = row.name.rpartition(".")
        layer: Any = self
        for part in path.split("."):
            layer = layer[int(part)] if part.isdigit() else getattr(layer, ATTRIBUTES.get(part, part))
        return layer, ATTRIBUTE_OF_ROLE[row.role]

    def get_input_embeddings(self) -> keras.layers.Embedding:
        """The word embedding."""
        return self.base_model.get_input_embeddings()

    def set_input_embeddings(self, value: keras.layers.Embedding) -> None:
        """Replace the word embedding."""
        self.base_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> keras.layers.Layer | None:
        """The vocabulary projection, if there is one."""
        return None

    def set_output_embeddings(self, new_embeddings: keras.layers.Layer) -> None:
        """Replace the vocabulary projection.

        Raises:
            InputError: if the model has none.
        """
        raise InputError(
            f"{type(self).__name__} has no vocabulary projection to replace; use a language modelling head"
        )

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Number of values, tied ones counted once."""
        left_out = {
            id(layer._embeddings)
            for layer in self._flatten_layers()
            if isinstance(layer, keras.layers.Embedding) and exclude_embeddings
        }
        variables = self.trainable_variables if only_trainable else self._own_variables()
        return sum(int(np.prod(variable.shape)) for variable in variables if id(variable) not in left_out)

    def get_memory_footprint(self) -> int:
        """Bytes of the parameters."""
        return sum(
            int(np.prod(variable.shape)) * tf.as_dtype(variable.dtype).size for variable in self._own_variables()
        )

    def _own_variables(self) -> list[keras.Variable]:
        """The parameters, without the states of random generators."""
        return list(self.weights)

    # ---- Values

    def post_init(self, names: Iterable[str] | None = None) -> None:
        """Draw fresh values; the end of every constructor. Nothing is drawn where values are about to be loaded."""
        if not is_loading():
            self.init_weights(names)

    def init_weights(self, names: Iterable[str] | None = None) -> None:
        """Draw fresh values by the parameter table, for all parameters or for some canonical names."""
        rows = self.parameter_table()
        for name in rows if names is None else names:
            row = rows[name]
            if row.tied_to is not None:
                continue
            variable = self.get_parameter(name)
            if row.init in (Init.NORMAL, Init.NORMAL_PADDED):
                values = keras.random.normal(variable.shape, 0.0, self.config.initializer_range, dtype=variable.dtype)
                if row.init is Init.NORMAL_PADDED:
                    values *= tf.cast(tf.range(len(values)) != self.config.pad_token_id, values.dtype)[:, None]
                variable.assign(values)
            else:
                variable.assign(tf.fill(variable.shape, tf.cast(1.0 if row.init is Init.ONES else 0.0, variable.dtype)))

    # ---- Running

    @tf.autograph.experimental.do_not_convert
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model: with inputs by position or by name, with a mapping of them, or with a list of tensors in the order of ``call``."""
        if args and isinstance(args[0], Mapping):
            kwargs = {**args[0], **kwargs}
            args = args[1:]
        elif args and isinstance(args[0], list | tuple) and all(_is_array(x) for x in args[0]):
            args = (*args[0], *args[1:])
        return super().__call__(*args, **kwargs)

    def finish(self, output: ModelOutput[tf.Tensor], return_dict: bool | None) -> Any:
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
        """Choose when batches are packed. A graph that was traced before stays as it is.

        Args:
            mode: ``auto`` where it pays, ``always`` wherever it promises the padded path's answer, ``never``.
        """
        self.base_model._packing = check_packing_mode(mode)
        return self

    def gradient_checkpointing_enable(self) -> None:
        """Recompute each layer in the backward pass in place of keeping its activations."""
        self.base_model.encoder.gradient_checkpointing = True
        self._forget_functions()

    def gradient_checkpointing_disable(self) -> None:
        """Keep activations again."""
        self.base_model.encoder.gradient_checkpointing = False
        self._forget_functions()

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether layers are recomputed in the backward pass."""
        return bool(self.base_model.encoder.gradient_checkpointing)

    def _forget_functions(self) -> None:
        """Let ``fit``, ``evaluate`` and ``predict`` trace anew."""
        self.train_function = self.test_function = self.predict_function = None

    # ---- Changing the shape

    def prune_heads(self, heads_to_prune: dict[int, list[int]]) -> None:
        """Remove attention heads for good: lists of heads by layer, by their original numbers. Compile the model again afterwards."""
        self.base_model.prune_heads(heads_to_prune)
        self._forget_functions()

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> keras.layers.Embedding:
        """Change the number of rows of the word embedding, and of the vocabulary projection and its bias.

        Rows that stay keep their values. New rows of the embedding start close around the mean of the old ones, or are drawn afresh with
        ``mean_resizing=False``; new biases start at 0. Compile the model again afterwards.

        Args:
            new_num_tokens: rows wanted; ``None`` keeps the number (before rounding).
            pad_to_multiple_of: round the number of rows up to a multiple.

        Returns:
            The word embedding.

        Raises:
            InputError: for a number that is not positive or cuts off the padding token.
        """
        embeddings = self.get_input_embeddings()
        old = embeddings.input_dim
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
        replace_values(embeddings, "_embeddings", self._resized(embeddings._embeddings, rows, mean_resizing))
        embeddings.input_dim = rows
        self.config.vocab_size = rows
        self.base_model.config.vocab_size = rows
        self._resize_projection(rows, mean_resizing)
        self._forget_functions()
        return embeddings

    def _resize_projection(self, rows: int, mean_resizing: bool) -> None:
        """Change the number of outputs of the vocabulary projection; models with one override this."""

    def _resized(self, table: Any, rows: int, mean_resizing: bool) -> tf.Tensor:
        """A table (rows, width) of another number of rows."""
        table = tf.convert_to_tensor(table)
        old, kept, shape = table.shape[0], table[:rows], (max(0, rows - table.shape[0]), table.shape[1])
        if mean_resizing and rows > old:
            # Not all alike, or no gradient could tell them apart; the spread is the published one (Hewitt 2021).
            mean, variance = tf.nn.moments(tf.cast(table, tf.float32), [0])
            added = keras.random.normal(shape) * tf.sqrt(variance) * 1e-9**0.5 + mean
        else:
            added = keras.random.normal(shape, 0.0, self.config.initializer_range)
        return tf.concat([kept, tf.cast(added, table.dtype)], 0)

    # ---- Precision and adapters

    def set_dtype(self, dtype: Any) -> Self:
        """Change the dtype policy of the whole model, and where the policy's variables have another dtype, cast them.

        Args:
            dtype: a policy or its name, such as ``mixed_bfloat16`` or ``float16``. Compile the model again afterwards.

        Raises:
            InputError: for an unknown dtype.
        """
        policy = keras.dtype_policies.get(find_dtype(dtype))
        for layer in self._flatten_layers():
            layer.dtype_policy = policy
            for attribute in VARIABLES:
                variable = vars(layer).get(attribute)
                if isinstance(variable, keras.Variable) and variable.dtype != policy.variable_dtype:
                    values = tf.cast(variable.value, policy.variable_dtype)
                    replace_values(layer, attribute, values, dtype=policy.variable_dtype)
        self._forget_functions()
        return self

    def enable_lora(
        self, rank: int, lora_alpha: float | None = None, targets: Iterable[str] = ("query", "value")
    ) -> Self:
        """Train low-rank adapters of some projections, and the head, in place of the encoder's weights (Hu et al. 2022).

        ``save_pretrained`` and Keras's own files hold the sums. Compile the model afterwards.

        Args:
            rank: of the adapters.
            lora_alpha: the adapters' product counts ``lora_alpha / rank`` times; by default once.
            targets: names of the projections in every layer: ``query``, ``key``, ``value``, ``dense``.

        Raises:
            InputError: if there are adapters already, or a target names nothing.
        """
        targets = tuple(targets)
        if self.base_model.lora is not None:
            raise InputError("expected a model without adapters, received one that has them; load it again")
        parts = [part for layer in self.base_model.encoder.layer for part in layer._flatten_layers()]
        chosen = [
            child
            for part in parts
            for name, child in vars(part).items()
            if name in targets and isinstance(child, keras.layers.Dense)
        ]
        if not chosen or {"query", "key", "value", "dense"}.isdisjoint(targets):
            raise InputError(f"targets must name projections (query, key, value, dense), received {targets}")
        for layer in self.base_model._flatten_layers(include_self=False):
            if not list(layer._flatten_layers(include_self=False)):
                layer.trainable = False
        for layer in chosen:
            layer.trainable = True
            layer.enable_lora(rank, lora_alpha=lora_alpha)
            if layer.bias is not None:
                layer.bias.trainable = False
        self.base_model.lora = {"rank": rank, "lora_alpha": lora_alpha, "targets": list(targets)}
        self._forget_functions()
        return self

    # ---- Files

    def get_config(self) -> dict[str, Any]:
        """What Keras needs to build the model anew: the configuration as plain values, and what the constructor takes beside it."""
        own = {"config": json.loads(self.config.to_json_string(use_diff=False))}
        if self.base_model is self:
            own["add_pooling_layer"] = self.pooler is not None
        lora = self.base_model.lora
        choices = {
            "attn_implementation": self.attn_implementation,
            "packing": self.packing,
            "lora": None if lora is None else {**lora, "targets": list(lora["targets"])},
        }
        return {**super().get_config(), **own, **choices}

    @classmethod
    def from_config(cls, config: XLMRobertaConfig | Mapping[str, Any], **kwargs: Any) -> Any:
        """A model with fresh values, from a configuration or from what :meth:`get_config` gave."""
        if isinstance(config, XLMRobertaConfig):
            return cls(config, **kwargs)
        values = {**config, **kwargs}
        implementation, packing = values.pop("attn_implementation", "sdpa"), values.pop("packing", "auto")
        lora = values.pop("lora", None)
        model = cls(cls.config_class.from_dict(values.pop("config")), **values)
        if lora is not None:
            model.enable_lora(**lora)
        return model.set_attn_implementation(implementation).set_packing(packing)

    def get_build_config(self) -> None:
        """Nothing: the constructor builds everything."""

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *model_args: Any, **kwargs: Any
    ) -> Any:
        """Load a checkpoint; see :func:`xlmr_tf.loading.from_pretrained` for the arguments."""
        from xlmr_tf.loading import from_pretrained

        return from_pretrained(cls, pretrained_model_name_or_path, *model_args, **kwargs)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        saved_model: bool = False,
        version: int = 1,
        push_to_hub: bool = False,
        signatures: Any = None,
        max_shard_size: int | str = "5GB",
        create_pr: bool = False,
        safe_serialization: bool = True,
        token: str | bool | None = None,
    ) -> None:
        """Save ``config.json`` and safetensors; an interruption leaves an older checkpoint in the folder whole.

        The files have the published PyTorch names and layout, so every framework reads them.

        Args:
            save_directory: a folder; made if it is missing.
            saved_model, signatures: must be left out; ``model.export(path)`` makes a SavedModel.
            version, create_pr, token: of the published signature, about SavedModels and uploads.
            push_to_hub: must be false; this library does not upload.
            max_shard_size: size of a file at most, as a number of bytes or such as ``"5GB"``.
            safe_serialization: of the published signature; the files are safetensors, which every release of the original since 2023 reads.

        Raises:
            InputError: for a value that cannot be served.
            ConfigError: for a config that cannot be written.
            CheckpointError: if the disk refuses.
        """
        from xlmr_tf.loading import save_pretrained

        if saved_model or signatures is not None:
            raise InputError("saved_model=True asks for a SavedModel beside the checkpoint; call model.export(path)")
        if push_to_hub:
            raise InputError(
                "push_to_hub=True asks for an upload, which this library does not do; use huggingface_hub.upload_folder"
            )
        save_pretrained(self, Path(save_directory), max_shard_size=max_shard_size)


def _is_array(x: Any) -> bool:
    return x is None or tf.is_tensor(x) or isinstance(x, np.ndarray | keras.KerasTensor)
