"""Checks of the weights and of the files that hold them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from xlmr_core.checkpoints.casting import TAG_OF_FLOAT
from xlmr_core.checkpoints.load_plan import OTHER_TASK
from xlmr_core.checkpoints.model_files import open_model
from xlmr_core.config import EncoderDecoderConfig, XLMRobertaXLConfig, parts_of_config
from xlmr_core.diagnosis.examined import Examined, Remark, advice, fault, in_words, json_object, listed
from xlmr_core.errors import CheckpointError, ConfigError
from xlmr_core.formats import FORMATS
from xlmr_core.parameters import Role
from xlmr_core.probe import largest_activation
from xlmr_core.verification import compare_files
from xlmr_core.wording import counted, number

LARGEST_FLOAT16 = 65504.0
_SHARD = re.compile(r".+-\d{5}-of-\d{5}\.(safetensors|bin|h5|msgpack)")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def check_fits(examined: Examined) -> Iterator[Remark]:
    if examined.plan is None:
        examined.files.plan  # noqa: B018  # raises the error that says why
    yield from ()


def check_head(examined: Examined) -> Iterator[Remark]:
    if examined.plan is None:
        return
    missing = examined.plan.report.missing
    if missing:
        yield fault(
            f"{listed(list(missing))} not in the file: {examined.files.architecture} would start "
            f"{number(missing, 'it', 'them')} with fresh, untrained values",
            "train the model before use, load the class that the file was saved from, or correct architectures in "
            "config.json",
        )
    if not examined.config.architectures:
        yield advice(
            f"config.json names no architectures; by its parameters this is {examined.files.architecture}",
            f'add "architectures": ["{examined.files.architecture}"]',
        )
    own_class, own = examined.files.own_class, examined.files.own_parts
    if own_class:
        parts = f"{counted(len(own), 'tensor')} of its own ({listed(list(own))})" if own else "no tensor of its own"
        yield advice(
            f"config.json names {own_class}, which is none of this library; it has {parts}, and what is examined is "
            f"the {examined.files.architecture} in it",
            f"load it with {own_class} itself; {examined.files.architecture} leaves its own parts out",
        )
    others = [row.name for row in examined.plan.report.dropped if row.why == OTHER_TASK and row.name not in own]
    if others and missing:
        yield fault(
            f"the file holds {listed(others)}, {OTHER_TASK} than {examined.files.architecture}",
            "load the class of that task, or correct architectures in config.json",
        )
    if isinstance(examined.config, EncoderDecoderConfig):
        return
    is_decoder = examined.config.is_decoder
    if examined.files.head == "ForCausalLM" and not is_decoder:
        yield fault(
            "a causal language model with is_decoder=false in config.json: every token would see the ones it has to "
            "predict",
            "set is_decoder to true",
        )
    if examined.files.head != "ForCausalLM" and examined.files.head != "Model" and is_decoder:
        yield fault(
            f"{examined.files.architecture} with is_decoder=true in config.json: a token would not see what follows it",
            "set is_decoder to false",
        )


def check_leftovers(examined: Examined) -> Iterator[Remark]:
    if examined.plan is None:
        return
    unexpected = examined.plan.report.unexpected
    if unexpected and not examined.files.own_class:
        yield advice(
            f"{listed(list(unexpected))} in the file {number(unexpected, 'has', 'have')} no place in "
            f"{examined.files.architecture}",
            f"nothing, if {number(unexpected, 'it belongs', 'they belong')} to another tool; otherwise check "
            "architectures and the numbers in config.json",
        )
    for note in examined.plan.report.notes:
        what, _, remedy = note.rstrip(".").rpartition("; ")
        yield fault(what, remedy)


def check_files(examined: Examined) -> Iterator[Remark]:
    own = examined.files.checkpoint
    used = {Path(own.path).name, *(own.info(name).file.name for name in own.names)}
    for format in FORMATS.values():
        other = format.find(examined.folder)
        if format.name == own.format or other is None or other.name in used:
            continue
        try:
            with open_model(other, head=examined.files.head, format=format.name) as another:
                if (another.scheme is None) is not (examined.files.scheme is None):
                    continue  # a quantized graph beside the weights that it was made of
                compared = compare_files(
                    examined.files, another, tokenizers=False, outputs=False, progress=examined.progress
                )
        except (CheckpointError, ConfigError) as error:
            what, remedy = in_words(error)
            yield fault(
                f"{other.name} stands beside {Path(own.path).name} and cannot be read: {what}",
                f"{remedy}, or remove it",
            )
            continue
        used |= {other.name, *(another.checkpoint.info(name).file.name for name in another.checkpoint.names)}
        differing = [*compared.only_a, *compared.only_b]
        differing += [*(row.name for row in compared.shapes), *(row.name for row in compared.values)]
        if differing:
            yield fault(
                f"{other.name} and {Path(own.path).name} hold different weights ({listed(differing)}): "
                "which of them is loaded depends on the loader",
                "remove the stale one",
            )
    for format in FORMATS.values():
        both = [name for name in (format.single, format.index) if name and (examined.folder / name).is_file()]
        if len(both) == 2:
            yield fault(
                f"{both[1]} stands beside {both[0]}, which is read in its place", "remove the one that is stale"
            )
    files = [path.name for path in sorted(examined.folder.iterdir()) if path.is_file()]
    stray = [
        name for name in files if _SHARD.fullmatch(name) and name not in used and not _indexed(examined.folder, name)
    ]
    if stray:
        yield fault(
            f"no index names the {number(stray, 'shard', 'shards')} {listed(stray)}",
            f"remove {number(stray, 'it if it is', 'them if they are')} of an older save, otherwise fetch the index",
        )
    temporary = [name for name in files if name.startswith(".") and name.endswith(".tmp")]
    if temporary:
        yield advice(
            f"{listed(temporary)} {number(temporary, 'was', 'were')} left by a save that was killed",
            f"remove {number(temporary, 'it', 'them')}",
        )
    pickles = [own.info(name).file.name for name in own.names[:1] if own.info(name).file.suffix in _PICKLES]
    if pickles:
        yield advice(
            f"{pickles[0]} is a pickle, which recent versions of other libraries refuse to load",
            "convert it: xlmr convert SOURCE DESTINATION --to safetensors",
        )


def _indexed(folder: Path, shard: str) -> bool:
    for format in FORMATS.values():
        if format.index and (folder / format.index).is_file():
            weight_map = json_object(folder / format.index).get("weight_map")
            if isinstance(weight_map, dict) and shard in weight_map.values():
                return True
    return False


def check_values(examined: Examined) -> Iterator[Remark]:
    broken = {name: row for name, row in examined.values.items() if row.nan or row.infinite}
    if broken:
        first, row = next(iter(broken.items()))
        yield fault(
            f"{listed(list(broken))} {number(broken, 'holds', 'hold')} values that are no numbers ({row.nan} NaN and "
            f"{row.infinite} infinite in {first})",
            "go back to a checkpoint from before the training broke down, or fetch the file again",
        )
    never_zero = (Role.LINEAR_WEIGHT, Role.NORM_SCALE)
    zero = [
        name
        for name, row in examined.values.items()
        if row.largest == 0 and not row.nan and getattr(examined.files.rows.get(name), "role", None) in never_zero
    ]
    if zero:
        yield fault(
            f"{listed(zero)} {number(zero, 'is', 'are')} all zero: the weights were never loaded or never trained",
            "convert or fetch the checkpoint again",
        )


def check_float16(examined: Examined) -> Iterator[Remark]:
    too_large = [name for name, row in examined.values.items() if row.largest > LARGEST_FLOAT16]
    if too_large:
        yield fault(
            f"{listed(too_large)} {number(too_large, 'holds', 'hold')} values over {LARGEST_FLOAT16:.0f}, which are "
            "infinite in float16",
            "use bfloat16 or float32",
        )
    broken = any(row.nan or row.infinite for row in examined.values.values())
    is_xl = any(isinstance(part, XLMRobertaXLConfig) for part in parts_of_config(examined.config).values())
    if not is_xl or examined.plan is None or examined.plan.fresh or broken:
        return
    half = "F16" in examined.stored_dtypes or examined.config.dtype == "float16"
    remedy = (
        "run it in bfloat16 or float32 (dtype), or convert it: "
        "xlmr convert SOURCE DESTINATION --to safetensors --dtype bfloat16"
    )
    largest = largest_activation(examined.files, examined.progress)
    if largest > LARGEST_FLOAT16 / 4:
        yield fault(
            f"hidden states of this XL model reach {largest:.3g} on a short input, and float16 ends at "
            f"{LARGEST_FLOAT16:.0f}",
            remedy,
        )
    elif half:
        yield fault(
            "an XL model in float16: its residual stream is never normalised between layers and grows with the input "
            f"(to {largest:.3g} on a short one), and float16 ends at {LARGEST_FLOAT16:.0f}",
            remedy,
        )


def check_dtype(examined: Examined) -> Iterator[Remark]:
    stored, names = examined.stored_dtypes, {tag: name for name, tag in TAG_OF_FLOAT.items()}
    dtypes = ", ".join(sorted(names[tag] for tag in stored))
    if len(stored) > 1:
        yield advice(
            f"weights are stored in {dtypes}",
            "convert them to one dtype: xlmr convert SOURCE DESTINATION --to safetensors --dtype float32",
        )
    elif stored and examined.config.dtype not in (None, *(names[tag] for tag in stored)):
        yield advice(
            f"config.json says {examined.config.dtype} and the weights are {dtypes}: loaders that go by the config "
            "round or waste memory",
            f'set "dtype" in config.json to "{dtypes}"',
        )
