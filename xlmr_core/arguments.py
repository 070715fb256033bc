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

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol, TypeAlias

from xlmr_core.errors import InputError

__all__ = [
    *(
        "FORMAT_ARGUMENTS",
        "HUB_ARGUMENTS",
        "MODEL_NOT_NEEDED",
        "NOT_NEEDED",
        "ONLY",
        "PART",
        "UPLOAD_ARGUMENTS",
        "Served",
    ),
    *("check_known", "known_names", "model_only", "refuse_unknown", "refuse_upload"),
    "without_published",
]

# Where to look for a model, see :func:`xlmr_core.hub.resolve`.
HUB_ARGUMENTS = ("revision", "cache_dir", "local_files_only", "token", "force_download", "subfolder")
# Which file of a folder to read, see :func:`xlmr_core.checkpoints.found.format_asked_for`.
FORMAT_ARGUMENTS = ("use_safetensors", "from_pt", "from_tf", "from_flax")
# Which of several models in it, see :func:`xlmr_core.checkpoint.open_checkpoint`.
PART = "part"
# Of save_pretrained, about an upload.
UPLOAD_ARGUMENTS = (
    *("repo_id", "use_temp_dir", "commit_message", "commit_description", "private", "token", "max_shard_size"),
    *("create_pr", "safe_serialization", "revision", "tags", "organization", "repo_url", "use_auth_token"),
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
# Values of these are not shown in messages.
_SECRET = ("use_auth_token", "proxies")


def model_only(quantization: str) -> Served:
    """``ONLY`` of models; ``quantization`` is what to do in place of asking this backend for a quantized model."""
    return {
        **ONLY,
        "variant": ((None,), "variants are not looked up; pass the path of the folder or file that holds it"),
        "quantization_config": ((None,), quantization),
        "load_in_8bit": ((False,), quantization),
        "load_in_4bit": ((False,), quantization),
        "key_mapping": ((None,), "names are mapped by the loader itself; rename the tensors, or pass state_dict="),
        **dict.fromkeys(
            ("tp_plan", "tp_size", "device_mesh"),
            ((None,), "a model is loaded onto one device; shard it afterwards, with the framework's own means"),
        ),
        "push_to_hub": ((False,), "this library does not upload; use huggingface_hub.upload_folder"),
    }


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


def refuse_upload(push_to_hub: Any) -> None:
    """Refuse ``save_pretrained(..., push_to_hub=True)``.

    Raises:
        InputError: if it is true.
    """
    if push_to_hub:
        raise InputError(
            "push_to_hub=True asks for an upload, which this library does not do; use huggingface_hub.upload_folder"
        )


# ---- Names that nobody knows


class _Values(Protocol):
    """The part of a configuration that tells its names."""

    def to_dict(self) -> dict[str, Any]: ...


# Other names under which a configuration takes a value.
ALIASES = ("num_labels", "torch_dtype", "_num_labels", "_name_or_path", "attn_implementation", "_attn_implementation")
# Published values of any configuration that no model here reads (but ``torchscript``, which asks for tuples). They are
# kept.
UNREAD = (
    *("cross_attention_hidden_size", "tie_encoder_decoder", "prefix", "torchscript", "use_bfloat16", "tf_legacy_loss"),
    *("max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty"),
    *("temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size"),
    *("encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "output_scores", "suppress_tokens"),
    *("return_dict_in_generate", "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values"),
    *("exponential_decay_length_penalty", "begin_suppress_tokens"),
)


def known_names(config: _Values) -> set[str]:
    """The names under which a configuration takes values."""
    return {*config.to_dict(), *ALIASES, *UNREAD}


def check_known(config: _Values, names: Iterable[str], caller: str) -> None:
    """Refuse arguments that name no value of a configuration, with the nearest that there is.

    Args:
        config: the configuration.
        names: what was passed.
        caller: what to call the place in the message, such as ``XLMRobertaModel.from_pretrained()``.

    Raises:
        TypeError: for the first such name.
    """
    refuse_unknown(names, known_names(config), caller)


def refuse_unknown(names: Iterable[str], known: Iterable[str], caller: str) -> None:
    """Refuse arguments that are not known, with the nearest known name.

    Args:
        names: what was passed.
        known: what there is.
        caller: what to call the place in the message, such as ``XLMRobertaConfig.from_pretrained()``.

    Raises:
        TypeError: for the first unknown name.
    """
    known = sorted(known)
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else "check the spelling"
            raise TypeError(f"{caller} does not know the argument {name!r}; {remedy}")
