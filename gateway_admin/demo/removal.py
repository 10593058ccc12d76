"""Takes the demonstration out again and leaves everything else as it is.

1. Its virtual keys are revoked, the file with their secrets goes: proxies refuse them within
   a second. What proxies still hold in their spool is given some seconds to arrive.
2. In one transaction: usage, keys, supply and people of the demonstration are deleted; the
   rollups they shared with real traffic are computed anew.
3. Environments whose draft was published in full publish what is left, so that proxies stop
   serving the simulated models. Where edits of somebody else wait, nothing is published.

What stays, because the product promises that it cannot be deleted: the audit trail, and the
revisions as numbered history (they name models and addresses, never a secret).

A row belongs to the demonstration by its own mark (`is_demo`) or by what it hangs on. A key
belongs to it when neither its owner nor its team is real; a usage event when its key does, or
when a simulated provider answered, because then its cost is invented.
"""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID
from zoneinfo import ZoneInfo

import pgtrigger
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from django.db.models import Q, QuerySet
from django.utils import timezone

from gateway_admin.accounts.models import Organisation, User
from gateway_admin.accounts.services import audit
from gateway_admin.catalog.models import (
    ChainTarget,
    Credential,
    Deployment,
    Environment,
    FallbackChain,
    Model,
    ModelAlias,
    Provider,
)
from gateway_admin.demo import organisation as tables
from gateway_admin.demo import state
from gateway_admin.demo.budgets import budgets_remove, counters_follow
from gateway_admin.demo.limits import limits_remove
from gateway_admin.fleet.models import ReplicaWorker, Revision
from gateway_admin.fleet.queries import pending_count
from gateway_admin.fleet.services import revision_publish
from gateway_admin.keys.models import Team, VirtualKey
from gateway_admin.keys.policies import full_resync, policy_changed
from gateway_admin.keys.services import MAX_BULK_KEYS, keys_revoke
from gateway_admin.lib.errors import Conflict
from gateway_admin.usage import rollups
from gateway_admin.usage.partitions import existing_days, partition_name
from gateway_admin.usage.rollups import follow_time_zone

SPOOL_PATIENCE_S = 6.0
REPORT_FRESH_S = 3.0
REMOVED_COMMENT = "The demonstration was removed"


@dataclass(frozen=True)
class Removed:
    """What went, and which environments wait for somebody to publish."""

    events: int
    keys: int
    people: int
    unpublished: list[str]


@dataclass(frozen=True)
class _Marked:
    """Ids of what belongs to the demonstration."""

    keys: list[UUID]
    deployments: list[UUID]
    people: list[int]


def demo_remove(
    *, data_dir: Path, actor: User | None, settle_s: float = SPOOL_PATIENCE_S
) -> Removed:
    """Remove all of it. `actor` may be one of its own people. Conflict when there is none."""
    organisation = Organisation.objects.get()
    if organisation.demo_since is None:
        raise Conflict("There is no demonstration here.")
    signer = User.objects.filter(is_demo=True, email=tables.PEOPLE[0].email).first()
    state.stored_delete(data_dir)
    if signer is not None:
        for batch in _batches(demo_keys().exclude(state=VirtualKey.State.REVOKED)):
            keys_revoke(actor=actor or signer, keys=batch)
    _await_spools(settle_s)
    settled = [environment for environment in Environment.objects.all() if is_settled(environment)]
    removed = _remove_rows(actor)
    kept_actor = actor if actor is not None and not actor.is_demo else None
    for environment in settled:
        revision_publish(environment=environment, actor=kept_actor, comment=REMOVED_COMMENT)
    waiting = [row.name for row in Environment.objects.all() if not is_settled(row)]
    follow_time_zone()
    counters_follow()
    return Removed(removed.events, removed.keys, removed.people, waiting)


def demo_keys() -> QuerySet[VirtualKey]:
    """Keys behind which nobody real stands."""
    return VirtualKey.objects.filter(
        Q(team=None, owner__is_demo=True)
        | Q(team__is_demo=True, owner=None)
        | Q(team__is_demo=True, owner__is_demo=True)
    )


