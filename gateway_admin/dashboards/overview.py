"""The Overview: is it working, how fast, what does it cost today; or how to begin."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from django.urls import reverse

from gateway_admin.accounts.models import User
from gateway_admin.catalog.models import Deployment, Environment, Provider
from gateway_admin.dashboards.latency import tone_of_errors
from gateway_admin.dashboards.periods import hour_period, hours_of
from gateway_admin.fleet.models import Revision
from gateway_admin.fleet.queries import Rollout, revisions_of, rollout_of
from gateway_admin.frame import formats
from gateway_admin.keys.queries import visible_keys
from gateway_admin.usage.event_queries import EventFilters, events_matching, spend_between
from gateway_admin.usage.labels import labels_of
from gateway_admin.usage.models import Measure, Series, UsageEvent
from gateway_admin.usage.queries import (
    Filters,
    Percentiles,
    Scope,
    SpendRow,
    Totals,
    latency,
    spend,
    total,
)

RATE_WINDOW = timedelta(minutes=5)
TOP = 5


@dataclass(frozen=True)
class TopLine:
    name: str
    totals: Totals
    share: float  # of the spend of all; of the requests where nothing was spent
    url: str


@dataclass(frozen=True)
class Now:
    """What is refreshed while the page is open."""

    requests_per_s: float
    totals: Totals  # 24 hours
    hourly: list[int]
    hourly_errors: list[float | None]
    latency: Percentiles
    first_token: Percentiles
    today: Decimal
    yesterday: Decimal  # until the same time
    unpriced_url: str
    errors_url: str

    @property
    def rate_text(self) -> str:
        rate = self.requests_per_s
        if rate >= 1:
            return f"{rate:,.0f}/s" if rate >= 100 else f"{rate:.1f}/s"
        return f"{rate * 60:.3g}/min"

    @property
    def error_hint(self) -> str:
        totals = self.totals
        return f"{formats.count(totals.errors)} of {formats.count(totals.requests)}, 24 hours"

    @property
    def error_tone(self) -> str:
        return tone_of_errors(self.totals.error_rate)

    @property
    def unpriced_tone(self) -> str:
        return "warn" if self.totals.unpriced else ""


def now_of(*, scope: Scope, environment: Environment, now: datetime, zone: ZoneInfo) -> Now:
    filters, period = Filters(environment=environment.pk), hour_period(hours=24, now=now)
    rows = spend(scope=scope, filters=filters, period=period, by_time=True)
    by_hour = {row.at: row.totals for row in rows}
    cells = [by_hour.get(hour, Totals()) for hour in hours_of(period)]
    durations = {
        row.measure: row.percentiles
        for row in latency(
            scope=scope,
            filters=filters,
            period=period,
            measures=[Measure.LATENCY, Measure.FIRST_TOKEN],
        )
    }
    today, yesterday = _today(scope, filters, now, zone)
    return Now(
        requests_per_s=_rate(scope, environment, now),
        totals=total(rows),
        hourly=[cell.requests for cell in cells],
        hourly_errors=[cell.error_rate for cell in cells],
        latency=durations.get(Measure.LATENCY, Percentiles()),
        first_token=durations.get(Measure.FIRST_TOKEN, Percentiles()),
        today=today,
        yesterday=yesterday,
        unpriced_url=_log_url(unpriced="yes"),
        errors_url=_log_url(status="error"),
    )


def _rate(scope: Scope, environment: Environment, now: datetime) -> float:
    """Requests a second over the last minutes, from the ledger."""
    filters = EventFilters(environment=environment.pk, start=now - RATE_WINDOW, end=now)
    events = events_matching(scope=scope, filters=filters)
    return events.count() / RATE_WINDOW.total_seconds()


def _today(
    scope: Scope, filters: Filters, now: datetime, zone: ZoneInfo
) -> tuple[Decimal, Decimal]:
    """Spend since midnight, and yesterday's until the same time of the clock."""
    local = now.astimezone(zone)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    before = [moment.replace(tzinfo=None) - timedelta(days=1) for moment in (midnight, local)]
    start, end = (moment.replace(tzinfo=zone) for moment in before)
    return (
        spend_between(scope=scope, filters=filters, start=midnight, end=now),
        spend_between(scope=scope, filters=filters, start=start, end=end),
    )


def _log_url(**filters: str) -> str:
    return f"{reverse('dashboards:requests')}?{urlencode({**filters, 'range': '24h'})}"


@dataclass(frozen=True)
class Ranking:
    kind: str
    title: str
    singular: str
    lines: list[TopLine]
    url: str


