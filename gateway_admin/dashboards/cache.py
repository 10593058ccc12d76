"""The Cache page: how much is answered from the response cache, what it saves, who uses it."""

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from django.urls import reverse

from gateway_admin.accounts.models import User
from gateway_admin.catalog.models import Environment, Model
from gateway_admin.dashboards.cache_forms import CACHE_GROUPS, CacheForm
from gateway_admin.dashboards.cost import dates
from gateway_admin.dashboards.periods import DayRange
from gateway_admin.frame import formats
from gateway_admin.keys.models import Team, VirtualKey
from gateway_admin.keys.queries import manageable_keys, managed_teams, visible_keys
from gateway_admin.usage.labels import labels_of
from gateway_admin.usage.queries import Scope, SpendRow, Totals, spend, total

TABLE_GROUPS = 50
KEYS_SHOWN = 50


def hit_rate(totals: Totals) -> float | None:
    """Share of the requests that got past the gateway's own rules; None: there were none."""
    tried = totals.requests - totals.refused
    return totals.cache_hits / tried if tried > 0 else None


@dataclass(frozen=True)
class CacheLine:
    """One team, model or key; the Other row has `folded` of them."""

    name: str
    totals: Totals
    url: str
    folded: int = 0

    @property
    def rate(self) -> float | None:
        return hit_rate(self.totals)


@dataclass(frozen=True)
class CacheReport:
    days: DayRange
    group: str
    lines: list[CacheLine]
    total: Totals
    previous: Totals

    @property
    def rate(self) -> float | None:
        return hit_rate(self.total)

    @property
    def previous_rate(self) -> float | None:
        return hit_rate(self.previous)

    @property
    def group_label(self) -> str:
        return CACHE_GROUPS[self.group]

    @property
    def saved_text(self) -> str:
        return formats.money(self.total.saved_cost)

    @property
    def hits_hint(self) -> str:
        return f"of {formats.count(self.total.requests - self.total.refused)} requests"

    @property
    def against(self) -> str:
        return "the day before" if self.days.days == 1 else f"the {self.days.days} days before"

    @property
    def source(self) -> str:
        first, last = formats.day(self.days.first), formats.day(self.days.last)
        return f"{first} to {last} · daily rollups"


def cache_report(*, scope: Scope, form: CacheForm, today: date) -> CacheReport:
    """Totals per group, against the same number of days before. Three queries."""
    days, filters, group = form.days(today), form.filters(), form.group_by
    rows = spend(scope=scope, filters=filters, period=days.period, group=group)
    before = spend(scope=scope, filters=filters, period=days.before().period)
    rows.sort(key=lambda row: (row.totals.cache_hits, row.totals.requests), reverse=True)
    return CacheReport(days, group, _lines(rows, form, days), total(rows), total(before))


def _lines(rows: list[SpendRow], form: CacheForm, days: DayRange) -> list[CacheLine]:
    labels = labels_of(form.group_by, (row.group for row in rows))
    lines = [
        CacheLine(
            labels.name(row.group),
            row.totals,
            _requests_url(form, days, row.group) if row.group is not None else "",
        )
        for row in rows[:TABLE_GROUPS]
    ]
    if rest := rows[TABLE_GROUPS:]:
        lines.append(CacheLine("Other", total(rest), "", len(rest)))
    return lines


def _requests_url(form: CacheForm, days: DayRange, group: Any) -> str:
    """The requests of the group that the cache answered."""
    kept = {name: form.value(name) for name in form.narrowing if form.value(name)}
    query = urlencode({**kept, form.group_by: group, "cached": "yes", **dates(days)})
    return f"{reverse('dashboards:requests')}?{query}"


@dataclass(frozen=True)
class DailyHits:
    """Requests by day, by who answered them, and what the cache saved."""

    days: list[date]
    hits: list[int]
    others: list[int]
    saved: list[Decimal]

    @property
    def is_empty(self) -> bool:
        return not any(self.hits) and not any(self.others)

    @property
    def title(self) -> str:
        hits, others = sum(self.hits), sum(self.others)
        if not hits:
            return "Nothing was answered from the cache"
        share = formats.percent(hits / (hits + others))
        saved = formats.money(sum(self.saved, Decimal(0)))
        return f"{share} of {formats.count(hits + others)} requests from the cache, {saved} saved"


def daily_hits(*, scope: Scope, form: CacheForm, today: date) -> DailyHits:
    """One query."""
    days = form.days(today)
    found = {
        row.at: row.totals
        for row in spend(scope=scope, filters=form.filters(), period=days.period, by_time=True)
    }
    rows = [found.get(day, Totals()) for day in days.all_days()]
    return DailyHits(
        days.all_days(),
        [row.cache_hits for row in rows],
        [row.requests - row.refused - row.cache_hits for row in rows],
        [row.saved_cost for row in rows],
    )


CSV_HEADER = ("day", "group", "group_id", "requests", "refused", "from_cache", "saved_usd")


def cache_csv_rows(*, scope: Scope, form: CacheForm, today: date) -> list[list[Any]]:
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
            row.totals.requests,
            row.totals.refused,
            row.totals.cache_hits,
            f"{row.totals.saved_cost:f}",
        ]
        for row in rows
    ]


# --- who uses it -------------------------------------------------------------------------


@dataclass(frozen=True)
class KeepingKey:
    """A key whose answers may be kept, and whether this person may purge them."""

    key: VirtualKey
    ttl_s: int
    own_ttl: bool
    may_purge: bool

    @property
    def ttl(self) -> str:
        return formats.duration(self.ttl_s * 1000).removesuffix(" 0 min").removesuffix(" 0 s")

    @property
    def question(self) -> str:
        return f"Purge the answers of {self.key.name}?"


@dataclass(frozen=True)
class Keeping:
    """Who keeps answers in one environment, as far as a person may know."""

    keys: list[KeepingKey]
    count: int
    teams: list[Team]  # whose answers this person may purge
    excluded: list[str]  # models whose answers are not kept

    @property
    def more(self) -> int:
        return self.count - len(self.keys)


def keeping_of(*, user: User, environment: Environment) -> Keeping:
    """Five queries."""
    found = (
        visible_keys(user)
        .filter(environment=environment)
        .exclude(cache=VirtualKey.Cache.OFF)
        .exclude(state=VirtualKey.State.REVOKED)
    )
    shown = list(found.select_related("team", "owner").order_by("name", "id")[:KEYS_SHOWN])
    mine = set(
        manageable_keys(user).filter(pk__in=[key.pk for key in shown]).values_list("pk", flat=True)
    )
    keys = [
        KeepingKey(
            key,
            key.cache_ttl_s or environment.cache_ttl_s,
            key.cache_ttl_s is not None,
            key.pk in mine,
        )
        for key in shown
    ]
    teams = managed_teams(user).filter(pk__in=found.values("team")).order_by("name")
    excluded = Model.objects.filter(cache=False).order_by("name").values_list("name", flat=True)
    return Keeping(keys, found.count(), list(teams), list(excluded))
