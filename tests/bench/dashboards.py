"""How long the server takes for the pages over a large ledger.

    python -m tests.bench.dashboards --events 10000000 --days 60 --keys 1000

Fills the database of DATABASE_URL (take an empty one, migrated), then times the pages
through Django's test client: templates, queries, everything but the network. A second run
finds the ledger filled and only times. `GATEWAY_BENCH_FAIL_MS` makes a slow page an error.
"""

import argparse
import os
import statistics
import sys
import time
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway_admin.settings")
django.setup()

from django.conf import settings  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import Client  # noqa: E402

from gateway_admin.accounts.models import User  # noqa: E402
from gateway_admin.accounts.roles import Role  # noqa: E402
from gateway_admin.accounts.services import user_create  # noqa: E402
from gateway_admin.catalog.models import Environment  # noqa: E402
from gateway_admin.keys.models import Membership, Team, VirtualKey  # noqa: E402
from gateway_admin.usage import partitions, rollups  # noqa: E402
from gateway_admin.usage.backfill import backfill  # noqa: E402
from proxy.contract import UsageEventDocument  # noqa: E402
from tests import builders  # noqa: E402
from tests.bench.events import usage_event  # noqa: E402

PAGES = (
    ("Overview", "/"),
    ("Overview, chart", "/overview/requests.json"),
    ("Cost, 30 days by team", "/cost/"),
    ("Cost, 30 days by key", "/cost/?group=key"),
    ("Cost, 60 days by key, chart", "/cost/daily.json?group=key&since={since}&until={until}"),
    ("Latency, 24 hours", "/latency/"),
    ("Latency, 7 days by deployment", "/latency/?range=7d&group=deployment"),
    ("Latency, 60 days, chart", "/latency/latency.json?range=90d"),
    ("Requests, first page", "/requests/"),
    ("Requests, errors of 30 days", "/requests/?status=error&range=30d"),
    ("Requests, one key of 30 days", "/requests/?key={key}&range=30d"),
)


def main() -> None:
    sys.exit(measure(arguments_of()))


def measure(arguments: argparse.Namespace) -> bool:
    """Fill, then time as an administrator and as a developer; True if a page was too slow."""
    settings.ALLOWED_HOSTS = ["*"]
    if not User.objects.filter(email="bench@example.com").exists():
        _fill(arguments)
    _say(
        f"{_count('usage_event'):,} events, {_count('usage_series'):,} series,"
        f" {_count('usage_cost_hour'):,} hourly and {_count('usage_cost_day'):,} daily cost rows"
    )
    limit_ms = float(os.environ.get("GATEWAY_BENCH_FAIL_MS", "inf"))
    slow = False
    for person in ("bench@example.com", "developer@example.com"):
        _say(f"\nas {person}")
        slow |= _time_pages(person, arguments.rounds, limit_ms)
    return slow


def _time_pages(person: str, rounds: int, limit_ms: float) -> bool:
    client = Client()
    client.force_login(User.objects.get(email=person))
    today = datetime.now(UTC).date()
    words = {
        "since": today - timedelta(days=59),
        "until": today,
        "key": VirtualKey.objects.order_by("name").first().pk,  # type: ignore[union-attr]
    }
    slow = False
    for name, path in PAGES:
        took = []
        for _ in range(rounds + 2):
            begun = time.perf_counter()
            response = client.get(path.format(**words))
            took.append((time.perf_counter() - begun) * 1000)
            assert response.status_code == 200, (path, response.status_code)
        took = sorted(took[2:])
        p95 = took[max(round(0.95 * len(took)) - 1, 0)]
        slow |= statistics.median(took) > limit_ms
        _say(f"{name:32} median {statistics.median(took):6.0f} ms   p95 {p95:6.0f} ms")
    return slow


