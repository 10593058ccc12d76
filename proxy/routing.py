"""Which deployment is called next: the plan of a request, and its walk through it.

    requested model ── deployments by weight ── retries
          └─ the chain for the kind of failure ── each target model likewise

A target is in the plan only if the key may use its model. A deployment that failed in this
request comes back only when no other is left, after a wait; one whose credential was
refused does not come back at all. One that is kept out by its breaker, or paused by its
provider's rate limit, is passed over. The chains are the requested model's: a target's own
chains are not followed.
"""

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

from proxy.attempt import Failure
from proxy.breaker import Breakers, KeptOut, Permit
from proxy.catalogue import may_use
from proxy.contract import CHAIN_KINDS, ChainKind
from proxy.refusals import Refusal
from proxy.retry import rule_of, wait_s
from proxy.snapshot import Deployment, Snapshot
from proxy.trace import Trace

PLANS_MAX = 10_000
ATTEMPTS_MAX = 50  # of one request; a usage event takes no more than a hundred


@dataclass(frozen=True)
class Plan:
    """The models a request may reach."""

    model: str
    chains: dict[ChainKind, tuple[str, ...]]
    deployments: dict[str, tuple[Deployment, ...]]  # by model

    @cached_property
    def targets(self) -> tuple[Deployment, ...]:
        """Every deployment that may be called, the requested model's first."""
        return tuple(row for rows in self.deployments.values() for row in rows)


@dataclass(frozen=True, slots=True)
class Step:
    """The next attempt."""

    deployment: Deployment
    model: str
    why: str  # first, retry, fallback, context_window, content_policy
    wait_s: float = 0.0  # before it may be made
    against_breaker: bool = False  # everything is kept out, and the settings say: try


