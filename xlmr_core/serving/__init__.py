"""A server: tasks on models over HTTP, in the words of clients that are there already.

Requests of many clients fill one packed batch (``batching.py``, ``worker.py``); a dialect (``dialects/``) is a table of
routes that say what a body holds, which task it asks for, and how the answer looks. None of it knows a framework.

``serve`` runs a server; ``application`` is what an ASGI server of one's own runs.
"""

from __future__ import annotations

from xlmr_core.importing import import_when_used

__all__ = ["Settings", "application", "load_model", "serve"]

__getattr__ = import_when_used(
    globals(),
    {
        "Settings": "xlmr_core.serving.settings",
        "application": "xlmr_core.serving.app",
        "load_model": "xlmr_core.serving.loading",
        "serve": "xlmr_core.serving.server",
    },
)
