"""Hourly and daily rollups of the ledger: one code path for ingest, back-fill and rebuild.

Costs are kept at three levels (see `models.Level`), histograms at the two coarser ones.
Hours are UTC; days are cut in `RollupState.time_zone`. Every writer takes the rollup lock:
ingest shares it, a rebuild holds it alone, so that neither sees half of the other.

Histograms use log buckets of factor 1.08: bucket k holds (1.08^(k-1), 1.08^k] ms, so a
percentile read from the middle of a bucket is within 4% of the exact one. They merge by
addition; percentiles of any span or group come from merged histograms only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from gateway_admin.accounts.models import Organisation
from gateway_admin.usage.models import RollupState
from gateway_admin.usage.partitions import existing_days

BUCKET_FACTOR = 1.08
SMALLEST_MS = 0.01  # shorter durations fall into its bucket
ROLLUP_LOCK = 0x726F_6C6C  # "roll"

COUNTERS = (
    "requests",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "cost",
    "cost_nano",
    "saved_cost",
    "cache_hits",
    "unpriced",
    "estimated",
    "fallbacks",
    "streams",
)
FALLBACK_REASONS = "('fallback', 'context_window', 'content_policy')"

# Unpriced: it used something that costs money, and no price was known.
_COST_OF_EVENTS = f"""
    count(*) AS requests,
    sum(e.input_tokens) AS input_tokens,
    sum(e.output_tokens) AS output_tokens,
    sum(e.cache_read_tokens) AS cache_read_tokens,
    sum(e.cache_write_tokens) AS cache_write_tokens,
    sum(e.reasoning_tokens) AS reasoning_tokens,
    coalesce(sum(e.cost), 0) AS cost,
    coalesce(sum(ceil(e.cost * 1e9)), 0) AS cost_nano,
    coalesce(sum(e.saved_cost), 0) AS saved_cost,
    count(*) FILTER (WHERE e.why = 'cache') AS cache_hits,
    count(*) FILTER (WHERE e.cost IS NULL AND (e.status = 'ok'
        OR e.status <> 'refused' AND e.input_tokens + e.output_tokens > 0)) AS unpriced,
    count(*) FILTER (WHERE e.estimated) AS estimated,
    count(*) FILTER (WHERE e.why IN {FALLBACK_REASONS}) AS fallbacks,
    count(*) FILTER (WHERE e.streaming) AS streams
"""


@dataclass(frozen=True)
class Span:
    """How long the rows of a pair of rollup tables are."""

    name: str  # column and suffix of the tables
    of_event: str  # SQL: the span that an event belongs to
    of_hour: str  # SQL: the span that an hour belongs to
    time_zone: str = "UTC"

    def literal(self, moment: datetime) -> str:
        """SQL: the value of the span's column that begins at this moment."""
        if self.name == "hour":
            return f"'{moment.isoformat()}'::timestamptz"
        return f"'{moment.astimezone(ZoneInfo(self.time_zone)).date()}'::date"


def hour_span() -> Span:
    return Span("hour", "date_trunc('hour', e.started_at, 'UTC')", "e.hour")


def day_span(time_zone: str) -> Span:
    zone = ZoneInfo(time_zone).key.replace("'", "")
    return Span(
        "day",
        f"(e.started_at AT TIME ZONE '{zone}')::date",
        f"(e.hour AT TIME ZONE '{zone}')::date",
        zone,
    )


def rollup_time_zone() -> str:
    """The zone of the daily rollups."""
    state = RollupState.objects.filter(pk=1).first()
    return state.time_zone if state else "UTC"


def lock(cursor: CursorWrapper, *, alone: bool) -> None:
    """Until the transaction ends: shared by writers of events, held alone by a rebuild."""
    shared = "" if alone else "_shared"
    cursor.execute(f"SELECT pg_advisory_xact_lock{shared}(%s)", [ROLLUP_LOCK])


