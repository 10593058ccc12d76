"""Reads of the rollups: spend, counts and percentiles, as far as a person may see them.

Admin and finance see everything. Developers see the usage of their teams and of their own
keys. Each function runs one query.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import connection

from gateway_admin.accounts.models import User
from gateway_admin.accounts.roles import sees_all_spend
from gateway_admin.keys.models import Membership
from gateway_admin.usage.models import NOBODY, Level, Measure, Series
from gateway_admin.usage.rollups import BUCKET_FACTOR

Moment = date | datetime

# What rollups can be grouped by -> the coarsest level that still has it.
GROUPS: Mapping[str, Level] = {
    "team": Level.TEAM,
    "model": Level.MODEL,
    "provider": Level.MODEL,
    "deployment": Level.MODEL,
    "status": Level.MODEL,
    "error_class": Level.MODEL,
    "key": Level.KEY,
    "user": Level.KEY,
    "requested_model": Level.KEY,
}
_COLUMNS = {
    "team": "team_id",
    "provider": "provider_id",
    "deployment": "deployment_id",
    "key": "key_id",
    "user": "user_id",
}


@dataclass(frozen=True)
class Scope:
    """Whose usage a person may see."""

    everything: bool
    teams: tuple[UUID, ...] = ()
    user_id: int = 0
    keys_elsewhere: bool = False  # own keys were used in teams that are not the person's


def visible_to(user: User) -> Scope:
    if sees_all_spend(user):
        return Scope(everything=True)
    teams = tuple(Membership.objects.filter(user=user).values_list("team_id", flat=True))
    elsewhere = Series.objects.filter(level=Level.KEY, user_id=user.pk).exclude(
        team_id__in=[*teams, NOBODY]
    )
    return Scope(False, teams, user.pk, keys_elsewhere=elsewhere.exists())


@dataclass(frozen=True)
class Filters:
    """Which series are meant. None: any."""

    environment: UUID | None = None
    team: UUID | None = None
    key: UUID | None = None
    user: int | None = None
    model: str | None = None
    requested_model: str | None = None
    provider: UUID | None = None
    deployment: UUID | None = None
    status: str | None = None
    error_class: str | None = None

    def given(self) -> dict[str, Any]:
        pairs = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in pairs if value is not None}


@dataclass
class Totals:
    """Sums over some series and some time. Cost in US dollars."""

    requests: int = 0
    errors: int = 0
    refused: int = 0
    aborted: int = 0
    abandoned: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost: Decimal = Decimal(0)
    unpriced: int = 0
    estimated: int = 0
    fallbacks: int = 0
    streams: int = 0
    cache_hits: int = 0
    saved_cost: Decimal = Decimal(0)

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(*(getattr(self, name) + getattr(other, name) for name in _TOTALS))

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def error_rate(self) -> float | None:
        """Share of requests that failed; requests refused at the gateway do not count.

        An abandoned request failed as well: its caller got no end of an answer.
        """
        tried = self.requests - self.refused
        return (self.errors + self.abandoned) / tried if tried > 0 else None

    @property
    def spend(self) -> Decimal | None:
        """The cost, or None where nothing of it had a price."""
        return None if not self.cost and self.unpriced else self.cost


_TOTALS = tuple(field.name for field in fields(Totals))
_MONEY = {"cost", "saved_cost"}
_BRIEF = {"requests", "input_tokens", "output_tokens", "cost"}


@dataclass(frozen=True)
class SpendRow:
    """Totals of one group in one span. `at` is None where time was not asked for."""

    at: Any  # date, datetime or None
    group: Any  # id or name; None: not grouped
    totals: Totals


@dataclass(frozen=True)
class Period:
    """A time in whole rollup spans: days of the organisation or hours of UTC; end excluded."""

    span: str  # "day" or "hour"
    start: Moment
    end: Moment


def spend(
    *,
    scope: Scope,
    filters: Filters,
    period: Period,
    group: str | None = None,
    by_time: bool = False,
    brief: bool = False,
    among: Iterable[Any] | None = None,
) -> list[SpendRow]:
    """Totals, split by a group of `GROUPS` and by span as asked.

    `among` limits the groups to these (None among them: what has none of the kind);
    `brief` sums requests, tokens in and out and cost alone, which takes half the time.
    """
    level = _level(scope, filters, group, scope_needs=Level.KEY)
    chosen, values = _series(scope, filters, level, group, among)
    at = f"c.{period.span}" if by_time else "NULL"
    query = f"""
        SELECT {at} AS at, s.grp, {_sums(brief)}
        FROM usage_cost_{period.span} c JOIN ({chosen}) s ON s.id = c.series_id
        WHERE c.level = %s AND c.{period.span} >= %s AND c.{period.span} < %s
        GROUP BY 1, 2 ORDER BY 1, 2
    """
    rows = _rows(query, [*values, int(level), period.start, period.end])
    return [SpendRow(at, none_of(grp), Totals(*sums)) for at, grp, *sums in rows]


def _sums(brief: bool) -> str:
    """SQL: the fields of `Totals` in order."""
    by_status = {"errors": "error"} | {name: name for name in ("refused", "aborted", "abandoned")}

    def term(name: str) -> str:
        if brief and name not in _BRIEF:
            return "0"
        if status := by_status.get(name):
            chosen = f"sum(c.requests) FILTER (WHERE s.status = '{status}')"
            return f"coalesce({chosen}, 0)::bigint"
        return f"sum(c.{name})" if name in _MONEY else f"sum(c.{name})::bigint"

    return ", ".join(term(name) for name in _TOTALS)


def answered_since(deployments: Iterable[UUID], since: datetime) -> dict[UUID, datetime]:
    """Deployments that answered calls since then -> the hour of the latest, in one query.

    Answers from the cache are no deployment's.
    """
    query = """
        SELECT s.deployment_id, max(c.hour)
        FROM usage_cost_hour c JOIN usage_series s ON s.id = c.series_id
        WHERE c.level = %s AND c.hour >= %s AND c.requests > c.cache_hits
          AND s.level = %s AND s.status = 'ok' AND s.deployment_id = ANY (%s)
        GROUP BY 1
    """
    level = int(Level.MODEL)
    return dict(_rows(query, [level, since, level, list(deployments)]))


def total(rows: Iterable[SpendRow]) -> Totals:
    """The sum of all rows."""
    result = Totals()
    for row in rows:
        result += row.totals
    return result


@dataclass(frozen=True)
class Percentiles:
    """Durations of answered requests, in milliseconds, within 4% (see `rollups`)."""

    count: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


@dataclass(frozen=True)
class LatencyRow:
    at: Any  # date, datetime or None
    group: Any
    measure: Measure
    percentiles: Percentiles


def latency(
    *,
    scope: Scope,
    filters: Filters,
    period: Period,
    measures: Iterable[Measure] = tuple(Measure),
    group: str | None = None,
    by_time: bool = False,
) -> list[LatencyRow]:
    """Percentiles from merged histograms. Grouping: team, model, provider or deployment.

    Histograms do not know keys: a developer's own keys count where they belong to a team of
    theirs or to no team.
    """
    filters = replace(filters, key=None, user=None, requested_model=None, status=None)
    level = _level(scope, filters, group, scope_needs=Level.TEAM)
    chosen, values = _series(scope, filters, level, group)
    query = _percentiles(chosen, span=period.span, by_time=by_time)
    wanted = [int(measure) for measure in measures]
    rows = _rows(query, [*values, int(level), period.start, period.end, wanted])
    return [
        LatencyRow(
            at,
            none_of(grp),
            Measure(measure),
            Percentiles(count, *(_middle_ms(bucket - 1) for bucket in buckets)),
        )
        for at, grp, measure, count, *buckets in rows
    ]


def _percentiles(chosen: str, *, span: str, by_time: bool) -> str:
    """SQL: the buckets of p50, p95 and p99 by time, group and measure, of the chosen series."""
    at = f"l.{span}" if by_time else "NULL"
    ranks = ", ".join(
        f"min(bucket) FILTER (WHERE seen >= ceil({share} * total))" for share in (0.5, 0.95, 0.99)
    )
    return f"""
        WITH buckets AS (
            SELECT {at} AS at, s.grp, l.measure, l.first_bucket + u.i AS bucket, sum(u.n) AS n
            FROM usage_latency_{span} l
            JOIN ({chosen}) s ON s.id = l.series_id
            CROSS JOIN LATERAL unnest(l.counts) WITH ORDINALITY u (n, i)
            WHERE l.level = %s AND l.{span} >= %s AND l.{span} < %s
              AND l.measure = ANY (%s) AND u.n > 0
            GROUP BY 1, 2, 3, 4
        ), ranked AS (
            SELECT at, grp, measure, bucket,
                sum(n) OVER (PARTITION BY at, grp, measure ORDER BY bucket) AS seen,
                sum(n) OVER (PARTITION BY at, grp, measure) AS total
            FROM buckets
        )
        SELECT at, grp, measure, max(total)::bigint, {ranks}
        FROM ranked GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    """


def _middle_ms(bucket: int) -> float:
    """The geometric middle of a bucket."""
    middle: float = BUCKET_FACTOR ** (bucket - 0.5)
    return middle


def none_of(value: Any) -> Any:
    """None for what stands for "none" in a series."""
    return None if value in (NOBODY, 0, "") else value


def _level(scope: Scope, filters: Filters, group: str | None, *, scope_needs: Level) -> Level:
    """The coarsest level that has all that is asked for: the fewest rows to read."""
    needed = [GROUPS[name] for name in filters.given() if name in GROUPS]
    if group:
        needed.append(GROUPS[group])
    if not scope.everything:
        needed.append(scope_needs if scope.keys_elsewhere else Level.TEAM)
    return min(needed, default=Level.MODEL)


def _series(
    scope: Scope,
    filters: Filters,
    level: Level,
    group: str | None,
    among: Iterable[Any] | None = None,
) -> tuple[str, list[Any]]:
    """SQL of the chosen series (id, status, grp) and its values."""
    where: list[str] = ["level = %s"]
    values: list[Any] = [int(level)]
    for name, value in filters.given().items():
        column = "environment_id" if name == "environment" else _COLUMNS.get(name, name)
        where.append(f"{column} = %s")
        values.append(value)
    if not scope.everything:
        where.append("(team_id = ANY (%s) OR user_id = %s)")
        values += [list(scope.teams), scope.user_id]
    grp = _COLUMNS.get(group, group) if group else "NULL::text"
    if group and among is not None:
        none: Any = 0 if group == "user" else NOBODY if group in _COLUMNS else ""
        where.append(f"{grp} = ANY (%s)")
        values.append([none if value is None else value for value in among])
    return (
        f"SELECT id, status, {grp} AS grp FROM usage_series WHERE {' AND '.join(where)}",
        values,
    )


def _rows(query: str, values: list[Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        found: list[tuple[Any, ...]] = cursor.fetchall()
    return found
