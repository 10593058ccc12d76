"""Reference cycles of LiteLLM's lane, cut when a request ends.

What hangs on a cycle stays until the garbage collector comes, and nobody is served meanwhile. Of
each stream of LiteLLM's lane that was 390 objects, of each whole answer 60: rounds of 20 to 80 ms,
and of more than a second in a worker with 256 streams side by side (decision 14).
"""

import asyncio
import functools
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from types import AsyncGeneratorType
from typing import Any

import httpx
import litellm

_closing: set[asyncio.Task[None]] = set()


# What the Router calls with each stream, of chats and of the Responses API.
_WRAPPERS = ("_acompletion_streaming_iterator", "_aresponses_streaming_iterator")


def let_go_of_streams(router: litellm.Router) -> None:
    """The Router's streams, from now on: each is forgotten once it was read or closed.

    The Router makes a class for each of them, a class always is a cycle, and this one was made
    around the whole stream. Relies on `_WRAPPERS` and `_async_generator` of LiteLLM; where one is
    missing the collector takes longer, and tests/proxy/test_reference_cycles.py fails.
    """
    for name in _WRAPPERS:
        wrap: Callable[..., Awaitable[Any]] | None = getattr(router, name, None)
        if wrap is not None:
            setattr(router, name, _let_go_after(wrap))


def _let_go_after(wrap: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(wrap)
    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        stream = await wrap(*args, **kwargs)
        generator = getattr(stream, "_async_generator", None)
        if generator is not None:
            weakref.finalize(stream, _gone, type(stream), generator).atexit = False
        return stream

    return wrapped


def _gone(made: type, generator: AsyncGeneratorType[Any, None]) -> None:
    """A stream went. Where it was left half-way, its generator closes the provider's first."""
    if generator.ag_frame is None:
        _empty(made)
        return
    try:
        closing = asyncio.get_running_loop().create_task(_close(made, generator))
    except RuntimeError:  # in a thread without a loop: its own loop closes the generator
        return
    _closing.add(closing)
    closing.add_done_callback(_closing.discard)


async def _close(made: type, generator: AsyncGeneratorType[Any, None]) -> None:
    try:
        await generator.aclose()
    finally:
        _empty(made)


def _empty(made: type) -> None:
    """Forget what the class was made around."""
    for value in vars(made).values():
        for cell in getattr(value, "__closure__", None) or ():
            cell.cell_contents = None


class _Ended(httpx.AsyncByteStream):
    """Of every answer that was closed."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        return
        yield b""


_ENDED = _Ended()


def let_go_of_answers() -> None:
    """httpx's answers of this process: one that is closed no longer holds its stream.

    Stream and answer know each other. A closed answer never asks its stream again.
    """
    close = httpx.Response.aclose

    @functools.wraps(close)
    async def aclose(self: httpx.Response) -> None:
        await close(self)
        self.stream = _ENDED

    httpx.Response.aclose = aclose  # type: ignore[method-assign]
