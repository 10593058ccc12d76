"""Reads of the ledger itself: the log of requests, one request, exact sums of short times."""

from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.db.models import Q, QuerySet

from gateway_admin.usage.models import UsageEvent
from gateway_admin.usage.queries import Filters, Period, Scope, spend, total

FALLBACK_REASONS = ("fallback", "context_window", "content_policy")
HEAVY_FIELDS = (  # not for lists
    "attempts",
    "tags",
    "unit_prices",
    "other_units",
    "error",
    "charged",
)


@dataclass(frozen=True)
class EventFilters:
    """Which requests are meant. None or "": any."""

    environment: UUID | None = None
    start: datetime | None = None
    end: datetime | None = None
    status: str = ""
    error_class: str = ""
    model: str = ""
    requested_model: str = ""
    deployment: UUID | None = None
    provider: UUID | None = None
    key: UUID | None = None
    team: UUID | None = None
    user: int | None = None
    customer: str = ""
    streaming: bool | None = None
    fallback: bool | None = None
    cached: bool | None = None
    lane: str = ""  # direct or litellm; what called no provider took none
    unpriced: bool | None = None

    def is_narrow(self) -> bool:
        """Something beside environment and time was asked for."""
        return any(
            getattr(self, field.name) not in (None, "")
            for field in fields(self)
            if field.name not in {"environment", "start", "end"}
        )


def events_visible(scope: Scope) -> QuerySet[UsageEvent]:
    events = UsageEvent.objects.all()
    if scope.everything:
        return events
    return events.filter(Q(team_id__in=scope.teams) | Q(user_id=scope.user_id))


def events_matching(*, scope: Scope, filters: EventFilters) -> QuerySet[UsageEvent]:
    """Visible events that pass the filters; unordered."""
    events = events_visible(scope)
    equal = {
        "environment_id": filters.environment,
        "status": filters.status,
        "error_class": filters.error_class,
        "model": filters.model,
        "requested_model": filters.requested_model,
        "deployment_id": filters.deployment,
        "provider_id": filters.provider,
        "key_id": filters.key,
        "team_id": filters.team,
        "user_id": filters.user,
        "customer": filters.customer,
        "streaming": filters.streaming,
        "started_at__gte": filters.start,
        "started_at__lt": filters.end,
    }
    events = events.filter(**{k: v for k, v in equal.items() if v not in (None, "")})
    if filters.error_class or filters.status not in ("", "ok"):
        events = events.exclude(status="ok")  # lets the partial index serve it
    if filters.customer:
        events = events.exclude(customer="")
    if filters.fallback is not None:
        fallback = Q(why__in=FALLBACK_REASONS)
        events = events.filter(fallback if filters.fallback else ~fallback)
    if filters.cached is not None:
        cached = Q(why="cache")
        events = events.filter(cached if filters.cached else ~cached)
    if filters.lane:
        events = events.filter(lane=filters.lane).exclude(status="refused").exclude(why="cache")
    if filters.unpriced:
        events = events.filter(cost=None).exclude(status="refused")
    return events


def event_to_see(scope: Scope, event_id: UUID) -> UsageEvent | None:
    return events_visible(scope).filter(event_id=event_id).first()


def spend_between(*, scope: Scope, filters: Filters, start: datetime, end: datetime) -> Decimal:
    """Exact spend of any time: hourly rollups inside, single events at the ragged ends."""
    hour = timedelta(hours=1)
    first = _whole_hour(start) + (hour if start != _whole_hour(start) else timedelta())
    last = _whole_hour(end)
    if first >= last:
        return _spend_of_events(scope, filters, start, end)
    period = Period("hour", first, last)
    whole = total(spend(scope=scope, filters=filters, period=period)).cost
    return (
        whole
        + _spend_of_events(scope, filters, start, first)
        + _spend_of_events(scope, filters, last, end)
    )


def _whole_hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _spend_of_events(scope: Scope, filters: Filters, start: datetime, end: datetime) -> Decimal:
    if start >= end:
        return Decimal(0)
    bounded = EventFilters(start=start, end=end, **filters.given())
    events = events_matching(scope=scope, filters=bounded)
    return sum((cost for cost in events.values_list("cost", flat=True) if cost), Decimal(0))
