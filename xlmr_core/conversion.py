"""A checkpoint of any format to any format, all or nothing, a piece of a tensor in memory at a time, without a
framework.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xlmr_core.atomic_files import finish_interrupted
from xlmr_core.bounded_files import is_there
from xlmr_core.checkpoints.casting import cast, tag_of
from xlmr_core.checkpoints.extra_heads import EXTRA_HEAD_FILES, extra_head_contents, read_extra_heads
from xlmr_core.checkpoints.load_plan import LoadReport
from xlmr_core.checkpoints.model_files import ModelFiles, open_model
from xlmr_core.checkpoints.quantizing import dequantized, quantized
from xlmr_core.checkpoints.saving import save_checkpoint
from xlmr_core.config import EncoderDecoderConfig, read_config_json
from xlmr_core.errors import CheckpointError
from xlmr_core.formats import FORMATS
from xlmr_core.formats.fairseq_format import fairseq_dictionary
from xlmr_core.formats.finding import MODULES
from xlmr_core.formats.modules import listed_modules, module_files, small_content
from xlmr_core.formats.tensors import LazyTensor
from xlmr_core.heads import head_called
from xlmr_core.probe import Counter, Progress
from xlmr_core.quantization import Scheme, find_scheme
from xlmr_core.tokenization.dictionary import DICTIONARY_FILE, check_json_ids, read_model_file
from xlmr_core.tokenization.files import ADDED_FILE, CONFIG_FILE, SPECIAL_FILE, TOKENIZER_FILE, VOCAB_FILE
from xlmr_core.tokenization.spm import SentencePieceModel
from xlmr_core.verification import Comparison, compare_files
from xlmr_core.wording import number

__all__ = [
    *("COPIED", "Conversion", "convert", "folders_for", "refuse_mixture", "small_files"),
    "writable_formats",
]

_CONFIG = "config.json"
# Small files that belong to a model and are copied beside its weights, where there are any: the tokenizer, how to
# generate, what makes a sentence encoder of it (beside the folders that the list of modules names), and the other heads
# of bge-m3.
TOKENIZER_FILES = (VOCAB_FILE, TOKENIZER_FILE, CONFIG_FILE, SPECIAL_FILE, ADDED_FILE, DICTIONARY_FILE)
COPIED = (
    *TOKENIZER_FILES,
    "generation_config.json",
    *(MODULES, "config_sentence_transformers.json", "sentence_bert_config.json"),
    *EXTRA_HEAD_FILES,
)
# Formats whose own libraries keep the longest text elsewhere than beside the tokenizer.
_WITHOUT_SETTINGS = ("fairseq", "kerashub")


@dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    Attributes:
        source: the file or index that was read.
        destination: the folder that was written.
        from_format, to_format: names of ``FORMATS``.
        architecture: the class of the model.
        files: the weight files that were written.
        copied: the small files beside them, ``config.json`` included.
        tensors, nbytes: how many tensors were written, and their bytes.
        seconds: from the first byte read to the last file in place; verifying is not counted.
        report: what became of every tensor of the source; parameters that it lacks are not written.
        comparison: of source and result, if it was asked for.
        own_class: the class that the source's configuration names, where this library does not know it; what it has
            beyond ``architecture`` is left out.
        quantized: how many weights were quantized, and how, in the words of config.json; ``None`` if none was.
    """

    source: str
    destination: Path
    from_format: str
    to_format: str
    architecture: str
    files: tuple[Path, ...]
    copied: tuple[str, ...]
    tensors: int
    nbytes: int
    seconds: float
    report: LoadReport
    comparison: Comparison | None = None
    own_class: str = ""
    quantized: dict[str, Any] | None = None


