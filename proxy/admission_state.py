"""How this worker counts at the moment, since when, and why."""

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import Literal

from proxy.instruments import AdmissionInstruments

logger = logging.getLogger("gateway.admission")

NOT_ASKED = "not asked yet"  # the porter never does
Mode = Literal["shared", "local", "unbuilt"]


class CountersState:
    """shared: with the fleet. local: Redis is away. unbuilt: Redis forgot its counters."""

    def __init__(self, instruments: AdmissionInstruments, *, has_redis: bool) -> None:
        self._instruments = instruments
        self._has_redis = has_redis
        self.mode: Mode = "local"
        self.since = time.monotonic()
        self.since_wall = time.time()
        self.reason = NOT_ASKED
        self.changed = asyncio.Event()  # wakes the heartbeat
        instruments.mode(self.mode)

    @property
    def shared(self) -> bool:
        """Whether the shared counters are asked."""
        return self.mode == "shared"

    def lost(self, reason: str) -> None:
        """Redis cannot be asked."""
        self._turn("local", reason)

    def unbuilt(self) -> None:
        """Redis answers and has no counters: the control plane has to build them."""
        self._turn("unbuilt", "redis has no counters; they are built from the ledger")

    def found(self) -> None:
        """The shared counters are right again."""
        self._turn("shared", "")

    def _turn(self, mode: Mode, reason: str) -> None:
        self.reason = reason
        if mode == self.mode:
            return
        if mode == "shared":
            logger.info("budgets and limits are counted with the fleet")
        else:
            logger.warning("budgets and limits are counted by this worker alone: %s", reason)
        if "shared" in (mode, self.mode):
            self.since, self.since_wall = time.monotonic(), time.time()
        self.mode = mode
        self._instruments.mode(mode)
        self.changed.set()

    def reasons(self) -> list[str]:
        """For the worker's health. A replica without Redis is not degraded, it is small."""
        if self.shared or not self._has_redis or self.reason == NOT_ASKED:
            return []
        since = datetime.fromtimestamp(self.since_wall, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return [f"budgets and limits are counted by shares since {since}: {self.reason}"]
