"""One timer for all that has a deadline: a timer of its own costs each request more than a look.

Deadlines are kept to within TICK_S.
"""

import asyncio
from typing import Protocol

TICK_S = 0.02


class Ticking(Protocol):
    """Something that is looked at from time to time."""

    def tick(self, now: float) -> None:
        """See whether a time has come; `now` is the loop's time."""


class Ticker:
    """Looks at its items as long as there are any. All calls from one event loop."""

    def __init__(self) -> None:
        self._items: set[Ticking] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Ticking) -> None:
        """Look at an item from now on."""
        self._items.add(item)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def discard(self, item: Ticking) -> None:
        """Look at it no more."""
        self._items.discard(item)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._items:
            self._timer = None
            return
        self._timer = loop.call_later(TICK_S, self._tick)
        now = loop.time()
        for item in list(self._items):
            item.tick(now)
