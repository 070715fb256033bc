"""The application: from the bytes of a request to those of its answer, whatever the dialect.

A request is let in (key, room), read (limits, time, JSON), asked (``routes.py``), answered (``models.py``) and counted.
Whatever is wrong with it is a :class:`Fault`, which its dialect puts into words. Nothing that clients send is logged.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as Address

from xlmr_core.serving.answers import as_json, log_failure
from xlmr_core.serving.dialects import ROUTES
from xlmr_core.serving.dialects.tasks import OWN
from xlmr_core.serving.dialects.tei import BY_TASK
from xlmr_core.serving.faults import Fault
from xlmr_core.serving.fields import counted_texts, read_body, read_fields
from xlmr_core.serving.metrics import Metrics
from xlmr_core.serving.models import Answered, Model, Models, Question
from xlmr_core.serving.openapi import described, page
from xlmr_core.serving.page import HEADERS, File, page_files
from xlmr_core.serving.routes import Dialect, Route, Values
from xlmr_core.serving.settings import Settings

__all__ = ["application"]

T = TypeVar("T")

access = logging.getLogger("xlmr_core.serving.access")
logger = logging.getLogger("xlmr_core.serving")

JSON = "application/json"
# The status that is counted of a client that went away; nobody is there to see it.
GONE = 499
# A body of so many bytes, some two batches of tokens, is read and tokenized beside the others.
LARGE = 16_384
# So many times as large as may be is a body that a client may send to its end.
MODERATE = 16


class _GoneError(Exception):
    """The client went away."""


def application(models: Sequence[Model], settings: Settings | None = None, *, api_key: str | None = None) -> Starlette:
    """What an ASGI server runs.

    Args:
        models: of :func:`xlmr_core.serving.load_model`.
        settings: limits; by default those of :class:`xlmr_core.serving.Settings`.
        api_key: what clients have to send as ``Authorization: Bearer KEY``; by default nothing.

    Raises:
        XLMRError: for no model, or two of one name.
    """
    return _Application(models, settings or Settings(), api_key).starlette()


class _Application:
    def __init__(self, models: Sequence[Model], settings: Settings, api_key: str | None) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.models = Models(models, settings, self.metrics)
        self._key = None if api_key is None else api_key.encode()
        self._running = 0
        self.metrics.running.set_function(lambda: self._running)

    def starlette(self) -> Starlette:
        """The addresses of all dialects, and those that are not theirs."""
        routes = (*ROUTES, *self._at_the_root())
        open_ones: Mapping[str, Callable[[], tuple[bytes, str]]] = {
            "/health": lambda: (as_json({"status": "ok"}), JSON),
            "/openapi.json": lambda: (as_json(described(routes)), JSON),
            "/docs": lambda: (page(routes), "text/html; charset=utf-8"),
        }
        addresses = [Address(route.path, self._endpoint(route), methods=[route.method]) for route in routes]
        addresses += [Address(path, self._shown(show, path), methods=["GET"]) for path, show in open_ones.items()]
        addresses.append(Address("/metrics", self._metrics, methods=["GET"]))
        addresses += [Address(path, self._file(path, file), methods=["GET"]) for path, file in page_files().items()]
        lost: Mapping[Any, Any] = {HTTPException: self._lost}
        return Starlette(routes=addresses, exception_handlers=lost, lifespan=self._lifespan)

    def _at_the_root(self) -> list[Route]:
        """What Text Embeddings Inference does there, by what the first model can do."""
        paths = [path for task, path in BY_TASK.items() if task in self.models.first.tasks][:1]
        return [replace(route, path="/", summary=f"As {route.path}") for route in ROUTES if route.path in paths]

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        self.models.close()

    # Addresses

    def _endpoint(self, route: Route) -> Callable[[Request], Awaitable[Response]]:
        return partial(self._counted, route.path, route.dialect, partial(self._answer, route))

    def _shown(self, show: Callable[[], tuple[bytes, str]], path: str) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            content, kind = show()
            return Response(content, media_type=kind)

        return partial(self._counted, path, OWN, answer)

    def _file(self, path: str, file: File) -> Callable[[Request], Awaitable[Response]]:
        """A file of the page, which a browser that has it already does not get again."""

        async def answer(request: Request) -> Response:
            headers = {**HEADERS, "etag": file.tag}
            if request.headers.get("if-none-match") == file.tag:
                return Response(status_code=304, headers=headers)
            return Response(file.content, headers=headers, media_type=file.kind)

        return partial(self._counted, path, OWN, answer)

    async def _metrics(self, request: Request) -> Response:
        async def answer(request: Request) -> Response:
            self._check_key(request)
            return Response(self.metrics.text(), media_type=self.metrics.content_type)

        return await self._counted("/metrics", OWN, answer, request)

    async def _lost(self, request: Request, error: HTTPException) -> Response:
        """An address or a method that is none."""
        paths = ", ".join(dict.fromkeys(route.path for route in ROUTES))
        fault = Fault("not_found", f"expected an address of {paths}, received another; /docs describes them")
        if error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "another method")
            fault = Fault("method", f"expected {allowed}, received {request.method}", headers={"allow": allowed})

        async def answer(request: Request) -> Response:
            raise fault

        return await self._counted("(none)", OWN, answer, request)

    # A request, from its head to its answer

    async def _counted(
        self,
        path: str,
        dialect: Dialect,
        answer: Callable[[Request], Awaitable[Response]],
        request: Request,
    ) -> Response:
        started = time.perf_counter()
        self._running += 1
        try:
            response = await answer(request)
        except Fault as fault:
            status, body = dialect.told(fault)
            response = Response(body, status, fault.headers, JSON)
        except asyncio.CancelledError:  # at the end of the time that a server has to stop
            status, body = dialect.told(
                Fault("stopping", "the server stops, and could not answer this; ask again later")
            )
            response = Response(body, status, {"retry-after": "5", "connection": "close"}, JSON)
        except (_GoneError, ClientDisconnect):
            response = Response(status_code=GONE)
        except Exception as error:
            log_failure(logger, path, error)
            status, body = dialect.told(Fault("broken", "the server failed at this; its log says where"))
            response = Response(body, status, media_type=JSON)
        finally:
            self._running -= 1
        seconds = time.perf_counter() - started
        self.metrics.requests.labels(path, str(response.status_code)).inc()
        self.metrics.seconds.labels(path).observe(seconds)
        access.info("%s %s %d %.1f ms", request.method, path, response.status_code, 1e3 * seconds)
        return response

    async def _answer(self, route: Route, request: Request) -> Response:
        self._check_key(request)
        if self._running > self.settings.max_requests:
            raise Fault(
                "overloaded",
                f"expected at most {self.settings.max_requests} requests at a time, received more; come again in 1 s",
                headers={"retry-after": "1"},
            )
        sent = await self._body(request) if route.method == "POST" else b"{}"
        large = len(sent) >= LARGE
        read = partial(self._read, route, sent, request.path_params)
        values, question = await asyncio.to_thread(read) if large else read()
        if route.show is not None:
            return Response(as_json(route.show(values, self.models)), media_type=JSON)
        if route.tell is not None:
            name = values.get("model")
            model = self.models.first if name is None else self.models.named(name)
            tell = partial(_told, route, values, model)
            content = await self._unless_gone(request, model.worker.around(tell, large=large))
            return Response(content, media_type=JSON)
        assert question is not None and route.render is not None
        model = self.models.able(question)
        render = partial(_rendered, route, values)
        answered, content = await self._unless_gone(request, model.answer(question, render, large=large))
        return self._finished(question, answered, content)

    def _read(self, route: Route, sent: bytes, named: Mapping[str, str]) -> tuple[Values, Question | None]:
        """What a body says, and the question that it asks.

        Raises:
            Fault: for whatever is wrong with it.
        """
        body = read_body(sent)
        if isinstance(body, dict) and named:
            body = {**body, **named}
        values = read_fields(body, route.fields)
        question = None if route.ask is None else route.ask(values)
        self._check_count(values.get("inputs", values.get("ids")) if question is None else question.inputs)
        return values, question

    def _finished(self, question: Question, answered: Answered, content: bytes) -> Response:
        name = answered.model.name
        self.metrics.texts.labels(name, question.task).inc(answered.texts)
        headers = {}
        if answered.cut:
            headers["x-truncated"] = str(len(answered.cut))
            self.metrics.cut.labels(name).inc(len(answered.cut))
        return Response(content, headers=headers, media_type=JSON)

    def _check_key(self, request: Request) -> None:
        if self._key is None:
            return
        kind, _, sent = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(sent.strip().encode(), self._key):
            raise Fault(
                "unauthorized",
                "expected the key of this server as 'Authorization: Bearer KEY', received "
                f"{'another' if sent else 'none'}; ask who runs it",
                headers={"www-authenticate": "Bearer"},
            )

    def _check_count(self, inputs: Any) -> None:
        count, most = counted_texts(inputs), self.settings.max_texts
        if count > most:
            raise Fault("too_large", f"expected at most {most} texts in a request, received {count}; send several")

    async def _body(self, request: Request) -> bytes:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != JSON:
            received = "none" if not kind else "another"
            raise Fault("media", f"expected the header 'Content-Type: {JSON}', received {received}; send it")
        most = self.settings.max_body_bytes
        said = request.headers.get("content-length", "")
        content = bytearray()
        try:
            async with asyncio.timeout(self.settings.read_timeout):
                if said.isdecimal() and int(said) > most:
                    raise _too_large(most, int(said), said=True)
                async for part in request.stream():
                    content += part
                    if len(content) > most:
                        raise _too_large(most, len(content), said=False)
        except TimeoutError:
            seconds = self.settings.read_timeout
            raise Fault(
                "slow",
                f"expected the body within {seconds:g} s, received a part of it; send it at once",
                headers={"connection": "close"},
            ) from None
        return bytes(content)

    async def _unless_gone(self, request: Request, work: Coroutine[Any, Any, T]) -> T:
        """What comes of the work, while the client is there and there is time.

        Raises:
            Fault: if there is none.
            _GoneError: if the client went away; what did not run yet does not run then.
        """
        task = asyncio.create_task(work)
        gone = asyncio.create_task(_gone(request))
        seconds = self.settings.request_timeout
        try:
            done, _ = await asyncio.wait({task, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if task in done:
                return task.result()
            if gone in done:
                raise _GoneError
            raise Fault("late", f"expected an answer within {seconds:g} s, there was none; send less, or come again")
        finally:
            for one in (task, gone):
                one.cancel()


def _too_large(most: int, count: int, said: bool) -> Fault:
    """The refusal of a body. Many clients read it when they have sent everything, so what comes of a moderate body is
    thrown away; of others the connection is closed.
    """
    received = f"{count}" if said else f"{count} and more"
    message = f"expected a body of at most {most} bytes, received {received}; send several requests"
    ends = said and count <= MODERATE * most
    return Fault("too_large", message, headers={} if ends else {"connection": "close"})


def _told(route: Route, values: Values, model: Model) -> bytes:
    assert route.tell is not None
    return as_json(route.tell(values, model))


def _rendered(route: Route, values: Mapping[str, Any], answered: Answered) -> bytes:
    assert route.render is not None
    return as_json(route.render(values, answered))


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
