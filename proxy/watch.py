"""Notices that a client has left, while its request runs."""

import asyncio
from collections.abc import Callable
from typing import Protocol

EXTENSION = "gateway.client"  # of ASGI's scope: the Client


class Client(Protocol):
    """A connection on which one request runs at a time."""

    has_left: bool
    on_leave: Callable[[], None] | None  # called when it leaves


class Watch:
    """The client of one request. `stop` must be called."""

    __slots__ = ("_client",)

    def __init__(self, client: Client) -> None:
        self._client = client

    def tell(self, on_leave: Callable[[], None] | None) -> None:
        """Call this, and nothing else any more, when the client leaves (now, if it has left)."""
        self._client.on_leave = on_leave
        if on_leave is not None and self._client.has_left:
            on_leave()

    def gone(self) -> "asyncio.Future[None]":
        """Done when the client leaves."""
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def left() -> None:
            if not gone.done():
                gone.set_result(None)

        self.tell(left)
        return gone

    @property
    def left(self) -> bool:
        """Whether the client is known to have left."""
        return self._client.has_left

    def stop(self) -> None:
        """The request is over."""
        self._client.on_leave = None