def writable_formats() -> tuple[str, ...]:
    """The formats that checkpoints are written in."""
    return tuple(name for name, format in FORMATS.items() if format.can_write)


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    to: str,
    *,
    head: str | None = None,
    part: str | None = None,
    dtype: str | None = None,
    allow_overflow: bool = False,
    pooler: bool = True,
    max_shard_size: int | str = "5GB",
    verify: bool = False,
    force: bool = False,
    scheme: str | Scheme | None = None,
    dequantize: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Write a checkpoint in another format, with its configuration, its tokenizer and the other files of ``COPIED``.

    Whatever goes wrong, and whenever the process is killed, the destination holds the weights that it held before, or
    the new ones, with the small files that belong to them. An error leaves every file as it was. After a kill between
    the renames the next that reads the folder, or saves to it, does the rest; other libraries may until then see new
    small files beside the old weights, which ``xlmr doctor`` says.

    Args:
        source: a folder, a file of weights, a built-in name or a name on the hub; in any format that can be read.
        destination: a folder; made if it is missing. The source's own folder will do for another format and no other
            dtype.
        to: a name of :func:`writable_formats`.
        head: a suffix of ``HEADS``, where neither the configuration nor the parameters say it.
        part: of a source that holds several models or heads, the one to read: see
            :func:`xlmr_core.checkpoint.open_checkpoint`.
        dtype: ``float32``, ``float16``, ``bfloat16`` or ``float64`` for all parameters, rounded to nearest and ties to
            even; by default every parameter keeps its own, bit for bit.
        allow_overflow: let values that are too large for ``dtype`` become infinite.
        pooler: keep a pooler, if the source has one; fairseq has no place for it.
        max_shard_size: bytes of a weight file at most, or a text such as ``5GB``, where the format knows shards.
        verify: compare source and result: values, tokenizer ids, and the outputs of a small forward pass in the NumPy
            reference.
        force: replace files in ``destination`` that differ. Nothing else there is removed.
        scheme: quantize the weights that it takes, by name or with settings; see docs/quantization.md. Only
            safetensors hold them.
        dequantize: write the floating point weights that quantized ones stand for, in ``dtype`` or float32.
        progress: called with what is being done, the bytes that are done, and all there are.

    Raises:
        ModelNotFoundError, ConfigError, CheckpointError: if the source cannot be read, or cannot be written in that
            format.
        TokenizerError: if fairseq's dict.txt and the tokenizer beside it are of different vocabularies.
        CheckpointError: if files would be replaced without ``force``, if other files in ``destination`` would be
            mistaken for parts of the new checkpoint, or if the disk refuses.
    """
    folder = Path(destination).expanduser()
    if to not in writable_formats():
        raise CheckpointError(f"expected a format of {', '.join(writable_formats())} to write, received {to!r}")
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"expected a folder to write to, received the file {folder}; name a folder")
    if dequantize and dtype is None:
        dtype = "float32"
    tag = None if dtype is None else tag_of(dtype)
    with open_model(source, head=head, part=part) as opened:
        files = opened
        if to == "fairseq" and files.pooler and pooler and head_called(files.head).pooler:
            raise CheckpointError(
                f"fairseq has no place for the pooler of {files.architecture}; leave it out with pooler=False, or "
                "write another format"
            )
        if to == "fairseq" or not pooler:
            # Where no head reads it none is missed.
            files = replace(files, pooler=False)
        _check_quantization(files, scheme, dequantize, to, tag, verify)
        chosen = None if scheme is None else _planned(find_scheme(scheme), files)
        small = small_files(files, dtype)
        if chosen is not None or dequantize:
            small[_CONFIG] = _said(small[_CONFIG], chosen)
        finish_interrupted(folder)
        _complete(small, files, to, folder)
        refuse_mixture(files, folder, to, small, force)
        streams = dequantized(files.streams(), files.rows) if dequantize else files.streams()
        tensors = {
            name: stream if tag is None else cast(stream, tag, name=name, allow_overflow=allow_overflow)
            for name, stream in streams.items()
        }
        if chosen is not None:
            tensors = _quantized(chosen, tensors, files)
        start = time.perf_counter()
        with folders_for(folder, small):
            written = save_checkpoint(
                folder,
                to,
                _counted(tensors, progress),
                files.config,
                files.head,
                max_shard_size=max_shard_size,
                together=small,
            )
        done = Conversion(
            source=str(files.checkpoint.path),
            destination=folder,
            from_format=files.checkpoint.format,
            to_format=to,
            architecture=files.architecture,
            files=tuple(written),
            copied=tuple(small),
            tensors=len(tensors),
            nbytes=sum(tensor.nbytes for tensor in tensors.values()),
            seconds=time.perf_counter() - start,
            report=files.plan.report,
            own_class=files.own_class,
            quantized=None if chosen is None else chosen.written(),
        )
        if not verify:
            return done
        with open_model(folder, head=files.head, format=to) as result:
            has_tokenizer = TOKENIZER_FILE in small or VOCAB_FILE in small
            comparison = compare_files(files, result, tokenizers=has_tokenizer, progress=progress)
            return replace(done, comparison=comparison)


# Quantized weights


def _check_quantization(
    files: ModelFiles, scheme: str | Scheme | None, dequantize: bool, to: str, tag: str | None, verify: bool
) -> None:
    """Refuse what cannot be done with quantized weights."""
    if scheme is not None and dequantize:
        raise CheckpointError("scheme and dequantize=True ask for opposites; pass one of them")
    if files.scheme is None and dequantize:
        raise CheckpointError(f"{files.name} has no quantized weights, expected some; leave dequantize out")
    if files.scheme is not None and scheme is not None:
        raise CheckpointError(
            f"{files.name} has {files.scheme.name} weights already, expected floating point ones; quantize the "
            "checkpoint it was made from"
        )
    if files.scheme is not None and not dequantize and (tag is not None or to != "safetensors"):
        raise CheckpointError(
            f"{files.name} has {files.scheme.name} weights, which are kept as they are and in safetensors only; "
            "convert the checkpoint it was made from, or pass dequantize=True"
        )
    if scheme is not None and to != "safetensors":
        raise CheckpointError(f"quantized weights are kept in safetensors only, received {to!r}; write safetensors")
    if scheme is not None and verify:
        raise CheckpointError("verify=True finds every value that quantizing rounds; leave it out")


def _planned(scheme: Scheme, files: ModelFiles) -> Scheme:
    planned = scheme.planned(files.rows)
    if not any(planned.takes(row) for row in files.rows.values()):
        raise CheckpointError(f"{files.architecture} has no weight that {scheme.name} takes; convert it as it is")
    return planned


def _quantized(scheme: Scheme, tensors: Mapping[str, LazyTensor], files: ModelFiles) -> dict[str, LazyTensor]:
    found: dict[str, LazyTensor] = {}
    for name, stream in tensors.items():
        row = files.rows[name]
        found |= quantized(scheme, row, stream) if scheme.takes(row) else {name: stream}
    return found


def _said(config_json: bytes, scheme: Scheme | None) -> bytes:
    """A ``config.json`` that says how its weights are quantized, or that they are not."""
    values = json.loads(config_json)
    values.pop("quantization_config", None)
    if scheme is not None:
        values["quantization_config"] = scheme.written()
    return (json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


# Small files


def small_files(files: ModelFiles, dtype: str | None = None) -> dict[str, bytes]:
    """The files that belong beside the weights, by their path in the folder: ``config.json`` and those of ``COPIED``
    that there are.

    A sentence encoder that keeps its transformer in a folder of its own gets its parts from the folder above.

    Args:
        files: the open source.
        dtype: of the weights to be written; ``config.json`` is copied as it is unless this changes it.
    """
    found = {_CONFIG: _config_json(files, dtype)}
    root = files.folder
    nested = not (root / MODULES).is_file() and (root.parent / MODULES).is_file() and _is_module(root)
    base = () if files.base is None else (files.base,)
    for folder in (*base, *((root.parent, root) if nested else (root,))):
        for name in COPIED:
            other = folder == files.base and name in TOKENIZER_FILES and files.tokenizer != folder
            no_json = name == TOKENIZER_FILE and files.tokenizer not in (root, files.base)
            if (folder / name).is_file() and not (other or no_json):
                found[name] = small_content(folder / name)
        # The rows of a model of fairseq follow dict.txt, and nobody else reads that: its order goes into the model.
        if (folder / VOCAB_FILE).is_file():
            found[VOCAB_FILE] = read_model_file(folder / VOCAB_FILE)
        if TOKENIZER_FILE in found and (folder / TOKENIZER_FILE).is_file():
            check_json_ids(folder / TOKENIZER_FILE)
        if (folder / MODULES).is_file():
            found.update(module_files(folder, root))
        # What is there stays bit for bit; a head that is there in one of its formats is written in the other too.
        found.update({**extra_head_contents(read_extra_heads(folder)), **found})
    if files.tokenizer is not None and files.tokenizer.is_file():
        found[VOCAB_FILE] = small_content(files.tokenizer)
    if files.checkpoint.format in _WITHOUT_SETTINGS and VOCAB_FILE in found and CONFIG_FILE not in found:
        found[CONFIG_FILE] = _settings(files)
    return found


def _config_json(files: ModelFiles, dtype: str | None) -> bytes:
    path = files.folder / _CONFIG
    values = read_config_json(path) if is_there(path) else {}
    of_whole = values.get("model_type") == EncoderDecoderConfig.model_type != files.config.model_type
    # There is none, or it is another library's, or that of the whole of which this is a side.
    if of_whole or not {"model_type", "architectures"} & set(values):
        config = files.config.copy(architectures=[files.architecture], dtype=dtype or files.config.dtype)
        return config.to_json_string().encode()
    changed = dict(values)
    if files.base is not None:  # whose weights are widened
        changed.pop("quantization_config", None)
    if dtype is not None:
        changed.pop("torch_dtype", None)
        changed["dtype"] = dtype
    # Names of the original library's other classes (TFXLMRobertaForMaskedLM) mean the same model.
    if changed.get("architectures") != [files.architecture]:
        changed["architectures"] = [files.architecture]
    if changed == values:
        return path.read_bytes()
    return (json.dumps(changed, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _complete(small: dict[str, bytes], files: ModelFiles, to: str, folder: Path) -> None:
    """Make from the vocabulary what the source does not have: what the format wants, and what stands in the destination
    already and speaks of the vocabulary that was there before, such as what an earlier conversion made.
    """
    if VOCAB_FILE not in small:
        return
    # The model has its pieces in the order of the dictionary now, which only fairseq asks for.
    small.pop(DICTIONARY_FILE, None)
    if to == "fairseq" or (folder / DICTIONARY_FILE).is_file():
        small[DICTIONARY_FILE] = fairseq_dictionary(SentencePieceModel.from_bytes(small[VOCAB_FILE]).pieces)
    if CONFIG_FILE not in small and (folder / CONFIG_FILE).is_file():
        small[CONFIG_FILE] = _settings(files)


def _settings(files: ModelFiles) -> bytes:
    """The settings of a tokenizer that come from the model."""
    settings = {"model_max_length": files.config.max_tokens, "tokenizer_class": "XLMRobertaTokenizer"}
    return (json.dumps(settings, indent=2) + "\n").encode()


def _is_module(folder: Path) -> bool:
    """Whether the list of modules in the folder above names this folder."""
    return any(module.get("path") == folder.name for module in listed_modules(folder.parent))


# The destination


def refuse_mixture(
    files: ModelFiles, folder: Path, to: str, small: Mapping[str, bytes], force: bool, target: str | None = None
) -> None:
    """Refuse to replace files, of weights that of the format or ``target``, unless ``force`` allows it, and to write
    beside files that loaders would take for parts of the new checkpoint.
    """
    if not folder.is_dir():
        return
    own = files.checkpoint.path
    weights = {name: path for name, format in FORMATS.items() if (path := format.find(folder)) is not None}
    if files.folder.resolve() == folder.resolve():
        # A further head in its other format is new, and nothing is overwritten.
        changed = [
            name
            for name, content in small.items()
            if not (holds(folder / name, content) or (name in EXTRA_HEAD_FILES and not (folder / name).exists()))
        ]
        if to == files.checkpoint.format or changed:
            what = Path(own).name if to == files.checkpoint.format else ", ".join(changed)
            raise CheckpointError(
                f"{folder} is the source itself, and {what} would be overwritten; choose another folder"
            )
    else:
        strangers = [path.name for name, path in weights.items() if name != to]
        strangers += [name for name in COPIED if name not in small and (folder / name).exists()]
        if strangers:
            raise CheckpointError(
                f"{folder} holds {', '.join(strangers)}, which would be read with the new weights but "
                f"{number(strangers, 'does', 'do')} not belong to them; remove {number(strangers, 'it', 'them')}, or "
                "choose another folder"
            )
    if target is None:
        replaced = [weights[to].name] if to in weights else []
    else:
        replaced = [target] if (folder / target).exists() else []
    replaced += [
        name for name, content in small.items() if (folder / name).exists() and not holds(folder / name, content)
    ]
    if replaced and not force:
        raise CheckpointError(
            f"{folder} holds {', '.join(replaced)} already; choose another folder, or pass force=True to replace "
            f"{number(replaced, 'it', 'them')}"
        )


def holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content


@contextlib.contextmanager
def folders_for(folder: Path, small: Iterable[str]) -> Iterator[None]:
    """The folders that the files go into; those that were made and stayed empty, because something failed, go again."""
    wanted = [folder, *dict.fromkeys((folder / name).parent for name in small if "/" in name)]
    # Parents of the destination that are missing come first.
    missing = [path for path in (*reversed(folder.parents), *wanted) if not path.exists()]
    try:
        for path in missing:
            path.mkdir(exist_ok=True)
        yield
    except BaseException as error:
        for path in reversed(missing):
            with contextlib.suppress(OSError):
                path.rmdir()
        if isinstance(error, OSError) and not isinstance(error, CheckpointError):
            raise CheckpointError(
                f"cannot write to {folder}: {error.strerror or error}; choose another folder"
            ) from error
        raise


# Progress


def _counted(tensors: Mapping[str, LazyTensor], progress: Progress | None) -> dict[str, LazyTensor]:
    """The streams, each telling how much of it was taken."""
    nbytes = sum(tensor.nbytes for tensor in tensors.values())
    counter = Counter("converting", nbytes, progress)

    def counted(tensor: LazyTensor) -> LazyTensor:
        def pieces() -> Iterator[memoryview]:
            for piece in tensor.pieces():
                yield piece
                counter(piece.nbytes)

        return LazyTensor(tensor.dtype, tensor.shape, pieces)

    return {name: counted(tensor) for name, tensor in tensors.items()}