def _batches(keys: QuerySet[VirtualKey]) -> list[list[VirtualKey]]:
    rows = list(keys)
    return [rows[at : at + MAX_BULK_KEYS] for at in range(0, len(rows), MAX_BULK_KEYS)]


def is_settled(environment: Environment) -> bool:
    """Nothing waits for a publish; an environment that never published has nothing to take back."""
    if not Revision.objects.filter(environment=environment).exists():
        return not Deployment.objects.filter(environment=environment).exists()
    return pending_count(environment) == 0


def _await_spools(patience_s: float) -> None:
    """Until every proxy that reports has delivered its usage, or patience ends."""
    deadline = time.monotonic() + patience_s
    asked_at = timezone.now()
    while time.monotonic() < deadline and not _spools_empty(asked_at):
        time.sleep(0.2)


def _spools_empty(asked_at: datetime) -> bool:
    """By reports that are newer than the question; a worker that fell silent is not waited for."""
    workers = ReplicaWorker.objects.filter(
        last_seen_at__gt=asked_at - timedelta(seconds=REPORT_FRESH_S * 5)
    )
    fresh = workers.filter(last_seen_at__gt=asked_at + timedelta(seconds=REPORT_FRESH_S))
    return workers.count() == fresh.filter(spool_events=0).count()


@transaction.atomic
def _remove_rows(actor: User | None) -> Removed:
    organisation = Organisation.objects.select_for_update().get()
    marked = _marked()
    environments = list(Environment.objects.select_for_update(no_key=True).order_by("pk"))
    with connection.cursor() as cursor:
        events = _remove_usage(cursor, marked)
    for slug in (environment.slug for environment in environments):
        _keep_default_model(slug)
    _remove_supply()
    audit(
        actor=actor,
        action="demo.remove",
        target=organisation,
        changes={"events": [events, 0], "keys": [len(marked.keys), 0]},
    )
    _reset_organisation(organisation)
    kept = _remove_demand(marked)
    policy_changed(keys=kept)
    for environment in environments:
        full_resync(environment=environment)
    return Removed(events, len(marked.keys), len(marked.people), [])


def _marked() -> _Marked:
    return _Marked(
        keys=list(demo_keys().values_list("pk", flat=True)),
        deployments=list(
            Deployment.objects.filter(provider__is_demo=True).values_list("pk", flat=True)
        ),
        people=list(User.objects.filter(is_demo=True).values_list("pk", flat=True)),
    )


def _remove_usage(cursor: CursorWrapper, marked: _Marked) -> int:
    """Events and rollups; returns how many events.

    The ledger is append-only by a trigger. It is passed over here alone: a day that holds
    nothing but demonstration is truncated (which retention does too, by dropping it), and for
    mixed days the trigger is off until this transaction ends. Switching it off locks the
    ledger against every other writer, so nobody else's change or deletion can slip through.
    """
    rollups.lock(cursor, alone=True)
    where = "(key_id = ANY(%s) OR coalesce(deployment_id = ANY(%s), false))"
    values = [marked.keys, marked.deployments]
    removed, first_day = 0, None
    cursor.execute("ALTER TABLE usage_event DISABLE TRIGGER usage_event_append_only")
    for day in sorted(existing_days()):
        table = partition_name(day)
        cursor.execute(
            f"SELECT count(*) FILTER (WHERE {where}), count(*) FROM {table}",  # noqa: S608
            values,
        )
        invented, everything = cursor.fetchone()
        if invented and invented == everything:
            cursor.execute(f"TRUNCATE {table}")
        elif invented:
            cursor.execute(f"DELETE FROM {table} WHERE {where}", values)  # noqa: S608
        removed += invented
        first_day = first_day or (day if invented else None)
    cursor.execute("ALTER TABLE usage_event ENABLE TRIGGER usage_event_append_only")
    shared = _remove_rollups(cursor, values)
    if first_day is None:
        return removed
    begin = rollups.midnight_of(first_day, ZoneInfo("UTC"))
    rollups.rebuild_customers(cursor, start=begin)
    if shared:
        for _ in rollups.rebuild(start=begin):
            pass
    return removed


