"""The Latency page: how long answers take, where, and what fails."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from django.urls import reverse

from gateway_admin.dashboards.forms import LatencyForm
from gateway_admin.dashboards.periods import (
    LONGEST_BY_HOUR,
    DayRange,
    hour_period,
    hours_of,
    moments,
)
from gateway_admin.dashboards.words import ERROR_WORDS
from gateway_admin.frame import formats
from gateway_admin.usage.labels import labels_of
from gateway_admin.usage.models import Measure
from gateway_admin.usage.queries import (
    Filters,
    LatencyRow,
    Percentiles,
    Period,
    Scope,
    Totals,
    latency,
    spend,
    total,
)


@dataclass(frozen=True)
class Window:
    """What the page is about, in whole rollup spans, and its dates for links."""

    period: Period  # of the charts
    sums: Period  # the same time, in the longest spans that make it up
    since: str
    until: str

    @property
    def points(self) -> list[Any]:
        """Every span of the period, so that a gap is a gap."""
        if self.period.span == "hour":
            return hours_of(self.period)
        start, end = self.period.start, self.period.end
        return DayRange(start, date.fromordinal(end.toordinal() - 1)).all_days()


def window_of(form: LatencyForm, *, now: datetime, zone: ZoneInfo) -> Window:
    """By hour up to a week, by day beyond."""
    dated = form.value("since") or form.value("until")
    if form.preset == "24h" and not dated:
        period = hour_period(hours=24, now=now)
        assert isinstance(period.start, datetime)
        since = period.start.astimezone(zone).strftime("%Y-%m-%dT%H:%M")
        return Window(period, period, since, "")
    days = form.days(now.astimezone(zone).date())
    dates = (days.first.isoformat(), days.last.isoformat())
    start, end = moments(days, zone)
    if end - start <= LONGEST_BY_HOUR and start.minute == 0:
        by_hour = Period("hour", start, max(min(end, _next_hour(now)), start))
        return Window(by_hour, days.period, *dates)
    return Window(days.period, days.period, *dates)


def _next_hour(now: datetime) -> datetime:
    return hour_period(hours=1, now=now).end  # type: ignore[return-value]


@dataclass(frozen=True)
class LatencyLine:
    """One model or deployment."""

    name: str
    totals: Totals
    latency: Percentiles
    first_token: Percentiles
    overhead: Percentiles
    url: str


@dataclass(frozen=True)
class ErrorLine:
    """Requests of one error class; `words` say what it means."""

    name: str
    words: str
    count: int
    url: str


def tone_of_errors(rate: float | None) -> str:
    """From one in a hundred it is worth a look, from one in twenty it is bad."""
    if rate is None or rate < 0.01:
        return ""
    return "bad" if rate >= 0.05 else "warn"


@dataclass(frozen=True)
class LatencyReport:
    window: Window
    lines: list[LatencyLine]
    whole: LatencyLine
    errors: list[ErrorLine]
    failed_url: str

    @property
    def errors_total(self) -> int:
        return sum(line.count for line in self.errors)

    @property
    def failed_hint(self) -> str:
        totals = self.whole.totals
        words = f"{formats.count(totals.errors)} of {formats.count(totals.requests)}"
        return f"{words}; {formats.count(totals.refused)} refused" if totals.refused else words

    @property
    def failed_tone(self) -> str:
        return tone_of_errors(self.whole.totals.error_rate)

    @property
    def source(self) -> str:
        return "hourly rollups" if self.window.sums.span == "hour" else "daily rollups"


def latency_report(*, scope: Scope, form: LatencyForm, window: Window) -> LatencyReport:
    """Totals, one line per group, errors by class. Five queries."""
    filters, group, period = form.filters(), form.group_by, window.sums
    overall = _by_measure(latency(scope=scope, filters=filters, period=period))
    grouped: dict[Any, dict[Measure, Percentiles]] = defaultdict(dict)
    for row in latency(scope=scope, filters=filters, period=period, group=group):
        grouped[row.group][row.measure] = row.percentiles
    counts = spend(scope=scope, filters=filters, period=period, group=group)
    counts.sort(key=lambda row: row.totals.requests, reverse=True)
    labels = labels_of(group, (row.group for row in counts))
    lines = [
        _line(
            labels.name(row.group),
            row.totals,
            grouped.get(row.group, {}),
            _url(form, window, {group: row.group}) if row.group is not None else "",
        )
        for row in counts
    ]
    return LatencyReport(
        window,
        lines,
        _line("All", total(counts), overall, _url(form, window, {})),
        _errors(scope, filters, form, window),
        _url(form, window, {"status": "error"}),
    )


def _by_measure(rows: list[LatencyRow]) -> dict[Measure, Percentiles]:
    return {row.measure: row.percentiles for row in rows}


def _line(name: str, totals: Totals, found: dict[Measure, Percentiles], url: str) -> LatencyLine:
    return LatencyLine(
        name,
        totals,
        found.get(Measure.LATENCY, Percentiles()),
        found.get(Measure.FIRST_TOKEN, Percentiles()),
        found.get(Measure.OVERHEAD, Percentiles()),
        url,
    )


def _errors(scope: Scope, filters: Filters, form: LatencyForm, window: Window) -> list[ErrorLine]:
    rows = spend(scope=scope, filters=filters, period=window.sums, group="error_class")
    found = [
        ErrorLine(
            str(row.group).replace("_", " "),
            ERROR_WORDS.get(row.group, ("", ""))[0],
            row.totals.requests,
            _url(form, window, {"error": row.group}),
        )
        for row in rows
        if row.group is not None
    ]
    return sorted(found, key=lambda line: line.count, reverse=True)


def _url(form: LatencyForm, window: Window, more: dict[str, Any]) -> str:
    kept = {name: form.value(name) for name in form.narrowing if form.value(name)}
    times = {"since": window.since, **({"until": window.until} if window.until else {})}
    return f"{reverse('dashboards:requests')}?{urlencode({**kept, **more, **times})}"


@dataclass(frozen=True)
class Lines:
    """Percentiles over time; None is a span without answers."""

    points: list[Any]
    p50_ms: list[float | None]
    p95_ms: list[float | None]
    p99_ms: list[float | None]
    counts: list[int]

    @property
    def is_empty(self) -> bool:
        return not any(self.counts)


def percentile_lines(*, scope: Scope, form: LatencyForm, window: Window, measure: Measure) -> Lines:
    rows = latency(
        scope=scope,
        filters=form.filters(),
        period=window.period,
        measures=[measure],
        by_time=True,
    )
    found = {row.at: row.percentiles for row in rows}
    points = window.points
    cells = [found.get(_key(point)) for point in points]
    return Lines(
        points,
        [cell.p50_ms if cell else None for cell in cells],
        [cell.p95_ms if cell else None for cell in cells],
        [cell.p99_ms if cell else None for cell in cells],
        [cell.count if cell else 0 for cell in cells],
    )


@dataclass(frozen=True)
class ErrorLines:
    points: list[Any]
    classes: dict[str, list[int]]  # most frequent first
    requests: list[int]


def error_lines(*, scope: Scope, form: LatencyForm, window: Window) -> ErrorLines:
    """Failed requests over time by error class."""
    rows = spend(
        scope=scope,
        filters=form.filters(),
        period=window.period,
        group="error_class",
        by_time=True,
    )
    points = window.points
    position = {_key(point): number for number, point in enumerate(points)}
    sums: dict[str, list[int]] = {}
    requests = [0] * len(points)
    for row in rows:
        number = position[_key(row.at)]
        requests[number] += row.totals.requests
        if row.group is not None:
            line = sums.setdefault(row.group, [0] * len(points))
            line[number] += row.totals.requests
    ranked = sorted(sums, key=lambda name: sum(sums[name]), reverse=True)
    return ErrorLines(points, {name: sums[name] for name in ranked}, requests)


def _key(point: Any) -> Any:
    return point.astimezone(UTC) if isinstance(point, datetime) else point


CSV_HEADER = ("time", "measure", "answers", "p50_ms", "p95_ms", "p99_ms")


def csv_rows(lines: dict[Measure, Lines]) -> Iterator[list[Any]]:
    """One row per span and measure; spans without answers are left out."""
    for measure, line in lines.items():
        for point, count, *marks in zip(
            line.points, line.counts, line.p50_ms, line.p95_ms, line.p99_ms, strict=True
        ):
            if count:
                values = (f"{mark:.3f}" for mark in marks if mark is not None)
                yield [point.isoformat(), measure.label, count, *values]
