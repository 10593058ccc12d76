"""Each single failure under load: what must succeed succeeds, nothing is lost, all heals alone.

    make chaos
    GATEWAY_CHAOS_S=20 python -m pytest tests/chaos/test_single_failures.py -s

A failure lasts GATEWAY_CHAOS_S seconds (120). Halfway a replica is killed and started cold.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime

import httpx
import pytest

from tests.acceptance.counters import Counters
from tests.chaos.load import Caller, Load, Outcome, tally
from tests.chaos.site import Site, running_site

FAILURE_S = float(os.environ.get("GATEWAY_CHAOS_S", "120"))
WARM_S = 5.0
IN_FLIGHT_S = 10.0  # calls that were under way when a replica is killed began within
Failure = Callable[[Site], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running_site(workers_each=2) as running:
        prepare(running)
        yield running


def prepare(site: Site) -> None:
    """A model with a way out, a roomy budget on everything, an exhausted one on one key."""
    api, stack = site.stack.api, site.stack
    api.post("chains/", environment="prod", model="openai-chat", kind="general",
             targets=["anthropic-chat"])  # fmt: skip
    stack.publish("a chain")
    api.post("budgets/", environment="prod", scope="environment", name="everything",
             limit_usd="1000", period="month")  # fmt: skip
    poor = stack.issue_key("poor")
    api.post("budgets/", environment="prod", scope="key", subject=poor["id"],
             limit_usd="0.000001", period="lifetime")  # fmt: skip
    site.poor = poor["key"]


@contextmanager
def control_plane_gone(site: Site) -> Iterator[None]:
    with site.supervisor_asleep():
        site.kill("granian", "celery")
        yield


@contextmanager
def postgresql_gone(site: Site) -> Iterator[None]:
    with site.supervisor_asleep():
        site.kill("postgres")
        yield


@contextmanager
def redis_gone(site: Site) -> Iterator[None]:
    site.wire.refuse()
    try:
        yield
    finally:
        site.wire.restore()


@contextmanager
def redis_slow(site: Site) -> Iterator[None]:
    site.wire.delay(0.5)
    try:
        yield
    finally:
        site.wire.restore()


@contextmanager
def provider_gone(site: Site) -> Iterator[None]:
    site.stack.simulator.control(kind="openai", faults=[{"type": "server_error"}])
    try:
        yield
    finally:
        site.stack.simulator.reset()


@contextmanager
def disk_full(site: Site) -> Iterator[None]:
    with site.disks_full():
        yield


@contextmanager
def clock_stepped(site: Site) -> Iterator[None]:
    site.replica.step_clock(2 * 3600)
    try:
        yield
    finally:
        site.replica.step_clock(0)


FAILURES: dict[str, Failure] = {
    "control plane": control_plane_gone,
    "PostgreSQL": postgresql_gone,
    "Redis": redis_gone,
    "slow Redis": redis_slow,
    "provider": provider_gone,
    "disk full": disk_full,
    "clock step": clock_stepped,
}


@pytest.mark.parametrize("name", FAILURES)
def test_single_failure(site: Site, name: str) -> None:
    since = datetime.now(UTC)
    caller = Caller(site.urls, site.stack.key)
    with Load([caller], threads=4):
        time.sleep(WARM_S)
        began = time.monotonic()
        with FAILURES[name](site):
            time.sleep(FAILURE_S / 2)
            cold_s = cold_start(site, killed=name != "disk full")
            time.sleep(max(0.0, began + FAILURE_S - time.monotonic()))
            assert valid_keys_are_never_refused(site)
        lasted_s = time.monotonic() - began
        healed_s = site.wait_healthy()
        time.sleep(WARM_S)
    failed = [o for o in caller.outcomes if not o.whole and not touched_by_restart(site, o)]
    where = {url: "second" if url == site.replica.url else "first" for url in site.urls}
    told = [(where[o.base_url], round(o.at - began, 1), round(o.took_s, 1)) for o in failed[:20]]
    assert not failed, f"{name}: {tally(failed)} of {tally(caller.outcomes)}: {told}"
    accounted_once(site, since, caller.outcomes)
    print(  # noqa: T201
        f"{name}: {lasted_s:.0f} s, {len(caller.outcomes)} calls ({tally(caller.outcomes)}), "
        f"cold start {cold_s:.1f} s, healthy {healed_s:.1f} s after"
    )


def cold_start(site: Site, *, killed: bool) -> float:
    """Start the second replica anew in the midst of the failure; seconds until it serves.

    On a full disk it is stopped instead of killed: what it could not write is in its memory
    alone, so killing it as well is a second failure.
    """
    site.restarted = (time.monotonic(), 0.0)
    if killed:
        site.replica.kill()
    else:
        site.replica.stop()
    began = time.monotonic()
    site.replica.start()
    site.replica.wait()
    site.restarted = (began - IN_FLIGHT_S, time.monotonic())
    return time.monotonic() - began


def touched_by_restart(site: Site, outcome: Outcome) -> bool:
    """A call to the replica that we killed ourselves, from just before until it served again."""
    begin, end = site.restarted
    away = outcome.status in (0, 503) or (outcome.status == 200 and not outcome.whole)
    return away and outcome.base_url == site.replica.url and begin <= outcome.at <= end


def valid_keys_are_never_refused(site: Site) -> bool:
    """An outage is never a 401 for a good key, and a bad key is one as ever."""
    for url in site.urls:
        good = httpx.get(
            f"{url}/v1/models", headers={"Authorization": f"Bearer {site.stack.key}"}, timeout=10
        )
        bad = httpx.get(
            f"{url}/v1/models", headers={"Authorization": "Bearer sk-gw-nobody-x"}, timeout=10
        )
        if (good.status_code, bad.status_code) != (200, 401):
            return False
    return True


def accounted_once(site: Site, since: datetime, outcomes: Sequence[Outcome]) -> None:
    """Every answered call has its one event; holds are gone; the counters equal the ledger."""
    answered = [o.customer for o in outcomes if o.whole]
    events = site.stack.settled_events(since, len(answered), answered)
    counted = Counter(event["customer"] for event in events)
    assert not [customer for customer in answered if counted[customer] != 1]
    counters = Counters(site.redis_url)
    site.stack.wait_for(lambda: counters.holds() == 0, "no hold is left", timeout_s=120)
    site.stack.wait_for(
        lambda: all(c["h"] == 0 and c["p"] == 0 for c in counters.all().values()),
        "everything is settled and in the ledger",
        timeout_s=120,
    )
