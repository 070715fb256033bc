"""The public surface of a package as text: what the documents promise, every name with its signature, one a line.

A package shows the names of its ``__all__``, and of its modules those that ``DOCUMENTED`` lists. A class stands under
its public path, wherever it is written: in which file, and on which classes of ours it is built, is not promised.

Run as a script it writes the frozen lists anew, for all packages whose framework is installed::

    python tests/structure/surface.py

Read the difference before committing it: each line that goes away or changes breaks somebody's code.
"""

from __future__ import annotations

import enum
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic

FROZEN = Path(__file__).resolve().parent / "surface"
# Package -> the framework without which it cannot be imported.
PACKAGES = {"xlmr_core": "numpy", "xlmr_torch": "torch", "xlmr_tf": "tensorflow", "xlmr_flax": "jax"}
# Of the published modeling files.
PARTS = (
    *("Attention", "ClassificationHead", "Embeddings", "Encoder", "Intermediate", "LMHead", "Layer", "Output"),
    *("Pooler", "SelfAttention", "SelfOutput"),
)
POSITIONS = "create_position_ids_from_input_ids"
# The modules that README, docs or examples name, and what of them is promised: the names that stand there, and the
# classes of what those functions return. `test_documented.py` reads the documents and compares.
DOCUMENTED = {
    "xlmr_core.checkpoint": ("Checkpoint", "open_checkpoint", "read_config", "save_checkpoint"),
    "xlmr_core.conversion": ("Conversion", "convert"),
    "xlmr_core.diagnosis": ("Diagnosis", "diagnose"),
    "xlmr_core.errors": (
        *("XLMRError", "CheckpointError", "ConfigError", "InputError", "MissingBackendError"),
        *("ModelNotFoundError", "TokenizerError", "UploadError", "ConfigWarning", "LoadWarning"),
    ),
    "xlmr_core.inspection": ("Inspection", "inspect_model"),
    "xlmr_core.jobs.anywhere": ("Answering",),
    "xlmr_core.onnx": ("BGEM3FlagModel", "OnnxModel", "export"),
    "xlmr_core.quantization": ("scheme_with",),
    "xlmr_core.serverless": ("handler",),
    "xlmr_core.serving": ("Settings", "load_model", "serve"),
    "xlmr_core.tokenization": ("AutoTokenizer", "BatchEncoding", "XLMRobertaTokenizer", "XLMRobertaTokenizerFast"),
    "xlmr_core.training.data": ("Data",),
    "xlmr_core.training.recipe": ("Recipe",),
    "xlmr_core.training.run": ("Run",),
    "xlmr_core.verification": ("Comparison", "compare"),
    "xlmr_flax.batching": ("pad_batch",),
    "xlmr_flax.modeling_xlm_roberta": (POSITIONS,),
    "xlmr_flax.losses": ("cross_entropy", "sequence_loss", "span_loss"),
    "xlmr_flax.packing": ("Packing",),
    "xlmr_flax.sharding": ("DATA_PARALLEL", "FSDP", "TENSOR_PARALLEL", "param_shardings"),
    "xlmr_flax.training": ("model_for", "train"),
    "xlmr_tf.modeling_xlm_roberta": (*(f"TFXLMRoberta{part}" for part in PARTS), "TFXLMRobertaMainLayer"),
    "xlmr_tf.datasets": ("tokenized",),
    "xlmr_tf.distribution": ("training_step",),
    "xlmr_tf.training": ("model_for", "train"),
    "xlmr_torch.int8": ("HAS_FAST_PRODUCT",),
    "xlmr_torch.modeling_xlm_roberta": (*(f"XLMRoberta{part}" for part in PARTS), POSITIONS),
    "xlmr_torch.modeling_xlm_roberta_xl": (*(f"XLMRobertaXL{part}" for part in PARTS), POSITIONS),
    "xlmr_torch.optimizers": ("optimizer_of",),
    "xlmr_torch.training": ("model_for", "train"),
}

# Methods without an underscore, because files of a package call each other by them. Neither documents nor the published
# classes have them, so they may change.
INTERNAL = {
    *("finish", "head_names", "logical_axes", "logits_at", "parameter_table", "prepare", "project", "set_output_bias"),
    *("first_tokens", "locate", "pack", "pool", "unpack"),  # of a Packing
    *("feed_forward", "keep_heads", "relative_scores"),  # of parts
    "special_tokens_json",
}


def installed(package: str) -> bool:
    return importlib.util.find_spec(PACKAGES[package]) is not None


