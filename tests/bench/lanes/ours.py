"""Our gateway with every rule on, and a stand-in for its control plane that only counts."""

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any

import redis

from proxy.contract import DeploymentDocument, RevisionDocument, SubjectPolicy
from proxy.contract.counters import epoch_key
from tests.bench.lanes.answers import CHUNKS, COST, INPUT_TOKENS, PRICES, UPSTREAM_MODEL
from tests.bench.lanes.machine import BenchError, pinned
from tests.proxy import control_plane
from tests.proxy.control_plane import ControlPlanePeer
from tests.proxy.documents import (
    ENVIRONMENT,
    budget,
    credential,
    deployment,
    document,
    limit,
    policy,
    subject,
)
from tests.proxy.replica import Replica

# Who calls the mock, as its paths name them -> the deployment's setting.
LANES = {"lane": "litellm", "direct": "auto", "hit": "auto"}
KEYS = ("bench", "hit", "broke")
# High enough for any machine: every rule is counted and none refuses.
MANY = 10**9
FORTUNE = "100000000"
READY_MAX_S = 30.0


class CountingPeer(ControlPlanePeer):
    """Takes events as the control plane does, and keeps sums instead of the events."""

    def __init__(self, redis_url: str) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.redis_url = redis_url
        self.build_counters = self._build_counters
        self._served = contextlib.ExitStack()
        self._served.enter_context(control_plane.running(self))

    def _build_counters(self) -> str:
        with redis.Redis.from_url(self.redis_url) as server:
            server.set(epoch_key(ENVIRONMENT), "epoch-1")
        return "epoch-1"

    def usage(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One batch of events."""
        events = batch["events"]
        with self.lock:
            fresh = [event for event in events if event["event_id"] not in self.seen]
            self.seen.update(event["event_id"] for event in fresh)
            self.counts["duplicates"] += len(events) - len(fresh)
            for event in fresh:
                self.counts["events"] += 1
                self.counts[_kind_of(event)] += 1
        return {
            "accepted": len(fresh),
            "duplicates": len(events) - len(fresh),
            "refused": [],
        }

    def counted(self) -> dict[str, int]:
        """Events since the last `forget`."""
        with self.lock:
            return dict(self.counts)

    def forget(self) -> None:
        """Start at zero."""
        with self.lock:
            self.seen.clear()
            self.counts.clear()
            del self.reports[:-100]

    def address(self) -> str:
        """Where the replica finds it."""
        return self.url

    def ready(self) -> int:
        """Workers that know everything and count with the shared counters."""
        with self.lock:
            newest = max(self.revisions)
            return len(
                {
                    (report["replica_id"], report["worker"])
                    for report in self.reports
                    if report["applied_revision"] == newest
                    and report["policy_version"] == self.policy_version
                    and report.get("counters") == "shared"
                }
            )


def _kind_of(event: dict[str, Any]) -> str:
    """`ok:direct`, `hit`, `aborted`, `429` or what is wrong with the event."""
    if event["why"] == "cache":
        return "hit"
    if event["status"] in ("aborted", "abandoned"):
        return str(event["status"])
    if event["status"] != "ok":
        return str(event["http_status"])
    told = (event["input_tokens"], event["output_tokens"])
    if told != (INPUT_TOKENS, CHUNKS) or event["estimated"]:
        return f"wrong usage {told}"
    if Decimal(event["cost"] or 0) != COST:
        return f"wrong cost {event['cost']}"
    return f"ok:{event.get('lane', '')}"


class _Manager(BaseManager):
    """The peer's process."""


_Manager.register("Peer", CountingPeer)


def _in_background() -> None:
    """In earnest it works elsewhere: here it must not delay the load.

    Niceness is not enough: who wakes up beside a nice process may still wait for milliseconds.
    """
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


@contextlib.contextmanager
def peer(redis_url: str, cores: frozenset[int]) -> Iterator[Any]:
    """A counting peer in a process of its own."""
    manager = _Manager()
    with pinned(cores):
        manager.start(_in_background)
    try:
        yield manager.Peer(redis_url)  # type: ignore[attr-defined]
    finally:
        manager.shutdown()


def model_name(lane: str, ms: int) -> str:
    """The public model that leads to the mock by a lane, with a latency."""
    return f"{lane}-{ms}"


def revision(provider: str, latencies: tuple[int, ...]) -> RevisionDocument:
    """A model for each lane and latency, with the cache on."""
    rows: list[DeploymentDocument] = []
    credentials = []
    for lane, setting in LANES.items():
        for ms in latencies:
            name = model_name(lane, ms)
            credentials.append(
                credential(name, {"api_key": "sk-mock"}, api_base=f"{provider}/{lane}/{ms}/v1")
            )
            rows.append(
                deployment(
                    name, name, f"openai/{UPSTREAM_MODEL}", name,
                    provider_kind="openai", lane=setting,
                    price={"version": "price-1", "source": "own", "units": dict(PRICES)},
                )
            )  # fmt: skip
    cache = {"enabled": True, "ttl_s": 86_400, "max_entry_bytes": 65_536}
    return document(rows, credentials, cache=cache)


def rules() -> list[SubjectPolicy]:
    """Limits and budgets of the environment, the team and each key."""
    found = [
        subject("environment", ENVIRONMENT, budgets=[budget("b-env", FORTUNE)]),
        subject(
            "team", "team-1",
            budgets=[budget("b-team", FORTUNE)],
            limits=[limit("l-team", rpm=MANY, tpm=MANY, parallel=MANY)],
        ),
    ]  # fmt: skip
    for key in KEYS:
        money = budget("b-broke", "0", limit_nano=1) if key == "broke" else budget(key, FORTUNE)
        found.append(
            subject(
                "key", f"key-{key}",
                budgets=[money], limits=[limit(f"l-{key}", rpm=MANY, tpm=MANY, parallel=MANY)],
            )
        )  # fmt: skip
    return found


def tell(told: Any, provider: str, latencies: tuple[int, ...]) -> int:
    """Publish everything; gives the revision's number."""
    content = revision(provider, latencies)
    number = told.publish(
        content, {row["id"]: {"api_key": "sk-mock"} for row in content["credentials"]}
    )
    for key in KEYS:
        cached = {"cache": "all", "cache_version": 1} if key == "hit" else {}
        told.set_key(policy(key, **cached))
    for row in rules():
        told.set_subject(row)
    return int(number)


@contextlib.contextmanager
def replica(
    told: Any, redis_url: str, home: Path, *, cores: frozenset[int], workers: int = 1
) -> Iterator[Replica]:
    """A ready replica with so many workers on these cores."""
    environ = {
        "REDIS_URL": redis_url,
        "GATEWAY_PROXY_WORKERS": str(workers),
        "GATEWAY_POLL_INTERVAL_S": "2",
    }
    found = Replica(told.address(), home / f"replica-{workers}", environ=environ)
    with pinned(cores):
        found.start()
    try:
        found.wait("/ready", timeout_s=120)
        yield found
    finally:
        found.stop()


def wait_ready(told: Any, workers: int) -> None:
    """Wait until so many workers know all rules and count them in Valkey."""
    deadline = time.monotonic() + READY_MAX_S
    while told.ready() < workers:
        if time.monotonic() > deadline:
            raise BenchError("the replica never counted with the shared counters")
        time.sleep(0.2)


def pid_of(found: Replica) -> int:
    """The launcher."""
    assert found.process is not None
    return found.process.pid
