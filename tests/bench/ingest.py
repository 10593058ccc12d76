"""How many usage events a second one process takes in, from JSON text to committed rollups.

    python -m tests.bench.ingest --events 300000 --batch 5000 --threads 1

Uses the database of DATABASE_URL as it is: take an empty one.
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
from gateway_admin.usage.services import ingest  # noqa: E402
from tests.bench.events import Mix  # noqa: E402


def main() -> None:
    arguments = _arguments()
    environment = Environment.objects.get(slug="prod")
    mix = Mix(keys=arguments.keys, teams=10)
    now = datetime.now(UTC)
    batches = [
        json.dumps(
            {
                "replica_id": "",
                "batch_id": "",
                "events": mix.batch(arguments.batch, now=now, spread_s=arguments.spread),
            }
        )
        for _ in range(arguments.events // arguments.batch)
    ]

    def one(text: str) -> int:
        receipt = ingest(environment=environment, replica=None, batch=json.loads(text))
        assert not receipt["refused"], receipt["refused"][:3]
        return receipt["accepted"]

    one(batches[0])
    begun, cpu = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_utime
    with ThreadPoolExecutor(arguments.threads) as pool:
        accepted = sum(pool.map(one, batches[1:]))
    elapsed = time.perf_counter() - begun
    cpu = resource.getrusage(resource.RUSAGE_SELF).ru_utime - cpu
    print(  # noqa: T201
        f"{accepted:,} events in {elapsed:.1f} s: {accepted / elapsed:,.0f} events/s"
        f" ({arguments.threads} thread(s), batches of {arguments.batch},"
        f" {arguments.keys} keys; {cpu / accepted * 1e6:.0f} us of Python an event)"
    )
    connection.close()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--batch", type=int, default=5_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keys", type=int, default=200)
    parser.add_argument("--spread", type=float, default=60.0, help="seconds that a batch covers")
    return parser.parse_args()


if __name__ == "__main__":
    main()
