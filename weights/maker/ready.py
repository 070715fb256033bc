"""The ready-made models: what each does, what it is made of, and what it is compared with."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weights.maker import corpus
from xlmr_core.atomic_files import write_atomically
from xlmr_core.training.recipe import FILES, Recipe

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
# Languages of `pretrain` that `langid` lacks and that have lines enough; Bosnian is left out, as it is hardly told from
# Croatian.
MORE_LANGUAGES = ("az", "gu", "he", "km", "kn", "lo", "si", "so", "sq", "yi")
# Lines of each language: few where a script tells it, many where another language is near.
LINES, FEW, MANY = 500, 150, 1000
OF_A_SCRIPT = frozenset(
    ("am", "ka", "hy", "el", "th", "km", "lo", "my", "kn", "te", "ta", "ml", "gu", "pa", "or", "si", "ko")
)
NEAR_TO_OTHERS = frozenset(
    (
        *("no", "da", "sv", "nl", "af", "fy", "hr", "sr", "sl", "sk", "cs", "id", "ms", "zh", "zh-Hant", "yue"),
        *("gl", "pt", "es", "ca", "ru", "uk", "be", "bg", "mk", "kk", "ky", "tt", "ga", "gd", "et", "fi"),
        *("hi", "mr", "ne", "sa", "fa", "ar", "ur", "ps", "sd", "tr", "az"),
    )
)
LENGTHS = range(8, 201)  # characters of a line

LINES_FILE, OTHERS_FILE = "langid-lines.jsonl", "langid-others.jsonl"


@dataclass(frozen=True)
class Ready:
    """A model that comes with the library.

    Attributes:
        name: of its recipe, and what stands behind ``xlmr-mini-`` in its own.
        task: of ``xlmr run``, which takes it where no model is named.
        pipeline: the hub's word for that.
        peft: PEFT's word for that.
        what: the first sentence of its card.
        tests: files of the data by what the card calls them; the first has its figures in short.
        baseline: a name of ``bags.BASELINES``.
        data: the folders of the data that it learned from.
        line: the end of a command line that shows it.
        call: the same in Python, of ``pipe``.
        limits: sentences for the card.
        prepare: makes further files of the data in a work folder.
    """

    name: str
    task: str
    pipeline: str
    peft: str | None
    what: str
    tests: Mapping[str, str]
    baseline: str
    data: tuple[str, ...]
    line: str
    call: str
    limits: tuple[str, ...] = ()
    prepare: Callable[[Path, Path], None] = field(default=lambda data, work: None)


def recipe_of(ready: Ready, data: Path, work: Path) -> Recipe:
    """The recipe of a model, with the places of its files."""
    recipe = Recipe.from_toml(RECIPES / f"{ready.name}.toml")
    return recipe.replace(**{name: [place_of(file, data, work) for file in getattr(recipe, name)] for name in FILES})


def place_of(file: str, data: Path, work: Path) -> Path:
    """Where a file is: in the data, or what a model prepares in a work folder."""
    return work / file if file in (LINES_FILE, OTHERS_FILE) else data / file


def langid_files(data: Path, work: Path) -> None:
    """Labelled lines of ``pretrain`` to train on, and sentences of ``topic`` in the languages that ``langid`` lacks to
    test on.
    """
    known = {row["label"] for row in rows_of(data / "langid" / "train.jsonl.gz")}
    counts = {
        language: FEW if language in OF_A_SCRIPT else MANY if language in NEAR_TO_OTHERS else LINES
        for language in sorted({*known, *MORE_LANGUAGES})
    }
    write_rows(work / LINES_FILE, _labelled_lines(data / "pretrain", counts))
    others = (row for row in rows_of(data / "topic" / "test.jsonl.gz") if row["lang"] in MORE_LANGUAGES)
    write_rows(work / OTHERS_FILE, ({**row, "label": row["lang"]} for row in others))


def _labelled_lines(pretrain: Path, counts: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    for language, count in counts.items():
        own = {line: None for line in corpus.lines(pretrain / "train" / f"{language}.txt.xz") if len(line) in LENGTHS}
        chosen = random.Random(f"{language} 0").sample(list(own), min(count, len(own)))
        yield from ({"lang": language, "text": line, "label": language} for line in chosen)


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file of the data."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as lines of JSON, all or nothing; what is there stays."""
    if path.exists():
        return
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