def surface(package: str) -> list[str]:
    """The lines of a package, sorted."""
    public = _public(package)
    # Class -> the path that its methods are listed under: the first of its own package.
    homes: dict[type, str] = {}
    for path, value in [*_public("xlmr_core"), *public]:
        if inspect.isclass(value):
            homes.setdefault(value, path)
    return sorted({line for path, value in public for line in _describe(path, value, homes)})


def _public(package: str) -> list[tuple[str, Any]]:
    top = importlib.import_module(package)
    found = [(f"{package}.{name}", getattr(top, name)) for name in top.__all__]
    for module, names in DOCUMENTED.items():
        if module.startswith(f"{package}."):
            found += [(f"{module}.{name}", getattr(importlib.import_module(module), name)) for name in names]
    return found


def _describe(path: str, value: Any, homes: dict[type, str]) -> Iterator[str]:
    if inspect.isclass(value):
        yield from [f"{path} is {homes[value]}"] if homes[value] != path else _describe_class(path, value, homes)
    elif inspect.isroutine(value):
        yield path + _signature(value)
    elif isinstance(value, str | tuple) and _plain(value):
        yield f"{path} = {value!r}"
    else:  # among them what differs between machines
        yield f"{path}: {type(value).__name__}"


def _plain(value: Any) -> bool:
    return all(map(_plain, value)) if isinstance(value, tuple) else isinstance(value, str | int | float | None)


def _describe_class(path: str, kind: type, homes: dict[type, str]) -> Iterator[str]:
    makes = next((base for base in kind.__mro__ if {"__init__", "__new__"} & vars(base).keys()), object)
    arguments = _signature(_maker(makes)) if _ours(makes) and not issubclass(kind, enum.Enum) else "(...)"
    known = dict.fromkeys(_known_bases(kind, homes))
    bases = ", ".join(
        one.__name__ for one in known if not any(issubclass(other, one) for other in known if other != one)
    )
    yield f"{path}{arguments}" + (f" [{bases}]" if bases else "")
    if issubclass(kind, enum.Enum):
        yield from (f"{path}.{member.name} = {member.value!r}" for member in kind)
        return
    for name, member in _members(kind).items():
        if any(_members(base).get(name) is member for base in kind.__mro__[1:] if base in homes):
            continue  # listed with that class
        if isinstance(member, property):
            yield f"{path}.{name} [property{', settable' if member.fset else ''}]"
        elif isinstance(member, classmethod | staticmethod):
            yield f"{path}.{name}{_signature(member.__func__)} [{type(member).__name__}]"
        elif inspect.isfunction(member):
            yield f"{path}.{name}{_signature(member)}"


def _ours(kind: type) -> bool:
    return kind.__module__.startswith("xlmr_")


def _known_bases(kind: type, homes: dict[type, str]) -> Iterator[type]:
    """The nearest classes above that a user can name: public ones, and those of other libraries."""
    for base in kind.__bases__:
        if base in homes or not _ours(base):
            yield from [base] if base not in (object, Generic) else []
        else:
            yield from _known_bases(base, homes)


def _members(kind: type) -> dict[str, Any]:
    """What a class has by our doing, its own and inherited."""
    every = {name: member for base in reversed(kind.__mro__) if _ours(base) for name, member in vars(base).items()}
    return {name: member for name, member in every.items() if _promised(name)}


def _promised(name: str) -> bool:
    return name == "__call__" or not (name.startswith("_") or name in INTERNAL)


def _maker(kind: type) -> Any:
    """What takes a class's arguments, bound: of a class itself Python 3.11 says other things in its earlier
    releases.
    """
    maker = vars(kind).get("__init__") or vars(kind)["__new__"]
    return getattr(maker, "__func__", maker).__get__(object())


class _Bare(str):
    """An annotation that prints without the quotes that ``from __future__ import annotations`` leaves around it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _signature(value: Any) -> str:
    signature = inspect.signature(value)
    arguments = [
        one.replace(annotation=_Bare(one.annotation)) if isinstance(one.annotation, str) else one
        for one in signature.parameters.values()
    ]
    result = signature.return_annotation
    bare = signature.replace(
        parameters=arguments, return_annotation=_Bare(result) if isinstance(result, str) else result
    )
    return re.sub(r" at 0x[0-9a-f]+", "", str(bare))


def main() -> None:
    FROZEN.mkdir(exist_ok=True)
    for package in PACKAGES:
        if not installed(package):
            print(f"{package}: left as it is, {PACKAGES[package]} is not installed")
            continue
        lines = surface(package)
        (FROZEN / f"{package}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{package}: {len(lines)} lines")


if __name__ == "__main__":
    sys.path.insert(0, str(FROZEN.parents[2]))
    main()