class Planner:
    """Plans of the present snapshot, made once for each model and list of allowed models."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._plans: dict[tuple[str, tuple[str, ...] | None], Plan] = {}

    def plan(self, trace: Trace, *, keeper: str | None = None) -> Plan:
        """What may serve the request: its model, and the chain's models that its key may use.

        `keeper` is the deployment that keeps the conversation which the request continues.
        """
        assert trace.snapshot is not None
        if trace.snapshot is not self._snapshot or len(self._plans) >= PLANS_MAX:
            self._snapshot, self._plans = trace.snapshot, {}
        allowed = trace.policy["models"]
        key = (trace.model, None if allowed is None else tuple(allowed))
        found = self._plans.get(key)
        if found is None:
            found = self._plans[key] = _plan(trace, trace.snapshot)
        return found if keeper is None else _kept_by(found, keeper)


def _plan(trace: Trace, snapshot: Snapshot) -> Plan:
    chains: dict[ChainKind, tuple[str, ...]] = {}
    if snapshot.environment["fallback_enabled"]:
        for kind in CHAIN_KINDS:
            found = snapshot.chains.get((trace.model, kind), ())
            chains[kind] = tuple(name for name in found if _may_follow(trace, snapshot, name))
    names = [trace.model, *(name for chain in chains.values() for name in chain)]
    return Plan(trace.model, chains, {name: snapshot.by_model.get(name, ()) for name in names})


def _kept_by(plan: Plan, keeper: str) -> Plan:
    kept = tuple(row for row in plan.deployments[plan.model] if row.id == keeper)
    return replace(plan, deployments={**plan.deployments, plan.model: kept}) if kept else plan


def _may_follow(trace: Trace, snapshot: Snapshot, name: str) -> bool:
    return bool(snapshot.by_model.get(name)) and may_use(trace.policy, snapshot, name)


@dataclass(slots=True)
class _Here:
    """What happened on the model that is being tried."""

    model: str
    why: str
    attempts: int = 0  # that count as retries once there was a first
    failures: dict[str, Failure] = field(default_factory=dict)  # by deployment, newest last
    last: Failure | None = None


class Walk:
    """One request's way through its plan.

    Ask `next`, wait as told, `acquire`, make the attempt, tell `failed`; or tell `refused`.
    """

    def __init__(
        self,
        trace: Trace,
        plan: Plan,
        breakers: Breakers,
        *,
        now: Callable[[], float] = time.perf_counter,
        draw: Callable[[], float] = random.random,
    ) -> None:
        assert trace.snapshot is not None
        environment = trace.snapshot.environment
        self.plan = plan
        self.retries = environment["num_retries"]
        self.backoff_s = environment["retry_backoff_s"]
        self.all_open = environment["breaker"]["all_open"]
        self.deadline = trace.started + environment["total_timeout_s"]
        self.attempts = 0
        self._breakers = breakers
        self._now, self._draw = now, draw
        self._failure: Failure | None = None  # what the client is told if nothing helps
        self._refusal: Refusal | None = None  # likewise, where nothing could be attempted
        self._kept: dict[str, tuple[Step, KeptOut]] = {}
        self._here = _Here(plan.model, "first")
        self._kind: ChainKind | None = None
        self._queue: list[str] = []
        self._tried = {plan.model}
        self._barred: set[str] = set()  # deployments this request does not call again

    @property
    def remaining_s(self) -> float:
        """Seconds left for all attempts together."""
        return self.deadline - self._now()

    def can_reach(self, kind: ChainKind) -> bool:
        """Whether a chain of this kind would still lead anywhere."""
        return any(name not in self._tried for name in self.plan.chains.get(kind, ()))

    def next(self) -> Step | None:
        """The next attempt, or None when nothing is left that could help."""
        while self.remaining_s > 0 and self.attempts < ATTEMPTS_MAX:
            step = self._choose()
            if step is not None:
                return step
            if not self._advance():
                return self._against_breakers()
        return None

    async def acquire(self, step: Step) -> Permit | None:
        """The breaker's leave to make the attempt; without it, ask `next` again."""
        deployment_id = step.deployment.id
        if step.against_breaker:
            return self._breakers.unasked(deployment_id)
        permit = await self._breakers.acquire(deployment_id)
        if permit is None:
            self._barred.add(deployment_id)
            kept = self._breakers.kept_out(deployment_id) or KeptOut(True, 0, 1.0)
            self._kept[deployment_id] = (step, kept)
        return permit

    def refused(self, step: Step, refusal: Refusal) -> None:
        """The target's own budget or limits do not allow the attempt."""
        self._barred.add(step.deployment.id)
        if self._refusal is None or step.model == self.plan.model:
            self._refusal = refusal

    def verdict(self) -> Failure | Refusal:
        """What the client is told after `next` gave None."""
        if self._failure is not None:
            return self._failure
        if self._refusal is not None:
            return self._refusal
        kept = [one for _, one in self._kept.values()]
        if kept:
            wait = max(1, math.ceil(min(one.wait_s for one in kept)))
            only_paused = not any(one.open for one in kept)
            return _paused(self.plan.model, wait) if only_paused else _open(self.plan.model, wait)
        text = "No attempt could be made within this environment's total time-out."
        return Failure("timeout", None, text, client_status=408)

    def failed(self, step: Step, failure: Failure) -> None:
        """The attempt failed before anything was sent to the client."""
        self.attempts += 1
        here, rule = self._here, rule_of(failure.error_class)
        here.attempts += rule.counts
        here.failures.pop(step.deployment.id, None)
        here.failures[step.deployment.id] = failure
        here.last = failure
        if not rule.again:
            self._barred.add(step.deployment.id)
        if rule.others != "any":
            self._bar_siblings(step.deployment, same_credential=rule.others == "credential")
        if self._failure is None or here.model == self.plan.model:
            # A fallback's own trouble would hide what is wrong with the model asked for.
            self._failure = failure

    def _bar_siblings(self, failed: Deployment, *, same_credential: bool) -> None:
        for row in self.plan.deployments[failed.model]:
            if not same_credential or row.credential == failed.credential:
                self._barred.add(row.id)

    # --- within one model ------------------------------------------------------------------

    def _choose(self) -> Step | None:
        here = self._here
        if here.attempts > self.retries:
            return None
        rows = [r for r in self.plan.deployments[here.model] if r.id not in self._barred]
        fresh = self._passable([row for row in rows if row.id not in here.failures])
        if fresh:
            return Step(self._by_weight(fresh), here.model, self._why())
        return self._again([row for row in rows if row.id in here.failures])

    def _passable(self, rows: list[Deployment]) -> list[Deployment]:
        """Those that are not kept out; the others are remembered with the reason."""
        found = []
        for row in rows:
            kept = self._breakers.kept_out(row.id)
            if kept is None:
                found.append(row)
            else:
                self._kept[row.id] = (Step(row, self._here.model, self._why()), kept)
        return found

    def _again(self, rows: list[Deployment]) -> Step | None:
        """The deployment that may be called again soonest."""
        here, best = self._here, None
        for row in rows:
            kept = self._breakers.kept_out(row.id)
            if kept is not None and kept.open:
                continue
            reset_s = here.failures[row.id].reset_s
            if kept is not None:
                reset_s = max(reset_s or 0.0, kept.wait_s)
            pause_s = wait_s(self.backoff_s, here.attempts - 1, reset_s, self._draw)
            if pause_s is None or pause_s >= self.remaining_s:
                continue
            if best is None or pause_s < best.wait_s:
                best = Step(row, here.model, self._why(), pause_s)
        return best

    def _why(self) -> str:
        return "retry" if self._here.failures else self._here.why

    def _by_weight(self, rows: list[Deployment]) -> Deployment:
        total = sum(row.weight for row in rows)
        if total <= 0:
            return rows[int(self._draw() * len(rows))]
        mark = self._draw() * total
        for row in rows:
            mark -= row.weight
            if mark < 0:
                return row
        return rows[-1]

    def _against_breakers(self) -> Step | None:
        """Everything is kept out: the one that was opened first has had the longest rest."""
        if self._failure is not None or self._refusal is not None or self.all_open != "try":
            return None
        candidates = [(kept.since_ms, step) for step, kept in self._kept.values() if kept.open]
        if not candidates:
            return None
        self._kept.clear()
        _, step = min(candidates, key=lambda one: one[0])
        return replace(step, against_breaker=True)

    # --- from model to model ---------------------------------------------------------------

    def _advance(self) -> bool:
        """Go to the next model; False when there is none."""
        last = self._here.last
        wanted = rule_of(last.error_class).chain if last is not None else "general"
        if self._kind is None:
            if wanted is None:
                return False
            self._follow(wanted)
        elif wanted not in (None, "general", self._kind) and self.can_reach(wanted):
            self._follow(wanted)
        while self._queue:
            model = self._queue.pop(0)
            if model not in self._tried:
                self._tried.add(model)
                why = "fallback" if self._kind == "general" else str(self._kind)
                self._here = _Here(model, why)
                return True
        return False

    def _follow(self, kind: ChainKind) -> None:
        self._kind = kind
        self._queue = list(self.plan.chains.get(kind, ()))


def _open(model: str, retry_after_s: int) -> Refusal:
    return Refusal(
        503,
        "circuit_open",
        f"Every deployment that could serve {model!r} failed too often and is kept out for now. "
        f"Retry in {retry_after_s} s, or ask an admin to look at its deployments.",
        kind="server_error",
        error_class="circuit_open",
        retry_after_s=retry_after_s,
    )


def _paused(model: str, retry_after_s: int) -> Refusal:
    return Refusal(
        429,
        "provider_rate_limit",
        f"The providers' rate limits for {model!r} are used up. Retry in {retry_after_s} s.",
        kind="rate_limit_error",
        code="rate_limit_exceeded",
        error_class="rate_limit",
        retry_after_s=retry_after_s,
    )
