"""Ingest: batches of events to the ledger and its rollups, exactly once.

1. Each event is checked and turned to a line of COPY; bad ones are refused with the reason.
2. COPY to a staging table of the session.
3. Series that the rollups do not know yet are added.
4. INSERT … ON CONFLICT DO NOTHING into the ledger; what was new is kept aside.
5. What was new is added to the rollups, and what it adds to budgets' counters noted.
6. After the commit, Redis is told of the latter (see `charging`).
Steps 2 to 5 are one transaction, so rollups always equal the ledger and a replayed batch
changes nothing. Rows are written in one order everywhere: concurrent batches wait for each
other and never deadlock.
"""

from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from django.utils import timezone

from gateway_admin.catalog.credentials import credentials_seen
from gateway_admin.catalog.models import Deployment, Environment
from gateway_admin.fleet.models import Replica
from gateway_admin.keys.services import keys_used
from gateway_admin.usage import charging, partitions, rollups
from gateway_admin.usage.models import Level
from gateway_admin.usage.rows import COLUMNS, RowWriter
from proxy.contract import ContractError, RefusedEvent, UsageBatch, UsageReceipt

CLOCK_TOLERANCE = timedelta(hours=24)

_LIST = ", ".join(COLUMNS)
_NOBODY = "'00000000-0000-0000-0000-000000000000'::uuid"
# Names that nobody serves would give a series per typing error: they share one.
_UNKNOWN = "(s.error_class = 'not_found' AND s.deployment_id IS NULL)"

# Dimensions of a series: column -> SQL over the staging table, per level KEY, TEAM, MODEL.
_USER = "coalesce(s.user_id, 0)"
_DIMENSIONS: dict[str, tuple[str, str, str]] = {
    "environment_id": ("s.environment_id",) * 3,
    "team_id": (f"coalesce(s.team_id, {_NOBODY})",) * 2 + (_NOBODY,),
    "key_id": ("s.key_id", _NOBODY, _NOBODY),
    "user_id": (_USER, f"CASE WHEN s.team_id IS NULL THEN {_USER} ELSE 0 END", "0"),
    "requested_model": (f"CASE WHEN {_UNKNOWN} THEN '' ELSE s.requested_model END", "''", "''"),
    "model": (f"CASE WHEN {_UNKNOWN} THEN '' ELSE s.model END",) * 3,
    "deployment_id": (f"coalesce(s.deployment_id, {_NOBODY})",) * 3,
    "provider_id": (f"coalesce(s.provider_id, {_NOBODY})",) * 3,
    "status": ("s.status",) * 3,
    "error_class": ("s.error_class",) * 3,
}


def ingest(*, environment: Environment, replica: Replica | None, batch: UsageBatch) -> UsageReceipt:
    """Store a batch of one environment's events; replaying it changes nothing."""
    now = timezone.now()
    writer = RowWriter(
        environment_id=environment.pk,
        replica_id=replica.pk if replica else None,
        providers=deployment_providers(environment),
        oldest=now - timedelta(days=settings.USAGE_ACCEPTED_AGE_DAYS),
        newest=now + CLOCK_TOLERANCE,
    )
    lines, days, refused = checked_lines(writer, batch["events"])
    if not lines:
        return {"accepted": 0, "duplicates": 0, "refused": refused}
    partitions.create_missing(days)
    with charging.counters_held(environment.pk, alone=False):
        with transaction.atomic(), connection.cursor() as cursor:
            accepted = _append(cursor, lines)
            update = charging.note_update(cursor, environment.pk) if accepted else None
        if update is not None:
            charging.deliver(environment, update)
    if accepted:
        _note_use(environment, writer)
    return {"accepted": accepted, "duplicates": len(lines) - accepted, "refused": refused}


def _note_use(environment: Environment, writer: RowWriter) -> None:
    """When keys were used and providers took or refused credentials; outside the ledger's
    transaction, because neither may hold it up, and repeating it does no harm.
    """
    keys_used((UUID(key), at) for key, at in writer.keys_used.items())
    credentials = dict(
        Deployment.objects.filter(environment=environment).values_list("pk", "credential_id")
    )
    succeeded: dict[UUID, datetime] = {}
    for deployment, at in sorted(writer.succeeded.items()):
        if credential := credentials.get(UUID(deployment)):
            succeeded[credential] = max(at, succeeded.get(credential, at))
    failed = [
        (credentials[UUID(deployment)], at, error_class, words)
        for deployment, (at, error_class, words) in sorted(writer.failed.items())
        if UUID(deployment) in credentials
    ]
    credentials_seen(succeeded=succeeded, failed=failed)


def deployment_providers(environment: Environment) -> Mapping[str, str]:
    """Ids of the environment's deployments -> ids of their providers."""
    pairs = Deployment.objects.filter(environment=environment).values_list("pk", "provider_id")
    return {str(deployment): str(provider) for deployment, provider in pairs}


def checked_lines(
    writer: RowWriter, events: Iterable[Any]
) -> tuple[list[bytes], set[date], list[RefusedEvent]]:
    """Lines of COPY, the UTC days they fall on, and what was refused."""
    lines: list[bytes] = []
    days: set[date] = set()
    refused: list[RefusedEvent] = []
    for event in events:
        try:
            day, line = writer.line(event)
        except ContractError as error:
            event_id = event.get("event_id") if isinstance(event, dict) else None
            refused.append({"event_id": str(event_id or "")[:64], "reason": str(error)})
        else:
            lines.append(line)
            days.add(day)
    return lines, days, refused


