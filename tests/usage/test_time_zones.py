"""Days are the organisation's days, also on the two odd days of the year."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
import time_machine

from gateway_admin.accounts.models import Organisation
from gateway_admin.usage import rollups
from gateway_admin.usage.checks import differences
from gateway_admin.usage.event_queries import spend_between
from gateway_admin.usage.queries import Filters, Period, Scope, spend
from tests import builders
from tests.usage.ledger import rows, take_in, usage_event

pytestmark = pytest.mark.django_db
EVERYTHING = Scope(everything=True)


@pytest.fixture
def berlin() -> None:
    live_in("Europe/Berlin")


def live_in(zone: str) -> None:
    Organisation.objects.update_or_create(pk=1, defaults={"time_zone": zone})
    rollups.follow_time_zone()


def requests_by_day() -> dict[date, int]:
    found = rows("SELECT day, sum(requests)::int FROM usage_cost_day WHERE level = 2 GROUP BY day")
    return dict(found)


# In Berlin 29 March 2026 has 23 hours and 25 October 2026 has 25.
CUTS = [
    ("2026-03-28T22:59:59Z", date(2026, 3, 28)),
    ("2026-03-28T23:00:00Z", date(2026, 3, 29)),
    ("2026-03-29T21:59:59Z", date(2026, 3, 29)),
    ("2026-03-29T22:00:00Z", date(2026, 3, 30)),
    ("2026-10-24T22:00:00Z", date(2026, 10, 25)),
    ("2026-10-25T22:59:59Z", date(2026, 10, 25)),
    ("2026-10-25T23:00:00Z", date(2026, 10, 26)),
]


@pytest.mark.parametrize(("moment", "day"), CUTS)
def test_a_day_begins_at_local_midnight(moment: str, day: date, berlin: None) -> None:
    with time_machine.travel(moment, tick=False):
        take_in([usage_event(started_at=moment)])
    assert requests_by_day() == {day: 1}
    assert differences() == []


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata", "Pacific/Auckland", "UTC"])
def test_days_are_cut_anew_when_the_organisation_moves(zone: str, berlin: None) -> None:
    with time_machine.travel("2026-10-26T12:00:00Z", tick=False):
        take_in(
            usage_event(started_at=f"2026-10-25T{hour:02d}:{minute:02d}:00+00:00")
            for hour in range(24)
            for minute in (10, 40)
        )
        live_in(zone)
        assert differences() == []
    assert sum(requests_by_day().values()) == 48
    if zone == "UTC":
        assert requests_by_day() == {date(2026, 10, 25): 48}
    if zone == "Asia/Kolkata":  # midnight there is 18:30 UTC
        assert requests_by_day() == {date(2026, 10, 25): 37, date(2026, 10, 26): 11}


def test_days_that_left_the_ledger_are_cut_along_hours(settings: Any, berlin: None) -> None:
    from gateway_admin.usage import partitions

    with time_machine.travel("2026-01-10T12:00:00Z", tick=False):
        take_in([usage_event(started_at="2026-01-09T23:30:00+00:00")])
    settings.USAGE_RETENTION_DAYS = 40
    with time_machine.travel("2026-06-10T12:00:00Z", tick=False):
        take_in([usage_event(started_at="2026-06-10T11:30:00+00:00")])
        partitions.maintain()
        assert date(2026, 1, 10) in requests_by_day()
        live_in("UTC")
    assert requests_by_day() == {date(2026, 1, 9): 1, date(2026, 6, 10): 1}


def test_spend_of_any_minute_is_exact(berlin: None) -> None:
    with time_machine.travel("2026-10-25T12:00:00Z", tick=False):
        take_in(
            usage_event(started_at=f"2026-10-25T0{hour}:{minute:02d}:30+00:00", cost="0.01")
            for hour in range(5)
            for minute in range(0, 60, 10)
        )
    start = datetime(2026, 10, 25, 0, 25, tzinfo=UTC)
    end = datetime(2026, 10, 25, 3, 45, tzinfo=UTC)
    spent = spend_between(scope=EVERYTHING, filters=Filters(), start=start, end=end)
    assert spent == Decimal("0.20")  # 3 + 6 + 6 + 5


def test_hours_are_utc(berlin: None) -> None:
    with time_machine.travel("2026-10-25T12:00:00Z", tick=False):
        take_in(
            usage_event(started_at=f"2026-10-25T{hour}:30:00+00:00") for hour in ("00", "01")
        )  # 02:30 in Berlin, twice
    period = Period("hour", datetime(2026, 10, 25, tzinfo=UTC), datetime(2026, 10, 26, tzinfo=UTC))
    filters = Filters(environment=builders.environment().pk)
    found = spend(scope=EVERYTHING, filters=filters, period=period, by_time=True)
    assert [(row.at.hour, row.totals.requests) for row in found] == [(0, 1), (1, 1)]
