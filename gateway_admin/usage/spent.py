"""What the ledger says was spent of each budget, in nano-dollars per subject.

Budgets of equal scope, model and period share one query. Calendar periods are whole days of
the organisation, so they are read from the daily rollups, and long rolling windows from the
hourly ones. Short windows, and days while they are still being cut in another time zone, are
read from the ledger itself.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from django.db import connection

from gateway_admin.catalog.models import Deployment, Environment
from gateway_admin.keys.calendar import calendar
from gateway_admin.keys.models import Budget, Scope
from gateway_admin.usage.counter_store import oldest_bucket
from gateway_admin.usage.models import NOBODY, Level
from gateway_admin.usage.rollups import rollup_time_zone
from proxy.contract import CalendarDocument
from proxy.contract.periods import Period, period_of

Sums = Mapping[str, Mapping[int | None, int]]  # subject -> bucket (None: whole) -> nano-dollars

# Scope -> column of a series and of an event, coarsest level of the rollups that has it.
_COLUMNS: Mapping[str, tuple[str, Level]] = {
    Scope.ENVIRONMENT: ("environment_id", Level.MODEL),
    Scope.TEAM: ("team_id", Level.TEAM),
    Scope.USER: ("user_id", Level.KEY),
    Scope.KEY: ("key_id", Level.KEY),
    Scope.CREDENTIAL: ("deployment_id", Level.MODEL),
}


@dataclass(frozen=True)
class Question:
    """Spend of one scope in one period, of one model ("": of all)."""

    scope: str
    model: str
    period: str
    rolling_hours: int | None


def question_of(budget: Budget) -> Question:
    return Question(budget.scope, budget.model, budget.period, budget.rolling_hours)


def current_period(question: Question, *, at: datetime, cut: CalendarDocument) -> Period:
    """The period of a moment that a budget's counter counts in."""
    return period_of(question.period, at=at, calendar=cut, rolling_hours=question.rolling_hours)


def spent(
    environment: Environment, questions: Iterable[Question], *, at: datetime
) -> dict[Question, Sums]:
    """The ledger's sums in the periods of a moment. One query each, two for credentials."""
    cut = calendar()
    daily = rollup_time_zone() == cut["time_zone"]
    return {
        question: _sums(environment, question, at, cut, daily=daily)
        for question in dict.fromkeys(questions)
    }


def _sums(
    environment: Environment,
    question: Question,
    at: datetime,
    cut: CalendarDocument,
    *,
    daily: bool,
) -> Sums:
    period = current_period(question, at=at, cut=cut)
    if period.bucket_s is not None and _fits_hours(question, period.bucket_s):
        rows = _from_hours(environment, question, period, at)
    elif period.bucket_s is not None or (not daily and period.start is not None):
        rows = _from_events(environment, question, period, at)
    elif question.scope == Scope.CUSTOMER:
        rows = _from_customers(environment, question, period, ZoneInfo(cut["time_zone"]))
    else:
        rows = _from_days(environment, question, period, ZoneInfo(cut["time_zone"]))
    found: dict[str, dict[int | None, int]] = defaultdict(lambda: defaultdict(int))
    subjects = _subjects(environment, question.scope)
    for value, bucket, nano in rows:
        if nano and (subject := subjects(value)):
            found[subject][bucket] += nano
    return found


def _subjects(environment: Environment, scope: str) -> Any:
    """Turns a value of the scope's column to the subject as policies name it; "": none."""
    if scope == Scope.ENVIRONMENT:
        return lambda value: environment.slug
    if scope == Scope.CREDENTIAL:
        pairs = Deployment.objects.filter(environment=environment)
        credentials = dict(pairs.values_list("pk", "credential_id"))
        return lambda value: str(credentials.get(value) or "")
    return lambda value: "" if value in (None, NOBODY, 0, "") else str(value)


def _from_days(
    environment: Environment, question: Question, period: Period, zone: ZoneInfo
) -> list[tuple[Any, int | None, int]]:
    column, level = _COLUMNS[question.scope]
    where, values = _days(period, zone, "c.day")
    if question.model:
        where += " AND s.model = %s"
        values.append(question.model)
    return _rows(
        f"SELECT s.{column}, NULL, sum(c.cost_nano)::bigint"
        " FROM usage_cost_day c JOIN usage_series s ON s.id = c.series_id"
        f" WHERE c.level = %s AND s.environment_id = %s{where} GROUP BY 1",
        [int(level), environment.pk, *values],
    )


def _fits_hours(question: Question, bucket_s: int) -> bool:
    """Long windows have buckets of whole hours, which the hourly rollups can tell apart."""
    return bucket_s % 3600 == 0 and question.scope != Scope.CUSTOMER


def _from_hours(
    environment: Environment, question: Question, period: Period, at: datetime
) -> list[tuple[Any, int | None, int]]:
    column, level = _COLUMNS[question.scope]
    bucket_s = period.bucket_s or 3600
    values: list[Any] = [int(level), environment.pk, (oldest_bucket(period.id, at) or 0) * bucket_s]
    where = ""
    if question.model:
        where = " AND s.model = %s"
        values.append(question.model)
    return _rows(
        f"SELECT s.{column}, floor(extract(epoch FROM c.hour) / {bucket_s:d})::bigint,"
        " sum(c.cost_nano)::bigint"
        " FROM usage_cost_hour c JOIN usage_series s ON s.id = c.series_id"
        " WHERE c.level = %s AND s.environment_id = %s AND c.hour >= to_timestamp(%s)"
        f"{where} GROUP BY 1, 2",
        values,
    )


def _from_customers(
    environment: Environment, question: Question, period: Period, zone: ZoneInfo
) -> list[tuple[Any, int | None, int]]:
    where, values = _days(period, zone, "day")
    if question.model:
        where += " AND model = %s"
        values.append(question.model)
    return _rows(
        "SELECT customer, NULL, sum(cost_nano)::bigint FROM usage_customer_day"
        f" WHERE environment_id = %s{where} GROUP BY 1",
        [environment.pk, *values],
    )


def _days(period: Period, zone: ZoneInfo, column: str) -> tuple[str, list[Any]]:
    """SQL and values: the local days of a calendar period; nothing for a lifetime."""
    if period.start is None or period.end is None:
        return "", []
    first, after = (moment.astimezone(zone).date() for moment in (period.start, period.end))
    return f" AND {column} >= %s AND {column} < %s", [first, after]


def _from_events(
    environment: Environment, question: Question, period: Period, at: datetime
) -> list[tuple[Any, int | None, int]]:
    column = "customer" if question.scope == Scope.CUSTOMER else _COLUMNS[question.scope][0]
    bucket, where = "NULL::bigint", ""
    values: list[Any] = [environment.pk]
    if period.bucket_s is not None:
        bucket = f"floor(extract(epoch FROM started_at) / {period.bucket_s:d})::bigint"
        where += " AND started_at >= to_timestamp(%s)"
        values.append((oldest_bucket(period.id, at) or 0) * period.bucket_s)
    else:
        where += " AND started_at >= %s AND started_at < %s"
        values += [period.start, period.end]
    if question.model:
        where += " AND model = %s"
        values.append(question.model)
    return _rows(
        f"SELECT {column}, {bucket}, sum(ceil(cost * 1e9))::bigint FROM usage_event"
        f" WHERE environment_id = %s AND cost > 0{where} GROUP BY 1, 2",
        values,
    )


def _rows(query: str, values: list[Any]) -> list[tuple[Any, Any, int]]:
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        found: list[tuple[Any, Any, int]] = cursor.fetchall()
    return found
