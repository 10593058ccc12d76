"""Writing history in bulk: events of any age, by the same path as ingest."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import islice

from django.utils import timezone

from gateway_admin.catalog.models import Environment
from gateway_admin.usage.rows import RowWriter
from gateway_admin.usage.services import checked_lines, deployment_providers, store
from proxy.contract import UsageEventDocument

CHUNK_EVENTS = 20_000
EARLIEST = datetime(2015, 1, 1, tzinfo=UTC)


def backfill(
    *,
    environment: Environment,
    events: Iterable[UsageEventDocument],
    progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Add historical events to the ledger and its rollups; returns how many were new.

    Quickest when events come in the order of time, because each chunk then touches few
    hours. `progress` is told the number of events that are stored so far. An event that
    cannot be stored raises ValueError: history is ours to get right. Nobody's key counts as
    used and no credential as tried.
    """
    providers = deployment_providers(environment)
    accepted = done = 0
    rest = iter(events)
    while chunk := list(islice(rest, CHUNK_EVENTS)):
        writer = RowWriter(
            environment_id=environment.pk,
            replica_id=None,
            providers=providers,
            oldest=EARLIEST,
            newest=timezone.now() + timedelta(hours=1),
        )
        lines, days, refused = checked_lines(writer, chunk)
        if refused:
            raise ValueError(f"event {refused[0]['event_id']}: {refused[0]['reason']}")
        accepted += store(lines=lines, days=days)
        done += len(chunk)
        progress(done)
    return accepted
