"""Who sees and who sets budgets, limits, blocks and customers.

|                    | admin | finance              | owner of a key's team      | others      |
|--------------------|-------|----------------------|----------------------------|-------------|
| see                | all   | all                  | own teams, keys, oneself;  | as left     |
|                    |       |                      | whole environments, defaults |           |
| budgets, overrides | all   | all                  | budgets of the team's keys, | -          |
|                    |       |                      | never looser than a rule   |             |
|                    |       |                      | that others set            |             |
| limits             | all   | -                    | as budgets                 | -           |
| blocks             | all   | -                    | -                          | -           |
| customers          | all   | all                  | -                          | -           |
"""

from typing import TypeVar

from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet

from gateway_admin.accounts.models import User
from gateway_admin.accounts.roles import Role, is_admin, role_of, sees_all_spend
from gateway_admin.keys import queries
from gateway_admin.keys.models import Block, Budget, Customer, RateLimit, Rule, Scope, VirtualKey
from gateway_admin.keys.subjects import Subject

AnyRule = TypeVar("AnyRule", Budget, RateLimit)
SETS_BUDGETS = frozenset({Role.ADMIN, Role.FINANCE})


def visible_budgets(user: User) -> QuerySet[Budget]:
    return _visible(user, Budget.objects.all())


def visible_limits(user: User) -> QuerySet[RateLimit]:
    return _visible(user, RateLimit.objects.all())


def _visible(user: User, rules: QuerySet[AnyRule]) -> QuerySet[AnyRule]:
    if sees_all_spend(user):
        return rules
    own = (
        Q(key__in=queries.visible_keys(user))
        | Q(team__in=queries.visible_teams(user))
        | Q(user=user)
    )
    shared = Q(scope=Scope.ENVIRONMENT) | (Q(is_default=True) & ~Q(scope=Scope.CREDENTIAL))
    return rules.filter(own | shared)


def visible_blocks(user: User) -> QuerySet[Block]:
    if sees_all_spend(user):
        return Block.objects.all()
    return Block.objects.filter(Q(team__in=queries.visible_teams(user)) | Q(user=user))


def visible_customers(user: User) -> QuerySet[Customer]:
    return Customer.objects.all() if sees_all_spend(user) else Customer.objects.none()


def sets_any_budget(user: User) -> bool:
    """Whether "Set budget" leads anywhere for this person."""
    return role_of(user) in SETS_BUDGETS


def may_set_budget(user: User, subject: Subject) -> bool:
    return role_of(user) in SETS_BUDGETS or leads_team_of(user, subject)


def may_change_budget(user: User, budget: Budget) -> bool:
    """Owners of a team change what an owner of the team set, and nothing else."""
    return role_of(user) in SETS_BUDGETS or _changes_own(user, budget)


def may_set_limit(user: User, subject: Subject) -> bool:
    return is_admin(user) or leads_team_of(user, subject)


def may_change_limit(user: User, limit: RateLimit) -> bool:
    return is_admin(user) or _changes_own(user, limit)


def may_block(user: User) -> bool:
    return is_admin(user)


def manages_customers(user: User) -> bool:
    return role_of(user) in SETS_BUDGETS


def leads_team_of(user: User, subject: Subject) -> bool:
    """The subject is a key of a team that this developer owns."""
    key = subject.target
    if not isinstance(key, VirtualKey) or key.team_id is None or is_admin(user):
        return False
    return queries.managed_teams(user).filter(pk=key.team_id).exists()


def _changes_own(user: User, rule: Rule) -> bool:
    if not rule.by_team_owner or rule.key is None:
        return False
    return leads_team_of(user, Subject(Scope.KEY, rule.environment, rule.key))


def require(allowed: bool, message: str) -> None:
    """403 with the reason."""
    if not allowed:
        raise PermissionDenied(message)