def rankings(*, scope: Scope, environment: Environment, now: datetime) -> list[Ranking]:
    """Who spends: models, teams and keys of the last 24 hours. Two queries each."""
    period, filters = hour_period(hours=24, now=now), Filters(environment=environment.pk)
    titles = {"model": "Models", "team": "Teams", "key": "Keys"}
    found = []
    for kind, title in titles.items():
        rows = spend(scope=scope, filters=filters, period=period, group=kind, brief=True)
        url = f"{reverse('dashboards:cost')}?{urlencode({'group': kind, 'range': '7d'})}"
        found.append(Ranking(kind, title, kind.title(), _top(kind, rows), url))
    return found


def _top(kind: str, rows: list[SpendRow]) -> list[TopLine]:
    whole = total(rows)
    rows = sorted(rows, key=lambda row: (row.totals.cost, row.totals.requests), reverse=True)
    labels = labels_of(kind, (row.group for row in rows[:TOP]))

    def share(totals: Totals) -> float:
        if whole.cost:
            return float(totals.cost / whole.cost)
        return totals.requests / whole.requests if whole.requests else 0.0

    return [
        TopLine(
            labels.name(row.group),
            row.totals,
            share(row.totals),
            _log_url(**{kind: str(row.group)}) if row.group is not None else "",
        )
        for row in rows[:TOP]
    ]


@dataclass(frozen=True)
class HourlyRequests:
    hours: list[datetime]
    by_status: dict[str, list[int]]


def hourly_requests(*, scope: Scope, environment: Environment, now: datetime) -> HourlyRequests:
    """Requests of the last 24 hours by what became of them."""
    period = hour_period(hours=24, now=now)
    rows = spend(
        scope=scope,
        filters=Filters(environment=environment.pk),
        period=period,
        group="status",
        by_time=True,
    )
    hours = hours_of(period)
    position = {hour: number for number, hour in enumerate(hours)}
    found: dict[str, list[int]] = defaultdict(lambda: [0] * len(hours))
    for row in rows:
        found[str(row.group)][position[row.at]] += row.totals.requests
    return HourlyRequests(hours, dict(found))


@dataclass(frozen=True)
class Publication:
    """The active revision and how many workers run it."""

    rollout: Rollout
    now: datetime

    @property
    def text(self) -> str:
        return f"{len(self.rollout.in_force)}/{self.rollout.expected}"

    @property
    def hint(self) -> str:
        if self.rollout.rejected:
            return f"{len(self.rollout.rejected)} rejected it"
        if self.rollout.waiting:
            return f"{len(self.rollout.waiting)} not yet"
        return "no worker reports" if not self.rollout.expected else "all run what is published"

    @property
    def tone(self) -> str:
        if self.rollout.rejected or not self.rollout.expected:
            return "bad"
        return "warn" if self.rollout.waiting else ""

    @property
    def published(self) -> str:
        return formats.ago(self.rollout.revision.published_at, now=self.now)

    @property
    def revision_text(self) -> str:
        revision = self.rollout.revision
        who = f" by {revision.published_by}" if revision.published_by else ""
        return f"revision {revision.number}{who}"


def rollout_now(environment: Environment, now: datetime) -> Publication | None:
    """Where the workers stand with the active revision; None before the first publish."""
    active = revisions_of(environment).first()
    if active is None:
        return None
    return Publication(rollout_of(active, active_number=active.number), now)


def has_usage(environment: Environment) -> bool:
    """Some request was ever recorded in the environment."""
    return Series.objects.filter(environment_id=environment.pk, level=2).exists()


@dataclass(frozen=True)
class Beginning:
    """Which steps of a new installation are done."""

    provider: bool
    model: bool
    published: bool
    key: bool
    called: bool

    @property
    def current(self) -> str:
        """The first step that is not done."""
        for name in ("provider", "model", "published", "key", "called"):
            if not getattr(self, name):
                return name
        return ""


def beginning_of(*, user: User, environment: Environment) -> Beginning:
    return Beginning(
        provider=Provider.objects.filter(credentials__environment=environment).exists(),
        model=Deployment.objects.filter(environment=environment, enabled=True).exists(),
        published=Revision.objects.filter(environment=environment).exists(),
        key=visible_keys(user).filter(environment=environment).exists(),
        called=has_usage(environment),
    )


def first_call(*, scope: Scope, environment: Environment) -> UsageEvent | None:
    """The newest answered call, which ends the first-run list."""
    filters = EventFilters(environment=environment.pk)
    return events_matching(scope=scope, filters=filters).order_by("-started_at").first()


def some_model(environment: Environment) -> str:
    """A model that the environment serves, for the example call."""
    served = Deployment.objects.filter(environment=environment, enabled=True)
    return served.values_list("model__name", flat=True).order_by("model__name").first() or "gpt-4o"
