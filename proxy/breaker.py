"""The circuit breakers as one worker sees them.

The fleet's machine is in Redis (breaker_shared.py); every worker keeps a copy of each state,
so that asking costs nothing while a breaker is closed, and refusing costs nothing while it
is open. The copy is renewed by the replies to its own results, by announcements of the
others, and by a look at everything each HEARTBEAT_S. When Redis is away, the worker goes on
alone with a machine of its own (breaker_machine.py) that begins with the state last known.

Results leave in the background: failures and trial calls at once, successes in batches.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import redis.asyncio as redis
from redis.exceptions import RedisError

from proxy.breaker_machine import Machine
from proxy.breaker_shared import SharedBreakers, Todo, Told, read_announcement
from proxy.clock import Clock
from proxy.contract import BreakerDocument, BreakerOrder, BreakerTransition
from proxy.contract.counters import HEARTBEAT_S, HOLD_TTL_S, breaker_channel
from proxy.defaults import BREAKER
from proxy.metrics import Metrics
from proxy.redis_link import LinkDown, RedisLink
from proxy.snapshot import Snapshot

logger = logging.getLogger("gateway.breaker")

LEASE_MS = HOLD_TTL_S * 1000  # of a permit; renewed while its call runs
BATCH_S = 0.05  # successes wait so long for company
ASK_AGAIN_MS = 100  # after the fleet had no permit left
KEYS_AT_ONCE = 200
TRANSITIONS_MAX = 1_000
LISTEN_AGAIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Permit:
    """A call may begin. `token` is set for a trial call of a half-open breaker."""

    deployment: str
    generation: int
    token: str = ""


@dataclass(frozen=True, slots=True)
class KeptOut:
    """A deployment is not to be called now."""

    open: bool  # by its breaker; else paused by the provider's rate limit
    since_ms: int
    wait_s: float


@dataclass(slots=True)
class _Results:
    """Outcomes of one deployment and generation (of one permit, where there is one), in order."""

    outcomes: list[str] = field(default_factory=list)
    last: str = ""


class Breakers:
    """All breakers of the environment, in this worker."""

    def __init__(
        self,
        *,
        environment: str,
        link: RedisLink | None,
        url: str | None,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self.rules: BreakerDocument = BREAKER
        self.transitions: list[BreakerTransition] = []  # not yet reported
        self._environment = environment
        self._url = url
        self._clock = clock
        self._metrics = metrics
        self._who = secrets.token_hex(6)
        self._link = link
        self._shared = SharedBreakers(link, environment, self._who) if link else None
        self._providers: dict[str, str] = {}
        self._views: dict[str, Told] = {}
        self._refused_ms: dict[str, int] = {}  # when the fleet last had no permit left
        self._machines: dict[str, Machine] = {}  # while Redis is away
        self._permits: set[Permit] = set()
        self._results: dict[Permit, _Results] = {}
        self._orders: list[BreakerOrder] = []
        self._followed: dict[str, int] = {}  # newest order that was passed on, by deployment
        self._flushing = asyncio.Lock()
        self._timer: asyncio.Handle | None = None
        self._timer_at = 0.0  # the loop's time
        self._tasks: set[asyncio.Task[None]] = set()

    def configure(self, snapshot: Snapshot) -> None:
        """Take over the settings and the deployments of a revision."""
        self.rules = snapshot.environment["breaker"]
        self._providers = {row.id: row.provider for row in snapshot.deployments.values()}
        for deployment_id, provider in self._providers.items():
            known = self._views.get(deployment_id)
            state = known.state if known is not None else "closed"
            self._metrics.routing.breaker(provider, deployment_id, state)
        self._send_orders()

    # --- asking ----------------------------------------------------------------------------

    def kept_out(self, deployment_id: str) -> KeptOut | None:
        """Why not to call a deployment now, from the local copy; None: it may be asked for."""
        view = self._views.get(deployment_id)
        if view is None or (view.state == "closed" and not view.paused_ms):
            return None
        now_ms, rules = self._clock.now_ms(), self.rules
        if view.state == "open":
            left_ms = view.since_ms + rules["open_s"] * 1000 - now_ms
            if view.held or (rules["enabled"] and left_ms > 0):
                return KeptOut(True, view.since_ms, max(left_ms / 1000, 1.0))
        if not rules["enabled"]:
            return None
        if view.paused_ms > now_ms:
            return KeptOut(False, view.paused_ms, (view.paused_ms - now_ms) / 1000)
        if self._refused_ms.get(deployment_id, 0) > now_ms:
            return KeptOut(True, view.since_ms, 1.0)
        return None

    async def acquire(self, deployment_id: str) -> Permit | None:
        """Leave to make one call; None when none is to be had. Every Permit is recorded once."""
        view = self._views.get(deployment_id)
        if view is None or view.state == "closed":
            return Permit(deployment_id, view.generation if view else 0)
        token = secrets.token_hex(6)
        told = await self._work({deployment_id: [["a", token, LEASE_MS]]})
        view = told[deployment_id]
        if not view.granted:
            self._refused_ms[deployment_id] = self._clock.now_ms() + ASK_AGAIN_MS
            return None
        if view.state == "closed":
            return Permit(deployment_id, view.generation)
        permit = Permit(deployment_id, view.generation, token)
        self._permits.add(permit)
        return permit

    def unasked(self, deployment_id: str) -> Permit:
        """Leave to call against the breaker's word; the result changes nothing."""
        view = self._views.get(deployment_id)
        return Permit(deployment_id, view.generation if view else 0)

    # --- telling ---------------------------------------------------------------------------

    def record(self, permit: Permit, outcome: str, error_class: str = "") -> None:
        """How a call ended: `s` succeeded, `f` failed, `n` says nothing of the deployment."""
        self._permits.discard(permit)
        if not permit.token and (outcome == "n" or not self.rules["enabled"]):
            return
        results = self._results.setdefault(permit, _Results())
        results.outcomes.append(outcome)
        results.last = error_class or results.last
        if outcome == "f" or permit.token:
            self._refused_ms.pop(permit.deployment, None)
            self._flush_soon(0.0)
        else:
            self._flush_soon(BATCH_S)

    def pause(self, deployment_id: str, wait_s: float) -> None:
        """The provider's rate limit is used up for so long."""
        self._metrics.routing.paused.labels(deployment_id, "rate_limit").inc()
        if self.rules["enabled"] and wait_s > 0:
            self._spawn({deployment_id: [["p", int(wait_s * 1000)]]})

    def follow(self, orders: Iterable[BreakerOrder]) -> None:
        """What people told the breakers to do; the newest order of each deployment."""
        self._orders = list(orders)
        self._send_orders()

    def _send_orders(self, *, again: bool = False) -> None:
        """Pass on what is new; `again` all of it, to a Redis that may have forgotten."""
        todo: dict[str, Todo] = {}
        for order in self._orders:
            deployment_id = order["deployment"]
            known = deployment_id in self._providers
            if known and (again or order["id"] > self._followed.get(deployment_id, 0)):
                todo[deployment_id] = [["o", order["id"], order["action"]]]
                self._followed[deployment_id] = order["id"]
        self._spawn(todo)

    def _redis_is_back(self) -> None:
        self._send_orders(again=True)
        self._spawn({name: [] for name in self._providers})

    def reported(self, known: Iterable[BreakerTransition]) -> None:
        """The control plane knows these transitions."""
        told = {(one["deployment"], one["generation"]) for one in known}
        self.transitions = [
            one for one in self.transitions if (one["deployment"], one["generation"]) not in told
        ]

    # --- work ------------------------------------------------------------------------------

    def _flush_soon(self, wait_s: float) -> None:
        loop = asyncio.get_running_loop()
        at = loop.time() + wait_s
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer, self._timer_at = loop.call_later(wait_s, self._flush), at

    def _flush(self) -> None:
        self._timer = None
        results, self._results = self._results, {}
        todo: dict[str, list[list[str | int]]] = {}
        for permit, one in results.items():
            row: list[str | int] = [
                "r",
                permit.generation,
                permit.token,
                "".join(one.outcomes),
                one.last,
            ]
            todo.setdefault(permit.deployment, []).append(row)
        self._spawn(todo)

    def _spawn(self, todo: Mapping[str, Todo]) -> None:
        if todo:
            task = asyncio.get_running_loop().create_task(self._in_turn(todo))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _in_turn(self, todo: Mapping[str, Todo]) -> None:
        async with self._flushing:  # results keep their order
            await self._work(todo)

    async def _work(self, todo: Mapping[str, Todo]) -> dict[str, Told]:
        """Do it in Redis, or alone when Redis is away."""
        if self._shared is not None:
            asked_at = time.monotonic()
            try:
                now_ms, told = await self._shared.work(self.rules, todo)
            except LinkDown:
                pass
            else:
                self._machines.clear()
                self._clock.heard(now_ms, asked_at=asked_at)
                for deployment_id, view in told.items():
                    self._see(deployment_id, view)
                return told
        told = {name: self._alone(name, one) for name, one in todo.items()}
        for deployment_id, view in told.items():
            self._see(deployment_id, view)
        return told

    def _alone(self, deployment_id: str, todo: Todo) -> Told:
        machine = self._machines.get(deployment_id)
        if machine is None:
            machine = _machine_of(self._views.get(deployment_id))
            self._machines[deployment_id] = machine
        now_ms = self._clock.now_ms()
        granted = apply(machine, self.rules, now_ms, todo)
        return Told(
            machine.state, machine.generation, machine.since_ms, machine.held,
            machine.paused_ms, granted, machine.reason, self._who,
        )  # fmt: skip

    def _see(self, deployment_id: str, told: Told) -> None:
        """Renew the local copy; a transition of our own is to be reported."""
        known = self._views.get(deployment_id)
        before = known.generation if known is not None else 0
        self._views[deployment_id] = told
        if told.generation == before:
            return
        self._refused_ms.pop(deployment_id, None)
        provider = self._providers.get(deployment_id, "")
        self._metrics.routing.breaker(provider, deployment_id, told.state)
        if told.who == self._who and told.generation > before:
            logger.warning("breaker of %s is %s: %s", deployment_id, told.state, told.reason)
            self._metrics.routing.transition(deployment_id, told.state)
            self.transitions.append(
                {
                    "deployment": deployment_id,
                    "generation": told.generation,
                    "state": told.state,
                    "at": datetime.fromtimestamp(told.since_ms / 1000, UTC).isoformat(),
                    "reason": told.reason,
                }
            )
            del self.transitions[:-TRANSITIONS_MAX]

    # --- loops -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Look at everything and renew permits, for ever."""
        if self._link is not None:
            self._link.on_up.append(self._redis_is_back)
        while True:
            await self.look()
            await asyncio.sleep(HEARTBEAT_S)

    async def look(self) -> None:
        """One look at all breakers; permits of running trial calls are renewed."""
        todo: dict[str, list[list[str | int]]] = {one: [] for one in self._providers}
        for permit in self._permits:
            row: list[str | int] = ["w", permit.generation, permit.token, LEASE_MS]
            todo.setdefault(permit.deployment, []).append(row)
        names = list(todo)
        for first in range(0, len(names), KEYS_AT_ONCE):
            part = names[first : first + KEYS_AT_ONCE]
            await self._in_turn({name: todo[name] for name in part})

    async def listen(self) -> None:
        """Learn of changes at once. Without Redis, or between, looking remains."""
        while self._url is not None:
            with contextlib.suppress(RedisError, OSError):
                await self._listen_once(self._url)
            await asyncio.sleep(LISTEN_AGAIN_S)

    async def _listen_once(self, url: str) -> None:
        client = redis.from_url(url, socket_connect_timeout=5, health_check_interval=15)
        async with client, client.pubsub() as pubsub:
            await pubsub.subscribe(breaker_channel(self._environment))
            while True:
                message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=5)
                if message is not None:
                    self._heard(message["data"])

    def _heard(self, data: bytes) -> None:
        found = read_announcement(self._environment, data)
        if found is None:
            return
        deployment_id, told = found
        known = self._views.get(deployment_id)
        # Announcements may overtake replies: only what is newer is news.
        if known is None or (told.generation, told.paused_ms) > (known.generation, known.paused_ms):
            self._see(deployment_id, told)


def apply(machine: Machine, rules: BreakerDocument, now_ms: int, todo: Todo) -> bool:
    """What the script does with one key; whether a call was granted."""
    granted = False
    for name, *rest in todo:
        if name == "a":
            token, lease_ms = rest
            granted = machine.acquire(rules, now_ms, str(token), int(lease_ms))
        elif name == "w":
            generation, token, lease_ms = rest
            machine.renew(now_ms, int(generation), str(token), int(lease_ms))
        elif name == "r":
            generation, token, outcomes, last = rest
            machine.record(rules, now_ms, int(generation), str(token), str(outcomes), str(last))
        elif name == "p":
            machine.pause(now_ms + int(rest[0]))
        elif name == "o":
            order, action = rest
            machine.follow(now_ms, int(order), action)  # type: ignore[arg-type]
    return granted


def _machine_of(view: Told | None) -> Machine:
    if view is None:
        return Machine()
    return Machine(
        state=view.state,
        generation=view.generation,
        since_ms=view.since_ms,
        held=view.held,
        reason=view.reason,
        paused_ms=view.paused_ms,
    )
