"""Publishing and revoking while traffic flows; what the test and the benchmark share."""

import asyncio
import time
from collections import Counter

import httpx

from tests.acceptance.stack import Stack

DEPLOYMENTS = 100
CALLERS = 4
PAUSE_S = 0.02
REVOKED_LOOK_S = 2.0  # how long a revoked key is tried after its revocation


def add_deployments(stack: Stack) -> None:
    """Fill up to DEPLOYMENTS, published."""
    for number in range(DEPLOYMENTS - len(stack.deployments)):
        stack.add_deployment(f"more-{number}", "openai-chat", "openai", f"gpt-4o-{number}")
    stack.publish(f"{DEPLOYMENTS} deployments")


async def publish_under_load(stack: Stack, publishes: int) -> tuple[list[float], Counter[int]]:
    """Seconds from each publish to each worker's acknowledgement, and the callers' statuses."""
    statuses: Counter[int] = Counter()
    finished = asyncio.Event()
    headers = {"Authorization": f"Bearer {stack.key}"}
    async with httpx.AsyncClient(
        base_url=stack.proxy, headers=headers, timeout=30, trust_env=False
    ) as client:

        async def call_until_finished() -> None:
            body = {"model": "openai-chat", "messages": [{"role": "user", "content": "hello"}]}
            while not finished.is_set():
                answer = await client.post("/v1/chat/completions", json=body)
                statuses[answer.status_code] += 1
                await asyncio.sleep(PAUSE_S)

        callers = [asyncio.create_task(call_until_finished()) for _ in range(CALLERS)]
        try:
            taken = await asyncio.to_thread(_publish_often, stack, publishes)
        finally:
            finished.set()
            await asyncio.gather(*callers)
    return taken, statuses


def _publish_often(stack: Stack, publishes: int) -> list[float]:
    taken = []
    for number in range(publishes):
        changed = stack.deployments[f"more-{number % 50}"]
        stack.api.patch(f"deployments/{changed}/", weight=number + 2)
        taken += _acknowledged_s(stack, stack.publish(f"weight of {number}"))
    return taken


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


def last_accepted_s(stack: Stack, name: str) -> float:
    """Issue a key and revoke it; seconds after the revocation at which a worker still took it."""
    issued = stack.issue_key(name)
    headers = {"Authorization": f"Bearer {issued['key']}", "Connection": "close"}
    stack.api.post(f"keys/{issued['id']}/revoke/")
    began = time.monotonic()
    accepted = 0.0
    while (passed := time.monotonic() - began) < REVOKED_LOOK_S:
        status = httpx.get(f"{stack.proxy}/v1/models", headers=headers).status_code
        assert status in {200, 401}, status
        accepted = passed if status == 200 else accepted
    return accepted
