"""What workers report, and what they are told in return.

Every worker asks every two seconds, so this is three queries: whose token it is with what
should be running (one), where this worker stood (one), where it stands (one).
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Max, OuterRef, Subquery
from django.utils import timezone

from gateway_admin.accounts.services import audit
from gateway_admin.catalog.models import Environment
from gateway_admin.fleet.breakers import REASON_LENGTH, Told, transitions_store
from gateway_admin.fleet.identity import token_holders
from gateway_admin.fleet.models import (
    BreakerState,
    FleetIdentity,
    Replica,
    ReplicaWorker,
    Revision,
)
from gateway_admin.fleet.queries import FORGOTTEN_AFTER
from gateway_admin.keys.models import PolicyClock
from gateway_admin.lib.errors import Conflict, InvalidInput
from proxy.contract import BreakerTransition, SyncOrder, SyncReport

MAX_SLOT = 1_000
MAX_REASONS = 20
MAX_TRANSITIONS = 500
COUNTER_MODES = ("shared", "local", "unbuilt")
TEXT_LENGTH = 2_000
BIG = 2**63 - 1
SMALL = 2**31 - 1


def identity_of(presented: str) -> FleetIdentity | None:
    """The identity of a fleet token, with its environment and what that should be running.

    Annotated: `active_number`, `active_digest` (None before the first publish) and
    `policy_version` (None before the first key).
    """
    newest = Revision.objects.filter(environment=OuterRef("environment")).order_by("-number")
    clock = PolicyClock.objects.filter(environment=OuterRef("environment"))
    return (
        FleetIdentity.objects.filter(token_holders(presented))
        .select_related("environment")
        .annotate(
            active_number=Subquery(newest.values("number")[:1]),
            active_digest=Subquery(newest.values("digest")[:1]),
            policy_version=Subquery(clock.values("version")[:1]),
        )
        .first()
    )


def order_for(identity: FleetIdentity) -> SyncOrder:
    """What a worker of this fleet should be running; no query."""
    return SyncOrder(
        revision=identity.active_number,  # type: ignore[attr-defined]
        digest=identity.active_digest,  # type: ignore[attr-defined]
        policy_version=identity.policy_version or 0,  # type: ignore[attr-defined]
        server_time=timezone.now().isoformat(),
    )


@dataclass(frozen=True)
class Standing:
    """A checked SyncReport."""

    replica_id: UUID
    hostname: str
    version: str
    slot: int
    workers: int
    values: dict[str, Any]  # columns of ReplicaWorker
    transitions: list[Told]

    @classmethod
    def parse(cls, report: Any) -> "Standing":
        """Check a report of SyncReport's shape, or raise InvalidInput naming the field."""
        if not isinstance(report, dict):
            raise InvalidInput("The report is not a JSON object.")
        if missing := sorted(SyncReport.__required_keys__ - report.keys()):
            raise InvalidInput(f"The report lacks {', '.join(missing)}.", field=missing[0])
        numbers = {name: _count(report, name, SMALL) for name in ("pid", "workers")}
        values = {
            "pid": numbers["pid"],
            "started_at": _moment(report, "started_at"),
            "applied_revision": _maybe(report, "applied_revision"),
            "applied_digest": _text(report, "applied_digest", 64),
            "rejected_revision": _maybe(report, "rejected_revision"),
            "rejected_error": _text(report, "rejected_error", TEXT_LENGTH),
            "rejected_deployment": _uuid_or_none(report["rejected_deployment"]),
            "policy_version": _count(report, "policy_version", BIG),
            "spool_events": _count(report, "spool_events", BIG),
            "spool_bytes": _count(report, "spool_bytes", BIG),
            "dropped_events": _count(report, "dropped_events", BIG),
            "healthy": report["healthy"] is True,
            "reasons": _reasons(report["reasons"]),
            "counters": _counters(report.get("counters")),
        }
        replica_id = _uuid_or_none(report["replica_id"])
        if replica_id is None:
            raise InvalidInput("replica_id is not a UUID.", field="replica_id")
        return cls(
            replica_id=replica_id,
            hostname=_text(report, "hostname", 200),
            version=_text(report, "version", 40),
            slot=_count(report, "worker", MAX_SLOT),
            workers=numbers["workers"],
            values=values,
            transitions=_transitions(report.get("breaker_transitions", [])),
        )


def worker_report(*, environment: Environment, standing: Standing) -> None:
    """Store where a worker stands, in two queries; more only when something is new.

    Raises Conflict when the replica's id is in use by another environment.
    """
    now = timezone.now()
    before = (
        ReplicaWorker.objects.select_related("replica")
        .filter(replica_id=standing.replica_id, slot=standing.slot)
        .first()
    )
    if before is None or before.pid != standing.values["pid"] or _moved(before, standing):
        _admit(environment, standing, now)
        before = ReplicaWorker.objects.select_related("replica").get(
            replica_id=standing.replica_id, slot=standing.slot
        )
    if before.replica.environment_id != environment.pk:
        raise _elsewhere(standing)
    values = {**standing.values, "last_seen_at": now}
    if _has_acknowledged(before, standing):
        values["acknowledged_at"] = now
    values |= _since(before, standing, now)
    ReplicaWorker.objects.filter(pk=before.pk).update(**values)
    _note_rejection(environment, before, standing)
    if standing.transitions:
        transitions_store(
            environment=environment,
            told=standing.transitions,
            replica=f"{standing.hostname}, worker {standing.slot}",
            now=now,
        )


