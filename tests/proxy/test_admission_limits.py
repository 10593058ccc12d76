"""Requests and tokens per minute, and at once: exact over workers, sliding, told truly."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.admission_refusals import TargetRefused
from proxy.contract import LimitDocument
from proxy.contract.counters import HOLD_TTL_S
from proxy.refusals import Refusal
from proxy.trace import Trace
from tests.proxy.documents import ENVIRONMENT, budget, limit, subject
from tests.proxy.drill import Drill, admitted, price, refused
from tests.proxy.test_admission_budgets import SUBJECTS

START_MS = 1_790_000_000_000


@pytest.fixture
async def drill() -> AsyncIterator[Drill]:
    async with Drill() as found:
        yield found


def limited(drill: Drill, scope: str = "key", *, name: str = "", **limits: Any) -> LimitDocument:
    """Make one rule of one subject the only one."""
    rule = limit("l", **limits)
    drill.subjects = [subject(scope, name or SUBJECTS[scope], limits=[rule])]
    return rule


@pytest.mark.parametrize("scope", SUBJECTS)
@pytest.mark.parametrize("kind", ["rpm", "parallel", "tpm"])
async def test_workers_together_admit_the_limit(drill: Drill, scope: str, kind: str) -> None:
    rule: dict[str, Any] = {kind: 12 if kind != "tpm" else 2_000}
    limited(drill, scope, **rule)
    workers = await drill.fleet(4)
    user = {"user": SUBJECTS["customer"]} if scope == "customer" else {}
    found = await asyncio.gather(*(drill.try_admit(workers[n % 4], **user) for n in range(60)))
    if kind == "tpm":
        tokens = [use.tokens for one in admitted(found) if one.grant for use in one.grant.windows]
        assert sum(tokens) <= 2_000 < sum(tokens) + tokens[0]
    else:
        assert len(admitted(found)) == 12
    for refusal in refused(found):
        assert (refusal.status, refusal.code) == (429, "rate_limit_exceeded")
        assert refusal.retry_after_s
        assert refusal.retry_after_s <= 60
        assert (b"x-gateway-limit-scope", scope.encode()) in refusal.headers()


@pytest.mark.parametrize("seed", range(6))
async def test_no_minute_ever_holds_more_than_the_limit(drill: Drill, seed: int) -> None:
    """Clients of all tempers over two workers; those who wait as told are admitted."""
    draw = random.Random(seed)
    rpm, pace_ms = draw.randrange(1, 9), draw.choice([40, 400, 4_000, 12_000])
    limited(drill, rpm=rpm)
    workers = await drill.fleet(2)
    now_ms, passed = START_MS + draw.randrange(1000), list[int]()
    for _ in range(150):
        now_ms += draw.randrange(pace_ms)
        drill.at(now_ms)
        found = await drill.try_admit(draw.choice(workers))
        if isinstance(found, Refusal) and draw.random() < 0.3:
            assert found.retry_after_s is not None
            oldest = min(moment for moment in passed if moment > now_ms - 60_000)
            assert found.retry_after_s * 1000 < oldest + 60_000 - now_ms + 2_000
            now_ms += found.retry_after_s * 1000
            drill.at(now_ms)
            found = await drill.admit(draw.choice(workers))
        if isinstance(found, Trace):
            passed.append(now_ms)
    for moment in passed:
        assert sum(moment - 60_000 < other <= moment for other in passed) <= rpm
    assert len(passed) > rpm


async def test_tokens_are_corrected_when_they_are_known(drill: Drill) -> None:
    limited(drill, tpm=1_000)
    worker = await drill.worker()
    trace = await drill.admit(worker, max_tokens=900)
    assert isinstance(await drill.try_admit(worker, max_tokens=500), Refusal)
    await drill.finish(worker, trace, tokens=50)
    second = await drill.admit(worker, max_tokens=850)
    await drill.finish(worker, second, tokens=960)
    refusal = await drill.try_admit(worker, max_tokens=1)
    assert isinstance(refusal, Refusal)
    assert "tokens per minute" in refusal.message


async def test_a_request_larger_than_the_limit_passes_an_empty_window(drill: Drill) -> None:
    limited(drill, tpm=100)
    worker = await drill.worker()
    await drill.admit(worker, max_tokens=5_000)
    assert isinstance(await drill.try_admit(worker, max_tokens=1), Refusal)


async def test_a_place_is_free_when_a_request_ends_or_its_worker_is_lost(drill: Drill) -> None:
    limited(drill, parallel=2)
    lost, worker = await drill.fleet(2)
    first = await drill.admit(worker)
    await drill.admit(lost)
    refusal = await drill.try_admit(worker)
    assert isinstance(refusal, Refusal)
    assert "2 at once, 2 are running" in refusal.message
    await drill.finish(worker, first)
    kept = await drill.admit(worker)
    assert isinstance(await drill.try_admit(worker), Refusal)
    now_ms = worker.clock.now_ms()
    drill.at(now_ms + (HOLD_TTL_S - 5) * 1000)
    await worker.heartbeat.beat()
    drill.at(now_ms + (HOLD_TTL_S + 5) * 1000)
    await drill.admit(worker)  # the lost worker's place
    assert isinstance(await drill.try_admit(worker), Refusal)
    await drill.finish(worker, kept)
    await drill.admit(worker)


async def test_what_one_rule_refuses_is_not_counted_by_the_others(drill: Drill) -> None:
    drill.subjects = [
        subject("team", "team-1", limits=[limit("team", rpm=100, parallel=100)]),
        subject("key", "key-alpha", budgets=[budget("b", "0", limit_nano=1)]),
    ]
    worker = await drill.worker()
    for _ in range(5):
        assert isinstance(await drill.try_admit(worker), Refusal)
    free = await drill.admit(worker, model="free")
    headers = dict(worker.admission.headers(free))
    assert headers[b"x-ratelimit-remaining-requests"] == b"99"
    assert await drill.redis.zcard(f"{{gw:{ENVIRONMENT}}}:c:team:team-1:*") == 1


async def test_own_limits_replace_the_defaults_of_the_same_model(drill: Drill) -> None:
    drill.subjects = [
        subject("key", "*", limits=[limit("d", rpm=1), limit("m", model="dear", rpm=1)]),
        subject("key", "key-alpha", limits=[limit("own", rpm=3)]),
    ]
    worker = await drill.worker()
    await drill.admit(worker, model="dear")
    refusal = await drill.try_admit(worker, model="dear")
    assert isinstance(refusal, Refusal)
    assert "for the model 'dear'" in refusal.message
    await drill.admit(worker)
    await drill.admit(worker)
    refusal = await drill.try_admit(worker)
    assert isinstance(refusal, Refusal)
    assert "3 requests per minute" in refusal.message


async def test_a_deployments_own_limit_refuses_the_target_alone(drill: Drill) -> None:
    for row in drill.content["deployments"]:
        if row["id"] == "dep-1":
            row["rpm"] = 2
            row["price"] = price("0.001", "0.001")  # type: ignore[typeddict-item]
    worker = await drill.worker()
    for _ in range(2):
        await drill.admit(worker)
    trace = drill.request(worker)
    assert trace.snapshot is not None
    rows = trace.snapshot.by_model["chat"]
    with pytest.raises(TargetRefused) as error:
        await worker.admission.admit(trace, targets=rows, first=rows[0])
    assert error.value.retry_after_s
    await worker.admission.admit(trace, targets=rows, first=rows[1])
