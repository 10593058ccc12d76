"""The demonstration's limits, customers, an override and a block. Everybody is invented.

Limits are well above what live traffic does, so that pages show headroom and calls go on.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

from gateway_admin.accounts.models import User
from gateway_admin.catalog.models import Environment
from gateway_admin.keys.block_services import customer_create, subject_block
from gateway_admin.keys.budget_services import budget_create, override_grant
from gateway_admin.keys.limit_services import limit_set
from gateway_admin.keys.models import Block, Budget, Customer, RateLimit, Scope, Team
from gateway_admin.keys.subjects import Subject


@dataclass(frozen=True)
class LimitRow:
    """`of`: a team's slug; "" for the environment or for each of the scope."""

    scope: Literal["environment", "team", "user", "customer"]
    of: str = ""
    rpm: int | None = None
    tpm: int | None = None
    parallel: int | None = None


LIMITS = (
    LimitRow("environment", rpm=6_000, parallel=400),
    LimitRow("user", rpm=500, tpm=2_000_000),
    LimitRow("customer", rpm=120),
    LimitRow("team", "developer-tools", rpm=1_200, tpm=4_000_000, parallel=60),
    LimitRow("team", "growth", rpm=300, parallel=20),
)
CUSTOMERS = {
    "customer-001": "Harbour Logistics (invented)",
    "customer-002": "Meadow Insurance (invented)",
    "customer-003": "Copper Kettle Foods (invented)",
    "customer-120": "Paper Lantern Trading (invented)",
}
OWN_BUDGET = ("customer-001", "90")  # US dollars a month
BLOCKED = ("customer-120", "Contract ended; ask sales@demo.example to renew it")
OVERRIDE = ("growth", "320", "Spring campaign")
OVERRIDE_LIFE = timedelta(days=5)


def limits_seed(*, admin: User, environment: Environment, now: datetime) -> None:
    """Set them; part of the seed's transaction, after the budgets."""
    for row in LIMITS:
        team = Team.objects.get(slug=row.of) if row.of else None
        limit_set(
            actor=admin,
            subject=Subject(Scope(row.scope), environment, team),
            rpm=row.rpm,
            tpm=row.tpm,
            parallel=row.parallel,
        )
    customers = {
        reference: customer_create(
            actor=admin, environment=environment, reference=reference, name=name
        )
        for reference, name in CUSTOMERS.items()
    }
    reference, amount = OWN_BUDGET
    budget_create(
        actor=admin,
        subject=Subject(Scope.CUSTOMER, environment, customers[reference]),
        limit_usd=Decimal(amount),
        period="month",
        soft_percent=[80],
    )
    reference, reason = BLOCKED
    subject_block(actor=admin, target=customers[reference], reason=reason)
    team_slug, amount, reason = OVERRIDE
    for budget in Budget.objects.filter(environment=environment, team__slug=team_slug):
        override_grant(
            actor=admin,
            budget=budget,
            limit_usd=Decimal(amount),
            expires_at=now + OVERRIDE_LIFE,
            reason=reason,
        )


def limits_remove() -> None:
    """Delete what the demonstration set; customers that somebody made a rule for stay."""
    RateLimit.objects.filter(created_by__is_demo=True).delete()
    Block.objects.filter(created_by__is_demo=True).delete()
    for customer in Customer.objects.filter(reference__in=CUSTOMERS, name__in=CUSTOMERS.values()):
        ruled = (rules.objects.filter(customer=customer) for rules in (Budget, RateLimit, Block))
        if not any(rows.exists() for rows in ruled):
            customer.delete()
