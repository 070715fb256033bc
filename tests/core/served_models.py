"""Models for a server that no framework runs: their tokens have states that are drawn by their ids, so that answers can
be compared with those of a pipeline over the same runner.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from xlmr_core.config import XLMRobertaConfig
from xlmr_core.serving.models import Model
from xlmr_core.tasks import TASKS
from xlmr_core.tasks.pipeline import Pipeline
from xlmr_core.tasks.sentence_folder import Normalize, SentenceFolder
from xlmr_core.tokenization import AutoTokenizer

SIZE = 8
LABELS = {"rerank": 1, "fill-mask": 2, "question-answering": 2}
HEADS = {
    name: (np.random.default_rng(7).standard_normal((count, SIZE)).astype(np.float32), np.zeros(count, np.float32))
    for name, count in (("sparse_linear", 1), ("colbert_linear", 4))
}
FOLDER = SentenceFolder(
    pooling=("mean",), layers=(Normalize(),), prompts={"query": "query: "}, max_seq_length=48, heads=HEADS
)


@cache
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained("xlmr-mini")


class DrawnRunner:
    """Gives what a model would, by the ids alone.

    Attributes:
        batches: the ids of each batch that ran.
        gate: a batch waits until it is set.
        pause: seconds that a batch takes.
    """

    framework = "pt"
    device = "cpu"

    def __init__(self, labels: int) -> None:
        names = ("contradiction", "neutral", "entailment")
        self.config = XLMRobertaConfig(
            vocab_size=len(tokenizer()),
            hidden_size=SIZE,
            num_attention_heads=2,
            num_hidden_layers=2,
            max_position_embeddings=66,
            id2label={index: names[index] if labels == 3 else f"LABEL_{index}" for index in range(labels)},
            label2id={names[index] if labels == 3 else f"LABEL_{index}": index for index in range(labels)},
        )
        self.model = SimpleNamespace(name_or_path="", dtype="torch.float32", config=self.config)
        drawn = np.random.default_rng(3).standard_normal((len(tokenizer()), SIZE))
        self.states = drawn.astype(np.float32)
        self.projections: dict[str, Any] = {}
        self.batches: list[list[list[int]]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.pause = 0.0
        self.fails = False

    def add_projection(self, name: str, weight: Any, bias: Any) -> None:
        self.projections[name] = (weight, bias)

    def run(self, arrays: dict[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
        ids_BS, mask_BS = arrays["input_ids"], arrays["attention_mask"]
        self.batches.append([row[mask == 1].tolist() for row, mask in zip(ids_BS, mask_BS, strict=True)])
        assert self.gate.wait(30)
        time.sleep(self.pause)
        if self.fails and any(2000 in row for row in self.batches[-1]):
            raise RuntimeError("a text of a client: secret")
        states_BSD = self.states[ids_BS] * mask_BS[..., None]
        labels = self.config.num_labels
        made = {
            "last_hidden_state": lambda: states_BSD,
            "pooled": lambda: np.einsum("bps,bsd->bpd", arrays["pooling"], states_BSD),
            "logits": lambda: (
                states_BSD[..., :labels] if "token" in self.kind else states_BSD.sum(axis=1)[:, :labels] / 4
            ),
            "start_logits": lambda: states_BSD[..., 0],
            "end_logits": lambda: states_BSD[..., 1],
        }
        return {
            name: (
                states_BSD @ self.projections[name][0].T + self.projections[name][1]
                if name in self.projections
                else made[name]()
            )
            for name in wanted
        }

    kind = ""

    def attentions(self, arrays: dict[str, Any]) -> list[Any]:
        """Of two layers with two heads, the second of which looks at nothing but itself."""
        states_BSD, mask_BS = self.states[arrays["input_ids"]], arrays["attention_mask"]
        scores_BSS = np.exp(np.einsum("bsd,btd->bst", states_BSD, states_BSD) / SIZE) * mask_BS[:, None]
        drawn_BSS = scores_BSS / scores_BSS.sum(axis=-1, keepdims=True)
        own_BSS = np.broadcast_to(np.eye(mask_BS.shape[1], dtype=np.float32), drawn_BSS.shape)
        return [np.stack([drawn_BSS, own_BSS], 1), np.stack([own_BSS, drawn_BSS], 1)]


def served(name: str, *tasks: str) -> Model:
    """A model that can do these tasks."""
    runner = DrawnRunner(LABELS.get(tasks[0], 3))
    runner.kind = tasks[0]
    made = {}
    for task in tasks:
        made[task] = TASKS[task].load()(tokenizer(), runner.config)
        made[task].set_up(runner, FOLDER if "sentence" in task else SentenceFolder() if task == "rerank" else None)
    return Model(name, f"/models/{name}", runner, tokenizer(), made)


def offline(model: Model, task: str, **options: Any) -> Pipeline:
    """The pipeline over the same runner."""
    beside = FOLDER if "sentence" in task else SentenceFolder() if task == "rerank" else None
    return Pipeline(task, model.runner, model.tokenizer, beside=beside, **options)


def embedder(name: str = "vectors") -> Model:
    return served(name, "sentence-embedding", "sentence-similarity", "feature-extraction")


def reranker(name: str = "ranks") -> Model:
    return served(name, "rerank", "text-classification")


def classifier(name: str = "labels") -> Model:
    return served(name, "text-classification", "zero-shot-classification")
