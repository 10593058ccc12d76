"""Sums by group, the commands that check and rebuild, and history in bulk."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from gateway_admin.usage.backfill import backfill
from gateway_admin.usage.queries import Filters, Period, Scope, spend
from tests import builders
from tests.bench.events import Mix
from tests.usage.ledger import assert_rollups_hold, by_model, take_in, usage_event

pytestmark = pytest.mark.django_db
EVERYTHING = Scope(everything=True)


def test_sums_by_group_equal_sums_by_hand() -> None:
    events = Mix(keys=12, teams=3).batch(300, now=datetime.now(UTC), spread_s=200_000)
    take_in(events)
    today = datetime.now(UTC).date()
    period = Period("day", today - timedelta(days=4), today + timedelta(days=1))
    found = spend(scope=EVERYTHING, filters=Filters(), period=period, group="model")
    assert {row.group: row.totals.cost for row in found} == by_model(events)
    for group in ("team", "key", "user", "deployment", "status", "error_class"):
        grouped = spend(scope=EVERYTHING, filters=Filters(), period=period, group=group)
        assert sum(row.totals.requests for row in grouped) == 300


def test_check_ledger_finds_a_wrong_rollup_and_rebuild_repairs_it() -> None:
    events = Mix(keys=5, teams=2).batch(80, now=datetime.now(UTC), spread_s=90_000)
    take_in(events)
    call_command("check_ledger")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE usage_cost_hour SET cost = cost + 1 WHERE level = 0")
        cursor.execute("DELETE FROM usage_latency_day WHERE level = 1")
    with pytest.raises(CommandError, match="rebuild_rollups"):
        call_command("check_ledger")
    call_command("rebuild_rollups")
    call_command("check_ledger")
    assert_rollups_hold(events)


def test_rebuild_takes_dates() -> None:
    day = (datetime.now(UTC) - timedelta(days=2)).date()
    take_in([usage_event(started_at=f"{day}T12:00:00+00:00")])
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM usage_cost_hour")
        cursor.execute("DELETE FROM usage_cost_day")
    after = (day + timedelta(days=1)).isoformat()
    call_command("rebuild_rollups", "--from", day.isoformat(), "--to", after)
    call_command("check_ledger", "--from", day.isoformat(), "--to", after)


def test_history_of_any_age_can_be_written() -> None:
    old = datetime.now(UTC) - timedelta(days=59)
    events = Mix(keys=5, teams=2).batch(120, now=old, spread_s=200_000)
    told: list[int] = []
    environment = builders.environment()
    assert backfill(environment=environment, events=iter(events), progress=told.append) == 120
    assert backfill(environment=environment, events=events) == 0
    assert told == [120]
    assert_rollups_hold(events)


def test_history_that_is_wrong_is_not_written() -> None:
    with pytest.raises(ValueError, match="cost is negative"):
        backfill(environment=builders.environment(), events=[usage_event(cost="-1")])


def test_an_unpriced_request_is_not_free() -> None:
    take_in([usage_event(cost=None), usage_event(cost="0.5"), usage_event(cost=None)])
    today = datetime.now(UTC).date()
    period = Period("day", today, today + timedelta(days=1))
    (row,) = spend(scope=EVERYTHING, filters=Filters(), period=period)
    assert (row.totals.cost, row.totals.unpriced, row.totals.requests) == (Decimal("0.5"), 2, 3)
    assert row.totals.spend == Decimal("0.5")
