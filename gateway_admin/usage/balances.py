"""Balances of budgets, stored for pages and for the thresholds that alert and do not refuse."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import structlog
from django.db import connection
from django.utils import timezone

from gateway_admin.catalog.models import Environment
from gateway_admin.keys.calendar import calendar
from gateway_admin.keys.models import Budget, BudgetBalance, BudgetNotice, BudgetOverride, Scope
from gateway_admin.usage import counter_store
from gateway_admin.usage.counter_store import Reading
from gateway_admin.usage.spent import current_period, question_of
from proxy.contract.counters import dollars, subject_ref

log = structlog.get_logger(__name__)

FRESH = timedelta(minutes=5)  # an unchanged balance is confirmed this often
KEPT = timedelta(days=8)  # balances of periods that are over
CUSTOMERS_SINCE = timedelta(days=370)


@dataclass(frozen=True)
class Balance:
    """One subject's counter in the current period. US dollars."""

    budget: Budget
    subject: str
    period_id: str
    spent: Decimal
    held: Decimal

    @property
    def place(self) -> tuple[UUID, str, str]:
        return self.budget.pk, self.subject, self.period_id


def balances_store(*, environment: Environment) -> int:
    """Store what the counters say and note crossed thresholds; returns how many were new.

    CountersAway when Redis cannot be used: pages then show the balances stored last, "as of".
    """
    if counter_store.epoch_of(environment.slug) is None:
        return 0  # not built: nothing would be shown as nothing spent
    at = counter_store.server().now
    readings = counter_store.readings(environment.slug)
    budgets = list(Budget.objects.filter(environment=environment))
    balances = list(_balances(environment, budgets, readings, at))
    _store(environment, balances)
    return _note(environment, balances)


def _balances(
    environment: Environment,
    budgets: Collection[Budget],
    readings: Mapping[str, Reading],
    at: datetime,
) -> Iterator[Balance]:
    cut = calendar()
    current = {
        str(budget.pk): (budget, current_period(question_of(budget), at=at, cut=cut).id)
        for budget in budgets
    }
    own = {(budget.scope, budget.model, budget.subject) for budget in budgets}
    customers = _Customers(environment)
    seen = set()
    for counter, reading in readings.items():
        budget_id, ref, period_id = counter.split(":")
        budget, now_id = current.get(budget_id, (None, ""))
        if budget is None or period_id != now_id:
            continue
        seen.add(budget_id)
        subject = budget.subject
        if budget.is_default:
            subject = customers.of(ref) if budget.scope == Scope.CUSTOMER else ref
            if not subject or (budget.scope, budget.model, subject) in own:
                continue  # nobody's yet, or a rule of its own stands in this one's place
        spent = dollars(_spent(period_id, reading, at))
        yield Balance(budget, subject, period_id, spent, dollars(reading.held))
    for budget_id, (budget, period_id) in current.items():
        if budget_id not in seen and not budget.is_default:  # nothing was reserved yet
            yield Balance(budget, budget.subject, period_id, Decimal(0), Decimal(0))


def _spent(period_id: str, reading: Reading, at: datetime) -> int:
    """Nano-dollars; buckets that have rolled out do not count, though they may still be there."""
    oldest = counter_store.oldest_bucket(period_id, at)
    if oldest is None:
        return reading.spent
    return sum(nano for bucket, nano in reading.buckets.items() if bucket >= oldest)


class _Customers:
    """Counters name customers by a digest; the ledger knows who they are."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._names: dict[str, str] | None = None

    def of(self, ref: str) -> str:
        """The customer, or "" for one of whom nothing was recorded yet."""
        if self._names is None:
            since = timezone.now().date() - CUSTOMERS_SINCE
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT DISTINCT customer FROM usage_customer_day"
                    " WHERE environment_id = %s AND day >= %s",
                    [self._environment.pk, since],
                )
                found = (name for (name,) in cursor.fetchall())
                self._names = {subject_ref(Scope.CUSTOMER, name): name for name in found}
        return self._names.get(ref, "")


def _store(environment: Environment, balances: Collection[Balance]) -> None:
    """Write what changed, and what was not confirmed for a while."""
    now = timezone.now()
    rows = BudgetBalance.objects.filter(budget__environment=environment)
    known = {
        (row.budget_id, row.subject, row.period_id): (row.spent, row.held)
        for row in rows.filter(as_of__gt=now - FRESH)
    }
    changed = [
        BudgetBalance(
            budget=balance.budget,
            subject=balance.subject,
            period_id=balance.period_id,
            spent=balance.spent,
            held=balance.held,
            as_of=now,
        )
        for balance in balances
        if known.get(balance.place) != (balance.spent, balance.held)
    ]
    BudgetBalance.objects.bulk_create(
        changed,
        batch_size=1_000,
        update_conflicts=True,
        unique_fields=["budget", "subject", "period_id"],
        update_fields=["spent", "held", "as_of"],
    )
    rows.filter(as_of__lt=now - KEPT).delete()


def _note(environment: Environment, balances: Collection[Balance]) -> int:
    """One notice per threshold, subject and period; returns how many are new."""
    now = timezone.now()
    limits = _limits_in_force(environment, now)
    crossed = [
        BudgetNotice(
            budget=balance.budget,
            subject=balance.subject,
            period_id=balance.period_id,
            percent=percent,
            at=now,
        )
        for balance in balances
        for percent in balance.budget.soft_percent
        if balance.spent * 100 >= limits.get(balance.budget.pk, balance.budget.limit_usd) * percent
    ]
    if not crossed:
        return 0
    noted = set(
        BudgetNotice.objects.filter(
            budget__in={notice.budget_id for notice in crossed}
        ).values_list("budget_id", "subject", "period_id", "percent")
    )
    new = [
        notice
        for notice in crossed
        if (notice.budget_id, notice.subject, notice.period_id, notice.percent) not in noted
    ]
    BudgetNotice.objects.bulk_create(new, batch_size=1_000, ignore_conflicts=True)
    for notice in new:
        log.info("budget_threshold", budget=str(notice.budget_id), percent=notice.percent)
    return len(new)


def _limits_in_force(environment: Environment, at: datetime) -> dict[UUID, Decimal]:
    overrides = BudgetOverride.objects.filter(
        budget__environment=environment, revoked_at=None, expires_at__gt=at
    )
    return dict(overrides.values_list("budget_id", "limit_usd"))
