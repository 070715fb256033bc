"""What every model can do besides computing: be built, say of what it consists, run as it is told, load and save.

How Keras trains it is in ``fit.py``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar, overload

import keras
import numpy as np
import tensorflow as tf

from xlmr_core.arguments import reworded_call
from xlmr_core.checks import refuse_objects
from xlmr_core.config import XLMRobertaConfig
from xlmr_core.errors import InputError
from xlmr_core.heads import OWN_HEAD, Head
from xlmr_core.outputs import ModelOutput
from xlmr_core.own_classes import constructor_arguments, given_arguments
from xlmr_core.packing import check_packing_mode
from xlmr_core.pretrained import check_config, refuse_projection
from xlmr_core.quantization import BitsAndBytes, Scheme
from xlmr_core.quantization.asked import refuse_cast, refuse_change
from xlmr_core.training.refusals import check_targets
from xlmr_core.uploads import PushToHub, upload_after
from xlmr_tf.fit import TrainedByKeras
from xlmr_tf.freezing import set_trained, trained
from xlmr_tf.kernels import check_attn_implementation
from xlmr_tf.linear import replace_values
from xlmr_tf.loading import from_pretrained, save_pretrained
from xlmr_tf.placement import find_policy
from xlmr_tf.published import PublishedNames
from xlmr_tf.quantized import as_written, made_as_written
from xlmr_tf.quantized_by_keras import QuantizedByKeras, quantize_as_written, written_by_keras
from xlmr_tf.resizing import ResizableModel
from xlmr_tf.serving import ExportedByKeras
from xlmr_tf.tracking import FoundByTensorFlow
from xlmr_tf.values import ModelValues, keras_mode

__all__ = ["PreTrainedModel"]

OutputT = TypeVar("OutputT", bound=ModelOutput[Any])

# The variables of layers that a model is made of.
VARIABLES = ("_kernel", "_embeddings", "bias", "gamma", "beta")
# Arguments of the constructor of every Keras layer.
OF_KERAS = ("name", "trainable", "dtype")
# What Keras's own files hold beside the arguments of a constructor.
CHOSEN = (
    *("attn_implementation", "packing", "gradient_checkpointing", "lora", "trained"),
    *("quantization", "quantized_by_keras"),
)


class PreTrainedModel(
    PushToHub,
    ModelValues,
    ResizableModel,
    QuantizedByKeras,
    TrainedByKeras,
    ExportedByKeras,
    FoundByTensorFlow,
    PublishedNames,
    keras.Model,
):
    """Base class of all models.

    A class of your own derives from a published one, or from ``TFXLMRobertaPreTrainedModel`` or
    ``TFXLMRobertaXLPreTrainedModel`` with an encoder as ``self.roberta``, and builds its layers in its constructor.
    What it adds is saved and loaded with the rest.

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
    _arguments: dict[str, Any]
    _scheme: Scheme | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """A model that knows what its constructor is called with, for :meth:`get_config`."""
        model: Self = super().__new__(cls, *args, **kwargs)
        vars(model)["_arguments"] = given_arguments(cls, args, kwargs)
        return model

    def __init__(self, config: XLMRobertaConfig, *, dtype: Any = None, **kwargs: Any) -> None:
        check_config(type(self), self.config_class, config)
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

    def __setattr__(self, name: str, value: Any) -> None:
        """As of every Keras model; but a layer that another one takes the place of is no part of the model any more."""
        old = vars(self).get(name)
        super().__setattr__(name, value)
        if isinstance(old, keras.layers.Layer) and not any(part is old for part in vars(self).values()):
            self._tracker.untrack(old)

    # ---- The parts

    @property
    def base_model(self) -> Any:
        """The encoder below a head; the model itself if it is the encoder."""
        return getattr(self, self.base_model_prefix, self)

    @property
    def is_quantized(self) -> bool:
        """Whether the model computes with quantized weights, as here or as Keras's own ``quantize`` has it."""
        return self.quantization_scheme is not None or keras_mode(self) is not None

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

    def __dir__(self) -> list[str]:
        """All names but ``base_model``: Keras walks them to read a file, and an encoder there holds itself."""
        return [name for name in super().__dir__() if name != "base_model"]

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
        refuse_projection(type(self))

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Number of values, tied ones counted once."""
        tables = [layer for layer in self._flatten_layers() if hasattr(layer, "input_dim") and exclude_embeddings]
        left_out = {id(variable) for table in tables for variable in table.weights}
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

    # ---- Running

    @tf.autograph.experimental.do_not_convert
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model: inputs by position or by name, as a mapping, or as a list in the order of ``call``. An
        argument that it does not take is refused with the nearest that it takes.
        """
        if args and isinstance(args[0], Mapping):
            kwargs = {**args[0], **kwargs}
            args = args[1:]
        elif args and isinstance(args[0], list | tuple) and all(_is_array(x) for x in args[0]):
            args = (*args[0], *args[1:])
        for name, x in (*enumerate(args), *kwargs.items()):
            if isinstance(x, np.ndarray) and x.dtype.hasobject:  # Keras would say that NumPy cannot convert it
                refuse_objects([*signature(self.call).parameters][name] if isinstance(name, int) else name)
        try:
            return super().__call__(*args, **kwargs)
        except TypeError as error:
            better = reworded_call(self, type(self).call, error, kwargs)
            if better is None:
                raise
            raise better from None

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

    # ---- Precision and adapters

    def set_dtype(self, dtype: Any) -> Self:
        """Change the dtype policy of the whole model, and where the policy's variables have another dtype, cast them.

        Args:
            dtype: a policy or its name, such as ``mixed_bfloat16`` or ``float16``. Compile the model again afterwards.

        Raises:
            InputError: for an unknown dtype; for a quantized model, whose variables keep their dtypes.
        """
        policy = keras.dtype_policies.get(find_policy(dtype))
        if self.quantization_scheme is not None and policy.variable_dtype != self.variable_dtype:
            refuse_cast(self.quantization_scheme, self.variable_dtype, policy.variable_dtype)
        if keras_mode(self) is not None:
            refuse_change("set_dtype")
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
        """Train low-rank adapters of some projections, and the head, in place of the encoder's weights (Hu et al.
        2022).

        ``save_pretrained`` and Keras's own files hold the sums. Compile the model afterwards.

        Args:
            rank: of the adapters.
            lora_alpha: the adapters' product counts ``lora_alpha / rank`` times; by default once.
            targets: names of the projections in every layer: ``query``, ``key``, ``value``, ``dense``.

        Raises:
            InputError: if there are adapters already, or a target names nothing; for a quantized model.
        """
        targets = tuple(targets)
        if self.quantization_scheme is not None:
            refuse_change("enable_lora")
        if self.base_model.lora is not None:
            raise InputError("expected a model without adapters, received one that has them; load it again")
        parts = [part for layer in self.base_model.encoder.layer for part in layer._flatten_layers()]
        named = [
            (name, child)
            for part in parts
            for name, child in vars(part).items()
            if isinstance(child, keras.layers.Dense)
        ]
        check_targets([name for name, _ in named], targets)
        chosen = [child for name, child in named if name in targets]
        if not chosen:
            raise InputError("targets must name projections (query, key, value, dense), received none")
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
        """What Keras needs to build the model anew, as plain values: the configuration, the other arguments of the
        constructor, what was chosen since then, and which parts are frozen.

        Raises:
            InputError: for an argument of a constructor that Keras cannot write.
        """
        lora = self.base_model.lora
        return {
            **super().get_config(),
            "config": json.loads(self.config.to_json_string(use_diff=False)),
            "arguments": _written_arguments(type(self), self._arguments),
            "attn_implementation": self.attn_implementation,
            "packing": self.packing,
            "gradient_checkpointing": self.is_gradient_checkpointing,
            "lora": None if lora is None else {**lora, "targets": list(lora["targets"])},
            "trained": trained(self),
            "quantization": as_written(self.quantization_scheme),
            "quantized_by_keras": written_by_keras(self),
        }

    @classmethod
    def from_config(cls, config: XLMRobertaConfig | Mapping[str, Any], **kwargs: Any) -> Self:
        """A model with fresh values, from a configuration or from what :meth:`get_config` gave. Of a model that was
        quantized the codes are zero.
        """
        if isinstance(config, XLMRobertaConfig):
            return cls(config, **kwargs)
        values = {**config, **kwargs}
        # Files of earlier releases lack some of these.
        chosen = {name: values.pop(name) for name in CHOSEN if name in values}
        for name, value in values.pop("arguments", {}).items():
            values.setdefault(name, keras.saving.deserialize_keras_object(value))
        policy = keras.dtype_policies.get(values["dtype"]) if "dtype" in values else None
        made_from = cls.config_class.from_dict(values.pop("config"))

        def make() -> Self:
            model = cls(made_from, **cls._taken(values))
            if policy is not None and policy.name != model.dtype_policy.name:  # a constructor that takes none
                model.set_dtype(policy)
            return model

        written = chosen.get("quantization")
        model = make() if written is None else made_as_written(make, written)
        quantize_as_written(model, chosen.get("quantized_by_keras", {}))
        if chosen.get("lora") is not None:
            model.enable_lora(**chosen["lora"])
        if chosen.get("gradient_checkpointing"):
            model.gradient_checkpointing_enable()
        set_trained(model, chosen.get("trained", {}))
        model.set_attn_implementation(chosen.get("attn_implementation", "sdpa"))
        return model.set_packing(chosen.get("packing", "auto"))

    @classmethod
    def _taken(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments without those of every Keras layer that a user's constructor does not take."""
        names, takes_any = cls._constructor_arguments()
        return {key: x for key, x in values.items() if takes_any or key in names or key not in OF_KERAS}

    def get_build_config(self) -> None:
        """Nothing: the constructor builds everything."""

    @classmethod
    def _constructor_arguments(cls) -> tuple[set[str], bool]:
        """What ``from_pretrained`` may hand on to the constructor."""
        return constructor_arguments(cls, PreTrainedModel, OF_KERAS)

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
        """Load a checkpoint; see :func:`xlmr_tf.loading.from_pretrained` for the arguments."""
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
        **kwargs: Any,
    ) -> None:
        """Save ``config.json`` and safetensors; an interruption leaves an older checkpoint in the folder whole.

        The files have the published PyTorch names and layout, so every framework reads them.

        Args:
            save_directory: a folder; made if it is missing.
            saved_model, signatures: must be left out; ``model.export(path)`` makes a SavedModel.
            version: of the published signature, about SavedModels.
            create_pr, token: of an upload.
            push_to_hub: upload the files afterwards.
            max_shard_size: size of a file at most, as a number of bytes or such as ``"5GB"``.
            safe_serialization: of the published signature; the files are safetensors, which every release of the
                original since 2023 reads.
            **kwargs: of the upload, as in :meth:`push_to_hub`; ``repo_id`` is by default the folder's name.

        Raises:
            InputError: for a value that cannot be served.
            ConfigError: for a config that cannot be written.
            CheckpointError: if the disk refuses.
            UploadError, MissingBackendError: if it cannot be uploaded.
        """
        if saved_model or signatures is not None:
            raise InputError("saved_model=True asks for a SavedModel beside the checkpoint; call model.export(path)")
        folder, of_upload = Path(save_directory), {"token": token, "create_pr": create_pr, **kwargs}
        with upload_after(self, folder, push_to_hub, of_upload):
            save_pretrained(self, folder, max_shard_size=max_shard_size)


def _written_arguments(kind: type, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a constructor as Keras writes them."""
    written = {}
    for name, value in arguments.items():
        if name in OF_KERAS:
            continue
        try:
            written[name] = keras.saving.serialize_keras_object(value)
        except (TypeError, ValueError) as error:
            raise _not_written(kind, name, f"a value of type {type(value).__name__}") from error
        if not name.isidentifier():
            raise _not_written(kind, name, "one that was passed by place")
    return written


def _not_written(kind: type, name: str, received: str) -> InputError:
    return InputError(
        f"expected arguments of {kind.__name__} that Keras can write (numbers, texts, lists, layers), received for "
        f"{name} {received}; put it into the configuration, or write get_config and from_config of the class"
    )


def _is_array(x: Any) -> bool:
    return x is None or tf.is_tensor(x) or isinstance(x, np.ndarray | keras.KerasTensor)
