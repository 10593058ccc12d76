"""Redis away, slow, or empty: workers count their shares, or refuse, and find the way back."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from proxy.admission_local import LocalBook
from proxy.contract.counters import dollars, epoch_key
from proxy.redis_link import LinkDown
from proxy.refusals import Refusal
from proxy.trace import Trace
from proxy.worker import Worker
from tests.proxy import own_valkey
from tests.proxy.documents import ENVIRONMENT, budget, limit, subject
from tests.proxy.drill import Drill, admitted, refused, small_document
from tests.proxy.own_valkey import OwnValkey
from tests.proxy.test_admission_budgets import estimate, month


@pytest.fixture
def server() -> Iterator[OwnValkey]:
    with own_valkey.running() as found:
        yield found


@pytest.fixture
async def drill(server: OwnValkey) -> AsyncIterator[Drill]:
    async with Drill(url=server.url, timeout_s=0.2) as found:
        yield found


def gone(drill: Drill, server: OwnValkey) -> None:
    """Stop Redis as it happens: without a word."""
    server.stop()
    for worker in drill.workers:
        worker.admission.lost(LinkDown("connection closed"))


async def everybody(drill: Drill, tries: int) -> list[Trace | Refusal]:
    """Each worker tries so often."""
    work = [drill.try_admit(worker) for worker in drill.workers for _ in range(tries)]
    return list(await asyncio.gather(*work))


async def test_shares_of_a_budget_never_exceed_what_remained(
    drill: Drill, server: OwnValkey
) -> None:
    nano = await estimate(drill)
    await forget(drill)
    limit_nano = 43 * nano
    drill.subjects = [subject("team", "team-1", budgets=[budget("b", "1", limit_nano=limit_nano)])]
    await drill.fleet(4)
    for _ in range(3):
        trace = await drill.admit(drill.workers[0])
        await drill.finish(drill.workers[0], trace, usd=f"{nano / 1e9:.9f}")
    running = await drill.admit(drill.workers[1])
    await drill.clocks()  # every worker has heard of it: 39 remain
    gone(drill, server)
    found = await everybody(drill, 30)
    assert 4 * 9 <= len(admitted(found)) <= 39
    refusal = refused(found)[0]
    assert refusal.code == "insufficient_quota"
    assert "this worker may spend" in refusal.message
    described = drill.workers[0].admission.describe(admitted(found)[0])
    assert described["mode"] == "local"
    assert [entry["counter"] for entry in described["charged"]] == [f"b:team-1:{month()}"]
    # What ended cheaper gives its worker room again; what was running stays set aside.
    drill.workers[1].admission.settle(running, cost=None, tokens=0)
    for own in admitted(found[:30]):  # of the first worker
        drill.workers[0].admission.settle(own, cost=None, tokens=0)
    assert isinstance(await drill.try_admit(drill.workers[0]), Trace)


async def forget(drill: Drill) -> None:
    """The worker that measured an estimate is no part of the fleet."""
    for worker in drill.workers:
        assert worker.link is not None
        await worker.link.stop()
        await worker.control.close()
    drill.workers.clear()
    await drill.redis.flushdb()
    await drill.redis.set(epoch_key(ENVIRONMENT), "epoch-1")


@pytest.mark.parametrize(("kind", "most"), [("rpm", 10), ("parallel", 10), ("tpm", 5_000)])
async def test_shares_of_a_limit_sum_to_it(
    drill: Drill, server: OwnValkey, kind: str, most: int
) -> None:
    drill.subjects = [subject("user", "user-1", limits=[limit("l", **{kind: most})])]
    await drill.fleet(4)
    gone(drill, server)
    found = await everybody(drill, 40)
    if kind == "tpm":
        tokens = [use.tokens for one in admitted(found) if one.grant for use in one.grant.windows]
        assert most - 4 * tokens[0] <= sum(tokens) <= most
    else:
        assert len(admitted(found)) == most
    for refusal in refused(found):
        assert (refusal.code, refusal.status) == ("rate_limit_exceeded", 429)
        assert refusal.retry_after_s


async def test_an_outage_begins_with_what_this_worker_admitted_before_it(
    drill: Drill, server: OwnValkey
) -> None:
    drill.subjects = [subject("user", "user-1", limits=[limit("l", rpm=10)])]
    worker = await drill.worker()
    for _ in range(7):
        await drill.admit(worker)
    gone(drill, server)
    assert len(admitted(await everybody(drill, 20))) == 3


async def test_the_shared_window_learns_what_was_admitted_alone(
    drill: Drill, server: OwnValkey
) -> None:
    drill.subjects = [subject("user", "user-1", limits=[limit("l", rpm=10)])]
    first, second = await drill.fleet(2)
    drill.live()
    server.pause()
    for _ in range(4):
        await drill.admit(first)
    server.resume()
    await drill.until_mode("shared")
    await drill.until("both asked", lambda: first.link is not None and first.link.up)
    found = [await drill.try_admit(second) for _ in range(12)]
    # The first may have been counted by Redis, too, before the answer was lost.
    assert len(admitted(found)) in (5, 6)


async def test_an_environment_may_refuse_instead(server: OwnValkey) -> None:
    content = small_document(on_counter_outage="refuse")
    async with Drill(url=server.url, content=content) as drill:
        drill.subjects = [subject("team", "team-1", limits=[limit("l", rpm=100)])]
        worker = await drill.worker()
        gone(drill, server)
        refusal = await drill.try_admit(worker)
        assert isinstance(refusal, Refusal)
        assert (refusal.status, refusal.code) == (503, "counters_unavailable")
        assert refusal.retry_after_s
        drill.subjects = []
        drill.tell(worker)
        assert isinstance(await drill.try_admit(worker), Trace)  # nothing to count


async def test_a_redis_that_does_not_answer_costs_one_time_out_and_comes_back_by_itself(
    drill: Drill, server: OwnValkey
) -> None:
    drill.subjects = [subject("key", "key-alpha", budgets=[budget("b", "5")])]
    worker = await drill.worker()
    drill.live()
    before = await drill.admit(worker)
    server.pause()
    first = await drill.admit(worker)
    assert first.grant is not None
    assert first.grant.mode == "local"
    assert worker.reasons()
    assert worker.report()["counters"] == "local"
    link = worker.link
    assert link is not None
    failures = link.failures
    for _ in range(50):
        await drill.admit(worker)
    assert link.failures - failures <= 1  # nobody else waited
    worker.admission.settle(before, cost=None, tokens=0)
    server.resume()
    await drill.until_mode("shared")
    assert not [reason for reason in worker.reasons() if "counted by shares" in reason]
    after = await drill.admit(worker)
    assert after.grant is not None
    assert after.grant.mode == "shared"
    worker.admission.settle(after, cost=None, tokens=0)
    # The one that Redis may have admitted without our hearing of it holds nothing either.
    await drill.until("settled", lambda: not len(worker.admission.settlements or ()))
    await asyncio.sleep(0.1)
    assert await drill.holds() == 0
    assert (await drill.budget(f"b:key-alpha:{month()}"))[1] == 0


async def test_a_wiped_redis_is_not_believed_until_its_counters_are_built(
    drill: Drill, server: OwnValkey
) -> None:
    nano = await estimate(drill)
    await forget(drill)
    rule = budget("b", "1", limit_nano=5 * nano)
    drill.subjects = [subject("key", "key-alpha", budgets=[rule])]
    worker = await drill.worker()
    drill.live()
    for _ in range(4):
        trace = await drill.admit(worker)
        await drill.finish(worker, trace, usd=f"{nano / 1e9:.9f}")
    await worker.heartbeat.beat()
    server.stop()
    server.start()
    await drill.until_mode("unbuilt")
    assert len(admitted(await everybody(drill, 10))) == 1
    assert worker.report()["counters"] == "unbuilt"
    await drill.redis.connection_pool.disconnect()
    await drill.redis.hset(f"{{gw:{ENVIRONMENT}}}:b:b:key-alpha:{month()}", "s", str(4 * nano))
    await drill.redis.set(epoch_key(ENVIRONMENT), "epoch-2")
    await drill.until_mode("shared")
    assert admitted(await everybody(drill, 10)) == []  # one runs that only this worker knows of


async def test_requests_that_ran_while_redis_was_wiped_stay_set_aside(
    drill: Drill, server: OwnValkey
) -> None:
    nano = await estimate(drill)
    await forget(drill)
    rule = budget("b", "1", limit_nano=5 * nano)
    drill.subjects = [subject("key", "key-alpha", budgets=[rule])]
    worker = await drill.worker()
    running = [await drill.admit(worker) for _ in range(3)]
    await drill.redis.flushdb()
    await drill.redis.set(epoch_key(ENVIRONMENT), "epoch-2")
    await drill.clocks()
    assert worker.admission.describe(running[0])["mode"] == "local"
    assert len(admitted(await everybody(drill, 9))) == 2
    for trace in running:
        worker.admission.settle(trace, cost=None, tokens=0)
    assert len(admitted(await everybody(drill, 9))) == 3


async def test_what_was_spent_alone_counts_until_the_ledger_has_it(
    drill: Drill, server: OwnValkey
) -> None:
    nano = await estimate(drill)
    await forget(drill)
    rule = budget("b", "1", limit_nano=3 * nano)
    drill.subjects = [subject("key", "key-alpha", budgets=[rule])]
    worker = await drill.worker()
    worker.spool.open()
    server.pause()
    alone = await drill.admit(worker)
    worker.admission.settle(alone, cost=dollars(nano), tokens=0)
    server.resume()
    book = worker.admission.book
    assert book.own(f"b:key-alpha:{month()}") == nano
    assert worker.link is not None
    await drill.until("up", lambda: worker.link is not None and worker.link.up)
    await drill.settled(worker)  # what Redis admitted without our hearing of it is given back
    worker.admission.state.found()
    assert len(admitted(await everybody(drill, 10))) == 2
    worker.spool.close()


async def test_a_start_without_redis_knows_the_balances_of_the_last_run(
    drill: Drill, server: OwnValkey
) -> None:
    nano = await estimate(drill)
    await forget(drill)
    rule = budget("b", "1", limit_nano=10 * nano)
    drill.subjects = [subject("key", "key-alpha", budgets=[rule])]
    worker = await drill.worker()
    for _ in range(6):
        trace = await drill.admit(worker)
        await drill.finish(worker, trace, usd=f"{nano / 1e9:.9f}")
    await drill.clocks()
    gone(drill, server)
    await drill.admit(worker)
    await worker.heartbeat.stop()
    again = Worker(worker.settings, slot=0, metrics=worker.metrics, backend=None)
    again.snapshot = worker.snapshot
    drill.tell(again)
    again.heartbeat.restore()
    found = [await drill.try_admit(again) for _ in range(10)]
    assert len(admitted(found)) == 3
    await again.control.close()


def test_parts_of_a_limit_sum_to_it() -> None:
    for workers in range(1, 9):
        for most in range(40):
            parts = []
            for rank in range(workers):
                book = LocalBook()
                book.workers, book.rank = workers, rank
                parts.append(book.share(most))
            assert sum(parts) == most


async def test_periods_that_begin_during_an_outage_begin_with_the_whole_limit(
    drill: Drill, server: OwnValkey
) -> None:
    nano = await estimate(drill)
    await forget(drill)
    rule = budget("b", "1", limit_nano=4 * nano, period="day")
    drill.subjects = [subject("key", "key-alpha", budgets=[rule])]
    worker = await drill.worker()
    drill.at(datetime(2026, 11, 30, 23, 59, 59, 900_000, tzinfo=UTC))
    await drill.clocks()
    for _ in range(4):
        await drill.admit(worker)
    gone(drill, server)
    assert isinstance(await drill.try_admit(worker), Refusal)
    await drill.until("midnight", lambda: worker.clock.now().day == 1)
    assert len(admitted(await everybody(drill, 9))) == 4


async def test_a_replica_without_redis_counts_for_itself_also_over_a_restart(
    drill: Drill,
) -> None:
    nano = await estimate(drill)
    await forget(drill)
    rule = budget("b", "1", limit_nano=6 * nano)
    drill.subjects = [subject("key", "key-alpha", budgets=[rule])]
    template = await drill.worker()
    settings = replace(template.settings, fleet=replace(template.settings.fleet, redis_url=None))
    passed = 0
    for _ in range(2):
        worker = Worker(settings, slot=0, metrics=template.metrics, backend=None)
        worker.snapshot = template.snapshot
        drill.tell(worker)
        worker.heartbeat.restore()
        assert worker.reasons() == []
        assert worker.report()["counters"] == "local"
        found = [await drill.try_admit(worker) for _ in range(4)]
        passed += len(admitted(found))
        for trace in admitted(found):
            worker.admission.settle(trace, cost=dollars(nano), tokens=0)
        await worker.heartbeat.beat()
        await worker.heartbeat.stop()
        await worker.control.close()
    assert passed == 6
