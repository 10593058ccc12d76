"""What was spent of budgets in their present periods, and what remains.

Live from the shared counters. While those are away or being rebuilt: as they were stored
last, "as of". Neither: unknown, which is not zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

from django.utils import timezone
from redis.client import Pipeline

from gateway_admin.keys import live
from gateway_admin.keys.calendar import calendar
from gateway_admin.keys.models import Budget, BudgetBalance, BudgetOverride
from gateway_admin.keys.subjects import Subject
from proxy.contract import counters
from proxy.contract.periods import ROLLING_BUCKETS, Period, period_of

# Before so much of a period is over, a straight line through what was spent says nothing.
FORECAST_FROM = Decimal("0.05")
WARNING_PERCENT = 80  # where a budget states no threshold of its own

Pair = tuple[Budget, Subject]


@dataclass(frozen=True)
class Balance:
    """One subject's share of a budget. US dollars; None: unknown."""

    budget: Budget
    subject: Subject
    period: Period
    override: BudgetOverride | None  # in force now
    at: datetime
    spent: Decimal | None = None
    held: Decimal | None = None
    as_of: datetime | None = None  # None while it is live

    @property
    def known(self) -> bool:
        return self.spent is not None

    @property
    def limit(self) -> Decimal:
        """The limit that holds now."""
        return self.override.limit_usd if self.override else self.budget.limit_usd

    @property
    def remaining(self) -> Decimal | None:
        """What a new request may still reserve; never below zero."""
        if self.spent is None:
            return None
        return max(self.limit - self.spent - (self.held or Decimal(0)), Decimal(0))

    @property
    def used(self) -> Decimal | None:
        """Share of the limit that is spent, 0…"""
        return None if self.spent is None else self.spent / self.limit

    @property
    def soft(self) -> Decimal | None:
        """The lowest threshold that alerts, in US dollars."""
        lowest = min(self.budget.soft_percent, default=None)
        return None if lowest is None else self.limit * lowest / 100

    @property
    def tick(self) -> Decimal:
        """Where the bar begins to warn; its end where no threshold is set."""
        return self.soft or self.limit

    @property
    def state(self) -> str:
        """unknown, exhausted, warning or ok."""
        if self.spent is None or self.remaining is None:
            return "unknown"
        if self.remaining <= 0:
            return "exhausted"
        warning = self.soft or self.limit * WARNING_PERCENT / 100
        return "warning" if self.spent >= warning else "ok"

    @property
    def resets_at(self) -> datetime | None:
        return self.period.end

    @property
    def forecast(self) -> Decimal | None:
        """Spent at the end of the period if it goes on like this; None: too early, or no end."""
        start, end = self.period.start, self.period.end
        if self.spent is None or start is None or end is None:
            return None
        elapsed = Decimal((self.at - start) / (end - start))
        return self.spent / elapsed if elapsed >= FORECAST_FROM else None


def balances_of(pairs: Sequence[Pair], *, at: datetime | None = None) -> list[Balance]:
    """The balance of each budget for its subject, in the order given; four reads in all."""
    at = at or timezone.now()
    if not pairs:
        return []
    cut = calendar()
    overrides = _overrides({budget.pk for budget, _ in pairs}, at)
    unread = [
        Balance(
            budget=budget,
            subject=subject,
            period=period_of(
                budget.period, at=at, calendar=cut, rolling_hours=budget.rolling_hours
            ),
            override=overrides.get(budget.pk),
            at=at,
        )
        for budget, subject in pairs
    ]
    return _with_amounts(unread)


def balance_of(budget: Budget, subject: Subject) -> Balance:
    return balances_of([(budget, subject)])[0]


def _overrides(budgets: set[UUID], at: datetime) -> Mapping[UUID, BudgetOverride]:
    rows = BudgetOverride.objects.filter(
        budget__in=budgets, revoked_at=None, expires_at__gt=at
    ).select_related("granted_by")
    return {row.budget_id: row for row in rows}


def _with_amounts(balances: list[Balance]) -> list[Balance]:
    slugs = sorted({balance.subject.environment.slug for balance in balances})
    asks: list[Any] = [partial(_ask_epoch, slug) for slug in slugs]
    asks += [partial(_ask_counter, balance) for balance in balances]
    answers = live.read(asks)
    built = dict(zip(slugs, answers or [], strict=False))
    amounts = answers[len(slugs) :] if answers else [{} for _ in balances]
    alive = [bool(built.get(balance.subject.environment.slug)) for balance in balances]
    missing = [balance for balance, is_live in zip(balances, alive, strict=True) if not is_live]
    stored = _stored(missing)
    return [
        _filled(balance, *_live_amounts(balance, fields), None)
        if is_live
        else _filled(balance, *stored.get(_place(balance), (None, None, None)))
        for balance, is_live, fields in zip(balances, alive, amounts, strict=True)
    ]


def _ask_epoch(slug: str, pipeline: Pipeline) -> None:
    pipeline.get(counters.epoch_key(slug))


def _ask_counter(balance: Balance, pipeline: Pipeline) -> None:
    subject = balance.subject
    name = counters.counter_name(str(balance.budget.pk), subject.counter_ref, balance.period.id)
    pipeline.hgetall(counters.budget_key(subject.environment.slug, name))


def _live_amounts(balance: Balance, fields: Mapping[str, str]) -> tuple[Decimal, Decimal]:
    """Spent and held. A counter that is not there although they are built: nothing was spent."""
    spent = int(fields.get("s", 0))
    bucket = balance.period.bucket(balance.at)
    if bucket is not None:  # what has rolled out may not have been taken off yet
        oldest = bucket - ROLLING_BUCKETS
        spent -= sum(
            int(nano) for name, nano in fields.items() if name[:1] == "b" and int(name[1:]) < oldest
        )
    return counters.dollars(max(spent, 0)), counters.dollars(max(int(fields.get("h", 0)), 0))


def _place(balance: Balance) -> tuple[UUID, str, str]:
    return balance.budget.pk, balance.subject.id, balance.period.id


def _stored(
    balances: Sequence[Balance],
) -> dict[tuple[UUID, str, str], tuple[Decimal, Decimal, datetime]]:
    if not balances:
        return {}
    rows = BudgetBalance.objects.filter(
        budget__in={balance.budget.pk for balance in balances},
        subject__in={balance.subject.id for balance in balances},
        period_id__in={balance.period.id for balance in balances},
    )
    return {
        (row.budget_id, row.subject, row.period_id): (row.spent, row.held, row.as_of)
        for row in rows
    }


def _filled(
    balance: Balance, spent: Decimal | None, held: Decimal | None, as_of: datetime | None
) -> Balance:
    return Balance(
        budget=balance.budget,
        subject=balance.subject,
        period=balance.period,
        override=balance.override,
        at=balance.at,
        spent=spent,
        held=held,
        as_of=as_of,
    )
