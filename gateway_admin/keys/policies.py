"""The order in which changes of keys and rules become known to replicas.

Every write on a key, a budget, a limit or a block calls `policy_changed` as its last
statement, a new calendar or an order to a breaker `policy_touched`:

1. The clock row of the environment is locked and moved on. The lock holds until the
   transaction ends, so the next writer waits for the commit (or the rollback).
2. Therefore version n + 1 is never visible before n, and a reader who has seen n and asks
   for what is newer skips nothing, however late a transaction commits.
3. After the commit the bell rings; replicas then fetch what is newer than they know.

Versions may be passed over (a rolled back transaction), never reordered.
"""

from collections import defaultdict
from collections.abc import Iterable, Set
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from gateway_admin.catalog.models import Environment
from gateway_admin.keys.models import PolicyChange, PolicyClock, VirtualKey
from gateway_admin.lib import bell

DELTA_LIFETIME = timedelta(days=3)
BATCH_ROWS = 5_000


SubjectRef = tuple[str, str]  # scope and subject, as in SubjectPolicy


@dataclass(frozen=True)
class PolicyDelta:
    """What a replica that knows `since` has to learn. `keys` is None: everything anew."""

    version: int
    keys: Set[UUID] | None
    subjects: Set[SubjectRef] = frozenset()

    @property
    def full(self) -> bool:
        return self.keys is None


def policy_changed(
    *,
    keys: Iterable[VirtualKey] = (),
    subjects: Iterable[tuple[Environment, SubjectRef]] = (),
) -> None:
    """Note that these keys, and the rules of these subjects, changed.

    Call it last in the transaction of the write.
    """
    by_environment: dict[UUID, list[PolicyChange]] = defaultdict(list)
    for key in keys:
        by_environment[key.environment_id].append(PolicyChange(key_id=key.pk))
    for environment, (scope, subject) in subjects:
        by_environment[environment.pk].append(PolicyChange(scope=scope, subject=subject))
    for environment_id in sorted(by_environment):  # one order for all, so that none deadlock
        version = _advance(environment_id)
        changes = by_environment[environment_id]
        for change in changes:
            change.environment_id, change.version = environment_id, version
        PolicyChange.objects.bulk_create(changes, batch_size=BATCH_ROWS)


def policy_touched(*, environments: Iterable[Environment]) -> None:
    """Let replicas fetch what every answer of the feed holds: calendar, breaker orders.

    Call it last in the transaction, as `policy_changed`.
    """
    for environment_id in sorted(environment.pk for environment in environments):
        _advance(environment_id)


def full_resync(*, environment: Environment) -> None:
    """Let every replica forget all it knows of keys and rules: for rows that were deleted.

    Call it last in the transaction, as `policy_changed`.
    """
    version = _advance(environment.pk)
    PolicyClock.objects.filter(environment=environment).update(oldest_delta=version)


def current_version(environment: Environment) -> int:
    """The newest policy version; 0 before the first key."""
    clock = PolicyClock.objects.filter(environment=environment).first()
    return clock.version if clock else 0


def changed_since(*, environment: Environment, since: int) -> PolicyDelta:
    """Which keys and subjects changed after version `since`, in two queries.

    The clock is read first: every change up to its version is committed by then. Changes
    that arrive between the two reads are left to the next call.
    """
    clock = PolicyClock.objects.filter(environment=environment).first()
    if clock is None:
        return PolicyDelta(version=0, keys=None if since else frozenset())
    if since < clock.oldest_delta or since > clock.version:
        return PolicyDelta(version=clock.version, keys=None)
    changed = PolicyChange.objects.filter(
        environment=environment, version__gt=since, version__lte=clock.version
    ).values_list("key_id", "scope", "subject")
    rows = list(changed)
    return PolicyDelta(
        version=clock.version,
        keys=frozenset(key for key, _, _ in rows if key),
        subjects=frozenset((scope, subject) for _, scope, subject in rows if scope),
    )


@transaction.atomic
def forget_old_changes() -> int:
    """Drop deltas older than three days; a replica that slept longer resyncs in full."""
    horizon = timezone.now() - DELTA_LIFETIME
    forgotten = 0
    for clock in PolicyClock.objects.select_for_update(no_key=True).order_by("environment_id"):
        old = PolicyChange.objects.filter(environment=clock.environment_id, at__lt=horizon)
        newest = old.order_by("-version").values_list("version", flat=True).first()
        if newest is None:
            continue
        clock.oldest_delta = max(clock.oldest_delta, newest)
        clock.save(update_fields=["oldest_delta"])
        forgotten += PolicyChange.objects.filter(
            environment=clock.environment_id, version__lte=newest
        ).delete()[0]
    return forgotten


def _advance(environment_id: UUID) -> int:
    """Lock the clock until the transaction ends, move it on, ring after the commit."""
    PolicyClock.objects.bulk_create(
        [PolicyClock(environment_id=environment_id)], ignore_conflicts=True
    )
    clock = (
        PolicyClock.objects.select_for_update(of=("self",), no_key=True)
        .select_related("environment")
        .get(environment_id=environment_id)
    )
    clock.version += 1
    clock.save(update_fields=["version"])
    ring = partial(bell.ring, clock.environment.slug, policy=clock.version)
    transaction.on_commit(ring)
    return clock.version
