"""The words of clients that are there already, a file each, and our own; a dialect is a table of routes.

To add one: a module beside this one with ``ROUTES``, and its name in ``ROUTES`` here.
"""

from __future__ import annotations

from xlmr_core.serving.dialects import openai, rerank, tasks, tei

__all__ = ["ROUTES"]

ROUTES = (*openai.ROUTES, *rerank.ROUTES, *tei.ROUTES, *tasks.ROUTES)
