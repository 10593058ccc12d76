"""Writes on budgets and their overrides. Each is in force on all replicas within a second."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from gateway_admin.accounts.models import User
from gateway_admin.accounts.services import audit
from gateway_admin.catalog.models import Model
from gateway_admin.keys import rights
from gateway_admin.keys.ceilings import check_budget_ceiling
from gateway_admin.keys.counters_seed import counters_seed
from gateway_admin.keys.models import Budget, BudgetOverride, Scope, VirtualKey
from gateway_admin.keys.policies import policy_changed
from gateway_admin.keys.subjects import Subject, subject_of
from gateway_admin.lib.errors import Conflict, InvalidInput

MAX_USD = Decimal(9_000_000)  # counters are exact up to here
MIN_USD = Decimal("0.000001")
MAX_ROLLING_HOURS = 8_760
MAX_THRESHOLDS = 5
MAX_OVERRIDE = timedelta(days=366)

Period = Budget.Period


@transaction.atomic
def budget_create(
    *,
    actor: User,
    subject: Subject,
    limit_usd: Decimal,
    period: str,
    rolling_hours: int | None = None,
    soft_percent: Iterable[int] = (),
    model: str = "",
    name: str = "",
) -> Budget:
    """Set how much a subject (or each of its scope) may spend in a period.

    What was spent earlier in the running period counts. `model`: only what it costs.
    """
    rights.require(
        rights.may_set_budget(actor, subject),
        "Administrators, finance, and owners of a key's team set budgets.",
    )
    if subject.scope == Scope.CREDENTIAL and model:
        raise InvalidInput("A credential's budget is for all its models.", field="model")
    _check_alive(subject)
    budget = Budget(
        **subject.columns(),
        model=checked_model(model),
        by_team_owner=rights.leads_team_of(actor, subject),
        created_by=actor,
    )
    _fill(budget, name, limit_usd, period, rolling_hours, soft_percent)
    _check_ceiling(budget)
    try:
        with transaction.atomic():
            budget.save(force_insert=True)
    except IntegrityError as error:
        raise _taken(subject, budget) from error
    changes = {field: [None, value] for field, value in _facts(budget).items() if value}
    _audit(actor, "budget.create", budget, changes)
    counters_seed(environment=budget.environment, budgets=[budget])
    _announce(budget)
    return budget


@transaction.atomic
def budget_update(
    *,
    actor: User,
    budget: Budget,
    name: str,
    limit_usd: Decimal,
    period: str,
    rolling_hours: int | None,
    soft_percent: Iterable[int],
) -> Budget:
    """Change amount, period, thresholds or name; whose it is and its model stay."""
    budget = _locked(budget)
    _require_change(actor, budget)
    before = _facts(budget)
    _fill(budget, name, limit_usd, period, rolling_hours, soft_percent)
    subject = subject_of(budget)
    budget.by_team_owner = budget.by_team_owner and rights.leads_team_of(actor, subject)
    _check_ceiling(budget)
    after = _facts(budget)
    changes = {
        field: [before[field], after[field]] for field in after if before[field] != after[field]
    }
    if not changes:
        return budget
    try:
        with transaction.atomic():
            budget.save()
    except IntegrityError as error:
        raise _taken(subject, budget) from error
    _audit(actor, "budget.update", budget, changes)
    if "period" in changes:
        counters_seed(environment=budget.environment, budgets=[budget])
    _announce(budget)
    return budget


@transaction.atomic
def budget_delete(*, actor: User, budget: Budget) -> None:
    """Lift a budget. Its subject falls back to the default of its scope, where there is one."""
    budget = _locked(budget)
    _require_change(actor, budget)
    changes = {field: [value, None] for field, value in _facts(budget).items() if value}
    _audit(actor, "budget.delete", budget, changes)
    environment, ref = budget.environment, (budget.scope, budget.subject)
    budget.delete()
    policy_changed(subjects=[(environment, ref)])


@transaction.atomic
def override_grant(
    *, actor: User, budget: Budget, limit_usd: Decimal, expires_at: datetime, reason: str
) -> BudgetOverride:
    """Put another limit in the budget's place until a moment; an earlier override ends."""
    rights.require(rights.sets_any_budget(actor), "Administrators and finance grant overrides.")
    budget = _locked(budget)
    reason = " ".join(reason.split())
    if not reason:
        raise InvalidInput("Say why: it stands in the budget's history.", field="reason")
    if len(reason) > 200:
        raise InvalidInput("At most 200 characters.", field="reason")
    now = timezone.now()
    if expires_at <= now:
        raise InvalidInput("This moment has passed. Choose a later one.", field="expires_at")
    if expires_at > now + MAX_OVERRIDE:
        raise InvalidInput(
            "An override lasts a year at most. Change the budget instead.", field="expires_at"
        )
    limit_usd = checked_amount(limit_usd)
    budget.overrides.filter(revoked_at=None).update(revoked_at=now, revoked_by=actor)
    override = BudgetOverride.objects.create(
        budget=budget,
        limit_usd=limit_usd,
        expires_at=expires_at,
        reason=reason,
        granted_by=actor,
        granted_at=now,
    )
    changes = {
        "limit": [_usd(budget.limit_usd), _usd(limit_usd)],
        "until": [None, expires_at.isoformat()],
        "reason": [None, reason],
    }
    _audit(actor, "budget.grant_override", budget, changes)
    _announce(budget)
    return override


