"""What every backend's pipeline that writes is asked beside the recorded calls."""

from __future__ import annotations

from typing import Any

__all__ = ["check_draws"]


def check_draws(write: Any) -> None:
    """Tokens are drawn from a seed, and come to a streamer as they come back in the end.

    Args:
        write: a pipeline of ``text-generation`` on ``fixtures/tasks/text_generation``.
    """
    how = {"max_new_tokens": 6, "temperature": 5.0, "special_tokens": "start"}
    first, again, other = (write("The river", **how, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert write("The river", **how) != write("The river", **how)
    pieces: list[str] = []
    streamed = write("The river", **how, seed=1, streamer=write.streamer("The river", pieces.append))
    assert streamed == first and "".join(pieces) == write.text(first)
