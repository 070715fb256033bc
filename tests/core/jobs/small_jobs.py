"""Small jobs: what answers, how they start and how they are interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.core.fake_task import ROW, TOKENIZER, FakeRunner, LetterCounting
from xlmr_core.errors import InputError
from xlmr_core.jobs.job import Job
from xlmr_core.tasks.pipeline import Pipeline

QUESTION = "expected no question, received one; ask nothing"


def counting(rows=0, examples=()):
    """The letters of a text; a question is refused."""
    return Pipeline(ROW.name, FakeRunner(), TOKENIZER, batch_tokens=64)


class Vectors:
    """Answers with a vector of a text's length, or of any shape that is asked for."""

    device, truncated = "cpu", ()

    def __init__(self, of=lambda text: np.array([len(text), 0.1], np.float32)):
        self.of = of

    def __call__(self, texts):
        for text in texts:
            if "?" in text:
                raise InputError(QUESTION)
            yield self.of(text)


def start(input, output, make=counting, said=None, **how):
    told = [] if said is None else said
    return Job(Path(input), Path(output), LetterCounting, **how).run(make, lambda kind, text: told.append(text))


def lines(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


class Interrupted(Exception):
    pass


def interrupting(after):
    """Makes pipelines that answer so many windows, and then end as no other does."""

    class Interrupting:
        truncated = ()

        def __init__(self, rows=0, examples=(), pipeline=None):
            self.answered, self.pipeline = 0, pipeline or counting()

        def __call__(self, texts):
            if self.answered == after:
                raise Interrupted
            self.answered += 1
            return self.pipeline(texts)

        def rows(self, answer):
            return self.pipeline.rows(answer)

        def check_options(self):
            pass

    return Interrupting
