"""A replica of its own with Redis and an environment that keeps answers, for the cache's tests."""

import os
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import redis

from gateway_admin.demo.simulator.process import Simulator
from proxy.contract import RevisionDocument
from proxy.contract.counters import epoch_key
from proxy.worker import TELL_INTERVAL_S
from tests.proxy import control_plane
from tests.proxy.conftest import Gateway, standard_document, standard_secrets
from tests.proxy.control_plane import ControlPlanePeer
from tests.proxy.documents import ENVIRONMENT, policy
from tests.proxy.replica import running as running_replica

CHAT = "/v1/chat/completions"


def cache_rules(**changes: Any) -> dict[str, Any]:
    """The environment's rules of the cache."""
    return {"enabled": True, "ttl_s": 3600, "max_entry_bytes": 64 * 1024} | changes


def cached_document(simulator: Simulator, **changes: Any) -> RevisionDocument:
    """The standard document with the cache on."""
    return standard_document(simulator, cache=cache_rules(**changes))


class CachedGateway(Gateway):
    """A gateway whose keys keep answers."""

    def ask(
        self,
        body: dict[str, Any],
        *,
        key: str = "alpha",
        path: str = CHAT,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """One request, read to its end."""
        with self.client(key) as client:
            return client.post(path, json=body, headers=headers)

    def served(self) -> int:
        """Requests that the simulator answered so far."""
        rows = self.simulator.settled_ledger()["rows"]
        return sum(row["requests"] for row in rows)

    def ask_until_kept(self, body: dict[str, Any], **options: Any) -> httpx.Response:
        """Ask once, and wait until the answer is in Redis; gives the first answer."""
        before = self.entries()
        first = self.ask(body, **options)
        self.peer.wait_for("the answer kept", lambda: self.entries() > before)
        return first

    def entries(self) -> int:
        """Answers in Redis."""
        with redis.Redis.from_url(self.replica.environ["REDIS_URL"]) as client:
            return sum(1 for _ in client.scan_iter("{gw:prod}:answer:*"))

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels, of both workers."""
        time.sleep(TELL_INTERVAL_S + 0.2)  # until then, one worker may not know of the other
        total = 0.0
        for line in httpx.get(f"{self.url}/metrics").text.splitlines():
            same_name = line.startswith((name + "{", name + " "))
            if same_name and all(f'{k}="{v}"' in line for k, v in labels.items()):
                total += float(line.rpartition(" ")[2])
        return total


# Raised before each test: workers remember what they have just read, and a purge alone undoes that.
purges = {"all": 1}


def keyed(public_id: str, **changes: Any) -> Any:
    """Policy of a key that keeps all its answers, unless told otherwise."""
    return policy(public_id, **({"cache": "all", "cache_version": purges["all"]} | changes))


def build_counters() -> str:
    """What the control plane does when counters are missing: nothing was spent yet."""
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as server:
        server.set(epoch_key(ENVIRONMENT), "epoch-1")
    return "epoch-1"


@pytest.fixture(scope="module")
def started_cached(simulator: Simulator) -> Iterator[CachedGateway]:
    """One replica with two workers for the tests of a module.

    Not of the session: its workers would sweep holds and have counters built in the Valkey
    database that other tests use after them.
    """
    peer = ControlPlanePeer()
    peer.build_counters = build_counters
    with control_plane.running(peer):
        peer.publish(cached_document(simulator), standard_secrets())
        peer.set_key(keyed("alpha"))
        environ = {"REDIS_URL": os.environ["REDIS_URL"], "GATEWAY_PROXY_WORKERS": "2"}
        with running_replica(peer.url, **environ) as replica:
            yield CachedGateway(replica, peer, simulator)


@pytest.fixture
def cached(started_cached: CachedGateway) -> CachedGateway:
    """The session's gateway with an empty cache (Redis is emptied before each test)."""
    started_cached.simulator.reset()
    build_counters()
    purges["all"] += 1
    publish(started_cached)
    set_key(started_cached, "alpha")
    started_cached.peer.events.clear()
    return started_cached


def publish(gateway: CachedGateway, **changes: Any) -> None:
    """Serve the document with these rules of the cache; waits for both workers."""
    wanted = cached_document(gateway.simulator, **changes)
    peer = gateway.peer
    if peer.revisions[max(peer.revisions)]["document"] == wanted:
        return
    number = peer.publish(wanted, standard_secrets())
    peer.wait_for(f"revision {number}", lambda: len(_applied(peer, number)) == 2)


def _applied(peer: ControlPlanePeer, number: int) -> set[int]:
    return {r["worker"] for r in peer.reports[-20:] if r["applied_revision"] == number}


def set_key(gateway: CachedGateway, public_id: str, **changes: Any) -> None:
    """Create or change a key; waits until both workers know."""
    peer = gateway.peer
    version = peer.set_key(keyed(public_id, **changes))

    def known() -> bool:
        told = {r["worker"] for r in peer.reports[-20:] if r["policy_version"] >= version}
        return len(told) == 2

    peer.wait_for(f"policies {version}", known)
