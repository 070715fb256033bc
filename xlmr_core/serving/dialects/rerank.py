"""``/v1/rerank`` and ``/v2/rerank`` as clients of Cohere and Jina call them.

A document that is too long is cut, as these services do; ``meta.warnings`` of the answer says so.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from functools import partial
from typing import Any

from xlmr_core.serving import fields as kinds
from xlmr_core.serving.faults import Fault
from xlmr_core.serving.fields import Field
from xlmr_core.serving.models import Answered, Question
from xlmr_core.serving.routes import Dialect, Route, Values

__all__ = ["COHERE", "ROUTES"]

# Tokens of a document that are read where nothing is said, as published.
MOST_TOKENS = 4096


def _fault(fault: Fault, status: int) -> Any:
    return {"message": str(fault)}


COHERE = Dialect("Cohere and Jina", _fault, statuses={"invalid": 400, "too_long": 400, "unable": 400})


def _ask(values: Values) -> Question:
    documents = [one if isinstance(one, str) else one["text"] for one in values["documents"]]
    return Question(
        "rerank",
        {"query": values["query"], "passages": documents},
        {"on_overflow": "truncate", "top_k": values["top_n"], "return_documents": bool(values.get("return_documents"))},
        values["model"],
        adapt=partial(_cut, values["max_tokens_per_doc"]),
    )


def _cut(most: int, tokenizer: Any, inputs: Any) -> tuple[Any, Sequence[int]]:
    """The passages, of each its first tokens."""
    encoded = tokenizer(inputs["passages"], add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    passages = [
        text if len(places) <= most else text[: places[most - 1][1]]
        for text, places in zip(inputs["passages"], encoded["offset_mapping"], strict=True)
    ]
    return {**inputs, "passages": passages}, [0] if passages != inputs["passages"] else []


def _render(version: str, values: Values, answered: Answered) -> Any:
    results = [
        {
            "index": row["index"],
            "relevance_score": row["score"],
            **({"document": {"text": row["text"]}} if "text" in row else {}),
        }
        for row in answered.value
    ]
    meta = {"api_version": {"version": version}, "billed_units": {"search_units": 1}}
    warnings = ["some documents are longer than what is read, and were cut"] if answered.cut else []
    usage = {"prompt_tokens": answered.tokens, "total_tokens": answered.tokens}
    return {
        "id": str(uuid.uuid4()),
        "object": "list",
        "model": answered.model.name,
        "results": results,
        "meta": {**meta, **({"warnings": warnings} if warnings else {})},
        "usage": usage,
    }


_FIELDS = (
    Field("query", kinds.TEXT, "what is asked", required=True),
    Field("documents", kinds.DOCUMENTS, "what is put in order", required=True),
    Field("model", kinds.TEXT, "the name of a model; by default the first that ranks"),
    Field("top_n", kinds.COUNT, "how many documents, best first; by default all"),
    Field("max_tokens_per_doc", kinds.COUNT, "tokens of a document that are read", usual=MOST_TOKENS),
)
_RETURN = Field("return_documents", kinds.BOOLEAN, "with the text of each", usual=False)

ROUTES = (
    Route(
        "/v1/rerank",
        "Documents by relevance, as of Cohere and Jina",
        COHERE,
        (*_FIELDS, _RETURN),
        ask=_ask,
        render=partial(_render, "1"),
    ),
    Route(
        "/v2/rerank",
        "Documents by relevance, as of Cohere",
        COHERE,
        (*_FIELDS, _RETURN, Field("priority", kinds.ANYTHING, "has no effect")),
        ask=_ask,
        render=partial(_render, "2"),
    ),
)