def add(cursor: CursorWrapper, *, source: str, time_zone: str) -> None:
    """Add the events of a table or subquery to all rollups; rows are locked in one order."""
    for span in (hour_span(), day_span(time_zone)):
        cursor.execute(_insert_cost(span, cost_of_events(span, source)))
        cursor.execute(_insert_latency(span, latency_of_events(span, source)))
    cursor.execute(_insert_customers(day_span(time_zone), source))


def cost_of_events(span: Span, source: str) -> str:
    """SQL: what the cost rollup of these events is, all levels."""
    sums = ", ".join(f"sum({name}) AS {name}" for name in COUNTERS)
    return f"""
        SELECT v.level::smallint AS level, b.span AS {span.name}, v.series_id, {sums}
        FROM (
            SELECT {span.of_event} AS span, e.series_id, {_COST_OF_EVENTS}
            FROM {source} e GROUP BY 1, 2
        ) b
        JOIN usage_series s ON s.id = b.series_id
        JOIN usage_series t ON t.id = s.parent_id
        CROSS JOIN LATERAL (VALUES (0, s.id), (1, t.id), (2, t.parent_id)) v (level, series_id)
        GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    """


def latency_of_events(span: Span, source: str) -> str:
    """SQL: the histograms of these events, both levels."""
    bucket = f"ceil(ln(greatest(m.ms, {SMALLEST_MS})) / ln({BUCKET_FACTOR}::float8))::integer"
    return _histograms(
        span,
        f"""
        SELECT {span.of_event} AS span, s.parent_id, m.measure, {bucket} AS bucket,
               count(*) AS n
        FROM {source} e
        JOIN usage_series s ON s.id = e.series_id
        CROSS JOIN LATERAL (VALUES
            (0, e.latency_ms),
            (1, CASE WHEN e.streaming THEN e.ttft_ms END),
            (2, e.overhead_ms)
        ) m (measure, ms)
        WHERE e.status = 'ok' AND m.ms IS NOT NULL
        GROUP BY 1, 2, 3, 4
        """,
    )


def _histograms(span: Span, samples: str) -> str:
    """SQL: arrays from rows (span, parent_id: a series of level TEAM, measure, bucket, n)."""
    return f"""
        SELECT level::smallint AS level, span AS {span.name}, series_id,
               measure::smallint AS measure, (array_agg(bucket ORDER BY bucket))[1]::smallint
               AS first_bucket, usage_histogram(
                   array_agg(bucket ORDER BY bucket), array_agg(n ORDER BY bucket)) AS counts
        FROM (
            SELECT v.level, b.span, v.series_id, b.measure, b.bucket, sum(b.n)::bigint AS n
            FROM ({samples}) b
            JOIN usage_series t ON t.id = b.parent_id
            CROSS JOIN LATERAL (VALUES (1, t.id), (2, t.parent_id)) v (level, series_id)
            GROUP BY 1, 2, 3, 4, 5
        ) c
        GROUP BY level, span, series_id, measure ORDER BY 1, 2, 3, 4
    """


def _insert_cost(span: Span, rows: str) -> str:
    columns = ", ".join(COUNTERS)
    added = ", ".join(f"{name} = r.{name} + excluded.{name}" for name in COUNTERS)
    return f"""
        INSERT INTO usage_cost_{span.name} AS r (level, {span.name}, series_id, {columns})
        {rows}
        ON CONFLICT (level, {span.name}, series_id) DO UPDATE SET {added}
    """


def customers_of_events(span: Span, source: str) -> str:
    """SQL: what each customer was served per day and model."""
    return f"""
        SELECT e.environment_id, e.customer, {span.of_event} AS day, e.model,
               count(*) AS requests, coalesce(sum(e.cost), 0) AS cost,
               coalesce(sum(ceil(e.cost * 1e9)), 0) AS cost_nano
        FROM {source} e WHERE e.customer <> '' AND e.status <> 'refused'
        GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
    """


