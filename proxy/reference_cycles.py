"""Reference cycles of LiteLLM's lane: not made, or cut when a request ends.

What hangs on a cycle stays until the garbage collector comes, and nobody is served meanwhile. Of
each stream of LiteLLM's lane that was 390 objects, of each whole answer 60: rounds of 20 to 80 ms,
and of more than a second in a worker with 256 streams side by side (decision 14).
"""

import asyncio
import functools
import weakref
from collections.abc import Awaitable, Callable
from datetime import timedelta
from types import AsyncGeneratorType
from typing import Any, cast

import httpx
import litellm
from httpx._client import BoundAsyncStream
from litellm.proxy.common_request_processing import ProxyBaseLLMRequestProcessing

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
            made, weak = type(stream), weakref.ref(generator)
            weakref.finalize(stream, _gone, made, weak).atexit = False
        return stream

    return wrapped


def _gone(made: type, weak: "weakref.ref[AsyncGeneratorType[Any, None]]") -> None:
    """A stream went. Where it was left half-way, its generator closes the provider's first."""
    generator = weak()
    if generator is None:  # they knew each other: the collector had both, and closes them
        return
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


class _Timed:
    """An answer, as far as its stream goes: it is told how long it took, while it is there."""

    __slots__ = ("_answer",)

    def __init__(self, answer: httpx.Response) -> None:
        self._answer = weakref.ref(answer)

    def _took(self, elapsed: timedelta) -> None:
        answer = self._answer()
        if answer is not None:
            answer.elapsed = elapsed

    elapsed = property(None, _took)


def let_go_of_answers() -> None:
    """httpx's answers of this process: their streams no longer hold them.

    They knew each other: what was answered stayed, and so did a stream that nobody closed, as
    LiteLLM does with those of Anthropic.
    """
    bind = BoundAsyncStream.__init__

    @functools.wraps(bind)
    def bound(
        self: BoundAsyncStream,
        stream: httpx.AsyncByteStream,
        response: httpx.Response,
        start: float,
    ) -> None:
        bind(self, stream, cast(httpx.Response, _Timed(response)), start)

    BoundAsyncStream.__init__ = bound  # type: ignore[method-assign]


def let_go_of_messages() -> None:
    """LiteLLM's streams of `/v1/messages`: no closure around the request for their log.

    It would log what fails after the client left. Our events tell of that; but only where there
    is something to call, streams tell their errors as the provider did.
    """
    ProxyBaseLLMRequestProcessing._arm_detached_stream_failure_hook = _arm


def _arm(_self: Any, logging_obj: Any, **_rest: Any) -> None:
    logging_obj.on_detached_stream_failure = _ignored


async def _ignored(_error: Exception) -> None:
    pass
