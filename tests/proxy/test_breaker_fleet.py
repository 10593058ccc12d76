"""Breakers of several workers on one Redis: permits, stale results, orders, Redis away."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvloop

from proxy.breaker import Breakers, Permit
from proxy.clock import Clock
from proxy.contract import BreakerOrder
from proxy.contract.counters import breaker_key
from proxy.defaults import BREAKER
from proxy.metrics import Metrics
from proxy.redis_link import RedisLink
from proxy.snapshot import Snapshot, build_snapshot
from tests.proxy.documents import ENVIRONMENT, FLEET_KEY, deployment, document, envelope

DEP = "dep-1"
NOWHERE = "redis://127.0.0.1:1/0"


def snapshot(**rules: Any) -> Snapshot:
    """One deployment and quick rules."""
    breaker = {**BREAKER, "consecutive_failures": 2, "open_s": 2, "half_open_permits": 3, **rules}
    content = document([deployment(DEP, "chat", "openai/gpt-4o", None)], [], breaker=breaker)
    return build_snapshot(envelope(1, content, {}), environment=ENVIRONMENT, fleet_key=FLEET_KEY)


class Fleet:
    """Workers' breakers."""

    def __init__(self) -> None:
        self.environment = uuid.uuid4().hex
        self.links: list[RedisLink] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def worker(self, content: Snapshot | None = None, url: str | None = None) -> Breakers:
        """One more worker, listening."""
        url = url or os.environ["REDIS_URL"]
        link = RedisLink(url, 2.0)
        self.links.append(link)
        await link.start()
        breakers = Breakers(
            environment=self.environment, link=link, url=url, clock=Clock(), metrics=Metrics()
        )
        breakers.configure(content or snapshot())
        self.tasks += [asyncio.create_task(breakers.run()), asyncio.create_task(breakers.listen())]
        await asyncio.sleep(0.05)
        return breakers

    async def stop(self) -> None:
        """End everything."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for link in self.links:
            await link.stop()


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    found = Fleet()
    yield found
    await found.stop()


async def until(condition: Any) -> None:
    """Wait for something that arrives in the background."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # what is awaited has no event
            await asyncio.sleep(0.01)


async def fail(breakers: Breakers, times: int = 2) -> None:
    """Calls that fail."""
    for _ in range(times):
        permit = await breakers.acquire(DEP)
        assert permit is not None
        breakers.record(permit, "f", "timeout")
    await until(lambda: not breakers._tasks and breakers._timer is None)


def is_open(breakers: Breakers) -> bool:
    kept = breakers.kept_out(DEP)
    return kept is not None and kept.open


async def test_one_worker_opens_it_for_all(fleet: Fleet) -> None:
    one, two = await fleet.worker(), await fleet.worker()
    await fail(one, 1)
    assert not is_open(one)
    await fail(two, 1)  # in a row, over both workers
    await until(lambda: is_open(one) and is_open(two))
    assert [t["state"] for t in two.transitions] == ["open"]
    assert two.transitions[0]["reason"] == "2 failures in a row: timeout"
    assert one.transitions == []  # told by the one who caused it


async def test_a_burst_gets_exactly_the_permits_of_the_fleet(fleet: Fleet) -> None:
    workers = [await fleet.worker() for _ in range(4)]
    await fail(workers[0])
    await until(lambda: all(is_open(one) for one in workers))
    assert await workers[1].acquire(DEP) is None
    await until(lambda: not any(is_open(one) for one in workers))
    asked = [one.acquire(DEP) for one in workers for _ in range(50)]
    permits = [permit for permit in await asyncio.gather(*asked) if permit is not None]
    assert len(permits) == 3
    assert len({permit.token for permit in permits}) == 3
    # A permit that comes back can be had again, and only that one.
    workers[0].record(permits[0], "n")
    await until(lambda: not workers[0]._tasks and workers[0]._timer is None)
    await asyncio.sleep(0.15)
    asked = [one.acquire(DEP) for one in workers for _ in range(20)]
    assert len([permit for permit in await asyncio.gather(*asked) if permit is not None]) == 1


async def test_trial_calls_close_it_and_late_results_do_nothing(fleet: Fleet) -> None:
    one, two = await fleet.worker(), await fleet.worker()
    early = [await two.acquire(DEP) for _ in range(5)]  # calls that take very long
    await fail(one)
    await until(lambda: is_open(one) and is_open(two))
    for permit in early[:3]:
        assert permit is not None
        two.record(permit, "s")
    await until(lambda: not two._tasks and two._timer is None)
    assert is_open(one)
    assert is_open(two)
    await until(lambda: not is_open(one))
    for _ in range(3):
        trial = await one.acquire(DEP)
        assert trial is not None
        assert trial.token
        one.record(trial, "s")
        await until(lambda: not one._tasks and one._timer is None)
    assert [t["state"] for t in one.transitions] == ["open", "half_open", "closed"]
    for permit in early[3:]:  # failures of before it opened: they do not open it again
        assert permit is not None
        two.record(permit, "f", "timeout")
    await until(lambda: not two._tasks and two._timer is None)
    assert not is_open(one)
    assert not is_open(two)


async def test_a_failed_trial_opens_it_again(fleet: Fleet) -> None:
    one = await fleet.worker()
    await fail(one)
    await until(lambda: not is_open(one))
    trial = await one.acquire(DEP)
    assert trial is not None
    one.record(trial, "f", "connection")
    await until(lambda: is_open(one))
    assert one.transitions[-1]["reason"] == "a trial call failed: connection"


