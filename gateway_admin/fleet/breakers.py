"""Circuit breakers as the control plane knows them: what workers told, what people ordered.

The breakers themselves live in the replicas and in Redis; here is their history. A breaker
nobody told of is closed: that is how each begins.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from gateway_admin.accounts.models import User
from gateway_admin.accounts.services import audit
from gateway_admin.catalog.models import Deployment, Environment
from gateway_admin.fleet.models import BreakerOrder, BreakerState, BreakerTransition
from gateway_admin.keys.policies import policy_touched
from gateway_admin.lib.errors import InvalidInput
from proxy.contract import BreakerOrder as OrderDocument

KEPT_FOR = timedelta(days=30)
TIMELINE = timedelta(hours=24)
REASON_LENGTH = 300
_ACTIONS: dict[str, Literal["open", "close", "reset"]] = {
    "open": "open",
    "close": "close",
    "reset": "reset",
}


@dataclass(frozen=True)
class Told:
    """One transition of a report, checked."""

    deployment_id: UUID
    generation: int
    state: str
    at: datetime
    reason: str


@dataclass(frozen=True)
class Span:
    """A stretch of time in one state; `end` None: it lasts."""

    state: str
    start: datetime
    end: datetime | None
    reason: str = ""
    replica: str = ""


@dataclass(frozen=True)
class Breaker:
    """Where one deployment's breaker stands, and its last 24 hours."""

    deployment: Deployment
    now: datetime
    spans: Sequence[Span] = field(default_factory=list)  # oldest first, the last one lasts
    order: BreakerOrder | None = None  # the newest one

    @property
    def enabled(self) -> bool:
        return self.deployment.environment.breaker_enabled

    @property
    def state(self) -> str:
        """closed, open, half_open; off where the environment uses none."""
        if not self.enabled:
            return "off"
        return self.spans[-1].state if self.spans else BreakerState.CLOSED.value

    @property
    def current(self) -> Span | None:
        """The present state's span; None when nothing was ever told."""
        return self.spans[-1] if self.spans else None

    @property
    def opened(self) -> int:
        """How often it opened within the last 24 hours."""
        begin = self.now - TIMELINE
        return sum(1 for span in self.spans if span.state == "open" and span.start >= begin)

    @property
    def held_open(self) -> bool:
        """A person opened it: it does not try by itself."""
        return self.order is not None and self.order.action == BreakerOrder.Action.OPEN

    @property
    def awaited(self) -> bool:
        """The newest order was given after the last thing any worker told of."""
        if self.order is None:
            return False
        wanted = "open" if self.held_open else "closed"
        last = self.current.start if self.current else None
        return self.state not in {wanted, "off"} and (last is None or last < self.order.at)

    @property
    def tries_at(self) -> datetime | None:
        """When an open breaker lets trial calls through."""
        if self.state != "open" or self.held_open or self.current is None:
            return None
        return self.current.start + timedelta(seconds=self.deployment.environment.breaker_open_s)


def breaker_of(deployment: Deployment, *, now: datetime | None = None) -> Breaker:
    return breakers_of([deployment], now=now)[0]


def breakers_of(deployments: Iterable[Deployment], *, now: datetime | None = None) -> list[Breaker]:
    """The breakers of deployments (read with their environment), in three queries."""
    rows, now = list(deployments), now or timezone.now()
    ids = [row.pk for row in rows]
    spans = _spans(ids, now - TIMELINE)
    newest = BreakerOrder.objects.filter(deployment__in=ids).select_related("actor")
    orders = {
        o.deployment_id: o
        for o in newest.order_by("deployment_id", "-id").distinct("deployment_id")
    }
    return [Breaker(row, now, spans.get(row.pk, []), orders.get(row.pk)) for row in rows]


def newest_of(deployments: Iterable[UUID]) -> dict[UUID, BreakerTransition]:
    """The transition to each present state, in one query; those never told of are absent."""
    newest = (
        BreakerTransition.objects.filter(deployment_id__in=list(deployments))
        .order_by("deployment_id", "-at", "-generation")
        .distinct("deployment_id")
    )
    return {row.deployment_id: row for row in newest}


