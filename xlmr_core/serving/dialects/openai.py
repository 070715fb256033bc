"""``/v1/embeddings`` and ``/v1/models`` as clients of OpenAI call them.

Ids of tokens are those of the model's own tokenizer, as ``/tokenize`` gives them. A text that is too long is refused.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from xlmr_core.serving import fields as kinds
from xlmr_core.serving.faults import Fault
from xlmr_core.serving.fields import Field
from xlmr_core.serving.models import Answered, Model, Models, Question, TokenIds
from xlmr_core.serving.routes import Dialect, Route, Values

__all__ = ["OPENAI", "ROUTES", "texts_or_ids"]

# By kinds of faults, the code that clients know.
_CODES = {
    "unauthorized": "invalid_api_key",
    "not_found": "model_not_found",
    "too_long": "context_length_exceeded",
    "overloaded": "rate_limit_exceeded",
}


def _fault(fault: Fault, status: int) -> Any:
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    error = {"message": str(fault), "type": kind, "param": fault.param, "code": _CODES.get(fault.kind)}
    return {"error": error}


OPENAI = Dialect(
    "OpenAI",
    _fault,
    statuses={"invalid": 400, "too_long": 400, "unable": 400},
    wording={", or pass on_overflow='truncate'": ""},
)


def texts_or_ids(given: Any) -> list[Any]:
    """A text, ids, or several of them, as a list of texts and ids."""
    if isinstance(given, str):
        return [given]
    if isinstance(given[0], int):
        return [TokenIds(given)]
    return [one if isinstance(one, str) else TokenIds(one) for one in given]


def _ask(values: Values) -> Question:
    options = {"on_overflow": "error", "dimensions": values["dimensions"]}
    return Question("sentence-embedding", texts_or_ids(values["input"]), options, values["model"])


def _render(values: Values, answered: Answered) -> Any:
    as_it_is = values["encoding_format"] == "float"
    data = [
        {"object": "embedding", "index": index, "embedding": vector.tolist() if as_it_is else _base64(vector)}
        for index, vector in enumerate(answered.value)
    ]
    usage = {"prompt_tokens": answered.tokens, "total_tokens": answered.tokens}
    return {"object": "list", "data": data, "model": answered.model.name, "usage": usage}


def _base64(vector: Any) -> str:
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()


def _told(model: Model) -> Any:
    return {"id": model.name, "object": "model", "created": model.created, "owned_by": "xlmr"}


def _models(values: Values, models: Models) -> Any:
    return {"object": "list", "data": [_told(model) for model in models]}


def _model(values: Values, models: Models) -> Any:
    return _told(models.named(values["name"]))


ROUTES = (
    Route(
        "/v1/embeddings",
        "Vectors of texts, as of OpenAI",
        OPENAI,
        (
            Field("input", kinds.TEXTS_OR_IDS, "what vectors are made of", required=True),
            Field("model", kinds.TEXT, "the name of a model; by default the first that gives vectors"),
            Field("encoding_format", kinds.one_of("float", "base64"), "how vectors are written", usual="float"),
            Field("dimensions", kinds.COUNT, "numbers of a vector; by default all"),
            Field("user", kinds.TEXT, "has no effect"),
        ),
        ask=_ask,
        render=_render,
    ),
    Route("/v1/models", "The models that are served", OPENAI, method="GET", show=_models),
    Route(
        "/v1/models/{name:path}",
        "One of them",
        OPENAI,
        (Field("name", kinds.TEXT, "of the model", required=True),),
        method="GET",
        show=_model,
    ),
)
