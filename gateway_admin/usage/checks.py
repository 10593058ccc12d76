"""Does the ledger agree with its rollups? Read-only."""

from dataclasses import dataclass
from datetime import datetime

from django.db import connection

from gateway_admin.usage import rollups
from gateway_admin.usage.rollups import Span


@dataclass(frozen=True)
class Difference:
    """Rows of one rollup table that are not what the ledger gives."""

    table: str
    missing: int  # rows the ledger gives and the table lacks or has otherwise
    surplus: int  # rows the table has and the ledger does not give


def differences(*, start: datetime | None = None, end: datetime | None = None) -> list[Difference]:
    """Compare the rollups of whole UTC days (hours) and whole local days with the ledger.

    Only what the ledger still holds in full is compared; an empty list means equality.
    """
    extent = rollups.ledger_extent()
    if extent is None:
        return []
    first, last = max(start or extent[0], extent[0]), min(end or extent[1], extent[1])
    zone = rollups.rollup_time_zone()
    found = []
    for span in (rollups.hour_span(), rollups.day_span(zone)):
        begin, stop = rollups.whole_spans(span, first, last)
        if begin < stop:
            found += _of_span(span, begin, stop)
    return [difference for difference in found if difference.missing or difference.surplus]


def _of_span(span: Span, start: datetime, end: datetime) -> list[Difference]:
    source = rollups.events_between(start, end)
    of_table = f"{span.name} >= {span.literal(start)} AND {span.name} < {span.literal(end)}"
    cost = ", ".join(("level", span.name, "series_id", *rollups.COUNTERS))
    latency = f"level, {span.name}, series_id, measure, first_bucket, counts"
    found = [
        _compare(f"usage_cost_{span.name}", cost, rollups.cost_of_events(span, source), of_table),
        _compare(
            f"usage_latency_{span.name}",
            latency,
            rollups.latency_of_events(span, source),
            of_table,
        ),
    ]
    if span.name == "day":
        customers = "environment_id, customer, day, model, requests, cost, cost_nano"
        expected = rollups.customers_of_events(span, source)
        found.append(_compare("usage_customer_day", customers, expected, of_table))
    return found


def _compare(table: str, columns: str, expected: str, of_table: str) -> Difference:
    query = f"""
        WITH expected AS MATERIALIZED (SELECT {columns} FROM ({expected}) e),
             actual AS MATERIALIZED (SELECT {columns} FROM {table} WHERE {of_table})
        SELECT (SELECT count(*) FROM (SELECT * FROM expected EXCEPT ALL SELECT * FROM actual) a),
               (SELECT count(*) FROM (SELECT * FROM actual EXCEPT ALL SELECT * FROM expected) b)
    """
    with connection.cursor() as cursor:
        cursor.execute(query)
        missing, surplus = cursor.fetchone()
    return Difference(table, missing, surplus)
