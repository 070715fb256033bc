"""The published arguments of ``from_pretrained`` and ``save_pretrained``: which are served, which ask for nothing here,
which are unknown.

A script that was written for the original library passes many arguments. Each is one of these:

==============================  =============================================================
an argument                     what happens to it
==============================  =============================================================
of the function itself          it is served
of ``NOT_NEEDED``               nothing; any value will do
of ``ONLY``                     some values ask for nothing, all others are refused
any other name                  refused, with the nearest name that is known
==============================  =============================================================
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Protocol, TypeAlias

from xlmr_core.errors import InputError
from xlmr_core.wording import MOST_COMPARED, letters_apart, nearest

__all__ = [
    *("FORMAT_ARGUMENTS", "HUB_ARGUMENTS", "LOADER_ARGUMENTS", "MODEL_NOT_NEEDED", "MODEL_ONLY", "NOT_NEEDED"),
    *("ONLY", "PART", "Served"),
    *("check_known", "known_names", "misspelt_keys", "refuse_unknown"),
    *("reworded_call", "suggestion", "without_published"),
]

# Where to look for a model, see :func:`xlmr_core.hub.resolve`.
HUB_ARGUMENTS = ("revision", "cache_dir", "local_files_only", "token", "force_download", "subfolder")
# Which file of a folder to read, see :func:`xlmr_core.checkpoints.found.format_asked_for`.
FORMAT_ARGUMENTS = ("use_safetensors", "from_pt", "from_tf", "from_flax")
# Which of several models in it, see :func:`xlmr_core.checkpoint.open_checkpoint`.
PART = "part"
# Of from_pretrained of models, in one backend or another.
LOADER_ARGUMENTS = (
    *("config", "state_dict", "dtype", "torch_dtype", "device", "device_map", "attn_implementation", "packing"),
    *("ignore_mismatched_sizes", "output_loading_info", PART),
)

# Of every from_pretrained. No code is fetched here, and the hub's package does the rest.
NOT_NEEDED = (
    *("trust_remote_code", "code_revision", "resume_download", "mirror"),
    *("_fast_init", "_from_auto", "_from_pipeline", "_commit_hash"),
)
# Of from_pretrained of models. Memory is the model once without any of them.
MODEL_NOT_NEEDED = (
    *NOT_NEEDED,
    *("low_cpu_mem_usage", "max_memory", "offload_folder", "offload_state_dict", "offload_buffers", "weights_only"),
    *("generation_config", "use_kernels", "adapter_kwargs", "load_weight_prefix", "tf_to_pt_weight_rename"),
)

# By argument: the values that can be served, and what to do with any other value.
Served: TypeAlias = Mapping[str, tuple[tuple[Any, ...], str]]

# Of every from_pretrained.
ONLY: Served = {
    "use_auth_token": ((None, False), "it was renamed; pass token="),
    "proxies": ((None,), "set the HTTPS_PROXY environment variable"),
    "gguf_file": ((None,), "GGUF is not read; pass the checkpoint that it was made from"),
}
_UNLOADED = "a model that is not loaded is not quantized; call quantize(model, ...) on it"
# Of from_pretrained and from_config of models.
MODEL_ONLY: Served = {
    **ONLY,
    "variant": ((None,), "variants are not looked up; pass the path of the folder or file that holds it"),
    "quantization_config": ((None,), _UNLOADED),
    "load_in_8bit": ((False,), _UNLOADED),
    "load_in_4bit": ((False,), _UNLOADED),
    "key_mapping": ((None,), "names are mapped by the loader itself; rename the tensors, or pass state_dict="),
    **dict.fromkeys(
        ("tp_plan", "tp_size", "device_mesh"),
        ((None,), "a model is loaded onto one device; shard it afterwards, with the framework's own means"),
    ),
    "push_to_hub": ((False,), "it is an argument of save_pretrained, and a method of models"),
}
# Values of these are not shown in messages.
_SECRET = ("use_auth_token", "proxies")


def without_published(
    kwargs: Mapping[str, Any], only: Served = ONLY, not_needed: Collection[str] = NOT_NEEDED
) -> dict[str, Any]:
    """The arguments without those of the two tables.

    Args:
        kwargs: what was passed.
        only: arguments of which some values can be served.
        not_needed: arguments of which every value will do.

    Raises:
        InputError: for a value that cannot be served.
    """
    left = {}
    for key, value in kwargs.items():
        if key in only:
            served, remedy = only[key]
            if value not in served:
                received = f"a {type(value).__name__}" if key in _SECRET else repr(value)
                raise InputError(f"{key} must be {' or '.join(map(repr, served))}, received {received}: {remedy}")
        elif key not in not_needed:
            left[key] = value
    return left


# ---- Names that nobody knows


class _Values(Protocol):
    """The part of a configuration that tells its names."""

    def to_dict(self) -> dict[str, Any]: ...


# Other names under which a configuration takes a value.
ALIASES = (
    *("num_labels", "_num_labels", "torch_dtype", "name_or_path", "_name_or_path"),
    *("attn_implementation", "_attn_implementation", "model_type"),
)
# Published values of any configuration that no model here reads (but ``torchscript``, which asks for tuples), with the
# value of a configuration that does not say. They are kept.
UNREAD: dict[str, Any] = {
    "cross_attention_hidden_size": None,
    "tie_encoder_decoder": False,
    "prefix": None,
    "torchscript": False,
    "use_bfloat16": False,
    "tf_legacy_loss": False,
    "transformers_version": None,
}
# Published values about generation, which the original library took out of its configurations. They are kept too, and
# have no value where nobody says one.
OF_GENERATION = (
    *("max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty"),
    *("temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size"),
    *("encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "output_scores", "suppress_tokens"),
    *("return_dict_in_generate", "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values"),
    *("exponential_decay_length_penalty", "begin_suppress_tokens"),
)
# Names of one value: who gave one gave all.
SAME_VALUE = (
    ("num_labels", "_num_labels", "id2label", "label2id"),
    ("dtype", "torch_dtype"),
    ("name_or_path", "_name_or_path"),
    ("attn_implementation", "_attn_implementation"),
)
# Keys that files have beside those, and that are no misspelling of any.
NO_MISSPELLINGS = ("type", "cls_token_id", "mask_token_id", "unk_token_id", "eos_token_ids")


def known_names(config: _Values) -> set[str]:
    """The names under which a configuration takes values."""
    return {*config.to_dict(), *ALIASES, *UNREAD, *OF_GENERATION}


def check_known(config: _Values, names: Iterable[str], caller: str, others: Iterable[str] = ()) -> None:
    """Refuse arguments that name no value of a configuration, with the nearest that there is.

    Args:
        config: the configuration.
        names: what was passed.
        caller: what to call the place in the message, such as ``XLMRobertaModel.from_pretrained()``.
        others: what the place takes as well, and may have been meant.

    Raises:
        TypeError: for the first such name.
    """
    refuse_unknown(names, known_names(config), caller, others)


def refuse_unknown(names: Iterable[str], known: Iterable[str], caller: str, others: Iterable[str] = ()) -> None:
    """Refuse arguments that are not known, with the nearest known name.

    Args:
        names: what was passed.
        known: what there is.
        caller: what to call the place in the message, such as ``XLMRobertaConfig.from_pretrained()``.
        others: what the place takes as well, and may have been meant.

    Raises:
        TypeError: for the first unknown name.
    """
    known = set(known)
    for name in names:
        if name not in known:
            near = suggestion(name, sorted({*known, *others}))
            raise TypeError(f"{caller} does not know the argument {name!r}; {near}")


def reworded_call(model: object, call: Callable[..., Any], error: TypeError, passed: Iterable[str]) -> TypeError | None:
    """Python's refusal of an argument said again, with the class that was called and the nearest name.

    Args:
        model: what was called.
        call: the function of its class that the arguments go to.
        error: what Python said.
        passed: the names of the arguments.

    Returns:
        The error to raise in its place; ``None`` if no argument was the matter.
    """
    if "unexpected keyword argument" not in str(error):
        return None
    import inspect  # where something went wrong only

    known = list(inspect.signature(call).parameters)[1:]
    try:
        refuse_unknown(passed, known, f"{type(model).__name__}()")
    except TypeError as better:
        return better
    return None


def suggestion(name: str, known: Iterable[str], otherwise: str = "check the spelling") -> str:
    """A question after the known name that was probably meant, or what to do in its place."""
    near = nearest(name, known)
    return f"did you mean {near!r}?" if near else otherwise


def misspelt_keys(given: Collection[str], meant: Collection[str]) -> dict[str, str]:
    """The keys that mean nothing, where the nearest that does is at most two letters away and not given, with that one.

    Args:
        given: all keys of a configuration.
        meant: those that its class reads.
    """
    said = {*given, *(name for names in SAME_VALUE if any(name in given for name in names) for name in names)}
    # Of two that are as near, the one that is not given is meant.
    known = sorted(meant, key=lambda name: (name in said, name))
    found = {}
    others = {*meant, *UNREAD, *OF_GENERATION, *NO_MISSPELLINGS}
    for key in sorted([key for key in given if key not in others][:MOST_COMPARED]):
        # Of a short word, two letters make another word.
        most = 1 if len(key) < 6 else 2
        near = min(known, key=lambda name: letters_apart(key, name, most))
        if near not in said and letters_apart(key, near, most) <= most:
            found[key] = near
    return found