def states_of(deployments: Iterable[UUID]) -> dict[UUID, str]:
    """Present state by deployment, in one query; those never told of are absent."""
    return {key: row.state for key, row in newest_of(deployments).items()}


def newest_orders(environment: Environment) -> list[OrderDocument]:
    """The newest order to each breaker of the environment, for the policy feed."""
    rows = (
        BreakerOrder.objects.filter(environment=environment)
        .order_by("deployment_id", "-id")
        .distinct("deployment_id")
    )
    return [
        OrderDocument(id=row.pk, deployment=str(row.deployment_id), action=_ACTIONS[row.action])
        for row in rows
    ]


@transaction.atomic
def breaker_order(*, actor: User, deployment: Deployment, action: str, reason: str) -> BreakerOrder:
    """Tell the deployment's breaker, on all replicas, to open, close or reset."""
    if action not in BreakerOrder.Action.values:
        raise InvalidInput(f"Actions are {', '.join(BreakerOrder.Action.values)}.", field="action")
    reason = " ".join(reason.split())
    if not reason:
        raise InvalidInput("Say why: whoever looks at it next will ask.", field="reason")
    if len(reason) > REASON_LENGTH:
        raise InvalidInput(f"At most {REASON_LENGTH} signs.", field="reason")
    # Orders to one breaker are given one after the other, so that the newest has the highest id.
    deployment = (
        Deployment.objects.select_for_update(of=("self",), no_key=True)
        .select_related("environment")
        .get(pk=deployment.pk)
    )
    environment = deployment.environment
    order = BreakerOrder.objects.create(
        environment=environment, deployment=deployment, action=action, reason=reason, actor=actor
    )
    audit(
        actor=actor,
        action=f"breaker.{action}",
        target=deployment,
        environment=environment.slug,
        changes={"reason": [None, reason]},
    )
    policy_touched(environments=[environment])
    return order


def transitions_store(
    *, environment: Environment, told: Iterable[Told], replica: str, now: datetime
) -> None:
    """Keep what a worker told, once, however often it tells it; two queries.

    A replica may speak of its own environment's deployments only.
    """
    told = list(told)
    own = set(
        Deployment.objects.filter(
            environment=environment, pk__in={row.deployment_id for row in told}
        ).values_list("pk", flat=True)
    )
    BreakerTransition.objects.bulk_create(
        [
            BreakerTransition(
                environment=environment,
                deployment_id=row.deployment_id,
                generation=row.generation,
                state=row.state,
                at=min(row.at, now),  # a worker's clock may be ahead
                reason=row.reason,
                replica=replica,
                received_at=now,
            )
            for row in told
            if row.deployment_id in own
        ],
        ignore_conflicts=True,
    )


def transitions_forget(*, now: datetime | None = None) -> int:
    """Forget transitions older than KEPT_FOR, but those that present states began with."""
    old = BreakerTransition.objects.filter(at__lt=(now or timezone.now()) - KEPT_FOR)
    present = newest_of(Deployment.objects.values_list("pk", flat=True))
    forgotten, _ = old.exclude(pk__in=[row.pk for row in present.values()]).delete()
    return forgotten


def _spans(ids: Sequence[UUID], since: datetime) -> dict[UUID, list[Span]]:
    """Spans that reach into the time after `since`, by deployment."""
    told = BreakerTransition.objects.filter(deployment_id__in=ids)
    before = (
        told.filter(at__lt=since)
        .order_by("deployment_id", "-at", "-generation")
        .distinct("deployment_id")
    )
    rows: dict[UUID, list[BreakerTransition]] = defaultdict(list)
    for row in before:
        rows[row.deployment_id].append(row)
    for row in told.filter(at__gte=since).order_by("at", "generation"):
        rows[row.deployment_id].append(row)
    return {key: _joined(found) for key, found in rows.items()}


def _joined(rows: Sequence[BreakerTransition]) -> list[Span]:
    """Workers that count alone may each tell of the same state: that is one span."""
    spans: list[Span] = []
    for row in rows:
        if spans and spans[-1].state == row.state:
            continue
        if spans:
            last = spans.pop()
            spans.append(Span(last.state, last.start, row.at, last.reason, last.replica))
        spans.append(Span(row.state, row.at, None, row.reason, row.replica))
    return spans
