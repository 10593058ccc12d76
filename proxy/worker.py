"""Everything one worker process holds, and its start and stop.

A worker without a backend (the porter, while LiteLLM is being imported) refuses what must
be refused and asks for patience otherwise.
"""

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, NamedTuple, Protocol

from proxy.admission import Admission
from proxy.admission_pulse import Heartbeat
from proxy.breaker import Breakers
from proxy.cache import ResponseCache
from proxy.clock import Clock
from proxy.contract import PolicyFeed, SyncReport, UsageEventDocument
from proxy.control import ControlPlane, ControlPlaneError
from proxy.direct_request import LiteLlmFacts
from proxy.health import Health
from proxy.lanes import Lanes
from proxy.memory import collect_loop
from proxy.metrics import Metrics
from proxy.policies import PolicyTable
from proxy.redis_link import RedisLink
from proxy.routing import Planner
from proxy.settings import ProxySettings
from proxy.shipper import SHIP_INTERVAL_MAX_S, Shipper
from proxy.snapshot import Deployment, Snapshot
from proxy.spool import Segment, Spool
from proxy.state import StateDirectory
from proxy.sync import Synchroniser
from proxy.ticker import Ticker
from proxy.usage import encode

logger = logging.getLogger("gateway.worker")

VERSION = "0.1.0"
FIRST_SYNC_MAX_S = 5.0
FINAL_FLUSH_MAX_S = 3.0
GAUGE_INTERVAL_S = 2.0
TELL_INTERVAL_S = 0.5
TRANSITIONS_AT_ONCE = 200

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]


class Backend(Protocol):
    """LiteLLM as the worker needs it (see backend.py)."""

    app: AsgiApp
    internal_token: str
    state: dict[str, Any]

    def count_tokens(self, model: str, content: Any) -> int:
        """Tokens of messages or of a text."""

    def deployment_of_response(self, response_id: str) -> str | None:
        """Which deployment made a response of the Responses API."""

    async def start(self) -> None:
        """Run LiteLLM's own start-up."""

    async def stop(self) -> None:
        """Run LiteLLM's own shutdown."""

    async def apply(self, snapshot: Snapshot) -> int:
        """Load a snapshot into the Router; return the number of changes."""

    def facts_of(self, deployment: Deployment) -> LiteLlmFacts | str:
        """What LiteLLM knows of a deployment; or why it alone can serve it."""


class Kept(NamedTuple):
    """An event that is durable and was not counted yet."""

    event: UsageEventDocument
    record: bytes
    segment: Segment | None  # None: it is in memory, or was dropped


