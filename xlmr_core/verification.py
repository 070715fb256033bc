"""Whether two checkpoints are the same model: names, shapes, values, tokenizer ids, and the outputs of a small forward
pass.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xlmr_core.backends import BACKENDS, find_backend
from xlmr_core.checkpoints.casting import blocks, rounded, widened
from xlmr_core.checkpoints.extra_heads import read_extra_heads
from xlmr_core.checkpoints.model_files import ModelFiles, open_model
from xlmr_core.checkpoints.quantizing import dequantized
from xlmr_core.config import ModelConfig, XLMRobertaConfig, parts_of_config
from xlmr_core.errors import CheckpointError
from xlmr_core.formats.tensors import DTYPES, FLOAT_TAGS, LazyTensor, RawTensor
from xlmr_core.probe import REFERENCE, Counter, Progress, make_probe, run_probe
from xlmr_core.reference import ACTIVATION_FUNCTIONS
from xlmr_core.tokenization import AutoTokenizer
from xlmr_core.tokenization.dictionary import DICTIONARY_FILE, order_differs
from xlmr_core.tokenization.files import VOCAB_FILE
from xlmr_core.wording import number

__all__ = [
    "SENTENCES",
    "Comparison",
    "OutputDifference",
    "ShapeDifference",
    "TokenDifference",
    "ValueDifference",
    "compare",
    "compare_files",
]

Array: TypeAlias = NDArray[Any]

# Many scripts, and what tokenizers stumble over: runs of spaces, no-break spaces, combining marks, emoji, digits, long
# words, other widths.
SENTENCES = (
    "Plants create <mask> through a process known as photosynthesis.",
    "Bonjour, je suis un modèle <mask>.",
    "Die Würde des Menschen ist unantastbar; Donaudampfschifffahrtsgesellschaft.",
    "¿Dónde está la biblioteca? ¡Aquí!",
    "Η γρήγορη καφέ αλεπού πηδάει πάνω από τον σκύλο.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "Усі люди народжуються вільними, ґрунт і їжак.",
    "כל בני האדם נולדו בני חורין ושווים בערכם.",
    "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق.",
    "تمام انسان‌ها آزاد به دنیا می‌آیند.",
    "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता प्राप्त है।",
    "সমস্ত মানুষ স্বাধীনভাবে সমান মর্যাদা নিয়ে জন্মগ্রহণ করে।",
    "எல்லா மனிதரும் சுதந்திரமாகவே பிறக்கின்றனர்.",
    "మానవులందరూ స్వతంత్రులుగా జన్మించారు.",
    "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกัน",
    "ມະນຸດທຸກຄົນເກີດມາມີກຽດສັກສີ",
    "လူတိုင်းသည် တူညီ လွတ်လပ်သော ဂုဏ်သိက္ខာဖြင့် မွေးဖွားလာသည်။",
    "មនុស្សទាំងអស់កើតមកមានសេរីភាព",
    "ყველა ადამიანი იბადება თავისუფალი.",
    "Բոլոր մարդիկ ծնվում են ազատ ու հավասար։",
    "ሰዎች ሁሉ ነፃና እኩል ሆነው ተወልደዋል።",
    "人人生而自由，在尊严和权利上一律平等。",
    "人人生而自由，在尊嚴和權利上一律平等。",
    "すべての人間は、生まれながらにして自由であり、ｶﾀｶﾅも。",
    "모든 인간은 태어날 때부터 자유로우며 평등하다.",
    "Tất cả mọi người sinh ra đều được tự do và bình đẳng.",
    "Wszyscy ludzie rodzą się wolni; zażółć gęślą jaźń.",
    "Bütün insanlar hür doğarlar; ışık, İstanbul.",
    "Watu wote wamezaliwa huru, hadhi na haki zao ni sawa.",
    "e\u0301 and é, ﬁ and fi, ½ ² Ⅷ ㎏",
    "two  spaces,\ta tab,\u00a0no break,\u200bno width, \ufeffa mark ",
    "👩‍👩‍👧‍👦 🇨🇭 ☃ ❤️ \U0001f9ff",
    "3.14159 1,000,000 2024-02-29 12:34:56 +41 44 123 45 67",
    "https://example.org/?q=a&b=c#d <s> </s> <pad> <unk>",
    "for (int i = 0; i < n; ++i) { sum += a[i]; }",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ abcdefghijklmnopqrstuvwxyz",
    "",
)

# Outputs of two checkpoints or backends are the same up to this times the larger of 1 and their root mean square, where
# the weights are the same: what float32 kernels differ in.
TOLERANCE = 2e-5
# Where weights were rounded to half precision, by the relative Euclidean distance.
HALF_TOLERANCE = {"F16": 2e-2, "BF16": 1e-1}


@dataclass(frozen=True)
class ShapeDifference:
    """A parameter of two shapes."""

    name: str
    a: tuple[int, ...]
    b: tuple[int, ...]


@dataclass(frozen=True)
class ValueDifference:
    """A parameter whose values differ by more than the rounding of the narrower dtype.

    Attributes:
        name: canonical, without ``roberta.``.
        count: how many values differ.
        largest: the largest absolute difference.
    """

    name: str
    count: int
    largest: float


@dataclass(frozen=True)
class TokenDifference:
    """A text to which two tokenizers give other ids."""

    text: str
    a: tuple[int, ...]
    b: tuple[int, ...]


@dataclass(frozen=True)
class OutputDifference:
    """An output of the small forward pass.

    Attributes:
        name: of the output.
        largest: the largest absolute difference.
        relative: the Euclidean norm of the difference over that of the output.
        equal: whether that is within the tolerance.
    """

    name: str
    largest: float
    relative: float
    equal: bool


@dataclass(frozen=True)
class Comparison:
    """What two checkpoints have in common and what not.

    Attributes:
        a, b: their files.
        only_a, only_b: parameters that only one has; canonical names without ``roberta.``.
        shapes: parameters of two shapes.
        values: parameters whose values differ by more than rounding.
        compared: how many parameters were compared.
        identical: how many of them are the same bit for bit.
        largest: the largest difference of any value, that of rounding included.
        config: keys of the configurations that change outputs and differ.
        sentences: how many texts were tokenized by both; 0 if a tokenizer is missing.
        tokens: those with other ids.
        outputs: of the small forward pass.
        probe: what was run, in words.
        backends: what ran each of them.
        notes: what was not compared, and why.
    """

    a: str
    b: str
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()
    shapes: tuple[ShapeDifference, ...] = ()
    values: tuple[ValueDifference, ...] = ()
    compared: int = 0
    identical: int = 0
    largest: float = 0.0
    config: tuple[str, ...] = ()
    sentences: int = 0
    tokens: tuple[TokenDifference, ...] = ()
    outputs: tuple[OutputDifference, ...] = ()
    probe: str = ""
    backends: tuple[str, str] = (REFERENCE, REFERENCE)
    notes: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether nothing that was compared differs."""
        return not (
            self.only_a
            or self.only_b
            or self.shapes
            or self.values
            or self.config
            or self.tokens
            or any(not row.equal for row in self.outputs)
        )


