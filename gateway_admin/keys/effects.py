"""What a budget or a limit will do, in words: said before it is saved."""

from decimal import Decimal

from django.db.models import QuerySet
from django.utils import timezone

from gateway_admin.catalog.models import Credential, Deployment
from gateway_admin.frame import formats
from gateway_admin.keys.balances import Balance, balance_of
from gateway_admin.keys.calendar import calendar
from gateway_admin.keys.models import Budget, RateLimit, Scope, VirtualKey
from gateway_admin.keys.queries import keys_in_state
from gateway_admin.keys.rules import AnyRule
from gateway_admin.keys.subjects import Subject, subject_of
from proxy.contract.periods import period_of


def budget_effect(
    *, subject: Subject, model: str, period: str, rolling_hours: int | None
) -> list[str]:
    """Sentences on a budget that is about to be set."""
    sentences = [_reach(subject, model)]
    replaced = _replaced(Budget.objects.all(), subject, model)
    if replaced:
        names = ", ".join(f"“{budget.name}”" for budget in replaced)
        sentences.append(f"It takes the place of {names} for {subject.label}.")
    began = period_of(
        period, at=timezone.now(), calendar=calendar(), rolling_hours=rolling_hours
    ).start
    if began is None:
        sentences.append("All that was ever spent counts.")
    else:
        sentences.append(f"What was spent since {formats.clock(began)} counts.")
    return sentences


def amount_effect(budget: Budget, limit_usd: Decimal) -> list[str]:
    """Sentences on another amount for a budget that is there."""
    if budget.is_default:
        return ["The new amount holds for each of them within a second."]
    balance = balance_of(budget, subject_of(budget))
    if balance.spent is None:
        return ["What is spent is not known at the moment; the amount holds within a second."]
    left = limit_usd - balance.spent - (balance.held or Decimal(0))
    spent = f"{formats.money(balance.spent)} is spent in this period"
    if left <= 0:
        return [f"{spent}: every call that costs anything is refused {_until(balance)}."]
    return [f"{spent}: {formats.money(left)} will remain {_until(balance)}."]


def limit_effect(*, subject: Subject, model: str) -> list[str]:
    """Sentences on a limit that is about to be set."""
    sentences = [_reach(subject, model)]
    scope, ref = subject.ref
    present = RateLimit.objects.filter(
        environment=subject.environment, scope=scope, subject=ref, model=model
    ).exists()
    if present:
        sentences.append("It takes the place of the present limit.")
    elif replaced := _replaced(RateLimit.objects.all(), subject, model):
        sentences.append(f"It takes the place of the default ({speeds(replaced[0])}).")
    sentences.append("Calls beyond it are refused with the time after which to try again.")
    return sentences


def speeds(limit: RateLimit) -> str:
    """ "60 requests/min, 10,000 tokens/min, 4 at once"."""
    parts = (
        (limit.rpm, "requests/min"),
        (limit.tpm, "tokens/min"),
        (limit.parallel, "at once"),
    )
    return ", ".join(f"{value:,} {unit}" for value, unit in parts if value is not None)


def _replaced(rules: QuerySet[AnyRule], subject: Subject, model: str) -> list[AnyRule]:
    """Defaults that hold for this subject now, and will not with a rule of its own."""
    if subject.target is None:
        return []
    scope, ref = subject.ref
    same = rules.filter(environment=subject.environment, scope=scope, model=model)
    if same.filter(subject=ref).exists():
        return []
    return list(same.filter(is_default=True))


def _reach(subject: Subject, model: str) -> str:
    calls = f"calls of {model}" if model else "calls"
    where = subject.environment.name
    if subject.scope == Scope.CREDENTIAL:
        served = Deployment.objects.filter(environment=subject.environment)
        if isinstance(subject.target, Credential):
            served = served.filter(credential=subject.target)
        count = served.count()
        return f"Holds for {calls} through {count} deployment{_s(count)} in {where}."
    if subject.scope == Scope.CUSTOMER:
        whom = f"that carry user “{subject.id}”" if subject.target else "that name a customer"
        each = "" if subject.target else ", each customer on its own"
        return f"Holds for {calls} {whom} in {where}{each}."
    count = _keys(subject).count()
    each = f", {subject.label.lower()} on its own" if subject.is_default else ""
    return f"Holds for {calls} with {count:,} key{_s(count)} in {where}{each}."


def _keys(subject: Subject) -> QuerySet[VirtualKey]:
    """Keys in use whose calls a rule of this subject binds."""
    keys = keys_in_state(VirtualKey.objects.filter(environment=subject.environment), "")
    target = subject.target
    if target is None:
        columns = {Scope.TEAM: "team__isnull", Scope.USER: "owner__isnull"}
        column = columns.get(Scope(subject.scope))
        return keys.filter(**{column: False}) if column else keys
    names = {Scope.TEAM: "team", Scope.USER: "owner", Scope.KEY: "pk"}
    return keys.filter(**{names[Scope(subject.scope)]: target.pk})


def _until(balance: Balance) -> str:
    if balance.resets_at is None:
        return "as older spend rolls out" if balance.budget.rolling_hours else "for good"
    return f"until {formats.clock(balance.resets_at)}"


def _s(count: int) -> str:
    return "" if count == 1 else "s"
