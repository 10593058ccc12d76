"""Moves spooled events to the control plane; deletes them only after it committed."""

import asyncio
import json
import logging
import os
import time
import uuid
from pathlib import Path

from proxy.contract import MAX_BATCH_BYTES, MAX_BATCH_EVENTS
from proxy.control import BatchRefused, ControlPlane, ControlPlaneError
from proxy.spool import HEADER, Spool, read_segment
from proxy.state import FILE_MODE

logger = logging.getLogger("gateway.shipper")

SHIP_INTERVAL_MAX_S = 1.0
ADOPT_INTERVAL_S = 10.0
MAX_BACKOFF_S = 30.0
BATCH_EVENTS = 1_000
# Before compression, with room for the envelope around the events.
BATCH_BYTES = MAX_BATCH_BYTES // 2
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
            await self._ship(f"memory-{uuid.uuid4()}", waiting)
            self.spool.forget_memory(len(waiting))

    async def _ship_segment(self, segment: Path) -> None:
        events = self.spool.records(segment)
        if events is None:
            events = await asyncio.to_thread(lambda: list(read_segment(segment)))
        for index, batch in enumerate(_batches(events)):
            # Stable names: a batch sent twice after a crash is recognisably the same.
            await self._ship(f"{segment.parent.name}-{segment.stem}-{index}", batch)
        self.spool.delete(segment)

    async def _ship(self, batch_id: str, events: list[bytes]) -> None:
        try:
            receipt = await self.control.usage(
                replica_id=self.replica_id, batch_id=batch_id, events=events
            )
        except BatchRefused as error:
            await self._ship_smaller(batch_id, events, error)
            return
        self.shipped += len(events)
        if receipt.get("refused"):
            self._keep_refused(events, {r["event_id"]: r["reason"] for r in receipt["refused"]})

    async def _ship_smaller(self, batch_id: str, events: list[bytes], error: BatchRefused) -> None:
        """Halve a refused batch until the event at fault stands alone, and set that aside."""
        if len(events) == 1:
            event_id = str(json.loads(events[0]).get("event_id"))
            self._keep_refused(events, {event_id: str(error)})
            return
        half = len(events) // 2
        await self._ship(f"{batch_id}a", events[:half])
        await self._ship(f"{batch_id}b", events[half:])

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


def _batches(events: list[bytes]) -> list[list[bytes]]:
    batches: list[list[bytes]] = []
    size = 0
    for event in events:
        if (
            not batches
            or len(batches[-1]) >= min(BATCH_EVENTS, MAX_BATCH_EVENTS)
            or (size + len(event) > BATCH_BYTES)
        ):
            batches.append([])
            size = 0
        batches[-1].append(event)
        size += len(event) + HEADER.size
    return batches
