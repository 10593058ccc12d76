"""Notices that a client has left, while its request runs."""

import asyncio
from collections.abc import Callable

from proxy.ticker import Ticker
from proxy.worker import Receive

# Most clients stay, and many answers are there sooner: a task for each would be for nothing.
BEGINS_AFTER_S = 0.02


class Watch:
    """The client's connection. `stop` must be called."""

    __slots__ = ("_begins_at", "_loop", "_on_leave", "_receive", "_task", "_ticker")

    def __init__(self, receive: Receive, ticker: Ticker) -> None:
        self._loop = asyncio.get_running_loop()
        self._receive = receive
        self._ticker = ticker
        self._task: asyncio.Task[None] | None = None
        self._on_leave: Callable[[], None] | None = None
        self._begins_at = self._loop.time() + BEGINS_AFTER_S
        ticker.add(self)

    def tick(self, now: float) -> None:
        """The request takes its time: watch."""
        if now >= self._begins_at:
            self._begin()

    def task(self) -> "asyncio.Task[None]":
        """Ends when the client leaves; watching begins at once."""
        self._begin()
        assert self._task is not None
        return self._task

    def tell(self, on_leave: Callable[[], None] | None) -> None:
        """Call this when the client leaves (now, if it has left)."""
        self._on_leave = on_leave
        if self.left and on_leave is not None:
            on_leave()

    @property
    def left(self) -> bool:
        """Whether the client is known to have left."""
        return self._task is not None and self._task.done() and not self._task.cancelled()

    def stop(self) -> None:
        """The request is over."""
        self._on_leave = None
        self._ticker.discard(self)
        # Not kept: a task holds what cancelled it, with its frame, and that frame holds us.
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    def _begin(self) -> None:
        self._ticker.discard(self)
        if self._task is None:
            self._task = self._loop.create_task(self._until_client_leaves())

    async def _until_client_leaves(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._on_leave is not None:
            self._on_leave()
