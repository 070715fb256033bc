"""The sentencepiece model of a ``tokenizer.json``, or of a list of pieces, for the sentencepiece class.

A ``tokenizer.json`` that was made from a model of XLM-R's kind holds all that the model does: pieces, scores, and the
normalization table. One whose steps do something else than sentencepiece is refused.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from typing import Any

from xlmr_core.bounded_files import DAMAGE, why
from xlmr_core.errors import TokenizerError
from xlmr_core.tokenization import dictionary, spm
from xlmr_core.tokenization.json_file import read_tokenizer_json
from xlmr_core.tokenization.special import AddedToken
from xlmr_core.wording import shown

__all__ = ["model_of_json", "model_of_pairs"]

_FAST = "use XLMRobertaTokenizerFast (AutoTokenizer with use_fast=True)"
# Steps that do what sentencepiece does with XLM-R's settings, as versions 3 to 5 of the original library and this one
# write them.
_NORMALIZERS = ("Precompiled", "Strip", "Replace")
_REPLACED = ((" {2,}", "▁"), (" {2,}", " "), ("^ +| +$", ""), ("^[ ▁]", "▁▁"))
_TEMPLATE = ["<s>", "A", "</s>", "</s>", "B", "</s>"]
_PRE_TOKENIZERS = ("WhitespaceSplit", "Metaspace")


def model_of_pairs(pairs: list[tuple[str, float]], source: str, charsmap: bytes = b"") -> bytes:
    """The content of the ``.model`` file of a vocabulary in id order.

    Raises:
        TokenizerError: its first ids are not XLM-R's, or ``<mask>`` stands somewhere else than at its end.
    """
    names = [piece for piece, _ in pairs]
    first = len(spm.FAIRSEQ_SPECIAL)
    if tuple(names[:first]) != spm.FAIRSEQ_SPECIAL:
        raise TokenizerError(
            f"expected ids 0 to 3 of {source} to be {spm.FAIRSEQ_SPECIAL}, received {tuple(names[:first])}; "
            "this is not an XLM-R vocabulary"
        )
    pieces = pairs[first:-1] if names[-1] == spm.MASK else pairs[first:]
    misplaced = spm.RESERVED.intersection(piece for piece, _ in pieces)
    if misplaced:
        raise TokenizerError(
            f"expected {spm.MASK} as the last id of {source}, and no special token twice, received "
            f"{', '.join(sorted(misplaced))} among the pieces, where sentencepiece has no place for it; {_FAST}"
        )
    return spm.make_model(pieces, charsmap)


def model_of_json(path: str | os.PathLike[str]) -> tuple[bytes, dict[int, AddedToken]]:
    """The content of the ``.model`` file that belongs to a ``tokenizer.json``, and the added tokens by id.

    Raises:
        TokenizerError: damaged, not XLM-R's, or with steps that sentencepiece does not know.
    """
    try:
        content = json.loads(read_tokenizer_json(path))
        model = content["model"]
        if model.get("type", "Unigram") != "Unigram":
            raise TokenizerError(
                f"expected a Unigram model in {path}, received {shown(model.get('type'))}; this is not an XLM-R "
                "tokenizer"
            )
        steps = _steps(content.get("normalizer"), "normalizers")
        odd = _odd_steps(steps, _steps(content.get("pre_tokenizer"), "pretokenizers"))
        odd += ["byte_fallback"] * bool(model.get("byte_fallback"))
        odd += ["another template of special tokens"] * (_template(content.get("post_processor")) != _TEMPLATE)
        if odd:
            raise TokenizerError(
                f"expected steps of a sentencepiece model in {path}, received {', '.join(odd)}; {_FAST}"
            )
        tables = [base64.b64decode(step["precompiled_charsmap"]) for step in steps if step["type"] == "Precompiled"]
        pairs = [(str(piece), float(score)) for piece, score in model["vocab"]]
        added = {int(item["id"]): AddedToken.of(item) for item in content.get("added_tokens", [])}
    except TokenizerError:
        raise
    except DAMAGE as error:
        raise TokenizerError(
            f"expected a tokenizer.json at {path}, but it is damaged ({why(error)}); copy it again"
        ) from error
    names = [piece for piece, _ in pairs]
    dictionary.check_ids(lambda index: names[index] if index < len(names) else None, len(names), path)
    return model_of_pairs(pairs, str(path), *tables[:1]), added


def _odd_steps(steps: list[Mapping[str, Any]], words: list[Mapping[str, Any]]) -> list[str]:
    """What a sentencepiece model with XLM-R's settings does not do."""
    odd = [str(step["type"]) for step in steps if step["type"] not in _NORMALIZERS]
    odd += [str(step["type"]) for step in words if step["type"] not in _PRE_TOKENIZERS]
    replaced = [(step["pattern"].get("Regex"), step["content"]) for step in steps if step["type"] == "Replace"]
    odd += [
        f"Replace {shown(pattern)} by {shown(content)}"
        for pattern, content in replaced
        if (pattern, content) not in _REPLACED
    ]
    spaces = [step for step in words if step["type"] == "Metaspace"]
    if not any(
        step.get("prepend_scheme", "always") == "always" and step.get("add_prefix_space", True) for step in spaces
    ):
        odd.append("a text without a space in front")
    if not any(pattern == " {2,}" for pattern, _ in replaced) and len(words) == len(spaces):
        odd.append("runs of spaces that stay")
    return odd


def _template(processor: Any) -> list[str]:
    """What is put around a pair: names of special tokens, and A and B for the texts."""
    if not processor:
        return []
    if processor["type"] == "RobertaProcessing":
        cls, sep = processor["cls"][0], processor["sep"][0]
        return [cls, "A", sep, sep, "B", sep]
    return [str(part["id"]) for item in processor.get("pair", []) for part in item.values()]


def _steps(node: Any, inner: str) -> list[Mapping[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, those of a sequence one by one."""
    if node is None:
        return []
    return [step for part in node[inner] for step in _steps(part, inner)] if node["type"] == "Sequence" else [node]
