"""What a stop of Redis may cost at most, computed and asserted.

A worker that cannot reach the counters spends from its share: the balance it last heard,
divided by the workers that were alive. It hears the balance with each admission and with
each heartbeat, so what it does not know of is what the others were granted since then.

    overspend <= (workers - 1) / workers x (granted by all in the last heartbeat interval)

With "refuse" nothing is admitted and nothing overspent.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal

import httpx
import pytest

from proxy.contract.counters import HEARTBEAT_S, dollars
from tests.acceptance.counters import Counters
from tests.chaos.site import Site, running_site

LIMIT = Decimal("0.05")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running_site(workers_each=2) as running:
        running.stack.simulator.control(kind="openai", latency_ms=50, output_tokens=20)
        yield running


def test_shares_bound_the_overspend(site: Site) -> None:
    issued = site.stack.issue_key("strict")
    budget = site.stack.api.post(
        "budgets/", environment="prod", scope="key", subject=issued["id"],
        limit_usd=str(LIMIT), period="lifetime",
    )  # fmt: skip
    site.stack.policies_in_force()
    counters = Counters(site.redis_url)
    asyncio.run(spend(site, issued["key"], seconds=8))
    before = counters.of_budget(budget["id"])
    time.sleep(HEARTBEAT_S + 1)  # everybody has heard the balance
    asyncio.run(spend(site, issued["key"], seconds=1))
    granted = counters.of_budget(budget["id"])["s"] - before["s"]
    site.wire.refuse()
    try:
        statuses = asyncio.run(spend(site, issued["key"], seconds=40))
    finally:
        site.wire.restore()
    site.wait_healthy()
    site.stack.wait_for(
        lambda: counters.of_budget(budget["id"])["p"] == 0, "all is in the ledger", timeout_s=60
    )
    time.sleep(3)
    spent = dollars(counters.of_budget(budget["id"])["s"])
    workers = site.stack.worker_count
    bound = LIMIT + dollars(granted) * (workers - 1) / workers
    print(f"limit ${LIMIT}, bound ${bound}, spent ${spent}: {dict(statuses)}")  # noqa: T201
    assert spent <= bound
    assert set(statuses) <= {"200", "429 insufficient_quota"}
    assert statuses["429 insufficient_quota"] > 0


def test_refuse_spends_nothing(site: Site) -> None:
    site.stack.api.patch("environments/prod/", on_counter_outage="refuse")
    site.stack.publish("refuse without counters")
    issued = site.stack.issue_key("stricter")
    budget = site.stack.api.post(
        "budgets/", environment="prod", scope="key", subject=issued["id"],
        limit_usd=str(LIMIT), period="lifetime",
    )  # fmt: skip
    site.stack.policies_in_force()
    counters = Counters(site.redis_url)
    asyncio.run(spend(site, issued["key"], seconds=3))
    site.stack.wait_for(lambda: counters.holds() == 0, "what was admitted is settled")
    site.wire.refuse()
    try:
        time.sleep(1)
        spent = counters.of_budget(budget["id"])["s"]
        statuses = asyncio.run(spend(site, issued["key"], seconds=10))
    finally:
        site.wire.restore()
    site.wait_healthy()
    assert set(statuses) == {"503 counters_unavailable"}, statuses
    assert counters.of_budget(budget["id"])["s"] == spent


async def spend(site: Site, key: str, *, seconds: float) -> Counter[str]:
    """Eight callers on both replicas; how many of each answer."""
    seen: Counter[str] = Counter()
    until = time.monotonic() + seconds
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:

        async def caller(number: int) -> None:
            while time.monotonic() < until:
                number += 1
                answer = await client.post(
                    f"{site.urls[number % 2]}/v1/chat/completions",
                    headers={"Authorization": f"Bearer {key}"},
                    json={
                        "model": "openai-chat",
                        "max_tokens": 20,
                        "messages": [{"role": "user", "content": "Say something short."}],
                    },
                )
                code = "" if answer.status_code == 200 else answer.json()["error"]["code"]
                seen[f"{answer.status_code} {code}".strip()] += 1
                await asyncio.sleep(0.05)

        await asyncio.gather(*(caller(number) for number in range(8)))
    return seen
