"""What the tests of this area share: ingest in one line, and sums made without SQL."""

from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from django.db import connection

from gateway_admin.catalog.models import Environment
from gateway_admin.usage.checks import differences
from gateway_admin.usage.services import ingest
from proxy.contract import UsageEventDocument, UsageReceipt
from tests import builders
from tests.bench.events import usage_event


def take_in(events: Iterable[Any], environment: Environment | None = None) -> UsageReceipt:
    return ingest(
        environment=environment or builders.environment(),
        replica=None,
        batch={"replica_id": "", "batch_id": "", "events": list(events)},
    )


def rows(query: str, *values: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        found: list[tuple[Any, ...]] = cursor.fetchall()
    return found


def rollup_totals(span: str, level: int) -> tuple[int, Decimal, int]:
    """Requests, cost and input tokens of a rollup table at one level."""
    query = "SELECT coalesce(sum(requests), 0)::bigint, coalesce(sum(cost), 0), "
    query += "coalesce(sum(input_tokens), 0)::bigint FROM "
    ((requests, cost, tokens),) = rows(f"{query} usage_cost_{span} WHERE level = %s", level)
    return requests, cost, tokens


def assert_rollups_hold(events: Iterable[UsageEventDocument]) -> None:
    """All tables at all levels sum to these events, and equal what the ledger gives."""
    kept = list({event["event_id"]: event for event in events}.values())
    expected = (
        len(kept),
        sum((Decimal(event["cost"] or 0) for event in kept), Decimal(0)),
        sum(event["input_tokens"] for event in kept),
    )
    for span in ("hour", "day"):
        for level in (0, 1, 2):
            assert rollup_totals(span, level) == expected
    assert differences() == []


def by_model(events: Iterable[UsageEventDocument]) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for event in events:
        sums[event["model"]] += Decimal(event["cost"] or 0)
    return dict(sums)


__all__ = ["assert_rollups_hold", "by_model", "rollup_totals", "rows", "take_in", "usage_event"]
