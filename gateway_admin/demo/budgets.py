"""The demonstration's budgets: of the environment, of teams, a key, people and customers.

Limits fit the spend that the back-fill draws at its usual size. Those of rolling hours look
the same on every day of a month: one well below, some past their threshold, none exhausted,
so that live traffic goes on.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

import structlog

from gateway_admin.accounts.models import User
from gateway_admin.catalog.models import Environment
from gateway_admin.keys.budget_services import budget_create
from gateway_admin.keys.models import Budget, Scope, Team, VirtualKey
from gateway_admin.keys.subjects import Subject
from gateway_admin.usage.counter_store import CountersAway
from gateway_admin.usage.counters import counters_repair

log = structlog.get_logger(__name__)

THIRTY_DAYS = 720  # hours


@dataclass(frozen=True)
class BudgetRow:
    """`of`: a team's slug, a key's name; "" for the environment or for each of the scope."""

    scope: Literal["environment", "team", "user", "key", "customer"]
    of: str
    limit_usd: str
    period: str
    soft_percent: tuple[int, ...] = ()
    rolling_hours: int | None = None


BUDGETS = (
    BudgetRow("environment", "", "1500", "month", (50, 80)),
    BudgetRow("team", "developer-tools", "900", "rolling", (80,), THIRTY_DAYS),
    BudgetRow("team", "growth", "260", "rolling", (50,), THIRTY_DAYS),
    BudgetRow("team", "", "300", "month", (80,)),
    BudgetRow("user", "", "400", "month", (75,)),
    BudgetRow("key", "review-agent", "400", "rolling", (50,), THIRTY_DAYS),
    BudgetRow("customer", "", "40", "month", (80,)),
)


def budgets_seed(*, admin: User, environment: Environment) -> None:
    """Set them; part of the seed's transaction."""
    for row in BUDGETS:
        subject = Subject(Scope(row.scope), environment, _target(row, environment))
        budget_create(
            actor=admin,
            subject=subject,
            limit_usd=Decimal(row.limit_usd),
            period=row.period,
            rolling_hours=row.rolling_hours,
            soft_percent=row.soft_percent,
        )


def budgets_remove() -> None:
    """Delete what people of the demonstration set, before they go themselves."""
    Budget.objects.filter(created_by__is_demo=True).delete()


def counters_follow() -> None:
    """Have the counters learn of a ledger that was written or emptied in bulk."""
    for environment in Environment.objects.all():
        try:
            counters_repair(environment=environment)
        except CountersAway as error:
            log.warning("counters_left_alone", error=str(error), consequence="mended later")
            return


def _target(row: BudgetRow, environment: Environment) -> Team | VirtualKey | None:
    if row.scope == "team" and row.of:
        return Team.objects.get(slug=row.of)
    if row.scope == "key" and row.of:
        return VirtualKey.objects.get(environment=environment, name=row.of, team__is_demo=True)
    return None
