"""What a server counts, as Prometheus reads it; no text of anybody is in it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

__all__ = ["Metrics"]

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)
_TOKENS = (8, 32, 128, 512, 1024, 2048, 4096, 8192, 16384)


class Metrics:
    """The counters of one server.

    Attributes:
        requests: answered, by route and status; 499 is a client that went away.
        seconds: from the head of a request to its answer, by route.
        running: requests that are read, wait or run.
        texts: that were answered, by model and task.
        tokens: that went through a model.
        cut: texts of which something was cut off, by model.
        waiting: tokens that wait, by model.
        batches: tokens of a batch, by model.
        runs: seconds that a batch ran, by model.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        self.requests = Counter("xlmr_requests", "Requests, by route and status", ("route", "status"), registry=own)
        self.seconds = Histogram(
            "xlmr_request_seconds", "Seconds until an answer", ("route",), registry=own, buckets=_SECONDS
        )
        self.running = Gauge("xlmr_requests_running", "Requests that are read, wait or run", registry=own)
        self.texts = Counter("xlmr_texts", "Texts that were answered", ("model", "task"), registry=own)
        self.tokens = Counter("xlmr_tokens", "Tokens that went through a model", ("model",), registry=own)
        self.cut = Counter("xlmr_texts_cut", "Texts of which something was cut off", ("model",), registry=own)
        self.waiting = Gauge("xlmr_waiting_tokens", "Tokens that wait for a model", ("model",), registry=own)
        self.batches = Histogram("xlmr_batch_tokens", "Tokens of a batch", ("model",), registry=own, buckets=_TOKENS)
        self.runs = Histogram("xlmr_batch_seconds", "Seconds of a batch", ("model",), registry=own, buckets=_SECONDS)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self._registry)
