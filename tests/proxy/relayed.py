"""A request on its way through the relay, of a client that stays or leaves."""

import asyncio
import weakref
from collections.abc import Callable
from typing import Any

from proxy.lanes import Lanes
from proxy.relay import Relay
from proxy.watch import EXTENSION
from proxy.worker import Worker
from tests.proxy.answered import asked


class OfLiteLlm:
    """What the relay needs of it; `app` answers a request."""

    internal_token = "t"
    state: dict[str, Any] = {}
    response: "weakref.ref[Any]"

    def facts_of(self, _row: Any) -> str:
        return "provider"

    def count_tokens(self, _model: str, _content: Any) -> int:
        return 1

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("nobody should be called")


class Client:
    """The connection of one that stays, leaves after so many messages, or has left (0)."""

    on_leave: Callable[[], None] | None = None

    def __init__(self, leaves_after: int | None = None) -> None:
        self.has_left = leaves_after == 0
        self.leaves_after = leaves_after
        self.got: list[Any] = []

    async def send(self, message: Any) -> None:
        """What it gets."""
        self.got.append(message)
        if len(self.got) == self.leaves_after:
            self.has_left = True
            assert self.on_leave is not None
            self.on_leave()


async def relayed(worker: Worker, backend: Any, client: Client, *, streaming: bool = False) -> None:
    """Have a worker answer a client's request on LiteLLM's lane."""
    worker.backend, worker.lanes = backend, Lanes(backend, worker.ticker)
    trace = asked(worker)
    trace.streaming = streaming
    scope: Any = {"headers": [], "extensions": {EXTENSION: client}}
    await Relay(worker, trace, scope, client.send).run(b"", b"application/json")
    await asyncio.sleep(0.01)