class Worker:
    """One process of a replica."""

    def __init__(
        self,
        settings: ProxySettings,
        *,
        slot: int,
        metrics: Metrics,
        backend: Backend | None,
    ) -> None:
        self.settings = settings
        self.slot = slot
        self.metrics = metrics
        self.backend = backend
        self.state = StateDirectory(settings.state_dir)
        self.replica_id = self.state.replica_id()
        self.hostname = socket.gethostname()
        self.health = Health()
        self.clock = Clock()
        self.snapshot: Snapshot | None = None
        self.policies = PolicyTable()
        self.policies_known = False
        self.spool = Spool(self.state.spool, max_bytes=settings.spool_max_bytes)
        self.control = ControlPlane(settings.fleet)
        self.shipper = Shipper(
            self.spool,
            self.control,
            replica_id=self.replica_id,
            state_dir=settings.state_dir,
            interval_s=min(settings.poll_interval_s, SHIP_INTERVAL_MAX_S),
        )
        self._make_shared_parts()
        self.ticker = Ticker()
        self.lanes = Lanes(backend, self.ticker) if backend is not None else None
        self.planner = Planner()
        self.sync = Synchroniser(self)
        self._tasks: set[asyncio.Task[None]] = set()

    def _make_shared_parts(self) -> None:
        """What works with the other workers through Redis: counters, breakers, cache."""
        settings, metrics = self.settings, self.metrics
        url = settings.fleet.redis_url  # None: this replica has no Redis and counts alone
        self.link = RedisLink(url, settings.counter_timeout_s) if url else None
        self.cache = ResponseCache(settings, metrics)
        self.admission = Admission(self)
        self.heartbeat = Heartbeat(self, self.admission)
        self.breakers = Breakers(
            environment=settings.fleet.environment,
            link=self.link,
            url=url,
            clock=self.clock,
            metrics=metrics,
        )

    @property
    def is_porter(self) -> bool:
        """Whether this process only keeps the door while the workers start."""
        return self.backend is None

    # --- life ----------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the last good state, catch up with the control plane, start the loops."""
        self.spool.open()
        if self.backend is not None:
            await self.backend.start()
        self.spawn(self._tell_loop())
        await self.sync.restore()
        if self.is_porter:
            return
        self.heartbeat.restore()
        if self.link is not None:
            await self.link.start()
            self.link.on_up.append(self.admission.state.changed.set)
            await self.heartbeat.beat()
        await self.cache.start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.sync.round(), FIRST_SYNC_MAX_S)
        self.spawn(self.sync.run())
        self.spawn(self.sync.listen())
        self.spawn(self.breakers.run())
        self.spawn(self.breakers.listen())
        self.spawn(self.shipper.run())
        self.spawn(self._gauge_loop())
        self.spawn(collect_loop())
        self.spawn(self.heartbeat.run())
        if self.admission.settlements is not None:
            self.spawn(self.admission.settlements.run())

    async def stop(self) -> None:
        """Stop the loops, deliver what can be delivered now; the rest stays on disk."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not self.is_porter:
            try:
                await asyncio.wait_for(self.shipper.flush(), FINAL_FLUSH_MAX_S)
            except (TimeoutError, ControlPlaneError) as error:
                depth = self.spool.depth()
                if depth.events:
                    logger.warning("%d usage events stay in the spool: %s", depth.events, error)
        self.spool.close()
        if not self.is_porter:
            await self.heartbeat.stop()
        if self.link is not None:
            await self.link.stop()
        await self.cache.stop()
        if self.lanes is not None:
            self.lanes.upstream.close()
        await self.control.close()
        if self.backend is not None:
            await self.backend.stop()
        self.metrics.flush()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a background task for as long as the worker lives."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # A loop that ended is a worker that goes stale: leave and be replaced.
            logger.critical("background task failed", exc_info=task.exception())
            os._exit(70)

    # --- what is served --------------------------------------------------------------------

    async def serve(self, snapshot: Snapshot) -> int:
        """Load the snapshot into the backend, then swap it in for new requests."""
        changed = await self.backend.apply(snapshot) if self.backend is not None else 0
        if self.lanes is not None:
            await self.lanes.configure(snapshot)
        self.snapshot = snapshot
        if not self.is_porter:
            self.breakers.configure(snapshot)
        return changed

    def apply_policies(self, feed: PolicyFeed) -> None:
        """Take over virtual keys."""
        fleet = self.settings.fleet
        self.policies.apply(feed, environment=fleet.environment, fleet_key=fleet.fleet_key)
        self.policies_known = True
        self.breakers.follow(self.policies.breaker_orders.values())

    @property
    def ready(self) -> bool:
        """Whether inference can be served."""
        return self.backend is not None and self.snapshot is not None and self.policies_known

    def record(self, event: UsageEventDocument) -> None:
        """Make an event durable and count it. Called before the answer's last bytes leave."""
        self.count(self.keep(event))

    def keep(self, event: UsageEventDocument) -> "Kept":
        """Make an event durable; who calls this has it counted when there is time."""
        record = encode(event)
        if not self.spool.append(record):
            self.metrics.dropped.inc()
        return Kept(event, record, self.spool.last)

    def count(self, kept: "Kept") -> None:
        """The rest: metrics, and the batch that the event will be sent in."""
        self.metrics.observe(kept.event)
        if kept.segment is not None:
            kept.segment.pack(kept.record)

    # --- what is told ----------------------------------------------------------------------

    def reasons(self) -> list[str]:
        """Why this worker is degraded."""
        self.health.refused_events = self.shipper.refused
        return [*self.health.reasons(self.spool.depth()), *self.admission.state.reasons()]

    def report(self) -> SyncReport:
        """Where this worker stands, for the control plane."""
        depth, health, applied = self.spool.depth(), self.health, self.snapshot
        reasons = self.reasons()
        return {
            "replica_id": self.replica_id,
            "hostname": self.hostname,
            "version": VERSION,
            "worker": self.slot,
            "workers": self.settings.workers,
            "pid": os.getpid(),
            "started_at": health.started_at.isoformat(),
            "applied_revision": applied.revision if applied else None,
            "applied_digest": applied.digest if applied else None,
            "rejected_revision": health.rejected_revision,
            "rejected_error": health.rejected_error,
            "rejected_deployment": health.rejected_deployment,
            "policy_version": self.policies.version,
            "spool_events": depth.events,
            "spool_bytes": depth.size_bytes,
            "dropped_events": depth.dropped,
            "healthy": not reasons,
            "reasons": reasons,
            "counters": self.admission.state.mode,
            "breaker_transitions": self.breakers.transitions[:TRANSITIONS_AT_ONCE],
        }

    async def _tell_loop(self) -> None:
        """What this worker counted, in the /metrics of the others too."""
        while True:
            await asyncio.sleep(TELL_INTERVAL_S)
            self.metrics.flush()

    async def _gauge_loop(self) -> None:
        shipped = refused = 0
        while True:
            self._set_gauges()
            self.metrics.shipped.inc(self.shipper.shipped - shipped)
            self.metrics.events_refused.inc(self.shipper.refused - refused)
            shipped, refused = self.shipper.shipped, self.shipper.refused
            if self.lanes is not None:
                self.lanes.upstream.sweep(asyncio.get_running_loop().time())
            await asyncio.sleep(GAUGE_INTERVAL_S)

    def _set_gauges(self) -> None:
        metrics, depth = self.metrics, self.spool.depth()
        now = time.time()
        since = self.health.synced_at or self.health.started_at.timestamp()
        metrics.tasks.set(len(asyncio.all_tasks()))
        metrics.snapshot_age_s.set(now - since)
        metrics.spool_age_s.set(now - depth.oldest_at if depth.oldest_at else 0)
        metrics.spool_events.set(depth.events)
        metrics.spool_bytes.set(depth.size_bytes)
        metrics.policy_version.set(self.policies.version)
        metrics.revision.set(self.snapshot.revision if self.snapshot else 0)
