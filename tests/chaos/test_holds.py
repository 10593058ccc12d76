"""Workers that die with requests in their hands leave no phantom reservation behind."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import httpx
import pytest

from proxy.contract.counters import HOLD_TTL_S, nano_dollars
from tests.acceptance.counters import Counters
from tests.acceptance.stack import Stack, running_stack

WORKERS = 5
STREAMS = 40
GRACE_S = 20


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack(workers=WORKERS, GATEWAY_ABANDONED_GRACE_S=str(GRACE_S)) as running:
        yield running


def test_a_fifth_of_the_workers_dies_mid_stream(stack: Stack) -> None:
    since = datetime.now(UTC)
    counters = Counters.of(stack)
    budget = stack.api.post(
        "budgets/", environment="prod", scope="environment", limit_usd="50", period="month"
    )
    stack.policies_in_force()
    stack.simulator.control(
        kind="openai", first_token_ms=100, token_interval_ms=200, output_tokens=60
    )
    whole: list[str] = []
    threads = [
        threading.Thread(target=stream, args=(stack, f"holder-{number}", whole))
        for number in range(STREAMS)
    ]
    for thread in threads:
        thread.start()
    stack.wait_for(lambda: counters.holds() == STREAMS, "every stream holds", timeout_s=60)
    victim = busiest_worker(stack)
    os.kill(victim, signal.SIGKILL)
    for thread in threads:
        thread.join()
    broken = STREAMS - len(whole)
    assert broken > 0
    began = time.monotonic()
    stack.wait_for(lambda: counters.holds() == 0, "holds expired", timeout_s=HOLD_TTL_S + 60)
    expired_s = time.monotonic() - began
    stack.wait_for(
        lambda: len(abandoned(stack, since)) == broken, "they are listed", timeout_s=GRACE_S + 90
    )
    stack.wait_for(lambda: settled(counters, budget["id"]), "settled", timeout_s=60)
    row = stack.database(
        "SELECT sum(ceil(cost * 1e9)) AS nano, count(*) AS n FROM usage_event"
        " WHERE started_at >= %s",
        since,
    )[0]
    drift = counters.of_budget(budget["id"])["s"] - int(row["nano"])
    print(  # noqa: T201
        f"{len(whole)} whole, {broken} abandoned and listed, holds gone after {expired_s:.0f} s, "
        f"drift {drift} nano-dollars"
    )
    assert row["n"] == STREAMS
    assert drift == 0
    charged = {Decimal(event["cost"]) for event in abandoned(stack, since)}
    assert all(nano_dollars(cost) > 0 for cost in charged)  # the prompt was sent


def stream(stack: Stack, mark: str, whole: list[str]) -> None:
    body = {
        "model": "openai-chat", "user": mark, "stream": True, "max_tokens": 100,
        "messages": [{"role": "user", "content": f"Tell a long story. {mark}"}],
    }  # fmt: skip
    headers = {"Authorization": f"Bearer {stack.key}", "Connection": "close"}
    try:
        answer = httpx.post(
            f"{stack.proxy}/v1/chat/completions", json=body, headers=headers, timeout=120
        )
    except httpx.TransportError:
        return
    if answer.status_code == 200 and "[DONE]" in answer.text:
        whole.append(mark)


def busiest_worker(stack: Stack) -> int:
    """The worker process with the most connections to the simulator."""
    port = int(stack.simulator.base_url.rpartition(":")[2])
    pids = [int(worker["pid"]) for worker in stack.workers()]
    return max(pids, key=lambda pid: connections(pid, port))


def connections(pid: int, port: int) -> int:
    """Established TCP connections of a process to a local port."""
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    with open(f"/proc/{pid}/net/tcp") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return sum(1 for row in rows if row[9] in inodes and int(row[2].rpartition(":")[2], 16) == port)


def settled(counters: Counters, budget_id: str) -> bool:
    row = counters.of_budget(budget_id)
    return row["h"] == 0 and row["p"] == 0


def abandoned(stack: Stack, since: datetime) -> list[dict[str, str]]:
    return [event for event in stack.events(since) if event["status"] == "abandoned"]
