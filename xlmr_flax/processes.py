"""Training in several processes, which ``jax.distributed`` has brought together; one alone is a group of one.

Every process has the whole batch of a step, because that is a function of the seed and the step, and puts the rows of
its own devices where they belong. What is decided (is there another step, is a checkpoint due) is decided by the first
process, which alone has the folder of the run; the others are told, and take part in what it calls: a model that is
divided is whole in no process.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import numpy as np

__all__ = ["Led"]

AnswerT = TypeVar("AnswerT")
# What no function is called.
_ANSWER = "the answer"


class Led:
    """Several processes, of which the first asks and all of which do what is then called.

    Args:
        **calls: functions by name; ``led.name(...)``, called in the first process, calls that of every process with
            the same arguments.
    """

    def __init__(self, **calls: Callable[..., Any]) -> None:
        self._calls = calls

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(self._everywhere, name) if jax.process_count() > 1 else self._calls[name]

    def __call__(self, ask: Callable[..., AnswerT], *arguments: Any, **named: Any) -> AnswerT:
        """What the first process is answered, in every process.

        Args:
            ask: called in the first process alone; it may call what this object has.
            *arguments, **named: of it.
        """
        if jax.process_index() == 0:
            answer = ask(*arguments, **named)
            _tell((_ANSWER, answer))
            return answer
        while True:
            name, what = _tell(None)
            if name == _ANSWER:
                found: AnswerT = what
                return found
            self._calls[name](*what)

    def _everywhere(self, name: str, *arguments: Any) -> Any:
        _tell((name, arguments))
        return self._calls[name](*arguments)


def _tell(what: Any) -> Any:
    """What the first process says; the others pass nothing."""
    if jax.process_count() == 1:
        return what
    from jax.experimental.multihost_utils import broadcast_one_to_all

    said = np.frombuffer(pickle.dumps(what), np.uint8)
    # Of few lengths, as each is a program.
    size = 1 << int(broadcast_one_to_all(np.int32(len(said)))).bit_length()
    told = np.zeros(size, np.uint8)
    if jax.process_index() == 0:
        told[: len(said)] = said
    return pickle.loads(np.asarray(broadcast_one_to_all(told)).astype(np.uint8).tobytes())
