"""Settlements: many in one call, each once, also when something is lost on the way."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import orjson
import pytest

from proxy.admission_wire import given_back
from proxy.contract.counters import budget_key, hold_key
from tests.proxy import own_valkey
from tests.proxy.documents import ENVIRONMENT, budget, limit, subject
from tests.proxy.drill import Drill, attempt
from tests.proxy.test_admission_budgets import COST, month

NANO = 1_000_000  # of COST
WINDOW = f"{{gw:{ENVIRONMENT}}}:w:key:key-alpha:*"


@pytest.fixture
async def drill() -> AsyncIterator[Drill]:
    async with Drill() as found:
        rules = [limit("l", rpm=1_000, tpm=1_000_000, parallel=1_000)]
        found.subjects = [subject("key", "key-alpha", budgets=[budget("b", "50")], limits=rules)]
        yield found


async def test_many_settlements_are_each_done_once(drill: Drill) -> None:
    worker = await drill.worker()
    settlements = worker.admission.settlements
    assert settlements is not None
    traces = await asyncio.gather(*(drill.admit(worker) for _ in range(300)))
    *others, last = traces  # the last one of a worker is sent at once
    for trace in others:
        worker.admission.settle(trace, cost=Decimal(COST), tokens=10)
    waiting = list(settlements._waiting)
    assert len(waiting) == 299
    worker.admission.settle(last, cost=Decimal(COST), tokens=10)
    await drill.settled(worker)
    for settlement in waiting:
        settlements.add(settlement)
    await drill.settled(worker)
    assert await drill.budget(f"b:key-alpha:{month()}") == (300 * NANO, 0, 300 * NANO)
    assert await drill.holds() == 0
    assert await drill.redis.hmget(WINDOW, "r", "t") == ["300", "3000"]
    assert await drill.redis.exists(f"{{gw:{ENVIRONMENT}}}:c:key:key-alpha:*") == 0


async def test_one_that_fails_does_not_keep_the_others(drill: Drill) -> None:
    """Somebody wrote over a counter: what belongs to other budgets is settled all the same."""
    drill.subjects.append(subject("customer", "jane", budgets=[budget("broken", "50")]))
    worker = await drill.worker()
    settlements = worker.admission.settlements
    assert settlements is not None
    traces = [await drill.admit(worker, user=user) for user in ("", "jane", "")]
    (broken,) = await drill.counters("broken")
    await drill.redis.set(budget_key(ENVIRONMENT, broken), "text")
    for trace in traces:
        worker.admission.settle(trace, cost=Decimal(COST), tokens=10)
    assert not await settlements.drain()
    assert len(settlements) == 1
    assert (await drill.budget(f"b:key-alpha:{month()}"))[0] >= 2 * NANO
    assert await settlements.drain()  # it is not tried for ever: its hold has ended
    assert await drill.holds() == 0


async def test_scripts_are_loaded_again_when_redis_forgot_them(drill: Drill) -> None:
    worker = await drill.worker()
    first = await drill.admit(worker)
    await drill.redis.script_flush()
    await drill.finish(worker, first, usd=COST)
    await drill.redis.script_flush()
    traces = await asyncio.gather(*(drill.admit(worker) for _ in range(9)))
    for trace in traces:
        await drill.finish(worker, trace, usd=COST)
    assert await drill.budget(f"b:key-alpha:{month()}") == (10 * NANO, 0, 10 * NANO)


async def test_a_request_that_is_given_up_while_it_is_admitted_holds_nothing(drill: Drill) -> None:
    worker = await drill.worker()
    await drill.admit(worker)
    asking = asyncio.create_task(drill.admit(worker))
    await asyncio.sleep(0)  # it is on its way to Redis
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await drill.settled(worker)
    assert await drill.holds() == 1
    assert await drill.redis.zcard(f"{{gw:{ENVIRONMENT}}}:c:key:key-alpha:*") == 1


async def test_a_hold_is_given_back_by_what_it_says_itself(drill: Drill) -> None:
    worker = await drill.worker()
    traces = [await drill.admit(worker) for _ in range(2)]
    assert worker.admission.settlements is not None
    held = (await drill.budget(f"b:key-alpha:{month()}"))[1]
    for _ in range(2):
        worker.admission.settlements.add(given_back(traces[0].event_id))
    await drill.settled(worker)
    assert await drill.budget(f"b:key-alpha:{month()}") == (0, held // 2, 0)
    assert await drill.redis.zcard(f"{{gw:{ENVIRONMENT}}}:c:key:key-alpha:*") == 1
    requests, tokens = await drill.redis.hmget(WINDOW, "r", "t")
    assert traces[1].grant is not None
    assert [requests, tokens] == ["2", str(traces[1].grant.windows[0].tokens)]


async def test_what_a_lost_answer_may_have_reserved_is_given_back_and_charged() -> None:
    """Redis reserved for the second target and nobody heard it."""
    with own_valkey.running() as server:
        async with Drill(url=server.url, timeout_s=0.2) as drill:
            drill.subjects = [
                subject("key", "key-alpha", budgets=[
                    budget("b", "50"), budget("d", "50", model="dear"),
                ]),
            ]  # fmt: skip
            worker = await drill.worker()
            assert worker.link is not None
            trace = await drill.admit(worker)
            assert trace.snapshot is not None
            server.pause()
            await worker.admission.enter(trace, trace.snapshot.deployments["dep-dear"])
            attempt(trace, "dep-dear")
            server.resume()
            await drill.until("up", lambda: worker.link is not None and worker.link.up)
            assert (await drill.budget(f"d:key-alpha:{month()}"))[1] > 0
            await drill.finish(worker, trace, usd=COST)
            for name in ("b", "d"):
                assert await drill.budget(f"{name}:key-alpha:{month()}") == (NANO, 0, NANO)
            assert await drill.redis.exists(hold_key(ENVIRONMENT, trace.event_id)) == 0


async def test_a_hold_says_which_budgets_the_present_target_belongs_to(drill: Drill) -> None:
    drill.subjects = [
        subject("key", "key-alpha", budgets=[budget("all", "50"), budget("d", "50", model="dear")])
    ]
    worker = await drill.worker()
    trace = drill.request(worker, model="dear")
    assert trace.snapshot is not None
    rows = trace.snapshot.deployments
    targets = [rows["dep-dear"], rows["dep-1"]]
    await worker.admission.admit(trace, targets=targets, first=targets[0])
    assert await charged(drill, trace.event_id) == {"all": 1, "d": 1}
    await worker.admission.enter(trace, rows["dep-1"])
    assert await charged(drill, trace.event_id) == {"all": 1, "d": 0}
    await worker.admission.enter(trace, rows["dep-dear"])
    assert await charged(drill, trace.event_id) == {"all": 1, "d": 1}
    attempt(trace, "dep-dear")
    await drill.finish(worker, trace, usd=COST)
    for name in ("all", "d"):
        assert await drill.budget(f"{name}:key-alpha:{month()}") == (NANO, 0, NANO)


async def charged(drill: Drill, event_id: str) -> dict[str, int]:
    """By budget whether the hold's target belongs to it."""
    hold = orjson.loads(await drill.redis.get(hold_key(ENVIRONMENT, event_id)) or "")
    return {counter.split(":")[0]: belongs for counter, _, _, belongs in hold["budgets"]}
