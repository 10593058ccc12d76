"""Budgets in the shared counters: never above the limit, whoever asks, however many at once."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from proxy.admission_local import JUST_SEEN_MS
from proxy.admission_refusals import TargetRefused
from proxy.contract.counters import HOLD_TTL_S, budget_key, dollars, nano_dollars, subject_ref
from proxy.contract.periods import period_of
from proxy.refusals import Refusal
from proxy.trace import Trace
from tests.proxy.documents import ENVIRONMENT, budget, policy, subject
from tests.proxy.drill import UTC_CALENDAR, Drill, admitted, attempt, refused

SUBJECTS = {
    "environment": ENVIRONMENT,
    "team": "team-1",
    "user": "user-1",
    "key": "key-alpha",
    "customer": "acme GmbH & Co",
}
COST = "0.001"


@pytest.fixture
async def drill() -> AsyncIterator[Drill]:
    async with Drill() as found:
        yield found


def month() -> str:
    """Id of the present month."""
    return period_of("month", at=datetime.now(UTC), calendar=UTC_CALENDAR).id


async def estimate(drill: Drill) -> int:
    """What one request of the drill reserves, nano-dollars."""
    drill.subjects = [subject("key", "key-alpha", budgets=[budget("probe", "1000")])]
    worker = await drill.worker()
    trace = await drill.admit(worker)
    _, held, _ = await drill.budget(f"probe:key-alpha:{month()}")
    await drill.finish(worker, trace)
    return held


@pytest.mark.parametrize(
    ("scope", "default"),
    [
        *((scope, False) for scope in SUBJECTS),
        *((scope, True) for scope in SUBJECTS if scope != "environment"),  # it has no others
    ],
)
async def test_a_budget_admits_what_it_covers_and_no_more(
    drill: Drill, scope: str, default: bool
) -> None:
    nano = await estimate(drill)
    rule = budget("b", "1", limit_nano=10 * nano)
    # The customer's name makes a request longer, so its estimate is larger.
    drill.subjects = [subject(scope, "*" if default else SUBJECTS[scope], budgets=[rule])]
    workers = await drill.fleet(4)
    user = SUBJECTS["customer"] if scope == "customer" else ""
    found = await asyncio.gather(
        *(drill.try_admit(workers[n % 4], **({"user": user} if user else {})) for n in range(100))
    )
    passed = len(admitted(found))
    assert passed == (9 if user else 10)
    counter = f"b:{subject_ref(scope, SUBJECTS[scope])}:{month()}"
    spent, held, _ = await drill.budget(counter)
    assert spent == 0
    assert 9 * nano <= held <= 10 * nano
    for refusal in refused(found):
        assert (refusal.status, refusal.code, refusal.kind) == (
            429,
            "insufficient_quota",
            "insufficient_quota",
        )
        assert "budget b" in refusal.message
        assert (b"x-should-retry", b"false") in refusal.headers()


async def test_spent_and_held_never_exceed_the_limit_while_requests_come_and_go(
    drill: Drill,
) -> None:
    nano = await estimate(drill)
    limit = 25 * nano
    drill.subjects = [subject("team", "team-1", budgets=[budget("b", "1", limit_nano=limit)])]
    workers = await drill.fleet(4)
    counter, seen, served = f"b:team-1:{month()}", list[int](), 0

    async def client(number: int) -> None:
        nonlocal served
        worker = workers[number % 4]
        for _ in range(10):
            found = await drill.try_admit(worker)
            if isinstance(found, Refusal):
                return
            await asyncio.sleep(0.001 * (number % 7))
            served += nano // 2
            await drill.finish(worker, found, usd=f"{nano // 2 / 1e9:.9f}")

    async def watch() -> None:
        while not over.is_set():
            spent, held, _ = await drill.budget(counter)
            seen.append(spent + held)
            await asyncio.sleep(0)

    over = asyncio.Event()
    watching = asyncio.create_task(watch())
    await asyncio.gather(*(client(number) for number in range(60)))
    over.set()
    await watching
    assert max(seen) <= limit
    assert await drill.budget(counter) == (served, 0, served)
    assert served > 40 * nano // 2 - nano


async def test_of_overlapping_budgets_the_tightest_decides_and_the_others_hold_nothing_for_it(
    drill: Drill,
) -> None:
    nano = await estimate(drill)
    drill.subjects = [
        subject("environment", ENVIRONMENT, budgets=[budget("env", "1", limit_nano=8 * nano)]),
        subject("team", "team-1", budgets=[budget("team", "1", limit_nano=5 * nano)]),
        subject("key", "*", budgets=[budget("key", "1", limit_nano=3 * nano)]),
    ]
    drill.keys = [policy("alpha"), policy("beta"), policy("gamma", team_id="team-2")]
    workers = await drill.fleet(2)
    order = ["alpha", "beta", "gamma"] * 8
    found = await asyncio.gather(
        *(drill.try_admit(workers[n % 2], key=key) for n, key in enumerate(order))
    )
    passed = [trace.policy["public_id"] for trace in admitted(found)]
    assert passed.count("alpha") + passed.count("beta") == 5
    assert passed.count("gamma") == 3
    assert (await drill.budget(f"env:prod:{month()}"))[1] == 8 * nano
    assert (await drill.budget(f"team:team-1:{month()}"))[1] == 5 * nano
    for name in ("alpha", "beta", "gamma"):
        held = (await drill.budget(f"key:key-{name}:{month()}"))[1]
        assert held == passed.count(name) * nano


async def test_a_models_own_budget_counts_only_that_model(drill: Drill) -> None:
    nano = await estimate(drill)
    rule = budget("dear", "1", model="dear", limit_nano=1)
    drill.subjects = [subject("key", "key-alpha", budgets=[rule])]
    worker = await drill.worker()
    await drill.admit(worker, model="chat")
    with pytest.raises(Refusal) as refusal:
        await drill.admit(worker, model="dear")
    assert "for the model 'dear'" in refusal.value.message
    assert nano


async def test_settlement_charges_the_true_cost_once_also_above_the_estimate(drill: Drill) -> None:
    drill.subjects = [subject("key", "key-alpha", budgets=[budget("b", "5")])]
    worker = await drill.worker()
    trace = await drill.admit(worker)
    assert trace.grant is not None
    assert await drill.holds() == 1
    settlements = worker.admission.settlements
    assert settlements is not None
    worker.admission.settle(trace, cost=dollars(7_000_000_000), tokens=10)
    again = list(settlements._waiting)
    await drill.settled(worker)
    for settlement in again * 3:
        settlements.add(settlement)
    await drill.settled(worker)
    worker.admission.settle(trace, cost=dollars(7_000_000_000), tokens=10)
    await drill.settled(worker)
    assert await drill.budget(f"b:key-alpha:{month()}") == (7_000_000_000, 0, 7_000_000_000)
    assert await drill.holds() == 0
    with pytest.raises(Refusal):
        await drill.admit(worker)


async def test_free_models_never_refuse(drill: Drill) -> None:
    drill.subjects = [subject("key", "key-alpha", budgets=[budget("b", "0", limit_nano=1)])]
    worker = await drill.worker()
    trace = await drill.admit(worker, model="free")
    await drill.finish(worker, trace, usd="0.5")
    await drill.admit(worker, model="free")
    with pytest.raises(Refusal):
        await drill.admit(worker, model="chat")


async def test_an_override_stands_in_the_limits_place_until_its_end(drill: Drill) -> None:
    nano = await estimate(drill)
    until = datetime.now(UTC) + timedelta(hours=1)
    rule = budget("b", "1", limit_nano=1, override_nano=2 * nano, override_until=until.isoformat())
    drill.subjects = [subject("key", "key-alpha", budgets=[rule])]
    worker = await drill.worker()
    await drill.admit(worker)
    drill.at(until + timedelta(seconds=1))
    await drill.clocks()
    with pytest.raises(Refusal) as refusal:
        await drill.admit(worker)
    assert refusal.value.code == "insufficient_quota"


async def test_an_expired_hold_is_given_back_and_waits_for_the_control_plane(drill: Drill) -> None:
    drill.subjects = [subject("key", "key-alpha", budgets=[budget("b", "5")])]
    lost, other = await drill.fleet(2)
    trace = await drill.admit(lost, user="jane")
    counter = f"b:key-alpha:{month()}"
    now_ms = other.clock.now_ms()
    assert other.admission.counters is not None
    drill.at(now_ms + (HOLD_TTL_S - 5) * 1000)
    assert await other.admission.counters.sweep() == 0
    await lost.heartbeat.beat()  # a sign of life: not yet
    drill.at(now_ms + (HOLD_TTL_S + 5) * 1000)
    assert await other.admission.counters.sweep() == 0
    drill.at(now_ms + 3 * HOLD_TTL_S * 1000)
    assert await other.admission.counters.sweep() == 1
    assert await drill.budget(counter) == (0, 0, 0)
    hold = (await drill.abandoned())[0]
    assert hold["id"] == trace.event_id
    assert hold["epoch"] == "epoch-1"
    assert [entry[0] for entry in hold["budgets"]] == [counter]
    assert hold["expires_ms"] == pytest.approx(now_ms + (2 * HOLD_TTL_S - 5) * 1000, abs=2_000)
    assert hold["event"]["customer"] == "jane"
    assert hold["event"]["started_at"] == trace.started_at.isoformat()
    assert hold["abandon_nano"] > 0
    await drill.finish(lost, trace, usd=COST)
    assert await drill.budget(counter) == (0, 0, 0)  # the ledger's part finds what it cost
    await lost.heartbeat.beat()
    assert await drill.holds() == 0


async def test_a_hold_of_other_counters_is_released_and_left_to_the_ledger(drill: Drill) -> None:
    drill.subjects = [subject("key", "key-alpha", budgets=[budget("b", "5")])]
    worker = await drill.worker()
    trace = await drill.admit(worker)
    await drill.redis.set(f"{{gw:{ENVIRONMENT}}}:epoch", "epoch-2")
    await drill.finish(worker, trace, usd=COST)
    assert await drill.budget(f"b:key-alpha:{month()}") == (0, 0, 0)


async def test_a_fallback_reserves_what_only_it_needs_on_the_same_hold(drill: Drill) -> None:
    drill.subjects = [
        subject("key", "key-alpha", budgets=[budget("all", "5"), budget("d", "5", model="dear")]),
        subject("credential", "cred-1", budgets=[budget("cred1", "5")]),
        subject("credential", "cred-2", budgets=[budget("cred2", "5")]),
    ]
    worker = await drill.worker()
    trace = drill.request(worker)
    assert trace.snapshot is not None
    rows = trace.snapshot.deployments
    targets = [rows["dep-2"], rows["dep-dear"]]
    await worker.admission.admit(trace, targets=targets, first=rows["dep-2"])
    attempt(trace, "dep-2")
    assert (await drill.budget(f"cred2:cred-2:{month()}"))[1] > 0
    assert await drill.counters("d") == []
    dear = (await drill.budget(f"all:key-alpha:{month()}"))[1]
    await worker.admission.enter(trace, rows["dep-dear"])
    attempt(trace, "dep-dear")
    assert (await drill.budget(f"d:key-alpha:{month()}"))[1] == dear
    assert (await drill.budget(f"cred1:cred-1:{month()}"))[1] == dear
    described = worker.admission.describe(trace)
    assert {entry["counter"].split(":")[0] for entry in described["charged"]} == {
        "all",
        "d",
        "cred1",
    }
    await drill.finish(worker, trace, usd=COST)
    nano = nano_dollars(dollars(1_000_000))
    for name, who in (("all", "key-alpha"), ("d", "key-alpha"), ("cred1", "cred-1")):
        assert await drill.budget(f"{name}:{who}:{month()}") == (nano, 0, nano)
    assert await drill.budget(f"cred2:cred-2:{month()}") == (0, 0, 0)


async def test_a_targets_own_budget_refuses_the_target_alone(drill: Drill) -> None:
    drill.subjects = [subject("credential", "cred-1", budgets=[budget("c", "0", limit_nano=1)])]
    worker = await drill.worker()
    trace = drill.request(worker)
    assert trace.snapshot is not None
    rows = trace.snapshot.by_model["chat"]
    with pytest.raises(TargetRefused) as error:
        await worker.admission.admit(trace, targets=rows, first=rows[0])
    assert error.value.deployment.id == "dep-1"
    await worker.admission.admit(trace, targets=rows, first=rows[1])
    with pytest.raises(TargetRefused):
        await worker.admission.enter(trace, rows[0])


async def test_unpriced_targets_reserve_nothing(drill: Drill) -> None:
    drill.subjects = [subject("key", "key-alpha", budgets=[budget("b", "0", limit_nano=1)])]
    worker = await drill.worker()
    trace = await drill.admit(worker, model="unpriced")
    assert isinstance(trace, Trace)
    worker.admission.settle(trace, cost=None, tokens=5)
    await drill.settled(worker)
    assert await drill.budget(f"b:key-alpha:{month()}") == (0, 0, 0)


async def test_who_has_spent_all_is_refused_without_asking_again(drill: Drill) -> None:
    """Only for a moment, and not when the limit is raised."""
    nano = await estimate(drill)
    drill.subjects = [subject("key", "key-alpha", budgets=[budget("b", "1", limit_nano=2 * nano)])]
    worker = await drill.worker()
    assert worker.admission.counters is not None
    trace = await drill.admit(worker)
    await drill.finish(worker, trace, usd=str(dollars(2 * nano)))
    first = await drill.try_admit(worker)
    asked = await commands(drill)
    second = await drill.try_admit(worker)
    assert await commands(drill) == asked
    assert isinstance(first, Refusal)
    assert isinstance(second, Refusal)
    assert first.message == second.message

    drill.subjects = [subject("key", "key-alpha", budgets=[budget("b", "1", limit_nano=9 * nano)])]
    drill.tell(worker)
    await drill.finish(worker, await drill.admit(worker))

    drill.subjects = [subject("key", "key-alpha", budgets=[budget("b", "1", limit_nano=2 * nano)])]
    drill.tell(worker)
    assert isinstance(await drill.try_admit(worker), Refusal)
    await drill.redis.hset(  # the ledger was corrected
        budget_key(ENVIRONMENT, f"b:key-alpha:{month()}"), "s", "0"
    )
    await asyncio.sleep(JUST_SEEN_MS / 1000)
    await drill.finish(worker, await drill.admit(worker))


async def commands(drill: Drill) -> int:
    """How many scripts Redis has run so far."""
    stats = await drill.redis.info("commandstats")
    return int(stats["cmdstat_evalsha"]["calls"])
