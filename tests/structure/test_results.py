"""The page of results says what its file says, and the script that makes both reads a run as it was written."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def loaded() -> Any:
    spec = importlib.util.spec_from_file_location("results_of_recipes", ROOT / "examples" / "results.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass asks for the module that it is in
    spec.loader.exec_module(module)
    return module


RESULTS = loaded()
TRAIN = [
    {"lang": "en", "label": "a", "tokens": ["he", "runs"], "tags": ["PRON", "VERB"], "choices": ["x", "y"]},
    {"lang": "en", "label": "a", "tokens": ["runs", "end"], "tags": ["NOUN", "VERB"], "choices": ["x", "y"]},
    {"lang": "de", "label": "b", "tokens": ["runs", "runs"], "tags": ["NOUN", "NOUN"], "choices": ["x", "y"]},
]
TEST = [
    {"lang": "en", "label": "a", "tokens": ["he", "sits"], "tags": ["PRON", "VERB"], "choices": ["x", "y"]},
    {"lang": "de", "label": "a", "tokens": ["runs"], "tags": ["NOUN"], "choices": ["x", "y", "z", "w"]},
    {"lang": "de", "label": "b", "tokens": ["he"], "tags": ["NOUN"], "choices": ["x", "y"]},
]


def test_the_page_is_made_of_the_file() -> None:
    page = RESULTS.PAGE.read_text(encoding="utf-8")
    assert page == RESULTS.with_tables(page, RESULTS.kept()), "run: python examples/results.py page"


def test_every_run_is_a_recipe_and_has_a_place_on_the_page() -> None:
    assert sorted(name for names in RESULTS.SECTIONS.values() for name in names) == sorted(RESULTS.FULL)
    for name in RESULTS.FULL:
        assert (ROOT / RESULTS.command(name)[0]).is_file(), name
    assert set(RESULTS.kept()["runs"]) <= set(RESULTS.FULL)


@pytest.mark.parametrize(
    ("beside", "total", "languages"),
    [
        ("usual_label", 2 / 3, {"de": 0.5, "en": 1.0}),
        ("usual_tag", 0.5, {"de": 1.0, "en": 0.0}),  # NOUN three times, VERB two
        ("tag_of_word", 0.5, {"de": 0.5, "en": 0.5}),  # "sits" is new, and "he" was a PRON in English
        ("chance", 1.25 / 3, {"de": 0.375, "en": 0.5}),
    ],
)
def test_what_can_be_had_without_a_model(beside: str, total: float, languages: dict[str, float]) -> None:
    found = getattr(RESULTS, beside)(TRAIN, TEST)
    assert found["all"] == pytest.approx(total)
    assert found["languages"] == pytest.approx(languages)


def test_names_of_words() -> None:
    pytest.importorskip("seqeval", reason="needs the extra train")
    row = {"lang": "en", "tokens": ["Ada", "sleeps", "now"], "tags": ["B-PER", "O", "O"]}
    assert RESULTS.names_of_words([row], [row, {**row, "lang": "de", "tokens": ["Bob", "Ada", "now"]}]) == {
        "all": pytest.approx(0.5),
        "languages": {"de": 0.0, "en": 1.0},
    }


def run_in(folder: Path, *, tested: bool) -> None:
    """What is read of a run: two evaluations, of which the first is the best."""
    folder.mkdir(parents=True)
    shares = {"languages": {"en": {"f1": 0.5}}, "counts": {"en": 3}, "examples": 3}
    lines: list[dict[str, Any]] = [
        {"run": {"recipe": {"steps": 40}}},
        *({"step": step, "loss": 1.0} for step in range(1, 4)),
        {"step": 2, "evaluation": {"f1": 0.75, "loss": 1.0}, **shares},
        {"step": 4, "evaluation": {"f1": 0.25, "loss": 2.0}, **shares},
        {"done": True, "step": 4, "best": 2, **({"test": {"f1": 0.123456}, **shares} if tested else {})},
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (folder / "evaluation.json").write_text(json.dumps({"metric": "f1", "steps": 4}), encoding="utf-8")


def test_the_figures_of_a_run(tmp_path: Path) -> None:
    run_in(tmp_path / "tested", tested=True)
    run_in(tmp_path / "looked-at", tested=False)
    found = RESULTS.gathered(tmp_path / "tested")
    assert found["tested"] == "test" and found["figures"] == {"f1": 0.1235}
    assert (found["steps"], found["planned"], found["best"], found["counts"]) == (4, 40, 2, {"en": 3})
    assert RESULTS.gathered(tmp_path / "looked-at")["figures"]["f1"] == 0.75, "of the best evaluation"
    assert RESULTS.is_over(tmp_path / "tested") and not RESULTS.is_over(tmp_path)


def test_a_run_is_started_once_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []

    def ended(words: Any, **named: Any) -> Any:
        called.append(words)
        if len(called) > 1:
            run_in(tmp_path / "sts", tested=True)
        return type("Ended", (), {"returncode": 1})

    monkeypatch.setattr(RESULTS.subprocess, "run", ended)
    with pytest.raises(SystemExit, match="sts ended with status 1 before its run was over; the same call goes on"):
        RESULTS.run("sts", tmp_path)
    found = RESULTS.run("sts", tmp_path)
    assert RESULTS.run("sts", tmp_path) == found and len(called) == 2
    assert found["minutes of a core"] >= 0 and "beside" not in found


def test_a_table_of_two_runs_and_of_what_stands_beside_them() -> None:
    def of(first: float, second: float, beside: str) -> dict[str, Any]:
        return {
            "metric": "accuracy",
            "figures": {"accuracy": (first + second) / 2, "f1": 0.1},
            "languages": {"de": {"accuracy": first}, "en": {"accuracy": second}, "fr": {"accuracy": first}},
            "counts": {"de": 1, "en": 2, "fr": 3},
            "examples": 6,
            "beside": {"name": beside, "all": 0.25, "languages": {"de": 0.5, "en": 0.0, "fr": 0.5}},
        }

    runs = {"pos-en": of(0.5, 0.75, "usual tag"), "pos": of(0.875, 1.0, "usual tag of each word")}
    assert RESULTS.section(["pos-en", "pos"], runs).splitlines() == [
        "| language | examples | accuracy from English | usual tag | accuracy from all | usual tag of each word |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| **all** | 6 | 0.625 | 0.250 | 0.938 | 0.250 |",
        "| **mean** |  | 0.583 | 0.333 | 0.917 | 0.333 |",
        "| **mean without English** |  | 0.500 | 0.500 | 0.875 | 0.500 |",
        "| de | 1 | 0.500 | 0.500 | 0.875 | 0.500 |",
        "| en | 2 | 0.750 | 0.000 | 1.000 | 0.000 |",
        "| fr | 3 | 0.500 | 0.500 | 0.875 | 0.500 |",
    ]