def replicas_forget(*, now: datetime | None = None) -> int:
    """Forget replicas none of whose workers was heard of for FORGOTTEN_AFTER."""
    horizon = (now or timezone.now()) - FORGOTTEN_AFTER
    heard = Replica.objects.annotate(last_seen_at=Max("workers__last_seen_at"))
    forgotten = 0
    for replica in heard.filter(last_seen_at__lt=horizon, first_seen_at__lt=horizon):
        with transaction.atomic():
            environment = replica.environment.slug
            audit(actor=None, action="replica.forget", target=replica, environment=environment)
            replica.delete()
        forgotten += 1
    return forgotten


@transaction.atomic
def _admit(environment: Environment, standing: Standing, now: datetime) -> None:
    """First report of a worker's process: make room for it, and drop slots it no longer has."""
    replica, _ = Replica.objects.get_or_create(
        pk=standing.replica_id,
        defaults={
            "environment": environment,
            "hostname": standing.hostname,
            "version": standing.version,
        },
    )
    if replica.environment_id != environment.pk:
        raise _elsewhere(standing)
    Replica.objects.filter(pk=replica.pk).update(
        hostname=standing.hostname, version=standing.version
    )
    ReplicaWorker.objects.filter(replica=replica, slot__gte=max(standing.workers, 1)).exclude(
        slot=standing.slot
    ).delete()
    ReplicaWorker.objects.get_or_create(
        replica=replica,
        slot=standing.slot,
        defaults={
            "pid": standing.values["pid"],
            "started_at": standing.values["started_at"],
            "last_seen_at": now,
        },
    )


def _moved(before: ReplicaWorker, standing: Standing) -> bool:
    replica = before.replica
    return (replica.hostname, replica.version) != (standing.hostname, standing.version)


def _has_acknowledged(before: ReplicaWorker, standing: Standing) -> bool:
    applied = standing.values["applied_revision"]
    changed = applied != before.applied_revision or before.acknowledged_at is None
    return applied is not None and changed


def _since(before: ReplicaWorker, standing: Standing, now: datetime) -> dict[str, datetime | None]:
    """When it fell ill, and since when it counts as it does now."""
    found: dict[str, datetime | None] = {}
    if standing.values["healthy"]:
        found["unwell_since"] = None
    elif before.unwell_since is None:
        found["unwell_since"] = now
    if standing.values["counters"] != before.counters:
        found["counters_since"] = now
    return found


def _note_rejection(environment: Environment, before: ReplicaWorker, standing: Standing) -> None:
    """Once per worker and revision; the worker repeats it with every report."""
    rejected = standing.values["rejected_revision"]
    if rejected is None or rejected == before.rejected_revision:
        return
    revision = Revision.objects.filter(environment=environment, number=rejected).first()
    audit(
        actor=None,
        action="revision.reject",
        target=revision or before.replica,
        environment=environment.slug,
        changes={
            "replica": [None, f"{standing.hostname}, worker {standing.slot}"],
            "reason": [None, standing.values["rejected_error"]],
        },
    )


def _elsewhere(standing: Standing) -> Conflict:
    return Conflict(
        f"Replica {standing.replica_id} belongs to another environment. "
        "Give each replica a state directory of its own."
    )


def _count(report: dict[str, Any], name: str, most: int) -> int:
    value = report[name]
    if type(value) is not int or not 0 <= value <= most:
        raise InvalidInput(f"{name} is not a count.", field=name)
    return value


def _maybe(report: dict[str, Any], name: str) -> int | None:
    return None if report[name] is None else _count(report, name, SMALL)


def _text(report: dict[str, Any], name: str, length: int) -> str:
    value = report[name]
    if not isinstance(value, str | None):
        raise InvalidInput(f"{name} is not text.", field=name)
    return (value or "").replace("\x00", "")[:length]


def _moment(report: dict[str, Any], name: str) -> datetime:
    try:
        moment = datetime.fromisoformat(report[name])
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{name} is not an RFC 3339 time.", field=name) from error
    if moment.tzinfo is None:
        raise InvalidInput(f"{name} has no time zone.", field=name)
    return moment


def _uuid_or_none(value: Any) -> UUID | None:
    """Deployments of a broken document may have any id; an unreadable one is no id."""
    try:
        return UUID(value)
    except (TypeError, ValueError, AttributeError):
        return None


def _reasons(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise InvalidInput("reasons is not a list.", field="reasons")
    return [str(reason).replace("\x00", "")[:300] for reason in value[:MAX_REASONS]]


def _counters(value: Any) -> str:
    if value is not None and value not in COUNTER_MODES:
        raise InvalidInput(f"counters is none of {', '.join(COUNTER_MODES)}.", field="counters")
    return value or ""


def _transitions(value: Any) -> list[Told]:
    name = "breaker_transitions"
    if not isinstance(value, list):
        raise InvalidInput(f"{name} is not a list.", field=name)
    found = (_transition(row, name) for row in value[:MAX_TRANSITIONS])
    return [row for row in found if row is not None]


def _transition(row: Any, name: str) -> Told | None:
    if not isinstance(row, dict) or not BreakerTransition.__required_keys__ <= row.keys():
        raise InvalidInput(f"An entry of {name} has not all fields.", field=name)
    if row["state"] not in BreakerState.values:
        raise InvalidInput(f"An entry of {name} has an unknown state.", field=name)
    deployment = _uuid_or_none(row["deployment"])
    if deployment is None:
        return None
    return Told(
        deployment_id=deployment,
        generation=_count(row, "generation", BIG),
        state=row["state"],
        at=_moment(row, "at"),
        reason=_text(row, "reason", REASON_LENGTH),
    )
