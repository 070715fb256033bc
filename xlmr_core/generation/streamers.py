"""Streamers: generation gives them each token as soon as it is there.

``put`` is called with the ids of the prompt first, then with those of each step; ``end`` when there are no more. A
streamer that shows text holds back what the next token may still change: half a word, half a character.

A call that fails ends its streamer too (:func:`ends_streamer`, and :class:`Ends` for calls that stand around
``generate``): who waits for the next piece waits in another thread, and does not see the error.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from queue import Queue
from typing import Any, TypeVar, cast

from xlmr_core.errors import InputError
from xlmr_core.generation.rows import as_list

__all__ = [
    *("AsyncTextIteratorStreamer", "BaseStreamer", "Ends", "TextIteratorStreamer", "TextStreamer", "ends_streamer"),
]

Generate = TypeVar("Generate", bound=Callable[..., Any])


def ends_streamer(generate: Generate) -> Generate:
    """``generate`` that calls ``end`` of its argument ``streamer`` when an error leaves it, whatever the error is."""
    names = list(inspect.signature(generate).parameters)

    @functools.wraps(generate)
    def ending(*args: Any, **kwargs: Any) -> Any:
        try:
            return generate(*args, **kwargs)
        except BaseException:
            streamer: Any = {**dict(zip(names, args, strict=False)), **kwargs}.get("streamer")
            if hasattr(streamer, "end"):
                with contextlib.suppress(Exception):  # the first error is what counts
                    streamer.end()
            raise

    return cast(Generate, ending)


class BaseStreamer:
    """Base of streamers of a user's own."""

    def put(self, value: Any) -> None:
        """Take ids: (B, P) of the prompts first, then (B,) of each step."""
        raise NotImplementedError(f"{type(self).__name__} has no put(value); write one")

    def end(self) -> None:
        """There are no more."""
        raise NotImplementedError(f"{type(self).__name__} has no end(); write one")


class Ends(BaseStreamer):
    """A streamer that is ended as often as its reader waits for it, once a text, whatever fails.

    Args:
        streamer: whose ``put`` and ``end`` are called.
    """

    def __init__(self, streamer: Any) -> None:
        self._streamer, self._count = streamer, 0

    def put(self, value: Any) -> None:
        """Pass ids on."""
        self._streamer.put(value)

    def end(self) -> None:
        """Pass the end on."""
        self._count += 1
        self._streamer.end()

    @contextlib.contextmanager
    def of(self, texts: int) -> Iterator[None]:
        """End the streamer for those of so many texts that it was not ended for, when an error leaves the block."""
        before = self._count
        try:
            yield
        except BaseException:
            for _ in range(texts - (self._count - before)):
                with contextlib.suppress(Exception):  # the first error is what counts
                    self.end()
            raise


