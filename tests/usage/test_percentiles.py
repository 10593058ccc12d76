"""Percentiles read from merged histograms, against exact ones."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway_admin.usage.models import Measure
from gateway_admin.usage.queries import Filters, Percentiles, Period, Scope, latency
from gateway_admin.usage.rollups import BUCKET_FACTOR
from tests import builders
from tests.usage.ledger import rows, take_in, usage_event

pytestmark = pytest.mark.django_db
EVERYTHING = Scope(everything=True)
TOLERANCE = math.sqrt(BUCKET_FACTOR) * (1 + 1e-9)  # half a bucket, as a factor


def exact(values: list[float], share: float) -> float:
    """Nearest rank."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def last_days(days: int = 3) -> Period:
    today = datetime.now(UTC).date()
    return Period("day", today - timedelta(days=days), today + timedelta(days=1))


def percentiles(measure: Measure, period: Period | None = None) -> Percentiles:
    filters = Filters(environment=builders.environment().pk)
    (row,) = latency(
        scope=EVERYTHING, filters=filters, period=period or last_days(), measures=[measure]
    )
    return row.percentiles


@given(st.lists(st.floats(0.02, 3_600_000), min_size=1, max_size=60))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_they_are_within_half_a_bucket_however_batches_are_cut(values: list[float]) -> None:
    from django.db import transaction

    now = datetime.now(UTC)
    with transaction.atomic():
        for number, value in enumerate(values):
            started_at = now - timedelta(minutes=41 * (number % 50))
            take_in([usage_event(latency_ms=value, started_at=started_at.isoformat())])
        found = percentiles(Measure.LATENCY)
        assert found.count == len(values)
        for share, measured in ((0.5, found.p50_ms), (0.95, found.p95_ms), (0.99, found.p99_ms)):
            assert measured is not None
            wanted = exact(values, share)
            assert wanted / TOLERANCE <= measured <= wanted * TOLERANCE
        transaction.set_rollback(True)


def test_hours_and_days_give_the_same() -> None:
    now = datetime.now(UTC)
    take_in(usage_event(latency_ms=float(1.3**n)) for n in range(1, 40))
    hour = now.replace(minute=0, second=0, microsecond=0)
    by_hour = Period("hour", hour - timedelta(hours=1), hour + timedelta(hours=2))
    assert percentiles(Measure.LATENCY, by_hour) == percentiles(Measure.LATENCY)


def test_only_answered_requests_count_and_first_tokens_only_of_streams() -> None:
    take_in(
        [
            usage_event(latency_ms=100.0, ttft_ms=40.0, streaming=True),
            usage_event(latency_ms=100.0, ttft_ms=90.0, streaming=False),
            usage_event(latency_ms=0.1, status="refused", error_class="permission"),
            usage_event(latency_ms=9_000.0, status="error", error_class="timeout"),
        ]
    )
    assert percentiles(Measure.LATENCY).count == 2
    assert percentiles(Measure.FIRST_TOKEN).count == 1


def test_histograms_merge_by_addition() -> None:
    ((first, merged),) = rows(
        "SELECT least(3, 1), usage_histogram_add(3, ARRAY[1, 2]::bigint[], 1, ARRAY[5]::bigint[])"
    )
    assert (first, merged) == (1, [5, 0, 1, 2])
