"""Settlements on their way to the shared counters. Nobody waits for them.

A settlement applies only while its hold exists, so it may be sent any number of times. One
that never arrives is found by the control plane: its hold expires, and the ledger has the
event.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from proxy.admission_scripts import Counters
from proxy.grant import Charge, WindowUse
from proxy.instruments import AdmissionInstruments
from proxy.redis_link import LinkDown

WAITING_MAX = 20_000
AT_ONCE = 256
RETRY_S = 0.25


@dataclass(frozen=True, slots=True)
class Settlement:
    """How one hold ends."""

    hold_id: str
    epoch: str
    tokens: int = 0
    windows: Sequence[WindowUse] = ()
    charges: Sequence[tuple[Charge, int]] = ()  # with nano-dollars


class Settlements:
    """A bounded queue, drained in batches whenever Redis is there."""

    def __init__(self, counters: Counters, instruments: AdmissionInstruments) -> None:
        self._counters = counters
        self._instruments = instruments
        self._waiting: deque[Settlement] = deque()
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, settlement: Settlement) -> None:
        """Queue one; never waits, never fails."""
        if len(self._waiting) >= WAITING_MAX:
            self._waiting.popleft()
            self._instruments.settlements_lost.inc()
        self._waiting.append(settlement)
        self._news.set()

    async def run(self) -> None:
        """Deliver for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                if not self._counters.link.up or not await self.drain():
                    await asyncio.sleep(RETRY_S)

    async def drain(self) -> bool:
        """Send what waits; False when Redis went away meanwhile (the rest still waits)."""
        while self._waiting:
            count = min(len(self._waiting), AT_ONCE)
            batch = [self._waiting.popleft() for _ in range(count)]
            results = await asyncio.gather(*map(self._send, batch))
            failed = [one for one, sent in zip(batch, results, strict=True) if not sent]
            self._waiting.extendleft(reversed(failed))
            if failed:
                return False
        return True

    async def _send(self, one: Settlement) -> bool:
        try:
            await self._counters.settle(
                one.hold_id,
                epoch=one.epoch,
                tokens=one.tokens,
                windows=one.windows,
                charges=one.charges,
            )
        except LinkDown:
            return False
        return True
