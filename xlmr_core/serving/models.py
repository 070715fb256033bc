"""The models of a server: a question to one of them, and what it answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from xlmr_core.errors import InputError, XLMRError
from xlmr_core.serving.batching import Row, Ticket
from xlmr_core.serving.faults import Fault, fault_of
from xlmr_core.serving.metrics import Metrics
from xlmr_core.serving.settings import Settings
from xlmr_core.serving.views import views_of
from xlmr_core.serving.worker import Worker
from xlmr_core.tasks.pipeline import changed, run_together
from xlmr_core.tasks.runner import Runner
from xlmr_core.tasks.sentence_embedding import SentenceEmbedding
from xlmr_core.tasks.sentence_folder import FolderTask
from xlmr_core.tasks.task import Arrays, Item, Task
from xlmr_core.wording import counted, shown

__all__ = ["Answered", "Model", "Models", "Question", "TokenIds"]

T = TypeVar("T")
# An answer of so many numbers is written beside the others: it takes longer than a batch of a small model.
LARGE = 1 << 18


class TokenIds(tuple[int, ...]):
    """A text that came as ids of tokens."""


Adapt = Callable[[Any, Any], tuple[Any, Sequence[int]]]
"""Changes inputs by the tokenizer, and says by their index of which something was cut off."""


@dataclass(frozen=True)
class Question:
    """What a request asks for.

    Attributes:
        task: a name of ``TASKS`` or ``VIEWS``.
        inputs: as the task's pipeline takes them; of sentence-embedding also :class:`TokenIds` in the place of texts.
        options: of the call.
        model: its name; ``None`` for the first that can do the task.
        adapt: what is done to the inputs before, where the tokenizer is needed for it.
        head: a further head beside the model that the answer is made of, such as ``sparse_linear``.
    """

    task: str
    inputs: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    adapt: Adapt | None = None
    head: str | None = None


@dataclass(frozen=True)
class Answered:
    """An answer.

    Attributes:
        value: what the task's pipeline gives.
        model: who answered.
        tokens: that went through the model.
        texts: that were answered.
        cut: the inputs of which something was cut off, by their index.
    """

    value: Any
    model: Model
    tokens: int
    texts: int
    cut: Sequence[int] = ()


@dataclass(frozen=True)
class _Prepared:
    task: Task
    options: Any
    single: bool
    items: Sequence[Item]
    ticket: Ticket
    tokens: int
    cut: Sequence[int]


class Model:
    """A model that is served.

    Args:
        name: by which clients ask for it.
        source: where it was loaded from.
        runner: runs it.
        tokenizer: its tokenizer.
        tasks: what it can do, by names of ``TASKS``; the first is what it was loaded for.
        running: the thread in which it runs; by default a new one.
    """

    worker: Worker
    settings: Settings

    def __init__(
        self,
        name: str,
        source: str,
        runner: Runner,
        tokenizer: Any,
        tasks: Mapping[str, Task],
        running: ThreadPoolExecutor | None = None,
    ) -> None:
        self.name = name
        self.running = running or ThreadPoolExecutor(1, f"xlmr-run-{name}")
        self.source = source
        self.runner = runner
        self.tokenizer = tokenizer
        self.tasks = dict(tasks)
        self.views = views_of(runner, tokenizer)
        self.created = int(time.time())

    @property
    def config(self) -> Any:
        """The model's configuration."""
        return self.runner.config

    @property
    def heads(self) -> Collection[str]:
        """The further heads beside the model, as bge-m3 has."""
        found = [task.folder.heads for task in self.tasks.values() if isinstance(task, FolderTask)]
        return found[0] if found else ()

    def doing(self, name: str) -> Task | None:
        """The task or the view of a name; ``None`` if the model cannot."""
        return self.tasks.get(name) or self.views.get(name)

    async def answer(
        self, question: Question, render: Callable[[Answered], T], *, large: bool = False
    ) -> tuple[Answered, T]:
        """Answer a question; if the caller is cancelled, what did not run yet does not run.

        Args:
            question: of a task that the model can do.
            render: makes of the answer what is sent.
            large: whether it takes long to be tokenized; it and an answer of many numbers do not keep others waiting.

        Raises:
            Fault: if it cannot be answered.
        """
        prepared = await self.worker.around(partial(self._prepare, question), large=large)
        outputs = await self.worker.run(prepared.ticket, [len(item.rows) for item in prepared.items])
        numbers = sum(array.size for rows in outputs for row in rows for array in row.values())
        finish = partial(self._finish, prepared, outputs, render)
        return await self.worker.around(finish, large=large or numbers > LARGE)

    def _prepare(self, question: Question) -> _Prepared:
        task = self.doing(question.task)
        assert task is not None, "the model is able"
        try:
            inputs, cut = question.inputs, list[int]()
            if question.adapt is not None:
                inputs, adapted = question.adapt(self.tokenizer, inputs)
                cut += adapted
            given, changes = task.read(inputs, **question.options)
            options = task.prepare(changed(question.task, task.Options(), changes))
            single = isinstance(given, task.single)
            if not single and not isinstance(given, list | tuple):
                received = shown(given, 80)
                raise InputError(f"expected inputs of {question.task}, or a list of them, received {received}")
            items = _encoded(task, [given] if single else given, options)
        except XLMRError as error:
            raise fault_of(error) from error
        ticket = Ticket(None, partial(self._run, task, options))
        tokens = 0
        for place, item in enumerate(items):
            cut += [place] if item.truncated and place not in cut else []
            for number, row in enumerate(item.rows):
                ticket.add(place, number, task.weight(row, options), row)
                tokens += int(row["input_ids"].size)
        if ticket.tokens > self.settings.max_request_tokens:
            most = self.settings.max_request_tokens
            raise Fault(
                "too_long", f"expected at most {most} tokens in a request, received {ticket.tokens}; send several"
            )
        ticket.key = _key(task, options, ticket)
        return _Prepared(task, options, single, items, ticket, tokens, cut)

    def _run(self, task: Task, options: Any, batch: Sequence[Row]) -> Iterable[Arrays]:
        """The outputs of rows that run together, one by one."""
        groups: dict[Any, list[int]] = {}
        for place, row in enumerate(batch):
            groups.setdefault(task.beside(row.arrays, options), []).append(place)
        found: list[Arrays] = [{} for _ in batch]
        for places in groups.values():
            rows = [batch[place].arrays for place in places]
            outputs = run_together(task, self.runner, self.tokenizer, rows, options)
            for place, arrays in zip(places, outputs, strict=True):
                found[place] = arrays
        return found

    def _finish(
        self, prepared: _Prepared, outputs: Sequence[Sequence[Arrays]], render: Callable[[Answered], T]
    ) -> tuple[Answered, T]:
        task, options = prepared.task, prepared.options
        try:
            answers = [task.decode(item, found, options) for item, found in zip(prepared.items, outputs, strict=True)]
            value = task.gather(answers, prepared.single, options)
        except XLMRError as error:
            # What comes of a text that was taken is the model's fault.
            raise Fault("unable", str(error)) from error
        answered = Answered(value, self, prepared.tokens, len(prepared.items), prepared.cut)
        return answered, render(answered)