def _remove_rollups(cursor: CursorWrapper, values: list[list[UUID]]) -> bool:
    """Delete the series of the demonstration; True when it shares coarser ones with others."""
    cursor.execute("DROP TABLE IF EXISTS pg_temp.demo_series")
    cursor.execute(
        "CREATE TEMPORARY TABLE demo_series ON COMMIT DROP AS SELECT id FROM usage_series"
        " WHERE level = 0 AND (key_id = ANY(%s) OR deployment_id = ANY(%s))",
        values,
    )
    child = "SELECT 1 FROM usage_series c WHERE c.parent_id = p.id"
    ours = "c.id IN (SELECT id FROM demo_series)"
    for level in (1, 2):
        cursor.execute(
            f"INSERT INTO demo_series SELECT p.id FROM usage_series p WHERE p.level = {level}"  # noqa: S608
            f" AND EXISTS ({child} AND {ours}) AND NOT EXISTS ({child} AND NOT {ours})"
        )
    cursor.execute(
        f"SELECT EXISTS (SELECT 1 FROM usage_series p WHERE EXISTS ({child} AND {ours})"  # noqa: S608
        " AND p.id NOT IN (SELECT id FROM demo_series))"
    )
    (shared,) = cursor.fetchone()
    for table in ("cost_hour", "cost_day", "latency_hour", "latency_day"):
        cursor.execute(
            f"DELETE FROM usage_{table} WHERE series_id IN (SELECT id FROM demo_series)"  # noqa: S608
        )
    cursor.execute("DELETE FROM usage_series WHERE id IN (SELECT id FROM demo_series)")
    return bool(shared)


def _remove_supply() -> None:
    """Models that a real provider serves as well are kept, and are real from now on."""
    Deployment.objects.filter(provider__is_demo=True).delete()
    Credential.objects.filter(provider__is_demo=True).delete()
    Provider.objects.filter(is_demo=True).delete()
    Model.objects.filter(is_demo=True, deployments__isnull=False).update(is_demo=False)
    gone = Model.objects.filter(is_demo=True)
    ModelAlias.objects.filter(model__in=gone).delete()
    FallbackChain.objects.filter(model__in=gone).delete()
    ChainTarget.objects.filter(model__in=gone).delete()
    FallbackChain.objects.filter(steps=None).delete()
    gone.delete()


def _keep_default_model(slug: str) -> None:
    """Forget a default model that is about to go."""
    environment = Environment.objects.get(slug=slug)
    name = environment.default_model
    alias = ModelAlias.objects.filter(environment=environment, name=name).first()
    model = alias.model if alias else Model.objects.filter(name=name).first()
    if model is None or not model.is_demo:
        return
    if not model.deployments.exclude(provider__is_demo=True).exists():
        Environment.objects.filter(pk=environment.pk).update(default_model="")


def _remove_demand(marked: _Marked) -> list[VirtualKey]:
    """Delete keys, teams and people; returns real keys that lost an invented team or owner."""
    VirtualKey.objects.filter(pk__in=marked.keys).delete()
    kept = list(
        VirtualKey.objects.filter(Q(team__is_demo=True) | Q(owner__is_demo=True)).order_by("pk")
    )
    VirtualKey.objects.filter(team__is_demo=True).update(team=None)
    VirtualKey.objects.filter(owner__is_demo=True).update(owner=None)
    Team.objects.filter(is_demo=True).delete()
    # Revisions stay, their publishers go. The trigger that keeps revisions as they are is
    # passed over for this one column of rows that name an invented person.
    with pgtrigger.ignore("fleet.Revision:revision_immutable"):
        Revision.objects.filter(published_by__in=marked.people).update(published_by=None)
    budgets_remove()
    limits_remove()
    User.objects.filter(pk__in=marked.people).delete()
    return kept


def _reset_organisation(organisation: Organisation) -> None:
    """Take back the invented name and zone, unless somebody has chosen others since."""
    if organisation.name == tables.NAME:
        organisation.name = Organisation._meta.get_field("name").default
        if organisation.time_zone == tables.TIME_ZONE:
            organisation.time_zone = "UTC"
    organisation.demo_since = None
    organisation.save(update_fields=["name", "time_zone", "demo_since"])