def compare(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    *,
    head: str | None = None,
    backends: tuple[str, str] = (REFERENCE, REFERENCE),
    progress: Progress | None = None,
) -> Comparison:
    """Compare two checkpoints of any formats.

    Args:
        a, b: folders, files of weights, built-in names or names on the hub.
        head: of both, where their files do not say it.
        backends: what runs each in the small forward pass: ``reference``, which needs no framework, or a name of
            ``BACKENDS``.
        progress: called with what is being done, the bytes that are done, and all there are.

    Raises:
        ModelNotFoundError, CheckpointError, ConfigError: if one of them cannot be opened.
        MissingBackendError: if a backend is not installed.
    """
    one, other = (_backend_called(name) for name in backends)
    with open_model(a, head=head) as files_a, open_model(b, head=head) as files_b:
        return compare_files(files_a, files_b, backends=(one, other), progress=progress)


def _backend_called(name: str) -> str:
    found = REFERENCE if name == REFERENCE else find_backend(name)
    if found is None:
        known = ", ".join((REFERENCE, *BACKENDS))
        raise CheckpointError(f"expected a backend of {known}, received {name!r}; choose one of them")
    return found


def compare_files(
    a: ModelFiles,
    b: ModelFiles,
    *,
    backends: tuple[str, str] = (REFERENCE, REFERENCE),
    tokenizers: bool = True,
    outputs: bool = True,
    progress: Progress | None = None,
) -> Comparison:
    """As :func:`compare`, of open checkpoints; ``tokenizers=False`` leaves the texts out, ``outputs=False`` the forward
    pass.
    """
    own = bool(a.own_class and b.own_class)
    streams_a, streams_b = _by_bare_name(a, own), _by_bare_name(b, own)
    notes = list(_left_out(a, b, own))
    if (a.scheme or b.scheme) and set(streams_a) != set(streams_b):
        streams_a, streams_b = _by_bare_name(a, own, widen=True), _by_bare_name(b, own, widen=True)
        notes += [
            f"{files.scheme.name} weights of {files.checkpoint.path} are compared by the values they stand for"
            for files in (a, b)
            if files.scheme is not None
        ]
    folded = _only_type_differs(a, b, streams_a, streams_b)
    if folded:
        streams_a, streams_b = _with_types_added(streams_a), _with_types_added(streams_b)
        notes.append(
            "the row of the only token type is compared together with the positions, to which it is always added"
        )
    dtypes = [stream.dtype for stream in (*streams_a.values(), *streams_b.values())]
    streams_a, streams_b = streams_a | _extra_heads(a), streams_b | _extra_heads(b)
    common = [name for name in streams_a if name in streams_b]
    shapes = tuple(
        ShapeDifference(name, streams_a[name].shape, streams_b[name].shape)
        for name in common
        if streams_a[name].shape != streams_b[name].shape
    )
    same_shape = [name for name in common if streams_a[name].shape == streams_b[name].shape]
    count = Counter("comparing", sum(streams_a[name].nbytes for name in same_shape), progress)
    found = {name: _compare_values(streams_a[name], streams_b[name], count) for name in same_shape}
    only_a = tuple(name for name in streams_a if name not in streams_b)
    only_b = tuple(name for name in streams_b if name not in streams_a)
    sentences, tokens = _compare_tokenizers(a, b, notes) if tokenizers else (0, ())
    config = differing_keys(a, b)
    compared: tuple[OutputDifference, ...] = ()
    probe = ""
    if not outputs:
        pass
    elif a.head != b.head or shapes or only_a or only_b:
        notes.append("outputs are not compared, because the models have different parameters")
    elif a.plan.fresh or b.plan.fresh:
        notes.append("outputs are not compared, because parameters are missing")
    else:
        made = make_probe(a.config, a.head)
        probe = made.describe(a.config)
        narrowest = min(dtypes, key=_precision)
        exact = all(row.identical for row in found.values())
        compared = _compare_outputs(
            run_probe(a, made, backends[0], progress),
            run_probe(b, made, backends[1], progress),
            "F32" if exact and not folded else narrowest,
        )
    return Comparison(
        a=str(a.checkpoint.path),
        b=str(b.checkpoint.path),
        only_a=only_a,
        only_b=only_b,
        shapes=shapes,
        values=tuple(ValueDifference(name, row.count, row.largest) for name, row in found.items() if row.count),
        compared=len(found),
        identical=sum(row.identical for row in found.values()),
        largest=max((row.largest for row in found.values()), default=0.0),
        config=config,
        sentences=sentences,
        tokens=tokens,
        outputs=compared,
        probe=probe,
        backends=backends,
        notes=tuple(notes),
    )


