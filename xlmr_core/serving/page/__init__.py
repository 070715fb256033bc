"""The page at ``/``: the files beside this module, as they are. They ask no other address than those of this server.

``main.js`` asks the server what there is and runs the form; ``views.js`` is the table of views, a row a task;
``draw.js``, ``heat.js`` and ``attention.js`` show answers; ``fields.js`` makes the controls.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

__all__ = ["HEADERS", "File", "page_files"]

KINDS: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# A browser loads and asks this server alone, whatever a file or an answer says, and no other page may frame this one.
HEADERS: Mapping[str, str] = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}


@dataclass(frozen=True)
class File:
    """A file of the page.

    Attributes:
        content: its bytes.
        kind: its media type.
        tag: another one if the content is, as the header ``etag`` says it.
    """

    content: bytes
    kind: str
    tag: str


@cache
def page_files() -> Mapping[str, File]:
    """The files by their addresses: ``/``, and what that names, below ``/page/``."""
    found: dict[str, File] = {}
    for entry in sorted(files(__name__).iterdir(), key=lambda entry: entry.name):
        kind = KINDS.get("." + entry.name.rpartition(".")[2])
        if kind is not None:
            content = entry.read_bytes()
            address = "/" if entry.name == "index.html" else f"/page/{entry.name}"
            found[address] = File(content, kind, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
    return MappingProxyType(found)
