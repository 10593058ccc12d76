"""From committed events to the counters, none lost and none twice.

The transaction that appends events also writes down what they add to counters (one
`CounterUpdate` per batch that charges any). After the commit Redis is told and the row
deleted. If Redis is away, or the process dies in between, the row stays, and the next round
of `deliver_waiting` tells Redis; a marker there makes telling twice the same as once.

Around commit and telling, ingest shares a lock that a check of the counters takes alone, so
a check sees an event in both places or in neither.
"""

import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.db import Error, connection, transaction
from django.db.backends.utils import CursorWrapper
from django.utils import timezone
from prometheus_client import Counter

from gateway_admin.catalog.models import Environment
from gateway_admin.usage import counter_store
from gateway_admin.usage.counter_store import CountersAway, Delta
from gateway_admin.usage.models import CounterUpdate

log = structlog.get_logger(__name__)
delayed = Counter(
    "gateway_counter_updates_delayed_total",
    "Batches whose counters could not be told at once",
    ["environment"],
)

WAITED = timedelta(seconds=5)  # an update that is younger belongs to a batch under way
_LOCK_CLASS = 0x6374_7273  # "ctrs"
_BUILD_CLASS = 0x6374_6262  # "ctbb"

_behind: set[UUID] = set()  # environments of which this process could not tell an update

_COLLECT = """
    SELECT c.key, c.value::text, f.counter_epoch, sum(ceil(f.cost * 1e9))::bigint
    FROM usage_fresh f CROSS JOIN LATERAL jsonb_each(f.charged) c
    WHERE f.cost > 0 AND f.charged <> '{}'
    GROUP BY 1, 2, 3
"""
_NOTE = """
    INSERT INTO usage_counter_update (environment_id, created_at, deltas)
    VALUES (%s, %s, %s) RETURNING id
"""


@contextmanager
def counters_held(environment_id: UUID, *, alone: bool) -> Iterator[None]:
    """Hold the environment's counter lock: shared by ingest, alone by a check."""
    with _session_lock(_LOCK_CLASS, environment_id, alone=alone):
        yield


@contextmanager
def only_builder(environment_id: UUID) -> Iterator[None]:
    """One rebuild or repair of an environment at a time; others wait."""
    with _session_lock(_BUILD_CLASS, environment_id, alone=True):
        yield


@contextmanager
def _session_lock(kind: int, environment_id: UUID, *, alone: bool) -> Iterator[None]:
    suffix = "" if alone else "_shared"
    place = zlib.crc32(environment_id.bytes) - 2**31  # int4
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT pg_advisory_lock{suffix}(%s, %s)", [kind, place])
    try:
        yield
    finally:
        _unlock(f"SELECT pg_advisory_unlock{suffix}(%s, %s)", [kind, place])


def _unlock(query: str, values: list[int]) -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute(query, values)
    except Error as error:  # the session is in ruins; its locks end with it
        log.warning("counter_lock_lost", error=str(error).split("\n")[0])
        if not connection.in_atomic_block:
            connection.close()


def note_update(cursor: CursorWrapper, environment_id: UUID) -> CounterUpdate | None:
    """Write down what the fresh events add; part of their transaction. None: nothing."""
    cursor.execute(_COLLECT)
    deltas = [
        [counter, None if bucket == "null" else int(bucket), epoch, nano]
        for counter, bucket, epoch, nano in cursor.fetchall()
    ]
    if not deltas:
        return None
    update = CounterUpdate(
        environment_id=environment_id, created_at=timezone.now(), deltas=json.dumps(deltas)
    )
    cursor.execute(_NOTE, [environment_id, update.created_at, update.deltas])
    (update.pk,) = cursor.fetchone()
    return update


def deliver(environment: Environment, update: CounterUpdate) -> bool:
    """Tell Redis of a committed update; False leaves it to a later round."""
    if counter_store.is_paused():
        _behind.add(environment.pk)
        delayed.labels(environment.slug).inc()
        return False
    try:
        if not _tell(environment, update):
            return False
        counter_store.forget_update(environment.slug, update.pk)
        if environment.pk in _behind:  # it is back: what waited need not wait for a round
            deliver_waiting(environment)
            _behind.discard(environment.pk)
    except CountersAway:
        _behind.add(environment.pk)
        delayed.labels(environment.slug).inc()
        return False
    return True


def deliver_waiting(environment: Environment, *, before: datetime | None = None) -> int:
    """Tell Redis of updates that are waiting; returns how many. CountersAway if it is away.

    The caller holds the counter lock. Markers stay: whoever noted the update may only be slow.
    """
    told = 0
    waiting = CounterUpdate.objects.filter(environment_id=environment.pk)
    if before is not None:
        waiting = waiting.filter(created_at__lt=before)
    while True:
        with transaction.atomic():
            update = waiting.order_by("pk").select_for_update(skip_locked=True).first()
            if update is None or not _tell(environment, update):
                return told
        told += 1


def _tell(environment: Environment, update: CounterUpdate) -> bool:
    deltas = [Delta(*values) for values in json.loads(update.deltas)]
    if not counter_store.charge(environment.slug, update=update.pk, deltas=deltas):
        return False
    CounterUpdate.objects.filter(pk=update.pk).delete()
    return True
