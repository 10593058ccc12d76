"""From what a page's address says about time to whole spans of the rollups."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from gateway_admin.usage.queries import Period

DAYS = {"1h": 1, "24h": 2, "7d": 7, "30d": 30, "90d": 90}
WORDS = {
    "1h": "Last hour",
    "24h": "24 hours",
    "7d": "7 days",
    "30d": "30 days",
    "90d": "90 days",
    "month": "This month",
    "last-month": "Last month",
    "custom": "Custom",
}
LONGEST_DAYS = 800
LONGEST_BY_HOUR = timedelta(days=8)


@dataclass(frozen=True)
class DayRange:
    """Whole days of the organisation, both ends included."""

    first: date
    last: date

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1

    @property
    def period(self) -> Period:
        return Period("day", self.first, self.last + timedelta(days=1))

    def before(self) -> "DayRange":
        """The same number of days just before."""
        length = timedelta(days=self.days)
        return DayRange(self.first - length, self.last - length)

    def all_days(self) -> list[date]:
        return [self.first + timedelta(days=number) for number in range(self.days)]


def day_range(*, preset: str, since: date | None, until: date | None, today: date) -> DayRange:
    """Dates win over a preset; a range that is upside down or endless is put right."""
    if since or until:
        last = until or max(today, since or today)
        first = since or last - timedelta(days=29)
        if first > last:
            first, last = last, first
        return DayRange(max(first, last - timedelta(days=LONGEST_DAYS - 1)), last)
    if preset == "month":
        return DayRange(today.replace(day=1), today)
    if preset == "last-month":
        last = today.replace(day=1) - timedelta(days=1)
        return DayRange(last.replace(day=1), last)
    return DayRange(today - timedelta(days=DAYS.get(preset, 30) - 1), today)


def hour_period(*, hours: int, now: datetime) -> Period:
    """The last hours up to now; the first one is whole, the current one is not over."""
    this_hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return Period("hour", this_hour - timedelta(hours=hours - 1), this_hour + timedelta(hours=1))


def moments(days: DayRange, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """When a range of days begins and ends, in UTC."""
    start = datetime.combine(days.first, time.min, zone)
    end = datetime.combine(days.last + timedelta(days=1), time.min, zone)
    return start.astimezone(UTC), end.astimezone(UTC)


def hours_of(period: Period) -> list[datetime]:
    """All hours of a period by hour."""
    assert isinstance(period.start, datetime)
    assert isinstance(period.end, datetime)
    count = int((period.end - period.start).total_seconds() // 3600)
    return [period.start + timedelta(hours=number) for number in range(count)]
