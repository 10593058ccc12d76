"""Who stands where under a default budget: each subject has a balance of its own."""

from dataclasses import dataclass

from django.db.models import QuerySet

from gateway_admin.accounts.models import User
from gateway_admin.accounts.roles import sees_all_spend
from gateway_admin.catalog.models import Credential
from gateway_admin.keys import queries
from gateway_admin.keys.balances import Balance, balances_of
from gateway_admin.keys.models import Budget, BudgetBalance, Customer, Scope
from gateway_admin.keys.subjects import Subject, Target, target_id

MOST_READ = 500
MOST_SHOWN = 100


@dataclass(frozen=True)
class Shares:
    """The subjects that spent most, and whether there are more than are shown."""

    balances: list[Balance]
    truncated: bool


def shares_of(budget: Budget, person: User) -> Shares:
    """Balances of the subjects of a default budget without their own, largest first."""
    own = set(
        Budget.objects.filter(
            environment=budget.environment,
            scope=budget.scope,
            model=budget.model,
            is_default=False,
        ).values_list("subject", flat=True)
    )
    targets = [row for row in _targets(budget, person) if target_id(row) not in own]
    subjects = [Subject(budget.scope, budget.environment, row) for row in targets]
    balances = balances_of([(budget, subject) for subject in subjects])
    ordered = sorted(balances, key=lambda one: (one.spent is None, -(one.spent or 0)))
    return Shares(ordered[:MOST_SHOWN], len(balances) > MOST_SHOWN or len(targets) >= MOST_READ)


def _targets(budget: Budget, person: User) -> list[Target]:
    """Rows of the scope; of many, those that spent most when balances were last stored."""
    if budget.scope == Scope.CUSTOMER:
        return _customers(budget, person)
    rows = _candidates(budget, person)
    listed = list(rows[: MOST_READ + 1])
    if len(listed) <= MOST_READ:
        return listed
    spenders = BudgetBalance.objects.filter(budget=budget).order_by("-as_of", "-spent")
    names = list(spenders.values_list("subject", flat=True)[:MOST_READ])
    return list(rows.filter(pk__in=names)[:MOST_READ])


def _customers(budget: Budget, person: User) -> list[Target]:
    """Those that the ledger knows and those that were named; a customer needs no row."""
    if not sees_all_spend(person):
        return []
    environment = budget.environment
    rows = Customer.objects.filter(environment=environment)
    named: dict[str, Target] = {row.reference: row for row in rows}
    spenders = BudgetBalance.objects.filter(budget=budget).order_by("-as_of", "-spent")
    for name in spenders.values_list("subject", flat=True)[:MOST_READ]:
        named.setdefault(name, Customer(environment=environment, reference=name))
    return list(named.values())[: MOST_READ * 2]


def _candidates(budget: Budget, person: User) -> "QuerySet[Target]":
    environment = budget.environment
    rows: QuerySet[Target]
    if budget.scope == Scope.TEAM:
        rows = queries.visible_teams(person).order_by("name")
    elif budget.scope == Scope.USER:
        people = User.objects.filter(virtual_keys__environment=environment).distinct()
        rows = people if sees_all_spend(person) else people.filter(pk=person.pk)
    elif budget.scope == Scope.KEY:
        keys = queries.keys_in_state(queries.visible_keys(person), "")
        rows = keys.filter(environment=environment).order_by("name")
    else:
        rows = Credential.objects.filter(environment=environment)
    return rows
