"""Settlements on their way to the shared counters. Nobody waits for them.

A settlement applies only while its hold exists, so it may be sent any number of times. One
that never arrives is found by the control plane: its hold expires, and the ledger has the
event. They leave together, with the next question that is asked or after GATHER_S.
"""

import asyncio
from collections import deque
from typing import Any

from proxy.admission_scripts import Counters
from proxy.admission_wire import Settlement
from proxy.instruments import AdmissionInstruments
from proxy.redis_link import LinkDown

WAITING_MAX = 20_000
AT_ONCE = 64  # Redis does nothing else meanwhile: about a millisecond
UNDER_WAY_MAX = 16  # calls; the rest waits in the queue
RETRY_S = 0.25
GATHER_S = 0.003


class Settlements:
    """A bounded queue, emptied whenever Redis is there."""

    def __init__(self, counters: Counters, instruments: AdmissionInstruments) -> None:
        self._counters = counters
        self._instruments = instruments
        self._waiting: deque[Settlement] = deque()
        self._under_way = 0  # settlements
        self._calls = 0
        self._timer: asyncio.TimerHandle | None = None
        self._failed = False
        self._to_retry = asyncio.Event()
        self._ended = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting) + self._under_way

    def add(self, settlement: Settlement, *, at_once: bool = False) -> None:
        """Queue one; never waits, never fails. `at_once`: no question is expected soon."""
        if len(self._waiting) >= WAITING_MAX:
            self._waiting.popleft()
            self._instruments.settlements_lost.inc()
        self._waiting.append(settlement)
        if at_once and not self._failed:
            self._send()
        elif self._timer is None and not self._failed:
            self._timer = asyncio.get_running_loop().call_later(GATHER_S, self._send)

    def hurry(self) -> None:
        """Send what waits before the next question: who asks again sees what has ended."""
        if self._timer is not None:
            self._send()

    async def run(self) -> None:
        """Try again what failed, for ever."""
        while True:
            await self._to_retry.wait()
            self._to_retry.clear()
            await asyncio.sleep(RETRY_S)
            self._failed = False
            self._send()

    async def drain(self) -> bool:
        """Send what waits; False when Redis went away meanwhile (the rest still waits)."""
        self._failed = False
        self._send()
        while self and not self._failed:
            self._ended.clear()
            await self._ended.wait()
        return not self._failed

    def _send(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting and not self._counters.link.up:
            self._fail()
        while self._waiting and self._calls < UNDER_WAY_MAX and not self._failed:
            count = min(len(self._waiting), AT_ONCE)
            _Batch(self, [self._waiting.popleft() for _ in range(count)]).send(self._counters)

    def begun(self, batch: list[Settlement]) -> None:
        """A call is under way."""
        self._calls += 1
        self._under_way += len(batch)

    def ended(self, batch: list[Settlement], failed: list[Settlement]) -> None:
        """It was answered, or failed."""
        self._calls -= 1
        self._under_way -= len(batch)
        if failed:
            self._waiting.extendleft(reversed(failed))
            self._fail()
        elif self._waiting:
            self._send()
        self._ended.set()

    def _fail(self) -> None:
        self._failed = True
        self._to_retry.set()


class _Batch:
    """One call, and what waits for its answer. To the link it looks like a Future."""

    __slots__ = ("_again", "_counters", "_owner", "_settlements")

    def __init__(self, owner: Settlements, settlements: list[Settlement]) -> None:
        self._owner, self._settlements, self._again = owner, settlements, True

    def send(self, counters: Counters) -> None:
        """Send the call; the link tells how it ended."""
        self._counters = counters
        self._owner.begun(self._settlements)
        self._post()

    def _post(self) -> None:
        counters = self._counters
        if not counters.link.post(counters.settlements(self._settlements), self):
            self._owner.ended(self._settlements, self._settlements)

    def done(self) -> bool:
        """It is not given up while it waits."""
        return False

    def set_result(self, reply: Any) -> None:
        """The answer: places of the settlements that failed."""
        if not isinstance(reply, Exception):
            failed = [self._settlements[place] for place in reply]
            self._counters.link.failures += len(failed)
            self._owner.ended(self._settlements, failed)
        elif self._again and str(reply).startswith("NOSCRIPT"):
            self._again = False
            self._counters.settling.load()
            self._post()
        else:
            self.set_exception(LinkDown(str(reply)))

    def set_exception(self, error: Exception) -> None:
        """No answer; it may have been done all the same."""
        self._counters.link.failures += 1
        self._owner.ended(self._settlements, self._settlements)
