"""What a load does with each tensor of a checkpoint: read it, start fresh, or leave it, and what to say about that.

The rule: a missing encoder weight or a wrong shape is an error; a part that has to be trained before it is of use is
one warning; known leftovers of older writers are silent.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np

from xlmr_core.checkpoints.contents import contents, kept_elsewhere
from xlmr_core.config import EncoderDecoderConfig, ModelConfig, XLMRobertaConfig
from xlmr_core.errors import CheckpointError, LoadWarning, MismatchError, warn_caller
from xlmr_core.formats.parts import holds_encoder, plain_name
from xlmr_core.formats.tensors import FLOAT_TAGS, RawTensor, TensorInfo
from xlmr_core.heads import model_class_name
from xlmr_core.parameters import HEAD_PARTS, PROJECTION, WORD_EMBEDDINGS, Parameter, Role, parameters
from xlmr_core.quantization import Scheme
from xlmr_core.wording import MOST_COMPARED, number, seen

__all__ = [
    "OLD_BUFFERS",
    "OTHER_TASK",
    "UNUSED",
    "Dropped",
    "LoadPlan",
    "LoadReport",
    "LoadWarning",
    "Mismatched",
    "Tied",
    "plan_load",
]

PREFIX = "roberta."
DECODER, DECODER_BIAS, LM_BIAS = "lm_head.decoder.weight", "lm_head.decoder.bias", "lm_head.bias"

# Classification heads of fairseq that nobody chose.
OTHER_HEADS = "classification_heads."

# What TensorFlow once called the weights of a norm.
OLD_NAMES = {".gamma": ".weight", ".beta": ".bias"}

# Parts that a pretrained checkpoint need not have; everything else has to be there.
_HEADS = "|".join(HEAD_PARTS)
FRESH_PARTS = re.compile(rf"^({_HEADS}|pooler|{PROJECTION})\.|\.crossattention\.")

# The config field that implies the size of a dim (see ParamSpec.dims).
FIELD_OF_DIM = {
    "vocab": "vocab_size",
    "hidden": "hidden_size",
    "ffn": "intermediate_size",
    "positions": "max_position_embeddings",
    "types": "type_vocab_size",
    "labels": "num_labels",
    "attention": "num_attention_heads and pruned_heads",
    "head_size": "hidden_size and num_attention_heads",
    "distances": "max_position_embeddings",
    "one": "a single score",
}


class Dropped(NamedTuple):
    """A tensor of the file that is left alone on purpose."""

    name: str
    why: str


class Mismatched(NamedTuple):
    """A parameter whose shape in the file is another one."""

    name: str
    expected: tuple[int, ...]
    received: tuple[int, ...]


class Tied(NamedTuple):
    """A parameter that shares the values of another one and is not read."""

    name: str
    to: str


class DropRule(NamedTuple):
    """Tensors, by bare name, that are left alone; ``when`` sees the config and whether there is a pooler."""

    pattern: re.Pattern[str]
    why: str
    when: Callable[[XLMRobertaConfig, bool], bool] = lambda config, pooler: True


TIED_ACROSS = "tied to the decoder"
NO_POOLER, OTHER_TASK, OTHER_HEAD = (
    "this model has no pooler",
    "the head of another task",
    "another classification head",
)
# Why trained weights of a file may be of no use to a model. The original library counts these among the unexpected.
UNUSED = (NO_POOLER, OTHER_TASK, OTHER_HEAD)

# What older releases of the original library wrote beside the parameters.
OLD_BUFFERS = re.compile(r"embeddings\.(position_ids|token_type_ids)$")

DROPS = (
    DropRule(OLD_BUFFERS, "a buffer in old checkpoints"),
    DropRule(
        re.compile(r"lm_head\.decoder\.weight$"),
        "tied to the word embeddings",
        lambda config, _: config.tie_word_embeddings,
    ),
    DropRule(re.compile(r"pooler\."), NO_POOLER, lambda _, pooler: not pooler),
    DropRule(re.compile(rf"({_HEADS})\."), OTHER_TASK),
)


@dataclass(frozen=True)
class LoadReport:
    """What a load did.

    Attributes:
        file: the file or index that was read.
        model: the class that was loaded.
        loaded: canonical names read from the file.
        missing: canonical names that start fresh because the file lacks them.
        unexpected: names in the file that the model has no place for.
        mismatched: parameters of another shape, which start fresh (``ignore_mismatched_sizes=True``).
        dropped: names in the file that were left alone, and why.
        tied: parameters that share another one's values.
        notes: further things worth a look.
    """

    file: str
    model: str
    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[Mismatched, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    tied: tuple[Tied, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def fresh(self) -> tuple[str, ...]:
        """Canonical names of the parameters to initialise."""
        return (*self.missing, *(row.name for row in self.mismatched))

    @property
    def message(self) -> str:
        """What a user should know, in a few sentences; empty if everything is as expected."""
        sentences = []
        if self.missing:
            sentences.append(
                f"{_listed(self.missing)} not in {self.file} and {number(self.missing, 'starts', 'start')} with fresh "
                "values: train the model before use."
            )
        sentences += [
            f"{row.name} has the shape {row.received} in {self.file}, not {row.expected}, "
            "and starts with fresh values: train the model before use."
            for row in self.mismatched
        ]
        if self.unexpected:
            sentences.append(
                f"{_listed(self.unexpected)} in {self.file} but {number(self.unexpected, 'has', 'have')} no place in "
                f"{self.model}: {number(self.unexpected, 'it is', 'they are')} not used."
            )
        sentences.extend(self.notes)
        return f"{self.model}: " + " ".join(sentences) if sentences else ""

    def warn(self) -> None:
        """Say the message, if there is one, as a single warning."""
        if self.message:
            warn_caller(self.message, LoadWarning)

    def __str__(self) -> str:
        lines = [f"{self.model} from {self.file}", f"  loaded      {len(self.loaded)}"]
        lines += [f"  missing     {name}" for name in self.missing]
        lines += [f"  unexpected  {name}" for name in self.unexpected]
        lines += [
            f"  mismatched  {row.name}: expected {row.expected}, received {row.received}" for row in self.mismatched
        ]
        lines += [f"  dropped     {row.name}: {row.why}" for row in self.dropped]
        lines += [f"  tied        {row.name} = {row.to}" for row in self.tied]
        lines += [f"  note        {note}" for note in self.notes]
        return "\n".join(map(seen, lines))


def _listed(names: tuple[str, ...], most: int = 12) -> str:
    shown = ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
    return f"{shown} {number(names, 'is', 'are')}"


@dataclass(frozen=True)
class LoadPlan:
    """Where every parameter of a model comes from.

    Attributes:
        sources: canonical name -> name in the file. Tied parameters are not in it.
        fresh: canonical names to initialise. Tied parameters are not in it either.
        report: the account of the load.
    """

    sources: dict[str, str]
    fresh: tuple[str, ...]
    report: LoadReport


class TensorFile(Protocol):
    """The part of a ``Checkpoint`` that planning needs; tensors in memory can offer it too."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def path(self) -> object: ...
    def info(self, name: str) -> TensorInfo | RawTensor: ...
    def tensor(self, name: str) -> RawTensor: ...