READY = {
    one.name: one
    for one in (
        Ready(
            name="langid",
            task="language-identification",
            pipeline="text-classification",
            peft="SEQ_CLS",
            what="It says in which of 91 languages a text is.",
            tests={"`langid`": "langid/test.jsonl.gz", "`topic`, in the languages that `langid` lacks": OTHERS_FILE},
            baseline="bag",
            data=("langid", "pretrain", "topic"),
            line='"Das Wetter ist heute schön." "Сёння добрае надвор\'е."',
            call='pipe("Das Wetter ist heute schön.")',
            limits=(
                "It answers one of its languages to everything: Bosnian texts are told as Croatian or Serbian, and "
                "those of other languages as whatever looks most like them.",
                "Of a word or two it often cannot know.",
            ),
            prepare=langid_files,
        ),
        Ready(
            name="topic",
            task="text-classification",
            pipeline="text-classification",
            peft="SEQ_CLS",
            what="It says which of seven topics a sentence is about, in 83 languages.",
            tests={"`topic`": "topic/test.jsonl.gz"},
            baseline="bag",
            data=("topic",),
            line='"The midfielder scored twice in the final."',
            call='pipe("The midfielder scored twice in the final.")',
            limits=("It learned from 701 sentences of Wikimedia's sites, each in all of the languages.",),
        ),
        Ready(
            name="pos",
            task="token-classification",
            pipeline="token-classification",
            peft="TOKEN_CLS",
            what="It says what part of speech each word is, by the 17 tags of Universal Dependencies, in 47 languages.",
            tests={"`pos`": "pos/test.jsonl.gz"},
            baseline="word",
            data=("pos",),
            line='--aggregation-strategy words "The old man fishes."',
            call='pipe("The old man fishes.", aggregation_strategy="words")',
            limits=("Words that are written together, as in `du`, are two for Universal Dependencies, and one here.",),
        ),
        Ready(
            name="ner",
            task="ner",
            pipeline="token-classification",
            peft="TOKEN_CLS",
            what="It finds the names of people, places and organisations, in 14 languages that it learned from.",
            tests={"`ner`": "ner/test.jsonl.gz"},
            baseline="word",
            data=("ner",),
            line='--aggregation-strategy spans "Ada Lovelace lived in London."',
            call='pipe("Ada Lovelace lived in London.", aggregation_strategy="spans")',
            limits=("Names that it never read are often missed.",),
        ),
        Ready(
            name="nli",
            task="zero-shot-classification",
            pipeline="zero-shot-classification",
            peft="SEQ_CLS",
            what="It says whether a sentence follows from another, in 5 languages, and so whether a label fits a text.",
            tests={"`nli`": "nli/test.jsonl.gz"},
            baseline="bag",
            data=("nli",),
            line='--candidate-labels "sport, music" "They won the match."',
            call='pipe("They won the match.", candidate_labels=["sport", "music"])',
            limits=("What follows from what takes more of a language than a model of this size has.",),
        ),
        Ready(
            name="sentences",
            task="sentence-similarity",
            pipeline="sentence-similarity",
            peft="FEATURE_EXTRACTION",
            what="It makes vectors of sentences that lie near to each other where two say the same, in 83 languages.",
            tests={"`pairs_tatoeba`": "pairs_tatoeba/test.jsonl.gz", "`pairs_pud`": "pairs_pud/test.jsonl.gz"},
            baseline="base",
            data=("topic",),
            line='"The cat sleeps.\tDie Katze schläft."',
            call='pipe(("The cat sleeps.", "Die Katze schläft."))',
            limits=("It learned from 701 sentences, each in all of the languages.",),
        ),
        Ready(
            name="qa",
            task="question-answering",
            pipeline="question-answering",
            peft="QUESTION_ANS",
            what="It finds the words of a text that answer a question, in 15 languages.",
            tests={"`qa`": "qa/test.jsonl.gz"},
            baseline="base",
            data=("qa",),
            line='"Where does Ada live?\tAda lives in Oslo."',
            call='pipe(question="Where does Ada live?", context="Ada lives in Oslo.")',
            limits=("Texts that are longer than 256 tokens it reads in windows.",),
        ),
    )
}
