"""Model configurations: the published ``config.json`` keys, in and out.

``XLMRobertaConfig`` covers base and large (post-LN), ``XLMRobertaXLConfig`` covers XL and XXL (pre-LN). The documented defaults are kept
as published although they are not those of any released checkpoint; ``base()``, ``large()``, ``xl()`` and ``xxl()`` give the real numbers.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from xlmr_core.errors import CheckpointError, ConfigError

__all__ = ["ACTIVATIONS", "POSITION_EMBEDDING_TYPES", "AutoConfig", "XLMRobertaConfig", "XLMRobertaXLConfig"]

ACTIVATIONS = ("gelu", "relu", "silu", "gelu_new", "swish", "gelu_python", "gelu_pytorch_tanh", "gelu_fast", "tanh")
POSITION_EMBEDDING_TYPES = ("absolute", "relative_key", "relative_key_query")
PROBLEM_TYPES = (None, "regression", "single_label_classification", "multi_label_classification")

# Keys every configuration has beside the model's own numbers. They are written to config.json only where they differ from these.
SHARED_DEFAULTS: dict[str, Any] = {
    "architectures": None,
    "dtype": None,
    "return_dict": True,
    "output_hidden_states": False,
    "output_attentions": False,
    "is_decoder": False,
    "add_cross_attention": False,
    "is_encoder_decoder": False,
    "tie_word_embeddings": True,
    "chunk_size_feed_forward": 0,
    "pruned_heads": {},
    "problem_type": None,
    "finetuning_task": None,
    "tokenizer_class": None,
    "sep_token_id": None,
    "decoder_start_token_id": None,
    "task_specific_params": None,
}
SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)
PROBABILITIES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")

ConfigT = TypeVar("ConfigT", bound="XLMRobertaConfig")


class XLMRobertaConfig:
    """Configuration of XLM-RoBERTa base and large (post-LN).

    Args:
        vocab_size: rows of the word embedding.
        hidden_size: width of the residual stream; divisible by ``num_attention_heads``.
        num_hidden_layers: number of transformer layers.
        num_attention_heads: attention heads of a layer.
        intermediate_size: width of the feed-forward layer.
        hidden_act: name of the activation (see ``ACTIVATIONS``), or a callable of the backend that will run the model. A callable cannot
            be written to ``config.json``; ``save_pretrained`` refuses it.
        hidden_dropout_prob: dropout after embeddings, attention and feed-forward output.
        attention_probs_dropout_prob: dropout on attention probabilities.
        max_position_embeddings: rows of the position table. Positions start at ``pad_token_id + 1``, so a sequence has at most
            ``max_tokens`` = ``max_position_embeddings - pad_token_id - 1`` tokens.
        type_vocab_size: rows of the token type table.
        initializer_range: standard deviation of freshly drawn weights.
        layer_norm_eps: epsilon of every layer norm.
        pad_token_id, bos_token_id, eos_token_id: ids of ``<pad>``, ``<s>`` and ``</s>``.
        position_embedding_type: ``absolute``, ``relative_key`` (Shaw et al. 2018) or ``relative_key_query`` (Huang et al. 2020).
        use_cache: whether a decoder returns its keys and values.
        classifier_dropout: dropout of the classification heads; ``None`` means ``hidden_dropout_prob``.
        **kwargs: the keys every configuration shares (``num_labels``, ``id2label``, ``label2id``, ``problem_type``, ``is_decoder``,
            ``add_cross_attention``, ``tie_word_embeddings``, ``output_attentions``, ``output_hidden_states``, ``return_dict``,
            ``chunk_size_feed_forward``, ``dtype``, ...). Unknown keys are kept and written back.

    Raises:
        ConfigError: for values that no model can be built from.
    """

    model_type: str = "xlm-roberta"
    accepted_model_types: ClassVar[tuple[str, ...]] = ("xlm-roberta", "roberta", "camembert")

    def __init__(
        self,
        vocab_size: int = 30522,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        hidden_act: str | Callable[..., Any] = "gelu",
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.1,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 2,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12,
        pad_token_id: int = 1,
        bos_token_id: int | None = 0,
        eos_token_id: int | None = 2,
        position_embedding_type: str = "absolute",
        use_cache: bool = True,
        classifier_dropout: float | None = None,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.pad_token_id = pad_token_id
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id
        self.position_embedding_type = position_embedding_type
        self.use_cache = use_cache
        self.classifier_dropout = classifier_dropout
        self.name_or_path = str(kwargs.pop("name_or_path", kwargs.pop("_name_or_path", "")) or "")
        self._set_shared(kwargs)
        self.validate()

    # What every instance has; set in _set_shared from the table above, declared here for type checkers and readers.
    architectures: list[str] | None
    dtype: str | None
    return_dict: bool
    output_hidden_states: bool
    output_attentions: bool
    is_decoder: bool
    add_cross_attention: bool
    tie_word_embeddings: bool
    chunk_size_feed_forward: int
    pruned_heads: dict[int, list[int]]
    problem_type: str | None
    id2label: dict[int, str]
    label2id: dict[str, int]

    def _set_shared(self, kwargs: dict[str, Any]) -> None:
        kwargs = dict(kwargs)
        model_type = kwargs.pop("model_type", None)
        if model_type is not None:
            self._check_model_type(model_type)
            if model_type != type(self).model_type:
                self.model_type = model_type
        torch_dtype = kwargs.pop("torch_dtype", None)
        dtype = kwargs.pop("dtype", None)
        self.dtype = dtype_name(torch_dtype if dtype is None else dtype)
        for key, default in SHARED_DEFAULTS.items():
            if key != "dtype":
                setattr(self, key, copy.deepcopy(kwargs.pop(key, default)))
        self.pruned_heads = {int(layer): sorted(heads) for layer, heads in (self.pruned_heads or {}).items()}
        num_labels = kwargs.pop("num_labels", kwargs.pop("_num_labels", None))
        id2label = kwargs.pop("id2label", None)
        label2id = kwargs.pop("label2id", None)
        if id2label is None and label2id is not None and num_labels in (None, len(label2id)):
            id2label = {index: label for label, index in label2id.items()}
        if id2label is not None and num_labels not in (None, len(id2label)):
            raise ConfigError(
                f"num_labels={num_labels} disagrees with id2label of {len(id2label)} labels; pass one of them"
            )
        if id2label is None:
            self.num_labels = 2 if num_labels is None else num_labels
        else:
            self.id2label = {int(index): label for index, label in id2label.items()}
            self.label2id = dict(label2id) if label2id else {label: index for index, label in self.id2label.items()}
        # An unknown key may have the name of a property here: it is kept for the round trip and does not replace the property.
        self.__dict__.update(kwargs)

    @classmethod
    def _check_model_type(cls, model_type: str) -> None:
        if model_type not in cls.accepted_model_types:
            hint = CONFIG_CLASSES.get(model_type)
            others = "only XLM-RoBERTa, XLM-RoBERTa-XL, RoBERTa and CamemBERT load here"
            remedy = f"load it with {hint.__name__} and its models" if hint else others
            raise ConfigError(
                f"{cls.__name__} expects a config.json with model_type {' or '.join(map(repr, cls.accepted_model_types))}, "
                f"received {model_type!r}; {remedy}"
            )

    # Published sizes

    @classmethod
    def base(cls: type[ConfigT], **kwargs: Any) -> ConfigT:
        """The numbers of ``xlm-roberta-base``: 12 layers of 768, 278 M parameters."""
        return cls(
            **{
                **RELEASED,
                "hidden_size": 768,
                "num_hidden_layers": 12,
                "num_attention_heads": 12,
                "intermediate_size": 3072,
                **kwargs,
            }
        )

    @classmethod
    def large(cls: type[ConfigT], **kwargs: Any) -> ConfigT:
        """The numbers of ``xlm-roberta-large``: 24 layers of 1024, 560 M parameters."""
        return cls(
            **{
                **RELEASED,
                "hidden_size": 1024,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "intermediate_size": 4096,
                **kwargs,
            }
        )

    # Derived values

    @property
    def num_labels(self) -> int:
        """Number of labels; setting it to another number renames the labels ``LABEL_0``, ``LABEL_1``, ..."""
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, num_labels: int) -> None:
        if isinstance(num_labels, bool) or not isinstance(num_labels, int) or num_labels < 1:
            raise ConfigError(f"num_labels must be a positive integer, received {num_labels!r}")
        if len(getattr(self, "id2label", {})) != num_labels:
            self.id2label = {index: f"LABEL_{index}" for index in range(num_labels)}
            self.label2id = {label: index for index, label in self.id2label.items()}

    @property
    def use_return_dict(self) -> bool:
        """Whether models return an output object (and not a tuple) by default."""
        return bool(self.return_dict)

    @property
    def torch_dtype(self) -> str | None:
        """The older name of ``dtype``."""
        return self.dtype

    @torch_dtype.setter
    def torch_dtype(self, dtype: Any) -> None:
        self.dtype = dtype_name(dtype)

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def max_tokens(self) -> int:
        """The longest sequence, special tokens included (512 for the released checkpoints; see ``xlmr_core.positions``)."""
        from xlmr_core.positions import max_tokens

        return max_tokens(self)

    def heads_in_layer(self, layer: int) -> int:
        """Attention heads left in a layer after pruning."""
        return self.num_attention_heads - len(self.pruned_heads.get(layer, ()))

    # Checks

    def validate(self) -> None:
        """Refuse values that no model can be built from. Models call it again, because attributes may have been set since."""
        for key in SIZES:
            value = getattr(self, key)
            if (
                isinstance(value, bool)
                or not isinstance(value, int)
                or value < (0 if key == "num_hidden_layers" else 1)
            ):
                raise ConfigError(f"{key} must be a positive integer, received {value!r}")
        for key in PROBABILITIES:
            value = getattr(self, key)
            if key == "classifier_dropout" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ConfigError(f"{key} must be a probability between 0 and 1, received {value!r}")
        checks: list[tuple[bool, str]] = [
            (
                self.hidden_size % self.num_attention_heads == 0,
                f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads ({self.num_attention_heads}); "
                "change one of them",
            ),
            (
                callable(self.hidden_act) or self.hidden_act in ACTIVATIONS,
                f"hidden_act must be one of {', '.join(ACTIVATIONS)} or a callable, received {self.hidden_act!r}",
            ),
            (
                self.position_embedding_type in POSITION_EMBEDDING_TYPES,
                f"position_embedding_type must be one of {', '.join(POSITION_EMBEDDING_TYPES)}, received {self.position_embedding_type!r}",
            ),
            (
                self.problem_type in PROBLEM_TYPES,
                f"problem_type must be one of {', '.join(str(p) for p in PROBLEM_TYPES)}, received {self.problem_type!r}",
            ),
            (
                isinstance(self.pad_token_id, int) and 0 <= self.pad_token_id < self.vocab_size,
                f"pad_token_id must lie in the vocabulary of {self.vocab_size} ids, received {self.pad_token_id!r}",
            ),
            (
                isinstance(self.pad_token_id, int) and self.max_position_embeddings > self.pad_token_id + 1,
                f"max_position_embeddings ({self.max_position_embeddings}) leaves no room for a token: positions start at pad_token_id + 1 "
                f"= {self.pad_token_id + 1 if isinstance(self.pad_token_id, int) else '?'}",
            ),
            (
                isinstance(self.layer_norm_eps, int | float) and self.layer_norm_eps > 0,
                f"layer_norm_eps must be positive, received {self.layer_norm_eps!r}",
            ),
            (
                isinstance(self.initializer_range, int | float) and self.initializer_range >= 0,
                f"initializer_range must not be negative, received {self.initializer_range!r}",
            ),
            (
                self.is_decoder or not self.add_cross_attention,
                "add_cross_attention=True needs is_decoder=True: only a decoder attends to an encoder's states",
            ),
            (
                isinstance(self.chunk_size_feed_forward, int) and self.chunk_size_feed_forward >= 0,
                f"chunk_size_feed_forward must be 0 (off) or a positive number of tokens, received {self.chunk_size_feed_forward!r}",
            ),
        ]
        for layer, heads in self.pruned_heads.items():
            legal = 0 <= layer < self.num_hidden_layers and all(0 <= head < self.num_attention_heads for head in heads)
            checks.append((legal, f"pruned_heads names heads {heads} of layer {layer}, which this model does not have"))
            checks.append(
                (len(set(heads)) < self.num_attention_heads, f"pruned_heads leaves no attention head in layer {layer}")
            )
        for holds, message in checks:
            if not holds:
                raise ConfigError(message)

    # Reading and writing

    @classmethod
    def from_dict(cls: type[ConfigT], values: Mapping[str, Any], **overrides: Any) -> ConfigT:
        """Build a configuration from the content of a ``config.json``; ``overrides`` win (unknown ones are kept too).

        Raises:
            ConfigError: for another architecture, or for ``num_labels`` and ``id2label`` that disagree.
        """
        merged = dict(values)
        if merged.get("id2label"):
            # A file's labels count for more than a number that older versions left beside them.
            for key in ("num_labels", "_num_labels"):
                merged.pop(key, None)
        if "num_labels" in overrides or "id2label" in overrides or "label2id" in overrides:
            same_size = overrides.get("num_labels") == len(merged.get("id2label") or {})
            for key in ("num_labels", "_num_labels"):
                merged.pop(key, None)
            if not same_size or "id2label" in overrides or "label2id" in overrides:
                merged.pop("id2label", None)
                merged.pop("label2id", None)
        if "torch_dtype" in overrides:
            merged.pop("dtype", None)
        return cls(**{**merged, **overrides})

    @classmethod
    def from_json_file(cls: type[ConfigT], path: str | os.PathLike[str], **overrides: Any) -> ConfigT:
        """Read a ``config.json``.

        Raises:
            CheckpointError: if the file is missing or is not a JSON object.
        """
        return cls.from_dict(read_config_json(path), **overrides)

    @classmethod
    def from_pretrained(cls: type[ConfigT], name_or_path: str | os.PathLike[str], **kwargs: Any) -> ConfigT:
        """Load the configuration of a folder, a ``config.json``, a built-in name or a name on the hub.

        Args:
            name_or_path: what to load.
            **kwargs: the hub's ``revision``, ``cache_dir``, ``local_files_only``, ``token``; everything else overrides a value.
        """
        values, overrides = cls.get_config_dict(name_or_path, **kwargs)
        return cls.from_dict(values, **overrides)

    @classmethod
    def get_config_dict(
        cls, name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the content of a checkpoint's ``config.json`` and the keyword arguments that are not about finding it."""
        from xlmr_core.hub import HUB_ARGUMENTS, resolve

        where = {key: kwargs.pop(key) for key in HUB_ARGUMENTS if key in kwargs}
        path = Path(name_or_path)
        if not path.is_file():
            path = resolve(name_or_path, patterns=("config.json",), **where) / "config.json"
        values = read_config_json(path)
        values["name_or_path"] = str(name_or_path)
        return values, kwargs

    def to_dict(self) -> dict[str, Any]:
        """Every value as plain Python, ready for ``from_dict``."""
        values = copy.deepcopy(self.__dict__)
        values["model_type"] = self.model_type
        values["dtype"] = dtype_name(self.dtype)
        return dict(sorted(values.items()))

    def to_diff_dict(self) -> dict[str, Any]:
        """The content of ``config.json``: the model's numbers, and what differs from the shared defaults."""
        values = self.to_dict()
        values.pop("name_or_path")
        if self.id2label == {0: "LABEL_0", 1: "LABEL_1"} and self.label2id == {"LABEL_0": 0, "LABEL_1": 1}:
            del values["id2label"], values["label2id"]
        return {
            key: value for key, value in values.items() if key not in SHARED_DEFAULTS or value != SHARED_DEFAULTS[key]
        }

    def to_json_string(self, use_diff: bool = True) -> str:
        """The content of ``config.json`` as text.

        Raises:
            ConfigError: if a value cannot be written, such as a callable ``hidden_act``.
        """
        values = self.to_diff_dict() if use_diff else self.to_dict()
        if callable(self.hidden_act):
            raise ConfigError(
                f"hidden_act is the callable {self.hidden_act!r}, which config.json cannot hold; "
                f"set config.hidden_act to one of {', '.join(ACTIVATIONS)} before saving"
            )
        try:
            return json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        except TypeError as error:
            raise ConfigError(
                f"a config value cannot be written as JSON: {error}; remove it or make it plain"
            ) from error

    def to_json_file(self, path: str | os.PathLike[str]) -> None:
        """Write ``config.json`` to ``path``, all or nothing."""
        from xlmr_core.files import write_atomically

        write_atomically(Path(path), self.to_json_string().encode())

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json`` into ``folder``, which is made if it is missing."""
        text = self.to_json_string()
        folder = Path(folder)
        if folder.is_file():
            raise CheckpointError(f"save_pretrained expects a folder, received the file {folder}; name a folder")
        folder.mkdir(parents=True, exist_ok=True)
        from xlmr_core.files import write_atomically

        write_atomically(folder / "config.json", text.encode())

    def update(self, values: Mapping[str, Any]) -> None:
        """Set several attributes at once, checked together."""
        for key, value in values.items():
            setattr(self, key, value)
        self.validate()

    def copy(self: ConfigT, **overrides: Any) -> ConfigT:
        """A copy with some values replaced; the original stays as it is."""
        return type(self).from_dict(self.to_dict(), **overrides)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, XLMRobertaConfig) or type(self) is not type(other):
            return False
        # Where a configuration came from is no part of it.
        return {**self.to_dict(), "name_or_path": None} == {**other.to_dict(), "name_or_path": None}

    __hash__ = None  # type: ignore[assignment]  # mutable, as published scripts expect

    def __repr__(self) -> str:
        values = {key: repr(value) if callable(value) else value for key, value in self.to_diff_dict().items()}
        return f"{type(self).__name__} {json.dumps(values, indent=2, default=str, ensure_ascii=False)}"


class XLMRobertaXLConfig(XLMRobertaConfig):
    """Configuration of XLM-RoBERTa-XL and -XXL (pre-LN). Arguments as in :class:`XLMRobertaConfig`; only the defaults differ."""

    model_type: str = "xlm-roberta-xl"
    accepted_model_types: ClassVar[tuple[str, ...]] = ("xlm-roberta-xl",)

    def __init__(
        self,
        vocab_size: int = 250880,
        hidden_size: int = 2560,
        num_hidden_layers: int = 36,
        num_attention_heads: int = 32,
        intermediate_size: int = 10240,
        hidden_act: str | Callable[..., Any] = "gelu",
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.1,
        max_position_embeddings: int = 514,
        type_vocab_size: int = 1,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-05,
        pad_token_id: int = 1,
        bos_token_id: int | None = 0,
        eos_token_id: int | None = 2,
        position_embedding_type: str = "absolute",
        use_cache: bool = True,
        classifier_dropout: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            vocab_size,
            hidden_size,
            num_hidden_layers,
            num_attention_heads,
            intermediate_size,
            hidden_act,
            hidden_dropout_prob,
            attention_probs_dropout_prob,
            max_position_embeddings,
            type_vocab_size,
            initializer_range,
            layer_norm_eps,
            pad_token_id,
            bos_token_id,
            eos_token_id,
            position_embedding_type,
            use_cache,
            classifier_dropout,
            **kwargs,
        )

    @classmethod
    def base(cls: type[ConfigT], **kwargs: Any) -> ConfigT:
        raise ConfigError("XLM-RoBERTa-XL has no base size; use XLMRobertaXLConfig.xl() or XLMRobertaConfig.base()")

    @classmethod
    def large(cls: type[ConfigT], **kwargs: Any) -> ConfigT:
        raise ConfigError("XLM-RoBERTa-XL has no large size; use XLMRobertaXLConfig.xxl() or XLMRobertaConfig.large()")

    @classmethod
    def xl(cls, **kwargs: Any) -> XLMRobertaXLConfig:
        """The numbers of ``facebook/xlm-roberta-xl``: 36 layers of 2560, 3.5 B parameters (Goyal et al. 2021)."""
        return cls(**kwargs)

    @classmethod
    def xxl(cls, **kwargs: Any) -> XLMRobertaXLConfig:
        """The numbers of ``facebook/xlm-roberta-xxl``: 48 layers of 4096, 10.7 B parameters (Goyal et al. 2021)."""
        return cls(
            **{
                "hidden_size": 4096,
                "num_hidden_layers": 48,
                "num_attention_heads": 32,
                "intermediate_size": 16384,
                **kwargs,
            }
        )


# What base and large share (Conneau et al. 2020, and the published config.json files).
RELEASED: dict[str, Any] = {
    "vocab_size": 250002,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}

CONFIG_CLASSES: dict[str, type[XLMRobertaConfig]] = {
    model_type: config_class
    for config_class in (XLMRobertaConfig, XLMRobertaXLConfig)
    for model_type in config_class.accepted_model_types
}


def dtype_name(dtype: Any) -> str | None:
    """The plain name of a dtype: a framework's own object carries it as a name, or prints as ``torch.float16``."""
    if dtype is None:
        return None
    return str(getattr(dtype, "name", None) or getattr(dtype, "__name__", dtype)).removeprefix("torch.")