def _insert_customers(span: Span, source: str) -> str:
    return f"""
        INSERT INTO usage_customer_day AS r
            (environment_id, customer, day, model, requests, cost, cost_nano)
        {customers_of_events(span, source)}
        ON CONFLICT (environment_id, customer, day, model) DO UPDATE SET
            requests = r.requests + excluded.requests, cost = r.cost + excluded.cost,
            cost_nano = r.cost_nano + excluded.cost_nano
    """


def _insert_latency(span: Span, rows: str) -> str:
    return f"""
        INSERT INTO usage_latency_{span.name} AS r
            (level, {span.name}, series_id, measure, first_bucket, counts)
        {rows}
        ON CONFLICT (level, {span.name}, series_id, measure) DO UPDATE SET
            first_bucket = least(r.first_bucket, excluded.first_bucket),
            counts = usage_histogram_add(
                r.first_bucket, r.counts, excluded.first_bucket, excluded.counts)
    """


def events_between(start: datetime, end: datetime) -> str:
    """SQL: a subquery over the ledger; the bounds are ours, not somebody's text."""
    return (
        f"(SELECT * FROM usage_event WHERE started_at >= '{start.isoformat()}'"
        f" AND started_at < '{end.isoformat()}')"
    )


def ledger_extent() -> tuple[datetime, datetime] | None:
    """From when to when the ledger still has all events: whole partitions."""
    days = existing_days()
    if not days:
        return None
    utc = ZoneInfo("UTC")
    return (
        datetime.combine(min(days), time.min, utc),
        datetime.combine(max(days) + timedelta(days=1), time.min, utc),
    )


def rebuild(*, start: datetime | None = None, end: datetime | None = None) -> Iterator[date]:
    """Recompute the rollups of a time from the ledger, day by day; yields each day done.

    Days that the ledger no longer has in full keep their rollups.
    """
    extent = ledger_extent()
    if extent is None:
        return
    zone = ZoneInfo(rollup_time_zone())
    first, last = max(start or extent[0], extent[0]), min(end or extent[1], extent[1])
    day = first.date()
    while datetime.combine(day, time.min, first.tzinfo) < last:
        midnight = datetime.combine(day, time.min, first.tzinfo)
        _rebuild_hours(midnight, midnight + timedelta(days=1))
        day += timedelta(days=1)
    day = first.astimezone(zone).date()
    while (begins := midnight_of(day, zone)) < last:
        if begins >= extent[0]:
            _rebuild_day(day, zone)
        yield day
        day += timedelta(days=1)


def rebuild_customers(cursor: CursorWrapper, *, start: datetime) -> None:
    """Recompute what customers were served since the local day of a moment.

    The caller holds the lock alone, in a transaction; the ledger has that day in full.
    """
    zone = ZoneInfo(rollup_time_zone())
    day = start.astimezone(zone).date()
    span, extent = day_span(zone.key), ledger_extent()
    cursor.execute("DELETE FROM usage_customer_day WHERE day >= %s", [day])
    if extent is not None:
        source = events_between(midnight_of(day, zone), extent[1])
        cursor.execute(_insert_customers(span, source))


def whole_spans(span: Span, start: datetime, end: datetime) -> tuple[datetime, datetime]:
    """The part of a time that whole hours, or whole days of the span's zone, make up."""
    if span.name == "day":
        zone = ZoneInfo(span.time_zone)
        return _first_whole_day(start, zone), midnight_of(end.astimezone(zone).date(), zone)
    hour = timedelta(hours=1)
    begin = start.replace(minute=0, second=0, microsecond=0)
    return (
        begin if begin == start else begin + hour,
        end.replace(minute=0, second=0, microsecond=0),
    )


def midnight_of(day: date, zone: ZoneInfo) -> datetime:
    """When a day begins in a zone, in UTC."""
    return datetime.combine(day, time.min, zone).astimezone(ZoneInfo("UTC"))