class TextStreamer(BaseStreamer):
    """Prints text as soon as whole words are there.

    Args:
        tokenizer: of the model.
        skip_prompt: whether to leave the prompt out.
        **decode_kwargs: of the tokenizer's ``decode``, such as ``skip_special_tokens=True``.
    """

    def __init__(self, tokenizer: Any, skip_prompt: bool = False, **decode_kwargs: Any) -> None:
        self.tokenizer = tokenizer
        self.skip_prompt = skip_prompt
        self.decode_kwargs = decode_kwargs
        self.token_cache: list[int] = []
        self.print_len = 0
        self.next_tokens_are_prompt = True

    def put(self, value: Any) -> None:
        """Take the ids of one row.

        Raises:
            InputError: for several rows.
        """
        ids = as_list(value)
        if ids and isinstance(ids[0], list):
            if len(ids) > 1:
                raise InputError(f"{type(self).__name__} shows one row, received {len(ids)}; generate them one by one")
            ids = ids[0]
        elif len(ids) > 1 and not self.next_tokens_are_prompt:
            raise InputError(f"{type(self).__name__} shows one row, received {len(ids)}; generate them one by one")
        is_prompt, self.next_tokens_are_prompt = self.next_tokens_are_prompt, False
        if is_prompt and self.skip_prompt:
            return
        self.token_cache.extend(ids)
        text = self.tokenizer.decode(self.token_cache, **self.decode_kwargs)
        if text.endswith("\n"):
            printable = text[self.print_len :]
            self.token_cache, self.print_len = [], 0
        elif text and _stands_alone(ord(text[-1])):
            printable = text[self.print_len :]
            self.print_len += len(printable)
        else:  # up to the last space: the word after it may go on
            printable = text[self.print_len : text.rfind(" ") + 1]
            self.print_len += len(printable)
        self.on_finalized_text(printable)

    def end(self) -> None:
        """Give out what was held back."""
        printable = ""
        if self.token_cache:
            printable = self.tokenizer.decode(self.token_cache, **self.decode_kwargs)[self.print_len :]
            self.token_cache, self.print_len = [], 0
        self.next_tokens_are_prompt = True
        self.on_finalized_text(printable, stream_end=True)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Take text that nothing will change any more; here: print it."""
        print(text, flush=True, end="" if not stream_end else None)


class TextIteratorStreamer(TextStreamer):
    """Gives the pieces of text to who iterates over it; generation runs in another thread.

    Args:
        tokenizer, skip_prompt, **decode_kwargs: as of :class:`TextStreamer`.
        timeout: how many seconds to wait for a piece; ``None`` waits for ever.
    """

    def __init__(
        self, tokenizer: Any, skip_prompt: bool = False, timeout: float | None = None, **decode_kwargs: Any
    ) -> None:
        super().__init__(tokenizer, skip_prompt, **decode_kwargs)
        self.text_queue: Queue[str | None] = Queue()
        self.stop_signal = None
        self.timeout = timeout

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Put text in the queue."""
        self.text_queue.put(text, timeout=self.timeout)
        if stream_end:
            self.text_queue.put(self.stop_signal, timeout=self.timeout)

    def __iter__(self) -> TextIteratorStreamer:
        return self

    def __next__(self) -> str:
        """The next piece.

        Raises:
            queue.Empty: if none came in time.
        """
        text = self.text_queue.get(timeout=self.timeout)
        if text is None:
            raise StopIteration
        return text


class AsyncTextIteratorStreamer(TextStreamer):
    """The same for ``async for``: made in an event loop, while generation runs in another thread.

    Args:
        tokenizer, skip_prompt, **decode_kwargs: as of :class:`TextStreamer`.
        timeout: how many seconds to wait for a piece; ``None`` waits for ever.
    """

    def __init__(
        self, tokenizer: Any, skip_prompt: bool = False, timeout: float | None = None, **decode_kwargs: Any
    ) -> None:
        super().__init__(tokenizer, skip_prompt, **decode_kwargs)
        self.text_queue: asyncio.Queue[str | None] = asyncio.Queue()
        self.stop_signal = None
        self.timeout = timeout
        self.loop = asyncio.get_running_loop()

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Put text in the queue."""
        self.loop.call_soon_threadsafe(self.text_queue.put_nowait, text)
        if stream_end:
            self.loop.call_soon_threadsafe(self.text_queue.put_nowait, self.stop_signal)

    def __aiter__(self) -> AsyncTextIteratorStreamer:
        return self

    async def __anext__(self) -> str:
        """The next piece.

        Raises:
            TimeoutError: if none came in time.
        """
        text = await asyncio.wait_for(self.text_queue.get(), timeout=self.timeout)
        if text is None:
            raise StopAsyncIteration
        return text


# Blocks of characters that are words by themselves: Chinese ideographs (as BERT's tokenizer counts them).
IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


def _stands_alone(code: int) -> bool:
    """Whether a character needs no space after it to be a whole word."""
    return any(first <= code <= last for first, last in IDEOGRAPHS)