async def test_permits_of_a_dead_worker_come_back(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.breaker.LEASE_MS", 300)
    one, two = await fleet.worker(snapshot(half_open_permits=1)), await fleet.worker()
    two.configure(snapshot(half_open_permits=1))
    await fail(one)
    await until(lambda: not is_open(one))
    assert await one.acquire(DEP) is not None  # and is never heard of again
    one._permits.clear()
    assert await two.acquire(DEP) is None
    await asyncio.sleep(0.5)
    assert await two.acquire(DEP) is not None


async def test_the_permit_of_a_long_call_is_renewed(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.breaker.LEASE_MS", 500)
    one = await fleet.worker(snapshot(half_open_permits=1))
    await fail(one)
    await until(lambda: not is_open(one))
    assert await one.acquire(DEP) is not None
    for _ in range(3):
        await asyncio.sleep(0.3)
        await one.look()
    assert await one.acquire(DEP) is None


async def test_a_rate_limit_pauses_without_opening(fleet: Fleet) -> None:
    one, two = await fleet.worker(), await fleet.worker()
    one.pause(DEP, 0.6)
    await until(lambda: two.kept_out(DEP) is not None)
    kept = one.kept_out(DEP)
    assert kept is not None
    assert not kept.open
    assert 0 < kept.wait_s <= 0.6
    await until(lambda: one.kept_out(DEP) is None and two.kept_out(DEP) is None)
    assert one.transitions == two.transitions == []


def order(number: int, action: Any) -> BreakerOrder:
    return {"id": number, "deployment": DEP, "action": action}


async def test_orders_are_followed_once_by_the_fleet(fleet: Fleet) -> None:
    one, two = await fleet.worker(), await fleet.worker()
    one.follow([order(1, "open")])
    await until(lambda: is_open(two))
    two.follow([order(1, "open")])
    await asyncio.sleep(2.2)  # longer than open_s: opened by hand stays open
    assert is_open(one)
    assert await two.acquire(DEP) is None
    two.follow([order(2, "close")])
    await until(lambda: not is_open(one) and not is_open(two))
    one.follow([order(1, "open")])
    one.follow([order(2, "close")])
    await fail(one)
    assert is_open(one)  # the order to close it was for another time
    assert [t["reason"] for t in one.transitions + two.transitions] == [
        "opened by hand", "2 failures in a row: timeout", "closed by hand",
    ]  # fmt: skip


async def test_orders_outlive_redis(fleet: Fleet, valkey: Any) -> None:
    one = await fleet.worker()
    one.follow([order(1, "open")])
    await until(lambda: is_open(one))
    valkey.delete(breaker_key(fleet.environment, DEP))
    fleet.links[0]._wire.drop("as after a restart")  # type: ignore[union-attr]
    await until(lambda: valkey.exists(breaker_key(fleet.environment, DEP)))
    await one.look()
    assert is_open(one)


async def test_without_redis_a_worker_goes_on_alone(fleet: Fleet) -> None:
    alone = await fleet.worker(url=NOWHERE)
    await fail(alone)
    assert is_open(alone)
    await until(lambda: not is_open(alone))
    permits = [await alone.acquire(DEP) for _ in range(10)]
    assert len([permit for permit in permits if permit is not None]) == 3
    for permit in permits:
        if permit is not None:
            alone.record(permit, "s")
    await until(lambda: alone.transitions[-1]["state"] == "closed")


async def test_a_lost_redis_leaves_the_last_known_state(fleet: Fleet) -> None:
    one, two = await fleet.worker(snapshot(open_s=30)), await fleet.worker()
    await fail(one)
    assert is_open(one)
    wire = fleet.links[0]._wire
    assert wire is not None
    fleet.links[0]._place.port = 1  # the next connection fails
    wire.drop("gone")
    assert is_open(one)
    assert await one.acquire(DEP) is None
    assert two.transitions == []


async def test_nothing_is_kept_out_where_breakers_are_off(fleet: Fleet) -> None:
    one = await fleet.worker(snapshot(enabled=False))
    await fail(one, 10)
    one.pause(DEP, 5)
    await asyncio.sleep(0.05)
    assert one.kept_out(DEP) is None
    assert await one.acquire(DEP) == Permit(DEP, 0)
    one.follow([order(1, "open")])  # a person's word holds all the same
    await until(lambda: is_open(one))


async def test_a_share_of_failures_opens_it(fleet: Fleet) -> None:
    rules = {"consecutive_failures": 100, "minimum_calls": 10, "failure_percent": 50}
    one = await fleet.worker(snapshot(**rules))
    for number in range(10):
        permit = await one.acquire(DEP)
        assert permit is not None
        one.record(permit, "f" if number % 2 else "s", "server_error")
    await until(lambda: is_open(one))
    assert one.transitions[0]["reason"] == "5 of 10 calls failed in 60 s: server_error"


def test_results_leave_on_the_loop_of_the_workers() -> None:
    async def scenario() -> None:
        fleet = Fleet()
        one = await fleet.worker()
        await fail(one, 1)
        succeeded = await one.acquire(DEP)
        assert succeeded is not None
        one.record(succeeded, "s")
        await fail(one)
        assert is_open(one)
        await fleet.stop()

    uvloop.run(scenario())