def plan_load(
    config: ModelConfig,
    head: str,
    checkpoint: TensorFile,
    *,
    pooler: bool | None = None,
    scheme: Scheme | None = None,
    ignore_mismatched_sizes: bool = False,
    model: str | None = None,
    rows: Mapping[str, Parameter] | None = None,
) -> LoadPlan:
    """Decide where each parameter of a model comes from; nothing is read yet.

    Names with and without the ``roberta.`` prefix are the same, and so are ``gamma`` and ``weight``, ``beta`` and
    ``bias``.

    Args:
        config: the model's configuration.
        head: a suffix of ``HEADS``.
        checkpoint: the open file.
        pooler: overrides whether there is a pooler (``add_pooling_layer``).
        scheme: of the checkpoint's weights (``scheme_of(config)``).
        ignore_mismatched_sizes: let parameters of another shape start fresh.
        model: name of the class, for messages; by default the published one.
        rows: the parameters of a model that a user's code changed; by default those of the table.

    Warns:
        LoadWarning: one, naming what starts fresh and has to be trained, and what has no place in the model.

    Raises:
        CheckpointError: for a missing encoder weight, one without values, or a dtype that is neither floating point nor
            the scheme's.
        MismatchError: for a wrong shape.
    """
    rows = dict(parameters(config, head, pooler=pooler, scheme=scheme) if rows is None else rows)
    model = model_class_name(config, head) if model is None else model
    if isinstance(config, EncoderDecoderConfig):
        plan = _plan_both(config, checkpoint, rows, model, ignore_mismatched_sizes)
    else:
        plan = _plan_one(config, checkpoint, rows, model, ignore_mismatched_sizes)
    plan.report.warn()
    return plan


