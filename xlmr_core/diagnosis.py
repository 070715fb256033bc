"""The classic ills of a checkpoint, each with its remedy: a table of checks, one function each.

To add a check: a function that yields an ``ill`` or an ``advice`` for what it finds, and its row in ``CHECKS``.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from xlmr_core.casting import FLOAT_TAGS, blocks, widened
from xlmr_core.config import XLMRobertaXLConfig
from xlmr_core.errors import CheckpointError, ConfigError, TokenizerError, XLMRError
from xlmr_core.formats import FORMATS
from xlmr_core.load_plan import LoadPlan
from xlmr_core.model_files import ModelFiles, find_model, open_model
from xlmr_core.parameters import Role
from xlmr_core.probe import largest_activation
from xlmr_core.tokenization import XLMRobertaTokenizer, XLMRobertaTokenizerFast
from xlmr_core.tokenization.files import CONFIG_FILE, TOKENIZER_FILE, VOCAB_FILE
from xlmr_core.verification import SENTENCES, compare_files

__all__ = ["CHECKS", "Check", "Diagnosis", "Finding", "diagnose"]

LARGEST_FLOAT16 = 65504.0
# The published rows of XL's embedding are rounded up by some hundred beyond its vocabulary.
SPARE_ROWS = 1024
# Classes in tokenizer_config.json that say nothing against XLM-R's ids.
NEUTRAL_CLASSES = ("PreTrainedTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend", "SentencePieceBackend")
_SHARD = re.compile(r".+-\d{5}-of-\d{5}\.(safetensors|bin|h5|msgpack)")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class Finding:
    """Something that was found.

    Attributes:
        check: the name of the check.
        is_ill: whether the model is wrong or will be used wrongly; otherwise it is advice.
        what: what was found.
        remedy: what to do.
    """

    check: str
    is_ill: bool
    what: str
    remedy: str


@dataclass(frozen=True)
class Diagnosis:
    """What the checks found.

    Attributes:
        path: what was examined.
        checks: names of the checks that ran.
        findings: what they found, ills first.
    """

    path: str
    checks: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing but advice was found."""
        return not any(finding.is_ill for finding in self.findings)


@dataclass(frozen=True)
class Told:
    """A finding of a check that does not say its own name."""

    is_ill: bool
    what: str
    remedy: str


@dataclass(frozen=True)
class Values:
    """What one pass over a parameter's values tells."""

    nan: int
    infinite: int
    largest: float


class Patient:
    """An open checkpoint, and what several checks want to know of it."""

    def __init__(self, files: ModelFiles) -> None:
        self.files = files
        self.config = files.config
        self.folder = files.folder

    @cached_property
    def plan(self) -> LoadPlan | None:
        """How the model would be loaded, if it could be."""
        try:
            return self.files.plan
        except (CheckpointError, ConfigError):
            return None

    @cached_property
    def tokenizer_config(self) -> dict[str, Any]:
        return _json_object(self.folder / CONFIG_FILE)

    @cached_property
    def tokenizers(self) -> dict[str, XLMRobertaTokenizer | XLMRobertaTokenizerFast]:
        """By file, those that can be built from the folder."""
        found: dict[str, XLMRobertaTokenizer | XLMRobertaTokenizerFast] = {}
        for name, kind in ((TOKENIZER_FILE, XLMRobertaTokenizerFast), (VOCAB_FILE, XLMRobertaTokenizer)):
            if (self.folder / name).is_file():
                try:
                    found[name] = kind.from_pretrained(self.folder)
                except XLMRError:
                    continue  # the check of the tokenizer files says so
        return found

    @property
    def tokenizer(self) -> XLMRobertaTokenizer | XLMRobertaTokenizerFast | None:
        return next(iter(self.tokenizers.values()), None)

    @cached_property
    def values(self) -> dict[str, Values]:
        """By canonical name; empty if the model cannot be loaded."""
        if self.plan is None:
            return {}
        return {
            name: _values_of(self.files, source)
            for name, source in self.plan.sources.items()
            if self.files.checkpoint.info(source).dtype in FLOAT_TAGS.values()
        }

    @property
    def stored_dtypes(self) -> set[str]:
        sources = self.plan.sources.values() if self.plan is not None else ()
        return {dtype for name in sources if (dtype := self.files.checkpoint.info(name).dtype) in FLOAT_TAGS.values()}


