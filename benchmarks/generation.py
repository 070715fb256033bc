"""How fast is ``generate()``, and does a token cost the same wherever in a text it stands?

The published greedy call, 64 new tokens behind 16, on the checkpoint read as a decoder (``is_decoder=True``). Positions
are counted from zero, as the original library does, so that both have the same tokens to find. "tokens that differ" is
the share of the new ones: all behind the first other choice usually are others. "error of the logits" is that of the
first new token, as a share of their size (relative L2).

"time per token" takes the times between the tokens of one long text from a streamer: "up to 128" is the median of
tokens 65 to 128. "lengths that grow" counts the graphs of a compiled model: "first" for the first call, "later" for
those behind it, whose prompts and texts are a token longer each.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import harness, peers, texts
from benchmarks.harness import Case, Job, Numbers, Options
from benchmarks.models import checkpoint
from benchmarks.targets import CURVE, EIGHT_TEXTS, GROWING, ONE_TEXT, pace
from xlmr_core.config import AutoConfig

PROMPT, NEW = 16, 64
# Numbers of new tokens up to which the curve is measured.
MARKS = (64, 128, 192, 256, 320, 384, 448)
WHOLE_MARKS = (64, 128, 256, 448)
# Prompts and new tokens of calls one behind the other; all are rounded up to the same length.
GROWTH = range(17, 33)
BASELINES = ("transformers", "xlmr")

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Written:
    """What a contestant wrote.

    Attributes:
        tokens: (B, prompt + new) ids.
        logits: (B, V) float32 of the first new token, if the contestant gives them.
    """

    tokens: Ids
    logits: NDArray[np.float32] | None = None


# Writes so many tokens behind prompts: (B, S) ids to what was written.
Writer = Callable[[Ids, int], Written]
# Says how many programs were compiled so far.
Count = Callable[[], int]


class Writing:
    """A job that writes.

    Args:
        writer: what writes.
        prompts: (B, S).
        new: tokens behind each.
    """

    def __init__(self, writer: Writer, prompts: Ids, new: int) -> None:
        self._writer, self._prompts, self._new = writer, prompts, new
        self.answer: Written | None = None

    def __call__(self) -> Numbers:
        start = time.perf_counter()
        self.answer = self._writer(self._prompts, self._new)
        seconds = time.perf_counter() - start
        expected = (len(self._prompts), self._prompts.shape[1] + self._new)
        assert self.answer.tokens.shape == expected, "a text ended early: other prompts are needed"
        return {"seconds": seconds}


# ---- PyTorch


def transformers(options: Options, dtype: str = "float32") -> Any:
    """The model, with sdpa attention."""
    import torch

    model_class = peers.peer("transformers", options).AutoModelForCausalLM
    settings = {"is_decoder": True, "dtype": getattr(torch, dtype), "attn_implementation": "sdpa"}
    return model_class.from_pretrained(checkpoint(options), **settings).eval()


def xlmr(options: Options, **optimized: Any) -> Any:
    """The model, as it was loaded or after ``optimize_for_inference``."""
    from xlmr_torch import AutoModelForCausalLM, optimize_for_inference

    model = AutoModelForCausalLM.from_pretrained(checkpoint(options), is_decoder=True)
    return optimize_for_inference(model, **optimized) if optimized else model


# By contestant: how its model is made, and what its `generate` is told beside the published arguments.
FROM_ZERO = {"position_numbering": "zero_based"}
CONTESTANTS: dict[str, tuple[Callable[[Options], Any], dict[str, Any]]] = {
    "transformers": (transformers, {}),
    "transformers bfloat16": (functools.partial(transformers, dtype="bfloat16"), {}),
    "xlmr": (xlmr, FROM_ZERO),
    "xlmr bfloat16": (functools.partial(xlmr, dtype="bfloat16", compile=False), FROM_ZERO),
    "xlmr bfloat16, int8 head": (functools.partial(xlmr, dtype="bfloat16", head="int8", compile=False), FROM_ZERO),
    "xlmr int8": (functools.partial(xlmr, dtype="int8", compile=False), FROM_ZERO),
    "xlmr compiled": (functools.partial(xlmr, compile=True), FROM_ZERO),
}


def written(model: Any, how: dict[str, Any], prompts: Ids, new: int, **more: Any) -> Any:
    """The published call."""
    import torch

    ids = torch.from_numpy(prompts)
    return model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False, **how, **more)


class TorchWriting(Writing):
    """A job that writes, and knows the logits of the first new token, which were asked for before."""

    def __init__(self, model: Any, how: dict[str, Any], prompts: Ids, new: int) -> None:
        first = written(model, how, prompts, 1, return_dict_in_generate=True, output_logits=True).logits[0]
        self._logits = first.float().numpy()
        super().__init__(writer(model, how), prompts, new)

    def __call__(self) -> Numbers:
        numbers = super().__call__()
        assert self.answer is not None
        self.answer = replace(self.answer, logits=self._logits)
        return numbers


class Clock:
    """A streamer that notes when it got what."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Any) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Nothing is held back."""


