"""The tokenizers library's pipeline for a sentencepiece model: the same ids, or a refusal that names the field.

A model like every published one gets the pipeline that the original library converts it into, to the letter. Another
one gets steps that do what its settings say (the table in ``spm.py``); what the library cannot do is refused, and the
sentencepiece class can.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from xlmr_core.bounded_files import why
from xlmr_core.errors import TokenizerError
from xlmr_core.tokenization import spm
from xlmr_core.tokenization.checks import check_text
from xlmr_core.tokenization.spm import Kind, ModelType, SentencePieceModel, Settings

__all__ = ["assembled", "from_model", "refusing"]

_SPACE = "▁"
_SLOW = "use XLMRobertaTokenizer (AutoTokenizer with use_fast=False), which takes it"
_STRANGER = "\ue000"  # of the private use area
_MOST_HIDDEN = 64  # pieces that need a step each
_BYTE = re.compile("<0x[0-9A-F]{2}>")
# Normalization tables that come with sentencepiece. What the library does otherwise with them (combining marks) is
# known and recorded.
_KNOWN_RULES = ("nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity")


def from_model(data: bytes, source: str) -> Any:
    """The ``tokenizers.Tokenizer`` of a sentencepiece model.

    Raises:
        TokenizerError: damaged, not XLM-R's, or with a setting that the tokenizers library has no counterpart of.
    """
    model = SentencePieceModel.from_bytes(data, source)
    settings = model.settings
    for field, received, served in (
        ("model_type", ModelType(settings.model_type).name.lower(), settings.model_type == ModelType.UNIGRAM),
        ("treat_whitespace_as_suffix", "true", not settings.treat_whitespace_as_suffix),
    ):
        if not served:
            raise TokenizerError(
                f"expected a model that the tokenizers library can follow in {source}, received one with {field} "
                f"{received}; {_SLOW}"
            )
    vocabulary = spm.xlmr_vocabulary(model)
    with refusing(f"expected a normalization table in {source}, received a damaged one; copy the file again"):
        tokenizer = assembled(vocabulary, settings, list(model.kinds.values()))
        if settings.charsmap and settings.rule_name not in _KNOWN_RULES:
            _check_rules(settings.charsmap, source)
        if model.kinds.keys() - {0, 1, 2}:
            _settle_kinds(tokenizer, model, source)
    return tokenizer


def assembled(vocabulary: list[tuple[str, float]], settings: Settings, kinds: Sequence[int] = ()) -> Any:
    """A ``tokenizers.Tokenizer`` of a vocabulary in id order, with XLM-R's special tokens around a text."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    unknown = spm.FAIRSEQ_SPECIAL.index("<unk>")
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=unknown, byte_fallback=settings.byte_fallback))
    space = _SPACE if settings.escape_whitespaces else " "
    as_published = not settings.unusual and Kind.USER_DEFINED not in kinds and makes_spaces(settings.charsmap)
    tokenizer.normalizer = _normalizer(settings, as_published)
    # Words may be looked at one by one only where no piece goes over the end of one, or holds the mark used here.
    text = "\n".join(token for token, _ in vocabulary)
    apart = text.count(space) == text.count(f"\n{space}") and text.count("\n") == len(vocabulary) - 1
    apart = apart and tokenizer.token_to_id(space) is not None
    prefix = "always" if settings.add_dummy_prefix else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=space, prepend_scheme=prefix, split=apart)
    tokenizer.decoder = decoders.Metaspace(replacement=space, prepend_scheme=prefix)
    if settings.byte_fallback:
        # A text that looks like a byte piece is taken apart where no other piece would be.
        if not any("<0" in token and not _BYTE.fullmatch(token) for token, _ in vocabulary):
            apart_at = pre_tokenizers.Split(Regex("(?<=<)(?=0x[0-9A-F]{2}>)"), "isolated")
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence([tokenizer.pre_tokenizer, apart_at])
        steps = [decoders.Replace(space, " "), decoders.ByteFallback(), decoders.Fuse()]
        tokenizer.decoder = decoders.Sequence(steps + [decoders.Strip(" ", 1, 0)] * settings.add_dummy_prefix)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def _normalizer(settings: Settings, as_published: bool) -> Any:
    from tokenizers import Regex, normalizers

    steps: list[Any] = [normalizers.Precompiled(settings.charsmap)] if settings.charsmap else []
    if as_published:
        steps += [normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), _SPACE)]
        return normalizers.Sequence(steps)
    if settings.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if settings.add_dummy_prefix:
        # The pre-tokenizer puts a space in front of what has none, sentencepiece in front of every text.
        space = _SPACE if settings.escape_whitespaces else " "
        steps += [normalizers.Replace(Regex(f"^[ {space}]"), space * 2)]
    return normalizers.Sequence(steps)


def makes_spaces(charsmap: bytes) -> bool:
    """Whether a normalization table makes spaces of all white space, as every published model's does; the published
    steps strip all of it.
    """
    from tokenizers import normalizers

    return bool(charsmap) and normalizers.Precompiled(charsmap).normalize_str("\t\n\r") == "   "


