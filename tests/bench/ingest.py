"""How many usage events a second one process takes in, from JSON text to committed rollups.

    python -m tests.bench.ingest --events 300000 --batch 5000 --threads 1

Uses the database of DATABASE_URL as it is: take an empty one, or run it on servers of its
own by `python -m tests.bench.embedded tests.bench.ingest`.
"""

import argparse
import json
import os
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway_admin.settings")
django.setup()

from django.db import connection  # noqa: E402

from gateway_admin.catalog.models import Environment  # noqa: E402
from gateway_admin.usage.counters import counters_ensure  # noqa: E402
from gateway_admin.usage.services import ingest  # noqa: E402
from tests.bench.events import Mix  # noqa: E402


def measure(
    *, events: int, batch: int, threads: int, keys: int, spread_s: float, budgets: bool
) -> float:
    """Deliver batches and say what came of it; returns events a second."""
    environment = Environment.objects.get(slug="prod")
    mix = Mix(keys=keys, teams=10, budgets=budgets)
    now = datetime.now(UTC)
    texts = [
        json.dumps({"events": mix.batch(batch, now=now, spread_s=spread_s)})
        for _ in range(events // batch + 1)
    ]

    def one(text: str) -> int:
        receipt = ingest(environment=environment, replica=None, batch=json.loads(text))
        assert not receipt["refused"], receipt["refused"][:3]
        return receipt["accepted"]

    counters_ensure(environment=environment)
    one(texts[0])
    begun, cpu_s = time.perf_counter(), _cpu_s()
    with ThreadPoolExecutor(threads) as pool:
        accepted = sum(pool.map(one, texts[1:]))
        elapsed_s, cpu_s = time.perf_counter() - begun, _cpu_s() - cpu_s
        list(pool.map(lambda _: connection.close(), range(threads * 4)))
    print(  # noqa: T201
        f"{accepted:,} events in {elapsed_s:.1f} s: {accepted / elapsed_s:,.0f} events/s"
        f" ({threads} thread(s), batches of {batch}, {keys} keys;"
        f" {cpu_s / accepted * 1e6:.0f} us of Python an event)"
    )
    return accepted / elapsed_s


def _cpu_s() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def main() -> None:
    arguments = _arguments()
    measure(
        events=arguments.events,
        batch=arguments.batch,
        threads=arguments.threads,
        keys=arguments.keys,
        spread_s=arguments.spread,
        budgets=arguments.budgets,
    )
    connection.close()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--batch", type=int, default=5_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keys", type=int, default=200)
    parser.add_argument("--spread", type=float, default=60.0, help="seconds that a batch covers")
    parser.add_argument("--budgets", action="store_true", help="each request was charged to five")
    return parser.parse_args()


if __name__ == "__main__":
    main()
