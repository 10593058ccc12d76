"""Daily partitions of the ledger: made ahead, made for late events, dropped by retention."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

DAYS_AHEAD = 7
LOCK_WAIT = "5s"  # a partition's lock must not queue behind a long export and stop ingest
_MAINTENANCE_LOCK = 0x75_7361_6765  # "usage"
_PARTITION_NAME = re.compile(r"^usage_event_(\d{8})$")


def partition_name(day: date) -> str:
    return f"usage_event_{day:%Y%m%d}"


def existing_days() -> set[date]:
    """UTC days that have a partition."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
            " WHERE i.inhparent = 'usage_event'::regclass"
        )
        found = (_PARTITION_NAME.match(name) for (name,) in cursor.fetchall())
    return {datetime.strptime(match[1], "%Y%m%d").date() for match in found if match}  # noqa: DTZ007


def create_missing(days: Iterable[date]) -> list[date]:
    """Create the partitions that these UTC days lack; returns the days that got one."""
    missing = sorted(set(days) - existing_days())
    if missing:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_MAINTENANCE_LOCK])
            for day in missing:
                cursor.execute(_create_sql(day))
    return missing


def _create_sql(day: date) -> str:
    start = datetime.combine(day, time.min)
    return (
        f"CREATE TABLE IF NOT EXISTS {partition_name(day)} PARTITION OF usage_event"
        f" FOR VALUES FROM ('{start}+00') TO ('{start + timedelta(days=1)}+00')"
    )


def accepted_days(now: datetime) -> Iterator[date]:
    """UTC days that events may arrive for: the accepted age back, some days ahead."""
    first = now.date() - timedelta(days=settings.USAGE_ACCEPTED_AGE_DAYS)
    for offset in range(settings.USAGE_ACCEPTED_AGE_DAYS + DAYS_AHEAD + 1):
        yield first + timedelta(days=offset)


def drop_expired(now: datetime) -> list[date]:
    """Drop partitions that are wholly older than the retention; returns their days.

    Rollups stay: spend and percentiles outlive the single requests.
    """
    keep_days = max(settings.USAGE_RETENTION_DAYS, settings.USAGE_ACCEPTED_AGE_DAYS + 1)
    horizon = now.date() - timedelta(days=keep_days)
    dropped = sorted(day for day in existing_days() if day < horizon)
    for day in dropped:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_WAIT}'")
            cursor.execute(f"DROP TABLE IF EXISTS {partition_name(day)}")
    return dropped


def maintain() -> dict[str, list[str]] | None:
    """Create and drop what is due. None: another process is at it."""
    with _only_one() as alone:
        if not alone:
            return None
        now = timezone.now()
        return {
            "created": [str(day) for day in create_missing(accepted_days(now))],
            "dropped": [str(day) for day in drop_expired(now)],
        }


@contextmanager
def _only_one() -> Iterator[bool]:
    """Hold the maintenance lock for a while; False when somebody else holds it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [_MAINTENANCE_LOCK])
        (alone,) = cursor.fetchone()
    try:
        yield alone
    finally:
        if alone:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_MAINTENANCE_LOCK])