class Pace:
    """A job that writes one long text, and measures the times between its tokens."""

    def __init__(self, model: Any, how: dict[str, Any], prompts: Ids, marks: Sequence[int]) -> None:
        self._model, self._how, self._prompts, self._marks = model, how, prompts, marks

    def __call__(self) -> Numbers:
        clock = Clock()
        written(self._model, self._how, self._prompts, self._marks[-1], streamer=clock)
        _, *times = clock.times  # the prompt comes first
        assert len(times) == self._marks[-1], "the text ended early: another prompt is needed"
        between = np.diff(times).tolist()
        starts = (0, *self._marks[:-1])
        return {
            pace(end): round(1e3 * statistics.median(between[start:end]), 2)
            for start, end in zip(starts, self._marks, strict=True)
        }


def writer(model: Any, how: dict[str, Any]) -> Writer:
    """What writes with a model."""
    return lambda prompts, new: Written(written(model, how, prompts, new).numpy())


def graphs() -> int:
    """How many graphs ``torch.compile`` made in this process so far."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def cases(options: Options) -> Iterator[Case]:
    models = {name: functools.cache(functools.partial(make, options)) for name, (make, _) in CONTESTANTS.items()}

    def jobs(kind: Callable[..., Job], *arguments: Any) -> dict[str, Callable[[], Job]]:
        def build(name: str) -> Job:
            return kind(models[name](), CONTESTANTS[name][1], *arguments)

        return {name: functools.partial(build, name) for name in CONTESTANTS}

    yield growing(options, "xlmr compiled", lambda: (writer(models["xlmr compiled"](), FROM_ZERO), graphs))
    yield from over_prompts(options, functools.partial(jobs, TorchWriting), BASELINES)
    yield Case(
        CURVE,
        jobs(Pace, prompts(options, 1), few(options, MARKS)),
        (),
        facts={"rows": 1, "prompt": PROMPT},
        rounds=min(3, options.rounds),
        warmup=0,
    )


# ---- Also for the questions about the other backends


class WholeTexts:
    """A job that writes texts of several lengths, and measures the time of each over its new tokens."""

    def __init__(self, writer: Writer, prompts: Ids, marks: Sequence[int]) -> None:
        self._jobs = {mark: Writing(writer, prompts, mark) for mark in marks}

    def __call__(self) -> Numbers:
        return {pace(mark): round(1e3 * job()["seconds"] / mark, 2) for mark, job in self._jobs.items()}


class Growing:
    """A job that counts what is compiled for a first call, and for others whose prompt and text are longer each.

    Args:
        writer: what writes.
        compiled: how much was compiled so far.
        calls: the prompts, each with as many new tokens as it has itself.
    """

    def __init__(self, writer: Writer, compiled: Count, calls: Sequence[Ids]) -> None:
        self._writer, self._compiled, self._calls = writer, compiled, calls

    def __call__(self) -> Numbers:
        totals = [self._compiled()]
        for prompts in self._calls:
            self._writer(prompts, prompts.shape[1])
            totals.append(self._compiled())
        return {"first": totals[1] - totals[0], "later": totals[-1] - totals[1]}


def beside_pytorch(
    options: Options, name: str, make: Callable[[Options], tuple[Writer, Count]], baseline: str
) -> Iterator[Case]:
    """The cases of another backend.

    Args:
        options: of the question.
        name: of our contestant.
        make: makes it, and what counts its programs.
        baseline: the name of our PyTorch.
    """
    made = functools.cache(functools.partial(make, options))
    writers = {baseline: functools.cache(lambda: writer(xlmr(options), {})), name: lambda: made()[0]}

    def jobs(kind: Callable[..., Job], *arguments: Any) -> dict[str, Callable[[], Job]]:
        def build(maker: Callable[[], Writer]) -> Job:
            return kind(maker(), *arguments)

        return {name: functools.partial(build, maker) for name, maker in writers.items()}

    yield growing(options, name, made)
    yield from over_prompts(options, functools.partial(jobs, Writing), (baseline, name))
    yield Case(
        CURVE,
        jobs(WholeTexts, prompts(options, 1), few(options, WHOLE_MARKS)),
        (),
        facts={"rows": 1, "prompt": PROMPT},
        rounds=min(3, options.rounds),
        warmup=min(1, options.warmup),
    )


def growing(options: Options, name: str, made: Callable[[], tuple[Writer, Count]]) -> Case:
    """The case that counts the programs of a contestant, the first of its question, so that none is there yet."""
    calls = [prompts(options, 1, length) for length in few(options, GROWTH)]
    return Case(
        GROWING,
        {name: lambda: Growing(*made(), calls)},
        (),
        facts={"calls": len(calls), "tokens": f"{GROWTH[0]} to {GROWTH[-1]}"},
        rounds=1,
        warmup=0,
    )


def few(options: Options, numbers: Sequence[int]) -> Sequence[int]:
    """Those numbers, or what is enough to see that it runs."""
    return (4, 8) if options.tiny else numbers


def prompts(options: Options, rows: int, length: int = PROMPT) -> Ids:
    """(B, S) ids behind ``<s>``. No ``</s>`` stands at the end: with random weights it would be the likeliest next."""
    vocabulary = AutoConfig.from_pretrained(checkpoint(options)).vocab_size
    return texts.full(vocabulary, rows, length + 1).ids_BS[:, :-1]


def over_prompts(
    options: Options, jobs: Callable[[Ids, int], dict[str, Callable[[], Job]]], baselines: tuple[str, ...]
) -> Iterator[Case]:
    """A case for one prompt, and one for eight.

    Args:
        options: of the question.
        jobs: how each contestant's job is made for prompts and a number of new tokens.
        baselines: as in :class:`~benchmarks.harness.Case`.
    """
    new = 4 if options.tiny else NEW
    for name, rows in ((ONE_TEXT, 1), (EIGHT_TEXTS, 8)):
        yield Case(
            name,
            jobs(prompts(options, 2 if options.tiny and rows > 1 else rows), new),
            baselines,
            facts={"rows": rows, "prompt": PROMPT, "new": new},
            compare=difference,
        )


def difference(expected: Written, found: Written) -> Numbers:
    """The share of the new tokens that are others, and how far off the logits of the first one are."""
    numbers = {"tokens that differ": float((expected.tokens != found.tokens)[:, PROMPT:].mean())}
    if expected.logits is not None and found.logits is not None:
        apart = np.linalg.norm(found.logits - expected.logits) / np.linalg.norm(expected.logits)
        numbers["error of the logits"] = float(apart)
    return numbers


if __name__ == "__main__":
    harness.main("generation", __doc__, cases)