# Values


@dataclass(frozen=True)
class _Values:
    identical: bool
    count: int
    largest: float


def _by_bare_name(files: ModelFiles, own: bool, widen: bool = False) -> dict[str, LazyTensor]:
    streams = dequantized(files.streams(), files.rows) if widen else files.streams()
    if own:
        streams |= {name: files.checkpoint.stream(name) for name in files.own_parts}
    return {name.removeprefix("roberta."): stream for name, stream in streams.items()}


def _extra_heads(files: ModelFiles) -> dict[str, LazyTensor]:
    """The tensors of the further heads beside the weights."""
    heads = read_extra_heads(files.folder)
    return {f"{head}.{name}": stream for head, tensors in heads.items() for name, stream in tensors.items()}


def _left_out(a: ModelFiles, b: ModelFiles, own: bool) -> Iterator[str]:
    """What of the files is not compared."""
    if own:
        yield f"outputs are those of {a.architecture}, without what {a.own_class} does beyond it"
        return
    for files in (a, b):
        names = files.plan.report.unexpected
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            yield (
                f"{', '.join(names[:3])}{more} of {files.checkpoint.path} {number(names, 'is', 'are')} not compared, "
                f"because {files.architecture} has no place for {number(names, 'it', 'them')}"
            )


_TYPES, _POSITIONS = "embeddings.token_type_embeddings.weight", "embeddings.position_embeddings.weight"