def _settle_kinds(tokenizer: Any, model: SentencePieceModel, source: str) -> None:
    """See to it that pieces of a kind of their own are found, or not found, as sentencepiece does it.

    Raises:
        TokenizerError: the library cannot do that.
    """
    from tokenizers import normalizers

    charsmap = model.settings.charsmap
    normalized = normalizers.Precompiled(charsmap).normalize_str if charsmap else str
    letters: set[str] | None = None
    hidden: list[Any] = []
    for number, kind in model.kinds.items():
        piece, index = model.pieces[number], number + 1
        if number < len(spm.SPM_SPECIAL) or piece in spm.RESERVED:
            continue
        if kind == Kind.USER_DEFINED:
            if normalized(piece).replace(" ", _SPACE) != piece:
                raise TokenizerError(
                    f"expected user-defined pieces that normalizing leaves as they are in {source}, received {piece!r} "
                    f"(number {number}); {_SLOW}"
                )
        elif index in tokenizer.encode(piece, add_special_tokens=False).ids:
            # Its text has letters that no piece has: any other such letter in the place of one gives the same ids.
            if letters is None:
                matched = (Kind.NORMAL, Kind.USER_DEFINED)
                kinds = (model.kinds.get(other, Kind.NORMAL) for other in range(len(model.pieces)))
                letters = set[str]().union(
                    *(text for text, of in zip(model.pieces, kinds, strict=True) if of in matched)
                )
            unknown = next((letter for letter in piece if letter not in letters and letter not in " ▁"), None)
            if unknown is None or _STRANGER in letters or model.settings.byte_fallback or len(hidden) >= _MOST_HIDDEN:
                raise TokenizerError(
                    f"expected the {Kind(kind).name.lower()} piece {piece!r} (number {number}) of {source} to be "
                    f"spelled by other pieces, received none that do; {_SLOW}"
                )
            hidden.append(normalizers.Replace(piece, piece.replace(unknown, _STRANGER)))
    if hidden:
        tokenizer.normalizer = normalizers.Sequence([tokenizer.normalizer, *hidden])


# Normalization rules


def _check_rules(charsmap: bytes, source: str) -> None:
    """Refuse rules of a user's own that the library does not apply: it looks at single graphemes of a few bytes."""
    from tokenizers import normalizers

    normalizer = normalizers.Precompiled(charsmap)
    differing = {text: new for text, new in _rules(charsmap) if normalizer.normalize_str(text) != new}
    # Those of sentencepiece's own tables are not followed to the letter either, which is known and recorded.
    for table in map(_table_of, _KNOWN_RULES if differing else ()):
        differing = {text: new for text, new in differing.items() if _replacement(table, text) != new}
    for text, new in differing.items():
        raise TokenizerError(
            f"expected normalization rules that the tokenizers library can follow in {source} (normalizer_spec."
            f"precompiled_charsmap), received one from {text!r} to {new!r}; {_SLOW}"
        )


def _table_of(rule: str) -> bytes:
    """The table of a rule that comes with sentencepiece."""
    import sentencepiece

    return spm.charsmap_of(sentencepiece.SentencePieceNormalizer(rule_name=rule).serialized_model_proto())


# A normalization table is a double array of byte prefixes (the trie of Darts-clone), and behind it the replacements. A
# unit holds its label, where its children lie (this number xor their labels), and whether it ends a text.


def _units(charsmap: bytes) -> tuple[np.ndarray[Any, Any], bytes]:
    size = int.from_bytes(charsmap[:4], "little")
    return np.frombuffer(charsmap[4 : 4 + size - size % 4], dtype="<u4").astype(np.int64), charsmap[4 + size :]


def _base(nodes: Any, units: np.ndarray[Any, Any]) -> Any:
    unit = units[nodes]
    return nodes ^ ((unit >> 10) << ((unit & 0x200) >> 6))


def _text_at(units: np.ndarray[Any, Any], texts: bytes, base: int) -> str:
    start = int(units[base]) & 0x7FFFFFFF
    return texts[start : texts.index(b"\0", start)].decode(errors="replace")


def _rules(charsmap: bytes) -> Iterator[tuple[str, str]]:
    """What a normalization table replaces, and by what; level by level."""
    units, texts = _units(charsmap)
    labels = np.arange(1, 256)
    nodes, prefixes = np.zeros(1, np.int64), [b""]
    left = len(units)  # a table that leads in circles has no end
    while prefixes:
        left -= len(prefixes)
        if left < 0:
            raise ValueError("a normalization table leads in circles")
        bases = _base(nodes, units)
        for number in np.flatnonzero(units[nodes] & 0x100):
            with contextlib.suppress(UnicodeDecodeError):
                yield prefixes[number].decode(), _text_at(units, texts, bases[number])
        children = bases[:, None] ^ labels
        there = (units[np.minimum(children, len(units) - 1)] & 0x800000FF) == labels
        rows, columns = np.nonzero(there & (children < len(units)))
        nodes = children[rows, columns]
        prefixes = [prefixes[row] + bytes([column + 1]) for row, column in zip(rows, columns, strict=True)]


def _replacement(charsmap: bytes, text: str) -> str | None:
    """By what a normalization table replaces a text; None: it has no rule for it."""
    if not charsmap:
        return None
    units, texts = _units(charsmap)
    node = 0
    for label in text.encode():
        node = int(_base(node, units)) ^ label
        if node >= len(units) or units[node] & 0x800000FF != label:
            return None
    return _text_at(units, texts, int(_base(node, units))) if units[node] & 0x100 else None


@contextlib.contextmanager
def refusing(message: str, inputs: Sequence[Any] = ()) -> Iterator[None]:
    """Turn an error of the tokenizers library into ours; a panic of its Rust code is a BaseException."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, TokenizerError) or not (
            isinstance(error, Exception) or type(error).__name__ == "PanicException"
        ):
            raise
        for item in inputs:
            for side in item if isinstance(item, tuple) else (item,):
                for text in side if isinstance(side, list) else (side,):
                    check_text(text)
        raise TokenizerError(f"{message} ({why(error)})") from error
