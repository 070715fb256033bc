"""The models that a file holds, found by content: wherever there are word embeddings, there is an encoder.

What stands before their published name says whose it is: a key of a training checkpoint, an attribute of a Lightning
module, a wrapper (``state_dict.model.roberta.embeddings...``). Wrappers put steps into the middle of a name too:
``roberta.encoder.layer.0._checkpoint_wrapped_module.attention...``. Every format is searched alike, by the names into
which its own table decodes what is stored.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from xlmr_core.errors import CheckpointError
from xlmr_core.formats.base import Naming
from xlmr_core.formats.layouts import Layout
from xlmr_core.formats.tensors import Described
from xlmr_core.parameters import PROJECTION

__all__ = ["DICTIONARIES", "holds_encoder", "model_naming", "names_of_model", "plain_name", "plain_names"]

# Steps that wrappers put into names: torch.compile, FSDP of PyTorch and of fairscale, activation checkpointing,
# Lightning Fabric, Opacus, and whatever runs on several devices.
WRAPPERS = (
    *("_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module"),
    *("_forward_module", "_original_module", "_module", "module"),
)
# What the names of an encoder-decoder's sides begin with, and whether there is an encoder without a head.
SIDES = {"encoder.": True, "decoder.": False}
# What a bare encoder consists of: beside it stands the wrapper's own.
ENCODER_PARTS = ("embeddings.", "encoder.", "pooler.")

_WRAPPED = rf"(?:(?:{'|'.join(WRAPPERS)})\.)*"
_BEFORE = rf"(?P<before>(?:.*?\.)??)(?P<base>roberta\.{_WRAPPED})?"
WORDS = re.compile(rf"{_BEFORE}embeddings\.{_WRAPPED}word_embeddings\.{_WRAPPED}weight")
# Writers that keep one name for tied values may have kept this one.
DECODER = re.compile(rf"(?P<before>(?:.*?\.)??)(?P<base>lm_head\.){_WRAPPED}decoder\.{_WRAPPED}weight")
LAYER = re.compile(rf"{_BEFORE}encoder\.{_WRAPPED}layer\.{_WRAPPED}\d+\..+")
# What keeps moments of every parameter, under the names of the parameters.
OPTIMIZER = re.compile(r"(optimizer|(opt|optim|optimizer)_(states?|weights|state_dicts?))|mu|nu|exp_avg(_sq)?")

# Under this word of its metadata a file of nested dictionaries says for each tensor which one it is in: the keys that
# lead there, joined as in the names.
DICTIONARIES = "dictionaries"


class Encoder(NamedTuple):
    """Where an encoder is.

    Attributes:
        before: what its names begin with, before ``roberta.`` or, if ``bare``, before ``embeddings.``.
        bare: whether there is no step ``roberta.``, beside which a head would stand.
        dictionary: the beginning of ``before`` that is the place of a dictionary in the file and no part of names;
            ``None`` if the file is a tree, or nests no dictionaries.
    """

    before: str
    bare: bool
    dictionary: str | None

    @property
    def word(self) -> str:
        """``before`` without the place of the dictionary."""
        return self.before.removeprefix(self.dictionary or "")


def plain_name(name: str) -> str:
    """A name without the steps of wrappers."""
    return ".".join(step for step in name.split(".") if step not in WRAPPERS) or name


def plain_names(names: Collection[str]) -> dict[str, str]:
    """Names without the steps of wrappers; two that would be one without them keep them."""
    count = Counter(map(plain_name, names))
    return {name: plain if count[plain := plain_name(name)] == 1 else name for name in names}


def holds_encoder(names: Iterable[str]) -> bool:
    """Whether there is an encoder among some names."""
    return bool(_encoders(tuple(names), {}))


def model_naming(container: Described, naming: Naming, part: str | None) -> Naming:
    """The naming of a format, and what stands around the names of the one model cut off.

    Args:
        container: the file.
        naming: of its format.
        part: what the names of the wanted model begin with, where there are several.

    Raises:
        CheckpointError: if there are several and none is asked for, or there is none of that beginning.
    """
    decoded = {stored: tuple(naming.decode(stored)) for stored in container.tensors}
    names = tuple(dict.fromkeys(name for pairs in decoded.values() for name, _ in pairs))
    renamed = names_of_model(container.path, names, container.metadata.get(DICTIONARIES, {}), part)

    def decode(stored: str) -> Iterator[tuple[str, Layout]]:
        return ((renamed[name], layout) for name, layout in decoded[stored] if name in renamed)

    return Naming(decode)


def names_of_model(
    path: object, names: Collection[str], dictionaries: Mapping[str, str], part: str | None
) -> dict[str, str]:
    """The canonical name for every name that belongs to the model of a file. States of optimizers, other models, and
    whatever else stands beside it are left out.

    Args:
        path: the file, for messages.
        names: in it.
        dictionaries: for a name, the dictionary that it is in, see ``DICTIONARIES``.
        part: what the names of the wanted model begin with, where there are several.

    Raises:
        CheckpointError: if there are several and none is asked for, or there is none of that beginning.
    """
    encoders = _encoders(names, dictionaries)
    both = _encoder_decoder(names, encoders)
    chosen = (both if part is None else None) or _chosen(path, encoders, part)
    if chosen is None:
        return {name: name for name in names}
    before, bare, dictionary = chosen
    own = tuple(before + step for step in ENCODER_PARTS) if bare else (before,)
    others = [other.before for other in encoders if not other.before.startswith(before)]
    others += [] if both is None else [f"{both.before}{PROJECTION}."]
    is_inner = any(map(before.startswith, others))  # what stands around it is the outer model's
    short = {}
    for name in names:
        if dictionary is not None and dictionaries.get(name, "") != dictionary:
            continue
        if name.startswith(own):
            short[name] = name.removeprefix(before)
        elif not before or not (is_inner or _is_beside(name, dictionary or "", others)):
            short[name] = name.removeprefix(dictionary or "")
    plain = plain_names(short.values())
    return {name: plain[cut] for name, cut in short.items()}


def _is_beside(name: str, dictionary: str, others: Collection[str]) -> bool:
    """Whether a name around a model is not of it: of an optimizer, of another model, or of nothing that has parts, such
    as a count of steps.
    """
    steps = re.split(r"[./]", name.removeprefix(dictionary))  # a name that its format does not know is as it was
    return len(steps) == 1 or any(map(OPTIMIZER.fullmatch, steps[:2])) or name.startswith(tuple(others))


def _encoders(names: Collection[str], dictionaries: Mapping[str, str]) -> list[Encoder]:
    """The encoders among some names; those without layers only if there are no others, moments of optimizers never."""
    found: dict[str, Encoder] = {}
    for pattern, word in ((WORDS, "word_embeddings"), (DECODER, "decoder")):
        for name in names:
            if word not in name or (match := pattern.fullmatch(name)) is None:
                continue
            before = match["before"]
            dictionary = dictionaries.get(name, "") if dictionaries else None
            if not any(map(OPTIMIZER.fullmatch, before.split("."))):
                in_tree = dictionary is None or not before.startswith(dictionary)
                found.setdefault(before, Encoder(before, match["base"] is None, None if in_tree else dictionary))
        if found:
            break
    if len(found) < 2:
        return list(found.values())
    layers = {match["before"] for name in names if "layer" in name and (match := LAYER.fullmatch(name))}
    return [encoder for before, encoder in found.items() if before in layers] or list(found.values())


def _encoder_decoder(names: Collection[str], encoders: list[Encoder]) -> Encoder | None:
    """An encoder-decoder as one model, if the encoders that were found are its sides. Where these share their values, a
    file may have but one of them whole.
    """
    for before in {one.before.removesuffix(side) for one in encoders for side in SIDES if one.before.endswith(side)}:
        sides = {before + side: is_bare for side, is_bare in SIDES.items()}
        own = (tuple(f"{before}encoder.{step}" for step in ENCODER_PARTS), f"{before}decoder.roberta.")
        if (
            all(sides.get(one.before) is one.bare for one in encoders)
            and len({one.dictionary for one in encoders}) == 1
            and all(any(name.startswith(start) for name in names) for start in own)
        ):
            return Encoder(before, False, encoders[0].dictionary)
    return None


def _chosen(path: object, encoders: list[Encoder], part: str | None) -> Encoder | None:
    places = {encoder.dictionary for encoder in encoders}
    # Within the one dictionary that holds all of them their names do not begin with its place.
    known = {encoder.word if len(places) == 1 else encoder.before: encoder for encoder in encoders}
    if part is not None:
        whole = {encoder.before: encoder for encoder in encoders} | known
        if part not in whole and f"{part}." not in whole:
            there = f"it has {', '.join(map(_shown, known))}" if len(known) > 1 else "it has only one"
            raise CheckpointError(f"{path} has no part {part!r}; {there}")
        return whole.get(part) or whole[f"{part}."]
    if len(encoders) < 2:
        return next(iter(encoders), None)
    # A model whose names are the beginning of all others has the others for parts, as a user's class may.
    outer = min(encoders, key=lambda encoder: len(encoder.before))
    if len(places) == 1 and all(encoder.before.startswith(outer.before) for encoder in encoders):
        return outer
    first = next(filter(None, known))
    raise CheckpointError(
        f"{path} holds several encoders, under {', '.join(map(_shown, known))}; choose one of them with part={first!r} "
        f"(--part {first})"
    )


def _shown(word: str) -> str:
    return word or "'' (the top)"
