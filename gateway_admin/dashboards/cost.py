"""The Cost page: what was spent, by day and by team, model, provider or key."""

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import partial
from typing import Any
from urllib.parse import urlencode

from django.urls import reverse

from gateway_admin.dashboards.forms import GROUP_WORDS, CostForm
from gateway_admin.dashboards.periods import DayRange
from gateway_admin.frame import formats
from gateway_admin.usage.labels import Labels, labels_of
from gateway_admin.usage.queries import Scope, SpendRow, Totals, spend, total

CHART_GROUPS = 7
TABLE_GROUPS = 50


@dataclass(frozen=True)
class CostLine:
    """One row of the table. `group` None with `folded`: the Other row of so many groups."""

    name: str
    totals: Totals
    previous: Decimal | None
    share: float
    url: str
    folded: int = 0


@dataclass(frozen=True)
class CostReport:
    days: DayRange
    group: str
    lines: list[CostLine]
    total: Totals
    previous: Totals

    unpriced_url: str

    @property
    def group_label(self) -> str:
        return GROUP_WORDS[self.group]

    @property
    def spend_text(self) -> str:
        return formats.money(self.total.spend)

    @property
    def against(self) -> str:
        return "the day before" if self.days.days == 1 else f"the {self.days.days} days before"

    @property
    def unpriced_hint(self) -> str:
        return "requests without a known price, not in the spend"

    @property
    def unpriced_tone(self) -> str:
        return "warn" if self.total.unpriced else ""

    @property
    def source(self) -> str:
        first, last = formats.day(self.days.first), formats.day(self.days.last)
        return f"{first} to {last} · daily rollups"


def cost_report(*, scope: Scope, form: CostForm, today: date) -> CostReport:
    """Totals per group, against the same number of days before. Three queries."""
    days, filters, group = form.days(today), form.filters(), form.group_by
    rows = spend(scope=scope, filters=filters, period=days.period, group=group)
    before = spend(
        scope=scope, filters=filters, period=days.before().period, group=group, brief=True
    )
    rows.sort(key=lambda row: (row.totals.cost, row.totals.requests), reverse=True)
    labels = labels_of(group, (row.group for row in rows))
    whole = total(rows)
    lines = _lines(rows, {row.group: row.totals.cost for row in before}, labels, whole, form, days)
    unpriced = requests_url(form, days, {"unpriced": "yes"})
    return CostReport(days, group, lines, whole, total(before), unpriced)


def _lines(
    rows: list[SpendRow],
    previous: dict[Any, Decimal],
    labels: Labels,
    whole: Totals,
    form: CostForm,
    days: DayRange,
) -> list[CostLine]:
    def share(totals: Totals) -> float:
        return float(totals.cost / whole.cost) if whole.cost else 0.0

    lines = [
        CostLine(
            labels.name(row.group),
            row.totals,
            previous.get(row.group),
            share(row.totals),
            requests_url(form, days, {form.group_by: row.group}) if row.group is not None else "",
        )
        for row in rows[:TABLE_GROUPS]
    ]
    if rest := rows[TABLE_GROUPS:]:
        folded = total(rest)
        before = sum((previous.get(row.group, Decimal(0)) for row in rest), Decimal(0))
        lines.append(CostLine("Other", folded, before, share(folded), "", len(rest)))
    return lines


def requests_url(form: CostForm, days: DayRange, more: dict[str, Any]) -> str:
    """The requests behind a figure: the page's filters and dates, and what the figure adds."""
    kept = {name: form.value(name) for name in form.narrowing if form.value(name)}
    return f"{reverse('dashboards:requests')}?{urlencode({**kept, **more, **dates(days)})}"


def dates(days: DayRange) -> dict[str, str]:
    return {"since": days.first.isoformat(), "until": days.last.isoformat()}


@dataclass(frozen=True)
class DailySpend:
    """Spend by day of the largest groups and of all others together."""

    days: list[date]
    names: list[str]  # largest first; "Other" last where there is one
    spend: dict[str, list[Decimal]]
    title: str


def daily_spend(*, scope: Scope, form: CostForm, today: date) -> DailySpend:
    """The largest groups by day; the others are the day's total less these. Five queries."""
    days, filters, group = form.days(today), form.filters(), form.group_by
    ranked = spend(scope=scope, filters=filters, period=days.period, group=group, brief=True)
    ranked.sort(key=lambda row: row.totals.cost, reverse=True)
    fold = len(ranked) > CHART_GROUPS + 1
    shown = [row.group for row in (ranked[:CHART_GROUPS] if fold else ranked)]
    labels = labels_of(group, shown)
    position = {day: number for number, day in enumerate(days.all_days())}
    series: dict[str, list[Decimal]] = {labels.name(key): [Decimal(0)] * days.days for key in shown}
    by_day = partial(
        spend, scope=scope, filters=filters, period=days.period, by_time=True, brief=True
    )
    for row in by_day(group=group, among=shown):
        series[labels.name(row.group)][position[row.at]] += row.totals.cost
    if fold:
        named = [sum(amounts, Decimal(0)) for amounts in zip(*series.values(), strict=True)]
        other = series.setdefault("Other", [-amount for amount in named])
        for row in by_day():
            other[position[row.at]] += row.totals.cost
    before = spend(scope=scope, filters=filters, period=days.before().period, brief=True)
    title = headline(total(ranked).cost, total(before).cost, days)
    return DailySpend(days.all_days(), list(series), series, title)


def headline(now: Decimal, before: Decimal, days: DayRange) -> str:
    """The chart's answer in words."""
    ratio = formats.change(now, before)
    span = "the day before" if days.days == 1 else f"the {days.days} days before"
    if ratio is None:
        return f"{formats.money(now)} spent"
    if abs(ratio) < 0.005:
        return f"{formats.money(now)} spent, as much as in {span}"
    way = "up" if ratio > 0 else "down"
    return f"{formats.money(now)} spent, {way} {formats.percent(abs(ratio))} on {span}"


def cost_csv_rows(*, scope: Scope, form: CostForm, today: date) -> list[list[Any]]:
    """By day and group, exact decimals."""
    rows = spend(
        scope=scope,
        filters=form.filters(),
        period=form.days(today).period,
        group=form.group_by,
        by_time=True,
    )
    labels = labels_of(form.group_by, (row.group for row in rows))
    return [
        [
            row.at.isoformat(),
            labels.name(row.group),
            "" if row.group is None else str(row.group),
            f"{row.totals.cost:f}",
            row.totals.requests,
            row.totals.errors,
            row.totals.refused,
            row.totals.input_tokens,
            row.totals.output_tokens,
            row.totals.cache_read_tokens,
            row.totals.cache_write_tokens,
            row.totals.reasoning_tokens,
            row.totals.unpriced,
            row.totals.estimated,
        ]
        for row in rows
    ]


CSV_HEADER = tuple(
    """day group group_id cost_usd requests errors refused input_tokens output_tokens
    cache_read_tokens cache_write_tokens reasoning_tokens unpriced_requests
    estimated_requests""".split()  # noqa: SIM905 (a list would take 14 lines)
)