def store(*, lines: list[bytes], days: Iterable[date]) -> int:
    """Append checked lines to the ledger and the rollups; returns how many were new.

    For history: budgets' counters are not told of it, their next check finds it.
    """
    partitions.create_missing(days)
    with transaction.atomic(), connection.cursor() as cursor:
        return _append(cursor, lines)


def _append(cursor: CursorWrapper, lines: list[bytes]) -> int:
    _copy(cursor, lines)
    rollups.lock(cursor, alone=False)
    _add_series(cursor)
    accepted = _insert(cursor)
    if accepted:
        rollups.add(cursor, source="usage_fresh", time_zone=rollups.rollup_time_zone())
    return accepted


def _copy(cursor: CursorWrapper, lines: list[bytes]) -> None:
    """Fill the session's staging table: made once per connection, emptied at each commit."""
    cursor.execute("SELECT to_regclass('pg_temp.usage_fresh') IS NULL")
    if cursor.fetchone()[0]:
        cursor.execute(_STAGING)
    cursor.execute(_PREPARE)
    with cursor.copy(f"COPY usage_staging ({_LIST}) FROM STDIN") as copy:
        for start in range(0, len(lines), 500):
            copy.write(b"".join(lines[start : start + 500]))


def _add_series(cursor: CursorWrapper) -> None:
    """Add the series that are missing, parents first."""
    cursor.execute(f"SELECT EXISTS (SELECT 1 {_missing_series(Level.KEY)})")
    if cursor.fetchone()[0]:
        for level in reversed(Level):
            cursor.execute(_insert_series(level))


def _insert(cursor: CursorWrapper) -> int:
    """Staging to ledger; new rows also go to `usage_fresh`. Returns their number."""
    cursor.execute(_INSERT)
    accepted: int = cursor.rowcount
    return accepted


def _series_matches(alias: str, level: int) -> str:
    """SQL: the series `alias` is the one of the staged row at this level."""
    pairs = (f"{alias}.{name} = {terms[level]}" for name, terms in _DIMENSIONS.items())
    return f"{alias}.level = {level} AND " + " AND ".join(pairs)


def _missing_series(level: int) -> str:
    """SQL: FROM … WHERE over the staged combinations `d` that have no series at this level."""
    terms = ", ".join(f"{terms[level]} AS {name}" for name, terms in _DIMENSIONS.items())
    higher = min(level + 1, Level.MODEL)
    parent = ", ".join(f"{terms[higher]} AS up_{name}" for name, terms in _DIMENSIONS.items())
    same = " AND ".join(f"x.{name} = d.{name}" for name in _DIMENSIONS)
    return f"""
        FROM (SELECT DISTINCT {terms}, {parent} FROM usage_staging s OFFSET 0) d
        WHERE NOT EXISTS (SELECT 1 FROM usage_series x WHERE x.level = {level} AND {same})
    """


def _insert_series(level: int) -> str:
    names = ", ".join(_DIMENSIONS)
    up = " AND ".join(f"p.{name} = d.up_{name}" for name in _DIMENSIONS)
    parent = (
        "NULL::integer"
        if level == Level.MODEL
        else f"(SELECT p.id FROM usage_series p WHERE p.level = {level + 1} AND {up})"
    )
    return f"""
        INSERT INTO usage_series (level, parent_id, {names})
        SELECT DISTINCT {level}, {parent}, {", ".join(f"d.{name}" for name in _DIMENSIONS)}
        {_missing_series(level)} ORDER BY {", ".join(f"d.{name}" for name in _DIMENSIONS)}
        ON CONFLICT DO NOTHING
    """


_FRESH = (
    "started_at, series_id, status, why, estimated, streaming, cost, input_tokens, output_tokens,"
    " cache_read_tokens, cache_write_tokens, reasoning_tokens, latency_ms, ttft_ms, overhead_ms,"
    " saved_cost, environment_id, customer, model, counter_epoch, charged"
)
_STAGING = f"""
    CREATE TEMPORARY TABLE usage_staging ON COMMIT DELETE ROWS AS
        SELECT {_LIST} FROM usage_event WITH NO DATA;
    CREATE TEMPORARY TABLE usage_fresh ON COMMIT DELETE ROWS AS
        SELECT {_FRESH} FROM usage_event WITH NO DATA
"""
# Emptied again for callers that ingest twice in one transaction. The sort by event fits memory.
_PREPARE = "DELETE FROM usage_staging; DELETE FROM usage_fresh; SET LOCAL work_mem = '64MB'"
_INSERT = f"""
    WITH fresh AS (
        INSERT INTO usage_event (series_id, {_LIST})
        SELECT x.id, {", ".join(f"s.{name}" for name in COLUMNS)}
        FROM usage_staging s JOIN usage_series x ON {_series_matches("x", Level.KEY)}
        ORDER BY s.event_id, s.started_at
        ON CONFLICT DO NOTHING
        RETURNING {_FRESH}
    )
    INSERT INTO usage_fresh SELECT {_FRESH} FROM fresh
"""