def _fill(arguments: argparse.Namespace) -> None:
    environment = Environment.objects.get(slug="prod")
    templates = _templates(arguments, environment)
    now = datetime.now(UTC)
    backfill(environment=environment, events=templates)
    days = [now.date() - timedelta(days=number) for number in range(arguments.days)]
    partitions.create_missing(days)
    indexes = _drop_indexes()
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = off")
        cursor.execute(
            "CREATE TEMPORARY TABLE template AS"
            " SELECT row_number() OVER (ORDER BY event_id) AS n, e.* FROM usage_event e"
        )
        for number, day in enumerate(days):
            so_far = now - datetime.combine(now.date(), time_of_day.min, UTC)
            share = timedelta(days=1) if number else so_far  # today has no future
            cursor.execute(
                _FILL, [len(templates), day, str(share), arguments.events // arguments.days]
            )
            _say(f"filled {day}", end="\r")
        for number, definition in enumerate(indexes):
            cursor.execute(definition)
            _say(f"index {number + 1} of {len(indexes)}   ", end="\r")
    for day in rollups.rebuild():
        _say(f"rolled up {day}", end="\r")
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    _say("")
    user_create(actor=None, email="bench@example.com", role=Role.ADMIN)


def _templates(arguments: argparse.Namespace, environment: Environment) -> list[UsageEventDocument]:
    """One event for each key, model and outcome that the ledger is to have."""
    owner = user_create(actor=None, email="developer@example.com", role=Role.DEVELOPER)
    teams = [Team.objects.create(slug=f"team-{n}", name=f"Team {n}") for n in range(10)]
    Membership.objects.create(user=owner, team=teams[0])
    deployments = [
        builders.deployment(
            environment=environment,
            model=builders.model(f"model-{n}"),
            provider=builders.provider(("openai", "anthropic", "gemini", "azure")[n % 4]),
        )
        for n in range(20)
    ]
    keys = VirtualKey.objects.bulk_create(
        VirtualKey(
            environment=environment, public_id=f"bench{n:05d}", digest="", owner=owner,
            name=f"key {n:04d}", team=teams[n % 10],
        )
        for n in range(arguments.keys)
    )  # fmt: skip
    found: list[UsageEventDocument] = []
    for number, key in enumerate(keys):
        for offset in (0, 3, 7):
            deployment = deployments[(number + offset) % 20]
            for outcome in ({}, {}, {"status": "error", "error_class": "overloaded"}):
                found.append(
                    usage_event(
                        key_id=str(key.pk), public_id=key.public_id, team_id=str(key.team_id),
                        user_id=str(owner.pk) if number % 10 == 0 else None,
                        model=deployment.model.name, requested_model=deployment.model.name,
                        deployment=str(deployment.pk), tags={"app": "chat"}, **outcome,
                    )
                )  # fmt: skip
    return found


# Heavy-tailed keys, log-normal tokens and durations, one failure in a hundred.
_FILL = """
    INSERT INTO usage_event
    SELECT gen_random_uuid(), g.at, g.at, t.environment_id, t.replica_id, t.series_id, t.revision,
        t.key_id, t.public_id, t.user_id, t.team_id,
        CASE WHEN g.b < 0.3 THEN 'customer-' || (g.b * 1000)::integer ELSE '' END,
        t.tags, t.route, t.requested_model, t.model, t.deployment_id, t.provider_id,
        CASE WHEN g.b > 0.98 THEN 'fallback' ELSE 'first' END,
        t.status, t.http_status, t.error_class, t.error, g.tokens, (g.tokens / 5)::integer, 0, 0,
        0, t.other_units, t.price_version, t.unit_prices,
        CASE WHEN g.b > 0.99 THEN NULL
             ELSE g.tokens * 0.0000025 + (g.tokens / 5)::integer * 0.00001 END,
        false, t.streaming, g.ms, CASE WHEN t.streaming THEN g.ms * 0.3 END, 3 + g.b * 4, t.lane,
        t.attempts
    FROM (
        SELECT pick, b, at, exp(6.5 + 0.9 * z)::integer + 1 AS tokens, exp(6.7 + 0.6 * z) AS ms
        FROM (
            SELECT 1 + floor(power(random(), 2) * %s)::integer AS pick, random() AS b,
                   random_normal() AS z, %s::date::timestamptz + random() * %s::interval AS at
            FROM generate_series(1, %s)
        ) r
    ) g JOIN template t ON t.n = g.pick
"""


def _drop_indexes() -> list[str]:
    """Bulk loading is quicker without them; returns how to make them again."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT indexname, indexdef FROM pg_indexes"
            " WHERE tablename = 'usage_event' AND indexname <> 'usage_event_pkey'"
        )
        found = cursor.fetchall()
        for name, _ in found:
            cursor.execute(f"DROP INDEX {name}")
    return [definition.replace(" ON ONLY ", " ON ") for _, definition in found]


def _count(table: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table}")  # noqa: S608
        (count,) = cursor.fetchone()
    return int(count)


def _say(text: str, end: str = "\n") -> None:
    print(text, end=end, flush=True)  # noqa: T201


def arguments_of(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--keys", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=20)
    return parser.parse_args(given)


if __name__ == "__main__":
    main()
