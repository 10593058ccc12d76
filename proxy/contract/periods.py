"""Budget periods are computed, never reset.

A period is named by its kind and its first day in the organisation's time zone, so both
planes and every replica agree on it without speaking to each other. Days are calendar days
of that zone: on the day a clock is put forward a day has 23 hours, on the other one 25.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from proxy.contract.documents import CalendarDocument

LIFETIME = "life"
# A rolling period is counted in so many buckets, and one more: the oldest is only partly
# inside the window and counted whole, so a window never holds more than its limit.
ROLLING_BUCKETS = 60


@dataclass(frozen=True, slots=True)
class Period:
    """`start` and `end` are aware UTC; None where there is none."""

    id: str
    start: datetime | None
    end: datetime | None
    bucket_s: int | None = None  # width of a bucket of a rolling period, seconds

    def bucket(self, at: datetime) -> int | None:
        """Index of the bucket that a moment falls into; None unless rolling."""
        return int(at.timestamp()) // self.bucket_s if self.bucket_s else None


def period_of(
    kind: str, *, at: datetime, calendar: CalendarDocument, rolling_hours: int | None = None
) -> Period:
    """The period that an aware moment belongs to."""
    if kind == "lifetime":
        return Period(LIFETIME, None, None)
    if kind == "rolling":
        hours = rolling_hours or 24
        bucket_s = hours * 3600 // ROLLING_BUCKETS
        return Period(f"r{hours}", at - timedelta(hours=hours), None, bucket_s)
    zone = ZoneInfo(calendar["time_zone"])
    today = at.astimezone(zone).date()
    return _calendar_period(
        kind, today, calendar["time_zone"], calendar["week_start"], calendar["fiscal_year_month"]
    )


@lru_cache(maxsize=512)
def _calendar_period(
    kind: str, today: date, time_zone: str, week_start: int, fiscal_month: int
) -> Period:
    first, after = _bounds(kind, today, week_start, fiscal_month)
    zone = ZoneInfo(time_zone)
    return Period(
        f"{kind[0]}{first.isoformat()}",
        datetime(first.year, first.month, first.day, tzinfo=zone).astimezone(UTC),
        datetime(after.year, after.month, after.day, tzinfo=zone).astimezone(UTC),
    )


def _bounds(kind: str, today: date, week_start: int, fiscal_month: int) -> tuple[date, date]:
    """First day of the period, and the first day after it."""
    if kind == "day":
        return today, today + timedelta(days=1)
    if kind == "week":
        first = today - timedelta(days=(today.isoweekday() - week_start) % 7)
        return first, first + timedelta(days=7)
    months = {"month": 1, "quarter": 3, "year": 12}.get(kind)
    if months is None:
        raise ValueError(f"unknown kind of period {kind!r}")
    # Months since the fiscal year's first one, cut to whole periods.
    index = today.year * 12 + today.month - 1
    begin = index - (index - (fiscal_month - 1)) % months
    return _month(begin), _month(begin + months)


def _month(index: int) -> date:
    return date(index // 12, index % 12 + 1, 1)
