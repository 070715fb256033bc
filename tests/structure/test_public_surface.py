"""The public names and signatures are frozen: a change is seen in review, and never an accident."""

from __future__ import annotations

import difflib

import pytest

from tests.structure.surface import FROZEN, PACKAGES, installed, surface


@pytest.mark.parametrize("package", PACKAGES)
def test_the_public_surface_is_the_frozen_one(package: str) -> None:
    if not installed(package):
        pytest.skip(f"{PACKAGES[package]} is not installed")
    frozen = (FROZEN / f"{package}.txt").read_text(encoding="utf-8").splitlines()
    changes = list(difflib.unified_diff(frozen, surface(package), "frozen", "now", lineterm="", n=0))
    assert not changes, "\n".join(
        ["the public surface changed; if that is meant, run: python tests/structure/surface.py", *changes]
    )


def test_every_frozen_list_belongs_to_a_package() -> None:
    assert {file.stem for file in FROZEN.glob("*.txt")} == set(PACKAGES)


# What the issue promises by name, whatever the lists say.
PROMISED = {
    "xlmr_core": ["XLMRobertaConfig", "XLMRobertaXLConfig", "AutoConfig", "XLMRError"],
    "xlmr_torch": [
        *("AutoTokenizer", "AutoConfig", "XLMRobertaTokenizer", "XLMRobertaTokenizerFast", "pipeline", "to_tensor"),
        *("XLMRobertaConfig", "XLMRobertaXLConfig"),
        *("AutoModel", "XLMRobertaModel", "XLMRobertaXLModel"),
        *(
            prefix + head
            for prefix in ("AutoModel", "XLMRoberta", "XLMRobertaXL")
            for head in (
                "ForMaskedLM",
                "ForCausalLM",
                "ForSequenceClassification",
                "ForMultipleChoice",
                "ForTokenClassification",
                "ForQuestionAnswering",
            )
        ),
    ],
    **{
        package: [
            *("AutoTokenizer", "AutoConfig", "XLMRobertaTokenizer", "XLMRobertaTokenizerFast", "pipeline", "to_tensor"),
            *("XLMRobertaConfig", "XLMRobertaXLConfig"),
            *(f"{prefix}{family}" for family in ("AutoModel", "XLMRobertaModel", "XLMRobertaXLModel")),
            *(
                f"{prefix}{family}{head}"
                for family in ("AutoModel", "XLMRoberta", "XLMRobertaXL")
                for head in (
                    "ForMaskedLM",
                    "ForCausalLM",
                    "ForSequenceClassification",
                    "ForMultipleChoice",
                    "ForTokenClassification",
                    "ForQuestionAnswering",
                )
            ),
        ]
        for package, prefix in (("xlmr_tf", "TF"), ("xlmr_flax", "Flax"))
    },
}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_promised_names_are_frozen(package: str) -> None:
    lines = (FROZEN / f"{package}.txt").read_text(encoding="utf-8").splitlines()
    names = {line.removeprefix(f"{package}.").split("(")[0].split(" ")[0].split(":")[0] for line in lines}
    assert set(PROMISED[package]) <= names
