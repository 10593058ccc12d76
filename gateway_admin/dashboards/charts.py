"""JSON behind the charts: figures by Plotly and the same numbers as tables.

Plotly is imported by the first chart, not by the pages: its import takes a second that no
first paint should wait for.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from django.http import HttpRequest, JsonResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET

from gateway_admin.dashboards import cost, latency, overview
from gateway_admin.dashboards.forms import CostForm, LatencyForm
from gateway_admin.dashboards.views import environment_of, person_of, scope_of, today_of
from gateway_admin.frame import formats
from gateway_admin.frame.charts import Column, chart_response, empty_response, hues
from gateway_admin.usage.models import Measure
from gateway_admin.usage.rollups import rollup_time_zone

HOURLY = "hourly rollups"
DAILY = "daily rollups"
STATUS_HUES = {
    "ok": "1",
    "error": "bad",
    "refused": "warn",
    "aborted": "other",
    "abandoned": "4",
}
STATUS_WORDS = {
    "ok": "Answered",
    "error": "Failed",
    "refused": "Refused",
    "aborted": "Aborted",
    "abandoned": "Abandoned",
}


def local(points: list[Any], zone: ZoneInfo) -> list[str]:
    """Times of the x axis as the organisation's clocks show them."""
    return [
        point.astimezone(zone).strftime("%Y-%m-%d %H:%M")
        if isinstance(point, datetime)
        else point.isoformat()
        for point in points
    ]


def _stacked(
    x: list[str], bars: Sequence[tuple[str, Sequence[float], str]], *, yaxis: dict[str, Any]
) -> Any:
    """Bars on top of each other over time: name, heights and hue of each."""
    import plotly.graph_objects as go

    figure = go.Figure(
        [go.Bar(name=name, x=x, y=list(heights), meta={"hue": hue}) for name, heights, hue in bars]
    )
    figure.update_layout(barmode="stack", yaxis=yaxis, xaxis={"type": "date"})
    return figure


@require_GET
def overview_requests(request: HttpRequest) -> JsonResponse:
    """Requests by hour and by what became of them."""
    now, zone = timezone.now(), ZoneInfo(rollup_time_zone())
    found = overview.hourly_requests(
        scope=scope_of(request), environment=environment_of(request), now=now
    )
    if not found.by_status:
        return empty_response(
            "No requests in the last 24 hours.", as_of=now, source=HOURLY,
            action="See older ones", url=f"{reverse('dashboards:requests')}?range=30d",
        )  # fmt: skip
    statuses = [name for name in STATUS_WORDS if name in found.by_status]
    hours = local(found.hours, zone)
    bars = [(STATUS_WORDS[name], found.by_status[name], STATUS_HUES[name]) for name in statuses]
    figure = _stacked(hours, bars, yaxis={"title": "Requests"})
    columns = [found.by_status[status] for status in statuses]
    return chart_response(
        figure,
        columns=[
            Column("Hour", "time"),
            *(Column(STATUS_WORDS[name], "count") for name in statuses),
        ],
        rows=[list(row) for row in zip(hours, *columns, strict=True)],
        as_of=now,
        source=HOURLY,
    )


@require_GET
def cost_daily(request: HttpRequest) -> JsonResponse:
    """Spend by day, stacked by the page's group."""
    form = CostForm(request, environment_of(request), person_of(request))
    now = timezone.now()
    found = cost.daily_spend(
        scope=scope_of(request), form=form, today=today_of(now, ZoneInfo(rollup_time_zone()))
    )
    if not found.names:
        return empty_response("Nothing was spent in this time.", as_of=now, source=DAILY)
    colours, days = hues(found.names), [day.isoformat() for day in found.days]
    bars = [
        (name, [float(amount) for amount in found.spend[name]], colours[name])
        for name in found.names
    ]
    figure = _stacked(days, bars, yaxis={"title": "US dollars", "tickprefix": "$"})
    amounts = [found.spend[name] for name in found.names]
    return chart_response(
        figure,
        title=found.title,
        columns=[
            Column("Day", "time"),
            *(Column(name, "money", unit="USD") for name in found.names),
            Column("Total", "money", unit="USD"),
        ],
        rows=[[day, *row, sum(row)] for day, *row in zip(found.days, *amounts, strict=True)],
        as_of=now,
        source=DAILY,
    )


