"""A task as a function in the cloud: the handler of AWS Lambda, on ONNX Runtime, without a framework.

``xlmr_core.serverless.handler`` is what the function is configured to call. Two variables say what it does:

- ``XLMR_MODEL``: a folder with the function, best one that ``xlmr export`` wrote, or a built-in model;
- ``XLMR_TASK``: what the model is asked, a task of ``xlmr run``.

The model is loaded once in a process: by the first event, or on Lambda before it, while the process starts. Nothing is
written, and nothing is fetched.

An event is that of an HTTP API or of a function's own address (API Gateway, payload 1.0 or 2.0), or what is in its
body: ``inputs``, and the options of the task as ``parameters``, as at ``/tasks/NAME`` of ``xlmr serve``. Whatever is
wrong with one is a sentence with the status that the server would give. Nothing that clients send is logged.
"""

from __future__ import annotations

import base64
import binascii
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from xlmr_core.backends import load_backend
from xlmr_core.errors import XLMRError
from xlmr_core.serving import fields as kinds
from xlmr_core.serving.answers import WORDING, as_json, log_failure, worded
from xlmr_core.serving.faults import STATUSES, Fault, fault_of
from xlmr_core.serving.fields import Field, read_body, read_fields
from xlmr_core.serving.parameters import read_parameters
from xlmr_core.tasks import find_task
from xlmr_core.tasks.pipeline import Pipeline
from xlmr_core.wording import shown

__all__ = ["handler"]

logger = logging.getLogger("xlmr_core.serverless")

MODEL, TASK = "XLMR_MODEL", "XLMR_TASK"
# Lambda says in it how a process came to be.
ON_LAMBDA = "AWS_LAMBDA_INITIALIZATION_TYPE"
# Of an answer: Lambda sends no more.
MOST_BYTES = 6 * 1024 * 1024
FIELDS = (
    Field("inputs", kinds.ANYTHING, "what the task's pipeline takes: a text, a list, an object", required=True),
    Field("parameters", kinds.OBJECT, "options of the task"),
)
LOOKS = ("GET", "HEAD")

_loading = threading.Lock()
_loaded: list[Pipeline] = []


def handler(event: Any, context: Any = None) -> Any:
    """Answer an event.

    Args:
        event: of an HTTP request, or an object of ``inputs`` and ``parameters``. A GET request is answered by the task
            and the model, which it loads.
        context: of Lambda; it is not needed.

    Returns:
        To a request ``{"statusCode", "headers", "body"}``; else the answer of the task, as JSON holds it. What is wrong
        is ``{"error", "kind"}`` with the status, which without a request is a further ``"statusCode"``. The header
        ``x-truncated`` counts the inputs of which something was cut off.
    """
    method = _method(event)
    cut = 0
    try:
        if method in LOOKS:
            content: Any = {"status": "ok", "task": _pipeline().task, "model": os.environ[MODEL]}
        else:
            content, cut = _answer(event if method is None else _body(event, method))
        status, sent = 200, _as_sent(content)
    except Fault as fault:
        status = STATUSES[fault.kind]
        content = {"error": worded(fault, WORDING), "kind": fault.kind}
        sent = as_json(content).decode()
    if method is None:
        return content if status == 200 else {**content, "statusCode": status}
    headers = {"content-type": "application/json", **({"x-truncated": str(cut)} if cut else {})}
    return {"statusCode": status, "headers": headers, "body": sent, "isBase64Encoded": False}


def _answer(body: Any) -> tuple[Any, int]:
    """What comes of a body, and how many of its inputs were cut.

    Raises:
        Fault: for whatever is wrong, here or with what came.
    """
    try:
        values = read_fields(body, FIELDS)
        own = _pipeline()
        options = read_parameters(find_task(own.task), values["parameters"] or {})
        with _no_warning_of_texts():
            answer = own(values["inputs"], **options)
        if isinstance(answer, Iterator):  # of letters, as nothing of it is read yet
            received = shown(values["inputs"], 80)
            raise Fault("invalid", f"expected an object for {own.task}, or a list of them, received {received}")
        return own.plain(answer), len(own.truncated)
    except XLMRError as error:
        raise fault_of(error) from error
    except Exception as error:
        log_failure(logger, "the function", error)
        raise Fault("broken", "the function failed at this; its log says where") from error


@contextmanager
def _no_warning_of_texts() -> Iterator[None]:
    """Meanwhile nobody is warned of a text that was cut, with its beginning; the answer says it here."""
    log = logging.getLogger("xlmr_core.tasks")
    log.addFilter(_nothing)
    try:
        yield
    finally:
        log.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False


def _as_sent(content: Any) -> str:
    """As JSON.

    Raises:
        Fault: for numbers that JSON does not have, and for what is too large.
    """
    sent = as_json(content)
    if len(sent) > MOST_BYTES:
        message = f"expected an answer of at most {MOST_BYTES} bytes, it has {len(sent)}; send fewer texts at a time"
        raise Fault("too_large", message)
    return sent.decode()


# ---- The model


def _pipeline() -> Pipeline:
    """The pipeline, loaded if it is not there yet.

    Raises:
        Fault: if it cannot be, which is not the client's fault.
    """
    with _loading:
        if not _loaded:
            try:
                _loaded.append(_load(os.environ))
            except XLMRError as error:
                logger.error("the function has no model: %s", error)
                raise Fault("broken", "the function has no model; its log says why") from error
        return _loaded[0]


def _load(environ: Mapping[str, str]) -> Pipeline:
    missing = [name for name in (MODEL, TASK) if not environ.get(name)]
    if missing:
        raise XLMRError(f"expected the variables {MODEL} and {TASK}, received no {missing[0]}; set it for the function")
    made: Pipeline = load_backend("onnx").pipeline(environ[TASK], environ[MODEL])
    return made


# ---- Requests


def _method(event: Any) -> str | None:
    """The method of the HTTP request that an event is, of payload 2.0 or 1.0; ``None`` if it is none."""
    if not isinstance(event, Mapping):
        return None
    context = event.get("requestContext")
    http = context.get("http") if isinstance(context, Mapping) else None
    method = http.get("method") if isinstance(http, Mapping) else event.get("httpMethod")
    return method.upper() if isinstance(method, str) else None


def _body(event: Mapping[str, Any], method: str) -> Any:
    """What the body of a request holds.

    Raises:
        Fault: for another method, and for what is no JSON.
    """
    if method != "POST":
        raise Fault("method", f"expected POST, received {shown(method, 20)}")
    said = event.get("body")
    if not isinstance(said, str):
        raise Fault("malformed", "expected a body of JSON, received none; send one")
    content = said.encode("utf-8", "surrogatepass")
    if event.get("isBase64Encoded"):
        try:
            content = base64.b64decode(said, validate=True)
        except (binascii.Error, ValueError):
            raise Fault("malformed", "expected a body in base64, received other letters; mend it") from None
    return read_body(content)


if os.environ.get(ON_LAMBDA):
    # While a process starts, Lambda gives it more of a processor than later. What goes wrong the first event is told.
    try:
        _pipeline()
    except Fault:
        logger.error("the first event tries again")
