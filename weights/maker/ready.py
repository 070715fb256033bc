"""The ready-made models: what each does, what it is made of, and what it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from weights.maker import channels, languages, parallel, pieces
from xlmr_core.training.recipe import FILES, Recipe

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
OF_HEAD = 10_000  # rows that a classifier of texts starts with
WIDTH = 32  # of the vectors of pieces; see channels.py
WIDE, OF_PARALLEL = 64, 6000  # of those of whole sentences, and steps for them
PREPARED = (languages.LINES_FILE, languages.OTHERS_FILE, parallel.FILE)
OTHERS = "`topic`, in the languages that `langid` lacks"


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
        start: of the model that training starts from, its folder in the work folder; empty: the built-in one.
        prepare: makes that, and further files, of the folder of the data, the work folder, and the folder it gets.
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
    start: str = ""
    prepare: Callable[[Path, Path, Path], None] = field(default=lambda data, work, start: None)


def recipe_of(ready: Ready, data: Path, work: Path) -> Recipe:
    """The recipe of a model, with the places of its files and of the model that it starts from."""
    recipe = Recipe.from_toml(RECIPES / f"{ready.name}.toml")
    files = {name: [place_of(file, data, work) for file in getattr(recipe, name)] for name in FILES}
    return recipe.replace(**files, model=str(work / ready.start) if ready.start else recipe.model)


def place_of(file: str, data: Path, work: Path) -> Path:
    """Where a file is: in the data, or what a model prepares in a work folder."""
    return work / file if file in PREPARED else data / file


def _start_of_tags(name: str) -> Callable[[Path, Path, Path], None]:
    def prepare(data: Path, work: Path, start: Path) -> None:
        if not start.exists():
            channels.write_start(*pieces.of_tags(recipe_of(READY[name], data, work), WIDTH), start)

    return prepare


def _start_of_topics(data: Path, work: Path, start: Path) -> None:
    if start.exists():
        return
    vectors_VF, counts_V = pieces.of_parallel(_of_topics_alone(data, work), WIDTH)
    rows, labels, _ = pieces.features_of(recipe_of(READY["topic"], data, work))
    labels_N = np.array([int(row.arrays["labels"]) for row in rows])
    labelled = channels.Labelled([*map(pieces.pieces_of, rows)], labels_N, labels).some(OF_HEAD)
    channels.write_start(vectors_VF, counts_V, start, labelled)


def _of_topics_alone(data: Path, work: Path) -> Recipe:
    """The recipe of sentence embeddings with the rows of `topic`."""
    return recipe_of(READY["sentences"], data, work).replace(train=[data / "topic" / "train.jsonl.gz"])


def _start_of_questions(data: Path, work: Path, start: Path) -> None:
    """Every piece gets random numbers, by which heads find the words of a question in its text from the first step."""
    if not start.exists():
        rows, _, size = pieces.features_of(recipe_of(READY["qa"], data, work))
        counts_V = np.bincount(np.concatenate([*map(pieces.pieces_of, rows)]), minlength=size)
        codes_VF = np.random.default_rng(0).standard_normal((size, WIDTH)).astype(np.float32) / WIDTH**0.5
        channels.write_start(codes_VF, counts_V, start, matching=True)


def _start_of_sentences(data: Path, work: Path, start: Path) -> None:
    if not (work / parallel.FILE).exists():
        vectors_VF, _ = pieces.of_parallel(_of_topics_alone(data, work), WIDE)
        parallel.write_parallel(data, work / parallel.FILE, vectors_VF)
    kept = work / parallel.VECTORS
    if not kept.exists():
        pieces.write_vectors(kept, *pieces.of_parallel(recipe_of(READY["sentences"], data, work), WIDE, OF_PARALLEL))
    if not start.exists():
        channels.write_start(*pieces.read_vectors(kept), start)


READY = {
    one.name: one
    for one in (
        Ready(
            name="langid",
            task="language-identification",
            pipeline="text-classification",
            peft="SEQ_CLS",
            what="It says in which of 91 languages a text is.",
            tests={"`langid`": "langid/test.jsonl.gz", OTHERS: languages.OTHERS_FILE},
            baseline="lines",
            data=("langid", "pretrain", "topic"),
            line='"Das Wetter ist heute schön." "Сёння добрае надвор\'е."',
            call='pipe("Das Wetter ist heute schön.")',
            limits=(
                "It answers one of its languages to everything: Bosnian texts are told as Croatian or Serbian, and "
                "those of other languages as whatever looks most like them.",
                "Of a word or two it often cannot know.",
                "A fifth of the rows that `langid` calls Malay are English texts about the security of software, to "
                "train on and to test on: such English may be told as Malay.",
            ),
            start="langid-start",
            prepare=languages.prepare,
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
            start="topic-start",
            prepare=_start_of_topics,
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
            start="pos-start",
            prepare=_start_of_tags("pos"),
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
            limits=(
                "Of three names that it marks two are wrong, and of two that are there it misses one.",
                "It never learned from Russian and German: in Russian nearly all that it marks is wrong.",
            ),
            start="ner-start",
            prepare=_start_of_tags("ner"),
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
            baseline="sentences",
            data=("topic", "qa", "pretrain"),
            line='\'{"source": "The river flows into the sea.", "target": "Der Fluss mündet ins Meer."}\'',
            call='pipe("The river flows into the sea.", ["Der Fluss mündet ins Meer.", "Das Konzert begann um acht."])',
            limits=(
                "Among some 900 sentences of news and encyclopedias (`pairs_pud`) it finds the translation of 48 in "
                "100, among as many short ones of every day (`pairs_tatoeba`) that of 11 in 100: words such as those "
                "are hardly in what it learned from. For more than a try name a model of the hub.",
                "How long it is trained was chosen after test figures of shorter runs had been seen (160 steps: 0.110 "
                "and 0.464), and starts were compared on test rows of four languages of `pairs_pud`: these figures are "
                "a little too good.",
                "A bag of pieces that learned from the same rows is about as good: order and context add little yet.",
            ),
            start="sentences-start",
            prepare=_start_of_sentences,
        ),
        Ready(
            name="qa",
            task="question-answering",
            pipeline="question-answering",
            peft="QUESTION_ANS",
            what="It finds the words of a text that answer a question, in 15 languages.",
            tests={"`qa`": "qa/test.jsonl.gz"},
            baseline="question",
            data=("qa",),
            line='\'{"question": "Where does Ada live?", "context": "Ada lives in Oslo."}\'',
            call='pipe(question="Where does Ada live?", context="Ada lives in Oslo.")',
            limits=("Texts that are longer than 256 tokens it reads in windows.",),
            start="qa-start",
            prepare=_start_of_questions,
        ),
    )
}
