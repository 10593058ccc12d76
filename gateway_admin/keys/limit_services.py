"""Writes on rate limits. Each is in force on all replicas within a second."""

from collections.abc import Mapping
from typing import Any

from django.db import transaction

from gateway_admin.accounts.models import User
from gateway_admin.accounts.services import audit
from gateway_admin.keys import rights
from gateway_admin.keys.budget_services import checked_model
from gateway_admin.keys.ceilings import SPEEDS, check_limit_ceiling
from gateway_admin.keys.models import RateLimit, Scope, VirtualKey
from gateway_admin.keys.policies import policy_changed
from gateway_admin.keys.subjects import Subject, subject_of
from gateway_admin.lib.errors import Conflict, InvalidInput

MOST = {"rpm": 10_000_000, "tpm": 2_000_000_000, "parallel": 100_000}


@transaction.atomic
def limit_set(
    *,
    actor: User,
    subject: Subject,
    rpm: int | None,
    tpm: int | None,
    parallel: int | None,
    model: str = "",
) -> RateLimit:
    """Set how fast a subject (or each of its scope) may call; replaces its present limit.

    Per minute means: in any 60 seconds. None: not limited in this respect.
    """
    if subject.scope == Scope.CREDENTIAL:
        raise InvalidInput("Limit the credential's deployments instead.", field="scope")
    key = subject.target
    if isinstance(key, VirtualKey) and key.state == VirtualKey.State.REVOKED:
        raise Conflict("This key is revoked for good; nothing calls with it.")
    model = checked_model(model)
    limit = _present(subject, model)
    _require(actor, subject, limit)
    wanted = _checked(rpm=rpm, tpm=tpm, parallel=parallel)
    by_owner = rights.leads_team_of(actor, subject)
    if by_owner and isinstance(key, VirtualKey):
        check_limit_ceiling(key=key, model=model, **wanted)
    if limit is None:
        limit, before = RateLimit(**subject.columns(), model=model, created_by=actor), {}
    else:
        before = _facts(limit)
    for field, value in wanted.items():
        setattr(limit, field, value)
    limit.by_team_owner = by_owner
    changes = {
        field: [before.get(field), value]
        for field, value in _facts(limit).items()
        if before.get(field) != value
    }
    if changes:
        limit.save()
        _audit(actor, "limit.set", limit, changes)
        policy_changed(subjects=[(limit.environment, subject.ref)])
    return limit


@transaction.atomic
def limit_delete(*, actor: User, limit: RateLimit) -> None:
    """Lift a limit. Its subject falls back to the default of its scope, where there is one."""
    subject = subject_of(limit)
    present = _present(subject, limit.model)
    if present is None:
        raise Conflict("This limit was deleted meanwhile.")
    _require(actor, subject, present)
    changes = {field: [value, None] for field, value in _facts(present).items() if value}
    _audit(actor, "limit.delete", present, changes)
    environment = present.environment
    present.delete()
    policy_changed(subjects=[(environment, subject.ref)])


def _present(subject: Subject, model: str) -> RateLimit | None:
    rows = RateLimit.objects.select_for_update(of=("self",), no_key=True)
    scope, ref = subject.ref
    return (
        rows.select_related("environment", "team", "user", "key", "customer")
        .filter(environment=subject.environment, scope=scope, subject=ref, model=model)
        .first()
    )


def _require(actor: User, subject: Subject, limit: RateLimit | None) -> None:
    if limit is None:
        allowed = rights.may_set_limit(actor, subject)
    else:
        allowed = rights.may_change_limit(actor, limit)
    rights.require(
        allowed, "Administrators set limits; owners of a team those of its keys that they set."
    )


def _checked(**wanted: int | None) -> dict[str, int | None]:
    if all(value is None for value in wanted.values()):
        raise InvalidInput("Limit at least one of the three.", field="rpm")
    for field, value in wanted.items():
        if value is not None and not 1 <= value <= MOST[field]:
            raise InvalidInput(f"1 to {MOST[field]:,}, or nothing.", field=field)
    return wanted


def _facts(limit: RateLimit) -> dict[str, Any]:
    return {
        "of": f"{limit.scope}: {subject_of(limit).label}",
        "model": limit.model or None,
        **{field: getattr(limit, field) for field in SPEEDS},
    }


def _audit(actor: User, action: str, limit: RateLimit, changes: Mapping[str, Any]) -> None:
    audit(
        actor=actor,
        action=action,
        target=limit,
        changes=changes,
        environment=limit.environment.slug,
    )