@transaction.atomic
def override_revoke(*, actor: User, override: BudgetOverride) -> BudgetOverride:
    """End an override before its time; the budget's own limit holds again."""
    rights.require(rights.sets_any_budget(actor), "Administrators and finance end overrides.")
    budget = _locked(override.budget)
    override = BudgetOverride.objects.select_for_update(of=("self",)).get(pk=override.pk)
    if not override.is_in_force():
        raise Conflict("This override is over already.")
    override.revoked_at, override.revoked_by = timezone.now(), actor
    override.save(update_fields=["revoked_at", "revoked_by"])
    changes = {"limit": [_usd(override.limit_usd), _usd(budget.limit_usd)]}
    _audit(actor, "budget.revoke_override", budget, changes)
    _announce(budget)
    return override


def checked_model(name: str) -> str:
    """The name of a model, "" for all, or InvalidInput at `model`."""
    if name and not Model.objects.filter(name=name).exists():
        raise InvalidInput(
            f"No model is called {name}. Aliases are counted as their model.", field="model"
        )
    return name


def checked_amount(limit_usd: Decimal) -> Decimal:
    """US dollars to six places, or InvalidInput at `limit_usd`."""
    if not limit_usd.is_finite() or limit_usd < MIN_USD:
        raise InvalidInput("More than zero US dollars.", field="limit_usd")
    if limit_usd > MAX_USD:
        raise InvalidInput(f"At most ${MAX_USD:,}.", field="limit_usd")
    rounded = limit_usd.quantize(MIN_USD)
    if rounded != limit_usd:
        raise InvalidInput("At most six places after the point.", field="limit_usd")
    return rounded


def _fill(
    budget: Budget,
    name: str,
    limit_usd: Decimal,
    period: str,
    rolling_hours: int | None,
    soft_percent: Iterable[int],
) -> None:
    if period not in Period.values:
        raise InvalidInput("No such period.", field="period")
    budget.limit_usd = checked_amount(limit_usd)
    budget.period = period
    budget.rolling_hours = _checked_hours(period, rolling_hours)
    budget.soft_percent = _checked_thresholds(soft_percent)
    budget.name = " ".join(name.split()) or _own_name(budget)
    if len(budget.name) > 100:
        raise InvalidInput("At most 100 characters.", field="name")


def _own_name(budget: Budget) -> str:
    """ "Search, month" or "Each key, rolling 24 h, gpt-4o"."""
    parts = [subject_of(budget).label[:60], budget.length, budget.model]
    return ", ".join(filter(None, parts))[:100]


def _checked_hours(period: str, hours: int | None) -> int | None:
    if period != Period.ROLLING:
        return None
    if hours is None or not 1 <= hours <= MAX_ROLLING_HOURS:
        raise InvalidInput(
            f"How many hours it looks back: 1 to {MAX_ROLLING_HOURS:,}.", field="rolling_hours"
        )
    return hours


def _checked_thresholds(percent: Iterable[int]) -> list[int]:
    thresholds = sorted(set(percent))
    if any(not 1 <= value <= 100 for value in thresholds):
        raise InvalidInput("Thresholds are 1 to 100 percent.", field="soft_percent")
    if len(thresholds) > MAX_THRESHOLDS:
        raise InvalidInput(f"At most {MAX_THRESHOLDS} thresholds.", field="soft_percent")
    return thresholds


def _check_alive(subject: Subject) -> None:
    key = subject.target
    if isinstance(key, VirtualKey) and key.state == VirtualKey.State.REVOKED:
        raise Conflict("This key is revoked for good; nothing is spent with it.")


def _check_ceiling(budget: Budget) -> None:
    if budget.by_team_owner and budget.key is not None:
        check_budget_ceiling(
            key=budget.key,
            model=budget.model,
            limit_usd=budget.limit_usd,
            period=budget.period,
            rolling_hours=budget.rolling_hours,
        )


def _require_change(actor: User, budget: Budget) -> None:
    rights.require(
        rights.may_change_budget(actor, budget),
        "Administrators and finance change this budget; owners of a team what they set.",
    )


def _taken(subject: Subject, budget: Budget) -> InvalidInput:
    which = f" for {budget.model}" if budget.model else ""
    return InvalidInput(
        f"{subject.label} has a budget{which} of this period already. Change that one.",
        field="period",
    )


def _facts(budget: Budget) -> dict[str, Any]:
    """What the audit trail tells of a budget."""
    return {
        "name": budget.name,
        "of": f"{budget.scope}: {subject_of(budget).label}",
        "model": budget.model,
        "limit": _usd(budget.limit_usd),
        "period": budget.length,
        "thresholds": list(budget.soft_percent),
    }


def _usd(amount: Decimal) -> str:
    return f"{amount.normalize():f}"


def _audit(actor: User, action: str, budget: Budget, changes: Mapping[str, Any]) -> None:
    audit(
        actor=actor,
        action=action,
        target=budget,
        changes=changes,
        environment=budget.environment.slug,
    )


def _announce(budget: Budget) -> None:
    policy_changed(subjects=[(budget.environment, (budget.scope, budget.subject))])


def _locked(budget: Budget) -> Budget:
    """The row as it is now, or Conflict if somebody deleted it."""
    related = ("environment", "team", "user", "key", "customer", "credential")
    rows = Budget.objects.select_for_update(of=("self",), no_key=True).select_related(*related)
    found = rows.filter(pk=budget.pk).first()
    if found is None:
        raise Conflict("This budget was deleted meanwhile.")
    return found
