"""How fast is a step of each recipe beside the same step in transformers' Trainer?

Sixteen texts of natural lengths make a batch: of language modelling and classification a row each, of multiple choice
two choices, of embeddings both texts of a pair, of a reranker a passage each. Both loops get the same batches and the
same weights, with the dropout of the config, clipping and fused AdamW, each in a process of its own. What is timed is
the way from the end of one step to the end of the next in either loop, whatever it does between. Our loop trains
those rows of the embeddings that the texts of a run have: here 50 000, as if there were many more texts than are
timed. For sentence embeddings, which the Trainer does not know, its ``compute_loss`` is overridden with our loss. The
error is the difference of the losses of the first batch, without dropout.
"""

from __future__ import annotations

import functools
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import harness, peers
from benchmarks.children import Standing, serve
from benchmarks.harness import Case, Numbers, Options
from benchmarks.models import checkpoint
from benchmarks.tasks import QUESTIONS, passages
from xlmr_core.config import AutoConfig
from xlmr_core.tokenization import AutoTokenizer
from xlmr_core.training.data import Data
from xlmr_core.training.parts import EMBEDDING, texts_in
from xlmr_core.training.recipe import Recipe
from xlmr_core.training.run import Run
from xlmr_torch.contrastive import embedding_loss, pooled
from xlmr_torch.training import model_for, train

TEXTS = 16
# Of a turn; the way to the first is not timed.
STEPS = 3
NEGATIVES = 3
USED = 50_000  # rows of the table of embeddings that all texts of a run have

Row = dict[str, Any]
Tensors = dict[str, torch.Tensor]
Loop = tuple[Callable[[], list[float]], float]  # it trains and gives the times at which steps ended; the first loss


def answered(number: int, text: str) -> Row:
    """A context whose first word is the answer."""
    answer = {"text": text.split()[0], "answer_start": 0}
    return {"question": QUESTIONS[number % len(QUESTIONS)], "context": text, "answers": [answer]}


# By task: how many of the texts make a row, and the row.
ROWS: dict[str, tuple[int, Callable[[int, list[str]], Row]]] = {
    "masked-language-modeling": (1, lambda number, own: {"text": own[0]}),
    "causal-language-modeling": (1, lambda number, own: {"text": own[0]}),
    "text-classification": (1, lambda number, own: {"text": own[0], "label": f"topic {number % 7}"}),
    "token-classification": (
        1,
        lambda number, own: {"tokens": (words := own[0].split()), "tags": ["OBX"[len(word) % 3] for word in words]},
    ),
    "question-answering": (1, lambda number, own: answered(number, own[0])),
    "multiple-choice": (2, lambda number, own: {"prompt": "Which?", "choices": own, "label": number % 2}),
    "sentence-embedding": (2, lambda number, own: {"text": own[0], "other": own[1]}),
    # The others' passages are drawn for each query.
    "rerank": (4, lambda number, own: {"query": QUESTIONS[number % len(QUESTIONS)], "passage": own[0]}),
}


def run_of(options: Options, task: str) -> Run:
    """The run of a recipe on one batch, in a folder that nothing is written to."""
    folder = checkpoint(options)
    config, tokenizer = AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    texts, (count, row) = passages(TEXTS, tokenizer), ROWS[task]
    rows = [row(number, texts[begin : begin + count]) for number, begin in enumerate(range(0, TEXTS, count))]
    work = Path(tempfile.mkdtemp(prefix="xlmr-recipes-"))
    lines = "\n".join(json.dumps(one, ensure_ascii=False) for one in rows)
    (work / "train.jsonl").write_text(lines + "\n", encoding="utf-8")
    recipe = Recipe(
        task=task,
        model=str(folder),
        train=work / "train.jsonl",
        batch_size=len(rows),
        steps=STEPS,
        negatives=NEGATIVES,
        max_length=384,
    )
    # As Run.of does, which would ask for the packages that draw curves.
    data = Data.read(recipe, tokenizer, config, 1)
    recipe = recipe.completed(config.hidden_size, len(data.train))
    run = Run(work / "run", recipe, data.train, progress=False, tell=lambda kind, text: None)
    own, others = run.batches.features.ids(), np.random.default_rng(0).permutation(config.vocab_size)
    if own is not None:
        run.batches.features.ids = lambda: np.union1d(own, others[:USED])  # type: ignore[method-assign]
    return run


class Steps:
    """What the loop asks of a run, for some steps of which nothing is kept.

    Args:
        run: whose recipe and batches they are of.

    Attributes:
        ends: when each step ended, in seconds.
    """

    def __init__(self, run: Run) -> None:
        self.recipe, self.task, self.batches, self.tell = run.recipe, run.task, run.batches, run.tell
        self.batch, self.rate = run.batch, run.rate
        self.ends: list[float] = []

    def restore(self, load: Any) -> int:
        return 0

    def goes_on(self, step: int) -> bool:
        return step < STEPS

    def after(self, step: int, loss: Any, norm: Any, *, save: Any, predict: Any) -> None:
        float(loss)
        self.ends.append(time.perf_counter())

    def finish(self, save_pretrained: Any, *, predict: Any) -> None:
        return None


