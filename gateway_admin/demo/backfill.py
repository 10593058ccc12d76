"""Sixty days of invented usage, taken in by the path that real usage takes.

Day by day, oldest first: events are drawn, turned to lines by the writer that ingest uses,
and stored with their rollups in one transaction per UTC day. The draw of a day depends on
the day alone, so a back-fill that was interrupted goes on where it stopped; it adds no
event twice because event ids are drawn too.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID

from django.db import connection

from gateway_admin.accounts.models import Organisation
from gateway_admin.catalog.credentials import credentials_seen
from gateway_admin.catalog.models import Environment
from gateway_admin.demo import organisation as tables
from gateway_admin.demo.budgets import counters_follow
from gateway_admin.demo.events import EventSource
from gateway_admin.demo.world import World
from gateway_admin.keys.services import keys_used
from gateway_admin.lib.errors import Conflict
from gateway_admin.usage.rows import RowWriter
from gateway_admin.usage.services import deployment_providers, store


@dataclass(frozen=True)
class Progress:
    """`done` of `days` UTC days are in the ledger, with so many new events in all."""

    done: int
    days: int
    events: int


@dataclass(frozen=True)
class _Day:
    lines: list[bytes]
    days: set[date]


def backfill(*, events: int = tables.EVENTS, days: int = tables.DAYS) -> Iterator[Progress]:
    """Fill the time before the demonstration was made with about so many events.

    The expected number is spread over `days`; yields after each day. Days that hold events
    of the demonstration already are passed over.
    """
    end = Organisation.objects.get().demo_since
    if end is None:
        raise Conflict("There is no demonstration to fill: run manage.py demo_seed first.")
    world = World.load()
    source = EventSource(world=world, end=end, days=days, events=events)
    spans = list(_utc_days(end - timedelta(days=days), end))
    filled = _filled_days()
    wanted = [span for span in spans if span[0].date() not in filled]
    writers = _writers(end)
    total, done = 0, len(spans) - len(wanted)
    with ThreadPoolExecutor(1) as drawing:  # draws the next day while this one is stored
        ahead = [drawing.submit(_draw, source, span, writers) for span in wanted[:2]]
        for place in range(len(wanted)):
            day = ahead.pop(0).result()
            if place + 2 < len(wanted):
                ahead.append(drawing.submit(_draw, source, wanted[place + 2], writers))
            if day.lines:
                total += store(lines=day.lines, days=day.days)
            done += 1
            yield Progress(done, len(spans), total)
    _note_use(world, writers)
    counters_follow()


def _utc_days(start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    day = start.astimezone(UTC).date()
    while (begins := datetime.combine(day, time.min, UTC)) < end:
        day += timedelta(days=1)
        yield max(begins, start), min(datetime.combine(day, time.min, UTC), end)


def _filled_days() -> set[date]:
    """UTC days before the demonstration was made that have events already."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT (hour AT TIME ZONE 'UTC')::date FROM usage_cost_hour"
            " WHERE level = 2 AND hour < (SELECT date_trunc('hour', demo_since)"
            " FROM accounts_organisation)"
        )
        return {day for (day,) in cursor.fetchall()}


def _writers(end: datetime) -> dict[str, RowWriter]:
    """By environment: the back-fill is older than what replicas may still deliver."""
    return {
        environment.slug: RowWriter(
            environment_id=environment.pk,
            replica_id=None,
            providers=deployment_providers(environment),
            oldest=end - timedelta(days=400),
            newest=end + timedelta(minutes=1),
        )
        for environment in Environment.objects.all()
    }


def _draw(
    source: EventSource, span: tuple[datetime, datetime], writers: dict[str, RowWriter]
) -> _Day:
    lines: list[bytes] = []
    days: set[date] = set()
    for environment, event in source.events(*span):
        day, line = writers[environment].line(event)
        lines.append(line)
        days.add(day)
    return _Day(lines, days)


def _note_use(world: World, writers: dict[str, RowWriter]) -> None:
    """When keys and credentials were last used, as ingest notes it."""
    for writer in writers.values():
        keys_used((UUID(key), at) for key, at in writer.keys_used.items())
        succeeded: dict[UUID, datetime] = {}
        for deployment, at in writer.succeeded.items():
            credential = world.credential_of[deployment]
            succeeded[credential] = max(at, succeeded.get(credential, at))
        credentials_seen(succeeded=succeeded)
