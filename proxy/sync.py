"""Keeps one worker equal to what the control plane published.

1. report where this worker stands (POST sync), learn what it should run
2. fetch what is newer: policies first (a revoked key must die), then the revision
3. verify, build, load into the Router, swap; on failure keep the old, note the reason
4. report again at once: that is the acknowledgement or the rejection
5. keep the last good state on disk (one worker of the replica does)
6. sleep until the bell rings or the poll interval is over
"""

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, cast

import redis.asyncio as redis
from redis.exceptions import RedisError

from proxy.contract import PolicyFeed, RevisionEnvelope, SyncOrder, bell_channel
from proxy.control import ControlPlaneError, TokenRefused
from proxy.snapshot import SnapshotError, build_snapshot

if TYPE_CHECKING:
    from proxy.worker import Worker

logger = logging.getLogger("gateway.sync")

REVISION_FILE = "revision.json"
POLICIES_FILE = "policies.json"
REJECTED_RETRY_S = 60.0
BELL_BACKOFF_MAX_S = 30.0
BELL_TIMEOUT_S = 5.0


class Synchroniser:
    """The synchronisation loop and the bell of one worker."""

    def __init__(self, worker: "Worker") -> None:
        self.worker = worker
        self._bell = asyncio.Event()
        self._rejected_digest: str | None = None
        self._rejected_at = 0.0

    async def restore(self) -> None:
        """Start from the last good state on disk, if there is one and it can be used."""
        worker = self.worker
        feed = worker.state.read(POLICIES_FILE)
        if feed is not None:
            try:
                worker.apply_policies(cast(PolicyFeed, feed))
            except SnapshotError as error:
                logger.warning("policies on disk cannot be used: %s", error)
        envelope = worker.state.read(REVISION_FILE)
        if envelope is not None:
            try:
                await self._apply(cast(RevisionEnvelope, envelope))
                logger.info("serving revision %s from disk", envelope["revision"])
            except (SnapshotError, KeyError, TypeError) as error:
                logger.warning("revision on disk cannot be used: %s", error)

    async def run(self) -> None:
        """Synchronise for ever."""
        while True:
            self._bell.clear()
            await self.round()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._bell.wait(), self.worker.settings.poll_interval_s)

    async def round(self) -> bool:
        """One round; failures are counted, logged once, and leave what serves untouched."""
        health = self.worker.health
        try:
            order = await self._report()
            if await self._follow(order):
                await self._report()
        except ControlPlaneError as error:
            refused = isinstance(error, TokenRefused)
            self.worker.metrics.sync_failures.labels("token" if refused else "unreachable").inc()
            if health.control_failed(str(error), token_refused=refused):
                logger.warning("serving the last good state: %s", error)
            return False
        if health.control_worked():
            logger.info("control plane is reachable again")
        return True

    async def _report(self) -> SyncOrder:
        report = self.worker.report()
        order = await self.worker.control.sync(report)
        self.worker.breakers.reported(report.get("breaker_transitions", []))
        return order

    async def _follow(self, order: SyncOrder) -> bool:
        """Fetch and apply what is newer; True when something changed or was rejected."""
        policies = await self._follow_policies(order["policy_version"])
        revision = await self._follow_revision(order["revision"], order["digest"])
        return policies or revision

    async def _follow_policies(self, wanted: int) -> bool:
        worker = self.worker
        known = worker.policies.version
        if wanted == known and worker.policies_known:
            return False
        # A lower version: the control plane was restored from a backup; start over.
        feed = await worker.control.policies(known if wanted > known else 0)
        try:
            worker.apply_policies(feed)
        except SnapshotError as error:
            worker.metrics.sync_failures.labels("policies").inc()
            raise ControlPlaneError(str(error)) from error
        self._save(POLICIES_FILE, worker.policies.export)
        return True

    async def _follow_revision(self, wanted: int | None, digest: str | None) -> bool:
        worker = self.worker
        applied = worker.snapshot
        if wanted is None or (
            applied is not None and applied.revision == wanted and applied.digest == digest
        ):
            return self._clear_rejection() if wanted is not None else False
        if self._rejected_digest == digest and (
            time.monotonic() - self._rejected_at < REJECTED_RETRY_S
            and worker.health.rejected_revision == wanted
        ):
            return False
        envelope = await worker.control.revision(wanted)
        started = time.perf_counter()
        try:
            changed = await self._apply(envelope)
        except SnapshotError as error:
            self._reject(wanted, digest, error)
            return True
        self._clear_rejection()
        took_ms = (time.perf_counter() - started) * 1000
        logger.info("revision %d applied: %d changes in %.1f ms", wanted, changed, took_ms)
        self._save(REVISION_FILE, lambda: envelope)
        return True

    async def _apply(self, envelope: RevisionEnvelope) -> int:
        fleet = self.worker.settings.fleet
        snapshot = build_snapshot(
            envelope, environment=fleet.environment, fleet_key=fleet.fleet_key
        )
        return await self.worker.serve(snapshot)

    def _reject(self, revision: int, digest: str | None, error: SnapshotError) -> None:
        health = self.worker.health
        if (health.rejected_revision, self._rejected_digest) != (revision, digest):
            self.worker.metrics.rejected.inc()
            logger.error("revision %d rejected, the old one serves: %s", revision, error)
        health.rejected_revision = revision
        health.rejected_error = str(error)[:1000]
        health.rejected_deployment = error.deployment
        self._rejected_digest, self._rejected_at = digest, time.monotonic()

    def _clear_rejection(self) -> bool:
        health = self.worker.health
        had = health.rejected_revision is not None
        health.rejected_revision = health.rejected_error = health.rejected_deployment = None
        self._rejected_digest = None
        return had

    def _save(self, name: str, content: object) -> None:
        """Write the last good state in the background; one worker of a replica is enough."""
        if self.worker.slot == 0:
            self.worker.spawn(self._write(name, content))

    async def _write(self, name: str, content: object) -> None:
        document = content() if callable(content) else content
        try:
            await asyncio.to_thread(self.worker.state.write, name, document)
        except OSError as error:
            self.worker.health.state_error = error.strerror or str(error)
            logger.error("last good state not written: %s", self.worker.health.state_error)
        else:
            self.worker.health.state_error = None

    async def listen(self) -> None:
        """Wake the loop whenever the bell rings. Without Redis, polling remains."""
        url = self.worker.settings.fleet.redis_url
        if url is None:
            return
        backoff_s = 0.5
        while True:
            try:
                await self._listen_once(url)
            except (RedisError, OSError) as error:
                if self.worker.health.redis_failing_since is None:
                    self.worker.health.redis_failing_since = time.time()
                    reason = type(error).__name__
                    logger.warning("redis is unreachable (%s): changes arrive by polling", reason)
            await asyncio.sleep(backoff_s)
            failing = self.worker.health.redis_failing_since is not None
            backoff_s = min(backoff_s * 2, BELL_BACKOFF_MAX_S) if failing else 0.5

    async def _listen_once(self, url: str) -> None:
        client = redis.from_url(
            url, socket_connect_timeout=BELL_TIMEOUT_S, health_check_interval=15
        )
        channel = bell_channel(self.worker.settings.fleet.environment)
        async with client, client.pubsub() as pubsub:
            await pubsub.subscribe(channel)
            if self.worker.health.redis_failing_since is not None:
                logger.info("redis is reachable again")
            self.worker.health.redis_failing_since = None
            self._bell.set()  # whatever rang while nobody listened
            while True:
                message = await pubsub.get_message(
                    ignore_subscribe_messages=True, timeout=BELL_TIMEOUT_S
                )
                if message is not None:
                    self._bell.set()