class Job:
    """A turn of some steps in the loop of a contestant's process."""

    def __init__(self, loop: Standing) -> None:
        self._loop = loop
        self.answer: float = loop.ask(False)

    def __call__(self) -> Numbers:
        return {"seconds": self._loop.ask(True)}


# ---- The contestants


def tensors_of(run: Run, step: int) -> Tensors:
    """A batch, and of embeddings which of its texts are the same."""
    batch = run.batches[step]
    more = {"texts": texts_in(batch)} if run.task.name == EMBEDDING else {}
    return {name: torch.from_numpy(array) for name, array in {**batch, **more}.items()}


def loss_of(model: Any, recipe: Recipe, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The loss of either library's model."""
    if recipe.task != EMBEDDING:
        loss: torch.Tensor = model(**inputs).loss
        return loss
    mask = inputs["attention_mask"]
    states = model(input_ids=inputs["input_ids"], attention_mask=mask).last_hidden_state
    return embedding_loss(pooled(states, mask, recipe.pooling), dict(inputs), recipe.temperature, recipe.matryoshka)


def first_loss(model: Any, run: Run) -> float:
    with torch.no_grad():
        return float(loss_of(model.eval(), run.recipe, tensors_of(run, 0)))


def ours(options: Options, task: str) -> Loop:
    """The loop of ``xlmr train``."""
    run = run_of(options, task)
    model = model_for(run)

    def turn() -> list[float]:
        steps: Any = Steps(run)
        train(model, steps, device="cpu")
        return list(steps.ends)

    return turn, first_loss(model, run)


def trainer(options: Options, task: str) -> Loop:
    """transformers' Trainer."""
    hf: Any = peers.peer("transformers", options)
    run = run_of(options, task)
    kind = getattr(hf, run.task.auto)
    bare = {"add_pooling_layer": False} if task == EMBEDDING else {}
    with warnings.catch_warnings(action="ignore"):  # that the head is fresh: it gets the weights of ours
        model = kind.from_pretrained(
            checkpoint(options), dtype=torch.float32, attn_implementation="sdpa", **run.settings, **bare
        )
    weights = model_for(run).state_dict()
    missing = set(model.load_state_dict(weights, strict=False).missing_keys)
    assert not missing - set(dict(model.named_buffers())), missing
    ends: list[float] = []

    class Clock(hf.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *arguments: Any, **named: Any) -> None:
            ends.append(time.perf_counter())

    class Training(hf.Trainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Tensors, return_outputs: bool = False, **named: Any) -> Any:
            if task == EMBEDDING:
                return loss_of(model, run.recipe, inputs)
            return super().compute_loss(model, inputs, return_outputs, **named)

    recipe = run.recipe
    arguments = hf.TrainingArguments(
        output_dir=tempfile.mkdtemp(prefix="xlmr-trainer-"),
        per_device_train_batch_size=1,
        max_steps=STEPS,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.clip_norm,
        optim="adamw_torch_fused",
        remove_unused_columns=False,
        use_cpu=True,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
    )
    training = Training(
        model=model,
        args=arguments,
        train_dataset=[tensors_of(run, step) for step in range(STEPS)],
        data_collator=lambda rows: rows[0],  # a row is a batch
        callbacks=[Clock()],
    )

    def turn() -> list[float]:
        ends.clear()
        training.train()
        return list(ends)

    return turn, first_loss(model, run)


OURS = "xlmr"
CONTESTANTS = {"transformers": trainer, OURS: ours}


def stand(name: str, task: str, work: str, tiny: bool) -> None:
    """Answer with the first loss, and with the seconds of a step."""
    turn, loss = CONTESTANTS[name](Options(work=Path(work), tiny=tiny), task)

    def answer(trains: bool) -> float:
        if not trains:
            return loss
        ends = turn()
        return (ends[-1] - ends[0]) / (len(ends) - 1)

    serve(answer)


def standing(name: str, task: str, options: Options, processes: ExitStack) -> Job:
    """A contestant's process, which ends with the others."""
    if name != OURS:
        peers.peer(name, options)
        peers.installed("accelerate")
    given = f"{name!r}, {task!r}, {str(options.work)!r}, {options.tiny}"
    return Job(processes.enter_context(closing(Standing(f"from benchmarks import recipes; recipes.stand({given})"))))


def cases(options: Options) -> Iterator[Case]:
    checkpoint(options)
    for task in ROWS:
        mask = run_of(options, task).batches[0]["attention_mask"]
        tokens = int(mask.sum())
        with ExitStack() as processes:
            yield Case(
                task,
                {name: functools.partial(standing, name, task, options, processes) for name in CONTESTANTS},
                tuple(CONTESTANTS),
                facts={"rows": mask.size // mask.shape[-1], "tokens": tokens, "pad": mask.size / tokens},
                compare=lambda expected, found: {"error of the loss": abs(found - expected)},
                rounds=min(3, options.rounds),
                warmup=0,  # each turn has a step that is not timed
            )


if __name__ == "__main__":
    harness.main("recipes", __doc__, cases)
