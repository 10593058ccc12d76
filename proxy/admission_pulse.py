"""The heartbeat of admission: holds live on, balances stay fresh, the way back is found.

every HEARTBEAT_S     sign of life, renewal of running holds, balances of used budgets,
                      expired holds of others swept, balances written to the disk
while counting alone  every PROBE_S: is Redis there, are its counters built? Then wait
                      (bounded) until what was spent alone has reached the ledger, and
                      until the control plane says that the ledger has told the shared
                      counters of it: it could not while Redis was away
"""

import asyncio
import contextlib
import logging
import time
from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson

from proxy.admission import Admission
from proxy.admission_scripts import Counters
from proxy.contract.counters import HEARTBEAT_S
from proxy.control import ControlPlaneError
from proxy.redis_link import LinkDown
from proxy.state import write_atomically

if TYPE_CHECKING:
    from proxy.worker import Worker

logger = logging.getLogger("gateway.admission")

PROBE_S = 0.5
REFRESHED_MAX = 500  # balances per heartbeat, the most recently used
SAVE_S = 2.0
RETURN_MAX_S = 10.0  # so long the way back waits for the ledger
# After Redis was away all workers renew their holds before any of them sweeps.
SWEEP_AFTER_S = 2.0 * HEARTBEAT_S
BUILD_RETRY_MAX_S = 10.0


class Heartbeat:
    """Background work of one worker's admission."""

    def __init__(self, worker: "Worker", admission: Admission) -> None:
        self.worker = worker
        self.admission = admission
        self.name = f"{worker.replica_id}:{worker.slot}"
        self._path = worker.state.root / f"balances-{worker.slot}.json"
        self._shared_since = 0.0  # time.monotonic()
        self._reachable_since: float | None = None
        self._mark: int | None = None  # this many events delivered: the ledger has them all
        self._building: asyncio.Task[None] | None = None
        self._spent_alone = False  # and the shared counters may not know yet
        self._catching_up: asyncio.Task[None] | None = None
        self._save_error: str | None = None
        self._saved_at = 0.0
        self._saved = b""

    def restore(self) -> None:
        """Balances of the last run, for a start without Redis."""
        others = sorted(self._path.parent.glob("balances-*.json"))
        try:
            own = self._read(self._path)
            rest = [self._read(path) for path in others if path != self._path]
            self.admission.book.restore(own, rest)
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("balances on disk cannot be used: %s", error)

    @staticmethod
    def _read(path: Any) -> Any:
        try:
            return orjson.loads(path.read_bytes())
        except FileNotFoundError:
            return None

    async def run(self) -> None:
        """Beat for ever."""
        state = self.admission.state
        while True:
            state.changed.clear()
            await self.beat()
            pause_s = HEARTBEAT_S if state.shared else PROBE_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(state.changed.wait(), pause_s)
            if not state.shared:
                await asyncio.sleep(0.02)  # a connection that was just lost is made again

    async def beat(self) -> None:
        """One sign of life, and what depends on its answer."""
        self._note_delivered()
        counters = self.admission.counters
        if counters is not None:
            await self._ask(counters)
        if time.monotonic() - self._saved_at >= SAVE_S:
            self._saved_at = time.monotonic()
            await self._save()

    async def _ask(self, counters: Counters) -> None:
        link, instruments = counters.link, self.worker.metrics.admission
        instruments.link_is(up=link.up, failures=link.failures + link.errors)
        try:
            await self._tell()
            await self._sweep()
        except LinkDown as error:
            self._reachable_since = None
            self.admission.lost(error)

    async def _tell(self) -> None:
        admission, book = self.admission, self.admission.book
        assert admission.counters is not None
        holds = {id: grant.parallel for id, grant in admission.live.items()}
        used = list(islice(reversed(book.balances.items()), REFRESHED_MAX))
        budgets = [(balance.key, balance.bucket_s) for _, balance in used]
        pulse = await admission.counters.renew(self.name, holds, budgets)
        self._reachable_since = self._reachable_since or time.monotonic()
        if self.name in pulse.workers:
            book.workers, book.rank = len(pulse.workers), pulse.workers.index(self.name)
        if not pulse.epoch:
            admission.note_all()
            admission.state.unbuilt()
            self._build()
            return
        admission.counters_renewed(pulse.epoch)
        if not admission.state.shared:
            if not self._may_return():
                return
            await admission.counters.merge(book.admitted_alone())
            book.merged()
            self._shared_since = time.monotonic()
            admission.state.found()
        now_ms = self.worker.clock.now_ms()
        book.refreshed([counter for counter, _ in used], pulse.balances, now_ms)

    # --- the way back ----------------------------------------------------------------------

    def _may_return(self) -> bool:
        waited_s = time.monotonic() - (self._reachable_since or time.monotonic())
        if waited_s >= RETURN_MAX_S:
            return True
        if self.admission.book.has_unreported:
            return False
        if self._spent_alone and (self._catching_up is None or self._catching_up.done()):
            self._catching_up = asyncio.create_task(self._catch_up())
        return not self._spent_alone

    async def _catch_up(self) -> None:
        """Have the counters told of all that the ledger knows; a failure is tried again."""
        try:
            await self.worker.control.counters()
        except ControlPlaneError as error:
            logger.warning("counters may not know all of the ledger yet: %s", error)
        else:
            self._spent_alone = False
            self.admission.state.changed.set()

    def _note_delivered(self) -> None:
        """What was spent alone counts against shared budgets until the ledger has it."""
        book, shipper = self.admission.book, self.worker.shipper
        done = shipper.shipped + shipper.refused + self.worker.spool.dropped
        waiting = self.worker.spool.depth().events
        if self._mark is not None and (done >= self._mark or not waiting):
            book.delivered()
            self._mark = None
        if book.has_unreported:
            self._spent_alone = True
        if self._mark is None and book.has_unreported:
            book.begin_delivery()
            self._mark = done + waiting

    def _build(self) -> None:
        if self._building is None or self._building.done():
            self._building = asyncio.create_task(self._ask_to_build())

    async def _ask_to_build(self) -> None:
        """The control plane builds the counters from the ledger; asked until it has."""
        pause_s = 1.0
        while self.admission.state.mode == "unbuilt":
            try:
                await self.worker.control.counters()
            except ControlPlaneError as error:
                logger.warning("counters are not built yet: %s", error)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, BUILD_RETRY_MAX_S)
            else:
                self.admission.state.changed.set()
                return

    async def stop(self) -> None:
        """Deliver settlements that can be delivered, keep the balances."""
        for task in (self._building, self._catching_up):
            if task is not None:
                task.cancel()
        settlements = self.admission.settlements
        if settlements is not None and self.admission.state.shared:
            await settlements.drain()
        await self._save()

    # --- housekeeping ----------------------------------------------------------------------

    async def _sweep(self) -> None:
        admission = self.admission
        if not admission.state.shared or admission.counters is None:
            return
        if time.monotonic() - self._shared_since < SWEEP_AFTER_S:
            return
        if swept := await admission.counters.sweep():
            self.worker.metrics.admission.abandoned.inc(swept)
            logger.warning("%d holds expired: their workers ended or lost Redis", swept)

    async def _save(self) -> None:
        document = orjson.dumps(self.admission.book.export())
        if document == self._saved:
            return
        try:
            await asyncio.to_thread(write_atomically, self._path, document)
        except OSError as error:
            if self._save_error is None:
                logger.error("balances cannot be written: %s", error.strerror)
            self._save_error = error.strerror or str(error)
        else:
            self._saved, self._save_error = document, None