@dataclass(frozen=True)
class Check:
    """A check: its name, the question it answers, and the function that yields what it finds."""

    name: str
    question: str
    run: Callable[[Patient], Iterator[Told]]


def diagnose(name_or_path: str | os.PathLike[str], *, head: str | None = None) -> Diagnosis:
    """Examine a checkpoint of any format.

    Args:
        name_or_path: a folder, a file of weights, a built-in name or a name on the hub.
        head: a suffix of ``HEADS``, where neither the configuration nor the parameters say it.

    Raises:
        ModelNotFoundError: if there is no such model. Whatever is wrong with it is a finding and no error.
    """
    path = find_model(name_or_path)
    try:
        files = open_model(path, head=head)
    except (CheckpointError, ConfigError) as error:
        return Diagnosis(str(path), ("opens",), (_from_error("opens", error),))
    with files:
        patient = Patient(files)
        findings = []
        for check in CHECKS:
            try:
                findings += [Finding(check.name, told.is_ill, told.what, told.remedy) for told in check.run(patient)]
            except (CheckpointError, ConfigError, TokenizerError) as error:
                findings.append(_from_error(check.name, error))
    findings.sort(key=lambda finding: not finding.is_ill)
    return Diagnosis(str(files.checkpoint.path), ("opens", *(check.name for check in CHECKS)), tuple(findings))


def ill(what: str, remedy: str) -> Told:
    return Told(True, what, remedy)


def advice(what: str, remedy: str) -> Told:
    return Told(False, what, remedy)


def _from_error(check: str, error: Exception) -> Finding:
    # Every message of this library ends with what to do.
    what, _, remedy = str(error).splitlines()[0].rpartition("; ")
    return Finding(check, True, what or remedy, remedy if what else "fetch or save the checkpoint again")


def _json_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); fetch or save it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a JSON object; fetch or save it again")
    return content


def _values_of(files: ModelFiles, source: str) -> Values:
    stream = files.checkpoint.stream(source)
    nan = infinite = 0
    largest = 0.0
    for block in blocks(stream):
        values = np.abs(widened(block, stream.dtype))
        top = float(values.max())
        if not math.isfinite(top):
            nan += int(np.isnan(values).sum())
            infinite += int(np.isinf(values).sum())
            finite = values[np.isfinite(values)]
            top = float(finite.max(initial=0.0))
        largest = max(largest, top)
    return Values(nan, infinite, largest)


