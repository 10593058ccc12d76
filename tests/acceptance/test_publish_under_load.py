"""Publishes and revocations reach every worker while traffic flows, and no request fails."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.acceptance.stack import Stack

pytestmark = [pytest.mark.fleet, pytest.mark.xdist_group("acceptance-2")]

DEPLOYMENTS = 100
PUBLISHES = 12
CALLERS = 4
WITHIN_S = 1.0


@pytest.fixture(scope="module")
def large_stack(stack: Stack) -> Stack:
    for number in range(DEPLOYMENTS - len(stack.deployments)):
        stack.add_deployment(f"more-{number}", "openai-chat", "openai", f"gpt-4o-{number}")
    stack.publish("a hundred deployments")
    return stack


class Load:
    """Callers that keep asking until told to stop; each answer's status is counted."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.statuses: dict[int, int] = {}
        self.stopping = False

    async def call_forever(self, client: httpx.AsyncClient) -> None:
        body = {"model": "openai-chat", "messages": [{"role": "user", "content": "hello"}]}
        while not self.stopping:
            answer = await client.post("/v1/chat/completions", json=body)
            self.statuses[answer.status_code] = self.statuses.get(answer.status_code, 0) + 1
            await asyncio.sleep(0.02)

    async def during(self, work: Callable[[], Awaitable[Any]]) -> Any:
        headers = {"Authorization": f"Bearer {self.stack.key}"}
        async with httpx.AsyncClient(
            base_url=self.stack.proxy, headers=headers, timeout=30, trust_env=False
        ) as client:
            callers = [asyncio.create_task(self.call_forever(client)) for _ in range(CALLERS)]
            try:
                return await work()
            finally:
                self.stopping = True
                await asyncio.gather(*callers)


def _acknowledged_s(stack: Stack, number: int) -> list[float]:
    """Seconds from the publish to each worker's acknowledgement, by the server's clock."""
    rows = stack.database(
        "SELECT extract(epoch FROM w.acknowledged_at - r.published_at) AS seconds "
        "FROM fleet_replicaworker w JOIN fleet_replica p ON p.id = w.replica_id "
        "JOIN fleet_revision r ON r.environment_id = p.environment_id "
        "AND r.number = w.applied_revision WHERE r.number = %s",
        number,
    )
    return [float(row["seconds"]) for row in rows]


def test_publish_reaches_every_worker(large_stack: Stack) -> None:
    stack = large_stack
    taken: list[float] = []

    async def publish_often() -> None:
        for number in range(PUBLISHES):
            changed = stack.deployments[f"more-{number}"]
            await asyncio.to_thread(stack.api.patch, f"deployments/{changed}/", weight=number + 2)
            revision = await asyncio.to_thread(stack.publish, f"weight of {number}")
            taken.extend(await asyncio.to_thread(_acknowledged_s, stack, revision))

    load = Load(stack)
    asyncio.run(load.during(publish_often))
    assert set(load.statuses) == {200}, load.statuses
    assert load.statuses[200] > 100
    assert len(taken) == PUBLISHES * 2
    worst = statistics.quantiles(taken, n=100)[98]
    print(  # noqa: T201
        f"{PUBLISHES} publishes of {DEPLOYMENTS} deployments, {load.statuses[200]} requests: "
        f"p50 {statistics.median(taken):.3f} s, p99 {worst:.3f} s, max {max(taken):.3f} s"
    )
    assert max(taken) < WITHIN_S


def test_revoked_key_is_refused_everywhere(large_stack: Stack) -> None:
    stack = large_stack
    taken = []
    for number in range(5):
        issued = stack.issue_key(f"revoked {number}")
        headers = {"Authorization": f"Bearer {issued['secret']}", "Connection": "close"}
        stack.api.post(f"keys/{issued['id']}/revoke/")
        began = time.monotonic()
        last_accepted = 0.0
        while time.monotonic() - began < WITHIN_S + 1:
            answer = httpx.get(f"{stack.proxy}/v1/models", headers=headers)
            if answer.status_code == 200:
                last_accepted = time.monotonic() - began
            else:
                assert answer.status_code == 401
        taken.append(last_accepted)
    print(f"revoked keys last accepted after {[round(t, 3) for t in taken]} s")  # noqa: T201
    assert max(taken) < WITHIN_S