def _plan_one(
    config: XLMRobertaConfig, checkpoint: TensorFile, rows: dict[str, Parameter], model: str, ignore_mismatched: bool
) -> LoadPlan:
    """The plan of a model that is one encoder or decoder with what stands on it."""
    has_pooler = any(_bare(name).startswith("pooler.") for name in rows)
    # A user's own name means what it says: no prefix and no older name of a part is looked for.
    own = {name for name, row in rows.items() if row.own}
    here = set(checkpoint.names)
    # Wrappers in the user's class, or in what was saved, are no part of a name.
    plain = {plain_name(name): name for name in checkpoint.names if name not in rows}
    of_own = {name: name if name in here else plain.get(plain_name(name)) for name in own}
    taken = set(of_own.values())
    in_file = _by_bare_name(tuple(name for name in checkpoint.names if name not in taken), rows)
    sources: dict[str, str] = {}
    missing: list[Parameter] = []
    for name, row in rows.items():
        if row.tied_to is not None:
            continue
        if name in own:
            source = of_own[name]
        else:
            source = next((in_file[bare] for bare in _candidates(name, config) if bare in in_file), None)
        if source is None:
            missing.append(row)
        else:
            sources[name] = source
    mismatched = [rows[name] for name, source in sources.items() if checkpoint.info(source).shape != rows[name].shape]

    for name, source in sources.items():
        _refuse_dtype(rows[name], source, checkpoint)
        _refuse_placeholder(rows[name], source, checkpoint)
    _refuse_missing(missing, rows, sources, checkpoint)
    damaged = _beside_others(mismatched)
    if damaged or (mismatched and not ignore_mismatched):
        raise MismatchError(
            "\n".join(seen(_mismatch_message(row, sources[row.name], checkpoint)) for row in mismatched)
        )
    wrong = tuple(Mismatched(row.name, row.shape, checkpoint.info(sources[row.name]).shape) for row in mismatched)

    used = set(sources.values())
    for row in mismatched:
        del sources[row.name]

    dropped, unexpected = [], []
    for name in checkpoint.names:
        if name in used:
            continue
        bare = _bare(_renamed(name))
        rule = next((rule for rule in DROPS if rule.pattern.match(bare) and rule.when(config, has_pooler)), None)
        if bare.startswith(OTHER_HEADS) and not any(row.name.startswith("classifier.") for row in missing):
            dropped.append(Dropped(name, OTHER_HEAD))
        elif bare in (LM_BIAS, DECODER_BIAS) and LM_BIAS in rows:
            dropped.append(Dropped(name, "the other name of the same bias"))
        elif rule is not None:
            dropped.append(Dropped(name, rule.why))
        else:
            unexpected.append(name)

    report = LoadReport(
        file=str(checkpoint.path),
        model=model,
        loaded=tuple(sources),
        missing=tuple(row.name for row in missing),
        unexpected=tuple(unexpected),
        mismatched=wrong,
        dropped=tuple(dropped),
        tied=tuple(Tied(row.name, row.tied_to) for row in rows.values() if row.tied_to is not None),
        notes=_differing_decoder(rows, sources, in_file, checkpoint),
    )
    return LoadPlan(sources, report.fresh, report)


# ---- Two models in one


class _Part:
    """The tensors of a checkpoint that belong to one side, by their names within it.

    Args:
        whole: the checkpoint.
        stored: their names in it by those within the part.
        path: what to call the part in messages.
    """

    def __init__(self, whole: TensorFile, stored: Mapping[str, str], path: str) -> None:
        self.path = path
        self._whole, self._stored = whole, stored

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._stored)

    def info(self, name: str) -> TensorInfo | RawTensor:
        return self._whole.info(self._stored[name])

    def tensor(self, name: str) -> RawTensor:
        return self._whole.tensor(self._stored[name])