def _only_type_differs(
    a: ModelFiles, b: ModelFiles, streams_a: Mapping[str, LazyTensor], streams_b: Mapping[str, LazyTensor]
) -> bool:
    """Whether two models have one token type each, which only in one of them is zero: fairseq, which has none, adds it
    to the positions.
    """
    rows = [streams[_TYPES] for streams in (streams_a, streams_b) if _TYPES in streams]
    return (
        len(rows) == 2
        and all(row.shape[0] == 1 and row.dtype in ("F16", "F32", "F64") for row in rows)
        and all(
            part.position_embedding_type == "absolute"
            for files in (a, b)
            for part in parts_of_config(files.config).values()
        )
        and all(streams[_TYPES].dtype == streams[_POSITIONS].dtype for streams in (streams_a, streams_b))
        and any(rows[0].read().data) != any(rows[1].read().data)
    )


def _with_types_added(streams: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    positions, types = streams[_POSITIONS], streams[_TYPES]

    def pieces() -> Iterator[memoryview]:
        yield RawTensor.from_numpy(positions.read().to_numpy() + types.read().to_numpy()).data

    added = LazyTensor(positions.dtype, positions.shape, pieces)
    return {name: added if name == _POSITIONS else stream for name, stream in streams.items() if name != _TYPES}


def _precision(dtype: str) -> float:
    """Bits of a value's fraction; whole numbers are exact."""
    return {"BF16": 8, "F16": 11, "F32": 24, "F64": 53}.get(dtype, math.inf)


def _compare_values(a: LazyTensor, b: LazyTensor, advance: Counter) -> _Values:
    identical, count, largest = a.dtype == b.dtype, 0, 0.0
    narrower = min(a.dtype, b.dtype, key=_precision)
    for one, other in zip(blocks(a), blocks(b), strict=True):
        advance(one.nbytes)
        if a.dtype == b.dtype and np.array_equal(np.frombuffer(one, np.uint8), np.frombuffer(other, np.uint8)):
            continue
        first, second = _values(one, a.dtype), _values(other, b.dtype)
        identical = False
        difference = _distance(first, second)
        largest = max(largest, float(difference.max(initial=0.0)))
        if a.dtype == b.dtype:
            count += int(np.count_nonzero(difference))
        elif {a.dtype, b.dtype} <= set(FLOAT_TAGS):
            count += int(np.count_nonzero(_distance(_rounded_to(first, narrower), _rounded_to(second, narrower))))
        else:
            count += int(np.count_nonzero(difference))
    return _Values(identical, count, largest)


def _values(data: memoryview, dtype: str) -> Array:
    if dtype in FLOAT_TAGS:
        return widened(data, dtype)
    name = DTYPES[dtype].numpy
    if name is None:
        raise CheckpointError(f"values of the dtype {dtype} cannot be compared; convert the checkpoint it came from")
    return np.frombuffer(data, name)


def _rounded_to(values: Array, dtype: str) -> Array:
    """The values as the narrower dtype holds them."""
    return widened(rounded(values, dtype).view(np.uint8).data, dtype)


def _distance(a: Array, b: Array) -> Array:
    """Absolute differences; none between two infinities of a sign or two NaN, an infinite one where only one is NaN."""
    with np.errstate(invalid="ignore", over="ignore"):
        distance: Array = np.abs(a.astype(np.float64) - b.astype(np.float64))
    distance[(a == b) | (np.isnan(a) & np.isnan(b))] = 0.0
    distance[np.isnan(distance)] = np.inf
    return distance


# Configurations


# What changes outputs although every parameter is the same.
_CHANGE_OUTPUTS = (
    *("layer_norm_eps", "hidden_act", "num_attention_heads", "pad_token_id", "position_embedding_type", "is_decoder"),
    *("add_cross_attention", "tie_word_embeddings", "id2label"),
)
# Of an encoder-decoder beside those of its sides: what its decoder reads for labels.
_CHANGE_OUTPUTS_OF_BOTH = ("decoder_start_token_id", "pad_token_id")


def differing_keys(a: ModelFiles, b: ModelFiles) -> tuple[str, ...]:
    """Keys of the configurations that change what the model says, each with both values; of labels only where a head
    has them.
    """
    keys = [key for key in _CHANGE_OUTPUTS if key != "id2label" or any("classif" in name for name in a.rows)]
    one, other = ({"": files.config, **parts_of_config(files.config)} for files in (a, b))
    pairs = [
        (prefix + key, _value_of(one[prefix], key), _value_of(other[prefix], key))
        for prefix in one
        if prefix in other
        for key in (keys if isinstance(one[prefix], XLMRobertaConfig) else _CHANGE_OUTPUTS_OF_BOTH)
    ]
    kinds = [("architecture", a.architecture, b.architecture)] if a.architecture != b.architecture else []
    return tuple(f"{key}: {one!r} and {other!r}" for key, one, other in (*kinds, *pairs) if one != other)


def _value_of(config: ModelConfig, key: str) -> Any:
    value = getattr(config, key, None)
    if key == "hidden_act" and isinstance(value, str):
        # Several names are the same function: the first of them stands for all.
        return next(name for name, act in ACTIVATION_FUNCTIONS.items() if act is ACTIVATION_FUNCTIONS[value])
    return value


# Tokenizers


def _compare_tokenizers(a: ModelFiles, b: ModelFiles, notes: list[str]) -> tuple[int, tuple[TokenDifference, ...]]:
    tokenizers = []
    for files in (a, b):
        if files.tokenizer is None:
            notes.append(f"tokenizers are not compared, because there is none in {files.folder}")
            return 0, ()
        tokenizers.append(AutoTokenizer.from_pretrained(files.tokenizer))
        if order_differs(files.folder / VOCAB_FILE):
            notes.append(
                f"ids of {files.folder} follow its {DICTIONARY_FILE}, which lists the pieces in another order than "
                f"{VOCAB_FILE}"
            )
    first, second = tokenizers
    found = []
    for text in SENTENCES:
        one, other = first.encode(text, verbose=False), second.encode(text, verbose=False)
        if one != other:
            found.append(TokenDifference(text, tuple(one), tuple(other)))
    return len(SENTENCES), tuple(found)


# Outputs


def _compare_outputs(a: dict[str, Array], b: dict[str, Array], dtype: str) -> tuple[OutputDifference, ...]:
    found = []
    for name in [name for name in a if name in b]:
        if a[name].shape != b[name].shape:
            raise CheckpointError(f"{name} has the shapes {a[name].shape} and {b[name].shape}; the models do not fit")
        distance = _distance(a[name], b[name])
        largest = float(distance.max(initial=0.0))
        size = float(np.linalg.norm(a[name]))
        relative = float(np.linalg.norm(distance)) / size if size else float(largest > 0)
        scale = max(1.0, size / math.sqrt(max(a[name].size, 1)))
        within = relative <= HALF_TOLERANCE[dtype] if dtype in HALF_TOLERANCE else largest <= TOLERANCE * scale
        found.append(OutputDifference(name, largest, relative, within))
    return tuple(found)