def read_config_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON object from ``path``.

    Raises:
        CheckpointError: if the file is missing, is not UTF-8 JSON, or is not an object.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"expected a config.json at {path}, found none; check the folder, or save the config there"
        ) from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); fetch or save it again") from error
    if not isinstance(values, dict):
        raise CheckpointError(
            f"{path} must hold a JSON object, it holds {type(values).__name__}; fetch or save it again"
        )
    return values


class AutoConfig:
    """Chooses the configuration class by the ``model_type`` of a ``config.json``."""

    @staticmethod
    def from_pretrained(name_or_path: str | os.PathLike[str], **kwargs: Any) -> XLMRobertaConfig:
        """Load the configuration of a checkpoint; arguments as in :meth:`XLMRobertaConfig.from_pretrained`.

        Raises:
            ConfigError: if the architecture is none of XLM-RoBERTa, XLM-RoBERTa-XL, RoBERTa and CamemBERT.
        """
        values, overrides = XLMRobertaConfig.get_config_dict(name_or_path, **kwargs)
        return config_class_of(values).from_dict(values, **overrides)

    @staticmethod
    def for_model(model_type: str, **kwargs: Any) -> XLMRobertaConfig:
        """The default configuration of a model type, with some values set."""
        return config_class_of({"model_type": model_type})(**kwargs)


def config_class_of(values: Mapping[str, Any]) -> type[XLMRobertaConfig]:
    """The configuration class for the content of a ``config.json``; files older than ``model_type`` are told by their architecture."""
    model_type = values.get("model_type")
    if model_type is None:
        architecture = str((values.get("architectures") or ["?"])[0])
        if "XLMRobertaXL" in architecture:
            model_type = "xlm-roberta-xl"
        elif architecture.startswith(("XLMRoberta", "Roberta", "Camembert")):
            model_type = "xlm-roberta"
    if model_type not in CONFIG_CLASSES:
        raise ConfigError(
            f"expected a config.json with model_type {', '.join(map(repr, CONFIG_CLASSES))}, received {model_type!r}; "
            "this library holds XLM-RoBERTa only"
        )
    return CONFIG_CLASSES[model_type]