MEASURES = {
    "latency": (Measure.LATENCY, "Latency"),
    "first-token": (Measure.FIRST_TOKEN, "Time to first token"),
    "overhead": (Measure.OVERHEAD, "Gateway overhead"),
}


@require_GET
def latency_lines(request: HttpRequest, measure: str) -> JsonResponse:
    """p50, p95 and p99 over time."""
    which, words = MEASURES[measure]
    form = LatencyForm(request, environment_of(request), person_of(request))
    now, zone = timezone.now(), ZoneInfo(rollup_time_zone())
    window = latency.window_of(form, now=now, zone=zone)
    lines = latency.percentile_lines(
        scope=scope_of(request), form=form, window=window, measure=which
    )
    source = HOURLY if window.period.span == "hour" else DAILY
    if lines.is_empty:
        nothing = {
            Measure.FIRST_TOKEN: "No streamed answers in this time.",
        }.get(which, "No answered requests in this time.")
        return empty_response(nothing, as_of=now, source=source)
    x = local(lines.points, zone)
    return chart_response(
        _percentile_figure(x, lines, words),
        columns=[
            Column("Time", "time"),
            Column("Answers", "count"),
            *(Column(name, "duration", unit="ms") for name in ("p50", "p95", "p99")),
        ],
        rows=[
            list(row)
            for row in zip(x, lines.counts, lines.p50_ms, lines.p95_ms, lines.p99_ms, strict=True)
        ],
        as_of=now,
        source=source,
    )


def _percentile_figure(x: Sequence[str], lines: latency.Lines, words: str) -> Any:
    """Three lines over `x`; p95 is the one that matters most."""
    import plotly.graph_objects as go

    series = (("p50", lines.p50_ms, "1"), ("p95", lines.p95_ms, "2"), ("p99", lines.p99_ms, "3"))
    figure = go.Figure(
        [
            go.Scatter(
                name=name,
                x=x,
                y=[None if value is None else round(value, 1) for value in values],
                mode="lines+markers" if len(x) < 3 else "lines",
                meta={"hue": hue, "strong": name == "p95"},
            )
            for name, values, hue in series
        ]
    )
    figure.update_layout(
        yaxis={
            "title": f"{words}, ms",
            "rangemode": "tozero",
            "exponentformat": "none",  # 40,000 ms: 40k ms would read as a unit of its own
            "separatethousands": True,
        },
        xaxis={"type": "date"},
    )
    return figure


@require_GET
def latency_errors(request: HttpRequest) -> JsonResponse:
    """Failed and refused requests over time, by class."""
    form = LatencyForm(request, environment_of(request), person_of(request))
    now, zone = timezone.now(), ZoneInfo(rollup_time_zone())
    window = latency.window_of(form, now=now, zone=zone)
    lines = latency.error_lines(scope=scope_of(request), form=form, window=window)
    source = HOURLY if window.period.span == "hour" else DAILY
    if not lines.classes:
        words = "No errors in this time." if sum(lines.requests) else "No requests in this time."
        return empty_response(words, as_of=now, source=source)
    x, colours = local(lines.points, zone), hues(list(lines.classes))
    bars = [
        (name.replace("_", " "), counts, colours[name]) for name, counts in lines.classes.items()
    ]
    figure = _stacked(x, bars, yaxis={"title": "Requests"})
    failed = sum(map(sum, lines.classes.values()))
    return chart_response(
        figure,
        title=f"{formats.count(failed)} of {formats.count(sum(lines.requests))} requests"
        " failed or were refused",
        columns=[
            Column("Time", "time"),
            Column("Requests", "count"),
            *(Column(name.replace("_", " "), "count") for name in lines.classes),
        ],
        rows=[list(row) for row in zip(x, lines.requests, *lines.classes.values(), strict=True)],
        as_of=now,
        source=source,
    )
