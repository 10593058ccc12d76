"""Periods of budgets are summed as the organisation's calendar cuts them."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from gateway_admin.accounts.models import Organisation
from gateway_admin.catalog.models import Environment
from gateway_admin.keys.calendar import calendar
from gateway_admin.keys.models import Budget
from gateway_admin.usage import rollups
from gateway_admin.usage.backfill import backfill
from gateway_admin.usage.spent import current_period, question_of, spent
from proxy.contract import UsageEventDocument
from tests import builders
from tests.usage.counting import budget
from tests.usage.ledger import usage_event

pytestmark = pytest.mark.django_db

ZONES = ("Europe/Berlin", "Asia/Kolkata", "America/Sao_Paulo", "UTC")
MOMENTS = (
    "2026-03-29T00:30:00+00:00",  # Berlin puts its clocks forward this night
    "2026-03-29T21:59:59+00:00",
    "2025-10-26T00:30:00+00:00",  # and back this one: 25 hours
    "2025-10-26T22:59:59+00:00",
    "2026-02-28T18:29:59+00:00",  # a second before March in Kolkata
    "2026-02-28T18:30:00+00:00",
    "2026-03-01T02:59:59+00:00",  # the same in São Paulo
    "2026-03-01T03:00:00+00:00",
)
KINDS = ("day", "week", "month", "quarter", "year", "lifetime")


def in_zone(zone: str, *, follow: bool = True, **cut: int) -> None:
    Organisation.objects.update_or_create(pk=1, defaults={"time_zone": zone, **cut})
    if follow:
        rollups.follow_time_zone()


def around(moment: datetime) -> list[UsageEventDocument]:
    """An event every 5 hours for days around, and some at the very edges; costs are powers."""
    steps = [timedelta(hours=5 * step) for step in range(-40, 41)]
    steps += [timedelta(seconds=step) for step in (-1, 0, 1)]
    return [
        usage_event(started_at=(moment + step).isoformat(), cost=f"0.{number:09d}", customer="acme")
        for number, step in enumerate(steps, start=1)
    ]


def expected(row: Budget, events: list[UsageEventDocument], at: datetime) -> int:
    """The same sum, by the period's own bounds."""
    period = current_period(question_of(row), at=at, cut=calendar())
    return sum(
        int(Decimal(event["cost"] or 0) * 10**9)
        for event in events
        if period.start is None
        or period.start <= datetime.fromisoformat(event["started_at"]) < (period.end or at)
    )


def total(row: Budget, environment: Environment, at: datetime, subject: str) -> int:
    question = question_of(row)
    parts = spent(environment, [question], at=at)[question].get(subject, {})
    return sum(parts.values())


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("moment", MOMENTS)
def test_calendar_periods_hold_exactly_their_own_events(zone: str, moment: str) -> None:
    in_zone(zone, fiscal_year_month=4, week_start=7)
    environment, at = builders.environment(), datetime.fromisoformat(moment)
    events = around(at)
    backfill(environment=environment, events=events)
    for kind in KINDS:
        whole = budget(period=kind)
        each = budget(period=kind, scope="customer", subject="*", is_default=True)
        assert total(whole, environment, at, "prod") == expected(whole, events, at) > 0, kind
        assert total(each, environment, at, "acme") == expected(each, events, at), kind


@pytest.mark.parametrize("zone", ZONES)
def test_it_is_exact_before_the_rollups_have_followed_a_new_time_zone(zone: str) -> None:
    in_zone("Pacific/Auckland")
    environment, at = builders.environment(), datetime(2026, 3, 1, 2, 59, tzinfo=UTC)
    events = around(at)
    backfill(environment=environment, events=events)
    in_zone(zone, follow=False)
    for kind in KINDS:
        row = budget(period=kind)
        assert total(row, environment, at, "prod") == expected(row, events, at), kind
    in_zone(zone)
    for row in Budget.objects.all():
        assert total(row, environment, at, "prod") == expected(row, events, at), row.period


@pytest.mark.parametrize("hours", [1, 7, 24, 720])
def test_rolling_hours_are_summed_by_bucket(hours: int) -> None:
    environment, at = builders.environment(), datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
    events = around(at)
    backfill(environment=environment, events=events)
    row = budget(period="rolling", rolling_hours=hours)
    question = question_of(row)
    period = current_period(question, at=at, cut=calendar())
    parts = spent(environment, [question], at=at)[question]["prod"]
    wanted: dict[int, int] = {}
    for event in events:
        bucket = period.bucket(datetime.fromisoformat(event["started_at"]))
        newest = period.bucket(at)
        assert bucket is not None
        assert newest is not None
        if bucket >= newest - 60:
            wanted[bucket] = wanted.get(bucket, 0) + int(Decimal(event["cost"] or 0) * 10**9)
    assert parts == wanted


def test_every_scope_and_model_is_told_apart() -> None:
    environment = builders.environment()
    deployment = builders.deployment()
    at = datetime.now(UTC)
    team, other = "22222222-2222-4222-8222-222222222222", "33333333-3333-4333-8333-333333333333"
    backfill(
        environment=environment,
        events=[
            usage_event(team_id=team, user_id="7", deployment=str(deployment.pk), cost="1"),
            usage_event(team_id=team, user_id="8", model="other", cost="2"),
            usage_event(team_id=other, user_id="7", customer="acme", key_id=other, cost="4"),
            usage_event(status="abandoned", customer="acme", cost="8"),
        ],
    )
    backfill(environment=builders.environment("dev"), events=[usage_event(cost="16")])

    def of(scope: str, subject: str, model: str = "") -> Decimal:
        row = Budget(scope=scope, subject=subject, period="month", model=model)
        return Decimal(total(row, environment, at, subject)) / 10**9

    assert of("environment", "prod") == 15
    assert of("environment", "prod", "other") == 2
    assert of("team", team) == 3
    assert of("team", team, "other") == 2
    assert of("user", "7") == 5
    assert of("key", other) == 4
    assert of("customer", "acme") == 12
    assert of("customer", "acme", "other") == 0
    assert of("credential", str(deployment.credential_id)) == 1


def test_sums_outlive_the_single_events() -> None:
    in_zone("Europe/Berlin")
    environment = builders.environment()
    at = datetime.now(UTC)
    long_ago = at - timedelta(days=200)
    backfill(
        environment=environment,
        events=[usage_event(started_at=long_ago.isoformat(), customer="acme", cost="3")],
    )
    from gateway_admin.usage.partitions import drop_expired

    assert drop_expired(at)
    for scope, subject in (("environment", "prod"), ("customer", "acme")):
        row = Budget(scope=scope, subject=subject, period="lifetime")
        assert total(row, environment, at, subject) == 3 * 10**9
    assert ZoneInfo(calendar()["time_zone"]).key == "Europe/Berlin"