def _plan_both(
    config: EncoderDecoderConfig,
    checkpoint: TensorFile,
    rows: dict[str, Parameter],
    model: str,
    ignore_mismatched: bool,
) -> LoadPlan:
    """The plan of an encoder-decoder: those of its two sides, and of what belongs to neither."""
    here = set(checkpoint.names)
    encoder = [row for name, row in rows.items() if _side(name) == ENCODER_SIDE]
    across = {row.tied_to: row.name for row in encoder if row.tied_to is not None}
    known_twice = set(across.values())
    sources: dict[str, str] = {}
    reports: list[LoadReport] = []
    for prefix, part_config in (*config.parts.items(), ("", config.decoder)):
        stored = {name.removeprefix(prefix): name for name in checkpoint.names if _side(name) == prefix}
        # Writers that keep one name for shared values may have kept that of the other side.
        for target, name in across.items():
            if _side(target) == prefix and target not in here and name in here:
                stored[target.removeprefix(prefix)] = name
        own = {
            name.removeprefix(prefix): replace(
                row, name=name.removeprefix(prefix), tied_to=row.tied_to and row.tied_to.removeprefix(prefix)
            )
            for name, row in rows.items()
            if _side(name) == prefix
        }
        title = f"{prefix}* of {checkpoint.path}" if prefix else str(checkpoint.path)
        plan = _plan_one(part_config, _Part(checkpoint, stored, title), own, model, ignore_mismatched)
        sources.update({prefix + name: stored[source] for name, source in plan.sources.items()})
        reports.append(_renamed_report(plan.report, prefix, stored))
    tied = tuple(Tied(row.name, row.tied_to) for row in rows.values() if row.tied_to is not None)
    unexpected = [name for report in reports for name in report.unexpected]
    shared = tuple(Dropped(name, TIED_ACROSS) for name in unexpected if name in known_twice)
    report = LoadReport(
        file=str(checkpoint.path),
        model=model,
        loaded=tuple(sources),
        missing=tuple(name for report in reports for name in report.missing),
        unexpected=tuple(name for name in unexpected if name not in known_twice),
        mismatched=tuple(row for report in reports for row in report.mismatched),
        dropped=(*(row for report in reports for row in report.dropped), *shared),
        tied=tied,
        notes=tuple(note for report in reports for note in report.notes),
    )
    return LoadPlan(sources, report.fresh, report)


ENCODER_SIDE, DECODER_SIDE = "encoder.", "decoder."


def _side(name: str) -> str:
    """What the name of a side's parameter begins with; empty if it belongs to neither."""
    return next((prefix for prefix in (ENCODER_SIDE, DECODER_SIDE) if name.startswith(prefix)), "")


def _renamed_report(report: LoadReport, prefix: str, stored: Mapping[str, str]) -> LoadReport:
    """The account of a side by the names of the whole."""
    return replace(
        report,
        missing=tuple(prefix + name for name in report.missing),
        unexpected=tuple(stored[name] for name in report.unexpected),
        mismatched=tuple(row._replace(name=prefix + row.name) for row in report.mismatched),
        dropped=tuple(row._replace(name=stored[row.name]) for row in report.dropped),
    )


# ---- Names


def _bare(name: str) -> str:
    return name.removeprefix(PREFIX)


def _renamed(name: str) -> str:
    for old, new in OLD_NAMES.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _by_bare_name(names: tuple[str, ...], rows: dict[str, Parameter]) -> dict[str, str]:
    in_file: dict[str, str] = {}
    for name in names:
        # Should a file hold an encoder under both names, the one that the model itself uses counts.
        if _bare(_renamed(name)) not in in_file or name in rows:
            in_file[_bare(_renamed(name))] = name
    return in_file


def _candidates(name: str, config: XLMRobertaConfig) -> tuple[str, ...]:
    """The bare names under which a parameter may be stored, best first."""
    if name == LM_BIAS:
        # Writers keep one of the two, and where there are both, the original loads the decoder's.
        return (DECODER_BIAS, LM_BIAS)
    if _bare(name) == _bare(WORD_EMBEDDINGS) and config.tie_word_embeddings:
        # Writers that keep one name for shared values may have kept this one.
        return (_bare(name), DECODER)
    return (_bare(name),)


def _refuse_missing(
    missing: list[Parameter], rows: dict[str, Parameter], sources: dict[str, str], checkpoint: TensorFile
) -> None:
    # A head may start fresh, but a quantized weight that lacks one of its tensors is a damaged file.
    alone = [row for row in missing if row.role is Role.BESIDE and row.quantized and row.quantized.weight in sources]
    needed = [row for row in missing if row in alone or not _may_be_fresh(row)]
    if not needed:
        return
    row = needed[0]
    what = row.quantized.suffix.lstrip("._") if row in alone and row.quantized else "encoder weight"
    used = set(sources.values())
    unused = [name for name in checkpoint.names if name not in used]
    elsewhere = kept_elsewhere(unused)
    if elsewhere is not None:
        raise CheckpointError(
            f"expected the {what} {row.name} of shape {row.shape} in {checkpoint.path}; {elsewhere[0]}; {elsewhere[1]}"
        )
    nearest = difflib.get_close_matches(row.name, unused[:MOST_COMPARED], n=1, cutoff=0.0)
    encoder = [name for name, row in rows.items() if not _may_be_fresh(row)]
    count = f", the first of {len(needed)} missing of {len(encoder)}" if len(needed) > 1 else ""
    raise CheckpointError(
        f"expected the {what} {row.name} of shape {row.shape} in {checkpoint.path}{count}; "
        + (f"the nearest unused name there is {nearest[0]!r}; " if nearest else "")
        + (f"{contents(checkpoint)}; " if not holds_encoder(checkpoint.names) else "")
        + (
            "the file was altered, fetch or save the checkpoint again"
            if row in alone
            else "load a checkpoint that fits the config (num_hidden_layers, position_embedding_type), "
            "or correct the config"
        )
    )


