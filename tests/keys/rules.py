"""Builders of rules for the tests: a test names only what it is about."""

from decimal import Decimal
from typing import Any

from gateway_admin.accounts.models import User
from gateway_admin.catalog.models import Environment
from gateway_admin.keys.budget_services import budget_create
from gateway_admin.keys.limit_services import limit_set
from gateway_admin.keys.models import Budget, RateLimit
from gateway_admin.keys.subjects import Subject, Target, scope_of


def subject(environment: Environment, target: Target | None = None, scope: str = "") -> Subject:
    return Subject(scope or (scope_of(target) if target else "environment"), environment, target)


def budget(actor: User, of: Subject, **fields: Any) -> Budget:
    """10 dollars a month unless said otherwise."""
    values: dict[str, Any] = {"limit_usd": Decimal(10), "period": "month", **fields}
    return budget_create(actor=actor, subject=of, **values)


def limit(actor: User, of: Subject, **fields: Any) -> RateLimit:
    """60 requests per minute unless said otherwise."""
    values: dict[str, Any] = {"rpm": 60, "tpm": None, "parallel": None, **fields}
    return limit_set(actor=actor, subject=of, **values)