def _listed(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


# Weights


def check_fits(patient: Patient) -> Iterator[Told]:
    if patient.plan is None:
        patient.files.plan  # noqa: B018  # raises the error that says why
    yield from ()


def check_head(patient: Patient) -> Iterator[Told]:
    if patient.plan is None:
        return
    missing = patient.plan.report.missing
    if missing:
        yield ill(
            f"{_listed(list(missing))} not in the file: {patient.files.architecture} would start them with fresh, untrained values",
            "train the model before use, load the class that the file was saved from, or correct architectures in config.json",
        )
    if not patient.config.architectures:
        yield advice(
            f"config.json names no architectures; by its parameters this is {patient.files.architecture}",
            f'add "architectures": ["{patient.files.architecture}"]',
        )
    others = [row.name for row in patient.plan.report.dropped if row.why == "the head of another task"]
    if others and missing:
        yield ill(
            f"the file holds {_listed(others)}, the head of another task than {patient.files.architecture}",
            "load the class of that task, or correct architectures in config.json",
        )
    is_decoder = patient.config.is_decoder
    if patient.files.head == "ForCausalLM" and not is_decoder:
        yield ill(
            "a causal language model with is_decoder=false in config.json: every token would see the ones it has to predict",
            "set is_decoder to true",
        )
    if patient.files.head != "ForCausalLM" and patient.files.head != "Model" and is_decoder:
        yield ill(
            f"{patient.files.architecture} with is_decoder=true in config.json: a token would not see what follows it",
            "set is_decoder to false",
        )


def check_leftovers(patient: Patient) -> Iterator[Told]:
    if patient.plan is None:
        return
    if patient.plan.report.unexpected:
        yield advice(
            f"{_listed(list(patient.plan.report.unexpected))} in the file have no place in {patient.files.architecture}",
            "nothing, if they belong to another tool; otherwise check architectures and the numbers in config.json",
        )
    for note in patient.plan.report.notes:
        what, _, remedy = note.rstrip(".").rpartition("; ")
        yield ill(what, remedy)


def check_files(patient: Patient) -> Iterator[Told]:
    own = patient.files.checkpoint
    used = {Path(own.path).name, *(own.info(name).file.name for name in own.names)}
    for format in FORMATS.values():
        other = format.find(patient.folder)
        if format.name == own.format or other is None or other.name in used:
            continue
        try:
            with open_model(other, head=patient.files.head, format=format.name) as another:
                compared = compare_files(patient.files, another, tokenizers=False, outputs=False)
        except (CheckpointError, ConfigError) as error:
            found = _from_error("", error)
            yield ill(
                f"{other.name} stands beside {Path(own.path).name} and cannot be read: {found.what}",
                f"{found.remedy}, or remove it",
            )
            continue
        used |= {other.name, *(another.checkpoint.info(name).file.name for name in another.checkpoint.names)}
        differing = [*compared.only_a, *compared.only_b]
        differing += [*(row.name for row in compared.shapes), *(row.name for row in compared.values)]
        if differing:
            yield ill(
                f"{other.name} and {Path(own.path).name} hold different weights ({_listed(differing)}): "
                "which of them is loaded depends on the loader",
                "remove the stale one",
            )
    for format in FORMATS.values():
        both = [name for name in (format.single, format.index) if name and (patient.folder / name).is_file()]
        if len(both) == 2:
            yield ill(f"{both[1]} stands beside {both[0]}, which is read in its place", "remove the one that is stale")
    files = [path.name for path in sorted(patient.folder.iterdir()) if path.is_file()]
    stray = [
        name for name in files if _SHARD.fullmatch(name) and name not in used and not _indexed(patient.folder, name)
    ]
    if stray:
        yield ill(
            f"no index names the shards {_listed(stray)}",
            "remove them if they are of an older save, otherwise fetch the index",
        )
    temporary = [name for name in files if name.startswith(".") and name.endswith(".tmp")]
    if temporary:
        yield advice(f"{_listed(temporary)} were left by a save that was killed", "remove them")
    pickles = [own.info(name).file.name for name in own.names[:1] if own.info(name).file.suffix in _PICKLES]
    if pickles:
        yield advice(
            f"{pickles[0]} is a pickle, which recent versions of other libraries refuse to load",
            "convert it: xlmr convert SOURCE DESTINATION --to safetensors",
        )


def _indexed(folder: Path, shard: str) -> bool:
    for format in FORMATS.values():
        if format.index and (folder / format.index).is_file():
            weight_map = _json_object(folder / format.index).get("weight_map")
            if isinstance(weight_map, dict) and shard in weight_map.values():
                return True
    return False


def check_values(patient: Patient) -> Iterator[Told]:
    broken = {name: row for name, row in patient.values.items() if row.nan or row.infinite}
    if broken:
        first, row = next(iter(broken.items()))
        yield ill(
            f"{_listed(list(broken))} hold values that are no numbers ({row.nan} NaN and {row.infinite} infinite in {first})",
            "go back to a checkpoint from before the training broke down, or fetch the file again",
        )
    zero = [
        name
        for name, row in patient.values.items()
        if row.largest == 0 and not row.nan and patient.files.rows[name].role in (Role.LINEAR_WEIGHT, Role.NORM_SCALE)
    ]
    if zero:
        yield ill(
            f"{_listed(zero)} are all zero: the weights were never loaded or never trained",
            "convert or fetch the checkpoint again",
        )


def check_float16(patient: Patient) -> Iterator[Told]:
    too_large = [name for name, row in patient.values.items() if row.largest > LARGEST_FLOAT16]
    if too_large:
        yield ill(
            f"{_listed(too_large)} hold values over {LARGEST_FLOAT16:.0f}, which are infinite in float16",
            "use bfloat16 or float32",
        )
    broken = any(row.nan or row.infinite for row in patient.values.values())
    if not isinstance(patient.config, XLMRobertaXLConfig) or patient.plan is None or patient.plan.fresh or broken:
        return
    half = "F16" in patient.stored_dtypes or patient.config.dtype == "float16"
    remedy = "run it in bfloat16 or float32 (dtype), or convert it: xlmr convert SOURCE DESTINATION --to safetensors --dtype bfloat16"
    largest = largest_activation(patient.files)
    if largest > LARGEST_FLOAT16 / 4:
        yield ill(
            f"hidden states of this XL model reach {largest:.3g} on a short input, and float16 ends at {LARGEST_FLOAT16:.0f}",
            remedy,
        )
    elif half:
        yield ill(
            "an XL model in float16: its residual stream is never normalised between layers and grows with the input "
            f"(to {largest:.3g} on a short one), and float16 ends at {LARGEST_FLOAT16:.0f}",
            remedy,
        )


def check_dtype(patient: Patient) -> Iterator[Told]:
    stored, names = patient.stored_dtypes, {tag: name for name, tag in FLOAT_TAGS.items()}
    told = ", ".join(sorted(names[tag] for tag in stored))
    if len(stored) > 1:
        yield advice(
            f"weights are stored in {told}",
            "convert them to one dtype: xlmr convert SOURCE DESTINATION --to safetensors --dtype float32",
        )
    elif stored and patient.config.dtype not in (None, *(names[tag] for tag in stored)):
        yield advice(
            f"config.json says {patient.config.dtype} and the weights are {told}: loaders that go by the config round or waste memory",
            f'set "dtype" in config.json to "{told}"',
        )


# Configuration


def check_config(patient: Patient) -> Iterator[Told]:
    config = patient.config
    own_family = config.model_type.startswith("xlm-roberta")
    if own_family and config.layer_norm_eps < 1e-6:
        yield ill(
            f"layer_norm_eps is {config.layer_norm_eps:g}, and every published XLM-R was trained with 1e-05",
            "set it to 1e-05, unless this model was trained with the other one",
        )
    if own_family and config.pad_token_id != 1 and patient.tokenizer is None:
        yield advice(
            f"pad_token_id is {config.pad_token_id}, and that of published models is 1; positions start behind it",
            "set it to the tokenizer's, unless the model was trained so",
        )
    rows = config.max_position_embeddings
    if rows >= 512 and math.log2(rows).is_integer():
        yield advice(
            f"max_position_embeddings is {rows}, which takes texts of {config.max_tokens} tokens: the first "
            f"{rows - config.max_tokens} rows are never used, and published tables have them on top ({rows + 2})",
            "nothing if it was trained so; otherwise the tool that exported it cut them off: convert the original again",
        )


def check_labels(patient: Patient) -> Iterator[Told]:
    config = patient.config
    if patient.files.head not in ("ForSequenceClassification", "ForTokenClassification"):
        return
    nameless = [label for index, label in config.id2label.items() if label == f"LABEL_{index}"]
    if config.num_labels > 1 and nameless:
        yield ill(
            f"id2label has no names for {len(nameless)} of {config.num_labels} labels ({_listed(nameless)})",
            "write their names into id2label and label2id of config.json, in the order of the training data",
        )
    wrong = [label for index, label in config.id2label.items() if config.label2id.get(label) != index]
    if wrong:
        yield ill(
            f"label2id does not lead back from id2label for {_listed(wrong)}", "make label2id the inverse of id2label"
        )


# Tokenizer


def check_tokenizer(patient: Patient) -> Iterator[Told]:
    there = [name for name in (TOKENIZER_FILE, VOCAB_FILE) if (patient.folder / name).is_file()]
    if not there:
        yield advice(
            f"no {TOKENIZER_FILE} and no {VOCAB_FILE} beside the weights",
            "copy them from the checkpoint this model was trained from",
        )
        return
    for name, kind in ((TOKENIZER_FILE, XLMRobertaTokenizerFast), (VOCAB_FILE, XLMRobertaTokenizer)):
        if name in there and name not in patient.tokenizers:
            kind.from_pretrained(patient.folder)  # raises the error that says why
    said = patient.tokenizer_config.get("tokenizer_class")
    if (
        patient.config.model_type.startswith("xlm-roberta")
        and isinstance(said, str)
        and not said.startswith("XLMRoberta")
        and said not in NEUTRAL_CLASSES
    ):
        yield ill(
            f"{CONFIG_FILE} names the class {said}, which numbers the pieces of XLM-R's vocabulary differently",
            "set tokenizer_class to XLMRobertaTokenizer if the vocabulary is XLM-R's, otherwise fetch the right tokenizer",
        )
    if len(patient.tokenizers) == 2:
        fast, slow = patient.tokenizers.values()
        differing = [
            text for text in SENTENCES if text and fast.encode(text, verbose=False) != slow.encode(text, verbose=False)
        ]
        if len(differing) > len(SENTENCES) // 4:  # a few texts with odd spaces differ by nature
            yield ill(
                f"{TOKENIZER_FILE} and {VOCAB_FILE} give different ids to {len(differing)} of {len(SENTENCES)} texts",
                "remove the one that the model was not trained with",
            )


def check_vocabulary(patient: Patient) -> Iterator[Told]:
    tokenizer, rows = patient.tokenizer, patient.config.vocab_size
    if tokenizer is None:
        return
    ids = max(tokenizer.get_vocab().values()) + 1
    if ids > rows:
        yield ill(
            f"the tokenizer gives ids up to {ids - 1}, and the embedding has {rows} rows: some texts cannot be embedded",
            "use the tokenizer that the model was trained with, or model.resize_token_embeddings(len(tokenizer)) and train",
        )
    elif rows - ids > SPARE_ROWS and ids < 0.9 * rows:
        yield ill(
            f"the embedding has {rows} rows and the tokenizer {ids} ids: it is that of another model",
            "use the tokenizer that the model was trained with",
        )
    for name in ("pad", "bos", "eos"):
        expected, received = getattr(tokenizer, f"{name}_token_id"), getattr(patient.config, f"{name}_token_id")
        if expected is not None and received is not None and expected != received:
            why = ": padding would be attended to, and positions would start elsewhere" if name == "pad" else ""
            yield ill(
                f"{name}_token_id is {received} in config.json and {expected} in the tokenizer{why}",
                f"set {name}_token_id to {expected}, unless the model was trained with the other one",
            )


def check_length(patient: Patient) -> Iterator[Told]:
    limit, tokenizer = patient.config.max_tokens, patient.tokenizer
    if tokenizer is not None and tokenizer.model_max_length > limit:
        length = tokenizer.model_max_length
        rows = patient.config.max_position_embeddings
        what = (
            f"is {length}, the rows of the position table, of which a text can use {limit}"
            if length == rows
            else f"is not set, and the model takes {limit} tokens"
            if length > 10**9
            else f"is {length}, and the model takes {limit} tokens"
        )
        yield ill(
            f"model_max_length of the tokenizer {what}: truncation would leave texts too long",
            f"set it to {limit} in {CONFIG_FILE}",
        )
    longest = _json_object(patient.folder / "sentence_bert_config.json").get("max_seq_length")
    if isinstance(longest, int) and longest > limit:
        yield ill(
            f"sentence_bert_config.json says max_seq_length {longest}, and the model takes {limit} tokens",
            f"set it to {limit} or less",
        )


CHECKS = (
    Check("fits", "Do the weights fit the configuration?", check_fits),
    Check("head", "Is the head of the architecture there and trained?", check_head),
    Check("leftovers", "Does the file hold what the model does not use?", check_leftovers),
    Check("files", "Do several weight files disagree, or are some stale?", check_files),
    Check("values", "Are all weights numbers?", check_values),
    Check("float16", "Do values overflow in float16?", check_float16),
    Check("dtype", "Is there one dtype, and does the configuration know it?", check_dtype),
    Check("config", "Are the numbers of the configuration those of XLM-R?", check_config),
    Check("labels", "Do the labels have names?", check_labels),
    Check("tokenizer", "Can the tokenizer be built, and is it XLM-R's?", check_tokenizer),
    Check("vocabulary", "Do the tokenizer's ids fit the embedding and the configuration?", check_vocabulary),
    Check("length", "Does the tokenizer truncate where the model ends?", check_length),
)
