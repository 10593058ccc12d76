"""Notices that a client has left, while its request runs."""

import asyncio
from collections.abc import Callable
from typing import Protocol

EXTENSION = "gateway.client"  # of ASGI's scope: the Client


class Client(Protocol):
    """A connection. It answers one request at a time; who has answered may still clear up."""

    has_left: bool
    on_leave: Callable[[], None] | None  # called when it leaves


class Watch:
    """The client of one request. `stop` must be called."""

    __slots__ = ("_client", "_told")

    def __init__(self, client: Client) -> None:
        self._client = client
        self._told: Callable[[], None] | None = None

    def tell(self, on_leave: Callable[[], None]) -> None:
        """Call this, and nothing else any more, when the client leaves (now, if it has left)."""
        self._client.on_leave = self._told = on_leave
        if self._client.has_left:
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
        """Tell nobody any more. The connection may be the next request's already."""
        told, self._told = self._told, None
        if told is not None and self._client.on_leave is told:
            self._client.on_leave = None
