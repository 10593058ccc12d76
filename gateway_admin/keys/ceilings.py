"""How far an owner of a team may go with the rules of the team's keys.

A rule of a key replaces the default for keys, and stands beside the team's. So an owner's rule
may be tighter than both, never looser: else owners could lift what was set for them.
"""

from decimal import Decimal
from typing import TypeVar

from django.db.models import Q, QuerySet

from gateway_admin.keys.models import Budget, RateLimit, Scope, VirtualKey
from gateway_admin.lib.errors import InvalidInput

AnyRule = TypeVar("AnyRule", Budget, RateLimit)
SPEEDS = ("rpm", "tpm", "parallel")


def check_budget_ceiling(
    *, key: VirtualKey, model: str, limit_usd: Decimal, period: str, rolling_hours: int | None
) -> None:
    """Raise InvalidInput if this budget would allow more than the team's or the default."""
    for budget in _above(Budget.objects.all(), key, model):
        if (budget.period, budget.rolling_hours) == (period, rolling_hours):
            if limit_usd > budget.limit_usd:
                raise InvalidInput(
                    f"“{budget.name}” allows ${budget.limit_usd.normalize():,f} in this period: "
                    "choose no more than that, or ask an administrator.",
                    field="limit_usd",
                )
        elif budget.is_default and budget.scope == Scope.KEY and not _has_own(key, budget):
            raise InvalidInput(
                f"This budget would replace “{budget.name}”, which is for another period: "
                "set one for the same period first, or ask an administrator.",
                field="period",
            )


def check_limit_ceiling(
    *, key: VirtualKey, model: str, rpm: int | None, tpm: int | None, parallel: int | None
) -> None:
    """Raise InvalidInput if this limit would allow more than the team's or the default."""
    wanted = {"rpm": rpm, "tpm": tpm, "parallel": parallel}
    for limit in _above(RateLimit.objects.all(), key, model):
        replaced = limit.is_default and limit.scope == Scope.KEY
        for field in SPEEDS:
            most, value = getattr(limit, field), wanted[field]
            looser = value is None and replaced if most is None or value is None else value > most
            if most is not None and looser:
                raise InvalidInput(
                    f"At most {most:,}: that is set above this key. Ask an administrator for more.",
                    field=field,
                )


def _above(rules: QuerySet[AnyRule], key: VirtualKey, model: str) -> list[AnyRule]:
    """Rules of the key's team, own or default, and the defaults for keys of the same model."""
    default = Q(is_default=True)
    of_keys = default & Q(scope=Scope.KEY, model=model)
    of_team = Q(scope=Scope.TEAM, model__in={"", model}) & (default | Q(team=key.team))
    found = list(rules.filter(of_keys | of_team, environment=key.environment))
    own = {rule.model for rule in found if rule.team_id is not None}
    return [
        rule
        for rule in found
        if not (rule.is_default and rule.scope == Scope.TEAM and rule.model in own)
    ]


def _has_own(key: VirtualKey, default: Budget) -> bool:
    return Budget.objects.filter(
        key=key,
        model=default.model,
        period=default.period,
        rolling_hours=default.rolling_hours,
    ).exists()
