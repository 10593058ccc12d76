"""Partitions are there before events need them and go when their time is over."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.db import connection

from gateway_admin.usage import partitions
from gateway_admin.usage.tasks import maintain_partitions
from tests.usage.ledger import assert_rollups_hold, rollup_totals, take_in, usage_event

pytestmark = pytest.mark.django_db


def test_it_makes_partitions_for_late_and_coming_days() -> None:
    maintain_partitions()
    today = datetime.now(UTC).date()
    days = partitions.existing_days()
    assert {today - timedelta(days=30), today, today + timedelta(days=7)} <= days


def test_it_makes_the_partition_that_an_event_lacks() -> None:
    with time_machine.travel("2026-03-29T23:59:59Z", tick=False):
        take_in([usage_event(started_at="2026-03-29T23:59:59.999999+00:00")])
        take_in([usage_event(started_at="2026-03-30T00:00:00+00:00")])
        take_in([usage_event(started_at="2026-03-30T01:30:00+02:00")])
    assert {date(2026, 3, 29), date(2026, 3, 30)} <= partitions.existing_days()
    with connection.cursor() as cursor:
        cursor.execute("SELECT tableoid::regclass::text, count(*) FROM usage_event GROUP BY 1")
        found = dict(cursor.fetchall())
    assert found == {"usage_event_20260329": 2, "usage_event_20260330": 1}


def test_retention_drops_old_events_and_keeps_their_rollups(settings: Any) -> None:
    settings.USAGE_RETENTION_DAYS = 40
    with time_machine.travel("2026-01-10T12:00:00Z", tick=False):
        take_in([usage_event(started_at="2026-01-10T11:00:00+00:00")])
    with time_machine.travel("2026-02-20T12:00:00Z", tick=False):
        recent = usage_event(started_at="2026-02-20T11:00:00+00:00")
        take_in([recent])
        done = partitions.maintain()
    assert done is not None
    assert "2026-01-10" in done["dropped"]
    assert date(2026, 1, 10) not in partitions.existing_days()
    assert rollup_totals("day", 2)[0] == 2


def test_retention_never_drops_days_that_late_events_may_fill(settings: Any) -> None:
    settings.USAGE_RETENTION_DAYS = 1
    event = usage_event(started_at=(datetime.now(UTC) - timedelta(days=29)).isoformat())
    take_in([event])
    maintain_partitions()
    assert_rollups_hold([event])


def test_a_second_beat_does_nothing() -> None:
    import threading

    results: list[Any] = []

    def other() -> None:
        results.append(partitions.maintain())
        connection.close()

    with partitions._only_one() as alone:
        assert alone
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert results == [None]
