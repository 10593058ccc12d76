"""Moves spooled events to the control plane; deletes them only after it committed."""

import asyncio
import json
import logging
import os
import time
import uuid
from pathlib import Path

from proxy.control import BatchRefused, ControlPlane, ControlPlaneError
from proxy.packing import BATCH_EVENTS, Batch, packed, unpacked
from proxy.spool import Spool, read_segment
from proxy.state import FILE_MODE

logger = logging.getLogger("gateway.shipper")

SHIP_INTERVAL_MAX_S = 1.0
ADOPT_INTERVAL_S = 10.0
MAX_BACKOFF_S = 30.0
REFUSED_FILE = "refused.jsonl"
REFUSED_MAX_BYTES = 64 * 1024 * 1024


class Shipper:
    """The delivery loop of one worker."""

    def __init__(
        self,
        spool: Spool,
        control: ControlPlane,
        *,
        replica_id: str,
        state_dir: Path,
        interval_s: float,
    ) -> None:
        self.spool = spool
        self.control = control
        self.replica_id = replica_id
        self.interval_s = interval_s
        self.refused_path = state_dir / REFUSED_FILE
        self.shipped = 0
        self.refused = 0
        self.failing_since: float | None = None
        self._adopted_at = 0.0

    async def run(self) -> None:
        """Ship for ever; failures back off and are logged once."""
        backoff_s = self.interval_s
        while True:
            await asyncio.sleep(backoff_s)
            try:
                await self.flush()
            except ControlPlaneError as error:
                if self.failing_since is None:
                    self.failing_since = time.time()
                    logger.warning("usage waits in the spool: %s", error)
                backoff_s = min(backoff_s * 2, MAX_BACKOFF_S)
            else:
                if self.failing_since is not None:
                    logger.info("usage is delivered again")
                self.failing_since = None
                backoff_s = self.interval_s

    async def flush(self) -> None:
        """Deliver all that waits; raise ControlPlaneError at the first failure."""
        self.spool.retry_disk()
        if time.monotonic() - self._adopted_at >= ADOPT_INTERVAL_S:
            self._adopted_at = time.monotonic()
            adopted = self.spool.adopt()
            if adopted:
                logger.info("adopted %d spool segments of a worker that is gone", len(adopted))
        self.spool.seal()
        for segment in self.spool.sealed_segments():
            await self._ship_segment(segment)
        while waiting := self.spool.take_memory(BATCH_EVENTS):
            for index, batch in enumerate(packed(waiting)):
                await self._ship(f"memory-{uuid.uuid4()}-{index}", batch)
            self.spool.forget_memory(len(waiting))

    async def _ship_segment(self, segment: Path) -> None:
        batches = self.spool.batches(segment)
        if batches is None:
            batches = await asyncio.to_thread(lambda: packed(read_segment(segment)))
        for index, batch in enumerate(batches):
            # Stable names: a batch sent twice after a crash is recognisably the same.
            await self._ship(f"{segment.parent.name}-{segment.stem}-{index}", batch)
        self.spool.delete(segment)

    async def _ship(self, batch_id: str, batch: Batch) -> None:
        content = batch.content(replica_id=self.replica_id, batch_id=batch_id)
        try:
            receipt = await self.control.usage(content)
        except BatchRefused as error:
            await self._ship_smaller(batch_id, unpacked(content), error)
            return
        self.shipped += batch.count
        if receipt.get("refused"):
            reasons = {r["event_id"]: r["reason"] for r in receipt["refused"]}
            self._keep_refused(unpacked(content), reasons)

    async def _ship_smaller(self, batch_id: str, events: list[bytes], error: BatchRefused) -> None:
        """Halve a refused batch until the event at fault stands alone, and set that aside."""
        if len(events) == 1:
            event_id = str(json.loads(events[0]).get("event_id"))
            self._keep_refused(events, {event_id: str(error)})
            return
        half = len(events) // 2
        for name, part in (("a", events[:half]), ("b", events[half:])):
            (batch,) = packed(part)
            await self._ship(f"{batch_id}{name}", batch)

    def _keep_refused(self, events: list[bytes], reasons: dict[str, str]) -> None:
        """Refused events are never sent again; they are kept in a file for a human."""
        self.refused += len(reasons)
        logger.error(
            "control plane refused %d usage events: %s", len(reasons), set(reasons.values())
        )
        try:
            if self.refused_path.exists() and self.refused_path.stat().st_size > REFUSED_MAX_BYTES:
                return
            descriptor = os.open(
                self.refused_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, FILE_MODE
            )
            with os.fdopen(descriptor, "wb") as file:
                for record in events:
                    event = json.loads(record)
                    if event.get("event_id") in reasons:
                        line = {"reason": reasons[event["event_id"]], "event": event}
                        file.write(json.dumps(line).encode() + b"\n")
        except OSError as error:
            logger.error("refused events could not be kept: %s", error.strerror)
