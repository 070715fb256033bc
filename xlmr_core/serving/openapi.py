"""The routes as OpenAPI describes them, and as a page for people; both made of the tables of the dialects."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Any

from xlmr_core import __version__
from xlmr_core.serving.faults import STATUSES
from xlmr_core.serving.fields import Field
from xlmr_core.serving.routes import Route

__all__ = ["described", "page"]

_IN_PATH = re.compile(r"{(\w+)(?::\w+)?}")
# What is no question to a model: the address, what it shows, and as what.
_OTHERS = (
    ("/health", "Whether the server runs", "application/json"),
    ("/metrics", "What was counted, as Prometheus reads it", "text/plain"),
)
_SECURITY: tuple[dict[str, tuple[str, ...]], ...] = ({}, {"key": ()})


def described(routes: Sequence[Route]) -> dict[str, Any]:
    """The document that ``/openapi.json`` gives."""
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(_path(route), {})[route.method.lower()] = _operation(route)
    for path, summary, kind in _OTHERS:
        shown = {"200": {"description": summary, "content": {kind: {"schema": {}}}}}
        paths[path] = {"get": {"tags": ["operation"], "summary": summary, "security": _SECURITY, "responses": shown}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "xlmr", "version": __version__, "description": "Tasks on XLM-RoBERTa models."},
        "paths": paths,
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _path(route: Route) -> str:
    return _IN_PATH.sub(r"{\1}", route.path)


def _operation(route: Route) -> dict[str, Any]:
    names = _IN_PATH.findall(route.path)
    operation: dict[str, Any] = {
        "tags": [route.dialect.name],
        "summary": route.summary,
        "security": _SECURITY,
        "responses": {"200": {"description": "the answer", "content": {"application/json": {"schema": {}}}}},
    }
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if route.method == "POST":
        own = [field for field in route.fields if field.name not in names]
        schema = {
            "type": "object",
            "properties": {field.name: _property(field) for field in own},
            "required": [field.name for field in own if field.required],
            "additionalProperties": False,
        }
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
        statuses = {route.dialect.statuses.get(kind, status) for kind, status in STATUSES.items()}
        operation["responses"] |= {
            str(status): {"description": "a fault, in a sentence"} for status in sorted(statuses)
        }
    return operation


def _property(field: Field) -> dict[str, Any]:
    usual = {} if field.usual is None else {"default": field.usual}
    return {**field.kind.schema, "description": field.help, **usual}


_STYLE = """\
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
code { font-family: ui-monospace, monospace }
table { border-collapse: collapse; width: 100% }
td, th { text-align: start; vertical-align: top; padding: .25rem .75rem .25rem 0; border-top: 1px solid #8884 }
"""


def page(routes: Sequence[Route]) -> bytes:
    """The page that ``/docs`` gives; it asks no other address for anything."""
    parts = []
    for route in routes:
        rows = "".join(
            f"<tr><td><code>{escape(field.name)}</code>{' (required)' if field.required else ''}</td>"
            f"<td>{escape(field.kind.called)}</td><td>{escape(field.help)}</td></tr>"
            for field in route.fields
        )
        table = f"<table><tr><th>field</th><th>is</th><th>means</th></tr>{rows}</table>" if rows else ""
        heading = f"<h2><code>{route.method} {escape(_path(route))}</code></h2>"
        parts.append(f"<section>{heading}<p>{escape(route.summary)}; {escape(route.dialect.name)}</p>{table}</section>")
    parts += [
        f"<section><h2><code>GET {path}</code></h2><p>{escape(summary)}</p></section>" for path, summary, _ in _OTHERS
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
    title = "What this server answers"
    text = (
        f'<!doctype html><html lang="en"><head><title>{title}</title>{head}</head><body><h1>{title}</h1>'
        f'<p>Bodies are JSON. <a href="openapi.json">openapi.json</a> says the same for programs.</p>'
        f"{''.join(parts)}</body></html>"
    )
    return text.encode()
