"""The limits of a server, declared once: their defaults, their least values, and what the help text says."""

from __future__ import annotations

from dataclasses import dataclass, fields

from xlmr_core.errors import InputError
from xlmr_core.tasks.options import NUMBERS, kind_of, option

__all__ = ["Settings"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a server takes, and how long it waits.

    Attributes:
        batch_tokens: tokens of all requests that go through a model together. Half of a batch goes to the requests
            that came first, half to the shortest ones.
        max_waiting_tokens: tokens that may wait for a model. A request that finds more is refused, and told when to
            come again.
        max_requests: requests that are read, wait or run at the same time; more are refused as well.
        max_texts: texts of a request.
        max_request_tokens: tokens of a request.
        max_body_bytes: bytes of the body of a request.
        max_connections: connections that are open at the same time; more are closed.
        request_timeout: seconds from the whole body to the answer; what has not run by then does not run any more.
        read_timeout: seconds that a client may take for its head, for its body, or for reading 64 KiB of its answer.
        shutdown_timeout: seconds that requests have to end after a signal.
    """

    batch_tokens: int = option(2048, "tokens of all requests that run together", least=1)
    max_waiting_tokens: int = option(262_144, "tokens that may wait; more are answered by 429", least=1)
    max_requests: int = option(1024, "requests at the same time; more are answered by 429", least=1)
    max_texts: int = option(2048, "texts of a request", least=1)
    max_request_tokens: int = option(65_536, "tokens of a request", least=1)
    max_body_bytes: int = option(2_097_152, "bytes of a request", least=1)
    max_connections: int = option(4096, "connections at the same time", least=1)
    request_timeout: float = option(120.0, "seconds until an answer", least=0.001)
    read_timeout: float = option(30.0, "seconds that a client may take to send or to read", least=0.001)
    shutdown_timeout: float = option(60.0, "seconds to end what was accepted, after a signal", least=0.001)

    def __post_init__(self) -> None:
        for own in fields(self):
            value, least = getattr(self, own.name), own.metadata["least"]
            number, called = NUMBERS[kind_of(own)]
            if isinstance(value, bool) or not isinstance(value, number) or not value >= least:
                raise InputError(f"{own.name} must be {called} of at least {least}, received {value!r}")
