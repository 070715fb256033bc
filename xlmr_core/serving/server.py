"""The server: uvicorn around the application, with connections that cannot be kept busy by doing nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from xlmr_core.errors import XLMRError
from xlmr_core.serving.app import application
from xlmr_core.serving.models import Model
from xlmr_core.serving.settings import Settings

__all__ = ["serve"]

# Descriptors that a process needs beside its connections.
SPARE = 128
_FULL = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 1\r\nconnection: close\r\n\r\n"
# Bytes of an answer that a client has to read in ``read_timeout``, where so many are left.
LEAST = 65_536
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(
    models: Sequence[Model],
    settings: Settings | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    api_key: str | None = None,
    ready: Callable[[str], object] | None = None,
) -> None:
    """Serve until a signal comes: SIGINT or SIGTERM, after which what was accepted is answered; a second SIGINT ends at
    once.

    Args:
        models: of :func:`xlmr_core.serving.load_model`.
        settings: limits.
        host, port: where; port 0 takes a free one.
        api_key: what clients have to send as ``Authorization: Bearer KEY``.
        ready: is told the address when requests are taken.

    Raises:
        XLMRError: if nothing can listen there.
    """
    settings = settings or Settings()
    sockets = [_listening(host, port)]
    shown = f"[{host}]" if ":" in host else host
    config = uvicorn.Config(
        application(models, settings, api_key=api_key),
        http=_protocol(settings),
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(max(1, settings.read_timeout)),
        timeout_graceful_shutdown=int(max(1, settings.shutdown_timeout)),
    )
    _quiet_uvicorn()
    url = f"http://{shown}:{sockets[0].getsockname()[1]}"
    _Server(config, lambda: ready(url) if ready is not None else None).run(sockets)


def _quiet_uvicorn() -> None:
    """What a client does wrong is no news, and what fails is told without what was sent."""

    def without_texts(record: logging.LogRecord) -> bool:
        kind = record.exc_info[0] if record.exc_info else None
        record.exc_info = record.exc_text = None
        record.msg = f"{str(record.msg).strip()}: {kind.__name__}" if kind else record.msg
        return True

    log = logging.getLogger("uvicorn.error")
    log.setLevel(logging.ERROR)
    log.addFilter(without_texts)


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        found = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise XLMRError(f"cannot listen at {host}, port {port}: {why}; choose another host or port") from error
    found.setblocking(False)
    return found


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], object]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but the process ends by itself, and not by the signal once more."""
        before = [(number, signal.signal(number, self.handle_exit)) for number in SIGNALS]
        try:
            yield
        finally:
            for number, handler in before:
                signal.signal(number, handler)


def _protocol(settings: Settings) -> type[H11Protocol]:
    most = min(settings.max_connections, _descriptors(settings.max_connections + SPARE) - SPARE)
    return type("Protocol", (_Impatient,), {"seconds": settings.read_timeout, "most": max(1, most)})


def _descriptors(wanted: int) -> int:
    """How many descriptors there are, when as many as possible were asked for."""
    try:
        import resource
    except ImportError:  # not on Windows
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
        return soft
    return wanted


class _Impatient(H11Protocol):
    """A connection that is closed if its client sends no whole head, or reads nothing of an answer, for a while."""

    seconds: ClassVar[float]
    most: ClassVar[int]

    _head: asyncio.TimerHandle | None = None
    _reader: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # asyncio leaves it out for sockets that it did not make, and an answer of two parts then takes 40 ms more.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > self.most:
            transport.write(_FULL)
            transport.close()
            return
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self._head, self._reader):
            if timer is not None:
                timer.cancel()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None

    def _watch_head(self) -> None:
        """Have the connection closed where a head was begun, or not even that, and does not end; and where the rest of
        a body does not that was answered already.
        """
        before_it = self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is None
        idle = before_it or (self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY)
        if idle and self._head is None:
            self._head = self.loop.call_later(self.seconds, self.transport.abort)
        elif not idle and self._head is not None:
            self._head.cancel()
            self._head = None

    def _watch_reader(self, before: int | None = None) -> None:
        """Have the connection closed where hardly anything was read since the last look."""
        left = self.transport.get_write_buffer_size()
        if before is not None and before - left < LEAST:
            self.transport.abort()
            return
        self._reader = self.loop.call_later(self.seconds, self._watch_reader, left)