@transaction.atomic
def _rebuild_hours(start: datetime, end: datetime) -> None:
    """Bounds are whole hours."""
    span, source = hour_span(), events_between(start, end)
    with connection.cursor() as cursor:
        lock(cursor, alone=True)
        for kind in ("cost", "latency"):
            cursor.execute(
                f"DELETE FROM usage_{kind}_hour WHERE hour >= %s AND hour < %s", [start, end]
            )
        cursor.execute(_insert_cost(span, cost_of_events(span, source)))
        cursor.execute(_insert_latency(span, latency_of_events(span, source)))


@transaction.atomic
def _rebuild_day(day: date, zone: ZoneInfo) -> None:
    span = day_span(zone.key)
    source = events_between(midnight_of(day, zone), midnight_of(day + timedelta(days=1), zone))
    with connection.cursor() as cursor:
        lock(cursor, alone=True)
        for kind in ("cost", "latency"):
            cursor.execute(f"DELETE FROM usage_{kind}_day WHERE day = %s", [day])
        cursor.execute("DELETE FROM usage_customer_day WHERE day = %s", [day])
        cursor.execute(_insert_customers(span, source))
        cursor.execute(_insert_cost(span, cost_of_events(span, source)))
        cursor.execute(_insert_latency(span, latency_of_events(span, source)))


@transaction.atomic
def follow_time_zone() -> str | None:
    """Cut the days anew if the organisation changed its time zone; returns the new zone.

    Days that the ledger no longer has are cut along whole hours of the hourly rollups.
    """
    wanted = Organisation.objects.values_list("time_zone", flat=True).first() or "UTC"
    if wanted == rollup_time_zone():
        return None
    span = day_span(wanted)
    extent = ledger_extent()
    with connection.cursor() as cursor:
        lock(cursor, alone=True)
        RollupState.objects.update_or_create(pk=1, defaults={"time_zone": wanted})
        cursor.execute("DELETE FROM usage_cost_day")
        cursor.execute("DELETE FROM usage_latency_day")
        kept_from = extent[0] if extent else None  # a midnight of UTC: no hour straddles it
        cursor.execute(_insert_cost(span, _cost_of_hours(span, kept_from)))
        cursor.execute(_insert_latency(span, _latency_of_hours(span, kept_from)))
        if extent:
            source = events_between(*extent)
            # Customers have no hours: days that the ledger no longer has stay as they were cut.
            whole = _first_whole_day(extent[0], ZoneInfo(wanted))
            cursor.execute(f"DELETE FROM usage_customer_day WHERE day >= {span.literal(whole)}")
            cursor.execute(_insert_customers(span, events_between(whole, extent[1])))
            cursor.execute(_insert_cost(span, cost_of_events(span, source)))
            cursor.execute(_insert_latency(span, latency_of_events(span, source)))
    return wanted


def _first_whole_day(moment: datetime, zone: ZoneInfo) -> datetime:
    """The first local midnight that is not before `moment`."""
    day = moment.astimezone(zone).date()
    begins = midnight_of(day, zone)
    return begins if begins >= moment else midnight_of(day + timedelta(days=1), zone)


def _before(moment: datetime | None) -> str:
    return f"WHERE e.hour < '{moment.isoformat()}'" if moment else ""


def _cost_of_hours(span: Span, end: datetime | None) -> str:
    sums = ", ".join(f"sum(e.{name})" for name in COUNTERS)
    return f"""
        SELECT e.level, {span.of_hour}, e.series_id, {sums}
        FROM usage_cost_hour e {_before(end)} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    """


def _latency_of_hours(span: Span, end: datetime | None) -> str:
    where = _before(end) or "WHERE true"
    return _histograms(
        span,
        f"""
        SELECT {span.of_hour} AS span, e.series_id AS parent_id, e.measure,
               e.first_bucket + (u.i - 1)::integer AS bucket, sum(u.n) AS n
        FROM usage_latency_hour e
        CROSS JOIN LATERAL unnest(e.counts) WITH ORDINALITY u (n, i)
        {where} AND e.level = 1 AND u.n > 0
        GROUP BY 1, 2, 3, 4
        """,
    )
