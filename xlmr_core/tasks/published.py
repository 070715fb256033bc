"""The published classes of pipelines as type checkers and editors see them.

``pipeline_class`` makes the classes that run, from the table of tasks; here stands what a call of each takes and gives.
A test holds every task, its options and this file together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

from xlmr_core.tasks.fill_mask import Candidate
from xlmr_core.tasks.pipeline import Pipeline

__all__ = ["FillMaskPipeline"]


class FillMaskPipeline(Pipeline):
    """The most likely tokens at each ``<mask>`` of a text; see ``xlmr_core/tasks/fill_mask.py``."""

    def __init__(self, model: Any, tokenizer: Any, **options: Any) -> None: ...

    # A text with several masks is answered by a list for each mask, which the type of its argument does not tell. Texts
    # and lists are iterables too, but what stands first counts.
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self,
        inputs: str,
        *,
        top_k: int | None = None,
        targets: str | Sequence[str] | None = None,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
        batch_size: int | None = None,
    ) -> list[Candidate]: ...

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self,
        inputs: list[str] | tuple[str, ...],
        *,
        top_k: int | None = None,
        targets: str | Sequence[str] | None = None,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
        batch_size: int | None = None,
    ) -> list[Any]: ...

    @overload
    def __call__(
        self,
        inputs: Iterable[str],
        *,
        top_k: int | None = None,
        targets: str | Sequence[str] | None = None,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
        batch_size: int | None = None,
    ) -> Iterator[Any]: ...

    def __call__(self, *inputs: Any, **options: Any) -> Any: ...