def _encoded(task: Task, inputs: Sequence[Any], options: Any) -> Sequence[Item]:
    """An item for each input."""
    of_ids = {place: given for place, given in enumerate(inputs) if isinstance(given, TokenIds)}
    if not of_ids:
        return task.encode(inputs, options)
    assert isinstance(task, SentenceEmbedding)
    texts = iter(task.encode([given for given in inputs if not isinstance(given, TokenIds)], options))
    several = len(inputs) > 1
    return [
        task.encode_ids(of_ids[place], options, f"the list of ids at index {place}" if several else "the list of ids")
        if place in of_ids
        else next(texts)
        for place in range(len(inputs))
    ]


def _key(task: Task, options: Any, ticket: Ticket) -> Any:
    """What rows have to share to run together."""
    if type(task).run is not Task.run:
        return ticket  # what it writes may depend on who is beside
    names = tuple(sorted(ticket.rows[0].arrays)) if ticket.rows else ()
    return tuple(task.outputs(options)), names, tuple(sorted(task.fills.items())), task.pads_left


class Models:
    """All models of a server.

    Args:
        models: in order; of several that can do what is asked for without a name, the first is asked.
        settings: of the server.
        metrics: of the server.

    Raises:
        XLMRError: for two of one name, or none at all.
    """

    def __init__(self, models: Sequence[Model], settings: Settings, metrics: Metrics) -> None:
        names = [model.name for model in models]
        twice = [name for name in names if names.count(name) > 1]
        if twice or not models:
            received = f"{twice[0]!r} twice" if twice else "none"
            raise XLMRError(f"expected models of different names, received {received}; name them as NAME=MODEL")
        self._by_name = {model.name: model for model in models}
        for model in models:
            model.settings = settings
            model.worker = Worker(model.name, model.running, settings, metrics)

    def __iter__(self) -> Iterator[Model]:
        return iter(self._by_name.values())

    @property
    def first(self) -> Model:
        """The first."""
        return next(iter(self._by_name.values()))

    def named(self, name: str) -> Model:
        """The model of a name.

        Raises:
            Fault: if there is none.
        """
        if name not in self._by_name:
            known = ", ".join(map(repr, self._by_name))
            raise Fault("not_found", f"expected a model of {known}, received {name!r}; pass one of them", param="model")
        return self._by_name[name]

    def able(self, question: Question) -> Model:
        """The model that a question is for.

        Raises:
            Fault: if there is none, or that of the name cannot.
        """
        asked = list(self) if question.model is None else [self.named(question.model)]
        for model in asked:
            if model.doing(question.task) and (question.head is None or question.head in model.heads):
                return model
        does = "; ".join(f"{model.name!r} does {', '.join(model.tasks)}" for model in asked)
        what = f"{question.task} with {question.head}" if question.head else question.task
        raise Fault("unable", f"expected a model that does {what}, received {counted(len(asked), 'model')}: {does}")

    def close(self) -> None:
        """End the threads of all."""
        for model in self:
            model.worker.close()