def _refuse_placeholder(row: Parameter, source: str, checkpoint: TensorFile) -> None:
    shape = checkpoint.info(source).shape
    if 0 in shape and 0 not in row.shape:
        raise CheckpointError(
            f"{row.name} in {_file_of(source, checkpoint)} has the shape {shape} and no values, expected {row.shape}: "
            "DeepSpeed ZeRO-3 and other sharded trainings leave such placeholders where another file or process has "
            "the values; run the zero_to_fp32.py that lies in the folder of the checkpoint and load the file that it "
            "writes, or gather the full state dict before saving"
        )


def _may_be_fresh(row: Parameter) -> bool:
    return row.own or FRESH_PARTS.search(_bare(row.name)) is not None


def _refuse_dtype(row: Parameter, source: str, checkpoint: TensorFile) -> None:
    if row.own:
        return  # a user's buffer may hold what it likes
    info = checkpoint.info(source)
    expected = FLOAT_TAGS if row.dtype is None else (row.dtype,)
    if info.dtype not in expected:
        remedy = (
            "quantized weights load only beside the config.json they were saved with; "
            "use that, or the original checkpoint"
            if row.quantized is None
            else f"config.json says that the weights are {row.quantized.scheme.name}; "
            "use the config.json that the file was saved with"
        )
        raise CheckpointError(
            f"{row.name} in {_file_of(source, checkpoint)} has the dtype {info.dtype}, "
            f"expected {' or '.join(expected)}; {remedy}"
        )


def _file_of(source: str, checkpoint: TensorFile) -> object:
    """The very file of a tensor, which for shards is not the checkpoint's path."""
    info = checkpoint.info(source)
    return info.file if isinstance(info, TensorInfo) else checkpoint.path


def _beside_others(mismatched: list[Parameter]) -> list[Parameter]:
    """Of tensors of another shape those beside a quantized weight that has its own, which cannot start fresh."""
    names = {row.name for row in mismatched}
    return [row for row in mismatched if row.quantized and row.quantized.weight not in names]


def _mismatch_message(row: Parameter, source: str, checkpoint: TensorFile) -> str:
    info = checkpoint.info(source)
    fields = []
    for axis, dim in enumerate(row.dims):
        if len(info.shape) != len(row.shape) or info.shape[axis] != row.shape[axis]:
            fields.append(FIELD_OF_DIM.get(dim, dim))
    source_of_size = "the class itself" if row.own else f"the config's {', '.join(dict.fromkeys(fields))}"
    if row.role is Role.BESIDE:
        remedy = "correct quantization_config in config.json, or fetch or save the checkpoint again"
    elif _may_be_fresh(row):
        remedy = "pass ignore_mismatched_sizes=True to start with a new one and train it"
    else:
        remedy = "correct the config, or pass ignore_mismatched_sizes=True to start with fresh values"
    stored = "" if source == row.name else f" (stored as {source})"
    return (
        f"{row.name}{stored} must have the shape {row.shape}, "
        f"received {info.shape} from {_file_of(source, checkpoint)}; "
        f"the size follows from {source_of_size}; {remedy}"
    )


def _differing_decoder(
    rows: dict[str, Parameter], sources: dict[str, str], in_file: dict[str, str], checkpoint: TensorFile
) -> tuple[str, ...]:
    """A word about a stored decoder that is no copy of the embedding it is tied to. Only some rows are looked at."""
    decoder, embedding = in_file.get(DECODER), sources.get(WORD_EMBEDDINGS)
    if DECODER not in rows or rows[DECODER].tied_to is None or None in (decoder, embedding) or decoder == embedding:
        return ()
    assert decoder is not None and embedding is not None
    one, other = checkpoint.tensor(decoder), checkpoint.tensor(embedding)
    same = one.shape == other.shape
    if same:
        step = max(1, one.shape[0] // 64)
        first, second = one.every(step).to_numpy(), other.every(step).to_numpy()
        same = np.array_equal(first, second, equal_nan=True)
    if same:
        return ()
    return (
        f"{decoder} in {checkpoint.path} differs from {embedding}, to which tie_word_embeddings ties it: "
        "it is not used; "
        "set tie_word_embeddings=False to keep it.",
    )
