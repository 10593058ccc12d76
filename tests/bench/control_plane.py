"""How long the control plane takes over a large book and very many keys.

    python -m tests.bench.control_plane

On servers of its own, thrown away afterwards: loading the price book, the policy feed of a
fresh replica with 100,000 keys, and the list of keys with 380,000. Times at the server
(Django's test client: queries and answer, no network).
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
django.setup()

from django.conf import settings  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import Client  # noqa: E402

from gateway_admin.catalog.prices import price_book_load  # noqa: E402
from gateway_admin.fleet.services import fleet_identity, open_token  # noqa: E402
from gateway_admin.keys.models import VirtualKey  # noqa: E402
from tests import builders  # noqa: E402
from tests.people import People, people_create  # noqa: E402
from tests.settings import servers  # noqa: E402

PAGES = (
    ("first page", "/keys/"),
    ("first page by name", "/keys/?sort=name"),
    ("search by name", "/keys/?q=key+4711"),
    ("search by public id", "/keys/?q={public_id}"),
    ("search without a match", "/keys/?q=no-such-key"),
    ("one team's", "/keys/?team=search"),
)


def main() -> None:
    arguments = _arguments()
    settings.ALLOWED_HOSTS = ["*"]
    servers.start()
    try:
        call_command("migrate", verbosity=0)
        _measure(arguments)
    finally:
        connection.close()
        servers.stop()


def _measure(arguments: argparse.Namespace) -> None:
    _say(f"load average {os.getloadavg()[0]:.1f}")
    _time("price book, load", lambda: price_book_load(force=True), arguments.rounds)
    people = people_create()
    key, _ = builders.key(people.owner, team=people.search)
    _fill(key, arguments.policies)
    _time_feed(key, arguments.rounds)
    _fill(key, arguments.keys)
    for person in ("admin", "owner"):
        _time_pages(people, person, key.public_id, arguments.rounds)


def _fill(key: VirtualKey, wanted: int) -> None:
    """Up to that many keys; those of before go, their numbers begin anew."""
    VirtualKey.objects.exclude(pk=key.pk).delete()
    builders.copies_of(key, wanted - 1)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE keys_virtualkey")
    _say(f"\n{VirtualKey.objects.count():,} keys")


def _time_feed(key: VirtualKey, rounds: int) -> None:
    token = open_token(fleet_identity(key.environment))
    replica = Client(headers={"authorization": f"Bearer {token}"})
    _time("policy feed, everything", lambda: _get(replica, "/fleet/v1/policies?since=0"), rounds)
    _time("policy feed, nothing new", lambda: _get(replica, "/fleet/v1/policies?since=1"), rounds)


def _time_pages(people: People, person: str, public_id: str, rounds: int) -> None:
    client = Client()
    client.force_login(getattr(people, person))
    _say(f"as {person}")
    for name, template in PAGES:
        path = template.format(public_id=public_id)
        _time(f"list of keys, {name}", lambda path=path: _get(client, path), rounds)  # type: ignore[misc]


def _get(client: Client, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200, (path, response.status_code)


def _time(name: str, work: Callable[[], object], rounds: int) -> None:
    took_ms = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        took_ms.append((time.perf_counter() - begun) * 1000)
    _say(f"{name:40} median {statistics.median(took_ms):7.0f} ms   max {max(took_ms):7.0f} ms")


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policies", type=int, default=100_000)
    parser.add_argument("--keys", type=int, default=380_000)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
